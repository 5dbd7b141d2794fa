//! In whose name a store writes, and what each writer wrote last. One writer never writes the same register twice at
//! once: each import source and each division acted for is a writer of its own.

use crate::division::Division;
use crate::stamp::{Clock, Stamp, Writer};

/// The purpose of the writer of local writes; import sources use their names.
pub const LOCAL: &str = "";

/// A writer of this store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WriterState {
    /// Who.
    pub writer: Writer,
    /// `LOCAL`, or the name of an import source.
    pub purpose: String,
    /// What it wrote last.
    pub clock: Clock,
    /// Given up for a new one after a restore or a wrong clock, and kept so that its values are known as our own.
    pub current: bool,
    /// The gateway of the store that writes as it.
    pub slot: i64,
}

/// A writer that must be stored with the transaction that uses it first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewWriter {
    /// Who.
    pub writer: Writer,
    /// `LOCAL`, or the name of an import source.
    pub purpose: String,
}

/// All writers of a store.
#[derive(Clone, Debug, Default)]
pub struct Writers {
    states: Vec<WriterState>,
    /// Only writers of this slot write here.
    slot: i64,
    ticked: Vec<usize>,
    created: Vec<NewWriter>,
    /// Given up by the last renewal.
    renewed: Vec<Writer>,
    /// 64 random bits for each writer that may be made before the next group.
    spare_ids: Vec<u64>,
    /// All stamps to come are later.
    floor: Stamp,
}

impl Writers {
    /// As stored.
    pub fn new(states: Vec<WriterState>) -> Writers {
        Writers { states, ..Writers::default() }
    }

    /// As the gateway in `slot` has them.
    pub fn in_slot(mut self, slot: i64) -> Writers {
        self.slot = slot;
        self
    }

    /// With the floor that was stored: everything up to `through_ms` may have been claimed.
    pub fn above(mut self, through_ms: u64) -> Writers {
        self.floor = last_of(through_ms);
        self
    }

    /// As stored now, after a transaction whose end nobody saw: what was given out is never given out again, whether or
    /// not it was stored. `slot` is where the gateway is now. Everything up to `through_ms` may have been claimed.
    pub fn read_again(&mut self, stored: Vec<WriterState>, slot: i64, through_ms: u64) {
        self.slot = slot;
        let before = std::mem::take(&mut self.states);
        self.states = stored;
        for state in &mut self.states {
            if let Some(known) = before.iter().find(|known| known.writer == state.writer) {
                state.clock = Clock::resume(state.clock.last().max(known.clock.last()));
            }
        }
        self.floor = self.floor.max(last_of(through_ms));
        self.ticked.clear();
        self.created.clear();
    }

    /// Keeps all stamps to come later than one that another gateway of the store stored with a token.
    pub fn keep_above(&mut self, stamp: Stamp) {
        self.floor = self.floor.max(stamp);
    }

    /// Keeps all stamps to come later than `now_ms`, so that this moment can be claimed once all before it has left. The
    /// floor never falls by this; gives where it is now. It must be stored before anyone relies on it.
    pub fn raise_floor(&mut self, now_ms: u64) -> u64 {
        self.floor = self.floor.max(last_of(now_ms));
        self.floor.ms()
    }

    /// Everything up to here may have been claimed, Unix milliseconds.
    pub fn floor_ms(&self) -> u64 {
        self.floor.ms()
    }

    /// Lets stamps begin again at `now_ms`: the clock was ahead, and what was claimed by it is withdrawn.
    pub fn lower_floor(&mut self, now_ms: u64) {
        self.floor = self.floor.min(last_of(now_ms));
    }

    /// All writers, given up ones included.
    pub fn states(&self) -> &[WriterState] {
        &self.states
    }

    /// Gives random bits for writers that the next group may need; at least one for each of its writes is enough.
    pub fn provide_ids(&mut self, count: usize, mut random: impl FnMut() -> u64) {
        while self.spare_ids.len() < count {
            self.spare_ids.push(random());
        }
    }

    /// Whether `writer` is or was one of this store.
    pub fn is_ours(&self, writer: Writer) -> bool {
        self.states.iter().any(|s| s.writer == writer)
    }

