//! Records, lists, conflicts, numbers and sums.

use super::*;
use crate::aggregate::{Cell, Entries, TallyChange};
use crate::ingest::changes::Resolution;

pub(super) async fn what_is_written_is_read(place: &impl Place) {
    let (store, mut writer) = place.opened().await;
    let (first, second) = (name(CASE, "220822101", "争议-1"), name(CAMERA, "2208", "x"));
    let new = with_records(vec![change(1, first.clone(), 0), change(2, second.clone(), 0)]);
    assert_eq!(writer.apply(&new, &[], 1).await.unwrap(), 1);
    assert_eq!(writer.apply(&with_records(vec![change(2, second.clone(), 1)]), &[], 2).await.unwrap(), 2);

    let missing = name(CASE, "220822101", "x");
    let loaded = writer.load(&[second.clone(), missing.clone(), first.clone()]).await.unwrap();
    let shown = |l: &Option<crate::store::Loaded>| l.as_ref().map(|l| (l.key, l.revision, l.state.clone()));
    assert_eq!(shown(&loaded[0]), Some((2, 2, "2 at 2".into())));
    assert_eq!(loaded[1], None);
    assert_eq!(shown(&loaded[2]), Some((1, 1, "1 at 1".into())));
    assert_eq!(store.get(&second).await.unwrap(), loaded[0]);
    assert_eq!(store.get(&missing).await.unwrap(), None);
    let names = [second.clone(), missing.clone(), first.clone()];
    assert_eq!(store.get_many(&names).await.unwrap(), loaded);

    let by_key = writer.load_keys(&[2, 99, 1]).await.unwrap();
    assert_eq!(by_key.iter().map(|r| (r.key, r.name.clone())).collect::<Vec<_>>(), [(2, second), (1, first)]);
    assert_eq!(store.scan(0, 1).await.unwrap()[0].key, 1);
    assert_eq!(store.scan(1, 9).await.unwrap()[0].state, "2 at 2");
    assert_eq!(store.counts().await.unwrap().records, 2);
    assert_eq!(store.meta().await.unwrap().revision, 2);
}

/// More than one statement's worth, in each of the sizes that statements have.
pub(super) async fn many_records_at_once(place: &impl Place) {
    let (_, mut writer) = place.opened().await;
    let keys = cameras(&mut writer, 1_388).await;
    let named = |key: &RecordKey| name(CAMERA, "220822101", &format!("c{key:05}"));
    let update: Vec<_> =
        keys.iter().filter(|key| *key % 2 == 0).map(|key| change(*key, named(key), 1)).collect();
    writer.apply(&with_records(update), &[], 1).await.unwrap();
    let loaded = writer.load(&keys.iter().map(named).collect::<Vec<_>>()).await.unwrap();
    assert_eq!(loaded.len(), keys.len());
    for (key, loaded) in keys.iter().zip(loaded) {
        let loaded = loaded.unwrap();
        let revision = if key % 2 == 0 { 2 } else { 1 };
        assert_eq!((loaded.key, loaded.revision), (*key, revision));
        assert_eq!(loaded.state, format!("{key} at {revision}"));
    }
    let scattered: Vec<RecordKey> = keys.iter().copied().filter(|key| key % 3 == 0).collect();
    let found = writer.load_keys(&scattered).await.unwrap();
    assert_eq!(found.iter().map(|r| r.key).collect::<Vec<_>>(), scattered);
}

pub(super) async fn a_stale_write_is_refused_whole(place: &impl Place) {
    let (_store, mut writer) = place.opened().await;
    let (held, other) = (name(CASE, "220822101", "held"), name(CASE, "220822101", "other"));
    writer.apply(&with_records(vec![change(1, held.clone(), 0)]), &[], 1).await.unwrap();
    let before = place.dump().await;
    for stale in [
        change(9, held.clone(), 0),
        change(1, held.clone(), 0),
        change(1, held.clone(), 2),
        change(7, held, 1),
    ] {
        let group = with_records(vec![change(2, other.clone(), 0), stale]);
        assert_eq!(writer.apply(&group, &[], 2).await, Err(StoreError::Stale));
        assert_eq!(place.dump().await, before);
    }
    writer.apply(&with_records(vec![change(2, other, 0)]), &[], 3).await.unwrap();
}

