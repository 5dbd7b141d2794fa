//! Rules of cases: dates in order, codes that can be, and who may write what while somebody holds the case.

use guantong_proto::rules::fields::case as f;
use guantong_proto::rules::{Field, Writers};
use guantong_proto::v1;
use prost::Message;

use super::{Checker, division_of, is_digits};
use crate::casework::{self, First};
use crate::record::{FieldNumber, Record, RecordName};

pub(super) fn check(c: &mut Checker<'_>) {
    let case: v1::Case = c.read(&[f::OCCURRED_ON, f::RECEIVED_ON, f::DUE_ON, f::LIFECYCLE]);
    c.inside_home(f::DIVISION, case.division.as_deref());
    grid_code(c, case.grid_code.as_deref());
    days(c, &case);
    if let Some(category) = case.category.as_deref().filter(|_| c.wrote(f::CATEGORY)) {
        let words = ("a code has 1 to 64 bytes without blanks or control characters", "类别代码格式不正确");
        c.refuse_unless(casework::is_code(category), f::CATEGORY, words);
    }
    c.count(f::INVOLVED_COUNT, case.involved_count.map(i64::from));
    c.count(f::AMOUNT_YUAN, case.amount_yuan);
    other_case(c, f::DUPLICATE_OF, case.duplicate_of.as_deref());
    other_case(c, f::REOPENED_FROM, case.reopened_from.as_deref());
    if let Some(supervision) = case.supervision.as_ref().filter(|_| c.wrote(f::SUPERVISION)) {
        let fine = supervision.by.is_empty() || division_of(&supervision.by).is_some();
        c.refuse_unless(
            fine,
            f::SUPERVISION,
            ("`by` is not a 12-digit division code", "督办区划不是12位区划代码"),
        );
    }
    let before = lifecycle(c, c.s.before);
    lifecycle_write(c, before.as_ref(), case.lifecycle.as_ref());
    sealing(c, &case);
    writers(c, before.as_ref(), case.lifecycle.as_ref());
}

/// State and holder as a record shows them; `None`: the case is not registered yet.
fn lifecycle(c: &Checker<'_>, record: &Record) -> Option<v1::Lifecycle> {
    let found = v1::Case::decode(c.shown(record, f::LIFECYCLE)?).ok()?.lifecycle?;
    (found.state != v1::CaseState::Unspecified as i32).then_some(found)
}

fn grid_code(c: &mut Checker<'_>, code: Option<&str>) {
    let Some(code) = code.filter(|_| c.wrote(f::GRID_CODE)) else { return };
    let place = code.get(..12).and_then(division_of).filter(|_| is_digits(code, 15));
    let fine = place.is_some_and(|place| c.s.home.contains(place));
    let words = (
        "it must be 15 digits that begin with a division inside the record's home",
        "网格编码应为15位且在本区划内",
    );
    c.refuse_unless(fine, f::GRID_CODE, words);
}

fn days(c: &mut Checker<'_>, case: &v1::Case) {
    let occurred = c.past_day(f::OCCURRED_ON, case.occurred_on.as_ref());
    let received = c.past_day(f::RECEIVED_ON, case.received_on.as_ref());
    let due = c.day(f::DUE_ON, case.due_on.as_ref());
    let words = ("the case was received before it happened", "受理日期早于发生日期");
    c.in_order((f::OCCURRED_ON, occurred), (f::RECEIVED_ON, received), words);
    let words = ("the case is due before it was received", "办理期限早于受理日期");
    c.in_order((f::RECEIVED_ON, received), (f::DUE_ON, due), words);
    if let Some(outcome) = &case.outcome {
        c.past_day(f::OUTCOME, outcome.concluded_on.as_ref());
    }
}

