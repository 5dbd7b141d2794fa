//! The whole store as it was at one moment, county by county: for counting everything anew while writes go on.

use std::collections::BTreeMap;

use super::keys::keys_of_county;
use super::pack::sums_of;
use super::sql::{Args, Snapshot, blob, code, division, int};
use super::sums::total;
use super::tallies::tally;
use super::{Store, StoreError, StoredRecord, TallyRow};
use crate::division::Division;
use crate::ingest::changes::{RecordKey, SumChange};
use crate::ingest::topology::PeerId;
use crate::proof::Sum;
use crate::record::FieldNumber;
use crate::schema::KindId;

/// The store as it was when it was asked for. It holds one of the few connections that read: do not keep it for long.
pub struct Frozen {
    reader: Snapshot,
}

impl Store {
    /// The store as it is now, whatever is written meanwhile.
    pub async fn frozen(&self) -> Result<Frozen, StoreError> {
        Ok(Frozen { reader: self.reader().await?.begin().await? })
    }
}

impl Frozen {
    /// The counties of all records, kept counts and checksums, ascending; prefectures and provinces stand for what is theirs.
    pub async fn counties(&mut self) -> Result<Vec<Division>, StoreError> {
        let mut sql = self.reader.sql();
        let mut counties = Vec::new();
        let kept = "SELECT county FROM tally UNION SELECT county FROM link_sum WHERE county > 0";
        for row in &sql.rows(kept, Args::new()).await? {
            counties.push(division(row, 0)?);
        }
        let mut after = 0;
        loop {
            let next = "SELECT county FROM record WHERE county > ? ORDER BY county LIMIT 1";
            let Some(row) = sql.row(next, Args::ints(&[after])).await? else { break };
            after = int(&row, 0)?;
            counties.push(division(&row, 0)?);
        }
        counties.sort_unstable();
        counties.dedup();
        Ok(counties)
    }

    /// Records of a county in the order of their numbers, beginning after `after`; `None`: the first.
    pub async fn records(
        &mut self,
        county: Division,
        after: Option<RecordKey>,
        limit: usize,
    ) -> Result<Vec<StoredRecord>, StoreError> {
        // As they lie in the file: by name each would be looked up on its own.
        let list = "SELECT key, kind, home, id, revision, state FROM record
            WHERE key > ? AND key <= ? ORDER BY key LIMIT ?";
        let (first, last) = keys_of_county(county);
        let args = Args::ints(&[after.unwrap_or(first), last, limit as i64]);
        let rows = self.reader.sql().rows(list, args).await?;
        rows.iter().map(super::records::stored).collect()
    }

    /// How many records were kept count of.
    pub async fn record_count(&mut self) -> Result<u64, StoreError> {
        let kept = "SELECT CAST(sum(records) AS BIGINT) FROM node";
        Ok(self.reader.sql().number(kept, Args::new()).await? as u64)
    }

    /// The peers whose checksums are known.
    pub async fn summed_peers(&mut self) -> Result<Vec<PeerId>, StoreError> {
        let list = "SELECT peer FROM peer WHERE summed_through = ? ORDER BY peer";
        let rows = self.reader.sql().rows(list, Args::ints(&[RecordKey::MAX])).await?;
        rows.iter().map(|row| int(row, 0).map(PeerId)).collect()
    }

    /// The kept checksums of a link for the records of a county; those of a home and kind may come several times.
    pub async fn sums(&mut self, peer: PeerId, county: Division) -> Result<Vec<SumChange>, StoreError> {
        let list = "SELECT home, kind, sums FROM link_sum WHERE peer = ? AND county = ?";
        let rows = self.reader.sql().rows(list, Args::ints(&[peer.0, code(county)])).await?;
        let sum = |row| {
            let kind = u32::try_from(int(row, 1)?).map_err(|_| StoreError::unreadable("a kind"))?;
            let (home, sums) = (division(row, 0)?, sums_of(&blob(row, 2)?)?);
            Ok(SumChange { peer, home, kind: KindId(kind), sums })
        };
        rows.iter().map(sum).collect()
    }

    /// The kept checksums of a link for all records; none where they are not known.
    pub async fn total_sums(
        &mut self,
        peer: PeerId,
    ) -> Result<BTreeMap<(KindId, FieldNumber), Sum>, StoreError> {
        Ok(total(&mut self.reader.sql(), peer).await?.unwrap_or_default())
    }

    /// All kept counts of a county.
    pub async fn tallies(&mut self, county: Division) -> Result<Vec<TallyRow>, StoreError> {
        let list = "SELECT period, division, revision, numbers FROM tally WHERE county = ?";
        let rows = self.reader.sql().rows(list, Args::ints(&[code(county)])).await?;
        rows.iter().map(tally).collect()
    }
}
