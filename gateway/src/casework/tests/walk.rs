//! Any way that a case can go: one holder at any time, no way that ends before the end, and an audience that every node
//! agrees on.

use bytes::Bytes;
use proptest::prelude::*;
use prost::Message;

use super::*;
use crate::record::audience::Audience;
use crate::record::{Entry, Record, Register, raw};
use crate::schema::{Kind, Schema};
use crate::stamp::{Stamp, Writer};

/// Divisions of the walk: ordinary tiers, a prefecture without counties, districts under a municipality.
const WORLD: [&str; 16] = [
    "220822101",
    "220822102",
    "220821101",
    "220822",
    "220821",
    "2208",
    "2207",
    "22",
    "441900003",
    "441900004",
    "4419",
    "44",
    "110101001",
    "110101",
    "110102",
    "11",
];

/// The steps so far, as a record that every node could have.
fn record_of(steps: &[(Division, v1::CaseStep)], field: u32) -> Record {
    let mut entries: Vec<Entry> = Vec::new();
    for (i, (actor, step)) in steps.iter().enumerate() {
        let step = v1::CaseStep { id: i.to_string(), stamp: i as u64 + 1, ..step.clone() };
        let mut value = Vec::new();
        raw::put_message(&mut value, raw::message_tag(field), &step.encode_to_vec());
        let writer = Writer { division: *actor, id: 1 };
        match entries.iter_mut().find(|e| e.writer == writer) {
            Some(entry) => {
                entry.value =
                    Some(Bytes::from([entry.value.as_deref().unwrap_or_default(), &value].concat()));
            }
            None => entries.push(Entry::new(writer, Stamp(1), Some(value.into()))),
        }
    }
    let mut record = Record::default();
    record.set(field, Register::from_entries(entries));
    record
}

/// One attempt: a legal move of whoever may make one, picked by number, or anything by anybody.
#[derive(Clone, Debug)]
struct Try {
    sensible: bool,
    pick: usize,
    action: i32,
    to: Option<usize>,
    unit: &'static str,
    reason: &'static str,
    outcome: Option<v1::Outcome>,
}

fn tries() -> impl Strategy<Value = Vec<Try>> {
    let words = (prop::sample::select(vec!["", "court", "police"]), prop::sample::select(vec!["", "far"]));
    let outcome = proptest::option::of(any::<bool>()).prop_map(|o| {
        o.map(|succeeded| v1::Outcome { succeeded: Some(succeeded), ..v1::Outcome::default() })
    });
    let target = proptest::option::of(0..WORLD.len());
    let one = (0..4usize, 0..10_000usize, 0..13i32, target, words, outcome).prop_map(
        |(sensible, pick, action, to, (unit, reason), outcome)| Try {
            sensible: sensible > 0,
            pick,
            action,
            to,
            unit,
            reason,
            outcome,
        },
    );
    proptest::collection::vec(one, 1..60)
}

impl Try {
    fn request(
        &self,
        home: Division,
        now: Option<&v1::Lifecycle>,
        world: &[Division],
    ) -> MoveRequest<'static> {
        let anything = MoveRequest {
            action: Move::try_from(self.action).unwrap(),
            actor: world[self.pick % world.len()],
            to_division: self.to.map(|i| world[i]),
            to_unit: self.unit,
            reason: self.reason,
            outcome: self.outcome,
            now_ms: NOW_MS,
        };
        let mut legal: Vec<(Division, Move)> = Vec::new();
        for actor in world.iter().filter(|_| self.sensible) {
            legal.extend(legal_moves(home, now, *actor).into_iter().map(|action| (*actor, action)));
        }
        // Ends are left to one attempt in three, or no walk would be long.
        let ends = |action| matches!(action, Move::Cancel | Move::File | Move::Verify);
        legal.retain(|(_, action)| self.pick.is_multiple_of(3) || !ends(*action));
        let Some((actor, action)) = legal.get(self.pick % legal.len().max(1)) else { return anything };
        let mut asked = ask_all(*action, *actor, world);
        asked.retain(|r| apply(home, now, r).is_ok());
        let count = asked.len().max(1);
        if asked.is_empty() { anything } else { asked.swap_remove(self.pick / 7 % count) }
    }
}

/// A case on its walk, with the steps that were written and by whom.
struct Walk {
    home: Division,
    now: Option<v1::Lifecycle>,
    steps: Vec<(Division, v1::CaseStep)>,
}

