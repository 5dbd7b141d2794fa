//! Files that somebody carries between nodes with no line between them: made at any moment, lost, late, out of order,
//! twice, altered, cut short, given to another node. What is chosen here is drawn from a stream of its own, so that trees
//! in which all nodes have lines keep their fates.
//!
//! It must only carry: what a file means is decided at the nodes.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use guantong_gateway::division::Division;
use guantong_gateway::record::RecordName;
use guantong_proto::v1;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::bundles::{Started, Took};
use super::engine::Crash;
use super::node::{Job, Line, Node};
use super::packing::Packed;
use super::world::World;

/// Of the trees, those in which some nodes have no line.
const TREES: f64 = 0.2;
/// Files that lie about between two nodes, at most.
const FILES_MAX: usize = 12;
/// After the storm somebody goes there and back so often at least: a store that was put back may owe nothing.
const VISITS: usize = 5;

/// How often a node's store was put back.
type Life = usize;

/// A bundle as a file.
#[derive(Clone)]
struct File {
    bytes: Bytes,
    /// The life of its sender, and that of the receiver that the sender knew.
    lives: (Life, Life),
}

/// All files, and who has noticed which restore by them.
pub(super) struct Post {
    rng: ChaCha8Rng,
    files: BTreeMap<(Division, Division), Vec<File>>,
    lives: BTreeMap<Division, Life>,
    /// Of the second, the last life that the first has taken in a file of.
    known: BTreeMap<(Division, Division), Life>,
    /// The first has taken in a file of the second that was made by one who knew this life of the first.
    met: BTreeMap<(Division, Division), Life>,
    /// What the first refused of the last file of the second.
    refused: BTreeMap<(Division, Division), Vec<v1::Refusal>>,
    visits: usize,
    taken: usize,
}

impl Default for Post {
    fn default() -> Post {
        Post {
            rng: ChaCha8Rng::seed_from_u64(1),
            files: BTreeMap::new(),
            lives: BTreeMap::new(),
            known: BTreeMap::new(),
            met: BTreeMap::new(),
            refused: BTreeMap::new(),
            visits: 0,
            taken: 0,
        }
    }
}

impl Post {
    fn life(&self, of: Division) -> Life {
        self.lives.get(&of).copied().unwrap_or(0)
    }
}

impl World {
    /// Takes the lines away from some nodes of some trees.
    pub(super) fn choose_lines(&mut self, seed: u64) {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(1);
        let without =
            std::env::var("GUANTONG_SIM_WITHOUT").is_ok_and(|w| w.split(',').any(|w| w == "bundles"));
        if rng.random_bool(TREES) && !without {
            for index in 1..self.nodes.len() {
                match rng.random_range(0..100) {
                    0..30 => self.take_line(index, Line::Bundle),
                    30..40 => self.take_line(index, Line::OneWay),
                    _ => {}
                }
            }
        }
        self.post.rng = rng;
    }

    /// Lets a node and its parent exchange in another way.
    pub fn take_line(&mut self, index: usize, line: Line) {
        let own = self.nodes[index].division;
        let Some(parent) = self.nodes[index].parent else { return };
        self.nodes[index].lines.insert(parent, line);
        self.nodes[index].certificate = None;
        if let Some(above) = self.nodes.iter_mut().find(|n| n.division == parent) {
            above.lines.insert(own, line);
            above.certificate = None;
        }
        self.ledger.trace(|| format!("node {index} {own} and {parent}: {line:?}"));
    }

    /// The nodes with no line between them: child, parent.
    fn carried(&self) -> Vec<(usize, usize, Line)> {
        let all = self.pairs().into_iter();
        let lines =
            all.map(|(child, parent)| (child, parent, self.nodes[child].line(self.nodes[parent].division)));
        lines.filter(|(.., line)| *line != Line::Dialled).collect()
    }

    fn some_way(&mut self) -> Option<(usize, usize, Line)> {
        let carried = self.carried();
        let (child, parent, line) = *carried.choose(&mut self.post.rng)?;
        match self.post.rng.random_bool(0.4) {
            true => Some((parent, child, line)),
            false => Some((child, parent, line)),
        }
    }

