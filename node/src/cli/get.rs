//! `guantong get`: one record as the node shows it.

use guantong_proto::v1;

use super::connection::NodeArgs;
use super::report::{Report, list};
use super::{json, problem};
use crate::ledger;

/// Show one record (查看一条记录)
#[derive(Debug, clap::Args)]
pub(crate) struct GetArgs {
    /// The record's name, such as divisions/220822101000/cases/ID
    name: String,
    #[command(flatten)]
    pub(crate) node: NodeArgs,
}

pub(crate) async fn run(args: &GetArgs) -> anyhow::Result<Report> {
    json::kind_of(&args.name)?;
    let mut records = args.node.connect().await?.records();
    let request = v1::GetRecordRequest { name: args.name.clone() };
    let record = records.get_record(request).await.map_err(problem::plain)?.into_inner();
    report(&record)
}

/// A record for people and for programs.
pub(crate) fn report(record: &v1::Record) -> anyhow::Result<Report> {
    let kind = json::kind_of(&record.name)?;
    let mut text = format!("{}\n{}", record.name, list(&ledger::describe(kind.name, &record.fields)?));
    if !record.audience.is_empty() {
        text.push_str(&format!("concerns (涉及区划): {}\n", record.audience.join(", ")));
    }
    for number in &record.conflicting_fields {
        let field = kind.field(*number);
        let (name, label) =
            field.map_or_else(|| (number.to_string(), ""), |field| (field.name.to_owned(), field.label));
        text.push_str(&format!(
            "conflict in {name} {label} (有冲突): guantong conflicts show {}/conflicts/{name}\n",
            record.name
        ));
    }
    Ok(Report::done(text, json::of_record(record)?))
}
