//! The ways of lists: each leads to every record of it exactly once, a stretch at a time.

use super::*;
use crate::facet::{Facet, FacetValue, of_holder, of_holders};
use crate::ingest::changes::FacetRow;
use crate::store::{Position, Way};

/// All that a way leads to, in stretches of so many.
async fn walk(store: &Store, kind: KindId, scope: &str, way: Way, limit: usize) -> Vec<RecordKey> {
    let (mut found, mut from): (Vec<RecordKey>, Option<Position>) = (Vec::new(), None);
    loop {
        let stretch = store.stretch(kind, division(scope), way, from.as_ref(), limit).await.unwrap();
        assert!(stretch.keys.len() <= limit);
        found.extend(stretch.keys.iter().map(|(key, _)| *key));
        if stretch.next.is_none() {
            return found;
        }
        assert_ne!(stretch.next, from, "a way must get on");
        from = stretch.next;
    }
}

fn row(facet: Facet, value: i64, home: &str, key: RecordKey) -> FacetRow {
    FacetRow { value: FacetValue { facet: facet.number(CASE), value }, home: division(home), key }
}

pub(super) async fn names_lead_through_all_counties(place: &impl Place) {
    let (store, mut writer) = place.opened().await;
    // More counties without the kind than one stretch looks into, and homes that are no county.
    let mut all: Vec<RecordName> = (1..=60).map(|n| name(CAMERA, &format!("2208{n:02}"), "x")).collect();
    all.extend(["22", "2208", "220801001", "220860001", "220860002"].map(|home| name(CASE, home, "b")));
    all.extend(["2208", "220860001"].map(|home| name(CASE, home, "a")));
    let homes: Vec<Division> = all.iter().map(|name| name.home).collect();
    let keys = writer.allocate(&homes).await.unwrap();
    let numbered: Vec<(RecordName, RecordKey)> = all.into_iter().zip(keys).collect();
    let records = numbered.iter().map(|(name, key)| change(*key, name.clone(), 0)).collect();
    writer.apply(&with_records(records), &[], 1).await.unwrap();
    for scope in ["22", "2208", "220801", "220860", "220860001", "220860002", "220899"] {
        let inside = |(n, _): &&(RecordName, RecordKey)| n.kind == CASE && division(scope).contains(n.home);
        let mut expected: Vec<&(RecordName, RecordKey)> = numbered.iter().filter(inside).collect();
        expected.sort();
        let expected: Vec<RecordKey> = expected.into_iter().map(|(_, key)| *key).collect();
        for limit in [1, 2, 100] {
            assert_eq!(walk(&store, CASE, scope, Way::Names, limit).await, expected, "{scope}");
        }
    }
    let found = store.find(&numbered[0].0).await.unwrap().unwrap();
    assert_eq!((found.key, found.name), (numbered[0].1, numbered[0].0.clone()));
}

pub(super) async fn facets_lead_to_records_until_they_are_taken_away(place: &impl Place) {
    let (store, mut writer) = place.opened().await;
    let homes = ["220822101", "220822102", "220881"];
    let records: Vec<RecordChange> =
        homes.iter().zip(1..).map(|(home, key)| change(key, name(CASE, home, "x"), 0)).collect();
    let states: Vec<FacetRow> =
        homes.iter().zip(1..).map(|(home, key)| row(Facet::State, 2, home, key)).collect();
    let held = |home: &str, key| row(Facet::Holder, of_holder(division(home), "police"), home, key);
    let holders: Vec<FacetRow> = homes.iter().zip(1..).map(|(home, key)| held(home, key)).collect();
    let facets_added = [states.clone(), holders].concat();
    writer.apply(&Changes { facets_added, ..with_records(records) }, &[], 1).await.unwrap();
    let state = |value| Way::Facet { facet: Facet::State.number(CASE), first: value, last: value };
    for limit in [1, 2, 9] {
        assert_eq!(walk(&store, CASE, "22", state(2), limit).await, vec![1, 2, 3]);
        assert_eq!(walk(&store, CASE, "220822", state(2), limit).await, vec![1, 2]);
        assert_eq!(walk(&store, CASE, "220822102", state(2), limit).await, vec![2]);
        assert!(walk(&store, CASE, "22", state(3), limit).await.is_empty());
    }
    let (first, last) = of_holders(division("220822")).into_inner();
    let holder = Way::Facet { facet: Facet::Holder.number(CASE), first, last };
    assert_eq!(walk(&store, CASE, "2299", holder, 1).await, vec![1, 2], "whatever the scope");
    // The second moves on.
    let (removed, added) = (vec![states[1]], vec![row(Facet::State, 3, homes[1], 2)]);
    let moved = change(2, name(CASE, homes[1], "x"), 1);
    let changes = Changes { facets_removed: removed, facets_added: added, ..with_records(vec![moved]) };
    writer.apply(&changes, &[], 2).await.unwrap();
    assert_eq!(walk(&store, CASE, "22", state(2), 9).await, vec![1, 3]);
    assert_eq!(walk(&store, CASE, "22", state(3), 9).await, vec![2]);
}

pub(super) async fn changes_are_listed_in_their_order_and_no_two_transactions_share_a_moment(
    place: &impl Place,
) {
    let (store, mut writer) = place.opened().await;
    // The clock stands still, and goes back.
    for (key, now_ms) in (1..=6).zip([10, 10, 10, 7, 7, 40]) {
        let new = change(key, name(CAMERA, "220822101", &format!("{key}")), 0);
        writer.apply(&with_records(vec![new]), &[], now_ms).await.unwrap();
    }
    for limit in [1, 4, 6, 7] {
        assert_eq!(walk(&store, CAMERA, "22", Way::Updated(0), limit).await, vec![1, 2, 3, 4, 5, 6]);
    }
    let listed = store.listed(&[2, 3]).await.unwrap();
    assert_ne!(listed[0].updated_ms, listed[1].updated_ms);
    assert_eq!(walk(&store, CAMERA, "22", Way::Updated(40), 9).await, vec![6], "from this moment on");
    writer.apply(&with_records(vec![change(2, name(CAMERA, "220822101", "2"), 1)]), &[], 50).await.unwrap();
    assert_eq!(walk(&store, CAMERA, "22", Way::Updated(0), 9).await, vec![1, 3, 4, 5, 6, 2]);
    assert!(walk(&store, CASE, "22", Way::Updated(0), 9).await.is_empty());
}
