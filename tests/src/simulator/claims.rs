//! Claims in the simulated tree: the engine's steps around `claiming`, and the promise that they make, checked whenever
//! one arrives: all that was written where it was made, up to its moment, is here, as far as it may be.

use std::collections::BTreeSet;

use guantong_gateway::claiming::{self, Claimed, Claiming, Claims, Pace};
use guantong_gateway::division::Division;
use guantong_gateway::ingest::changes::{Changes, LinkChange};
use guantong_gateway::ingest::topology::{PeerId, Role};
use guantong_gateway::record::{FieldNumber, RecordName};
use guantong_gateway::release;
use guantong_gateway::session::Side;
use guantong_gateway::stamp::Stamp;
use guantong_proto::rules::fields;
use guantong_proto::v1;

use super::checker::present;
use super::engine::Step;
use super::ledger::{Change, Written};
use super::link::End;
use super::node::{DRIFT_MS, Line, Node};
use super::world::World;

/// Fast, so that a storm sees many rounds; an idle tree must still come to rest.
const PACE: Pace = Pace { busy_ms: 20, passing_ms: 40, idle_ms: 10_000 };
/// Rounds of a healed tree in which everything must have been claimed at the top.
const CLAIM_ROUNDS: usize = 4_000;

/// What a process knows of claims.
#[derive(Default)]
pub(super) struct Desk {
    claiming: Option<Claiming>,
    /// Came and is not on disk.
    arrived: Claims,
    known: Claims,
}

impl Node {
    fn own_claim(&self) -> Option<Claimed> {
        self.disk.claims.get(&self.division).copied()
    }

    /// No stamp may be one that was claimed.
    pub(super) fn floor_ms(&self) -> u64 {
        self.own_claim().map_or(0, |own| own.through_ms)
    }

    fn claiming(&mut self) -> &mut Claiming {
        let own = self.division;
        self.memory.desk.claiming.get_or_insert_with(|| Claiming::new(own, PACE))
    }

    /// What was claimed before this process began, and children that claimed nothing.
    pub(super) fn know_claims(&mut self) {
        let mut known = self.disk.claims.clone();
        known.remove(&self.division);
        for peer in self.disk.peers.values().filter(|p| p.role == Role::Child) {
            known.entry(peer.division).or_default();
        }
        known.iter().for_each(|(division, claimed)| self.claiming().arrived(*division, *claimed));
        self.memory.desk.known = known;
    }

    /// A child was welcomed for the first time.
    pub(super) fn know_child(&mut self, child: Division) -> LinkChange {
        let claimed = *self.memory.desk.known.entry(child).or_default();
        self.claiming().arrived(child, claimed);
        LinkChange::Claims(vec![(child, claimed)])
    }

    /// The parent is owed everything anew, or this store was put back.
    pub(super) fn forget_claims(&mut self) {
        self.claiming().forget();
        self.wake_upward();
    }

    /// Something was committed that peers are owed.
    pub(super) fn wrote_for_peers(&mut self) {
        self.claiming().written();
    }

    fn wake_upward(&mut self) {
        let upward = self.memory.ends.values_mut().filter(|e| e.session.side() == Side::Child);
        upward.for_each(|end| end.dirty = true);
    }

    fn parent_peer(&self) -> Option<PeerId> {
        self.disk.peers.values().find(|p| p.role == Role::Parent).map(|p| p.id)
    }

    /// What may be said since a serial, and the serial by now.
    pub(super) fn spoken_since(&mut self, serial: u64) -> (Vec<v1::Claim>, u64) {
        let own = self.division;
        let (new, serial) = self.claiming().spoken().since(serial, own);
        let claim = |(division, claimed): (Division, Claimed)| v1::Claim {
            division: division.to_string(),
            through_ms: claimed.through_ms as i64,
            quarantined_count: claimed.quarantined_count,
        };
        (new.into_iter().map(claim).collect(), serial)
    }

