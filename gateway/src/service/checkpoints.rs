//! Checkpoints of this node's audit log: signed now and then, kept here, and handed to the parent over the link's
//! connection.
//!
//! It must never hold up anything else: while nobody can sign or the parent is away, the log goes on, and the parent
//! gets the newest when it is back.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use guantong_proto::v1;
use guantong_proto::v1::audit_service_client::AuditServiceClient;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;
use tonic::{Code, Status};
use tonic_types::StatusExt;

use super::view::timestamp;
use super::{Links, status};
use crate::audit::{Checkpoint, DIGESTS_MAX, Event, Hash, Head, Signed, digest};
use crate::division::Division;
use crate::engine::{Engine, EngineError, HandedIn};

/// How often it is looked whether a checkpoint is due.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// So many new entries are a reason for one.
const ENTRIES: u64 = 1_000;
/// So long after the last one, a single new entry is.
const EVERY_MS: u64 = 10 * 60_000;
/// How long the parent may take for one.
const CALL_TIME: Duration = Duration::from_secs(10);

/// The node's key, and the authorities that it trusts.
pub trait Seal: Send + Sync {
    /// Signs a statement as this node: the signature, and the certificates that it is checked with.
    ///
    /// # Errors
    /// In plain words.
    fn sign(&self, statement: &[u8]) -> Result<(Vec<u8>, Vec<u8>), String>;

    /// Whether the node of a division signed a statement, with a certificate that was good at that time.
    ///
    /// # Errors
    /// Why not, in plain words.
    fn verify(
        &self,
        division: Division,
        time_ms: u64,
        statement: &[u8],
        signature: &[u8],
        certificates: &[u8],
    ) -> Result<(), String>;

    /// Whether certificates are those of a division's node, were good at that time, and are not revoked now.
    ///
    /// # Errors
    /// Why not, in plain words.
    fn trusts(&self, division: Division, time_ms: u64, certificates: &[u8]) -> Result<(), String>;
}

/// Why the parent did not get a checkpoint.
enum Untold {
    /// The store.
    Here(EngineError),
    /// The parent, or the way there. It is tried again.
    There(Status),
}

impl<E: Into<EngineError>> From<E> for Untold {
    fn from(error: E) -> Untold {
        Untold::Here(error.into())
    }
}

/// What signs checkpoints and hands them in. One for each process.
pub struct Checkpoints {
    engine: Engine,
    links: Links,
    seal: Option<Arc<dyn Seal>>,
    parent: Mutex<Option<(Division, Channel)>>,
}

impl Checkpoints {
    /// Without a seal nothing is signed, and nothing that children sign is taken.
    pub fn new(engine: Engine, links: Links, seal: Option<Arc<dyn Seal>>) -> Arc<Checkpoints> {
        Arc::new(Checkpoints { engine, links, seal, parent: Mutex::default() })
    }

    /// The connection to the parent, from now on; `None`: there is none.
    pub fn linked(&self, parent: Option<(Division, Channel)>) {
        *self.parent.lock().unwrap_or_else(PoisonError::into_inner) = parent;
    }

    /// The node's key and authorities.
    pub(super) fn seal(&self) -> Option<&dyn Seal> {
        self.seal.as_deref()
    }

    /// The parent, while the link to it is greeted: before that it may not know yet that this store was put back.
    pub(super) fn parent(&self) -> Option<AuditServiceClient<Channel>> {
        let parent = self.parent.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let (_, channel) = parent.filter(|(division, _)| self.links.parent_is_linked(*division))?;
        Some(AuditServiceClient::new(channel).max_decoding_message_size(super::MESSAGE_MAX_BYTES))
    }

    /// Signs and hands in until `stop`, and a last time then.
    pub async fn keep(self: Arc<Self>, stop: CancellationToken) {
        let mut kept = BTreeMap::new();
        loop {
            let stopping = tokio::select! {
                () = tokio::time::sleep(LOOK_EVERY) => false,
                () = stop.cancelled() => true,
            };
            if let Err(error) = self.sign(stopping).await
                && !stopping
            {
                tracing::warn!("no checkpoint of the audit log was made: {error} (审计日志检查点未能生成)");
            }
            match self.hand_in(&mut kept).await {
                Ok(()) => {}
                Err(Untold::Here(error)) => {
                    tracing::debug!(%error, "a checkpoint could not be handed in");
                }
                Err(Untold::There(status)) => {
                    tracing::debug!(code = ?status.code(), "the parent did not take a checkpoint");
                }
            }
            if stopping {
                return;
            }
        }
    }

