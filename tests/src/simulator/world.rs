//! The tree and its fate: a seeded scheduler that owns time, network and disks. Everything that happens, happens in one
//! order that the seed alone decides.

use std::collections::BTreeMap;
use std::sync::Arc;

use guantong_gateway::division::{Division, Divisions};
use guantong_gateway::ingest::topology::Role;
use guantong_gateway::record::{RecordName, view};
use guantong_gateway::schema::Schema;
use guantong_gateway::session::{Output, Side};
use guantong_proto::v1;
use prost::Message;
use rand::seq::{IndexedRandom, IteratorRandom};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::engine::{Crash, Step};
use super::ledger::{Ledger, Telling};
use super::link::{End, LinkId, Wire};
use super::node::{Command, Line, Node};
use super::trouble::trusts;
use super::weather::Weather;
use super::workload::{Action, Places};

/// When the world begins, Unix milliseconds.
pub(super) const START_MS: u64 = 1_780_000_000_000;

/// Division and parent of each node; those that come later are marked. One prefecture with counties, one without, a
/// county directly below the province, a county without townships' nodes at first.
const TREE: [(u64, u64, bool); 11] = [
    (460000000000, 0, false),
    (460100000000, 460000000000, false),
    (460105000000, 460100000000, false),
    (460105001000, 460105000000, false),
    (460105002000, 460105000000, false),
    (460105100000, 460105000000, true),
    (460106000000, 460100000000, false),
    (460106001000, 460106000000, true),
    (460400000000, 460000000000, false),
    (460400100000, 460400000000, false),
    (469001000000, 460000000000, false),
];

/// Divisions that never get a node.
const WITHOUT_NODES: [u64; 4] = [460106002000, 460400101000, 469001100000, 460105101000];

/// The whole.
pub struct World {
    /// The one source of chance.
    pub rng: ChaCha8Rng,
    /// The true time.
    pub now_ms: u64,
    /// All nodes, copies at the end.
    pub nodes: Vec<Node>,
    /// All streams.
    pub wires: BTreeMap<LinkId, Wire>,
    /// The book of writes.
    pub ledger: Ledger,
    /// Divisions that records may be of.
    pub places: Places,
    /// What may go wrong.
    pub weather: Weather,
    /// The rules of today's program.
    pub schema: Arc<Schema>,
    /// The storm is over and everything was made good.
    pub is_healed: bool,
    /// Every link was at rest then, and has compared since; 0: that was not waited for.
    pub proven_since_ms: u64,
    /// Files on their way.
    pub(super) post: super::courier::Post,
    next_link: LinkId,
}

fn division(code: u64) -> Division {
    match Division::from_code(code) {
        Some(division) => division,
        None => panic!("{code} is no division"),
    }
}

impl World {
    /// The tree, started, with the weather of its seed.
    pub fn new(seed: u64, telling: Telling) -> World {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let weather = Weather::draw(&mut rng);
        let mut world = World::with_tree(rng, weather, telling, &TREE, &WITHOUT_NODES);
        world.choose_lines(seed);
        world
    }

    /// Another tree, on a calm day: division and parent of each node, and divisions without nodes.
    pub fn calm(tree: &[(u64, u64)], without: &[u64]) -> World {
        let tree: Vec<(u64, u64, bool)> = tree.iter().map(|(own, parent)| (*own, *parent, false)).collect();
        World::with_tree(ChaCha8Rng::seed_from_u64(1), Weather::default(), Telling::Nothing, &tree, without)
    }

    fn with_tree(
        mut rng: ChaCha8Rng,
        weather: Weather,
        telling: Telling,
        tree: &[(u64, u64, bool)],
        without: &[u64],
    ) -> World {
        let divisions = Arc::new(Divisions::embedded());
        let schema = Arc::new(Schema::current());
        let mut nodes = Vec::new();
        for (code, parent, late) in tree {
            let parent = (*parent != 0).then(|| division(*parent));
            let mut node = Node::new(division(*code), parent, schema.clone(), divisions.clone());
            node.absent = *late;
            weather.fit_out(&mut rng, &mut node);
            nodes.push(node);
        }
        let all = tree.iter().map(|t| t.0).chain(without.iter().copied()).map(division).collect();
        let mut world = World {
            rng,
            now_ms: START_MS,
            nodes,
            wires: BTreeMap::new(),
            ledger: Ledger::new(schema.clone(), telling),
            places: Places { all },
            weather,
            schema,
            is_healed: false,
            proven_since_ms: 0,
            post: Default::default(),
            next_link: 1,
        };
        world.ledger.wrong_clocks = weather.clocks > 0;
        world.note_unsure();
        for index in 0..world.nodes.len() {
            world.certify(index);
            if !world.nodes[index].absent {
                world.start(index);
            }
        }
        world
    }