    /// Ends a round that nothing is owed for any more, and begins the next.
    pub(super) fn attend_claims(&mut self, step: &mut Step<'_>) {
        let now_ms = self.now_ms(step.now_ms);
        for (division, claimed) in std::mem::take(&mut self.memory.desk.arrived) {
            self.claiming().arrived(division, claimed);
            self.memory.desk.known.insert(division, claimed);
        }
        let Some(parent) = self.parent_peer() else {
            let known: Vec<(Division, Claimed)> =
                self.memory.desk.known.iter().map(|(d, c)| (*d, *c)).collect();
            let new = known.iter().any(|(d, c)| self.disk.claims.get(d) != Some(c));
            if new {
                let _ = self.commit(&Changes::default(), &[LinkChange::Claims(known)]);
            }
            return;
        };
        if let Some(position) = self.claiming().waits_for()
            && !self.disk.is_owed_up_to(parent, position)
        {
            let refused = self.disk.quarantine.keys().filter(|(peer, ..)| *peer == parent).count() as u64;
            self.claiming().over(refused);
        }
        let recovering = self.disk.peers.values().any(|p| p.role == Role::Child && p.recovering_to.is_some());
        if let Some(own) = self.claiming().due(now_ms, !recovering) {
            let through_ms = own.then(|| self.floor_ms().max(now_ms));
            let known = self.memory.desk.known.clone();
            let mut rows: Vec<(Division, Claimed)> = known.iter().map(|(d, c)| (*d, *c)).collect();
            rows.extend(through_ms.map(|through_ms| {
                (self.division, Claimed { through_ms, arrived_ms: now_ms, quarantined_count: 0 })
            }));
            if !self.commit(&Changes::default(), &[LinkChange::Claims(rows)]) {
                return self.claiming().postpone(now_ms);
            }
            let position = self.disk.newest_owed(parent);
            self.claiming().begin(now_ms, through_ms, &known, position);
        }
        self.wake_upward();
    }

    /// The clock was ahead, and so is what was claimed by it.
    pub(super) fn mend_claim(&mut self, now_ms: u64) {
        if Stamp::from_ms(self.floor_ms()).beyond(now_ms, DRIFT_MS) {
            self.claiming().turned_back(now_ms);
            let own = Claimed { through_ms: now_ms, arrived_ms: now_ms, quarantined_count: 0 };
            let _ = self.commit(&Changes::default(), &[LinkChange::Claims(vec![(self.division, own)])]);
            self.wake_upward();
        }
    }
}

impl World {
    /// An end of a link to a parent says what may be said.
    pub(super) fn say_claims(&mut self, index: usize, end: &mut End) {
        let node = &mut self.nodes[index];
        if end.session.side() != Side::Child {
            return;
        }
        let (new, serial) = node.spoken_since(end.told);
        for claim in new {
            if !end.session.queue_claim(claim.clone()) {
                return;
            }
            self.ledger.said(index, node.division, &claim);
        }
        end.told = serial;
    }

    /// A claim arrived: from now on it must hold.
    pub(super) fn hear_claim(&mut self, index: usize, child: Division, claim: &v1::Claim) {
        assert!(self.nodes[index].division.contains(child), "claims go upward only");
        let Ok(division) = Division::parse(&claim.division) else { panic!("a claim of no division") };
        let node = &mut self.nodes[index];
        let known = node.memory.desk.arrived.get(&division).or_else(|| node.memory.desk.known.get(&division));
        let known = known.copied();
        let said = (division, claim.through_ms as u64, claim.quarantined_count);
        let Ok(taken) = claiming::take(child, said, known, node.now_ms(self.now_ms), DRIFT_MS) else {
            self.ledger.trace(|| format!("node {index} does not take the claim {claim:?}"));
            return;
        };
        node.memory.desk.arrived.insert(division, taken);
        self.ledger.trace(|| {
            let Claimed { through_ms, quarantined_count, .. } = taken;
            format!("node {index} holds the claim of {division} to {through_ms}, {quarantined_count} refused")
        });
        self.ledger.claims_heard += 1;
        let before_ms = known.map_or(0, |known| known.through_ms);
        if let Some(missing) = self.unkept(index, division, before_ms, taken) {
            panic!("{missing}");
        }
    }

    /// The claims that a node has on disk still hold.
    pub(super) fn claims_hold(&self, index: usize) -> Vec<String> {
        let node = &self.nodes[index];
        let held = node.disk.claims.iter().filter(|(division, _)| **division != node.division);
        held.filter_map(|(division, claimed)| self.unkept(index, *division, 0, *claimed)).collect()
    }

