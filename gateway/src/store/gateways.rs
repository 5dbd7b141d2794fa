//! Several gateway processes on one database: no two decide by different states of what they share, each hears what the
//! others wrote, and a duty that one of them has to do is done by one.
//!
//! What gateways keep in memory (peers, writers, divisions, grants, claims and the like) has a number, the shared
//! revision. A transaction that changes any of it runs alone and raises the number; any other names the number that it
//! was decided from, and is refused where that has risen. So no record is written by a gateway that does not know yet
//! whom it is owed to, and no stamp goes in that was claimed already. Nothing here depends on a clock or a leader.

use std::time::Duration;

use sqlx::postgres::PgListener;

use super::sql::{Args, Conn, Sql, int};
use super::{Database, Store, StoreError, Writer};
use crate::ingest::changes::{Changes, LinkChange};
use crate::ingest::topology::PeerId;

/// The second number of every advisory lock of a store: its table, which stands for its schema.
macro_rules! store_number {
    () => {
        "CAST(CAST(CAST('node' AS regclass) AS oid)::bigint - 2147483648 AS INTEGER)"
    };
}
/// Transactions hold this lock together, or alone.
macro_rules! shared_lock {
    () => {
        concat!("(1196715824, ", store_number!(), ")")
    };
}
const UPLINK_LOCK: &str =
    concat!("SELECT CAST(pg_try_advisory_lock(1196715825, ", store_number!(), ") AS INTEGER)");
/// How long a connection that nobody uses may take to answer.
const HOLD_TIME: Duration = Duration::from_secs(4);
/// The longest notice; PostgreSQL takes less than 8,000 bytes.
const NOTICE_MAX: usize = 4_000;

/// What gateways share, by number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct View {
    /// Rises with every change.
    pub revision: u64,
    /// The number at which divisions and thresholds were changed last.
    pub tables: u64,
}

/// Begins a transaction and gives what is shared as it will be after it.
///
/// # Errors
/// `Outdated`: it is not as it was when it was decided.
pub(super) async fn begin(
    sql: &mut Sql<'_>,
    view: View,
    changes: &Changes,
    links: &[LinkChange],
) -> Result<View, StoreError> {
    let tables = !changes.divisions.is_empty() || !changes.thresholds.is_empty();
    let shares = tables || links.iter().any(is_shared);
    if shares {
        return begin_alone(sql, view, tables).await;
    }
    let begin =
        sql.either("BEGIN IMMEDIATE", concat!("BEGIN; SELECT pg_advisory_xact_lock_shared", shared_lock!()));
    begin_with(sql, begin, view).await?;
    Ok(view)
}

/// As `begin`, with nothing else written meanwhile, and what is shared changed; with `tables`, divisions or thresholds.
pub(super) async fn begin_alone(sql: &mut Sql<'_>, view: View, tables: bool) -> Result<View, StoreError> {
    let begin = sql.either("BEGIN IMMEDIATE", concat!("BEGIN; SELECT pg_advisory_xact_lock", shared_lock!()));
    begin_with(sql, begin, view).await?;
    let revision = view.revision + 1;
    let view = View { revision, tables: if tables { revision } else { view.tables } };
    let raise = "UPDATE shared SET revision = ?, tables = ?";
    sql.run(raise, Args::ints(&[view.revision as i64, view.tables as i64])).await?;
    Ok(view)
}

async fn begin_with(sql: &mut Sql<'_>, begin: &'static str, view: View) -> Result<(), StoreError> {
    sql.script(begin).await?;
    // A statement of its own, which sees what was committed while the lock was waited for.
    if stored_view(sql).await?.revision == view.revision { Ok(()) } else { Err(StoreError::Outdated) }
}

/// What is shared, by number.
pub(super) async fn stored_view(sql: &mut Sql<'_>) -> Result<View, StoreError> {
    let row = sql.row("SELECT revision, tables FROM shared", Args::new()).await?;
    let row = row.ok_or_else(|| StoreError::unreadable("what gateways share"))?;
    Ok(View { revision: int(&row, 0)? as u64, tables: int(&row, 1)? as u64 })
}

