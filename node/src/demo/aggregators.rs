//! Where the demonstration's prefectures and provinces keep their records, if that is PostgreSQL: a schema each, made at
//! the beginning and dropped at the end.

use anyhow::{Context as _, Result};
use guantong_gateway::division::{Division, Tier};
use guantong_gateway::store::schemas;

use super::tree::NodeSpec;

/// The server, and what was made there.
#[derive(Default)]
pub(super) struct Aggregators {
    url: Option<String>,
    made: Vec<String>,
}

impl Aggregators {
    /// `url`: a database where schemas may be made; `None`: aggregators keep files, as every node does.
    pub(super) fn new(url: Option<String>) -> Aggregators {
        Aggregators { url, made: Vec::new() }
    }

    /// Gives a prefecture or province its schema.
    pub(super) async fn place(&mut self, spec: NodeSpec) -> Result<NodeSpec> {
        let Some(url) = self.url.as_deref().filter(|_| is_aggregator(spec.division)) else { return Ok(spec) };
        let name = format!("guantong_demo_{}_{}", std::process::id(), spec.division);
        let store = schemas::create(url, &name).await.context(
            "--aggregator-store: no schema can be made there; name a database whose owner the user is \
             (无法在该数据库中创建模式)",
        )?;
        self.made.push(name);
        Ok(spec.environment("GUANTONG_STORE", &store))
    }

    /// Drops what was made. All nodes must have ended.
    pub(super) async fn end(&mut self) -> Result<()> {
        let Some(url) = &self.url else { return Ok(()) };
        for name in self.made.drain(..) {
            schemas::drop(url, &name).await.context("a schema of the demonstration could not be dropped")?;
        }
        Ok(())
    }
}

fn is_aggregator(division: Division) -> bool {
    division.tier() >= Tier::Prefecture
}
