//! Slows whoever tries codes: from each address, and altogether.
//!
//! It is pure: time is an argument. A try is counted before it is known whether it is right, so that many at once are
//! slowed like many in a row. Memory must stay bounded, whoever tries.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};

/// Tries that one address has at once, and how long it takes to get one back.
const ADDRESS: Pace = Pace { burst: 5, interval_ms: 30_000 };
/// The same for all addresses together.
const ALL: Pace = Pace { burst: 200, interval_ms: 500 };
/// Addresses that are remembered; beyond them only the common limit holds.
const ADDRESSES_MAX: usize = 10_000;

/// So many at once, and then one in each interval.
#[derive(Clone, Copy, Debug)]
struct Pace {
    burst: u64,
    interval_ms: u64,
}

/// How much was used: the moment at which everything will have been given back.
#[derive(Clone, Copy, Debug, Default)]
struct Used(u64);

impl Pace {
    /// As it stands now; a clock that was set back does not lock anybody out for long.
    fn now(self, used: Used, now_ms: u64) -> Used {
        Used(used.0.clamp(now_ms, now_ms.saturating_add(self.burst * self.interval_ms)))
    }

    /// How long until the next try, 0: now.
    fn wait_ms(self, used: Used, now_ms: u64) -> u64 {
        let room_ms = (self.burst - 1) * self.interval_ms;
        self.now(used, now_ms).0.saturating_sub(now_ms.saturating_add(room_ms))
    }

    fn take(self, used: Used, now_ms: u64) -> Used {
        Used(self.now(used, now_ms).0.saturating_add(self.interval_ms))
    }

    fn give_back(self, used: Used) -> Used {
        Used(used.0.saturating_sub(self.interval_ms))
    }
}

/// Who has tried how often.
#[derive(Debug, Default)]
pub struct Guesses {
    all: Used,
    by_address: HashMap<IpAddr, Used>,
}

impl Guesses {
    /// Counts a try, if it may be made now.
    ///
    /// # Errors
    /// How long to wait before the next one, in milliseconds. Nothing was counted.
    pub fn take(&mut self, from: IpAddr, now_ms: u64) -> Result<(), u64> {
        let place = place_of(from);
        let used = self.by_address.get(&place).copied().unwrap_or_default();
        let wait_ms = ADDRESS.wait_ms(used, now_ms).max(ALL.wait_ms(self.all, now_ms));
        if wait_ms > 0 {
            return Err(wait_ms);
        }
        self.all = ALL.take(self.all, now_ms);
        if self.by_address.len() >= ADDRESSES_MAX {
            self.by_address.retain(|_, used| used.0 > now_ms);
        }
        if self.by_address.len() < ADDRESSES_MAX || self.by_address.contains_key(&place) {
            self.by_address.insert(place, ADDRESS.take(used, now_ms));
        }
        Ok(())
    }

    /// The try was right: it does not count.
    pub fn was_right(&mut self, from: IpAddr) {
        self.all = ALL.give_back(self.all);
        if let Some(used) = self.by_address.get_mut(&place_of(from)) {
            *used = ADDRESS.give_back(*used);
        }
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
    use super::*;
    use proptest::prelude::*;

    fn address(n: u32) -> IpAddr {
        IpAddr::V4(n.into())
    }

    #[test]
    fn after_a_few_wrong_codes_an_address_waits_and_others_do_not() {
        let mut guesses = Guesses::default();
        for _ in 0..ADDRESS.burst {
            assert_eq!(guesses.take(address(1), 1_000), Ok(()));
        }
        assert_eq!(guesses.take(address(1), 1_000), Err(ADDRESS.interval_ms));
        assert_eq!(guesses.take(address(2), 1_000), Ok(()));
        assert_eq!(guesses.take(address(1), 1_000 + ADDRESS.interval_ms), Ok(()));
        assert!(guesses.take(address(1), 1_000 + ADDRESS.interval_ms).is_err());
        // A clock that is set back a year makes nobody wait longer than for all of the burst.
        assert!(
            guesses.take(address(1), 0).is_err_and(|wait_ms| wait_ms <= ADDRESS.burst * ADDRESS.interval_ms)
        );
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
        assert_eq!(allowed as u64, ADDRESS.burst);
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
                prop_assert!(*one <= ADDRESS.burst + now_ms / ADDRESS.interval_ms);
            }
            prop_assert!(allowed.values().sum::<u64>() <= ALL.burst + now_ms / ALL.interval_ms);
        }

        #[test]
        fn memory_is_bounded(from in any::<u32>()) {
            let mut guesses = Guesses::default();
            for n in 0..(ADDRESSES_MAX as u32 + 50) {
                let _ = guesses.take(address(from.wrapping_add(n)), u64::from(n) * ALL.interval_ms);
            }
            prop_assert!(guesses.by_address.len() <= ADDRESSES_MAX);
        }
    }
}
