//! What goes wrong, drawn from a seed: nodes are killed, held still and restarted, lines cut and silenced, disks filled,
//! clocks turned, stores damaged; and all of it is made good again. It must never know what was written.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use guantong_gateway::division::{Division, Tier};
use guantong_tests::harness::{Fleet, division, land, run};
use rand::Rng;
use rand::seq::IndexedRandom;
use rand_chacha::ChaCha8Rng;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection, Row};

/// What can happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Event {
    /// kill -9; the node stays down until it is started, or the round ends.
    Kill,
    /// kill -9, and a start at once.
    KillAndStart,
    /// A node that is down starts.
    Start,
    /// SIGTERM, and a start.
    Restart,
    /// SIGSTOP.
    Pause,
    /// SIGCONT.
    Resume,
    /// A line breaks.
    Cut,
    /// A line carries nothing, and breaks no connection.
    Silence,
    /// A line is mended.
    Mend,
    /// kill -9, and a start with a store that may not grow.
    FullDisk,
    /// kill -9 of a township, and a start with a clock that is wrong.
    WrongClock,
    /// A store of SQLite is damaged and rebuilt. Between rounds only: what no other node has yet can be lost with a disk.
    Damage,
}

/// What is drawn within a round, each as often as it stands here.
const DRAWN: [Event; 16] = [
    Event::Kill,
    Event::Kill,
    Event::Kill,
    Event::KillAndStart,
    Event::KillAndStart,
    Event::Start,
    Event::Start,
    Event::Restart,
    Event::Pause,
    Event::Resume,
    Event::Cut,
    Event::Cut,
    Event::Silence,
    Event::Mend,
    Event::FullDisk,
    Event::WrongClock,
];
/// How wrong clocks are; not as far behind as to lie before the certificates of the tree.
const CLOCKS: [&str; 3] = ["+1d", "+2m", "-2m"];
/// No store grows any more with this limit, MiB.
const FULL_MIB: &str = "1";
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
    /// Nodes whose store is a file.
    files: Vec<Division>,
    states: BTreeMap<Division, State>,
    broken_lines: BTreeSet<Division>,
    /// Variables in the environment of nodes that must go again.
    spoiled: BTreeMap<Division, Vec<&'static str>>,
    /// How often each event happened.
    pub counts: BTreeMap<Event, usize>,
}

impl Scene {
    /// All is well with this tree. `files` are the nodes on SQLite.
    pub fn new(fleet: Fleet, files: Vec<Division>) -> Scene {
        let states = fleet.tree.divisions().into_iter().map(|node| (node, State::Running)).collect();
        Scene {
            fleet,
            files,
            states,
            broken_lines: BTreeSet::new(),
            spoiled: BTreeMap::new(),
            counts: BTreeMap::new(),
        }
    }

    fn count(&mut self, event: Event) {
        *self.counts.entry(event).or_default() += 1;
    }

    /// Nodes to which the event can happen now.
    fn candidates(&self, event: Event) -> Vec<Division> {
        let is = |node: &Division, state| self.states[node] == state;
        let has_line = |node: &Division| self.fleet.tree.parent(*node).is_some();
        let fits = |node: &&Division| match event {
            Event::Kill | Event::KillAndStart => !is(node, State::Down),
            Event::Start => is(node, State::Down),
            Event::Restart | Event::Pause => is(node, State::Running),
            Event::Resume => is(node, State::Paused),
            Event::Cut | Event::Silence => has_line(node) && !self.broken_lines.contains(node),
            Event::Mend => self.broken_lines.contains(node),
            Event::FullDisk => {
                is(node, State::Running) && self.files.contains(node) && !self.spoiled.contains_key(node)
            }
            Event::WrongClock => {
                is(node, State::Running) && node.tier() == Tier::Township && !self.spoiled.contains_key(node)
            }
            Event::Damage => self.files.contains(node),
        };
        self.states.keys().filter(fits).copied().collect()
    }

    /// Something happens, and is told.
    pub async fn strike(&mut self, random: &mut ChaCha8Rng) -> (Event, Division) {
        loop {
            let event = *DRAWN.choose(random).unwrap();
            let Some(node) = self.candidates(event).choose(random).copied() else { continue };
            if self.happens(event, node, random).await {
                self.count(event);
                return (event, node);
            }
        }
    }

