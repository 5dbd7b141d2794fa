//! Published figures beside the sums that arrived. What no sum says is shown and not judged.

use std::collections::BTreeMap;

use guantong_gateway::division::Division;
use serde_json::{Value, json};

use super::ask::{Sums, sum};
use super::figures::{Figure, Figures};
use super::plan::{Plan, township_group, village_group};
use crate::cli::report::table;

/// What became of a figure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// What arrived agrees with it.
    Ok,
    /// It does not.
    Off,
    /// Nothing that arrives says it.
    Shown,
}

impl Verdict {
    fn of(agrees: bool) -> Verdict {
        if agrees { Verdict::Ok } else { Verdict::Off }
    }

    fn words(self) -> &'static str {
        match self {
            Verdict::Ok => "ok 一致",
            Verdict::Off => "OFF 不一致",
            Verdict::Shown => "shown 仅列示",
        }
    }

    fn name(self) -> &'static str {
        match self {
            Verdict::Ok => "ok",
            Verdict::Off => "off",
            Verdict::Shown => "shown",
        }
    }
}

/// A figure and what was found for it.
#[derive(Clone, Debug)]
pub(super) struct Judged {
    pub(super) figure: Figure,
    pub(super) found: String,
    pub(super) verdict: Verdict,
}

/// The top's sums for every division that is asked about.
pub(super) type AllSums = BTreeMap<Division, Sums>;

/// The divisions whose sums are needed.
pub(super) fn divisions_asked(figures: &Figures, plan: &Plan) -> Vec<Division> {
    let mut divisions = figures.divisions();
    if figures.figures.iter().any(|figure| figure.is("cases", "dispute_rural")) {
        divisions.extend(plan.townships());
    }
    divisions.sort_unstable();
    divisions.dedup();
    divisions
}

/// Judges every figure, in the order of the file.
pub(super) fn judge(figures: &Figures, plan: &Plan, sums: &AllSums) -> Vec<Judged> {
    let one = |figure: &Figure| {
        let (found, verdict) = judge_one(figure, plan, sums);
        Judged { figure: figure.clone(), found, verdict }
    };
    figures.figures.iter().map(one).collect()
}

fn judge_one(figure: &Figure, plan: &Plan, sums: &AllSums) -> (String, Verdict) {
    let nothing = Sums::new();
    let of = |division: Division| sums.get(&division).unwrap_or(&nothing);
    let own = of(figure.division);
    match (figure.measure.as_str(), figure.class.as_str()) {
        ("units", class) => (units(plan, figure.division, class), Verdict::Shown),
        ("cameras", "new" | "built") | ("poles", _) => ("-".to_owned(), Verdict::Shown),
        ("cases", "dispute_rural") => {
            let inside = plan.townships().into_iter().filter(|t| figure.division.contains(*t));
            let (rural, urban): (Vec<_>, Vec<_>) = inside.partition(|t| township_group(*t) >= 100);
            let found = rural.iter().map(|t| sum(of(*t), "cases", "dispute")).sum::<i64>();
            // Without subdistricts in the table, nothing tells the two apart.
            let verdict =
                if urban.is_empty() { Verdict::Shown } else { Verdict::of(figure.allows_count(found)) };
            (found.to_string(), verdict)
        }
        ("rates", _) => {
            let (all, succeeded) = (sum(own, "cases", "dispute"), sum(own, "cases", "dispute_succeeded"));
            let percent = if all > 0 { succeeded as f64 * 100.0 / all as f64 } else { 0.0 };
            let found = format!("{percent:.2} % ({succeeded} ÷ {all})");
            (found, Verdict::of(figure.allows_rate(succeeded, all)))
        }
        (measure, class) => {
            let found = sum(own, measure, class);
            (found.to_string(), Verdict::of(figure.allows_count(found)))
        }
    }
}

/// Units of government as the table of divisions has them.
fn units(plan: &Plan, division: Division, class: &str) -> String {
    let townships = || plan.townships().into_iter().filter(|t| division.contains(*t)).map(township_group);
    let villages =
        || plan.villages.iter().filter(|v| division.contains(v.code)).map(|v| village_group(v.code));
    if matches!(class, "village" | "community") && villages().next().is_none() {
        return "no list of villages".to_owned();
    }
    let count = match class {
        "subdistrict" => townships().filter(|group| (1..100).contains(group)).count(),
        "town" => townships().filter(|group| (100..200).contains(group)).count(),
        "township" => townships().filter(|group| (200..400).contains(group)).count(),
        "village" => villages().filter(|group| (200..400).contains(group)).count(),
        _ => villages().filter(|group| (1..200).contains(group)).count(),
    };
    format!("{count} in the table")
}

