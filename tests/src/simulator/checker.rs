//! What must hold once everything is made good.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use guantong_gateway::aggregate::{self, Cell, Sheet};
use guantong_gateway::erasure::Erasures;
use guantong_gateway::ingest::changes::RecordKey;
use guantong_gateway::ingest::renewal;
use guantong_gateway::ingest::topology::Role;
use guantong_gateway::period::Day;
use guantong_gateway::record::audience::Audience;
use guantong_gateway::record::{Entry, Record, RecordName, codec, view};
use guantong_gateway::release::{self, Concern};
use guantong_proto::rules::Policy;
use guantong_proto::v1::RefusalReason;

use super::disk::Row;
use super::ledger::{Change, Ledger, Written, contents};
use super::node::{Line, Node};
use super::world::World;

/// Everything that does not hold, in words.
pub fn check(world: &World) -> Vec<String> {
    let mut wrong = Vec::new();
    let records: Vec<BTreeMap<RecordName, Record>> = world.nodes.iter().map(read_all).collect();
    let (held_back, orphans) = (held_back(world), orphans(world, &records));
    for (child, parent) in world.pairs() {
        link(world, child, parent, &records, (&held_back, &orphans), &mut wrong);
    }
    let here = world.nodes.iter().zip(&records).filter(|(n, _)| !n.absent);
    for (node, records) in here {
        may_hold(node, records, &held_back, &mut wrong);
        sums(node, records, &mut wrong);
        super::sums::check(node, records, &mut wrong);
        at_rest(node, &orphans, &mut wrong);
    }
    world.links_are_proven(&mut wrong);
    writes(world, &records, &held_back, &mut wrong);
    erased(world, &records, &mut wrong);
    ended(world, &records, &mut wrong);
    wrong.extend(
        (0..world.nodes.len()).filter(|i| !world.nodes[*i].absent).flat_map(|i| world.claims_hold(i)),
    );
    wrong
}

fn read_all(node: &Node) -> BTreeMap<RecordName, Record> {
    let stored = node.disk.records.values();
    stored.filter_map(|s| Some((s.name.clone(), codec::decode(s.state.clone()).ok()?))).collect()
}

/// Everything of each record that comes to those below a node which sends up only, or that anybody has.
fn wholes(
    world: &World,
    records: &[BTreeMap<RecordName, Record>],
    deaf: Option<usize>,
) -> BTreeMap<RecordName, Record> {
    let mut wholes: BTreeMap<RecordName, Record> = BTreeMap::new();
    let heard = (0..records.len()).filter(|i| deaf.is_none_or(|deaf| world.is_below(*i, deaf)));
    for (name, record) in heard.flat_map(|i| &records[i]) {
        match wholes.get_mut(name) {
            Some(whole) => drop(guantong_gateway::merge::merge_record(whole, record)),
            None => drop(wholes.insert(name.clone(), record.clone())),
        }
    }
    wholes
}

