//! One transaction: all that was decided for a group of writes, whole or not at all.

use std::sync::atomic::AtomicI64;

use super::sql::{Args, Conn, Sql};
use super::{
    StoreError, View, Writer, audit, bundles, claims, erasure, facets, gateways, grants, history, imports,
    invitations, outbox, peers, proofs, quarantine, records, recovery, reports, subscriptions, sums, tallies,
};
use crate::audit::Note;
use crate::ingest::changes::{Changes, LinkChange};
use crate::step::Step;

impl Writer {
    /// Applies `changes` and `links` in one transaction and gives its number. When it returns, all of it is on disk.
    ///
    /// # Errors
    /// Then nothing of it is stored. `Stale`: a record is not as it was when it was read, or exists although it was
    /// thought new, as may happen with a record that a peer marked fresh; read again and decide again. `Outdated`: the
    /// same of what gateways keep in memory.
    pub async fn apply(
        &mut self,
        changes: &Changes,
        links: &[LinkChange],
        now_ms: u64,
    ) -> Result<u64, StoreError> {
        let mut conn = self.ready().await?;
        // Lists in the order of changes go on after a moment: no two transactions share one.
        let moment_ms = now_ms.max(self.moment_ms + 1);
        let moments = (moment_ms, now_ms);
        let faults = self.faults.as_deref();
        let outcome = transact(&mut conn, faults, self.view, changes, links, moments).await;
        let (revision, view) = self.done(conn, outcome).await?;
        self.view = view;
        self.moment_ms = if changes.records.is_empty() { self.moment_ms } else { moment_ms };
        Ok(revision)
    }

    /// The connection for a transaction, if this is still the place that was decided from.
    pub(super) async fn ready(&mut self) -> Result<Conn, StoreError> {
        let slot = self.database.slot();
        let conn = self.take().await?;
        if self.database.slot() != slot {
            // Writers and keys of the place before are another gateway's now.
            self.conn = Some(conn);
            return Err(StoreError::Outdated);
        }
        Ok(conn)
    }

    /// Puts the connection back after a transaction, unless it failed.
    pub(super) async fn done<T>(
        &mut self,
        mut conn: Conn,
        outcome: Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        match outcome {
            Ok(done) => {
                self.conn = Some(conn);
                Ok(done)
            }
            Err(error) => {
                // What others did is no reason to give up the connection, and with it the slot.
                if error.is_stale() && conn.sql(None).run("ROLLBACK", Args::new()).await.is_ok() {
                    self.conn = Some(conn);
                    return Err(error);
                }
                // Closing undoes what was begun, whatever state the failure left the connection in.
                let _ = conn.close().await;
                Err(error)
            }
        }
    }
}

async fn transact(
    conn: &mut Conn,
    faults: Option<&AtomicI64>,
    view: View,
    changes: &Changes,
    links: &[LinkChange],
    (moment_ms, now_ms): (u64, u64),
) -> Result<(u64, View), StoreError> {
    let mut sql = conn.sql(faults);
    let after = gateways::begin(&mut sql, view, changes, links).await?;
    Step::TransactionBegun.reached();
    let created = records::write(&mut sql, &changes.records, moment_ms).await?;
    for change in links {
        link(&mut sql, change, now_ms).await?;
    }
    facets::change(&mut sql, &changes.facets_removed, &changes.facets_added).await?;
    outbox::add(&mut sql, &changes.outbox, now_ms).await?;
    tallies::add(&mut sql, &changes.tallies).await?;
    sums::add(&mut sql, &changes.sums).await?;
    peers::clocks(&mut sql, &changes.clocks).await?;
    history::resolve(&mut sql, &changes.resolutions).await?;
    history::answer(&mut sql, &changes.requests, now_ms).await?;
    history::purge(&mut sql, &changes.purges, &changes.purged).await?;
    imports::remember(&mut sql, &changes.import_rows).await?;
    imports::hold(&mut sql, &changes.held, &changes.released_rows).await?;
    let erased = erasure::forget(&mut sql, &changes.erased).await?;
    let notes: Vec<&Note> = changes.audit.iter().chain(&erased).collect();
    audit::append(&mut sql, &notes, now_ms).await?;
    let count = "UPDATE node SET revision = revision + 1, records = records + ? WHERE slot = ?";
    sql.run(count, Args::ints(&[created as i64, sql.slot()])).await?;
    let revision = gateways::tell(&mut sql, after != view, changes, links).await?;
    Step::TransactionWritten.reached();
    sql.run("COMMIT", Args::new()).await?;
    Step::Committed.reached();
    Ok((revision, after))
}

