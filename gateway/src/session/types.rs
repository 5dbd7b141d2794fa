//! What goes into a session and comes out of it.

use guantong_proto::v1;
use guantong_proto::v1::frame::Kind;

use super::greeting::{GreetingError, Token};
use super::payload;
use super::receiving::BatchError;
use crate::division::Division;

/// Which end of the link this is. The child dials.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The lower node.
    Child,
    /// The higher node.
    Parent,
}

/// What a session is made with.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Which end this is.
    pub side: Side,
    /// This node.
    pub own: Division,
    /// The other node, from its certificate.
    pub peer: Division,
    /// Random number of this node's store; a new one after a restore.
    pub epoch: u64,
    /// Number of this node's last transaction.
    pub revision: u64,
    /// Child: the highest transaction of *this* parent's store that was seen, 0 if none was. Parent: not used.
    pub peer_revision: u64,
    /// Child: the token that *this* parent gave last, `None` if there is none. Parent: not used.
    pub token: Option<Token>,
    /// The field rules that this node knows.
    pub rules: v1::RuleTable,
    /// Bytes of batches that the peer may have under way to here.
    pub window_bytes: u32,
    /// For the other side's operator.
    pub software_version: String,
    /// Times and sizes.
    pub limits: Limits,
}

/// Times and sizes that an operator might want otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The link ends when the other side has not greeted for so long.
    pub greeting_timeout_ms: u64,
    /// The link ends when the oldest batch in flight has no receipt for so long.
    pub receipt_timeout_ms: u64,
    /// After a shutdown, so long is waited for batches that are being written.
    pub drain_timeout_ms: u64,
    /// The size a batch is filled to before compression; smaller where the window is.
    pub batch_raw_bytes: usize,
    /// Batches in flight.
    pub in_flight_batches_max: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            greeting_timeout_ms: 10_000,
            receipt_timeout_ms: 60_000,
            drain_timeout_ms: 5_000,
            batch_raw_bytes: 256 * 1024,
            in_flight_batches_max: payload::IN_FLIGHT_BATCHES_MAX,
        }
    }
}

/// A row of the peer's outbox, with the records of its keys as the peer may have them.
#[derive(Clone, Debug, PartialEq)]
pub struct OutboxRow {
    /// The outbox number, read before the records or in one snapshot with them.
    pub seq: i64,
    /// None, where the peer is to have nothing of it: such a row is delivered at once.
    pub records: Vec<v1::BatchRecord>,
}

/// What to read from the outbox next. The driver answers each with `offer` or `lane_empty`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Want {
    /// Rows of this lane only.
    pub lane: v1::Lane,
    /// Rows with a greater number than this; `None`: from the first.
    pub after_seq: Option<i64>,
    /// About how many bytes of records, before compression. One row is always welcome, however large.
    pub budget_bytes: usize,
}

/// A batch from the peer, to be ingested in one transaction and answered with `ingested`.
#[derive(Clone, Debug, PartialEq)]
pub struct Inbound {
    /// For `ingested`.
    pub batch_id: u64,
    /// How urgent.
    pub lane: v1::Lane,
    /// Both stores are those that greeted. Otherwise the records are merged and owed back to the peer.
    pub same_epoch: bool,
    /// A record that went in parts stands here or in later batches more than once.
    pub records: Vec<v1::BatchRecord>,
}