/// Both ends of a link hold the same of what crosses it.
fn link(
    world: &World,
    child: usize,
    parent: usize,
    records: &[BTreeMap<RecordName, Record>],
    (held_back, orphans): (&HeldBack, &Orphans),
    wrong: &mut Vec<String>,
) {
    let (below, above) = (&world.nodes[child], &world.nodes[parent]);
    let one_way = below.line(above.division) == Line::OneWay;
    let names: BTreeSet<&RecordName> = records[child].keys().chain(records[parent].keys()).collect();
    let empty = Record::default();
    for name in names.into_iter().filter(|name| !is_orphan_of(below, name, orphans)) {
        let kind = world.schema.kind(name.kind);
        let (low, high) = (records[child].get(name), records[parent].get(name));
        let mut union = low.unwrap_or(&empty).clone();
        guantong_gateway::merge::merge_record(&mut union, high.unwrap_or(&empty));
        if one_way {
            // A mark does not come down.
            Erasures::of(kind, &union).apply(&mut union);
        }
        let audience = Audience::of(kind, name.home, &union);
        if !audience.concerns(below.division) {
            continue;
        }
        let (low, high) = (low.unwrap_or(&empty), high.unwrap_or(&empty));
        // Whom nothing comes down to sends what it knows to be released itself.
        let audience = if one_way { Audience::of(kind, name.home, low) } else { audience };
        let sealed = release::is_sealed(kind, name.home, if one_way { low } else { &union });
        let concern = Concern { home: name.home, audience: &audience, sealed };
        let numbers: BTreeSet<u32> = low.fields().iter().chain(high.fields()).map(|f| f.0).collect();
        for number in numbers {
            let Some(field) = kind.field(number) else { continue };
            let crosses = release::crosses_up(field, concern, below.division, above.division);
            // Down goes all that the other end may hold.
            let heir = below.disk.topology(below.division).child_over(name.home).map(|c| c.1);
            // What waits above to be purged is brought up to date by nobody.
            let waits = || above.disk.load(name).is_some_and(|(key, _)| above.disk.purges.contains(&key));
            let held = high.get(number).is_some()
                && release::may_hold(field, concern, below.division, heir)
                && (crosses || !waits());
            // What goes up only is all there, and not the other way round.
            let differ = match one_way {
                true => crosses && union.get(number) != high.get(number),
                false => (crosses || held) && low.get(number) != high.get(number),
            };
            if differ && !held_back.contains(&(name.clone(), number)) {
                wrong.push(format!(
                    "{} and {} differ in {name:?} {}: {:?} and {:?}",
                    below.division,
                    above.division,
                    field.name,
                    low.get(number),
                    high.get(number)
                ));
            }
        }
    }
}

/// Nobody holds what it may not.
fn may_hold(
    node: &Node,
    records: &BTreeMap<RecordName, Record>,
    held_back: &HeldBack,
    wrong: &mut Vec<String>,
) {
    let topology = node.disk.topology(node.division);
    let stuck = stuck(node);
    // A purge waits for what is held back below.
    let waits = |name: &RecordName| {
        held_back.iter().any(|(held, _)| held == name)
            || node.disk.names.get(name).is_some_and(|key| stuck.contains(key))
    };
    for (name, record) in records.iter().filter(|(name, _)| !waits(name)) {
        let excess = renewal::excess(&topology, node.schema.kind(name.kind), name.home, record);
        if !excess.is_empty() {
            wrong.push(format!("{} holds {excess:?} of {name:?}", node.division));
        }
    }
}

/// The sums that were kept are those of a recount.
fn sums(node: &Node, records: &BTreeMap<RecordName, Record>, wrong: &mut Vec<String>) {
    let mut sheet = Sheet::default();
    for (name, record) in records {
        let contribution = aggregate::contribution_of(node.schema.kind(name.kind), name.home, record);
        sheet.add(&contribution, name.home, 1);
    }
    let mut recount: BTreeMap<(Cell, u64), i64> = BTreeMap::new();
    for change in sheet.into_changes(node.division, Day::FIRST) {
        recount.extend(change.adds.iter().map(|(key, amount)| ((change.cell, *key), *amount)));
    }
    if recount != node.disk.tallies {
        wrong
            .push(format!("{}: sums {:?} are not the recount {recount:?}", node.division, node.disk.tallies));
    }
}

/// Nothing waits any more.
fn at_rest(node: &Node, orphans: &Orphans, wrong: &mut Vec<String>) {
    for ((peer, key, field), (_, refused)) in &node.disk.quarantine {
        if refused.reason == RefusalReason::FutureObservation {
            continue;
        }
        let name = node.disk.records.get(key).map(|s| &s.name);
        if name.is_some_and(|name| is_orphan_of(node, name, orphans)) {
            continue;
        }
        let peer = node.disk.peers.get(peer).map(|p| p.division);
        wrong.push(format!("{}: {peer:?} refuses {name:?} field {field}: {refused:?}", node.division));
    }
    let refused = |key| node.disk.quarantine.keys().any(|(_, held, _)| held == key);
    let stuck = stuck(node);
    if !node.disk.purges.iter().all(|key| refused(key) || stuck.contains(key)) {
        wrong.push(format!("{}: {} purges wait for ever", node.division, node.disk.purges.len()));
    }
    let recovering = node.disk.peers.values().filter(|p| p.recovering_to.is_some());
    let from: Vec<_> = recovering.map(|p| p.division).collect();
    if !from.is_empty() {
        wrong.push(format!("{} recovers for ever from {from:?}", node.division));
    }
}