/// How many figures are off.
pub(super) fn off(judged: &[Judged]) -> usize {
    judged.iter().filter(|one| one.verdict == Verdict::Off).count()
}

/// For people.
pub(super) fn text(judged: &[Judged], plan: &Plan) -> String {
    let rows: Vec<[String; 4]> = judged
        .iter()
        .map(|Judged { figure, found, verdict }| {
            let place =
                if figure.place.is_empty() { plan.name(figure.division) } else { figure.place.clone() };
            let what = format!("{place} {} {} {}", label(figure), figure.measure, figure.class);
            let percent = if figure.measure == "rates" { " %" } else { "" };
            let published = format!("{} {}{percent}", figure.op.sign(), figure.number.text);
            [what, published, found.clone(), verdict.words().to_owned()]
        })
        .collect();
    table(["figure 指标", "published 公布", "arrived 到达", ""], &rows)
}

/// For programs.
pub(super) fn json(judged: &[Judged]) -> Vec<Value> {
    let one = |Judged { figure, found, verdict }: &Judged| {
        json!({
            "division": figure.division.to_string(),
            "measure": figure.measure,
            "class": figure.class,
            "op": figure.op.sign(),
            "published": figure.number.text,
            "arrived": found,
            "verdict": verdict.name(),
        })
    };
    judged.iter().map(one).collect()
}

fn label(figure: &Figure) -> &'static str {
    match (figure.measure.as_str(), figure.class.as_str()) {
        ("units", "town") => "镇",
        ("units", "subdistrict") => "街道",
        ("units", "township") => "乡",
        ("units", "village") => "村",
        ("units", _) => "社区",
        ("grids", "all") => "网格",
        ("grids", "comprehensive") => "综合网格",
        ("grids", _) => "专属网格",
        ("staff", "chief") => "网格长",
        ("staff", _) => "网格员",
        ("cameras", "public") => "公共点位",
        ("cameras", "social") => "社会点位",
        ("cameras", "face") => "人脸功能",
        ("cameras", "vehicle") => "车辆功能",
        ("cameras", "connected") => "联网点位",
        ("cameras", "new") => "新增点位",
        ("cameras", _) => "自建点位",
        ("cases", "dispute") => "矛盾纠纷",
        ("cases", "dispute_rural") => "乡镇纠纷",
        ("cases", "dispute_succeeded") => "调处成功",
        ("cases", _) => "网格事件",
        ("rates", _) => "调处成功率",
        _ => "灯杆编码",
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::figures::EMBEDDED;
    use super::super::plan::EMBEDDED_VILLAGES;
    use super::*;

    fn sums(pairs: &[(&str, &str, i64)]) -> Sums {
        pairs.iter().map(|(m, c, n)| (((*m).to_owned(), (*c).to_owned()), *n)).collect()
    }

    #[test]
    fn one_camera_too_few_is_off() {
        let county = Division::parse("220822").unwrap();
        let plan = Plan::new(county, true, EMBEDDED_VILLAGES).unwrap();
        let figures = Figures::parse(EMBEDDED).unwrap().inside(county);
        let mut all = AllSums::new();
        let complete = [
            ("grids", "all", 1_058),
            ("staff", "chief", 641),
            ("staff", "member", 1_254),
            ("cameras", "public", 2_394),
            ("cameras", "social", 16_000),
            ("cameras", "face", 70),
            ("cases", "dispute", 2_185),
            ("cases", "dispute_succeeded", 2_154),
        ];
        all.insert(county, sums(&complete));
        all.insert(Division::parse("220822101").unwrap(), sums(&[("cases", "dispute", 1_673)]));
        all.insert(Division::parse("220822001").unwrap(), sums(&[("cases", "dispute", 512)]));
        let judged = judge(&figures, &plan, &all);
        assert_eq!(off(&judged), 0, "{}", text(&judged, &plan));
        assert_eq!(
            judged.iter().filter(|one| one.verdict == Verdict::Shown).count(),
            4,
            "units are not judged"
        );
        if let Some(own) = all.get_mut(&county) {
            own.insert(("cameras".into(), "face".into()), 69);
        }
        assert_eq!(off(&judge(&figures, &plan, &all)), 1);
    }
}
