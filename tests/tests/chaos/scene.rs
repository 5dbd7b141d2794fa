//! The tree, and what is wrong with it now: things happen to nodes, lines, disks, clocks and the database, and all of it is
//! made good again. It must never know what was written.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;

use guantong::demo::tree::LineState;
use guantong_gateway::division::Division;
use guantong_gateway::step::Step;
use guantong_tests::harness::clock::Clock;
use guantong_tests::harness::mortal::{self, DIES_AT, Doom};
use guantong_tests::harness::network::Network;
use guantong_tests::harness::{Fleet, division, postgres, run};
use rand::seq::IndexedRandom;
use rand_chacha::ChaCha8Rng;
use rustix::process::{Pid, Signal, kill_process};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection, Row};

use crate::events::{self, Event};

/// The program that dies at a named step.
const MORTAL: &str = env!("CARGO_BIN_EXE_mortal");
/// No store grows any more with this limit, MiB.
const FULL_MIB: &str = "1";
const FULL_DISK: &str = "GUANTONG_STORE_MAX_MIB";
/// Bytes of a page of SQLite.
const PAGE_BYTES: usize = 4096;

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Running,
    Paused,
    Down,
}

/// The tree, and what is wrong with it now.
pub struct Scene {
    pub fleet: Fleet,
    /// Carries the lines, where they are not this process's.
    network: Option<Network>,
    /// Nodes whose store is a file.
    files: Vec<Division>,
    states: BTreeMap<Division, State>,
    /// Nodes that will die by themselves.
    doomed: BTreeMap<Division, Doom>,
    broken_lines: BTreeSet<Division>,
    full: BTreeSet<Division>,
    /// Clocks that can be set; they may be right.
    clocks: BTreeMap<Division, Clock>,
    /// How often each event happened.
    pub counts: BTreeMap<Event, usize>,
    /// How often nodes died at each step.
    pub deaths: BTreeMap<Step, usize>,
}

impl Scene {
    /// All is well with this tree. `files` are the nodes on SQLite.
    pub fn new(fleet: Fleet, network: Option<Network>, files: Vec<Division>) -> Scene {
        let states = fleet.tree.divisions().into_iter().map(|node| (node, State::Running)).collect();
        Scene {
            fleet,
            network,
            files,
            states,
            doomed: BTreeMap::new(),
            broken_lines: BTreeSet::new(),
            full: BTreeSet::new(),
            clocks: BTreeMap::new(),
            counts: BTreeMap::new(),
            deaths: BTreeMap::new(),
        }
    }

    fn count(&mut self, event: Event) {
        *self.counts.entry(event).or_default() += 1;
    }

    /// Nodes to which the event can happen now.
    fn candidates(&self, event: Event) -> Vec<Division> {
        let is = |node: &Division, state| self.states[node] == state;
        // Who is doomed dies between two looks.
        let is_safe = |node: &Division| is(node, State::Running) && !self.doomed.contains_key(node);
        let has_line = |node: &Division| self.fleet.tree.parent(*node).is_some();
        let fits = |node: &&Division| match event {
            Event::Kill | Event::KillAndStart => !is(node, State::Down),
            Event::Start => is(node, State::Down),
            Event::Doom | Event::Restart | Event::Pause => is_safe(node),
            Event::Resume => is(node, State::Paused),
            Event::Cut | Event::Silence | Event::Slow => has_line(node) && !self.broken_lines.contains(node),
            Event::Mend => self.broken_lines.contains(node),
            Event::FullDisk => is_safe(node) && self.files.contains(node) && !self.full.contains(node),
            Event::WrongClock => is_safe(node) && !self.clocks.contains_key(node),
            Event::StepClock => !is(node, State::Down) && self.clocks.contains_key(node),
            Event::RestartDatabase => !self.files.contains(node) && postgres::process().is_some(),
            Event::Damage => self.files.contains(node),
        };
        self.states.keys().filter(fits).copied().collect()
    }

