//! Reads a question: which divisions, measures, classes and periods. Everything that is wrong with it is named at once,
//! with what to do.

use guantong_proto::v1;
use tonic::Status;

use super::super::figures::Query;
use super::super::{page, status, writes};
use crate::division::{Division, Divisions, Tier};
use crate::engine::Shared;
use crate::grant::Grant;
use crate::measure::{Dimension, Measure};
use crate::period::{Day, Period, Step};

/// The most figures in one answer, those to compare with included: clients take messages of 4 MiB by default.
pub(super) const ANSWER_FIGURES_MAX: usize = 20_000;
/// The most figures in one file.
pub(super) const FILE_FIGURES_MAX: usize = 400_000;

/// The most divisions that a question names: more than there are.
const DIVISIONS_NAMED_MAX: usize = 50_000;
/// The most measures that a question names: more than there are.
const MEASURES_NAMED_MAX: usize = 500;

/// A question that can be answered.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    /// What is shown.
    pub(super) query: Query,
    /// With the change from a year before.
    pub(super) year_on_year: bool,
    /// With the change from the period before.
    pub(super) period_on_period: bool,
    /// With ranks.
    pub(super) rank: bool,
}

/// What is wrong with a question: field and words.
#[derive(Default)]
struct Wrong(Vec<(String, String)>);

impl Wrong {
    fn say(&mut self, field: &str, words: impl Into<String>) {
        self.0.push((format!("query.{field}"), words.into()));
    }
}

impl Asked {
    pub(super) fn read(
        shared: &Shared,
        grant: &Grant,
        query: Option<&v1::AggregateQuery>,
        figures_max: usize,
    ) -> Result<Asked, Status> {
        let query = query.ok_or_else(|| status::invalid("query", "query: say which figures you want"))?;
        let mut wrong = Wrong::default();
        known_values(query, &mut wrong);
        let divisions = divisions(shared, grant, query, &mut wrong)?;
        let measures = measures(query, &mut wrong);
        let dimension = dimension(query, &measures, &mut wrong);
        let today = Day::of_ms((shared.environment.now_ms)());
        let asks = |comparison: v1::Comparison| query.comparisons.contains(&comparison.into());
        let (year_on_year, period_on_period) =
            (asks(v1::Comparison::YearOnYear), asks(v1::Comparison::PeriodOnPeriod));
        let each = dimension.map_or(1, |d| d.classes().len())
            * (1 + usize::from(year_on_year) + usize::from(period_on_period));
        let places = divisions.len().max(1) * measures.len().max(1) * each;
        let periods = periods(query, (figures_max, places), today, &mut wrong);
        if !wrong.0.is_empty() {
            return Err(status::invalid_fields(wrong.0));
        }
        let rank = query.rank;
        let query = Query { divisions, measures, dimension, periods };
        Ok(Asked { query, year_on_year, period_on_period, rank })
    }
}

/// The divisions that are meant. One outside the node's own is wrong; one outside the grant is refused by name, and left
/// out where it would only be listed.
fn divisions(
    shared: &Shared,
    grant: &Grant,
    query: &v1::AggregateQuery,
    wrong: &mut Wrong,
) -> Result<Vec<Division>, Status> {
    let (own, known) = (shared.own(), shared.divisions());
    let mut read =
        |field: &str, name: &str| one(own, &known, field, name).map_err(|words| wrong.say(field, words)).ok();
    let denied = |division: Division| {
        let scope = grant.scope;
        status::not_allowed(format!("{division} lies outside {scope}, which is what you may see"))
    };
    if !query.within.is_empty() {
        let Some(within) = read("within", &query.within) else { return Ok(Vec::new()) };
        if !within.meets(grant.scope) {
            return Err(denied(within));
        }
        if !query.divisions.is_empty() {
            wrong.say("divisions", "divisions: name divisions, or `within`, but not both");
        }
        let tier = tier(query.tier());
        let mut inside = Vec::new();
        match tier {
            Some(tier) if tier >= within.tier() => wrong.say(
                "tier",
                format!("tier: there is no division of that tier inside {within}; it is one itself"),
            ),
            tier => list(&known, within, tier, &mut inside),
        }
        inside.retain(|d| grant.may_aggregate(*d));
        return Ok(inside);
    }
    if query.divisions.len() > DIVISIONS_NAMED_MAX {
        wrong.say("divisions", too_many("divisions", query.divisions.len(), DIVISIONS_NAMED_MAX));
        return Ok(Vec::new());
    }
    let mut named: Vec<Division> =
        query.divisions.iter().filter_map(|name| read("divisions", name)).collect();
    if query.divisions.is_empty() {
        named.push(if own.contains(grant.scope) { grant.scope } else { own });
    }
    if let Some(outside) = named.iter().find(|d| !grant.may_aggregate(**d)) {
        return Err(denied(*outside));
    }
    let mut seen = std::collections::HashSet::new();
    named.retain(|d| seen.insert(*d));
    Ok(named)
}

/// A division that figures are kept for, or in words why it is none.
fn one(own: Division, known: &Divisions, field: &str, name: &str) -> Result<Division, String> {
    let division = page::parent(field, name).map_err(|e| e.message().to_owned())?;
    if !own.contains(division) {
        return Err(format!(
            "{field}: {division} lies outside {own}; ask a node above it (不在本节点辖区内)"
        ));
    }
    if division.tier() <= Tier::Village {
        let kept = "is a village; figures are kept for townships and above (不支持村级)";
        return Err(format!("{field}: {division} {kept}"));
    }
    if division != own && !known.known(division) {
        let unknown = "is not in the table of divisions; check the code (区划代码不存在)";
        return Err(format!("{field}: {division} {unknown}"));
    }
    Ok(division)
}

