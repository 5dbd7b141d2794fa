//! What a case adds: flows, each dated by the case itself, by kind, category, channel, risk and unit.
//!
//! | count | day |
//! | --- | --- |
//! | received | `received_on` |
//! | accepted | the first step ACCEPT; without one, of a case that was accepted, the day received |
//! | concluded, succeeded | `outcome.concluded_on`; else the last step CONCLUDE, the lifecycle's `since`, the day received |
//! | escalated, returned | each step ESCALATE, RETURN |
//! | ended | the lifecycle's `since`; else the conclusion, the last step, the day received; never before it was received |
//! | due, concluded by then | `due_on` |
//! | turned overdue | the day after `due_on`, if the case had not ended by `due_on` |
//! | overdue and ended | the day of the end |

use guantong_proto::rules::fields::{self, case as f};
use guantong_proto::v1::{CaseState, Move};

use super::facets::{day_at, day_of, inner, message, part};
use super::{Contribution, Facets, When};
use crate::casework;
use crate::measure::{Count, Dimension};
use crate::period::Day;
use crate::record::{FieldNumber, raw};

pub(super) const FIELDS: &[FieldNumber] = &[
    f::CASE_KIND,
    f::CATEGORY,
    f::CHANNEL,
    f::RISK,
    f::RECEIVED_ON,
    f::DUE_ON,
    f::LIFECYCLE,
    f::OUTCOME,
    f::STEPS,
    fields::DELETED,
    fields::RECORD_COMPLETE,
];

/// A flow whose day nobody gave counts at no day: as before all days.
fn on(day: Option<Day>) -> When {
    day.map_or(When::Undated, When::On)
}

pub(super) fn count(facets: &Facets<'_>, out: &mut Contribution) {
    out.record(facets.kind, facets.flag(fields::RECORD_COMPLETE));
    let way = Way::read(facets);
    let number = |dimension: Dimension, field| (dimension, dimension.class_of(facets.number(field)));
    let classes = [
        number(Dimension::CaseKind, f::CASE_KIND),
        (Dimension::Category, Dimension::Category.class_of_code(&facets.text(f::CATEGORY))),
        number(Dimension::Channel, f::CHANNEL),
        number(Dimension::Risk, f::RISK),
        (Dimension::Unit, way.unit),
    ];
    let mut add = |when, count| out.count(when, count, &classes);
    add(on(way.received), Count::Received);
    if let Some(accepted) = way.accepted() {
        add(on(accepted), Count::Accepted);
    }
    let concluded = way.concluded();
    if let Some(day) = concluded {
        add(on(day), Count::Concluded);
        if way.succeeded {
            add(on(day), Count::Succeeded);
        }
    }
    for (action, day) in &way.steps {
        match action {
            Move::Escalate => add(on(*day), Count::Escalated),
            Move::Return => add(on(*day), Count::Returned),
            _ => {}
        }
    }
    let ended = way.ended();
    if let Some(day) = ended {
        add(on(day), Count::Ended);
    }
    if let Some(due) = facets.day(f::DUE_ON) {
        add(When::On(due), Count::Due);
        if concluded.is_some_and(|day| day.is_none_or(|day| day <= due)) {
            add(When::On(due), Count::DueConcluded);
        }
        if ended.is_none_or(|day| day.is_some_and(|day| day > due)) {
            add(When::On(due.plus(1)), Count::TurnedOverdue);
            if let Some(day) = ended {
                add(on(day), Count::OverdueEnded);
            }
        }
    }
}

/// What a case has gone through, as far as it is known here.
struct Way {
    received: Option<Day>,
    state: CaseState,
    unit: u16,
    since: Option<Day>,
    steps: Vec<(Move, Option<Day>)>,
    succeeded: bool,
    concluded_on: Option<Day>,
}

impl Way {
    fn read(facets: &Facets<'_>) -> Way {
        let lifecycle = facets.value(f::LIFECYCLE).unwrap_or_default();
        let outcome = facets.value(f::OUTCOME).unwrap_or_default();
        let steps = facets.value(f::STEPS).unwrap_or_default();
        let (lifecycle, outcome) = (message(&lifecycle), message(&outcome));
        let state = i32::try_from(part(lifecycle, 1)).ok().and_then(|s| CaseState::try_from(s).ok());
        let steps = raw::payloads(&steps).filter_map(raw::Payload::bytes).map(|step| {
            let action = i32::try_from(part(step, 6)).ok().and_then(|m| Move::try_from(m).ok());
            (action.unwrap_or_default(), inner(step, 2).and_then(day_at))
        });
        Way {
            received: facets.day(f::RECEIVED_ON),
            state: state.unwrap_or_default(),
            unit: Dimension::Unit.class_of_code(inner(lifecycle, 3).unwrap_or_default()),
            since: inner(lifecycle, 4).and_then(day_at),
            steps: steps.collect(),
            succeeded: part(outcome, 3) == 1,
            concluded_on: inner(outcome, 4).and_then(day_of),
        }
    }

    fn days_of(&self, action: Move) -> impl Iterator<Item = Day> + '_ {
        self.steps.iter().filter(move |(a, _)| *a == action).filter_map(|(_, day)| *day)
    }

    /// Not accepted, or when; the inner `None`: nobody knows when.
    fn accepted(&self) -> Option<Option<Day>> {
        use CaseState::{Accepted, Concluded, Pending, Verified};
        match self.days_of(Move::Accept).min() {
            Some(first) => Some(Some(first)),
            None => matches!(self.state, Accepted | Pending | Concluded | Verified).then_some(self.received),
        }
    }

    /// Not concluded, or when.
    fn concluded(&self) -> Option<Option<Day>> {
        let concluded = matches!(self.state, CaseState::Concluded | CaseState::Verified);
        let step = || self.days_of(Move::Conclude).max();
        concluded.then(|| self.concluded_on.or_else(step).or(self.since).or(self.received))
    }

    /// Not ended, or when.
    fn ended(&self) -> Option<Option<Day>> {
        let last = || self.steps.iter().filter_map(|(_, day)| *day).max();
        // A ledger of the past says when a case was concluded; the step that stands for it is of the day of the import.
        let day = || self.since.or(self.concluded_on).or_else(last).max(self.received);
        casework::is_ended(self.state).then(day)
    }
}