/// What is to be purged once a child has it that never takes anything in: it stays.
fn stuck(node: &Node) -> BTreeSet<RecordKey> {
    let deaf = |row: &&Row| {
        let peer = node.disk.peers.get(&row.peer);
        peer.is_some_and(|p| p.role == Role::Child && node.line(p.division) == Line::OneWay)
    };
    let owed: BTreeSet<RecordKey> =
        node.disk.outbox.values().filter(deaf).flat_map(|row| row.keys.iter().copied()).collect();
    node.disk.purges.intersection(&owed).copied().collect()
}

/// What may wait for ever: an observation by a wrong clock, which nobody takes until there is another one.
type HeldBack = BTreeSet<(RecordName, u32)>;

fn held_back(world: &World) -> HeldBack {
    let refused = world.nodes.iter().filter(|n| !n.absent).flat_map(|node| {
        let observed =
            node.disk.quarantine.iter().filter(|(_, (_, r))| r.reason == RefusalReason::FutureObservation);
        observed.filter_map(|((_, key, field), _)| Some((node.disk.records.get(key)?.name.clone(), *field)))
    });
    refused.chain(world.refused_one_way()).collect()
}

/// Every write is where it may be, or was replaced by one that had seen it.
fn writes(
    world: &World,
    records: &[BTreeMap<RecordName, Record>],
    held_back: &HeldBack,
    wrong: &mut Vec<String>,
) {
    let empty = Record::default();
    let deaf: Vec<Option<usize>> =
        (0..world.nodes.len()).map(|index| world.deaf_over(index).first().copied()).collect();
    let cut_off: BTreeSet<Option<usize>> = deaf.iter().copied().collect();
    let wholes: BTreeMap<_, _> = cut_off.into_iter().map(|d| (d, wholes(world, records, d))).collect();
    for written in world.ledger.written.iter().filter(|w| !w.gone) {
        let change = &written.change;
        if held_back.contains(&(change.name.clone(), change.field)) {
            continue;
        }
        let kind = world.schema.kind(change.name.kind);
        for (index, node) in world.nodes.iter().enumerate().filter(|(_, n)| !n.absent) {
            // Whom it concerns is said by everybody who can be heard there.
            let whole = wholes[&deaf[index]].get(&change.name).unwrap_or(&empty);
            let audience = Audience::of(kind, change.name.home, whole);
            let sealed = release::is_sealed(kind, change.name.home, whole);
            let concern = Concern { home: change.name.home, audience: &audience, sealed };
            if !belongs(world, node, change, concern) || is_out_of_hearing(world, records, index, written) {
                continue;
            }
            let record = records[index].get(&change.name);
            if !record.is_some_and(|r| present(&world.ledger, r, change)) {
                wrong.push(format!(
                    "{} has lost the write of node {} in step {}: {change:?}; it has {:?}",
                    node.division,
                    written.node,
                    written.step,
                    record.and_then(|r| r.get(change.field))
                ));
            }
        }
    }
}

/// Whether a line that leads up only stands between a write and a node, or between a store that was put back and those
/// who still have what it wrote.
fn is_out_of_hearing(
    world: &World,
    records: &[BTreeMap<RecordName, Record>],
    index: usize,
    written: &Written,
) -> bool {
    let lost_below = |deaf| is_lost_below(world, records, deaf, written);
    !world.can_hear(index, written.node)
        || world.deaf_over(index).into_iter().any(lost_below)
        || is_released_unheard(world, records, index, &written.change)
}

/// Whether its author has forgotten a write, and nobody below a node that sends up only may bring it back.
fn is_lost_below(
    world: &World,
    records: &[BTreeMap<RecordName, Record>],
    deaf: usize,
    written: &Written,
) -> bool {
    let mut holders = holders(world, records, deaf, &written.change);
    written.forgotten && !holders.any(|holder| may_bring_back(world, holder, &written.change))
}

/// Who has a write, of those below a node that sends up only.
fn holders<'w>(
    world: &'w World,
    records: &'w [BTreeMap<RecordName, Record>],
    deaf: usize,
    change: &'w Change,
) -> impl Iterator<Item = usize> + 'w {
    let has = |i: &usize| records[*i].get(&change.name).is_some_and(|r| present(&world.ledger, r, change));
    let below = move |i: &usize| !world.nodes[*i].absent && world.is_below(*i, deaf);
    (0..world.nodes.len()).filter(below).filter(has)
}

