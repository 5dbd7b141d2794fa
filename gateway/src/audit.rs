//! The audit log: what is written of each event, and how entries are chained so that nobody changes, removes or
//! reorders one unseen.
//!
//! An entry is one line of JSON, and the hash is over its very bytes: whoever has the lines can check them without this
//! program, and a later program's events are checked by an earlier one. It must never hold personal data or the content
//! of a record: names of records, divisions, counts, checksums, and reasons as codes.

use guantong_proto::v1::{GoodbyeReason, Recognition, RefusalReason};
use serde::Serialize;

use crate::division::Division;

mod chain;
mod checkpoint;
mod codes;
mod gathered;
mod retold;
#[cfg(test)]
mod tests;

pub use chain::{Broken, Chain, Hash, Head, Row, digest, extend, origin};
pub use checkpoint::{Checkpoint, DIGESTS_MAX, Signed, Standing, Untaken, judge};
pub use gathered::{GATHERED_MAX, Gathered, JOIN_MS};
pub use retold::{Beside, Copied, Purged, Span, copied, purged};

/// What happened. Its JSON begins with `"event"`, the variant's name in small letters with underscores; names of fields
/// are those below; `number`, `time_ms`, `times` and `since_ms` are every entry's. A field of an event is never renamed; a
/// new one is added at its end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// The program began to write to this store.
    Started {
        /// The program's version.
        version: &'static str,
        /// The store's random number, 16 hexadecimal digits.
        epoch: String,
    },
    /// The program stopped in good order.
    Stopped,
    /// A link was greeted.
    LinkUp {
        /// The other end.
        #[serde(serialize_with = "codes::code")]
        peer: Division,
        /// What the parent made of the child's token.
        #[serde(serialize_with = "codes::recognition")]
        recognition: Recognition,
    },
    /// A link that was greeted ended.
    LinkDown {
        /// The other end.
        #[serde(serialize_with = "codes::code")]
        peer: Division,
        /// Who ended it.
        by: Side,
        /// Why; unspecified: the line broke.
        #[serde(serialize_with = "codes::goodbye")]
        reason: GoodbyeReason,
        /// Records sent over it.
        sent: u64,
        /// Records received over it.
        received: u64,
    },
    /// Records of a peer were taken in, in one transaction.
    Received {
        /// The peer.
        #[serde(serialize_with = "codes::code")]
        peer: Division,
        /// How many.
        records: u64,
        /// How many records or fields of them were refused.
        refused: u64,
        /// 128 bits over names and states as they came, in their order, 32 hexadecimal digits.
        checksum: String,
    },
    /// A peer confirmed that what it was owed is on its disk, in one transaction.
    Delivered {
        /// `node:` and a division, or `subscription:` and its name.
        peer: String,
        /// How many records.
        records: u64,
        /// How many records or fields of them it refused.
        refused: u64,
    },
    /// Something was not taken from a peer, or by it.
    Refused {
        /// The other end.
        #[serde(serialize_with = "codes::code")]
        peer: Division,
        /// Who refused it.
        by: Side,
        /// Why.
        #[serde(serialize_with = "codes::reason")]
        reason: RefusalReason,
        /// The record's name, empty if it cannot be read; of several the first.
        record: String,
        /// The field's number; 0: the whole record.
        field: u32,
        /// How many there were for this reason in this transaction.
        refusals: u64,
    },
    /// A child sent back what this restored node had lost, beyond what children may send otherwise.
    Recovered {
        /// The child.
        #[serde(serialize_with = "codes::code")]
        peer: Division,
    },
    /// A peer has given everything that this restored node lacked: a child speaks for its own scope only again.
    RecoveryEnded {
        /// The peer.
        #[serde(serialize_with = "codes::code")]
        peer: Division,
    },
    /// Both ends of a link were found to hold the same, after they had not.
    LinkVerified {
        /// The other end.
        #[serde(serialize_with = "codes::code")]
        peer: Division,
    },
    /// Records were found to differ between the ends of a link, and each end sends the other what it has of them.
    LinkRepaired {
        /// The other end.
        #[serde(serialize_with = "codes::code")]
        peer: Division,
        /// How many.
        records: u64,
    },
    /// Records were sent again and differ still.
    LinkDiffers {
        /// The other end.
        #[serde(serialize_with = "codes::code")]
        peer: Division,
        /// How many.
        records: u64,
    },
    /// Conflicts were settled.
    Resolved {
        /// The record's name; of several the first.
        record: String,
        /// Its field's number.
        field: u32,
        /// How many were settled in this transaction.
        conflicts: u64,
    },
    /// A case was sealed.
    Sealed {
        /// Its name.
        record: String,
    },
    /// Fields that this tier may no longer hold were removed.
    Purged {
        /// The record's name.
        record: String,
        /// The fields' numbers.
        fields: Vec<u32>,
    },
    /// Content of a record was erased here: by a call, or since a peer passed the mark on.
    Erased {
        /// The record's name.
        record: String,
        /// The fields' numbers.
        fields: Vec<u32>,
        /// How many values stood of them and went.
        values: u64,
        /// Who asked for it, as for commands; empty: it came over a link.
        by: String,
        /// Why, in the words of whoever asked.
        reason: String,
        /// What was kept of them beside the record, and went too.
        #[serde(flatten)]
        beside: Beside,
    },
    /// A bundle was made: a file for a node that there is no line to.
    BundleMade {
        /// For whom.
        #[serde(serialize_with = "codes::code")]
        peer: Division,
        /// Its number.
        bundle: u64,
        /// Records in it.
        records: u64,
        /// Receipts in it.
        receipts: u64,
        /// BLAKE3 of what its maker signed, 64 hexadecimal digits.
        checksum: String,
    },
    /// A bundle was taken in, whole.
    BundleTaken {
        /// From whom.
        #[serde(serialize_with = "codes::code")]
        peer: Division,
        /// Its number.
        bundle: u64,
        /// Records in it.
        records: u64,
        /// How many records or fields of them were refused.
        refused: u64,
        /// Outbox rows that its receipts delivered.
        delivered: u64,
        /// As for those that are made.
        checksum: String,
    },
    /// A bundle was not taken in: nothing of it was.
    BundleRefused {
        /// Who made it, as it says; empty: it does not say.
        peer: String,
        /// Why.
        reason: &'static str,
        /// Its size in bytes, as far as it was read.
        bytes: u64,
    },
    /// The key that bundles for a node are sealed with was taken over from its card.
    BundleKeyAccepted {
        /// Whose.
        #[serde(serialize_with = "codes::code")]
        peer: Division,
        /// The key's name, 16 hexadecimal digits.
        key: String,
    },
    /// A partner was granted something, in place of what it had.
    GrantSet {
        /// The partner's name.
        partner: String,
        /// The division that it is confined to.
        #[serde(serialize_with = "codes::code")]
        scope: Division,
        /// Numbers of kinds; empty: every kind.
        kinds: Vec<u32>,
        /// `aggregates`, `read` or `write`.
        level: &'static str,
        /// Personal fields, too.
        personal: bool,
        /// Units in whose name it handles cases; `*`: all.
        units: Vec<String>,
        /// Who granted it.
        by: String,
        /// How often it may call, such as `50/s`; empty: as often as it likes.
        rate: String,
    },
    /// A partner called more often than its grant allows: these calls were refused.
    RateExceeded {
        /// The partner's name.
        partner: String,
    },
    /// A partner's grant was taken away.
    GrantRemoved {
        /// The partner's name.
        partner: String,
    },
    /// A new node was invited.
    Invited {
        /// The invitation's number, 16 hexadecimal digits.
        invitation: String,
        /// Whose node it is for.
        #[serde(serialize_with = "codes::code")]
        division: Division,
        /// Until when its code is good, Unix milliseconds.
        expire_ms: u64,
        /// Who invited it.
        by: String,
    },
    /// An invitation was taken back.
    InvitationWithdrawn {
        /// Its number, 16 hexadecimal digits.
        invitation: String,
        /// Who took it back.
        by: String,
    },
    /// A new node came by its invitation.
    Enrolled {
        /// Its division.
        #[serde(serialize_with = "codes::code")]
        division: Division,
        /// From where.
        address: String,
    },
    /// Somebody's code was not accepted.
    CodeRefused {
        /// From where.
        address: String,
        /// `wrong`, `used`, `expired`, `withdrawn`, or `too_many` tries.
        reason: &'static str,
    },
    /// A child was given a new certificate in place of its old one.
    CertificateRenewed {
        /// Whose.
        #[serde(serialize_with = "codes::code")]
        division: Division,
        /// The serial number of the old one, in hexadecimal digits.
        serial: String,
        /// How many days before the old one had run out; 0: it had not.
        late_days: u64,
    },
    /// A child was not given a new certificate.
    RenewalRefused {
        /// Whose.
        #[serde(serialize_with = "codes::code")]
        division: Division,
        /// `revoked`, or the code of the error.
        reason: String,
    },
    /// Revocation lists or roots were taken over, from the parent or from the own authority.
    TrustTakenOver {
        /// From whom: `parent` or `authority`.
        from: &'static str,
    },
    /// A subscription began.
    Subscribed {
        /// Its name.
        subscription: String,
        /// The partner whose it is; empty: the operators'.
        owner: String,
        /// Personal fields are wanted, too.
        personal: bool,
    },
    /// A subscription ended.
    Unsubscribed {
        /// Its name.
        subscription: String,
    },
    /// An operator or a partner called a method that changes something.
    Command {
        /// The method, as `Service.Method`.
        command: String,
        /// `local user N`, or the caller's path in its SPIFFE id, such as `operator/NAME`.
        by: String,
        /// Whether it was done: `ok`, or the code of the error.
        outcome: &'static str,
    },
    /// Kept counts were put right after a recount.
    CountsRepaired {
        /// How many cells.
        cells: u64,
    },
    /// A connection was refused.
    ConnectionRefused {
        /// Where it came from.
        address: String,
        /// Why, as a code.
        reason: &'static str,
    },
    /// This store was found to be restored or copied, and became another writer.
    StoreRenewed {
        /// The store's new random number, 16 hexadecimal digits.
        epoch: String,
    },
    /// The store was put back from a backup, while no node ran on it.
    StorePutBack {
        /// Who did it: `local user N`.
        by: String,
    },
    /// The store of before was damaged and set aside; this one began with what could be read of it.
    StoreRebuilt {
        /// Records that were saved.
        records: u64,
        /// Who did it: `local user N`.
        by: String,
    },
    /// The database went back to an earlier transaction while the program ran.
    StoreWentBack {
        /// The last transaction known before.
        from: u64,
        /// The last one that it has now.
        to: u64,
    },
    /// Another node showed the identity of one that is linked.
    CopiedNode {
        /// Whose.
        #[serde(serialize_with = "codes::code")]
        peer: Division,
    },
    /// A child's checkpoint contradicts an earlier one: its log is not what it was.
    CheckpointContradicted {
        /// The child; at the child itself its own division.
        #[serde(serialize_with = "codes::code")]
        peer: Division,
        /// The gateway whose chain it is.
        slot: i64,
        /// The number of the checkpoint that was kept.
        kept: u64,
        /// The number of the one that contradicts it.
        signed: u64,
    },
    /// An operator took what a child signs of its log now in place of what was kept before, which was removed.
    CheckpointAccepted {
        /// The child.
        #[serde(serialize_with = "codes::code")]
        peer: Division,
        /// The gateway whose chain it is.
        slot: i64,
        /// The number of the last checkpoint that was kept before.
        kept: u64,
        /// Its hash, 64 hexadecimal digits.
        kept_hash: String,
        /// The number of the one that is kept now.
        signed: u64,
        /// Its hash, 64 hexadecimal digits.
        signed_hash: String,
        /// Who accepted it.
        by: String,
    },
    /// A child's store was put back: its log goes on from an earlier entry than the last one kept of it.
    CheckpointAnew {
        /// The child.
        #[serde(serialize_with = "codes::code")]
        peer: Division,
        /// The gateway whose chain it is.
        slot: i64,
        /// The number of the last checkpoint of before.
        kept: u64,
        /// The number of the first one of the chain as it is now.
        signed: u64,
    },
    /// One stamp came with two contents: a node was copied while it ran.
    StampForked,
    /// Entries that could not be written because too many came at once.
    Lost {
        /// How many.
        entries: u64,
    },
}

