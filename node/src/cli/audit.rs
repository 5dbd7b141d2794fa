//! `guantong audit`: the audit log of a node, checked, shown and exported.
//!
//! It checks the chain itself, entry by entry, and takes nobody's word for it: what it needs of the node is the log, and
//! of the parent the checkpoints that it keeps.

mod file;
mod judge;
mod when;

pub use file::is_intact;

use std::path::PathBuf;

use guantong_gateway::division::Division;
use guantong_proto::v1;
use guantong_proto::v1::audit_service_client::AuditServiceClient;
use serde_json::{Map, Value, json};
use tonic::Code;
use tonic::transport::Channel;

use super::connection::NodeArgs;
use super::pages;
use super::problem;
use super::report::{Report, table, time};
use crate::client::Client;
use judge::{Judge, Keeper};

const EXAMPLE: &str = "\
  guantong audit verify
  guantong audit verify --file audit.jsonl
  guantong audit show --since 2026-11-01 --event connection_refused
  guantong audit export audit.jsonl
  guantong audit accept 220822101

`verify` computes every hash anew, and compares with what this node signed and what its parent keeps of that. Exit status
3 if anything does not fit, or the parent could not be asked (有不符或无法向上级核对时退出码为3).";

/// The audit log: what happened at this node, chained so that no change goes unseen (审计日志)
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLE)]
pub(crate) struct AuditArgs {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    pub(crate) node: NodeArgs,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Check the whole chain, and the checkpoints that were signed of it (校验完整性)
    Verify {
        /// An export instead of a running node; nobody is asked
        #[arg(long, value_name = "FILE")]
        file: Option<PathBuf>,
    },
    /// Show entries, the latest first (查看)
    Show {
        /// From then on: a date, or a time such as 2026-11-22T08:00:00+08:00
        #[arg(long, value_name = "TIME", value_parser = when::parse)]
        since: Option<prost_types::Timestamp>,
        /// Before then
        #[arg(long, value_name = "TIME", value_parser = when::parse)]
        until: Option<prost_types::Timestamp>,
        /// Only this event, such as link_up, refused, command
        #[arg(long, default_value = "")]
        event: String,
        /// At most so many
        #[arg(long, default_value_t = 50)]
        limit: usize,
    },
    /// Take what a child signs of its log now in place of what was kept of it and contradicts it, after you have looked why
    /// (确认下级审计日志)
    Accept {
        /// The child
        #[arg(value_name = "CODE")]
        division: Division,
    },
    /// Write all of it, with hashes and checkpoints, as JSON lines that anybody can check (导出)
    Export {
        /// Where to; it must not exist
        file: PathBuf,
    },
}

type Service = AuditServiceClient<Channel>;

pub(crate) async fn run(args: &AuditArgs) -> anyhow::Result<Report> {
    match &args.command {
        Command::Verify { file: Some(file) } => file::verify(file),
        Command::Verify { file: None } => verify(&args.node.connect().await?).await,
        Command::Accept { division } => accept(&args.node.connect().await?, *division).await,
        Command::Export { file } => export(&args.node.connect().await?, file).await,
        Command::Show { since, until, event, limit } => {
            let asked = v1::ListAuditEntriesRequest {
                start_time: *since,
                end_time: *until,
                event: event.clone(),
                ..Default::default()
            };
            show(&args.node.connect().await?, asked, *limit).await
        }
    }
}

async fn accept(client: &Client, division: Division) -> anyhow::Result<Report> {
    let request = v1::AcceptAuditCheckpointsRequest { division: division.to_string() };
    let accepted =
        client.audit().accept_audit_checkpoints(request).await.map_err(problem::plain)?.into_inner();
    let words = |checkpoint: &v1::AuditCheckpoint| {
        let (slot, number) = (checkpoint.slot, checkpoint.number);
        format!("the audit log of {division}, gateway {slot}, is followed from entry {number} on (已确认)\n")
    };
    let text = accepted.checkpoints.iter().map(words).collect::<String>();
    let kept = accepted.checkpoints.iter().map(|c| json!({ "slot": c.slot, "number": c.number }));
    let kept: Vec<Value> = kept.collect();
    Ok(Report::done(text, json!({ "division": division.to_string(), "checkpoints": kept })))
}

fn bar() -> indicatif::ProgressBar {
    indicatif::ProgressBar::with_draw_target(None, indicatif::ProgressDrawTarget::stderr())
}

async fn verify(client: &Client) -> anyhow::Result<Report> {
    let mut service = client.audit();
    // Before the log: whatever a checkpoint speaks of is in it.
    let mut judge = Judge::default();
    judge.take(Keeper::Own, checkpoints(&mut service, false).await?.unwrap_or_default())?;
    match checkpoints(&mut service, true).await? {
        Some(of_parent) => judge.take(Keeper::Parent, of_parent)?,
        None if has_parent(client).await? => judge.parent_not_asked(),
        None => {}
    }
    let bar = bar();
    let mut log =
        service.read_audit_log(v1::ReadAuditLogRequest {}).await.map_err(problem::plain)?.into_inner();
    let mut slot = 0;
    while let Some(piece) = log.message().await.map_err(problem::plain)? {
        if let Some(chain) = &piece.chain {
            slot = chain.slot;
            bar.set_length(bar.length().unwrap_or(0).saturating_add(chain.entry_count.unsigned_abs()));
            judge.begin(&chain.division, i64::from(slot), chain.entry_count.unsigned_abs())?;
        }
        for entry in &piece.entries {
            judge.entry(i64::from(slot), &judge::row(entry)?);
        }
        bar.inc(piece.entries.len() as u64);
    }
    bar.finish_and_clear();
    Ok(judge.report())
}

