//! `guantong erase`: content of a record goes for good, here and at every node that has it, and how far that has come.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use guantong_proto::rules::Kind;
use guantong_proto::v1;
use guantong_proto::v1::record_service_client::RecordServiceClient;
use tonic::transport::Channel;

use super::connection::NodeArgs;
use super::report::{Report, table, time};
use super::{json as messages, problem, whereabouts};

/// How long the command waits for the word to reach nodes that can be asked.
const WAIT_MAX: Duration = Duration::from_secs(20);
/// Between two looks.
const LOOK_INTERVAL: Duration = Duration::from_millis(300);

const EXAMPLE: &str = "\
  guantong erase divisions/220822101000/cases/ID --reason \"request of the person concerned\"
  guantong erase divisions/220822101000/cases/ID --reason \"…\" --yes
  guantong erase divisions/220822101000/grids/ID --field contact --reason \"…\" --yes
  guantong erase divisions/220822101000/cases/ID --progress

Without --yes it only says what would be erased. Without --field: all fields that say something about a person, and a
case's file. Values, values beside them, settled conflicts and what ledgers are remembered by go at every node that has
them, with its next link; a ledger does not bring them back. It cannot be taken back. (擦除不可撤销)

Then it asks every node that the record concerns, through the links: which has purged what, and which copies each knows
of and cannot reach. A node that cannot be asked is named; nothing is known beyond it. --progress asks again, at any of
these nodes.

Exit status 0 where every node has purged, 3 where one has not or that is not known
(尚有节点未清除或情况未知时退出码为3).";

/// Erase content of a record for good, at every tier (擦除记录内容，各级同步清除，不可撤销)
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLE)]
pub(crate) struct EraseArgs {
    /// The record's name, such as divisions/220822101000/cases/ID
    record: String,
    /// A field to erase; may be given several times (字段)
    #[arg(long = "field", value_name = "FIELD")]
    fields: Vec<String>,
    /// Why, without personal data; it is kept in the audit log (原因，不得含个人信息)
    #[arg(long, required_unless_present = "progress")]
    reason: Option<String>,
    /// Do it; without this, only say what would be erased (确认执行)
    #[arg(long)]
    yes: bool,
    /// Only say how far an erasure made before has come, at every node (查看各级进度)
    #[arg(long, conflicts_with_all = ["fields", "reason", "yes"])]
    progress: bool,
    #[command(flatten)]
    pub(crate) node: NodeArgs,
}

pub(crate) async fn run(args: &EraseArgs) -> anyhow::Result<Report> {
    let kind = messages::kind_of(&args.record)?;
    let mut records = args.node.connect().await?.records();
    let of_all = v1::GetErasureRequest { name: args.record.clone(), tree: true };
    if args.progress {
        let report = records.get_erasure(of_all).await.map_err(problem::plain)?.into_inner();
        return shown(kind, &report, "");
    }
    let request = v1::EraseRecordRequest {
        name: args.record.clone(),
        field_mask: (!args.fields.is_empty()).then(|| prost_types::FieldMask { paths: args.fields.clone() }),
        reason: args.reason.clone().unwrap_or_default(),
        acting_division: String::new(),
        validate_only: !args.yes,
    };
    let first = records.erase_record(request).await.map_err(problem::plain)?.into_inner();
    let count = first.value_count;
    if !args.yes {
        return would(kind, &first);
    }
    let mut report = followed(&mut records, of_all).await.map_err(|error| {
        let said = "how far it has come is not known; ask with --progress (进度未知，请用 --progress 查询)";
        error.context(format!("purged {count} values here (本级已清除); {said}"))
    })?;
    report.value_count = count;
    shown(kind, &report, &format!("here: purged {count} values (本级已清除)\n"))
}

