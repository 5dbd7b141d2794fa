//! A bundle that is made: greeting, receipts, claims, and everything that is owed, read page by page. What goes into it
//! stays owed. Only when all of it was noted does the caller get the seal, without which the file is worth nothing.

use std::sync::Arc;

use guantong_proto::rules::Lane;
use guantong_proto::v1;
use guantong_proto::v1::bundle_frame::Kind;
use prost::Message;
use tokio::sync::mpsc;
use tonic::Status;

use super::super::{status, view};
use super::{Desk, ParentLine, refused};
use crate::audit::Event;
use crate::bundle::keeping::Made;
use crate::bundle::standing::PeerKey;
use crate::bundle::{SecretKey, Writing};
use crate::division::Division;
use crate::engine::EngineError;
use crate::engine::bundles::{Begun, Note};
use crate::ingest::topology::Role;
use crate::session::whole::Packing;

/// Records read at a time.
const KEYS_AT_ONCE: usize = 4_000;
/// Refusals that are noted together.
const REFUSALS_AT_ONCE: usize = 500;
/// All lanes, the most urgent first: a reader that is cut short has taken in what matters most.
const LANES: [(Lane, v1::Lane); 3] =
    [(Lane::Urgent, v1::Lane::Urgent), (Lane::Normal, v1::Lane::Normal), (Lane::Bulk, v1::Lane::Bulk)];

type Out = mpsc::Sender<Result<v1::ExportBundleResponse, Status>>;

/// A bundle under way.
pub(super) struct Making {
    desk: Arc<Desk>,
    division: Division,
    since_last: bool,
    begun: Begun,
    own_key: SecretKey,
    writing: Writing,
    head: Vec<u8>,
    out: Out,
    /// The lineage of the store when the bundle was begun.
    lineage: (u64, u64),
    counted: v1::BundleEnd,
    seqs: Vec<i64>,
    refusals: Vec<v1::Refusal>,
    receipts_until_ms: u64,
}

impl Making {
    /// Checks that a bundle can be made, and begins it.
    pub(super) async fn begin(
        desk: Arc<Desk>,
        division: Division,
        since_last: bool,
        out: Out,
    ) -> Result<Making, Status> {
        let shared = desk.engine.shared().clone();
        let role = desk.role(division).ok_or_else(|| {
            let message = format!(
                "{division} is neither this node's parent nor a node below that was met; a node below is met by the first \
                 bundle that is taken in from it (该区划既非上级，也不是已知的下级节点)"
            );
            status::not_now(message, "NO_PEER")
        })?;
        if since_last && role == Role::Parent && desk.parent_line == ParentLine::OneWay {
            let message = "nothing that goes one way is ever confirmed, so each bundle must be full: leave --since-last out \
                           (单向光闸的数据包必须完整，不能只导出新增内容)";
            return Err(status::not_now(message, "ONE_WAY"));
        }
        let key = checked_key(&desk, division, role).await?;
        let now_ms = (shared.environment.now_ms)();
        if (desk.certificate_expire_ms)().is_some_and(|end_ms| u64::try_from(end_ms).unwrap_or(0) < now_ms) {
            let message = "this node's certificate has run out, and nobody would take what it signs; put a new one in place                            (本节点证书已过期，请先更换证书)";
            return Err(status::not_now(message, "CERTIFICATE_EXPIRED"));
        }
        let no_key = || status::not_now("the key for bundles cannot be used", "NO_KEY");
        let own_key = desk.secrets().await?.into_iter().next().ok_or_else(no_key)?;
        let lineage = shared.lineage();
        let begun = desk.engine.begin_bundle(division).await.map_err(|error| status::unfinished(&error))?;
        let mut seed = [0; 32];
        for part in seed.as_chunks_mut::<8>().0 {
            *part = (shared.environment.random)().to_le_bytes();
        }
        let numbers = (begun.mark.number, begun.begun_ms);
        let (writing, head) =
            Writing::begin(shared.own(), division, numbers, &key.key, seed).map_err(|e| refused(&e))?;
        Ok(Making {
            desk,
            division,
            since_last,
            begun,
            own_key,
            writing,
            head,
            out,
            lineage,
            counted: v1::BundleEnd::default(),
            seqs: Vec::new(),
            refusals: Vec::new(),
            receipts_until_ms: 0,
        })
    }

    /// Makes it, and gives it to the caller piece by piece, all but the last answer.
    pub(super) async fn run(mut self) -> Result<v1::ExportBundleResponse, Status> {
        let head = std::mem::take(&mut self.head);
        self.give(head, None).await?;
        self.greeting().await?;
        self.receipts().await?;
        self.claims().await?;
        for (lane, name) in LANES {
            self.lane(lane, name).await?;
        }
        self.note_refusals().await?;
        self.frame(Kind::End(self.counted), true).await?;
        self.finish().await
    }

    async fn give(&self, chunk: Vec<u8>, done: Option<v1::BundleSummary>) -> Result<(), Status> {
        let record_count = self.counted.record_count;
        let answer = v1::ExportBundleResponse { chunk: chunk.into(), record_count, done };
        // Whoever asked is gone: nothing was noted, and what was begun is not missed.
        let gone = |_| status::not_now("nobody takes the bundle any more", "CANCELLED");
        self.out.send(Ok(answer)).await.map_err(gone)
    }