    /// In a storm: what is under way goes on, and somebody makes, carries or loses a file.
    pub(super) fn carry_some(&mut self) {
        if self.nodes.iter().all(|n| n.lines.is_empty()) {
            return;
        }
        for index in 0..self.nodes.len() {
            if self.nodes[index].memory.job.is_some() && self.post.rng.random_bool(0.3) {
                let crash = self.some_crash();
                self.go_on(index, crash);
            }
        }
        match self.post.rng.random_range(0..1_000) {
            0..40 => {
                if let Some((from, to, _)) = self.some_way() {
                    let since_last = self.post.rng.random_bool(0.3);
                    let crash = self.some_crash();
                    self.make(from, to, since_last, crash);
                }
            }
            40..90 => {
                if let Some((from, to, _)) = self.some_way()
                    && let Some(file) = self.some_file(from, to)
                {
                    let crash = self.some_crash();
                    self.take(to, &file, crash);
                }
            }
            90..95 => {
                if let Some((from, to, _)) = self.some_way() {
                    self.lose(from, to);
                }
            }
            95..105 => self.spoil_some(),
            105..113 if self.weather.copies == 0 => self.put_some_back(),
            _ => {}
        }
    }

    fn some_crash(&mut self) -> Option<Crash> {
        match self.post.rng.random_range(0..1_000) {
            n if n < self.weather.crashes => Some(Crash::BeforeCommit),
            n if n < 2 * self.weather.crashes => Some(Crash::AfterCommit),
            _ => None,
        }
    }

    /// Mostly the last that was made, sometimes any.
    fn some_file(&mut self, from: usize, to: usize) -> Option<File> {
        let way = (self.nodes[from].division, self.nodes[to].division);
        let files = self.post.files.get(&way)?;
        match self.post.rng.random_bool(0.6) {
            true => files.last().cloned(),
            false => files.choose(&mut self.post.rng).cloned(),
        }
    }

    fn lose(&mut self, from: usize, to: usize) {
        let way = (self.nodes[from].division, self.nodes[to].division);
        let Some(files) = self.post.files.get_mut(&way).filter(|files| !files.is_empty()) else { return };
        let at = self.post.rng.random_range(0..files.len());
        files.remove(at);
    }

    fn make(&mut self, from: usize, to: usize, since_last: bool, crash: Option<Crash>) {
        let receiver = self.nodes[to].division;
        if !self.nodes[from].up || self.nodes[from].memory.job.is_some() {
            return;
        }
        match self.with_step(from, crash, |n, s| n.begin_making(s, receiver, since_last)) {
            Started::Job(making) => self.nodes[from].memory.job = Some(Job::Making(making)),
            Started::Nothing => {}
            Started::Crashed => self.crash(from),
        }
    }

    fn take(&mut self, to: usize, file: &File, crash: Option<Crash>) {
        if !self.nodes[to].up || self.nodes[to].memory.job.is_some() {
            return;
        }
        match self.with_step(to, crash, |n, s| n.begin_taking(s, &file.bytes)) {
            Ok(Started::Job(taking)) => {
                self.note_known(to, taking.from, file.lives);
                self.nodes[to].memory.job = Some(Job::Taking(taking));
            }
            Ok(Started::Nothing) => {}
            Ok(Started::Crashed) => self.crash(to),
            Err(why) => self.ledger.trace(|| format!("node {to} refuses a bundle: {why}")),
        }
    }

    /// A file that was altered, cut short or brought to the wrong node is refused, and changes nothing.
    fn spoil_some(&mut self) {
        let Some((from, to, _)) = self.some_way() else { return };
        let Some(file) = self.some_file(from, to) else { return };
        let mut bytes = file.bytes.to_vec();
        let mut at = to;
        match self.post.rng.random_range(0..3) {
            0 => {
                let bit = self.post.rng.random_range(0..bytes.len() * 8);
                bytes[bit / 8] ^= 1 << (bit % 8);
            }
            1 => bytes.truncate(self.post.rng.random_range(0..bytes.len())),
            _ => at = self.post.rng.random_range(0..self.nodes.len()),
        }
        let (node, receiver) = (&self.nodes[at], self.nodes[to].division);
        let is_right = node.division == receiver && bytes == file.bytes;
        if !node.up || node.memory.job.is_some() || is_right {
            return;
        }
        let before = (node.disk.revision, node.disk.epoch);
        let taken = self.with_step(at, None, |n, s| n.begin_taking(s, &bytes));
        assert!(taken.is_err(), "node {at} takes in what is not right");
        let node = &self.nodes[at];
        assert_eq!((node.disk.revision, node.disk.epoch), before, "what is refused changes nothing");
    }

