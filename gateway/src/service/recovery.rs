//! What becomes of a store that is filled again, as an operator sees it. It only tells.

use guantong_proto::v1;

use super::{Links, view};
use crate::engine::Shared;
use crate::ingest::recovery::{Cause, Recovery};
use crate::ingest::topology::Role;

/// How the store is filled again, or was last; `None`: it never was.
pub(super) fn of_now(shared: &Shared, links: &Links) -> Option<v1::Recovery> {
    let known = shared.recovery()?;
    let topology = shared.topology();
    let parent =
        topology.parent().filter(|_| known.from_parent).map(|(_, division)| (Role::Parent, division));
    let children = shared.recovering().into_iter().map(|division| (Role::Child, division));
    let going_on = known.ended_ms.is_none();
    let pending: Vec<_> = parent.into_iter().chain(children).filter(|_| going_on).collect();
    let all = topology.parent().map(|p| (Role::Parent, p.1)).into_iter();
    let all = all.chain(topology.children().map(|(_, division)| (Role::Child, division)));
    let received = all.map(|(role, division)| links.status(role, division).received_records);
    Some(v1::Recovery {
        cause: match known.cause {
            Cause::Emptied => v1::RecoveryCause::Emptied,
            Cause::PutBack => v1::RecoveryCause::PutBack,
        }
        .into(),
        start_time: Some(view::timestamp(known.begun_ms)),
        end_time: known.ended_ms.map(view::timestamp),
        pending_peers: pending.iter().map(|(_, division)| division.to_string()).collect(),
        received_records: if going_on { received.sum() } else { 0 },
        losses: losses(shared, &known),
    })
}

fn losses(shared: &Shared, known: &Recovery) -> Vec<v1::RecoveryLoss> {
    // Only an empty store has lost what nobody else holds; one that was put back has it as it was then.
    if known.losses.is_none() || known.cause != Cause::Emptied {
        return Vec::new();
    }
    if shared.topology().parent().is_none() {
        // Nobody above: what was born here, or where no node is, is with nobody.
        let whole = |kind: &crate::schema::Kind| v1::RecoveryLoss {
            kind: kind.rule.name.into(),
            kind_label: kind.rule.label.into(),
            ..v1::RecoveryLoss::default()
        };
        return shared.schema.kinds().iter().map(whole).collect();
    }
    let loss = |loss: &crate::ingest::recovery::Loss| {
        let kind = shared.schema.kind(loss.kind);
        let field = kind.field(loss.field)?;
        Some(v1::RecoveryLoss {
            kind: kind.rule.name.into(),
            kind_label: kind.rule.label.into(),
            field_name: field.name.into(),
            field_label: field.label.into(),
            record_count: Some(loss.records),
        })
    };
    known.losses.iter().flatten().filter_map(loss).collect()
}
