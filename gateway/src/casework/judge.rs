//! Lifecycles that are written directly instead of by a move. The first is that of a report; a ledger's may carry any
//! state, since offices load what they already have. A later one must be what one legal move gives.

use guantong_proto::v1::{self, CaseState, Move};

use super::{
    Cause, MoveRefused, MoveRequest, OWN_UNIT, Standing, holder, holder_code, is_code, is_reason, next_up,
    timestamp,
};
use crate::division::{Division, Tier};

/// Where a case may stand that is not registered yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum First {
    /// It is reported: to its home, or to the division next above it.
    Reported,
    /// Anywhere on its way, as a ledger says.
    Anywhere,
}

/// Judges a direct write of a lifecycle. `before` is what is shown until then; unchanged is fine, and whoever holds the
/// case may correct since when and why.
pub fn judge_write(
    home: Division,
    before: Option<&v1::Lifecycle>,
    after: &v1::Lifecycle,
    actor: Division,
    first: First,
) -> Result<(), MoveRefused> {
    read_write(home, before, after, actor, first).map(|_| ())
}

/// The step that a direct write of a lifecycle stands for, to be written with it: without it the division that the
/// case is handed to would not join its audience. `None`: no step is needed, or the write is refused.
pub fn implied_step(
    home: Division,
    before: Option<&v1::Lifecycle>,
    after: &v1::Lifecycle,
    actor: Division,
    first: First,
    now_ms: u64,
) -> Option<v1::CaseStep> {
    let step = read_write(home, before, after, actor, first).ok().flatten()?;
    Some(v1::CaseStep { at: after.since.or(Some(timestamp(now_ms))), ..step })
}

fn read_write(
    home: Division,
    before: Option<&v1::Lifecycle>,
    after: &v1::Lifecycle,
    actor: Division,
    first: First,
) -> Result<Option<v1::CaseStep>, MoveRefused> {
    let case = Standing::read(home, before);
    let refuse = |cause| case.refused(Move::Unspecified, actor, cause);
    if before == Some(after) {
        return Ok(None);
    }
    if actor.tier() == Tier::Village {
        return Err(refuse(Cause::Village));
    }
    check_form(after).map_err(refuse)?;
    let Some(before) = before.filter(|b| b.state != CaseState::Unspecified as i32) else {
        if first == First::Reported {
            check_report(home, after, actor).map_err(refuse)?;
        }
        return Ok(Some(first_step(after, actor)));
    };
    if place(before) == place(after) && says_sender(after, &before.sender) {
        return if actor == case.holder { Ok(None) } else { Err(refuse(Cause::NotHolder(actor))) };
    }
    let mut why = Cause::NoMove(after.state());
    for action in moves_into(after.state()) {
        match case.apply(&as_request(*action, after, actor)) {
            Ok(moved) if gives(&moved.lifecycle, after) => return Ok(Some(moved.step)),
            Ok(moved) => why = holder(&moved.lifecycle).map_or(why, Cause::OtherTarget),
            Err(Cause::State) => {}
            Err(cause) => why = cause,
        }
    }
    Err(refuse(why))
}

/// Every part that a lifecycle must have, or may have in one form only.
fn check_form(after: &v1::Lifecycle) -> Result<(), Cause> {
    let unset = |text: &str| text.is_empty();
    let state = CaseState::try_from(after.state).map_err(|_| Cause::UnknownState(after.state))?;
    if state == CaseState::Unspecified {
        return Err(Cause::Malformed("state"));
    }
    if holder_code(&after.holder).is_none() {
        return Err(Cause::Malformed("holder"));
    }
    if !unset(&after.sender) && holder_code(&after.sender).is_none() {
        return Err(Cause::Malformed("sender"));
    }
    let waits = holder_code(&after.pending_to).is_some();
    let wrong = if state == CaseState::Pending { !waits } else { !unset(&after.pending_to) };
    if wrong || waits && after.pending_to == after.holder {
        return Err(Cause::Malformed("pending_to"));
    }
    if [&after.unit, &after.pending_unit].into_iter().any(|unit| !unset(unit) && !is_code(unit)) {
        return Err(Cause::BadUnit);
    }
    if !is_reason(&after.reason) {
        return Err(Cause::BadReason);
    }
    Ok(())
}

