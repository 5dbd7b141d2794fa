//! `guantong duplicates`: cameras or cases that are likely the same twice, for a person to decide.

use guantong_gateway::division::Division;
use guantong_proto::v1;
use serde_json::{Value, json};

use super::connection::{NodeArgs, division_or_own};
use super::pages::{self, PAGE_SIZE};
use super::report::{Report, table};
use super::{json as messages, problem};

/// Rows printed for people.
const SHOWN_MAX: usize = 200;

const EXAMPLE: &str = "\
  guantong duplicates camera
  guantong duplicates case --division 220822
  guantong set divisions/220822101000/cases/2 duplicate_of=divisions/220822101000/cases/1

Cameras: the same device id under two homes; or within 10 m of each other with a function in common in different
networks. Cases: the same number of another system; or the same day and division with the same title or party. Nothing
is ever merged by itself. A case that names the other in duplicate_of, a closed one and a deleted record are no longer
listed. (只提示，不自动合并)";

/// List what is likely recorded twice (疑似重复记录)
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLE)]
pub(crate) struct DuplicatesArgs {
    /// Which records
    kind: Kind,
    /// Of this division and those inside it; default: the node's own
    #[arg(long, value_name = "CODE")]
    division: Option<Division>,
    #[command(flatten)]
    pub(crate) node: NodeArgs,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Kind {
    /// Video surveillance points (视频监控点位)
    Camera,
    /// Disputes and incidents (事件)
    Case,
}

pub(crate) async fn run(args: &DuplicatesArgs) -> anyhow::Result<Report> {
    let client = args.node.connect().await?;
    let parent = format!("divisions/{}", division_or_own(&client, args.division).await?);
    let kind = match args.kind {
        Kind::Camera => "camera",
        Kind::Case => "case",
    };
    let mut found: Vec<v1::Duplicate> = Vec::new();
    let mut truncated = false;
    pages::each(async |page_token| {
        let (parent, kind) = (parent.clone(), kind.to_owned());
        let request = v1::ListDuplicatesRequest { parent, kind, page_size: PAGE_SIZE, page_token };
        let page = client.conflicts().list_duplicates(request).await.map_err(problem::plain)?.into_inner();
        found.extend(page.duplicates);
        truncated |= page.truncated;
        Ok(page.next_page_token)
    })
    .await?;
    let entries: anyhow::Result<Vec<Value>> =
        found.iter().map(|entry| messages::of_message("guantong.v1.Duplicate", entry)).collect();
    let report =
        Report::done(text(&found, truncated), json!({ "duplicates": entries?, "truncated": truncated }));
    Ok(report.needs_attention(!found.is_empty()))
}

fn text(found: &[v1::Duplicate], truncated: bool) -> String {
    if found.is_empty() {
        return "nothing looks like a duplicate (未发现疑似重复)\n".to_owned();
    }
    let rows: Vec<[String; 3]> = found
        .iter()
        .take(SHOWN_MAX)
        .map(|entry| {
            let more = entry.records.len().saturating_sub(2);
            let more = if more > 0 { format!(" + {more}") } else { String::new() };
            let record = |n: usize| entry.records.get(n).cloned().unwrap_or_default();
            [record(0), format!("{}{more}", record(1)), reason(entry)]
        })
        .collect();
    let mut text = table(["record 记录", "likely the same 疑似相同", "why 原因"], &rows);
    if found.len() > rows.len() {
        text.push_str(&format!("and {} more; --json lists all\n", found.len() - rows.len()));
    }
    if truncated {
        text.push_str(
            "there are more than are listed: name a smaller --division (结果过多，请缩小区划范围)\n",
        );
    }
    text
}

fn reason(entry: &v1::Duplicate) -> String {
    match entry.reason() {
        v1::DuplicateReason::DeviceId => "same device id (设备编码相同)".into(),
        v1::DuplicateReason::Nearby => format!("{:.1} m apart (位置相近)", entry.distance_m),
        v1::DuplicateReason::ExternalNumber => "same external number (外部编号相同)".into(),
        v1::DuplicateReason::Title => "same day and title (同日标题相同)".into(),
        v1::DuplicateReason::Party => "same day and party (同日当事人相同)".into(),
        v1::DuplicateReason::Unspecified => String::new(),
    }
}
