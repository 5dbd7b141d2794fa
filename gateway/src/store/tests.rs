//! What every store must do, whatever its database: each test is a function over a place where stores can be opened,
//! and the list at the end of this file runs all of them on SQLite, and on PostgreSQL where a server is named by
//! `TEST_POSTGRES_URL`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod audit;
mod backup;
mod bundles;
mod claims;
mod erasures;
mod facets;
mod faults;
mod gateways;
mod imports;
mod invitations;
mod opening;
mod outbox;
mod peers;
pub(crate) mod places;
mod purges;
mod quarantine;
mod records;
mod recovery;
mod reports;
mod server;
mod shared;
mod standing;
mod subscriptions;
mod sums;

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::AtomicI64;

use bytes::Bytes;
use guantong_proto::rules::Lane;

use super::{Options, Store, StoreError, Writer};
use crate::division::Division;
use crate::ingest::changes::{Changes, OutboxGroup, RecordChange, RecordKey};
use crate::ingest::topology::PeerId;
use crate::record::RecordName;
use crate::schema::KindId;
use places::{PostgresPlace, SqlitePlace};

/// Somewhere a store can be opened, closed and opened again.
pub(crate) trait Place: Sized {
    /// Opens the store of county 220822, or makes it.
    fn open(&self, options: Options) -> impl Future<Output = Result<(Store, Writer), StoreError>>;

    /// Opens it as another division's.
    fn open_as(&self, own: Division) -> impl Future<Output = Result<(Store, Writer), StoreError>>;

    /// Everything stored, as text.
    fn dump(&self) -> impl Future<Output = Vec<String>>;

    /// Another place of the same kind, with nothing in it.
    fn another(&self) -> impl Future<Output = Self>;

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
    let before = writer.store().counts().await.unwrap().records as i64;
    let keys: Vec<RecordKey> = (before + 1..=before + count as i64).collect();
    let new = |key: &RecordKey| change(*key, name(CAMERA, "220822101", &format!("c{key:05}")), 0);
    writer.apply(&with_records(keys.iter().map(new).collect()), &[], 1).await.unwrap();
    keys
}

macro_rules! on_both {
    ($($module:ident: $($test:ident),+;)+) => {
        mod on_sqlite {
            use super::*;

            $($(
                #[tokio::test]
                async fn $test() {
                    $module::$test(&SqlitePlace::new()).await;
                }
            )+)+
        }

        mod on_postgres {
            use super::*;

            $($(
                #[tokio::test]
                async fn $test() {
                    if let Some(place) = PostgresPlace::new().await {
                        $module::$test(&place).await;
                    }
                }
            )+)+
        }
    };
}

on_both! {
    records: what_is_written_is_read, many_records_at_once, a_stale_write_is_refused_whole,
        lists_go_page_by_page_in_the_order_of_names, a_home_says_from_when_to_when_it_has_records,
        conflicts_are_listed_until_they_are_settled,
        settled_conflicts_are_listed_latest_first, keys_are_given_out_once, sums_are_kept;
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
    sums: checksums_add_up_and_are_known_when_they_hold_all_records, a_page_finds_each_record_once_while_others_change,
        a_standing_names_what_is_owed_and_refused, checksums_are_forgotten;
    purges: a_purge_waits_for_the_receipts_below;
    bundles: what_is_remembered_of_an_exchange_is_kept_as_it_is, a_version_is_stored_once,
        rows_of_a_bundle_go_with_its_receipt, receipts_wait_until_they_have_arrived, old_bundles_are_forgotten;
    invitations: an_invitation_is_used_once, invitations_are_listed_latest_first;
    audit: entries_are_chained_in_their_order, an_entry_comes_with_what_it_tells_of_or_not_at_all,
        entries_are_listed_latest_first_within_a_time, of_each_day_the_last_checkpoint_is_kept;
    erasures: what_is_remembered_beside_a_record_goes_with_its_content,
        copies_are_found_in_the_log_with_how_many_from_when_to_when;
    standing: it_says_in_which_lane_a_record_waits_since_when_and_what_was_refused;
    reports: reports_are_kept_and_listed, the_number_of_a_report_is_given_once;
    facets: names_lead_through_all_counties, facets_lead_to_records_until_they_are_taken_away,
        changes_are_listed_in_their_order_and_no_two_transactions_share_a_moment;
    faults: a_failure_at_any_statement_changes_nothing, a_dropped_transaction_is_whole_or_not_at_all;
    recovery: the_last_recovery_is_remembered, where_a_store_is_written_is_remembered;
    opening: a_store_is_opened_again_as_it_was, only_its_own_division_opens_a_store, one_process_has_a_store;
}
