//! `guantong submit`: a division declares a period complete, takes that back, or looks who has.

use guantong_gateway::division::Division;
use guantong_gateway::period::Period;
use guantong_proto::v1;

use super::connection::{NodeArgs, division_or_own};
use super::report::{Report, table, time};
use super::{json, problem};
use crate::client::Client;

const EXAMPLE: &str = "\
  guantong submit --period 2026-10                        the node's own division declares October complete (报送)
  guantong submit --period 2026-10 --division 220822101   a township without a node of its own, by the county's node
  guantong submit --period 2026-10 --withdraw             takes it back; both acts stay in the record (撤回)
  guantong submit --period 2026-10 --list                 who has submitted, and who has not (报送情况)

A period is a day, month, quarter, half or year that is over: 2026-10-21, 2026-10, 2026-Q4, 2026-H2, 2026. A division
with a node of its own declares there. With --list: exit status 3 while anyone is missing.";

/// Declare that a division's figures of a period are complete (报送)
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLE)]
pub(crate) struct SubmitArgs {
    /// The period, such as 2026-10
    #[arg(long)]
    period: Period,
    /// The division that declares; default: the node's own
    #[arg(long, value_name = "CODE")]
    division: Option<Division>,
    /// Take the declaration back (撤回)
    #[arg(long)]
    withdraw: bool,
    /// Show where the division and those directly below it stand, and declare nothing (列出报送情况)
    #[arg(long, conflicts_with = "withdraw")]
    list: bool,
    /// The unit that declares, on the node's own machine; a certificate says it itself (报送单位)
    #[arg(long, value_name = "UNIT")]
    by: Option<String>,
    #[command(flatten)]
    pub(crate) node: NodeArgs,
}

pub(crate) async fn run(args: &SubmitArgs) -> anyhow::Result<Report> {
    let client = args.node.connect().await?;
    let division = division_or_own(&client, args.division).await?;
    if args.list {
        return list(&client, division, &args.period).await;
    }
    let name = format!("divisions/{division}/submissions/{}", args.period);
    let submitted_by = args.by.clone().unwrap_or_default();
    let mut submissions = client.submissions();
    let done = if args.withdraw {
        submissions.withdraw_submission(v1::WithdrawSubmissionRequest { name, submitted_by }).await
    } else {
        submissions.submit_period(v1::SubmitPeriodRequest { name, submitted_by }).await
    };
    let submission = done.map_err(problem::plain)?.into_inner();
    let declaration = submission.declaration.clone().unwrap_or_default();
    let (english, chinese) = match declaration.state() {
        v1::SubmissionState::Withdrawn => ("withdrawn", "已撤回"),
        _ => ("submitted", "已报送"),
    };
    let text = format!(
        "{} {english} by {} at {} ({division} {}{chinese})\n",
        args.period,
        declaration.submitted_by,
        time(declaration.submit_time.as_ref()),
        args.period.label(),
    );
    Ok(Report::done(text, json::of_message("guantong.v1.Submission", &submission)?))
}

async fn list(client: &Client, division: Division, period: &Period) -> anyhow::Result<Report> {
    let request = v1::ListSubmissionStatusesRequest {
        parent: format!("divisions/{division}"),
        period: period.to_string(),
    };
    let answer = client.submissions().list_submission_statuses(request).await;
    let answer = answer.map_err(problem::plain)?.into_inner();
    let rows: Vec<[String; 6]> = answer
        .statuses
        .iter()
        .map(|status| {
            [
                status.division.clone(),
                status.display_name.clone(),
                words(status.readiness()).to_owned(),
                status.submitted_by.clone(),
                time(status.change_time.as_ref()),
                time(status.complete_through_time.as_ref()),
            ]
        })
        .collect();
    let headers =
        ["division 区划", "name 名称", "state 状态", "by 报送单位", "at 报送时间", "all in to 数据完整至"];
    let missing = answer.statuses.iter().any(|status| status.readiness() != v1::Readiness::Submitted);
    let json = json::of_message("guantong.v1.ListSubmissionStatusesResponse", &answer)?;
    Ok(Report::done(table(headers, &rows), json).needs_attention(missing))
}

fn words(readiness: v1::Readiness) -> &'static str {
    match readiness {
        v1::Readiness::NotLinked => "not linked 未联通",
        v1::Readiness::NotSubmitted => "not submitted 未报送",
        v1::Readiness::Submitted => "submitted 已报送",
        v1::Readiness::Withdrawn => "withdrawn 已撤回",
        v1::Readiness::Unspecified => "",
    }
}