async fn has_parent(client: &Client) -> anyhow::Result<bool> {
    let status = client.node().get_status(v1::GetStatusRequest {}).await.map_err(problem::plain)?;
    Ok(status.into_inner().links.iter().any(|link| link.peer_is_parent))
}

/// Checkpoints kept here, or by the parent; `None`: it cannot be asked now.
async fn checkpoints(
    service: &mut Service,
    at_parent: bool,
) -> anyhow::Result<Option<Vec<v1::AuditCheckpoint>>> {
    let mut found = Vec::new();
    let mut away = false;
    pages::each(async |page_token| {
        let request = v1::ListAuditCheckpointsRequest {
            division: String::new(),
            at_parent,
            page_size: pages::PAGE_SIZE,
            page_token,
        };
        match service.list_audit_checkpoints(request).await {
            Ok(page) => {
                let page = page.into_inner();
                found.extend(page.checkpoints);
                Ok(page.next_page_token)
            }
            Err(status) if at_parent && is_away(status.code()) => {
                away = true;
                Ok(String::new())
            }
            Err(status) => Err(problem::plain(status)),
        }
    })
    .await?;
    Ok((!away).then_some(found))
}

/// There is no parent, it is away, or its program is older.
fn is_away(code: Code) -> bool {
    matches!(
        code,
        Code::FailedPrecondition
            | Code::ResourceExhausted
            | Code::Unavailable
            | Code::Unimplemented
            | Code::Unknown
    )
}

async fn export(client: &Client, path: &std::path::Path) -> anyhow::Result<Report> {
    let mut service = client.audit();
    let mut out = file::Export::create(path)?;
    for (keeper, at_parent) in [(Keeper::Own, false), (Keeper::Parent, true)] {
        for checkpoint in checkpoints(&mut service, at_parent).await?.unwrap_or_default() {
            out.checkpoint(keeper, &checkpoint)?;
        }
    }
    let bar = bar();
    let mut log =
        service.read_audit_log(v1::ReadAuditLogRequest {}).await.map_err(problem::plain)?.into_inner();
    while let Some(piece) = log.message().await.map_err(problem::plain)? {
        if let Some(chain) = &piece.chain {
            bar.set_length(bar.length().unwrap_or(0).saturating_add(chain.entry_count.unsigned_abs()));
            out.chain(chain)?;
        }
        piece.entries.iter().try_for_each(|entry| out.entry(entry))?;
        bar.inc(piece.entries.len() as u64);
    }
    bar.finish_and_clear();
    let entries = out.finish()?;
    let text = format!("{entries} entries written to {} (已导出)\n", path.display());
    Ok(Report::done(text, json!({ "entries": entries, "file": path })))
}

async fn show(client: &Client, asked: v1::ListAuditEntriesRequest, limit: usize) -> anyhow::Result<Report> {
    let mut service = client.audit();
    let mut found: Vec<v1::AuditEntry> = Vec::new();
    pages::each(async |page_token| {
        let left = i32::try_from(limit - found.len()).unwrap_or(pages::PAGE_SIZE).min(pages::PAGE_SIZE);
        if left == 0 {
            return Ok(String::new());
        }
        let request = v1::ListAuditEntriesRequest { page_size: left, page_token, ..asked.clone() };
        let page = service.list_audit_entries(request).await.map_err(problem::plain)?.into_inner();
        found.extend(page.entries);
        Ok(page.next_page_token)
    })
    .await?;
    let shown: Vec<Value> = found
        .iter()
        .map(|entry| {
            let mut shown = Map::from_iter([("slot".to_owned(), json!(entry.slot))]);
            shown.extend(said(entry));
            Value::Object(shown)
        })
        .collect();
    let rows: Vec<[String; 4]> = found
        .iter()
        .map(|entry| {
            let said = said(entry);
            let common = ["number", "time_ms", "event"];
            let details = said.iter().filter(|(key, _)| !common.contains(&key.as_str()));
            let word = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            let details: Vec<String> = details.map(|(key, value)| format!("{key}={}", word(value))).collect();
            [time(entry.time.as_ref()), entry.number.to_string(), entry.event.clone(), details.join(" ")]
        })
        .collect();
    let text = if rows.is_empty() {
        "no entries (无记录)\n".to_owned()
    } else {
        table(["time 时间", "entry 序号", "event 事件", "details 内容"], &rows)
    };
    Ok(Report::done(text, json!({ "entries": shown })))
}

/// What an entry says. One that cannot be read says nothing; `verify` finds out why.
fn said(entry: &v1::AuditEntry) -> Map<String, Value> {
    serde_json::from_str(&entry.line).unwrap_or_default()
}
