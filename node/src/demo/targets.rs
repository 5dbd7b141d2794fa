//! What must be made so that it adds up to the published figures. What the figures do not say is invented as sparingly
//! as possible: records that a part of them needs, and no others.

use std::collections::BTreeMap;

use guantong_gateway::division::Division;

use super::figures::{Figure, Figures};
use super::plan::{Place, Plan};
use crate::stated::Op;

/// Disputes that are made where only their rate of success was published.
const DISPUTES_UNPUBLISHED: u64 = 200;
/// In 1,000, the disputes that succeed where nothing was published about that.
const SUCCESS_UNPUBLISHED: u64 = 970;

/// What is counted. The first of a kind counts its records, the others some of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Class {
    Grids,
    Comprehensive,
    Dedicated,
    Chiefs,
    Members,
    Public,
    Social,
    Face,
    Vehicle,
    Connected,
    New,
    Built,
    Disputes,
    Rural,
    Succeeded,
    Incidents,
}

/// What is spread over places by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sort {
    Grids,
    Cameras,
    Disputes,
    Incidents,
}

impl Sort {
    const ALL: [Sort; 4] = [Sort::Grids, Sort::Cameras, Sort::Disputes, Sort::Incidents];

    fn of(class: Class) -> Sort {
        match class {
            class if class <= Class::Members => Sort::Grids,
            class if class <= Class::Built => Sort::Cameras,
            class if class <= Class::Succeeded => Sort::Disputes,
            _ => Sort::Incidents,
        }
    }
}

/// Counts of what is made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts(BTreeMap<Class, u64>);

impl Counts {
    /// One of the counts.
    pub(super) fn of(&self, class: Class) -> u64 {
        self.0.get(&class).copied().unwrap_or(0)
    }

    fn set(&mut self, class: Class, count: u64) {
        self.0.insert(class, count);
    }

    /// What is left to make where `inner` is made already.
    fn without(&self, inner: &Counts) -> Counts {
        Counts(self.0.iter().map(|(class, count)| (*class, count.saturating_sub(inner.of(*class)))).collect())
    }

    fn only(&self, sort: Sort) -> Counts {
        Counts(self.0.iter().filter(|(class, _)| Sort::of(**class) == sort).map(|(c, n)| (*c, *n)).collect())
    }

    /// Adds other counts to these.
    pub(super) fn add(&mut self, other: &Counts) {
        for (class, count) in &other.0 {
            *self.0.entry(*class).or_default() += count;
        }
    }

    /// How many records it takes.
    pub(super) fn records(&self) -> u64 {
        let kinds = [Class::Grids, Class::Public, Class::Social, Class::Disputes, Class::Incidents];
        kinds.into_iter().map(|class| self.of(class)).sum()
    }
}

/// What is made for the figures of one division, and where.
#[derive(Clone, Debug)]
pub(super) struct Target {
    pub(super) counts: Counts,
    pub(super) places: Vec<Place>,
    /// The year of the cases.
    pub(super) case_year: i32,
    /// The year in which new cameras were installed.
    pub(super) camera_year: i32,
}

/// What to make for all figures, the innermost divisions first; an outer one gets what is left, in places that no inner
/// one has filled.
pub(super) fn targets(figures: &Figures, plan: &Plan) -> Vec<Target> {
    let mut made: Vec<(Division, Counts)> = Vec::new();
    let mut targets = Vec::new();
    for division in figures.divisions() {
        let inside: Vec<&Place> = plan.places.iter().filter(|p| division.contains(p.township)).collect();
        let mut inner = Counts::default();
        made.iter().filter(|(done, _)| division.contains(*done)).for_each(|(_, counts)| inner.add(counts));
        let left = wanted(figures, division, &inside).without(&inner);
        let year = |measure| figures.figures.iter().find(|f| f.division == division && f.measure == measure);
        let year = |measure| year(measure).and_then(Figure::year).unwrap_or(2022);
        for sort in Sort::ALL {
            let counts = left.only(sort);
            let filled = |place: &Place| {
                made.iter()
                    .any(|(done, counts)| done.contains(place.township) && counts.only(sort).records() > 0)
            };
            let places: Vec<Place> =
                inside.iter().filter(|place| !filled(place)).map(|p| (*p).clone()).collect();
            if counts.records() > 0 && !places.is_empty() {
                let (case_year, camera_year) = (year("cases"), year("cameras"));
                targets.push((division, Target { counts, places, case_year, camera_year }));
            }
        }
        let own = targets.iter().filter(|(of, _)| *of == division);
        let own: Vec<(Division, Counts)> = own.map(|(of, target)| (*of, target.counts.clone())).collect();
        made.extend(own);
    }
    targets.into_iter().map(|(_, target)| target).collect()
}

