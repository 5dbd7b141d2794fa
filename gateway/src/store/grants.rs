//! What partners may see and write.

use super::sql::{Args, Sql, code, division, int, text};
use super::{Store, StoreError};
use crate::grant::{Grant, Kinds, Level, Rate, Units};
use crate::ingest::changes::GrantRow;

fn number(level: Level) -> i64 {
    match level {
        Level::Aggregates => 1,
        Level::Read => 2,
        Level::Write => 3,
    }
}

/// Stores a grant in place of the partner's former one.
pub(super) async fn put(sql: &mut Sql<'_>, row: &GrantRow) -> Result<(), StoreError> {
    let put =
        "INSERT INTO partner_grant (partner, scope, kinds, level, personal, granted_ms, granted_by, units, rate)
        VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
        ON CONFLICT (partner) DO UPDATE SET scope = excluded.scope, kinds = excluded.kinds, level = excluded.level,
            personal = excluded.personal, granted_ms = excluded.granted_ms, granted_by = excluded.granted_by,
            units = excluded.units, rate = excluded.rate";
    let Grant { scope, kinds, level, personal, units, rate } = &row.grant;
    let args = Args::new().text(&row.partner).int(code(*scope)).int(kinds.bits() as i64).int(number(*level));
    let args = args.int(i64::from(*personal)).int(row.granted_ms as i64).text(&row.granted_by);
    let args = args.text(&units.codes().collect::<Vec<_>>().join(" "));
    let args = args.text(&rate.map(|rate| rate.to_string()).unwrap_or_default());
    sql.run(put, args).await.map(|_| ())
}

/// Takes a partner's grant away.
pub(super) async fn remove(sql: &mut Sql<'_>, partner: &str) -> Result<(), StoreError> {
    sql.run("DELETE FROM partner_grant WHERE partner = ?", Args::new().text(partner)).await.map(|_| ())
}

impl Store {
    /// All grants, by the partners' names.
    pub async fn grants(&self) -> Result<Vec<GrantRow>, StoreError> {
        let list = "SELECT partner, scope, kinds, level, personal, granted_ms, granted_by, units, rate
            FROM partner_grant ORDER BY partner";
        let rows = self.reader().await?.sql().rows(list, Args::new()).await?;
        let grant = |row| {
            let level = match int(row, 3)? {
                1 => Level::Aggregates,
                2 => Level::Read,
                3 => Level::Write,
                _ => return Err(StoreError::unreadable("a grant")),
            };
            let rate = text(row, 8)?;
            let rate =
                Some(rate).filter(|rate| !rate.is_empty()).map(|rate| rate.parse::<Rate>()).transpose();
            let grant = Grant {
                scope: division(row, 1)?,
                kinds: Kinds::from_bits(int(row, 2)? as u64),
                level,
                personal: int(row, 4)? != 0,
                units: Units::of(text(row, 7)?.split_whitespace()),
                rate: rate.map_err(|_| StoreError::unreadable("the rate of a grant"))?,
            };
            let (granted_ms, granted_by) = (int(row, 5)? as u64, text(row, 6)?);
            Ok(GrantRow { partner: text(row, 0)?, grant, granted_ms, granted_by })
        };
        rows.iter().map(grant).collect()
    }
}
