//! Fuzzing with what stable Rust has: valid inputs, changed in the ways that break decoders, for a bounded time. It runs
//! as an ordinary test for about a second a target, and as long as one likes by `tests/fuzz`.
//!
//! There is no coverage guidance; the samples must be good. What a run drew follows from one number, which is printed
//! when it fails. It must never write anywhere.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use peak_alloc::PeakAlloc;
use rand::{Rng, RngCore, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Seconds for each target, in place of the usual one.
pub(super) const SECONDS: &str = "TEST_FUZZ_SECONDS";
/// The number that a run follows from.
pub(super) const SEED: &str = "TEST_FUZZ_SEED";
/// No input grows beyond this, in bytes.
const INPUT_BYTES_MAX: usize = 96 * 1024;
/// The most that one input may take up, whatever it is, in bytes.
const MEMORY_BYTES_MAX: usize = 48 * 1024 * 1024;
/// No input takes longer, even where everything else runs at the same time.
const TIME_MAX: Duration = Duration::from_secs(5);

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

static ONE: Mutex<()> = Mutex::new(());

/// A test's turn, taken before it makes anything: memory is measured for the whole process.
pub(super) struct Turn(#[allow(dead_code)] MutexGuard<'static, ()>);

/// Waits for one's turn.
pub(super) fn turn() -> Turn {
    Turn(ONE.lock().unwrap_or_else(PoisonError::into_inner))
}

/// Prints the input when it makes its target panic.
struct Shown<'a>(&'a str, &'a [u8], u64);

impl Drop for Shown<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let hex: String = self.1.iter().map(|byte| format!("{byte:02x}")).collect();
            eprintln!("fuzz {} failed, {SEED}={}, on {} bytes:\n{hex}", self.0, self.2, self.1.len());
        }
    }
}

/// Gives `decode` the samples, and then changed samples until the time is over. Inputs once found are samples like any
/// other: add them to the target.
///
/// # Panics
/// Where `decode` does, or takes more memory or time than any input may.
pub(super) fn fuzz(_: &Turn, target: &str, samples: &[Vec<u8>], mut decode: impl FnMut(&[u8])) {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let time = number(SECONDS).map_or(Duration::from_millis(1_200), Duration::from_secs);
    let seed = number(SEED).unwrap_or(1);
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut one = |input: &[u8]| {
        let _shown = Shown(target, input, seed);
        MEMORY.reset_peak_usage();
        let (before, began) = (MEMORY.current_usage(), Instant::now());
        decode(input);
        let taken = MEMORY.peak_usage().saturating_sub(before);
        assert!(taken <= MEMORY_BYTES_MAX, "{taken} bytes of memory for an input of {}", input.len());
        assert!(began.elapsed() <= TIME_MAX, "{:?} for an input of {} bytes", began.elapsed(), input.len());
    };
    samples.iter().for_each(|sample| one(sample));
    let (began, mut count) = (Instant::now(), 0_u64);
    while began.elapsed() < time {
        let input = changed(samples, &mut rng);
        one(&input);
        count += 1;
    }
    println!("fuzz {target}: {count} inputs");
    assert!(count > 10, "{target} is too slow to be fuzzed");
}

/// A sample, changed a few times; now and then noise.
fn changed(samples: &[Vec<u8>], rng: &mut ChaCha8Rng) -> Vec<u8> {
    let pick = |rng: &mut ChaCha8Rng| samples.get(rng.random_range(0..samples.len().max(1))).cloned();
    let mut input = pick(rng).unwrap_or_default();
    if samples.is_empty() || rng.random_ratio(1, 50) {
        input = vec![0; rng.random_range(0..200)];
        rng.fill_bytes(&mut input);
    }
    for _ in 0..1 << rng.random_range(0..5) {
        let other = if rng.random_ratio(1, 8) { pick(rng) } else { None };
        change(&mut input, other, rng);
    }
    input.truncate(INPUT_BYTES_MAX);
    input
}

/// One change: of bits, bytes, lengths, order, or by a piece of another sample.
fn change(input: &mut Vec<u8>, other: Option<Vec<u8>>, rng: &mut ChaCha8Rng) {
    const BYTES: [u8; 12] = [0, 1, 2, 0x0a, 0x12, 0x7f, 0x80, 0xff, b'"', b',', b'\n', b'0'];
    let at = rng.random_range(0..input.len() + 1);
    let piece = |from: &[u8], rng: &mut ChaCha8Rng| {
        let start = rng.random_range(0..from.len() + 1);
        let end = rng.random_range(start..from.len() + 1).min(start + 512);
        from[start..end].to_vec()
    };
    if let Some(other) = other {
        let piece = piece(&other, rng);
        input.splice(at..at, piece);
        return;
    }
    match rng.random_range(0..8) {
        0 => {
            if let Some(byte) = input.get_mut(at) {
                *byte ^= 1 << rng.random_range(0..8);
            }
        }
        1 => {
            if let Some(byte) = input.get_mut(at) {
                *byte = BYTES[rng.random_range(0..BYTES.len())];
            }
        }
        2 => input.insert(at, rng.random()),
        3 => {
            let end = (at + rng.random_range(0..32)).min(input.len());
            input.drain(at..end);
        }
        4 => input.truncate(at),
        5 => {
            let piece = piece(input, rng);
            let times = [1, 1, 2, 40][rng.random_range(0..4)];
            input.splice(at..at, piece.repeat(times));
        }
        // A number of any length, such as a length.
        6 => {
            let long = [0xff; 10];
            let length = rng.random_range(1..10);
            input.splice(at..at, long[..length].iter().copied().chain([rng.random_range(0..0x80)]));
        }
        _ => {
            if let Some(byte) = input.get_mut(at) {
                *byte = byte.wrapping_add(rng.random_range(0..3)).wrapping_sub(1);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[should_panic(expected = "found")]
    fn what_breaks_is_found() {
        fuzz(&turn(), "example", &[b"sample".to_vec()], |input| {
            assert!(!input.starts_with(b"sampl\xff"), "found")
        });
    }

    #[test]
    #[should_panic(expected = "bytes of memory")]
    fn memory_is_watched() {
        fuzz(&turn(), "example", &[vec![1; 100]], |input| drop(vec![1_u8; input.len() * 1_000_000 + 1]));
    }
}
