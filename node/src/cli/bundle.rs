//! `guantong bundle`: files for networks with no line between them, made and taken in by the running node.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use guantong_gateway::bundle::inspect;
use guantong_gateway::division::Division;
use guantong_proto::v1;
use guantong_proto::v1::bundle_service_client::BundleServiceClient;
use serde_json::json;
use tonic::transport::Channel;

use super::connection::NodeArgs;
use super::report::{Report, list, time};
use super::{json as messages, problem};

mod files;

/// The largest answer: a frame of a bundle.
const ANSWER_BYTES_MAX: usize = 4 * 1024 * 1024;
/// A card is small.
const CARD_BYTES_MAX: u64 = 1024 * 1024;

const EXAMPLE: &str = "\
Once, so that each side can seal for the other (首次使用，交换名片):
  county$   guantong bundle card county.card
  township$ guantong bundle accept county.card

Then, as often as somebody goes there (日常往返):
  township$ guantong bundle export --for 220822 up-14.bundle
  county$   guantong bundle import up-14.bundle --receipt down-9.bundle
  township$ guantong bundle import down-9.bundle

What a bundle holds stays owed until its receipt is taken in, so a bundle may be lost, late, or taken in twice.
(未收到回执的内容会在下一个数据包中再次带上，丢失、迟到、重复导入均无影响)";

/// Exchange by files with nodes that there is no line to (离线数据包交换)
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLE)]
pub(crate) struct BundleArgs {
    #[command(subcommand)]
    action: Action,
    #[command(flatten)]
    pub(crate) node: NodeArgs,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Write this node's card: with it other nodes make bundles for this one (导出本节点名片)
    Card {
        /// Where to (文件)
        file: PathBuf,
    },
    /// Keep the card of the parent or of a node below (接受对方名片)
    Accept {
        /// The card (文件)
        file: PathBuf,
    },
    /// Make a bundle: everything that a node is owed, and receipts (导出数据包)
    Export {
        /// The parent, or a node below (接收方区划)
        #[arg(long = "for", value_name = "DIVISION")]
        receiver: Division,
        /// Only what was added since the last one: small, where that one is known to arrive (仅导出上次之后新增的内容)
        #[arg(long)]
        since_last: bool,
        /// Where to; a file of this name is replaced when the new one is whole (文件)
        file: PathBuf,
    },
    /// Take in a bundle: verified whole before anything is written (导入数据包)
    Import {
        /// The bundle (文件)
        file: PathBuf,
        /// Make a bundle with the receipt at once (同时导出回执)
        #[arg(long, value_name = "FILE")]
        receipt: Option<PathBuf>,
    },
    /// Say whose a bundle is and whether it is whole; its seal is checked only when it is taken in (查看数据包)
    Show {
        /// The bundle (文件)
        file: PathBuf,
    },
}

type Client = BundleServiceClient<Channel>;

pub(crate) async fn run(args: &BundleArgs) -> anyhow::Result<Report> {
    match &args.action {
        Action::Show { file } => show(file),
        action => act(action, args.node.connect().await?.channel()).await,
    }
}

async fn act(action: &Action, channel: Channel) -> anyhow::Result<Report> {
    let mut client = BundleServiceClient::new(channel).max_decoding_message_size(ANSWER_BYTES_MAX);
    match action {
        Action::Show { file } => show(file),
        Action::Card { file } => card(&mut client, file).await,
        Action::Accept { file } => accept(&mut client, file).await,
        Action::Export { receiver, since_last, file } => {
            let done = files::export(&mut client, *receiver, *since_last, file).await?;
            let text = format!(
                "{} is whole; carry it to {} (数据包已生成)\n{}",
                file.display(),
                done.receiver,
                made(&done)
            );
            Ok(Report::done(text, messages::of_message("guantong.v1.BundleSummary", &done)?))
        }
        Action::Import { file, receipt } => import(&mut client, file, receipt.as_deref()).await,
    }
}

