//! What a bundle says, frame by frame, in the order that it must have. The same check runs before anything is written and
//! while it is: what passed the first time passes the second.

use guantong_proto::v1;
use guantong_proto::v1::bundle_frame::Kind;

use super::error::BundleError;
use super::keeping::MADE_MAX;
use super::keys::PublicKey;
use super::standing::{Heard, Mark};
use crate::session::whole;

/// Refusals in one receipt: those of one batch at most, with some fields each.
const REFUSALS_MAX: usize = 100_000;

/// The first frame.
#[derive(Clone, Debug, PartialEq)]
pub struct Greeting {
    /// Which stores the two ends are, as the sender knows them.
    pub heard: Heard,
    /// The bundles that the sender remembers to have finished for this node before.
    pub made: Vec<Mark>,
    /// The field rules that the sender knows.
    pub rules: v1::RuleTable,
    /// The key to seal bundles for the sender with.
    pub key: PublicKey,
    /// Number of the sender's last transaction.
    pub revision: u64,
    /// For operators.
    pub software_version: String,
}

/// One frame.
#[derive(Clone, Debug, PartialEq)]
#[allow(clippy::large_enum_variant)]
pub enum Item {
    /// The first.
    Greeting(Greeting),
    /// Records.
    Batch {
        /// From 1, without gaps.
        batch_id: u64,
        /// How urgent.
        lane: v1::Lane,
        /// They.
        records: Vec<v1::BatchRecord>,
    },
    /// What became of one of the receiver's bundles, or a part of that.
    Receipt {
        /// Which.
        bundle: Mark,
        /// What was not taken.
        refusals: Vec<v1::Refusal>,
        /// The rest was, and nothing more follows of this receipt.
        taken: bool,
    },
    /// A claim.
    Claim(v1::Claim),
    /// The last.
    End,
}

/// What was counted so far, and what must come next.
#[derive(Clone, Copy, Debug, Default)]
pub struct Contents {
    number: u64,
    greeted: bool,
    ended: bool,
    batches: u64,
    records: u64,
    receipts: u64,
    refusals: usize,
}

impl Contents {
    /// Of the bundle with this number.
    pub fn new(number: u64) -> Contents {
        Contents { number, ..Contents::default() }
    }

    /// Batches so far.
    pub fn batches(&self) -> u64 {
        self.batches
    }

    /// Records so far.
    pub fn records(&self) -> u64 {
        self.records
    }

    /// Receipts so far.
    pub fn receipts(&self) -> u64 {
        self.receipts
    }

    /// Takes the next frame.
    ///
    /// # Errors
    /// It cannot stand here, or cannot be read.
    pub fn take(&mut self, frame: v1::BundleFrame, last: bool) -> Result<Item, BundleError> {
        let wrong = |what: &str| BundleError::Content(what.into());
        let kind = frame.kind.ok_or_else(|| wrong("a frame of an unknown kind"))?;
        if self.greeted == matches!(kind, Kind::Greeting(_)) || self.ended {
            return Err(wrong("it does not begin with its greeting, or has two"));
        }
        if last != matches!(kind, Kind::End(_)) {
            return Err(wrong("it does not end where it says"));
        }
        match kind {
            Kind::Greeting(greeting) => self.greeting(greeting).map(Item::Greeting),
            Kind::Batch(batch) => self.batch(&batch),
            Kind::Receipt(receipt) => self.receipt(receipt),
            Kind::Claim(claim) => Ok(Item::Claim(claim)),
            Kind::End(end) => {
                let counted = (self.batches, self.records, self.receipts);
                if counted != (end.batch_count, end.record_count, end.receipt_count) || self.refusals > 0 {
                    return Err(wrong("it holds another number of records than it says"));
                }
                self.ended = true;
                Ok(Item::End)
            }
        }
    }

    fn greeting(&mut self, greeting: v1::BundleGreeting) -> Result<Greeting, BundleError> {
        let wrong = |what: &str| BundleError::Content(what.into());
        let mark = greeting.mark.map(Mark::from).filter(|mark| mark.number == self.number);
        let mark = mark.filter(|mark| mark.epoch != 0 && mark.number != 0);
        let heard = Heard {
            mark: mark.ok_or_else(|| wrong("its mark is not that of its head"))?,
            previous: greeting.previous.map(Mark::from),
            seen: greeting.seen.map(Mark::from),
            begun: greeting.begun.map(Mark::from),
            peer_epoch: greeting.peer_epoch,
            restored_epoch: greeting.restored_epoch,
            one_way: greeting.one_way,
            whole: greeting.whole,
        };
        if greeting.made.len() as u64 > MADE_MAX {
            return Err(wrong("it remembers more bundles than it may"));
        }
        let made = greeting.made.into_iter().map(Mark::from).collect();
        let key = PublicKey::from_bytes(&greeting.public_key)
            .ok_or_else(|| wrong("its key has no key's length"))?;
        self.greeted = true;
        let software_version =
            greeting.software_version.chars().filter(|c| !c.is_control()).take(64).collect();
        let rules = greeting.rules.unwrap_or_default();
        Ok(Greeting { heard, made, rules, key, revision: greeting.revision, software_version })
    }

    fn batch(&mut self, batch: &v1::Batch) -> Result<Item, BundleError> {
        let batch_id = self.batches + 1;
        if (batch.batch_id, batch.part, batch.last) != (batch_id, 0, true) {
            return Err(BundleError::Content(format!("batch {batch_id} is not where it should be")));
        }
        let records = whole::unpack(batch)
            .map_err(|error| BundleError::Content(format!("batch {batch_id}: {error}")))?;
        self.batches = batch_id;
        self.records += records.len() as u64;
        Ok(Item::Batch { batch_id, lane: batch.lane(), records })
    }

    fn receipt(&mut self, receipt: v1::BundleReceipt) -> Result<Item, BundleError> {
        let wrong = |what: &str| BundleError::Content(what.into());
        let bundle = receipt.bundle.map(Mark::from).ok_or_else(|| wrong("a receipt names no bundle"))?;
        if receipt.refusals.len() > REFUSALS_MAX {
            return Err(wrong("a receipt refuses more than a batch can hold"));
        }
        // What is refused stands before what says that the rest was taken.
        self.refusals = if receipt.taken { 0 } else { self.refusals + 1 };
        self.receipts += u64::from(receipt.taken);
        Ok(Item::Receipt { bundle, refusals: receipt.refusals, taken: receipt.taken })
    }
}
