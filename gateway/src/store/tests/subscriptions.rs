//! Subscriptions, and what they are owed at once.

use super::outbox::owed_keys;
use super::peers::peer;
use super::*;
use crate::ingest::changes::{CoveredKinds, LinkChange, Subscription};
use crate::ingest::topology::{Interest, Role};

fn subscription(peer: i64, scope: &str, kinds: &[KindId]) -> Subscription {
    Subscription {
        peer: PeerId(peer),
        id: format!("feed-{peer}"),
        owner: Some("hotline".into()),
        interest: Interest { scope: division(scope), kinds: kinds.to_vec() },
        personal: true,
        filled_for: u64::MAX,
        created_ms: 5,
    }
}

pub(super) async fn a_subscription_is_owed_what_it_covers_until_it_ends(place: &impl Place) {
    const DIVISION: KindId = KindId(4);
    let (store, mut writer) = place.opened().await;
    let records = vec![
        change(1, name(CASE, "220822101", "own"), 0),
        change(2, name(CAMERA, "220822101", "own"), 0),
        change(3, name(CASE, "220881001", "elsewhere"), 0),
        RecordChange {
            audience_added: vec![division("220822102")],
            ..change(4, name(CASE, "220881001", "handed"), 0)
        },
        change(5, name(DIVISION, "22", "above"), 0),
    ];
    writer.apply(&with_records(records), &[], 1).await.unwrap();
    let begin = |subscription: &Subscription, kinds: &[KindId], subtree: &[KindId]| {
        let numbers = |kinds: &[KindId]| kinds.iter().map(|k| k.0).collect();
        let kinds = CoveredKinds { all: numbers(kinds), subtree: numbers(subtree) };
        LinkChange::Subscribe { subscription: subscription.clone(), kinds }
    };
    let mut cases = Subscription { owner: None, ..subscription(1, "220822", &[CASE]) };
    let all = subscription(2, "220822", &[]);
    let links = [
        LinkChange::Peer(peer(1, Role::Partner, "220822")),
        begin(&cases, &[CASE], &[]),
        begin(&all, &[CASE, CAMERA, DIVISION], &[DIVISION]),
    ];
    writer.apply(&Changes::default(), &links, 9).await.unwrap();
    assert_eq!(store.subscriptions().await.unwrap(), [cases.clone(), all.clone()]);
    assert_eq!(store.peers().await.unwrap()[0].role, Role::Partner);
    assert_eq!(owed_keys(&store, 1, Lane::Bulk).await, [1, 4]);
    assert_eq!(owed_keys(&store, 2, Lane::Bulk).await, [1, 2, 4, 5]);

    cases.filled_for = 7;
    writer.apply(&Changes::default(), &[begin(&cases, &[CASE], &[])], 9).await.unwrap();
    assert_eq!(store.subscriptions().await.unwrap()[0].filled_for, 7);
    assert_eq!(store.backlog(PeerId(1)).await.unwrap().bulk.count, 2, "all of it again, once");

    writer.apply(&Changes::default(), &[LinkChange::Unsubscribe(PeerId(1))], 9).await.unwrap();
    assert_eq!(store.subscriptions().await.unwrap(), [all]);
    assert!(owed_keys(&store, 1, Lane::Bulk).await.is_empty() && store.peers().await.unwrap().is_empty());
    assert_eq!(store.backlog(PeerId(1)).await.unwrap(), Default::default());
    assert_eq!(owed_keys(&store, 2, Lane::Bulk).await, [1, 2, 4, 5], "others keep theirs");
}
