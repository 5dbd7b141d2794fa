//! Questions and answers between two sessions.

use super::super::questions::{ANSWER_PART_BYTES_MAX, ASK_BYTES_MAX, NotAsked, QUESTIONS_MAX};
use super::*;

fn where_is(record: &str) -> v1::Ask {
    let question = v1::ask::Question::Where(v1::WhereQuestion { record: record.into() });
    v1::Ask { hops_left: 3, time_left_ms: 1_000, question: Some(question), ..v1::Ask::default() }
}

fn asked(session: &mut Session) -> Vec<v1::Ask> {
    let ask = |output| match output {
        Output::PeerAsks(ask) => Some(ask),
        _ => None,
    };
    events(session).into_iter().filter_map(ask).collect()
}

fn answered(session: &mut Session) -> Vec<v1::Answer> {
    let answer = |output| match output {
        Output::PeerAnswers(answer) => Some(answer),
        _ => None,
    };
    events(session).into_iter().filter_map(answer).collect()
}

fn part(ask_id: u64, last: bool) -> v1::Answer {
    v1::Answer { ask_id, last, ..v1::Answer::default() }
}

#[test]
fn either_end_asks_and_is_answered_in_parts() {
    let (mut child, mut parent) = open_pair();
    let up = child.ask(where_is("a")).unwrap();
    let down = parent.ask(where_is("b")).unwrap();
    give(&mut child, &mut parent);
    give(&mut parent, &mut child);
    assert_eq!(asked(&mut parent), [v1::Ask { ask_id: up, ..where_is("a") }]);
    assert_eq!(asked(&mut child), [v1::Ask { ask_id: down, ..where_is("b") }]);
    assert!(!child.is_idle() && !parent.is_idle());
    assert!(parent.answer(part(up, false)) && parent.answer(part(up, true)));
    assert!(!parent.answer(part(up, true)), "nothing follows the last part");
    assert!(!parent.answer(part(77, true)), "nobody asked that");
    assert!(child.answer(part(down, true)));
    give(&mut parent, &mut child);
    give(&mut child, &mut parent);
    assert_eq!(answered(&mut child), [part(up, false), part(up, true)]);
    assert_eq!(answered(&mut parent), [part(down, true)]);
    assert!(child.ask(where_is("c")).unwrap() > up, "numbers are not used twice");
}

#[test]
fn no_more_questions_are_under_way_than_the_protocol_allows() {
    let (mut child, mut parent) = open_pair();
    let mut first = 0;
    for _ in 0..QUESTIONS_MAX {
        first = child.ask(where_is("a")).unwrap();
    }
    assert_eq!(child.ask(where_is("a")), Err(NotAsked::Busy));
    // Who has given up may ask again; whoever still works on all of them does not take another.
    child.give_up(first);
    child.ask(where_is("late")).unwrap();
    give(&mut child, &mut parent);
    assert_eq!(asked(&mut parent).len(), QUESTIONS_MAX);
    assert!(parent.answer(part(first, true)));
    give(&mut parent, &mut child);
    assert_eq!(answered(&mut child), [], "it is not waited for any longer");
    assert_eq!(child.ask(where_is("a")), Err(NotAsked::Busy));
}

#[test]
fn what_is_too_large_goes_no_way() {
    let (mut child, mut parent) = open_pair();
    assert_eq!(child.ask(where_is(&"x".repeat(ASK_BYTES_MAX))), Err(NotAsked::TooLarge));
    let long = v1::Ask { ask_id: 5, ..where_is(&"x".repeat(ASK_BYTES_MAX)) };
    parent.handle_frame(0, v1::Frame { kind: Some(Kind::Ask(long)) }).unwrap();
    assert_eq!(asked(&mut parent), []);
    let id = child.ask(where_is("a")).unwrap();
    give(&mut child, &mut parent);
    assert_eq!(asked(&mut parent).len(), 1);
    let long = v1::Answer { reason: "x".repeat(ANSWER_PART_BYTES_MAX), ..part(id, false) };
    assert!(!parent.answer(long.clone()));
    child.handle_frame(0, v1::Frame { kind: Some(Kind::Answer(long)) }).unwrap();
    assert_eq!(answered(&mut child), []);
}

#[test]
fn nothing_is_asked_before_the_greeting_or_at_the_end() {
    let mut child = Session::new(settings(Side::Child, None, 100_000), 0);
    assert_eq!(child.ask(where_is("a")), Err(NotAsked::NotOpen));
    let early = v1::Frame { kind: Some(Kind::Ask(v1::Ask { ask_id: 1, ..where_is("a") })) };
    let error = child.handle_frame(0, early).unwrap_err();
    assert!(error.to_string().contains("Ask came before the Welcome"), "{error}");

    let (mut child, mut parent) = open_pair();
    parent.ask(where_is("a")).unwrap();
    give(&mut parent, &mut child);
    let id = asked(&mut child)[0].ask_id;
    child.shutdown(0, v1::GoodbyeReason::Shutdown, "", 0);
    assert!(!child.answer(part(id, true)));
    assert_eq!(child.ask(where_is("a")), Err(NotAsked::NotOpen));
}
