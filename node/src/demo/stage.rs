//! What all steps work with: the tree, what was planned, and what is printed. Also the waiting that several need.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result};
use futures::future::try_join_all;
use guantong_gateway::division::{Division, Tier};
use serde_json::{Map, Value};
use time::Date;

use super::aggregators::Aggregators;
use super::ask::{self, until};
use super::plan::Plan;
use super::show::Show;
use super::tree::{NodeSpec, Tree};
use crate::client::Client;

/// For all links to be up, and for everything that is owed to arrive. Links that were down come back within a minute.
const LINK_TIME: Duration = Duration::from_secs(90);
const QUIET_TIME: Duration = Duration::from_secs(120);

/// The demonstration under way.
pub(super) struct Stage {
    pub(super) tree: Tree,
    pub(super) plan: Plan,
    pub(super) show: Show,
    /// Where ledgers are written.
    pub(super) dir: PathBuf,
    /// Today in Beijing.
    pub(super) today: Date,
    /// The node whose line is cut: at the county tier, or what takes its place.
    pub(super) hub: Division,
    /// The node above it.
    pub(super) above: Division,
    /// For programs: what every step found.
    pub(super) report: Map<String, Value>,
}

impl Stage {
    /// Adds all nodes of the plan to the tree.
    pub(super) async fn set(
        mut tree: Tree,
        plan: Plan,
        show: Show,
        dir: PathBuf,
        today: Date,
        aggregators: &mut Aggregators,
    ) -> Result<Stage> {
        tree.add(aggregators.place(NodeSpec::top(plan.top)).await?).await?;
        let township = *plan.townships().first().context("a plan has townships")?;
        let nodes = plan.nodes.iter().map(|(division, _)| *division).chain([plan.top]);
        let around = nodes.filter(|d| d.tier() > Tier::Township && d.contains(township));
        let hub = around.min_by_key(|d| d.tier()).unwrap_or(plan.top);
        let mut above = plan.top;
        for (division, parent) in &plan.nodes {
            let spec = aggregators.place(NodeSpec::below(*parent, *division)).await?;
            if *division == hub {
                above = *parent;
                tree.add(spec.cuttable()).await?;
            } else {
                tree.add(spec).await?;
            }
        }
        Ok(Stage { tree, plan, show, dir, today, hub, above, report: Map::new() })
    }

    /// The connection to the node that a division's systems speak to: its own or the one that acts for it.
    pub(super) fn client_for(&self, division: Division) -> Result<Client> {
        let node = self.tree.node_of(division).with_context(|| format!("no node for {division}"))?;
        self.tree.client(node)
    }

    /// The hub and the nodes above it, from below.
    pub(super) fn upward(&self) -> Vec<Division> {
        std::iter::successors(Some(self.hub), |division| self.tree.parent(*division)).collect()
    }

    /// Townships below the hub that have a node, in the order of their codes.
    pub(super) fn leaves(&self) -> Vec<Division> {
        self.tree.children(self.hub).into_iter().filter(|d| d.tier() == Tier::Township).collect()
    }

    /// A node's name for people.
    pub(super) fn name(&self, division: Division) -> String {
        self.plan.name(division)
    }

    /// Waits until every node is linked with its parent.
    pub(super) async fn linked(&self) -> Result<()> {
        let below: Vec<Division> =
            self.tree.divisions().into_iter().filter(|d| self.tree.parent(*d).is_some()).collect();
        let mut progress = self.show.progress(below.len() as u64, "links 链路");
        until("all nodes are linked with their parents", LINK_TIME, async || {
            let asked = below.iter().map(|division| async {
                let link = ask::uplink(&self.tree.client(*division)?).await?;
                anyhow::Ok(link.connected)
            });
            let up = try_join_all(asked).await?.into_iter().filter(|up| *up).count();
            progress.at(up as u64);
            Ok((up == below.len()).then_some(()))
        })
        .await
    }

    /// Waits until no node owes anything to any other.
    pub(super) async fn quiet(&self) -> Result<()> {
        let mut calm = 0;
        until("nothing is owed on any link", QUIET_TIME, async || {
            // What arrives is owed onward at once, so two looks without a debt leave no place for one to hide.
            calm = if self.owed().await? == 0 { calm + 1 } else { 0 };
            Ok((calm >= 2).then_some(()))
        })
        .await
    }

    /// Records that are owed on all links together.
    pub(super) async fn owed(&self) -> Result<u64> {
        let asked = self.tree.divisions().into_iter().map(|division| async move {
            let status = ask::status(&self.tree.client(division)?).await?;
            let owed = status.links.iter().map(|l| l.urgent_backlog + l.normal_backlog + l.bulk_backlog);
            anyhow::Ok(owed.sum::<u64>())
        });
        Ok(try_join_all(asked).await?.into_iter().sum())
    }
}