pub(super) async fn lists_go_page_by_page_in_the_order_of_names(place: &impl Place) {
    let (store, mut writer) = place.opened().await;
    let homes =
        ["22", "2208", "220822", "220822101", "220822102", "220881", "220881001", "441900003", "4419"];
    let mut all = Vec::new();
    for kind in [CASE, CAMERA] {
        for home in homes {
            all.extend(["b", "a", "ab"].map(|id| name(kind, home, id)));
        }
    }
    let records = all.iter().zip(1..).map(|(name, key)| change(key, name.clone(), 0)).collect();
    writer.apply(&with_records(records), &[], 1).await.unwrap();
    for scope in homes.iter().map(|home| Some(division(home))).chain([None, Some(division("4419"))]) {
        let inside = |n: &&RecordName| n.kind == CAMERA && scope.is_none_or(|s| s.contains(n.home));
        let mut expected: Vec<RecordName> = all.iter().filter(inside).cloned().collect();
        expected.sort();
        let mut listed: Vec<RecordName> = Vec::new();
        loop {
            let after = listed.last().map(|n| (n.home, &*n.id));
            let page = store.list(CAMERA, scope, after, 2).await.unwrap();
            if page.is_empty() {
                break;
            }
            listed.extend(page.into_iter().map(|r| r.name));
        }
        assert_eq!(listed, expected, "{scope:?}");
    }
    assert!(store.list(KindId(9), None, None, 10).await.unwrap().is_empty());
}

pub(super) async fn a_home_says_from_when_to_when_it_has_records(place: &impl Place) {
    let (store, mut writer) = place.opened().await;
    let homes = ["220822101", "220822101", "220822102", "220881101"];
    let ids = ["2026-10", "2026-08", "2026-09", "2026-07"];
    let named = homes.iter().zip(ids).map(|(home, id)| name(CAMERA, home, id));
    let records = named.zip(1..).map(|(name, key)| change(key, name, 0)).collect();
    writer.apply(&with_records(records), &[], 1).await.unwrap();
    let other = change(9, name(CASE, "220822101", "2025-01"), 0);
    writer.apply(&with_records(vec![other]), &[], 1).await.unwrap();
    let spans = async |scope: &str, counties: &[&str]| {
        let counties: Vec<Division> = counties.iter().map(|code| division(code)).collect();
        let found = store.spans(CAMERA, division(scope), &counties).await.unwrap();
        found.into_iter().map(|s| (s.home, s.first, s.last)).collect::<Vec<_>>()
    };
    let span = |home: &str, first: &str, last: &str| (division(home), first.to_owned(), last.to_owned());
    let (one, two) = (span("220822101", "2026-08", "2026-10"), span("220822102", "2026-09", "2026-09"));
    let all = [one.clone(), two.clone(), span("220881101", "2026-07", "2026-07")];
    assert_eq!(spans("2208", &["220822", "220881"]).await, all);
    assert_eq!(spans("2208", &["220822"]).await, [one, two.clone()]);
    assert_eq!(spans("220822102", &["220822"]).await, [two]);
}

pub(super) async fn conflicts_are_listed_until_they_are_settled(place: &impl Place) {
    let (store, mut writer) = place.opened().await;
    let names = ["220822102", "220822101", "220881"].map(|home| name(CASE, home, "x"));
    let records = names.iter().zip(1..).map(|(name, key)| {
        let conflicts = Some(vec![3, 7]);
        RecordChange { conflicts, ..change(key, name.clone(), 0) }
    });
    writer.apply(&with_records(records.collect()), &[], 1).await.unwrap();
    let mut listed = Vec::new();
    while let page = store.conflicts(None, listed.last().map(|(n, f)| (n, *f)), 2).await.unwrap()
        && !page.is_empty()
    {
        assert!(page.iter().all(|c| c.state == format!("{} at 1", c.key)));
        listed.extend(page.into_iter().map(|c| (c.name, c.field)));
    }
    let [b, a, c] = names.clone();
    assert_eq!(listed, [(a.clone(), 3), (a.clone(), 7), (b.clone(), 3), (b, 7), (c.clone(), 3), (c, 7)]);
    let of = async |scope: &str| store.conflicts(Some(division(scope)), None, 9).await.unwrap().len();
    assert_eq!((of("220822101").await, of("220822").await, of("2208").await, of("21").await), (2, 4, 6, 0));

    let settled = |fields| with_records(vec![RecordChange { conflicts: fields, ..change(2, a.clone(), 1) }]);
    writer.apply(&settled(Some(vec![7])), &[], 2).await.unwrap();
    assert_eq!(of("220822101").await, 1);
    let kept = with_records(vec![change(2, a.clone(), 2)]);
    writer.apply(&kept, &[], 3).await.unwrap();
    assert_eq!(of("220822101").await, 1, "a change that says nothing of conflicts leaves them");
    let none = with_records(vec![RecordChange { conflicts: Some(vec![]), ..change(2, a.clone(), 3) }]);
    writer.apply(&none, &[], 4).await.unwrap();
    assert_eq!((of("220822101").await, store.counts().await.unwrap().conflicts), (0, 4));
}

