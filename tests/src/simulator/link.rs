//! A link between two nodes: a stream of frames each way, in order, which may end at any moment. Whatever is under way
//! then is lost, and the two ends notice at different times.

use std::collections::VecDeque;

use bytes::Bytes;
use guantong_gateway::comparing::Comparing;
use guantong_gateway::session::{Limits, Session, Settings, Side};
use guantong_proto::v1;
use prost::Message;

use super::node::Node;

/// A link's number, never reused.
pub(super) type LinkId = u64;

/// The stream.
pub struct Wire {
    /// The node that dialled.
    pub child: usize,
    /// The node that was dialled.
    pub parent: usize,
    /// Frames on their way to the parent and to the child, encoded.
    pub frames: [VecDeque<Bytes>; 2],
    /// Behind these frames came one that was altered: each direction ends there.
    pub spoiled: [bool; 2],
    /// The stream ended; ends that have not noticed yet.
    pub broken: bool,
}

impl Wire {
    /// A stream that was just opened.
    pub fn new(child: usize, parent: usize) -> Wire {
        Wire { child, parent, frames: Default::default(), spoiled: [false; 2], broken: false }
    }

    /// The node at the end that frames of `direction` go to.
    pub fn receiver(&self, direction: usize) -> usize {
        [self.parent, self.child][direction]
    }

    /// Puts a frame on the stream, from the side that sends it.
    pub fn send(&mut self, side: Side, frame: &v1::Frame) {
        let direction = usize::from(side == Side::Parent);
        if !self.broken && !self.spoiled[direction] {
            self.frames[direction].push_back(frame.encode_to_vec().into());
        }
    }

    /// A frame was altered: what is before it arrives, and then the stream ends.
    pub fn spoil(&mut self, direction: usize, at: usize) {
        self.frames[direction].truncate(at);
        self.spoiled[direction] = true;
        self.end_if_spoiled(direction);
    }

    /// Ends the stream where the altered frame is next.
    pub fn end_if_spoiled(&mut self, direction: usize) {
        if self.spoiled[direction] && self.frames[direction].is_empty() {
            self.cut();
        }
    }

    /// Ends the stream; what was under way is lost.
    pub fn cut(&mut self) {
        self.broken = true;
        self.frames = Default::default();
    }
}

/// One end of a link, in the memory of a node.
pub struct End {
    /// The protocol.
    pub session: Session,
    /// The node at the other end.
    pub other: guantong_gateway::division::Division,
    /// Greeted, and not replaced since.
    pub current: bool,
    /// Which link it is of.
    pub link: LinkId,
    /// The rules that the other end greeted with.
    pub peer_rules: Option<v1::RuleTable>,
    /// Proof that both ends hold the same, once greeted.
    pub comparing: Option<Comparing>,
    /// How far the parent was told of claims.
    pub told: u64,
    /// It has something to say.
    pub dirty: bool,
    /// How far the node's clock was ahead when the link began: what happens to the clock later is nothing to it.
    pub skew_ms: i64,
}

impl End {
    /// The time by which its session goes.
    pub fn now_ms(&self, world_ms: u64) -> u64 {
        world_ms.saturating_add_signed(self.skew_ms)
    }

    /// A session between `node` and the node of division `other`.
    pub fn new(
        node: &Node,
        side: Side,
        other: guantong_gateway::division::Division,
        link: LinkId,
        now_ms: u64,
    ) -> End {
        let peer = node.disk.peer(other);
        let revision = peer.map_or(node.disk.revision, |p| p.continuous(node.disk.revision));
        let settings = Settings {
            side,
            own: node.division,
            peer: other,
            epoch: node.disk.epoch,
            revision,
            peer_revision: peer.map_or(0, |p| p.revision),
            token: peer.and_then(|p| p.token),
            rules: node.schema.rule_table(),
            window_bytes: node.window_bytes,
            software_version: String::new(),
            limits: Limits { batch_raw_bytes: node.batch_raw_bytes, ..Limits::default() },
        };
        let mut session = Session::new(settings, now_ms);
        session.set_revision(node.disk.revision);
        End {
            session,
            other,
            current: false,
            skew_ms: node.skew_ms,
            link,
            peer_rules: None,
            comparing: None,
            told: 0,
            dirty: true,
        }
    }
}
