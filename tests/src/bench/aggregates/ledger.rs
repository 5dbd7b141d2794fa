//! The records of the benchmark: cameras and cases, spread over the townships of a province and the last 24 months. The
//! same number makes the same record.

use guantong_gateway::division::{Division, Divisions};
use guantong_gateway::period::{Day, Month};
use guantong_proto::{codes, v1};
use prost::Message;

const MONTHS: i32 = 24;

/// The records of a province, or of one of its prefectures.
#[derive(Clone)]
pub(in crate::bench) struct Ledger {
    /// Counties with their townships, by prefecture.
    counties: Vec<(Division, Division, Vec<Division>)>,
    cases_each: u64,
    cameras_each: u64,
}

fn now() -> Day {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    Day::of_ms(since.map_or(0, |d| d.as_millis() as u64))
}

/// Today, as a period.
pub(super) fn today() -> String {
    now().to_string()
}

/// The twelve months before this one, as a period.
pub(super) fn last_year() -> String {
    let month = now().month();
    let first = month.plus(-12).map_or(Day::FIRST, Month::first);
    format!("{first}..{}", month.first().plus(-1))
}

/// A number that looks drawn by lot.
fn lot(n: u64, salt: u64, below: u64) -> u64 {
    let mixed = (n ^ salt << 40).wrapping_add(0x9e37_79b9_7f4a_7c15).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ mixed >> 29).wrapping_mul(0x94d0_49bb_1331_11eb);
    (mixed ^ mixed >> 32) % below.max(1)
}

impl Ledger {
    pub(super) fn new(divisions: &Divisions, province: Division, records: u64, cases_percent: u64) -> Ledger {
        let prefectures = divisions.children(province).into_iter().map(|child| child.0);
        Ledger::of(divisions, prefectures, records, cases_percent)
    }

    /// The same, in one prefecture.
    pub(in crate::bench) fn within(prefecture: Division, records: u64, cases_percent: u64) -> Ledger {
        Ledger::of(&Divisions::embedded(), [prefecture], records, cases_percent)
    }

    fn of(
        divisions: &Divisions,
        prefectures: impl IntoIterator<Item = Division>,
        records: u64,
        cases_percent: u64,
    ) -> Ledger {
        let mut counties = Vec::new();
        for prefecture in prefectures {
            for (county, _) in divisions.children(prefecture) {
                let townships: Vec<Division> = divisions.children(county).into_iter().map(|c| c.0).collect();
                if !townships.is_empty() {
                    counties.push((prefecture, county, townships));
                }
            }
        }
        let each = records / counties.len().max(1) as u64;
        let cases_each = each * cases_percent.min(100) / 100;
        Ledger { counties, cases_each, cameras_each: each - cases_each }
    }

    pub(super) fn prefectures(&self) -> Vec<Division> {
        let mut prefectures: Vec<Division> = self.counties.iter().map(|c| c.0).collect();
        prefectures.dedup();
        prefectures
    }

    pub(super) fn county_count(&self) -> usize {
        self.counties.len()
    }

    pub(super) fn case_count(&self) -> u64 {
        self.cases_each * self.counties.len() as u64
    }

    pub(super) fn len(&self) -> u64 {
        (self.cases_each + self.cameras_each) * self.counties.len() as u64
    }

    /// The cases or cameras of a prefecture, county by county.
    pub(in crate::bench) fn rows(
        self,
        prefecture: Division,
        cases: bool,
    ) -> impl Iterator<Item = v1::ImportRow> {
        let each = if cases { self.cases_each } else { self.cameras_each };
        let inside = self.counties.into_iter().filter(move |c| c.0 == prefecture);
        inside.flat_map(move |(_, county, townships)| {
            (0..each).map(move |n| {
                let home = townships.get(n as usize % townships.len()).copied().unwrap_or(county);
                let salt = county.code() / 1_000_000;
                if cases { case(home, n, salt) } else { camera(county, home, n, salt) }
            })
        })
    }
}

fn row(key: String, home: Division, n: u64, fields: &impl Message) -> v1::ImportRow {
    let fields = fields.encode_to_vec().into();
    v1::ImportRow { key, home: home.to_string(), fields, line: n + 2, ..v1::ImportRow::default() }
}

fn camera(county: Division, home: Division, n: u64, salt: u64) -> v1::ImportRow {
    let device_id = format!("{:06}0000132{n:07}", county.code() / 1_000_000);
    let pick = |salt2, below| lot(n, salt ^ salt2, below) as i32;
    let since = now().plus(-1).since(Day::of_seconds(0).unwrap_or(Day::FIRST));
    let observe_time = prost_types::Timestamp { seconds: i64::from(since) * 86_400, nanos: 0 };
    let camera = v1::Camera {
        device_id: Some(device_id.clone()),
        division: Some(home.to_string()),
        ownership: Some(1 + pick(1, 2)),
        point_class: Some(1 + pick(2, 3)),
        functions: vec![1 + pick(3, 5)],
        source_network: Some(1 + pick(4, 3)),
        display_name: Some(format!("测试点位{n}")),
        address: Some(format!("测试路{n}号")),
        location: Some(v1::LngLat { longitude: 115.0 + n as f64 * 1e-6, latitude: 28.6 }),
        management_unit: Some("测试单位".into()),
        filing: Some(v1::Filing { state: 1 + pick(5, 3), ..v1::Filing::default() }),
        connected: Some(pick(6, 10) > 0),
        status: Some(v1::CameraStatus { state: 1 + pick(7, 4), observe_time: Some(observe_time) }),
        ..v1::Camera::default()
    };
    row(device_id, home, n, &camera)
}

fn case(home: Division, n: u64, salt: u64) -> v1::ImportRow {
    let pick = |salt2, below| lot(n, salt ^ salt2, below) as i32;
    let yesterday = now().plus(-1);
    let begin = yesterday.month().plus(-MONTHS).map_or(yesterday, Month::first);
    let received = begin.plus(pick(1, yesterday.since(begin).max(1) as u64));
    let concluded = received.plus(pick(2, 45));
    let over = concluded <= yesterday && pick(3, 20) > 0;
    let date = |day: Day| v1::Date {
        year: day.month().year(),
        month: day.month().of_year() as i32,
        day: day.of_month() as i32,
    };
    let code = |list: &'static [codes::Code], salt2| {
        list.get(pick(salt2, list.len() as u64) as usize).map_or("other", |c| c.code).to_owned()
    };
    let since = concluded.since(Day::of_seconds(0).unwrap_or(Day::FIRST));
    let since = prost_types::Timestamp { seconds: i64::from(since) * 86_400, nanos: 0 };
    let state = if over { v1::CaseState::Verified } else { v1::CaseState::Accepted };
    let case = v1::Case {
        case_kind: Some(1 + pick(4, 2)),
        category: Some(code(codes::CATEGORIES, 5)),
        channel: Some(1 + pick(6, 9)),
        risk: Some(1 + pick(7, 4)),
        division: Some(home.to_string()),
        received_on: Some(date(received)),
        due_on: Some(date(received.plus(30))),
        title: Some(format!("测试事件{n}")),
        lifecycle: Some(v1::Lifecycle {
            state: state.into(),
            holder: home.to_string(),
            unit: code(codes::UNITS, 8),
            since: Some(since).filter(|_| over),
            ..v1::Lifecycle::default()
        }),
        outcome: over.then(|| v1::Outcome {
            succeeded: Some(pick(9, 50) > 0),
            concluded_on: Some(date(concluded)),
            ..v1::Outcome::default()
        }),
        ..v1::Case::default()
    };
    row(format!("B{n:07}"), home, n, &case)
}
