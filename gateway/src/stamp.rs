//! When and by whom a field was written: hybrid logical time and writers.
//!
//! Time always comes in as an argument; nothing here reads a clock or draws a random number. (`uhlc` was looked at:
//! it reads the system clock itself, and its 64-bit NTP time and 128-bit ids fit neither our stamps nor our writers.)

use std::fmt;

use crate::division::Division;

/// Hybrid logical time: 48 bits of Unix milliseconds, 16 bits of counter. Ordered by time, then counter.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Stamp(pub u64);

impl Stamp {
    /// The first stamp of a millisecond.
    pub const fn from_ms(ms: u64) -> Stamp {
        Stamp(ms << 16)
    }

    /// The physical part, in Unix milliseconds.
    pub const fn ms(self) -> u64 {
        self.0 >> 16
    }

    /// Whether the stamp lies further ahead of `now_ms` than `drift_ms` allows.
    pub const fn beyond(self, now_ms: u64, drift_ms: u64) -> bool {
        self.ms() > now_ms.saturating_add(drift_ms)
    }
}

impl fmt::Debug for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.ms(), self.0 & 0xffff)
    }
}

/// Someone who writes. Access looks at the division only; the id tells stores, import sources and divisions acted
/// for apart, and is drawn anew after every restore.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Writer {
    /// In whose name.
    pub division: Division,
    /// 64 random bits.
    pub id: u64,
}

impl fmt::Debug for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{:x}", self.division, self.id)
    }
}

/// Gives out one writer's stamps, strictly increasing. The last stamp is stored in the transaction of the write that
/// uses it, so no stamp that left the store is ever given out twice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Clock {
    last: Stamp,
}

impl Clock {
    /// A clock that has given out everything up to `last`.
    pub const fn resume(last: Stamp) -> Clock {
        Clock { last }
    }

    /// The last stamp given out.
    pub const fn last(self) -> Stamp {
        self.last
    }

    /// A stamp later than all before it and not earlier than `now_ms`. The counter runs over into the milliseconds.
    pub fn tick(&mut self, now_ms: u64) -> Stamp {
        self.last = Stamp(Stamp::from_ms(now_ms).0.max(self.last.0 + 1));
        self.last
    }

    /// Whether this clock ran ahead of `now_ms` by more than `drift_ms`: the machine's clock was wrong, and its writer
    /// must be given up for a new one, or every peer would refuse what it writes.
    pub const fn ran_ahead(self, now_ms: u64, drift_ms: u64) -> bool {
        self.last.beyond(now_ms, drift_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps_rise_even_when_the_clock_falls() {
        let mut clock = Clock::default();
        let first = clock.tick(1_000);
        let second = clock.tick(900);
        assert!(second > first);
        assert_eq!(second.ms(), 1_000);
        assert_eq!(clock.tick(2_000), Stamp::from_ms(2_000));
    }

    #[test]
    fn a_clock_that_ran_ahead_is_noticed() {
        let mut clock = Clock::default();
        clock.tick(1_000_000);
        assert!(clock.ran_ahead(1_000_000 - 300_001, 300_000));
        assert!(!clock.ran_ahead(1_000_000 - 300_000, 300_000));
    }
}
