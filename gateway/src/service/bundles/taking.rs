//! A bundle that is taken in. It is written to a file without a name first, sealed as it came; then verified from its
//! first byte to its last (the seal before anything is opened, every frame before any of it is used); then taken in batch
//! by batch, by the same ingest as what comes over a line. An import that was interrupted goes on where it was.

use std::fs::File;
use std::io::{BufReader, Seek, SeekFrom};
use std::sync::Arc;
use std::time::Duration;

use futures_core::Stream;
use guantong_proto::v1;
use prost::Message;
use tokio::io::AsyncWriteExt;
use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tonic::Status;

use super::super::{status, view};
use super::{Desk, ParentLine, refused};
use crate::audit::Event;
use crate::bundle::keeping::{BundleChange, Made};
use crate::bundle::standing::{Mark, PeerKey};
use crate::bundle::{BundleError, Contents, Frames, Greeting, Inspected, Item, SecretKey, inspect};
use crate::division::Division;
use crate::engine::bundles::{Arrival, Arrived, Note};
use crate::engine::{EngineError, LinkBatch};
use crate::ingest::topology::Role;

/// A caller that sends nothing for so long is gone.
const CHUNK_TIME: Duration = Duration::from_secs(60);
/// The largest piece of a file that is taken at once.
const CHUNK_BYTES_MAX: usize = 1024 * 1024;
/// Frames read ahead.
const FRAMES_MAX: usize = 2;
/// Receipts of one bundle that are looked at for bundles that were never made.
const RECEIPTS_MAX: usize = 10_000;
/// Refusals that are noted together.
const REFUSALS_AT_ONCE: usize = 500;

type Out = mpsc::Sender<Result<v1::ImportBundleResponse, Status>>;

/// An import under way.
pub(super) struct Taking {
    desk: Arc<Desk>,
    out: Out,
}

/// A bundle that was verified whole.
struct Verified {
    found: Inspected,
    greeting: Greeting,
    contents: Contents,
    /// The bundles that it brings receipts for.
    receipts: Vec<Mark>,
}

/// What is done with the items of a bundle.
struct Intake {
    desk: Arc<Desk>,
    out: Out,
    division: Division,
    role: Role,
    arrived: Arrived,
    mark: Mark,
    /// No bundle with a higher number was taken in before: its claims are the latest.
    newest: bool,
    total_batches: u64,
    refused: u64,
    delivered: u64,
    /// The bundle that the receipt being read is for, if it was made here.
    receipt_for: Option<Made>,
}

impl Taking {
    pub(super) fn new(desk: Arc<Desk>, out: Out) -> Taking {
        Taking { desk, out }
    }

    /// Takes it in, saying how far that has come, and gives the last answer.
    pub(super) async fn run(
        self,
        stream: impl Stream<Item = Result<v1::ImportBundleRequest, Status>> + Unpin,
    ) -> Result<v1::ImportBundleResponse, Status> {
        let (file, bytes) = self.keep(stream).await?;
        let file = Arc::new(file);
        let keys = self.desk.secrets().await?;
        let verified = match self.verify(file.clone(), keys.clone()).await? {
            Ok(verified) => verified,
            Err((sender, error)) => return Err(self.refuse(sender, &error, bytes)),
        };
        self.take_in(file, keys, verified).await
    }

    fn refuse(&self, sender: Option<Division>, error: &BundleError, bytes: u64) -> Status {
        let peer = sender.map(|sender| sender.to_string()).unwrap_or_default();
        self.desk.engine.audit(Event::BundleRefused { peer, reason: error.code(), bytes });
        tracing::warn!(%error, "a bundle was not taken in (数据包未被接收)");
        refused(error)
    }

