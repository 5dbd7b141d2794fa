//! A store in memory that keeps the promises of the real one: a transaction goes in whole or not at all, and what is in
//! survives a crash. A clone is a backup.
//!
//! It must decide nothing: what is in a transaction was decided before.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use guantong_gateway::aggregate::Cell;
use guantong_gateway::claiming::Claims;
use guantong_gateway::comparing::LinkProof;
use guantong_gateway::division::Division;
use guantong_gateway::ingest::changes::{Changes, LinkChange, OutboxGroup, PeerState, RecordKey, Refused};
use guantong_gateway::ingest::topology::{PeerId, Role, Topology};
use guantong_gateway::ingest::writers::WriterState;
use guantong_gateway::record::codec;
use guantong_gateway::record::{FieldNumber, Record, RecordName};
use guantong_gateway::stamp::Clock;
use guantong_proto::rules::Lane;

/// A record on disk.
#[derive(Clone, Debug)]
pub struct Stored {
    /// Its name.
    pub name: RecordName,
    /// Counts its changes.
    pub revision: i64,
    /// `record::codec`.
    pub state: Bytes,
}

/// A row of a peer's outbox.
#[derive(Clone, Debug)]
pub struct Row {
    /// To whom.
    pub peer: PeerId,
    /// How urgently.
    pub lane: Lane,
    /// The peer cannot have these yet.
    pub fresh: bool,
    /// Which records.
    pub keys: Vec<RecordKey>,
}

/// Everything that a node keeps.
#[derive(Clone, Debug, Default)]
pub struct Disk {
    /// Number of the last transaction.
    pub revision: u64,
    /// Drawn anew after a restore.
    pub epoch: u64,
    /// When that was last, Unix milliseconds.
    pub renewed_ms: Option<u64>,
    /// All writers.
    pub writers: Vec<WriterState>,
    /// All records.
    pub records: BTreeMap<RecordKey, Stored>,
    /// Where a record is.
    pub names: BTreeMap<RecordName, RecordKey>,
    /// Divisions beside the home that a record was handed to.
    pub audience: BTreeSet<(RecordKey, Division)>,
    /// What peers are owed.
    pub outbox: BTreeMap<i64, Row>,
    /// What peers refused, each with the last outbox number at that moment.
    pub quarantine: BTreeMap<(PeerId, RecordKey, FieldNumber), (i64, Refused)>,
    /// All peers.
    pub peers: BTreeMap<PeerId, PeerState>,
    /// What the last comparison of each link said.
    pub proofs: BTreeMap<PeerId, LinkProof>,
    /// Records to purge once nothing of them is owed below.
    pub purges: BTreeSet<RecordKey>,
    /// What nodes claim, its own floor among them.
    pub claims: Claims,
    /// All kept counts, by cell and key.
    pub tallies: BTreeMap<(Cell, u64), i64>,
    /// Running checksums of links.
    pub sums: super::sums::Kept,
    /// The rules that it was last opened with.
    pub fingerprint: [u8; 16],
    /// What is remembered of bundles.
    pub bundles: super::parcels::Kept,
    /// An operator put it back, and no process has opened it since.
    pub put_back: bool,
    /// Fields that left the quarantine and were not looked at yet.
    pub let_go: Vec<(RecordKey, FieldNumber)>,
    last_key: RecordKey,
    last_seq: i64,
    /// Rows up to this number have new ones.
    joined: i64,
}

impl Disk {
    /// The next record key; given out ahead of use.
    pub fn allocate(&mut self) -> RecordKey {
        self.last_key += 1;
        self.last_key
    }

    /// A record as it is stored.
    pub fn load(&self, name: &RecordName) -> Option<(RecordKey, &Stored)> {
        let key = *self.names.get(name)?;
        Some((key, self.records.get(&key)?))
    }

    /// A record, read.
    pub fn record(&self, name: &RecordName) -> Option<Record> {
        self.load(name).and_then(|(_, stored)| codec::decode(stored.state.clone()).ok())
    }

    /// Whom the node exchanges with.
    pub fn topology(&self, own: Division) -> Topology {
        let mut topology = Topology::new(own);
        for peer in self.peers.values() {
            match peer.role {
                Role::Parent => topology.set_parent(peer.id, peer.division),
                Role::Child => topology.add_child(peer.id, peer.division),
                Role::Partner => {}
            }
            topology.set_summed(peer.id, peer.summed_through);
        }
        topology
    }

    /// The peer of a division.
    pub fn peer(&self, division: Division) -> Option<&PeerState> {
        self.peers.values().find(|p| p.division == division)
    }

    /// A process opens the store.
    pub fn open(&mut self) {
        for peer in self.peers.values_mut() {
            peer.opened_revision = peer.opened_revision.or(Some(self.revision));
        }
    }