    /// Runs one step of a node's engine, or whatever else needs all of these.
    pub fn with_step<T>(
        &mut self,
        index: usize,
        crash: Option<Crash>,
        f: impl FnOnce(&mut Node, &mut Step<'_>) -> T,
    ) -> T {
        let (rng, ledger, changed) = (&mut self.rng, &mut self.ledger, Vec::new());
        let mut step = Step { rng, now_ms: self.now_ms, ledger, index, crash, changed };
        let done = f(&mut self.nodes[index], &mut step);
        let changed = step.changed;
        self.look_at(index, &changed);
        done
    }

    /// Asks a node for something, as a local system does.
    pub fn ask(&mut self, index: usize, action: Action) {
        self.nodes[index].memory.inbox.push_back(Command::Write(action));
    }

    /// Starts a node.
    pub fn start(&mut self, index: usize) {
        if self.nodes[index].disk_full {
            return;
        }
        self.ledger.trace(|| format!("node {index} {} starts", self.nodes[index].division));
        self.with_step(index, None, Node::start);
    }

    /// Ends a node's process; its streams end with it.
    pub fn crash(&mut self, index: usize) {
        self.ledger.trace(|| format!("node {index} {} stops", self.nodes[index].division));
        self.nodes[index].stop();
        for wire in self.wires.values_mut().filter(|w| w.child == index || w.parent == index) {
            wire.cut();
        }
    }

    /// The node that others reach under a division.
    pub fn node_of(&self, division: Division) -> Option<usize> {
        self.nodes.iter().position(|n| n.division == division && !n.is_copy && !n.absent)
    }

    /// Lets a node's engine do its next step.
    pub fn engine_step(&mut self, index: usize, crash: Option<Crash>) {
        if !self.with_step(index, crash, Node::step) {
            self.crash(index);
        }
    }

    /// Lets a node look after itself.
    pub fn look_after(&mut self, index: usize, retry_all: bool) {
        if !self.nodes[index].up {
            return;
        }
        let before =
            (!self.nodes[index].disk.purges_ready().is_empty()).then(|| self.nodes[index].disk.clone());
        self.with_step(index, None, |n, s| n.look_after(s, retry_all));
        if let Some(before) = before {
            let others = self.nodes.iter().enumerate().filter(|(i, n)| *i != index && !n.absent);
            let others: Vec<&super::disk::Disk> = others.map(|(_, n)| &n.disk).collect();
            self.ledger.put_back(&before, Some(&self.nodes[index].disk), &others);
        }
    }

    /// Dials from a node, if it can. Returns whether it did.
    pub fn dial(&mut self, index: usize) -> bool {
        let node = &self.nodes[index];
        let dialled = node.memory.ends.values().any(|e| e.session.side() == Side::Child);
        let Some(parent) = node.parent.and_then(|p| self.node_of(p)) else { return false };
        if !node.up || node.line(self.nodes[parent].division) != Line::Dialled {
            return false;
        }
        if node.line_cut || dialled || node.memory.dial_ms > self.now_ms || !self.nodes[parent].up {
            return false;
        }
        if !trusts(&self.nodes[index], &self.nodes[parent], self.now_ms) {
            self.renew_at_the_door(index, parent);
            return false;
        }
        let link = self.next_link;
        self.next_link += 1;
        self.wires.insert(link, Wire::new(index, parent));
        let end = |own: usize, side, other: usize| {
            let node = &self.nodes[own];
            End::new(node, side, self.nodes[other].division, link, node.now_ms(self.now_ms))
        };
        let (below, above) = (end(index, Side::Child, parent), end(parent, Side::Parent, index));
        self.nodes[index].memory.ends.insert(link, Box::new(below));
        self.nodes[parent].memory.ends.insert(link, Box::new(above));
        true
    }

    /// Delivers the next frame of one direction of a link.
    pub fn deliver(&mut self, link: LinkId, direction: usize) {
        let Some(wire) = self.wires.get_mut(&link) else { return };
        let Some(frame) = wire.frames[direction].pop_front() else { return };
        let receiver = wire.receiver(direction);
        let Some(end) = self.nodes[receiver].memory.ends.get_mut(&link) else { return };
        wire.end_if_spoiled(direction);
        let frame = match v1::Frame::decode(frame) {
            Ok(frame) => frame,
            Err(error) => panic!("a frame cannot be read: {error}"),
        };
        end.dirty = true;
        if let Err(error) = end.session.handle_frame(end.now_ms(self.now_ms), frame) {
            panic!("link {link} to node {receiver}: an honest peer broke the protocol: {error}");
        }
    }

    /// An end of a broken link notices that it is broken.
    pub fn notice(&mut self, link: LinkId, index: usize) {
        let backoff_ms = self.rng.random_range(0..300);
        let node = &mut self.nodes[index];
        if let Some(end) = node.memory.ends.remove(&link)
            && end.session.side() == Side::Child
        {
            node.memory.dial_ms = self.now_ms + backoff_ms;
        }
    }

    /// Lets the dirty ends of a node say what they have to say.
    pub fn pump(&mut self, index: usize) {
        let node = &self.nodes[index];
        let dirty: Vec<LinkId> = node.memory.ends.iter().filter(|(_, e)| e.dirty).map(|(l, _)| *l).collect();
        for link in dirty {
            if let Some(end) = self.nodes[index].memory.ends.get_mut(&link) {
                end.dirty = false;
            }
            while self.pump_end(index, link) {}
        }
    }

    /// One thing that an end says; false: it has nothing more to say.
    fn pump_end(&mut self, index: usize, link: LinkId) -> bool {
        let peer = self.nodes[index].peer_of(link);
        let Some(mut end) = self.nodes[index].memory.ends.remove(&link) else { return false };
        while let Some(want) = end.session.wants() {
            let rows = peer.map(|peer| self.nodes[index].read_outbox(peer, want)).unwrap_or_default();
            match rows.is_empty() {
                true => end.session.lane_empty(want.lane),
                false => end.session.offer(want.lane, rows),
            }
        }
        self.say_claims(index, &mut end);
        if self.compare(index, &mut end) {
            self.nodes[index].memory.ends.insert(link, end);
            return true;
        }
        let output = end.session.poll(end.now_ms(self.now_ms));
        let said = output.is_some();
        let mut over = false;
        end.peer_rules = output.as_ref().and_then(super::comparisons::rules_of).or(end.peer_rules);
        let inbox = &mut self.nodes[index].memory.inbox;
        match output {
            None => {}
            Some(Output::Send(frame)) => {
                if let Some(wire) = self.wires.get_mut(&link) {
                    wire.send(end.session.side(), &frame);
                }
            }
            Some(Output::Greeted(hello)) => inbox.push_back(Command::Greet(link, hello)),
            Some(Output::Welcomed(welcome)) => inbox.push_back(Command::Welcomed(link, welcome)),
            Some(Output::TokenConfirmed) => inbox.push_back(Command::TokenConfirmed(link)),
            Some(Output::Ingest(batch)) => {
                self.look_into(index, end.other, &batch);
                self.ledger.trace(|| super::engine::batch_told(&self.nodes[index], end.other, &batch));
                let inbox = &mut self.nodes[index].memory.inbox;
                inbox.push_back(Command::Ingest(link, batch, end.session.peer_revision()));
            }
            Some(Output::Delivered { seqs, refusals }) => {
                for refusal in &refusals {
                    self.ledger.trace(|| format!("node {index} is refused {refusal:?}"));
                }
                inbox.push_back(Command::Delivered(link, seqs, refusals, end.session.peer_revision()));
            }
            Some(Output::Drained) => {}
            Some(heard @ (Output::PeerChecksum(_) | Output::PeerProbe(_) | Output::PeerFinding(_))) => {
                end.hear_comparison(end.now_ms(self.now_ms), heard)
            }
            Some(Output::PeerClaim(claim)) => self.hear_claim(index, end.other, &claim),
            // Operators ask, and none are here.
            Some(Output::PeerAsks(_) | Output::PeerAnswers(_)) => {}
            Some(Output::End(ended)) => {
                self.ledger.trace(|| format!("node {index} ends link {link}: {ended:?}"));
                over = true;
            }
        }
        if over {
            self.hang_up(index, link, end);
        } else {
            self.nodes[index].memory.ends.insert(link, end);
        }
        said && !over
    }

    /// A session is over: what it sent still arrives, then the stream ends.
    fn hang_up(&mut self, index: usize, link: LinkId, end: Box<End>) {
        let toward = usize::from(end.session.side() == Side::Parent);
        while self.wires.get(&link).is_some_and(|w| !w.frames[toward].is_empty()) {
            self.deliver(link, toward);
        }
        if let Some(wire) = self.wires.get_mut(&link) {
            wire.cut();
        }
        if end.session.side() == Side::Child {
            self.nodes[index].memory.dial_ms = self.now_ms + self.rng.random_range(0..2_000);
        }
    }

    /// Streams that are broken, with ends that have not noticed.
    pub fn unnoticed(&self) -> Vec<(LinkId, usize)> {
        let broken = self.wires.iter().filter(|(_, w)| w.broken);
        let ends = broken.flat_map(|(link, w)| [(*link, w.child), (*link, w.parent)]);
        ends.filter(|(link, index)| self.nodes[*index].memory.ends.contains_key(link)).collect()
    }

    /// Forgets streams that have no ends.
    pub fn sweep(&mut self) {
        let nodes = &self.nodes;
        let ended = |link: &LinkId, i: usize| !nodes[i].memory.ends.contains_key(link);
        self.wires.retain(|link, w| !w.broken || !ended(link, w.child) || !ended(link, w.parent));
    }

    /// Acts on timeouts of sessions and comparisons.
    pub fn timeouts(&mut self) {
        self.attend_certificates();
        for end in self.nodes.iter_mut().flat_map(|n| n.memory.ends.values_mut()) {
            let now_ms = end.now_ms(self.now_ms);
            end.dirty |= end.compares_by(now_ms);
            if end.session.next_timeout().is_some_and(|due| due <= now_ms) {
                end.session.handle_timeout(now_ms);
                end.dirty = true;
            }
        }
    }

    /// A random running node for which `fits`.
    pub fn some_node(&mut self, fits: impl Fn(&Node) -> bool) -> Option<usize> {
        let nodes = self.nodes.iter().enumerate();
        nodes.filter(|(_, n)| n.up && fits(n)).map(|(i, _)| i).choose(&mut self.rng)
    }

    /// A random frame that is under way.
    pub fn some_frame(&mut self) -> Option<(LinkId, usize)> {
        let waiting: Vec<(LinkId, usize)> = self
            .wires
            .iter()
            .flat_map(|(link, w)| [(*link, 0, w), (*link, 1, w)])
            .filter(|(_, direction, w)| !w.frames[*direction].is_empty())
            .map(|(link, direction, _)| (link, direction))
            .collect();
        waiting.choose(&mut self.rng).copied()
    }

    /// State and holder of a case, as a node shows them.
    pub fn lifecycle(&self, index: usize, name: &RecordName) -> Option<v1::Lifecycle> {
        let rule = self.schema.kind(name.kind).field_named("lifecycle")?;
        let record = self.nodes[index].disk.record(name)?;
        let shown = view::shown(rule, record.get(rule.number)?, name.home)?;
        v1::Case::decode(shown.value).ok()?.lifecycle
    }

    /// Whether nothing waits, is owed or is under way anywhere, but at the nodes excepted.
    pub fn is_quiet(&self, except: &[usize]) -> bool {
        let linked = |n: &Node| {
            n.parent.is_none_or(|parent| n.line(parent) != Line::Dialled)
                || n.memory.ends.values().any(|e| e.session.side() == Side::Child && e.current)
        };
        let at_work = |e: &End| e.dirty || e.comparing.as_ref().is_some_and(|c| c.is_busy());
        let done = |n: &Node| n.is_quiet() && linked(n) && !n.memory.ends.values().any(|e| at_work(e));
        self.nodes.iter().enumerate().filter(|(i, n)| !n.absent && !except.contains(i)).all(|(_, n)| done(n))
            && self.wires.values().all(|w| w.frames.iter().all(|f| f.is_empty()) && !w.broken)
    }

    /// The links that should be: child, parent.
    pub fn pairs(&self) -> Vec<(usize, usize)> {
        let below = self.nodes.iter().enumerate().filter(|(_, n)| !n.absent && !n.is_copy);
        below.filter_map(|(i, n)| Some((i, self.node_of(n.parent?)?))).collect()
    }

    /// Whether nobody has a child that it would have to wait for.
    pub fn recovering(&self) -> bool {
        let peers = self.nodes.iter().filter(|n| n.up).flat_map(|n| n.disk.peers.values());
        peers.filter(|p| p.role == Role::Child).any(|p| p.recovering_to.is_some())
    }
}
