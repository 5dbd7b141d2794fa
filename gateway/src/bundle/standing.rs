//! What both sides of an exchange by bundles remember of each other, and what a bundle says about the two stores: a
//! greeting whose answer may come days later, out of order, twice or never.
//!
//! On a line a token betrays a restored or copied store. Here each bundle is its own token: a mark of number and random
//! bits. The sender names the one that it made before, so that two lives of one store, which give one number twice, do
//! not fit; and the receiver's mark that it took in last, so that a store that does not know its own bundle knows that it
//! was put back. Receipts do the same for each single bundle, however many were lost in between: they are carried until
//! the newest bundle of the other side says that it has them, and again if a later one says that it has not. What a store
//! had told of before it renewed itself it remembers as told.
//!
//! Decisions over values: the engine carries them out in one transaction.

use bytes::Bytes;
use guantong_proto::v1;

use super::keeping::MADE_MAX;
use super::keys::PublicKey;

/// Earlier lives of a store that are remembered, each way.
const LIVES_MAX: usize = 32;

/// One bundle, as both ends remember it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mark {
    /// Random number of the store that made it.
    pub epoch: u64,
    /// Rises by one with each bundle for one receiver.
    pub number: u64,
    /// Drawn anew for each.
    pub random: u64,
}

impl From<v1::BundleMark> for Mark {
    fn from(mark: v1::BundleMark) -> Mark {
        Mark { epoch: mark.epoch, number: mark.number, random: mark.random }
    }
}

impl From<Mark> for v1::BundleMark {
    fn from(mark: Mark) -> v1::BundleMark {
        v1::BundleMark { epoch: mark.epoch, number: mark.number, random: mark.random }
    }
}

/// A key of a peer, and who vouched for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerKey {
    /// It.
    pub key: PublicKey,
    /// When the peer signed it, Unix milliseconds.
    pub time_ms: u64,
    /// The certificates that it was signed with: if one of them is revoked, nothing more is sealed with the key.
    pub certificates: Bytes,
}

/// What is kept of the exchange with one peer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// How often it was stored: whoever stores it decided from the last one.
    pub version: i64,
    /// What bundles for the peer are sealed with.
    pub key: Option<PeerKey>,
    /// The last bundle that was begun for the peer, and when.
    pub sent: Option<(Mark, u64)>,
    /// The highest number in the outbox when the last bundle that was finished was begun.
    pub sent_through: i64,
    /// The highest of them with a receipt.
    pub confirmed_number: u64,
    /// When that receipt was taken in, and when its bundle was begun, Unix milliseconds.
    pub confirmed_ms: u64,
    /// See `confirmed_ms`.
    pub confirmed_to_ms: u64,
    /// Lives of this store that bundles told the peer of, or that it spoke of; the latest last.
    pub told: Vec<u64>,
    /// The peer's store; 0: none was heard of.
    pub peer_epoch: u64,
    /// When the newest of its bundles that came was begun, by its clock, Unix milliseconds.
    pub peer_time_ms: u64,
    /// Its earlier lives, the latest last.
    pub past: Vec<u64>,
    /// The bundle of this life with the highest number that was taken in, and when.
    pub seen: Option<(Mark, u64)>,
    /// The peer never takes in what is made here.
    pub one_way: bool,
    /// The peer's store of this life was found to be restored or copied, and has not renewed itself as far as is known.
    pub restored_epoch: u64,
    /// The latest stamp of this store when it made the newest of the bundles that the peer is known to have taken in.
    pub clock: u64,
}

/// A bundle that was taken in, or begun to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken {
    /// It.
    pub mark: Mark,
    /// The one that its sender made before.
    pub previous: Option<Mark>,
}

/// What a bundle's greeting says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Heard {
    /// The bundle.
    pub mark: Mark,
    /// The one that its sender made for this node before.
    pub previous: Option<Mark>,
    /// This node's bundle that it took in last, of those with the highest number.
    pub seen: Option<Mark>,
    /// The newest of this node's bundles that it began to take in, and has not taken in whole.
    pub begun: Option<Mark>,
    /// This node's store as it knows it; 0: it never heard of one.
    pub peer_epoch: u64,
    /// It found this node's store of this life to be restored; 0: it did not.
    pub restored_epoch: u64,
    /// It never takes in bundles of this node.
    pub one_way: bool,
    /// It holds everything that its sender owes.
    pub whole: bool,
}

