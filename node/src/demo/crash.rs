//! A node is killed while records are on their way through it, and started again: everything arrives all the same.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use guantong_gateway::division::Division;
use serde_json::json;

use super::ask::{self, sum, until};
use super::fill::{import_command, place_in, run_import};
use super::ledgers::Ledgers;
use super::stage::Stage;

/// Rows of the ledger that is under way.
const ROWS: u64 = 4_000;
/// For the first record to reach the node that is killed, and for all to reach the top.
const TRANSFER_TIME: Duration = Duration::from_secs(60);
const ARRIVE_TIME: Duration = Duration::from_secs(120);

/// The whole act.
pub(super) async fn play(stage: &mut Stage) -> Result<()> {
    let township =
        *stage.leaves().first().or(stage.plan.acted_for.first()).context("a tree has townships")?;
    let sender = stage.tree.node_of(township).context("a township has a node or one that acts for it")?;
    let victim = stage.tree.parent(sender).context("the node below has a parent")?;
    stage.show.step(
        &format!("传输途中强制关闭{}节点，随后重启", stage.name(victim)),
        &format!("node {victim} is killed in the middle of a transfer and started again"),
    );
    let top = stage.tree.client(stage.plan.top)?;
    let before = incidents(&top, township).await?;
    let mut ledgers = Ledgers::default();
    ledgers.add_patrol(place_in(&stage.plan, township)?, ROWS, stage.today);
    let files = ledgers.write(&stage.dir.join("patrol"))?;
    let file = files.first().context("a ledger was written")?;

    let importing = run_import(import_command(stage, file)?, &file.path, file.rows);
    let watched = stage.tree.client(victim)?;
    let arriving = until("records reach the node that is to be killed", TRANSFER_TIME, async || {
        Ok(Some(incidents(&watched, township).await? - before).filter(|arrived| *arrived > 0))
    });
    tokio::pin!(importing);
    let (arrived, imported) = tokio::select! {
        arrived = arriving => (arrived?, None),
        imported = &mut importing => (incidents(&watched, township).await? - before, Some(imported?)),
    };
    // The rest of the ledger goes in while the node above is dead.
    stage.tree.kill(victim).await?;
    if imported.is_none() {
        importing.await?;
    }
    let name = stage.name(victim);
    stage.show.tell(&format!("{name} killed (SIGKILL) when {arrived} of {ROWS} records had reached it"));
    stage.tree.start(victim).await?;
    stage.show.tell(&format!("{name} started again (已重启)"));
    let top = stage.tree.client(stage.plan.top)?;
    let mut progress = stage.show.progress(ROWS, "records at the top 省级已收");
    until("all records of the disturbed transfer are at the top", ARRIVE_TIME, async || {
        let arrived = incidents(&top, township).await? - before;
        progress.at(u64::try_from(arrived).unwrap_or(0));
        Ok((arrived >= i64::try_from(ROWS)?).then_some(()))
    })
    .await?;
    drop(progress);
    stage.quiet().await?;
    let arrived_twice = incidents(&top, township).await? - before - i64::try_from(ROWS)?;
    if arrived_twice != 0 {
        bail!("{arrived_twice} records more than were sent are at the top");
    }
    stage.show.tell(&format!("all {ROWS} records are at the top, none twice (全部到达，无重复)"));
    stage.report.insert(
        "crash".to_owned(),
        json!({ "node": victim.to_string(), "arrived_before": arrived, "rows": ROWS }),
    );
    Ok(())
}

async fn incidents(client: &crate::client::Client, township: Division) -> Result<i64> {
    Ok(sum(&ask::sums(client, township).await?, "cases", "incident"))
}
