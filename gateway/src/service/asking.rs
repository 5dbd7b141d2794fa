//! Questions along the tree: what somebody at this node, or the other end of a link, wants to know, asked on through the
//! links, and the answers joined. Everything is bounded: hops, time, questions under way, what an answer may hold. A
//! question that cannot be passed on is answered at once with why.

use std::time::Duration;

use guantong_proto::v1;
use guantong_proto::v1::ask::Question as Asked;
use prost::Message;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::bundles;
use super::links::{Links, Question};
use crate::division::Division;
use crate::engine::Engine;
use crate::ingest::topology::{PeerId, Role};

mod about;
mod answering;
mod erasing;
mod locating;
mod verifying;

pub(super) use about::AboutError;
pub(super) use erasing::Erased;
pub(super) use locating::Located;
pub(super) use verifying::Peer;

/// Links that a question may cross: up and down the whole tree.
pub(super) const HOPS_MAX: u32 = 8;
/// No question is worked on for longer.
const TIME_MAX: Duration = Duration::from_secs(60);
/// Parts of an answer that may wait to be read.
const PARTS_MAX: usize = 64;
/// The most that is taken of one answer.
const ANSWER_BYTES_MAX: usize = 1024 * 1024;

/// How far a question goes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reach {
    hops_left: u32,
    until: Instant,
}

impl Reach {
    /// Of a question that begins here.
    pub(super) fn whole(time: Duration) -> Reach {
        Reach { hops_left: HOPS_MAX, until: Instant::now() + time.min(TIME_MAX) }
    }

    /// Of a question that came over a link.
    fn of(ask: &v1::Ask) -> Reach {
        let time = Duration::from_millis(u64::from(ask.time_left_ms)).min(TIME_MAX);
        Reach { hops_left: ask.hops_left.min(HOPS_MAX), until: Instant::now() + time }
    }

    fn time_left(self) -> Duration {
        self.until.saturating_duration_since(Instant::now())
    }

    /// Whoever is asked has less time, so that its answer is here in time, even where it only says who is silent.
    fn ask(self, question: Asked) -> Option<v1::Ask> {
        let time_left_ms = u32::try_from(self.time_left().as_millis() * 7 / 8).unwrap_or(u32::MAX);
        let hops_left = self.hops_left.checked_sub(1)?;
        Some(v1::Ask { ask_id: 0, hops_left, time_left_ms, question: Some(question) })
    }
}

/// Why a node did not speak for itself.
#[derive(Clone, Debug, Default)]
pub(super) struct Unanswered {
    answer: v1::NodeAnswer,
    reason: String,
    since_time: Option<prost_types::Timestamp>,
}

impl Unanswered {
    fn new(answer: v1::NodeAnswer, reason: impl Into<String>) -> Unanswered {
        Unanswered { answer, reason: reason.into(), since_time: None }
    }

    fn busy() -> Unanswered {
        let reason = "too many questions are under way on this link; ask again later (查询过多，请稍后重试)";
        Unanswered::new(v1::NodeAnswer::Busy, reason)
    }
}

/// The answer to a question, as it comes in.
struct Parts {
    parts: mpsc::Receiver<Box<v1::Answer>>,
    until: Instant,
    bytes_left: usize,
    /// There is no more, or no more is taken.
    over: bool,
    /// More came than is taken.
    truncated: bool,
}

impl Parts {
    /// The next part; `None`: that was all.
    async fn next(&mut self) -> Result<Option<v1::Answer>, Unanswered> {
        if self.over {
            return Ok(None);
        }
        let part = match tokio::time::timeout_at(self.until, self.parts.recv()).await {
            Ok(Some(part)) => *part,
            Ok(None) => {
                let reason = "the link ended while the question was under way (查询时链路中断)";
                return Err(Unanswered::new(v1::NodeAnswer::NotLinked, reason));
            }
            Err(_) => {
                let reason = "no answer came in time; its program may be too old to answer (未及时答复，对方程序可能过旧)";
                return Err(Unanswered::new(v1::NodeAnswer::Silent, reason));
            }
        };
        match part.answer() {
            v1::NodeAnswer::Unspecified | v1::NodeAnswer::Given => {}
            refused => return Err(Unanswered::new(refused, part.reason)),
        }
        self.truncated = part.encoded_len() > self.bytes_left;
        self.over = part.last || self.truncated;
        self.bytes_left = self.bytes_left.saturating_sub(part.encoded_len());
        Ok(Some(part))
    }
}

