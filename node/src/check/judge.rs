//! The judgement: each figure by itself, beside others of the same division and period, and beside what is recorded.

use std::collections::BTreeMap;

use guantong_gateway::division::Division;
use guantong_gateway::measure::Value;
use guantong_gateway::period::Period;

use super::form::Row;
use super::subject::{self, Subject};
use crate::stated::{Impossible, NumberError, Op, Stated, rate_can_be};

/// Lines about one division and period that are judged beside each other: more figures than there are measures.
const BESIDE_MAX: usize = 1_000;
/// Wholes that one line is too large for, as far as they are told of.
const WHOLES_MAX: usize = 4;

/// A line that can be judged.
#[derive(Clone, Debug)]
pub struct Statement {
    pub(crate) line: usize,
    pub(crate) division: Division,
    /// As it was written: not every period that is published is one of the calendar.
    pub(crate) period: String,
    pub(crate) subject: Subject,
    /// As it was written, as far as it is shown.
    pub(crate) text: String,
    stated: Stated,
    part: Option<Stated>,
    whole: Option<Stated>,
}

impl Statement {
    /// The period, where it is one that figures are kept for.
    pub(crate) fn calendar(&self) -> Option<Period> {
        self.period.parse().ok()
    }
}

/// What a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// The numbers contradict each other.
    CannotBe,
    /// The number is another one than what is recorded.
    Differs,
    /// The line cannot be read.
    Unreadable,
    /// The line is about something that is not known here; it was not judged.
    LeftOut,
}

impl Kind {
    pub(crate) fn words(self) -> &'static str {
        match self {
            Kind::CannotBe => "cannot be 不可能",
            Kind::Differs => "differs 与记录不符",
            Kind::Unreadable => "unreadable 无法识别",
            Kind::LeftOut => "left out 未核对",
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::CannotBe => "cannot_be",
            Kind::Differs => "differs",
            Kind::Unreadable => "unreadable",
            Kind::LeftOut => "left_out",
        }
    }
}

/// Something that a person must look at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What it is.
    pub kind: Kind,
    /// The line that it is about.
    pub line: usize,
    /// What is wrong, in English and Chinese.
    pub detail: String,
}

fn finding(kind: Kind, line: usize, english: impl Into<String>, chinese: &str) -> Finding {
    Finding { kind, line, detail: format!("{} ({chinese})", english.into()) }
}

/// Reads a line. A division or a period that it leaves out is the one of the command line.
///
/// # Errors
/// What is wrong with it, or that nothing is known about what it states.
pub fn state(row: &Row, division: Option<Division>, period: Option<Period>) -> Result<Statement, Finding> {
    let unreadable = |english: String, chinese: &str| finding(Kind::Unreadable, row.line, english, chinese);
    let shown = |text: &str| text.chars().take(40).collect::<String>();
    let division = match row.division.as_str() {
        "" => division.ok_or_else(|| unreadable("no division; name one with --division".into(), "缺少区划")),
        code => Division::parse(code).map_err(|error| unreadable(error.to_string(), "区划代码有误")),
    }?;
    let period = match row.period.as_str() {
        "" => period.map(|period| period.to_string()).unwrap_or_default(),
        text => text.to_owned(),
    };
    if period.is_empty() {
        return Err(unreadable("no period; name one with --period".into(), "缺少报告期"));
    }
    let subject = Subject::named(&row.measure, &row.class).ok_or_else(|| {
        let what = shown(&[row.measure.as_str(), &row.class].join(" "));
        finding(Kind::LeftOut, row.line, format!("no measure is called «{}»", what.trim()), "没有这个指标")
    })?;
    let op = match row.op.as_str() {
        "" | "eq" | "=" => Op::Eq,
        "ge" | ">=" | "≥" => Op::Ge,
        "approx" | "约" | "≈" => Op::Approx,
        other => {
            return Err(unreadable(format!("op «{}»: write eq, ge or approx", shown(other)), "关系有误"));
        }
    };
    let wrong = |column: &str, text: &str, error: NumberError| {
        unreadable(format!("{column} «{}»: {error}", shown(text)), "数字有误")
    };
    let percent = ["percent", "%", "％", "百分比"].contains(&row.unit.as_str());
    let stated = match subject.measure.is_rate() {
        true => Stated::rate(&row.value, op, percent),
        false => Stated::count(&row.value, op),
    };
    let count = |column: &str, text: &str| {
        let count =
            (!text.is_empty()).then(|| Stated::count(text, Op::Eq).map_err(|e| wrong(column, text, e)));
        count.transpose()
    };
    Ok(Statement {
        line: row.line,
        division,
        period,
        subject,
        text: shown(&row.value),
        stated: stated.map_err(|error| wrong("value", &row.value, error))?,
        part: count("numerator", &row.numerator)?,
        whole: count("denominator", &row.denominator)?,
    })
}