    /// Something happens, and is told.
    pub async fn strike(&mut self, random: &mut ChaCha8Rng) -> String {
        loop {
            self.note_deaths();
            let event = events::draw(random);
            let Some(node) = self.candidates(event).choose(random).copied() else { continue };
            if let Some(how) = self.happens(event, node, random).await {
                self.count(event);
                return format!("{event:?} {node} {how}");
            }
        }
    }

    /// Does it, and says how; `None` where it cannot be done on this machine.
    async fn happens(&mut self, event: Event, node: Division, random: &mut ChaCha8Rng) -> Option<String> {
        let mut how = String::new();
        match event {
            Event::Kill => self.kill(node).await,
            Event::KillAndStart => {
                self.kill(node).await;
                self.start(node).await;
            }
            Event::Doom => {
                let doom = events::doom(random, node.tier());
                how = doom.to_string();
                self.doom(node, doom).await;
            }
            Event::Start => self.start(node).await,
            Event::Restart => {
                self.fleet.tree.stop(node).await.unwrap();
                self.start(node).await;
            }
            Event::Pause => {
                self.signal(node, Signal::STOP);
                self.states.insert(node, State::Paused);
            }
            Event::Resume => self.resume(node),
            Event::Cut => self.set_line(node, LineState::Cut).await,
            Event::Silence => self.set_line(node, LineState::Silent).await,
            Event::Slow => {
                let slowness = events::slowness(random);
                how = format!("{slowness:?}");
                self.set_line(node, LineState::Slow(slowness)).await;
            }
            Event::Mend => self.set_line(node, LineState::Whole).await,
            Event::FullDisk => {
                self.kill(node).await;
                self.fleet.tree.set_environment(node, FULL_DISK, Some(FULL_MIB)).unwrap();
                self.full.insert(node);
                self.start(node).await;
            }
            Event::WrongClock => {
                how = events::clock(random, false).to_owned();
                self.give_clock(node, &how).await?;
            }
            Event::StepClock => {
                how = events::clock(random, true).to_owned();
                self.clocks[&node].set(&how);
            }
            Event::RestartDatabase => postgres::restart().await,
            Event::Damage => self.damage(node).await,
        }
        Some(how)
    }

    async fn kill(&mut self, node: Division) {
        self.fleet.tree.kill(node).await.unwrap();
        self.doomed.remove(&node);
        self.states.insert(node, State::Down);
    }

    async fn start(&mut self, node: Division) {
        self.fleet.tree.start(node).await.unwrap();
        self.states.insert(node, State::Running);
    }

    /// Kills a node, and starts it as one that dies at a step; which may be before it answers.
    pub async fn doom(&mut self, node: Division, doom: Doom) {
        self.kill(node).await;
        let tree = &mut self.fleet.tree;
        tree.set_environment(node, mortal::VARIABLE, Some(&doom.to_string())).unwrap();
        let program = self.network.as_ref().map_or_else(|| MORTAL.into(), |n| n.program(MORTAL.as_ref()));
        let started = tree.start_as(node, &program).await;
        tree.set_environment(node, mortal::VARIABLE, None).unwrap();
        match started {
            Ok(()) => {
                self.states.insert(node, State::Running);
                self.doomed.insert(node, doom);
            }
            Err(error) => {
                let error = error.to_string();
                assert!(error.contains(&format!("{DIES_AT}{doom}")), "{error}");
                *self.deaths.entry(doom.step).or_default() += 1;
            }
        }
    }

    /// Notes who has died where it had to.
    fn note_deaths(&mut self) {
        let doomed: Vec<Division> = self.doomed.keys().copied().collect();
        for node in doomed {
            let Some(status) = self.fleet.tree.ended(node) else { continue };
            let doom = self.doomed.remove(&node).unwrap();
            assert_eq!(
                status.signal(),
                Some(Signal::KILL.as_raw()),
                "{node}, which dies at {doom}: {status}"
            );
            *self.deaths.entry(doom.step).or_default() += 1;
            self.states.insert(node, State::Down);
        }
    }