/// Asks, and answers.
#[derive(Clone)]
pub(super) struct Asking {
    engine: Engine,
    links: Links,
}

impl Asking {
    pub(super) fn new(engine: Engine, links: Links) -> Asking {
        Asking { engine, links }
    }

    /// Puts a question to a peer.
    async fn ask(
        &self,
        role: Role,
        peer: Division,
        question: Asked,
        reach: Reach,
    ) -> Result<Parts, Unanswered> {
        let Some(ask) = reach.ask(question) else {
            let reason =
                "it is too many links away; ask at a node that is nearer (相隔过远，请在就近节点查询)";
            return Err(Unanswered::new(v1::NodeAnswer::Refused, reason));
        };
        let Some(questions) = self.links.questions(role, peer) else {
            return Err(self.not_linked(role, peer).await);
        };
        let (sender, parts) = mpsc::channel(PARTS_MAX);
        match questions.try_send(Box::new(Question { ask, parts: sender })) {
            Ok(()) => {}
            Err(mpsc::error::TrySendError::Full(_)) => return Err(Unanswered::busy()),
            Err(mpsc::error::TrySendError::Closed(_)) => return Err(self.not_linked(role, peer).await),
        }
        let bytes_left = ANSWER_BYTES_MAX;
        Ok(Parts { parts, until: reach.until, bytes_left, over: false, truncated: false })
    }

    fn peer_id(&self, role: Role, peer: Division) -> Option<PeerId> {
        let topology = self.engine.shared().topology();
        match role {
            Role::Parent => topology.parent().filter(|parent| parent.1 == peer).map(|parent| parent.0),
            _ => topology.children().find(|child| child.1 == peer).map(|child| child.0),
        }
    }

    async fn not_linked(&self, role: Role, peer: Division) -> Unanswered {
        let id = self.peer_id(role, peer);
        if id.is_some_and(|id| self.engine.shared().is_elsewhere(id)) {
            let reason =
                "it is linked to another gateway of this store; ask there (已连接本库其他网关，请在该处查询)";
            return Unanswered::new(v1::NodeAnswer::NotLinked, reason);
        }
        if let Some(carried) = self.carried(role, peer).await {
            return Unanswered::new(v1::NodeAnswer::NotLinked, by_files(&carried));
        }
        let link = self.links.status(role, peer);
        let reason = match link.last_error.as_str() {
            "" => "it was not linked since this node's start (本节点启动后尚未连接)".to_owned(),
            error => format!("the link is down: {error} (链路中断)"),
        };
        Unanswered { answer: v1::NodeAnswer::NotLinked, reason, since_time: link.connect_time }
    }

    /// How exchange by files with a peer stands, where that is how it goes.
    async fn carried(&self, role: Role, peer: Division) -> Option<v1::BundleState> {
        let line = self.links.parent_line();
        bundles::state::state(&self.engine.shared().store, role, peer, line).await.ok().flatten()
    }
}

/// Why nobody can be asked where files are carried.
fn by_files(carried: &v1::BundleState) -> String {
    if carried.one_way {
        let number = carried.sent_number;
        return format!(
            "files go to it one way and nothing comes back; bundle {number} was sent last \
             (单向传输，无回执；最近发出第{number}包)"
        );
    }
    let (sent, confirmed) = (carried.sent_number, carried.confirmed_number);
    format!(
        "files are carried to it by hand, so it cannot be asked; bundle {sent} was sent last, {confirmed} is confirmed \
         (人工摆渡，无法在线查询；最近发出第{sent}包，已确认至第{confirmed}包)"
    )
}