    /// Something that the node of `division` wrote up to the moment that it claims, and after `before_ms`, that is not at
    /// the node `holder`, in words.
    fn unkept(&self, holder: usize, division: Division, before_ms: u64, claim: Claimed) -> Option<String> {
        let through_ms = claim.through_ms;
        let (author, node) = (self.node_of(division)?, &self.nodes[holder]);
        // Of a store that runs twice only one is linked, and only that one claims.
        if !self.is_healed && self.ledger.copied.contains(&author) {
            return None;
        }
        let claimed = |w: &&Written| {
            let ms = w.change.stamp.ms();
            w.node == author && before_ms < ms && ms <= through_ms
        };
        let excused = |w: &Written| !self.is_healed && (w.late || w.forgotten);
        // What its author has forgotten may be known beyond a line that leads up only, and never comes back.
        let has = |deaf: usize, w: &Written| {
            let mut below =
                (0..self.nodes.len()).filter(|i| !self.nodes[*i].absent && self.is_below(*i, deaf));
            below.any(|i| self.is_there(i, &w.change))
        };
        let lost = |w: &Written| w.forgotten && self.deaf_over(author).into_iter().any(|deaf| !has(deaf, w));
        let promised = self.ledger.written.iter().filter(claimed);
        let promised = promised.filter(|w| !w.gone && !excused(w) && !lost(w));
        let counted = claim.quarantined_count > 0;
        let refused = |c: &Change| {
            // What was erased is nowhere, and the mark that says so may be what is refused.
            let erased = || self.is_erased_at(author, c).then_some(fields::ERASED);
            std::iter::once(c.field).chain(erased()).any(|field| {
                let refused = self.is_refused(author, holder, &c.name, field);
                let one_way = || self.refused_one_way().contains(&(c.name.clone(), field));
                refused
                    || one_way()
                    || self.was_refused((author, holder), (through_ms, counted), &c.name, field)
            })
        };
        let missing = |c: &&Change| self.is_released(holder, c) && !self.is_there(holder, c) && !refused(c);
        let change = promised.map(|w| &w.change).find(missing)?;
        Some(format!(
            "{} was told that it has all of {division} up to {through_ms}, and has not {change:?}; it has {:?}",
            node.division,
            node.disk.record(&change.name).and_then(|r| r.get(change.field).cloned())
        ))
    }

    /// What every node lets through, wherever the case went.
    fn is_released(&self, holder: usize, change: &Change) -> bool {
        let kind = self.schema.kind(change.name.kind);
        let Some(field) = kind.field(change.field) else { return false };
        let known = self.is_healed || !self.ledger.unsure.contains(&(change.name.kind.0, change.field));
        known && release::within_limit(field, change.name.home, self.nodes[holder].division.tier())
    }

    fn is_there(&self, holder: usize, change: &Change) -> bool {
        let Some(record) = self.nodes[holder].disk.record(&change.name) else { return false };
        record.had(change.field, change.writer) >= Some(change.stamp)
            || present(&self.ledger, &record, change)
    }

    fn is_erased_at(&self, node: usize, change: &Change) -> bool {
        let record = self.nodes[node].disk.record(&change.name);
        record.is_some_and(|record| self.ledger.is_erased(&record, change))
    }

    /// Whether a node on the way has a field in quarantine, or its record.
    fn is_refused(&self, author: usize, holder: usize, name: &RecordName, field: FieldNumber) -> bool {
        self.way(author, holder).into_iter().any(|at| {
            let node = &self.nodes[at];
            let (Some(parent), Some((key, _))) = (node.parent_peer(), node.disk.load(name)) else {
                return false;
            };
            let of = |field| node.disk.quarantine.contains_key(&(parent, key, field));
            of(0) || of(field)
        })
    }

