//! Figures out of real engines: what was written, what is asked, and what past days had.

use std::sync::atomic::{AtomicI64, Ordering};

use guantong_proto::v1::aggregate_service_server::AggregateService;
use tonic::{Code, Request, Status};
use tonic_types::StatusExt;

use super::*;
use crate::period::{Day, Period};
use crate::record::raw;
use crate::service::aggregates::Aggregates;
use crate::service::{Caller, Who};

const DAY_MS: i64 = 86_400_000;

async fn write<M: Message>(node: &Node, name: &str, message: &M) {
    let name = node.engine.name(name).unwrap();
    let fields = raw::split(&Bytes::from(message.encode_to_vec())).unwrap();
    let write = LocalWrite { authority: Authority::Ledger, ..LocalWrite::of(fields) };
    node.write(&name, write).await.unwrap();
}

fn date(day: Day) -> v1::Date {
    let month = day.month();
    v1::Date { year: month.year(), month: month.of_year() as i32, day: day.of_month() as i32 }
}

fn day(number: u32) -> Day {
    Day::of_number(number).unwrap()
}

async fn ask(node: &Node, who: Who, query: v1::AggregateQuery) -> Result<Vec<v1::Figure>, Status> {
    let mut request = Request::new(v1::QueryAggregatesRequest { query: Some(query) });
    request.extensions_mut().insert(Caller { who, address: "test".into() });
    let service = Aggregates::new(node.engine.clone(), CancellationToken::new());
    Ok(service.query_aggregates(request).await?.into_inner().figures)
}

fn query(measures: &[&str], period: &str) -> v1::AggregateQuery {
    let measures = measures.iter().map(|m| (*m).to_owned()).collect();
    v1::AggregateQuery { measures, period: period.into(), ..v1::AggregateQuery::default() }
}

async fn local(node: &Node, query: v1::AggregateQuery) -> Vec<v1::Figure> {
    ask(node, Who::Local, query).await.unwrap()
}

/// A case that was received, and perhaps concluded and verified, on these days.
fn a_case(
    received: Day,
    concluded: Option<Day>,
    due: Option<Day>,
    kind: v1::CaseKind,
    home: &str,
) -> v1::Case {
    let at = |d: Day| {
        Some(prost_types::Timestamp { seconds: i64::from(d.since(day(1970_0101))) * 86_400, nanos: 0 })
    };
    let state = if concluded.is_some() { v1::CaseState::Verified } else { v1::CaseState::Accepted };
    v1::Case {
        case_kind: Some(kind.into()),
        received_on: Some(date(received)),
        due_on: due.map(date),
        lifecycle: Some(v1::Lifecycle {
            state: state.into(),
            holder: home.into(),
            since: concluded.and_then(at),
            ..v1::Lifecycle::default()
        }),
        outcome: concluded.map(|d| v1::Outcome {
            succeeded: Some(kind == v1::CaseKind::Dispute),
            concluded_on: Some(date(d)),
            ..v1::Outcome::default()
        }),
        ..v1::Case::default()
    }
}

/// Twenty months of cases in two townships of the county and one of another, and what they are.
async fn with_cases(node: &Node) -> Vec<(Division, v1::Case)> {
    let mut cases = Vec::new();
    let first = day(2025_0103);
    for n in 0..90i32 {
        let home = ["220822101000", "220822102000", "220881101000"][n as usize % 3];
        let received = first.plus(n * 7);
        let concluded = (n % 4 != 0).then(|| received.plus(n % 23));
        let due = (n % 5 != 0).then(|| received.plus(n % 31));
        let kind = if n % 2 == 0 { v1::CaseKind::Dispute } else { v1::CaseKind::Incident };
        let case = a_case(received, concluded, due, kind, home);
        write(node, &format!("divisions/{home}/cases/{n}"), &case).await;
        cases.push((division(home), case));
    }
    cases
}

