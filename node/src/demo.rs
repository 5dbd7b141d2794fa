//! The demonstration: a county, or any other division, with all its nodes on this machine. Ledgers are made that add up
//! to published figures, everything flows up and down, lines are cut, a node is killed, and at the end both ends of
//! every link are compared.
//!
//! Every node is a process of its own and is spoken to as any program would speak to it: nothing here looks into a
//! store. Records are invented, and must always be seen to be.

mod aggregators;
mod ask;
mod compare;
mod conflict;
mod crash;
mod figures;
mod fill;
mod handover;
mod judge;
mod ledgers;
mod newcomer;
mod plan;
mod show;
mod stage;
mod targets;
pub mod tree;

use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use guantong_gateway::division::Division;
use serde_json::{Map, Value, json};
use time::{OffsetDateTime, UtcOffset, macros::offset};
use tokio::signal::unix::{SignalKind, signal};

use aggregators::Aggregators;
use figures::Figures;
use plan::Plan;
use show::{Show, rounded};
use stage::Stage;
use tree::Tree;

/// Beijing time.
const BEIJING: UtcOffset = offset!(+8);
/// Paths of sockets are limited; a node's folder and socket take some of it.
const DIR_BYTES_MAX: usize = 80;

const EXAMPLE: &str = "\
  guantong demo
  guantong demo --division 5329 --figures my-figures.csv
  guantong demo --acting --stay
  guantong demo --aggregator-store postgres://guantong@db.example/demo

Figures are a CSV table with the columns division, place, measure, class, op (eq, ge, approx), value and period, as
deploy/demo/figures.csv. Exit status 1 if any figure or link is off.";

/// Show a whole county at work on this machine (演示：在本机运行一个县的全部节点)
///
/// The records are invented to add up to published totals. Everything is deleted at the end.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXAMPLE)]
pub struct DemoArgs {
    /// What to show: a prefecture, a county or a township (演示的区划)
    #[arg(long, value_name = "CODE", default_value = "220822")]
    division: Division,
    /// Published figures to add up to; default: those of four counties that come with the program (公布的指标)
    #[arg(long, value_name = "FILE")]
    figures: Option<PathBuf>,
    /// A list of villages with the columns code and name; default: that of some counties (村级名录)
    #[arg(long, value_name = "FILE")]
    villages: Option<PathBuf>,
    /// Townships have no nodes, the node above acts for them; one of them gets its own later (县级代管乡镇)
    #[arg(long)]
    acting: bool,
    /// Keep the records of prefecture and province in PostgreSQL: a database where schemas may be made, one for each of
    /// the two; they are dropped at the end (地级、省级节点使用 PostgreSQL)
    #[arg(long, value_name = "URL", env = "GUANTONG_DEMO_STORE", hide_env_values = true)]
    aggregator_store: Option<String>,
    /// Leave everything running at the end, until Ctrl-C (演示结束后保持运行)
    #[arg(long)]
    stay: bool,
    /// Print one JSON document at the end and nothing else
    #[arg(long)]
    json: bool,
}

/// Runs the demonstration.
///
/// # Errors
/// Something did not work, or a figure or link is off at the end.
pub fn run(args: &DemoArgs) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(play(args))
}

async fn play(args: &DemoArgs) -> Result<()> {
    let mut show = Show::new(args.json);
    show.say(
        "演示数据均为虚构，仅使其合计等于公布的数字。\nThe records are invented to add up to published totals.",
    );
    let (plan, figures) = read(args)?;
    let folder = folder()?;
    show.step("启动各级节点", "nodes are started, each a process with its own store and certificate");
    let program = std::env::current_exe().context("this program's own file cannot be found")?;
    let tree = Tree::new(folder.path(), &program)?;
    let today = OffsetDateTime::now_utc().to_offset(BEIJING).date();
    let mut aggregators = Aggregators::new(args.aggregator_store.clone());
    let set = Stage::set(tree, plan, show, folder.path().join("files"), today, &mut aggregators).await;
    let mut stage = match set {
        Ok(stage) => stage,
        Err(error) => {
            let _ = aggregators.end().await;
            return Err(error);
        }
    };
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let played = tokio::select! {
        played = acts(&mut stage, args, &figures) => played.map(Some),
        _ = terminate.recv() => Ok(None),
        _ = interrupt.recv() => Ok(None),
    };
    if args.stay && matches!(played, Ok(Some(_))) {
        look_around(&stage);
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    }
    stage.tree.end().await;
    if let Err(error) = aggregators.end().await {
        stage.show.say(&format!("{error:#}"));
    }
    match played {
        Ok(Some(0)) => Ok(()),
        Ok(Some(off)) => bail!("{off} figures or links are off (有 {off} 项不一致)"),
        Ok(None) => bail!("stopped before its end (已中止)"),
        Err(error) => {
            let kept = folder.keep();
            Err(error.context(format!("the demonstration failed; logs are in {}", kept.display())))
        }
    }
}

