//! A month is submitted, reported, restated by late data, and checked: with real nodes and the files that people get.

#![allow(clippy::unwrap_used, clippy::panic)]

use calamine::{Data, Reader as _, Xlsx, open_workbook};
use guantong::demo::tree::NodeSpec;
use guantong_gateway::period::{Day, Month};
use guantong_proto::v1;
use guantong_tests::harness::{Fleet, division, found, until};
use prost::Message as _;

const COUNTY: &str = "220822";
const TOWNSHIP: &str = "220822101";
const HOME: &str = "220822101000";

/// The month that is over, in Beijing.
fn last_month() -> Month {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    Day::of_ms(now.as_millis() as u64).month().plus(-1).unwrap()
}

/// A dispute of the month, settled or still open.
fn dispute(month: Month, settled: bool) -> v1::Case {
    let date = |day: Day| {
        let (of, day) = (day.month(), day.of_month() as i32);
        Some(v1::Date { year: of.year(), month: of.of_year() as i32, day })
    };
    let state = if settled { v1::CaseState::Concluded } else { v1::CaseState::Accepted };
    v1::Case {
        case_kind: Some(v1::CaseKind::Dispute.into()),
        category: Some("neighbours".into()),
        division: Some(HOME.into()),
        received_on: date(month.first()),
        lifecycle: Some(v1::Lifecycle { state: state.into(), holder: HOME.into(), ..Default::default() }),
        outcome: settled.then(|| v1::Outcome {
            succeeded: Some(true),
            concluded_on: date(month.last()),
            ..Default::default()
        }),
        ..Default::default()
    }
}

/// The township's ledger brings cases that stand where they stand.
async fn register(fleet: &Fleet, month: Month, ids: std::ops::Range<usize>, settled: bool) {
    use v1::import_records_request::Content;
    let count = ids.len() as u64;
    let row = |id: usize| v1::ImportRow {
        key: id.to_string(),
        home: HOME.into(),
        fields: dispute(month, settled).encode_to_vec().into(),
        ..Default::default()
    };
    let header = v1::ImportHeader { kind: "case".into(), source: "台账".into(), ..Default::default() };
    let rows = v1::ImportRows { rows: ids.map(row).collect() };
    let messages = [Content::Header(header), Content::Rows(rows)]
        .map(|content| v1::ImportRecordsRequest { content: Some(content) });
    let taken = fleet.client(TOWNSHIP).records().import_records(tokio_stream::iter(messages)).await.unwrap();
    let taken = taken.into_inner();
    assert_eq!(taken.created_count, count, "{taken:?}");
}