#[tokio::test]
async fn figures_are_what_the_cases_say() {
    let node = Node::new("2208", None).await;
    let cases = with_cases(&node).await;
    let of = |d: &Option<v1::Date>| d.as_ref().and_then(Day::of_date);
    let concluded = |c: &v1::Case| c.outcome.as_ref().and_then(|o| of(&o.concluded_on));
    for division in ["220800000000", "220822000000", "220822101000", "220881000000"] {
        let scope = super::division(division);
        let inside = || cases.iter().filter(|(home, _)| scope.contains(*home)).map(|(_, case)| case);
        for text in [
            "2025",
            "2025-03",
            "2025-Q2",
            "2025-H1",
            "2025-09~ytd",
            "2025-09-11~ytd",
            "2025-03-04..2025-07-19",
            "2025-05-16",
            "2026-01..".replace("01..", "01-01..").as_str(),
        ] {
            let period: Period = text.parse().unwrap();
            let mut asked = query(
                &[
                    "cases_received",
                    "cases_concluded",
                    "cases_open",
                    "cases_overdue",
                    "success_rate",
                    "on_time_rate",
                ],
                text,
            );
            asked.divisions = vec![format!("divisions/{division}")];
            let found = local(&node, asked).await;
            let count = |pick: &dyn Fn(&v1::Case) -> bool| inside().filter(|c| pick(c)).count() as i64;
            let held = |d: Option<Day>| d.is_some_and(|d| period.contains(d));
            let last = period.last().min(Day::of_ms((environment().now_ms)()));
            let over = |c: &v1::Case| concluded(c).is_some_and(|d| d <= last);
            let open = |c: &v1::Case| of(&c.received_on).is_some_and(|d| d <= last) && !over(c);
            let late = |c: &v1::Case| of(&c.due_on).is_some_and(|due| due < last) && !over(c);
            let in_time =
                |c: &v1::Case| held(of(&c.due_on)) && concluded(c).is_some_and(|d| Some(d) <= of(&c.due_on));
            let settled = |c: &v1::Case| c.outcome.as_ref().is_some_and(|o| o.succeeded == Some(true));
            let expected = [
                (Some(count(&|c| held(of(&c.received_on))) as f64), None),
                (Some(count(&|c| held(concluded(c))) as f64), None),
                (Some(count(&open) as f64), None),
                (Some(count(&late) as f64), None),
                (None, Some((count(&|c| held(concluded(c)) && settled(c)), count(&|c| held(concluded(c)))))),
                (None, Some((count(&in_time), count(&|c| held(of(&c.due_on)))))),
            ];
            for (figure, (number, rate)) in found.iter().zip(expected) {
                let words = format!("{division} {text} {}", figure.measure);
                assert_eq!(figure.numerator.zip(figure.denominator), rate, "{words}");
                if number.is_some() {
                    assert_eq!(figure.value, number, "{words}");
                }
            }
        }
    }
}

#[tokio::test]
async fn children_are_compared_and_ranked() {
    let node = Node::new("2208", None).await;
    with_cases(&node).await;
    let mut asked = query(&["cases_received"], "2025-Q2");
    asked.within = "divisions/2208".into();
    asked.tier = v1::Tier::County.into();
    asked.comparisons = vec![v1::Comparison::PeriodOnPeriod.into(), v1::Comparison::YearOnYear.into()];
    asked.rank = true;
    let found = local(&node, asked).await;
    let of = |code: &str| found.iter().find(|f| f.division.starts_with(code)).unwrap();
    let (first, second) = (of("220822"), of("220881"));
    assert_eq!((first.rank, second.rank), (Some(1), Some(2)));
    let quarter = first.previous_value.unwrap();
    assert_eq!(first.period_on_period_change, Some((first.value.unwrap() - quarter) / quarter));
    assert_eq!(
        (first.year_before_value, first.year_on_year_change),
        (Some(0.0), None),
        "no change from nothing"
    );
    assert!(found.iter().filter(|f| f.value == Some(0.0)).all(|f| f.rank == Some(3)), "ties share a rank");
    assert!(first.period_closed && first.revision > 0, "all of it came late");

    let mut asked = query(&["cases_received"], "2025");
    (asked.dimension, asked.step) = ("kind".into(), v1::Step::Month.into());
    let by_month = local(&node, asked).await;
    let sum: f64 = by_month.iter().filter_map(|f| f.value).sum();
    assert_eq!((by_month.len(), sum), (24, 52.0), "two kinds, twelve months, a case a week");
}

