//! The protocol of a link, without the link: frames, calls and the time go in, frames and requests come out.
//!
//! A driver owns the stream, the store and the clock. It feeds [`Session::handle_frame`], [`Session::handle_timeout`]
//! and the answers to what the session asked for, and after each of them calls [`Session::poll`] until it gives
//! nothing and [`Session::wants`] until it wants nothing. The same session runs over a network, in a simulator and
//! through a file. It must never wait, read a clock, or call a row delivered without a receipt for all of it.
//!
//! ```text
//! child   new ─► Send(Hello) ─────────────────────► Welcomed ─► token_stored ─► open
//! parent  new ────────────────► Greeted ─► welcome ─► Send(Welcome) ──────────► open
//! open    wants ─► offer ─► Send(Batch)…   receipt comes ─► Delivered … Drained
//!         batch comes ─► Ingest ─► ingested ─► Send(Receipt)
//! end     shutdown, an error, a timeout, or the peer's Goodbye ─► End
//! ```

mod ending;
pub mod greeting;
pub mod lanes;
mod payload;
pub mod questions;
mod receiving;
mod sending;
mod split;
mod statements;
mod types;
pub mod whole;

use std::collections::VecDeque;

use guantong_proto::v1;
use guantong_proto::v1::frame::Kind;
use prost::Message;

pub use payload::{
    BATCH_RAW_BYTES_MAX, BATCH_RECORDS_MAX, IN_FLIGHT_BATCHES_MAX, PART_BYTES_MAX, PayloadError,
};
pub use receiving::BatchError;
pub use types::{
    End, Inbound, Limits, OutboxRow, Output, Position, ProtocolError, Settings, Side, Stats, Want,
};

use greeting::{PROTOCOLS, Token};
use questions::Questions;
use receiving::Receiving;
use sending::{Delivered, Sending};

/// Above this size, a receipt leaves out the details of its refusals, so that it fits any frame.
const RECEIPT_BYTES_MAX: usize = 256 * 1024;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Parent: no Hello yet.
    AwaitingHello { until_ms: u64 },
    /// Parent: the driver recognises the child.
    Deciding { protocol: u32 },
    /// Child: no Welcome yet.
    AwaitingWelcome { until_ms: u64 },
    /// Child: the driver stores the token.
    Storing,
    /// Records go both ways.
    Open,
    /// Nothing more is taken or sent but the receipts of what is being written.
    Draining { until_ms: u64 },
    /// Over.
    Closed,
}

impl Phase {
    fn when(self) -> &'static str {
        match self {
            Phase::AwaitingHello { .. } => "before the Hello",
            Phase::Deciding { .. } => "before the Hello was answered",
            Phase::AwaitingWelcome { .. } => "before the Welcome",
            Phase::Storing | Phase::Open | Phase::Draining { .. } | Phase::Closed => "after the greeting",
        }
    }
}

/// Which stores the two ends are.
#[derive(Clone, Copy, Debug)]
struct Epochs {
    own: u64,
    /// Ours as we greeted with it: a child that learns from the Welcome that it was restored changes it.
    greeted: u64,
    peer: u64,
    /// The child was told that it was restored: its next frame says what its epoch has become.
    peer_will_say: bool,
}

impl Epochs {
    fn hear(&mut self, epoch: u64) {
        if std::mem::take(&mut self.peer_will_say) {
            self.peer = epoch;
        }
    }

    fn are_those(&self, peer: u64, own: u64) -> bool {
        peer == self.peer && (own == self.own || own == self.greeted)
    }
}

/// One end of a link, from its greeting to its end. A new link is a new session.
pub struct Session {
    side: Side,
    own: crate::division::Division,
    peer: crate::division::Division,
    limits: Limits,
    /// What the greeting needs and the rest does not.
    introduction: Option<(v1::RuleTable, String)>,
    phase: Phase,
    epochs: Epochs,
    sending: Sending,
    receiving: Receiving,
    questions: Questions,
    /// Frames that go out before any batch.
    control: VecDeque<v1::Frame>,
    /// For the driver, in this order.
    events: VecDeque<Output>,
    /// What the peer sent, after `events`. A child keeps it back until its token is stored.
    arrived: VecDeque<Output>,
    goodbye: v1::Goodbye,
    end: Option<End>,
    token_unconfirmed: bool,
    drained_told: bool,
    /// Number of the last transaction of the own store.
    revision: u64,
    /// The highest of the peer's store that its batches and receipts named.
    peer_revision: u64,
    stats: Stats,
}

