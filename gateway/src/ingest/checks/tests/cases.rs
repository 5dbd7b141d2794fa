//! What may be written to a case, and by whom while somebody holds it.

use super::*;
use fields::case as f;
use v1::CaseState::{Accepted, Concluded, Reported, Verified};

fn stands(state: v1::CaseState, holder: &str) -> Option<v1::Lifecycle> {
    let holder = at(holder).to_string();
    Some(v1::Lifecycle { state: state as i32, holder, unit: "police".into(), ..Default::default() })
}

fn case() -> v1::Case {
    v1::Case {
        category: Some("land".into()),
        division: Some("220822101201".into()),
        received_on: date(2026, 1, 10),
        title: Some("张三 13800000000".into()),
        ..v1::Case::default()
    }
}

fn desk() -> Desk {
    Desk::new("case", TOWNSHIP, "c1")
}

fn write(case: &v1::Case) -> Judged {
    desk().write(TOWNSHIP, case, &[])
}

#[test]
fn dates_are_in_order_and_not_in_the_future() {
    let dated = |occurred, received, due| {
        let (occurred_on, received_on, due_on) = (occurred, received, due);
        write(&v1::Case { occurred_on, received_on, due_on, ..case() })
    };
    assert_eq!(dated(date(2026, 1, 9), date(2026, 1, 15), date(2026, 3, 1)), Ok(()));
    assert_eq!(blamed(dated(date(2026, 1, 11), date(2026, 1, 10), None)), [f::RECEIVED_ON]);
    assert_eq!(blamed(dated(None, date(2026, 1, 16), None)), [f::RECEIVED_ON]);
    assert_eq!(blamed(dated(date(2026, 1, 16), None, None)), [f::OCCURRED_ON]);
    assert_eq!(blamed(dated(None, date(2026, 1, 10), date(2026, 1, 9))), [f::DUE_ON]);
    assert_eq!(blamed(dated(None, date(2026, 13, 1), None)), [f::RECEIVED_ON]);
    let mut later = desk();
    assert_eq!(later.write(TOWNSHIP, &case(), &[]), Ok(()));
    let due = v1::Case { due_on: date(2026, 1, 9), ..v1::Case::default() };
    assert_eq!(blamed(later.write(TOWNSHIP, &due, &[])), [f::DUE_ON], "beside what is there");
}

#[test]
fn codes_counts_and_names() {
    let grid_code = |code: &str| write(&v1::Case { grid_code: Some(code.into()), ..case() });
    assert_eq!(grid_code("220822101201001"), Ok(()), "a village need not be known");
    assert_eq!(blamed(grid_code("220822102201001")), [f::GRID_CODE]);
    assert_eq!(blamed(grid_code("网格一二三四")), [f::GRID_CODE]);
    for category in ["", "a b", &"x".repeat(65)] {
        assert_eq!(blamed(write(&v1::Case { category: Some(category.into()), ..case() })), [f::CATEGORY]);
    }
    assert_eq!(write(&v1::Case { category: Some("不认识的类别".into()), ..case() }), Ok(()));
    let counts = v1::Case { involved_count: Some(-1), amount_yuan: Some(-1), ..case() };
    assert_eq!(blamed(write(&counts)), [f::INVOLVED_COUNT, f::AMOUNT_YUAN]);
    let of = |name: &str| write(&v1::Case { duplicate_of: Some(name.into()), ..case() });
    assert_eq!(of("divisions/220822000000/cases/c1"), Ok(()));
    for wrong in [
        "c2",
        "divisions/220822/cases/c2",
        "divisions/220822000000/grids/c2",
        "divisions/220822101000/cases/c1",
    ] {
        assert_eq!(blamed(of(wrong)), [f::DUPLICATE_OF], "{wrong}");
    }
}

#[test]
fn the_first_write_may_carry_any_state_and_later_ones_are_judged() {
    let mut desk = desk();
    let loaded = v1::Case {
        lifecycle: stands(Accepted, TOWNSHIP),
        mediator: Some(v1::Contact { name: "张三".into(), telephone: "13800000000".into() }),
        supervision: Some(v1::Supervision { by: "220000000000".into(), ..Default::default() }),
        ..case()
    };
    assert_eq!(desk.write(TOWNSHIP, &loaded, &[]), Ok(()));
    let only = |lifecycle| v1::Case { lifecycle, ..v1::Case::default() };
    let skipped = desk.write(TOWNSHIP, &only(stands(Verified, TOWNSHIP)), &[]);
    assert!(skipped.clone().unwrap_err()[0].detail().contains("conclude 办结"));
    assert_eq!(blamed(skipped), [f::LIFECYCLE]);
    assert_eq!(blamed(desk.write("220822", &only(stands(Concluded, TOWNSHIP)), &[])), [f::LIFECYCLE]);
    assert_eq!(blamed(desk.write(TOWNSHIP, &v1::Case::default(), &[f::LIFECYCLE])), [f::LIFECYCLE]);
    assert_eq!(desk.write(TOWNSHIP, &only(stands(Concluded, TOWNSHIP)), &[]), Ok(()));
    let bad = v1::Case { lifecycle: Some(v1::Lifecycle::default()), ..case() };
    assert_eq!(blamed(write(&bad)), [f::LIFECYCLE]);
}