#[tokio::test]
async fn a_wrong_question_is_told_what_is_wrong() {
    let node = Node::new("220822", None).await;
    let wrong = async |who: Who, query| ask(&node, who, query).await.unwrap_err();
    let mut asked = query(&["case_received", "grids"], "2026-03-01..2026-01-01");
    asked.dimension = "category".into();
    asked.divisions = vec!["divisions/2209".into()];
    let status = wrong(Who::Local, asked).await;
    assert_eq!(status.code(), Code::InvalidArgument);
    let violations = status.get_details_bad_request().unwrap().field_violations;
    let fields: Vec<&str> = violations.iter().map(|v| v.field.as_str()).collect();
    assert_eq!(
        fields,
        ["query.divisions", "query.measures", "query.dimension", "query.period"],
        "{status:?}"
    );
    assert!(violations[1].description.contains("did you mean cases_received?"));
    assert!(violations[3].description.contains("2026-01-01, before it begins on 2026-03-01"));
    let mut huge = query(&["cases_received"], "1950..".replace("50..", "50-01-01..").as_str());
    (huge.within, huge.step, huge.dimension) =
        ("divisions/220822".into(), v1::Step::Day.into(), "category".into());
    assert!(wrong(Who::Local, huge).await.message().contains("20000 figures"));
    let mut names = query(&vec!["x"; 501], "2026");
    names.divisions = vec!["divisions/220822".into(); 50_001];
    let status = wrong(Who::Local, names).await;
    let violations = status.get_details_bad_request().unwrap().field_violations;
    assert_eq!(violations.len(), 2, "what is too many is not looked at one by one: {violations:?}");
    assert_eq!(
        wrong(Who::Partner("nobody".into()), query(&["grids"], "2026")).await.code(),
        Code::PermissionDenied
    );
    assert_eq!(wrong(Who::Node(node.own), query(&["grids"], "2026")).await.code(), Code::PermissionDenied);
}

async fn a_grid(node: &Node, code: &str) {
    let grid = v1::Grid {
        grid_code: Some(code.into()),
        division: Some(code[..12].into()),
        display_name: Some("网格".into()),
        ..v1::Grid::default()
    };
    write(node, &format!("divisions/{}000/grids/{code}", &code[..9]), &grid).await;
}

async fn a_village(node: &Node, code: &str) {
    let village = v1::Division {
        code: Some(code.into()),
        display_name: Some("东村".into()),
        ..v1::Division::default()
    };
    write(node, &format!("divisions/{}000/divisions/{code}", &code[..9]), &village).await;
}

static SNAPSHOT_OFFSET_MS: AtomicI64 = AtomicI64::new(0);

fn snapshot_clock() -> Environment {
    let now_ms =
        || (environment().now_ms)().saturating_add_signed(SNAPSHOT_OFFSET_MS.load(Ordering::Relaxed));
    Environment { now_ms, ..environment() }
}