    /// Whether it was in a quarantine when the claim was made: it counts then, in the claim of the node that had it there,
    /// and nobody waits for it to arrive later. `counted`: the author's claim counts some.
    fn was_refused(
        &self,
        (author, holder): (usize, usize),
        (through_ms, counted): (u64, bool),
        name: &RecordName,
        field: FieldNumber,
    ) -> bool {
        // Whoever takes a claim cuts it to its own clock.
        let said =
            self.ledger.said.range((author, through_ms)..=(author, u64::MAX)).next().map(|said| said.1);
        let let_go = |at, field| self.ledger.let_go.get(&(at, name.clone(), field));
        let was = |at| let_go(at, 0).max(let_go(at, field)) >= said;
        said.is_some() && self.way(author, holder).into_iter().any(|at| (counted || at != author) && was(at))
    }

    /// The nodes from one up to another, without that.
    fn way(&self, author: usize, holder: usize) -> Vec<usize> {
        let above = |at: &usize| self.nodes[*at].parent.and_then(|parent| self.node_of(parent));
        std::iter::successors(Some(author), above).take_while(|at| *at != holder).collect()
    }

    /// Notes which fields some node does not know: they go no further there.
    pub(super) fn note_unsure(&mut self) {
        let mut unsure = BTreeSet::new();
        for kind in self.schema.kinds() {
            for field in kind.rule.fields {
                let unknown = |n: &Node| n.schema.kind(kind.id).field(field.number).is_none();
                if self.nodes.iter().any(unknown) {
                    unsure.insert((kind.id.0, field.number));
                }
            }
        }
        self.ledger.unsure = unsure;
    }

    /// A healed tree goes on until every node above knows that everything is in.
    ///
    /// # Errors
    /// Some claim never comes.
    pub fn settle_claims(&mut self) -> Result<(), String> {
        self.is_healed = true;
        let from_ms = self.now_ms;
        for rounds in 0..CLAIM_ROUNDS {
            self.round();
            // Claims take their time, over lines too: who goes there oftener carries the same again.
            if rounds % 64 == 63 {
                self.expect_visits();
                self.carry_all(&[]);
            }
            if self.unclaimed(from_ms).is_none() {
                return Ok(());
            }
        }
        Err(self.unclaimed(from_ms).unwrap_or_default())
    }

    /// A node above that does not know that everything of one below is in, in words.
    fn unclaimed(&self, from_ms: u64) -> Option<String> {
        let below = |n: &&Node| !n.absent && !n.is_copy && n.parent.is_some();
        for node in self.nodes.iter().filter(below) {
            let (mut above, mut from) = (node.parent, node);
            while let Some(found) = above.and_then(|division| self.node_of(division)) {
                let holder = &self.nodes[found];
                // What goes up only is never confirmed, and so never claimed.
                if from.line(holder.division) == Line::OneWay {
                    break;
                }
                // Whose own round never ends stores nothing with it, and knows all the same.
                let deaf = holder.parent.is_some_and(|parent| holder.line(parent) == Line::OneWay);
                let known = if deaf { &holder.memory.desk.known } else { &holder.disk.claims };
                let through_ms = known.get(&node.division).map_or(0, |c| c.through_ms);
                if through_ms < from_ms {
                    let (who, whom) = (holder.division, node.division);
                    return Some(format!("{who} is told nothing of {whom} after {through_ms}, at {from_ms}"));
                }
                (above, from) = (holder.parent, holder);
            }
        }
        None
    }

    /// What a node that was put back has forgotten of its own writes.
    pub(super) fn note_forgotten(&mut self, index: usize, backup: Option<&super::disk::Disk>) {
        // What comes after a restore has another moment.
        self.now_ms += 1;
        let had = |disk: &super::disk::Disk, change: &Change, ledger: &super::ledger::Ledger| {
            disk.record(&change.name).is_some_and(|r| ledger.has(&r, change))
        };
        let forgotten: Vec<usize> = (self.ledger.written.iter().enumerate())
            .filter(|(_, w)| w.node == index && !w.forgotten)
            .filter(|(_, w)| had(&self.nodes[index].disk, &w.change, &self.ledger))
            .filter(|(_, w)| !backup.is_some_and(|disk| had(disk, &w.change, &self.ledger)))
            .map(|(i, _)| i)
            .collect();
        forgotten.into_iter().for_each(|i| self.ledger.written[i].forgotten = true);
    }
}
