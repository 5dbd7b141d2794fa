//! Reports as they were issued. Their content is kept as it was, encoded, and is never read here.

use super::sql::{Args, Sql, blob, code, division, int, text};
use super::{Store, StoreError};
use crate::division::Division;
use crate::ingest::changes::{ReportKey, ReportRow};

/// A report without its content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReportHead {
    /// Which.
    pub key: ReportKey,
    /// Unix milliseconds.
    pub issued_ms: u64,
    /// The account that issued it.
    pub issued_by: String,
    /// The moment that its figures stand for, Unix milliseconds.
    pub as_of_ms: u64,
}

/// Keeps a report. One of that number is there already: [`StoreError::Stale`].
pub(super) async fn put(sql: &mut Sql<'_>, row: &ReportRow) -> Result<(), StoreError> {
    let put = "INSERT INTO report (county, division, period, issue, issued_ms, issued_by, as_of_ms, content)
        VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (county, division, period, issue) DO NOTHING";
    let args = of_key(&row.key).int(row.issued_ms as i64).text(&row.issued_by).int(row.as_of_ms as i64);
    let mut args = args;
    args.push_blob(&row.content);
    if sql.run(put, args).await? == 0 { Err(StoreError::Stale) } else { Ok(()) }
}

fn of_key(key: &ReportKey) -> Args {
    let (division, issue) = (key.division, i64::from(key.issue));
    Args::ints(&[code(division.county()), code(division)]).text(&key.period).int(issue)
}

impl Store {
    /// How many reports of a division and a period were issued.
    pub async fn report_issues(&self, division: Division, period: &str) -> Result<u32, StoreError> {
        let greatest = "SELECT max(issue) FROM report WHERE county = ? AND division = ? AND period = ?";
        let args = Args::ints(&[code(division.county()), code(division)]).text(period);
        let found = self.reader().await?.sql().number(greatest, args).await?;
        Ok(u32::try_from(found).unwrap_or(u32::MAX))
    }

    /// The content of a report, encoded.
    pub async fn report(&self, key: &ReportKey) -> Result<Option<bytes::Bytes>, StoreError> {
        let get = "SELECT content FROM report WHERE county = ? AND division = ? AND period = ? AND issue = ?";
        let row = self.reader().await?.sql().row(get, of_key(key)).await?;
        row.map(|row| blob(&row, 0)).transpose()
    }

    /// Reports of divisions in `scope`, the latest first, after `after`; `period` empty: of all periods.
    pub async fn reports(
        &self,
        scope: Division,
        period: &str,
        after: Option<&ReportHead>,
        limit: usize,
    ) -> Result<Vec<ReportHead>, StoreError> {
        let list = "SELECT division, period, issue, issued_ms, issued_by, as_of_ms FROM report
            WHERE county BETWEEN ? AND ? AND division BETWEEN ? AND ? AND (? = '' OR period = ?)
              AND (issued_ms < ? OR issued_ms = ? AND (division, period, issue) > (?, ?, ?))
            ORDER BY issued_ms DESC, division, period, issue LIMIT ?";
        let last = scope.last_code() as i64;
        let args = Args::ints(&[code(scope.county()), last, code(scope), last]).text(period).text(period);
        let args = match after {
            None => args.int(i64::MAX).int(i64::MAX).int(0).text("").int(0),
            Some(head) => args
                .int(head.issued_ms as i64)
                .int(head.issued_ms as i64)
                .int(code(head.key.division))
                .text(&head.key.period)
                .int(i64::from(head.key.issue)),
        };
        let rows = self.reader().await?.sql().rows(list, args.int(limit as i64)).await?;
        let head = |row| {
            let issue = u32::try_from(int(row, 2)?).map_err(|_| StoreError::unreadable("a report"))?;
            let key = ReportKey { division: division(row, 0)?, period: text(row, 1)?, issue };
            let (issued_ms, as_of_ms) = (int(row, 3)? as u64, int(row, 5)? as u64);
            Ok(ReportHead { key, issued_ms, issued_by: text(row, 4)?, as_of_ms })
        };
        rows.iter().map(head).collect()
    }
}