/// Whether those above a node that were put back take a write from it: of a record of another branch only what they may have
/// written themselves.
fn may_bring_back(world: &World, holder: usize, change: &Change) -> bool {
    let (mut branch, home) = (&world.nodes[holder], change.name.home);
    while !branch.division.contains(home) {
        let Some(above) = branch.parent.and_then(|parent| world.node_of(parent)) else { return false };
        let above = &world.nodes[above];
        if above.division.contains(home) {
            let own = || above.disk.topology(above.division).acts_for(change.writer.division);
            return branch.division.contains(change.writer.division) || own();
        }
        branch = above;
    }
    true
}

/// Records that were lost with stores that were put back, below a line that leads up only, and that only neighbours still
/// have, who may not bring them back: they are refused, and both ends differ.
type Orphans = BTreeSet<RecordName>;

fn orphans(world: &World, records: &[BTreeMap<RecordName, Record>]) -> Orphans {
    let is_orphan = |written: &&Written| {
        world.deaf_over(written.node).into_iter().any(|deaf| {
            is_lost_below(world, records, deaf, written)
                && holders(world, records, deaf, &written.change).next().is_some()
        })
    };
    let there = world.ledger.written.iter().filter(|w| !w.gone);
    there.filter(is_orphan).map(|written| written.change.name.clone()).collect()
}

/// Whether a node is a neighbour that has one of them.
fn is_orphan_of(node: &Node, name: &RecordName, orphans: &Orphans) -> bool {
    !node.division.contains(name.home) && orphans.contains(name)
}

/// Whether what released a field never came down to a node below which it was written, and which sends up only.
fn is_released_unheard(
    world: &World,
    records: &[BTreeMap<RecordName, Record>],
    index: usize,
    change: &Change,
) -> bool {
    let kind = world.schema.kind(change.name.kind);
    let Some(field) = kind.field(change.field) else { return false };
    let home = change.name.home;
    let holds_back = |deaf: usize| {
        let (node, empty) = (&world.nodes[deaf], Record::default());
        let (Some(above), record) = (node.parent, records[deaf].get(&change.name).unwrap_or(&empty)) else {
            return false;
        };
        let audience = Audience::of(kind, home, record);
        let concern = Concern { home, audience: &audience, sealed: release::is_sealed(kind, home, record) };
        !release::crosses_up(field, concern, node.division, above)
    };
    let over = world.nodes.iter().enumerate().filter(|(_, n)| !n.absent && n.division.contains(home));
    let Some((lowest, _)) = over.min_by_key(|(_, n)| n.division.tier()) else { return false };
    world.deaf_over(lowest).into_iter().any(|deaf| !world.is_below(index, deaf) && holds_back(deaf))
}

/// Whether the node is to hold the field.
fn belongs(world: &World, node: &Node, change: &Change, concern: Concern<'_>) -> bool {
    let kind = world.schema.kind(change.name.kind);
    let Some(field) = kind.field(change.field) else { return false };
    // What the home's own tier may not hold stays where it was written, and with whoever was there then.
    if !field.file && !release::within_limit(field, change.name.home, change.name.home.tier()) {
        return false;
    }
    if !concern.audience.concerns(node.division) {
        return false;
    }
    let topology = node.disk.topology(node.division);
    let inside = node.division.contains(change.name.home);
    let heir = topology.child_over(change.name.home).map(|c| c.1);
    match (inside, heir) {
        (true, None) => true,
        (true, Some(child)) => release::crosses_up(field, concern, child, node.division),
        // Down it goes to all, as far as those above hold it.
        (false, heir) => {
            release::may_hold(field, concern, node.division, heir) && above_hold(world, node, field, concern)
        }
    }
}

