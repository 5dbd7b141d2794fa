//! How a case goes its way: states, and the moves from one to the next. At any time exactly one division holds a case,
//! and whoever holds it can always do something with it until it ends.
//!
//! These are rules of local writes: links never judge a move, since what one node could accept another would not.
//! Nothing here knows records, stamps or who is owed what, reads a clock or draws an id.

use guantong_proto::v1::{self, CaseState, Move};

use crate::calendar::{self, timestamp};
use crate::division::{Division, Tier};

mod judge;
mod words;

pub use judge::{First, implied_step, judge_write};
pub use words::{Cause, MoveRefused, action_words, state_words};

/// The code of the unit that stands for a division itself.
pub const OWN_UNIT: &str = "division";
/// The longest code of a unit or category, in bytes.
pub const CODE_MAX_BYTES: usize = 64;
/// The longest reason, in bytes.
const REASON_MAX_BYTES: usize = 256;

/// A move that somebody asks for.
#[derive(Clone, Debug)]
pub struct MoveRequest<'a> {
    /// What to do.
    pub action: Move,
    /// In whose name. Never a village.
    pub actor: Division,
    /// The division addressed. Escalation without one goes to the next tier up, transfer to a unit of the holder's;
    /// moves that leave no choice need none.
    pub to_division: Option<Division>,
    /// Code of the unit addressed; empty: the division itself.
    pub to_unit: &'a str,
    /// Code or words, where the move needs a reason.
    pub reason: &'a str,
    /// For a conclusion; without a day it is concluded today, Beijing time.
    pub outcome: Option<v1::Outcome>,
    /// Unix milliseconds.
    pub now_ms: u64,
}

/// What a move changes.
#[derive(Clone, Debug, PartialEq)]
pub struct Moved {
    /// Where the case stands now.
    pub lifecycle: v1::Lifecycle,
    /// The step that is added to its way. Id and stamp are left empty for the caller to set.
    pub step: v1::CaseStep,
    /// How it ended, where it was concluded.
    pub outcome: Option<v1::Outcome>,
}

/// Makes a move, or says why not and which moves are legal. `now` is the lifecycle that is shown; `None`, or one
/// without a state: the case is not registered yet.
pub fn apply(
    home: Division,
    now: Option<&v1::Lifecycle>,
    request: &MoveRequest<'_>,
) -> Result<Moved, MoveRefused> {
    let case = Standing::read(home, now);
    case.apply(request).map_err(|cause| case.refused(request.action, request.actor, cause))
}

/// The moves that `actor` can make; some need a target, a reason or an outcome.
pub fn legal_moves(home: Division, now: Option<&v1::Lifecycle>, actor: Division) -> Vec<Move> {
    Standing::read(home, now).legal(actor)
}

/// The division that holds a case.
pub fn holder(lifecycle: &v1::Lifecycle) -> Option<Division> {
    holder_code(&lifecycle.holder)
}

/// Whether a case in this state has ended: nothing moves it any more.
pub fn is_ended(state: CaseState) -> bool {
    matches!(state, CaseState::Filed | CaseState::Cancelled | CaseState::Verified)
}

/// Whether the text can be a code of a unit or category: 1 to 64 bytes without blanks or control characters.
pub fn is_code(text: &str) -> bool {
    (1..=CODE_MAX_BYTES).contains(&text.len()) && !text.chars().any(|c| c.is_control() || c.is_whitespace())
}

/// Whether the text can be a reason: at most 256 bytes without control characters.
pub fn is_reason(text: &str) -> bool {
    text.len() <= REASON_MAX_BYTES && !text.chars().any(char::is_control)
}

/// A division that can hold a case, from its 12 digits.
fn holder_code(text: &str) -> Option<Division> {
    let division = Division::parse(text).ok().filter(|_| text.len() == 12)?;
    (division.tier() != Tier::Village).then_some(division)
}

/// The next tier up that has a government.
fn next_up(division: Division) -> Option<Division> {
    division.enclosing().skip(1).find(|above| !above.is_pseudo_prefecture())
}

