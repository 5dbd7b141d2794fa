//! What a store keeps of bundles, and how it changes: plain data, made by the engine, applied with other changes.

use bytes::Bytes;

use super::standing::{Mark, Standing};

/// Bundles made for a peer that are remembered after their receipt.
pub const MADE_MAX: u64 = 64;
/// Bundles taken in from a peer that are remembered after their receipt has arrived.
pub const TAKEN_MAX: u64 = 256;

/// A bundle that was made here, whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Made {
    /// It.
    pub mark: Mark,
    /// When it was begun, Unix milliseconds.
    pub made_ms: u64,
    /// It held everything that the peer was owed.
    pub whole: bool,
    /// Records in it.
    pub records: u64,
    /// The latest stamp of this store then.
    pub clock: u64,
}

/// A bundle of a peer that is being taken in, or was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TakenIn {
    /// It.
    pub mark: Mark,
    /// The one that its sender made before.
    pub previous: Option<Mark>,
    /// Batches of it that are on disk.
    pub batches: u64,
    /// When all of it was on disk, Unix milliseconds; 0: it is not.
    pub taken_ms: u64,
    /// Records and fields that were refused.
    pub refused: u64,
    /// How far its receipt has come.
    pub receipt: ReceiptState,
}

/// How far the receipt for a bundle has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ReceiptState {
    /// No bundle has carried it yet.
    #[default]
    Owed,
    /// First carried by the bundle with this number.
    Carried(u64),
    /// Its sender has it, as far as is known, or never takes one.
    Done,
}

/// One change, of what is kept of the exchange with one division.
#[derive(Clone, Debug)]
pub enum BundleChange {
    /// All that is known of the exchange, in place of the version before.
    Standing(Box<Standing>),
    /// A bundle was made: it, and the outbox rows that it holds, ascending, and receipts.
    Made {
        /// It.
        made: Made,
        /// The outbox rows whose records it holds.
        seqs: Vec<i64>,
        /// It carries the receipts of what was taken in up to then, Unix milliseconds.
        receipts_until_ms: u64,
    },
    /// The receipt for a bundle made here was taken in: its rows are done with, and where it was whole, so are those of the
    /// bundles before it, since whatever is still owed of them was in it.
    Confirmed {
        /// Its number.
        number: u64,
        /// It was whole.
        whole: bool,
    },
    /// A bundle of the peer is being taken in. Another one of its life and number is forgotten.
    Taking(TakenIn),
    /// Its batches up to this one are on disk.
    Progress {
        /// The bundle.
        mark: Mark,
        /// The last batch.
        batch_id: u64,
        /// How many records or fields of this batch were refused.
        refused: u64,
        /// What was refused of this batch, as the receipt will carry it; empty: nothing.
        refusals: Bytes,
    },
    /// All of it is on disk.
    Took {
        /// The bundle.
        mark: Mark,
        /// When, Unix milliseconds.
        taken_ms: u64,
        /// Its sender takes no receipt.
        one_way: bool,
    },
    /// The peer has taken in the bundle of this number, and with it the receipts that it and those before carried.
    ReceiptsArrived {
        /// Made here; 0: it has taken in none.
        number: u64,
        /// The newest bundle of the peer says so: what was carried later only is carried again.
        newest: bool,
    },
}
