//! Bundles at random between two real engines: any order, lost, twice, with stores that are put back in between. Once the
//! exchange goes on without accidents, both hold everything that either held, equal, and nothing is owed any more.

use std::collections::BTreeSet;

use guantong_proto::v1;
use tempfile::TempDir;

use super::{Node, case, new_case, risk};
use crate::ingest::local::LocalWrite;
use crate::record::RecordName;

const TOWNSHIP: &str = "220822101";
const COUNTY: &str = "220822";
const STEPS: usize = 40;
/// Rounds there and back in which everything has settled.
const ROUNDS: usize = 8;

/// Numbers that follow from a seed.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: usize) -> usize {
        self.0 += 1;
        let hash = blake3::hash(&self.0.to_le_bytes());
        let (first, _) = hash.as_bytes().split_first_chunk::<4>().unwrap();
        u32::from_le_bytes(*first) as usize % end
    }

    fn coin(&mut self) -> bool {
        self.below(2) == 0
    }
}

/// Two nodes, what was carried between them, and copies of their stores.
struct World {
    county: Node,
    township: Node,
    up: Vec<Vec<u8>>,
    down: Vec<Vec<u8>>,
    copies: [Option<TempDir>; 2],
    names: Vec<RecordName>,
    dice: Dice,
    trace: Trace,
}

/// What happened, for whoever must find out why a seed failed.
#[derive(Default)]
struct Trace(Vec<String>);

impl Drop for Trace {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.0.join("\n"));
        }
    }
}

impl World {
    async fn new(seed: u64) -> World {
        let county = Node::new(COUNTY, None).await;
        let township = Node::new(TOWNSHIP, Some(COUNTY)).await;
        township.knows(COUNTY).await;
        let dice = Dice(seed << 20);
        let (up, down, copies, names, trace) = Default::default();
        World { county, township, up, down, copies, names, dice, trace }
    }

    async fn export_up(&mut self) {
        if let Ok(bundle) = self.township.try_export(COUNTY).await {
            self.up.push(bundle);
            self.trace.0.push(format!("up {} is made", self.up.len()));
        }
    }

    /// Possible once the county has met the township.
    async fn export_down(&mut self) {
        if let Ok(bundle) = self.county.try_export(TOWNSHIP).await {
            self.down.push(bundle);
            self.trace.0.push(format!("down {} is made", self.down.len()));
        }
    }

    /// Mostly the latest, sometimes any that was ever made.
    fn pick(dice: &mut Dice, bundles: &[Vec<u8>]) -> Option<(usize, Vec<u8>)> {
        let last = bundles.len().checked_sub(1)?;
        let at = if dice.below(10) < 6 { last } else { dice.below(last + 1) };
        Some((at + 1, bundles[at].clone()))
    }

    async fn step(mut self) -> World {
        match self.dice.below(100) {
            0..20 => {
                let name = case(&self.township, "220822101000", &self.names.len().to_string());
                self.township.write(&name, new_case("220822101000")).await.unwrap();
                self.names.push(name);
                self.trace.0.push(format!("case {}", self.names.len() - 1));
            }
            20..35 => self.write_risk().await,
            35..55 => self.export_up().await,
            55..70 => self.export_down().await,
            70..82 => {
                if let Some((at, bundle)) = Self::pick(&mut self.dice, &self.up) {
                    self.trace.0.push(format!("up {at} is taken in"));
                    self.county.take(&bundle).await;
                }
            }
            82..92 => {
                if let Some((at, bundle)) = Self::pick(&mut self.dice, &self.down) {
                    self.trace.0.push(format!("down {at} is taken in"));
                    self.township.take(&bundle).await;
                }
            }
            92..96 => {
                self.trace.0.push("both are copied".into());
                let (county, copy) = self.county.backup().await;
                let (township, other) = self.township.backup().await;
                (self.county, self.township) = (county, township);
                self.copies = [Some(copy), Some(other)];
            }
            _ => self = self.put_back().await,
        }
        self
    }

    async fn write_risk(&mut self) {
        if self.names.is_empty() {
            return;
        }
        let name = self.names[self.dice.below(self.names.len())].clone();
        let risk = risk(if self.dice.coin() { v1::CaseRisk::Red } else { v1::CaseRisk::Green });
        if self.dice.coin() {
            let risk = LocalWrite { acting: Some(self.county.own), ..risk };
            let known = self.county.record(&name).await.is_some();
            if known {
                self.county.write(&name, risk).await.unwrap();
            }
        } else if self.township.record(&name).await.is_some() {
            self.township.write(&name, risk).await.unwrap();
        }
    }

    /// One of the two goes on with a copy of its store, or with none.
    async fn put_back(mut self) -> World {
        let which = self.dice.below(2);
        let copy = self.copies[which].take();
        let (who, what) = (["county", "township"][which], if copy.is_some() { "copy" } else { "nothing" });
        self.trace.0.push(format!("the {who} goes on with {what}"));
        let store = copy.unwrap_or_else(|| TempDir::new().unwrap());
        if which == 0 {
            self.county = self.county.replace(store).await;
        } else {
            self.township = self.township.replace(store).await;
            self.township.knows(COUNTY).await;
        }
        self
    }

    /// What is still somewhere.
    async fn held(&self) -> BTreeSet<RecordName> {
        let mut held = BTreeSet::new();
        for name in &self.names {
            if self.county.record(name).await.is_some() || self.township.record(name).await.is_some() {
                held.insert(name.clone());
            }
        }
        held
    }

    async fn settle(&self, seed: u64) {
        let mut round = 0;
        loop {
            self.county.take(&self.township.export(COUNTY).await).await;
            self.township.take(&self.county.export(TOWNSHIP).await).await;
            round += 1;
            let owed = (self.township.owed(COUNTY).await, self.county.owed(TOWNSHIP).await);
            if owed == (0, 0) {
                return;
            }
            assert!(round < ROUNDS, "seed {seed}: {owed:?} are still owed");
        }
    }

    async fn check(&self, held: &BTreeSet<RecordName>, seed: u64) {
        let (below, above) = (self.township.engine.shared(), self.county.engine.shared());
        let parent = below.topology().parent().unwrap().0;
        let child = above.topology().children().next().unwrap().0;
        for name in held {
            let lower = self.township.record(name).await;
            let upper = self.county.record(name).await;
            let (lower, upper) = match (lower, upper) {
                (Some(lower), Some(upper)) => (lower, upper),
                (lower, upper) => {
                    assert!(lower.is_some(), "seed {seed}: the township has lost {name:?}");
                    assert!(upper.is_some(), "seed {seed}: the county has lost {name:?}");
                    return;
                }
            };
            let lower = below.route(parent).unwrap().fingerprint(name, &lower);
            let upper = above.route(child).unwrap().fingerprint(name, &upper);
            assert_eq!(lower, upper, "seed {seed}: {name:?} differs");
        }
    }
}

async fn storm(seed: u64) {
    let mut world = World::new(seed).await;
    for _ in 0..STEPS {
        world = world.step().await;
    }
    let held = world.held().await;
    world.settle(seed).await;
    world.check(&held, seed).await;
}

/// `GUANTONG_BUNDLE_SEEDS` runs more of them, from `GUANTONG_BUNDLE_FIRST` on.
#[tokio::test]
async fn after_any_exchange_both_hold_the_same_and_nothing_is_lost() {
    let number = |name, otherwise| {
        std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok()).unwrap_or(otherwise)
    };
    let first = number("GUANTONG_BUNDLE_FIRST", 1);
    for seed in first..first + number("GUANTONG_BUNDLE_SEEDS", 12) {
        storm(seed).await;
    }
}
