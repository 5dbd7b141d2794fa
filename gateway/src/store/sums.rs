//! Running checksums of links. The sums of the records of one home and kind are packed together, and beside them stand
//! those of all homes of the kind, so that comparing two ends costs the same however much they share; each gateway slot
//! keeps rows of its own, and readers add them.
//!
//! Sums of a link hold the records up to a number. Only when they hold all of them they are known.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use bytes::Bytes;

use super::keys::keys_of_counties;
use super::outbox::keys_above;
use super::pack::{add_sums, keys_of, pack_sums, sums_of};
use super::records::{by_keys, by_names, range, stored};
use super::sql::{Args, Rows, Sql, blob, code, division, int};
use super::{Store, StoreError, StoredRecord, Writer, gateways};
use crate::division::Division;
use crate::ingest::changes::{RecordKey, SumChange};
use crate::ingest::topology::PeerId;
use crate::proof::Sum;
use crate::record::{FieldNumber, RecordName};
use crate::schema::KindId;

/// The most records that are owed, and the most fields that are refused, that a standing names.
pub const LEFT_OUT_MAX: usize = 1_000;
/// Rows of an outbox that are read for that.
const ROWS_MAX: i64 = 4_000;

/// Where a link stands, as of one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LinkStanding {
    /// Of everything that is shared, by kind and field; what is missing is 0. `None`: not known, it is being computed.
    pub sums: Option<BTreeMap<(KindId, FieldNumber), Sum>>,
    /// The records that the peer is owed; `None`: more than [`LEFT_OUT_MAX`].
    pub owed: Option<BTreeSet<RecordName>>,
    /// The fields that the peer refused, field 0: the whole record; `None`: more than [`LEFT_OUT_MAX`].
    pub refused: Option<BTreeSet<(RecordName, FieldNumber)>>,
    /// The records named above and those that were asked for, by number, as they were at that moment.
    pub records: Vec<StoredRecord>,
}

/// The sums of the fields of one home's records of a kind, ascending.
pub type HomeSums = BTreeMap<Division, Vec<(FieldNumber, Sum)>>;

/// Some of the records that a link's sums do not hold yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SumPage {
    /// The other end of the link.
    pub peer: PeerId,
    /// Records that concern this division; `None`: all.
    pub scope: Option<Division>,
    /// Kinds of which everyone below the home has the records, by number.
    pub subtree_kinds: Vec<u32>,
    /// Records beyond this number.
    pub after: RecordKey,
    /// About so many.
    pub limit: usize,
}

static LOAD: Rows = Rows::new(
    "WITH wanted (place, peer, county, kind, home, slot) AS (VALUES",
    "(?,?,?,?,?,?)",
    ") SELECT w.place, s.sums FROM wanted w CROSS JOIN link_sum s
       ON s.peer = w.peer AND s.county = w.county AND s.kind = w.kind AND s.home = w.home AND s.slot = w.slot",
);
static PUT: Rows = Rows::new(
    "INSERT INTO link_sum (peer, county, kind, home, slot, sums) VALUES",
    "(?,?,?,?,?,?)",
    "ON CONFLICT (peer, county, kind, home, slot) DO UPDATE SET sums = excluded.sums",
);

/// Peer, county, kind, home of a row; county and home 0: of all homes.
type Place = (i64, i64, i64, i64);

/// Adds to sums. Only this slot writes its rows, so what is read here is what they are.
pub(super) async fn add(sql: &mut Sql<'_>, changes: &[SumChange]) -> Result<(), StoreError> {
    let slot = sql.slot();
    let mut added: BTreeMap<Place, Vec<(FieldNumber, Sum)>> = BTreeMap::new();
    for change in changes {
        let (peer, kind) = (change.peer.0, i64::from(change.kind.0));
        let home = (peer, code(change.home.county()), kind, code(change.home));
        for place in [home, (peer, 0, kind, 0)] {
            add_sums(added.entry(place).or_default(), &change.sums);
        }
    }
    let added: Vec<_> = added.into_iter().collect();
    let push = |args: &mut Args, (peer, county, kind, home): Place| {
        [peer, county, kind, home, slot].into_iter().for_each(|value| args.push_int(value));
    };
    let rows = sql
        .many_rows(&LOAD, &added, |args, place, row| {
            args.push_int(place);
            push(args, row.0);
        })
        .await?;
    let mut held: HashMap<usize, Bytes> = HashMap::with_capacity(rows.len());
    for row in &rows {
        held.insert(usize::try_from(int(row, 0)?).unwrap_or(usize::MAX), blob(row, 1)?);
    }
    let mut joined = Vec::with_capacity(added.len());
    for (at, (place, sums)) in added.into_iter().enumerate() {
        let mut all = held.get(&at).map_or(Ok(Vec::new()), |packed| sums_of(packed))?;
        add_sums(&mut all, &sums);
        joined.push((place, pack_sums(&all)));
    }
    sql.many(&PUT, &joined, |args, (place, sums)| {
        push(args, *place);
        args.push_blob(sums);
    })
    .await?;
    Ok(())
}

