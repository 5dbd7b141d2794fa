//! Comparisons of links in the simulator: the state machine that is deployed, over stores in memory. What it reads is read
//! at once; what it owes goes through the engine like everything else.

use std::collections::BTreeMap;

use guantong_gateway::aggregate::{self, Sheet};
use guantong_gateway::comparing::{
    self, Common, Comparing, Found, LinkProof, Noted, PAGE_RECORDS, Pace, Read, Standing, Step, Unknown, View,
};
use guantong_gateway::ingest::changes::{Changes, LinkChange, RecordKey};
use guantong_gateway::ingest::topology::PeerId;
use guantong_gateway::period::Day;
use guantong_gateway::proof;
use guantong_gateway::record::{Record, RecordName, codec};
use guantong_gateway::session::Output;
use guantong_proto::v1;

use super::engine::Step as EngineStep;
use super::link::{End, LinkId};
use super::node::{Command, Line, Node};
use super::world::World;

/// From one comparison of an idle link to the next.
pub(super) const COMPARE_MS: u64 = 300_000;

impl End {
    /// What the other end says in a comparison.
    pub(super) fn hear_comparison(&mut self, now_ms: u64, heard: Output) {
        let Some(comparing) = &mut self.comparing else { return };
        match heard {
            Output::PeerChecksum(checksum) => comparing.handle_checksum(now_ms, checksum),
            Output::PeerProbe(probe) => comparing.handle_probe(probe),
            Output::PeerFinding(finding) => comparing.handle_finding(now_ms, finding),
            _ => {}
        }
    }

    /// Whether its comparisons want to go on by now.
    pub(super) fn compares_by(&self, now_ms: u64) -> bool {
        let due =
            |c: &Comparing| c.next_timeout(now_ms.saturating_sub(1)).is_some_and(|due_ms| due_ms <= now_ms);
        self.comparing.as_ref().is_some_and(due)
    }
}

impl Node {
    /// A link was greeted.
    pub(super) fn begin_comparing(&mut self, link: LinkId, world_ms: u64) {
        let Some(peer) = self.peer_of(link) else { return };
        let Some(pair) = self.route(peer).map(|route| route.pair()) else { return };
        let proof = self.disk.proofs.get(&peer).copied().unwrap_or_default();
        let schema = self.schema.clone();
        if let Some(end) = self.memory.ends.get_mut(&link) {
            let now_ms = end.now_ms(world_ms);
            let rules = end.peer_rules.take().unwrap_or_default();
            let common = Common::of(&schema, &rules);
            let pace = Pace::every(COMPARE_MS);
            end.comparing = Some(Comparing::new(end.session.side(), pair, common, pace, proof, now_ms));
        }
    }

    /// What a process does at its start: counts its own records, and puts right what is kept of them.
    pub(super) fn count_own(&mut self) {
        let read = |s: &super::disk::Stored| Some((s.name.clone(), codec::decode(s.state.clone()).ok()?));
        let records: BTreeMap<RecordName, Record> = self.disk.records.values().filter_map(read).collect();
        let mut wrong = Vec::new();
        super::sums::check(self, &records, &mut wrong);
        if wrong.is_empty() {
            return;
        }
        self.disk.forget_sums(|_| true);
        let mut sheet = Sheet::default();
        for (name, record) in &records {
            sheet.add(
                &aggregate::contribution_of(self.schema.kind(name.kind), name.home, record),
                name.home,
                1,
            );
        }
        self.disk.tallies.clear();
        for change in sheet.into_changes(self.division, Day::FIRST) {
            self.disk.tallies.extend(change.adds.iter().map(|(key, amount)| ((change.cell, *key), *amount)));
        }
    }

    /// Owes records that differ.
    pub(super) fn owe(&mut self, step: &mut EngineStep<'_>, link: LinkId, names: &[RecordName]) -> bool {
        let Some(peer) = self.peer_of(link) else { return true };
        let mut keys: Vec<RecordKey> =
            names.iter().filter_map(|name| self.disk.load(name)).map(|f| f.0).collect();
        keys.sort_unstable();
        step.ledger.trace(|| format!("node {} finds that {names:?} differ", self.division));
        if !self.commit(&Changes::default(), &[LinkChange::Owe { peer, keys }]) {
            self.end_links(step.now_ms, [link]);
            return true;
        }
        if let Some(comparing) = self.memory.ends.get_mut(&link).and_then(|end| end.comparing.as_mut()) {
            comparing.owed();
        }
        true
    }

    fn find(&self, peer: PeerId, read: &Read) -> Found {
        let Some(route) = self.route(peer) else { return Found::Failed };
        let disk = &self.disk;
        match read {
            Read::Standing { named } => Found::Standing(self.standing(peer, named)),
            Read::Homes { kind } => {
                let mut homes: comparing::HomeSums = Vec::new();
                for ((_, home, _, field), sum) in
                    disk.sums.iter().filter(|((p, _, k, _), _)| *p == peer && k == kind)
                {
                    match homes.last_mut().filter(|last| last.0 == *home) {
                        Some(last) => last.1.push((*field, *sum)),
                        None => homes.push((*home, vec![(*field, *sum)])),
                    }
                }
                Found::Homes(homes)
            }
            Read::Page { difference, kind, home, after_id } => {
                let of_home =
                    |name: &&RecordName| name.kind == *kind && name.home == *home && *name.id > **after_id;
                let names: Vec<&RecordName> = disk.names.keys().filter(of_home).take(PAGE_RECORDS).collect();
                let records = names.into_iter().map(|name| (name, disk.record(name).unwrap_or_default()));
                Found::Page(comparing::page(route.schema, difference, records))
            }
        }
    }