    /// Does it; false where it cannot be done on this machine.
    async fn happens(&mut self, event: Event, node: Division, random: &mut ChaCha8Rng) -> bool {
        match event {
            Event::Kill => self.kill(node).await,
            Event::KillAndStart => {
                self.kill(node).await;
                self.start(node).await;
            }
            Event::Start => self.start(node).await,
            Event::Restart => {
                self.fleet.tree.stop(node).await.unwrap();
                self.start(node).await;
            }
            Event::Pause => {
                self.signal(node, "-STOP");
                self.states.insert(node, State::Paused);
            }
            Event::Resume => self.resume(node),
            Event::Cut => {
                self.fleet.tree.cut(node);
                self.broken_lines.insert(node);
            }
            Event::Silence => {
                self.fleet.tree.silence(node);
                self.broken_lines.insert(node);
            }
            Event::Mend => self.mend(node),
            Event::FullDisk => self.start_spoiled(node, &[("GUANTONG_STORE_MAX_MIB", FULL_MIB)]).await,
            Event::WrongClock => {
                let Some(variables) = land::later(CLOCKS.choose(random).unwrap()) else { return false };
                self.start_spoiled(node, &variables).await;
            }
            Event::Damage => self.damage(node).await,
        }
        true
    }

    async fn kill(&mut self, node: Division) {
        self.fleet.tree.kill(node).await.unwrap();
        self.states.insert(node, State::Down);
    }

    async fn start(&mut self, node: Division) {
        self.fleet.tree.start(node).await.unwrap();
        self.states.insert(node, State::Running);
    }

    fn resume(&mut self, node: Division) {
        self.signal(node, "-CONT");
        self.states.insert(node, State::Running);
    }

    /// Sends a signal to the process that serves a node's configuration.
    fn signal(&self, node: Division, signal: &str) {
        let config = self.fleet.tree.config_path(node);
        let id = process_of(config.to_str().unwrap()).unwrap_or_else(|| panic!("{node} does not run"));
        let sent = std::process::Command::new("kill").args([signal, &id]).status().unwrap();
        assert!(sent.success(), "kill {signal} {id}: {sent}");
    }

    fn mend(&mut self, node: Division) {
        self.fleet.tree.mend(node);
        self.broken_lines.remove(&node);
    }

    async fn start_spoiled(&mut self, node: Division, variables: &[(&'static str, &'static str)]) {
        self.kill(node).await;
        for (name, value) in variables {
            self.fleet.tree.set_environment(node, name, Some(value)).unwrap();
        }
        self.spoiled.insert(node, variables.iter().map(|(name, _)| *name).collect());
        self.start(node).await;
    }

    /// Makes everything good: all nodes run with what they need, and all lines carry.
    pub async fn make_good(&mut self) {
        for node in self.candidates(Event::Resume) {
            self.resume(node);
        }
        for (node, variables) in std::mem::take(&mut self.spoiled) {
            for name in variables {
                self.fleet.tree.set_environment(node, name, None).unwrap();
            }
            if self.states[&node] == State::Running {
                self.kill(node).await;
            }
        }
        self.fleet.tree.start_all().await.unwrap();
        self.states.values_mut().for_each(|state| *state = State::Running);
        for node in std::mem::take(&mut self.broken_lines) {
            self.mend(node);
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

/// The process that was started with a configuration.
fn process_of(config: &str) -> Option<String> {
    let processes = std::fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    let serves = |id: &String| {
        let line = std::fs::read(format!("/proc/{id}/cmdline")).unwrap_or_default();
        line.split(|byte| *byte == 0).any(|argument| argument == config.as_bytes())
    };
    let mut ids = processes.filter_map(|entry| entry.file_name().into_string().ok());
    ids.find(|id| id.bytes().all(|byte| byte.is_ascii_digit()) && serves(id))
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

/// How long until the next event, in tries of all writers together: 1 to 40.
pub fn pause(random: &mut ChaCha8Rng) -> usize {
    random.random_range(1..=40)
}

/// A node from its code, for lists.
pub fn divisions(codes: &[&str]) -> Vec<Division> {
    codes.iter().map(|code| division(code)).collect()
}