/// All acts in order. Returns how many figures and links are off.
async fn acts(stage: &mut Stage, args: &DemoArgs, figures: &Figures) -> Result<usize> {
    std::fs::create_dir_all(&stage.dir)?;
    stage.tree.start_all().await?;
    stage.linked().await?;
    let count = stage.tree.divisions().len();
    let name = stage.plan.full_name(stage.plan.division);
    stage.show.tell(&format!("{name}: {count} nodes, linked over mutual TLS ({count} 个节点已互联)"));
    fill::tell_left_out(stage, figures);
    fill::villages(stage).await?;
    let expected = fill::import(stage, figures).await?;
    let figures_off = fill::arrive(stage, figures, &expected).await?;
    if args.acting {
        newcomer::play(stage).await?;
    }
    conflict::play(stage).await?;
    handover::play(stage).await?;
    crash::play(stage).await?;
    let links_off = compare::play(stage).await?;
    compare::memory(stage);
    end(stage, args, figures_off, links_off)?;
    Ok(figures_off + links_off)
}

fn end(stage: &mut Stage, args: &DemoArgs, figures_off: usize, links_off: usize) -> Result<()> {
    let seconds = stage.show.seconds();
    let steps = stage.show.steps();
    stage.show.say(&match figures_off + links_off {
        0 => format!("\nAll figures and links agree, after {seconds:.1} s. 全部一致。"),
        _ => format!(
            "\n{figures_off} figures and {links_off} links are off, after {seconds:.1} s. 存在不一致。"
        ),
    });
    if args.json {
        let mut report = std::mem::take(&mut stage.report);
        let mut document = Map::from_iter([
            (
                "notice".to_owned(),
                json!("The records are invented to add up to published totals. 演示数据均为虚构。"),
            ),
            ("division".to_owned(), json!(stage.plan.division.to_string())),
            ("ok".to_owned(), json!(figures_off + links_off == 0)),
            ("seconds".to_owned(), json!(rounded(seconds))),
            ("steps".to_owned(), json!(steps)),
        ]);
        document.append(&mut report);
        // Whoever closed the other end gets the exit status all the same.
        let _ = writeln!(std::io::stdout().lock(), "{:#}", Value::Object(document));
    }
    Ok(())
}

fn read(args: &DemoArgs) -> Result<(Plan, Figures)> {
    let text = |file: &Path| {
        std::fs::read_to_string(file)
            .with_context(|| format!("cannot read {} as UTF-8 (无法读取)", file.display()))
    };
    let villages = args.villages.as_deref().map(text).transpose()?;
    let plan =
        Plan::new(args.division, !args.acting, villages.as_deref().unwrap_or(plan::EMBEDDED_VILLAGES))?;
    let figures = args.figures.as_deref().map(text).transpose()?;
    let figures = Figures::parse(figures.as_deref().unwrap_or(figures::EMBEDDED))?.inside(args.division);
    if figures.figures.is_empty() {
        let name = plan.full_name(args.division);
        bail!(
            "there are no figures for {name} or a division inside it; give some with --figures (没有该区划的指标)"
        );
    }
    Ok((plan, figures))
}

/// A folder for all files, with a short name.
fn folder() -> Result<tempfile::TempDir> {
    let place = std::env::temp_dir();
    let place = if place.as_os_str().len() > DIR_BYTES_MAX - 20 { PathBuf::from("/tmp") } else { place };
    tempfile::Builder::new().prefix("guantong-").tempdir_in(place).context("no place for temporary files")
}

/// Says how to look around.
fn look_around(stage: &Stage) {
    let program = stage.tree.program().display().to_string();
    let (top, hub) = (stage.plan.top, stage.hub);
    let socket = |division| stage.tree.socket_path(division).display().to_string();
    let mut text = String::from(
        "\nEverything keeps running until Ctrl-C. Look around, for instance (按 Ctrl-C 结束):\n",
    );
    for command in [
        format!("{program} status --socket {}", socket(hub)),
        format!("{program} tallies {} --socket {}", stage.plan.division, socket(top)),
        format!("{program} conflicts list --socket {}", socket(hub)),
        format!("{program} get divisions/{}/cases/demo-handover --socket {}", first_home(stage), socket(hub)),
        format!("{program} export --kind camera --socket {}", socket(hub)),
    ] {
        text += &format!("  {command}\n");
    }
    text += "Sockets of all nodes (各节点套接字):\n";
    for division in stage.tree.divisions() {
        text += &format!("  {} {}\n", socket(division), stage.name(division));
    }
    let _ = write!(std::io::stderr().lock(), "{text}");
}

fn first_home(stage: &Stage) -> Division {
    stage.leaves().first().or(stage.plan.acted_for.first()).copied().unwrap_or(stage.hub)
}