    fn standing(&self, peer: PeerId, named: &[RecordName]) -> Result<Standing, Unknown> {
        let disk = &self.disk;
        let route = self.route(peer).ok_or(Unknown::Counting)?;
        if disk.peers.get(&peer).is_none_or(|p| p.summed_through != RecordKey::MAX) {
            return Err(Unknown::Counting);
        }
        let mut standing = Standing::default();
        for ((_, _, kind, field), sum) in disk.sums.iter().filter(|((p, ..), _)| *p == peer) {
            standing.sums.add(*kind, *field, *sum);
        }
        let name = |key: &RecordKey| disk.records.get(key).map(|stored| stored.name.clone());
        let rows = disk.outbox.values().filter(|row| row.peer == peer);
        standing.owed = rows.flat_map(|row| row.keys.iter().filter_map(name)).collect();
        let refused = disk.quarantine.keys().filter(|(p, ..)| *p == peer);
        standing.refused = refused.filter_map(|(_, key, field)| Some((name(key)?, *field))).collect();
        let wanted = named.iter().chain(&standing.owed).chain(standing.refused.iter().map(|r| &r.0));
        for name in wanted {
            let Some((_, stored)) = disk.load(name) else { continue };
            let record: Record = codec::decode(stored.state.clone()).unwrap_or_default();
            standing.shares.insert(name.clone(), proof::shared(route.schema, route.pair(), name, &record));
        }
        Ok(standing)
    }
}

impl World {
    /// The next step of a link's comparisons at one end. False: there is none now.
    pub(super) fn compare(&mut self, index: usize, end: &mut End) -> bool {
        let node = &self.nodes[index];
        let Some(peer) = node.disk.peer(end.other).map(|p| p.id) else { return false };
        let owed = node.disk.outbox.values().any(|row| row.peer == peer);
        let drained = end.session.is_drained() && !owed;
        let now_ms = end.now_ms(self.now_ms);
        let view = View { now_ms, wall_ms: now_ms, position: end.session.position(), drained };
        let Some(comparing) = &mut end.comparing else { return false };
        let Some(step) = comparing.poll(&node.schema, view) else { return false };
        match step {
            Step::Checksum(position, checksum) => drop(end.session.queue_checksum(position, checksum)),
            Step::Probe(probe) => end.session.queue_probe(probe),
            Step::Finding(finding) => end.session.queue_finding(finding),
            Step::Hold(held) => end.session.hold(held),
            Step::Read(read) => {
                let found = node.find(peer, &read);
                comparing.found(&node.schema, view, found);
            }
            Step::Owe(names) => {
                self.nodes[index].memory.inbox.push_back(Command::Owe(end.link, names));
            }
            Step::Proof(proof, noted) => {
                if matches!(noted, Noted::Equal { .. }) && comparing.ends_recovery() {
                    self.nodes[index].memory.inbox.push_back(Command::Recovered(end.link, proof.refused > 0));
                }
                self.proved(index, peer, proof, noted);
            }
        }
        true
    }

    fn proved(&mut self, index: usize, peer: PeerId, proof: LinkProof, noted: Noted) {
        let node = &mut self.nodes[index];
        node.disk.proofs.insert(peer, proof);
        match noted {
            Noted::Equal { .. } => drop(node.proven_ms.insert(peer, self.now_ms)),
            Noted::Repaired(records) => self.ledger.repaired += records,
            Noted::Stays(records) => self.ledger.stays.push(format!(
                "{}: {records} records were sent again and differ still",
                self.nodes[index].division
            )),
            Noted::Nothing => {}
        }
    }

    /// Every link was found equal, at both ends, after everything had come to rest.
    pub(super) fn links_are_proven(&self, wrong: &mut Vec<String>) {
        let since_ms = self.proven_since_ms;
        if since_ms == 0 {
            return;
        }
        let dialled = |(child, parent): &(usize, usize)| {
            self.nodes[*child].line(self.nodes[*parent].division) == Line::Dialled
        };
        for (child, parent) in self.pairs().into_iter().filter(dialled) {
            for (at, other) in [(child, parent), (parent, child)] {
                let node = &self.nodes[at];
                let Some(peer) = node.disk.peer(self.nodes[other].division) else { continue };
                let proof = node.disk.proofs.get(&peer.id).copied().unwrap_or_default();
                let proven_ms = node.proven_ms.get(&peer.id).copied().unwrap_or(0);
                if !proof.is_equal() || proven_ms < since_ms {
                    wrong.push(format!("{} and {}: {proof:?}", node.division, self.nodes[other].division));
                }
            }
        }
    }
}

/// The rules that the other end greeted with.
pub(super) fn rules_of(output: &Output) -> Option<v1::RuleTable> {
    match output {
        Output::Greeted(hello) => hello.rules.clone(),
        Output::Welcomed(welcome) => welcome.rules.clone(),
        _ => None,
    }
}