fn wanted(figures: &Figures, division: Division, places: &[&Place]) -> Counts {
    let get = |measure: &str, class: &str| figures.get(division, measure, class);
    let count = |measure: &str, class: &str| get(measure, class).map(|figure| figure.number.count());
    let mut counts = Counts::default();
    for (class, measure, name) in [
        (Class::Chiefs, "staff", "chief"),
        (Class::Members, "staff", "member"),
        (Class::Social, "cameras", "social"),
        (Class::Face, "cameras", "face"),
        (Class::Vehicle, "cameras", "vehicle"),
        (Class::New, "cameras", "new"),
        (Class::Built, "cameras", "built"),
        (Class::Incidents, "cases", "incident"),
    ] {
        counts.set(class, count(measure, name).unwrap_or(0));
    }
    let sorts = [count("grids", "comprehensive"), count("grids", "dedicated")];
    grids(&mut counts, count("grids", "all"), sorts, places);
    cameras(&mut counts, count("cameras", "public"), count("cameras", "connected"));
    let rate = get("rates", "success");
    let disputes =
        [count("cases", "dispute"), count("cases", "dispute_succeeded"), count("cases", "dispute_rural")];
    self::disputes(&mut counts, disputes, rate, places);
    counts
}

fn grids(
    counts: &mut Counts,
    all: Option<u64>,
    [comprehensive, dedicated]: [Option<u64>; 2],
    places: &[&Place],
) {
    let sorted = comprehensive.unwrap_or(0) + dedicated.unwrap_or(0);
    let has_staff = counts.of(Class::Chiefs) + counts.of(Class::Members) > 0;
    let unpublished = if has_staff && sorted == 0 { places.len() as u64 } else { sorted };
    let all = all.unwrap_or(unpublished);
    // Where only one sort was published, the rest is not of that sort.
    let rest = all.saturating_sub(sorted);
    let dedicated = dedicated.unwrap_or(if comprehensive.is_some() { rest } else { 0 });
    counts.set(Class::Grids, all);
    counts.set(Class::Dedicated, dedicated);
    counts.set(Class::Comprehensive, comprehensive.unwrap_or(all.saturating_sub(dedicated)));
}

fn cameras(counts: &mut Counts, public: Option<u64>, connected: Option<u64>) {
    let parts = [Class::Face, Class::Vehicle, Class::New, Class::Built].map(|class| counts.of(class));
    let most = parts.into_iter().chain(connected).max().unwrap_or(0);
    let social = counts.of(Class::Social);
    let public = public.unwrap_or(most.saturating_sub(social));
    counts.set(Class::Public, public);
    counts.set(Class::Connected, connected.unwrap_or((public + social) * 9 / 10));
}

fn disputes(
    counts: &mut Counts,
    [all, succeeded, rural]: [Option<u64>; 3],
    rate: Option<&Figure>,
    places: &[&Place],
) {
    let least = succeeded.max(rural);
    let unpublished = least.unwrap_or(if rate.is_some() { DISPUTES_UNPUBLISHED } else { 0 });
    let all = all.unwrap_or(unpublished);
    let weight =
        |rural: bool| places.iter().filter(|p| p.is_rural() || !rural).map(|p| p.weight).sum::<u64>();
    let rural_share = (all * weight(true)).checked_div(weight(false)).unwrap_or(0);
    counts.set(Class::Disputes, all);
    counts.set(Class::Succeeded, succeeded.unwrap_or_else(|| succeeding(all, rate)));
    counts.set(Class::Rural, rural.unwrap_or(rural_share));
}

/// How many of so many disputes succeed at a stated rate.
fn succeeding(disputes: u64, rate: Option<&Figure>) -> u64 {
    let Some(rate) = rate else { return disputes * SUCCESS_UNPUBLISHED / 1_000 };
    let exact = disputes as f64 * rate.number.value / 100.0;
    let count = if rate.op == Op::Ge { exact.ceil() } else { exact.round() };
    (count as u64).min(disputes)
}