    /// All writers of one division and purpose, given up ones included.
    pub fn of(&self, division: Division, purpose: &str) -> impl Iterator<Item = Writer> + '_ {
        let purpose = purpose.to_owned();
        let same = move |s: &&WriterState| s.writer.division == division && s.purpose == purpose;
        self.states.iter().filter(same).map(|s| s.writer)
    }

    /// The current writer of a division and purpose in this slot, and its next stamp. Makes the writer where there is none yet;
    /// `None` if no random bits are left for it. A later stamp of the store is always the greater one, whoever of its
    /// writers has it: what was written after a token was stored can be told by its stamp.
    pub fn stamp(&mut self, division: Division, purpose: &str, now_ms: u64) -> Option<(Writer, Stamp)> {
        let latest = self.latest();
        let slot = self.slot;
        let current = |s: &WriterState| {
            s.current && s.slot == slot && s.writer.division == division && s.purpose == purpose
        };
        let i = match self.states.iter().position(current) {
            Some(i) => i,
            None => {
                let writer = Writer { division, id: self.spare_ids.pop()? };
                self.created.push(NewWriter { writer, purpose: purpose.into() });
                let clock = Clock::default();
                self.states.push(WriterState { writer, purpose: purpose.into(), clock, current: true, slot });
                self.states.len() - 1
            }
        };
        let clock = &mut self.states[i].clock;
        *clock = Clock::resume(clock.last().max(latest).max(self.floor));
        let stamp = clock.tick(now_ms);
        if !self.ticked.contains(&i) {
            self.ticked.push(i);
        }
        Some((self.states[i].writer, stamp))
    }

    /// Gives up every current writer for which `give_up` says so; the next write makes a new one. Returns those given up.
    pub fn renew(&mut self, mut give_up: impl FnMut(&WriterState) -> bool) -> Vec<Writer> {
        let mut given_up = Vec::new();
        for state in &mut self.states {
            if state.current && give_up(state) {
                state.current = false;
                given_up.push(state.writer);
            }
        }
        self.renewed.clone_from(&given_up);
        given_up
    }

    /// Those given up by the last renewal: only they can have written what must be written again. What earlier ones
    /// wrote was written again then, or came back from a peer since and stands as it is.
    pub fn renewed(&self) -> &[Writer] {
        &self.renewed
    }

    /// The latest stamp of all current writers, to be stored with a token.
    pub fn latest(&self) -> Stamp {
        self.states.iter().filter(|s| s.current).map(|s| s.clock.last()).max().unwrap_or_default()
    }

    /// The writers that wrote since the last call, with their last stamps.
    pub fn take_ticked(&mut self) -> Vec<(Writer, Stamp)> {
        let ticked = std::mem::take(&mut self.ticked);
        ticked.into_iter().map(|i| (self.states[i].writer, self.states[i].clock.last())).collect()
    }

    /// The writers made since the last call.
    pub fn take_created(&mut self) -> Vec<NewWriter> {
        std::mem::take(&mut self.created)
    }
}

/// The last stamp of a millisecond.
fn last_of(ms: u64) -> Stamp {
    Stamp(Stamp::from_ms(ms).0 | 0xffff)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn no_stamp_is_ever_given_out_under_the_floor() {
        let own = Division::parse("220822").unwrap();
        let mut writers = Writers::default();
        writers.provide_ids(2, || 7);
        writers.stamp(own, LOCAL, 1_000).unwrap();
        assert_eq!(writers.raise_floor(1_000), 1_000);
        let (_, stamp) = writers.stamp(own, LOCAL, 1_000).unwrap();
        assert!(stamp.ms() > 1_000, "{stamp:?}");
        let (_, stamp) = writers.stamp(own, LOCAL, 500).unwrap();
        assert!(stamp.ms() > 1_000, "the clock was put back a little: {stamp:?}");
        assert_eq!(writers.raise_floor(900), 1_000, "the floor does not fall");
        let mut again = Writers::new(Vec::new()).above(writers.floor_ms());
        again.provide_ids(1, || 8);
        assert!(again.stamp(own, "ledger", 1).unwrap().1.ms() > 1_000, "it outlives the process");
        again.lower_floor(200);
        again.provide_ids(1, || 9);
        assert_eq!(
            again.stamp(own, LOCAL, 300).unwrap().1.ms(),
            1_001,
            "a writer's own stamps rise in any case"
        );
    }
}