    /// Stores that exchange bundles are put back more often than others: what follows takes longer.
    fn put_some_back(&mut self) {
        let Some((index, ..)) = self.some_way() else { return };
        if self.nodes[index].backups.is_empty() || !self.may_restore() || self.post.rng.random_bool(0.3) {
            return self.back_up(index);
        }
        let choice = self.post.rng.random_range(0..self.nodes[index].backups.len());
        self.restore(index, choice);
    }

    /// The next step of what is under way at a node.
    fn go_on(&mut self, index: usize, crash: Option<Crash>) {
        match self.nodes[index].memory.job.take() {
            Some(Job::Making(making)) => {
                let to = making.to;
                match self.with_step(index, crash, |n, s| n.go_on_making(s, making)) {
                    Packed::More(making) => self.nodes[index].memory.job = Some(Job::Making(making)),
                    Packed::Whole(file) => self.put(index, to, file),
                    Packed::Failed => self.ledger.trace(|| format!("node {index} gives up a bundle")),
                    Packed::Crashed => self.crash(index),
                }
            }
            Some(Job::Taking(mut taking)) => {
                let mut took = self.with_step(index, crash, |n, s| n.go_on_taking(s, &mut taking));
                if let Took::Batch(batch) = took {
                    self.look_into(index, taking.from, &batch);
                    self.ledger.trace(|| super::engine::batch_told(&self.nodes[index], taking.from, &batch));
                    took = self.with_step(index, crash, |n, s| n.take_bundle_batch(s, &mut taking, &batch));
                }
                match took {
                    Took::Crashed => return self.crash(index),
                    Took::Full => return,
                    Took::Whole => {
                        self.post.taken += 1;
                        return;
                    }
                    Took::Claim(claim) => self.hear_claim(index, taking.from, &claim),
                    Took::Refused(refusals) => {
                        self.ledger.trace(|| format!("node {index} refuses of a bundle: {refusals:?}"));
                        let way = (self.nodes[index].division, taking.from);
                        self.post.refused.entry(way).or_default().extend(refusals)
                    }
                    Took::More | Took::Batch(_) => {}
                }
                self.nodes[index].memory.job = Some(Job::Taking(taking));
            }
            None => {}
        }
    }

    fn put(&mut self, from: usize, to: Division, bytes: Vec<u8>) {
        self.ledger.trace(|| format!("node {from} has made a bundle for {to}"));
        let own = self.nodes[from].division;
        let known = self.post.known.get(&(own, to)).copied().unwrap_or(0);
        let lives = (self.post.life(own), known);
        let files = self.post.files.entry((own, to)).or_default();
        files.push(File { bytes: bytes.into(), lives });
        if files.len() > FILES_MAX {
            files.remove(0);
        }
    }

    fn note_known(&mut self, to: usize, from: Division, (sender, receiver): (Life, Life)) {
        let own = self.nodes[to].division;
        let known = self.post.known.entry((own, from)).or_default();
        *known = sender.max(*known);
        let met = self.post.met.entry((own, from)).or_default();
        *met = receiver.max(*met);
        self.post.refused.insert((own, from), Vec::new());
    }

    /// A node's store was put back.
    pub(super) fn note_put_back(&mut self, index: usize) {
        let own = self.nodes[index].division;
        *self.post.lives.entry(own).or_default() += 1;
    }

    /// Whether every store that was put back has been told so by all whom it exchanges bundles with.
    pub(super) fn all_have_met_by_bundle(&self) -> bool {
        self.carried().into_iter().filter(|(.., line)| *line == Line::Bundle).all(|(child, parent, _)| {
            [(child, parent), (parent, child)].into_iter().all(|(own, other)| {
                let (own, other) = (self.nodes[own].division, self.nodes[other].division);
                self.post.met.get(&(own, other)).copied().unwrap_or(0) == self.post.life(own)
            })
        })
    }