/// A unit's code, or the division itself where none is named.
fn unit_or_own(unit: &str) -> Result<&str, Cause> {
    match unit {
        "" => Ok(OWN_UNIT),
        unit if is_code(unit) => Ok(unit),
        _ => Err(Cause::BadUnit),
    }
}

/// A lifecycle as moves see it. What cannot be read (a link may have brought anything) falls back to something that
/// somebody can still move: an unreadable holder to the home.
struct Standing<'a> {
    home: Division,
    /// As a number, since a newer program may know more states.
    state: Result<CaseState, i32>,
    holder: Division,
    unit: &'a str,
    pending_to: Option<Division>,
    pending_unit: &'a str,
    sender: Option<Division>,
}

/// What an actor is to a case.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Holder,
    /// A hand-over waits for it.
    Addressed,
    /// The case is not registered yet, and the actor is its home or above it.
    Registrar,
    None,
}

impl<'a> Standing<'a> {
    fn read(home: Division, now: Option<&'a v1::Lifecycle>) -> Standing<'a> {
        let empty = Standing {
            home,
            state: Ok(CaseState::Unspecified),
            holder: home,
            unit: "",
            pending_to: None,
            pending_unit: "",
            sender: None,
        };
        let Some(now) = now else { return empty };
        Standing {
            state: CaseState::try_from(now.state).map_err(|_| now.state),
            holder: holder(now).unwrap_or(home),
            unit: &now.unit,
            pending_to: holder_code(&now.pending_to),
            pending_unit: &now.pending_unit,
            sender: holder_code(&now.sender),
            ..empty
        }
    }

    fn part(&self, actor: Division) -> Part {
        match self.state {
            _ if actor.tier() == Tier::Village => Part::None,
            Ok(CaseState::Unspecified) if actor.contains(self.home) => Part::Registrar,
            Ok(CaseState::Unspecified) => Part::None,
            _ if actor == self.holder => Part::Holder,
            Ok(CaseState::Pending) if Some(actor) == self.pending_to => Part::Addressed,
            _ => Part::None,
        }
    }

    /// The whole of states and moves.
    fn moves(&self, part: Part) -> &'static [Move] {
        use Move::{Accept, Assign, Cancel, Conclude, Escalate, File, Refuse, Report, Return, SendBack};
        use Move::{Transfer, Verify};
        match (self.state, part) {
            (Ok(CaseState::Unspecified), Part::Registrar) => &[Report],
            (Ok(CaseState::Reported), Part::Holder) => &[Accept, Return, File, Cancel],
            (Ok(CaseState::Accepted), Part::Holder) => &[Escalate, Assign, Transfer, Conclude, Cancel],
            (Ok(CaseState::Returned), Part::Holder) => &[Accept, Escalate, Assign, Transfer, Cancel],
            (Ok(CaseState::Pending), Part::Addressed) => &[Accept, Refuse],
            (Ok(CaseState::Pending), Part::Holder) => &[Accept, Assign],
            (Ok(CaseState::Concluded), Part::Holder) => &[Verify, SendBack],
            _ => &[],
        }
    }

    fn legal(&self, actor: Division) -> Vec<Move> {
        let possible = |action: &Move| match action {
            Move::Return => self.returns_to().is_some(),
            Move::Escalate => next_up(self.holder).is_some(),
            Move::Assign => self.holder.tier() > Tier::Township,
            _ => true,
        };
        self.moves(self.part(actor)).iter().copied().filter(possible).collect()
    }

    /// Whom a return goes to: whoever handed the case to its holder.
    fn returns_to(&self) -> Option<Division> {
        self.sender.filter(|sender| *sender != self.holder)
    }

    fn refused(&self, action: Move, actor: Division, cause: Cause) -> MoveRefused {
        let registered = self.state != Ok(CaseState::Unspecified);
        MoveRefused {
            state: self.state.unwrap_or_default(),
            action,
            cause,
            legal: self.legal(actor),
            holder: registered.then_some(self.holder),
            holder_may: if registered { self.legal(self.holder) } else { Vec::new() },
        }
    }

