//! The matrix of states and moves, and each move by itself.

use super::*;

mod walk;

const STATES: [CaseState; 8] = [
    CaseState::Reported,
    CaseState::Accepted,
    CaseState::Returned,
    CaseState::Filed,
    CaseState::Cancelled,
    CaseState::Pending,
    CaseState::Concluded,
    CaseState::Verified,
];
/// 2026-01-15, noon in Beijing.
const NOW_MS: u64 = 1_768_449_600_000;

fn division(code: &str) -> Division {
    Division::parse(code).unwrap()
}

fn all_moves() -> impl Iterator<Item = Move> {
    (1..=12).map(|n| Move::try_from(n).unwrap())
}

fn ask(action: Move, actor: &str) -> MoveRequest<'static> {
    let outcome = v1::Outcome { succeeded: Some(true), ..v1::Outcome::default() };
    MoveRequest {
        action,
        actor: division(actor),
        to_division: None,
        to_unit: "",
        reason: "duplicate",
        outcome: Some(outcome).filter(|_| action == Move::Conclude),
        now_ms: NOW_MS,
    }
}

/// The same with every sort of target.
fn ask_all(action: Move, actor: Division, world: &[Division]) -> Vec<MoveRequest<'static>> {
    let base = MoveRequest { actor, ..ask(action, "22") };
    let targets = std::iter::once(None).chain(world.iter().copied().map(Some));
    targets
        .flat_map(|to_division| {
            let base = base.clone();
            ["", "court", "police"].map(|to_unit| MoveRequest { to_division, to_unit, ..base.clone() })
        })
        .collect()
}

fn lifecycle_of(state: CaseState, holder: &str, sender: &str) -> v1::Lifecycle {
    let full = |code: &str| if code.is_empty() { String::new() } else { division(code).to_string() };
    let pending = state == CaseState::Pending;
    v1::Lifecycle {
        state: state as i32,
        holder: full(holder),
        unit: "police".into(),
        sender: full(sender),
        pending_to: if pending { full("220822102") } else { String::new() },
        pending_unit: if pending { "court".into() } else { String::new() },
        ..v1::Lifecycle::default()
    }
}

fn go(now: Option<&v1::Lifecycle>, request: MoveRequest<'_>) -> Moved {
    apply(division("220822101"), now, &request).unwrap()
}

fn refusal(now: Option<&v1::Lifecycle>, request: MoveRequest<'_>) -> MoveRefused {
    apply(division("220822101"), now, &request).unwrap_err()
}

#[test]
fn the_whole_matrix_of_states_and_moves() {
    // A county that a township sent the case to; for PENDING it is the common parent, and 220822102 is addressed.
    let world: Vec<Division> =
        ["220822101", "220822102", "220822", "220821", "2208", "22"].map(division).to_vec();
    let expected = |state, of_holder| -> &[Move] {
        use Move::*;
        match (state, of_holder) {
            (CaseState::Reported, true) => &[Accept, Return, File, Cancel],
            (CaseState::Accepted, true) => &[Cancel, Escalate, Assign, Transfer, Conclude],
            (CaseState::Returned, true) => &[Accept, Cancel, Escalate, Assign, Transfer],
            (CaseState::Pending, true) => &[Accept, Assign],
            (CaseState::Pending, false) => &[Accept, Refuse],
            (CaseState::Concluded, true) => &[Verify, SendBack],
            _ => &[],
        }
    };
    let home = division("220822101");
    for state in STATES {
        let now = lifecycle_of(state, "220822", "220822101");
        for (actor, of_holder) in [("220822", true), ("220822102", false)].map(|(a, h)| (division(a), h)) {
            let mut possible = Vec::new();
            for action in all_moves() {
                let asked = ask_all(action, actor, &world);
                let answers: Vec<_> = asked.iter().map(|r| apply(home, Some(&now), r)).collect();
                if answers.iter().any(Result::is_ok) {
                    possible.push(action);
                }
                for refused in answers.into_iter().filter_map(Result::err) {
                    assert_eq!(refused.legal, legal_moves(home, Some(&now), actor));
                    assert_eq!((refused.state, refused.action), (state, action));
                }
            }
            assert_eq!(possible, expected(state, of_holder), "{state:?}, holder: {of_holder}");
            let mut legal = legal_moves(home, Some(&now), actor);
            legal.sort();
            assert_eq!(legal, possible, "{state:?}, holder: {of_holder}");
        }
        for stranger in ["220822101", "220821", "2208", "22", "220822101200"] {
            assert_eq!(legal_moves(home, Some(&now), division(stranger)), [], "{state:?} {stranger}");
        }
        assert_eq!(is_ended(state), expected(state, true).is_empty());
    }
}

