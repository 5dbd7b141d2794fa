//! `NodeService`: what a node says about itself.

use std::pin::Pin;
use std::time::Duration;

use futures_core::Stream;
use guantong_proto::v1;
use guantong_proto::v1::node_service_server::NodeService;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::{Links, NodeInfo, bundles, caller, equality, figures, page, recovery, status, view, warnings};
use crate::division::Division;
use crate::engine::{Engine, Outage, Shared};
use crate::ingest::topology::{PeerId, Role};
use crate::measure::Code;
use crate::outgoing::Route;
use crate::record::codec;
use crate::store::StoreError;

/// Records compared at a time.
const SHARED_AT_ONCE: usize = 1_000;
/// How long a status waits for what the store says before it is given without.
const READ_TIME: Duration = Duration::from_secs(15);

pub(super) struct Node {
    engine: Engine,
    links: Links,
    info: NodeInfo,
}

impl Node {
    pub(super) fn new(engine: Engine, links: Links, info: NodeInfo) -> Node {
        Node { engine, links, info }
    }

    /// A link as it is known without the store.
    fn link(&self, role: Role, peer: Division) -> v1::LinkStatus {
        let shared = self.engine.shared();
        let claimed = match role {
            Role::Parent => shared.spoken().borrow().claimed(shared.own()),
            Role::Child => shared.claims().get(&peer).copied(),
            Role::Partner => None,
        };
        v1::LinkStatus {
            claim_time: claimed.filter(|c| c.through_ms > 0).map(|c| view::timestamp(c.through_ms)),
            peer_name: shared.divisions().full_name(peer),
            equality: Some(equality::of_link(shared, &self.links, role, peer)),
            ..self.links.status(role, peer)
        }
    }

    /// The peers that links lead to, the parent first.
    fn peers(&self) -> Vec<(Role, PeerId, Division)> {
        let topology = self.engine.shared().topology();
        let parent = topology.parent().into_iter().map(|(id, division)| (Role::Parent, id, division));
        let children = topology.children().map(|(id, division)| (Role::Child, id, division));
        parent.chain(children).collect()
    }

    /// All that is known without the store.
    fn known(&self) -> v1::Status {
        let shared = self.engine.shared();
        let own = shared.own();
        let mut warnings = shared.alarms();
        warnings.extend((self.info.warnings)());
        warnings.extend(equality::warnings(shared));
        let fingerprint = shared.schema.fingerprint();
        let complete = shared.completeness(own, (shared.environment.now_ms)());
        v1::Status {
            division: own.to_string(),
            display_name: shared.divisions().full_name(own),
            tier: own.tier().name().into(),
            software_version: self.info.software_version.clone(),
            schema_fingerprint: fingerprint.iter().map(|b| format!("{b:02x}")).collect(),
            start_time: Some(view::timestamp(self.info.started_ms)),
            store: shared.store.location(),
            certificate_expire_time: (self.info.certificate_expire_ms)()
                .map(|ms| view::timestamp(ms.max(0) as u64)),
            links: self.peers().into_iter().map(|(role, _, peer)| self.link(role, peer)).collect(),
            refused_connections: (self.info.refused_connections)(),
            warnings,
            completeness: Some(view::completeness(shared, &complete)),
            recovery: recovery::of_now(shared, &self.links),
            ..v1::Status::default()
        }
    }

    /// The same with what the store says.
    async fn read(&self) -> Result<v1::Status, StoreError> {
        let shared = self.engine.shared();
        let mut status = self.known();
        let counts = shared.store.counts().await?;
        status.record_count = counts.records;
        status.conflict_count = counts.conflicts;
        status.quarantined_count = counts.quarantined;
        status.held_count = counts.held;
        status.store_bytes = counts.store_bytes;
        status.links.clear();
        for (role, id, peer) in self.peers() {
            let backlog = shared.store.backlog(id).await?;
            let lanes = [&backlog.urgent, &backlog.normal, &backlog.bulk];
            let oldest = lanes.into_iter().filter_map(|lane| lane.oldest_ms).min();
            status.links.push(v1::LinkStatus {
                urgent_backlog: backlog.urgent.count,
                normal_backlog: backlog.normal.count,
                bulk_backlog: backlog.bulk.count,
                oldest_owed_time: oldest.map(view::timestamp),
                quarantined_count: backlog.quarantined,
                bundles: bundles::state::state(&shared.store, role, peer, self.info.parent_line).await?,
                ..self.link(role, peer)
            });
        }
        status.warnings.extend(warnings::of_now(shared).await?);
        Ok(status)
    }

