//! `guantong conflicts`: values that stand side by side because their writers did not see each other's, and the
//! decision between them.

use std::fmt::Write as _;

use anyhow::{Context as _, bail};
use guantong_gateway::division::Division;
use guantong_proto::v1;
use serde_json::{Value, json};

use super::connection::{NodeArgs, division_or_own};
use super::report::{Report, list, table, time};
use super::{json as messages, pages, problem};
use crate::client::Client;
use crate::ledger;

const PAGE_SIZE: i32 = 500;

const EXAMPLE: &str = "\
  guantong conflicts list
  guantong conflicts show divisions/220822000000/cameras/22082200001320000001/conflicts/display_name
  guantong conflicts resolve divisions/…/conflicts/display_name --keep 1
  guantong conflicts resolve divisions/…/conflicts/display_name --value '\"北门路口\"'

Nothing is lost meanwhile: readers see one value, by the field's rule, and both are kept until someone decides.";

/// List, look at and settle conflicts (冲突的查看与处理)
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLE)]
pub(crate) struct ConflictsArgs {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    pub(crate) node: NodeArgs,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// List open conflicts; exit status 3 if there are any (列出未解决的冲突)
    List {
        /// Of records of this division and those inside it; default: the node's own
        #[arg(long, value_name = "CODE")]
        division: Option<Division>,
        /// Settled ones instead, the latest first (已解决的冲突)
        #[arg(long)]
        resolved: bool,
    },
    /// Show the values of one conflict with their writers and times (查看一个冲突的各个取值)
    Show {
        /// As `list` names it: divisions/…/conflicts/FIELD
        name: String,
    },
    /// Decide which value stands, everywhere (决定保留哪个值)
    Resolve(Resolve),
}

#[derive(Debug, clap::Args)]
struct Resolve {
    /// As `list` names it: divisions/…/conflicts/FIELD
    name: String,
    /// The value to keep, by its number in `show`
    #[arg(long, value_name = "N", required_unless_present = "value", conflicts_with = "value")]
    keep: Option<u32>,
    /// A new value instead, as JSON
    #[arg(long, value_name = "JSON")]
    value: Option<String>,
    /// Decide as this division, for which the node acts
    #[arg(long = "as", value_name = "CODE")]
    acting: Option<Division>,
}

pub(crate) async fn run(args: &ConflictsArgs) -> anyhow::Result<Report> {
    let client = args.node.connect().await?;
    match &args.command {
        Command::List { division, resolved } => run_list(&client, *division, *resolved).await,
        Command::Show { name } => {
            let conflict = get(&client, name).await?;
            report(&conflict, text(&conflict)?)
        }
        Command::Resolve(resolve) => run_resolve(&client, resolve).await,
    }
}

async fn run_list(client: &Client, division: Option<Division>, resolved: bool) -> anyhow::Result<Report> {
    let parent = format!("divisions/{}", division_or_own(client, division).await?);
    let mut conflicts: Vec<v1::Conflict> = Vec::new();
    pages::each(async |page_token| {
        let request =
            v1::ListConflictsRequest { parent: parent.clone(), page_size: PAGE_SIZE, page_token, resolved };
        let page = client.conflicts().list_conflicts(request).await.map_err(problem::plain)?.into_inner();
        conflicts.extend(page.conflicts);
        Ok(page.next_page_token)
    })
    .await?;
    let entries: Result<Vec<Value>, _> = conflicts.iter().map(of_conflict).collect();
    let rows: Vec<[String; 3]> = conflicts
        .iter()
        .map(|conflict| {
            let writers: Vec<&str> =
                conflict.values.iter().map(|value| value.writer_division.as_str()).collect();
            let latest = conflict
                .values
                .iter()
                .filter_map(|value| value.write_time.as_ref())
                .max_by_key(|t| (t.seconds, t.nanos));
            let at = if resolved { conflict.resolve_time.as_ref() } else { latest };
            [conflict.name.clone(), writers.join(", "), time(at)]
        })
        .collect();
    let text = match (rows.as_slice(), resolved) {
        ([], false) => "no open conflicts (无冲突)\n".to_owned(),
        ([], true) => "none was settled yet (尚无已解决的冲突)\n".to_owned(),
        (rows, false) => table(["conflict 冲突", "writers 写入方", "since 时间"], rows),
        (rows, true) => table(["conflict 冲突", "writers 写入方", "settled 解决时间"], rows),
    };
    let report = Report::done(text, json!({ "conflicts": entries? }));
    Ok(report.needs_attention(!resolved && !conflicts.is_empty()))
}

