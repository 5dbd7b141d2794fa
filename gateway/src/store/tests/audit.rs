//! The audit log on disk: entries come with what they tell of, or not at all, and only ever at the end.

use super::*;
use crate::audit::{Chain, Event};

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