/// Forgets the sums of a link, or of all.
pub(super) async fn forget(sql: &mut Sql<'_>, peer: Option<PeerId>) -> Result<(), StoreError> {
    let (low, high) = peer.map_or((i64::MIN, i64::MAX), |peer| (peer.0, peer.0));
    sql.run("DELETE FROM link_sum WHERE peer BETWEEN ? AND ?", Args::ints(&[low, high])).await?;
    let unknown = "UPDATE peer SET summed_through = 0 WHERE peer BETWEEN ? AND ?";
    sql.run(unknown, Args::ints(&[low, high])).await.map(|_| ())
}

impl Writer {
    /// Adds the next records to the sums of a link, in one transaction that nobody writes beside: `sum` says what the
    /// records add. Gives up to which record the sums hold them now, and the number of the transaction.
    ///
    /// # Errors
    /// As [`apply`](Writer::apply).
    pub async fn sum_page(
        &mut self,
        page: &SumPage,
        sum: impl Fn(&[StoredRecord]) -> Vec<SumChange>,
    ) -> Result<(RecordKey, u64), StoreError> {
        let mut conn = self.ready().await?;
        let mut sql = conn.sql(self.faults.as_deref());
        let outcome = sum_next(&mut sql, self.view, page, sum).await;
        let (through, revision, view) = self.done(conn, outcome).await?;
        self.view = view;
        Ok((through, revision))
    }
}

async fn sum_next(
    sql: &mut Sql<'_>,
    view: gateways::View,
    page: &SumPage,
    sum: impl Fn(&[StoredRecord]) -> Vec<SumChange>,
) -> Result<(RecordKey, u64, gateways::View), StoreError> {
    let after = gateways::begin_alone(sql, view, false).await?;
    let (records, through) = next(sql, page).await?;
    add(sql, &sum(&records)).await?;
    let held = "UPDATE peer SET summed_through = ? WHERE peer = ? AND summed_through = ?";
    if sql.run(held, Args::ints(&[through, page.peer.0, page.after])).await? != 1 {
        return Err(StoreError::Stale);
    }
    let count = "UPDATE node SET revision = revision + 1 WHERE slot = ?";
    sql.run(count, Args::ints(&[sql.slot()])).await?;
    let revision = gateways::tell(sql, true, &Default::default(), &[]).await?;
    sql.run("COMMIT", Args::new()).await?;
    Ok((through, revision, after))
}

/// The next records of a page by number, and up to which number they are all that there is.
async fn next(sql: &mut Sql<'_>, page: &SumPage) -> Result<(Vec<StoredRecord>, RecordKey), StoreError> {
    let limit = page.limit.max(1);
    let (first, last) = page.scope.map_or((0, RecordKey::MAX), keys_of_counties);
    let (low, high) = range(page.scope);
    let homes = "SELECT key, kind, home, id, revision, state FROM record
        WHERE key > ? AND key <= ? AND home BETWEEN ? AND ? ORDER BY key LIMIT ?";
    let args = Args::ints(&[page.after.max(first), last, low, high, limit as i64]);
    let rows = sql.rows(homes, args).await?;
    let mut records: Vec<StoredRecord> = rows.iter().map(stored).collect::<Result<_, _>>()?;
    let full = |count: usize, last: Option<RecordKey>| last.filter(|_| count == limit);
    let mut through = full(records.len(), records.last().map(|r| r.key)).unwrap_or(RecordKey::MAX);
    let Some(scope) = page.scope else { return Ok((records, through)) };
    let handed = "SELECT DISTINCT key FROM audience WHERE division BETWEEN ? AND ? AND key > ?
        ORDER BY key LIMIT ?";
    let rows = sql.rows(handed, Args::ints(&[low, high, page.after, limit as i64])).await?;
    let mut others = rows.iter().map(|row| int(row, 0)).collect::<Result<Vec<RecordKey>, _>>()?;
    through = through.min(full(others.len(), others.last().copied()).unwrap_or(RecordKey::MAX));
    others.extend(keys_above(sql, scope, &page.subtree_kinds).await?);
    others.retain(|key| *key > page.after && *key <= through);
    others.sort_unstable();
    others.dedup();
    if others.len() > limit {
        others.truncate(limit);
        through = others[limit - 1];
    }
    records.retain(|record| record.key <= through);
    others.retain(|key| records.binary_search_by_key(key, |record| record.key).is_err());
    records.extend(by_keys(sql, &others).await?);
    Ok((records, through))
}

