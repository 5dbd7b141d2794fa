//! A node: the steps of the engine, over a store in memory. What it decides, the real core decides; here are only the
//! order of the steps and what is forgotten in a crash.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use guantong_gateway::division::{Division, Divisions};
use guantong_gateway::ingest::changes::{Changes, LinkChange, PeerState};
use guantong_gateway::ingest::topology::{PeerId, Role};
use guantong_gateway::ingest::writers::Writers;
use guantong_gateway::ingest::{Context, Work};
use guantong_gateway::outgoing::Route;
use guantong_gateway::record::RecordName;
use guantong_gateway::schema::Schema;
use guantong_gateway::session::{Inbound, OutboxRow, Want};
use guantong_proto::rules::Lane;
use guantong_proto::v1;
use rand::Rng;
use rand_chacha::ChaCha8Rng;

use super::bundles::Taking;
use super::disk::Disk;
use super::link::{End, LinkId};
use super::packing::Making;
use super::trouble::Certificate;
use super::workload::Action;

/// How far clocks may be apart.
pub(super) const DRIFT_MS: u64 = 300_000;

/// What waits for the engine.
#[derive(Debug)]
pub enum Command {
    /// A child's greeting.
    Greet(LinkId, v1::Hello),
    /// A parent's greeting.
    Welcomed(LinkId, v1::Welcome),
    /// A child stored its token.
    TokenConfirmed(LinkId),
    /// A batch.
    Ingest(LinkId, Inbound, u64),
    /// Receipts.
    Delivered(LinkId, Vec<i64>, Vec<v1::Refusal>, u64),
    /// A link was verified equal.
    Recovered(LinkId, bool),
    /// Records were found to differ between the ends.
    Owe(LinkId, Vec<RecordName>),
    /// A local write.
    Write(Action),
}

/// How a node and its parent exchange.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Line {
    /// The child dials.
    #[default]
    Dialled,
    /// By files, both ways.
    Bundle,
    /// By files that go up only.
    OneWay,
}

/// A bundle under way at a node; there is one at a time.
pub(super) enum Job {
    /// It is being made.
    Making(Box<Making>),
    /// It is being taken in.
    Taking(Box<Taking>),
}

/// What is lost when the process ends.
#[derive(Default)]
pub struct Memory {
    /// Ends of links. They are large, and taken out whenever they speak.
    pub ends: BTreeMap<LinkId, Box<End>>,
    /// Commands in the order in which they came.
    pub inbox: VecDeque<Command>,
    /// Claims.
    pub(super) desk: super::claims::Desk,
    /// Do not dial before.
    pub dial_ms: u64,
    /// A bundle that is being made or taken in.
    pub(super) job: Option<Job>,
}

/// A node of the tree, or a copy of one.
pub struct Node {
    /// Its division.
    pub division: Division,
    /// The division of the node it dials.
    pub parent: Option<Division>,
    /// The rules of its program.
    pub schema: Arc<Schema>,
    /// How far its clock is ahead.
    pub skew_ms: i64,
    /// Its store.
    pub disk: Disk,
    /// Backups.
    pub backups: Vec<Disk>,
    /// The process runs.
    pub up: bool,
    /// Not installed yet, or taken away.
    pub absent: bool,
    /// How it exchanges with neighbours that it has no line to.
    pub lines: BTreeMap<Division, Line>,
    /// The line to its parent is cut.
    pub line_cut: bool,
    /// What the process knows.
    pub memory: Memory,
    /// What it grants its peers.
    pub window_bytes: u32,
    /// What it fills batches to.
    pub batch_raw_bytes: usize,
    /// No transaction goes in.
    pub disk_full: bool,
    /// `None`: one that never runs out.
    pub certificate: Option<Certificate>,
    /// When the links were last proven equal, by the world's clock.
    pub proven_ms: BTreeMap<PeerId, u64>,
    /// A copy of another node, which others do not dial.
    pub is_copy: bool,
    /// Its store was put back to a backup.
    pub was_put_back: bool,
    pub(super) divisions: Arc<Divisions>,
}

impl Node {
    /// A node that was never started.
    pub fn new(
        division: Division,
        parent: Option<Division>,
        schema: Arc<Schema>,
        divisions: Arc<Divisions>,
    ) -> Node {
        Node {
            division,
            parent,
            schema,
            skew_ms: 0,
            disk: Disk::default(),
            backups: Vec::new(),
            up: false,
            absent: false,
            lines: BTreeMap::new(),
            line_cut: false,
            memory: Memory::default(),
            window_bytes: 1 << 20,
            batch_raw_bytes: 256 * 1024,
            disk_full: false,
            certificate: None,
            proven_ms: BTreeMap::new(),
            is_copy: false,
            was_put_back: false,
            divisions,
        }
    }

    /// Its own clock.
    pub fn now_ms(&self, world_ms: u64) -> u64 {
        world_ms.saturating_add_signed(self.skew_ms)
    }