    /// What the node can say now: a store that is away must not hide why links are down.
    async fn status(&self) -> v1::Status {
        let shared = self.engine.shared();
        let now_ms = (shared.environment.now_ms)();
        let outage = tokio::select! {
            biased;
            outage = shared.until_outage() => outage,
            read = tokio::time::timeout(READ_TIME, self.read()) => match read {
                Ok(Ok(status)) => return status,
                Ok(Err(error)) => {
                    shared.found_damaged(&error);
                    Outage { since_ms: now_ms, reason: error.to_string() }
                }
                Err(_) => {
                    let seconds = READ_TIME.as_secs();
                    let reason = format!("the store did not answer in {seconds} s (数据存储未及时响应)");
                    Outage { since_ms: now_ms, reason }
                }
            },
        };
        let start_time = Some(view::timestamp(outage.since_ms));
        let outage = v1::StoreOutage { start_time, reason: outage.reason };
        v1::Status { store_outage: Some(outage), ..self.known() }
    }
}

#[tonic::async_trait]
impl NodeService for Node {
    type ListSharedRecordsStream =
        Pin<Box<dyn Stream<Item = Result<v1::ListSharedRecordsResponse, Status>> + Send>>;

    async fn get_status(
        &self,
        request: Request<v1::GetStatusRequest>,
    ) -> Result<Response<v1::Status>, Status> {
        caller::operator(request.extensions())?;
        Ok(Response::new(self.status().await))
    }

    async fn list_tallies(
        &self,
        request: Request<v1::ListTalliesRequest>,
    ) -> Result<Response<v1::ListTalliesResponse>, Status> {
        caller::operator(request.extensions())?;
        let parent = page::parent("parent", &request.get_ref().parent)?;
        let shared = self.engine.shared();
        if !shared.own().contains(parent) {
            let text = format!("parent: {parent} lies outside {}; ask a node above it", shared.own());
            return Err(status::invalid("parent", text));
        }
        let kept = figures::kept_now(shared, parent).await.map_err(|e| status::of_store(&e))?;
        let tallies = kept.into_iter().filter_map(|(code, value)| {
            Some(v1::Tally { measure: code.count()?.name().into(), class: class_name(code), value })
        });
        Ok(Response::new(v1::ListTalliesResponse { tallies: tallies.collect() }))
    }

    async fn list_shared_records(
        &self,
        request: Request<v1::ListSharedRecordsRequest>,
    ) -> Result<Response<Self::ListSharedRecordsStream>, Status> {
        caller::operator(request.extensions())?;
        let peer = page::parent("peer", &request.get_ref().peer)?;
        let shared = self.engine.shared().clone();
        let topology = shared.topology();
        let parent = topology.parent().filter(|p| p.1 == peer).map(|_| Role::Parent);
        let child = topology.children().find(|c| c.1 == peer).map(|_| Role::Child);
        let role = parent.or(child).ok_or_else(|| status::not_found(&request.get_ref().peer))?;
        let (out, responses) = mpsc::channel(4);
        tokio::spawn(async move {
            if let Err(error) = send_shared(&shared, role, peer, &out).await {
                let _ = out.send(Err(error)).await;
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(responses))))
    }

    async fn list_quarantine(
        &self,
        request: Request<v1::ListQuarantineRequest>,
    ) -> Result<Response<v1::ListQuarantineResponse>, Status> {
        caller::operator(request.extensions())?;
        let size = page::size(request.get_ref().page_size)?;
        let after = page::after("quarantine", &request.get_ref().page_token)?.unwrap_or_default();
        let listed = match after.strip_prefix("held-") {
            Some(id) => self.held(id.parse().unwrap_or(0), size).await,
            None => self.refused(&after, size).await,
        };
        let (mut quarantined, mut last) = listed.map_err(|e| status::of_store(&e))?;
        if last.is_none() && !after.starts_with("held-") {
            // What peers refused is all listed; what is held here follows.
            let (held, more) =
                self.held(0, size - quarantined.len()).await.map_err(|e| status::of_store(&e))?;
            quarantined.extend(held);
            last = more;
        }
        let next_page_token = last.map(|last| page::token("quarantine", &last)).unwrap_or_default();
        Ok(Response::new(v1::ListQuarantineResponse { quarantined, next_page_token }))
    }
}

