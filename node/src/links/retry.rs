//! How long to wait before a parent is dialled again, or a feed read again. The one place that knows the `backoff` crate, of which only the
//! policy is used.
//!
//! Waits are drawn from 0 to twice an interval that grows by half from half a second to 30 seconds (full jitter): a county
//! that comes back is not met by all its townships at once, nobody waits longer than a minute, and nobody gives up. A wait
//! is hardly ever longer than the trouble has lasted: an interval is half of all that came before it.

use std::time::Duration;

use backoff::ExponentialBackoff;
use backoff::backoff::Backoff;

/// The mean of the first wait.
const INITIAL_INTERVAL: Duration = Duration::from_millis(500);
/// Each mean is so many times the one before it.
const MULTIPLIER: f64 = 1.5;
/// The mean of the longest wait.
const MAX_INTERVAL: Duration = Duration::from_secs(30);
/// A parent's wish is honoured up to here: a slip in its answer must not keep a township away for days.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(600);

/// The waits between attempts.
#[derive(Debug)]
pub(crate) struct Retry {
    policy: ExponentialBackoff,
}

impl Default for Retry {
    fn default() -> Retry {
        let mut policy = ExponentialBackoff {
            initial_interval: INITIAL_INTERVAL,
            randomization_factor: 1.0,
            multiplier: MULTIPLIER,
            max_interval: MAX_INTERVAL,
            max_elapsed_time: None,
            ..ExponentialBackoff::default()
        };
        policy.reset();
        Retry { policy }
    }
}

impl Retry {
    /// The wait before the next attempt; at least what the parent asked for.
    pub(crate) fn wait(&mut self, retry_after: Option<Duration>) -> Duration {
        // Without a limit on the time that has passed the policy never ends.
        let drawn = self.policy.next_backoff().unwrap_or(MAX_INTERVAL);
        drawn.max(retry_after.unwrap_or_default().min(RETRY_AFTER_MAX))
    }

    /// The link was up: the next trouble is a new one.
    pub(crate) fn reset(&mut self) {
        self.policy.reset();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROUNDS: usize = 2_000;

    fn skip(retry: &mut Retry) {
        retry.wait(None);
    }

    /// The greatest of many draws of the `n`th wait.
    fn greatest(n: usize) -> Duration {
        let draw = || {
            let mut retry = Retry::default();
            (0..n).for_each(|_| skip(&mut retry));
            retry.wait(None)
        };
        (0..ROUNDS).map(|_| draw()).max().unwrap_or_default()
    }

    #[test]
    fn waits_grow_from_a_second_and_end_below_a_minute() {
        for (n, bound_ms) in [(0, 1_000), (1, 1_500), (2, 2_250), (5, 7_594), (11, 60_000), (40, 60_000)] {
            let bound = Duration::from_millis(bound_ms);
            let seen = greatest(n);
            assert!(seen <= bound, "wait {n} was {seen:?}");
            // Full jitter: with so many draws one comes near the bound.
            assert!(seen > bound.mul_f64(0.9), "wait {n} was at most {seen:?}");
        }
    }

    #[test]
    fn waits_are_spread_down_to_nothing() {
        let least = (0..ROUNDS).map(|_| Retry::default().wait(None)).min();
        assert!(least < Some(Duration::from_millis(50)), "{least:?}");
    }

    #[test]
    fn the_parents_wish_is_the_least_wait() {
        let asked = Duration::from_secs(90);
        assert_eq!(Retry::default().wait(Some(asked)), asked);
        assert_eq!(Retry::default().wait(Some(Duration::from_secs(86_400))), RETRY_AFTER_MAX);
        // A wish that is shorter than the policy's wait changes nothing.
        let mut retry = Retry::default();
        (0..10).for_each(|_| skip(&mut retry));
        let longest = (0..ROUNDS).map(|_| retry.wait(Some(Duration::from_millis(1)))).max();
        assert!(longest > Some(Duration::from_secs(30)), "{longest:?}");
    }

    #[test]
    fn after_a_link_was_up_waits_are_short_again() {
        let mut retry = Retry::default();
        (0..20).for_each(|_| skip(&mut retry));
        retry.reset();
        assert!(retry.wait(None) <= 2 * INITIAL_INTERVAL);
    }
}