/// All divisions of a tier inside another one; without a tier, those directly below. Where the tier is missing, what
/// stands for it: a prefecture without counties is its own county.
fn list(known: &Divisions, within: Division, tier: Option<Tier>, out: &mut Vec<Division>) {
    for (child, _) in known.children(within) {
        let Some(tier) = tier else {
            out.extend((child.tier() > Tier::Village).then_some(child));
            continue;
        };
        if child.tier() > tier {
            let before = out.len();
            list(known, child, Some(tier), out);
            if out.len() == before {
                out.push(child);
            }
        } else if child.tier() == tier {
            out.push(child);
        }
    }
}

/// Numbers of enums that nobody here knows must not pass for what is asked for where nothing is said.
fn known_values(query: &v1::AggregateQuery, wrong: &mut Wrong) {
    let mut check = |field: &str, number: i32, name: &dyn Fn(i32) -> Option<&'static str>| {
        if name(number).is_none() {
            wrong.say(field, writes::no_value(field, number, name));
        }
    };
    check("tier", query.tier, &|n| v1::Tier::try_from(n).ok().map(|value| value.as_str_name()));
    check("step", query.step, &|n| v1::Step::try_from(n).ok().map(|value| value.as_str_name()));
    let comparison = |n| v1::Comparison::try_from(n).ok().map(|value| value.as_str_name());
    if let Some(unknown) = query.comparisons.iter().find(|n| comparison(**n).is_none()) {
        check("comparisons", *unknown, &comparison);
    }
}

fn too_many(field: &str, count: usize, most: usize) -> String {
    format!("{field}: {count} names; name each once, at most {most} (名称过多)")
}

fn measures(query: &v1::AggregateQuery, wrong: &mut Wrong) -> Vec<&'static Measure> {
    if query.measures.is_empty() {
        wrong.say("measures", "measures: name at least one; ListMeasures lists them (至少指定一个指标)");
    }
    if query.measures.len() > MEASURES_NAMED_MAX {
        wrong.say("measures", too_many("measures", query.measures.len(), MEASURES_NAMED_MAX));
        return Vec::new();
    }
    let mut found: Vec<&'static Measure> = Vec::new();
    for name in &query.measures {
        match Measure::named(name) {
            Some(measure) if found.iter().any(|m| m.name == measure.name) => {}
            Some(measure) => found.push(measure),
            None => {
                let shown: String = name.chars().take(40).collect();
                let near = Measure::near(name);
                let hint = if near.is_empty() {
                    "ListMeasures lists them".to_owned()
                } else {
                    format!("did you mean {}?", near.join(" or "))
                };
                wrong
                    .say("measures", format!("measures: there is no measure `{shown}`; {hint} (指标不存在)"));
            }
        }
    }
    found
}

fn dimension(query: &v1::AggregateQuery, measures: &[&Measure], wrong: &mut Wrong) -> Option<Dimension> {
    if query.dimension.is_empty() {
        return None;
    }
    let names = |dimensions: &[Dimension]| dimensions.iter().map(|d| d.name()).collect::<Vec<_>>().join(", ");
    let Some(found) = Dimension::named(&query.dimension) else {
        let shown: String = query.dimension.chars().take(40).collect();
        let known: Vec<Dimension> = Dimension::ALL.into_iter().filter(|d| *d != Dimension::Village).collect();
        let words =
            format!("dimension: there is no dimension `{shown}`; known: {} (维度不存在)", names(&known));
        wrong.say("dimension", words);
        return None;
    };
    for measure in measures.iter().filter(|m| !m.dimensions().contains(&found)) {
        let can = measure.dimensions();
        let can = if can.is_empty() { "none".to_owned() } else { names(&can) };
        let words = format!(
            "dimension: {} is not kept by {}; its dimensions: {can} (该指标不支持此维度)",
            measure.name,
            found.name()
        );
        wrong.say("dimension", words);
    }
    Some(found)
}

/// So many that there are at most `figures_max` figures, of which `places` in each period.
fn periods(
    query: &v1::AggregateQuery,
    (figures_max, places): (usize, usize),
    today: Day,
    wrong: &mut Wrong,
) -> Vec<Period> {
    let period: Period = match query.period.parse() {
        Ok(period) => period,
        Err(error) => {
            wrong.say("period", format!("period: {error}"));
            return Vec::new();
        }
    };
    let step = match query.step() {
        v1::Step::Unspecified => None,
        v1::Step::Day => Some(Step::Day),
        v1::Step::Month => Some(Step::Month),
        v1::Step::Quarter => Some(Step::Quarter),
        v1::Step::Half => Some(Step::Half),
        v1::Step::Year => Some(Step::Year),
    };
    let count = step.map_or(1, |step| period.part_count(step, today));
    if count.saturating_mul(places) > figures_max {
        let words = format!(
            "step: the answer would have more than {figures_max} figures; ask for fewer divisions, measures or parts of \
             the period, or for a file with ExportAggregates, at most {FILE_FIGURES_MAX} (一次查询的数据过多)"
        );
        wrong.say("step", words);
        return Vec::new();
    }
    step.map_or_else(|| vec![period], |step| period.split(step, today))
}

fn tier(tier: v1::Tier) -> Option<Tier> {
    match tier {
        v1::Tier::Unspecified => None,
        v1::Tier::Township => Some(Tier::Township),
        v1::Tier::County => Some(Tier::County),
        v1::Tier::Prefecture => Some(Tier::Prefecture),
        v1::Tier::Province => Some(Tier::Province),
    }
}
