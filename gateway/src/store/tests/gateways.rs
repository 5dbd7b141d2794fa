//! Several gateways on one database of PostgreSQL: what they share, what they hear of each other, and what one of them
//! does for all.

use super::peers::peer;
use super::places::PostgresPlace;
use super::*;
use crate::ingest::changes::LinkChange;
use crate::ingest::topology::Role;
use crate::store::Notice;

async fn open(place: &PostgresPlace) -> (Store, Writer) {
    place.open(Options { processes_max: 8, ..fast() }).await.unwrap()
}

fn child() -> LinkChange {
    LinkChange::Peer(peer(1, Role::Child, "220822101"))
}

fn record(key: RecordKey) -> Changes {
    with_records(vec![change(key, name(CAMERA, "220822101", &format!("c{key}")), 0)])
}

#[tokio::test]
async fn what_was_decided_before_a_shared_change_is_refused() {
    let Some(place) = PostgresPlace::new().await else { return };
    let ((store, mut first), (_, mut second)) = (open(&place).await, open(&place).await);
    let openings = second.openings();
    first.apply(&Changes::default(), &[child()], 1).await.unwrap();
    let before = place.dump().await;
    for _ in 0..2 {
        let refused = second.apply(&record(1), &[], 1).await;
        assert_eq!(refused, Err(StoreError::Outdated), "until it has read what changed");
    }
    assert_eq!(place.dump().await, before);
    second.decide_from(store.view().await.unwrap());
    second.apply(&record(1), &[], 1).await.unwrap();
    first.apply(&record(2), &[], 1).await.unwrap();
    assert_eq!(first.apply(&record(1), &[], 1).await, Err(StoreError::Stale), "made by the other");
    assert_eq!(second.openings(), openings, "a refusal costs no connection");
    assert_eq!(store.counts().await.unwrap().records, 2);
}

/// Whoever shares something waits for transactions that began before, and those that begin later wait for it.
#[tokio::test]
async fn a_shared_change_waits_for_what_was_decided_before_it() {
    let Some(place) = PostgresPlace::new().await else { return };
    let ((store, mut first), (_, mut second)) = (open(&place).await, open(&place).await);
    // A transaction that does not end: it holds what every transaction holds.
    let mut other = place.connect().await;
    let hold = "BEGIN; SELECT pg_advisory_xact_lock_shared(classid::int, (objid::bigint - CASE WHEN objid::bigint \
                > 2147483647 THEN 4294967296 ELSE 0 END)::int) FROM (SELECT 1196715824::oid AS classid, objid \
                FROM pg_locks WHERE locktype = 'advisory' AND classid = 1196715624 LIMIT 1) AS held";
    sqlx::raw_sql(hold).execute(&mut other).await.unwrap();
    second.apply(&record(1), &[], 1).await.unwrap();
    let links = [child()];
    let nothing = Changes::default();
    let shared = first.apply(&nothing, &links, 1);
    tokio::pin!(shared);
    tokio::select! {
        _ = &mut shared => panic!("it passes by a transaction that is under way"),
        () = someone_waits(&place) => {}
    }
    sqlx::raw_sql("COMMIT").execute(&mut other).await.unwrap();
    shared.await.unwrap();
    assert_eq!(store.view().await.unwrap().revision, 1);
}

/// Waits until the database says that someone waits for an advisory lock.
async fn someone_waits(place: &PostgresPlace) {
    let mut looking = place.connect().await;
    let waiting = "SELECT count(*) FROM pg_locks JOIN pg_database ON pg_database.oid = pg_locks.database
        WHERE locktype = 'advisory' AND NOT granted AND datname = current_database()";
    while sqlx::query_scalar::<_, i64>(waiting).fetch_one(&mut looking).await.unwrap() == 0 {}
}

#[tokio::test]
async fn a_duty_is_one_gateways_until_it_ends() {
    let Some(place) = PostgresPlace::new().await else { return };
    let ((one, first), (two, _second)) = (open(&place).await, open(&place).await);
    assert_eq!(one.live_slots().await.unwrap(), [0, 1]);
    let mut held = one.hold_duty().await.unwrap().unwrap();
    assert!(two.hold_duty().await.unwrap().is_none());
    held.check().await.unwrap();
    // Its line breaks.
    place
        .script(
            "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND classid = 1196715825",
        )
        .await;
    assert!(held.check().await.is_err());
    let mut next = two.hold_duty().await.unwrap().unwrap();
    next.check().await.unwrap();
    assert!(one.hold_duty().await.unwrap().is_none());
    first.close().await.unwrap();
    let mut looks = 0;
    while two.live_slots().await.unwrap() != [1] {
        looks += 1;
        assert!(looks < 1_000, "a gateway that ended is still listed");
    }
}

#[tokio::test]
async fn gateways_hear_what_others_did() {
    let Some(place) = PostgresPlace::new().await else { return };
    let ((_, mut first), (two, _second)) = (open(&place).await, open(&place).await);
    let mut notices = two.notices().await.unwrap().unwrap();
    let failed = first.apply(&record(7), &[child()], 1).await;
    failed.unwrap();
    let owed = Changes { outbox: vec![group(1, Lane::Urgent, [7]), group(4, Lane::Bulk, [7])], ..record(8) };
    first.apply(&owed, &[], 1).await.unwrap();
    let backfill = LinkChange::Backfill { peer: PeerId(1), scope: None, subtree_kinds: vec![] };
    first.apply(&Changes::default(), &[backfill], 1).await.unwrap();
    let nothing = Notice::default();
    let woken = [(PeerId(1), Lane::Urgent as usize), (PeerId(4), Lane::Bulk as usize)].into();
    for expected in [
        Notice { shares: true, ..nothing.clone() },
        Notice { woken, ..nothing.clone() },
        Notice { shares: true, all: true, ..nothing },
    ] {
        assert_eq!(notices.next().await.unwrap(), expected);
    }
}
