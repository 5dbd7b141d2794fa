//! Claims never say too much, whatever happens between two of them, and they come.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::ingest::writers::{LOCAL, Writers};

const DRIFT_MS: u64 = 300;
const PACE: Pace = Pace { busy_ms: 10, passing_ms: 20, idle_ms: 100 };

fn division(code: &str) -> Division {
    Division::parse(code).unwrap()
}

fn own() -> Division {
    division("220822")
}

fn child() -> Division {
    division("220822101")
}

/// Something that is written: by whom, and with which stamp.
type Item = (Division, u64);

/// A node between a child and a parent.
struct Node {
    now_ms: u64,
    writers: Writers,
    claiming: Claiming,
    known: Claims,
    /// What is owed to the parent, by number.
    outbox: BTreeMap<i64, Vec<Item>>,
    numbers: i64,
    joined: i64,
    everything: Vec<Item>,
    /// What the parent has, and what it holds of claims.
    above: BTreeSet<Item>,
    heard: Claims,
    told: u64,
    /// What the child wrote: the child's link is empty whenever it claims.
    child_ms: u64,
}

#[derive(Clone, Copy, Debug)]
enum Event {
    /// The clock goes on, or back a little.
    Time(i64),
    Write,
    ChildWrites,
    ChildClaims,
    /// The row at this place has its receipt.
    Deliver(usize),
    Join,
    Tick,
    Tell,
    /// The parent was put back to having nothing.
    ParentLost,
    Restart,
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => (-4_i64..30).prop_map(Event::Time),
        4 => Just(Event::Write),
        3 => Just(Event::ChildWrites),
        3 => Just(Event::ChildClaims),
        5 => any::<usize>().prop_map(Event::Deliver),
        1 => Just(Event::Join),
        6 => Just(Event::Tick),
        4 => Just(Event::Tell),
        1 => Just(Event::ParentLost),
        1 => Just(Event::Restart),
    ]
}

impl Node {
    fn new() -> Node {
        Node {
            now_ms: 1_000,
            writers: Writers::default(),
            claiming: Claiming::new(own(), PACE),
            known: Claims::from([(child(), Claimed::default())]),
            outbox: BTreeMap::new(),
            numbers: 0,
            joined: 0,
            everything: Vec::new(),
            above: BTreeSet::new(),
            heard: Claims::new(),
            told: 0,
            child_ms: 1_000,
        }
    }

    fn owe(&mut self, items: Vec<Item>) {
        self.numbers += 1;
        self.outbox.insert(self.numbers, items);
    }

    fn tick(&mut self) {
        if let Some(position) = self.claiming.waits_for()
            && self.outbox.keys().next().is_none_or(|oldest| *oldest > position.max(self.joined))
        {
            self.claiming.over(0);
        }
        if let Some(own) = self.claiming.due(self.now_ms, true) {
            let through_ms = own.then(|| self.writers.raise_floor(self.now_ms));
            let position = self.outbox.keys().next_back().copied().unwrap_or(0);
            self.claiming.begin(self.now_ms, through_ms, &self.known, position);
        }
    }

    fn tell(&mut self) {
        let (new, serial) = self.claiming.spoken().since(self.told, own());
        self.told = serial;
        for (division, claimed) in new {
            let claim = (division, claimed.through_ms, claimed.quarantined_count);
            // The parent's clock goes right; the node's may be a little ahead.
            let known = self.heard.get(&division).copied();
            let taken = take(own(), claim, known, self.now_ms + 1_000, DRIFT_MS).unwrap();
            self.heard.insert(division, taken);
        }
    }

    fn step(&mut self, event: Event) {
        match event {
            Event::Time(by) => {
                self.now_ms = self.now_ms.saturating_add_signed(by);
                self.child_ms = self.child_ms.max(self.now_ms);
            }
            Event::Write => {
                self.writers.provide_ids(1, || 7);
                let (_, stamp) = self.writers.stamp(own(), LOCAL, self.now_ms).unwrap();
                self.everything.push((own(), stamp.0));
                self.owe(vec![(own(), stamp.0)]);
                self.claiming.written();
            }
            Event::ChildWrites => {
                self.child_ms += 1;
                let item = (child(), self.child_ms << 16);
                self.everything.push(item);
                self.owe(vec![item]);
                self.claiming.written();
            }
            Event::ChildClaims => {
                let known = self.known.get(&child()).copied();
                let through_ms = self.child_ms.min(self.now_ms);
                let taken = take(child(), (child(), through_ms, 0), known, self.now_ms, DRIFT_MS).unwrap();
                self.claiming.arrived(child(), taken);
                self.known.insert(child(), taken);
                // Whatever it writes from now on is later.
                self.child_ms = self.child_ms.max(through_ms);
            }
            Event::Deliver(place) => {
                let numbers: Vec<i64> = self.outbox.keys().copied().collect();
                if let Some(number) = numbers.get(place % numbers.len().max(1)) {
                    self.above.extend(self.outbox.remove(number).unwrap());
                }
            }
            Event::Join => {
                let all = std::mem::take(&mut self.outbox);
                if !all.is_empty() {
                    self.owe(all.into_values().flatten().collect());
                    self.joined = self.numbers;
                }
            }
            Event::Tick => self.tick(),
            Event::Tell => self.tell(),
            Event::ParentLost => {
                self.above.clear();
                self.heard.clear();
                self.owe(self.everything.clone());
                self.claiming.forget();
                self.told = 0;
            }
            Event::Restart => {
                let floor_ms = self.writers.floor_ms();
                self.writers = Writers::new(self.writers.states().to_vec()).above(floor_ms);
                self.claiming = Claiming::new(own(), PACE);
                for (division, claimed) in &self.known {
                    self.claiming.arrived(*division, *claimed);
                }
                self.told = 0;
            }
        }
    }

