//! The engine over gRPC: records, conflicts and status for callers, links for nodes. It translates and checks who is
//! calling; what a call does is decided by the engine.

use std::sync::Arc;

use guantong_proto::v1;
use guantong_proto::v1::aggregate_service_server::AggregateServiceServer;
use guantong_proto::v1::assurance_service_server::AssuranceServiceServer;
use guantong_proto::v1::audit_service_server::AuditServiceServer;
use guantong_proto::v1::backup_service_server::BackupServiceServer;
use guantong_proto::v1::bundle_service_server::BundleServiceServer;
use guantong_proto::v1::camera_service_server::CameraServiceServer;
use guantong_proto::v1::case_service_server::CaseServiceServer;
use guantong_proto::v1::conflict_service_server::ConflictServiceServer;
use guantong_proto::v1::enrolment_service_server::EnrolmentServiceServer;
use guantong_proto::v1::exchange_service_server::ExchangeServiceServer;
use guantong_proto::v1::grant_service_server::GrantServiceServer;
use guantong_proto::v1::grid_service_server::GridServiceServer;
use guantong_proto::v1::invitation_service_server::InvitationServiceServer;
use guantong_proto::v1::node_service_server::NodeServiceServer;
use guantong_proto::v1::record_service_server::RecordServiceServer;
use guantong_proto::v1::report_service_server::ReportServiceServer;
use guantong_proto::v1::submission_service_server::SubmissionServiceServer;
use guantong_proto::v1::subscription_service_server::SubscriptionServiceServer;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;

use crate::engine::Engine;

mod aggregates;
mod asking;
mod assurance;
mod audit;
mod backups;
pub mod bundles;
mod caller;
mod cameras;
mod cases;
pub mod checkpoints;
mod conflicts;
mod counting;
mod describing;
mod driver;
mod duplicates;
mod enrolment;
mod equality;
mod erasure;
mod exchange;
pub mod figures;
mod grants;
mod grids;
mod invitations;
mod links;
mod list;
mod moves;
mod node;
mod page;
mod rates;
mod records;
mod recovery;
mod reports;
mod resources;
mod sight;
pub mod status;
mod submissions;
mod subscriptions;
#[cfg(test)]
mod tests;
mod trace;
mod typed;
mod view;
mod warnings;
mod writes;

pub use bundles::{BundleKeys, BundleMeans, ParentLine};
pub use caller::{Caller, Who};
pub use checkpoints::{Checkpoints, Seal};
pub use describing::describe;
pub use driver::{LinkEnd, dial};
pub use enrolment::{Enrolment, Registrar, RegistrarError, Shown, Visitor};
pub use links::Links;
pub use rates::Rates;

/// The largest message that a caller may send, in bytes.
pub const MESSAGE_MAX_BYTES: usize = 4 * 1024 * 1024;

/// The same where a stranger may speak: a secret and a signing request are small.
const ENROLMENT_MAX_BYTES: usize = 32 * 1024;

/// What the node's status says beside the engine's own part.
#[derive(Clone)]
pub struct NodeInfo {
    /// The program's version.
    pub software_version: String,
    /// Unix milliseconds.
    pub started_ms: u64,
    /// When the node's certificate ends, Unix milliseconds.
    pub certificate_expire_ms: Arc<dyn Fn() -> Option<i64> + Send + Sync>,
    /// Connections that were refused, newest first.
    pub refused_connections: Arc<dyn Fn() -> Vec<v1::RefusedConnection> + Send + Sync>,
    /// How the node and its parent exchange.
    pub parent_line: ParentLine,
    /// What bundles are made and taken in with; `None`: the node has no identity, and so nobody to exchange with.
    pub bundles: Option<Arc<BundleMeans>>,
    /// Things that an operator must look at.
    pub warnings: Arc<dyn Fn() -> Vec<String> + Send + Sync>,
}

/// The one service of the lobby, where callers show no certificate, or one that has run out.
pub fn lobby(enrolment: Enrolment) -> Routes {
    Routes::new(EnrolmentServiceServer::new(enrolment).max_decoding_message_size(ENROLMENT_MAX_BYTES))
}

