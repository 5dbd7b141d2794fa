//! How exchange by bundles with a peer stands, for `status` and the node's own record.

use guantong_proto::v1;

use super::super::view::timestamp;
use super::ParentLine;
use crate::division::Division;
use crate::ingest::topology::Role;
use crate::store::{Store, StoreError};

/// How exchange with a peer stands; `None`: there never was one by bundles, and none is configured.
pub(in crate::service) async fn state(
    store: &Store,
    role: Role,
    peer: Division,
    parent_line: ParentLine,
) -> Result<Option<v1::BundleState>, StoreError> {
    let standing = store.bundle_standing(peer).await?;
    let configured = role == Role::Parent && parent_line != ParentLine::Dialled;
    if !configured && standing.version == 0 {
        return Ok(None);
    }
    let time = |ms: u64| (ms > 0).then(|| timestamp(ms));
    let sent = store.last_bundle_made(peer).await?;
    let owed = store.bundle_receipts(peer).await?.len();
    let missing_count = match standing.seen {
        Some((last, _)) => store.bundles_missing(peer, last).await?,
        None => 0,
    };
    let one_way = match role {
        Role::Parent => parent_line == ParentLine::OneWay,
        Role::Child | Role::Partner => standing.one_way,
    };
    Ok(Some(v1::BundleState {
        one_way,
        sent_number: sent.map_or(0, |made| made.mark.number),
        sent_time: sent.and_then(|made| time(made.made_ms)),
        confirmed_number: standing.confirmed_number,
        confirmed_time: time(standing.confirmed_ms),
        confirmed_up_to_time: time(standing.confirmed_to_ms),
        received_number: standing.seen.map_or(0, |(seen, _)| seen.number),
        received_time: standing.seen.and_then(|(_, seen_ms)| time(seen_ms)),
        receipts_owed_count: owed as u64,
        key_known: standing.key.is_some(),
        peer_restored: standing.restored_epoch != 0,
        missing_count,
    }))
}

/// As the node tells those above of it.
pub(in crate::service) fn progress(state: &v1::BundleState) -> v1::BundleProgress {
    let number = |number: u64| i64::try_from(number).ok().filter(|number| *number > 0);
    v1::BundleProgress {
        sent_number: number(state.sent_number),
        sent_time: state.sent_time,
        confirmed_number: number(state.confirmed_number),
        confirmed_time: state.confirmed_time,
        one_way: Some(state.one_way),
    }
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