#[test]
fn a_case_is_registered_at_its_home() {
    let moved = go(None, ask(Move::Report, "220822101"));
    assert_eq!(moved.lifecycle.state(), CaseState::Reported);
    assert_eq!(holder(&moved.lifecycle), Some(division("220822101")));
    assert_eq!((moved.lifecycle.unit.as_str(), moved.lifecycle.sender.as_str()), (OWN_UNIT, ""));
    assert_eq!(moved.lifecycle.since.unwrap().seconds, (NOW_MS / 1_000) as i64);
    assert_eq!(moved.step.r#move(), Move::Report);
    let alone = refusal(Some(&moved.lifecycle), ask(Move::Return, "220822101"));
    assert_eq!(alone.cause, Cause::NoSender);
    assert!(!alone.legal.contains(&Move::Return));

    let by_county = go(None, ask(Move::Report, "220822"));
    assert_eq!(by_county.step.from, "220822000000");
    let returned = go(Some(&by_county.lifecycle), ask(Move::Return, "220822101"));
    assert_eq!(returned.lifecycle.state(), CaseState::Returned);
    assert_eq!(holder(&returned.lifecycle), Some(division("220822")));
    assert_eq!(refusal(None, ask(Move::Report, "220821")).cause, Cause::NotHome(division("220822101")));
    assert_eq!(refusal(None, ask(Move::Accept, "220822101")).legal, [Move::Report]);
}

#[test]
fn escalation_goes_one_tier_up_or_says_why() {
    let now = lifecycle_of(CaseState::Accepted, "220822101", "");
    let up = go(Some(&now), MoveRequest { reason: "", ..ask(Move::Escalate, "220822101") });
    assert_eq!(up.lifecycle.state(), CaseState::Reported);
    assert_eq!((&*up.lifecycle.holder, &*up.lifecycle.sender), ("220822000000", "220822101000"));
    assert_eq!((&*up.step.from, &*up.step.to, &*up.step.unit), ("220822101000", "220822000000", OWN_UNIT));
    let skip = MoveRequest { to_division: Some(division("22")), ..ask(Move::Escalate, "220822101") };
    assert_eq!(&*go(Some(&now), skip.clone()).lifecycle.holder, "220000000000");
    let unsaid = refusal(Some(&now), MoveRequest { reason: " ", ..skip });
    assert_eq!(unsaid.cause, Cause::Skips(division("220822")));
    let aside = MoveRequest { to_division: Some(division("220821")), ..ask(Move::Escalate, "220822101") };
    assert_eq!(refusal(Some(&now), aside).cause, Cause::NotAbove(division("220821")));
    let top = lifecycle_of(CaseState::Accepted, "22", "");
    assert_eq!(refusal(Some(&top), ask(Move::Escalate, "22")).cause, Cause::NothingAbove(division("22")));
}

#[test]
fn tiers_that_are_missing_are_passed_over() {
    let next = |code| next_up(division(code)).map(|d| d.to_string());
    assert_eq!(next("441900003").as_deref(), Some("441900000000"), "no counties in Dongguan");
    assert_eq!(next("110101").as_deref(), Some("110000000000"), "no prefectures in Beijing");
    assert_eq!(next("429004").as_deref(), Some("420000000000"), "a county directly under its province");
    let now = lifecycle_of(CaseState::Accepted, "110101", "");
    let pseudo = MoveRequest { to_division: Some(division("1101")), ..ask(Move::Escalate, "110101") };
    assert_eq!(refusal(Some(&now), pseudo).cause, Cause::CannotHold(division("1101")));
    let sibling = MoveRequest { to_division: Some(division("110102")), ..ask(Move::Transfer, "110101") };
    assert_eq!(&*go(Some(&now), sibling).lifecycle.holder, "110000000000");
}

#[test]
fn a_hand_over_waits_at_the_common_parent() {
    let now = lifecycle_of(CaseState::Accepted, "220822101", "");
    let hand = MoveRequest {
        to_division: Some(division("220822102")),
        to_unit: "court",
        ..ask(Move::Transfer, "220822101")
    };
    let waiting = go(Some(&now), hand);
    let l = &waiting.lifecycle;
    assert_eq!((l.state(), &*l.holder, &*l.unit), (CaseState::Pending, "220822000000", OWN_UNIT));
    assert_eq!((&*l.pending_to, &*l.pending_unit), ("220822102000", "court"));
    assert_eq!((&*waiting.step.to, &*waiting.step.unit), ("220822102000", "court"));

    let taken = go(Some(l), ask(Move::Accept, "220822102")).lifecycle;
    assert_eq!((&*taken.holder, &*taken.unit, &*taken.pending_to), ("220822102000", "court", ""));
    let refused = go(Some(l), ask(Move::Refuse, "220822102")).lifecycle;
    assert_eq!((refused.state(), &*refused.holder), (CaseState::Returned, "220822101000"));
    assert_eq!(&*refused.sender, "220822102000");
    let kept = go(Some(l), ask(Move::Accept, "220822")).lifecycle;
    assert_eq!((&*kept.holder, &*kept.unit), ("220822000000", OWN_UNIT));
    let assign = MoveRequest { to_division: Some(division("220822103")), ..ask(Move::Assign, "220822") };
    assert_eq!(&*go(Some(l), assign).lifecycle.holder, "220822103000");
    let other = refusal(Some(l), ask(Move::Accept, "220822101"));
    assert_eq!(
        (other.cause, other.holder),
        (Cause::NotHolder(division("220822101")), Some(division("220822")))
    );
    assert_eq!(other.holder_may, [Move::Accept, Move::Assign]);

    let far = MoveRequest { to_division: Some(division("220821101")), ..ask(Move::Transfer, "220822101") };
    assert_eq!(refusal(Some(&now), far).cause, Cause::NotSibling(division("220821101")));
}

#[test]
fn another_unit_of_the_division_takes_over_at_once() {
    let now = lifecycle_of(CaseState::Accepted, "220822101", "220822");
    let court =
        go(Some(&now), MoveRequest { to_unit: "court", ..ask(Move::Transfer, "220822101") }).lifecycle;
    assert_eq!((court.state(), &*court.unit, &*court.sender), (CaseState::Accepted, "court", "220822000000"));
    let same = MoveRequest { to_unit: "police", ..ask(Move::Transfer, "220822101") };
    assert_eq!(refusal(Some(&now), same).cause, Cause::SameUnit);
    assert_eq!(refusal(Some(&now), ask(Move::Transfer, "220822101")).cause, Cause::NeedsTarget);
    let spaced = MoveRequest { to_unit: "a b", ..ask(Move::Transfer, "220822101") };
    assert_eq!(refusal(Some(&now), spaced).cause, Cause::BadUnit);
}

#[test]
fn a_conclusion_says_how_and_when() {
    let now = lifecycle_of(CaseState::Accepted, "220822101", "");
    let asked = ask(Move::Conclude, "220822101");
    let done = go(Some(&now), asked.clone());
    let day = done.outcome.unwrap().concluded_on.unwrap();
    assert_eq!((day.year, day.month, day.day), (2026, 1, 15));
    let with = |outcome| refusal(Some(&now), MoveRequest { outcome, ..asked.clone() }).cause;
    assert_eq!(with(None), Cause::NeedsOutcome);
    assert_eq!(with(Some(v1::Outcome::default())), Cause::NeedsOutcome);
    let tomorrow = Some(v1::Date { year: 2026, month: 1, day: 16 });
    assert_eq!(
        with(Some(v1::Outcome { concluded_on: tomorrow, ..asked.outcome.unwrap() })),
        Cause::ConcludedOn
    );
    let early = MoveRequest { outcome: asked.outcome, ..ask(Move::Cancel, "220822101") };
    assert_eq!(refusal(Some(&now), early).cause, Cause::OutcomeElsewhere);
    let again = refusal(Some(&go(Some(&done.lifecycle), ask(Move::Verify, "220822101")).lifecycle), asked);
    assert_eq!((again.cause, again.legal), (Cause::Ended, vec![]));
}

#[test]
fn targets_and_reasons_are_checked() {
    let now = lifecycle_of(CaseState::Accepted, "220822", "220822101");
    let to = |action, code| MoveRequest { to_division: Some(division(code)), ..ask(action, "220822") };
    assert_eq!(refusal(Some(&now), to(Move::Assign, "2208")).cause, Cause::NotBelow(division("2208")));
    let village = division("220822101200");
    assert_eq!(refusal(Some(&now), to(Move::Assign, "220822101200")).cause, Cause::CannotHold(village));
    assert_eq!(refusal(Some(&now), ask(Move::Assign, "220822")).cause, Cause::NeedsTarget);
    assert_eq!(
        refusal(Some(&now), to(Move::Conclude, "220822101")).cause,
        Cause::OtherTarget(division("220822"))
    );
    let silent = MoveRequest { reason: "", ..ask(Move::Cancel, "220822") };
    assert_eq!(refusal(Some(&now), silent).cause, Cause::NeedsReason);
    let long = "x".repeat(257);
    assert_eq!(
        refusal(Some(&now), MoveRequest { reason: &long, ..ask(Move::Cancel, "220822") }).cause,
        Cause::BadReason
    );
    assert_eq!(refusal(Some(&now), ask(Move::Cancel, "220822101200")).cause, Cause::Village);
    assert!(
        !refusal(Some(&now), MoveRequest { reason: &long, ..ask(Move::Cancel, "22") })
            .to_string()
            .contains("xxx")
    );
}

#[test]
fn what_a_link_brought_never_gets_stuck() {
    let home = division("220822101");
    for holder in ["", "220822101200", "rubbish", "2208"] {
        let broken = v1::Lifecycle {
            state: CaseState::Pending as i32,
            holder: holder.into(),
            pending_to: "nobody".into(),
            unit: "\n".into(),
            ..v1::Lifecycle::default()
        };
        assert_eq!(super::holder(&broken), None);
        let taken = go(Some(&broken), MoveRequest { actor: home, ..ask(Move::Accept, "22") });
        assert_eq!((&*taken.lifecycle.holder, &*taken.lifecycle.unit), ("220822101000", OWN_UNIT));
    }
    let newer = v1::Lifecycle { state: 77, holder: home.to_string(), ..v1::Lifecycle::default() };
    assert_eq!(refusal(Some(&newer), ask(Move::Accept, "220822101")).cause, Cause::UnknownState(77));
    assert_eq!(legal_moves(home, Some(&v1::Lifecycle::default()), home), [Move::Report]);
}

#[test]
fn a_ledger_may_load_any_state_and_then_only_move() {
    let (home, county) = (division("220822101"), division("220822"));
    let l = |state, holder| lifecycle_of(state, holder, "");
    for state in STATES {
        let first = l(state, "220822");
        assert_eq!(judge_write(home, None, &first, home, First::Anywhere), Ok(()), "{state:?}");
        let step = implied_step(home, None, &first, home, First::Anywhere, NOW_MS).unwrap();
        let to = if state == CaseState::Pending { "220822102000" } else { "220822000000" };
        assert_eq!((&*step.to, step.r#move()), (to, Move::Report));
        assert_eq!(judge_write(home, Some(&first), &first, home, First::Reported), Ok(()), "unchanged");
        assert_eq!(implied_step(home, Some(&first), &first, home, First::Anywhere, NOW_MS), None);
    }
    let accepted = l(CaseState::Accepted, "220822101");
    // Whoever writes: once a case is registered, only moves lead on.
    let judge =
        |after: &v1::Lifecycle, actor| judge_write(home, Some(&accepted), after, actor, First::Anywhere);
    assert_eq!(judge(&l(CaseState::Concluded, "220822101"), home), Ok(()));
    assert_eq!(judge(&l(CaseState::Reported, "220822"), home), Ok(()), "escalated");
    assert_eq!(judge(&v1::Lifecycle { unit: "court".into(), ..accepted.clone() }, home), Ok(()));
    let later = v1::Lifecycle { since: Some(timestamp(NOW_MS)), ..accepted.clone() };
    assert_eq!(judge(&later, home), Ok(()));
    assert_eq!(judge(&later, county).unwrap_err().cause, Cause::NotHolder(county));
    let up = l(CaseState::Reported, "220822");
    let step = implied_step(home, Some(&accepted), &up, home, First::Reported, NOW_MS).unwrap();
    assert_eq!((step.r#move(), &*step.to), (Move::Escalate, "220822000000"));
    assert_eq!(step.at, Some(timestamp(NOW_MS)));

    let cause = |after: &v1::Lifecycle, actor| judge(after, actor).unwrap_err().cause;
    assert_eq!(cause(&l(CaseState::Verified, "220822101"), home), Cause::NoMove(CaseState::Verified));
    assert_eq!(cause(&l(CaseState::Concluded, "220822"), home), Cause::OtherTarget(home));
    assert_eq!(cause(&l(CaseState::Concluded, "220822101"), county), Cause::NotHolder(county));
    assert_eq!(cause(&l(CaseState::Cancelled, "220822101"), home), Cause::NeedsReason);
    assert_eq!(cause(&l(CaseState::Accepted, "220822101200"), home), Cause::Malformed("holder"));
    let ended = l(CaseState::Verified, "220822101");
    let reopened = judge_write(home, Some(&ended), &accepted, home, First::Anywhere).unwrap_err();
    assert_eq!(reopened.cause, Cause::Ended);
}

#[test]
fn malformed_lifecycles_are_refused_even_the_first_time() {
    let home = division("220822101");
    let good = lifecycle_of(CaseState::Accepted, "220822101", "");
    let cause = |l: v1::Lifecycle| judge_write(home, None, &l, home, First::Anywhere).unwrap_err().cause;
    assert_eq!(cause(v1::Lifecycle::default()), Cause::Malformed("state"));
    assert_eq!(cause(v1::Lifecycle { state: 77, ..good.clone() }), Cause::UnknownState(77));
    assert_eq!(cause(v1::Lifecycle { holder: "220822".into(), ..good.clone() }), Cause::Malformed("holder"));
    assert_eq!(cause(v1::Lifecycle { sender: "x".into(), ..good.clone() }), Cause::Malformed("sender"));
    let waiting = v1::Lifecycle { pending_to: "220822102000".into(), ..good.clone() };
    assert_eq!(cause(waiting), Cause::Malformed("pending_to"));
    let alone = v1::Lifecycle { state: CaseState::Pending as i32, ..good.clone() };
    assert_eq!(cause(alone), Cause::Malformed("pending_to"));
    assert_eq!(cause(v1::Lifecycle { unit: "x".repeat(65), ..good }), Cause::BadUnit);
}

#[test]
fn without_a_ledger_a_case_begins_with_its_report() {
    let home = division("220822101");
    let judge = |l: &v1::Lifecycle, actor: &str| {
        judge_write(home, None, l, division(actor), First::Reported).map_err(|refused| refused.cause)
    };
    let first = Cause::FirstReported { home, above: Some(division("220822")) };
    for state in STATES {
        let said = lifecycle_of(state, "220822101", "");
        let wanted = if state == CaseState::Reported { Ok(()) } else { Err(first.clone()) };
        assert_eq!(judge(&said, "220822101"), wanted, "{state:?}");
    }
    let reported = |holder, sender| lifecycle_of(CaseState::Reported, holder, sender);
    assert_eq!(judge(&reported("220822", ""), "220822101"), Ok(()), "to the division above");
    assert_eq!(judge(&reported("220822", "220822101"), "220822101"), Ok(()));
    for elsewhere in ["220822102", "2208", "220821"] {
        assert_eq!(judge(&reported(elsewhere, ""), "220822101"), Err(first.clone()), "{elsewhere}");
    }
    let other = judge(&reported("220822101", "220822"), "220822101");
    assert_eq!(other, Err(Cause::Malformed("sender")), "somebody else sent it");
    assert_eq!(judge(&reported("220822101", "220822"), "220822"), Ok(()));
    assert!(first.to_string().contains("220822101000 or 220822000000"), "{first}");
    // Above Beijing's districts lies the city itself: its pseudo-prefecture has no government.
    let district = division("110101");
    let up = judge_write(district, None, &reported("11", ""), district, First::Reported);
    assert_eq!(up, Ok(()));
}
