//! `guantong aggregates`: what measures came to in divisions and periods, as a table, as JSON, or as a file.

use std::io::Write as _;
use std::path::PathBuf;

use anyhow::Context as _;
use guantong_gateway::division::Division;
use guantong_gateway::measure::{Dimension, Measure};
use guantong_gateway::period::Period;
use guantong_proto::v1;

use super::completeness;
use super::connection::NodeArgs;
use super::report::{Report, columns, time};
use super::{Outcome, json, problem};

const EXAMPLE: &str = "\
  guantong aggregates --list
  guantong aggregates cases_received success_rate --period 2026-10 --compare yoy,pop
  guantong aggregates cases_received --period 2026 --step month --by kind
  guantong aggregates online_rate --period 2026-11-21 --within 220000 --tier county --rank
  guantong aggregates cases_open cases_overdue --period 2026-Q3 --within 2208 --export parquet --out q3.parquet

Periods (统计周期), Beijing time: 2026-10-21, 2026-10, 2026-Q4, 2026-H2, 2026, 2026-10~ytd (年初至该月),
2026-10-21~ytd, 2026-01-01..2026-03-31, 2026-01-01.. (自该日起).
Stocks (存量) are those at the end of the period; of past days they come from the snapshots that nodes take at midnight.";

/// Query figures of divisions: counts, rates, changes, ranks (统计查询)
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLE)]
pub(crate) struct AggregatesArgs {
    /// Names of measures; --list shows them (指标)
    #[arg(value_name = "MEASURE", required_unless_present = "list")]
    measures: Vec<String>,
    /// List what can be asked for, and what it means (列出全部指标)
    #[arg(long, conflicts_with_all = ["period", "within", "division"])]
    list: bool,
    /// The period (统计周期)
    #[arg(long, value_name = "PERIOD", required_unless_present = "list")]
    period: Option<Period>,
    /// One figure for each part of the period (按日/月/季/半年/年拆分)
    #[arg(long, value_enum)]
    step: Option<Step>,
    /// Of this division; may be given several times; default: the node's own (区划)
    #[arg(long, value_name = "CODE", conflicts_with = "within")]
    division: Vec<Division>,
    /// Of the divisions inside this one (下级区划)
    #[arg(long, value_name = "CODE")]
    within: Option<Division>,
    /// With --within: all of this tier instead of those directly below (层级)
    #[arg(long, value_enum, requires = "within")]
    tier: Option<Tier>,
    /// Each class of this dimension on its own, such as category (按维度细分)
    #[arg(long, value_name = "DIMENSION")]
    by: Option<String>,
    /// Changes against the year before (同比) or the period before (环比)
    #[arg(long, value_enum, value_delimiter = ',')]
    compare: Vec<Compare>,
    /// Rank the divisions, greatest first (排名)
    #[arg(long)]
    rank: bool,
    /// Write a file for other programs instead of a table (导出)
    #[arg(long, value_enum, conflicts_with_all = ["json", "list"])]
    export: Option<Export>,
    /// With --export: the file; default: standard output
    #[arg(long, value_name = "FILE", requires = "export")]
    out: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) node: NodeArgs,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Step {
    Day,
    Month,
    Quarter,
    Half,
    Year,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Tier {
    Township,
    County,
    Prefecture,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Compare {
    /// Year on year (同比)
    Yoy,
    /// Period on period (环比)
    Pop,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Export {
    Csv,
    Parquet,
}

pub(crate) async fn run(args: AggregatesArgs) -> anyhow::Result<Outcome> {
    match args.export {
        Some(format) => export(&args, format).await,
        None if args.list => list(&args).await?.print(args.node.json),
        None => ask(&args).await?.print(args.node.json),
    }
}

fn query(args: &AggregatesArgs) -> v1::AggregateQuery {
    let step = args.step.map_or(v1::Step::Unspecified, |step| match step {
        Step::Day => v1::Step::Day,
        Step::Month => v1::Step::Month,
        Step::Quarter => v1::Step::Quarter,
        Step::Half => v1::Step::Half,
        Step::Year => v1::Step::Year,
    });
    let tier = args.tier.map_or(v1::Tier::Unspecified, |tier| match tier {
        Tier::Township => v1::Tier::Township,
        Tier::County => v1::Tier::County,
        Tier::Prefecture => v1::Tier::Prefecture,
    });
    let compare = args.compare.iter().map(|compare| match compare {
        Compare::Yoy => v1::Comparison::YearOnYear.into(),
        Compare::Pop => v1::Comparison::PeriodOnPeriod.into(),
    });
    v1::AggregateQuery {
        divisions: args.division.iter().map(|d| format!("divisions/{d}")).collect(),
        within: args.within.map(|d| format!("divisions/{d}")).unwrap_or_default(),
        tier: tier.into(),
        measures: args.measures.clone(),
        dimension: args.by.clone().unwrap_or_default(),
        period: args.period.map(|p| p.to_string()).unwrap_or_default(),
        step: step.into(),
        comparisons: compare.collect(),
        rank: args.rank,
    }
}

async fn ask(args: &AggregatesArgs) -> anyhow::Result<Report> {
    let mut service = args.node.connect().await?.aggregates();
    let request = v1::QueryAggregatesRequest { query: Some(query(args)) };
    let answer = service.query_aggregates(request).await.map_err(problem::plain)?.into_inner();
    Ok(Report::done(text(args, &answer), json::of_message("guantong.v1.QueryAggregatesResponse", &answer)?))
}

/// The figures as a table for people.
fn text(args: &AggregatesArgs, answer: &v1::QueryAggregatesResponse) -> String {
    let compares = |which| {
        args.compare.iter().any(|c| matches!((c, which), (Compare::Yoy, true) | (Compare::Pop, false)))
    };
    let (yoy, pop) = (compares(true), compares(false));
    let mut headers = vec!["division 区划", "measure 指标"];
    headers.extend(args.by.iter().map(|_| "class 分类"));
    headers.extend(["period 周期", "value 数值", "basis 口径"]);
    headers.extend(yoy.then_some("yoy 同比"));
    headers.extend(pop.then_some("pop 环比"));
    headers.extend(args.rank.then_some("rank 排名"));
    let classes = args.by.as_deref().and_then(Dimension::named).map(Dimension::classes).unwrap_or_default();
    let row = |figure: &v1::Figure| {
        let label = Measure::named(&figure.measure).map_or(figure.measure.as_str(), |m| m.label);
        let mut row = vec![format!("{} {}", figure.division, figure.display_name), label.to_owned()];
        let class = classes
            .iter()
            .find(|c| c.name == figure.class_name)
            .map_or(figure.class_name.as_str(), |c| c.label);
        row.extend(args.by.iter().map(|_| class.to_owned()));
        let period: Option<Period> = figure.period.parse().ok();
        let open = if figure.period_closed { "" } else { " *" };
        row.push(format!("{}{open}", period.map_or(figure.period.clone(), |p| p.label())));
        row.push(value(figure));
        row.push(basis(figure));
        row.extend(yoy.then(|| change(figure.year_on_year_change)));
        row.extend(pop.then(|| change(figure.period_on_period_change)));
        row.extend(args.rank.then(|| figure.rank.map(|r| r.to_string()).unwrap_or_default()));
        row
    };
    let rows: Vec<Vec<String>> = answer.figures.iter().map(row).collect();
    let mut text = columns(&headers, &rows);
    if answer.figures.iter().any(|f| !f.period_closed) {
        text.push_str("* the period is not over (统计周期尚未结束)\n");
    }
    text.push_str(&format!("read {} (读取时间)\n", time(answer.read_time.as_ref())));
    let lacks = |c: &&v1::Completeness| !c.incomplete.is_empty() || c.missed_snapshot_count > 0;
    if let Some(late) = answer.completeness.as_ref().filter(lacks) {
        text.push_str(&completeness::text(late));
    }
    text
}

fn value(figure: &v1::Figure) -> String {
    match (figure.value, figure.denominator) {
        (None, _) => "unknown 未知".to_owned(),
        (Some(rate), Some(_)) => format!("{:.2} %", rate * 100.0),
        (Some(number), None) => format!("{number:.0}"),
    }
}

/// What a rate is made of.
fn basis(figure: &v1::Figure) -> String {
    let parts = figure.numerator.zip(figure.denominator);
    parts.map(|(numerator, denominator)| format!("{numerator} ÷ {denominator}")).unwrap_or_default()
}

fn change(change: Option<f64>) -> String {
    change.map_or_else(|| "-".to_owned(), |change| format!("{:+.1} %", change * 100.0))
}

async fn list(args: &AggregatesArgs) -> anyhow::Result<Report> {
    let mut service = args.node.connect().await?.aggregates();
    let answer =
        service.list_measures(v1::ListMeasuresRequest {}).await.map_err(problem::plain)?.into_inner();
    let row = |measure: &v1::Measure| {
        let dimensions: Vec<&str> = measure.dimensions.iter().map(|d| d.name.as_str()).collect();
        vec![
            measure.name.clone(),
            format!("{}（{}）", measure.label, measure.unit),
            dimensions.join(", "),
            measure.meaning_label.clone(),
        ]
    };
    let rows: Vec<Vec<String>> = answer.measures.iter().map(row).collect();
    let text = columns(&["measure 指标", "label 名称", "by 维度", "meaning 含义"], &rows);
    Ok(Report::done(text, json::of_message("guantong.v1.ListMeasuresResponse", &answer)?))
}

async fn export(args: &AggregatesArgs, format: Export) -> anyhow::Result<Outcome> {
    let format = match format {
        Export::Csv => v1::TableFormat::Csv,
        Export::Parquet => v1::TableFormat::Parquet,
    };
    let mut service = args.node.connect().await?.aggregates();
    let request = v1::ExportAggregatesRequest { query: Some(query(args)), format: format.into() };
    let mut pieces = service.export_aggregates(request).await.map_err(problem::plain)?.into_inner();
    let mut out: Box<dyn std::io::Write> = match &args.out {
        Some(path) => {
            let file = std::fs::File::create(path);
            Box::new(file.with_context(|| format!("{} cannot be written (无法写入文件)", path.display()))?)
        }
        None => Box::new(std::io::stdout().lock()),
    };
    while let Some(piece) = pieces.message().await.map_err(problem::plain)? {
        out.write_all(&piece.data).context("the file cannot be written (无法写入文件)")?;
    }
    out.flush().context("the file cannot be written (无法写入文件)")?;
    Ok(Outcome::Done)
}
