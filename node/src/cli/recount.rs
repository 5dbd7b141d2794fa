//! `guantong recount`: proves that the counts that a node keeps, and the checksums of its links, are what its records say.

use guantong_proto::v1;
use serde_json::json;

use super::connection::NodeArgs;
use super::problem;
use super::report::{Report, columns};

const EXAMPLE: &str = "\
  guantong recount
  guantong recount --repair

Every record is counted anew, and the checksums of all links are made anew with it, as the store was when the command
began; writes go on meanwhile. Exit status 3 if something differed and was not put right (有差异且未修复时退出码为3).";

/// Count every record anew and compare with the counts that were kept (重新统计核对)
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLE)]
pub(crate) struct RecountArgs {
    /// Put right what differs (修复差异)
    #[arg(long)]
    repair: bool,
    #[command(flatten)]
    pub(crate) node: NodeArgs,
}

pub(crate) async fn run(args: &RecountArgs) -> anyhow::Result<Report> {
    let mut service = args.node.connect().await?.aggregates();
    let request = v1::RecountAggregatesRequest { repair: args.repair };
    let mut progress = service.recount_aggregates(request).await.map_err(problem::plain)?.into_inner();
    let bar = indicatif::ProgressBar::with_draw_target(None, indicatif::ProgressDrawTarget::stderr());
    let mut differences: Vec<v1::CountDifference> = Vec::new();
    let mut checksums: Vec<v1::ChecksumDifference> = Vec::new();
    let mut last = v1::RecountAggregatesResponse::default();
    while let Some(said) = progress.message().await.map_err(problem::plain)? {
        bar.set_length(u64::from(said.county_total));
        bar.set_position(u64::from(said.county_count));
        differences.extend(said.differences.iter().cloned());
        checksums.extend(said.checksum_differences.iter().cloned());
        last = said;
    }
    bar.finish_and_clear();
    anyhow::ensure!(
        last.done,
        "the node stopped before everything was counted; try again (统计未完成，请重试)"
    );
    let json = json!({
        "record_count": last.record_count,
        "unreadable_count": last.unreadable_count,
        "difference_count": last.difference_count,
        "repaired": args.repair,
        "differences": differences.iter().map(as_json).collect::<Vec<_>>(),
        "link_count": last.link_count,
        "checksum_difference_count": last.checksum_difference_count,
        "checksum_differences": checksums.iter().map(checksum_as_json).collect::<Vec<_>>(),
    });
    let differs = last.difference_count > 0 || last.checksum_difference_count > 0;
    let open = last.unreadable_count > 0 || differs && !args.repair;
    let text = text(args.repair, &last, &differences) + &checksum_text(args.repair, &last, &checksums);
    Ok(Report::done(text, json).needs_attention(open))
}

fn as_json(d: &v1::CountDifference) -> serde_json::Value {
    json!({
        "division": d.division,
        "period": d.period,
        "measure": d.measure,
        "class": d.class_name,
        "kept": d.kept,
        "counted": d.counted,
    })
}

fn checksum_as_json(d: &v1::ChecksumDifference) -> serde_json::Value {
    json!({ "peer": d.peer, "home": d.home, "kind": d.kind, "fields": d.fields })
}

fn checksum_text(
    repair: bool,
    last: &v1::RecountAggregatesResponse,
    differences: &[v1::ChecksumDifference],
) -> String {
    let links = last.link_count;
    if last.checksum_difference_count == 0 {
        return match links {
            0 => "no link has checksums that are known (没有已核算的链路校验和)\n".to_owned(),
            _ => format!(
                "the checksums of {links} links are what the records say ({links} 条链路的校验和与记录一致)\n"
            ),
        };
    }
    let row = |d: &v1::ChecksumDifference| {
        let home = if d.home.is_empty() { "all 全部".to_owned() } else { d.home.clone() };
        let fields = d.fields.iter().map(u32::to_string).collect::<Vec<_>>().join(" ");
        vec![d.peer.clone(), home, d.kind.clone(), fields]
    };
    let headers = ["link 链路", "home 归属", "kind 类型", "fields 字段"];
    let table = columns(&headers, &differences.iter().map(row).collect::<Vec<_>>());
    let done = if repair {
        "they are computed anew now (正在重新核算)"
    } else {
        "have them computed anew with --repair (可用 --repair 重新核算)"
    };
    let count = last.checksum_difference_count;
    format!("{table}{count} checksums of links are not what the records say; {done} (链路校验和与记录不符)\n")
}

fn text(repair: bool, last: &v1::RecountAggregatesResponse, differences: &[v1::CountDifference]) -> String {
    let counted = format!("{} records counted (已统计 {} 条记录)\n", last.record_count, last.record_count);
    let unreadable = match last.unreadable_count {
        0 => String::new(),
        n => format!("{n} records cannot be read and were not counted (无法读取，未计入)\n"),
    };
    if last.difference_count == 0 {
        return format!("{counted}{unreadable}the kept counts are what the records say (统计数与记录一致)\n");
    }
    let row = |d: &v1::CountDifference| {
        let period = if d.period.is_empty() { "now, all days 全部".to_owned() } else { d.period.clone() };
        vec![
            d.division.clone(),
            period,
            d.measure.clone(),
            d.class_name.clone(),
            d.kept.to_string(),
            d.counted.to_string(),
        ]
    };
    let headers = ["division 区划", "period 周期", "count 计数", "class 分类", "kept 原值", "counted 重算"];
    let table = columns(&headers, &differences.iter().map(row).collect::<Vec<_>>());
    let more = last.difference_count.saturating_sub(differences.len() as u64);
    let more = if more > 0 { format!("and {more} more (另有 {more} 处)\n") } else { String::new() };
    let done = if repair {
        "all of it was put right (已修复)"
    } else {
        "put it right with --repair (可用 --repair 修复)"
    };
    format!("{table}{more}{counted}{unreadable}{} numbers differ; {done}\n", last.difference_count)
}
