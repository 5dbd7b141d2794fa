//! Which node a command acts on.

use std::path::PathBuf;

use anyhow::Context as _;
use guantong_gateway::division::Division;
use guantong_proto::v1;

use super::problem;
use crate::client::{Client, ConnectError};
use crate::identity::{AuthorityScope, IdentityFiles};

/// Options of every command that acts on a running node.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Which node (连接哪个节点)")]
pub(crate) struct NodeArgs {
    /// The local socket of a node on this machine (本机节点的套接字)
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        env = "GUANTONG_SOCKET",
        hide_env_values = true,
        default_value = "/var/lib/guantong/guantong.sock"
    )]
    pub(crate) socket: PathBuf,
    /// A node on another machine, as host:port (其他机器上的节点)
    #[arg(
        long,
        global = true,
        value_name = "HOST:PORT",
        env = "GUANTONG_NODE",
        hide_env_values = true,
        requires = "identity"
    )]
    pub(crate) node: Option<String>,
    /// With --node: the directory that `guantong pki issue operator` or `partner` wrote (操作员或合作方证书目录)
    #[arg(long, global = true, value_name = "DIR", env = "GUANTONG_IDENTITY", hide_env_values = true)]
    pub(crate) identity: Option<PathBuf>,
    /// With --identity: its authorities are of another maker (SPIRE, an existing PKI) and name no scope (其他体系的签发机构)
    #[arg(long, global = true, env = "GUANTONG_UNLIMITED_AUTHORITIES")]
    pub(crate) unlimited_authorities: bool,
    /// Print one JSON object for programs instead of text (输出 JSON)
    #[arg(long, global = true)]
    pub(crate) json: bool,
}

impl NodeArgs {
    /// Connects to the node that is meant.
    pub(crate) async fn connect(&self) -> anyhow::Result<Client> {
        match (&self.node, &self.identity) {
            (Some(node), Some(dir)) => {
                let mut files = IdentityFiles::in_dir(dir);
                if self.unlimited_authorities {
                    files.authority_scope = AuthorityScope::Unlimited;
                }
                Client::over_tls(node, &files).await.map_err(|error| match error {
                    ConnectError::Identity(error) => {
                        anyhow::Error::new(error).context(format!("--identity {}", dir.display()))
                    }
                    other => other.into(),
                })
            }
            (Some(_), None) => None.context("--node needs --identity (缺少操作员证书)"),
            (None, _) => Ok(Client::over_socket(&self.socket).await?),
        }
    }
}

/// The division that is named, or else the node's own.
pub(crate) async fn division_or_own(client: &Client, named: Option<Division>) -> anyhow::Result<Division> {
    if let Some(named) = named {
        return Ok(named);
    }
    let status =
        client.node().get_status(v1::GetStatusRequest {}).await.map_err(problem::plain)?.into_inner();
    Division::parse(&status.division).context("the node's division cannot be read")
}
