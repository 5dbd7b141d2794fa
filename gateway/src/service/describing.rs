//! What a node says of itself: a record of kind `node`, written by the node alone, that goes up like any other and so
//! tells every node above how it is.
//!
//! An idle node stays idle: it writes when it has become another one (a new version, a new certificate, a child), and
//! what only counts at most every few minutes, while somebody above hears it.

use std::time::Duration;

use bytes::Bytes;
use guantong_proto::v1;
use prost::Message;
use tokio_util::sync::CancellationToken;

use super::{Links, NodeInfo, bundles, view};
use crate::division::{Division, Divisions};
use crate::engine::{Engine, EngineError, Write, WriteAction};
use crate::ingest::local::{Basis, LocalWrite, etag};
use crate::ingest::topology::{Role, Topology};
use crate::record::{FieldNumber, NameError, Record, RecordName, codec, raw};
use crate::schema::contract_tier;

/// How often the node looks at itself.
const LOOK_EVERY: Duration = Duration::from_secs(30);
/// What only counts is written again after so long.
const COUNTS_EVERY_MS: u64 = 300_000;
/// The store's size is told in steps of this many bytes.
const SIZE_STEP: u64 = 1 << 20;
/// Divisions that are named as acted for, at most.
const ACTS_FOR_MAX: usize = 2_000;
/// What is told of a failed attempt.
const REASON_CHARS_MAX: usize = 200;