/// What is remembered that a greeting is compared with.
#[derive(Clone, Copy, Debug, Default)]
pub struct Memory {
    /// This store's random number.
    pub own_epoch: u64,
    /// The bundle made here with the number of `Heard::seen`, where it is still remembered, and the latest stamp of this
    /// store then.
    pub made: Option<(Mark, u64)>,
    /// Bundles taken in of the same life of the sender: the one with the number before, with the same, and the one after.
    pub taken: [Option<Taken>; 3],
    /// When the bundle was begun, by its sender's clock, Unix milliseconds.
    pub time_ms: u64,
    /// It names a bundle of this store's present life that this store never made, in a receipt or as one that was begun.
    pub strange_receipt: bool,
    /// What its sender remembers to have made is not what was taken in of it ([`is_forgotten`]).
    pub forgotten: bool,
    /// Its sender remembers bundles of the life that is known of it here, so whatever it is now came after that.
    pub follows: bool,
    /// Its sender is a child whose program knows other fields: it may hold what one of the two does not know.
    pub knows_other_fields: bool,
    /// This store became another once because it had been put back: it may have forgotten whom it had met.
    pub was_renewed: bool,
}

/// What the sender's store is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sender {
    /// Nothing of it was ever heard.
    New,
    /// The one that is known.
    Known,
    /// It has a new random number: it renewed itself, or was emptied.
    Renewed,
    /// It was restored or copied, and does not know that yet.
    Restored,
    /// This bundle is one from before it renewed itself, and comes late.
    Past,
}

/// What must be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Met {
    /// The exchange as it must be stored.
    pub standing: Standing,
    /// The sender's store.
    pub sender: Sender,
    /// This store was restored or copied: it takes a new random number, becomes a new writer, and writes again what it
    /// wrote after `Standing::clock`.
    pub own_restored: bool,
    /// The sender is owed everything anew.
    pub backfill: bool,
    /// Both stores are the ones that know each other: what is merged need not be owed back.
    pub same_epoch: bool,
    /// What the bundle holds may go in. A store that was put back writes on under the stamps of the life that it lost
    /// until it is told: taken in, they would replace what came of that life, unseen. It keeps what it wrote, writes it
    /// again as another, and sends it then. Whom nobody can tell sends no other bundles.
    pub contents_count: bool,
    /// What the bundle says of bundles made here counts.
    pub receipts_count: bool,
    /// The sender has sent everything that this store, as it is now, asked it for.
    pub recovered: bool,
    /// The sender may have what this store has lost: it found that out, or speaks of another life of it, or is one whom the
    /// store may have met before and forgotten.
    pub may_bring_back: bool,
}

/// What a bundle means.
pub fn meet(known: &Standing, heard: &Heard, memory: &Memory) -> Met {
    let own_restored = own_restored(known, heard, memory);
    let sender = sender(known, heard, memory);
    let contents_count = heard.one_way
        || match sender {
            Sender::New | Sender::Known | Sender::Renewed => true,
            Sender::Restored => false,
            Sender::Past => is_of_one_life(heard, memory),
        };
    let speaks_of_another = heard.peer_epoch != 0 && heard.peer_epoch != memory.own_epoch;
    let may_be_forgotten = sender == Sender::New && (heard.previous.is_some() || memory.was_renewed);
    let mut standing = known.clone();
    if speaks_of_another {
        remember(&mut standing.told, heard.peer_epoch);
    }
    if own_restored {
        // Bundles that were made before the peer hears of the next life speak of this one.
        remember(&mut standing.told, memory.own_epoch);
    }
    let newly_restored = sender == Sender::Restored && known.restored_epoch != heard.mark.epoch;
    match sender {
        Sender::New | Sender::Renewed => {
            if known.peer_epoch != 0 {
                remember(&mut standing.past, known.peer_epoch);
            }
            standing.peer_epoch = heard.mark.epoch;
            standing.seen = None;
            standing.restored_epoch = 0;
        }
        Sender::Restored => standing.restored_epoch = heard.mark.epoch,
        Sender::Past => remember(&mut standing.past, heard.mark.epoch),
        Sender::Known => {}
    }
    if sender != Sender::Past {
        standing.one_way = heard.one_way;
        standing.peer_time_ms = known.peer_time_ms.max(memory.time_ms);
    }
    if !own_restored && let Some((_, clock)) = memory.made.filter(|(made, _)| Some(*made) == heard.seen) {
        standing.clock = standing.clock.max(clock);
    }
    let trusted = matches!(sender, Sender::New | Sender::Known | Sender::Renewed) && !own_restored;
    // Who takes nothing in can be asked for nothing: it sends all that it has, each time.
    let given = match heard.one_way {
        true => sender != Sender::Past && !own_restored,
        false => trusted && heard.peer_epoch == memory.own_epoch,
    };
    Met {
        standing,
        sender,
        own_restored,
        backfill: sender == Sender::Renewed || newly_restored,
        same_epoch: trusted && (heard.peer_epoch == 0 || heard.peer_epoch == memory.own_epoch),
        contents_count,
        receipts_count: sender != Sender::Past && !own_restored,
        may_bring_back: own_restored || speaks_of_another || may_be_forgotten,
        recovered: given && heard.whole && !memory.knows_other_fields,
    }
}

