//! What the writing task is asked to do.

use std::sync::Arc;

use guantong_proto::v1;
use tokio::sync::oneshot;

use super::bundles::Step;
use super::{Answer, EngineError, Greeted, HandedIn};
use crate::aggregate::TallyChange;
use crate::audit::{Signed, Standing, Untaken};
use crate::comparing::{LinkProof, Noted};
use crate::division::Division;
use crate::grant::Mandate;
use crate::ingest::changes::{
    GrantRow, LinkChange, PeerState, RecordKey, ReportRow, Subscription, SumChange,
};
use crate::ingest::erasure::Erase;
use crate::ingest::local::{Basis, LocalWrite};
use crate::ingest::topology::{Interest, PeerId, Role};
use crate::record::RecordName;

/// Where an answer goes.
pub(super) type Reply<T> = oneshot::Sender<Result<T, EngineError>>;

/// A batch from a peer.
#[derive(Debug)]
pub struct LinkBatch {
    /// The peer.
    pub peer: PeerId,
    /// Both stores are the ones that greeted each other.
    pub same_epoch: bool,
    /// It came in the bulk lane.
    pub bulk: bool,
    /// The highest transaction of the peer's store that was seen.
    pub peer_revision: u64,
    /// The records.
    pub records: Vec<v1::BatchRecord>,
}

/// A request that may be repeated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// As the caller gave it, 1 to 64 characters.
    pub id: String,
    /// Hash over the content.
    pub content: u64,
}

/// What a write does to its record.
#[derive(Debug)]
pub enum WriteAction {
    /// Writes fields.
    Fields(LocalWrite),
    /// Erases what was written of fields up to now.
    Erase(Erase),
    /// Moves a case.
    Move {
        /// Which move.
        action: v1::Move,
        /// In whose name; `None`: the holder where the node acts for it, else the node's own division.
        acting: Option<Division>,
        /// The division addressed.
        to_division: Option<Division>,
        /// The unit addressed.
        to_unit: String,
        /// Code or words.
        reason: String,
        /// For a conclusion.
        outcome: Option<v1::Outcome>,
        /// What the caller saw.
        basis: Basis,
        /// As in `LocalWrite`.
        purpose: String,
        /// As in `LocalWrite`.
        mandate: Option<Arc<Mandate>>,
    },
}

/// A write of one record.
#[derive(Debug)]
pub struct Write {
    /// Which.
    pub name: RecordName,
    /// What.
    pub action: WriteAction,
    /// Makes a retry safe.
    pub request: Option<Request>,
    /// W3C trace context.
    pub traceparent: Option<Arc<str>>,
}

/// Rows of a ledger.
#[derive(Debug)]
pub struct Import {
    /// The kind of all rows.
    pub kind: crate::schema::KindId,
    /// The ledger's name.
    pub source: String,
    /// The first rows of an import begin it; the following ones say which it is.
    pub begun: Option<Begun>,
    /// The rows.
    pub rows: Vec<v1::ImportRow>,
}

/// An import that has begun.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Begun {
    /// Number of the ledger.
    pub source: i64,
    /// Number of the import of this ledger.
    pub generation: i64,
}

/// What became of some rows.
#[derive(Clone, Debug, Default)]
pub struct ImportProgress {
    /// The import that these rows belong to.
    pub begun: Begun,
    /// New records.
    pub created_count: u64,
    /// Records that changed.
    pub changed_count: u64,
    /// Rows that said nothing new.
    pub unchanged_count: u64,
    /// Rows that now stand beside another value.
    pub conflict_count: u64,
    /// Rows kept aside until their division is known.
    pub held_count: u64,
    /// Cells left out because their content was erased.
    pub erased_count: u64,
    /// Rows that were not taken.
    pub problems: Vec<v1::RowProblem>,
}

/// A subscription that is asked for.
#[derive(Clone, Debug)]
pub struct NewSubscription {
    /// Last part of its name.
    pub id: String,
    /// The partner whose it is; `None`: the operators'.
    pub owner: Option<String>,
    /// What it is owed.
    pub interest: Interest,
    /// Personal fields are wanted too.
    pub personal: bool,
    /// Hash over what its reader is allowed.
    pub filled_for: u64,
}

/// One thing to do.
/// What a recount found wrong in the checksums of links.
#[derive(Clone, Debug, Default)]
pub struct SumRepair {
    /// What is added to them, unless they were forgotten meanwhile.
    pub missing: Vec<SumChange>,
    /// Links whose checksums are computed anew.
    pub anew: Vec<PeerId>,
    /// `Shared::sums_forgotten` before they were read.
    pub forgotten: u64,
}

pub(super) enum Command {
    Link(LinkBatch, Reply<Vec<v1::Refusal>>),
    Write(Vec<Write>, Reply<Vec<Result<Answer, EngineError>>>),
    Import(Import, Reply<ImportProgress>),
    Delivered {
        peer: PeerId,
        seqs: Vec<i64>,
        keys: Vec<RecordKey>,
        refusals: Vec<v1::Refusal>,
        peer_revision: u64,
        reply: Reply<()>,
    },
    Welcome(Division, Box<v1::Hello>, Reply<Greeted>),
    Welcomed(Box<v1::Welcome>, Reply<Greeted>),
    TokenConfirmed(PeerId, Reply<()>),
    Subscribe(Box<NewSubscription>, Reply<Subscription>),
    Unsubscribe(PeerId, Reply<()>),
    Refill {
        peer: PeerId,
        filled_for: u64,
        asked: bool,
        reply: Reply<()>,
    },
    Recovered(PeerId, bool, Reply<()>),
    Owe(PeerId, Vec<RecordName>, Reply<()>),
    Prove(PeerId, LinkProof, Noted, Reply<()>),
    Peer(Role, Division, Reply<Option<PeerState>>),
    Grant(GrantRow, Reply<()>),
    Revoke(String, Reply<()>),
    Invitation(Box<LinkChange>, Reply<()>),
    RepairCounts(Vec<TallyChange>, Reply<()>),
    RepairRecordCount(i64, Reply<()>),
    RepairSums(SumRepair, Reply<()>),
    Report(Box<ReportRow>, Reply<()>),
    Checkpoint(Box<HandedIn>, Reply<Result<Standing, Untaken>>),
    /// A child's, and who accepts them.
    AcceptCheckpoints(Division, String, Reply<Vec<Signed>>),
    Bundle(Division, Box<Step>),
    /// Another gateway changed what all keep in memory.
    ReadAgain,
    Stop(oneshot::Sender<()>),
}

impl Command {
    /// How many records it touches, about: for the size of a group.
    pub(super) fn weight(&self) -> usize {
        match self {
            Command::Link(batch, _) => batch.records.len(),
            Command::Import(import, _) => import.rows.len(),
            Command::Write(writes, _) => writes.len(),
            _ => 1,
        }
    }

    /// Whether it can share a transaction with others.
    pub(super) fn groups(&self) -> bool {
        matches!(
            self,
            Command::Link(..) | Command::Write(..) | Command::Delivered { .. } | Command::TokenConfirmed(..)
        )
    }
}