async fn run_resolve(client: &Client, resolve: &Resolve) -> anyhow::Result<Report> {
    let before = get(client, &resolve.name).await?;
    let fields = match &resolve.value {
        None => Vec::new(),
        Some(value) => {
            let kind = messages::kind_of(&before.record)?;
            let value: Value = serde_json::from_str(value)
                .context("--value is not JSON; write a text as '\"text\"' (取值须为 JSON)")?;
            let field = serde_json::Map::from_iter([(before.field_name.clone(), value)]);
            ledger::json_to_fields(kind.name, &Value::Object(field))?.1
        }
    };
    if resolve.value.is_some() && fields.is_empty() {
        bail!("--value is empty; to keep an empty value, name it with --keep");
    }
    let request = v1::ResolveConflictRequest {
        name: resolve.name.clone(),
        keep: resolve.keep.unwrap_or_default(),
        fields: fields.into(),
        etag: before.etag,
        acting_division: resolve.acting.map(|division| division.to_string()).unwrap_or_default(),
    };
    let after = client.conflicts().resolve_conflict(request).await.map_err(problem::plain)?.into_inner();
    // A value that came in meanwhile stays beside the one that was chosen.
    let open = after.values.len() > 1;
    let words = if open {
        format!("settled, but another value came in meanwhile (已处理，但期间又有新值)\n{}", text(&after)?)
    } else {
        format!("settled; it goes to every node that has the record (冲突已解决)\n{}", text(&after)?)
    };
    Ok(report(&after, words)?.needs_attention(open))
}

async fn get(client: &Client, name: &str) -> anyhow::Result<v1::Conflict> {
    let request = v1::GetConflictRequest { name: name.to_owned() };
    Ok(client.conflicts().get_conflict(request).await.map_err(problem::plain)?.into_inner())
}

fn report(conflict: &v1::Conflict, text: String) -> anyhow::Result<Report> {
    Ok(Report::done(text, of_conflict(conflict)?))
}

fn of_conflict(conflict: &v1::Conflict) -> anyhow::Result<Value> {
    let kind = messages::kind_of(&conflict.record)?;
    let mut values = Vec::with_capacity(conflict.values.len());
    for (number, value) in conflict.values.iter().enumerate() {
        let fields = messages::of_fields(kind, &value.fields)?;
        values.push(json!({
            "keep": number,
            "value": fields.get(&conflict.field_name),
            "writer_division": value.writer_division,
            "writer_source": value.writer_source,
            "write_time": value.write_time.as_ref().map(ToString::to_string),
            "shown": value.shown,
        }));
    }
    Ok(json!({
        "name": conflict.name,
        "record": conflict.record,
        "field_name": conflict.field_name,
        "values": values,
        "resolve_time": conflict.resolve_time.as_ref().map(ToString::to_string),
        "etag": conflict.etag,
    }))
}

fn text(conflict: &v1::Conflict) -> anyhow::Result<String> {
    let kind = messages::kind_of(&conflict.record)?;
    let mut text = format!("{}\n", conflict.name);
    for (number, value) in conflict.values.iter().enumerate() {
        let shown = if value.shown { ", shown meanwhile 当前显示" } else { "" };
        let at = time(value.write_time.as_ref());
        let source = match value.writer_source.as_str() {
            "" => String::new(),
            source => format!(" ({source})"),
        };
        let _ = writeln!(text, "{number}: by {}{source} at {at}{shown}", value.writer_division);
        match ledger::describe(kind.name, &value.fields)?.as_slice() {
            [] => text.push_str("  (cleared 已清空)\n"),
            lines => text.push_str(&list(lines)),
        }
    }
    Ok(text)
}