#[tokio::test]
async fn past_days_are_snapshots_of_the_lowest_nodes_and_add_up_above() {
    let county = Node::in_environment("220822", None, snapshot_clock()).await;
    let township = Node::in_environment("220822101", Some("220822"), snapshot_clock()).await;
    let _line = link(&township, &county).await;
    let today = Day::of_ms((snapshot_clock().now_ms)());
    // One village is covered in each of two townships; the first township has a node of its own, the second has none.
    let villages = ["220822101201", "220822101202", "220822102201"];
    for village in villages {
        a_village(&county, village).await;
    }
    until(async || township.engine.shared().divisions().known(division(villages[0]))).await;
    a_grid(&township, "220822101201001").await;
    a_grid(&township, "220822101201002").await;
    a_grid(&county, "220822102201001").await;
    let grids = async |period: String| {
        let found = local(&county, query(&["grids", "grid_coverage"], &period)).await;
        (found[0].value, found[1].numerator.zip(found[1].denominator))
    };
    let now = (Some(3.0), Some((2, 3)));
    until(async || grids(today.to_string()).await == now).await;
    SNAPSHOT_OFFSET_MS.store(DAY_MS, Ordering::Relaxed);
    until(async || grids(today.to_string()).await == now).await;
    let snapshot =
        |home: &str| county.engine.name(&format!("divisions/{home}/snapshots/{}", today.month())).unwrap();
    for home in ["220822101000", "220822102000"] {
        until(async || county.record(&snapshot(home)).await.is_some()).await;
    }
    assert!(county.record(&snapshot("220822000000")).await.is_none(), "no record's home is the county");
    // What changes today leaves yesterday as it was.
    a_grid(&township, "220822101202001").await;
    until(async || grids(today.plus(1).to_string()).await == (Some(4.0), Some((3, 3)))).await;
    assert_eq!(grids(today.to_string()).await, now);
    assert_eq!(grids(today.plus(-1).to_string()).await, (None, None), "nobody counted that day");
}

static MISSED_OFFSET_MS: AtomicI64 = AtomicI64::new(0);

fn missed_clock() -> Environment {
    let now_ms = || (environment().now_ms)().saturating_add_signed(MISSED_OFFSET_MS.load(Ordering::Relaxed));
    Environment { now_ms, ..environment() }
}

#[tokio::test]
async fn who_took_no_snapshot_of_a_past_day_is_named() {
    let county = Node::in_environment("220822", None, missed_clock()).await;
    let township = Node::in_environment("220822101", Some("220822"), missed_clock()).await;
    let line = link(&township, &county).await;
    let today = Day::of_ms((missed_clock().now_ms)());
    let ask = async |day: i32, divisions: &[&str]| {
        let mut asked = query(&["grids"], &today.plus(day).to_string());
        asked.divisions = divisions.iter().map(|code| format!("divisions/{code}")).collect();
        let request = called(v1::QueryAggregatesRequest { query: Some(asked) });
        let answer = service(&county).query_aggregates(request).await.unwrap().into_inner();
        let complete = answer.completeness.unwrap();
        assert_eq!(complete.missed_snapshots.len() as u64, complete.missed_snapshot_count);
        let missed = complete.missed_snapshots.into_iter().map(|m| (m.division, m.day)).collect::<Vec<_>>();
        (answer.figures[0].value, missed)
    };
    let missed = |day: i32| vec![("220822101000".to_owned(), today.plus(day).to_string())];
    a_grid_of(&township, "220822101000", "220822101000001").await;
    a_grid_of(&county, "220822102000", "220822102000001").await;
    until(async || ask(0, &[]).await.0 == Some(2.0)).await;
    MISSED_OFFSET_MS.store(DAY_MS, Ordering::Relaxed);
    until(async || ask(0, &[]).await.0 == Some(2.0)).await;
    assert_eq!(ask(0, &[]).await.1, [], "everyone took one");
    line.cut().await;
    let (own, parent, folder) = township.close().await;
    MISSED_OFFSET_MS.store(2 * DAY_MS, Ordering::Relaxed);
    until(async || ask(1, &[]).await.0 == Some(1.0)).await;
    assert_eq!(ask(1, &[]).await.1, missed(1), "it held something then, and nobody counted it");
    assert_eq!(ask(1, &["220822101"]).await, (None, missed(1)));
    assert_eq!(ask(1, &["220822102"]).await, (Some(1.0), vec![]), "not asked about");
    // It comes back after the day is over: that day stays without its snapshot.
    MISSED_OFFSET_MS.store(3 * DAY_MS, Ordering::Relaxed);
    let township = Node::open(own, parent, missed_clock(), folder).await;
    let _line = link(&township, &county).await;
    until(async || ask(2, &[]).await.0 == Some(2.0)).await;
    assert_eq!((ask(2, &[]).await.1, ask(1, &[]).await.1), (vec![], missed(1)));
    assert_eq!(ask(-1, &[]).await, (None, vec![]), "nobody counted before the first one");
}

