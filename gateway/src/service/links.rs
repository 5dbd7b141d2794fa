//! The links of a node as operators see them: who is connected since when, what was tried, what went wrong, when it
//! is tried again.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use guantong_proto::v1;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::bundles::ParentLine;
use super::view::timestamp;
use crate::division::Division;
use crate::ingest::topology::Role;

/// What is kept of the version that a peer says it has.
const VERSION_CHARS_MAX: usize = 64;
/// Links that a gateway serves at once.
pub(super) const LINKS_MAX: usize = 4_096;

#[derive(Clone, Debug, Default)]
struct LinkState {
    connected: bool,
    /// A link in progress; its end does not disturb a newer one.
    serial: u64,
    stop: Option<CancellationToken>,
    connect_ms: u64,
    attempt_count: u64,
    last_error: String,
    last_error_ms: u64,
    next_attempt_ms: u64,
    sent_records: u64,
    received_records: u64,
    stripped_fields: u64,
    clock_offset_ms: i64,
    peer_version: String,
    address: String,
    /// Takes questions for the other end, while the link is up.
    questions: Option<mpsc::Sender<Box<Question>>>,
}

/// A question for the other end of a link.
#[derive(Debug)]
pub(super) struct Question {
    /// The link numbers it.
    pub(super) ask: v1::Ask,
    /// Where the parts of the answer go. Whoever gives up drops the other end.
    pub(super) parts: mpsc::Sender<Box<v1::Answer>>,
}

/// The registry of links.
#[derive(Clone, Default)]
pub struct Links {
    states: Arc<Mutex<BTreeMap<(bool, Division), LinkState>>>,
    parent_line: Arc<OnceLock<ParentLine>>,
}

/// One link in progress.
#[derive(Clone, Copy, Debug)]
pub(super) struct LinkKey {
    key: (bool, Division),
    serial: u64,
}

fn now_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |d| d.as_millis() as u64)
}

impl Links {
    /// Without links.
    pub fn new() -> Links {
        Links::default()
    }

    fn states(&self) -> MutexGuard<'_, BTreeMap<(bool, Division), LinkState>> {
        self.states.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How the node and its parent exchange; said once.
    pub(super) fn set_parent_line(&self, line: ParentLine) {
        let _ = self.parent_line.set(line);
    }

    /// How the node and its parent exchange.
    pub(super) fn parent_line(&self) -> ParentLine {
        self.parent_line.get().copied().unwrap_or_default()
    }

    /// The parent is being dialled.
    pub fn attempt(&self, parent: Division, address: &str) {
        let mut states = self.states();
        let state = states.entry((true, parent)).or_default();
        state.attempt_count += 1;
        state.next_attempt_ms = 0;
        state.address = address.into();
    }

    /// Dialling the parent, or the link to it, failed.
    pub fn failed(&self, parent: Division, reason: &str, next_attempt_ms: u64) {
        let mut states = self.states();
        let state = states.entry((true, parent)).or_default();
        state.last_error = reason.into();
        state.last_error_ms = now_ms();
        state.next_attempt_ms = next_attempt_ms;
    }

    /// Whether a child is linked now.
    pub(super) fn child_is_linked(&self, child: Division) -> bool {
        self.states().get(&(false, child)).is_some_and(|s| s.connected)
    }

    /// Whether the parent is linked now.
    pub(super) fn parent_is_linked(&self, parent: Division) -> bool {
        self.states().get(&(true, parent)).is_some_and(|s| s.connected)
    }

    /// How many children are linked.
    pub(super) fn child_count(&self) -> usize {
        self.states().iter().filter(|((parent, _), s)| !parent && s.connected).count()
    }

    /// A link is up; an older one to the same peer is told to end.
    pub(super) fn up(&self, role: Role, peer: Division, address: &str, stop: &CancellationToken) -> LinkKey {
        let key = (role == Role::Parent, peer);
        let mut states = self.states();
        let state = states.entry(key).or_default();
        if let Some(older) = state.stop.replace(stop.clone()) {
            older.cancel();
        }
        state.serial += 1;
        state.questions = None;
        state.connected = true;
        state.connect_ms = now_ms();
        state.attempt_count = 0;
        state.next_attempt_ms = 0;
        state.address = address.into();
        LinkKey { key, serial: state.serial }
    }