/// Asks all nodes again and again, until waiting helps no more.
async fn followed(
    records: &mut RecordServiceClient<Channel>,
    of_all: v1::GetErasureRequest,
) -> anyhow::Result<v1::ErasureReport> {
    let bar = progress_bar()?;
    let deadline = Instant::now() + WAIT_MAX;
    loop {
        let report = records.get_erasure(of_all.clone()).await.map_err(problem::plain)?.into_inner();
        let purged = |place: &&v1::ErasurePlace| place.state() == v1::ErasurePlaceState::Purged;
        bar.set_length(report.places.len() as u64);
        bar.set_position(report.places.iter().filter(purged).count() as u64);
        if !is_under_way(&report) || Instant::now() >= deadline {
            bar.finish_and_clear();
            return Ok(report);
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}

fn progress_bar() -> anyhow::Result<indicatif::ProgressBar> {
    let template = "{spinner} {pos} of {len} nodes purged 已清除节点 ({elapsed})";
    let bar = indicatif::ProgressBar::with_draw_target(None, indicatif::ProgressDrawTarget::stderr());
    bar.set_style(indicatif::ProgressStyle::with_template(template)?);
    Ok(bar)
}

/// Whether waiting helps: a node that can be asked has not purged yet, or may answer the next time.
fn is_under_way(report: &v1::ErasureReport) -> bool {
    use v1::NodeAnswer::{Busy, Given, Silent};
    let waits = |place: &v1::ErasurePlace| match place.answer() {
        Given => place.state() == v1::ErasurePlaceState::Pending,
        answer => [Busy, Silent].contains(&answer),
    };
    report.spread() != v1::ErasureSpread::Refused && report.places.iter().any(waits)
}

/// What would be erased.
fn would(kind: &Kind, report: &v1::ErasureReport) -> anyhow::Result<Report> {
    let mut text = heading(kind, report);
    let _ = writeln!(
        text,
        "nothing was done yet; --yes erases {} values held here, and all that other nodes hold (尚未执行)",
        report.value_count
    );
    text.push_str(&out_of_reach(report));
    Ok(Report::done(text, messages::of_message("guantong.v1.ErasureReport", report)?))
}

/// How far it has come, for people and for programs.
fn shown(kind: &Kind, report: &v1::ErasureReport, first: &str) -> anyhow::Result<Report> {
    let text = text(kind, report, first);
    let message = messages::of_message("guantong.v1.ErasureReport", report)?;
    let is_done = report.spread() == v1::ErasureSpread::Everywhere;
    Ok(Report::done(text, message).needs_attention(!is_done))
}

fn heading(kind: &Kind, report: &v1::ErasureReport) -> String {
    let label = |name: &String| {
        let known = kind.fields.iter().find(|field| field.name == name.as_str());
        known.map_or_else(|| name.clone(), |field| format!("{name} {}", field.label))
    };
    let fields: Vec<String> = report.field_names.iter().map(label).collect();
    format!("{}\nfields 字段: {}\n", report.name, fields.join(", "))
}

fn text(kind: &Kind, report: &v1::ErasureReport, first: &str) -> String {
    let verdict = match report.spread() {
        v1::ErasureSpread::Everywhere => "every node has purged it 各级均已清除",
        v1::ErasureSpread::OnItsWay => "not every node has purged it yet 尚未全部清除",
        v1::ErasureSpread::Refused => "a node did not take it; see its neighbour's quarantine 有节点拒收",
        v1::ErasureSpread::None => "nothing of it was erased 未擦除任何内容",
        v1::ErasureSpread::Unknown | v1::ErasureSpread::Unspecified => {
            "not known of every node; nobody is known to lack it 部分节点情况未知"
        }
    };
    let mut text = heading(kind, report);
    text.push_str(first);
    if report.before_time.is_some() {
        let _ = writeln!(text, "erased up to 已擦除至 {}", time(report.before_time.as_ref()));
    }
    let _ = writeln!(text, "{verdict}\n");
    let rows: Vec<[String; 4]> = report.places.iter().map(row).collect();
    let headers = ["node 节点", "state 状态", "purged at 清除时间", "purged there 清除内容"];
    text.push_str(&table(headers, &rows));
    for place in &report.places {
        notes(&mut text, place);
    }
    if report.truncated {
        text.push_str("there are more nodes than these; ask at nodes below (尚有其他节点，请在下级查询)\n");
    }
    text.push_str(&out_of_reach(report));
    text
}

fn row(place: &v1::ErasurePlace) -> [String; 4] {
    let state = match (place.state(), place.answer()) {
        (v1::ErasurePlaceState::Purged, _) => "purged 已清除",
        (v1::ErasurePlaceState::Pending, _) => "not yet 未清除",
        (v1::ErasurePlaceState::Absent, _) => "does not have it 无此记录",
        (v1::ErasurePlaceState::Unspecified, v1::NodeAnswer::Given) => "nothing erased 未擦除",
        (v1::ErasurePlaceState::Unspecified, _) => "not known 未知",
    };
    let counts = place.purged.unwrap_or_default();
    let what = [
        (counts.value_count, "values 值"),
        (counts.history_count, "settled conflicts 已裁决冲突"),
        (counts.ledger_cell_count, "ledger cells 台账记忆"),
        (counts.held_cell_count, "held cells 待定行"),
        (counts.quarantine_count, "refusals 隔离项"),
    ];
    let what = what.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}"));
    let mut what = what.collect::<Vec<_>>().join(", ");
    if what.is_empty() && place.purge_time.is_some() {
        what = "held nothing of it 未持有".to_owned();
    }
    let node = format!("{} {}", place.division, place.display_name);
    [node, state.to_owned(), time(place.purge_time.as_ref()), what]
}

/// What else there is to say of a node.
fn notes(text: &mut String, place: &v1::ErasurePlace) {
    let at = &place.division;
    if place.answer() != v1::NodeAnswer::Given {
        let why = whereabouts::unanswered(place.answer(), place.since_time.as_ref(), &place.reason);
        let _ = writeln!(text, "  {at} {why}; nothing is known beyond it 其后节点未知");
        let told = match place.told() {
            v1::ErasureState::Delivered => "took it in before that 此前已送达，已清除",
            v1::ErasureState::Pending => "is still owed it 待送达",
            v1::ErasureState::Refused => "refused it 拒收",
            v1::ErasureState::Unspecified => return,
        };
        let _ = writeln!(text, "  {at} {told}");
        return;
    }
    if place.standing_count > 0 && !place.erased.is_empty() {
        let count = place.standing_count;
        let _ = writeln!(text, "  {at} holds {count} values written since 此后新写入");
    }
    if place.clearing {
        let _ = writeln!(text, "  {at} still clears unused bytes of its store 正在清理存储空闲区");
    }
    for peer in place.peers.iter().filter(|peer| peer.state() == v1::ErasureState::Refused) {
        let _ =
            writeln!(text, "  {at}: {} refused it; see the quarantine there 拒收，见隔离区", peer.division);
    }
}

/// What cannot be reached, and where it is known to be.
fn out_of_reach(report: &v1::ErasureReport) -> String {
    let mut text = String::from("\nOut of reach, to be found and destroyed by hand 须另行清除:\n");
    for place in &report.places {
        for copies in &place.copies {
            let _ = writeln!(text, "  {}: {}", place.division, copy(copies));
        }
        if place.left_out_count > 0 {
            let count = place.left_out_count;
            let _ = writeln!(text, "  {}: and {count} more that found no room 另有未列出", place.division);
        }
    }
    text.push_str(
        "  everywhere: exported files, copies of disks, and whatever no node was told of (导出文件及磁盘副本). A store put \
         back from a backup takes the erasure in again with its next link.\n",
    );
    text
}

fn copy(copies: &v1::ErasureCopies) -> String {
    let from = time(copies.first_time.as_ref());
    let span = format!("{} made from {from} to {}", copies.count, time(copies.last_time.as_ref()));
    let holder = &copies.holder;
    match copies.kind() {
        v1::CopyKind::Backup => format!("backups 备份: {span}"),
        v1::CopyKind::FormerStore => format!("stores set aside 旧库: {span}"),
        v1::CopyKind::Database => {
            "the database's own backups, logs and replicas: ask its administrator 数据库自身备份".to_owned()
        }
        v1::CopyKind::Bundle => format!("bundles for 离线数据包 {holder}: {span}"),
        v1::CopyKind::Subscription => {
            let owner =
                if copies.partner.is_empty() { "operators 本单位" } else { copies.partner.as_str() };
            let told = match copies.state() {
                v1::ErasureState::Delivered => "told 已通知",
                v1::ErasureState::Pending => "not told yet 待通知",
                v1::ErasureState::Refused => "did not take it 拒收",
                v1::ErasureState::Unspecified => "to be told 将通知",
            };
            format!("what {holder} of {owner} was given 订阅副本: {told}")
        }
        v1::CopyKind::Partner => format!("what partner {holder} may have read 合作方可能已读取"),
        v1::CopyKind::Unspecified => format!("copies that this program does not know {holder}"),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use v1::{CopyKind, ErasurePlaceState as At, ErasureSpread as Spread, ErasureState as Told, NodeAnswer};

    const NAME: &str = "divisions/220822101000/cases/1";

    fn at(seconds: i64) -> Option<prost_types::Timestamp> {
        Some(prost_types::Timestamp { seconds, nanos: 0 })
    }

    fn place(division: &str, state: At) -> v1::ErasurePlace {
        v1::ErasurePlace {
            division: division.into(),
            answer: NodeAnswer::Given.into(),
            held: true,
            state: state.into(),
            erased: vec![v1::ErasedField { field_number: 3, before: 7 }],
            purge_time: at(1_795_000_000),
            purged: Some(v1::PurgedCounts { value_count: 2, history_count: 1, ..Default::default() }),
            ..v1::ErasurePlace::default()
        }
    }

    fn report(spread: Spread, places: Vec<v1::ErasurePlace>) -> v1::ErasureReport {
        v1::ErasureReport {
            name: NAME.into(),
            field_names: vec!["parties".into()],
            before_time: at(1_795_000_000),
            spread: spread.into(),
            places,
            ..v1::ErasureReport::default()
        }
    }

    fn said(report: &v1::ErasureReport) -> String {
        text(messages::kind_of(NAME).unwrap(), report, "here: purged 2 values (本级已清除)\n")
    }

    #[test]
    fn each_node_is_named_with_what_it_purged_and_what_it_can_only_list() {
        let mut county = place("220822000000", At::Purged);
        county.clearing = true;
        county.standing_count = 3;
        let copies = |kind: CopyKind, holder: &str| v1::ErasureCopies {
            kind: kind.into(),
            holder: holder.into(),
            count: 4,
            first_time: at(1_795_000_000),
            last_time: at(1_795_100_000),
            state: Told::Pending.into(),
            ..v1::ErasureCopies::default()
        };
        county.copies = vec![
            copies(CopyKind::Backup, ""),
            copies(CopyKind::Bundle, "220800000000"),
            copies(CopyKind::Subscription, "subscriptions/feed"),
            copies(CopyKind::Partner, "hotline"),
        ];
        let down = v1::ErasurePlace {
            division: "220800000000".into(),
            answer: NodeAnswer::NotLinked.into(),
            reason: "nothing listens there".into(),
            since_time: at(1_795_000_002),
            told: Told::Pending.into(),
            ..v1::ErasurePlace::default()
        };
        let report = report(Spread::OnItsWay, vec![down, county]);
        let text = said(&report);
        for part in [
            "parties 当事人",
            "here: purged 2 values",
            "not every node has purged it yet 尚未全部清除",
            "purged 已清除",
            "2 values 值, 1 settled conflicts 已裁决冲突",
            "220800000000 could not be asked 未能查询 since 自 2026-11-18",
            "220800000000 is still owed it 待送达",
            "holds 3 values written since",
            "still clears unused bytes",
            "220822000000: backups 备份: 4 made from 2026-11-18",
            "bundles for 离线数据包 220800000000: 4 made",
            "subscriptions/feed of operators 本单位 was given 订阅副本: not told yet",
            "partner hotline may have read",
            "exported files",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        let would = would(messages::kind_of(NAME).unwrap(), &report).unwrap().text;
        assert!(would.contains("nothing was done yet") && would.contains("backups"), "{would}");
    }

    #[test]
    fn only_what_every_node_has_purged_needs_nobody() {
        let attention = |spread| {
            let report = report(spread, vec![place("220822000000", At::Purged)]);
            let shown = shown(messages::kind_of(NAME).unwrap(), &report, "").unwrap();
            shown.outcome == super::super::Outcome::NeedsAttention
        };
        assert!(!attention(Spread::Everywhere));
        for spread in [Spread::None, Spread::OnItsWay, Spread::Refused, Spread::Unknown] {
            assert!(attention(spread), "{spread:?}");
        }
    }

    #[test]
    fn it_waits_for_whom_waiting_helps() {
        let waits = |place| is_under_way(&report(Spread::OnItsWay, vec![place]));
        let unanswered =
            |answer: NodeAnswer| v1::ErasurePlace { answer: answer.into(), ..v1::ErasurePlace::default() };
        assert!(waits(place("22", At::Pending)) && waits(unanswered(NodeAnswer::Silent)));
        assert!(!waits(place("22", At::Purged)) && !waits(place("22", At::Absent)));
        assert!(!waits(unanswered(NodeAnswer::NotLinked)) && !waits(unanswered(NodeAnswer::Refused)));
        assert!(!is_under_way(&report(Spread::Refused, vec![place("22", At::Pending)])));
    }
}
