//! `guantong store`: work on the database of a node itself. It asks no node, since it is for the server's owner.

use guantong_gateway::store::{Distribution, distribute};
use serde_json::json;

use super::Outcome;
use super::report::Report;

const EXAMPLE: &str = "\
  guantong store distribute --store postgres://owner@coordinator.example/guantong

Counties are then spread over the workers of the Citus cluster; the node goes on with the same URL. Without the
extension nothing is changed. Exit status 3: the extension is not there.";

/// Work on the database of a node (数据库维护)
#[derive(Debug, clap::Args)]
pub(crate) struct StoreArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    Distribute(DistributeArgs),
}

/// Spread a PostgreSQL store over a Citus cluster, by county (按县分布到 Citus 集群)
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLE)]
pub(crate) struct DistributeArgs {
    /// The node's database on the coordinator, as the node names it; with a password better in the environment
    #[arg(long, value_name = "URL", env = "GUANTONG_STORE", hide_env_values = true)]
    store: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(args: StoreArgs) -> anyhow::Result<Outcome> {
    let What::Distribute(args) = args.what;
    let (text, tables, done) = match distribute(&args.store).await? {
        Distribution::Done(tables) => {
            (format!("spread by county: {} (已按县分布)\n", tables.join(", ")), tables, true)
        }
        Distribution::Already => {
            ("it is spread already; nothing was changed (已分布)\n".to_owned(), Vec::new(), true)
        }
        Distribution::NoExtension => {
            let text = "the extension Citus is not in this database, so nothing was changed: install it on every \
                        server, then CREATE EXTENSION citus here and name the workers with citus_add_node (未安装 Citus)\n";
            (text.to_owned(), Vec::new(), false)
        }
    };
    Report::done(text, json!({ "distributed": done, "tables": tables }))
        .needs_attention(!done)
        .print(args.json)
}
