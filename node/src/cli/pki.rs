//! `guantong pki`: authorities in directories, certificates for nodes, partners and operators, and their revocation.
//!
//! It works on files only and needs no running node. It must never print a key, and never overwrite what is there
//! unless told to.

mod issue;
mod keep;
mod show;

use std::io::{self, Write as _};
use std::path::PathBuf;

use serde_json::Value;

use crate::identity::TrustDomain;

const OVERVIEW: &str = "\
A first authority and a first pair of nodes:
  guantong pki init --dir root
  guantong pki issue node 220822 --dir root --out county --host county.example
  guantong pki issue node 220822101 --dir root --out town
  guantong pki issue operator li.wei --dir root --out li.wei
Copy each directory to its machine, as it is.

With the key made where it stays, and only a request travelling:
  guantong pki request --out county                                            (on the county's machine)
  guantong pki sign-request request.pem --for node/220822000000 --dir root --out signed --host county.example
Copy what is in `signed` into `county`.

The root stays offline: whoever has its key can be any node. Let prefectures and counties sign for their own:
  guantong pki issue authority 2208 --dir root --out prefecture-authority";

const ROTATE: &str = "\
  guantong pki rotate --dir root
  guantong pki export --dir root --out FOLDER      and copy it to every node, over its files
Until the old root ends, nodes accept what either signed, and nodes that know only the old one accept the new one's, too.
Certificates go on as they are; renew those that outlive the old root:
  guantong pki renew county/certificate.pem --dir root --out county";

/// Certificates: authorities, signing, renewal, revocation (证书：签发机构、签发、续期、吊销)
#[derive(Debug, clap::Args)]
#[command(after_help = OVERVIEW)]
pub struct PkiArgs {
    /// Print one JSON object instead of text
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Make a new root authority (新建根签发机构)
    Init(Init),
    /// Issue a certificate with a new key, or an authority below this one (签发证书或下级机构)
    #[command(after_help = OVERVIEW)]
    Issue(issue::Issue),
    /// Make a key that stays here and a request for a certificate of it (生成密钥和签名请求)
    Request(issue::MakeRequest),
    /// Sign a request that was made where its key stays (为签名请求签发证书)
    SignRequest(issue::SignRequest),
    /// Show what a certificate or a file of revocation lists says (查看证书或吊销列表)
    Show {
        /// A file in PEM form
        file: PathBuf,
    },
    /// List what an authority has issued (列出已签发的证书)
    List(Dir),
    /// Sign a certificate again, with its key and names, for a new time (证书续期)
    Renew(issue::Renew),
    /// Revoke certificates and write a new revocation list (吊销证书并更新吊销列表)
    Revoke(keep::Revoke),
    /// Write the revocation list anew, good for another year (更新吊销列表，有效期一年)
    RenewList(Dir),
    /// Write what every node and partner needs: the roots and the revocation lists (导出根证书和吊销列表)
    Export(keep::Export),
    /// Take over newer roots and lists from above into an authority's directory (导入上级的根证书和吊销列表)
    TakeOver(keep::TakeOver),
    /// Replace a root by a new key, with a time in which both are good (轮换根密钥)
    #[command(after_help = ROTATE)]
    Rotate(keep::Rotate),
}

#[derive(Debug, clap::Args)]
struct Dir {
    /// The authority's directory
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
}

#[derive(Debug, clap::Args)]
struct Init {
    #[command(flatten)]
    dir: Dir,
    /// The name that all identities of this authority share; all nodes that are to be linked need the same
    #[arg(long, value_name = "NAME", default_value = TrustDomain::DEFAULT)]
    trust_domain: TrustDomain,
    /// How long the authority is valid; nothing it issues outlives it
    #[arg(long, value_name = "DAYS", default_value_t = 3650)]
    days: u32,
    /// Replace an authority that is there; every certificate it issued becomes worthless
    #[arg(long)]
    force: bool,
}

/// Runs the command and prints what was done and what comes next.
///
/// # Errors
/// Says what was wrong and what to do; nothing is half done.
pub fn run(args: PkiArgs) -> anyhow::Result<()> {
    let report = report_of(args.command)?;
    let text = if args.json { format!("{:#}\n", report.json) } else { report.text };
    match io::stdout().lock().write_all(text.as_bytes()) {
        // The reader of a pipe has seen enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => Ok(written?),
    }
}

fn report_of(command: Command) -> anyhow::Result<Report> {
    match command {
        Command::Init(init) => keep::init(init),
        Command::Issue(args) => issue::issue(args),
        Command::Request(args) => issue::make_request(&args),
        Command::SignRequest(args) => issue::sign_request(&args),
        Command::Show { file } => show::show(&file),
        Command::List(dir) => show::list(&dir),
        Command::Renew(args) => issue::renew(&args),
        Command::Revoke(args) => keep::revoke(&args),
        Command::RenewList(dir) => keep::renew_list(&dir),
        Command::Export(args) => keep::export(&args),
        Command::TakeOver(args) => keep::take_over(&args),
        Command::Rotate(args) => keep::rotate(&args),
    }
}

/// The same outcome twice: for people and for programs.
struct Report {
    text: String,
    json: Value,
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