    /// Writes what comes to a file without a name, which is gone with the last that holds it.
    async fn keep(
        &self,
        mut stream: impl Stream<Item = Result<v1::ImportBundleRequest, Status>> + Unpin,
    ) -> Result<(File, u64), Status> {
        let folder = self.desk.means.folder.clone();
        let failed = |error: std::io::Error| {
            let message = format!(
                "the bundle cannot be kept while it is taken in: {error}; nothing was taken in, make room and try again \
                 (暂存数据包失败，未接收任何内容)"
            );
            match error.kind() {
                std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => {
                    status::busy(message, Duration::from_secs(60))
                }
                _ => status::not_now(message, "NO_ROOM"),
            }
        };
        let file = tokio::task::spawn_blocking(move || tempfile::tempfile_in(folder)).await;
        let file = file.unwrap_or_else(|_| Err(std::io::Error::other("the task ended"))).map_err(failed)?;
        let (mut file, mut bytes) = (tokio::fs::File::from_std(file), 0);
        loop {
            let next = tokio::time::timeout(CHUNK_TIME, stream.next()).await;
            let next =
                next.map_err(|_| status::busy("nothing more of the bundle came in 60 s", CHUNK_TIME))?;
            let Some(message) = next.transpose()? else { break };
            if message.chunk.len() > CHUNK_BYTES_MAX {
                return Err(status::invalid("chunk", "chunk: send at most 1 MiB at a time"));
            }
            bytes += message.chunk.len() as u64;
            file.write_all(&message.chunk).await.map_err(failed)?;
        }
        file.flush().await.map_err(failed)?;
        Ok((file.into_std().await, bytes))
    }

    /// Reads all of it and uses none. An error comes with who says to have made it.
    async fn verify(
        &self,
        file: Arc<File>,
        keys: Vec<SecretKey>,
    ) -> Result<Result<Verified, (Option<Division>, BundleError)>, Status> {
        let desk = self.desk.clone();
        let verified = tokio::task::spawn_blocking(move || desk.verify(&file, &keys)).await;
        verified.map_err(|_| status::not_now("the bundle could not be read", "FAILED"))
    }

    async fn take_in(
        self,
        file: Arc<File>,
        keys: Vec<SecretKey>,
        verified: Verified,
    ) -> Result<v1::ImportBundleResponse, Status> {
        let Verified { found, greeting, contents, receipts } = verified;
        let division = found.head.sender;
        let shared = self.desk.engine.shared().clone();
        let known = shared.store.bundle_standing(division).await.map_err(|e| status::of_store(&e))?;
        let (mark, one_way) = (greeting.heard.mark, greeting.heard.one_way);
        let key = PeerKey {
            key: greeting.key,
            time_ms: found.head.time_ms,
            certificates: found.seal.certificates.clone(),
        };
        let Greeting { heard, made, rules, .. } = greeting;
        let arrival = Arrival { heard, made, rules, time_ms: found.head.time_ms, key, receipts };
        let arrived = self.desk.engine.meet_bundle(division, arrival).await;
        let arrived = arrived.map_err(|error| status::unfinished(&error))?;
        if !arrived.met.contents_count {
            let error = BundleError::PutBack { sender: division };
            return Err(self.refuse(Some(division), &error, found.byte_count));
        }
        let recovered = arrived.met.recovered;
        let role = self.desk.role(division).ok_or_else(|| status::unfinished(&EngineError::Elsewhere))?;
        let mut intake = Intake {
            desk: self.desk.clone(),
            out: self.out.clone(),
            division,
            role,
            mark,
            newest: known.seen.is_none_or(|(seen, _)| seen.number <= mark.number),
            total_batches: contents.batches(),
            refused: 0,
            delivered: 0,
            receipt_for: None,
            arrived,
        };
        let (repeated, peer) = (intake.arrived.repeated, intake.arrived.peer);
        let checksum = found.statement.lines().nth(1).unwrap_or_default().to_owned();
        if !repeated {
            intake.take_all(file, keys, found.head.number).await?;
            let event = Event::BundleTaken {
                peer: division,
                bundle: mark.number,
                records: contents.records(),
                refused: intake.refused,
                delivered: intake.delivered,
                checksum,
            };
            let took = Note::Took { mark, one_way };
            let noted = self.desk.engine.note_bundle(division, took, Some(event)).await;
            noted.map_err(|error| status::unfinished(&error))?;
            if recovered {
                let over = self.desk.engine.recovered(peer, intake.refused > 0).await;
                over.map_err(|error| status::unfinished(&error))?;
            }
        }
        let done = v1::BundleSummary {
            sender: division.to_string(),
            receiver: found.head.receiver.to_string(),
            number: mark.number,
            time: Some(view::timestamp(found.head.time_ms)),
            record_count: contents.records(),
            refused_count: intake.refused,
            receipt_count: contents.receipts(),
            delivered_count: intake.delivered,
            byte_count: found.byte_count,
            checksum: super::state::hex(&found.checksum),
            repeated,
            since_last: !heard.whole,
        };
        let (batch_count, total_batch_count) = (contents.batches(), contents.batches());
        let answer = v1::ImportBundleResponse { batch_count, total_batch_count, done: Some(done) };
        Ok(answer)
    }
}

