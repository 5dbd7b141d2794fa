//! What was: settled conflicts, answered requests, and purges that wait for receipts.

use std::collections::HashSet;

use bytes::Bytes;

use super::pack::keys_of;
use super::records::range;
use super::sql::{Args, Rows, Sql, blob, int, latest_of_each, name, text};
use super::{Store, StoreError};
use crate::division::Division;
use crate::ingest::changes::{RecordKey, RequestMemory, Resolution};
use crate::record::{FieldNumber, RecordName};

/// Answers are remembered for so long.
const REQUESTS_KEPT_MS: u64 = 7 * 24 * 3_600_000;
/// Outbox rows read at a time.
const ROWS_A_READ: i64 = 256;

/// A conflict that was settled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResolutionRow {
    /// Its number; later ones have greater numbers.
    pub id: i64,
    /// The record's number.
    pub key: RecordKey,
    /// Its name.
    pub name: RecordName,
    /// The field.
    pub field: FieldNumber,
    /// The register before, encoded as a record with this field alone.
    pub before: Bytes,
    /// The register after, encoded the same way.
    pub after: Bytes,
    /// Unix milliseconds.
    pub resolved_ms: u64,
}

static RESOLVE: Rows = Rows::new(
    "WITH new (key, field, before, after, resolved_ms) AS (VALUES",
    "(?,?,?,?,?)",
    ") INSERT INTO resolution (county, key, field, before, after, resolved_ms)
       SELECT r.county, new.key, new.field, new.before, new.after, new.resolved_ms
       FROM new CROSS JOIN record r ON r.key = new.key",
);
static ANSWER: Rows = Rows::new(
    "INSERT INTO request (request_id, content, key, done_ms) VALUES",
    "(?,?,?,?)",
    "ON CONFLICT (request_id) DO UPDATE SET content = excluded.content, key = excluded.key, done_ms = excluded.done_ms",
);
static PURGE: Rows = Rows::new("INSERT INTO purge (key) VALUES", "(?)", "ON CONFLICT (key) DO NOTHING");

/// Adds settled conflicts.
pub(super) async fn resolve(sql: &mut Sql<'_>, resolutions: &[Resolution]) -> Result<(), StoreError> {
    sql.many(&RESOLVE, resolutions, |args, resolution| {
        args.push_int(resolution.key);
        args.push_int(i64::from(resolution.field));
        args.push_blob(&resolution.before);
        args.push_blob(&resolution.after);
        args.push_int(resolution.resolved_ms as i64);
    })
    .await?;
    Ok(())
}

/// Remembers answers, and forgets the oldest that are out of date: a few more than are added.
pub(super) async fn answer(
    sql: &mut Sql<'_>,
    requests: &[RequestMemory],
    now_ms: u64,
) -> Result<(), StoreError> {
    if requests.is_empty() {
        return Ok(());
    }
    let forget = "DELETE FROM request
        WHERE id IN (SELECT id FROM request ORDER BY id LIMIT ?) AND done_ms < ?";
    let before = now_ms.saturating_sub(REQUESTS_KEPT_MS) as i64;
    sql.run(forget, Args::ints(&[requests.len() as i64 * 2 + 8, before])).await?;
    sql.many(&ANSWER, &latest_of_each(requests, |request| &request.request_id), |args, request| {
        args.push_text(&request.request_id);
        args.push_int(request.content as i64);
        args.push_int(request.key);
        args.push_int(request.done_ms as i64);
    })
    .await?;
    Ok(())
}

/// Notes purges that are done, then those to come.
pub(super) async fn purge(
    sql: &mut Sql<'_>,
    to_come: &[RecordKey],
    done: &[RecordKey],
) -> Result<(), StoreError> {
    if !done.is_empty() {
        let delete = "DELETE FROM purge WHERE key IN (SELECT value FROM json_each(?))";
        sql.run(delete, Args::new().list(done.iter().copied())).await?;
    }
    let mut to_come = to_come.to_vec();
    to_come.sort_unstable();
    to_come.dedup();
    sql.many(&PURGE, &to_come, |args, key| args.push_int(*key)).await?;
    Ok(())
}

impl Store {
    /// Settled conflicts of records with a home in `scope`, latest first, beginning before the number `before`.
    pub async fn resolutions(
        &self,
        scope: Option<Division>,
        before: Option<i64>,
        limit: usize,
    ) -> Result<Vec<ResolutionRow>, StoreError> {
        let list = "SELECT s.id, s.key, r.kind, r.home, r.id, s.field, s.before, s.after, s.resolved_ms
            FROM resolution s CROSS JOIN record r ON r.key = s.key AND r.county = s.county
            WHERE s.id < ? AND r.home BETWEEN ? AND ? ORDER BY s.id DESC LIMIT ?";
        let (low, high) = range(scope);
        let args = Args::ints(&[before.unwrap_or(i64::MAX), low, high, limit as i64]);
        let rows = self.reader().await?.sql().rows(list, args).await?;
        let resolution = |row| {
            Ok(ResolutionRow {
                id: int(row, 0)?,
                key: int(row, 1)?,
                name: name(row, 2)?,
                field: int(row, 5)? as FieldNumber,
                before: blob(row, 6)?,
                after: blob(row, 7)?,
                resolved_ms: int(row, 8)? as u64,
            })
        };
        rows.iter().map(resolution).collect()
    }

    /// The answer to a request id.
    pub async fn request(&self, request_id: &str) -> Result<Option<RequestMemory>, StoreError> {
        let get = "SELECT request_id, content, key, done_ms FROM request WHERE request_id = ?";
        let row = self.reader().await?.sql().row(get, Args::new().text(request_id)).await?;
        let request = |row| {
            Ok(RequestMemory {
                request_id: text(&row, 0)?,
                content: int(&row, 1)? as u64,
                key: int(&row, 2)?,
                done_ms: int(&row, 3)? as u64,
            })
        };
        row.map(request).transpose()
    }

    /// Records that wait to be purged and that no child is owed any more. Reads the children's outboxes if any wait.
    pub async fn purges_ready(&self, limit: usize) -> Result<Vec<RecordKey>, StoreError> {
        let mut reader = self.reader().await?;
        let mut sql = reader.sql();
        // Before the outboxes: what is owed in one transaction with its purge is then seen. What a child refused, nobody
        // but this node has.
        let waiting = "SELECT key FROM purge WHERE key NOT IN
            (SELECT key FROM quarantine WHERE peer IN (SELECT peer FROM peer WHERE role = 2)) ORDER BY key";
        let rows = sql.rows(waiting, Args::new()).await?;
        let mut waiting = rows.iter().map(|row| int(row, 0)).collect::<Result<Vec<RecordKey>, _>>()?;
        let mut after = 0;
        while !waiting.is_empty() {
            let owed = "SELECT seq, keys FROM outbox
                WHERE seq > ? AND peer IN (SELECT peer FROM peer WHERE role = 2) ORDER BY seq LIMIT ?";
            let rows = sql.rows(owed, Args::ints(&[after, ROWS_A_READ])).await?;
            let Some(last) = rows.last() else { break };
            after = int(last, 0)?;
            let mut keys = HashSet::new();
            for row in &rows {
                keys.extend(keys_of(&blob(row, 1)?)?);
            }
            waiting.retain(|key| !keys.contains(key));
        }
        waiting.truncate(limit);
        Ok(waiting)
    }
}