    /// The storm is over: somebody will go there and back for a while.
    pub(super) fn expect_visits(&mut self) {
        self.post.visits = VISITS;
    }

    /// Carries a whole bundle from each to each, at once. Whether there may be more to carry.
    pub(super) fn carry_all(&mut self, except: &[usize]) -> bool {
        let mut more = false;
        let visited = self.post.visits > 0;
        self.post.visits = self.post.visits.saturating_sub(1);
        for (child, parent, line) in self.carried() {
            if except.contains(&child) || except.contains(&parent) {
                continue;
            }
            let owed =
                |node: &Node, to: Division| node.disk.peer(to).is_some_and(|p| node.disk.owed(p.id).0 > 0);
            let (below, above) = (&self.nodes[child], &self.nodes[parent]);
            let known = above.disk.peer(below.division).is_some_and(|p| p.recovering_to.is_none());
            let waits = owed(below, above.division) || owed(above, below.division) || !known;
            if line == Line::OneWay {
                let before = contents(above);
                self.carry(child, parent);
                more |= visited || contents(&self.nodes[parent]) != before;
            } else if visited || waits {
                self.carry(child, parent);
                self.carry(parent, child);
                more = true;
            }
        }
        more
    }

    /// Makes a bundle and takes it in.
    pub(super) fn carry(&mut self, from: usize, to: usize) {
        let way = (self.nodes[from].division, self.nodes[to].division);
        self.make(from, to, false, None);
        while self.nodes[from].memory.job.is_some() {
            self.go_on(from, None);
        }
        let Some(file) = self.post.files.get(&way).and_then(|files| files.last()).cloned() else { return };
        self.take(to, &file, None);
        while self.nodes[to].memory.job.is_some() {
            self.go_on(to, None);
        }
    }

    /// When something that waits for its time, and is in no quarantine, falls due.
    pub(super) fn carried_due(&self) -> impl Iterator<Item = u64> {
        let refused = self.post.refused.values().flatten();
        let due = refused.filter_map(|r| u64::try_from(r.retry_at_ms).ok()).filter(|ms| *ms > 0);
        // A store that began anew counts once its bundles are later than those of its former life.
        let heard = self.nodes.iter().filter(|n| !n.absent).flat_map(|n| n.disk.bundles.heard_ms());
        due.chain(heard).filter(|ms| *ms > self.now_ms)
    }

    /// What was refused for ever of what came one way.
    pub(super) fn refused_one_way(&self) -> BTreeSet<(RecordName, u32)> {
        let one_way = self.carried().into_iter().filter(|(.., line)| *line == Line::OneWay);
        let way = |(child, parent, _): (usize, usize, Line)| {
            (self.nodes[parent].division, self.nodes[child].division)
        };
        let refused = one_way.filter_map(|line| self.post.refused.get(&way(line))).flatten();
        let observed = refused.filter(|r| r.reason() == v1::RefusalReason::FutureObservation);
        observed.filter_map(|r| Some((RecordName::parse(&self.schema, &r.record).ok()?, r.field))).collect()
    }

    /// The nodes at or above this one that nothing comes down to: they send one way only.
    pub(super) fn deaf_over(&self, index: usize) -> Vec<usize> {
        let mut deaf = Vec::new();
        let mut at = Some(index);
        while let Some(own) = at {
            let Some(parent) = self.nodes[own].parent else { break };
            if self.nodes[own].line(parent) == Line::OneWay {
                deaf.push(own);
            }
            at = self.node_of(parent);
        }
        deaf
    }

    /// Whether what the node `author` wrote comes to the node `at` unless lost: no line on the way leads up only.
    pub(super) fn can_hear(&self, at: usize, author: usize) -> bool {
        self.deaf_over(at).into_iter().all(|deaf| self.is_below(author, deaf))
    }

    /// Whether a node is another one, or somewhere below it.
    pub(super) fn is_below(&self, index: usize, above: usize) -> bool {
        self.nodes[above].division.contains(self.nodes[index].division)
    }
}

/// What a node has, as far as it can be counted.
fn contents(node: &Node) -> i64 {
    node.disk.records.values().map(|stored| stored.revision).sum()
}