/// The file from its beginning. All passes share its place: one at a time.
fn from_start(file: &File) -> Result<BufReader<&File>, BundleError> {
    let mut file = file;
    file.seek(SeekFrom::Start(0))?;
    Ok(BufReader::with_capacity(64 * 1024, file))
}

impl Desk {
    fn verify(&self, file: &File, keys: &[SecretKey]) -> Result<Verified, (Option<Division>, BundleError)> {
        let found = from_start(file).and_then(inspect).map_err(|error| (None, error))?;
        let sender = found.head.sender;
        self.verify_found(file, keys, found).map_err(|error| (Some(sender), error))
    }

    fn verify_found(
        &self,
        file: &File,
        keys: &[SecretKey],
        found: Inspected,
    ) -> Result<Verified, BundleError> {
        let shared = self.engine.shared();
        let (head, environment) = (&found.head, &shared.environment);
        head.check(shared.own(), (environment.now_ms)(), environment.drift_ms)?;
        let above = head.sender.strictly_contains(shared.own());
        let parent = self.role(head.sender) == Some(Role::Parent);
        if above && (!parent || self.parent_line == ParentLine::OneWay) {
            // Another node above, or the way back of a line that has none.
            return Err(BundleError::Stranger { sender: head.sender });
        }
        let seal = &found.seal;
        let (statement, signature) = (found.statement.as_bytes(), &seal.signature);
        let verified =
            self.means.seal.verify(head.sender, head.time_ms, statement, signature, &seal.certificates);
        verified.map_err(BundleError::Seal)?;
        let mut frames = Frames::open(from_start(file)?, keys)?;
        let mut contents = Contents::new(head.number);
        let (mut greeting, mut receipts) = (None, Vec::new());
        while let Some((frame, last)) = frames.next_frame()? {
            match contents.take(frame, last)? {
                Item::Greeting(first) => greeting = Some(first),
                Item::Receipt { bundle, taken: true, .. } if receipts.len() < RECEIPTS_MAX => {
                    receipts.push(bundle);
                }
                _ => {}
            }
        }
        let greeting = greeting.ok_or_else(|| BundleError::Content("it is empty".into()))?;
        Ok(Verified { found, greeting, contents, receipts })
    }
}

impl Intake {
    async fn take_all(&mut self, file: Arc<File>, keys: Vec<SecretKey>, number: u64) -> Result<(), Status> {
        let (send, mut items) = mpsc::channel(FRAMES_MAX);
        let reading = tokio::task::spawn_blocking(move || read_items(&file, &keys, number, &send));
        while let Some(item) = items.recv().await {
            self.take(item).await?;
        }
        let read = reading.await.map_err(|_| status::not_now("the bundle could not be read", "FAILED"))?;
        read.map_err(|error| refused(&error))
    }

    async fn take(&mut self, item: Item) -> Result<(), Status> {
        match item {
            Item::Greeting(_) | Item::End => Ok(()),
            Item::Batch { batch_id, lane, records } => self.batch(batch_id, lane, records).await,
            Item::Receipt { bundle, refusals, taken } if self.arrived.met.receipts_count => {
                self.receipt(bundle, refusals, taken).await
            }
            Item::Receipt { .. } => Ok(()),
            Item::Claim(claim) => {
                self.claim(&claim);
                Ok(())
            }
        }
    }