/// Whether what is written at the home comes down to a node elsewhere: it must cross each link up to the first node
/// that contains both.
fn above_hold(
    world: &World,
    node: &Node,
    field: &guantong_proto::rules::Field,
    concern: Concern<'_>,
) -> bool {
    let mut at = world.nodes.iter().find(|n| !n.absent && !n.is_copy && n.division.contains(concern.home));
    let mut lowest: Option<&Node> = None;
    while let Some(found) = at {
        let lower = world.nodes.iter().find(|n| {
            !n.absent
                && !n.is_copy
                && found.division.strictly_contains(n.division)
                && n.division.contains(concern.home)
        });
        lowest = Some(found);
        at = lower;
    }
    let mut from = lowest;
    while let Some(below) = from {
        if below.division.contains(node.division) {
            return true;
        }
        let above = below.parent.and_then(|p| world.node_of(p)).map(|i| &world.nodes[i]);
        match above {
            Some(above) if release::crosses_up(field, concern, below.division, above.division) => {
                from = Some(above)
            }
            _ => return false,
        }
    }
    false
}

/// Nobody holds what was erased: neither as it was written, nor written again by a store that was put back.
fn erased(world: &World, records: &[BTreeMap<RecordName, Record>], wrong: &mut Vec<String>) {
    // Whom nothing comes down to has not heard of marks that were made elsewhere.
    let hears = |(i, (node, _)): &(usize, (&Node, _))| {
        !node.absent && !node.is_copy && world.deaf_over(*i).is_empty()
    };
    let here = || world.nodes.iter().zip(records).enumerate().filter(hears).map(|(_, here)| here);
    for (name, whole) in &wholes(world, records, None) {
        let kind = world.schema.kind(name.kind);
        for mark in Erasures::of(kind, whole).fields() {
            let union = kind.field(mark.field).is_some_and(|f| f.policy == Policy::Union);
            for (node, record) in here().filter_map(|(node, all)| Some((node, all.get(name)?))) {
                let Some(register) = record.get(mark.field) else { continue };
                let stands = |entry: &Entry, value: &Bytes| {
                    let earlier = |e: view::UnionEntry<'_>| e.stamp <= mark.before.0;
                    let rewritten = || {
                        !union
                            && !world.ledger.wrong_clocks
                            && !value.is_empty()
                            && world.ledger.is_only_older(name, mark.field, value, mark.before)
                    };
                    entry.content_stamp() <= mark.before
                        || union && view::union_entries(value).any(earlier)
                        || rewritten()
                };
                if let Some((entry, _)) = register.live().find(|(entry, value)| stands(entry, value)) {
                    let division = node.division;
                    wrong.push(format!("{division} holds {entry:?} of {name:?} {}, erased", mark.field));
                }
            }
        }
    }
}

/// Nobody who has a mark holds anything that was there when it was made, whatever the clocks said then.
fn ended(world: &World, records: &[BTreeMap<RecordName, Record>], wrong: &mut Vec<String>) {
    for name in world.ledger.erasures.keys() {
        for (node, all) in world.nodes.iter().zip(records).filter(|(node, _)| !node.absent) {
            let Some(record) = all.get(name) else { continue };
            let fields: Vec<u32> = record.fields().iter().map(|f| f.0).collect();
            let held = contents(&world.schema, name, record, &fields);
            for mark in world.ledger.marks_in(record, name) {
                if let Some(content) = mark.ended.iter().find(|content| held.contains(content)) {
                    wrong
                        .push(format!("{} holds {content:?} of {name:?}, erased by {mark:?}", node.division));
                }
            }
        }
    }
}

/// Whether a record holds a write, or a write that replaced it, or a mark by which it was erased.
pub(super) fn present(ledger: &Ledger, record: &Record, change: &Change) -> bool {
    if ledger.is_erased(record, change) {
        return true;
    }
    let Some(register) = record.get(change.field) else { return false };
    if let Some(entries) = &change.entries {
        let held: Vec<(Vec<u8>, u64)> = register
            .live()
            .flat_map(|(_, v)| view::union_entries(v))
            .map(|e| (e.id.to_vec(), e.stamp))
            .collect();
        let stands = |id: &[u8], stamp| held.iter().any(|(h, s)| h == id && *s >= stamp);
        return entries
            .iter()
            .all(|(id, stamp)| stands(id, *stamp) || ledger.entry_replaced(record, change, id));
    }
    let stands = register.live().any(|(e, _)| (e.writer, e.stamp) == (change.writer, change.stamp));
    stands || ledger.replaced(record, change)
}
