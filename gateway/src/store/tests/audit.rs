//! The audit log on disk: entries come with what they tell of, or not at all, and only ever at the end.

use super::*;
use crate::audit::{Chain, Checkpoint, Event, Hash, Head, Signed};
use crate::ingest::changes::LinkChange;

fn noting(count: u64) -> Changes {
    let audit = (0..count).map(|n| Event::Lost { entries: n }.into()).collect();
    Changes { audit, ..Changes::default() }
}

pub(super) async fn entries_are_chained_in_their_order(place: &impl Place) {
    let (store, mut writer) = place.opened().await;
    assert!(store.audit_slots().await.unwrap().is_empty());
    assert_eq!(store.audit_head(0).await.unwrap(), None);
    writer.apply(&noting(3), &[], 50).await.unwrap();
    writer.apply(&Changes::default(), &[], 55).await.unwrap();
    writer.apply(&noting(400), &[], 60).await.unwrap();
    let rows = store.audit_entries(0, 0, 1_000).await.unwrap();
    let mut chain = Chain::new(division("220822"), 0);
    rows.iter().try_for_each(|row| chain.check(row)).unwrap();
    assert_eq!(store.audit_head(0).await.unwrap(), Some(chain.head()));
    assert_eq!((rows.len(), rows[2].time_ms, rows[3].time_ms, &*rows[3].event), (403, 50, 60, "lost"));
    let page = store.audit_entries(0, 100, 5).await.unwrap();
    assert_eq!(page, rows[100..105]);
    assert_eq!(store.audit_slots().await.unwrap(), [0]);
}

pub(super) async fn an_entry_comes_with_what_it_tells_of_or_not_at_all(place: &impl Place) {
    let (store, mut writer) = place.opened().await;
    cameras(&mut writer, 1).await;
    let twice = change(1, name(CAMERA, "220822101", "c00001"), 0);
    let refused = Changes { audit: noting(1).audit, ..with_records(vec![twice]) };
    writer.apply(&refused, &[], 1).await.unwrap_err();
    assert_eq!(store.audit_head(0).await.unwrap(), None);
    writer.apply(&noting(1), &[], 2).await.unwrap();
    drop((store, writer));
    let (store, mut writer) = place.opened().await;
    writer.apply(&noting(1), &[], 3).await.unwrap();
    assert_eq!(store.audit_head(0).await.unwrap().unwrap().number, 2, "it goes on where it was");
}

pub(super) async fn entries_are_listed_latest_first_within_a_time(place: &impl Place) {
    let (store, mut writer) = place.opened().await;
    for at_ms in [10, 20, 30] {
        writer.apply(&noting(2), &[], at_ms).await.unwrap();
    }
    let stopped = Changes { audit: vec![Event::Stopped.into()], ..Changes::default() };
    writer.apply(&stopped, &[], 40).await.unwrap();
    let numbers = async |before, time_ms, event, limit| {
        let rows = store.audit_latest(0, before, time_ms, event, limit).await.unwrap();
        rows.into_iter().map(|row| row.number).collect::<Vec<_>>()
    };
    assert_eq!(numbers(u64::MAX, 0..u64::MAX, "", 3).await, [7, 6, 5]);
    assert_eq!(numbers(5, 0..u64::MAX, "", 9).await, [4, 3, 2, 1]);
    assert_eq!(numbers(u64::MAX, 20..40, "lost", 9).await, [6, 5, 4, 3]);
    assert_eq!(numbers(u64::MAX, 0..u64::MAX, "stopped", 9).await, [7]);
}

pub(super) async fn of_each_day_the_last_checkpoint_is_kept(place: &impl Place) {
    const DAY_MS: u64 = 86_400_000;
    let (store, mut writer) = place.opened().await;
    let child = division("220822101");
    let signed = |slot, number: u64| {
        let head = Head { number, hash: Hash([number as u8; 32]) };
        let checkpoint = Checkpoint { division: child, slot, epoch: u64::MAX - 1, head, time_ms: number };
        Signed { checkpoint, signature: vec![1, 2], certificates: vec![3] }
    };
    assert_eq!(store.newest_checkpoint(child, 0).await.unwrap(), None);
    let mut keep = async |signed: Signed, at_ms| {
        writer.apply(&Changes::default(), &[LinkChange::Checkpoint(signed)], at_ms).await.unwrap();
    };
    for number in 1..=450 {
        keep(signed(0, number), number * DAY_MS / 2).await;
    }
    keep(signed(1, 7), 1).await;
    assert_eq!(store.newest_checkpoint(child, 0).await.unwrap(), Some(signed(0, 450)));
    let kept = store.checkpoints(child, None, 1_000).await.unwrap();
    // Two a day: of each the later, and the very last of all.
    let odd: Vec<u64> =
        kept.iter().filter(|c| c.checkpoint.slot == 0).map(|c| c.checkpoint.head.number).collect();
    assert_eq!(odd, (1..450).step_by(2).chain([450]).collect::<Vec<_>>());
    assert_eq!(kept.last(), Some(&signed(1, 7)));
    let after = (0, 447, 447);
    let page = store.checkpoints(child, Some(after), 2).await.unwrap();
    assert_eq!(page, [signed(0, 449), signed(0, 450)]);
    assert!(store.checkpoints(division("220822102"), None, 9).await.unwrap().is_empty());
    for number in 451..=1_400 {
        keep(signed(0, number), number * DAY_MS).await;
    }
    let kept = store.checkpoints(child, None, 1_000).await.unwrap();
    assert_eq!(kept.len(), 401, "no more than 400 of a chain");
}