/// All services of a node. `stop` ends its links with a Goodbye, and the feeds of subscriptions.
pub fn routes(
    engine: Engine,
    links: Links,
    info: NodeInfo,
    checkpoints: Arc<Checkpoints>,
    registrar: Arc<dyn Registrar>,
    enrolment: Enrolment,
    stop: CancellationToken,
) -> Routes {
    links.set_parent_line(info.parent_line);
    let invitations = invitations::Invitations::new(engine.clone(), registrar);
    let exchange =
        exchange::Exchange::new(engine.clone(), links.clone(), info.software_version.clone(), stop.clone());
    let records = records::Records::new(engine.clone(), links.clone());
    let conflicts = conflicts::Conflicts::new(engine.clone());
    let grants = grants::Grants::new(engine.clone());
    let grids = grids::Grids::new(engine.clone());
    let cases = cases::Cases::new(engine.clone());
    let cameras = cameras::Cameras::new(engine.clone());
    let subscriptions = subscriptions::Subscriptions::new(engine.clone(), stop.clone());
    let aggregates = aggregates::Aggregates::new(engine.clone(), stop.clone());
    tokio::spawn(counting::count_own(engine.clone(), aggregates.recounts(), stop));
    let reports = reports::Reports::new(engine.clone());
    let submissions = submissions::Submissions::new(engine.clone());
    let audit = audit::Audit::new(engine.clone(), checkpoints);
    let backups = backups::Backups::new(engine.clone(), info.software_version.clone());
    let bundles = bundles::Bundles::new(engine.clone(), &info);
    let assurance = assurance::Assurance::new(engine.clone(), links.clone());
    let node = node::Node::new(engine, links, info);
    Routes::new(ExchangeServiceServer::new(exchange).max_decoding_message_size(MESSAGE_MAX_BYTES))
        .add_service(RecordServiceServer::new(records).max_decoding_message_size(MESSAGE_MAX_BYTES))
        .add_service(ConflictServiceServer::new(conflicts).max_decoding_message_size(MESSAGE_MAX_BYTES))
        .add_service(GridServiceServer::new(grids).max_decoding_message_size(MESSAGE_MAX_BYTES))
        .add_service(CaseServiceServer::new(cases).max_decoding_message_size(MESSAGE_MAX_BYTES))
        .add_service(CameraServiceServer::new(cameras).max_decoding_message_size(MESSAGE_MAX_BYTES))
        .add_service(GrantServiceServer::new(grants).max_decoding_message_size(MESSAGE_MAX_BYTES))
        .add_service(
            SubscriptionServiceServer::new(subscriptions).max_decoding_message_size(MESSAGE_MAX_BYTES),
        )
        .add_service(AggregateServiceServer::new(aggregates).max_decoding_message_size(MESSAGE_MAX_BYTES))
        .add_service(ReportServiceServer::new(reports).max_decoding_message_size(MESSAGE_MAX_BYTES))
        .add_service(SubmissionServiceServer::new(submissions).max_decoding_message_size(MESSAGE_MAX_BYTES))
        .add_service(AuditServiceServer::new(audit).max_decoding_message_size(MESSAGE_MAX_BYTES))
        .add_service(InvitationServiceServer::new(invitations).max_decoding_message_size(MESSAGE_MAX_BYTES))
        .add_service(EnrolmentServiceServer::new(enrolment).max_decoding_message_size(ENROLMENT_MAX_BYTES))
        .add_service(BackupServiceServer::new(backups).max_decoding_message_size(MESSAGE_MAX_BYTES))
        .add_service(BundleServiceServer::new(bundles).max_decoding_message_size(MESSAGE_MAX_BYTES))
        .add_service(AssuranceServiceServer::new(assurance).max_decoding_message_size(MESSAGE_MAX_BYTES))
        .add_service(NodeServiceServer::new(node).max_decoding_message_size(MESSAGE_MAX_BYTES))
}
