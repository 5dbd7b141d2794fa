//! Villages are made known from the top down, ledgers are imported where they are kept, and everything arrives at the
//! top. All of it goes the way of any office's files: through the command line of this program.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use futures::future::try_join_all;
use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use guantong_gateway::division::Division;
use serde::Deserialize;
use serde_json::json;
use tokio::process::Command;

use super::ask::{self, sum, until};
use super::figures::Figures;
use super::judge::{self, AllSums};
use super::ledgers::{LedgerFile, Ledgers, write_villages};
use super::plan::Plan;
use super::stage::Stage;
use super::targets::{Counts, targets};

/// Imports side by side.
const IMPORTS_AT_ONCE: usize = 3;
/// For everything to arrive at the top.
const ARRIVE_TIME: Duration = Duration::from_secs(120);

/// What `guantong import --json` says.
#[derive(Debug, Deserialize)]
pub(super) struct Imported {
    created: u64,
    held: u64,
    bad: u64,
    conflicts: u64,
}

/// Makes the villages known: at the top, from where they travel down.
pub(super) async fn villages(stage: &mut Stage) -> Result<()> {
    stage.show.step("村级名录由省级导入并逐级下发", "villages are imported at the top and travel down");
    let count = stage.plan.villages.len();
    if count == 0 {
        stage
            .show
            .tell("no list of villages at hand: codes of townships are used (无村级名录，使用乡级代码)");
        return Ok(());
    }
    let path = stage.dir.join("villages.csv");
    write_villages(&path, &stage.plan.villages)?;
    let socket = stage.tree.socket_path(stage.plan.top);
    let mut command = Command::new(stage.tree.program());
    command
        .args(["divisions", "import"])
        .arg(&path)
        .args(["--json", "--source", "villages", "--socket"])
        .arg(socket);
    let imported = run_import(command, &path, count as u64).await?;
    let nodes = nodes_with_villages(stage);
    let mut progress =
        stage.show.progress(nodes.len() as u64, "nodes know their villages 节点已获知村级区划");
    until("every node knows its villages", ARRIVE_TIME, async || {
        let asked = nodes.iter().map(|(node, expected)| async {
            let known = ask::count_records(&stage.tree.client(*node)?, "division", *node).await?;
            anyhow::Ok(known >= *expected)
        });
        let knowing = try_join_all(asked).await?.into_iter().filter(|knows| *knows).count();
        progress.at(knowing as u64);
        Ok((knowing == nodes.len()).then_some(()))
    })
    .await?;
    drop(progress);
    let lists = nodes.len();
    stage.show.tell(&format!(
        "{} villages, known to {lists} nodes ({} 个村级区划)",
        imported.created, imported.created
    ));
    Ok(())
}

/// Nodes below the top in whose scope villages lie, and how many.
fn nodes_with_villages(stage: &Stage) -> Vec<(Division, usize)> {
    let inside =
        |node: Division| stage.plan.villages.iter().filter(|village| node.contains(village.code)).count();
    let nodes = stage.plan.nodes.iter().map(|(node, _)| (*node, inside(*node)));
    nodes.filter(|(_, count)| *count > 0).collect()
}

/// Makes the ledgers and imports each where it is kept. Returns what everything adds up to.
pub(super) async fn import(stage: &mut Stage, figures: &Figures) -> Result<Counts> {
    stage.show.step("各地台账按正常途径导入", "ledgers are imported where they are kept");
    let mut ledgers = Ledgers::default();
    let mut expected = Counts::default();
    for target in targets(figures, &stage.plan) {
        ledgers.add(&target, stage.today)?;
        expected.add(&target.counts);
    }
    let files = ledgers.write(&stage.dir.join("ledgers"))?;
    let rows: u64 = files.iter().map(|file| file.rows).sum();
    let mut progress = stage.show.progress(rows, "rows imported 已导入行");
    let commands = files.iter().map(|file| anyhow::Ok((import_command(stage, file)?, file)));
    let commands = commands.collect::<Result<Vec<_>>>()?;
    let imports = commands.into_iter().map(|(command, file)| run_import(command, &file.path, file.rows));
    let mut imports = stream::iter(imports).buffer_unordered(IMPORTS_AT_ONCE);
    let mut done = 0;
    while let Some(imported) = imports.try_next().await? {
        done += imported.created;
        progress.at(done);
    }
    drop((imports, progress));
    stage.show.tell(&format!("{} ledgers, {done} rows ({} 份台账，{done} 行)", files.len(), files.len()));
    stage.report.insert("ledgers".to_owned(), json!({ "files": files.len(), "rows": done }));
    Ok(expected)
}

