//! What greetings of bundles mean, with late, lost and repeated ones, and with stores that were put back.

use super::*;

/// One end of an exchange, with all that its store keeps.
#[derive(Clone, Default)]
struct End {
    epoch: u64,
    standing: Standing,
    made: Vec<(Mark, u64)>,
    taken: Vec<Taken>,
}

struct Bundle {
    heard: Heard,
    made: Vec<Mark>,
    time_ms: u64,
}

impl End {
    fn new(epoch: u64) -> End {
        End { epoch, ..End::default() }
    }

    fn make(&mut self, time_ms: u64, random: u64) -> Bundle {
        let previous = self.standing.sent.map(|(mark, _)| mark);
        let mark = self.standing.begin(self.epoch, random, time_ms);
        let made = self.made.iter().rev().map(|(mark, _)| *mark).take(MADE_MAX as usize).collect();
        self.made.push((mark, time_ms));
        let heard = Heard {
            mark,
            previous,
            seen: self.standing.seen.map(|(mark, _)| mark),
            begun: None,
            peer_epoch: self.standing.peer_epoch,
            restored_epoch: self.standing.restored_epoch,
            one_way: false,
            whole: true,
        };
        Bundle { heard, made, time_ms }
    }

    /// Takes a bundle in; a store that finds itself restored renews itself.
    fn take(&mut self, bundle: &Bundle) -> Met {
        let heard = &bundle.heard;
        let of = |number: Option<u64>| {
            let found = |t: &&Taken| t.mark.epoch == heard.mark.epoch && Some(t.mark.number) == number;
            self.taken.iter().find(found).copied()
        };
        let number = heard.mark.number;
        let memory = Memory {
            own_epoch: self.epoch,
            made: heard
                .seen
                .and_then(|seen| self.made.iter().find(|(m, _)| m.number == seen.number).copied()),
            taken: [of(number.checked_sub(1)), of(Some(number)), of(Some(number + 1))],
            time_ms: bundle.time_ms,
            strange_receipt: false,
            forgotten: {
                let taken: Vec<Mark> = self.taken.iter().map(|taken| taken.mark).collect();
                is_forgotten(heard.mark, &bundle.made, &taken)
            },
            follows: bundle.made.iter().any(|made| made.epoch == self.standing.peer_epoch),
            knows_other_fields: false,
            was_renewed: false,
        };
        let met = meet(&self.standing, heard, &memory);
        self.standing = met.standing.clone();
        if met.contents_count {
            self.taken.retain(|t| (t.mark.epoch, t.mark.number) != (heard.mark.epoch, number));
            self.taken.push(Taken { mark: heard.mark, previous: heard.previous });
            self.standing.took(heard.mark, bundle.time_ms);
        }
        if met.own_restored {
            self.epoch += 100;
        }
        met
    }
}

fn pair() -> (End, End) {
    (End::new(1), End::new(2))
}

#[test]
fn a_first_bundle_comes_from_a_new_store_and_those_after_it_from_a_known_one() {
    let (mut child, mut parent) = pair();
    let met = parent.take(&child.make(10, 1));
    assert_eq!(
        (met.sender, met.own_restored, met.backfill, met.same_epoch),
        (Sender::New, false, false, true)
    );
    let met = child.take(&parent.make(20, 2));
    assert_eq!((met.sender, met.own_restored, met.same_epoch), (Sender::New, false, true));
    let met = parent.take(&child.make(30, 3));
    assert_eq!((met.sender, met.backfill, met.same_epoch), (Sender::Known, false, true));
    assert_eq!(met.standing.clock, 20, "the child has taken in what was made then");
}

#[test]
fn late_lost_and_repeated_bundles_are_no_restores() {
    let (mut child, mut parent) = pair();
    let bundles: Vec<Bundle> = (1..=6).map(|i| child.make(i, i)).collect();
    for i in [1, 4, 0, 4, 5, 3, 1] {
        let met = parent.take(&bundles[i]);
        assert!(matches!(met.sender, Sender::New | Sender::Known), "{i}: {:?}", met.sender);
        assert!(met.same_epoch && !met.own_restored && !met.backfill);
    }
    assert_eq!(parent.standing.seen.unwrap().0.number, 6);
}