impl Walk {
    /// From nothing, or from a state that a ledger loaded.
    fn start(home: Division, state: Option<CaseState>, world: &[Division]) -> Walk {
        let nothing = Walk { home, now: None, steps: Vec::new() };
        let Some(state) = state else { return nothing };
        let below = world.iter().find(|d| home.strictly_contains(**d)).map(|d| d.to_string());
        let pending_to = below.filter(|_| state == CaseState::Pending).unwrap_or_default();
        let loaded =
            v1::Lifecycle { holder: home.to_string(), state: state as i32, pending_to, ..Default::default() };
        if judge_write(home, None, &loaded, home, First::Anywhere).is_err() {
            return nothing;
        }
        let step = implied_step(home, None, &loaded, home, First::Anywhere, 1).unwrap();
        Walk { now: Some(loaded), steps: vec![(home, step)], ..nothing }
    }

    fn audience(&self, kind: &Kind) -> Audience {
        Audience::of(kind, self.home, &record_of(&self.steps, kind.roles.steps.unwrap()))
    }

    fn attempt(&mut self, kind: &Kind, request: &MoveRequest<'_>) -> bool {
        let legal = legal_moves(self.home, self.now.as_ref(), request.actor);
        let moved = match apply(self.home, self.now.as_ref(), request) {
            Ok(moved) => moved,
            Err(refused) => {
                assert_eq!(refused.legal, legal);
                return false;
            }
        };
        assert!(legal.contains(&request.action));
        check_step(request, self.now.as_ref(), &moved);
        assert!(self.audience(kind).has_at_or_below(request.actor), "{} writes a step", request.actor);
        self.steps.push((request.actor, moved.step.clone()));
        let audience = self.audience(kind);
        assert!(audience.divisions().contains(&division(&moved.step.to)));
        assert!(audience.concerns(holder(&moved.lifecycle).unwrap()));
        let direct = v1::Lifecycle { since: None, ..moved.lifecycle.clone() };
        let now = self.now.as_ref();
        assert_eq!(judge_write(self.home, now, &direct, request.actor, First::Reported), Ok(()));
        if self.now.is_some() {
            let step = implied_step(self.home, now, &direct, request.actor, First::Reported, 1).unwrap();
            assert_eq!(step.to, moved.step.to);
        }
        self.now = Some(moved.lifecycle);
        true
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn any_way_keeps_one_holder_and_can_go_on(home in 0..WORLD.len(), start in 0..20usize, tries in tries()) {
        let schema = Schema::current();
        let kind = schema.kind_named("case").unwrap();
        let world = WORLD.map(division);
        let mut walk = Walk::start(world[home], STATES.get(start).copied(), &world);
        for t in &tries {
            let request = t.request(walk.home, walk.now.as_ref(), &world);
            if walk.attempt(kind, &request) {
                prop_assert!(can_end(walk.home, walk.now.as_ref().unwrap(), &world), "stuck: {:?}", walk.now);
            }
        }
    }
}

fn check_step(request: &MoveRequest<'_>, before: Option<&v1::Lifecycle>, moved: &Moved) {
    let (l, step) = (&moved.lifecycle, &moved.step);
    assert_eq!(step.r#move(), request.action);
    assert_eq!((&*step.reason, step.at), (request.reason, l.since));
    assert_eq!(step.from, before.map_or(request.actor.to_string(), |b| b.holder.clone()));
    assert!(step.id.is_empty() && step.stamp == 0 && !step.unit.is_empty());
    let waits = l.state() == CaseState::Pending;
    assert_eq!(waits, !l.pending_to.is_empty());
    assert_eq!(&step.to, if waits { &l.pending_to } else { &l.holder });
    assert!(holder(l).is_some() && !l.unit.is_empty());
    assert_eq!(moved.outcome.is_some(), request.action == Move::Conclude);
}

/// Whether the holder alone can bring the case to an end, and everyone's legal moves can really be made.
fn can_end(home: Division, now: &v1::Lifecycle, world: &[Division]) -> bool {
    let mut now = now.clone();
    for actor in world {
        for action in legal_moves(home, Some(&now), *actor) {
            // Below a township, and beside what the walk knows, there is nobody to address here.
            let reachable = action != Move::Assign || world.iter().any(|d| actor.strictly_contains(*d));
            let asked = ask_all(action, *actor, world);
            if reachable && !asked.iter().any(|r| apply(home, Some(&now), r).is_ok()) {
                return false;
            }
        }
    }
    for _ in 0..3 {
        if is_ended(now.state()) {
            return true;
        }
        let holds = holder(&now).unwrap();
        let towards_end = [Move::Cancel, Move::Verify, Move::Accept];
        let moved = towards_end.into_iter().find_map(|action| {
            apply(home, Some(&now), &MoveRequest { actor: holds, ..ask(action, "22") }).ok()
        });
        match moved {
            Some(moved) => now = moved.lifecycle,
            None => return false,
        }
    }
    is_ended(now.state())
}
