//! `guantong report`: issues the operations report of a division, prints issued ones again, and says what was restated
//! since. `report check` judges figures that others have stated.

mod check;

use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use guantong_gateway::division::Division;
use guantong_gateway::period::Period;
use guantong_proto::v1;
use serde_json::{Value, json};

use super::connection::{NodeArgs, division_or_own};
use super::report::{Report, table, time};
use super::{json as messages, pages, problem};
use crate::client::Client;
use crate::report::{Format, render, value_text};

const PAGE_SIZE: i32 = 200;

const EXAMPLE: &str = "\
  guantong report --division 220822 --period 2026-10 --format xlsx      issues October's report and prints it (签发并打印)
  guantong report list --period 2026-10                                 what was issued (已签发的报告)
  guantong report print divisions/220822000000/reports/2026-10-1 --format html --out october.html
  guantong report diff --division 220822 --period 2026-10               what late data has restated since (签发后的修订)
  guantong report check township.csv                                    which stated figures cannot be (核对填报数据)

An issued report is kept as it was: it is printed the same in ten years. A period is a month (2026-10), a quarter
(2026-Q4), a half (2026-H2), a year (2026), a year to date (2026-10~ytd) or a day. Exit status of diff and check: 3 if
something was restated, or cannot be.";

/// The operations report of a division: issue, print, compare, check (运行月报)
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLE, subcommand_negates_reqs = true)]
pub(crate) struct ReportsArgs {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    issue: Issue,
    #[command(flatten)]
    pub(crate) node: NodeArgs,
}

#[derive(Debug, clap::Args)]
struct Issue {
    /// Of this division; default: the node's own
    #[arg(long, value_name = "CODE")]
    division: Option<Division>,
    /// The report's period, such as 2026-10
    #[arg(long, required = true)]
    period: Option<Period>,
    #[command(flatten)]
    file: FileArgs,
}

#[derive(Debug, clap::Args)]
struct FileArgs {
    /// A workbook, a table, or a page that prints on A4
    #[arg(long, default_value = "xlsx")]
    format: Format,
    /// Where to write it; `-` is standard output; default: report-CODE-PERIOD-ISSUE in this directory
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// List issued reports, the latest first (列出已签发的报告)
    List {
        /// Of this division and those inside it; default: the node's own
        #[arg(long, value_name = "CODE")]
        division: Option<Division>,
        /// Of this period only
        #[arg(long)]
        period: Option<Period>,
    },
    /// Print an issued report again, as it was (再次打印)
    Print {
        #[command(flatten)]
        which: Which,
        #[command(flatten)]
        file: FileArgs,
    },
    /// Show what was restated since a report was issued; exit status 3 if anything was (签发后的修订)
    Diff {
        #[command(flatten)]
        which: Which,
    },
    /// Say which stated figures cannot be; exit status 3 if any (核对填报数据)
    Check(check::CheckArgs),
}

/// An issued report: by its name, or the latest of a division and a period.
#[derive(Debug, clap::Args)]
struct Which {
    /// As `list` names it: divisions/CODE/reports/PERIOD-ISSUE
    #[arg(required_unless_present = "period", conflicts_with_all = ["division", "period"])]
    name: Option<String>,
    /// The latest report of this division; default: the node's own
    #[arg(long, value_name = "CODE")]
    division: Option<Division>,
    /// … and of this period
    #[arg(long)]
    period: Option<Period>,
}

pub(crate) async fn run(args: &ReportsArgs) -> anyhow::Result<Report> {
    match &args.command {
        None => issue(&args.node.connect().await?, &args.issue).await,
        Some(Command::List { division, period }) => {
            list(&args.node.connect().await?, *division, *period).await
        }
        Some(Command::Print { which, file }) => {
            let client = args.node.connect().await?;
            let report = get(&client, which).await?;
            written(&report, file, "printed 已打印")
        }
        Some(Command::Diff { which }) => diff(&args.node.connect().await?, which).await,
        Some(Command::Check(check)) => check::run(check, &args.node).await,
    }
}

async fn issue(client: &Client, args: &Issue) -> anyhow::Result<Report> {
    let period = args.period.context("--period is missing (缺少报告期)")?;
    let division = division_or_own(client, args.division).await?;
    let request =
        v1::IssueReportRequest { parent: format!("divisions/{division}"), period: period.to_string() };
    let report = client.reports().issue_report(request).await.map_err(problem::plain)?.into_inner();
    written(&report, &args.file, "issued 已签发")
}

