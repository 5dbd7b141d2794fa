//! Whose turn it is: urgent before normal before bulk, with a small share guaranteed to the two that wait.
//!
//! Of any 16 batches in a row, at least two are normal and one is bulk while such records wait. It must never make an
//! urgent batch wait for a lane that has had its share.

use guantong_proto::v1::Lane;

/// All lanes, the most urgent first.
pub const LANES: [Lane; 3] = [Lane::Urgent, Lane::Normal, Lane::Bulk];

/// After so many batches of other lanes a waiting batch of this lane is sent next. Gaps stay within 8 and 16 even
/// where both are due at once.
const PATIENCE: [u32; 3] = [u32::MAX, 6, 14];

/// Position in [`LANES`]; what is not known travels as bulk.
pub(super) const fn index(lane: Lane) -> usize {
    match lane {
        Lane::Urgent => 0,
        Lane::Normal => 1,
        Lane::Bulk | Lane::Unspecified => 2,
    }
}

/// The lane to send from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Turn {
    /// Position in [`LANES`].
    pub(super) lane: usize,
    /// It was passed over for so long that it may use the whole window, and the others wait for it.
    pub(super) due: bool,
}

/// How often each lane was passed over while it waited.
#[derive(Clone, Debug, Default)]
pub(super) struct Turns {
    passed: [u32; 3],
}

impl Turns {
    /// The lane whose batch comes next, of those that wait.
    pub(super) fn next(&self, waiting: [bool; 3]) -> Option<Turn> {
        let due = (0..3).rev().find(|lane| waiting[*lane] && self.passed[*lane] >= PATIENCE[*lane]);
        let first = (0..3).find(|lane| waiting[*lane])?;
        Some(Turn { lane: due.unwrap_or(first), due: due.is_some() })
    }

    /// A batch of `lane` was sent while those lanes waited.
    pub(super) fn took(&mut self, lane: usize, waiting: [bool; 3]) {
        for (other, passed) in self.passed.iter_mut().enumerate() {
            *passed = if other != lane && waiting[other] { passed.saturating_add(1) } else { 0 };
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn run(turns: &mut Turns, waiting: [bool; 3], batches: usize) -> Vec<usize> {
        let mut order = Vec::new();
        for _ in 0..batches {
            let lane = turns.next(waiting).unwrap().lane;
            turns.took(lane, waiting);
            order.push(lane);
        }
        order
    }

    fn count(order: &[usize], lane: usize) -> usize {
        order.iter().filter(|l| **l == lane).count()
    }

    #[test]
    fn any_sixteen_batches_hold_two_normal_and_one_bulk() {
        let order = run(&mut Turns::default(), [true; 3], 500);
        for sixteen in order.windows(16) {
            assert!(count(sixteen, 1) >= 2, "{sixteen:?}");
            assert!(count(sixteen, 2) >= 1, "{sixteen:?}");
            assert!(count(sixteen, 0) >= 12, "{sixteen:?}");
        }
    }

    #[test]
    fn bulk_has_its_share_beside_normal() {
        let order = run(&mut Turns::default(), [false, true, true], 500);
        assert!(order.windows(16).all(|sixteen| (1..=2).contains(&count(sixteen, 2))));
    }

    #[test]
    fn urgent_overtakes_bulk_at_once() {
        let mut turns = Turns::default();
        run(&mut turns, [false, false, true], 100);
        assert_eq!(turns.next([true, false, true]), Some(Turn { lane: 0, due: false }));
    }

    #[test]
    fn urgent_waits_for_two_batches_at_most() {
        let mut turns = Turns::default();
        let order = run(&mut turns, [true; 3], 500);
        assert!(order.windows(3).all(|three| three.contains(&0)));
    }

    #[test]
    fn nothing_waits_nothing_is_sent() {
        assert_eq!(Turns::default().next([false; 3]), None);
    }
}
