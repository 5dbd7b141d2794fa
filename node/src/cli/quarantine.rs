//! `guantong quarantine`: what could not go where it should, and why.

use guantong_proto::v1;
use serde_json::{Value, json};

use super::connection::NodeArgs;
use super::pages::{self, PAGE_SIZE};
use super::report::{Report, table, time};
use super::{json as messages, problem};

/// Rows printed for people.
const SHOWN_MAX: usize = 200;

/// What was refused by a peer, or waits here for its division to be known (隔离区)
#[derive(Debug, clap::Args)]
pub(crate) struct QuarantineArgs {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    pub(crate) node: NodeArgs,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// List it with the reasons; each is tried again by itself (列出并说明原因，系统会自动重试)
    List,
}

pub(crate) async fn run(args: &QuarantineArgs) -> anyhow::Result<Report> {
    let Command::List = args.command;
    let mut node = args.node.connect().await?.node();
    let mut found: Vec<v1::Quarantined> = Vec::new();
    pages::each(async |page_token| {
        let request = v1::ListQuarantineRequest { page_size: PAGE_SIZE, page_token };
        let page = node.list_quarantine(request).await.map_err(problem::plain)?.into_inner();
        found.extend(page.quarantined);
        Ok(page.next_page_token)
    })
    .await?;
    let entries: Result<Vec<Value>, _> =
        found.iter().map(|entry| messages::of_message("guantong.v1.Quarantined", entry)).collect();
    let report = Report::done(text(&found), json!({ "quarantined": entries? }));
    Ok(report.needs_attention(!found.is_empty()))
}

fn text(found: &[v1::Quarantined]) -> String {
    if found.is_empty() {
        return "nothing is held back (无隔离数据)\n".to_owned();
    }
    let rows: Vec<[String; 5]> = found
        .iter()
        .take(SHOWN_MAX)
        .map(|entry| {
            let by = if entry.peer_division.is_empty() { "here" } else { entry.peer_division.as_str() };
            [
                entry.record.clone(),
                entry.field_name.clone(),
                by.to_owned(),
                time(entry.retry_time.as_ref()),
                entry.reason.clone(),
            ]
        })
        .collect();
    let mut text = table(["record", "field", "held by", "next try", "reason"], &rows);
    if found.len() > rows.len() {
        text.push_str(&format!("and {} more; --json lists all\n", found.len() - rows.len()));
    }
    text
}