impl Store {
    /// Where the link to a peer stands, as of one moment, with the records of some names.
    pub async fn link_standing(
        &self,
        peer: PeerId,
        names: &[RecordName],
    ) -> Result<LinkStanding, StoreError> {
        let mut snapshot = self.reader().await?.begin().await?;
        let mut sql = snapshot.sql();
        let sums = total(&mut sql, peer).await?;
        let owed = owed(&mut sql, peer).await?;
        let refused = refused(&mut sql, peer).await?;
        let keys: BTreeSet<RecordKey> =
            owed.iter().flatten().copied().chain(refused.iter().flatten().map(|refused| refused.0)).collect();
        let mut records: BTreeMap<RecordKey, StoredRecord> = BTreeMap::new();
        let keys: Vec<RecordKey> = keys.into_iter().collect();
        records.extend(by_keys(&mut sql, &keys).await?.into_iter().map(|record| (record.key, record)));
        for (name, found) in names.iter().zip(by_names(&mut sql, names).await?) {
            let Some(found) = found else { continue };
            let name = name.clone();
            let record = StoredRecord { key: found.key, name, revision: found.revision, state: found.state };
            records.insert(found.key, record);
        }
        snapshot.end().await?;
        let name = |key: &RecordKey| records.get(key).map(|record| record.name.clone());
        Ok(LinkStanding {
            sums,
            owed: owed.map(|keys| keys.iter().filter_map(name).collect()),
            refused: refused
                .map(|keys| keys.iter().filter_map(|(key, field)| Some((name(key)?, *field))).collect()),
            records: records.into_values().collect(),
        })
    }

    /// The sums of the records of a kind that a link shares, home by home; of others there are none. `None`: not known.
    pub async fn home_sums(&self, peer: PeerId, kind: KindId) -> Result<Option<HomeSums>, StoreError> {
        let mut snapshot = self.reader().await?.begin().await?;
        let mut sql = snapshot.sql();
        let known = is_known(&mut sql, peer).await?;
        let list = "SELECT home, sums FROM link_sum WHERE peer = ? AND county > 0 AND kind = ?";
        let rows = sql.rows(list, Args::ints(&[peer.0, i64::from(kind.0)])).await?;
        snapshot.end().await?;
        let mut homes = HomeSums::new();
        for row in &rows {
            add_sums(homes.entry(division(row, 0)?).or_default(), &sums_of(&blob(row, 1)?)?);
        }
        homes.retain(|_, sums| !sums.is_empty());
        Ok(known.then_some(homes))
    }
}

async fn is_known(sql: &mut Sql<'_>, peer: PeerId) -> Result<bool, StoreError> {
    let through = "SELECT summed_through FROM peer WHERE peer = ?";
    Ok(sql.number(through, Args::ints(&[peer.0])).await? == RecordKey::MAX)
}

pub(super) async fn total(
    sql: &mut Sql<'_>,
    peer: PeerId,
) -> Result<Option<BTreeMap<(KindId, FieldNumber), Sum>>, StoreError> {
    if !is_known(sql, peer).await? {
        return Ok(None);
    }
    let list = "SELECT kind, sums FROM link_sum WHERE peer = ? AND county = 0";
    let mut total: BTreeMap<(KindId, FieldNumber), Sum> = BTreeMap::new();
    for row in &sql.rows(list, Args::ints(&[peer.0])).await? {
        let kind = u32::try_from(int(row, 0)?).map_err(|_| StoreError::unreadable("a kind"))?;
        for (field, sum) in sums_of(&blob(row, 1)?)? {
            let held = total.entry((KindId(kind), field)).or_default();
            *held = *held + sum;
        }
    }
    total.retain(|_, sum| *sum != Sum::ZERO);
    Ok(Some(total))
}

async fn owed(sql: &mut Sql<'_>, peer: PeerId) -> Result<Option<BTreeSet<RecordKey>>, StoreError> {
    let list = "SELECT keys FROM outbox WHERE peer = ? LIMIT ?";
    let rows = sql.rows(list, Args::ints(&[peer.0, ROWS_MAX + 1])).await?;
    let mut keys = BTreeSet::new();
    for row in &rows {
        keys.extend(keys_of(&blob(row, 0)?)?);
        if keys.len() > LEFT_OUT_MAX {
            return Ok(None);
        }
    }
    Ok((rows.len() as i64 <= ROWS_MAX).then_some(keys))
}

async fn refused(
    sql: &mut Sql<'_>,
    peer: PeerId,
) -> Result<Option<Vec<(RecordKey, FieldNumber)>>, StoreError> {
    let list = "SELECT key, field FROM quarantine WHERE peer = ? ORDER BY key, field LIMIT ?";
    let rows = sql.rows(list, Args::ints(&[peer.0, LEFT_OUT_MAX as i64 + 1])).await?;
    let refused = |row| Ok((int(row, 0)?, int(row, 1)? as FieldNumber));
    let refused = rows.iter().map(refused).collect::<Result<Vec<_>, StoreError>>()?;
    Ok((refused.len() <= LEFT_OUT_MAX).then_some(refused))
}