#[test]
fn what_is_written_beside_a_shown_value_is_judged_too() {
    let mut desk = desk();
    assert_eq!(
        desk.write(TOWNSHIP, &v1::Case { lifecycle: stands(Reported, "220822"), ..case() }, &[]),
        Ok(())
    );
    let taken = v1::Case { lifecycle: stands(Accepted, "220822"), ..v1::Case::default() };
    assert_eq!(desk.write("220822", &taken, &[]), Ok(()));
    let mut register = desk.record.get(f::LIFECYCLE).unwrap().clone();
    let mine = v1::Case { lifecycle: stands(Concluded, TOWNSHIP), ..v1::Case::default() };
    let writer = Writer { division: at(TOWNSHIP), id: 2 };
    crate::merge::write(&mut register, writer, Stamp::from_ms(NOW_MS), mine.encode_to_vec().into(), &[]);
    let mut after = desk.record.clone();
    after.set(f::LIFECYCLE, register);
    assert_eq!(blamed(desk.judge(at(TOWNSHIP), &after, &[f::LIFECYCLE])), [f::LIFECYCLE]);
}

#[test]
fn the_holder_writes_what_is_the_holders() {
    let mut desk = desk().own("220822102");
    let held = v1::Case { lifecycle: stands(Accepted, "220822102"), ..case() };
    desk.own = at(TOWNSHIP);
    assert_eq!(desk.write(TOWNSHIP, &held, &[]), Ok(()));
    let result = v1::Case {
        outcome: Some(v1::Outcome { succeeded: Some(true), ..Default::default() }),
        mediator: Some(v1::Contact { name: "张三".into(), ..Default::default() }),
        reply: Some(v1::Reply { text: "张三".into(), ..Default::default() }),
        ..v1::Case::default()
    };
    assert_eq!(blamed(desk.write(TOWNSHIP, &result, &[])), [f::OUTCOME, f::MEDIATOR, f::REPLY]);
    desk.own = at("220822102");
    assert_eq!(desk.write("220822102", &result, &[]), Ok(()));
    let note = v1::CaseNote { id: "n".into(), text: "张三".into(), ..Default::default() };
    assert_eq!(desk.write("220822102", &v1::Case { notes: vec![note], ..Default::default() }, &[]), Ok(()));
    let title = v1::Case { title: Some("张三".into()), ..v1::Case::default() };
    assert_eq!(blamed(desk.write("220822102", &title, &[])), [f::TITLE], "not the home");
    desk.own = at("220822");
    assert_eq!(desk.write("220822102", &title, &[]), Ok(()), "by a node over both");
    let tomorrow = v1::Outcome { concluded_on: date(2026, 1, 16), ..Default::default() };
    let early = v1::Case { outcome: Some(tomorrow), ..v1::Case::default() };
    assert_eq!(blamed(desk.write("220822102", &early, &[])), [f::OUTCOME]);
}

#[test]
fn those_above_the_holder_supervise_and_the_county_seals() {
    let mut desk = desk();
    assert_eq!(
        desk.write(TOWNSHIP, &v1::Case { lifecycle: stands(Accepted, TOWNSHIP), ..case() }, &[]),
        Ok(())
    );
    desk.own = at("22");
    let press = v1::Case {
        supervision: Some(v1::Supervision { by: "220822000000".into(), ..Default::default() }),
        ..v1::Case::default()
    };
    assert_eq!(blamed(desk.write(TOWNSHIP, &press, &[])), [f::SUPERVISION]);
    assert_eq!(blamed(desk.write("220821", &press, &[])), [f::SUPERVISION]);
    assert_eq!(desk.write("2208", &press, &[]), Ok(()));
    let seal = v1::Case { sealed: Some(true), ..v1::Case::default() };
    assert_eq!(blamed(desk.write("220822", &seal, &[])), [f::SEALED], "not ended");
    let state = |state| v1::Case { lifecycle: stands(state, TOWNSHIP), ..v1::Case::default() };
    assert_eq!(desk.write(TOWNSHIP, &state(Concluded), &[]), Ok(()));
    assert_eq!(desk.write(TOWNSHIP, &state(Verified), &[]), Ok(()));
    assert_eq!(blamed(desk.write("2208", &seal, &[])), [f::SEALED], "not the county");
    assert_eq!(desk.write("220822", &seal, &[]), Ok(()));
}

#[test]
fn where_there_is_no_county_the_prefecture_seals() {
    let mut desk = Desk::new("case", "441900003", "c1").own("4419");
    let ended = v1::Case { lifecycle: stands(Verified, "441900003"), ..v1::Case::default() };
    assert_eq!(desk.write("441900003", &ended, &[]), Ok(()));
    let seal = v1::Case { sealed: Some(true), ..v1::Case::default() };
    assert_eq!(desk.write("4419", &seal, &[]), Ok(()));
}

#[test]
fn bytes_that_are_no_encoding_are_named() {
    let desk = desk();
    let mut after = Record::default();
    let writer = Writer { division: at(TOWNSHIP), id: 1 };
    // A title that is not UTF-8, and a lifecycle whose holder is a number.
    let title = Bytes::from_static(&[0x62, 2, 0xff, 0xfe]);
    let lifecycle = Bytes::from_static(&[0x92, 0x01, 2, 0x10, 1]);
    after.set(f::TITLE, Register::single(writer, Stamp::from_ms(1), title));
    after.set(f::LIFECYCLE, Register::single(writer, Stamp::from_ms(1), lifecycle));
    let judged = desk.judge(at(TOWNSHIP), &after, &[f::TITLE, f::LIFECYCLE]);
    assert!(blamed(judged).starts_with(&[f::TITLE, f::LIFECYCLE]));
}