    /// Whether a node that is doomed lives. Once it is found dead it is started again.
    pub async fn is_dying(&mut self, node: Division) -> bool {
        self.note_deaths();
        if self.doomed.contains_key(&node) {
            return true;
        }
        if self.states[&node] == State::Down {
            self.start(node).await;
        }
        false
    }

    fn resume(&mut self, node: Division) {
        self.signal(node, Signal::CONT);
        self.states.insert(node, State::Running);
    }

    fn signal(&self, node: Division, signal: Signal) {
        let id = self.fleet.tree.process_id(node).and_then(|id| Pid::from_raw(id.try_into().unwrap()));
        kill_process(id.unwrap(), signal).unwrap();
    }

    async fn set_line(&mut self, node: Division, state: LineState) {
        match &self.network {
            Some(network) => network.set_line(node, state).await,
            None => self.fleet.tree.set_line(node, state),
        }
        match state {
            LineState::Whole => self.broken_lines.remove(&node),
            _ => self.broken_lines.insert(node),
        };
    }

    /// Kills a node, and starts it with a clock that is wrong and can be set.
    async fn give_clock(&mut self, node: Division, by: &str) -> Option<()> {
        let clock = Clock::new(self.fleet.tree.node_dir(node).join("clock"))?;
        clock.set(by);
        self.kill(node).await;
        for (name, value) in clock.variables() {
            self.fleet.tree.set_environment(node, name, Some(value)).unwrap();
        }
        self.clocks.insert(node, clock);
        self.start(node).await;
        Some(())
    }

    /// Makes everything good: all nodes run with what they need, all clocks are right, and all lines carry.
    pub async fn make_good(&mut self) {
        self.note_deaths();
        for node in self.candidates(Event::Resume) {
            self.resume(node);
        }
        for node in self.doomed.keys().copied().collect::<Vec<_>>() {
            self.kill(node).await;
        }
        for node in std::mem::take(&mut self.full) {
            self.fleet.tree.set_environment(node, FULL_DISK, None).unwrap();
            if self.states[&node] == State::Running {
                self.kill(node).await;
            }
        }
        self.clocks.values().for_each(|clock| clock.set("+0"));
        self.fleet.tree.start_all().await.unwrap();
        self.states.values_mut().for_each(|state| *state = State::Running);
        for node in std::mem::take(&mut self.broken_lines) {
            self.set_line(node, LineState::Whole).await;
        }
    }

    /// Damages the store of a node; the node refuses to start, is rebuilt, and starts.
    pub async fn damage_one(&mut self, random: &mut ChaCha8Rng) -> Division {
        let node = *self.candidates(Event::Damage).choose(random).unwrap();
        self.damage(node).await;
        self.count(Event::Damage);
        node
    }

    async fn damage(&mut self, node: Division) {
        self.fleet.tree.stop(node).await.unwrap();
        overwrite_root(&self.fleet.tree.node_dir(node).join("guantong.db"), "record_name").await;
        let refused = self.fleet.tree.start(node).await.unwrap_err().to_string();
        assert!(refused.contains("damaged") && refused.contains("guantong rebuild"), "{refused}");
        let config = self.fleet.tree.config_path(node);
        let rebuilt = run(&["rebuild", "--config", config.to_str().unwrap(), "--json"]).await;
        rebuilt.exits(0);
        self.start(node).await;
    }
}

/// Writes over the first page of a table or index.
async fn overwrite_root(path: &PathBuf, of: &str) {
    let mut conn = SqliteConnectOptions::new().filename(path).connect().await.unwrap();
    let row = sqlx::query("SELECT rootpage FROM sqlite_schema WHERE name = ?").bind(of);
    let page: i64 = row.fetch_one(&mut conn).await.unwrap().get(0);
    conn.close().await.unwrap();
    let mut bytes = std::fs::read(path).unwrap();
    let at = (page as usize - 1) * PAGE_BYTES;
    bytes[at..at + PAGE_BYTES].fill(0xa5);
    std::fs::write(path, bytes).unwrap();
}

/// A node from its code, for lists.
pub fn divisions(codes: &[&str]) -> Vec<Division> {
    codes.iter().map(|code| division(code)).collect()
}