/// Splits a total by weights, to the last one: larger remainders first, then earlier entries.
pub(super) fn apportion(total: u64, weights: &[u64]) -> Vec<u64> {
    let sum: u128 = weights.iter().map(|weight| u128::from(*weight)).sum();
    if sum == 0 {
        return vec![0; weights.len()];
    }
    let product = |weight: u64| u128::from(total) * u128::from(weight);
    let mut shares: Vec<u64> =
        weights.iter().map(|w| u64::try_from(product(*w) / sum).unwrap_or(0)).collect();
    let mut by_remainder: Vec<usize> = (0..weights.len()).collect();
    by_remainder.sort_by_key(|at| (std::cmp::Reverse(product(weights[*at]) % sum), *at));
    let missing = total - shares.iter().sum::<u64>();
    for at in by_remainder.into_iter().cycle().take(usize::try_from(missing).unwrap_or(0)) {
        shares[at] += 1;
    }
    shares
}

/// How many of `part` things fall to the `index`th of `whole` places, spread evenly.
pub(super) fn evenly(part: u64, index: u64, whole: u64) -> u64 {
    let up_to =
        |index: u64| (u128::from(part) * u128::from(index)).checked_div(u128::from(whole)).unwrap_or(0);
    u64::try_from(up_to(index + 1) - up_to(index)).unwrap_or(0)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::figures::EMBEDDED;
    use super::super::plan::EMBEDDED_VILLAGES;
    use super::*;

    fn at(code: &str) -> Division {
        Division::parse(code).unwrap()
    }

    fn made(division: &str, figures: &str) -> Vec<Target> {
        let plan = Plan::new(at(division), true, EMBEDDED_VILLAGES).unwrap();
        targets(&Figures::parse(figures).unwrap().inside(at(division)), &plan)
    }

    /// All targets together.
    fn total(targets: &[Target]) -> Counts {
        let mut total = Counts::default();
        targets.iter().for_each(|target| total.add(&target.counts));
        total
    }

    #[test]
    fn the_county_of_the_default_adds_up() {
        let counts = total(&made("220822", EMBEDDED));
        for (class, count) in [
            (Class::Grids, 1_058),
            (Class::Chiefs, 641),
            (Class::Members, 1_254),
            (Class::Public, 2_394),
            (Class::Face, 70),
            (Class::Social, 16_000),
            (Class::Disputes, 2_185),
            (Class::Rural, 1_673),
            (Class::Succeeded, 2_154),
        ] {
            assert_eq!(counts.of(class), count, "{class:?}");
        }
        assert_eq!(counts.of(Class::Comprehensive) + counts.of(Class::Dedicated), 1_058);
        assert_eq!(counts.records(), 21_637);
    }

    #[test]
    fn what_was_not_published_follows_from_what_was() {
        let counts = total(&made("511702", EMBEDDED));
        let cameras = [Class::Public, Class::Connected, Class::Built].map(|class| counts.of(class));
        assert_eq!(cameras, [3_600, 3_600, 1_632]);
        let others = [Class::Disputes, Class::Succeeded, Class::Members].map(|class| counts.of(class));
        assert_eq!(others, [200, 190, 453]);
        assert!(counts.of(Class::Grids) > 0);
    }

    #[test]
    fn an_outer_division_gets_what_is_left() {
        let header = "division,measure,class,op,value\n";
        let rows = "5329,grids,all,eq,500\n532901,grids,all,eq,120\n532922,grids,all,eq,80\n5329,cases,incident,eq,9\n";
        let targets = made("5329", &format!("{header}{rows}"));
        let grids: Vec<u64> = targets.iter().map(|target| target.counts.of(Class::Grids)).collect();
        assert_eq!(grids, [120, 80, 300, 0]);
        let inside =
            |code: &str, target: &Target| target.places.iter().any(|p| at(code).contains(p.township));
        assert!(!inside("532901", &targets[2]) && !inside("532922", &targets[2]));
        assert!(inside("532901", &targets[3]), "no inner division has incidents");
        assert_eq!(targets[3].counts.of(Class::Incidents), 9);
    }

    #[test]
    fn nothing_is_lost_in_sharing() {
        assert_eq!(apportion(10, &[1, 1, 1]), [4, 3, 3]);
        assert_eq!(apportion(7, &[0, 3, 1]), [0, 5, 2]);
        assert_eq!(apportion(5, &[0]), [0]);
        for (part, whole) in [(641, 1_058), (1_254, 1_058), (0, 3), (7, 1)] {
            assert_eq!((0..whole).map(|index| evenly(part, index, whole)).sum::<u64>(), part);
        }
    }
}