    async fn frame(&mut self, kind: Kind, last: bool) -> Result<(), Status> {
        let frame = v1::BundleFrame { kind: Some(kind) };
        let chunk = self.writing.frame(&frame, last).map_err(|error| refused(&error))?;
        self.give(chunk, None).await
    }

    fn one_way(&self) -> bool {
        self.desk.role(self.division) == Some(Role::Parent) && self.desk.parent_line == ParentLine::OneWay
    }

    async fn greeting(&mut self) -> Result<(), Status> {
        let public_key = self.own_key.public().map_or_else(Vec::new, |key| key.0.to_vec());
        let shared = self.desk.engine.shared();
        let Begun { mark, previous, standing, revision, .. } = &self.begun;
        let made = shared.store.bundles_made(self.division).await.map_err(|e| status::of_store(&e))?;
        let after = standing.seen.map_or(0, |(seen, _)| seen.number.saturating_add(1))..=i64::MAX as u64;
        let begun = shared.store.bundles_taken(self.division, standing.peer_epoch, after).await;
        let begun = begun.map_err(|e| status::of_store(&e))?.pop();
        let greeting = v1::BundleGreeting {
            mark: Some((*mark).into()),
            previous: previous.map(Into::into),
            seen: standing.seen.map(|(seen, _)| seen.into()),
            peer_epoch: standing.peer_epoch,
            restored_epoch: standing.restored_epoch,
            revision: *revision,
            rules: Some(shared.schema.rule_table()),
            one_way: self.one_way(),
            whole: !self.since_last,
            software_version: self.desk.software_version.clone(),
            public_key: public_key.into(),
            made: made.into_iter().map(Into::into).collect(),
            begun: begun.map(|begun| begun.mark.into()),
        };
        self.frame(Kind::Greeting(greeting), false).await
    }

    /// Receipts for what was taken in and not yet confirmed to the peer: what was refused first.
    async fn receipts(&mut self) -> Result<(), Status> {
        let store = self.desk.engine.shared().store.clone();
        let owed = store.bundle_receipts(self.division).await.map_err(|e| status::of_store(&e))?;
        for taken in owed {
            let bundle = Some(taken.mark.into());
            let mut after = 0;
            loop {
                let next = store.bundle_refusals(self.division, taken.mark, after).await;
                let Some((batch, refusals)) = next.map_err(|e| status::of_store(&e))? else { break };
                after = batch;
                let kept = v1::BundleReceipt::decode(refusals).map_err(|e| status::broken(&e.to_string()))?;
                let receipt = v1::BundleReceipt { bundle, taken: false, refusals: kept.refusals };
                self.frame(Kind::Receipt(receipt), false).await?;
            }
            let receipt = v1::BundleReceipt { bundle, taken: true, refusals: Vec::new() };
            self.frame(Kind::Receipt(receipt), false).await?;
            self.counted.receipt_count += 1;
            self.receipts_until_ms = taken.taken_ms;
        }
        Ok(())
    }

    async fn claims(&mut self) -> Result<(), Status> {
        if self.desk.role(self.division) != Some(Role::Parent) {
            return Ok(());
        }
        let shared = self.desk.engine.shared().clone();
        let (spoken, _) = shared.spoken().borrow().since(0, shared.own());
        for (division, claimed) in spoken {
            let claim = v1::Claim {
                division: division.to_string(),
                through_ms: i64::try_from(claimed.through_ms).unwrap_or(i64::MAX),
                quarantined_count: claimed.quarantined_count,
            };
            self.frame(Kind::Claim(claim), false).await?;
        }
        Ok(())
    }

    /// Everything that is owed in a lane.
    async fn lane(&mut self, lane: Lane, name: v1::Lane) -> Result<(), Status> {
        let shared = self.desk.engine.shared().clone();
        let mut after = if self.since_last { self.begun.after } else { 0 };
        let mut packing = Packing::default();
        loop {
            let Begun { peer, through, .. } = self.begun;
            let route = shared.route(peer).ok_or_else(|| status::unfinished(&EngineError::Elsewhere))?;
            let owed = shared.store.owed_between(peer, lane, (after, through), KEYS_AT_ONCE).await;
            let owed = owed.map_err(|e| status::of_store(&e))?;
            let Some(last) = owed.rows.last() else { break };
            after = last.seq;
            for row in &owed.rows {
                for stored in row.keys.iter().filter_map(|key| owed.record(*key)) {
                    // Never `fresh`: by the time it arrives the peer may have the record from elsewhere.
                    let traceparent = row.traceparent.as_deref();
                    match route.batch_record(&stored.name, &stored.state, traceparent, false) {
                        Ok(record) => {
                            let added = record.into_iter().try_for_each(|record| packing.add(record));
                            self.refusals.extend(added.err());
                        }
                        Err(error) => {
                            tracing::error!(%error, record = ?stored.name, "a stored record cannot be read")
                        }
                    }
                }
                self.seqs.push(row.seq);
            }
            while packing.is_full() {
                self.batch(&mut packing, name).await?;
            }
            if self.refusals.len() >= REFUSALS_AT_ONCE {
                self.note_refusals().await?;
            }
        }
        while self.batch(&mut packing, name).await? {}
        Ok(())
    }

