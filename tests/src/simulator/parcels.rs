//! What a simulated store keeps of bundles: the rules of `store/bundles.rs`, over maps.
//!
//! It must decide nothing: what changes was decided before.

use std::collections::BTreeMap;

use bytes::Bytes;
use guantong_gateway::bundle::keeping::{BundleChange, MADE_MAX, Made, TAKEN_MAX, TakenIn};
use guantong_gateway::bundle::standing::{Mark, Standing};
use guantong_gateway::division::Division;

/// As the state of a receipt: nobody takes it. One that has arrived is the bundle that carried it first, below zero.
const NEVER: i64 = i64::MIN / 2;

/// A peer, a life of its store and a number.
type TakenKey = (Division, u64, u64);

/// Everything that a store keeps of bundles.
#[derive(Clone, Debug, Default)]
pub struct Kept {
    standings: BTreeMap<Division, Standing>,
    made: BTreeMap<(Division, u64), Made>,
    rows: BTreeMap<(Division, u64), Vec<i64>>,
    /// With the state of its receipt.
    taken: BTreeMap<TakenKey, (TakenIn, i64)>,
    refusals: BTreeMap<(TakenKey, u64), Bytes>,
}

fn key(of: Division, mark: Mark) -> TakenKey {
    (of, mark.epoch, mark.number)
}

impl Kept {
    /// What is remembered of the exchange with a division.
    pub fn standing(&self, of: Division) -> Standing {
        self.standings.get(&of).cloned().unwrap_or_default()
    }

    /// When the newest bundles that came were made, by the clocks of their makers, Unix milliseconds.
    pub fn heard_ms(&self) -> impl Iterator<Item = u64> {
        self.standings.values().map(|standing| standing.peer_time_ms)
    }

    /// A bundle that was made.
    pub fn made(&self, of: Division, number: u64) -> Option<Made> {
        self.made.get(&(of, number)).copied()
    }

    /// All that were made and are remembered, the newest first.
    pub fn all_made(&self, of: Division) -> Vec<Mark> {
        let all = self.made.range((of, 0)..=(of, u64::MAX)).rev();
        all.map(|(_, made)| made.mark).take(MADE_MAX as usize).collect()
    }

    /// The outbox rows of a bundle.
    pub fn rows(&self, of: Division, number: u64) -> Vec<i64> {
        self.rows.get(&(of, number)).cloned().unwrap_or_default()
    }

    /// Bundles of one life of a peer's store that were taken in, or begun to be.
    pub fn taken(&self, of: Division, epoch: u64, numbers: std::ops::RangeInclusive<u64>) -> Vec<TakenIn> {
        let (low, high) = ((of, epoch, *numbers.start()), (of, epoch, *numbers.end()));
        self.taken.range(low..=high).map(|(_, (taken, _))| *taken).collect()
    }

    /// Bundles of a peer whose receipts it may not have, the oldest first.
    pub fn receipts(&self, of: Division) -> Vec<TakenIn> {
        let of_peer = self.taken.range((of, 0, 0)..=(of, u64::MAX, u64::MAX)).map(|(_, taken)| taken);
        let mut owed: Vec<TakenIn> =
            of_peer.filter(|(taken, receipt)| *receipt >= 0 && taken.taken_ms > 0).map(|t| t.0).collect();
        owed.sort_by_key(|taken| (taken.taken_ms, taken.mark.number));
        owed
    }

    /// What was refused of a bundle, batch by batch.
    pub fn refusals(&self, of: Division, mark: Mark) -> impl Iterator<Item = Bytes> {
        let key = key(of, mark);
        self.refusals.range((key, 0)..=(key, u64::MAX)).map(|(_, refusals)| refusals.clone())
    }

    /// Makes one change.
    pub fn change(&mut self, of: Division, change: &BundleChange) {
        match change {
            BundleChange::Standing(standing) => {
                let mut standing = Standing::clone(standing);
                let known = self.standings.get(&of).map_or(0, |known| known.version);
                assert_eq!(known, standing.version, "another version of the exchange was decided from");
                standing.version += 1;
                self.standings.insert(of, standing);
            }
            BundleChange::Made { made, seqs, receipts_until_ms } => {
                let number = made.mark.number;
                self.made.insert((of, number), *made);
                self.rows.insert((of, number), seqs.clone());
                let kept = |at: &(Division, u64)| at.0 != of || at.1 + MADE_MAX > number;
                self.made.retain(|at, _| kept(at));
                self.rows.retain(|at, _| kept(at));
                for (taken, receipt) in self.of_peer(of) {
                    if *receipt == 0 && taken.taken_ms > 0 && taken.taken_ms <= *receipts_until_ms {
                        *receipt = number as i64;
                    }
                }
            }
            BundleChange::Confirmed { number, whole } => {
                let done = |at: &(Division, u64)| at.0 == of && (at.1 == *number || *whole && at.1 < *number);
                self.rows.retain(|at, _| !done(at));
            }
            BundleChange::Taking(taken) => {
                let at = key(of, taken.mark);
                self.refusals.retain(|(held, _), _| *held != at);
                self.taken.insert(at, (*taken, 0));
                let oldest = taken.mark.number.saturating_sub(TAKEN_MAX);
                self.taken.retain(|at, (_, receipt)| at.0 != of || at.2 >= oldest || *receipt >= 0);
            }
            BundleChange::Progress { mark, batch_id, refused, refusals } => {
                let Some(taken) = self.taken_mut(of, *mark) else { return };
                if taken.0.batches >= *batch_id {
                    return;
                }
                taken.0.batches = *batch_id;
                taken.0.refused += refused;
                if !refusals.is_empty() {
                    self.refusals.insert((key(of, *mark), *batch_id), refusals.clone());
                }
            }
            BundleChange::Took { mark, taken_ms, one_way } => {
                if let Some(taken) = self.taken_mut(of, *mark) {
                    taken.0.taken_ms = *taken_ms;
                    taken.1 = if *one_way { NEVER } else { 0 };
                }
            }
            BundleChange::ReceiptsArrived { number, newest } => self.arrived(of, *number as i64, *newest),
        }
    }

    fn of_peer(&mut self, of: Division) -> impl Iterator<Item = &mut (TakenIn, i64)> {
        self.taken.range_mut((of, 0, 0)..=(of, u64::MAX, u64::MAX)).map(|(_, taken)| taken)
    }

    fn taken_mut(&mut self, of: Division, mark: Mark) -> Option<&mut (TakenIn, i64)> {
        self.taken.get_mut(&key(of, mark)).filter(|(taken, _)| taken.mark == mark)
    }

    fn arrived(&mut self, of: Division, number: i64, newest: bool) {
        let has = |receipt: i64| receipt > 0 && receipt <= number;
        let taken = &self.taken;
        self.refusals.retain(|(at, _), _| at.0 != of || !taken.get(at).is_some_and(|(_, r)| has(*r)));
        for (_, receipt) in self.of_peer(of) {
            let again = newest && *receipt > NEVER && *receipt < -number;
            if has(*receipt) || again {
                *receipt = -*receipt;
            }
        }
    }
}
