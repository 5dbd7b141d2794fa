//! What the audit log costs, as a share of the work that it tells of. No program runs without it, so the share is measured
//! in two parts: real nodes take in records, and their CPU time and entries are counted; then what the log does for as
//! many records and entries is done alone in this process, and its CPU time is set against theirs.
//!
//! Alone is: the checksum over what was received; and entries appended, each in a transaction of its own, less the same
//! transactions without them. Nodes put several entries into one transaction, so the share is rather too high.

use std::path::Path;

use anyhow::{Context, Result};
use guantong_gateway::audit::{Event, Note};
use guantong_gateway::division::Division;
use guantong_gateway::ingest::changes::{Changes, LinkChange};
use guantong_gateway::ingest::topology::PeerId;
use guantong_gateway::record::{Record, Register, codec, raw};
use guantong_gateway::stamp::{Stamp, Writer};
use guantong_gateway::store::{Options, Store};
use guantong_proto::v1;
use prost::Message;
use serde_json::json;

use super::{Chain, chain, cpu_seconds};

/// The replay is measured over so many entries at least, whatever the nodes wrote.
const ENTRIES_MIN: u64 = 4_000;
/// Records that the checksum is measured over.
const RECORDS_MIN: u64 = 200_000;

/// What nodes did, and what they said of it.
struct Work {
    cpu_s: f64,
    entries: u64,
    /// Records that were received, over all tiers.
    received: u64,
}

/// Imports `records` cameras at a township below three tiers, and then writes `changes` cases there one by one.
///
/// # Errors
/// A node does not start, or refuses something.
pub async fn run(program: &Path, records: u64, changes: u64) -> Result<serde_json::Value> {
    let chain = Chain::start(program).await?;
    let bulk = watched(&chain, async || chain::load(&chain, records, 0).await.map(drop)).await?;
    let single = watched(&chain, async || write(&chain, changes).await).await?;
    drop(chain);
    let (of_record_s, of_entry_s) = (checksum()?, append().await?);
    let report = |work: &Work, count: u64| {
        let audit_s = work.received as f64 * of_record_s + work.entries as f64 * of_entry_s;
        json!({
            "records": count,
            "cpu_s": work.cpu_s,
            "entries": work.entries,
            "audit_cpu_s": (audit_s * 1e4).round() / 1e4,
            "audit_percent": (audit_s / work.cpu_s * 1e4).round() / 100.0,
        })
    };
    Ok(json!({
        "checksum_us_per_record": (of_record_s * 1e9).round() / 1e3,
        "append_us_per_entry": (of_entry_s * 1e7).round() / 10.0,
        "import": report(&bulk, records),
        "one_by_one": report(&single, changes),
    }))
}

async fn watched(chain: &Chain, work: impl AsyncFnOnce() -> Result<()>) -> Result<Work> {
    let (entries, received) = logged(chain).await?;
    let cpu_s = chain.cpu_seconds();
    work().await?;
    let cpu_s = chain.cpu_seconds() - cpu_s;
    let (entries_then, received_then) = logged(chain).await?;
    Ok(Work { cpu_s, entries: entries_then - entries, received: received_then - received })
}

/// Entries in the logs of all nodes, and records that they say were received.
async fn logged(chain: &Chain) -> Result<(u64, u64)> {
    let (mut entries, mut received) = (0, 0);
    for division in &chain.divisions {
        let mut service = chain.tree.client(*division)?.audit();
        let mut log = service.read_audit_log(v1::ReadAuditLogRequest {}).await?.into_inner();
        while let Some(piece) = log.message().await? {
            entries += piece.entries.len() as u64;
            for entry in piece.entries.iter().filter(|entry| entry.event == "received") {
                let said: serde_json::Value = serde_json::from_str(&entry.line)?;
                received += said["records"].as_u64().unwrap_or(0);
            }
        }
    }
    Ok((entries, received))
}

/// New cases, each after the one before; until the province has all of them.
async fn write(chain: &Chain, changes: u64) -> Result<()> {
    let client = chain.tree.client(chain.township())?;
    let before = chain.wait(chain.province(), |_| true).await?.record_count;
    for change in 0..changes {
        let case = v1::Case { title: Some(format!("{change}")), ..v1::Case::default() };
        let record = v1::Record {
            name: format!("divisions/{}/cases/audit-{change}", chain.township()),
            fields: case.encode_to_vec().into(),
            ..v1::Record::default()
        };
        let request = v1::WriteRecordRequest { record: Some(record), ..v1::WriteRecordRequest::default() };
        client.records().write_record(request).await?;
    }
    chain.wait(chain.province(), |status| status.record_count >= before + changes).await?;
    Ok(())
}

/// CPU seconds for the checksum over one record, as `Event::Received` has it.
fn checksum() -> Result<f64> {
    let home = Division::parse("220822101")?;
    let mut record = Record::default();
    for (field, value) in raw::split(&chain::row(7, 0).fields)? {
        record.set(field, Register::single(Writer { division: home, id: 1 }, Stamp::from_ms(1), value));
    }
    let (name, state) = (format!("divisions/{home}/cameras/22082210001320000007"), codec::encode(&record));
    let before = cpu_seconds()?;
    let mut hash = blake3::Hasher::new();
    for _ in 0..RECORDS_MIN {
        for part in [name.as_bytes(), &state] {
            hash.update(&(part.len() as u64).to_le_bytes()).update(part);
        }
    }
    std::hint::black_box(hash.finalize());
    Ok((cpu_seconds()? - before) / RECORDS_MIN as f64)
}

/// CPU seconds for one entry in a transaction that there is anyway.
async fn append() -> Result<f64> {
    let without = transactions(false).await?;
    let with = transactions(true).await?;
    Ok((with - without).max(0.0) / ENTRIES_MIN as f64)
}

async fn transactions(audited: bool) -> Result<f64> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("store.sqlite");
    let path = path.to_str().context("the temporary folder has a strange name")?;
    let peer = Division::parse("220822101")?;
    let options = Options { durable: false, ..Options::default() };
    let (_, mut store) = Store::open(path, Division::parse("220822")?, || 1, 1, options).await?;
    let before = cpu_seconds()?;
    for revision in 0..ENTRIES_MIN {
        let audit = |checksum: u64| -> Note {
            let checksum = format!("{checksum:032x}");
            Event::Received { peer, records: 1, refused: 0, checksum }.into()
        };
        let audit = if audited { vec![audit(revision)] } else { Vec::new() };
        let changes = Changes { audit, ..Changes::default() };
        store.apply(&changes, &[LinkChange::Seen { peer: PeerId(1), revision }], 1).await?;
    }
    let spent = cpu_seconds()? - before;
    store.close().await?;
    Ok(spent)
}