/// What a report gives. It may go past the home to the division next above: nobody else can be meant.
fn check_report(home: Division, after: &v1::Lifecycle, actor: Division) -> Result<(), Cause> {
    let above = next_up(home);
    let holder = holder_code(&after.holder);
    let addressed = holder == Some(home) || holder.is_some() && holder == above;
    if after.state() != CaseState::Reported || !addressed {
        return Err(Cause::FirstReported { home, above });
    }
    let from_actor = after.sender.is_empty() || holder_code(&after.sender) == Some(actor);
    if from_actor { Ok(()) } else { Err(Cause::Malformed("sender")) }
}

/// Where a case stands, without since when, why and from whom.
fn place(l: &v1::Lifecycle) -> (i32, &str, &str, &str, &str) {
    (l.state, &l.holder, unit_or(&l.unit), &l.pending_to, unit_or(&l.pending_unit))
}

fn unit_or(unit: &str) -> &str {
    if unit.is_empty() { OWN_UNIT } else { unit }
}

/// Whether what was written names this sender, or none: few ledgers have a column for it.
fn says_sender(after: &v1::Lifecycle, sender: &str) -> bool {
    after.sender.is_empty() || after.sender == sender
}

/// The step of a case that is loaded as it already stands.
fn first_step(after: &v1::Lifecycle, actor: Division) -> v1::CaseStep {
    let waits = !after.pending_to.is_empty();
    let (to, unit) =
        if waits { (&after.pending_to, &after.pending_unit) } else { (&after.holder, &after.unit) };
    v1::CaseStep {
        from: actor.to_string(),
        to: to.clone(),
        unit: unit_or(unit).into(),
        r#move: Move::Report as i32,
        reason: after.reason.clone(),
        ..v1::CaseStep::default()
    }
}

/// The moves that may lead to a state.
fn moves_into(state: CaseState) -> &'static [Move] {
    match state {
        CaseState::Unspecified => &[],
        CaseState::Reported => &[Move::Escalate, Move::Assign],
        CaseState::Accepted => &[Move::Transfer, Move::SendBack, Move::Accept],
        CaseState::Returned => &[Move::Refuse, Move::Return],
        CaseState::Filed => &[Move::File],
        CaseState::Cancelled => &[Move::Cancel],
        CaseState::Pending => &[Move::Transfer],
        CaseState::Concluded => &[Move::Conclude],
        CaseState::Verified => &[Move::Verify],
    }
}

/// The move that would have led to what was written. An outcome is a field of its own, which such a write may bring
/// along or not, so one is assumed here.
fn as_request(action: Move, after: &v1::Lifecycle, actor: Division) -> MoveRequest<'_> {
    let waits = !after.pending_to.is_empty();
    let handed = matches!(action, Move::Escalate | Move::Assign | Move::Transfer);
    let to = if waits { &after.pending_to } else { &after.holder };
    let outcome = v1::Outcome { succeeded: Some(true), ..v1::Outcome::default() };
    MoveRequest {
        action,
        actor,
        to_division: holder_code(to).filter(|_| handed),
        to_unit: if waits { &after.pending_unit } else { &after.unit },
        reason: &after.reason,
        outcome: Some(outcome).filter(|_| action == Move::Conclude),
        now_ms: 0,
    }
}

/// Whether a move's result is what was written, as far as the writer said it.
fn gives(result: &v1::Lifecycle, after: &v1::Lifecycle) -> bool {
    (result.state, &result.holder, &result.pending_to) == (after.state, &after.holder, &after.pending_to)
        && says_sender(after, &result.sender)
}
