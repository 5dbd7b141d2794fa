//! What the weather of a run is: each seed draws its own, so that some runs have one trouble only and some have all.
//!
//! It must only say how often things happen, never what they do.

use std::collections::BTreeSet;
use std::sync::Arc;

use guantong_gateway::schema::Schema;
use guantong_proto::rules;
use rand::Rng;
use rand_chacha::ChaCha8Rng;

use super::node::Node;

/// How often things happen, in a thousand steps.
#[derive(Clone, Copy, Debug, Default)]
pub struct Weather {
    /// Steps of the storm.
    pub steps: usize,
    /// Local writes.
    pub writes: u32,
    /// Streams that end.
    pub breaks: u32,
    /// Lines that are cut for a while.
    pub cuts: u32,
    /// Crashes.
    pub crashes: u32,
    /// Restores from a backup.
    pub restores: u32,
    /// Copies that run beside the original.
    pub copies: u32,
    /// Clocks that go wrong or right.
    pub clocks: u32,
    /// Of the clocks that go wrong, those that are off by days, in a hundred.
    pub clocks_by_days: u32,
    /// Upgrades; some nodes begin with fewer fields.
    pub upgrades: u32,
    /// Nodes that come into being.
    pub arrivals: u32,
    /// Disks that are full for a while.
    pub full_disks: u32,
    /// Frames that are altered on their way.
    pub bit_flips: u32,
    /// How long certificates last; 0: for ever.
    pub certificate_ms: u64,
    /// Small windows and batches.
    pub narrow: bool,
}

impl Weather {
    /// Draws the weather of a run.
    pub fn draw(rng: &mut ChaCha8Rng) -> Weather {
        let mut some =
            |often: f64, most: u32| if rng.random_bool(often) { rng.random_range(1..=most) } else { 0 };
        let mut weather = Weather {
            steps: 0,
            writes: 60 + some(0.5, 100),
            breaks: some(0.6, 20),
            cuts: some(0.5, 12),
            crashes: some(0.5, 10),
            restores: some(0.4, 8),
            copies: some(0.2, 5),
            clocks: some(0.25, 8),
            clocks_by_days: some(0.4, 40),
            upgrades: some(0.35, 12),
            arrivals: some(0.5, 12),
            full_disks: some(0.25, 8),
            bit_flips: some(0.3, 10),
            certificate_ms: u64::from(some(0.2, 300)) * 1_000,
            narrow: false,
        };
        weather.narrow = rng.random_bool(0.3);
        weather.steps = rng.random_range(300..3_000);
        if weather.copies > 0 {
            // A parent that is put back forgets which of two copies it had found.
            weather.restores = 0;
        }
        // Trouble that someone wants to look at alone.
        if let Ok(only) = std::env::var("GUANTONG_SIM_WITHOUT") {
            for word in only.split(',') {
                match word {
                    "restores" => weather.restores = 0,
                    "copies" => weather.copies = 0,
                    "clocks" => weather.clocks = 0,
                    "upgrades" => weather.upgrades = 0,
                    "arrivals" => weather.arrivals = 0,
                    "crashes" => weather.crashes = 0,
                    "cuts" => weather.cuts = 0,
                    "breaks" => weather.breaks = 0,
                    "full_disks" => weather.full_disks = 0,
                    "bit_flips" => weather.bit_flips = 0,
                    "certificates" => weather.certificate_ms = 0,
                    _ => {}
                }
            }
        }
        weather
    }

    /// Equips a node.
    pub fn fit_out(&self, rng: &mut ChaCha8Rng, node: &mut Node) {
        if self.narrow {
            node.window_bytes = rng.random_range(1_000..20_000);
            node.batch_raw_bytes = rng.random_range(300..4_000);
        }
        if self.upgrades > 0 && rng.random_bool(0.5) {
            node.schema = Arc::new(older(rng));
        }
    }
}

/// The rules of an earlier program: some fields are missing.
fn older(rng: &mut ChaCha8Rng) -> Schema {
    // The roles were there from the beginning, and so was what a record cannot be without.
    let ever =
        ["steps", "lifecycle", "sealed", "deleted", "record_complete", "code", "device_id", "grid_code"];
    let optional = |f: &&rules::Field| !ever.contains(&f.name) && f.derived_from.is_none();
    let mut missing: BTreeSet<(&str, u32)> = BTreeSet::new();
    for kind in rules::KINDS {
        for field in kind.fields.iter().filter(optional) {
            if rng.random_bool(0.15) {
                missing.insert((kind.name, field.number));
            }
        }
    }
    Schema::with_fields(move |kind, field| {
        let gone = |number: u32| missing.contains(&(kind.name, number));
        !gone(field.number) && !field.derived_from.is_some_and(gone)
    })
}
