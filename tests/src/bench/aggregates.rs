//! What figures cost: a province takes in records from its prefectures over real links, and is then asked for figures
//! of all its counties. How much of the province's work the kept counts are is measured by doing that part alone again.

use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result};
use guantong::demo::tree::{NodeSpec, Tree};
use guantong_gateway::division::{Division, Divisions};
use guantong_proto::v1;

mod ledger;
mod lists;
mod replay;

pub(super) use ledger::Ledger;

/// Jiangxi: eleven prefectures, a hundred counties.
const PROVINCE: &str = "36";
/// Rows in one message of an import.
const ROWS_AT_ONCE: usize = 500;
/// Queries before anything is measured.
const WARM_UP: usize = 20;

/// Imports `records`, `cases_percent` of them cases of the last 24 months, then asks `queries` times.
pub async fn run(
    program: &Path,
    records: u64,
    cases_percent: u64,
    queries: usize,
) -> Result<serde_json::Value> {
    let program = program.canonicalize().with_context(|| {
        format!("{} is not there; build it with `cargo build --release`", program.display())
    })?;
    let province = Division::parse(PROVINCE)?;
    let ledger = Ledger::new(&Divisions::embedded(), province, records, cases_percent);
    let folder = tempfile::Builder::new().prefix("gt").tempdir()?;
    let mut tree = Tree::new(folder.path(), &program)?;
    tree.add(NodeSpec::top(province)).await?;
    for prefecture in ledger.prefectures() {
        tree.add(NodeSpec::below(province, prefecture)).await?;
    }
    tree.start_all().await?;
    let (ingest, cpu_s) = ingest(&tree, province, &ledger).await?;
    let replayed = replay::run(&ledger, province).await?;
    let mut report = serde_json::json!({
        "records": ledger.len(),
        "cases": ledger.case_count(),
        "counties": ledger.county_count(),
        "ingest": ingest,
        "aggregates_cpu_s": replayed,
        "aggregates_percent_of_ingest": (replayed / cpu_s * 1e3).round() / 10.0,
        "synchronous": "FULL",
    });
    report["queries"] = ask(&tree, province, queries).await?;
    report["lists"] = lists::walk(&tree, province).await?;
    report["recount"] = recount(&tree, province).await?;
    let peak = tree.peak_rss_bytes(province).unwrap_or(0) / (1024 * 1024);
    report["province_peak_rss_mib"] = peak.into();
    tree.end().await;
    Ok(report)
}

async fn status(tree: &Tree, division: Division) -> Result<v1::Status> {
    Ok(tree.client(division)?.node().get_status(v1::GetStatusRequest {}).await?.into_inner())
}

/// Imports everything below and waits until the province has it. Gives also the province's CPU seconds.
async fn ingest(tree: &Tree, province: Division, ledger: &Ledger) -> Result<(serde_json::Value, f64)> {
    let cpu = || tree.cpu_seconds(province).unwrap_or(0.0);
    let (begun, before) = (Instant::now(), cpu());
    for prefecture in ledger.prefectures() {
        for kind in ["case", "camera"] {
            let answer =
                tree.client(prefecture)?.records().import_records(messages(ledger, prefecture, kind)).await?;
            let problems = answer.into_inner().problems;
            anyhow::ensure!(problems.is_empty(), "the ledger was refused: {:?}", problems.first());
        }
    }
    let arrived = async {
        while status(tree, province).await?.record_count < ledger.len() {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        anyhow::Ok(())
    };
    let limit = std::time::Duration::from_secs(1_800);
    tokio::time::timeout(limit, arrived).await.context("not everything arrived in half an hour")??;
    let (arrived_s, cpu_s) = (begun.elapsed().as_secs_f64(), cpu() - before);
    let report = serde_json::json!({ "arrived_s": arrived_s, "province_cpu_s": cpu_s });
    Ok((report, cpu_s))
}

/// A prefecture's part of the ledger as messages: a header, then rows.
fn messages(
    ledger: &Ledger,
    prefecture: Division,
    kind: &str,
) -> impl tokio_stream::Stream<Item = v1::ImportRecordsRequest> + use<> {
    use v1::import_records_request::Content;
    let header = v1::ImportHeader { kind: kind.into(), source: "bench".into(), full: false };
    let rows = ledger.clone().rows(prefecture, kind == "case");
    let mut rows = rows.peekable();
    let pieces = std::iter::from_fn(move || {
        rows.peek()?;
        Some(Content::Rows(v1::ImportRows { rows: rows.by_ref().take(ROWS_AT_ONCE).collect() }))
    });
    let contents = std::iter::once(Content::Header(header)).chain(pieces);
    tokio_stream::iter(contents.map(|content| v1::ImportRecordsRequest { content: Some(content) }))
}

/// Milliseconds of queries over the local socket, from the call to the answer.
async fn ask(tree: &Tree, province: Division, queries: usize) -> Result<serde_json::Value> {
    let mut service = tree.client(province)?.aggregates();
    let year = |measures: &[&str]| v1::AggregateQuery {
        within: format!("divisions/{province}"),
        tier: v1::Tier::County.into(),
        measures: measures.iter().map(|m| (*m).to_owned()).collect(),
        period: ledger::last_year(),
        step: v1::Step::Month.into(),
        ..v1::AggregateQuery::default()
    };
    let now = |measure: &str| v1::AggregateQuery { step: 0, period: ledger::today(), ..year(&[measure]) };
    let asked = [
        ("cases_received_all_counties_12_months", year(&["cases_received"])),
        ("success_rate_all_counties_12_months", year(&["success_rate"])),
        ("cases_open_all_counties_12_months", year(&["cases_open"])),
        ("received_by_kind_all_counties_12_months", {
            v1::AggregateQuery { dimension: "kind".into(), ..year(&["cases_received"]) }
        }),
        ("online_rate_all_counties_now", now("online_rate")),
    ];
    let mut report = serde_json::Map::new();
    for (name, query) in asked {
        let (mut took_ms, mut figures) = (Vec::new(), 0);
        for n in 0..queries + WARM_UP {
            let request = v1::QueryAggregatesRequest { query: Some(query.clone()) };
            let begun = Instant::now();
            figures = service.query_aggregates(request).await?.into_inner().figures.len();
            if n >= WARM_UP {
                took_ms.push(begun.elapsed().as_secs_f64() * 1e3);
            }
        }
        let (median, p99) = (super::quantile(&mut took_ms, 0.5), super::quantile(&mut took_ms, 0.99));
        let said = serde_json::json!({ "figures": figures, "median_ms": median, "p99_ms": p99 });
        report.insert(name.into(), said);
    }
    Ok(report.into())
}

/// That the figures are those of the records, and how long that takes to prove.
async fn recount(tree: &Tree, province: Division) -> Result<serde_json::Value> {
    let begun = Instant::now();
    let request = v1::RecountAggregatesRequest { repair: false };
    let mut progress = tree.client(province)?.aggregates().recount_aggregates(request).await?.into_inner();
    let mut last = v1::RecountAggregatesResponse::default();
    while let Some(said) = progress.message().await? {
        last = said;
    }
    anyhow::ensure!(last.done, "the recount did not end");
    Ok(serde_json::json!({
        "records": last.record_count,
        "differences": last.difference_count,
        "took_s": begun.elapsed().as_secs_f64(),
    }))
}