pub(super) fn called<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.extensions_mut().insert(Caller { who: Who::Local, address: "test".into() });
    request
}

pub(super) fn service(node: &Node) -> Aggregates {
    Aggregates::new(node.engine.clone(), CancellationToken::new())
}

#[tokio::test]
async fn a_stream_brings_what_changed_and_nothing_else() {
    let node = Node::new("220822", None).await;
    with_a_case(&node, "1").await;
    let mut asked = query(&["cases_received", "grids"], "2025-01");
    asked.divisions = vec!["divisions/220822101".into(), "divisions/220822102".into()];
    let min_interval = Some(prost_types::Duration { seconds: 0, nanos: 100_000_000 });
    let request = v1::StreamAggregatesRequest { query: Some(asked.clone()), min_interval };
    let mut answers = service(&node).stream_aggregates(called(request)).await.unwrap().into_inner();
    let mut next = async || {
        let answer = tokio::time::timeout(Duration::from_secs(20), answers.next()).await;
        answer.expect("an update comes").unwrap().unwrap().figures
    };
    let all = next().await;
    assert_eq!((all.len(), all[0].value), (4, Some(1.0)));
    // What is not asked for is no update; the next one is.
    a_grid_of(&node, "220822103000", "220822103000001").await;
    with_a_case(&node, "2").await;
    let changed = next().await;
    assert_eq!(
        (changed.len(), changed[0].measure.as_str(), changed[0].value),
        (1, "cases_received", Some(2.0))
    );
    // No count changes; the state of one of them does.
    let bounds = v1::ThresholdBounds {
        direction: v1::ThresholdDirection::HigherIsBetter.into(),
        red_millionths: Some(3_000_000),
        ..v1::ThresholdBounds::default()
    };
    let threshold = v1::Threshold {
        measure: Some("cases_received".into()),
        bounds: Some(bounds),
        ..v1::Threshold::default()
    };
    write(&node, "divisions/220822101000/thresholds/cases_received", &threshold).await;
    let judged = next().await;
    let states: Vec<_> = judged.iter().map(|f| (&f.division[..9], &*f.measure, f.color())).collect();
    assert_eq!(states, [("220822101", "cases_received", v1::Color::Red)]);
    let removed = v1::Threshold { deleted: Some(true), ..v1::Threshold::default() };
    write(&node, "divisions/220822101000/thresholds/cases_received", &removed).await;
    assert_eq!(next().await[0].color(), v1::Color::Unspecified);
    let min_interval = Some(prost_types::Duration { seconds: 0, nanos: 1 });
    let request = v1::StreamAggregatesRequest { query: Some(asked), min_interval };
    assert_eq!(
        service(&node).stream_aggregates(called(request)).await.unwrap_err().code(),
        Code::InvalidArgument
    );
}

async fn with_a_case(node: &Node, id: &str) {
    let case = a_case(day(2025_0110), None, None, v1::CaseKind::Dispute, "220822101000");
    write(node, &format!("divisions/220822101000/cases/{id}"), &case).await;
}

async fn a_grid_of(node: &Node, home: &str, code: &str) {
    let grid = v1::Grid { grid_code: Some(code.into()), ..v1::Grid::default() };
    write(node, &format!("divisions/{home}/grids/{code}"), &grid).await;
}

