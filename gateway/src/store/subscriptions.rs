//! Subscriptions: what each is, and owing it all that it covers. What it is owed stands in the outbox, as for any peer.

use super::outbox::{key_list, keys_above, owe_all};
use super::records::range;
use super::sql::{Args, Sql, code, division, int, text};
use super::{Store, StoreError};
use crate::division::Division;
use crate::ingest::changes::{CoveredKinds, RecordKey, Subscription};
use crate::ingest::topology::{Interest, PeerId};
use crate::schema::KindId;

/// Stores a subscription in place of what was known of it, and owes it all records of `kinds` that its scope covers.
pub(super) async fn put(
    sql: &mut Sql<'_>,
    subscription: &Subscription,
    kinds: &CoveredKinds,
    now_ms: u64,
) -> Result<(), StoreError> {
    let put = "INSERT INTO subscription (peer, name, owner, kinds, scope, personal, filled_for, created_ms)
        VALUES (?, ?, ?, ?, ?, ?, ?, ?)
        ON CONFLICT (peer) DO UPDATE SET filled_for = excluded.filled_for";
    let listed: Vec<String> = subscription.interest.kinds.iter().map(|k| k.0.to_string()).collect();
    let args = Args::new()
        .int(subscription.peer.0)
        .text(&subscription.id)
        .text(subscription.owner.as_deref().unwrap_or_default())
        .text(&listed.join(","))
        .int(code(subscription.interest.scope))
        .int(i64::from(subscription.personal))
        .int(subscription.filled_for as i64)
        .int(subscription.created_ms as i64);
    sql.run(put, args).await?;
    // Everything takes the place of what it was owed: twice the same would only come twice.
    owe_nothing(sql, subscription.peer).await?;
    let keys = covered(sql, subscription.interest.scope, kinds).await?;
    owe_all(sql, subscription.peer, keys, now_ms).await
}

/// The records of these kinds that concern a scope; some may come twice.
async fn covered(
    sql: &mut Sql<'_>,
    scope: Division,
    kinds: &CoveredKinds,
) -> Result<Vec<RecordKey>, StoreError> {
    let (low, high) = range(Some(scope));
    let listed = || kinds.all.iter().map(|k| i64::from(*k));
    let homes = "SELECT group_concat(key) FROM record WHERE county BETWEEN ? AND ? AND home BETWEEN ? AND ?
        AND kind IN (SELECT value FROM json_each(?))";
    let args = Args::ints(&[code(scope.county()), high, low, high]).list(listed());
    let mut keys = key_list(sql, homes, args).await?;
    let handed = "SELECT group_concat(record.key) FROM audience
        JOIN record ON record.key = audience.key AND record.county = audience.county
        WHERE audience.division BETWEEN ? AND ? AND record.kind IN (SELECT value FROM json_each(?))";
    keys.extend(key_list(sql, handed, Args::ints(&[low, high]).list(listed())).await?);
    keys.extend(keys_above(sql, scope, &kinds.subtree).await?);
    Ok(keys)
}

/// Forgets a subscription and what it was owed.
pub(super) async fn forget(sql: &mut Sql<'_>, peer: PeerId) -> Result<(), StoreError> {
    sql.run("DELETE FROM subscription WHERE peer = ?", Args::ints(&[peer.0])).await?;
    sql.run("DELETE FROM peer WHERE peer = ?", Args::ints(&[peer.0])).await?;
    owe_nothing(sql, peer).await
}

async fn owe_nothing(sql: &mut Sql<'_>, peer: PeerId) -> Result<(), StoreError> {
    sql.run("DELETE FROM outbox WHERE peer = ?", Args::ints(&[peer.0])).await?;
    sql.run("DELETE FROM outbox_total WHERE peer = ?", Args::ints(&[peer.0])).await?;
    Ok(())
}

impl Store {
    /// All subscriptions, by name.
    pub async fn subscriptions(&self) -> Result<Vec<Subscription>, StoreError> {
        let list = "SELECT peer, name, owner, kinds, scope, personal, filled_for, created_ms
            FROM subscription ORDER BY name";
        let rows = self.reader().await?.sql().rows(list, Args::new()).await?;
        let subscription = |row| {
            let kind = |number: &str| number.parse().map(KindId);
            let kinds: Result<Vec<KindId>, _> =
                text(row, 3)?.split(',').filter(|number| !number.is_empty()).map(kind).collect();
            Ok(Subscription {
                peer: PeerId(int(row, 0)?),
                id: text(row, 1)?,
                owner: Some(text(row, 2)?).filter(|owner| !owner.is_empty()),
                interest: Interest {
                    scope: division(row, 4)?,
                    kinds: kinds.map_err(|_| StoreError::unreadable("a subscription's kinds"))?,
                },
                personal: int(row, 5)? != 0,
                filled_for: int(row, 6)? as u64,
                created_ms: int(row, 7)? as u64,
            })
        };
        rows.iter().map(subscription).collect()
    }
}