#[test]
fn a_sender_that_was_put_back_gives_a_number_twice_and_hears_of_it() {
    let (mut child, mut parent) = pair();
    parent.take(&child.make(1, 1));
    let backup = child.clone();
    parent.take(&child.make(2, 2));
    let mut child = backup;
    let met = parent.take(&child.make(3, 3));
    assert_eq!((met.sender, met.backfill, met.same_epoch), (Sender::Restored, true, false));
    let met = parent.take(&child.make(4, 4));
    assert_eq!((met.sender, met.backfill), (Sender::Restored, false), "it is owed everything already");
    let met = child.take(&parent.make(5, 5));
    assert!(met.own_restored);
    let met = parent.take(&child.make(6, 6));
    assert_eq!((met.sender, met.backfill, met.same_epoch), (Sender::Renewed, true, true));
    assert_eq!(parent.standing.restored_epoch, 0);
}

#[test]
fn what_a_store_that_was_put_back_wrote_before_it_knew_goes_in_neither_then_nor_late() {
    let (mut child, mut parent) = pair();
    parent.take(&child.make(1, 1));
    let backup = child.clone();
    let lost = child.make(2, 2);
    parent.take(&lost);
    let mut child = backup;
    let (one, other) = (child.make(3, 3), child.make(4, 4));
    assert!(!parent.take(&one).contents_count, "it writes under the stamps of what came in the lost life");
    assert!(!parent.take(&other).contents_count);
    child.take(&parent.make(5, 5));
    let met = parent.take(&child.make(6, 6));
    assert_eq!((met.sender, met.contents_count), (Sender::Renewed, true));
    for late in [&one, &other] {
        let met = parent.take(late);
        assert_eq!((met.sender, met.contents_count), (Sender::Past, false));
    }
    let met = parent.take(&lost);
    assert_eq!((met.sender, met.contents_count), (Sender::Past, true), "nobody wrote that as another");
    let unheard = |bundle: &Bundle| Heard { one_way: true, ..bundle.heard };
    let met = parent.take(&Bundle { heard: unheard(&one), made: one.made.clone(), time_ms: 7 });
    assert_eq!((met.sender, met.contents_count), (Sender::Restored, true), "nobody can tell it");
}

#[test]
fn a_sender_that_was_put_back_behind_a_gap_is_noticed_by_the_one_before() {
    let (mut child, mut parent) = pair();
    parent.take(&child.make(1, 1));
    let backup = child.clone();
    child.make(2, 2);
    parent.take(&child.make(3, 3));
    let mut child = backup;
    let met = parent.take(&child.make(4, 4));
    assert_eq!(met.sender, Sender::Restored, "number 3 was made after another number 2");
}

#[test]
fn a_sender_that_was_put_back_behind_a_gap_on_both_sides_is_noticed_by_what_it_remembers() {
    let (mut child, mut parent) = pair();
    parent.take(&child.make(1, 1));
    let backup = child.clone();
    parent.take(&child.make(2, 2));
    let mut child = backup;
    for lost in 3..6 {
        child.make(lost, lost);
    }
    let bundle = child.make(6, 6);
    assert_eq!(bundle.heard.mark.number, 5, "neither its number nor the one before was taken in");
    assert_eq!(parent.clone().take(&bundle).sender, Sender::Restored);
    // A program that does not say what it made is believed.
    assert_eq!(parent.take(&Bundle { made: Vec::new(), ..bundle }).sender, Sender::Known);
}

#[test]
fn a_sender_that_was_put_back_and_counts_below_a_gap_is_noticed_by_when_it_did() {
    let (mut child, mut parent) = pair();
    parent.take(&child.make(1, 1));
    let backup = child.clone();
    let late = child.make(2, 2);
    child.make(3, 3);
    child.make(4, 4);
    parent.take(&child.make(5, 5));
    let mut child = backup;
    let bundle = child.make(6, 6);
    assert_eq!(bundle.heard.mark.number, 2, "of the lost life only numbers 1 and 5 were taken in");
    let met = parent.clone().take(&bundle);
    assert_eq!((met.sender, met.contents_count), (Sender::Restored, false));
    assert_eq!(parent.take(&late).sender, Sender::Known, "it was overtaken on its way");
}