/// Whether this store is not the one that the sender knows: it does not know its own bundle, or its own life.
fn own_restored(known: &Standing, heard: &Heard, memory: &Memory) -> bool {
    // Whichever life of this store it knows beside.
    if memory.strange_receipt || heard.restored_epoch == memory.own_epoch {
        return true;
    }
    if heard.peer_epoch == 0 {
        return false;
    }
    if heard.peer_epoch != memory.own_epoch {
        return !known.told.contains(&heard.peer_epoch);
    }
    let Some(seen) = heard.seen.filter(|seen| seen.epoch == memory.own_epoch) else { return false };
    let never_made = known.sent.is_none_or(|(sent, _)| seen.number > sent.number);
    never_made || memory.made.is_some_and(|(made, _)| made != seen)
}

/// Whether a sender does not know a bundle of its own that was taken in: `made` is what it says it finished before `mark`,
/// `taken` what came of the same life. Holds across any gap of lost bundles, where neighbours say nothing.
pub fn is_forgotten(mark: Mark, made: &[Mark], taken: &[Mark]) -> bool {
    // Before this it may have forgotten in order.
    let oldest = mark.number.saturating_sub(MADE_MAX);
    let earlier = |t: &&Mark| t.epoch == mark.epoch && (oldest..mark.number).contains(&t.number);
    !made.is_empty() && taken.iter().filter(earlier).any(|t| !made.contains(t))
}

fn sender(known: &Standing, heard: &Heard, memory: &Memory) -> Sender {
    let epoch = heard.mark.epoch;
    let later = memory.time_ms > known.peer_time_ms;
    if known.peer_epoch == 0 {
        return Sender::New;
    }
    if epoch != known.peer_epoch {
        // By time where nothing else tells: a store that was emptied begins to count anew.
        return match (known.past.contains(&epoch), later) {
            (false, true) => Sender::Renewed,
            (false, false) if memory.follows => Sender::Renewed,
            (_, false) => Sender::Past,
            (true, true) => Sender::Restored,
        };
    }
    // What was overtaken on its way was made before what overtook it. A clock that was set back betrays a store that was
    // not put back, too: it becomes another writer, and nothing is lost.
    let counts_anew = later && known.seen.is_some_and(|(seen, _)| heard.mark.number < seen.number);
    match is_of_one_life(heard, memory) && !counts_anew && known.restored_epoch != epoch {
        true => Sender::Known,
        false => Sender::Restored,
    }
}

/// Whether a bundle was made by the store that made those which were taken in under the same random number.
fn is_of_one_life(heard: &Heard, memory: &Memory) -> bool {
    let [before, same, after] = memory.taken;
    let fits = before.is_none_or(|before| heard.previous == Some(before.mark))
        && same.is_none_or(|same| same.mark == heard.mark)
        && after.is_none_or(|after| after.previous == Some(heard.mark));
    fits && !memory.forgotten
}

impl Standing {
    /// A key of the peer came: the one that was signed last counts.
    pub fn learn(&mut self, key: &PeerKey) {
        if self.key.as_ref().is_none_or(|known| known.time_ms <= key.time_ms) {
            self.key = Some(key.clone());
        }
    }

    /// A bundle is begun. Gives its mark.
    pub fn begin(&mut self, own_epoch: u64, random: u64, now_ms: u64) -> Mark {
        let number = self.sent.map_or(0, |(mark, _)| mark.number) + 1;
        let mark = Mark { epoch: own_epoch, number, random };
        self.sent = Some((mark, now_ms));
        remember(&mut self.told, own_epoch);
        mark
    }

    /// A bundle of the peer was taken in whole.
    pub fn took(&mut self, mark: Mark, now_ms: u64) {
        let newer = self.seen.is_none_or(|(seen, _)| mark.number >= seen.number);
        if mark.epoch == self.peer_epoch && newer {
            self.seen = Some((mark, now_ms));
        }
    }

    /// The receipt for a bundle that was begun at `made_ms` was taken in.
    pub fn confirm(&mut self, number: u64, made_ms: u64, now_ms: u64) {
        if number >= self.confirmed_number {
            (self.confirmed_number, self.confirmed_ms) = (number, now_ms);
            self.confirmed_to_ms = self.confirmed_to_ms.max(made_ms);
        }
    }
}

/// Puts a life at the end of a list, once.
fn remember(lives: &mut Vec<u64>, life: u64) {
    lives.retain(|known| *known != life);
    lives.push(life);
    if lives.len() > LIVES_MAX {
        lives.remove(0);
    }
}

#[cfg(test)]
#[path = "standing_tests.rs"]
#[allow(clippy::unwrap_used)]
mod tests;
