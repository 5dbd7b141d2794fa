//! What was tried and what was acknowledged: each write of the field that is watched (`due_on` of a case), with what its
//! writer saw before it. It judges what a node shows, and must never ask a node.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use guantong_proto::v1;
use rand::Rng;

/// What a write came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The node said that it is saved.
    Acknowledged,
    /// The node refused it, or broke off; nothing of it can come any more.
    Failed,
    /// No answer in time: it may be done even later. Nobody writes the record again, so that one writer is never ahead
    /// of itself.
    Unknown,
}

#[derive(Debug)]
struct Attempt {
    /// What stood there when it was written, as its writer saw it: what it replaces.
    before: Vec<u32>,
    acknowledged: bool,
}

/// A record's attempts; the value of each is its position, from 1.
#[derive(Debug, Default)]
struct Story {
    attempts: Vec<Attempt>,
    closed: bool,
}

impl Story {
    /// The acknowledged values that are neither present nor replaced by something that saw them.
    fn lost(&self, present: &BTreeSet<u32>) -> Vec<u32> {
        // A value is replaced by later ones only, so that one look from the last to the first is enough.
        let mut accounted = present.clone();
        let mut lost = Vec::new();
        for (i, attempt) in self.attempts.iter().enumerate().rev() {
            let value = i as u32 + 1;
            if accounted.contains(&value) {
                accounted.extend(&attempt.before);
            } else if attempt.acknowledged {
                lost.push(value);
            }
        }
        lost
    }
}

/// Everything that the writers did. Shared by all of them.
#[derive(Debug, Default)]
pub struct Book {
    stories: Mutex<BTreeMap<String, Story>>,
    tries: AtomicUsize,
}

impl Book {
    fn with<T>(&self, act: impl FnOnce(&mut BTreeMap<String, Story>) -> T) -> T {
        act(&mut self.stories.lock().unwrap())
    }

    /// A writer is about to do something, whatever comes of it.
    pub fn count_try(&self) {
        self.tries.fetch_add(1, Ordering::Relaxed);
    }

    /// How often writers were about to do something.
    pub fn tries(&self) -> usize {
        self.tries.load(Ordering::Relaxed)
    }

    /// Begins a write, and gives the value to write.
    pub fn begin(&self, name: &str, before: Vec<u32>) -> u32 {
        self.with(|stories| {
            let story = stories.entry(name.to_owned()).or_default();
            story.attempts.push(Attempt { before, acknowledged: false });
            story.attempts.len() as u32
        })
    }

    /// Ends a write.
    pub fn end(&self, name: &str, value: u32, outcome: Outcome) {
        self.with(|stories| {
            let story = stories.get_mut(name).unwrap();
            story.attempts[value as usize - 1].acknowledged |= outcome == Outcome::Acknowledged;
            story.closed |= outcome == Outcome::Unknown;
        });
    }

    /// A record in a part of the country that may be written again, if there is any.
    pub fn any_open(&self, prefix: &str, random: &mut impl Rng) -> Option<String> {
        self.with(|stories| {
            let open = stories.iter().filter(|(name, story)| name.starts_with(prefix) && !story.closed);
            let open: Vec<&String> = open.map(|(name, _)| name).collect();
            (!open.is_empty()).then(|| open[random.random_range(0..open.len())].clone())
        })
    }

    /// Writes that were acknowledged.
    pub fn acknowledged(&self) -> usize {
        self.with(|stories| {
            stories.values().flat_map(|story| &story.attempts).filter(|attempt| attempt.acknowledged).count()
        })
    }

    /// What is wrong with what a node shows of the records in its part of the country: values that it should show and does
    /// not, and values that nobody wrote.
    pub fn wrong(&self, prefix: &str, shown: &BTreeMap<String, BTreeSet<u32>>) -> Vec<String> {
        let nothing = BTreeSet::new();
        self.with(|stories| {
            let mut wrong = Vec::new();
            for (name, story) in stories.iter().filter(|(name, _)| name.starts_with(prefix)) {
                let present = shown.get(name).unwrap_or(&nothing);
                let lost = story.lost(present);
                if !lost.is_empty() {
                    wrong.push(format!("{name} shows {present:?}, lost are {lost:?}"));
                }
                if present.iter().any(|value| *value as usize > story.attempts.len()) {
                    wrong.push(format!("{name} shows {present:?}, which nobody wrote"));
                }
            }
            wrong
        })
    }
}

/// A value as a day of its own, after every day on which a case may have been received.
pub fn day(value: u32) -> v1::Date {
    let number = i32::try_from(value).unwrap();
    v1::Date { year: 2030 + number / 336, month: 1 + number % 336 / 28, day: 1 + number % 28 }
}

/// The value of a day.
pub fn value(day: &v1::Date) -> u32 {
    u32::try_from((day.year - 2030) * 336 + (day.month - 1) * 28 + day.day - 1).unwrap()
}

#[test]
fn a_lost_write_is_found_and_a_replaced_one_is_not() {
    let book = Book::default();
    for (before, outcome) in [
        (vec![], Outcome::Acknowledged),
        (vec![1], Outcome::Acknowledged),
        (vec![1], Outcome::Failed),
        (vec![2], Outcome::Acknowledged),
    ] {
        let value = book.begin("divisions/1/cases/1", before);
        book.end("divisions/1/cases/1", value, outcome);
    }
    let wrong = |present: &[u32]| {
        let shown = BTreeMap::from([("divisions/1/cases/1".to_owned(), present.iter().copied().collect())]);
        book.wrong("divisions/", &shown)
    };
    assert!(wrong(&[4]).is_empty() && wrong(&[3, 4]).is_empty(), "4 replaced 2, which replaced 1");
    assert!(wrong(&[3])[0].ends_with("lost are [4, 2]"), "{:?}", wrong(&[3]));
    assert!(wrong(&[2])[0].ends_with("lost are [4]"), "{:?}", wrong(&[2]));
    assert!(wrong(&[])[0].ends_with("lost are [4, 2, 1]"), "{:?}", wrong(&[]));
    assert!(wrong(&[4, 9])[0].ends_with("which nobody wrote"));
    assert_eq!(book.acknowledged(), 3);
    for number in [1, 27, 28, 335, 336, 5_000] {
        assert_eq!(value(&day(number)), number);
    }
}