/// An end of an exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Side {
    /// This node.
    Own,
    /// The other one.
    Peer,
}

/// Something to be written into the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// What happened.
    pub event: Event,
    /// How often, from when on: events that repeat are written once.
    pub repeated: Option<Repeated>,
}

/// An event that came more than once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Repeated {
    /// How often.
    pub times: u64,
    /// When it came first, Unix milliseconds. The entry's own time is that of the last.
    pub since_ms: u64,
    /// When it came last, Unix milliseconds.
    pub last_ms: u64,
}

impl From<Event> for Note {
    fn from(event: Event) -> Note {
        Note { event, repeated: None }
    }
}

#[derive(Serialize)]
struct Line<'a> {
    number: u64,
    time_ms: u64,
    #[serde(flatten)]
    event: &'a Event,
    #[serde(skip_serializing_if = "Option::is_none")]
    times: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    since_ms: Option<u64>,
}

/// The line of an entry: its number, the time in Unix milliseconds, the event.
pub fn line(number: u64, time_ms: u64, note: &Note) -> String {
    let repeated = note.repeated;
    let line = Line {
        number,
        time_ms: repeated.map_or(time_ms, |r| r.last_ms),
        event: &note.event,
        times: repeated.map(|r| r.times),
        since_ms: repeated.map(|r| r.since_ms),
    };
    // Keys are texts, and nothing in an event can fail to be written.
    serde_json::to_string(&line).unwrap_or_default()
}
