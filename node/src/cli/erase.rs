//! `guantong erase`: content of a record goes for good, here and at every node that has it.

use std::time::{Duration, Instant};

use guantong_proto::v1;

use super::connection::NodeArgs;
use super::report::{Report, table, time};
use super::{json as messages, problem};

/// How long the command waits for neighbours that are linked.
const WAIT_MAX: Duration = Duration::from_secs(10);
/// Between two looks.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);

const EXAMPLE: &str = "\
  guantong erase divisions/220822101000/cases/ID --reason \"request of the person concerned\"
  guantong erase divisions/220822101000/cases/ID --reason \"…\" --yes
  guantong erase divisions/220822101000/grids/ID --field contact --reason \"…\" --yes
  guantong erase divisions/220822101000/cases/ID --progress

Without --yes it only says what would be erased. Without --field: all fields that say something about a person, and a
case's file. Values, values beside them, settled conflicts and what ledgers are remembered by go at every node that has
them, with its next link; a ledger does not bring them back. It cannot be taken back. (擦除不可撤销)";

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
    /// Only say how far an erasure made before has come (查看进度)
    #[arg(long, conflicts_with_all = ["fields", "reason", "yes"])]
    progress: bool,
    #[command(flatten)]
    pub(crate) node: NodeArgs,
}

pub(crate) async fn run(args: &EraseArgs) -> anyhow::Result<Report> {
    messages::kind_of(&args.record)?;
    let mut records = args.node.connect().await?.records();
    let progress = v1::GetErasureRequest { name: args.record.clone(), tree: false };
    if args.progress {
        let report = records.get_erasure(progress).await.map_err(problem::plain)?.into_inner();
        let first = match &report.before_time {
            Some(before) => format!("erased up to {} (已擦除至)", time(Some(before))),
            None => "nothing of it was erased (未擦除任何内容)".to_owned(),
        };
        return shown(&report, first, true);
    }
    let request = v1::EraseRecordRequest {
        name: args.record.clone(),
        field_mask: (!args.fields.is_empty()).then(|| prost_types::FieldMask { paths: args.fields.clone() }),
        reason: args.reason.clone().unwrap_or_default(),
        acting_division: String::new(),
        validate_only: !args.yes,
    };
    let mut report = records.erase_record(request).await.map_err(problem::plain)?.into_inner();
    if !args.yes {
        let first = format!(
            "nothing was done yet; --yes erases {} values held here, and all that other nodes hold (尚未执行)",
            report.value_count
        );
        return shown(&report, first, false);
    }
    let purged = report.value_count;
    let deadline = Instant::now() + WAIT_MAX;
    while Instant::now() < deadline && awaited(&report) {
        tokio::time::sleep(LOOK_INTERVAL).await;
        let now = records.get_erasure(progress.clone()).await.map_err(problem::plain)?.into_inner();
        report.places = now.places;
    }
    shown(&report, format!("here: purged {purged} values (本级已清除)"), true)
}

fn peers(report: &v1::ErasureReport) -> impl Iterator<Item = &v1::ErasurePeer> {
    report.places.iter().flat_map(|place| &place.peers)
}

/// Whether a neighbour that is linked has not taken it in yet.
fn awaited(report: &v1::ErasureReport) -> bool {
    peers(report).any(|peer| peer.connected && peer.state() == v1::ErasureState::Pending)
}

fn state(state: v1::ErasureState) -> &'static str {
    match state {
        v1::ErasureState::Pending => "pending 待送达",
        v1::ErasureState::Delivered => "delivered 已送达",
        v1::ErasureState::Refused => "refused 被拒绝, see quarantine",
        v1::ErasureState::Unspecified => "?",
    }
}

/// For people and for programs. A neighbour that is not reached yet needs somebody's attention once something was done.
fn shown(report: &v1::ErasureReport, first: String, done: bool) -> anyhow::Result<Report> {
    let mut text = format!("{}\nfields (字段): {}\n{first}\n", report.name, report.field_names.join(", "));
    let told = peers(report).map(|peer| {
        let which = if peer.is_parent { "parent 上级" } else { "child 下级" };
        let link = if peer.connected { "up 已连接" } else { "down 已断开" };
        [format!("{which} {}", peer.division), link.to_owned(), state(peer.state()).to_owned()]
    });
    let subscribers = report.places.iter().flat_map(|place| &place.copies).map(|copies| {
        let partner = if copies.partner.is_empty() { "operators" } else { copies.partner.as_str() };
        [format!("{} of {partner}", copies.holder), String::new(), state(copies.state()).to_owned()]
    });
    let rows: Vec<[String; 3]> = told.chain(subscribers).collect();
    if !rows.is_empty() {
        text.push_str(&table(["told 通知对象", "link 链路", "word of it 进度"], &rows));
        text.push_str(
            "Nodes beyond these are told by them; ask there with --progress. (更远节点由其逐级通知)\n",
        );
    }
    text.push_str(
        "This node cannot reach: backups, copies of the database and its logs, bundles and exported files made before; \
         what partners and subscribers wrote to files of their own. Find and destroy those; a store restored from a \
         backup takes the erasure in again with its next link. (备份、导出文件及合作方副本须另行清除)\n",
    );
    let open = [v1::ErasureState::Pending, v1::ErasureState::Refused];
    let unfinished = done && peers(report).any(|peer| open.contains(&peer.state()));
    let message = messages::of_message("guantong.v1.ErasureReport", report)?;
    Ok(Report::done(text, message).needs_attention(unfinished))
}
