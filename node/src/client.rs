//! A connection to a running node, for the command line, the demonstration and tests: over its local socket, or over
//! mutual TLS with an operator's certificate. It must never look at a node's files.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use guantong_proto::v1::aggregate_service_client::AggregateServiceClient;
use guantong_proto::v1::assurance_service_client::AssuranceServiceClient;
use guantong_proto::v1::audit_service_client::AuditServiceClient;
use guantong_proto::v1::backup_service_client::BackupServiceClient;
use guantong_proto::v1::conflict_service_client::ConflictServiceClient;
use guantong_proto::v1::grant_service_client::GrantServiceClient;
use guantong_proto::v1::node_service_client::NodeServiceClient;
use guantong_proto::v1::record_service_client::RecordServiceClient;
use guantong_proto::v1::report_service_client::ReportServiceClient;
use guantong_proto::v1::submission_service_client::SubmissionServiceClient;
use guantong_proto::v1::subscription_service_client::SubscriptionServiceClient;
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint, Uri};

use crate::identity::{DialError, ExpectedPeer, Identity, IdentityError, IdentityFiles, connect};

/// For connecting, until the node has said its first word.
const CONNECT_TIME: Duration = Duration::from_secs(15);
/// The largest answer that is taken: a page of records with long texts.
const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Why there is no connection, in plain words.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Nobody listens on the socket.
    #[error(
        "no node listens on {}; is `guantong serve` running on this machine? Otherwise name its socket with --socket, \
         or another machine's node with --node (本机节点未运行，或 --socket 路径有误)",
        .0.display()
    )]
    NoNode(PathBuf),
    /// The socket is there, and closed to this user.
    #[error(
        "{} is closed to this user; ask to be taken into the group that the node's `socket_group` names \
         (无权访问节点套接字，请加入相应用户组)",
        .0.display()
    )]
    Closed(PathBuf),
    /// Anything else that the socket says.
    #[error("cannot connect to {}: {source} (无法连接)", path.display())]
    Socket {
        /// Which socket.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The identity to connect with.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The other machine.
    #[error(transparent)]
    Dial(#[from] DialError),
}

/// A connection to one node. Cheap to clone; clones share it.
#[derive(Clone, Debug)]
pub struct Client {
    channel: Channel,
}

impl Client {
    /// Connects over a node's local socket. A connection that is lost is made again at the next call.
    ///
    /// # Errors
    /// Nobody listens there, or not to this user.
    pub async fn over_socket(path: &Path) -> Result<Client, ConnectError> {
        // The channel would only say that it could not connect.
        UnixStream::connect(path).await.map_err(|source| of_socket(path, source))?;
        let owned = path.to_owned();
        let connector = tower::service_fn(move |_: Uri| {
            let path = owned.clone();
            async move { UnixStream::connect(path).await.map(TokioIo::new) }
        });
        // The name is not looked up; HTTP wants one.
        let channel = Endpoint::from_static("http://local.guantong").connect_with_connector(connector).await;
        let channel = channel.map_err(|error| of_socket(path, io::Error::other(error)))?;
        Ok(Client { channel })
    }

    /// Connects to `host:port` over mutual TLS with the identity in these files. The connection is not made again.
    ///
    /// # Errors
    /// What is wrong with the files or with the way there.
    pub async fn over_tls(endpoint: &str, files: &IdentityFiles) -> Result<Client, ConnectError> {
        let identity = Identity::load(files)?;
        let dialed = connect(endpoint, &identity, ExpectedPeer::AnyNode, CONNECT_TIME).await?;
        Ok(Client { channel: dialed.channel })
    }

    /// Records: read, write, list, move, import.
    pub fn records(&self) -> RecordServiceClient<Channel> {
        RecordServiceClient::new(self.channel.clone()).max_decoding_message_size(ANSWER_BYTES_MAX)
    }

    /// Figures over records.
    pub fn aggregates(&self) -> AggregateServiceClient<Channel> {
        AggregateServiceClient::new(self.channel.clone()).max_decoding_message_size(ANSWER_BYTES_MAX)
    }

    /// Copies of the node's store.
    pub fn backups(&self) -> BackupServiceClient<Channel> {
        BackupServiceClient::new(self.channel.clone()).max_decoding_message_size(ANSWER_BYTES_MAX)
    }

    /// Whether links are equal, and where a record is.
    pub fn assurance(&self) -> AssuranceServiceClient<Channel> {
        AssuranceServiceClient::new(self.channel.clone()).max_decoding_message_size(ANSWER_BYTES_MAX)
    }

    /// The audit log.
    pub fn audit(&self) -> AuditServiceClient<Channel> {
        AuditServiceClient::new(self.channel.clone()).max_decoding_message_size(ANSWER_BYTES_MAX)
    }

    /// Values that stand side by side.
    pub fn conflicts(&self) -> ConflictServiceClient<Channel> {
        ConflictServiceClient::new(self.channel.clone()).max_decoding_message_size(ANSWER_BYTES_MAX)
    }

    /// What partners may.
    pub fn grants(&self) -> GrantServiceClient<Channel> {
        GrantServiceClient::new(self.channel.clone()).max_decoding_message_size(ANSWER_BYTES_MAX)
    }

    /// The node itself: status, tallies, quarantine.
    pub fn node(&self) -> NodeServiceClient<Channel> {
        NodeServiceClient::new(self.channel.clone()).max_decoding_message_size(ANSWER_BYTES_MAX)
    }

    /// Durable feeds of records.
    pub fn subscriptions(&self) -> SubscriptionServiceClient<Channel> {
        SubscriptionServiceClient::new(self.channel.clone()).max_decoding_message_size(ANSWER_BYTES_MAX)
    }

    /// Who has declared which period complete.
    pub fn submissions(&self) -> SubmissionServiceClient<Channel> {
        SubmissionServiceClient::new(self.channel.clone()).max_decoding_message_size(ANSWER_BYTES_MAX)
    }

    /// Issued reports.
    pub fn reports(&self) -> ReportServiceClient<Channel> {
        ReportServiceClient::new(self.channel.clone()).max_decoding_message_size(ANSWER_BYTES_MAX)
    }

    /// The connection, for clients of other services.
    pub fn channel(&self) -> Channel {
        self.channel.clone()
    }
}

fn of_socket(path: &Path, source: io::Error) -> ConnectError {
    let path = path.to_owned();
    match source.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => ConnectError::NoNode(path),
        io::ErrorKind::PermissionDenied => ConnectError::Closed(path),
        _ => ConnectError::Socket { path, source },
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