/// The name of another case.
fn other_case(c: &mut Checker<'_>, field: FieldNumber, name: Option<&str>) {
    let Some(name) = name.filter(|_| c.wrote(field)) else { return };
    let kind = c.s.kind;
    let parsed = name.strip_prefix("divisions/").and_then(|rest| {
        let (home, rest) = rest.split_once('/')?;
        let id = rest.strip_prefix(kind.rule.collection)?.strip_prefix('/')?;
        RecordName::new(division_of(home)?, kind.id, id).ok()
    });
    match parsed {
        None => c.refuse(
            field,
            ("it is no name of a case: divisions/{12 digits}/cases/{id}", "不是事件的记录名称"),
        ),
        Some(other) if other.home == c.s.home && *other.id == *c.s.id => {
            c.refuse(field, ("a case cannot refer to itself", "事件不能引用自身"));
        }
        Some(_) => {}
    }
}

/// A lifecycle that is written directly, as by an office's ledger.
fn lifecycle_write(c: &mut Checker<'_>, before: Option<&v1::Lifecycle>, after: Option<&v1::Lifecycle>) {
    // A state that nobody here knows is named already.
    if !c.wrote(f::LIFECYCLE) || c.found.iter().any(|v| v.field() == f::LIFECYCLE) {
        return;
    }
    let verdict = match after {
        Some(after) => {
            let judged = casework::judge_write(c.s.home, before, after, c.s.writer, c.s.first);
            judged.map_err(|e| e.to_string())
        }
        None if before.is_some() => {
            Err("it cannot be cleared; make a move instead (不能清空，请办理)".into())
        }
        None => Ok(()),
    };
    if let Err(why) = verdict {
        let name = c.s.kind.field(f::LIFECYCLE).map_or("", |rule| rule.label);
        let detail = format!("{name} (lifecycle): {why}");
        c.found.push(super::Violation::Invalid { field: f::LIFECYCLE, detail });
    }
}

/// Only an ended case is sealed.
fn sealing(c: &mut Checker<'_>, case: &v1::Case) {
    let ended = case.lifecycle.as_ref().is_some_and(|l| casework::is_ended(l.state()));
    if case.sealed == Some(true) && c.wrote(f::SEALED) && !ended {
        c.refuse(f::SEALED, ("only a case that has ended can be sealed", "事件结束后才能封存"));
    }
}

/// Who may write which field. What a new case already has is loaded by whoever loads it, except the seal.
fn writers(c: &mut Checker<'_>, before: Option<&v1::Lifecycle>, after: Option<&v1::Lifecycle>) {
    let (s, kind) = (c.s, c.s.kind);
    // As in casework: what cannot be read falls back to the home.
    let held_by = |l: Option<&v1::Lifecycle>| l.map(|l| casework::holder(l).unwrap_or(s.home));
    // A write that takes the case over may bring along what its new holder has to say.
    let holders = [held_by(before), held_by(after)];
    let registered = before.is_some() || s.first == First::Reported && after.is_some();
    let held = holders[0].or(holders[1].filter(|_| registered));
    let above = |holder| s.writer.strictly_contains(holder);
    for rule in s.written.iter().filter_map(|number| kind.field(*number)) {
        match rule.writers {
            Writers::Holder if rule.number == f::LIFECYCLE => {}
            Writers::Holder if registered && !holders.contains(&Some(s.writer)) => {
                refuse_writer(c, rule, "only the division that holds the case", "只有承办区划可以填写");
            }
            Writers::AboveHolder if !held.is_none_or(above) => {
                refuse_writer(
                    c,
                    rule,
                    "only a division above the holder of the case",
                    "只有承办区划的上级可以填写",
                );
            }
            Writers::HomeCounty if s.writer != s.home.county() => {
                refuse_writer(c, rule, "only the county of the case's home", "只有出生地所在县级可以填写");
            }
            // A node above the home may speak for the holder there as well: it is in its own scope.
            Writers::HomeOwnerAbove if !s.writer.contains(s.home) && !s.own.contains(s.home) => {
                refuse_writer(
                    c,
                    rule,
                    "only the case's home or a division above it",
                    "只有出生地或其上级可以填写",
                );
            }
            _ => {}
        }
    }
}

fn refuse_writer(c: &mut Checker<'_>, rule: &Field, who: &str, chinese: &str) {
    let english = format!("{who} may write it, not {}", c.s.writer);
    c.refuse(rule.number, (&english, chinese));
}