    /// A number for a new peer.
    pub fn next_peer(&self) -> PeerId {
        PeerId(self.peers.keys().last().map_or(1, |id| id.0 + 1))
    }

    /// How many keys a peer's outbox holds, and how many different ones.
    pub fn owed(&self, peer: PeerId) -> (usize, usize) {
        let rows = || self.outbox.values().filter(|row| row.peer == peer);
        let distinct: BTreeSet<RecordKey> = rows().flat_map(|row| row.keys.iter().copied()).collect();
        (rows().map(|row| row.keys.len()).sum(), distinct.len())
    }

    /// The highest number of what a peer is owed; 0: nothing.
    pub fn newest_owed(&self, peer: PeerId) -> i64 {
        self.outbox.iter().rev().find(|(_, row)| row.peer == peer).map_or(0, |(seq, _)| *seq)
    }

    /// Whether a peer is still owed what had a number up to `position`.
    pub fn is_owed_up_to(&self, peer: PeerId, position: i64) -> bool {
        self.outbox.range(..=position.max(self.joined)).any(|(_, row)| row.peer == peer)
    }

    /// The purges for which nothing is owed below any more, nor was refused there.
    pub fn purges_ready(&self) -> Vec<RecordKey> {
        let below = |peer: &PeerId| self.peers.get(peer).is_some_and(|p| p.role == Role::Child);
        let owed =
            |key: &RecordKey| self.outbox.values().any(|row| below(&row.peer) && row.keys.contains(key));
        let refused =
            |key: &RecordKey| self.quarantine.keys().any(|(peer, refused, _)| below(peer) && refused == key);
        self.purges.iter().filter(|key| !owed(key) && !refused(key)).copied().collect()
    }

    /// One transaction.
    pub fn commit(&mut self, changes: &Changes, links: &[LinkChange]) {
        self.revision += 1;
        for link in links {
            self.apply_link(link);
        }
        for change in &changes.records {
            let held = self.records.get(&change.key).map_or(0, |stored| stored.revision);
            assert_eq!(held, change.revision, "a record was changed since it was read");
            self.names.insert(change.name.clone(), change.key);
            let stored =
                Stored { name: change.name.clone(), revision: held + 1, state: change.state.clone() };
            self.records.insert(change.key, stored);
            self.audience.extend(change.audience_added.iter().map(|d| (change.key, *d)));
        }
        for group in &changes.outbox {
            self.owe(group);
        }
        for change in &changes.tallies {
            for (key, amount) in &change.adds {
                let sum = self.tallies.entry((change.cell, *key)).or_default();
                *sum += amount;
                if *sum == 0 {
                    self.tallies.remove(&(change.cell, *key));
                }
            }
        }
        self.add_sums(&changes.sums);
        for (writer, stamp) in &changes.clocks {
            if let Some(state) = self.writers.iter_mut().find(|s| s.writer == *writer) {
                state.clock = Clock::resume(*stamp);
            }
        }
        for key in &changes.purged {
            self.purges.remove(key);
        }
        self.purges.extend(&changes.purges);
    }

    fn owe(&mut self, group: &OutboxGroup) {
        self.put_row(Row {
            peer: group.peer,
            lane: group.lane,
            fresh: group.fresh,
            keys: group.keys.clone(),
        });
    }

    fn put_row(&mut self, row: Row) {
        if !row.keys.is_empty() {
            self.last_seq += 1;
            self.outbox.insert(self.last_seq, row);
        }
    }