impl Session {
    /// A new link. A child greets at once.
    pub fn new(settings: Settings, now_ms: u64) -> Session {
        let Settings { side, own, peer, epoch, revision, limits, .. } = settings;
        let until_ms = now_ms.saturating_add(limits.greeting_timeout_ms);
        let mut session = Session {
            side,
            own,
            peer,
            limits,
            introduction: None,
            phase: Phase::AwaitingHello { until_ms },
            epochs: Epochs { own: epoch, greeted: epoch, peer: 0, peer_will_say: false },
            sending: Sending::new(&limits),
            receiving: Receiving::new(settings.window_bytes),
            questions: Questions::default(),
            control: VecDeque::new(),
            events: VecDeque::new(),
            arrived: VecDeque::new(),
            goodbye: v1::Goodbye::default(),
            end: None,
            token_unconfirmed: false,
            drained_told: false,
            revision,
            peer_revision: 0,
            stats: Stats::default(),
        };
        match side {
            Side::Parent => session.introduction = Some((settings.rules, settings.software_version)),
            Side::Child => {
                session.phase = Phase::AwaitingWelcome { until_ms };
                session.send(Kind::Hello(v1::Hello {
                    protocol_min: *PROTOCOLS.start(),
                    protocol_max: *PROTOCOLS.end(),
                    division: own.to_string(),
                    epoch,
                    token: settings.token.map(Into::into),
                    rules: Some(settings.rules),
                    window_bytes: settings.window_bytes,
                    software_version: settings.software_version,
                    clock_ms: clock_ms(now_ms),
                    revision,
                    peer_revision: settings.peer_revision,
                }));
            }
        }
        session
    }

    /// Takes a frame of the peer. A frame of an unknown kind is ignored, and so is everything after the end.
    ///
    /// # Errors
    /// The peer broke the protocol. The session is over: `poll` gives the Goodbye to send and then the end.
    pub fn handle_frame(&mut self, now_ms: u64, frame: v1::Frame) -> Result<(), ProtocolError> {
        let Some(kind) = frame.kind else { return Ok(()) };
        if self.phase == Phase::Closed {
            return Ok(());
        }
        let taken = self.handle_kind(now_ms, kind);
        if let Err(error) = &taken {
            self.close_with(error.goodbye(), error.to_string(), 0);
        }
        taken
    }

    fn handle_kind(&mut self, now_ms: u64, kind: Kind) -> Result<(), ProtocolError> {
        let unexpected = |frame| ProtocolError::Unexpected { frame, when: self.phase.when() };
        let greeted = matches!(self.phase, Phase::Storing | Phase::Open | Phase::Draining { .. });
        match kind {
            Kind::Goodbye(goodbye) => self.close_by_peer(goodbye),
            Kind::Hello(hello) => match self.phase {
                Phase::AwaitingHello { .. } => self.hello(hello)?,
                _ => return Err(unexpected("Hello")),
            },
            Kind::Welcome(welcome) => match self.phase {
                Phase::AwaitingWelcome { .. } => self.welcomed(welcome)?,
                _ => return Err(unexpected("Welcome")),
            },
            kind if !greeted => return Err(unexpected(types::name_of(&kind))),
            kind => self.greeted_frame(now_ms, kind)?,
        }
        Ok(())
    }

    fn hello(&mut self, hello: v1::Hello) -> Result<(), ProtocolError> {
        let protocol = greeting::check_hello(self.own, self.peer, &hello)?;
        self.phase = Phase::Deciding { protocol };
        self.epochs.peer = hello.epoch;
        self.peer_revision = hello.revision;
        self.sending.set_window(hello.window_bytes);
        self.events.push_back(Output::Greeted(hello));
        Ok(())
    }

    fn welcomed(&mut self, welcome: v1::Welcome) -> Result<(), ProtocolError> {
        greeting::check_welcome(self.own, self.peer, &welcome)?;
        self.phase = Phase::Storing;
        self.epochs.peer = welcome.epoch;
        self.peer_revision = welcome.revision;
        self.sending.set_window(welcome.window_bytes);
        self.events.push_back(Output::Welcomed(welcome));
        Ok(())
    }

    /// Frames after the greeting.
    fn greeted_frame(&mut self, now_ms: u64, kind: Kind) -> Result<(), ProtocolError> {
        if std::mem::take(&mut self.token_unconfirmed) {
            self.events.push_back(Output::TokenConfirmed);
        }
        match kind {
            Kind::Receipt(receipt) => self.receipt(now_ms, receipt),
            _ if matches!(self.phase, Phase::Draining { .. }) => {}
            Kind::Batch(part) => self.batch(part)?,
            Kind::Checksum(checksum) => self.arrived.push_back(Output::PeerChecksum(checksum)),
            Kind::Claim(claim) => self.arrived.push_back(Output::PeerClaim(claim)),
            Kind::Probe(probe) => self.arrived.push_back(Output::PeerProbe(probe)),
            Kind::Finding(finding) => self.arrived.push_back(Output::PeerFinding(finding)),
            Kind::Ask(ask) => self.peer_asks(ask),
            Kind::Answer(answer) => self.peer_answers(answer),
            Kind::Hello(_) | Kind::Welcome(_) | Kind::Goodbye(_) => {}
        }
        Ok(())
    }