#[test]
fn what_a_sender_forgets_in_order_betrays_nothing() {
    let (mut child, mut parent) = pair();
    for time_ms in 1..200 {
        let bundle = child.make(time_ms, time_ms);
        if time_ms % 7 == 1 || time_ms > 150 {
            let met = parent.take(&bundle);
            assert!(matches!(met.sender, Sender::New | Sender::Known), "{time_ms}");
        }
    }
    let early = Mark { epoch: 1, number: 100, random: 100 };
    let listed: Vec<Mark> = (36..100).map(|n| Mark { epoch: 1, number: n, random: n }).collect();
    let taken = |number, random| [Mark { epoch: 1, number, random }];
    assert!(!is_forgotten(early, &listed, &taken(35, 0)), "too long ago");
    assert!(!is_forgotten(early, &listed, &taken(36, 36)) && is_forgotten(early, &listed, &taken(36, 0)));
    assert!(!is_forgotten(early, &listed, &taken(100, 0)), "compared elsewhere");
}

#[test]
fn a_receiver_that_was_put_back_does_not_know_its_own_bundle() {
    let (mut child, mut parent) = pair();
    parent.take(&child.make(1, 1));
    let backup = parent.clone();
    child.take(&parent.make(2, 2));
    let mut parent = backup;
    let late = child.make(3, 3);
    let met = parent.take(&late);
    assert!(met.own_restored && !met.receipts_count && !met.same_epoch);
    let met = parent.take(&child.make(4, 4));
    assert!(!met.own_restored, "it speaks of a life that is over");
    assert!(!met.same_epoch && !met.recovered);
    let met = child.take(&parent.make(5, 5));
    assert_eq!((met.sender, met.backfill), (Sender::Renewed, true));
    let met = parent.take(&child.make(6, 6));
    assert!(met.recovered && met.same_epoch, "it was asked for everything, and has sent it");
}

#[test]
fn a_receiver_waits_for_nothing_more_from_whom_it_can_ask_nothing() {
    let (mut child, mut parent) = pair();
    let mut one_way = |time_ms| {
        let bundle = child.make(time_ms, time_ms);
        Bundle { heard: Heard { one_way: true, ..bundle.heard }, ..bundle }
    };
    assert!(parent.take(&one_way(1)).recovered);
    let late = one_way(2);
    assert!(parent.take(&one_way(3)).recovered && parent.take(&late).recovered, "each holds everything");
    let part = one_way(4);
    assert!(!parent.take(&Bundle { heard: Heard { whole: false, ..part.heard }, ..part }).recovered);
}

#[test]
fn a_receiver_that_was_put_back_and_made_other_bundles_is_noticed() {
    let (mut child, mut parent) = pair();
    parent.take(&child.make(1, 1));
    let backup = parent.clone();
    child.take(&parent.make(2, 2));
    let mut parent = backup;
    parent.make(3, 3);
    assert!(parent.take(&child.make(4, 4)).own_restored, "the number is known, its random bits are not");
}

#[test]
fn a_receipt_for_a_bundle_that_was_never_made_betrays_a_copy_behind_a_gap() {
    let (mut child, mut parent) = pair();
    parent.take(&child.make(1, 1));
    let heard = parent.make(2, 2).heard;
    let memory = Memory { own_epoch: child.epoch, time_ms: 2, ..Memory::default() };
    assert!(!meet(&child.standing, &heard, &memory).own_restored);
    let memory = Memory { strange_receipt: true, ..memory };
    assert!(meet(&child.standing, &heard, &memory).own_restored);
}

#[test]
fn what_one_of_two_programs_does_not_know_is_not_given_back_yet() {
    let (mut child, mut parent) = pair();
    parent.take(&child.make(1, 1));
    child.take(&parent.make(2, 2));
    let heard = child.make(3, 3).heard;
    let memory = Memory { own_epoch: parent.epoch, time_ms: 3, ..Memory::default() };
    assert!(meet(&parent.standing, &heard, &memory).recovered);
    let memory = Memory { knows_other_fields: true, ..memory };
    assert!(!meet(&parent.standing, &heard, &memory).recovered);
    let memory = Memory { own_epoch: 9, ..memory };
    assert!(meet(&parent.standing, &heard, &memory).may_bring_back, "it may have what that one lost");
}

