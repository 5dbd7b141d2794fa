//! Whether links are equal: both ends of each compare anew, and what came of it is said, of this node's links and of all
//! below. Equal is said only of what was compared since the question came.

use std::collections::HashMap;
use std::time::Duration;

use guantong_proto::v1;
use guantong_proto::v1::ask::Question;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

use super::super::equality;
use super::{Asking, Reach, Unanswered};
use crate::comparing::{ProofState, Unknown};
use crate::division::Division;
use crate::ingest::topology::{PeerId, Role};
use crate::whereabouts;

/// Nodes that may wait to be read.
const NODES_WAITING_MAX: usize = 64;

/// How often a link is asked to compare until it has.
const ASKED_AGAIN: Duration = Duration::from_secs(2);
/// Links of a node that are said at once, so that a part of an answer stays small.
const LINKS_A_PART: usize = 100;

/// A link of this node.
pub(in super::super) type Peer = (Role, PeerId, Division);

impl Asking {
    /// The links to the nodes below, by division.
    pub(in super::super) fn children(&self) -> Vec<Peer> {
        let topology = self.engine.shared().topology();
        topology.children().map(|(id, division)| (Role::Child, id, division)).collect()
    }

    /// All links, the parent's first.
    pub(in super::super) fn peers(&self) -> Vec<Peer> {
        let parent = self.engine.shared().topology().parent();
        let parent = parent.map(|(id, division)| (Role::Parent, id, division));
        parent.into_iter().chain(self.children()).collect()
    }

    /// Has these links compared; with `tree`, the nodes below are asked about theirs, too. Gives what each node says, as it
    /// comes, and ends in time.
    pub(in super::super) fn verify(
        &self,
        peers: Vec<Peer>,
        tree: bool,
        reach: Reach,
    ) -> mpsc::Receiver<v1::NodeEquality> {
        let (out, nodes) = mpsc::channel(NODES_WAITING_MAX);
        let asking = self.clone();
        tokio::spawn(async move {
            let mut under_way = JoinSet::new();
            for (role, _, child) in peers.iter().copied().filter(|peer| tree && peer.0 == Role::Child) {
                under_way.spawn(asking.clone().below(role, child, reach, out.clone()));
            }
            under_way.spawn(asking.own_links(peers, reach, out.clone()));
            // Nobody reads any more: whoever is still asked is asked for nothing.
            tokio::select! {
                () = async { while under_way.join_next().await.is_some() {} } => {}
                () = out.closed() => {}
            }
        });
        nodes
    }

    /// What this node's own links say.
    async fn own_links(self, peers: Vec<Peer>, reach: Reach, out: mpsc::Sender<v1::NodeEquality>) {
        let shared = self.engine.shared();
        let mut changed = shared.proofs_changed();
        let requests: HashMap<PeerId, u64> =
            peers.iter().map(|peer| (peer.1, shared.compare_now(peer.1))).collect();
        let compared = |peer: &Peer| requests.get(&peer.1).is_some_and(|n| shared.compared_for(peer.1) >= *n);
        let linked = |peer: &Peer| self.links.questions(peer.0, peer.2).is_some();
        let open = |peer: &Peer| {
            let old = shared.proof(peer.1).state == ProofState::Unknown(Unknown::OldProgram);
            linked(peer) && !old && !compared(peer)
        };
        while peers.iter().any(open) && Instant::now() < reach.until {
            let again = reach.until.min(Instant::now() + ASKED_AGAIN);
            let asked = async { while peers.iter().any(open) && changed.changed().await.is_ok() {} };
            let _ = timeout_at(again, asked).await;
            // Again and again: a comparison that was begun before, or that came to nothing, is not the one asked for.
            for (_, id, _) in peers.iter().filter(|peer| open(peer)) {
                shared.compare_now(*id);
            }
        }
        let mut links = Vec::with_capacity(peers.len());
        for peer in &peers {
            links.push(self.link(peer, compared(peer)).await);
        }
        let node = |links: &[v1::LinkEquality]| v1::NodeEquality {
            division: shared.own().to_string(),
            answer: v1::NodeAnswer::Given.into(),
            links: links.to_vec(),
            ..v1::NodeEquality::default()
        };
        if links.is_empty() {
            let _ = out.send(node(&[])).await;
        }
        for links in links.chunks(LINKS_A_PART) {
            let _ = out.send(node(links)).await;
        }
    }

    /// How a link stands; equal only if it was compared since the question, and still is linked.
    async fn link(&self, (role, id, peer): &Peer, compared: bool) -> v1::LinkEquality {
        let shared = self.engine.shared();
        let mut link = equality::of_link(shared, &self.links, *role, *peer);
        if shared.proof(*id).is_equal() && !(compared && link.linked) {
            link.state = v1::EqualityState::Unknown.into();
            link.reason =
                "the ends did not come to compare in time; ask again (未及时完成核对，请稍后重试)".into();
        }
        if !link.linked {
            link.reason = self.not_linked(*role, *peer).await.reason;
            if self.carried(*role, *peer).await.is_some_and(|carried| carried.one_way) {
                link.state = v1::EqualityState::Unconfirmed.into();
            }
        }
        link
    }

    /// What a child and the nodes below it say.
    async fn below(self, role: Role, child: Division, reach: Reach, out: mpsc::Sender<v1::NodeEquality>) {
        let own = self.engine.shared().own();
        let asked = self.ask(role, child, Question::Verify(v1::VerifyQuestion {}), reach).await;
        let answered = async {
            let mut parts = asked?;
            while let Some(part) = parts.next().await? {
                for node in part.nodes {
                    if whereabouts::is_credible(own, role, child, &node.division)
                        && out.send(node).await.is_err()
                    {
                        return Ok(());
                    }
                }
            }
            match parts.truncated {
                false => Ok(()),
                true => {
                    let reason = "there are more nodes than one answer holds; ask it itself (结果过多，请在该节点核对)";
                    Err(Unanswered::new(v1::NodeAnswer::Failed, reason))
                }
            }
        };
        if let Err(Unanswered { answer, reason, since_time }) = answered.await {
            let node = v1::NodeEquality {
                division: child.to_string(),
                answer: answer.into(),
                reason,
                since_time,
                ..v1::NodeEquality::default()
            };
            let _ = out.send(node).await;
        }
    }
}
