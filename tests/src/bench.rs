//! What the benchmarks share: the four tiers as processes, and what they used.

use std::path::Path;

use anyhow::{Context, Result};
use guantong::demo::tree::{NodeSpec, Tree};
use guantong_gateway::division::Division;
use guantong_proto::v1;

pub mod aggregates;
pub mod audit;
pub mod authorization;
pub mod chain;
pub mod handshake;
pub mod latency;
pub mod proof;
pub mod rebuild;
pub mod repair;
pub mod store;

/// The divisions of the chain, from the province down.
pub const CHAIN: [&str; 4] = ["22", "2208", "220822", "220822101"];

/// Four tiers of real nodes in a folder of their own.
pub struct Chain {
    /// The processes.
    pub tree: Tree,
    /// From the province down.
    pub divisions: Vec<Division>,
    _folder: tempfile::TempDir,
}

impl Chain {
    /// Starts the nodes and waits until all links are up.
    pub async fn start(program: &Path) -> Result<Chain> {
        let program = program.canonicalize().with_context(|| {
            format!("{} is not there; build it with `cargo build --release`", program.display())
        })?;
        let folder = tempfile::Builder::new().prefix("gt").tempdir()?;
        let mut tree = Tree::new(folder.path(), &program)?;
        let divisions = CHAIN.iter().map(|c| Division::parse(c)).collect::<Result<Vec<_>, _>>()?;
        let mut parent = None;
        for division in &divisions {
            let spec = parent.map_or(NodeSpec::top(*division), |parent| NodeSpec::below(parent, *division));
            tree.add(spec).await?;
            parent = Some(*division);
        }
        tree.start_all().await?;
        let chain = Chain { tree, divisions, _folder: folder };
        for division in &chain.divisions[1..] {
            chain
                .wait(*division, |status| status.links.iter().any(|l| l.peer_is_parent && l.connected))
                .await?;
        }
        Ok(chain)
    }

    /// The node at the top.
    pub fn province(&self) -> Division {
        self.divisions[0]
    }

    /// The node at the bottom.
    pub fn township(&self) -> Division {
        self.divisions[self.divisions.len() - 1]
    }

    /// Waits until a node's status says so; for ten minutes at most.
    pub async fn wait(&self, division: Division, done: impl Fn(&v1::Status) -> bool) -> Result<v1::Status> {
        let client = self.tree.client(division)?;
        let waiting = async {
            loop {
                let status = client.node().get_status(v1::GetStatusRequest {}).await?.into_inner();
                if done(&status) {
                    return anyhow::Ok(status);
                }
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(std::time::Duration::from_secs(600), waiting)
            .await
            .with_context(|| format!("{division} did not get there in ten minutes"))?
    }

    /// CPU seconds that all nodes have used.
    pub fn cpu_seconds(&self) -> f64 {
        self.divisions.iter().filter_map(|d| self.tree.cpu_seconds(*d)).sum()
    }

    /// Greatest resident memory of each node so far, MiB, by tier.
    pub fn peak_mib(&self) -> serde_json::Value {
        let peak = |d: &Division| {
            (d.tier().name().to_owned(), (self.tree.peak_rss_bytes(*d).unwrap_or(0) / (1024 * 1024)).into())
        };
        serde_json::Value::Object(self.divisions.iter().map(peak).collect())
    }
}

/// CPU seconds that this process has used.
fn cpu_seconds() -> Result<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat").context("Linux only")?;
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |at: usize| fields.get(at).and_then(|f| f.parse::<f64>().ok()).unwrap_or(0.0);
    // Fields 14 and 15, in hundredths of a second on Linux.
    Ok((ticks(11) + ticks(12)) / 100.0)
}

/// The CPU time of a thread by its place in `/proc`: the first number of its schedstat.
fn cpu_ns(thread: &Path) -> Result<u64> {
    let text = std::fs::read_to_string(thread.join("schedstat")).context("Linux only")?;
    Ok(text.split(' ').next().unwrap_or_default().parse()?)
}

/// The value below which a share of the measurements lies, to a hundredth.
fn quantile(measured: &mut [f64], share: f64) -> f64 {
    measured.sort_by(f64::total_cmp);
    let last = measured.len().saturating_sub(1);
    let at = (last as f64 * share).round() as usize;
    measured.get(at).map_or(0.0, |ms| (ms * 100.0).round() / 100.0)
}