fn show(path: &Path) -> anyhow::Result<Report> {
    let file = std::fs::File::open(path).with_context(|| path.display().to_string())?;
    let found = inspect(std::io::BufReader::new(file)).with_context(|| path.display().to_string())?;
    let time_ms = i64::try_from(found.head.time_ms).unwrap_or(i64::MAX);
    let at = prost_types::Timestamp { seconds: time_ms / 1_000, nanos: 0 };
    let checksum: String = found.checksum.iter().map(|byte| format!("{byte:02x}")).collect();
    let lines = [
        ("from 发送方", found.head.sender.to_string()),
        ("for 接收方", found.head.receiver.to_string()),
        ("number 编号", found.head.number.to_string()),
        ("made 生成时间", time(Some(&at))),
        ("bytes 字节", found.byte_count.to_string()),
        ("BLAKE3", checksum.clone()),
    ];
    let text = list(&lines.map(|(name, value)| (name.to_owned(), value)));
    let json = json!({
        "sender": found.head.sender.to_string(),
        "receiver": found.head.receiver.to_string(),
        "number": found.head.number,
        "time_ms": time_ms,
        "byte_count": found.byte_count,
        "checksum": checksum,
    });
    Ok(Report::done(text, json))
}

async fn card(client: &mut Client, path: &Path) -> anyhow::Result<Report> {
    let card =
        client.get_bundle_card(v1::GetBundleCardRequest {}).await.map_err(problem::plain)?.into_inner();
    files::write_whole(path, &card.card)?;
    let text = format!(
        "{} is the card of {}, key {}; give it to the nodes above or below, and let them compare the key by telephone \
         (名片已导出，请与对方电话核对密钥编号)\n",
        path.display(),
        card.division,
        card.key_id
    );
    Ok(Report::done(text, json!({ "division": card.division, "key_id": card.key_id })))
}

async fn accept(client: &mut Client, path: &Path) -> anyhow::Result<Report> {
    let bytes = std::fs::metadata(path).with_context(|| path.display().to_string())?.len();
    anyhow::ensure!(bytes <= CARD_BYTES_MAX, "{} is too large for a card (该文件不是名片)", path.display());
    let card = std::fs::read(path).with_context(|| path.display().to_string())?;
    let request = v1::AcceptBundleCardRequest { card: card.into() };
    let accepted = client.accept_bundle_card(request).await.map_err(problem::plain)?.into_inner();
    let text = format!(
        "the card of {}, key {}, signed {}, is accepted (已接受名片)\n",
        accepted.division,
        accepted.key_id,
        time(accepted.time.as_ref())
    );
    Ok(Report::done(text, messages::of_message("guantong.v1.AcceptBundleCardResponse", &accepted)?))
}

async fn import(client: &mut Client, path: &Path, receipt: Option<&Path>) -> anyhow::Result<Report> {
    let done = files::import(client, path).await?;
    let mut text = match done.repeated {
        true => {
            format!("{} was taken in before; nothing was to be done (该数据包已导入过)\n", path.display())
        }
        false => format!("{} is taken in (数据包已导入)\n", path.display()),
    };
    text.push_str(&taken(&done));
    let mut json = json!({ "bundle": messages::of_message("guantong.v1.BundleSummary", &done)? });
    if let Some(receipt) = receipt {
        let sender = Division::parse(&done.sender).context("the answer cannot be read")?;
        let made_for = files::export(client, sender, false, receipt).await?;
        text.push_str(&format!(
            "{} brings the receipt back (回执已生成)\n{}",
            receipt.display(),
            made(&made_for)
        ));
        json["receipt"] = messages::of_message("guantong.v1.BundleSummary", &made_for)?;
    }
    Ok(Report::done(text, json).needs_attention(done.refused_count > 0))
}

fn head(done: &v1::BundleSummary) -> Vec<(String, String)> {
    vec![
        ("from 发送方".to_owned(), done.sender.clone()),
        ("for 接收方".to_owned(), done.receiver.clone()),
        ("number 编号".to_owned(), format!("{} {}", done.number, time(done.time.as_ref()))),
        ("records 记录".to_owned(), done.record_count.to_string()),
        ("receipts 回执".to_owned(), done.receipt_count.to_string()),
        ("bytes 字节".to_owned(), done.byte_count.to_string()),
        ("BLAKE3".to_owned(), done.checksum.clone()),
    ]
}

fn made(done: &v1::BundleSummary) -> String {
    list(&head(done))
}

fn taken(done: &v1::BundleSummary) -> String {
    let mut lines = head(done);
    lines.push(("refused 拒收".to_owned(), done.refused_count.to_string()));
    lines.push(("outbox rows delivered 送达批次".to_owned(), done.delivered_count.to_string()));
    list(&lines)
}
