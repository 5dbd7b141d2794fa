//! What every store must do, whatever its database: each test is a function over a place where stores can be opened,
//! and the list at the end of this file runs all of them on SQLite.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod claims;
mod faults;
mod imports;
mod opening;
mod outbox;
mod peers;
mod purges;
mod quarantine;
mod records;
mod subscriptions;

use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicI64;

use bytes::Bytes;
use guantong_proto::rules::Lane;
use sqlx::{ConnectOptions, Connection, Row};

use super::{Options, Store, StoreError, Writer, file};
use crate::division::Division;
use crate::ingest::changes::{Changes, OutboxGroup, RecordChange, RecordKey};
use crate::ingest::topology::PeerId;
use crate::record::RecordName;
use crate::schema::KindId;

/// Somewhere a store can be opened, closed and opened again.
pub(super) trait Place {
    /// Opens the store of county 220822, or makes it.
    fn open(&self, options: Options) -> impl Future<Output = Result<(Store, Writer), StoreError>>;

    /// Opens it as another division's.
    fn open_as(&self, own: Division) -> impl Future<Output = Result<(Store, Writer), StoreError>>;

    /// Everything stored, as text.
    fn dump(&self) -> impl Future<Output = Vec<String>>;

    /// The same, opened for a test: fast, without a limit.
    async fn opened(&self) -> (Store, Writer) {
        self.open(fast()).await.unwrap()
    }
}

/// For tests that do not ask what a power loss leaves.
pub(super) fn fast() -> Options {
    Options { durable: false, ..Options::default() }
}

/// Options whose nth statement fails; 0: none does.
pub(super) fn failing(fail_at: &Arc<AtomicI64>) -> Options {
    Options { fail_at_statement: Some(fail_at.clone()), ..fast() }
}

/// A folder with one SQLite file.
pub(super) struct SqlitePlace {
    folder: tempfile::TempDir,
}

impl SqlitePlace {
    pub(super) fn new() -> SqlitePlace {
        SqlitePlace { folder: tempfile::tempdir().unwrap() }
    }

    pub(super) fn path(&self) -> PathBuf {
        self.folder.path().join("inner/node.db")
    }
}

impl Place for SqlitePlace {
    async fn open(&self, options: Options) -> Result<(Store, Writer), StoreError> {
        let mut random = 41;
        let fresh = || {
            random += 1;
            random
        };
        Store::open(&format!("sqlite:{}", self.path().display()), division("220822"), fresh, 1_000, options)
            .await
    }

    async fn open_as(&self, own: Division) -> Result<(Store, Writer), StoreError> {
        Store::open(self.path().to_str().unwrap(), own, || 1, 1, fast()).await
    }

    async fn dump(&self) -> Vec<String> {
        dump_file(&self.path()).await
    }
}

/// Every row of every table, in a fixed order.
pub(super) async fn dump_file(path: &Path) -> Vec<String> {
    let mut conn = file::reading(path).connect().await.unwrap();
    let tables = "SELECT t.name, group_concat('quote(' || c.name || ')', ' || '','' || ')
        FROM sqlite_schema t JOIN pragma_table_info(t.name) c WHERE t.type = 'table' GROUP BY t.name ORDER BY t.name";
    let mut dump = Vec::new();
    for table in sqlx::query(tables).fetch_all(&mut conn).await.unwrap() {
        let (name, columns): (String, String) = (table.get(0), table.get(1));
        let all = format!("SELECT {columns} FROM {name} ORDER BY 1");
        for row in sqlx::query(sqlx::AssertSqlSafe(all)).fetch_all(&mut conn).await.unwrap() {
            dump.push(format!("{name}: {}", row.get::<String, _>(0)));
        }
    }
    conn.close().await.unwrap();
    assert!(!dump.is_empty());
    dump
}

pub(super) const CASE: KindId = KindId(2);
pub(super) const CAMERA: KindId = KindId(3);

pub(super) fn division(code: &str) -> Division {
    Division::parse(code).unwrap()
}

pub(super) fn name(kind: KindId, home: &str, id: &str) -> RecordName {
    RecordName::new(division(home), kind, id).unwrap()
}

/// A record's change; its state says which revision it is.
pub(super) fn change(key: RecordKey, name: RecordName, revision: i64) -> RecordChange {
    let state = Bytes::from(format!("{key} at {}", revision + 1));
    RecordChange { key, name, revision, state, conflicts: None, audience_added: vec![] }
}

pub(super) fn with_records(records: Vec<RecordChange>) -> Changes {
    Changes { records, ..Changes::default() }
}

pub(super) fn group(peer: i64, lane: Lane, keys: impl IntoIterator<Item = RecordKey>) -> OutboxGroup {
    let keys = keys.into_iter().collect();
    OutboxGroup { peer: PeerId(peer), lane, traceparent: None, fresh: false, keys }
}

pub(super) fn owing(groups: Vec<OutboxGroup>) -> Changes {
    Changes { outbox: groups, ..Changes::default() }
}

/// New cameras of one township, with numbers given out by the store.
pub(super) async fn cameras(writer: &mut Writer, count: usize) -> Vec<RecordKey> {
    let keys: Vec<RecordKey> = writer.allocate(count).collect();
    let new = |key: &RecordKey| change(*key, name(CAMERA, "220822101", &format!("c{key:05}")), 0);
    writer.apply(&with_records(keys.iter().map(new).collect()), &[], 1).await.unwrap();
    keys
}

macro_rules! on_sqlite {
    ($($module:ident: $($test:ident),+;)+) => {
        $($(
            #[tokio::test]
            async fn $test() {
                $module::$test(&SqlitePlace::new()).await;
            }
        )+)+
    };
}

on_sqlite! {
    records: what_is_written_is_read, many_records_at_once, a_stale_write_is_refused_whole,
        lists_go_page_by_page_in_the_order_of_names, conflicts_are_listed_until_they_are_settled,
        settled_conflicts_are_listed_latest_first, numbers_are_used_once, sums_are_kept;
    outbox: what_is_owed_is_read_in_order_and_goes_with_its_receipt, outbox_numbers_are_used_once,
        a_record_is_never_older_than_the_row_that_names_it, large_groups_are_cut,
        a_child_is_owed_what_concerns_it, an_outbox_is_joined_before_it_grows_without_bound;
    quarantine: what_is_refused_stays_until_it_is_taken, the_last_receipt_of_an_older_row_ends_no_quarantine,
        what_is_refused_is_owed_again;
    peers: peers_are_kept_as_they_are, writers_keep_their_clocks, an_unknown_writer_is_refused;
    imports: a_ledger_is_remembered, rows_wait_for_their_division, answers_are_remembered_for_a_while;
    subscriptions: a_subscription_is_owed_what_it_covers_until_it_ends;
    claims: claims_are_kept_as_they_are, a_claim_waits_for_all_rows_up_to_its_number_in_every_lane,
        a_claim_waits_for_rows_that_were_joined_under_new_numbers;
    purges: a_purge_waits_for_the_receipts_below;
    faults: a_failure_at_any_statement_changes_nothing, a_dropped_transaction_is_whole_or_not_at_all;
    opening: a_store_is_opened_again_as_it_was, only_its_own_division_opens_a_store, one_process_has_a_store;
}
