//! What a store remembers of content beside the records, and forgets when that is erased: settled conflicts, what a
//! ledger's rows brought, rows that are held, refusals, and the contents of requests. All in the transaction that takes
//! the mark in.
//!
//! Erasures are rare: tables that have no index by record are read as a whole, once for all erasures of a transaction.
//! What is purged must not stay in free pages or logs either: see `Writer::scrub`.

use std::collections::BTreeMap;

use guantong_proto::v1;
use prost::Message;

use super::pack::{hashes_of, pack_hashes};
use super::sql::{Args, Conn, Sql, blob, int, text};
use super::{Store, StoreError, Writer};
use crate::audit::{Beside, Event, Note};
use crate::erasure::Erasures;
use crate::ingest::changes::{ErasedContent, RecordKey};
use crate::record::{FieldNumber, codec, raw};
use crate::stamp::Stamp;

/// A store in one file is written anew after an erasure up to this size; beyond, only what was written over since is
/// known to be gone from its unused bytes.
pub const REWRITTEN_MAX_BYTES: u64 = 256 * 1024 * 1024;
/// What held content, on PostgreSQL.
const VACUUMED: [&str; 5] =
    ["VACUUM record", "VACUUM resolution", "VACUUM import_row", "VACUUM held", "VACUUM request"];
/// Rows read at a time.
const ROWS_A_READ: i64 = 256;

/// Forgets content. Gives what is to be noted of it, with what went.
pub(super) async fn forget(sql: &mut Sql<'_>, erased: &[ErasedContent]) -> Result<Vec<Note>, StoreError> {
    if erased.is_empty() {
        return Ok(Vec::new());
    }
    let mut fields: BTreeMap<RecordKey, BTreeMap<FieldNumber, Stamp>> = BTreeMap::new();
    for content in erased {
        let of_record = fields.entry(content.key).or_default();
        for (field, before) in &content.fields {
            let latest = of_record.entry(*field).or_default();
            *latest = (*latest).max(*before);
        }
    }
    let mut gone = Gone::new();
    settled_conflicts(sql, &fields, &mut gone).await?;
    ledger_rows(sql, &fields, &mut gone).await?;
    held_rows(sql, erased, &mut gone).await?;
    for (key, of_record) in &fields {
        let refused = "DELETE FROM quarantine WHERE key = ? AND field IN (SELECT value FROM json_each(?))";
        let args = Args::ints(&[*key]).list(of_record.keys().map(|f| i64::from(*f)));
        gone.entry(*key).or_default().refusals += sql.run(refused, args).await?;
    }
    // A request that is repeated now is refused: nobody can say any more that it is the same.
    let requests = "UPDATE request SET content = 0 WHERE key IN (SELECT value FROM json_each(?))";
    sql.run(requests, Args::new().list(fields.keys().copied())).await?;
    sql.run("UPDATE node SET unscrubbed = 1 WHERE slot = ?", Args::ints(&[sql.slot()])).await?;
    Ok(erased.iter().map(|content| noted(content, &mut gone)).collect())
}

type Fields = BTreeMap<RecordKey, BTreeMap<FieldNumber, Stamp>>;
/// What went beside each record.
type Gone = BTreeMap<RecordKey, Beside>;

/// What is noted of an erasure. Of several of one record the first has what went.
fn noted(content: &ErasedContent, gone: &mut Gone) -> Note {
    let mut event = content.event.clone();
    if let Event::Erased { beside, .. } = &mut event {
        *beside = gone.remove(&content.key).unwrap_or_default();
    }
    event.into()
}

async fn settled_conflicts(sql: &mut Sql<'_>, fields: &Fields, all: &mut Gone) -> Result<(), StoreError> {
    let list = "SELECT id, key, field, before, after FROM resolution
        WHERE key IN (SELECT value FROM json_each(?))";
    for row in sql.rows(list, Args::new().list(fields.keys().copied())).await? {
        let (id, key, field) = (int(&row, 0)?, int(&row, 1)?, int(&row, 2)? as FieldNumber);
        let Some(before) = fields.get(&key).and_then(|of_record| of_record.get(&field)) else { continue };
        let erasures = Erasures::of_fields([(field, *before)]);
        let mut gone = 0;
        let mut sides = Vec::with_capacity(2);
        for column in [3, 4] {
            let mut record =
                codec::decode(blob(&row, column)?).map_err(|e| StoreError::Corrupt(e.to_string()))?;
            gone += erasures.apply(&mut record);
            sides.push(record);
        }
        if gone == 0 {
            continue;
        }
        all.entry(key).or_default().history += 1;
        let says_something = sides
            .first()
            .is_some_and(|before| before.get(field).is_some_and(|register| register.live().next().is_some()));
        if says_something {
            let [before, after] = [0, 1].map(|side| codec::encode(&sides[side]));
            let change = "UPDATE resolution SET before = ?, after = ? WHERE id = ?";
            sql.run(change, Args::new().blob(&before).blob(&after).int(id)).await?;
        } else {
            sql.run("DELETE FROM resolution WHERE id = ?", Args::ints(&[id])).await?;
        }
    }
    Ok(())
}

