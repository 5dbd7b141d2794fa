//! Whether both ends of links hold the same, as callers see it.

use guantong_proto::v1;

use super::Links;
use super::view::timestamp;
use crate::comparing::ProofState;
use crate::division::Division;
use crate::engine::Shared;
use crate::ingest::topology::Role;

/// What is known of a link.
pub(super) fn of_link(shared: &Shared, links: &Links, role: Role, peer: Division) -> v1::LinkEquality {
    let topology = shared.topology();
    let id = match role {
        Role::Parent => topology.parent().map(|parent| parent.0),
        _ => topology.children().find(|child| child.1 == peer).map(|child| child.0),
    };
    let proof = id.map(|id| shared.proof(id)).unwrap_or_default();
    let (state, differing) = match proof.state {
        ProofState::Equal => (v1::EqualityState::Equal, 0),
        ProofState::Unknown(_) => (v1::EqualityState::Unknown, 0),
        ProofState::Differs { records, .. } => (v1::EqualityState::Differs, records),
    };
    let (child, parent) = if role == Role::Parent { (shared.own(), peer) } else { (peer, shared.own()) };
    let link = links.status(role, peer);
    v1::LinkEquality {
        child_division: child.to_string(),
        parent_division: parent.to_string(),
        state: state.into(),
        compare_time: proof.compared_ms.map(timestamp),
        equal_time: proof.equal_ms.map(timestamp),
        differing_record_count: differing,
        left_out_count: proof.left_out,
        reason: if proof.is_equal() { String::new() } else { proof.state.to_string() },
        linked: link.connected,
        link_time: link.connect_time,
    }
}

/// Links that somebody must look at, in plain words: what differs and was not put right by sending it again.
pub(super) fn warnings(shared: &Shared) -> Vec<String> {
    let topology = shared.topology();
    let peers = topology.parent().into_iter().chain(topology.children());
    let stays = |(id, peer)| {
        let state = shared.proof(id).state;
        matches!(state, ProofState::Differs { stays: true, .. }).then(|| format!("{peer}: {state}"))
    };
    peers.filter_map(stays).collect()
}