#[test]
fn an_emptied_receiver_learns_that_it_had_another_life() {
    let (mut child, mut parent) = pair();
    parent.take(&child.make(1, 1));
    child.take(&parent.make(2, 2));
    let mut parent = End::new(3);
    let met = parent.take(&child.make(3, 3));
    assert!(met.own_restored);
    assert!(!parent.take(&child.make(4, 4)).own_restored, "once");
}

#[test]
fn an_emptied_sender_is_owed_everything_and_its_late_bundles_do_not_confuse() {
    let (mut child, mut parent) = pair();
    parent.take(&child.make(1, 1));
    let late = child.make(2, 2);
    let mut child = End::new(9);
    let met = parent.take(&child.make(3, 3));
    assert_eq!((met.sender, met.backfill), (Sender::Renewed, true));
    let met = parent.take(&late);
    assert_eq!(
        (met.sender, met.backfill, met.same_epoch, met.receipts_count),
        (Sender::Past, false, false, false)
    );
    assert_eq!(parent.take(&child.make(4, 4)).sender, Sender::Known);
}

#[test]
fn a_bundle_of_a_life_that_was_never_heard_of_and_is_over_changes_nothing() {
    let (mut child, mut parent) = pair();
    let late = child.make(1, 1);
    child.epoch = 7;
    parent.take(&child.make(2, 2));
    assert_eq!(parent.take(&late).sender, Sender::Past);
    assert_eq!(parent.take(&child.make(3, 3)).sender, Sender::Known);
}

#[test]
fn a_store_of_an_earlier_life_that_goes_on_is_told_so() {
    let (mut child, mut parent) = pair();
    parent.take(&child.make(1, 1));
    let copy = child.clone();
    child.epoch = 7;
    parent.take(&child.make(2, 2));
    let mut copy = copy;
    let met = parent.take(&copy.make(3, 3));
    assert_eq!((met.sender, met.backfill), (Sender::Restored, true));
    assert_eq!(met.standing.restored_epoch, 1);
}

#[test]
fn a_store_that_renewed_itself_is_heard_though_its_clock_is_behind() {
    let (mut child, mut parent) = pair();
    parent.take(&child.make(10, 1));
    let late = child.make(11, 2);
    child.epoch = 7;
    let met = parent.take(&child.make(5, 3));
    assert_eq!((met.sender, met.backfill), (Sender::Renewed, true), "it remembers the life that is known");
    assert_eq!(parent.take(&child.make(6, 4)).sender, Sender::Known);
    assert!(!late.made.iter().any(|made| made.epoch == 7));
    assert_eq!(parent.take(&Bundle { time_ms: 4, ..late }).sender, Sender::Past);
}

#[test]
fn a_store_that_forgot_all_its_bundles_while_its_clock_was_behind_is_heard_in_the_end() {
    let (mut child, mut parent) = pair();
    parent.take(&child.make(10, 1));
    child.take(&parent.make(10, 1));
    child = End { standing: Standing { sent: None, ..child.standing }, ..End::new(7) };
    assert_eq!(parent.take(&child.make(5, 2)).sender, Sender::Past, "as if it came late");
    child.take(&parent.make(11, 3));
    assert_eq!(parent.take(&child.make(12, 4)).sender, Sender::Restored, "of a life that was over");
    let met = child.take(&parent.make(13, 5));
    assert!(met.own_restored, "it is told, though the parent knows another life of it");
    assert_eq!(parent.take(&child.make(14, 6)).sender, Sender::Renewed);
    assert!(!child.take(&parent.make(15, 7)).own_restored, "once");
}

#[test]
fn marks_that_are_compared_are_those_of_the_same_life() {
    let (mut child, mut parent) = pair();
    parent.take(&child.make(1, 1));
    child.take(&parent.make(2, 2));
    // The parent renewed itself for another reason, and the child has not heard of it yet.
    parent.epoch = 8;
    parent.make(3, 3);
    let met = parent.take(&child.make(4, 4));
    assert!(!met.own_restored && !met.same_epoch);
    assert!(met.receipts_count);
}