/// The row of a sheet that begins, in one of its first columns, with a text.
fn row(book: &mut Xlsx<std::io::BufReader<std::fs::File>>, sheet: &str, text: &str) -> Vec<Data> {
    let range = book.worksheet_range(sheet).unwrap();
    let found = range.rows().find(|row| row.iter().take(3).any(|cell| *cell == *text));
    found.unwrap_or_else(|| panic!("{sheet} has no {text}: {range:?}")).to_vec()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_month_is_submitted_reported_restated_and_checked() {
    let [county, township] = [COUNTY, TOWNSHIP].map(division);
    let fleet = Fleet::start([NodeSpec::top(county), NodeSpec::below(county, township)]).await;
    let month = last_month();
    let period = month.to_string();
    register(&fleet, month, 0..7, true).await;
    register(&fleet, month, 7..9, false).await;
    submitted(&fleet, &period).await;
    fleet.equal().await;
    fleet.cli(COUNTY, &["threshold", "set", "cases_received", "--lower", "--red", "8"]).await.exits(0);

    let file = fleet.path("report.xlsx");
    let issue =
        ["report", "--period", &period, "--format", "xlsx", "--json", "--out", file.to_str().unwrap()];
    let issued = fleet.cli(COUNTY, &issue).await.exits(0).json();
    let name = issued["name"].as_str().unwrap().to_owned();
    assert_eq!(name, format!("divisions/220822000000/reports/{period}-1"));
    looked_at(&file);
    let printed = async |format: &str| {
        let print = ["report", "print", &name, "--format", format, "--out", "-"];
        fleet.cli(COUNTY, &print).await.exits(0).out
    };
    let before = printed("csv").await;
    let page = printed("html").await;
    assert!(page.contains("通榆县社会治理运行月报") && page.contains("<svg"));
    let diff = ["report", "diff", "--period", &period, "--json"];
    fleet.cli(COUNTY, &diff).await.exits(0);

    register(&fleet, month, 20..21, false).await;
    let restated = found("the diff names the late case", async || {
        let done = fleet.cli(COUNTY, &diff).await;
        (done.code == 3).then(|| done.json())
    })
    .await;
    let restated = restated["restatements"].as_array().unwrap();
    let received = restated.iter().find(|r| r["measure"] == "cases_received").unwrap();
    assert_eq!((&received["before"]["numerator"], &received["after"]["numerator"]), (&9.into(), &10.into()));
    assert_eq!(printed("csv").await, before, "what was issued is printed the same");
    checked(&fleet, &period).await;
}

/// The township declares its month, and the county sees by whom.
async fn submitted(fleet: &Fleet, period: &str) {
    let list = ["submit", "--period", period, "--list", "--json"];
    let readiness = async || {
        let statuses = fleet.cli(COUNTY, &list).await.exits(3).json();
        let of = |status: &&serde_json::Value| status["division"] == HOME;
        statuses["statuses"].as_array().unwrap().iter().find(of).unwrap()["readiness"].clone()
    };
    until("the township is linked", async || readiness().await == "READINESS_NOT_SUBMITTED").await;
    fleet.cli(TOWNSHIP, &["submit", "--period", period, "--by", "综治中心"]).await.exits(0);
    until("the county knows", async || readiness().await == "READINESS_SUBMITTED").await;
    fleet
        .cli(COUNTY, &["submit", "--period", period, "--division", TOWNSHIP])
        .await
        .exits(1)
        .says(&["at its own node"]);
    fleet
        .cli(TOWNSHIP, &["submit", "--period", "2199-01"])
        .await
        .exits(1)
        .says(&["submit it after that day"]);
}

/// What people find in the workbook.
fn looked_at(file: &std::path::Path) {
    let mut book: Xlsx<_> = open_workbook(file).unwrap();
    assert_eq!(book.sheet_names(), ["总览", "区划排名", "环比同比", "完整性", "说明"]);
    let received = row(&mut book, "总览", "事件登记数");
    assert_eq!((&received[3], &received[6]), (&Data::Float(9.0), &Data::String("红".into())));
    assert_eq!(row(&mut book, "总览", "调处成功率")[3], Data::Float(1.0));
    assert_eq!(row(&mut book, "区划排名", "开通镇")[1], Data::Float(0.0));
    assert_eq!(row(&mut book, "区划排名", "瞻榆镇")[1], Data::Float(9.0));
    let status = row(&mut book, "完整性", HOME);
    assert_eq!((&status[2], &status[3]), (&Data::String("已报送".into()), &Data::String("综治中心".into())));
    assert_eq!(row(&mut book, "完整性", "220822102000")[2], Data::String("未联通".into()));
}

/// The township's own report states other figures than it has recorded, and one that cannot be.
async fn checked(fleet: &Fleet, period: &str) {
    let form =
        "指标,数值,分子,分母\n事件登记数,10,,\n事件办结数,8,,\n调处成功率,97.12%,\"7,762\",\"7,792\"\n";
    let form = fleet.file("stated.csv", form);
    let check = ["report", "check", &form, "--division", TOWNSHIP, "--period", period, "--json"];
    let found = fleet.cli(COUNTY, &check).await.exits(3).json();
    let findings: Vec<(u64, &str)> = found["findings"]
        .as_array()
        .unwrap()
        .iter()
        .map(|finding| (finding["line"].as_u64().unwrap(), finding["finding"].as_str().unwrap()))
        .collect();
    assert_eq!(findings, [(4, "cannot_be"), (3, "differs"), (4, "differs")], "{found:#}");
    let right = fleet.file("right.csv", "指标,数值\n事件登记数,10\n调处成功率,100%\n");
    let check = ["report", "check", &right, "--division", TOWNSHIP, "--period", period];
    fleet.cli(COUNTY, &check).await.exits(0);
}
