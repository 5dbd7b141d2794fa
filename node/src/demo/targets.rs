//! What must be made so that it adds up to the published figures. What the figures do not say is invented as sparingly
//! as possible: records that a part of them needs, and no others.

use guantong_gateway::division::Division;

use super::figures::{Figure, Figures, Op};
use super::plan::{Place, Plan};

/// Disputes that are made where only their rate of success was published.
const DISPUTES_UNPUBLISHED: u64 = 200;
/// In 1,000, the disputes that succeed where nothing was published about that.
const SUCCESS_UNPUBLISHED: u64 = 970;

/// Counts of what is made for one division.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) grids: u64,
    pub(super) comprehensive: u64,
    pub(super) dedicated: u64,
    pub(super) chiefs: u64,
    pub(super) members: u64,
    pub(super) public: u64,
    pub(super) social: u64,
    pub(super) face: u64,
    pub(super) vehicle: u64,
    pub(super) connected: u64,
    pub(super) new: u64,
    pub(super) built: u64,
    pub(super) disputes: u64,
    pub(super) rural: u64,
    pub(super) succeeded: u64,
    pub(super) incidents: u64,
}

impl Counts {
    /// What is left to make where `inner` is made already.
    fn without(&self, inner: &Counts) -> Counts {
        let rest = |of: fn(&Counts) -> u64| of(self).saturating_sub(of(inner));
        Counts {
            grids: rest(|c| c.grids),
            comprehensive: rest(|c| c.comprehensive),
            dedicated: rest(|c| c.dedicated),
            chiefs: rest(|c| c.chiefs),
            members: rest(|c| c.members),
            public: rest(|c| c.public),
            social: rest(|c| c.social),
            face: rest(|c| c.face),
            vehicle: rest(|c| c.vehicle),
            connected: rest(|c| c.connected),
            new: rest(|c| c.new),
            built: rest(|c| c.built),
            disputes: rest(|c| c.disputes),
            rural: rest(|c| c.rural),
            succeeded: rest(|c| c.succeeded),
            incidents: rest(|c| c.incidents),
        }
    }

    pub(super) fn add(&mut self, other: &Counts) {
        let pairs = [
            (&mut self.grids, other.grids),
            (&mut self.comprehensive, other.comprehensive),
            (&mut self.dedicated, other.dedicated),
            (&mut self.chiefs, other.chiefs),
            (&mut self.members, other.members),
            (&mut self.public, other.public),
            (&mut self.social, other.social),
            (&mut self.face, other.face),
            (&mut self.vehicle, other.vehicle),
            (&mut self.connected, other.connected),
            (&mut self.new, other.new),
            (&mut self.built, other.built),
            (&mut self.disputes, other.disputes),
            (&mut self.rural, other.rural),
            (&mut self.succeeded, other.succeeded),
            (&mut self.incidents, other.incidents),
        ];
        for (sum, amount) in pairs {
            *sum += amount;
        }
    }

