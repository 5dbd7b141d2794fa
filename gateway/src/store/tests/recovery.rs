//! What a store remembers of where it was written, and of how it was filled again.

use super::*;
use crate::ingest::changes::{Lineage, LinkChange};
use crate::ingest::recovery::{Cause, Loss, Recovery};

/// One that is over, with everything that can be said of it.
pub(super) fn ended() -> Recovery {
    let loss = |field| Loss { kind: CASE, field, records: 3 };
    let losses = Some(vec![loss(4), loss(9)]);
    Recovery { cause: Cause::PutBack, begun_ms: 5, ended_ms: Some(8), from_parent: true, losses }
}

pub(super) async fn the_last_recovery_is_remembered(place: &impl Place) {
    let (store, mut writer) = place.opened().await;
    assert_eq!(store.recovery().await.unwrap(), None);
    let begun = Recovery::begun(None, Cause::Emptied, false, 5);
    for recovery in [ended(), begun, ended()] {
        let put = LinkChange::Recovery(recovery.clone());
        let view = store.view().await.unwrap();
        writer.decide_from(view);
        writer.apply(&Changes::default(), &[put], 1).await.unwrap();
        assert_eq!(store.recovery().await.unwrap(), Some(recovery));
    }
}

pub(super) async fn where_a_store_is_written_is_remembered(place: &impl Place) {
    let (store, mut writer) = place.opened().await;
    assert_eq!(store.lineage().await.unwrap().put_back_ms, None);
    let lineage = Lineage { timeline: Some(3), place: Some(i64::MIN) };
    writer.apply(&Changes::default(), &[LinkChange::Lineage(lineage)], 1).await.unwrap();
    assert_eq!(store.lineage().await.unwrap().last, lineage);
}
