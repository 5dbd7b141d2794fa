//! A township for which the county acted gets a node of its own: all that was held for it goes down, and from then on
//! it writes for itself.

use std::time::Duration;

use anyhow::{Context as _, Result};

use super::ask::{self, until};
use super::stage::Stage;
use super::tree::NodeSpec;

/// For everything that was held for the township to arrive there.
const ARRIVE_TIME: Duration = Duration::from_secs(60);

/// The whole act. The first township that is acted for gets the node.
pub(super) async fn play(stage: &mut Stage) -> Result<()> {
    let acted_for = stage.plan.acted_for.iter().copied().find(|township| stage.hub.contains(*township));
    let township = acted_for.context("no township without a node")?;
    stage.show.step(
        &format!("{}由{}代管，现设立自己的节点", stage.name(township), stage.name(stage.hub)),
        &format!("{township}, for which {} acted, gets a node of its own", stage.hub),
    );
    let expected = ask::sums(&stage.tree.client(stage.hub)?, township).await?;
    stage.tree.add(NodeSpec::below(stage.hub, township)).await?;
    stage.tree.start(township).await?;
    stage.plan.acted_for.retain(|other| *other != township);
    stage.linked().await?;
    let newcomer = stage.tree.client(township)?;
    until("the new node has all that was held for it", ARRIVE_TIME, async || {
        Ok((ask::sums(&newcomer, township).await? == expected).then_some(()))
    })
    .await?;
    stage.quiet().await?;
    let records = ask::status(&newcomer).await?.record_count;
    stage.show.tell(&format!("{records} records went down to it (已下发 {records} 条记录)"));
    Ok(())
}
