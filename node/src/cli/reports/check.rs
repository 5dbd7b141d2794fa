//! `guantong report check`: reads a form of stated figures, asks the node what is recorded, and says what cannot be.

use std::collections::BTreeMap;
use std::path::PathBuf;

use guantong_gateway::division::Division;
use guantong_gateway::measure::Value;
use guantong_gateway::period::Period;
use guantong_proto::v1;
use serde_json::json;

use super::super::connection::NodeArgs;
use super::super::problem;
use super::super::report::{Report, table};
use crate::check::{self, Finding, Kind, Statement, judge, state};
use crate::client::Client;

const FORM: &str = "\
The file is a table (CSV in UTF-8 or GB18030, or the first sheet of an .xlsx) or a JSON list of objects, one figure a line:

  division     区划代码   12 digits or fewer; default: --division
  period       报告期     such as 2026-10; default: --period
  measure      指标       English name or Chinese label: success_rate, 调处成功率
  class        类别       a class of one of its dimensions: public, 公共 (optional)
  op           关系       eq, ge (at least) or approx (optional; also ≥, 约, 余 in the value)
  value        数值       7762, 7,762, 1.2万, 97.12%
  unit         单位       percent, where a rate is written without its sign (optional)
  numerator    分子       of a rate (optional)
  denominator  分母       of a rate (optional)

Each number stands for no more than its digits say: 98.6% is everything from 98.55% to 98.65%. What cannot be: a rate
outside what its counts allow (7,762 of 7,792 cannot be 97.12%), a part larger than its whole, one figure stated twice
and otherwise. What differs: a stated figure that is another one than the recorded.";

/// Say which stated figures cannot be; exit status 3 if any (核对填报数据)
#[derive(Debug, clap::Args)]
#[command(after_help = FORM)]
pub(super) struct CheckArgs {
    /// The form
    file: PathBuf,
    /// The division of lines that name none
    #[arg(long = "division", value_name = "CODE")]
    division: Option<Division>,
    /// The period of lines that name none
    #[arg(long = "period")]
    period: Option<Period>,
    /// Ask no node: judge the figures by themselves only (不与记录比较)
    #[arg(long)]
    offline: bool,
}

pub(super) async fn run(args: &CheckArgs, node: &NodeArgs) -> anyhow::Result<Report> {
    let rows = check::read(&args.file)?;
    let mut findings = Vec::new();
    let mut statements = Vec::new();
    for row in &rows {
        match state(row, args.division, args.period) {
            Ok(statement) => statements.push(statement),
            Err(finding) => findings.push(finding),
        }
    }
    let recorded = match args.offline {
        true => Recorded::default(),
        false => Recorded::ask(&node.connect().await?, &statements).await?,
    };
    findings.extend(judge(&statements, &|statement| recorded.of(statement)));
    Ok(report(rows.len(), &statements, &recorded, &findings))
}

fn report(lines: usize, statements: &[Statement], recorded: &Recorded, findings: &[Finding]) -> Report {
    let compared = statements.iter().filter(|statement| recorded.of(statement).is_some()).count();
    let rows: Vec<[String; 3]> = findings
        .iter()
        .map(|finding| [finding.line.to_string(), finding.kind.words().to_owned(), finding.detail.clone()])
        .collect();
    let mut text = format!(
        "{lines} figures, {} judged, {compared} compared with records (共{lines}项，核对{}项，其中{compared}项与记录比较)\n",
        statements.len(),
        statements.len(),
    );
    text.push_str(&match rows.as_slice() {
        [] => "everything that was stated can be (未发现问题)\n".to_owned(),
        rows => table(["line 行", "finding 结论", "why 原因"], rows),
    });
    let wrong = findings.iter().any(|finding| finding.kind != Kind::LeftOut);
    let list: Vec<_> = findings
        .iter()
        .map(|f| json!({ "line": f.line, "finding": f.kind.name(), "detail": f.detail }))
        .collect();
    let json =
        json!({ "figures": lines, "judged": statements.len(), "compared": compared, "findings": list });
    Report::done(text, json).needs_attention(wrong)
}

/// A recorded figure's place: division, measure, class, period.
type Place = (String, &'static str, &'static str, String);

/// What is asked for at once: period and dimension.
type Asked = (String, &'static str);

/// What the node has recorded of the figures that were stated.
#[derive(Debug, Default)]
struct Recorded(BTreeMap<Place, Value>);

impl Recorded {
    /// Asks for each division, period and dimension at once. What lies outside the node's own division is not compared.
    async fn ask(client: &Client, statements: &[Statement]) -> anyhow::Result<Recorded> {
        let status = client.node().get_status(v1::GetStatusRequest {}).await.map_err(problem::plain)?;
        let own = Division::parse(&status.into_inner().division)?;
        let mut wanted: BTreeMap<Asked, (Vec<Division>, Vec<&'static str>)> = BTreeMap::new();
        for statement in statements.iter().filter(|s| own.contains(s.division)) {
            let Some(period) = statement.calendar() else { continue };
            let dimension = statement.subject.class.map_or("", |(dimension, _)| dimension.name());
            let (divisions, measures) = wanted.entry((period.to_string(), dimension)).or_default();
            if !divisions.contains(&statement.division) {
                divisions.push(statement.division);
            }
            if !measures.contains(&statement.subject.measure.name) {
                measures.push(statement.subject.measure.name);
            }
        }
        let mut found = BTreeMap::new();
        for ((period, dimension), (divisions, measures)) in wanted {
            let query = v1::AggregateQuery {
                divisions: divisions.iter().map(|division| format!("divisions/{division}")).collect(),
                measures: measures.iter().map(|measure| (*measure).to_owned()).collect(),
                dimension: dimension.to_owned(),
                period,
                ..Default::default()
            };
            let request = v1::QueryAggregatesRequest { query: Some(query) };
            let answer = client.aggregates().query_aggregates(request).await.map_err(problem::plain)?;
            for figure in answer.into_inner().figures {
                let statement = statements.iter().find(|s| is_of(&figure, s));
                if let (Some(statement), Some(value)) = (statement, value(&figure)) {
                    found.insert(place(statement), value);
                }
            }
        }
        Ok(Recorded(found))
    }

    fn of(&self, statement: &Statement) -> Option<Value> {
        self.0.get(&place(statement)).copied()
    }
}

fn place(statement: &Statement) -> Place {
    let class = statement.subject.class.map_or("", |(_, class)| class.name);
    let period = statement.calendar().map(|period| period.to_string()).unwrap_or_default();
    (statement.division.to_string(), statement.subject.measure.name, class, period)
}

fn is_of(figure: &v1::Figure, statement: &Statement) -> bool {
    let (division, measure, class, period) = place(statement);
    (&*figure.division, &*figure.measure, &*figure.class_name, &*figure.period)
        == (&*division, measure, class, &*period)
}

/// What was recorded; `None`: it cannot be told.
fn value(figure: &v1::Figure) -> Option<Value> {
    match (figure.numerator, figure.denominator) {
        (Some(numerator), Some(denominator)) => Some(Value::Rate { numerator, denominator }),
        // A count is a whole number below 2^53, so nothing is lost.
        _ => figure.value.map(|value| Value::Number(value as i64)),
    }
}