    /// Signs how far this process's chain has come, if that is due.
    async fn sign(&self, stopping: bool) -> Result<(), String> {
        let Some(seal) = &self.seal else { return Ok(()) };
        let shared = self.engine.shared();
        let (own, slot) = (shared.own(), shared.store.slot());
        let now_ms = (shared.environment.now_ms)();
        let words = |error: EngineError| error.to_string();
        let head = shared.store.audit_head(slot).await.map_err(|e| words(e.into()))?;
        let Some(head) = head else { return Ok(()) };
        let last = shared.store.furthest_checkpoint(own, slot, shared.epoch()).await;
        let last = last.map_err(|e| words(e.into()))?;
        let due = last.is_none_or(|Signed { checkpoint: last, .. }| {
            let new = head.number.saturating_sub(last.head.number);
            let waited = now_ms.abs_diff(last.time_ms) >= EVERY_MS;
            new >= ENTRIES || (waited || stopping) && head != last.head
        });
        if !due {
            return Ok(());
        }
        let signed = sign(&**seal, self.of_own(slot, head))?;
        let kept = self.engine.keep_checkpoint(HandedIn { signed, follows: None }).await;
        kept.map(drop).map_err(words)
    }

    fn of_own(&self, slot: i64, head: Head) -> Checkpoint {
        let shared = self.engine.shared();
        let time_ms = (shared.environment.now_ms)();
        Checkpoint { division: shared.own(), slot, epoch: shared.epoch(), head, time_ms }
    }

    /// Hands the newest checkpoints of all chains to the parent. `kept`: the last one that it has, by slot.
    async fn hand_in(&self, kept: &mut BTreeMap<i64, u64>) -> Result<(), Untold> {
        let (Some(seal), Some(mut parent)) = (&self.seal, self.parent()) else { return Ok(()) };
        let shared = self.engine.shared();
        for slot in shared.store.audit_slots().await? {
            let newest = shared.store.furthest_checkpoint(shared.own(), slot, shared.epoch()).await?;
            let Some(newest) = newest else { continue };
            // Each turn gets the parent nearer; more than a few mean that it does not.
            let mut turns = 2 + newest.checkpoint.head.number / DIGESTS_MAX as u64;
            while kept.get(&slot) != Some(&newest.checkpoint.head.number) && turns > 0 {
                turns -= 1;
                let after = kept.get(&slot).copied().unwrap_or(0);
                let (signed, digests) = self.next(&**seal, &newest, after).await?;
                let number = signed.checkpoint.head.number;
                match submit(&mut parent, &signed, after, &digests).await {
                    Ok(()) => drop(kept.insert(slot, number)),
                    Err(status) => match kept_there(&status) {
                        Some(there) if there != after => drop(kept.insert(slot, there)),
                        _ => {
                            self.refused(slot, number, &status);
                            return Err(Untold::There(status));
                        }
                    },
                }
            }
        }
        Ok(())
    }

    /// The checkpoint to hand in after the entry `after`, and the digests of the lines between.
    async fn next(
        &self,
        seal: &dyn Seal,
        newest: &Signed,
        after: u64,
    ) -> Result<(Signed, Vec<Hash>), Untold> {
        let Checkpoint { slot, head, .. } = newest.checkpoint;
        if after == 0 || after >= head.number {
            return Ok((newest.clone(), Vec::new()));
        }
        let count = usize::try_from(head.number - after).unwrap_or(DIGESTS_MAX).min(DIGESTS_MAX);
        let rows = self.engine.shared().store.audit_entries(slot, after, count).await?;
        let digests: Vec<Hash> = rows.iter().map(|row| digest(&row.line)).collect();
        match rows.last() {
            Some(last) if last.number < head.number => {
                let here = self.of_own(slot, Head { number: last.number, hash: last.hash });
                let signed =
                    sign(seal, here).map_err(|error| Untold::There(status::not_now(error, "NO_KEY")))?;
                Ok((signed, digests))
            }
            _ => Ok((newest.clone(), digests)),
        }
    }

