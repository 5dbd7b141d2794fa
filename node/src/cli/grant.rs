//! `guantong grant`: what partners may see and write at a node.

use guantong_gateway::division::Division;
use guantong_gateway::grant::{Period, Rate};
use guantong_proto::{codes, v1};
use serde_json::{Value, json};

use super::connection::NodeArgs;
use super::pages::{self, PAGE_SIZE};
use super::report::{Report, list, table, time};
use super::{json as messages, problem};

const EXAMPLE: &str = "\
  guantong pki issue partner hotline-12345 --dir authority --out hotline
  guantong grant set hotline-12345 --scope 220822 --kind case --level write --personal-data
  guantong grant set court-system --scope 220822 --kind case --level write --unit court
  guantong grant set county-platform --scope 220822 --level write --personal-data --unit '*'
  guantong grant set data-centre --scope 22 --level aggregates --rate 600/min
  guantong grant list
  guantong grant remove hotline-12345

A partner without a grant may call nothing. What its grant does not cover is absent from its answers. A change is in
force from the partner's next call; subscriptions and links need no restart. (授权变更立即生效)

With --level write a partner files cases, changes their fields, and takes back what it filed itself until somebody has
moved it: enough for a hotline. Accepting, handing on, answering and concluding are the holder's, and a partner does
that only in the name of the units (部门) it was given: --unit court for the court's cases, --unit division for those of
the divisions themselves (and for pressing and sealing), --unit '*' for a platform that does all that the desk does.
(办理动作只能以授权部门的名义进行)";

/// What partner systems may see and write (合作方授权)
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLE)]
pub(crate) struct GrantArgs {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    pub(crate) node: NodeArgs,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Give a partner a grant, in place of the one it has (授权，替换原有授权)
    Set(Set),
    /// List all grants (列出全部授权)
    List,
    /// Show one partner's grant (查看授权)
    Show {
        /// As in its certificate
        partner: String,
    },
    /// Take a partner's grant away (取消授权)
    Remove {
        /// As in its certificate
        partner: String,
    },
}

#[derive(Debug, clap::Args)]
struct Set {
    /// The partner's name, as in its certificate (合作方名称)
    partner: String,
    /// Records that concern this division or one inside it (区划范围)
    #[arg(long, value_name = "CODE")]
    scope: Division,
    /// A kind of records, singular; may be given several times. Without it: every kind (数据种类)
    #[arg(long = "kind", value_name = "KIND")]
    kinds: Vec<String>,
    /// How far the grant goes (授权级别)
    #[arg(long)]
    level: Level,
    /// Names and telephone numbers, too (包含个人信息)
    #[arg(long)]
    personal_data: bool,
    /// A unit in whose name it handles cases, by its code; may be given several times. `division`: the division itself;
    /// `*`: every unit. Without it: none (以何部门名义办理事件)
    #[arg(long = "unit", value_name = "CODE")]
    units: Vec<String>,
    /// How often it may call, over all its connections: 50/s, 600/min or 2000/h. Without it: as often as it likes
    /// (调用频率上限)
    #[arg(long, value_name = "RATE")]
    rate: Option<Rate>,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Level {
    /// Sums over divisions, never a record (仅汇总数据)
    Aggregates,
    /// Records are read (读取)
    Read,
    /// Records are read and written (读写)
    Write,
}

impl From<Level> for v1::GrantLevel {
    fn from(level: Level) -> v1::GrantLevel {
        match level {
            Level::Aggregates => v1::GrantLevel::Aggregates,
            Level::Read => v1::GrantLevel::Read,
            Level::Write => v1::GrantLevel::Write,
        }
    }
}

pub(crate) async fn run(args: &GrantArgs) -> anyhow::Result<Report> {
    let mut client = args.node.connect().await?.grants();
    match &args.command {
        Command::Set(set) => {
            let grant = v1::Grant {
                name: name(&set.partner),
                scope: set.scope.to_string(),
                kinds: set.kinds.clone(),
                level: v1::GrantLevel::from(set.level).into(),
                personal_data: set.personal_data,
                units: set.units.clone(),
                rate: set.rate.map(message),
                ..v1::Grant::default()
            };
            let request = v1::UpdateGrantRequest { grant: Some(grant), allow_missing: true };
            one(&client.update_grant(request).await.map_err(problem::plain)?.into_inner())
        }
        Command::Show { partner } => {
            let request = v1::GetGrantRequest { name: name(partner) };
            one(&client.get_grant(request).await.map_err(problem::plain)?.into_inner())
        }
        Command::Remove { partner } => {
            let request = v1::DeleteGrantRequest { name: name(partner) };
            client.delete_grant(request).await.map_err(problem::plain)?;
            let text = format!("{partner} may call nothing any more (已取消授权)\n");
            Ok(Report::done(text, json!({ "removed": name(partner) })))
        }
        Command::List => {
            let mut grants: Vec<v1::Grant> = Vec::new();
            pages::each(async |page_token| {
                let request = v1::ListGrantsRequest { page_size: PAGE_SIZE, page_token };
                let page = client.list_grants(request).await.map_err(problem::plain)?.into_inner();
                grants.extend(page.grants);
                Ok(page.next_page_token)
            })
            .await?;
            all(&grants)
        }
    }
}

fn name(partner: &str) -> String {
    format!("grants/{partner}")
}

fn kinds(grant: &v1::Grant) -> String {
    if grant.kinds.is_empty() { "all (全部)".into() } else { grant.kinds.join(", ") }
}

fn level(grant: &v1::Grant) -> &'static str {
    match grant.level() {
        v1::GrantLevel::Aggregates => "aggregates (仅汇总)",
        v1::GrantLevel::Read => "read (读取)",
        v1::GrantLevel::Write => "write (读写)",
        v1::GrantLevel::Unspecified => "?",
    }
}

