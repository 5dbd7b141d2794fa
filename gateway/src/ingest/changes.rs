//! What one transaction writes: plain data, made by `Work`, applied by a store, whole or not at all.

use std::collections::BTreeMap;

use bytes::Bytes;
use guantong_proto::rules::Lane;
use guantong_proto::v1::RefusalReason;

use crate::aggregate::TallyChange;
use crate::audit::{Event, Note, Signed};
use crate::bundle::keeping::BundleChange;
use crate::claiming::Claimed;
use crate::comparing::LinkProof;
use crate::division::{Division, DivisionEntry};
use crate::facet::FacetValue;
use crate::grant::Grant;
use crate::invitation::{Fate, Invitation};
use crate::proof::Sum;
use crate::record::{FieldNumber, RecordName};
use crate::schema::KindId;
use crate::stamp::{Stamp, Writer};
use crate::threshold::ThresholdEntry;

use super::recovery::Recovery;
use super::topology::{Interest, PeerId, Role};
use super::writers::NewWriter;
use crate::session::greeting::{IssuedTokens, Token};

/// A record's number in one store. Given out by the store ahead of use, never reused.
pub type RecordKey = i64;

/// Everything that one transaction writes.
#[derive(Clone, Debug, Default)]
pub struct Changes {
    /// Records that are new or changed.
    pub records: Vec<RecordChange>,
    /// What peers are owed from now on.
    pub outbox: Vec<OutboxGroup>,
    /// What records are found by from now on.
    pub facets_added: Vec<FacetRow>,
    /// What they are no longer found by.
    pub facets_removed: Vec<FacetRow>,
    /// Kept counts, by how much they change; each cell once.
    pub tallies: Vec<TallyChange>,
    /// Running checksums of links, by how much they change; each peer, home and kind once.
    pub sums: Vec<SumChange>,
    /// The last stamp of each writer that wrote.
    pub clocks: Vec<(Writer, Stamp)>,
    /// Conflicts that were settled, for the history.
    pub resolutions: Vec<Resolution>,
    /// What a ledger's rows brought, for the next import.
    pub import_rows: Vec<ImportRowMemory>,
    /// Rows kept aside until their division is known, and those that no longer are (by id).
    pub held: Vec<HeldRow>,
    /// Held rows that have gone in.
    pub released_rows: Vec<i64>,
    /// Answers to requests that may be repeated.
    pub requests: Vec<RequestMemory>,
    /// Records whose fields must be purged here once what is owed below has its receipts.
    pub purges: Vec<RecordKey>,
    /// Purges that are done.
    pub purged: Vec<RecordKey>,
    /// Content that nothing in the store may tell any more.
    pub erased: Vec<ErasedContent>,
    /// What the table of divisions learns.
    pub divisions: Vec<DivisionEntry>,
    /// What the table of thresholds learns.
    pub thresholds: Vec<ThresholdEntry>,
    /// Entries of the audit log, in their order.
    pub audit: Vec<Note>,
}

/// One record as it is now.
#[derive(Clone, Debug)]
pub struct RecordChange {
    /// Its number.
    pub key: RecordKey,
    /// Its name.
    pub name: RecordName,
    /// The revision that was read; 0: the record is new. The store writes `revision + 1`.
    pub revision: i64,
    /// `record::codec`.
    pub state: Bytes,
    /// Fields in conflict from now on, ascending, if that changed.
    pub conflicts: Option<Vec<FieldNumber>>,
    /// Divisions beside the home that joined the audience.
    pub audience_added: Vec<Division>,
}

/// Content of a record that was erased: what the store remembers of it beside the record must go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ErasedContent {
    /// The record's number.
    pub key: RecordKey,
    /// Its name.
    pub name: RecordName,
    /// Fields, and up to when their content is erased.
    pub fields: Vec<(FieldNumber, Stamp)>,
    /// What is noted of it; the store adds what it forgot beside the record.
    pub event: Event,
}

/// One value that a record is found by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FacetRow {
    /// The value.
    pub value: FacetValue,
    /// The record's home.
    pub home: Division,
    /// Its number.
    pub key: RecordKey,
}

/// By how much the running checksums of a link change for the records of one home and kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SumChange {
    /// The other end of the link.
    pub peer: PeerId,
    /// The records' home.
    pub home: Division,
    /// Their kind.
    pub kind: KindId,
    /// What is added to the sum of each field, ascending, none of them 0.
    pub sums: Vec<(FieldNumber, Sum)>,
}

/// Records owed to one peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutboxGroup {
    /// To whom.
    pub peer: PeerId,
    /// How urgently.
    pub lane: Lane,
    /// W3C trace context of the write.
    pub traceparent: Option<String>,
    /// The peer cannot have these records yet.
    pub fresh: bool,
    /// Which, ascending, each once.
    pub keys: Vec<RecordKey>,
}