    /// The parent says that the log was changed: that is said here, too.
    fn refused(&self, slot: i64, number: u64, status: &Status) {
        if reason_of(status).as_deref() == Some(CONTRADICTS) {
            let shared = self.engine.shared();
            let kept = metadata_of(status, "kept").unwrap_or(0);
            shared.audit(Event::CheckpointContradicted { peer: shared.own(), slot, kept, signed: number });
            shared.alarm(format!(
                "the parent keeps another audit log of this node than the one here: they differ at entry {kept} or before; \
                 `guantong audit verify` says more (上级留存的检查点与本节点审计日志不符，日志可能被篡改)"
            ));
        }
    }
}

/// `ErrorInfo.reason` of a checkpoint that contradicts an earlier one, and of one that does not begin where it should.
pub(super) const CONTRADICTS: &str = "AUDIT_CONTRADICTED";
pub(super) const APART: &str = "AUDIT_APART";

fn reason_of(status: &Status) -> Option<String> {
    status.get_details_error_info().map(|info| info.reason)
}

fn metadata_of(status: &Status, key: &str) -> Option<u64> {
    status.get_details_error_info()?.metadata.get(key)?.parse().ok()
}

/// The entry that the parent wants to begin from.
fn kept_there(status: &Status) -> Option<u64> {
    let apart = status.code() == Code::FailedPrecondition && reason_of(status).as_deref() == Some(APART);
    if apart { metadata_of(status, "kept") } else { None }
}

fn sign(seal: &dyn Seal, checkpoint: Checkpoint) -> Result<Signed, String> {
    let (signature, certificates) = seal.sign(checkpoint.statement().as_bytes())?;
    Ok(Signed { checkpoint, signature, certificates })
}

async fn submit(
    parent: &mut AuditServiceClient<Channel>,
    signed: &Signed,
    after: u64,
    digests: &[Hash],
) -> Result<(), Status> {
    let request = v1::SubmitAuditCheckpointRequest {
        checkpoint: Some(shown(signed)),
        after_number: after as i64,
        digests: digests.iter().flat_map(|digest| digest.0).collect(),
    };
    let submitted = tokio::time::timeout(CALL_TIME, parent.submit_audit_checkpoint(request)).await;
    submitted.map_err(|_| status::busy("the parent did not answer in time", CALL_TIME))?.map(drop)
}

/// A checkpoint as it is sent.
pub(super) fn shown(signed: &Signed) -> v1::AuditCheckpoint {
    let Checkpoint { division, slot, epoch, head, time_ms } = signed.checkpoint;
    v1::AuditCheckpoint {
        division: division.to_string(),
        slot: i32::try_from(slot).unwrap_or(-1),
        epoch,
        number: head.number as i64,
        hash: head.hash.0.to_vec().into(),
        time: Some(timestamp(time_ms)),
        signature: signed.signature.clone().into(),
        certificates: signed.certificates.clone().into(),
    }
}

/// A checkpoint as it came. `None`: something in it cannot be.
pub fn read(sent: &v1::AuditCheckpoint) -> Option<Signed> {
    let time = sent.time.as_ref()?;
    let seconds = u64::try_from(time.seconds).ok()?;
    let millis = u64::try_from(time.nanos).ok()? / 1_000_000;
    let checkpoint = Checkpoint {
        division: Division::parse(&sent.division).ok()?,
        slot: i64::from(sent.slot),
        epoch: sent.epoch,
        head: Head { number: u64::try_from(sent.number).ok()?, hash: Hash::of_bytes(&sent.hash)? },
        time_ms: seconds.checked_mul(1_000)?.checked_add(millis)?,
    };
    Some(Signed { checkpoint, signature: sent.signature.to_vec(), certificates: sent.certificates.to_vec() })
}
