//! How many records pass four tiers, and at what cost.

use std::path::Path;
use std::time::Instant;

use anyhow::Result;
use guantong_proto::v1;
use prost::Message;

use super::Chain;

/// Rows in one message of an import.
const ROWS_AT_ONCE: usize = 500;

/// Imports `records` cameras at the township and waits until the province holds them and nothing is owed; then, if
/// asked, imports the ledger again with `updates` changed rows.
pub async fn run(program: &Path, records: u64, updates: u64) -> Result<serde_json::Value> {
    let chain = Chain::start(program).await?;
    let first = load(&chain, records, 0).await?;
    let mut report = serde_json::json!({
        "records": records,
        "records_per_s": first.records_per_s,
        "cpu_s_per_million": first.cpu_s_per_million,
        "import_s": first.import_s,
        "arrived_s": first.arrived_s,
    });
    if updates > 0 {
        let second = load(&chain, updates.min(records), 1).await?;
        report["updates"] = updates.min(records).into();
        report["updates_per_s"] = second.records_per_s.into();
        report["update_cpu_s_per_million"] = second.cpu_s_per_million.into();
    }
    report["peak_rss_mib"] = chain.peak_mib();
    report["synchronous"] = "FULL".into();
    Ok(report)
}

pub(super) struct Load {
    records_per_s: f64,
    cpu_s_per_million: f64,
    import_s: f64,
    pub(super) arrived_s: f64,
}

/// Imports cameras and waits until the province has them.
pub(super) async fn load(chain: &Chain, records: u64, round: u64) -> Result<Load> {
    let before = chain.wait(chain.province(), |_| true).await?.links;
    let received = |links: &[v1::LinkStatus]| links.iter().map(|l| l.received_records).sum::<u64>();
    let target = received(&before) + records;
    let (begun, cpu) = (Instant::now(), chain.cpu_seconds());
    let client = chain.tree.client(chain.township())?;
    let answer = client.records().import_records(messages(records, round)).await?.into_inner();
    anyhow::ensure!(answer.problems.is_empty(), "the ledger was refused: {:?}", answer.problems.first());
    let import_s = begun.elapsed().as_secs_f64();
    chain.wait(chain.province(), |status| received(&status.links) >= target).await?;
    for division in &chain.divisions {
        let idle = |l: &v1::LinkStatus| l.urgent_backlog + l.normal_backlog + l.bulk_backlog == 0;
        chain.wait(*division, |status| status.links.iter().all(idle)).await?;
    }
    let arrived_s = begun.elapsed().as_secs_f64();
    let cpu = chain.cpu_seconds() - cpu;
    Ok(Load {
        records_per_s: (records as f64 / arrived_s).round(),
        cpu_s_per_million: (cpu / records as f64 * 1e8).round() / 100.0,
        import_s,
        arrived_s,
    })
}

/// The ledger as messages: a header, then rows.
fn messages(records: u64, round: u64) -> impl tokio_stream::Stream<Item = v1::ImportRecordsRequest> {
    use v1::import_records_request::Content;
    let header = v1::ImportHeader { kind: "camera".into(), source: "bench".into(), full: false };
    let pieces = (0..records).step_by(ROWS_AT_ONCE).map(move |first| {
        let last = (first + ROWS_AT_ONCE as u64).min(records);
        v1::ImportRows { rows: (first..last).map(|n| row(n, round)).collect() }
    });
    let contents = std::iter::once(Content::Header(header)).chain(pieces.map(Content::Rows));
    tokio_stream::iter(contents.map(|content| v1::ImportRecordsRequest { content: Some(content) }))
}

/// A social camera with the fields that a ledger usually brings.
pub(super) fn row(number: u64, round: u64) -> v1::ImportRow {
    let device_id = format!("2208221000132{number:07}");
    let camera = v1::Camera {
        device_id: Some(device_id.clone()),
        division: Some("220822101000".into()),
        ownership: Some(v1::CameraOwnership::Social.into()),
        point_class: Some(v1::PointClass::Third.into()),
        functions: vec![v1::CameraFunction::Vehicle.into()],
        source_network: Some(v1::SourceNetwork::Other.into()),
        display_name: Some(format!("测试点位{number}")),
        address: Some(format!("测试路{}号", number + round)),
        location: Some(v1::LngLat { longitude: 123.0 + number as f64 * 1e-6, latitude: 44.8 }),
        management_unit: Some("测试单位".into()),
        maintenance_unit: Some("测试维护单位".into()),
        retention_days: Some(30),
        connected: Some(true),
        ..v1::Camera::default()
    };
    v1::ImportRow {
        key: device_id,
        home: "220822101000".into(),
        fields: camera.encode_to_vec().into(),
        line: number + 2,
        ..v1::ImportRow::default()
    }
}