/// What the session asks of its driver.
#[derive(Clone, Debug, PartialEq)]
#[allow(clippy::large_enum_variant)]
pub enum Output {
    /// Write this to the stream.
    Send(v1::Frame),
    /// Parent: the child's greeting, checked. Recognise it and store the token, then call `welcome`.
    Greeted(v1::Hello),
    /// Child: the parent's greeting, checked. In one transaction, store the token and act on what was recognised, then
    /// call `token_stored`.
    Welcomed(v1::Welcome),
    /// Parent, once: the child has stored its token. Store `IssuedTokens::confirmed`.
    TokenConfirmed,
    /// Ingest this batch, then call `ingested`.
    Ingest(Inbound),
    /// In one transaction: delete these rows, where their number is still that one, and quarantine what was refused.
    Delivered {
        /// Rows with all their receipts.
        seqs: Vec<i64>,
        /// What the peer did not take, of these rows or of rows to be delivered later.
        refusals: Vec<v1::Refusal>,
    },
    /// Nothing is owed in any lane and all receipts are in. Comes again after each time that something was.
    Drained,
    /// The peer's checksums. What they mean is `comparing`'s to say.
    PeerChecksum(v1::Checksum),
    /// The child asks which parts differ.
    PeerProbe(v1::Probe),
    /// Which parts differ, says the parent.
    PeerFinding(v1::Finding),
    /// The peer's claim.
    PeerClaim(v1::Claim),
    /// The peer asks. Each part of the answer goes to `Session::answer`, the last one marked as such.
    PeerAsks(v1::Ask),
    /// A part of the answer to a question of ours.
    PeerAnswers(v1::Answer),
    /// The session is over: write out what was given before, then close the stream. Nothing follows.
    End(End),
}

/// Why a link ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct End {
    /// The peer said goodbye.
    pub by_peer: bool,
    /// Why.
    pub reason: v1::GoodbyeReason,
    /// In plain words.
    pub detail: String,
    /// Do not link again before so many milliseconds.
    pub retry_after_ms: u32,
}

/// Where both directions of a link stood when checksums were taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Position {
    /// The last batch sent; it has its receipt.
    pub last_batch_sent: u64,
    /// The last batch received; its receipt was given.
    pub last_batch_received: u64,
}

/// Counts since the link was greeted, for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Batches that were begun.
    pub sent_batches: u64,
    /// Their records.
    pub sent_records: u64,
    /// Their compressed bytes.
    pub sent_bytes: u64,
    /// Rows with all their receipts.
    pub delivered_rows: u64,
    /// Fields and records that the peer refused.
    pub refused: u64,
    /// Receipts of another epoch, of an unknown batch or of one that had its receipt.
    pub ignored_receipts: u64,
    /// Whole batches.
    pub received_batches: u64,
    /// Their records.
    pub received_records: u64,
    /// Their compressed bytes.
    pub received_bytes: u64,
    /// Compressed bytes without a receipt, now.
    pub in_flight_bytes: u64,
    /// Batches without a receipt, now.
    pub in_flight_batches: usize,
}

/// The peer broke the protocol. The session has said goodbye to it; nothing is lost, since all without a receipt is
/// still owed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProtocolError {
    /// A frame at a time when it cannot come.
    #[error("a {frame} came {when}")]
    Unexpected {
        /// The kind of frame.
        frame: &'static str,
        /// When.
        when: &'static str,
    },
    /// The nodes cannot link.
    #[error(transparent)]
    Greeting(#[from] GreetingError),
    /// A batch is wrong.
    #[error(transparent)]
    Batch(#[from] BatchError),
}

impl ProtocolError {
    /// The reason that the peer is given.
    pub fn goodbye(&self) -> v1::GoodbyeReason {
        match self {
            ProtocolError::Greeting(error) => error.goodbye(),
            _ => v1::GoodbyeReason::ProtocolError,
        }
    }
}

/// What a frame is called in the protocol.
pub(super) fn name_of(kind: &Kind) -> &'static str {
    match kind {
        Kind::Hello(_) => "Hello",
        Kind::Welcome(_) => "Welcome",
        Kind::Batch(_) => "Batch",
        Kind::Receipt(_) => "Receipt",
        Kind::Checksum(_) => "Checksum",
        Kind::Claim(_) => "Claim",
        Kind::Goodbye(_) => "Goodbye",
        Kind::Probe(_) => "Probe",
        Kind::Finding(_) => "Finding",
        Kind::Ask(_) => "Ask",
        Kind::Answer(_) => "Answer",
    }
}
