//! Where the store is written, and how it is filled again after it was emptied or put back.

use super::sql::{Args, Rows, Sql, int, maybe};
use super::{Store, StoreError};
use crate::ingest::changes::Lineage;
use crate::ingest::recovery::{Cause, Loss, Recovery};
use crate::schema::KindId;

static LOSSES: Rows = Rows::new("INSERT INTO recovery_loss (kind, field, records) VALUES", "(?,?,?)", "");

/// What a store says of where it was written last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StoredLineage {
    /// Where.
    pub last: Lineage,
    /// When it was put back from a backup, Unix milliseconds, if its node has not begun as another since.
    pub put_back_ms: Option<u64>,
    /// When its node last began as another, Unix milliseconds; `None`: never.
    pub renewed_ms: Option<u64>,
}

/// The store is written here from now on.
pub(super) async fn move_to(sql: &mut Sql<'_>, lineage: Lineage) -> Result<(), StoreError> {
    let mut args = Args::new();
    args.push_maybe(lineage.timeline);
    args.push_maybe(lineage.place);
    sql.run("UPDATE shared SET timeline = ?, place = ?, put_back_ms = NULL", args).await.map(|_| ())
}

/// Puts a recovery in place of the one that was known.
pub(super) async fn put(sql: &mut Sql<'_>, recovery: &Recovery) -> Result<(), StoreError> {
    sql.run("DELETE FROM recovery", Args::new()).await?;
    sql.run("DELETE FROM recovery_loss", Args::new()).await?;
    let cause = match recovery.cause {
        Cause::Emptied => 1,
        Cause::PutBack => 2,
    };
    let mut args = Args::ints(&[cause, recovery.begun_ms as i64]);
    args.push_maybe(recovery.ended_ms.map(|ms| ms as i64));
    args.push_int(i64::from(recovery.from_parent));
    args.push_int(i64::from(recovery.losses.is_some()));
    let put = "INSERT INTO recovery (cause, begun_ms, ended_ms, from_parent, counted) VALUES (?, ?, ?, ?, ?)";
    sql.run(put, args).await?;
    let losses = recovery.losses.as_deref().unwrap_or_default();
    sql.many(&LOSSES, losses, |args, loss| {
        args.push_int(i64::from(loss.kind.0));
        args.push_int(i64::from(loss.field));
        args.push_int(loss.records as i64);
    })
    .await?;
    Ok(())
}

impl Store {
    /// Where the store was written last.
    pub async fn lineage(&self) -> Result<StoredLineage, StoreError> {
        let read = "SELECT timeline, place, put_back_ms, renewed_ms FROM shared";
        let row = self.reader().await?.sql().row(read, Args::new()).await?;
        let row = row.ok_or_else(|| StoreError::unreadable("what gateways share"))?;
        let last = Lineage { timeline: maybe(&row, 0)?, place: maybe(&row, 1)? };
        let ms = |place| Ok::<_, StoreError>(maybe(&row, place)?.map(|ms| ms as u64));
        Ok(StoredLineage { last, put_back_ms: ms(2)?, renewed_ms: ms(3)? })
    }

    /// The last time that the store was filled again; `None`: it never was.
    pub async fn recovery(&self) -> Result<Option<Recovery>, StoreError> {
        let mut reader = self.reader().await?;
        let mut sql = reader.sql();
        let read = "SELECT cause, begun_ms, ended_ms, from_parent, counted FROM recovery";
        let Some(row) = sql.row(read, Args::new()).await? else { return Ok(None) };
        let losses = "SELECT kind, field, records FROM recovery_loss ORDER BY kind, field";
        let losses = sql.rows(losses, Args::new()).await?;
        let loss = |row| {
            let (kind, field) = (KindId(int(row, 0)? as u32), int(row, 1)? as u32);
            Ok::<_, StoreError>(Loss { kind, field, records: int(row, 2)? as u64 })
        };
        let losses = losses.iter().map(loss).collect::<Result<Vec<_>, _>>()?;
        Ok(Some(Recovery {
            cause: if int(&row, 0)? == 1 { Cause::Emptied } else { Cause::PutBack },
            begun_ms: int(&row, 1)? as u64,
            ended_ms: maybe(&row, 2)?.map(|ms| ms as u64),
            from_parent: int(&row, 3)? != 0,
            losses: (int(&row, 4)? != 0).then_some(losses),
        }))
    }
}
