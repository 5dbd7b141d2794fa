//! Invitations: kept as they are, used once, listed with the latest first.

use super::*;
use crate::ingest::changes::LinkChange;
use crate::invitation::{Fate, Invitation, secret_hash};

fn invitation(id: u64, created_ms: u64) -> Invitation {
    Invitation {
        id,
        secret_hash: secret_hash(&id.to_be_bytes()),
        division: division("220822101"),
        hosts: vec!["town.example".into(), "10.0.0.1".into()],
        created_ms,
        created_by: "operator li.wei".into(),
        expire_ms: created_ms + 10,
        fate: Fate::Open,
    }
}

fn decided(id: u64, fate: &Fate) -> [LinkChange; 1] {
    [LinkChange::Invited { id, fate: fate.clone() }]
}

pub(super) async fn an_invitation_is_used_once(place: &impl Place) {
    let (store, mut writer) = place.opened().await;
    // Numbers are drawn from all 64 bits.
    let new = invitation(u64::MAX - 3, 50);
    writer.apply(&Changes::default(), &[LinkChange::Invite(new.clone())], 1).await.unwrap();
    assert_eq!(store.invitation(&new.secret_hash).await.unwrap(), Some(new.clone()));
    assert_eq!(store.invitation(&secret_hash(b"another")).await.unwrap(), None);

    let used = Fate::Used { at_ms: 55, key_hash: [3; 32], answer: vec![1, 2] };
    writer.apply(&Changes::default(), &decided(new.id, &used), 1).await.unwrap();
    let again = Fate::Used { at_ms: 56, key_hash: [4; 32], answer: vec![] };
    for late in [&again, &Fate::Withdrawn { at_ms: 57 }] {
        let refused = writer.apply(&Changes::default(), &decided(new.id, late), 1).await;
        assert_eq!(refused, Err(StoreError::Stale));
    }
    assert_eq!(store.invitation_of(new.id).await.unwrap(), Some(Invitation { fate: used, ..new }));
}

pub(super) async fn invitations_are_listed_latest_first(place: &impl Place) {
    let (store, mut writer) = place.opened().await;
    let rows = [invitation(3, 50), invitation(2, 70), invitation(9, 50), invitation(4, 60)];
    for row in &rows {
        writer.apply(&Changes::default(), &[LinkChange::Invite(row.clone())], 1).await.unwrap();
    }
    let mut listed: Vec<(u64, u64)> = Vec::new();
    loop {
        let page = store.invitations(listed.last().copied(), 1).await.unwrap();
        if page.is_empty() {
            break;
        }
        listed.extend(page.iter().map(|row| (row.created_ms, row.id)));
    }
    assert_eq!(listed, [(70, 2), (60, 4), (50, 9), (50, 3)]);
}