#[tokio::test]
async fn only_a_few_files_are_written_at_a_time() {
    let node = Node::new("22", None).await;
    let (service, mut asked) = (service(&node), query(&["cases_received"], "2025"));
    (asked.within, asked.tier) = ("divisions/22".into(), v1::Tier::Township.into());
    asked.step = v1::Step::Month.into();
    let export = async || {
        let (query, format) = (Some(asked.clone()), v1::TableFormat::Csv.into());
        service.export_aggregates(called(v1::ExportAggregatesRequest { query, format })).await
    };
    // Nobody reads them, and each is larger than what may wait to be read.
    let mut open = Vec::new();
    let refused = loop {
        match export().await {
            Ok(file) => open.push(file),
            Err(refused) => break refused,
        }
    };
    assert_eq!((open.len(), refused.code()), (4, Code::ResourceExhausted));
    open.pop();
    until(async || export().await.is_ok()).await;
}

#[tokio::test]
async fn figures_are_exported_as_files() {
    use ::parquet::file::reader::{FileReader, SerializedFileReader};
    let node = Node::new("2208", None).await;
    with_cases(&node).await;
    let mut asked = query(&["cases_received", "success_rate"], "2025");
    (asked.within, asked.step) = ("divisions/2208".into(), v1::Step::Month.into());
    let counties = node.engine.shared().divisions().children(node.own).len();
    let file = async |format: v1::TableFormat| {
        let request = v1::ExportAggregatesRequest { query: Some(asked.clone()), format: format.into() };
        let mut pieces = service(&node).export_aggregates(called(request)).await.unwrap().into_inner();
        let mut file = Vec::new();
        while let Some(piece) = pieces.next().await {
            file.extend_from_slice(&piece.unwrap().data);
        }
        file
    };
    let csv = String::from_utf8(file(v1::TableFormat::Csv).await).unwrap();
    assert!(csv.starts_with("\u{feff}division 区划代码,division_name 区划名称,"), "{csv}");
    assert_eq!(csv.lines().count(), 1 + counties * 2 * 12);
    let row = csv
        .lines()
        .find(|l| l.starts_with("220822000000,通榆县,cases_received,") && l.contains("2025-03,"))
        .unwrap();
    assert!(row.contains(",2025-03-01,2025-03-31,true,"), "{row}");
    let parquet = SerializedFileReader::new(Bytes::from(file(v1::TableFormat::Parquet).await)).unwrap();
    assert_eq!(parquet.metadata().file_metadata().num_rows() as usize, counties * 2 * 12);
}

#[tokio::test]
async fn a_recount_finds_what_differs_and_puts_it_right() {
    use crate::aggregate::{Cell, TallyChange};
    use crate::measure::{Code as Kept, Count};
    let node = Node::new("2208", None).await;
    with_cases(&node).await;
    a_village(&node, "220822101201").await;
    a_grid(&node, "220822101201001").await;
    let recount = async |repair: bool| {
        let request = called(v1::RecountAggregatesRequest { repair });
        let mut progress = service(&node).recount_aggregates(request).await.unwrap().into_inner();
        let mut differences = Vec::new();
        let mut last = v1::RecountAggregatesResponse::default();
        while let Some(said) = progress.next().await {
            last = said.unwrap();
            differences.extend(last.differences.clone());
        }
        assert!(last.done && last.record_count == 92 && last.difference_count as usize == differences.len());
        differences
    };
    assert_eq!(recount(false).await, [], "what is kept is what the records say");
    let received = u64::from(Kept::total(Count::Received).number());
    let wrong = |code: &str, period, key, n| TallyChange {
        cell: Cell { division: division(code), period },
        restates: false,
        adds: vec![(key, n)],
    };
    let wrongs = vec![
        wrong("220822", Cell::ALL, received, 5),
        wrong("220822101", 202_503, received, -1),
        wrong("220881", 20_240_200, received << 5 | 29, 2),
    ];
    node.engine.repair_counts(wrongs).await.unwrap();
    let found = recount(true).await;
    let found: Vec<_> =
        found.iter().map(|d| (&*d.division, &*d.period, &*d.measure, d.kept - d.counted)).collect();
    assert_eq!(
        found,
        [
            ("220822000000", "", "cases_received", 5),
            ("220822101000", "2025-03", "cases_received", -1),
            ("220881000000", "2024-02-29", "cases_received", 2),
        ]
    );
    assert_eq!(recount(false).await, [], "it was put right");
}
