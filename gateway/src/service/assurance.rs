//! `AssuranceService`: for operators who want to be sure that nothing is lost.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::pin::Pin;
use std::time::Duration;

use futures_core::Stream;
use guantong_proto::v1;
use guantong_proto::v1::assurance_service_server::AssuranceService;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::asking::{AboutError, Asking, Located, Peer, Reach};
use super::{Links, caller, page, status};
use crate::division::Division;
use crate::engine::Engine;
use crate::record::RecordName;
use crate::whereabouts;

/// How long the nodes have to say where a record is.
const LOCATE_TIME: Duration = Duration::from_secs(12);
/// How long links have to be compared, in the whole tree.
const VERIFY_TIME: Duration = Duration::from_secs(30);
/// Nodes that one answer names.
const NODES_MAX: usize = 10_000;
/// How often nodes are asked again where two of them were asked at different moments.
const LOCATE_TIMES: usize = 3;

pub(super) struct Assurance {
    engine: Engine,
    asking: Asking,
}

impl Assurance {
    pub(super) fn new(engine: Engine, links: Links) -> Assurance {
        Assurance { asking: Asking::new(engine.clone(), links), engine }
    }

    /// The link that is named, or all of them.
    fn chosen(&self, peer: &str) -> Result<Vec<Peer>, Status> {
        let mut peers = self.asking.peers();
        if !peer.is_empty() {
            let division = page::parent("peer", peer)?;
            peers.retain(|known| known.2 == division);
            if peers.is_empty() {
                return Err(status::not_found(peer));
            }
        }
        Ok(peers)
    }

    /// What all nodes say. A difference that nobody explains is most often one of moments: then they are asked again.
    async fn located(&self, name: &RecordName) -> Result<Located, AboutError> {
        let reach = Reach::whole(LOCATE_TIME);
        let mut located = self.asking.locate(name, None, reach).await?;
        for _ in 1..LOCATE_TIMES {
            if !located.links.iter().any(whereabouts::is_unexplained) {
                break;
            }
            located = self.asking.locate(name, None, reach).await?;
        }
        Ok(located)
    }

    /// The answer for people: the highest node first, with names.
    fn response(&self, name: &RecordName, located: Located) -> v1::LocateRecordResponse {
        let shared = self.engine.shared();
        let Located { mut places, links, truncated, .. } = located;
        let state = whereabouts::judge(&places, &links);
        let divisions = shared.divisions();
        let division = |place: &v1::RecordPlace| Division::parse(&place.division).ok();
        places.sort_by_key(|place| {
            let tier = division(place).map(|division| division.tier());
            (std::cmp::Reverse(tier), place.division.clone())
        });
        for place in &mut places {
            place.display_name =
                division(place).map(|division| divisions.full_name(division)).unwrap_or_default();
        }
        v1::LocateRecordResponse {
            name: name.display(&shared.schema).to_string(),
            state: state.into(),
            division: shared.own().to_string(),
            places,
            links,
            truncated,
        }
    }
}

/// Passes on what nodes say, with their names, and says when that was all.
async fn named(
    engine: Engine,
    mut nodes: mpsc::Receiver<v1::NodeEquality>,
    out: mpsc::Sender<Result<v1::VerifyLinksResponse, Status>>,
) {
    let divisions = engine.shared().divisions();
    let mut said: BTreeMap<String, v1::NodeEquality> = BTreeMap::new();
    while let Some(more) = nodes.recv().await {
        if said.len() == NODES_MAX && !said.contains_key(&more.division) {
            let response = v1::VerifyLinksResponse { done: true, truncated: true, ..Default::default() };
            let _ = out.send(Ok(response)).await;
            return;
        }
        let node = match said.entry(more.division.clone()) {
            Entry::Occupied(entry) => {
                let node = entry.into_mut();
                whereabouts::join_node(node, more);
                node
            }
            Entry::Vacant(entry) => {
                let division = Division::parse(&more.division).ok();
                let display_name = division.map(|division| divisions.full_name(division)).unwrap_or_default();
                entry.insert(v1::NodeEquality { display_name, ..more })
            }
        };
        let response = v1::VerifyLinksResponse { nodes: vec![node.clone()], ..Default::default() };
        if out.send(Ok(response)).await.is_err() {
            return;
        }
    }
    let _ = out.send(Ok(v1::VerifyLinksResponse { done: true, ..v1::VerifyLinksResponse::default() })).await;
}

#[tonic::async_trait]
impl AssuranceService for Assurance {
    type VerifyLinksStream = Pin<Box<dyn Stream<Item = Result<v1::VerifyLinksResponse, Status>> + Send>>;

    async fn verify_links(
        &self,
        request: Request<v1::VerifyLinksRequest>,
    ) -> Result<Response<Self::VerifyLinksStream>, Status> {
        caller::operator(request.extensions())?;
        let v1::VerifyLinksRequest { peer, tree } = request.into_inner();
        let peers = self.chosen(&peer)?;
        let nodes = self.asking.verify(peers, tree, Reach::whole(VERIFY_TIME));
        let (out, responses) = mpsc::channel(4);
        tokio::spawn(named(self.engine.clone(), nodes, out));
        Ok(Response::new(Box::pin(ReceiverStream::new(responses))))
    }

    async fn locate_record(
        &self,
        request: Request<v1::LocateRecordRequest>,
    ) -> Result<Response<v1::LocateRecordResponse>, Status> {
        caller::operator(request.extensions())?;
        let asked = &request.get_ref().name;
        let name = self.engine.name(asked).map_err(|e| status::bad_name("name", &e))?;
        let located = self.located(&name).await.map_err(|error| status::of_about(&error))?;
        let response = self.response(&name, located);
        let all_answered = response.places.iter().all(|place| place.answer() == v1::NodeAnswer::Given);
        if all_answered && !response.places.iter().any(|place| place.held) {
            return Err(status::not_found(asked));
        }
        Ok(Response::new(response))
    }
}