/// A conflict that a write settled.
#[derive(Clone, Debug)]
pub struct Resolution {
    /// The record's number.
    pub key: RecordKey,
    /// The field.
    pub field: FieldNumber,
    /// The register as it stood before, encoded as a record with this field alone.
    pub before: Bytes,
    /// The register after the write, encoded the same way.
    pub after: Bytes,
    /// Unix milliseconds.
    pub resolved_ms: u64,
}

/// What a row of a ledger brought last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImportRowMemory {
    /// Which ledger.
    pub source: SourceId,
    /// The row's key in it.
    pub row: String,
    /// The record that it stands for.
    pub key: RecordKey,
    /// The import that brought it last.
    pub generation: i64,
    /// Hash of each field's value as the ledger brought it, by field.
    pub values: BTreeMap<FieldNumber, u64>,
}

/// A ledger, numbered by the store: one for each source name and kind.
pub type SourceId = i64;

/// A row that waits until its division is known.
#[derive(Clone, Debug)]
pub struct HeldRow {
    /// Which ledger.
    pub source: SourceId,
    /// The row, an encoded `guantong.v1.ImportRow`.
    pub row: Bytes,
    /// The row's key in the ledger: a later row of the same key takes its place.
    pub row_key: String,
    /// The division that is not known.
    pub division: Division,
    /// In plain words.
    pub reason: String,
    /// Unix milliseconds.
    pub held_ms: u64,
}

/// The answer to a request id.
#[derive(Clone, Debug)]
pub struct RequestMemory {
    /// As the caller gave it.
    pub request_id: String,
    /// Hash over the request's content.
    pub content: u64,
    /// The record that it wrote.
    pub key: RecordKey,
    /// Unix milliseconds.
    pub done_ms: u64,
}

/// A field, or a whole record, that was not taken from a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The field; 0: the whole record.
    pub field: FieldNumber,
    /// Why.
    pub reason: RefusalReason,
    /// In plain words, without personal data.
    pub detail: String,
    /// When it may be taken, Unix milliseconds.
    pub retry_at_ms: Option<u64>,
}

/// What a transaction writes about peers, beside records. Applied in order, in the same transaction as
/// `Changes`, after its records and before its outbox groups.
#[derive(Clone, Debug)]
pub enum LinkChange {
    /// A writer that was made; stored before anything that it wrote.
    NewWriter(NewWriter),
    /// A writer that was given up: kept, no longer current.
    GiveUp(Writer),
    /// The store became another.
    NewEpoch {
        /// Its new random number.
        epoch: u64,
        /// When, Unix milliseconds.
        at_ms: u64,
    },
    /// Where the store is written from now on. Whether it was put back is settled with it.
    Lineage(Lineage),
    /// How the store is filled again, in place of what was known of that.
    Recovery(Recovery),
    /// All counts, open conflicts and checksums of links go: every record is about to be judged anew by other rules.
    ForgetJudgements,
    /// The checksums of a link go, and are not known until they were computed anew.
    ForgetSums(PeerId),
    /// So many records more, or fewer, than were kept count of; open conflicts of those that are gone go with them.
    Recounted(i64),
    /// Fingerprint of the rules by which every record was judged.
    Learned([u8; 16]),
    /// Everything the store knows of a peer (insert or replace, by id; ids are given out by the store's caller: highest + 1).
    Peer(PeerState),
    /// The peer's store was seen at this revision (keeps the highest).
    Seen {
        /// The peer.
        peer: PeerId,
        /// Number of its transaction.
        revision: u64,
    },
    /// A child has sent something: it has stored its newest token.
    TokenConfirmed(PeerId),
    /// Receipts for outbox rows: they go, and so do quarantined fields of these records that were not refused again.
    Delivered {
        /// The peer.
        peer: PeerId,
        /// The rows that were delivered.
        seqs: Vec<i64>,
        /// The records that they held.
        keys: Vec<RecordKey>,
        /// What was refused of them.
        refused: Vec<Quarantine>,
    },
    /// Owes the peer every record that concerns it, in the bulk lane: those with a home in its scope, those handed to a
    /// division in it, and those of subtree kinds above it; for the parent, everything.
    Backfill {
        /// The peer.
        peer: PeerId,
        /// A child's scope; `None`: the parent, which gets all.
        scope: Option<Division>,
        /// Numbers of the kinds whose audience is a subtree.
        subtree_kinds: Vec<u32>,
    },
    /// Owes the peer these records again, in the bulk lane, ascending: the ends were found to differ in them.
    Owe {
        /// The peer.
        peer: PeerId,
        /// Which.
        keys: Vec<RecordKey>,
    },
    /// Whether both ends of the link to a peer hold the same.
    Proof(PeerId, LinkProof),
    /// Everything the store knows of a subscription (insert or replace, by peer), which is then owed all that it covers.
    Subscribe {
        /// It.
        subscription: Subscription,
        /// The kinds that it covers.
        kinds: CoveredKinds,
    },
    /// A subscription ends: it goes, and what it was owed.
    Unsubscribe(PeerId),
    /// Owes the peer again what it refused.
    RetryQuarantine {
        /// The peer.
        peer: PeerId,
        /// Only what is due by then, Unix milliseconds; `None`: all.
        due_ms: Option<u64>,
    },
    /// What nodes claim, each in place of what was known of it; that of the node itself is the floor under its stamps.
    Claims(Vec<(Division, Claimed)>),
    /// Joins the outbox groups of a peer so that each record stands once in each lane.
    CompactOutbox(PeerId),
    /// A partner's grant, in place of the one it had.
    Grant(GrantRow),
    /// A partner's grant goes.
    Revoke(String),
    /// A new node is invited.
    Invite(Invitation),
    /// What became of an invitation that was open.
    Invited {
        /// Its number.
        id: u64,
        /// That.
        fate: Fate,
    },
    /// A report that was issued.
    Report(ReportRow),
    /// A signed checkpoint of this node's or a child's audit log.
    Checkpoint(Signed),
    /// The same in place of all that were kept of its chain before.
    CheckpointInstead(Signed),
    /// Something about the exchange by bundles with a division.
    Bundle {
        /// The parent or a node below.
        division: Division,
        /// What.
        change: BundleChange,
    },
}

