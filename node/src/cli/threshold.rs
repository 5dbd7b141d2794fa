//! `guantong threshold`: when a figure turns blue, yellow or red, for a division and everything below it.

use anyhow::{Context as _, bail};
use guantong_gateway::division::Division;
use guantong_gateway::measure::Measure;
use guantong_gateway::threshold::{Bounds, millionths_text};
use guantong_proto::v1;
use prost::Message;
use serde_json::json;

use super::connection::{NodeArgs, division_or_own};
use super::report::{Report, table};
use super::{json as messages, pages, problem};
use crate::client::Client;

const ONE_MILLIONTHS: i128 = 1_000_000;

const EXAMPLE: &str = "\
  guantong threshold set online_rate --higher --blue 95% --yellow 90% --red 85%
  guantong threshold set cases_overdue --lower --yellow 5 --red 20 --division 220822
  guantong threshold list
  guantong threshold remove online_rate

With --higher a value below a bound has its color, with --lower a value above it; the bound itself is still the better
color. Bounds are optional, one at least. For a division the threshold of the nearest division around it counts, its
own before all. Numbers of events are judged by month. `guantong aggregates --list` names the measures.
(越高越好时低于界值即预警，越低越好时高于界值即预警；以最近的上级区划所设阈值为准。)";

/// Set the bounds of the four colours 红黄蓝绿 (设置预警阈值)
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLE)]
pub(crate) struct ThresholdArgs {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    pub(crate) node: NodeArgs,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Set the threshold of a measure, in place of the one that it has (设置)
    Set(Set),
    /// List the thresholds that are known here: those of the divisions around and inside one (列出)
    List {
        /// Default: the node's own
        #[arg(long, value_name = "CODE")]
        division: Option<Division>,
    },
    /// Remove the threshold of a measure; that of the division above counts again (删除)
    Remove {
        /// The measure's name
        measure: String,
        /// Whose threshold; default: the node's own
        #[arg(long, value_name = "CODE")]
        division: Option<Division>,
    },
}

#[derive(Debug, clap::Args)]
struct Set {
    /// The measure's name, such as online_rate
    measure: String,
    /// Higher is better (越高越好)
    #[arg(long, required_unless_present = "lower", conflicts_with = "lower")]
    higher: bool,
    /// Lower is better (越低越好)
    #[arg(long)]
    lower: bool,
    /// Where red begins, such as 85% or 20
    #[arg(long, value_name = "BOUND", value_parser = bound)]
    red: Option<i64>,
    /// Where yellow begins
    #[arg(long, value_name = "BOUND", value_parser = bound)]
    yellow: Option<i64>,
    /// Where blue begins
    #[arg(long, value_name = "BOUND", value_parser = bound)]
    blue: Option<i64>,
    /// For this division and all inside it; default: the node's own
    #[arg(long, value_name = "CODE")]
    division: Option<Division>,
}

/// A bound in millionths: `85%`, `0.85`, `20`.
fn bound(text: &str) -> Result<i64, String> {
    let wrong =
        || "write a number or a percentage, such as 20, 0.85 or 85% (界值应为数字或百分数)".to_owned();
    let narrow = crate::ledger::half_width(text.trim()).into_owned();
    let (digits, divisor) = match narrow.strip_suffix('%') {
        Some(digits) => (digits.trim(), 100),
        None => (narrow.as_str(), 1),
    };
    let (whole, decimals) = digits.split_once('.').unwrap_or((digits, ""));
    let all = format!("{whole}{decimals}");
    if whole.is_empty() || all.len() > 15 || !all.bytes().all(|b| b.is_ascii_digit()) {
        return Err(wrong());
    }
    let scaled = all.parse::<i128>().map_err(|_| wrong())? * ONE_MILLIONTHS;
    let divisor = divisor * 10_i128.pow(decimals.len() as u32);
    if scaled % divisor != 0 {
        return Err(
            "it has more decimals than can be kept: at most 4 of a percentage, 6 of a number".to_owned()
        );
    }
    i64::try_from(scaled / divisor).map_err(|_| wrong())
}

pub(crate) async fn run(args: &ThresholdArgs) -> anyhow::Result<Report> {
    let client = args.node.connect().await?;
    match &args.command {
        Command::Set(set) => run_set(&client, set).await,
        Command::List { division } => run_list(&client, *division).await,
        Command::Remove { measure, division } => run_remove(&client, measure, *division).await,
    }
}

async fn run_set(client: &Client, set: &Set) -> anyhow::Result<Report> {
    let measure = known(&set.measure)?;
    let direction = match set.higher {
        true => v1::ThresholdDirection::HigherIsBetter,
        false => v1::ThresholdDirection::LowerIsBetter,
    };
    let bounds = v1::ThresholdBounds {
        direction: direction.into(),
        red_millionths: set.red,
        yellow_millionths: set.yellow,
        blue_millionths: set.blue,
    };
    if let Err(error) = Bounds::of(&bounds) {
        bail!("{error} ({})", error.chinese());
    }
    if measure.is_rate() && [set.red, set.yellow, set.blue].into_iter().flatten().any(|at| at > 2_000_000) {
        bail!(
            "{} is a rate: write its bounds as percentages, such as 85% (比率的界值请写百分数)",
            measure.name
        );
    }
    let division = division_or_own(client, set.division).await?;
    let threshold = v1::Threshold {
        name: format!("divisions/{division}/thresholds/{}", measure.name),
        measure: Some(measure.name.to_owned()),
        bounds: Some(bounds),
        // A threshold that was removed comes back.
        deleted: Some(false),
        ..Default::default()
    };
    let record = write(client, &threshold).await?;
    let text = format!("{}\n", line(&threshold).join("  "));
    Ok(Report::done(text, messages::of_record(&record)?))
}

