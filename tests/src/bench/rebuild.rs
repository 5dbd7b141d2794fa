//! How long a node without a store takes until it is filled again by the node above it.

use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, ensure};

use super::Chain;

/// Imports records at the township, takes its store away, and waits until it has all of them again.
pub async fn run(program: &Path, records: u64) -> Result<serde_json::Value> {
    let mut chain = Chain::start(program).await?;
    let (township, county) = (chain.township(), chain.divisions[2]);
    let load_s = super::chain::load(&chain, records, 0).await?.arrived_s;
    let held = chain.wait(county, |_| true).await?.record_count;
    chain.tree.stop(township).await?;
    for suffix in ["", "-wal", "-shm"] {
        let path = chain.tree.node_dir(township).join(format!("guantong.db{suffix}"));
        let removed = std::fs::remove_file(&path);
        ensure!(!suffix.is_empty() || removed.is_ok(), "{} is not there", path.display());
    }
    let begun = Instant::now();
    chain.tree.start(township).await?;
    let started_s = begun.elapsed().as_secs_f64();
    chain.wait(township, |status| status.record_count >= records).await?;
    let filled_s = begun.elapsed().as_secs_f64();
    let ended = |status: &guantong_proto::v1::Status| {
        status.recovery.as_ref().is_some_and(|recovery| recovery.end_time.is_some())
    };
    chain.wait(township, ended).await.context("the recovery does not end")?;
    let recovered_s = begun.elapsed().as_secs_f64();
    Ok(serde_json::json!({
        "records": records,
        "held_by_the_county": held,
        "load_seconds": rounded(load_s),
        "started_seconds": rounded(started_s),
        "filled_seconds": rounded(filled_s),
        "recovered_seconds": rounded(recovered_s),
        "peak_rss_mib": chain.peak_mib(),
        "synchronous": "FULL",
    }))
}

fn rounded(seconds: f64) -> f64 {
    (seconds * 100.0).round() / 100.0
}