    /// Decides something and gives what its transaction must write; nothing is written yet.
    pub fn decide<T>(
        &mut self,
        now_ms: u64,
        rng: &mut ChaCha8Rng,
        writers: &mut Writers,
        decide: impl FnOnce(&mut Work<'_>, &mut Disk) -> T,
    ) -> (T, Changes, Vec<LinkChange>) {
        writers.provide_ids(64, || rng.random());
        let topology = self.disk.topology(self.division);
        let ctx = Context {
            schema: &self.schema,
            topology: &topology,
            divisions: &self.divisions,
            now_ms: self.now_ms(now_ms),
            drift_ms: DRIFT_MS,
        };
        let mut work = Work::new(ctx, writers);
        let decided = decide(&mut work, &mut self.disk);
        let changes = work.finish();
        let created = writers.take_created().into_iter().map(LinkChange::NewWriter).collect();
        (decided, changes, created)
    }

    /// Its writers, as stored.
    pub fn writers(&self) -> Writers {
        Writers::new(self.disk.writers.clone()).above(self.floor_ms())
    }

    /// One transaction, and word of it to the links; false: the disk is full, and nothing is in.
    #[must_use]
    pub fn commit(&mut self, changes: &Changes, links: &[LinkChange]) -> bool {
        if self.disk_full {
            return false;
        }
        self.disk.commit(changes, links);
        let all = links.iter().any(|l| {
            matches!(
                l,
                LinkChange::Backfill { .. }
                    | LinkChange::RetryQuarantine { .. }
                    | LinkChange::CompactOutbox(_)
                    | LinkChange::Owe { .. }
            )
        });
        if all || !changes.outbox.is_empty() {
            self.wrote_for_peers();
        }
        let revision = self.disk.revision;
        for end in self.memory.ends.values_mut() {
            end.session.set_revision(revision);
            end.dirty = true;
            let peer = self.disk.peers.values().find(|p| p.division == end.other).map(|p| p.id);
            for group in changes.outbox.iter().filter(|g| Some(g.peer) == peer) {
                end.session.notify(lane_out(group.lane));
            }
            if all {
                [Lane::Urgent, Lane::Normal, Lane::Bulk]
                    .iter()
                    .for_each(|lane| end.session.notify(lane_out(*lane)));
            }
        }
        true
    }

    /// Numbers of the kinds that everyone below gets.
    pub fn subtree_kinds(&self) -> Vec<u32> {
        let subtree =
            |rule: &guantong_proto::rules::Kind| rule.audience == guantong_proto::rules::Audience::Subtree;
        self.schema.kinds().iter().filter(|k| subtree(k.rule)).map(|k| k.rule.number).collect()
    }

    /// The peer at the other end of a link.
    pub fn peer_of(&self, link: LinkId) -> Option<PeerId> {
        let end = self.memory.ends.get(&link)?;
        self.disk.peer(end.other).map(|p| p.id)
    }

    /// How it sends to a peer.
    pub fn route(&self, peer: PeerId) -> Option<Route<'_>> {
        let state = self.disk.peers.get(&peer)?;
        Some(Route { schema: &self.schema, own: self.division, role: state.role, peer: state.division })
    }

    /// What an end of a link wants from the outbox.
    pub fn read_outbox(&self, peer: PeerId, want: Want) -> Vec<OutboxRow> {
        let Some(route) = self.route(peer) else { return Vec::new() };
        let mut rows = Vec::new();
        let mut bytes = 0;
        let after = want.after_seq.unwrap_or(0) + 1;
        for (seq, row) in self.disk.outbox.range(after..) {
            if row.peer != peer || lane_out(row.lane) != want.lane {
                continue;
            }
            let records: Vec<v1::BatchRecord> = row
                .keys
                .iter()
                .filter_map(|key| self.disk.records.get(key))
                .filter_map(|stored| {
                    route.batch_record(&stored.name, &stored.state, None, row.fresh).ok().flatten()
                })
                .collect();
            bytes += records.iter().map(|r| r.state.len()).sum::<usize>();
            rows.push(OutboxRow { seq: *seq, records });
            if bytes >= want.budget_bytes {
                break;
            }
        }
        rows
    }

    /// Nothing waits in it and nothing is owed to anyone that is there.
    pub fn is_quiet(&self) -> bool {
        !self.up || self.memory.inbox.is_empty() && !self.owes_by_line()
    }

    /// Whether every peer that it has a line to has met the store as it is since the process opened it.
    pub fn has_met_all(&self) -> bool {
        let met = |p: &PeerState| p.opened_revision.is_none() || self.line(p.division) != Line::Dialled;
        self.disk.peers.values().all(met)
    }

    /// Whether the node has children.
    pub fn is_parent(&self) -> bool {
        self.disk.peers.values().any(|p| p.role == Role::Child)
    }
}

/// A lane as the wire names it.
pub(super) fn lane_out(lane: Lane) -> v1::Lane {
    match lane {
        Lane::Urgent => v1::Lane::Urgent,
        Lane::Normal => v1::Lane::Normal,
        Lane::Bulk => v1::Lane::Bulk,
    }
}
