//! The store alone: transactions as the engine writes them, without deciding, links or TLS.

use std::time::{Duration, Instant};

use anyhow::Result;
use bytes::Bytes;
use guantong_gateway::division::Division;
use guantong_gateway::ingest::changes::{Changes, OutboxGroup, RecordChange, RecordKey};
use guantong_gateway::ingest::topology::PeerId;
use guantong_gateway::record::RecordName;
use guantong_gateway::schema::KindId;
use guantong_gateway::store::{Options, Store, Writer};
use guantong_proto::rules::Lane;
use serde_json::json;

/// Records of one transaction, about as many as the engine puts into one when much is waiting.
const GROUP: usize = 1_000;
/// Bytes of a stored camera.
const STATE_BYTES: usize = 360;
const CAMERA: KindId = KindId(3);

/// Inserts and then changes `records` records in a new store: a file in a temporary folder, or the empty database at
/// `store`.
///
/// # Errors
/// The store cannot be opened or written.
pub async fn run(store: Option<&str>, records: usize) -> Result<serde_json::Value> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("store.db").to_string_lossy().into_owned();
    let own = Division::parse("2208")?;
    let (opened, mut writer) = Store::open(store.unwrap_or(&file), own, || 1, 1, Options::default()).await?;
    let homes =
        (1..=20).map(|n| Division::parse(&format!("2208221{n:02}"))).collect::<Result<Vec<_>, _>>()?;
    let mut keys = Vec::with_capacity(records);
    let inserting = Instant::now();
    for first in (0..records).step_by(GROUP) {
        let count = GROUP.min(records - first);
        let given = writer.allocate(&vec![homes[0]; count]).await?;
        write(&mut writer, &homes, first, &given, 0).await?;
        keys.extend(given);
    }
    let inserted = inserting.elapsed();
    let changing = Instant::now();
    for (at, some) in keys.chunks(GROUP).enumerate() {
        write(&mut writer, &homes, at * GROUP, some, 1).await?;
    }
    let changed = changing.elapsed();
    let rate = |time: Duration| (records as f64 / time.as_secs_f64()).round();
    Ok(json!({
        "store": opened.location(),
        "records": records,
        "inserts_per_second": rate(inserted),
        "updates_per_second": rate(changed),
        "store_mib": opened.counts().await?.store_bytes / (1024 * 1024),
    }))
}

async fn write(
    writer: &mut Writer,
    homes: &[Division],
    first: usize,
    keys: &[RecordKey],
    revision: i64,
) -> Result<()> {
    let mut records = Vec::with_capacity(keys.len());
    for (key, n) in keys.iter().zip(first..) {
        let name = RecordName::new(homes[n % homes.len()], CAMERA, &format!("22082200001310{n:06}"))?;
        let state = Bytes::from(vec![revision as u8; STATE_BYTES]);
        let (conflicts, audience_added) = (None, Vec::new());
        records.push(RecordChange { key: *key, name, revision, state, conflicts, audience_added });
    }
    let group = OutboxGroup {
        peer: PeerId(1),
        lane: Lane::Bulk,
        traceparent: None,
        fresh: revision == 0,
        keys: keys.to_vec(),
    };
    let changes = Changes { records, outbox: vec![group], ..Changes::default() };
    writer.apply(&changes, &[], 1_700_000_000_000).await?;
    Ok(())
}