fn personal(grant: &v1::Grant) -> &'static str {
    if grant.personal_data { "yes (含)" } else { "no (不含)" }
}

/// Codes with their labels. A code that is not in the list may be one of the tier's own, or a typing error.
fn units(grant: &v1::Grant) -> String {
    let word = |unit: &String| match codes::UNITS.iter().find(|known| known.code == unit) {
        Some(known) => format!("{unit} {}", known.label),
        None if unit == "*" => "all (全部)".into(),
        None => format!("{unit} (not in the list of units, 不在部门代码表中)"),
    };
    match grant.units.as_slice() {
        [] => "none (无)".into(),
        named => named.iter().map(word).collect::<Vec<_>>().join(", "),
    }
}

fn message(rate: Rate) -> v1::RequestRate {
    let period = match rate.period() {
        Period::Second => v1::RatePeriod::Second,
        Period::Minute => v1::RatePeriod::Minute,
        Period::Hour => v1::RatePeriod::Hour,
    };
    v1::RequestRate { requests: i32::try_from(rate.requests()).unwrap_or(i32::MAX), period: period.into() }
}

/// As it is written at the command line.
fn rate(grant: &v1::Grant) -> String {
    let Some(rate) = &grant.rate else { return "-".into() };
    let period = match rate.period() {
        v1::RatePeriod::Second => "s",
        v1::RatePeriod::Minute => "min",
        v1::RatePeriod::Hour => "h",
        v1::RatePeriod::Unspecified => "?",
    };
    format!("{}/{period}", rate.requests)
}

fn of_grant(grant: &v1::Grant) -> anyhow::Result<Value> {
    messages::of_message("guantong.v1.Grant", grant)
}

fn one(grant: &v1::Grant) -> anyhow::Result<Report> {
    let line = |name: &str, value: String| (name.to_owned(), value);
    let lines = [
        line("scope 范围", grant.scope.clone()),
        line("kinds 种类", kinds(grant)),
        line("level 级别", level(grant).to_owned()),
        line("personal data 个人信息", personal(grant).to_owned()),
        line("handles cases as 办理部门", units(grant)),
        line("rate 调用频率", if grant.rate.is_some() { rate(grant) } else { "no limit (不限)".into() }),
        line("granted 授权时间", time(grant.update_time.as_ref())),
        line("by 授权人", grant.granted_by.clone()),
    ];
    Ok(Report::done(format!("{}\n{}", grant.name, list(&lines)), of_grant(grant)?))
}

fn all(grants: &[v1::Grant]) -> anyhow::Result<Report> {
    let rows: Vec<[String; 8]> = grants
        .iter()
        .map(|grant| {
            let partner = grant.name.strip_prefix("grants/").unwrap_or(&grant.name).to_owned();
            let at = time(grant.update_time.as_ref());
            let (level, personal) = (level(grant).to_owned(), personal(grant).to_owned());
            let units = if grant.units.is_empty() { "-".into() } else { grant.units.join(", ") };
            [partner, grant.scope.clone(), kinds(grant), level, personal, units, rate(grant), at]
        })
        .collect();
    let headers = [
        "partner 合作方",
        "scope 范围",
        "kinds 种类",
        "level 级别",
        "personal 个人信息",
        "units 部门",
        "rate 频率",
        "granted 授权时间",
    ];
    let text = match rows.as_slice() {
        [] => "no partner has a grant (尚无授权)\n".to_owned(),
        rows => table(headers, rows),
    };
    let entries: anyhow::Result<Vec<Value>> = grants.iter().map(of_grant).collect();
    Ok(Report::done(text, json!({ "grants": entries? })))
}
