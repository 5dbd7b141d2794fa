//! What is particular to writing cases: their moves, the registration of new ones, and the step that goes with a
//! lifecycle. Which moves are legal is `casework`'s to say.

use std::sync::Arc;

use bytes::Bytes;
use guantong_proto::rules::fields;
use guantong_proto::v1;
use prost::Message;

use super::local::{Authority, LocalWrite, WriteError, Written, first_of};
use super::{Slot, Work};
use crate::casework::{self, MoveRequest};
use crate::division::Division;
use crate::record::{FieldNumber, view};

impl Work<'_> {
    /// State and holder of a case, as shown.
    pub fn lifecycle(&self, slot: Slot) -> Option<v1::Lifecycle> {
        let kind = self.kind(slot);
        let rule = kind.roles.lifecycle.and_then(|n| kind.field(n))?;
        let shown = view::shown(rule, self.record(slot).get(rule.number)?, self.name(slot).home)?;
        v1::Case::decode(shown.value).ok()?.lifecycle
    }

    /// Moves a case along its way: lifecycle, step and outcome in one write, which is otherwise as `base` says.
    /// `step_id` is unique in the case.
    pub fn move_case(
        &mut self,
        slot: Slot,
        request: &MoveRequest<'_>,
        step_id: &str,
        base: LocalWrite,
        traceparent: Option<&Arc<str>>,
    ) -> Result<Written, WriteError> {
        if !self.exists(slot) {
            return Err(WriteError::NotFound);
        }
        self.judge_move(slot, request, &base)?;
        let moved = casework::apply(self.name(slot).home, self.lifecycle(slot).as_ref(), request)?;
        let step = v1::CaseStep { id: step_id.into(), ..moved.step };
        let value = |case: v1::Case| Bytes::from(case.encode_to_vec());
        let mut fields = vec![
            (
                fields::case::LIFECYCLE,
                value(v1::Case { lifecycle: Some(moved.lifecycle), ..v1::Case::default() }),
            ),
            (fields::case::STEPS, value(v1::Case { steps: vec![step], ..v1::Case::default() })),
        ];
        if let Some(outcome) = moved.outcome {
            let case = v1::Case { outcome: Some(outcome), ..v1::Case::default() };
            fields.push((fields::case::OUTCOME, value(case)));
        }
        let (acting, authority) = (Some(request.actor), Authority::Move);
        let write = LocalWrite { fields, acting, authority, ..base };
        self.write(slot, &write, traceparent)
    }

    /// The write with the lifecycle of a case that is registered by it; `None`: it stays as it is.
    pub(super) fn registration(
        &self,
        slot: Slot,
        write: &LocalWrite,
        actor: Division,
    ) -> Result<Option<LocalWrite>, WriteError> {
        let Some(lifecycle) = self.kind(slot).roles.lifecycle.filter(|_| write.register) else {
            return Ok(None);
        };
        if self.exists(slot) || write.fields.iter().any(|(field, _)| *field == lifecycle) {
            return Ok(None);
        }
        let request = MoveRequest {
            action: v1::Move::Report,
            actor,
            to_division: None,
            to_unit: "",
            reason: "",
            outcome: None,
            now_ms: self.ctx.now_ms,
        };
        let moved = casework::apply(self.name(slot).home, None, &request)?;
        let case = v1::Case { lifecycle: Some(moved.lifecycle), ..v1::Case::default() };
        let mut registered = write.clone();
        registered.fields.push((lifecycle, case.encode_to_vec().into()));
        Ok(Some(registered))
    }

    /// The step that a lifecycle written by itself implies, so that a new holder joins the audience and gets the case.
    pub(super) fn implied_step(
        &self,
        slot: Slot,
        write: &LocalWrite,
        actor: Division,
    ) -> Option<(FieldNumber, Bytes)> {
        let (lifecycle, steps) = (self.kind(slot).roles.lifecycle?, self.kind(slot).roles.steps?);
        if write.authority == Authority::Move {
            return None;
        }
        let (_, value) = write.fields.iter().find(|(field, _)| *field == lifecycle)?;
        let after = v1::Case::decode(value.clone()).ok()?.lifecycle?;
        let (home, now_ms) = (self.name(slot).home, self.ctx.now_ms);
        let (before, first) = (self.lifecycle(slot), first_of(write.authority));
        let step = casework::implied_step(home, before.as_ref(), &after, actor, first, now_ms)?;
        let id = format!("{now_ms}-{:08x}", super::import::value_hash(value) as u32);
        let case = v1::Case { steps: vec![v1::CaseStep { id, ..step }], ..v1::Case::default() };
        Some((steps, case.encode_to_vec().into()))
    }
}