/// What is recorded of a statement's figure; `None`: nothing that can be compared.
pub type Recorded<'r> = &'r dyn Fn(&Statement) -> Option<Value>;

/// Lines by division and period.
type Together<'s> = BTreeMap<(Division, &'s str), Vec<&'s Statement>>;

/// Judges all lines of a form.
pub fn judge(statements: &[Statement], recorded: Recorded<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut together = Together::new();
    for statement in statements {
        let beside = together.entry((statement.division, &statement.period)).or_default();
        if beside.len() < BESIDE_MAX {
            beside.push(statement);
            continue;
        }
        let english = format!("there are more than {BESIDE_MAX} lines about its division and period");
        findings.push(finding(Kind::LeftOut, statement.line, english, "同一区划同一报告期的行数过多"));
    }
    for beside in together.values() {
        for statement in beside {
            findings.extend(rate(statement, beside));
            findings.extend(twice(statement, beside));
            findings.extend(part(statement, beside));
            findings.extend(inner(statement, &together));
        }
        findings.extend(classes(beside));
    }
    for statement in statements {
        findings.extend(recorded(statement).and_then(|value| against(statement, value)));
    }
    findings.sort_by_key(|finding| (finding.kind, finding.line));
    findings.dedup();
    findings
}

/// A rate beside its counts: those of its own line, else those of other lines.
fn rate(statement: &Statement, beside: &[&Statement]) -> Option<Finding> {
    if !statement.subject.measure.is_rate() {
        return None;
    }
    let class = statement.subject.class.map(subject::of);
    let stated = |name: &str| {
        let same = |other: &&&Statement| {
            other.subject.measure.name == name && other.subject.class.map(subject::of) == class
        };
        beside.iter().find(same).copied()
    };
    let (part, wholes) = statement.subject.counts_of_rate();
    let part_stated = stated(part);
    let part = statement.part.or(part_stated.map(|s| s.stated));
    let mut bases: Vec<Option<Stated>> = match statement.whole {
        Some(whole) => vec![Some(whole)],
        None => wholes.iter().filter_map(|name| stated(name)).map(|s| Some(s.stated)).collect(),
    };
    if bases.is_empty() {
        bases.push(None);
    }
    if !statement.subject.is_share() {
        return None;
    }
    // A rate cannot be only if no basis that is stated allows it.
    let mut verdicts =
        bases.iter().map(|whole| rate_can_be(&statement.stated, part.as_ref(), whole.as_ref()));
    let first = verdicts.next()?;
    if first.is_ok() || verdicts.any(|verdict| verdict.is_ok()) {
        return None;
    }
    let what = format!("{} {}", statement.subject.label(), statement.text);
    let counts = |count: Option<&Stated>| count.map(words).unwrap_or_default();
    let of = format!("{} / {}", counts(part.as_ref()), counts(bases.first().and_then(Option::as_ref)));
    Some(match first.err()? {
        Impossible::PartAboveWhole => finding(
            Kind::CannotBe,
            statement.line,
            format!("{what}: the part is larger than the whole, {of}"),
            "部分大于整体",
        ),
        Impossible::OutsideCounts => finding(
            Kind::CannotBe,
            statement.line,
            format!(
                "{what} lies outside what its counts allow: {of}{}",
                allowed(part.as_ref(), bases.first().and_then(Option::as_ref))
            ),
            "比率与其分子、分母不符",
        ),
        Impossible::NoSuchCount => finding(
            Kind::CannotBe,
            statement.line,
            format!("{what}: no whole number gives it beside {of}"),
            "没有整数能得出该比率",
        ),
    })
}

/// The rate that the counts give, where both are exact.
fn allowed(part: Option<&Stated>, whole: Option<&Stated>) -> String {
    let exact = |stated: Option<&Stated>| match stated?.counts() {
        (low, Some(high)) if low == high => Some(low),
        _ => None,
    };
    match (exact(part), exact(whole)) {
        (Some(part), Some(whole)) if whole > 0 => {
            let hundredths = (part * 20_000 + whole) / (whole * 2);
            format!(" = {}.{:02}%", hundredths / 100, hundredths % 100)
        }
        _ => String::new(),
    }
}

/// A stated count as what it stands for.
fn words(stated: &Stated) -> String {
    match stated.counts() {
        (low, None) => format!("≥{low}"),
        (low, Some(high)) if low == high => low.to_string(),
        (low, Some(high)) => format!("{low}–{high}"),
    }
}