/// Whether something changes what every gateway keeps in memory, or must not happen beside other transactions: rows that
/// one adds meanwhile would be missed.
fn is_shared(change: &LinkChange) -> bool {
    match change {
        LinkChange::NewWriter(_)
        | LinkChange::GiveUp(_)
        | LinkChange::NewEpoch { .. }
        | LinkChange::Lineage(_)
        | LinkChange::Recovery(_)
        | LinkChange::ForgetJudgements
        | LinkChange::ForgetSums(_)
        | LinkChange::Learned(_)
        | LinkChange::Peer(_)
        | LinkChange::Backfill { .. }
        | LinkChange::Subscribe { .. }
        | LinkChange::Unsubscribe(_)
        | LinkChange::RetryQuarantine { .. }
        | LinkChange::Claims(_)
        | LinkChange::CompactOutbox(_)
        | LinkChange::Grant(_)
        | LinkChange::Revoke(_) => true,
        LinkChange::Seen { .. }
        | LinkChange::TokenConfirmed(_)
        | LinkChange::Delivered { .. }
        | LinkChange::Owe { .. }
        | LinkChange::Proof(..)
        | LinkChange::Recounted(_)
        | LinkChange::Invite(_)
        | LinkChange::Invited { .. }
        | LinkChange::Report(_)
        | LinkChange::Checkpoint(_)
        | LinkChange::CheckpointInstead(_)
        | LinkChange::Bundle { .. } => false,
    }
}

/// Tells the other gateways, when the transaction is committed, and gives the store's revision.
pub(super) async fn tell(
    sql: &mut Sql<'_>,
    shares: bool,
    changes: &Changes,
    links: &[LinkChange],
) -> Result<u64, StoreError> {
    let tell = sql.either(
        "SELECT CAST(sum(revision) AS BIGINT), ? FROM node",
        "SELECT CAST(sum(revision) AS BIGINT), CAST(pg_notify(
            'guantong_' || CAST(CAST(CAST('node' AS regclass) AS oid) AS TEXT), ?) AS TEXT) FROM node",
    );
    let fills = links.iter().any(|change| {
        matches!(
            change,
            LinkChange::Backfill { .. } | LinkChange::Subscribe { .. } | LinkChange::RetryQuarantine { .. }
        )
    });
    let woken = changes.outbox.iter().map(|group| (group.peer, group.lane as usize)).collect();
    let notice = Notice { slot: sql.slot(), shares, all: fills, woken };
    Ok(sql.number(tell, Args::new().text(&notice.to_words())).await? as u64)
}

/// What a gateway did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Notice {
    /// Which gateway.
    pub slot: i64,
    /// It changed what gateways keep in memory.
    pub shares: bool,
    /// Any peer may be owed something new.
    pub all: bool,
    /// Peers that are owed something new, and in which lane, as `Lane` numbers them.
    pub woken: std::collections::BTreeSet<(PeerId, usize)>,
}

impl Notice {
    fn to_words(&self) -> String {
        let mut words = format!("{} {}", self.slot, if self.shares { "shared" } else { "-" });
        for (peer, lane) in &self.woken {
            words.push_str(&format!(" {}.{lane}", peer.0));
        }
        if self.all || words.len() > NOTICE_MAX {
            words = format!("{} {} *", self.slot, if self.shares { "shared" } else { "-" });
        }
        words
    }

    /// What is not understood means that anything may have happened.
    fn of_words(words: &str) -> Notice {
        let mut parts = words.split(' ');
        let slot = parts.next().and_then(|slot| slot.parse().ok()).unwrap_or(-1);
        let shares = parts.next() != Some("-");
        let (mut all, mut woken) = (slot < 0, std::collections::BTreeSet::new());
        for part in parts {
            let lane = part.split_once('.').and_then(|(peer, lane)| {
                Some((PeerId(peer.parse().ok()?), lane.parse().ok().filter(|lane| *lane < 3)?))
            });
            match lane {
                Some(lane) => drop(woken.insert(lane)),
                None => all = true,
            }
        }
        Notice { slot, shares, all, woken }
    }
}

/// Hears what other gateways do.
pub struct Notices(PgListener);

impl Notices {
    /// The next notice, of this gateway's own ones too.
    ///
    /// # Errors
    /// The connection is gone: what was said meanwhile is not known.
    pub async fn next(&mut self) -> Result<Notice, StoreError> {
        match self.0.try_recv().await.map_err(StoreError::of_postgres)? {
            Some(said) => Ok(Notice::of_words(said.payload())),
            None => Err(StoreError::Unreachable("the line to the database broke".into())),
        }
    }
}

/// A duty that this gateway has, and no other.
#[derive(Debug)]
pub struct Hold(Option<Conn>);