    fn batch(&mut self, part: v1::Batch) -> Result<(), ProtocolError> {
        self.epochs.hear(part.epoch);
        let Some(batch) = self.receiving.part(part)? else { return Ok(()) };
        let same_epoch = self.epochs.are_those(batch.epoch, batch.peer_epoch);
        if same_epoch {
            self.saw(batch.revision);
        }
        self.stats.received_batches += 1;
        self.stats.received_bytes += batch.payload_bytes;
        self.stats.received_records += batch.records.len() as u64;
        self.arrived.push_back(Output::Ingest(Inbound {
            batch_id: batch.batch_id,
            lane: batch.lane,
            same_epoch,
            records: batch.records,
        }));
        Ok(())
    }

    fn receipt(&mut self, now_ms: u64, receipt: v1::Receipt) {
        self.epochs.hear(receipt.epoch);
        let ours = self.epochs.are_those(receipt.epoch, receipt.peer_epoch);
        if ours {
            self.saw(receipt.revision);
        }
        let taken = if ours { self.sending.receipt(now_ms, receipt) } else { None };
        match taken {
            Some(delivered) => self.deliver(delivered),
            None => self.stats.ignored_receipts += 1,
        }
    }

    fn saw(&mut self, peer_revision: u64) {
        self.peer_revision = self.peer_revision.max(peer_revision);
    }

    fn deliver(&mut self, Delivered { seqs, refusals }: Delivered) {
        self.stats.delivered_rows += seqs.len() as u64;
        self.stats.refused += refusals.len() as u64;
        if !seqs.is_empty() || !refusals.is_empty() {
            self.events.push_back(Output::Delivered { seqs, refusals });
        }
    }

    /// Parent: answers the Hello. The token is stored before; `epoch` is that of the store now, a new one where the
    /// Hello showed that the parent was restored.
    pub fn welcome(&mut self, now_ms: u64, epoch: u64, recognition: v1::Recognition, token: Token) {
        let Phase::Deciding { protocol } = self.phase else { return };
        let (rules, software_version) = self.introduction.take().unwrap_or_default();
        self.epochs = Epochs {
            own: epoch,
            greeted: epoch,
            peer: self.epochs.peer,
            peer_will_say: recognition == v1::Recognition::ChildRestored,
        };
        let window_bytes = self.receiving.granted();
        self.send(Kind::Welcome(v1::Welcome {
            protocol,
            division: self.own.to_string(),
            epoch,
            token: Some(token.into()),
            recognition: recognition.into(),
            rules: Some(rules),
            window_bytes,
            software_version,
            clock_ms: clock_ms(now_ms),
            revision: self.revision,
        }));
        self.token_unconfirmed = true;
        self.phase = Phase::Open;
    }

    /// Child: the token of the Welcome is stored. `epoch` is that of the store now: a new one if, and only if, the
    /// Welcome said that this store was restored. Nothing but the Hello is sent or given to ingest before this.
    pub fn token_stored(&mut self, epoch: u64) {
        if self.phase == Phase::Storing {
            self.epochs.own = epoch;
            self.phase = Phase::Open;
        }
    }

    /// What to read from the outbox next, if anything; ask until there is nothing. The answer is `offer` or
    /// `lane_empty`; until then this lane is not asked for again. While everything granted is under way, nothing is.
    pub fn wants(&mut self) -> Option<Want> {
        if self.phase == Phase::Open { self.sending.wants() } else { None }
    }

    /// Rows of a lane, in the order of their numbers, read as `wants` said. Rows that still wait for receipts are
    /// passed over; no rows at all mean `lane_empty`.
    pub fn offer(&mut self, lane: v1::Lane, rows: Vec<OutboxRow>) {
        if self.phase == Phase::Open {
            self.drained_told &= rows.is_empty();
            let delivered = self.sending.offer(lane, rows);
            self.deliver(delivered);
        }
    }

    /// There was nothing to read. Counts only if the lane was not notified since it was asked for.
    pub fn lane_empty(&mut self, lane: v1::Lane) {
        self.sending.lane_empty(lane);
    }

    /// Rows were added to this lane.
    pub fn notify(&mut self, lane: v1::Lane) {
        self.drained_told = false;
        self.sending.notify(lane);
    }