/// The same figure stated twice, otherwise.
fn twice(statement: &Statement, beside: &[&Statement]) -> Option<Finding> {
    let same = |other: &&&Statement| {
        other.line < statement.line
            && other.subject.measure.name == statement.subject.measure.name
            && other.subject.class.map(subject::of) == statement.subject.class.map(subject::of)
            && !other.stated.may_equal(&statement.stated)
    };
    let other = beside.iter().find(same)?;
    let english = format!(
        "{} is {} here, and {} in line {}",
        statement.subject.label(),
        statement.text,
        other.text,
        other.line
    );
    Some(finding(Kind::CannotBe, statement.line, english, "同一指标前后不一致"))
}

/// A part beside its whole.
fn part(statement: &Statement, beside: &[&Statement]) -> Vec<Finding> {
    let wholes = beside.iter().filter(|other| statement.subject.is_part_of(&other.subject));
    let larger = wholes.filter(|whole| {
        !statement.subject.measure.is_rate() && !statement.stated.may_be_at_most(&whole.stated)
    });
    larger.take(WHOLES_MAX).map(|whole| above(statement, whole, "部分大于整体")).collect()
}

fn above(part: &Statement, whole: &Statement, chinese: &str) -> Finding {
    let english = format!(
        "{} {} is larger than {} {} of line {}",
        part.subject.label(),
        part.text,
        whole.subject.label(),
        whole.text,
        whole.line
    );
    finding(Kind::CannotBe, part.line, english, chinese)
}

/// All classes of one dimension together are at most the whole, where a record has one class only.
fn classes(beside: &[&Statement]) -> Vec<Finding> {
    use guantong_gateway::measure::Dimension;
    let mut sums: BTreeMap<(&str, Dimension), (Vec<u16>, Stated, usize)> = BTreeMap::new();
    for statement in beside.iter().filter(|s| !s.subject.measure.is_rate()) {
        let Some((dimension, class)) = statement.subject.class else { continue };
        // A camera has several functions.
        if dimension == Dimension::Function {
            continue;
        }
        let key = (statement.subject.measure.name, dimension);
        let (known, sum, line) = sums.entry(key).or_insert((Vec::new(), Stated::exact(0), statement.line));
        if !known.contains(&class.number) {
            known.push(class.number);
            *sum = sum.plus(&statement.stated);
            *line = statement.line;
        }
    }
    let mut findings = Vec::new();
    for ((measure, dimension), (known, sum, line)) in sums {
        let whole = beside.iter().find(|s| s.subject.measure.name == measure && s.subject.class.is_none());
        if let Some(whole) = whole.filter(|whole| known.len() > 1 && !sum.may_be_at_most(&whole.stated)) {
            let english = format!(
                "the classes by {} add up to {}, more than {} {} of line {}",
                dimension.name(),
                words(&sum),
                whole.subject.label(),
                whole.text,
                whole.line
            );
            findings.push(finding(Kind::CannotBe, line, english, "分类合计大于总数"));
        }
    }
    findings
}

/// A count of a division beside that of one around it.
fn inner(statement: &Statement, together: &Together<'_>) -> Vec<Finding> {
    let enclosing = statement.division.enclosing().filter(|around| *around != statement.division);
    let beside = enclosing.filter_map(|around| together.get(&(around, statement.period.as_str())));
    let around = beside.flatten().filter(|other| {
        other.subject == statement.subject
            && !statement.subject.measure.is_rate()
            && !statement.stated.may_be_at_most(&other.stated)
    });
    around.take(WHOLES_MAX).map(|whole| above(statement, whole, "下级大于上级")).collect()
}

/// A stated figure against the recorded one.
fn against(statement: &Statement, value: Value) -> Option<Finding> {
    let (agrees, found) = match value {
        Value::Number(number) => (statement.stated.allows_count(number), number.to_string()),
        Value::Rate { denominator: 0, .. } | Value::Unknown => return None,
        Value::Rate { numerator, denominator } => {
            let part = statement.part.is_none_or(|part| part.allows_count(numerator));
            let whole = statement.whole.is_none_or(|whole| whole.allows_count(denominator));
            let rate = statement.stated.allows_ratio(numerator, denominator);
            let exact = allowed(Some(&Stated::exact(numerator)), Some(&Stated::exact(denominator)));
            (part && whole && rate, format!("{numerator} / {denominator}{exact}"))
        }
    };
    if agrees {
        return None;
    }
    let english =
        format!("{} is stated as {}, recorded as {found}", statement.subject.label(), statement.text);
    Some(finding(Kind::Differs, statement.line, english, "与记录不符"))
}