impl Hold {
    /// Whether it is still so.
    ///
    /// # Errors
    /// It is not, or nobody knows: the duty must be left at once.
    pub async fn check(&mut self) -> Result<(), StoreError> {
        match &mut self.0 {
            Some(conn) => lives(conn).await,
            None => Ok(()),
        }
    }
}

async fn lives(conn: &mut Conn) -> Result<(), StoreError> {
    let mut sql = conn.sql(None);
    let asked = tokio::time::timeout(HOLD_TIME, sql.number("SELECT 1", Args::new())).await;
    asked.map_err(|_| StoreError::Unreachable("the database does not answer".into()))?.map(drop)
}

impl Writer {
    /// Asks the server whether the connection that writes still lives: with it the slot went, and what is behind the
    /// next one may be another server.
    ///
    /// # Errors
    /// It does not; the next use opens another.
    pub async fn check(&mut self) -> Result<(), StoreError> {
        // Left out while it is asked, so that neither failure nor a dropped future leaves a dead one behind.
        let Some(mut conn) = self.conn.take() else { return Ok(()) };
        if matches!(conn, Conn::Postgres { .. }) {
            lives(&mut conn).await?;
        }
        self.conn = Some(conn);
        Ok(())
    }
}

impl Store {
    /// Whether other gateways may have this store open.
    pub fn is_for_many(&self) -> bool {
        matches!(&*self.database, Database::Postgres(_))
    }

    /// This gateway's slot.
    pub fn slot(&self) -> i64 {
        self.database.slot()
    }

    /// What is shared, by number. Read before all else that is read to decide from.
    pub async fn view(&self) -> Result<View, StoreError> {
        stored_view(&mut self.reader().await?.sql()).await
    }

    /// The slots of the gateways that are there now, this one's included.
    pub async fn live_slots(&self) -> Result<Vec<i64>, StoreError> {
        if !self.is_for_many() {
            return Ok(vec![0]);
        }
        let live = "SELECT CAST(classid AS BIGINT) - 1196715624 FROM pg_locks
            WHERE locktype = 'advisory' AND granted AND objsubid = 2
              AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
              AND CAST(classid AS BIGINT) BETWEEN 1196715624 AND 1196715751
              AND CAST(objid AS BIGINT) =
                (CAST(CAST('node' AS regclass) AS oid)::bigint + 2147483648) % 4294967296
            ORDER BY 1";
        let rows = self.reader().await?.sql().rows(live, Args::new()).await?;
        rows.iter().map(|row| int(row, 0)).collect()
    }

    /// Takes the duty of dialling the parent and sweeping, if no other gateway has it. It is left when the `Hold` is
    /// dropped.
    pub async fn hold_duty(&self) -> Result<Option<Hold>, StoreError> {
        let Database::Postgres(database) = &*self.database else { return Ok(Some(Hold(None))) };
        let mut conn = database.session().await?;
        let held = conn.sql(None).number(UPLINK_LOCK, Args::new()).await? != 0;
        Ok(held.then_some(Hold(Some(conn))))
    }

    /// Hears what other gateways do, from now on; `None` where there can be none.
    pub async fn notices(&self) -> Result<Option<Notices>, StoreError> {
        let Database::Postgres(database) = &*self.database else { return Ok(None) };
        let number = "SELECT CAST(CAST(CAST('node' AS regclass) AS oid) AS BIGINT)";
        let number = self.reader().await?.sql().number(number, Args::new()).await?;
        let mut listener = database.listener().await?;
        listener.listen(&format!("guantong_{number}")).await.map_err(StoreError::of_postgres)?;
        Ok(Some(Notices(listener)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_notice_says_who_is_owed_something() {
        let woken: std::collections::BTreeSet<(PeerId, usize)> = [(PeerId(3), 0), (PeerId(7), 2)].into();
        let notice = Notice { slot: 5, shares: true, all: false, woken };
        assert_eq!(Notice::of_words(&notice.to_words()), notice);
        let many = Notice { woken: (0..2_000).map(|peer| (PeerId(peer), 1)).collect(), ..notice };
        assert!(many.to_words().len() < 8_000);
        assert!(Notice::of_words(&many.to_words()).all, "too many to name");
        for words in ["", "x", "5", "5 - 3", "5 - 3.9"] {
            let notice = Notice::of_words(words);
            assert!(notice.all || notice.shares, "{words}");
        }
    }
}
