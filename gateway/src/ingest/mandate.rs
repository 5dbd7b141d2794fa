//! What a partner may do with cases: moves and what else is the holder's are made in the name of a unit, and only of
//! units that its grant names. Whoever filed a case may take it back until somebody has moved it.
//!
//! Judged at local writes, upon the state that the write meets, and beside the rules that bind everybody: this only
//! ever refuses more.

use bytes::Bytes;
use guantong_proto::rules::Writers as WriterRule;
use guantong_proto::v1::{self, CaseState, Move};
use prost::Message;

use super::local::{Authority, LocalWrite, WriteError, title};
use super::{Slot, Work};
use crate::casework::{self, MoveRequest, OWN_UNIT};
use crate::division::Division;
use crate::grant::Mandate;
use crate::record::{FieldNumber, view};

/// What a partner's grant lacks.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotGranted {
    /// The unit that holds the case is not among those of the grant.
    #[error(
        "{what} is for the unit `{unit}` of {division}, and {}. The node's operator adds `--unit {unit}` to \
         `guantong grant set {}` (该操作由承办部门办理，授权未包含部门 {unit}；请本节点管理员在授权中增加 --unit {unit})",
        granted(.mandate), .mandate.partner
    )]
    Unit {
        /// The move or the field.
        what: String,
        /// Whose it is.
        division: Division,
        /// Which of its units.
        unit: Box<str>,
        /// What was granted.
        mandate: Box<Mandate>,
    },
    /// The division lies outside the grant.
    #[error(
        "{what} is for {division}, which lies outside {}, the scope of your grant. The node's operator widens it with \
         `guantong grant set {} --scope` (该操作属于授权范围以外的区划；请本节点管理员调整授权范围)",
        .mandate.scope, .mandate.partner
    )]
    Scope {
        /// The move or the field, or that something is written.
        what: String,
        /// Whose it is.
        division: Division,
        /// What was granted.
        mandate: Box<Mandate>,
    },
}

fn granted(mandate: &Mandate) -> String {
    match mandate.units.codes().collect::<Vec<_>>().as_slice() {
        [] => "your grant names no unit".into(),
        units => format!("your grant names {}", units.join(", ")),
    }
}

/// A division, and which of its units.
type Desk = (Division, Box<str>);

/// The desk of a division itself.
fn own_desk(division: Division) -> Desk {
    (division, OWN_UNIT.into())
}

/// Who handles a case: its holder; for the division that a hand-over waits for, the unit that is addressed there.
/// `None`: the case is not registered.
fn handled_by(home: Division, lifecycle: Option<&v1::Lifecycle>, actor: Division) -> Option<Desk> {
    let now = lifecycle.filter(|l| l.state != CaseState::Unspecified as i32)?;
    let holder = casework::holder(now).unwrap_or(home);
    let waits = now.state() == CaseState::Pending && actor != holder;
    let addressed = waits && Division::parse(&now.pending_to).ok() == Some(actor);
    let (division, unit) = if addressed { (actor, &now.pending_unit) } else { (holder, &now.unit) };
    // What a link brought need not be a code; such a case lies with the division itself.
    let unit = if casework::is_code(unit) { unit } else { OWN_UNIT };
    Some((division, unit.into()))
}

fn require(mandate: &Mandate, what: &str, (division, unit): Desk) -> Result<(), NotGranted> {
    if mandate.acts_for(division, &unit) {
        return Ok(());
    }
    let (what, lacking) = (what.to_owned(), Box::new(mandate.clone()));
    Err(match mandate.scope.contains(division) {
        true => NotGranted::Unit { what, division, unit, mandate: lacking },
        false => NotGranted::Scope { what, division, mandate: lacking },
    })
}

impl Work<'_> {
    /// Judges a move by what the caller may.
    pub(super) fn judge_move(
        &self,
        slot: Slot,
        request: &MoveRequest<'_>,
        base: &LocalWrite,
    ) -> Result<(), WriteError> {
        let Some(mandate) = &base.mandate else { return Ok(()) };
        let lifecycle = self.lifecycle(slot);
        let taken_back = request.action == Move::Cancel && self.may_take_back(slot, &base.purpose);
        match handled_by(self.name(slot).home, lifecycle.as_ref(), request.actor) {
            Some(desk) if !taken_back => Ok(require(mandate, &casework::action_words(request.action), desk)?),
            // Whoever may write may register.
            _ => Ok(()),
        }
    }

    /// Judges a write of fields by what the caller may. `wanted` are those that it changes.
    pub(super) fn judge_mandate(
        &self,
        slot: Slot,
        write: &LocalWrite,
        division: Division,
        wanted: &[(FieldNumber, &Bytes)],
    ) -> Result<(), WriteError> {
        let Some(mandate) = write.mandate.as_deref().filter(|_| write.authority != Authority::Move) else {
            return Ok(());
        };
        if let Some(division) = write.acting.filter(|division| !mandate.scope.contains(*division)) {
            let what = "acting_division: this write".to_owned();
            return Err(NotGranted::Scope { what, division, mandate: Box::new(mandate.clone()) }.into());
        }
        let (kind, home) = (self.kind(slot), self.name(slot).home);
        let Some(lifecycle) = kind.roles.lifecycle else { return Ok(()) };
        let before = self.lifecycle(slot);
        let registered = handled_by(home, before.as_ref(), division);
        let written = wanted
            .iter()
            .find(|(field, _)| *field == lifecycle)
            .and_then(|(_, value)| v1::Case::decode((*value).clone()).ok()?.lifecycle);
        let reported_to = || handled_by(home, written.as_ref(), division).unwrap_or_else(|| own_desk(home));
        for field in wanted.iter().filter_map(|(number, _)| kind.field(*number)) {
            let desk = match field.writers {
                WriterRule::Holder if field.number == lifecycle => registered.clone(),
                WriterRule::Holder => Some(registered.clone().unwrap_or_else(reported_to)),
                WriterRule::AboveHolder | WriterRule::HomeCounty => Some(own_desk(division)),
                _ if Some(field.number) == kind.roles.deleted => {
                    registered.clone().filter(|_| !self.may_take_back(slot, &write.purpose))
                }
                _ => None,
            };
            if let Some(desk) = desk {
                require(mandate, &title(field), desk)?;
            }
        }
        Ok(())
    }

    /// Whether the case was filed by this store's writer of a purpose, and nobody has moved it since.
    fn may_take_back(&self, slot: Slot, purpose: &str) -> bool {
        let reported = self.lifecycle(slot).is_some_and(|l| l.state() == CaseState::Reported);
        let Some(steps) = self.kind(slot).roles.steps.and_then(|steps| self.record(slot).get(steps)) else {
            return false;
        };
        let writers = self.writers.states();
        let by_it = |writer| writers.iter().any(|s| s.writer == writer && s.purpose == purpose);
        let mut filed = false;
        for (entry, value) in steps.live() {
            for step in view::union_entries(value) {
                let report =
                    v1::CaseStep::decode(step.message).is_ok_and(|step| step.r#move() == Move::Report);
                if !report {
                    return false;
                }
                filed |= by_it(entry.writer);
            }
        }
        reported && filed
    }
}