/// Hashes of values, which for a telephone number are as good as the number.
async fn ledger_rows(sql: &mut Sql<'_>, fields: &Fields, gone: &mut Gone) -> Result<(), StoreError> {
    let list = "SELECT source, row, key, field_hashes FROM import_row
        WHERE key IN (SELECT value FROM json_each(?))";
    for row in sql.rows(list, Args::new().list(fields.keys().copied())).await? {
        let key = int(&row, 2)?;
        let Some(of_record) = fields.get(&key) else { continue };
        let mut hashes = hashes_of(&blob(&row, 3)?)?;
        let before = hashes.len();
        hashes.retain(|field, _| !of_record.contains_key(field));
        if hashes.len() != before {
            gone.entry(key).or_default().ledger_cells += (before - hashes.len()) as u64;
            let change = "UPDATE import_row SET field_hashes = ? WHERE source = ? AND row = ?";
            let args = Args::new().blob(&pack_hashes(&hashes)).int(int(&row, 0)?).text(&text(&row, 1)?);
            sql.run(change, args).await?;
        }
    }
    Ok(())
}

async fn held_rows(sql: &mut Sql<'_>, erased: &[ErasedContent], gone: &mut Gone) -> Result<(), StoreError> {
    let list = "SELECT h.id, s.kind, h.row FROM held h JOIN source s ON s.source = h.source
        WHERE h.id > ? ORDER BY h.id LIMIT ?";
    let mut after = 0;
    loop {
        let rows = sql.rows(list, Args::ints(&[after, ROWS_A_READ])).await?;
        let Some(last) = rows.last() else { return Ok(()) };
        after = int(last, 0)?;
        for row in &rows {
            let Ok(mut held) = v1::ImportRow::decode(blob(row, 2)?) else { continue };
            let kind = int(row, 1)?;
            let id = if held.record_id.is_empty() { &held.key } else { &held.record_id };
            let is_it = |content: &&ErasedContent| {
                let name = &content.name;
                i64::from(name.kind.0) == kind && *name.id == **id && name.home.to_string() == held.home
            };
            let Some(content) = erased.iter().find(is_it) else { continue };
            let pieces = raw::split(&held.fields).unwrap_or_default();
            let is_kept = |field: &FieldNumber| content.fields.iter().all(|(f, _)| f != field);
            let (left, taken): (Vec<_>, Vec<_>) = pieces.iter().partition(|(field, _)| is_kept(field));
            gone.entry(content.key).or_default().held_cells += taken.len() as u64;
            held.fields =
                left.into_iter().flat_map(|(_, value)| value.iter().copied()).collect::<Vec<u8>>().into();
            let change = "UPDATE held SET row = ? WHERE id = ?";
            sql.run(change, Args::new().blob(&held.encode_to_vec()).int(int(row, 0)?)).await?;
        }
    }
}

async fn checkpoint(sql: &mut Sql<'_>) -> Result<bool, StoreError> {
    Ok(sql.number("PRAGMA wal_checkpoint(TRUNCATE)", Args::new()).await? == 0)
}

impl Store {
    /// Whether unused bytes may still hold something that was erased, those of other gateways' changes too.
    pub async fn is_clearing(&self) -> Result<bool, StoreError> {
        let flags = "SELECT COUNT(*) FROM node WHERE unscrubbed <> 0";
        Ok(self.reader().await?.sql().number(flags, Args::new()).await? != 0)
    }
}

impl Writer {
    /// Whether something was erased since `scrub` was done.
    pub async fn is_unscrubbed(&mut self) -> Result<bool, StoreError> {
        let mut conn = self.take().await?;
        let mut sql = conn.sql(None);
        let flag = "SELECT unscrubbed FROM node WHERE slot = ?";
        let unscrubbed = sql.number(flag, Args::ints(&[sql.slot()])).await? != 0;
        self.conn = Some(conn);
        Ok(unscrubbed)
    }

    /// Lets nothing of what was purged stay in the store's unused bytes. SQLite: its log is emptied, and what was purged
    /// was written over in place; with `rewrite` a store of up to `REWRITTEN_MAX_BYTES` is written anew, too. PostgreSQL: the tables concerned are vacuumed; its own log, replicas and backups are its administrator's.
    /// Gives whether it is done: while someone reads, the log cannot be emptied.
    pub async fn scrub(&mut self, rewrite: bool) -> Result<bool, StoreError> {
        let small = rewrite && self.store().size_bytes().await? <= REWRITTEN_MAX_BYTES;
        let mut conn = self.take().await?;
        let is_file = matches!(conn, Conn::Sqlite(_));
        let mut sql = conn.sql(self.faults.as_deref());
        if is_file && small {
            sql.run("VACUUM", Args::new()).await?;
        }
        for table in VACUUMED.iter().filter(|_| rewrite && !is_file) {
            sql.run(table, Args::new()).await?;
        }
        // Nobody reads an earlier state any more once the log is empty.
        let emptied = !is_file || checkpoint(&mut sql).await?;
        if emptied && rewrite {
            sql.run("UPDATE node SET unscrubbed = 0 WHERE slot = ?", Args::ints(&[sql.slot()])).await?;
        }
        self.conn = Some(conn);
        Ok(emptied)
    }
}
