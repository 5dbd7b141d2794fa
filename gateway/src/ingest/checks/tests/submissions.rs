//! Submissions: only what is over can be declared, and by someone.

use super::*;
use fields::submission as f;

fn declared(state: v1::SubmissionState, by: &str, seconds: u64) -> Option<v1::Declaration> {
    let submit_time = Some(prost_types::Timestamp { seconds: seconds as i64, nanos: 0 });
    Some(v1::Declaration { state: state.into(), submitted_by: by.into(), submit_time })
}

fn submit(id: &str, period: &str) -> Judged {
    let declaration = declared(v1::SubmissionState::Submitted, "综治中心", NOW_MS / 1_000);
    let submission = v1::Submission { period: Some(period.into()), declaration, ..Default::default() };
    Desk::new("submission", TOWNSHIP, id).write(TOWNSHIP, &submission, &[])
}

#[test]
fn a_period_of_the_calendar_that_is_over_is_submitted() {
    // It is 15 January 2026.
    for over in ["2025-12", "2026-01-14", "2025-Q4", "2025-H2", "2025"] {
        assert_eq!(submit(over, over), Ok(()), "{over}");
    }
    for (wrong, why) in [
        ("2026-01", "ends with 2026-01-31"),
        ("2026-01-15", "ends with"),
        ("2026", "ends with"),
        ("2025-12~ytd", "only a day, month"),
        ("2025-12-01..2025-12-31", "only a day, month"),
        ("2025-13", "is not a period"),
    ] {
        let violations = submit(wrong, wrong).unwrap_err();
        assert!(violations[0].detail().contains(why), "{wrong}: {violations:?}");
    }
    assert_eq!(blamed(submit("2025-11", "2025-12")), [f::PERIOD], "the id is the period");
}

#[test]
fn a_declaration_says_what_by_whom_and_when() {
    let mut desk = Desk::new("submission", TOWNSHIP, "2025-12");
    let now = NOW_MS / 1_000;
    let mut write = |declaration| {
        let period = Some("2025-12".into());
        desk.write(TOWNSHIP, &v1::Submission { period, declaration, ..Default::default() }, &[])
    };
    let withdrawn = v1::SubmissionState::Withdrawn;
    assert_eq!(write(declared(withdrawn, "li.wei", now)), Ok(()));
    assert_eq!(blamed(write(declared(withdrawn, "", now))), [f::DECLARATION]);
    assert_eq!(blamed(write(declared(withdrawn, "li\nwei", now))), [f::DECLARATION]);
    assert_eq!(blamed(write(declared(withdrawn, "li.wei", now + 3_600))), [f::DECLARATION]);
    assert_eq!(blamed(write(declared(v1::SubmissionState::Unspecified, "li.wei", now))), [f::DECLARATION]);
    let cleared = desk.write(TOWNSHIP, &v1::Submission::default(), &[f::DECLARATION]);
    assert_eq!(blamed(cleared), [f::DECLARATION]);
}
