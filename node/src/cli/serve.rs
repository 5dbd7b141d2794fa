//! `guantong serve`: runs a node, or checks whether it could run.

use std::path::PathBuf;

use super::Outcome;
use super::report::Report;

const EXAMPLE: &str = "\
The smallest configuration of a township's node (最小配置):
  division = \"220822101\"
  [parent]
  division = \"220822\"
  address = \"county.example:7443\"
  [tls]
  certificate = \"/var/lib/guantong/certificate.pem\"
  key = \"/var/lib/guantong/key.pem\"
  authority = \"/var/lib/guantong/authority.pem\"
  revocation_list = \"/var/lib/guantong/revocations.pem\"

A county, prefecture or province also has listen = \"0.0.0.0:7443\"; the top of the tree has no [parent].
A prefecture or province may keep its records in PostgreSQL: store = \"postgres://USER@HOST/DATABASE?sslmode=verify-full\";
a URL with a password goes into the environment, as GUANTONG_STORE.
Every key can be set by an environment variable: GUANTONG_PARENT__ADDRESS stands for address in [parent].

Signals: SIGTERM or SIGINT stops the node in good order; SIGHUP reads certificate and revocation list again.";

/// Run a node (运行节点)
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLE)]
pub(crate) struct ServeArgs {
    /// The configuration, a TOML file (配置文件)
    #[arg(long, value_name = "FILE", env = "GUANTONG_CONFIG", hide_env_values = true)]
    config: PathBuf,
    /// Only check the configuration, the certificate it names and the store (仅检查配置、证书和数据存储)
    #[arg(long)]
    check: bool,
    /// Stop in good order when standard input ends, for programs that run a node as their child
    #[arg(long, conflicts_with = "check")]
    until_stdin_ends: bool,
}

pub(crate) fn run(args: &ServeArgs) -> anyhow::Result<Outcome> {
    if !args.check {
        if args.until_stdin_ends {
            std::thread::spawn(stop_with_stdin);
        }
        return crate::serve::run(&args.config).map(|()| Outcome::Done);
    }
    let (config, store) = crate::serve::check(&args.config)?;
    let text = format!(
        "{} is sound: the node of division {}, its store {store} (配置无误)\n",
        args.config.display(),
        config.division
    );
    Report::done(text, serde_json::Value::Null).print(false)
}

/// Waits for the end of standard input, and then stops the node as SIGTERM does. Whatever becomes of the program at the
/// other end, the system closes it.
fn stop_with_stdin() {
    let _ = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
    let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::TERM);
}