/// Where a store is written: another one than it was last means that it was put back, or that a standby took over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lineage {
    /// The timeline of PostgreSQL; `None`: it cannot be read, or there is none.
    pub timeline: Option<i64>,
    /// A hash over which database of which server it is; `None`: that cannot be read, or it is a file.
    pub place: Option<i64>,
}

impl Lineage {
    /// The same, with what is not known of it as it was.
    pub fn or(self, before: Lineage) -> Lineage {
        Lineage { timeline: self.timeline.or(before.timeline), place: self.place.or(before.place) }
    }
}

/// What a partner was granted, by whom and when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GrantRow {
    /// The partner's name.
    pub partner: String,
    /// What it may.
    pub grant: Grant,
    /// Unix milliseconds.
    pub granted_ms: u64,
    /// Who granted it.
    pub granted_by: String,
}

/// Which report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReportKey {
    /// Of which division.
    pub division: Division,
    /// Of which period.
    pub period: String,
    /// The how many-th of that division and period, from 1.
    pub issue: u32,
}

/// A report as it was issued.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReportRow {
    /// Which.
    pub key: ReportKey,
    /// Unix milliseconds.
    pub issued_ms: u64,
    /// The account that issued it.
    pub issued_by: String,
    /// The moment that its figures stand for, Unix milliseconds.
    pub as_of_ms: u64,
    /// The report, encoded.
    pub content: Bytes,
}

/// A field, or a whole record (field 0), that a peer refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quarantine {
    /// The record.
    pub key: RecordKey,
    /// What, why, and when it may be tried again.
    pub refused: Refused,
}

/// Kinds of records that a peer is owed, by number.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CoveredKinds {
    /// All of them.
    pub all: Vec<u32>,
    /// Those of them whose audience is a subtree.
    pub subtree: Vec<u32>,
}

/// What a store knows of a subscription.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscription {
    /// Its number.
    pub peer: PeerId,
    /// What callers know it by: the last part of its name.
    pub id: String,
    /// The partner whose it is; `None`: the operators'.
    pub owner: Option<String>,
    /// What it is owed.
    pub interest: Interest,
    /// Personal fields are wanted too.
    pub personal: bool,
    /// Hash over what its reader was allowed when it was last owed everything.
    pub filled_for: u64,
    /// Unix milliseconds.
    pub created_ms: u64,
}

/// What a store knows of a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerState {
    /// Its number here.
    pub id: PeerId,
    /// What it is to this node.
    pub role: Role,
    /// Its division.
    pub division: Division,
    /// As its parent: the tokens given to it.
    pub issued: IssuedTokens,
    /// As its child: the token that it gave.
    pub token: Option<Token>,
    /// The latest stamp of this store's writers when that token was given or stored.
    pub clock_at_token: Stamp,
    /// The same for the token before it: of two copies of a store, each may have been given another last one.
    pub clock_before_token: Stamp,
    /// The revision at which this store was first opened since it last greeted the peer; `None`: not since.
    pub opened_revision: Option<u64>,
    /// Its store's random number at the last greeting; 0: never greeted.
    pub epoch: u64,
    /// The highest transaction of its store that was seen.
    pub revision: u64,
    /// While this node recovers: foreign stamps up to here are taken from the child.
    pub recovering_to: Option<Stamp>,
    /// The slot of the gateway that greeted it last: its link is there, and any other is of before.
    pub slot: i64,
    /// The link's checksums hold the records up to this number; `RecordKey::MAX`: all, and only then they are known.
    pub summed_through: RecordKey,
}
