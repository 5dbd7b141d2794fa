//! `guantong tallies`: sums over the records of a division, as the node keeps them with each write.

use guantong_gateway::division::Division;
use guantong_proto::v1;

use super::connection::NodeArgs;
use super::report::{Report, table};
use super::{json, problem};

/// Show the sums over a division's records (查看区划汇总数)
#[derive(Debug, clap::Args)]
pub(crate) struct TalliesArgs {
    /// A division inside the node's own: 2, 4, 6, 9 or 12 digits
    division: Division,
    #[command(flatten)]
    pub(crate) node: NodeArgs,
}

pub(crate) async fn run(args: &TalliesArgs) -> anyhow::Result<Report> {
    let mut node = args.node.connect().await?.node();
    let request = v1::ListTalliesRequest { parent: format!("divisions/{}", args.division) };
    let answer = node.list_tallies(request).await.map_err(problem::plain)?.into_inner();
    let rows: Vec<[String; 3]> = answer
        .tallies
        .iter()
        .map(|tally| [tally.measure.clone(), tally.class.clone(), tally.value.to_string()])
        .collect();
    let text = match rows.as_slice() {
        [] => format!("no records of {} are held here (暂无数据)\n", args.division),
        rows => table(["measure", "class", "value"], rows),
    };
    Ok(Report::done(text, json::of_message("guantong.v1.ListTalliesResponse", &answer)?))
}
