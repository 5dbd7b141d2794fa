//! Many trees, each with its own fate. `GUANTONG_SIM_SEEDS` sets how many; `GUANTONG_SIM_SEED` runs one and tells it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use guantong_tests::simulator::{self, Report};

/// Seeds that are run unless told otherwise.
const SEEDS: u64 = 1_000;

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

/// What is wrong with a seed's run.
fn run(seed: u64) -> Result<Report, String> {
    match catch_unwind(AssertUnwindSafe(|| simulator::run(seed, false))) {
        Ok(Ok(report)) => Ok(report),
        Ok(Err(wrong)) => Err(wrong[0].clone()),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            Err(text.or_else(|| panic.downcast_ref::<&str>().map(|t| (*t).to_owned())).unwrap_or_default())
        }
    }
}

#[test]
fn no_fate_of_the_tree_loses_a_write() {
    if let Some(seed) = number("GUANTONG_SIM_SEED") {
        let outcome = simulator::run(seed, true);
        assert!(outcome.is_ok(), "seed {seed}: {:#?}", outcome.err());
        return;
    }
    let seeds = number("GUANTONG_SIM_SEEDS").unwrap_or(SEEDS);
    let next = AtomicU64::new(number("GUANTONG_SIM_FIRST").unwrap_or(0));
    let last = next.load(Ordering::Relaxed) + seeds;
    let failed: Mutex<Vec<(u64, String)>> = Mutex::new(Vec::new());
    let total: Mutex<Report> = Mutex::default();
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= last {
                break;
            }
            match run(seed) {
                Ok(report) => total.lock().unwrap().add(report),
                Err(why) => failed.lock().unwrap().push((seed, why)),
            }
        }
    };
    std::thread::scope(|scope| (0..2).for_each(|_| drop(scope.spawn(work))));
    let mut failed = failed.into_inner().unwrap();
    failed.sort();
    eprintln!("{seeds} seeds: {:?}", total.into_inner().unwrap());
    for (seed, why) in failed.iter().take(12) {
        eprintln!("GUANTONG_SIM_SEED={seed}: {why}");
    }
    assert!(failed.is_empty(), "{} of {seeds} seeds failed, the first of them {}", failed.len(), failed[0].0);
}