    /// Something that the parent was told to have, and does not.
    fn missing(&self) -> Option<Item> {
        let claimed = |of: &Item| self.heard.get(&of.0).map_or(0, |c| c.through_ms);
        self.everything.iter().find(|i| i.1 >> 16 <= claimed(i) && !self.above.contains(i)).copied()
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_claimed_is_there(events in prop::collection::vec(event(), 1..120)) {
        let mut node = Node::new();
        for (i, event) in events.iter().enumerate() {
            node.step(*event);
            prop_assert_eq!(node.missing(), None, "after event {}: {:?}; heard {:?}", i, event, &node.heard);
        }
        // And then all is delivered: the claims come, as far as the clock.
        for _ in 0..200 {
            node.step(Event::ChildClaims);
            node.step(Event::Deliver(0));
            node.step(Event::Tick);
            node.step(Event::Tell);
            prop_assert_eq!(node.missing(), None);
            node.step(Event::Time(20));
        }
        let least = node.heard.values().map(|c| c.through_ms).min();
        prop_assert!(least > Some(node.now_ms - 200), "{:?} at {}", node.heard, node.now_ms);
        prop_assert_eq!(node.heard.len(), 2);
    }
}

#[test]
fn a_claim_is_cut_to_the_readers_clock_and_one_of_a_wrong_clock_counts_for_nothing() {
    let take = |division, through_ms, known| take(child(), (division, through_ms, 3), known, 1_000, DRIFT_MS);
    assert_eq!(take(child(), 1_300, None).unwrap().through_ms, 1_000);
    assert_eq!(take(child(), 1_301, None), Err(ClaimError::Future));
    assert_eq!(take(child(), u64::MAX, None), Err(ClaimError::Future));
    assert_eq!(take(own(), 900, None), Err(ClaimError::OutOfScope), "a child does not speak for its parent");
    assert_eq!(
        take(division("220822101201"), 900, None),
        Err(ClaimError::OutOfScope),
        "villages have no nodes"
    );
    let known = Claimed { through_ms: 800, arrived_ms: 5, quarantined_count: 0 };
    assert_eq!(take(child(), 0, Some(known)), Ok(known), "that it exists is no news");
    assert_eq!(take(child(), 700, Some(known)).unwrap().through_ms, 700, "a claim may be withdrawn");
    assert_eq!(take(child(), 900, Some(known)).unwrap().quarantined_count, 3);
}

#[test]
fn an_idle_node_claims_rarely_and_a_busy_one_not_all_the_time() {
    let mut claiming = Claiming::new(own(), PACE);
    let mut rounds = |from_ms: u64, written: bool| {
        let due = |ms: u64| {
            if written {
                claiming.written();
            }
            let own = claiming.due(ms, true)?;
            claiming.begin(ms, own.then_some(ms), &Claims::new(), 0);
            claiming.over(0);
            Some(())
        };
        (from_ms..from_ms + 1_000).filter_map(due).count()
    };
    assert_eq!(rounds(1_000, false), 10);
    assert_eq!(rounds(2_000, true), 100);
}

#[test]
fn a_new_node_below_is_told_of_before_the_claim_that_no_longer_covers_it() {
    let mut claiming = Claiming::new(own(), PACE);
    claiming.begin(1_000, Some(1_000), &Claims::new(), 0);
    claiming.arrived(child(), Claimed { arrived_ms: 1_001, ..Claimed::default() });
    claiming.over(5);
    let (said, serial) = claiming.spoken().since(0, own());
    let said: Vec<_> = said.iter().map(|(d, c)| (*d, c.through_ms, c.quarantined_count)).collect();
    assert_eq!(said, [(child(), 0, 0), (own(), 1_000, 5)]);
    assert!(claiming.spoken().since(serial, own()).0.is_empty());
}

#[test]
fn a_withdrawn_claim_is_passed_on_at_once_and_does_not_come_back_with_a_round() {
    let claimed = |through_ms| Claimed { through_ms, ..Claimed::default() };
    let mut claiming = Claiming::new(own(), PACE);
    claiming.arrived(child(), claimed(900));
    claiming.begin(1_000, None, &Claims::from([(child(), claimed(900))]), 0);
    claiming.over(0);
    claiming.begin(1_100, None, &Claims::from([(child(), claimed(950))]), 0);
    claiming.arrived(child(), claimed(300));
    let through = |claiming: &Claiming| claiming.spoken().since(0, own()).0[0].1.through_ms;
    assert_eq!(through(&claiming), 300);
    claiming.over(0);
    assert_eq!(through(&claiming), 300);
}

#[test]
fn a_node_whose_clock_was_ahead_takes_back_what_it_claimed_by_it() {
    let mut claiming = Claiming::new(own(), PACE);
    claiming.begin(90_000, Some(90_000), &Claims::new(), 0);
    claiming.over(0);
    claiming.begin(91_000, Some(91_000), &Claims::new(), 0);
    claiming.turned_back(1_000);
    claiming.over(0);
    assert_eq!(claiming.spoken().since(0, own()).0[0].1.through_ms, 1_000);
}