    /// The batch is on disk, except for what was refused: its receipt goes out. `set_revision` comes first.
    pub fn ingested(&mut self, batch_id: u64, refusals: Vec<v1::Refusal>) {
        if !matches!(self.phase, Phase::Open | Phase::Draining { .. }) {
            return;
        }
        let Some(peer_epoch) = self.receiving.release(batch_id) else { return };
        let window_bytes = self.receiving.granted();
        let (epoch, revision) = (self.epochs.own, self.revision);
        let mut receipt = v1::Receipt { batch_id, epoch, peer_epoch, refusals, window_bytes, revision };
        if receipt.encoded_len() > RECEIPT_BYTES_MAX {
            receipt.refusals.iter_mut().for_each(|refusal| refusal.detail.clear());
        }
        self.send(Kind::Receipt(receipt));
        self.finish_draining();
    }

    /// The own store has committed its transaction of this number: called before `welcome`, `offer` and `ingested`.
    pub fn set_revision(&mut self, revision: u64) {
        self.revision = self.revision.max(revision);
    }

    /// The highest transaction of the peer's store that it named in this link: to be stored with what it brings.
    pub fn peer_revision(&self) -> u64 {
        self.peer_revision
    }

    /// Grants another window, with the receipts from now on: smaller where too much is under way.
    pub fn grant(&mut self, window_bytes: u32) {
        self.receiving.grant(window_bytes);
    }

    /// What the driver must do next: first what came in, then frames to send. `None`: nothing, until something
    /// changes. Call until then after every other call.
    pub fn poll(&mut self, now_ms: u64) -> Option<Output> {
        self.poll_event().or_else(|| self.poll_frame(now_ms).map(Output::Send))
    }

    /// `poll` without frames, for a driver whose stream takes no more just now.
    pub fn poll_event(&mut self) -> Option<Output> {
        if let Some(event) = pop(&mut self.events) {
            return Some(event);
        }
        if self.phase != Phase::Storing
            && let Some(arrived) = pop(&mut self.arrived)
        {
            return Some(arrived);
        }
        if !self.drained_told && self.phase == Phase::Open && self.sending.is_drained() {
            self.drained_told = true;
            return Some(Output::Drained);
        }
        if self.control.is_empty() { self.end.take().map(Output::End) } else { None }
    }

    /// The next frame to send. Parts of batches are made only here: what is not polled takes no memory.
    pub fn poll_frame(&mut self, now_ms: u64) -> Option<v1::Frame> {
        if let Some(frame) = pop(&mut self.control) {
            return Some(frame);
        }
        if self.phase != Phase::Open {
            return None;
        }
        match self.sending.next_part(now_ms, &mut self.stats) {
            Ok(part) => {
                let part = part?;
                let Epochs { own: epoch, peer: peer_epoch, .. } = self.epochs;
                let revision = if part.part == 0 { self.revision } else { 0 };
                let batch = v1::Batch { epoch, peer_epoch, revision, ..part };
                Some(v1::Frame { kind: Some(Kind::Batch(batch)) })
            }
            Err(error) => {
                let detail = format!("this node cannot compress a batch: {error}");
                self.close_with(v1::GoodbyeReason::Unspecified, detail, 0);
                pop(&mut self.control)
            }
        }
    }

    /// Counts of this link.
    pub fn stats(&self) -> Stats {
        let (in_flight_bytes, in_flight_batches) = self.sending.in_flight();
        Stats { in_flight_bytes, in_flight_batches, ..self.stats }
    }

    /// Nothing is to be sent, told, acknowledged or waited for; such a session holds no buffers.
    pub fn is_idle(&self) -> bool {
        let told = self.control.is_empty() && self.events.is_empty() && self.arrived.is_empty();
        let asked = self.questions.is_idle();
        told && asked && self.end.is_none() && self.sending.is_idle() && self.receiving.is_idle()
    }

    /// Which end this is.
    pub fn side(&self) -> Side {
        self.side
    }

    fn send(&mut self, kind: Kind) {
        self.control.push_back(v1::Frame { kind: Some(kind) });
    }

    #[cfg(test)]
    fn buffers(&self) -> usize {
        self.control.capacity() + self.events.capacity() + self.arrived.capacity() + self.sending.buffers()
    }
}

/// Takes the first; an emptied queue gives its memory back.
fn pop<T>(queue: &mut VecDeque<T>) -> Option<T> {
    let first = queue.pop_front();
    if queue.is_empty() {
        *queue = VecDeque::new();
    }
    first
}

fn clock_ms(now_ms: u64) -> i64 {
    i64::try_from(now_ms).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