    /// How many records it takes.
    pub(super) fn records(&self) -> u64 {
        self.grids + self.public + self.social + self.disputes + self.incidents
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

/// What to make for all figures, the innermost divisions first; an outer one gets what is left.
pub(super) fn targets(figures: &Figures, plan: &Plan) -> Vec<Target> {
    let mut made: Vec<(Division, Counts)> = Vec::new();
    let mut targets = Vec::new();
    for division in figures.divisions() {
        let inside: Vec<Place> =
            plan.places.iter().filter(|p| division.contains(p.township)).cloned().collect();
        let taken = |place: &Place| made.iter().any(|(done, _)| done.contains(place.township));
        let free: Vec<Place> = inside.iter().filter(|place| !taken(place)).cloned().collect();
        let mut inner = Counts::default();
        made.iter()
            .filter(|(done, _)| division.strictly_contains(*done))
            .for_each(|(_, counts)| inner.add(counts));
        let counts = wanted(figures, division, &inside).without(&inner);
        if counts.records() == 0 || free.is_empty() {
            continue;
        }
        let year = |measure| figures.figures.iter().find(|f| f.division == division && f.measure == measure);
        let year = |measure| year(measure).and_then(Figure::year).unwrap_or(2022);
        made.push((division, counts.clone()));
        targets.push(Target { counts, places: free, case_year: year("cases"), camera_year: year("cameras") });
    }
    targets
}

fn wanted(figures: &Figures, division: Division, places: &[Place]) -> Counts {
    let get = |measure: &str, class: &str| figures.get(division, measure, class);
    let count = |measure: &str, class: &str| get(measure, class).map(|figure| figure.number.count());
    let number = |measure: &str, class: &str| count(measure, class).unwrap_or(0);
    let mut counts = Counts {
        chiefs: number("staff", "chief"),
        members: number("staff", "member"),
        social: number("cameras", "social"),
        face: number("cameras", "face"),
        vehicle: number("cameras", "vehicle"),
        new: number("cameras", "new"),
        built: number("cameras", "built"),
        incidents: number("cases", "incident"),
        ..Counts::default()
    };
    grids(
        &mut counts,
        count("grids", "all"),
        count("grids", "comprehensive"),
        count("grids", "dedicated"),
        places,
    );
    cameras(&mut counts, count("cameras", "public"), count("cameras", "connected"));
    let (rate, succeeded) = (get("rates", "success"), count("cases", "dispute_succeeded"));
    counts.disputes = count("cases", "dispute").unwrap_or_else(|| {
        let least = succeeded.unwrap_or(0).max(number("cases", "dispute_rural"));
        if least == 0 && rate.is_some() { DISPUTES_UNPUBLISHED } else { least }
    });
    counts.succeeded = succeeded.unwrap_or_else(|| succeeding(counts.disputes, rate));
    counts.rural = count("cases", "dispute_rural").unwrap_or_else(|| {
        let weight =
            |rural: bool| places.iter().filter(|p| p.is_rural() || !rural).map(|p| p.weight).sum::<u64>();
        (counts.disputes * weight(true)).checked_div(weight(false)).unwrap_or(0)
    });
    counts
}

fn grids(
    counts: &mut Counts,
    all: Option<u64>,
    comprehensive: Option<u64>,
    dedicated: Option<u64>,
    places: &[Place],
) {
    let sorted = comprehensive.unwrap_or(0) + dedicated.unwrap_or(0);
    let has_staff = counts.chiefs + counts.members > 0;
    let unpublished = if has_staff && sorted == 0 { places.len() as u64 } else { sorted };
    counts.grids = all.unwrap_or(unpublished);
    // Where only one sort was published, the rest is not of that sort.
    counts.dedicated =
        dedicated.unwrap_or(if comprehensive.is_some() { counts.grids.saturating_sub(sorted) } else { 0 });
    counts.comprehensive = comprehensive.unwrap_or(counts.grids.saturating_sub(counts.dedicated));
}

fn cameras(counts: &mut Counts, public: Option<u64>, connected: Option<u64>) {
    let parts = [counts.face, counts.vehicle, counts.new, counts.built, connected.unwrap_or(0)];
    let most = parts.into_iter().max().unwrap_or(0);
    counts.public = public.unwrap_or(most.saturating_sub(counts.social));
    counts.connected = connected.unwrap_or((counts.public + counts.social) * 9 / 10);
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

    #[test]
    fn the_county_of_the_default_adds_up() {
        let targets = made("220822", EMBEDDED);
        let counts = &targets[0].counts;
        assert_eq!((counts.grids, counts.chiefs, counts.members), (1_058, 641, 1_254));
        assert_eq!((counts.public, counts.face, counts.social), (2_394, 70, 16_000));
        assert_eq!((counts.disputes, counts.rural, counts.succeeded), (2_185, 1_673, 2_154));
        assert_eq!(counts.comprehensive + counts.dedicated, 1_058);
        assert_eq!((targets.len(), counts.records(), targets[0].case_year), (1, 21_637, 2022));
    }

    #[test]
    fn what_was_not_published_follows_from_what_was() {
        let counts = &made("511702", EMBEDDED)[0].counts;
        assert_eq!((counts.public, counts.connected, counts.built), (3_600, 3_600, 1_632));
        assert_eq!((counts.disputes, counts.succeeded, counts.members), (200, 190, 453));
        assert!(counts.grids > 0);
    }

    #[test]
    fn an_outer_division_gets_what_is_left() {
        let header = "division,measure,class,op,value\n";
        let rows = "5329,grids,all,eq,500\n532901,grids,all,eq,120\n532922,grids,all,eq,80\n";
        let targets = made("5329", &format!("{header}{rows}"));
        let grids: Vec<u64> = targets.iter().map(|target| target.counts.grids).collect();
        assert_eq!(grids, [120, 80, 300]);
        assert!(
            targets[2]
                .places
                .iter()
                .all(|p| !at("532901").contains(p.township) && !at("532922").contains(p.township))
        );
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