pub(super) async fn settled_conflicts_are_listed_latest_first(place: &impl Place) {
    let (store, mut writer) = place.opened().await;
    let records = vec![change(1, name(CASE, "220822101", "a"), 0), change(2, name(CASE, "220881", "b"), 0)];
    let resolution = |key, field, resolved_ms| Resolution {
        key,
        field,
        before: Bytes::from("old"),
        after: Bytes::from("new"),
        resolved_ms,
    };
    let resolutions = vec![resolution(1, 4, 10), resolution(2, 5, 11)];
    writer.apply(&Changes { resolutions, ..with_records(records) }, &[], 1).await.unwrap();
    let later = Changes { resolutions: vec![resolution(1, 6, 12)], ..Changes::default() };
    writer.apply(&later, &[], 1).await.unwrap();
    let all = store.resolutions(None, None, 9).await.unwrap();
    let seen: Vec<_> = all.iter().map(|r| (r.key, r.field, r.resolved_ms)).collect();
    assert_eq!(seen, [(1, 6, 12), (2, 5, 11), (1, 4, 10)]);
    assert_eq!(
        (all[1].name.clone(), &all[1].before[..], &all[1].after[..]),
        (name(CASE, "220881", "b"), &b"old"[..], &b"new"[..])
    );
    let county = store.resolutions(Some(division("220822")), Some(all[0].id), 9).await.unwrap();
    assert_eq!(county.iter().map(|r| r.field).collect::<Vec<_>>(), [4]);
}

pub(super) async fn keys_are_given_out_once(place: &impl Place) {
    let (store, mut writer) = place.opened().await;
    let homes = [division("220822101"), division("2208"), division("220822")];
    let mut given = writer.allocate(&homes).await.unwrap();
    given.extend(writer.allocate(&vec![homes[0]; 40_000]).await.unwrap());
    assert!(writer.allocate(&[]).await.unwrap().is_empty());
    let stored = given[1];
    writer.apply(&with_records(vec![change(stored, name(CASE, "2208", "a"), 0)]), &[], 1).await.unwrap();
    assert_eq!(writer.load_keys(&[stored, given[0]]).await.unwrap().len(), 1);
    store.close().await;
    writer.close().await.unwrap();
    drop(store);
    let (_store, mut writer) = place.opened().await;
    given.extend(writer.allocate(&homes).await.unwrap());
    let count = given.len();
    given.sort_unstable();
    given.dedup();
    assert_eq!((count, given.len()), (40_006, 40_006));
}

pub(super) async fn sums_are_kept(place: &impl Place) {
    use crate::ingest::changes::LinkChange;
    use crate::store::{TallyPeriods, TallyRange, TallyRow};
    let (store, mut writer) = place.opened().await;
    let change = |code: &str, period, restates, adds: &[(u64, i64)]| TallyChange {
        cell: Cell { division: division(code), period },
        restates,
        adds: adds.to_vec(),
    };
    let add = |tallies| Changes { tallies, ..Changes::default() };
    let first = vec![
        change("220822", Cell::ALL, false, &[(1, 5), (7, 2)]),
        change("220822", 202_610, true, &[(3, 1)]),
        change("220822101", 202_610, false, &[(3, 1)]),
        change("220881", 202_611, false, &[(3, 4)]),
    ];
    writer.apply(&add(first), &[], 1).await.unwrap();
    let second = vec![
        change("220822", Cell::ALL, false, &[(1, -2), (7, -2), (900, 1)]),
        change("220822", 202_610, true, &[(2, -1)]),
    ];
    writer.apply(&add(second), &[], 1).await.unwrap();
    let read = async |townships, periods, scope| {
        let ranges = [TallyRange { townships, periods, scope: division(scope) }];
        let mut rows = store.tallies(&ranges).await.unwrap();
        rows.sort_by_key(|row| row.cell);
        let numbers = |row: &TallyRow| Entries::of(&row.numbers).collect::<Result<Vec<_>, _>>().unwrap();
        rows.iter().map(|r| (r.cell.division, r.cell.period, r.revision, numbers(r))).collect::<Vec<_>>()
    };
    let county = division("220822");
    assert_eq!(
        read(false, TallyPeriods::Listed(vec![Cell::ALL, 202_610]), "2208").await,
        [(county, 0, 0, vec![(1, 3), (900, 1)]), (county, 202_610, 2, vec![(2, -1), (3, 1)])]
    );
    assert_eq!(read(false, TallyPeriods::Between(202_601, 202_612), "220881").await.len(), 1);
    assert_eq!(read(true, TallyPeriods::Between(202_601, 202_612), "220822").await[0].3, [(3, 1)]);
    assert!(read(true, TallyPeriods::Listed(vec![202_610]), "220881").await.is_empty());
    writer.apply(&Changes::default(), &[LinkChange::ForgetJudgements], 1).await.unwrap();
    let forgotten = read(false, TallyPeriods::Listed(vec![202_610]), "22").await;
    assert_eq!(forgotten, [(county, 202_610, 2, vec![])], "how often it was revised stays known");
}