    /// Why the actor may not make the move, whatever its target.
    fn judge(&self, request: &MoveRequest<'_>) -> Result<(), Cause> {
        let state = self.state.map_err(Cause::UnknownState)?;
        let part = self.part(request.actor);
        if request.actor.tier() == Tier::Village {
            return Err(Cause::Village);
        }
        if is_ended(state) {
            return Err(Cause::Ended);
        }
        if !self.moves(part).contains(&request.action) {
            let of_holder = self.moves(Part::Holder).contains(&request.action)
                || self.moves(Part::Addressed).contains(&request.action);
            return Err(match (state, request.action) {
                (CaseState::Unspecified, Move::Report) => Cause::NotHome(self.home),
                _ if of_holder => Cause::NotHolder(request.actor),
                _ => Cause::State,
            });
        }
        let reason = request.reason;
        if !is_reason(reason) {
            return Err(Cause::BadReason);
        }
        if matches!(request.action, Move::Return | Move::Cancel) && reason.trim().is_empty() {
            return Err(Cause::NeedsReason);
        }
        if request.outcome.is_some() && request.action != Move::Conclude {
            return Err(Cause::OutcomeElsewhere);
        }
        Ok(())
    }

    fn apply(&self, request: &MoveRequest<'_>) -> Result<Moved, Cause> {
        self.judge(request)?;
        let mut outcome = None;
        let (lifecycle, to) = match request.action {
            Move::Report => {
                let sender = Some(request.actor).filter(|actor| *actor != self.home);
                hand(self.home, unit_or_own(request.to_unit)?, sender)
            }
            Move::Accept => self.accept(request)?,
            Move::Return => give_back(self.returns_to().ok_or(Cause::NoSender)?, request.actor),
            Move::Refuse => give_back(self.sender.unwrap_or(self.holder), request.actor),
            Move::Escalate => {
                let target = self.escalation(request)?;
                hand(target, unit_or_own(request.to_unit)?, Some(request.actor))
            }
            Move::Assign => {
                let target = self.assignment(request)?;
                hand(target, unit_or_own(request.to_unit)?, Some(request.actor))
            }
            Move::Transfer => self.transfer(request)?,
            Move::Conclude => {
                outcome = Some(conclusion(request)?);
                self.stay(CaseState::Concluded)
            }
            Move::File => self.stay(CaseState::Filed),
            Move::Cancel => self.stay(CaseState::Cancelled),
            Move::Verify => self.stay(CaseState::Verified),
            Move::SendBack => self.stay(CaseState::Accepted),
            Move::Unspecified => return Err(Cause::State),
        };
        if request.to_division.is_some_and(|named| named != to) {
            return Err(Cause::OtherTarget(to));
        }
        Ok(self.moved(request, lifecycle, to, outcome))
    }

    /// Adds what every move has: since when, why, and the step.
    fn moved(
        &self,
        request: &MoveRequest<'_>,
        mut lifecycle: v1::Lifecycle,
        to: Division,
        outcome: Option<v1::Outcome>,
    ) -> Moved {
        lifecycle.since = Some(timestamp(request.now_ms));
        lifecycle.reason = request.reason.into();
        let from = if self.state == Ok(CaseState::Unspecified) { request.actor } else { self.holder };
        let addressed = !lifecycle.pending_to.is_empty();
        let step = v1::CaseStep {
            at: lifecycle.since,
            from: from.to_string(),
            to: to.to_string(),
            unit: if addressed { &lifecycle.pending_unit } else { &lifecycle.unit }.clone(),
            r#move: request.action as i32,
            reason: request.reason.into(),
            ..v1::CaseStep::default()
        };
        Moved { lifecycle, step, outcome }
    }

    /// The holder and its unit keep the case, in another state.
    fn stay(&self, state: CaseState) -> (v1::Lifecycle, Division) {
        let unit = if self.unit.is_empty() { OWN_UNIT } else { self.unit };
        (lifecycle(state, self.holder, unit, self.sender), self.holder)
    }