async fn link(sql: &mut Sql<'_>, change: &LinkChange, now_ms: u64) -> Result<(), StoreError> {
    match change {
        LinkChange::NewWriter(writer) => peers::new_writer(sql, writer).await,
        LinkChange::GiveUp(writer) => peers::give_up(sql, *writer).await,
        LinkChange::NewEpoch { epoch, at_ms } => {
            sql.run("UPDATE shared SET renewed_ms = ?", Args::ints(&[*at_ms as i64])).await?;
            sql.run("UPDATE node SET epoch = ?", Args::ints(&[*epoch as i64])).await.map(|_| ())
        }
        LinkChange::Lineage(lineage) => recovery::move_to(sql, *lineage).await,
        LinkChange::Recovery(recovery) => recovery::put(sql, recovery).await,
        LinkChange::ForgetJudgements => {
            tallies::forget(sql).await?;
            sums::forget(sql, None).await?;
            sql.run("DELETE FROM facet", Args::new()).await?;
            sql.run("DELETE FROM conflict", Args::new()).await.map(|_| ())
        }
        LinkChange::Recounted(more) => records::recounted(sql, *more).await,
        LinkChange::ForgetSums(peer) => sums::forget(sql, Some(*peer)).await,
        LinkChange::Learned(schema) => {
            let learned = "UPDATE node SET schema_fingerprint = ?";
            sql.run(learned, Args::new().blob(schema)).await.map(|_| ())
        }
        LinkChange::Peer(peer) => peers::put(sql, peer).await,
        LinkChange::Seen { peer, revision } => peers::seen(sql, *peer, *revision).await,
        LinkChange::TokenConfirmed(peer) => peers::confirm(sql, *peer).await,
        LinkChange::Delivered { peer, seqs, refused, .. } => {
            quarantine::delivered(sql, *peer, seqs, refused, now_ms).await
        }
        LinkChange::Backfill { peer, scope, subtree_kinds } => {
            outbox::backfill(sql, *peer, *scope, subtree_kinds, now_ms).await
        }
        LinkChange::Owe { peer, keys } => outbox::owe_all(sql, *peer, keys.clone(), now_ms).await,
        LinkChange::Proof(peer, proof) => proofs::put(sql, *peer, proof).await,
        LinkChange::Subscribe { subscription, kinds } => {
            subscriptions::put(sql, subscription, kinds, now_ms).await
        }
        LinkChange::Unsubscribe(peer) => subscriptions::forget(sql, *peer).await,
        LinkChange::RetryQuarantine { peer, due_ms } => quarantine::retry(sql, *peer, *due_ms, now_ms).await,
        LinkChange::Claims(rows) => claims::put(sql, rows).await,
        LinkChange::CompactOutbox(peer) => outbox::compact(sql, *peer).await,
        LinkChange::Grant(row) => grants::put(sql, row).await,
        LinkChange::Revoke(partner) => grants::remove(sql, partner).await,
        LinkChange::Invite(new) => invitations::put(sql, new).await,
        LinkChange::Invited { id, fate } => invitations::decide(sql, *id, fate).await,
        LinkChange::Report(row) => reports::put(sql, row).await,
        LinkChange::Bundle { division, change } => bundles::change(sql, *division, change).await,
        LinkChange::Checkpoint(signed) => audit::keep(sql, signed, now_ms).await,
        LinkChange::CheckpointInstead(signed) => audit::keep_instead(sql, signed, now_ms).await,
    }
}
