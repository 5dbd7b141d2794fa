//! Tests of Guantong as a whole: what its tests and benchmarks share.

pub mod bench;
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
pub mod harness;
pub mod simulator;
