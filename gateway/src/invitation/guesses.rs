//! Slows whoever tries codes: from each address, and altogether.
//!
//! It is pure: time is an argument. A try is counted before it is known whether it is right, so that many at once are
//! slowed like many in a row. Memory must stay bounded, whoever tries.

use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use crate::pace::{Pace, Paces, Used};

/// Tries that one address has at once, and how long it takes to get one back.
const ADDRESS: Pace = Pace::new(5, Duration::from_secs(30));
/// The same for all addresses together.
const ALL: Pace = Pace::new(200, Duration::from_millis(500));
/// Addresses that are remembered; beyond them only the common limit holds.
const ADDRESSES_MAX: usize = 10_000;

/// Who has tried how often.
#[derive(Debug)]
pub struct Guesses {
    all: Used,
    by_address: Paces<IpAddr>,
}

impl Default for Guesses {
    fn default() -> Guesses {
        Guesses { all: Used::default(), by_address: Paces::new(ADDRESSES_MAX) }
    }
}

impl Guesses {
    /// Counts a try, if it may be made now.
    ///
    /// # Errors
    /// How long to wait before the next one, in milliseconds. Nothing was counted.
    pub fn take(&mut self, from: IpAddr, now_ms: u64) -> Result<(), u64> {
        let place = place_of(from);
        self.by_address.take(place, ADDRESS, now_ms)?;
        if let Err(wait_ms) = ALL.take(&mut self.all, now_ms) {
            self.by_address.give_back(&place, ADDRESS);
            return Err(wait_ms);
        }
        Ok(())
    }

    /// The try was right: it does not count.
    pub fn was_right(&mut self, from: IpAddr) {
        ALL.give_back(&mut self.all);
        self.by_address.give_back(&place_of(from), ADDRESS);
    }
}

/// Whoever has one address of IPv6 has the 2^64 beside it.
fn place_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64).into(),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use proptest::prelude::*;

    const BURST: u64 = 5;
    const INTERVAL_MS: u64 = 30_000;

    fn address(n: u32) -> IpAddr {
        IpAddr::V4(n.into())
    }

    #[test]
    fn after_a_few_wrong_codes_an_address_waits_and_others_do_not() {
        let mut guesses = Guesses::default();
        for _ in 0..BURST {
            assert_eq!(guesses.take(address(1), 1_000), Ok(()));
        }
        assert_eq!(guesses.take(address(1), 1_000), Err(INTERVAL_MS));
        assert_eq!(guesses.take(address(2), 1_000), Ok(()));
        assert_eq!(guesses.take(address(1), 1_000 + INTERVAL_MS), Ok(()));
        assert!(guesses.take(address(1), 1_000 + INTERVAL_MS).is_err());
        // A clock that is set back a year makes nobody wait longer than for all of the burst.
        assert!(guesses.take(address(1), 0).is_err_and(|wait_ms| wait_ms <= BURST * INTERVAL_MS));
    }

    #[test]
    fn a_right_code_does_not_count() {
        let mut guesses = Guesses::default();
        for at_ms in 0..1_000 {
            assert_eq!(guesses.take(address(1), at_ms), Ok(()));
            guesses.was_right(address(1));
        }
    }

    #[test]
    fn neighbours_in_one_network_of_ipv6_are_one() {
        let neighbour = |n: u128| IpAddr::V6(Ipv6Addr::from_bits(0x2001_0db8 << 96 | n));
        let mut guesses = Guesses::default();
        let allowed = (0..100).filter(|n| guesses.take(neighbour(*n), 0).is_ok()).count();
        assert_eq!(allowed as u64, BURST);
        assert_eq!(place_of("::ffff:10.0.0.1".parse().unwrap_or(address(0))), address(0x0a00_0001));
    }

    proptest! {
        /// Whatever is tried from wherever: no more than the burst and one for each interval that has passed.
        #[test]
        fn tries_are_bounded(steps in proptest::collection::vec((0u32..300, 0u64..2_000), 1..2_000)) {
            let (mut guesses, mut now_ms) = (Guesses::default(), 0);
            let mut allowed: HashMap<IpAddr, u64> = HashMap::new();
            for (from, wait_ms) in steps {
                now_ms += wait_ms;
                if guesses.take(address(from), now_ms).is_ok() {
                    *allowed.entry(address(from)).or_default() += 1;
                }
            }
            for one in allowed.values() {
                prop_assert!(*one <= BURST + now_ms / INTERVAL_MS);
            }
            prop_assert!(allowed.values().sum::<u64>() <= 200 + now_ms / 500);
        }

        #[test]
        fn memory_is_bounded(from in any::<u32>()) {
            let mut guesses = Guesses::default();
            for n in 0..(ADDRESSES_MAX as u32 + 50) {
                let _ = guesses.take(address(from.wrapping_add(n)), u64::from(n) * 500);
            }
            prop_assert!(guesses.by_address.len() <= ADDRESSES_MAX);
        }
    }
}