    async fn batch(
        &mut self,
        batch_id: u64,
        lane: v1::Lane,
        records: Vec<v1::BatchRecord>,
    ) -> Result<(), Status> {
        if batch_id > self.arrived.batches {
            let batch = LinkBatch {
                peer: self.arrived.peer,
                same_epoch: self.arrived.met.same_epoch,
                bulk: lane == v1::Lane::Bulk,
                peer_revision: 0,
                records,
            };
            let engine = &self.desk.engine;
            let refusals = engine.ingest(batch).await.map_err(|error| status::unfinished(&error))?;
            let refused = refusals.len() as u64;
            self.refused += refused;
            let refusals = match refused {
                0 => Vec::new(),
                _ => v1::BundleReceipt { refusals, ..v1::BundleReceipt::default() }.encode_to_vec(),
            };
            let (mark, refusals) = (self.mark, refusals.into());
            let progress = BundleChange::Progress { mark, batch_id, refused, refusals };
            self.note(Note::Change(progress), None).await?;
        }
        let (batch_count, total_batch_count) = (batch_id, self.total_batches);
        let answer = v1::ImportBundleResponse { batch_count, total_batch_count, done: None };
        // Nobody has to watch: what was begun is brought to its end.
        let _ = self.out.try_send(Ok(answer));
        Ok(())
    }

    async fn note(&self, note: Note, event: Option<Event>) -> Result<(), Status> {
        let noted = self.desk.engine.note_bundle(self.division, note, event).await;
        noted.map_err(|error| status::unfinished(&error))
    }

    async fn receipt(&mut self, bundle: Mark, refusals: Vec<v1::Refusal>, taken: bool) -> Result<(), Status> {
        let shared = self.desk.engine.shared().clone();
        if self.receipt_for.is_none_or(|made| made.mark != bundle) {
            let made = shared.store.bundle_made(self.division, bundle.number).await;
            let made = made.map_err(|e| status::of_store(&e))?;
            // A receipt for a bundle of another life of this store counts no more.
            self.receipt_for = made.filter(|made| made.mark == bundle && bundle.epoch == shared.epoch());
        }
        let Some(made) = self.receipt_for else { return Ok(()) };
        for some in refusals.chunks(REFUSALS_AT_ONCE) {
            self.deliver(Vec::new(), some.to_vec()).await?;
        }
        if !taken {
            return Ok(());
        }
        self.receipt_for = None;
        let mut after = -1;
        loop {
            let rows = shared.store.bundle_rows(self.division, bundle.number, after).await;
            let Some((part, seqs)) = rows.map_err(|e| status::of_store(&e))? else { break };
            after = part;
            self.deliver(seqs, Vec::new()).await?;
        }
        self.note(Note::Confirmed(made), None).await
    }

    /// Deletes outbox rows, where they are still there, and quarantines what was refused.
    async fn deliver(&mut self, seqs: Vec<i64>, refusals: Vec<v1::Refusal>) -> Result<(), Status> {
        let engine = &self.desk.engine;
        let keys = engine.shared().store.owed_keys(self.arrived.peer, &seqs).await;
        let keys = keys.map_err(|e| status::of_store(&e))?;
        self.delivered += keys.len() as u64;
        let delivered = engine.delivered(self.arrived.peer, seqs, keys.concat(), refusals, 0).await;
        delivered.map_err(|error| status::unfinished(&error))
    }

    /// A child claims. What makes no sense is left aside, and so is what comes late: it could only make this node say less.
    fn claim(&self, claim: &v1::Claim) {
        if self.role != Role::Child || !self.newest || !self.arrived.met.same_epoch {
            return;
        }
        if let Err(error) = self.desk.engine.shared().claimed(self.division, claim) {
            tracing::debug!(peer = %self.division, %error, "a claim was not taken");
        }
    }
}

/// Opens the file again and gives its items on, as long as somebody takes them.
fn read_items(
    file: &File,
    keys: &[SecretKey],
    number: u64,
    items: &mpsc::Sender<Item>,
) -> Result<(), BundleError> {
    let mut frames = Frames::open(from_start(file)?, keys)?;
    let mut contents = Contents::new(number);
    while let Some((frame, last)) = frames.next_frame()? {
        if items.blocking_send(contents.take(frame, last)?).is_err() {
            break;
        }
    }
    Ok(())
}