    fn accept(&self, request: &MoveRequest<'_>) -> Result<(v1::Lifecycle, Division), Cause> {
        let addressed = self.part(request.actor) == Part::Addressed;
        let waiting =
            Some(if addressed { self.pending_unit } else { self.unit }).filter(|unit| is_code(unit));
        let unit = match request.to_unit {
            "" => waiting.unwrap_or(OWN_UNIT),
            named => unit_or_own(named)?,
        };
        let lifecycle = lifecycle(CaseState::Accepted, request.actor, unit, self.sender);
        Ok((lifecycle, request.actor))
    }

    fn escalation(&self, request: &MoveRequest<'_>) -> Result<Division, Cause> {
        let next = next_up(self.holder).ok_or(Cause::NothingAbove(self.holder))?;
        let target = request.to_division.unwrap_or(next);
        if !target.strictly_contains(self.holder) {
            return Err(Cause::NotAbove(target));
        }
        if target.is_pseudo_prefecture() {
            return Err(Cause::CannotHold(target));
        }
        if target != next && request.reason.trim().is_empty() {
            return Err(Cause::Skips(next));
        }
        Ok(target)
    }

    fn assignment(&self, request: &MoveRequest<'_>) -> Result<Division, Cause> {
        let target = request.to_division.ok_or(Cause::NeedsTarget)?;
        if target.tier() == Tier::Village || target.is_pseudo_prefecture() {
            return Err(Cause::CannotHold(target));
        }
        if self.holder.strictly_contains(target) { Ok(target) } else { Err(Cause::NotBelow(target)) }
    }

    /// To another unit of the holder at once; to another division by way of the common parent, which holds the case
    /// until it is accepted or refused.
    fn transfer(&self, request: &MoveRequest<'_>) -> Result<(v1::Lifecycle, Division), Cause> {
        let target = request.to_division.unwrap_or(self.holder);
        if target == self.holder {
            if request.to_unit.is_empty() {
                return Err(Cause::NeedsTarget);
            }
            let unit = unit_or_own(request.to_unit)?;
            if unit == unit_or_own(self.unit).unwrap_or_default() {
                return Err(Cause::SameUnit);
            }
            return Ok((lifecycle(CaseState::Accepted, target, unit, self.sender), target));
        }
        if target.tier() == Tier::Village || target.is_pseudo_prefecture() {
            return Err(Cause::CannotHold(target));
        }
        let parent = next_up(self.holder).filter(|parent| next_up(target) == Some(*parent));
        let parent = parent.ok_or(Cause::NotSibling(target))?;
        let lifecycle = v1::Lifecycle {
            pending_to: target.to_string(),
            pending_unit: unit_or_own(request.to_unit)?.into(),
            ..lifecycle(CaseState::Pending, parent, OWN_UNIT, Some(request.actor))
        };
        Ok((lifecycle, target))
    }
}

/// Another division is addressed, holds the case from now on, and may accept or return it.
fn hand(to: Division, unit: &str, sender: Option<Division>) -> (v1::Lifecycle, Division) {
    (lifecycle(CaseState::Reported, to, unit, sender), to)
}

/// Whoever handed it on holds it again.
fn give_back(to: Division, from: Division) -> (v1::Lifecycle, Division) {
    (lifecycle(CaseState::Returned, to, OWN_UNIT, Some(from)), to)
}

fn lifecycle(state: CaseState, holder: Division, unit: &str, sender: Option<Division>) -> v1::Lifecycle {
    v1::Lifecycle {
        state: state as i32,
        holder: holder.to_string(),
        unit: unit.into(),
        sender: sender.map(|s| s.to_string()).unwrap_or_default(),
        ..v1::Lifecycle::default()
    }
}

/// The outcome of a conclusion, dated.
fn conclusion(request: &MoveRequest<'_>) -> Result<v1::Outcome, Cause> {
    let given = request.outcome.filter(|o| o.succeeded.is_some()).ok_or(Cause::NeedsOutcome)?;
    let today = calendar::beijing_date(request.now_ms);
    let day = given.concluded_on.unwrap_or(today);
    if !calendar::is_date(&day) || calendar::sort_key(&day) > calendar::sort_key(&today) {
        return Err(Cause::ConcludedOn);
    }
    Ok(v1::Outcome { concluded_on: Some(day), ..given })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
