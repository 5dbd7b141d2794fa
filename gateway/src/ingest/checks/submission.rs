//! Rules of submissions: a period of the calendar that is over, and a declaration that says what, by whom and when.

use guantong_proto::rules::fields::submission as f;
use guantong_proto::v1;

use super::Checker;
use crate::period::Period;

/// Characters of an account's or unit's name.
const NAME_MAX: usize = 64;

pub(super) fn check(c: &mut Checker<'_>) {
    let submission: v1::Submission = c.read(&[f::PERIOD]);
    let id = c.s.id;
    if c.wrote(f::PERIOD) || c.created() {
        let period = if c.wrote(f::PERIOD) { submission.period.as_deref() } else { Some(id) };
        if let Some(period) = c.named_by_code(f::PERIOD, period) {
            is_over(c, period);
        }
    }
    if c.wrote(f::DECLARATION) {
        declaration(c, submission.declaration.as_ref());
    }
}

fn is_over(c: &mut Checker<'_>, text: &str) {
    match text.parse::<Period>() {
        Err(error) => c.refuse(f::PERIOD, (&error.to_string(), "不是可报送的期间")),
        Ok(period) if !period.is_of_calendar() => {
            let words =
                ("only a day, month, quarter, half or year is submitted", "只能报送日、月、季、半年或年");
            c.refuse(f::PERIOD, words);
        }
        Ok(period) if !period.is_closed(c.s.now_ms) => {
            let english = format!("{text} ends with {} in Beijing; submit it after that day", period.last());
            c.refuse(f::PERIOD, (&english, "报告期尚未结束，结束后方可报送"));
        }
        Ok(_) => {}
    }
}

fn declaration(c: &mut Checker<'_>, declaration: Option<&v1::Declaration>) {
    let Some(declaration) = declaration else {
        let words = ("it cannot be cleared; withdraw the submission instead", "不能清空，请改为撤回");
        return c.refuse(f::DECLARATION, words);
    };
    let says = declaration.state() != v1::SubmissionState::Unspecified;
    c.refuse_unless(
        says,
        f::DECLARATION,
        ("it says neither submitted nor withdrawn", "未说明是报送还是撤回"),
    );
    let by = declaration.submitted_by.as_str();
    let named = (1..=NAME_MAX).contains(&by.chars().count()) && !by.chars().any(char::is_control);
    let words = ("submitted_by: name the account or unit, 1 to 64 characters", "请填写报送账号或单位");
    c.refuse_unless(named, f::DECLARATION, words);
    let latest = i64::try_from(c.s.now_ms.saturating_add(c.s.drift_ms) / 1_000).unwrap_or(i64::MAX);
    let timed = declaration.submit_time.is_some_and(|time| (1..=latest).contains(&time.seconds));
    c.refuse_unless(
        timed,
        f::DECLARATION,
        ("submit_time: it is missing or lies in the future", "报送时间缺失或晚于现在"),
    );
}