/// Writes a report to its file.
fn written(report: &v1::Report, file: &FileArgs, done: &str) -> anyhow::Result<Report> {
    let bytes = render(report, file.format)?;
    let out = match &file.out {
        Some(out) => out.clone(),
        None => PathBuf::from(file_name(report, file.format)),
    };
    let mut json = json!({ "name": report.name, "warnings": report.warnings.len() });
    if out == Path::new("-") {
        std::io::stdout().lock().write_all(&bytes).context("cannot write to standard output")?;
        return Ok(Report::done(String::new(), Value::Null));
    }
    std::fs::write(&out, &bytes).with_context(|| format!("cannot write {}", out.display()))?;
    json["file"] = json!(out);
    let text = format!(
        "{} {done}: {}　{}\n{} figures 指标, {} divisions 区划, {} warnings 预警: {}\n",
        report.name,
        report.display_name,
        report.period_label,
        report.figures.len(),
        report.statuses.len().saturating_sub(1),
        report.warnings.len(),
        out.display(),
    );
    Ok(Report::done(text, json))
}

fn file_name(report: &v1::Report, format: Format) -> String {
    let id = report.name.rsplit('/').next().unwrap_or_default();
    format!("report-{}-{id}.{}", report.division, format.ending())
}

async fn list(client: &Client, division: Option<Division>, period: Option<Period>) -> anyhow::Result<Report> {
    let division = division_or_own(client, division).await?;
    let reports = all(client, division, period, usize::MAX).await?;
    let row = |report: &v1::Report| {
        let at = |time_of: &Option<prost_types::Timestamp>| time(time_of.as_ref());
        [
            report.name.clone(),
            report.display_name.clone(),
            report.period_label.clone(),
            at(&report.issue_time),
            report.issued_by.clone(),
        ]
    };
    let rows: Vec<[String; 5]> = reports.iter().map(row).collect();
    let text = match rows.as_slice() {
        [] => "no report was issued yet (尚未签发报告)\n".to_owned(),
        rows => table(["report 报告", "division 区划", "period 报告期", "issued 签发时间", "by 签发"], rows),
    };
    let json = v1::ListReportsResponse { reports, ..Default::default() };
    Ok(Report::done(text, messages::of_message("guantong.v1.ListReportsResponse", &json)?))
}

/// Issued reports of a division and those inside it, the latest first.
async fn all(
    client: &Client,
    division: Division,
    period: Option<Period>,
    most: usize,
) -> anyhow::Result<Vec<v1::Report>> {
    let mut reports = Vec::new();
    pages::each(async |page_token| {
        let request = v1::ListReportsRequest {
            parent: format!("divisions/{division}"),
            period: period.map(|period| period.to_string()).unwrap_or_default(),
            page_size: PAGE_SIZE,
            page_token,
        };
        let page = client.reports().list_reports(request).await.map_err(problem::plain)?.into_inner();
        reports.extend(page.reports);
        Ok(if reports.len() < most { page.next_page_token } else { String::new() })
    })
    .await?;
    Ok(reports)
}

/// The name of the report that is meant.
async fn name(client: &Client, which: &Which) -> anyhow::Result<String> {
    if let Some(name) = &which.name {
        return Ok(name.clone());
    }
    let division = division_or_own(client, which.division).await?;
    let reports = all(client, division, which.period, usize::MAX).await?;
    let own = reports.into_iter().find(|report| report.division == division.to_string());
    match (own, which.period) {
        (Some(report), _) => Ok(report.name),
        (None, Some(period)) => {
            bail!(
                "no report of {division} for {period} was issued; `guantong report list` lists them (尚未签发该报告)"
            )
        }
        (None, None) => bail!("name a report, or its --period (请指定报告或报告期)"),
    }
}

async fn get(client: &Client, which: &Which) -> anyhow::Result<v1::Report> {
    let request = v1::GetReportRequest { name: name(client, which).await? };
    Ok(client.reports().get_report(request).await.map_err(problem::plain)?.into_inner())
}

async fn diff(client: &Client, which: &Which) -> anyhow::Result<Report> {
    let name = name(client, which).await?;
    let request = v1::DiffReportRequest { name: name.clone() };
    let answer = client.reports().diff_report(request).await.map_err(problem::plain)?.into_inner();
    let row = |restated: &v1::Restatement| {
        [
            restated.division.clone(),
            restated.display_name.clone(),
            restated.label.clone(),
            restated.period.clone(),
            value_text(restated.before.as_ref()),
            value_text(restated.after.as_ref()),
        ]
    };
    let rows: Vec<[String; 6]> = answer.restatements.iter().map(row).collect();
    let headers = ["division 区划", "name 名称", "measure 指标", "period 期间", "issued 签发时", "now 现在"];
    let text = match rows.as_slice() {
        [] => format!("{name}: none of its {} figures was restated (没有修订)\n", answer.compared_count),
        rows => format!(
            "{name}: {} of its {} figures were restated (已修订)\n{}",
            rows.len(),
            answer.compared_count,
            table(headers, rows)
        ),
    };
    let json = messages::of_message("guantong.v1.DiffReportResponse", &answer)?;
    Ok(Report::done(text, json).needs_attention(!answer.restatements.is_empty()))
}