    /// Whether a newer link to the same peer has taken over.
    pub(super) fn replaced(&self, link: Option<LinkKey>) -> bool {
        let newer = |link: LinkKey| self.states().get(&link.key).is_some_and(|s| s.serial != link.serial);
        link.is_some_and(newer)
    }

    /// What a greeting said.
    pub(super) fn greeted(&self, link: LinkKey, version: &str, clock_offset_ms: i64) {
        if let Some(state) = self.states().get_mut(&link.key) {
            state.peer_version =
                version.chars().filter(|c| !c.is_control()).take(VERSION_CHARS_MAX).collect();
            state.clock_offset_ms = clock_offset_ms;
        }
    }

    /// Where questions for the other end of a link go.
    pub(super) fn takes_questions(&self, link: LinkKey, questions: mpsc::Sender<Box<Question>>) {
        if let Some(state) = self.states().get_mut(&link.key).filter(|s| s.serial == link.serial) {
            state.questions = Some(questions);
        }
    }

    /// Where questions for a peer go; `None`: no link to it is up.
    pub(super) fn questions(&self, role: Role, peer: Division) -> Option<mpsc::Sender<Box<Question>>> {
        self.states().get(&(role == Role::Parent, peer)).and_then(|s| s.questions.clone())
    }

    /// How much a link has carried.
    pub(super) fn carried(&self, link: LinkKey, sent_records: u64, received_records: u64) {
        if let Some(state) = self.states().get_mut(&link.key) {
            (state.sent_records, state.received_records) = (sent_records, received_records);
        }
    }

    /// The peer sent fields that this tier may not hold, and they were left out.
    pub(super) fn stripped(&self, link: LinkKey, fields: u64) {
        if let Some(state) = self.states().get_mut(&link.key) {
            state.stripped_fields += fields;
        }
    }

    /// A link ended.
    pub(super) fn down(&self, link: LinkKey, reason: &str) {
        if let Some(state) = self.states().get_mut(&link.key).filter(|s| s.serial == link.serial) {
            state.connected = false;
            state.stop = None;
            state.questions = None;
            state.connect_ms = now_ms();
            state.last_error = reason.into();
            state.last_error_ms = now_ms();
        }
    }

    /// A link was refused.
    pub(super) fn refused(&self, child: Division, address: &str, reason: &str) {
        let mut states = self.states();
        let state = states.entry((false, child)).or_default();
        state.last_error = format!("{reason} ({address})");
        state.last_error_ms = now_ms();
    }

    /// What is known of a link, without its queues.
    pub(super) fn status(&self, role: Role, peer: Division) -> v1::LinkStatus {
        let time = |ms: u64| (ms > 0).then(|| timestamp(ms));
        let state = self.states().get(&(role == Role::Parent, peer)).cloned().unwrap_or_default();
        v1::LinkStatus {
            peer_division: peer.to_string(),
            peer_is_parent: role == Role::Parent,
            connected: state.connected,
            connect_time: time(state.connect_ms),
            attempt_count: state.attempt_count,
            last_error: state.last_error,
            last_error_time: time(state.last_error_ms),
            next_attempt_time: time(state.next_attempt_ms),
            sent_records: state.sent_records,
            received_records: state.received_records,
            stripped_fields: state.stripped_fields,
            clock_offset_ms: state.clock_offset_ms,
            peer_version: state.peer_version,
            address: state.address,
            ..v1::LinkStatus::default()
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_a_peer_calls_its_version_is_kept_short() {
        let (links, child) = (Links::new(), Division::parse("220822").unwrap());
        let link = links.up(Role::Child, child, "here", &CancellationToken::new());
        links.greeted(link, &format!("1.0\u{1b}[2J{}", "x".repeat(100_000)), 0);
        let version = links.status(Role::Child, child).peer_version;
        assert!(version.starts_with("1.0[2Jx") && version.len() == VERSION_CHARS_MAX, "{version}");
    }
}