/// What a kept number is a part of: `all`, or dimension and class.
pub(super) fn class_name(code: Code) -> String {
    let Some((dimension, number)) = code.class() else { return "all".into() };
    let class = dimension.classes().into_iter().find(|c| c.number == number);
    let name = class.map_or_else(|| number.to_string(), |class| class.name.to_owned());
    format!("{}={name}", dimension.name())
}

/// A page of the quarantine, and where the next one begins.
type Page = (Vec<v1::Quarantined>, Option<String>);

impl Node {
    /// What peers refused.
    async fn refused(&self, after: &str, size: usize) -> Result<Page, StoreError> {
        let number = |text: &str| text.parse::<i64>().ok();
        let after = match after.split('-').map(number).collect::<Vec<_>>()[..] {
            [Some(peer), Some(key), Some(field)] => Some((PeerId(peer), key, field as u32)),
            _ => None,
        };
        let shared = self.engine.shared();
        let rows = shared.store.quarantine(after, size).await?;
        let last = rows.last().filter(|_| rows.len() == size);
        let last = last.map(|row| format!("{}-{}-{}", row.peer.0, row.key, row.refused.field));
        let topology = shared.topology();
        let quarantined = rows.into_iter().map(|row| {
            let kind = shared.schema.kind(row.name.kind);
            v1::Quarantined {
                record: row.name.display(&shared.schema).to_string(),
                field_name: kind.field(row.refused.field).map(|f| f.name.to_owned()).unwrap_or_default(),
                peer_division: topology.peer(row.peer).map(|p| p.1.to_string()).unwrap_or_default(),
                reason: format!("{}: {}", row.refused.reason.as_str_name(), row.refused.detail),
                create_time: Some(view::timestamp(row.refused_ms)),
                retry_time: row.refused.retry_at_ms.map(view::timestamp),
                lane: row.lane as i32 + 1,
            }
        });
        Ok((quarantined.collect(), last))
    }

    /// Rows of ledgers that wait here until their division is known.
    async fn held(&self, after: i64, size: usize) -> Result<Page, StoreError> {
        let shared = self.engine.shared();
        let rows = shared.store.held(after, size, None).await?;
        let last = rows.last().filter(|_| rows.len() == size).map(|row| format!("held-{}", row.id));
        let mut quarantined = Vec::with_capacity(rows.len());
        for entry in rows {
            let ledger = shared.store.source(entry.row.source).await?;
            let ledger = ledger.map(|(name, _)| name).unwrap_or_default();
            quarantined.push(v1::Quarantined {
                record: format!("{ledger}: {}", entry.row.row_key),
                reason: entry.row.reason,
                create_time: Some(view::timestamp(entry.row.held_ms)),
                lane: v1::Lane::Bulk.into(),
                ..v1::Quarantined::default()
            });
        }
        Ok((quarantined, last))
    }
}

/// Streams the fingerprints of everything that is shared with a peer.
async fn send_shared(
    shared: &Shared,
    role: Role,
    peer: Division,
    out: &mpsc::Sender<Result<v1::ListSharedRecordsResponse, Status>>,
) -> Result<(), Status> {
    let route = Route { schema: &shared.schema, own: shared.own(), role, peer };
    let mut after = 0;
    loop {
        let page = shared.store.scan(after, SHARED_AT_ONCE).await.map_err(|e| status::of_store(&e))?;
        let Some(last) = page.last() else { return Ok(()) };
        after = last.key;
        let mut records = Vec::with_capacity(page.len());
        for stored in page {
            let record = codec::decode(stored.state).map_err(|e| status::broken(&e.to_string()))?;
            if let Some(fingerprint) = route.fingerprint(&stored.name, &record) {
                let name = stored.name.display(&shared.schema).to_string();
                records.push(v1::SharedRecord { name, fingerprint });
            }
        }
        if out.send(Ok(v1::ListSharedRecordsResponse { records })).await.is_err() {
            return Ok(());
        }
    }
}