/// Keeps the node's own record true until `stop`.
pub async fn describe(engine: Engine, links: Links, info: NodeInfo, stop: CancellationToken) {
    let mut describing = Describing { engine, links, info, written_ms: 0 };
    let mut look = tokio::time::interval(LOOK_EVERY);
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = look.tick() => {}
            () = stop.cancelled() => return,
        }
        if let Err(error) = describing.look().await {
            tracing::debug!(%error, "the node's own record was not written; it is tried again");
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub(super) enum DescribeError {
    #[error(transparent)]
    Engine(#[from] EngineError),
    #[error(transparent)]
    Store(#[from] crate::store::StoreError),
    #[error(transparent)]
    Name(#[from] NameError),
}

pub(super) struct Describing {
    pub(super) engine: Engine,
    pub(super) links: Links,
    pub(super) info: NodeInfo,
    /// When this process wrote the record last, Unix milliseconds; 0: not yet.
    pub(super) written_ms: u64,
}

impl Describing {
    /// Writes what has changed, if that is due.
    pub(super) async fn look(&mut self) -> Result<(), DescribeError> {
        let shared = self.engine.shared().clone();
        let now_ms = (shared.environment.now_ms)();
        let name = self.engine.name(&format!("divisions/{}/nodes/node", shared.own()))?;
        let stored = shared.store.get(&name).await?;
        let record = stored.and_then(|s| codec::decode(s.state).ok()).unwrap_or_default();
        let shown = view::record(&shared.schema, &name, &record, |_| true);
        let before = told(&shown.fields);
        let (now, heard) = self.now().await?;
        let counts_due = heard && now_ms.saturating_sub(self.written_ms) >= COUNTS_EVERY_MS;
        let conflicts = &shown.conflicting_fields;
        if !is_due(&before, &now, counts_due) && conflicts.is_empty() {
            return Ok(());
        }
        self.write(name, &record, changed(&before, &now, conflicts)).await?;
        self.written_ms = now_ms;
        Ok(())
    }

    /// The node as it is, and whether anyone above hears of it.
    async fn now(&self) -> Result<(v1::Node, bool), DescribeError> {
        let shared = self.engine.shared();
        let (topology, own) = (shared.topology(), shared.own());
        let fingerprint = shared.schema.fingerprint();
        let mut node = v1::Node {
            software_version: Some(self.info.software_version.clone()),
            schema_fingerprint: Some(fingerprint.iter().map(|b| format!("{b:02x}")).collect()),
            tier: Some(contract_tier(own.tier()).into()),
            acts_for: acts_for(&topology, &shared.divisions()).iter().map(ToString::to_string).collect(),
            certificate_expire_time: (self.info.certificate_expire_ms)()
                .and_then(|ms| u64::try_from(ms).ok())
                .map(view::timestamp),
            store_bytes: Some(size(shared.store.counts().await?.store_bytes)),
            ..v1::Node::default()
        };
        let Some((peer, parent)) = topology.parent() else { return Ok((node, true)) };
        let (link, owed) = (self.links.status(Role::Parent, parent), shared.store.backlog(peer).await?);
        let count = |lane: crate::store::LaneBacklog| i64::try_from(lane.count).ok();
        node.backlog = Some(v1::Backlog {
            urgent: count(owed.urgent),
            normal: count(owed.normal),
            bulk: count(owed.bulk),
        });
        let oldest = [owed.urgent, owed.normal, owed.bulk].iter().filter_map(|lane| lane.oldest_ms).min();
        node.oldest_pending_time = oldest.map(view::timestamp);
        node.last_linked_time = link.connect_time;
        node.last_attempt = link.last_error_time.map(|at| v1::LinkAttempt {
            attempt_time: Some(at),
            reason: link.last_error.chars().take(REASON_CHARS_MAX).collect(),
        });
        let line = self.info.parent_line;
        let bundles = bundles::state::state(&shared.store, Role::Parent, parent, line).await?;
        node.parent_bundles = bundles.as_ref().map(bundles::state::progress);
        node.clock_offset_ms = link.connected.then_some(link.clock_offset_ms);
        Ok((node, link.connected))
    }

    async fn write(
        &self,
        name: RecordName,
        seen: &Record,
        fields: Vec<(FieldNumber, Bytes)>,
    ) -> Result<(), EngineError> {
        // Nobody else may write it, so whatever stands side by side was this node's in another life: all is replaced.
        let basis = if seen.is_empty() { Basis::Shown } else { Basis::Etag(etag(seen)) };
        let action = WriteAction::Fields(LocalWrite { basis, ..LocalWrite::of(fields) });
        self.engine.write(Write { name, action, request: None, traceparent: None }).await.map(drop)
    }
}

/// What was said last, without what every kind has.
fn told(fields: &Bytes) -> v1::Node {
    let node = v1::Node::decode(fields.clone()).unwrap_or_default();
    let (external_refs, erased) = (Vec::new(), Vec::new());
    v1::Node { external_refs, erased, deleted: None, record_complete: None, ..node }
}

/// Whether it must be said now.
fn is_due(before: &v1::Node, now: &v1::Node, counts_due: bool) -> bool {
    let without_counts = |node: &v1::Node| v1::Node {
        backlog: None,
        oldest_pending_time: None,
        last_linked_time: None,
        last_attempt: None,
        store_bytes: None,
        clock_offset_ms: None,
        ..node.clone()
    };
    counts_due && before != now || without_counts(before) != without_counts(now)
}

/// The fields to write: those that differ, and those where values stand side by side.
fn changed(before: &v1::Node, now: &v1::Node, conflicts: &[FieldNumber]) -> Vec<(FieldNumber, Bytes)> {
    let pieces = |node: &v1::Node| raw::split(&node.encode_to_vec().into()).unwrap_or_default();
    let (before, now) = (pieces(before), pieces(now));
    let gone = before.iter().filter(|(number, _)| !now.iter().any(|(n, _)| n == number));
    let cleared: Vec<_> = gone.map(|(number, _)| (*number, Bytes::new())).collect();
    let new = now.iter().filter(|piece| conflicts.contains(&piece.0) || !before.contains(piece)).cloned();
    new.chain(cleared).collect()
}

fn size(bytes: u64) -> i64 {
    i64::try_from(bytes.div_ceil(SIZE_STEP) * SIZE_STEP).unwrap_or(i64::MAX)
}

/// The divisions that a node acts for: the outermost ones in which no child was ever welcomed.
fn acts_for(topology: &Topology, divisions: &Divisions) -> Vec<Division> {
    let mut found = Vec::new();
    let mut open = vec![topology.own()];
    while let Some(division) = open.pop().filter(|_| found.len() < ACTS_FOR_MAX) {
        if division != topology.own() && !topology.acts_for(division) {
            continue;
        }
        if topology.children().any(|(_, child)| division.strictly_contains(child)) {
            let below = divisions.children(division).into_iter().map(|(below, _)| below);
            open.extend(below.filter(|below| *below == below.home()));
        } else {
            found.push(division);
        }
    }
    found.sort_unstable();
    found
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::ingest::topology::PeerId;

    fn division(code: &str) -> Division {
        Division::parse(code).unwrap()
    }

    #[test]
    fn what_only_counts_waits_and_what_matters_does_not() {
        let before = v1::Node { software_version: Some("1".into()), ..v1::Node::default() };
        let counted = v1::Node { store_bytes: Some(5), ..before.clone() };
        let renewed = v1::Node { software_version: Some("2".into()), ..before.clone() };
        assert!(!is_due(&before, &before, true));
        assert!(!is_due(&before, &counted, false));
        assert!(is_due(&before, &counted, true));
        assert!(is_due(&before, &renewed, false));
    }

    #[test]
    fn only_what_changed_is_written_and_what_is_gone_is_cleared() {
        let before = v1::Node {
            software_version: Some("1".into()),
            store_bytes: Some(5),
            oldest_pending_time: Some(view::timestamp(9)),
            ..v1::Node::default()
        };
        let now = v1::Node { oldest_pending_time: None, store_bytes: Some(6), ..before.clone() };
        let numbers = |conflicts: &[FieldNumber]| {
            let fields = changed(&before, &now, conflicts);
            fields.into_iter().map(|(number, value)| (number, value.is_empty())).collect::<Vec<_>>()
        };
        assert_eq!(numbers(&[]), [(12, false), (7, true)]);
        assert_eq!(numbers(&[2]), [(2, false), (12, false), (7, true)], "a conflict is settled");
        assert_eq!(told(&before.encode_to_vec().into()), before);
    }

    #[test]
    fn it_acts_for_the_outermost_divisions_without_a_child() {
        let mut topology = Topology::new(division("2208"));
        let divisions = Divisions::embedded();
        assert_eq!(acts_for(&topology, &divisions), [division("2208")]);
        topology.add_child(PeerId(1), division("220822101"));
        topology.add_child(PeerId(2), division("220802"));
        let found = acts_for(&topology, &divisions);
        assert!(found.contains(&division("220821")) && found.contains(&division("220822102")), "{found:?}");
        for not in ["2208", "220822", "220802", "220822101"] {
            assert!(!found.contains(&division(not)), "{not}");
        }
        assert_eq!(acts_for(&Topology::new(division("220822101")), &divisions), [division("220822101")]);
    }
}
