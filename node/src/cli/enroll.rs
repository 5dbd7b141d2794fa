//! `guantong enroll`: the first certificate of a new node, and a configuration that it starts from.

use std::path::PathBuf;

use guantong_gateway::invitation::Code;
use serde_json::json;

use super::report::Report;
use crate::config::DATA_DIR;
use crate::identity::words::beijing_time;

mod ask;
mod place;

use place::Place;

const EXAMPLE: &str = "\
  guantong enroll --parent county.example:7443 --code 5N2K-…  (as the county's operator gave it)
  guantong serve --config /var/lib/guantong/guantong.toml

The key is made here and never leaves this machine. A configuration that is there already is completed: what it says
stays as it is. If the answer is lost on the way, run the same command again. (私钥在本机生成，不会外传)";

/// Come by a certificate with an invitation code (凭邀请码入网)
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLE)]
pub(crate) struct EnrollArgs {
    /// The parent node, as host:port (上级节点地址)
    #[arg(long, value_name = "HOST:PORT")]
    parent: String,
    /// The code that the parent's operator gave you (邀请码)
    #[arg(long, env = "GUANTONG_CODE", hide_env_values = true)]
    code: Code,
    /// Where key, certificate and lists go, and the node's data (证书与数据目录)
    #[arg(long, value_name = "DIR", default_value = DATA_DIR)]
    out: PathBuf,
    /// The configuration to write or to complete; default: guantong.toml in --out (配置文件)
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// For a node that others dial: `address:port` to listen on (监听地址)
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Option<String>,
    /// Replace the key and certificate that are there (覆盖已有的私钥和证书)
    #[arg(long)]
    force: bool,
    /// Print one JSON object for programs instead of text (输出 JSON)
    #[arg(long)]
    pub(crate) json: bool,
}

pub(crate) async fn run(args: &EnrollArgs) -> anyhow::Result<Report> {
    let config = args.config.clone().unwrap_or_else(|| args.out.join("guantong.toml"));
    let place = Place::find(args.out.clone(), config, args.listen.clone())?;
    let enrolled = ask::enrol(&args.parent, &args.code, &place, args.force).await?;
    let config = enrolled.config.display();
    let text = format!(
        "This is {}, below {}. Its certificate is good until {} and renews itself. (已入网)\n\
         Next: guantong serve --config {config}\n",
        enrolled.id,
        enrolled.parent,
        beijing_time(enrolled.not_after_ms),
    );
    let json = json!({
        "id": enrolled.id.to_string(),
        "parent": enrolled.parent.to_string(),
        "not_after_ms": enrolled.not_after_ms,
        "config": enrolled.config,
    });
    Ok(Report::done(text, json))
}