async fn run_remove(client: &Client, measure: &str, division: Option<Division>) -> anyhow::Result<Report> {
    let division = division_or_own(client, division).await?;
    let name = format!("divisions/{division}/thresholds/{measure}");
    client.records().get_record(v1::GetRecordRequest { name: name.clone() }).await.map_err(problem::plain)?;
    let threshold = v1::Threshold { name: name.clone(), deleted: Some(true), ..Default::default() };
    let record = write(client, &threshold).await?;
    Ok(Report::done(format!("{name} removed (已删除)\n"), messages::of_record(&record)?))
}

async fn write(client: &Client, threshold: &v1::Threshold) -> anyhow::Result<v1::Record> {
    let name = threshold.name.clone();
    let fields = v1::Threshold { name: String::new(), ..threshold.clone() }.encode_to_vec();
    let record = v1::Record { name, fields: fields.into(), ..Default::default() };
    let request = v1::WriteRecordRequest { record: Some(record), ..Default::default() };
    Ok(client.records().write_record(request).await.map_err(problem::plain)?.into_inner())
}

async fn run_list(client: &Client, division: Option<Division>) -> anyhow::Result<Report> {
    let division = division_or_own(client, division).await?;
    let mut thresholds = Vec::new();
    // Those of the divisions around it are records of their own homes.
    let around = division.enclosing().last().unwrap_or(division);
    pages::records(client, "threshold", around, false, |record| {
        let home = record.name.split('/').nth(1).and_then(|code| Division::parse(code).ok());
        if home.is_some_and(|home| home.meets(division)) {
            let fields = v1::Threshold::decode(record.fields).context("the answer cannot be read")?;
            thresholds.push(v1::Threshold { name: record.name, ..fields });
        }
        Ok(())
    })
    .await?;
    let rows: Vec<[String; 7]> = thresholds.iter().map(line).collect();
    let text = match rows.as_slice() {
        [] => "no thresholds are set (尚未设置阈值)\n".to_owned(),
        rows => table(
            ["division 区划", "measure 指标", "label 名称", "better 方向", "red 红", "yellow 黄", "blue 蓝"],
            rows,
        ),
    };
    let list: Result<Vec<_>, _> =
        thresholds.iter().map(|t| messages::of_message("guantong.v1.Threshold", t)).collect();
    Ok(Report::done(text, json!({ "thresholds": list? })))
}

/// A threshold as a row for people.
fn line(threshold: &v1::Threshold) -> [String; 7] {
    let measure = threshold.measure.clone().unwrap_or_default();
    let known = Measure::named(&measure);
    let rate = known.is_some_and(Measure::is_rate);
    let bounds = threshold.bounds.unwrap_or_default();
    let text = |at: Option<i64>| at.map(|at| millionths_text(at, rate)).unwrap_or_default();
    let better = match bounds.direction() {
        v1::ThresholdDirection::HigherIsBetter => "higher 越高越好",
        v1::ThresholdDirection::LowerIsBetter => "lower 越低越好",
        v1::ThresholdDirection::Unspecified => "",
    };
    [
        threshold.name.split('/').nth(1).unwrap_or_default().to_owned(),
        measure,
        known.map(|known| known.label).unwrap_or_default().to_owned(),
        better.to_owned(),
        text(bounds.red_millionths),
        text(bounds.yellow_millionths),
        text(bounds.blue_millionths),
    ]
}

fn known(name: &str) -> anyhow::Result<&'static Measure> {
    Measure::named(name).with_context(|| {
        let near = Measure::near(name);
        let near = if near.is_empty() { String::new() } else { format!("; near to it: {}", near.join(", ")) };
        format!("there is no measure «{name}»{near} (没有这个指标)")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use guantong_proto::rules::fields;

    #[test]
    fn bounds_are_read_without_rounding() {
        assert_eq!(bound("85%"), Ok(850_000));
        assert_eq!(bound("97.1234%"), Ok(971_234));
        assert_eq!(bound("０.85"), Ok(850_000));
        assert_eq!(bound("20"), Ok(20_000_000));
        for wrong in ["97.12345%", "", "%", "-1", "1e3", "85 %%", "9999999999999999"] {
            assert!(bound(wrong).is_err(), "{wrong}");
        }
    }

    /// What is changed at a bound must not be done to a field that nobody named.
    #[test]
    fn removing_writes_nothing_but_the_mark() {
        let threshold = v1::Threshold { deleted: Some(true), ..Default::default() };
        let fields = threshold.encode_to_vec();
        let first = guantong_gateway::record::raw::split(&fields.into()).unwrap_or_default();
        assert_eq!(first.iter().map(|(number, _)| *number).collect::<Vec<_>>(), [fields::DELETED]);
    }
}
