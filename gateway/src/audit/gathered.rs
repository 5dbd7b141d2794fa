//! What is noted outside of transactions, until it is written: bounded, and what repeats is joined. A stranger who knocks
//! a thousand times a second must neither fill the disk nor push out what others did.

use std::collections::VecDeque;

use super::{Event, Note, Repeated};

/// Events that are held at once, those written in the last minute included.
pub const GATHERED_MAX: usize = 512;
/// An event that is the same as one written less than this ago is held until then, and counted.
pub const JOIN_MS: u64 = 60_000;

/// Events that wait to be written.
#[derive(Debug, Default)]
pub struct Gathered {
    held: VecDeque<Held>,
    lost: u64,
}

#[derive(Debug)]
struct Held {
    event: Event,
    /// Since it was written last.
    times: u64,
    since_ms: u64,
    last_ms: u64,
    /// When it may be written.
    due_ms: u64,
}

impl Gathered {
    /// Holds an event, or counts it where there is no more room.
    pub fn put(&mut self, event: Event, now_ms: u64) {
        if let Some(held) = self.held.iter_mut().find(|held| held.event == event) {
            if held.times == 0 {
                held.since_ms = now_ms;
            }
            held.times += 1;
            held.last_ms = now_ms;
            return;
        }
        if self.held.len() >= GATHERED_MAX {
            // What waits for nothing but its own repetition makes room.
            match self.held.iter().position(|held| held.times == 0) {
                Some(idle) => drop(self.held.remove(idle)),
                None => {
                    self.lost += 1;
                    return;
                }
            }
        }
        self.held.push_back(Held { event, times: 1, since_ms: now_ms, last_ms: now_ms, due_ms: now_ms });
    }

    /// What is due, or everything: it is held until [`written`](Self::written) says that it was.
    pub fn due(&self, now_ms: u64, all: bool) -> Vec<Note> {
        let due = |held: &&Held| held.times > 0 && (all || is_due(held, now_ms));
        let note = |held: &Held| {
            let Held { times, since_ms, last_ms, .. } = *held;
            let repeated = Some(Repeated { times, since_ms, last_ms });
            Note { event: held.event.clone(), repeated: repeated.filter(|r| r.times > 1) }
        };
        let mut notes: Vec<Note> = self.held.iter().filter(due).map(note).collect();
        if self.lost > 0 {
            notes.push(Event::Lost { entries: self.lost }.into());
        }
        notes
    }

    /// These were written. What came since stays.
    pub fn written(&mut self, notes: &[Note], now_ms: u64) {
        for note in notes {
            if let Event::Lost { entries } = note.event {
                self.lost = self.lost.saturating_sub(entries);
                continue;
            }
            if let Some(held) = self.held.iter_mut().find(|held| held.event == note.event) {
                held.times = held.times.saturating_sub(note.repeated.map_or(1, |r| r.times));
                held.since_ms = held.last_ms;
                held.due_ms = now_ms.saturating_add(JOIN_MS);
            }
        }
        self.held.retain(|held| held.times > 0 || !is_due(held, now_ms));
    }

    /// Whether nothing is held.
    pub fn is_empty(&self) -> bool {
        self.held.is_empty() && self.lost == 0
    }
}

/// Also where the clock went back: nothing waits longer than the time that events are joined for.
fn is_due(held: &Held, now_ms: u64) -> bool {
    held.due_ms <= now_ms || held.due_ms > now_ms.saturating_add(JOIN_MS)
}
