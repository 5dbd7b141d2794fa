//! What it costs to know that two ends of a link are equal: a node takes in records, its parent has taken them all, and
//! then it is asked where the link stands. In one process, with the real engine and store.

use std::time::Instant;

use anyhow::{Context, Result};
use guantong_gateway::division::Division;
use guantong_gateway::engine::{Begun, Engine, Environment, Import};
use guantong_gateway::ingest::sums::Sums;
use guantong_gateway::ingest::topology::{PeerId, Role};
use guantong_gateway::proof::Crossing;
use guantong_gateway::record::{Record, codec};
use guantong_gateway::schema::Schema;
use guantong_gateway::store::{LinkStanding, Options, Store};
use guantong_proto::rules::Lane;
use serde_json::json;

use super::aggregates::Ledger;

/// A prefecture of Jiangxi, below its province.
const OWN: &str = "3607";
/// Rows of one message of an import.
const ROWS_AT_ONCE: usize = 1_000;
/// Records of a transaction when their sums are made again alone: about as many as a busy node has.
const GROUP_RECORDS: usize = 1_000;
/// Standings that are read before anything is measured.
const WARM_UP: usize = 20;

/// Imports `records`, `cases_percent` of them cases, and reads where the link stands `reads` times.
///
/// # Errors
/// The store cannot be written, or the ledger was refused.
pub async fn run(records: u64, cases_percent: u64, reads: usize) -> Result<serde_json::Value> {
    let own = Division::parse(OWN)?;
    let parent = own.above().context("a prefecture lies in a province")?;
    let ledger = Ledger::within(own, records, cases_percent);
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("store.sqlite");
    let path = path.to_str().context("the temporary folder has a strange name")?;
    let (store, writer) = Store::open(path, own, random, now_ms(), Options::default()).await?;
    let environment = Environment { now_ms, random, drift_ms: 300_000, compare_ms: 300_000 };
    let (engine, task) = Engine::start(store.clone(), writer, own, Some(parent), environment).await?;
    let peer = engine.peer(Role::Parent, parent).await?.context("the parent is no peer")?.id;
    let (begun, cpu) = (Instant::now(), super::cpu_seconds()?);
    import(&engine, &ledger, own).await?;
    let (ingest_s, ingest_cpu_s) = (begun.elapsed().as_secs_f64(), super::cpu_seconds()? - cpu);
    take_all(&engine, peer).await?;
    let mut took_ms = Vec::with_capacity(reads);
    let mut standing = LinkStanding::default();
    for n in 0..reads + WARM_UP {
        let begun = Instant::now();
        standing = store.link_standing(peer, &[]).await?;
        if n >= WARM_UP {
            took_ms.push(begun.elapsed().as_secs_f64() * 1e3);
        }
    }
    anyhow::ensure!(standing.owed.as_ref().is_some_and(|owed| owed.is_empty()), "something is still owed");
    let kept = standing.sums.context("the sums are not known")?;
    let sums_cpu_s = again(&engine, &store).await?;
    let begun = Instant::now();
    engine.sum_anew(vec![peer]).await?;
    let anew = loop {
        if let Some(sums) = store.link_standing(peer, &[]).await?.sums {
            break sums;
        }
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    };
    let anew_s = begun.elapsed().as_secs_f64();
    anyhow::ensure!(anew == kept, "the kept sums are not those of the records");
    let stored = store.counts().await?.records;
    engine.stop().await;
    task.await?;
    Ok(json!({
        "records": stored,
        "sums": kept.len(),
        "equal_comparison_median_ms": super::quantile(&mut took_ms, 0.5),
        "equal_comparison_p99_ms": super::quantile(&mut took_ms, 0.99),
        "ingest_s": ingest_s,
        "ingest_cpu_s": ingest_cpu_s,
        "sums_cpu_s": sums_cpu_s,
        "sums_percent_of_ingest": (sums_cpu_s / ingest_cpu_s * 1e3).round() / 10.0,
        "computed_anew_s": anew_s,
        "synchronous": "FULL",
    }))
}

async fn import(engine: &Engine, ledger: &Ledger, own: Division) -> Result<()> {
    for (cases, name) in [(true, "case"), (false, "camera")] {
        let kind = engine.shared().schema.kind_named(name).context("the contract lacks a kind")?.id;
        let mut rows = ledger.clone().rows(own, cases).peekable();
        let mut begun: Option<Begun> = None;
        while rows.peek().is_some() {
            let rows = rows.by_ref().take(ROWS_AT_ONCE).collect();
            let progress = engine.import(Import { kind, source: "bench".into(), begun, rows }).await?;
            anyhow::ensure!(progress.problems.is_empty(), "refused: {:?}", progress.problems.first());
            begun = Some(progress.begun);
        }
    }
    Ok(())
}

/// The parent takes all that it is owed.
async fn take_all(engine: &Engine, peer: PeerId) -> Result<()> {
    for lane in [Lane::Urgent, Lane::Normal, Lane::Bulk] {
        loop {
            let owed = engine.shared().store.owed(peer, lane, &[], 4_000).await?;
            if owed.rows.is_empty() {
                break;
            }
            let seqs = owed.rows.iter().map(|row| row.seq).collect();
            engine.delivered(peer, seqs, vec![], vec![], 0).await?;
        }
    }
    Ok(())
}

/// CPU seconds of making the sums of all records again, as if each had just come, without reading them.
async fn again(engine: &Engine, store: &Store) -> Result<f64> {
    let (schema, topology) = (Schema::current(), engine.shared().topology());
    let (mut spent, mut after) = (0.0, 0);
    loop {
        let page = store.scan(after, 50 * GROUP_RECORDS).await?;
        let Some(last) = page.last() else { return Ok(spent) };
        after = last.key;
        let mut records = Vec::with_capacity(page.len());
        for stored in page {
            records.push((stored.key, stored.name, codec::decode(stored.state)?));
        }
        let begun = super::cpu_seconds()?;
        for group in records.chunks(GROUP_RECORDS) {
            let mut sums = Sums::default();
            for (key, name, record) in group {
                let kind = schema.kind(name.kind);
                let nothing = Record::default();
                let was = Crossing::of(kind, name.home, &nothing);
                let is = Crossing::of(kind, name.home, record);
                sums.change(&topology, *key, name, &was, &is);
            }
            std::hint::black_box(sums.into_changes());
        }
        spent += super::cpu_seconds()? - begun;
    }
}

fn now_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |d| d.as_millis() as u64)
}

fn random() -> u64 {
    rand::random()
}