/// What imports one ledger at the node that its office works with.
pub(super) fn import_command(stage: &Stage, file: &LedgerFile) -> Result<Command> {
    let node = stage.tree.node_of(file.division).with_context(|| format!("no node for {}", file.division))?;
    let mut command = Command::new(stage.tree.program());
    command.arg("import").arg(&file.path).args(["--kind", file.kind, "--source", file.source, "--json"]);
    if file.kind == "camera" {
        command.args(["--crs", "cgcs2000"]);
    }
    command.arg("--socket").arg(stage.tree.socket_path(node));
    Ok(command)
}

/// Imports a ledger of which every row must be new and good.
pub(super) async fn run_import(mut command: Command, path: &Path, rows: u64) -> Result<Imported> {
    let output = command.kill_on_drop(true).output().await.context("cannot run the import")?;
    let said = String::from_utf8_lossy(&output.stderr);
    let imported: Imported = serde_json::from_slice(&output.stdout)
        .with_context(|| format!("importing {} failed: {}", path.display(), said.trim()))?;
    if imported.created != rows || imported.held + imported.bad + imported.conflicts > 0 {
        bail!(
            "{}: {rows} rows should be new, but: {imported:?}; see {} (导入结果与台账不符)",
            path.display(),
            path.with_extension("rejects.csv").display()
        );
    }
    Ok(imported)
}

/// Waits until the top has everything, and judges the figures by the top's sums. Returns how many are off.
pub(super) async fn arrive(stage: &mut Stage, figures: &Figures, expected: &Counts) -> Result<usize> {
    stage.show.step(
        "汇集到省级，与公布数字对照",
        "everything arrives at the top and is compared with what was published",
    );
    let top = stage.tree.client(stage.plan.top)?;
    let mut progress = stage.show.progress(expected.records(), "records at the top 省级已收");
    let scope = stage.plan.division;
    until("all records are counted at the top", ARRIVE_TIME, async || {
        let sums = ask::sums(&top, scope).await?;
        let stocks = [
            ("grids", "all"),
            ("cameras", "public"),
            ("cameras", "social"),
            ("cases", "dispute"),
            ("cases", "incident"),
        ];
        let arrived: i64 = stocks.iter().map(|(measure, class)| sum(&sums, measure, class)).sum();
        let arrived = u64::try_from(arrived).unwrap_or(0);
        progress.at(arrived);
        Ok((arrived >= expected.records()).then_some(()))
    })
    .await?;
    drop(progress);
    stage.quiet().await?;
    let judged = judge::judge(figures, &stage.plan, &all_sums(stage, figures).await?);
    let top_name = stage.plan.full_name(stage.plan.top);
    stage.show.tell(&format!("sums at {top_name} (省级汇总):\n{}", judge::text(&judged, &stage.plan)));
    stage.report.insert("figures".to_owned(), judge::json(&judged).into());
    Ok(judge::off(&judged))
}

async fn all_sums(stage: &Stage, figures: &Figures) -> Result<AllSums> {
    let top = stage.tree.client(stage.plan.top)?;
    let asked = judge::divisions_asked(figures, &stage.plan).into_iter().map(|division| {
        let top = top.clone();
        async move { anyhow::Ok((division, ask::sums(&top, division).await?)) }
    });
    Ok(try_join_all(asked).await?.into_iter().collect())
}

/// Names the rows of the figures that were left out.
pub(super) fn tell_left_out(stage: &mut Stage, figures: &Figures) {
    for row in &figures.left_out {
        stage.show.say(&format!(
            "line {} of the figures, {} {}: nobody said what that means, so it is left out (未知指标，已略去)",
            row.line, row.measure, row.class
        ));
    }
    let named = figures
        .left_out
        .iter()
        .map(|row| json!({ "line": row.line, "measure": row.measure, "class": row.class }));
    stage.report.insert("left_out".to_owned(), named.collect::<Vec<_>>().into());
}

/// The place that a township's invented incidents happen in.
pub(super) fn place_in(plan: &Plan, township: Division) -> Result<&super::plan::Place> {
    plan.places
        .iter()
        .find(|place| place.township == township)
        .with_context(|| format!("no place in {township}"))
}