    /// Writes the next batch; false: there is none.
    async fn batch(&mut self, packing: &mut Packing, lane: v1::Lane) -> Result<bool, Status> {
        let failed = |error: std::io::Error| {
            status::not_now(format!("a batch cannot be compressed: {error}"), "FAILED")
        };
        let Some((batch, records)) = packing.take(lane).map_err(failed)? else { return Ok(false) };
        self.counted.batch_count += 1;
        self.counted.record_count += records as u64;
        let Begun { mark, standing, revision, .. } = &self.begun;
        let batch = v1::Batch {
            batch_id: self.counted.batch_count,
            epoch: mark.epoch,
            peer_epoch: standing.peer_epoch,
            revision: *revision,
            ..batch
        };
        self.frame(Kind::Batch(batch), false).await?;
        Ok(true)
    }

    /// What cannot be sent at all waits in quarantine, as on a line.
    async fn note_refusals(&mut self) -> Result<(), Status> {
        let refusals = std::mem::take(&mut self.refusals);
        if refusals.is_empty() {
            return Ok(());
        }
        match self.desk.engine.delivered(self.begun.peer, Vec::new(), Vec::new(), refusals, 0).await {
            // Another gateway of the store met the peer last: it says the same when its turn comes.
            Ok(()) | Err(EngineError::Elsewhere) => Ok(()),
            Err(error) => Err(status::unfinished(&error)),
        }
    }

    async fn finish(mut self) -> Result<v1::ExportBundleResponse, Status> {
        let shared = self.desk.engine.shared().clone();
        let statement = self.writing.statement();
        let signed = self.desk.means.seal.sign(statement.as_bytes());
        let (signature, certificates) = signed.map_err(|error| status::not_now(error, "NO_KEY"))?;
        if shared.lineage() != self.lineage {
            let message = "this store was found to be restored while the bundle was made; make another";
            return Err(status::not_now(message, "RESTORED"));
        }
        let mut seqs = std::mem::take(&mut self.seqs);
        seqs.sort_unstable();
        if self.one_way() {
            // No receipt will ever name it.
            seqs.clear();
        }
        let Begun { mark, begun_ms, clock, through, .. } = self.begun;
        let records = self.counted.record_count;
        let made = Made { mark, made_ms: begun_ms, whole: !self.since_last, records, clock };
        let event = Event::BundleMade {
            peer: self.division,
            bundle: mark.number,
            records,
            receipts: self.counted.receipt_count,
            checksum: statement.lines().nth(1).unwrap_or_default().to_owned(),
        };
        let receipts_until_ms = self.receipts_until_ms;
        let note = Note::Made { made, seqs, through, receipts_until_ms };
        let noted = self.desk.engine.note_bundle(self.division, note, Some(event)).await;
        noted.map_err(|error| status::unfinished(&error))?;
        let seal = v1::BundleSeal { signature: signature.into(), certificates: certificates.into() };
        let Making { writing, counted, division, since_last, .. } = self;
        let (end, byte_count, checksum) = writing.finish(&seal).map_err(|error| refused(&error))?;
        let done = v1::BundleSummary {
            sender: shared.own().to_string(),
            receiver: division.to_string(),
            number: mark.number,
            time: Some(view::timestamp(begun_ms)),
            record_count: counted.record_count,
            receipt_count: counted.receipt_count,
            byte_count,
            checksum: super::state::hex(&checksum),
            since_last,
            ..v1::BundleSummary::default()
        };
        let record_count = counted.record_count;
        let answer = v1::ExportBundleResponse { chunk: end.into(), record_count, done: Some(done) };
        Ok(answer)
    }
}

/// The key to seal with. Who signed it must be trusted still.
async fn checked_key(desk: &Desk, division: Division, role: Role) -> Result<PeerKey, Status> {
    let shared = desk.engine.shared();
    let standing = shared.store.bundle_standing(division).await.map_err(|e| status::of_store(&e))?;
    if role == Role::Child && standing.one_way {
        let message = format!(
            "{division} only sends: its line is one-way, and it takes nothing in (该节点为单向上报，不接收数据包)"
        );
        return Err(status::not_now(message, "ONE_WAY"));
    }
    let Some(key) = standing.key else {
        let message = format!(
            "no key of {division} is known yet; have its operator give you its card (`guantong bundle card FILE`), and accept \
             it with `guantong bundle accept FILE` (尚无该节点的名片，请先导入)"
        );
        return Err(status::not_now(message, "NO_CARD"));
    };
    desk.means.seal.trusts(division, key.time_ms, &key.certificates).map_err(|why| {
        let message =
            format!("the card of {division} is not trusted any more: {why}; accept a new one (名片已失效)");
        status::not_now(message, "CARD_NOT_TRUSTED")
    })?;
    Ok(key)
}
