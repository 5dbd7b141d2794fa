//! So often and no more: how much each of many has used of what it may do in some time.
//!
//! It is pure: time is an argument. Memory must stay bounded, whoever comes.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::Duration;

/// So many at once, and then one in each interval.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    burst: u64,
    interval_us: u64,
}

/// How much was used: the moment at which everything will have been given back, Unix microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Used(u64);

const fn us(now_ms: u64) -> u64 {
    now_ms.saturating_mul(1_000)
}

impl Pace {
    /// So many at once, and one more after each interval. Neither is ever less than one, and one microsecond.
    pub const fn new(burst: u32, interval: Duration) -> Pace {
        let interval_us = interval.as_micros();
        let interval_us = if interval_us > 1 << 50 { 1 << 50 } else { interval_us as u64 };
        Pace {
            burst: if burst == 0 { 1 } else { burst as u64 },
            interval_us: if interval_us == 0 { 1 } else { interval_us },
        }
    }

    /// Counts one, if it may be used now. A clock that was set back, or a pace that was another one before, locks nobody
    /// out for longer than the burst takes to be given back.
    ///
    /// # Errors
    /// How long to wait before the next one, in milliseconds. Nothing was counted.
    pub fn take(self, used: &mut Used, now_ms: u64) -> Result<(), u64> {
        let now_us = us(now_ms);
        let full_us = self.burst.saturating_mul(self.interval_us);
        used.0 = used.0.clamp(now_us, now_us.saturating_add(full_us));
        let room_us = full_us - self.interval_us;
        match used.0.saturating_sub(now_us.saturating_add(room_us)).div_ceil(1_000) {
            0 => {
                used.0 = used.0.saturating_add(self.interval_us);
                Ok(())
            }
            wait_ms => Err(wait_ms),
        }
    }

    /// One that was used does not count.
    pub fn give_back(self, used: &mut Used) {
        used.0 = used.0.saturating_sub(self.interval_us);
    }
}

/// What each of many has used. Who has used nothing is not remembered; beyond so many at once, nobody more is.
#[derive(Debug)]
pub struct Paces<K> {
    used: HashMap<K, Used>,
    keys_max: usize,
}

impl<K: Eq + Hash> Paces<K> {
    /// Remembers at most so many.
    pub fn new(keys_max: usize) -> Paces<K> {
        Paces { used: HashMap::new(), keys_max }
    }

    /// Counts one, if it may be used now: see [`Pace::take`].
    ///
    /// # Errors
    /// How long to wait before the next one, in milliseconds. Nothing was counted.
    pub fn take(&mut self, key: K, pace: Pace, now_ms: u64) -> Result<(), u64> {
        if let Some(used) = self.used.get_mut(&key) {
            return pace.take(used, now_ms);
        }
        if self.used.len() >= self.keys_max {
            self.used.retain(|_, used| used.0 > us(now_ms));
        }
        let mut used = Used::default();
        pace.take(&mut used, now_ms)?;
        if self.used.len() < self.keys_max {
            self.used.insert(key, used);
        }
        Ok(())
    }

    /// One that was counted does not count.
    pub fn give_back(&mut self, key: &K, pace: Pace) {
        if let Some(used) = self.used.get_mut(key) {
            pace.give_back(used);
        }
    }

    /// How many are remembered.
    pub fn len(&self) -> usize {
        self.used.len()
    }

    /// Whether nobody is remembered.
    pub fn is_empty(&self) -> bool {
        self.used.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn after_the_burst_one_waits_and_others_do_not() {
        let pace = Pace::new(3, Duration::from_millis(20));
        let mut paces = Paces::new(10);
        for _ in 0..3 {
            assert_eq!(paces.take("a", pace, 1_000), Ok(()));
        }
        assert_eq!(paces.take("a", pace, 1_000), Err(20));
        assert_eq!(paces.take("b", pace, 1_000), Ok(()));
        assert_eq!(paces.take("a", pace, 1_019), Err(1));
        assert_eq!(paces.take("a", pace, 1_020), Ok(()));
        assert!(paces.take("a", pace, 1_020).is_err());
        paces.give_back(&"a", pace);
        assert_eq!(paces.take("a", pace, 1_020), Ok(()));
    }

    #[test]
    fn another_pace_holds_at_once() {
        let (slow, fast) =
            (Pace::new(1, Duration::from_secs(3_600)), Pace::new(10, Duration::from_millis(100)));
        let mut paces = Paces::new(10);
        assert_eq!(paces.take("a", slow, 1_000), Ok(()));
        assert!(paces.take("a", slow, 2_000).is_err_and(|wait_ms| wait_ms > 3_500_000));
        let wait_ms = paces.take("a", fast, 2_000).err();
        assert_eq!(wait_ms, Some(100), "what was used counts, but never for more than the burst");
        assert_eq!(paces.take("a", fast, 2_100), Ok(()));
    }

    #[test]
    fn a_clock_that_is_set_back_locks_nobody_out_for_long() {
        let pace = Pace::new(5, Duration::from_secs(30));
        let mut paces = Paces::new(10);
        assert_eq!(paces.take("a", pace, 31_536_000_000), Ok(()));
        assert!(paces.take("a", pace, 0).is_err_and(|wait_ms| wait_ms <= 150_000));
        assert_eq!(paces.take("a", pace, u64::MAX), Ok(()));
    }

    proptest! {
        /// In any stretch of time: no more than the burst, and one for each interval.
        #[test]
        fn uses_are_bounded(
            burst in 1u32..20,
            interval_us in 1u64..3_000_000,
            steps in proptest::collection::vec(0u64..2_000, 1..300),
        ) {
            let pace = Pace::new(burst, Duration::from_micros(interval_us));
            let (mut used, mut now_ms, mut taken) = (Used::default(), 1_000_000_u64, Vec::new());
            for wait_ms in steps {
                now_ms += wait_ms;
                match pace.take(&mut used, now_ms) {
                    Ok(()) => taken.push(now_ms),
                    Err(wait_ms) => {
                        let later = pace.take(&mut used.clone(), now_ms + wait_ms);
                        prop_assert_eq!(later, Ok(()), "the wait that was told is enough");
                    }
                }
            }
            for (first, from_ms) in taken.iter().enumerate() {
                for (last, to_ms) in taken.iter().enumerate().skip(first) {
                    let allowed = u64::from(burst) + (to_ms - from_ms) * 1_000 / interval_us;
                    prop_assert!(((last - first) as u64) < allowed);
                }
            }
        }

        #[test]
        fn memory_is_bounded(keys in proptest::collection::vec((any::<u16>(), 0u64..50), 0..500)) {
            let (pace, mut paces, mut now_ms) = (Pace::new(2, Duration::from_millis(100)), Paces::new(20), 0);
            for (key, wait_ms) in keys {
                now_ms += wait_ms;
                let _ = paces.take(key, pace, now_ms);
                prop_assert!(paces.len() <= 20);
            }
        }
    }
}