    fn apply_link(&mut self, link: &LinkChange) {
        match link {
            LinkChange::NewWriter(new) => self.writers.push(WriterState {
                writer: new.writer,
                purpose: new.purpose.clone(),
                clock: Clock::default(),
                current: true,
                slot: 0,
            }),
            LinkChange::GiveUp(writer) => {
                let given_up = self.writers.iter_mut().filter(|s| s.writer == *writer);
                given_up.for_each(|state| state.current = false);
            }
            LinkChange::ForgetJudgements => {
                self.tallies.clear();
                self.forget_sums(|_| true);
            }
            LinkChange::ForgetSums(peer) => self.forget_sums(|id| id == *peer),
            LinkChange::Learned(fingerprint) => self.fingerprint = *fingerprint,
            LinkChange::NewEpoch { epoch, at_ms } => {
                self.epoch = *epoch;
                self.renewed_ms = Some(*at_ms);
            }
            // No disk of the simulator is a database's, and what is shown of a recovery decides nothing.
            LinkChange::Lineage(_) | LinkChange::Recovery(_) => {}
            LinkChange::Peer(peer) => drop(self.peers.insert(peer.id, peer.clone())),
            LinkChange::Seen { peer, revision } => {
                if let Some(peer) = self.peers.get_mut(peer) {
                    peer.revision = peer.revision.max(*revision);
                }
            }
            LinkChange::TokenConfirmed(peer) => {
                if let Some(peer) = self.peers.get_mut(peer) {
                    peer.issued = peer.issued.confirmed();
                }
            }
            LinkChange::Delivered { peer, seqs, keys: _, refused } => {
                // A row from before the refusal may have carried an older state, read for a slower lane: that it was
                // taken says nothing of what was refused.
                for (seq, row) in seqs.iter().filter_map(|seq| Some((*seq, self.outbox.remove(seq)?))) {
                    let stays = |(p, key, _): &(PeerId, RecordKey, FieldNumber), noted: i64| {
                        p != peer || noted >= seq || !row.keys.contains(key)
                    };
                    let gone = self.quarantine.iter().filter(|(at, (noted, _))| !stays(at, *noted));
                    self.let_go.extend(gone.map(|((_, key, field), _)| (*key, *field)));
                    self.quarantine.retain(|at, (noted, _)| stays(at, *noted));
                }
                for q in refused {
                    self.quarantine
                        .insert((*peer, q.key, q.refused.field), (self.last_seq, q.refused.clone()));
                }
            }
            LinkChange::Backfill { peer, scope, subtree_kinds } => {
                self.backfill(*peer, *scope, subtree_kinds)
            }
            // Nobody subscribes here: what a subscription is owed is decided by the same `Topology::concerned`.
            LinkChange::Subscribe { .. } | LinkChange::Unsubscribe(_) => {}
            LinkChange::RetryQuarantine { peer, due_ms } => self.retry(*peer, *due_ms),
            LinkChange::Owe { peer, keys } => {
                self.put_row(Row { peer: *peer, lane: Lane::Bulk, fresh: false, keys: keys.clone() });
            }
            LinkChange::Proof(peer, proof) => drop(self.proofs.insert(*peer, *proof)),
            LinkChange::Claims(rows) => self.claims.extend(rows.iter().copied()),
            LinkChange::CompactOutbox(peer) => self.compact(*peer),
            LinkChange::Bundle { division, change } => self.bundles.change(*division, change),
            // Partners, reports, invitations and the audit log have no part in what nodes exchange.
            LinkChange::Grant(_)
            | LinkChange::Revoke(_)
            | LinkChange::Report(_)
            | LinkChange::Checkpoint(_)
            | LinkChange::CheckpointInstead(_)
            | LinkChange::Invite(_)
            | LinkChange::Recounted(_)
            | LinkChange::Invited { .. } => {}
        }
    }

    fn backfill(&mut self, peer: PeerId, scope: Option<Division>, subtree_kinds: &[u32]) {
        let concerned = |key: &RecordKey, stored: &Stored| {
            let Some(scope) = scope else { return true };
            scope.contains(stored.name.home)
                || self.audience.iter().any(|(k, division)| k == key && scope.contains(*division))
                || subtree_kinds.contains(&stored.name.kind.0) && stored.name.home.contains(scope)
        };
        let keys: Vec<RecordKey> =
            self.records.iter().filter(|(key, stored)| concerned(key, stored)).map(|(key, _)| *key).collect();
        for keys in keys.chunks(20) {
            self.put_row(Row { peer, lane: Lane::Bulk, fresh: false, keys: keys.to_vec() });
        }
    }

    fn retry(&mut self, peer: PeerId, due_ms: Option<u64>) {
        let due =
            |refused: &Refused| due_ms.is_none_or(|now| refused.retry_at_ms.is_some_and(|at| at <= now));
        let mut keys: Vec<RecordKey> = Vec::new();
        for ((_, key, _), (_, refused)) in self.quarantine.iter_mut().filter(|((p, ..), _)| *p == peer) {
            if due(refused) {
                keys.push(*key);
                // Once is enough: whatever is refused again comes with its next time.
                refused.retry_at_ms = None;
            }
        }
        keys.dedup();
        keys.retain(|key| !self.outbox.values().any(|row| row.peer == peer && row.keys.contains(key)));
        self.put_row(Row { peer, lane: Lane::Bulk, fresh: false, keys });
    }

    fn compact(&mut self, peer: PeerId) {
        let mut seen: BTreeSet<(Lane, RecordKey)> = BTreeSet::new();
        let (mut keep, mut moved): (BTreeMap<i64, Row>, Vec<Row>) = (BTreeMap::new(), Vec::new());
        for (seq, mut row) in std::mem::take(&mut self.outbox).into_iter().rev() {
            if row.peer != peer {
                keep.insert(seq, row);
                continue;
            }
            let before = row.keys.len();
            row.keys.retain(|key| seen.insert((row.lane, *key)));
            if row.keys.len() == before {
                keep.insert(seq, row);
            } else {
                moved.push(row);
            }
        }
        if !moved.is_empty() {
            self.joined = self.last_seq + moved.len() as i64;
        }
        self.outbox = keep;
        moved.into_iter().for_each(|row| self.put_row(row));
    }
}
