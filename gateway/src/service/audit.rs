//! `AuditService`: the audit log for those who check it, and checkpoints of children.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_core::Stream;
use guantong_proto::v1;
use guantong_proto::v1::audit_service_server::AuditService;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::caller::Caller;
use super::checkpoints::{APART, CONTRADICTS, Checkpoints, read, shown};
use super::{Who, caller, page, status, view};
use crate::audit::{Chain, Hash, Row, Untaken};
use crate::division::Division;
use crate::engine::{Engine, HandedIn, Shared};

/// Entries read, and sent, at a time.
const ENTRIES_AT_ONCE: usize = 500;
/// Bytes of certificates and of a signature that a checkpoint may come with.
const CERTIFICATES_BYTES_MAX: usize = 16 * 1024;
const SIGNATURE_BYTES_MAX: usize = 1_024;
/// How long the parent may take to say what it keeps.
const PARENT_TIME: Duration = Duration::from_secs(10);

pub(super) struct Audit {
    engine: Engine,
    checkpoints: Arc<Checkpoints>,
}

impl Audit {
    pub(super) fn new(engine: Engine, checkpoints: Arc<Checkpoints>) -> Audit {
        Audit { engine, checkpoints }
    }

    /// Whether a child really signed what it hands in.
    fn check(&self, child: Division, handed: &HandedIn) -> Result<(), Status> {
        let signed = &handed.signed;
        if signed.checkpoint.division != child {
            return Err(status::not_allowed("a node hands in checkpoints of its own log only"));
        }
        let large = signed.signature.len() > SIGNATURE_BYTES_MAX
            || signed.certificates.len() > CERTIFICATES_BYTES_MAX;
        if large {
            return Err(status::invalid(
                "checkpoint",
                "checkpoint: its signature or certificates are too large",
            ));
        }
        let seal = self.checkpoints.seal();
        let seal =
            seal.ok_or_else(|| status::not_now("this node has no authority to check with", "NO_KEY"))?;
        let statement = signed.checkpoint.statement();
        let verified = seal.verify(
            child,
            signed.checkpoint.time_ms,
            statement.as_bytes(),
            &signed.signature,
            &signed.certificates,
        );
        verified
            .map_err(|why| status::invalid("checkpoint.signature", format!("checkpoint.signature: {why}")))
    }

    async fn of_parent(
        &self,
        request: v1::ListAuditCheckpointsRequest,
    ) -> Result<v1::ListAuditCheckpointsResponse, Status> {
        let parent = self.checkpoints.parent();
        let mut parent = parent.ok_or_else(|| {
            status::not_now("there is no link to a parent now (与上级未连接)", "NOT_LINKED")
        })?;
        let asked = v1::ListAuditCheckpointsRequest {
            division: self.engine.shared().own().to_string(),
            at_parent: false,
            ..request
        };
        let answer = tokio::time::timeout(PARENT_TIME, parent.list_audit_checkpoints(asked)).await;
        let late = || status::busy("the parent did not answer in time", PARENT_TIME);
        Ok(answer.map_err(|_| late())??.into_inner())
    }
}

/// An entry as callers see it.
fn entry(slot: i64, row: Row) -> v1::AuditEntry {
    v1::AuditEntry {
        slot: i32::try_from(slot).unwrap_or(-1),
        number: row.number as i64,
        time: Some(view::timestamp(row.time_ms)),
        event: row.event,
        line: row.line,
        hash: row.hash.0.to_vec().into(),
    }
}

/// Unix milliseconds of a bound in time.
fn bound(field: &str, time: Option<&prost_types::Timestamp>, otherwise: u64) -> Result<u64, Status> {
    let Some(time) = time else { return Ok(otherwise) };
    let seconds = u64::try_from(time.seconds).ok().and_then(|seconds| seconds.checked_mul(1_000));
    let millis = u64::try_from(time.nanos / 1_000_000).ok();
    seconds
        .zip(millis)
        .and_then(|(seconds, millis)| seconds.checked_add(millis))
        .ok_or_else(|| status::invalid(field, format!("{field}: not a time after 1970")))
}

/// Two or three numbers of a page token.
fn numbers<const N: usize>(token: Option<String>) -> Result<Option<[u64; N]>, Status> {
    let Some(token) = token else { return Ok(None) };
    let parsed: Option<Vec<u64>> = token.split('-').map(|part| part.parse().ok()).collect();
    let parsed = parsed.and_then(|numbers| <[u64; N]>::try_from(numbers).ok());
    parsed.map(Some).ok_or_else(|| status::invalid("page_token", "page_token: start without one"))
}

/// Sends all chains, entry by entry.
async fn send_log(
    shared: &Shared,
    out: &mpsc::Sender<Result<v1::ReadAuditLogResponse, Status>>,
) -> Result<(), Status> {
    for slot in shared.store.audit_slots().await.map_err(|e| status::of_store(&e))? {
        let last = shared.store.audit_head(slot).await.map_err(|e| status::of_store(&e))?;
        let Some(last) = last else { continue };
        let chain = v1::AuditChain {
            division: shared.own().to_string(),
            slot: i32::try_from(slot).unwrap_or(-1),
            entry_count: last.number as i64,
        };
        let mut piece = v1::ReadAuditLogResponse { chain: Some(chain), entries: Vec::new() };
        let mut after = Chain::new(shared.own(), slot).head().number;
        loop {
            let rows = shared.store.audit_entries(slot, after, ENTRIES_AT_ONCE).await;
            let mut rows = rows.map_err(|e| status::of_store(&e))?;
            // What came since is for the next time: checkpoints are read after the log.
            rows.retain(|row| row.number <= last.number);
            let Some(end) = rows.last().map(|row| row.number) else { break };
            after = end;
            piece.entries = rows.into_iter().map(|row| entry(slot, row)).collect();
            if out.send(Ok(std::mem::take(&mut piece))).await.is_err() {
                return Ok(());
            }
        }
    }
    Ok(())
}

#[tonic::async_trait]
impl AuditService for Audit {
    type ReadAuditLogStream = Pin<Box<dyn Stream<Item = Result<v1::ReadAuditLogResponse, Status>> + Send>>;

    async fn list_audit_entries(
        &self,
        request: Request<v1::ListAuditEntriesRequest>,
    ) -> Result<Response<v1::ListAuditEntriesResponse>, Status> {
        caller::operator(request.extensions())?;
        let request = request.into_inner();
        let size = page::size(request.page_size)?;
        let from = bound("start_time", request.start_time.as_ref(), 0)?;
        let to = bound("end_time", request.end_time.as_ref(), u64::MAX)?;
        let query = format!("audit {from} {to} {}", request.event);
        let [first, mut before] =
            numbers(page::after(&query, &request.page_token)?)?.unwrap_or([0, u64::MAX]);
        let store = &self.engine.shared().store;
        let mut entries: Vec<v1::AuditEntry> = Vec::new();
        let mut next_page_token = String::new();
        for slot in store.audit_slots().await.map_err(|e| status::of_store(&e))? {
            if slot < first as i64 {
                continue;
            }
            let left = size - entries.len();
            let rows = store.audit_latest(slot, before, from..to, &request.event, left).await;
            let rows = rows.map_err(|e| status::of_store(&e))?;
            entries.extend(rows.into_iter().map(|row| entry(slot, row)));
            before = u64::MAX;
            if entries.len() == size {
                let last = entries.last().map_or(0, |entry| entry.number);
                next_page_token = page::token(&query, &format!("{slot}-{last}"));
                break;
            }
        }
        Ok(Response::new(v1::ListAuditEntriesResponse { entries, next_page_token }))
    }

    async fn read_audit_log(
        &self,
        request: Request<v1::ReadAuditLogRequest>,
    ) -> Result<Response<Self::ReadAuditLogStream>, Status> {
        caller::operator(request.extensions())?;
        let shared = self.engine.shared().clone();
        let (out, responses) = mpsc::channel(4);
        tokio::spawn(async move {
            if let Err(error) = send_log(&shared, &out).await {
                let _ = out.send(Err(error)).await;
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(responses))))
    }

    async fn list_audit_checkpoints(
        &self,
        request: Request<v1::ListAuditCheckpointsRequest>,
    ) -> Result<Response<v1::ListAuditCheckpointsResponse>, Status> {
        let own = self.engine.shared().own();
        let asked = &request.get_ref().division;
        let division = if asked.is_empty() { own } else { page::parent("division", asked)? };
        match request.extensions().get::<Caller>().map(|caller| &caller.who) {
            // A child sees what is kept of it, and nothing else.
            Some(Who::Node(child)) if *child == division && !request.get_ref().at_parent => {}
            _ => drop(caller::operator(request.extensions())?),
        }
        let request = request.into_inner();
        if request.at_parent {
            return Ok(Response::new(self.of_parent(request).await?));
        }
        let size = page::size(request.page_size)?;
        let query = format!("checkpoints {division}");
        let after = numbers(page::after(&query, &request.page_token)?)?;
        let after = after.map(|[slot, time_ms, number]| (slot as i64, time_ms, number));
        let listed = self.engine.shared().store.checkpoints(division, after, size).await;
        let listed = listed.map_err(|e| status::of_store(&e))?;
        let last = listed.last().filter(|_| listed.len() == size).map(|signed| signed.checkpoint);
        let next = last.map(|c| page::token(&query, &format!("{}-{}-{}", c.slot, c.time_ms, c.head.number)));
        let checkpoints = listed.iter().map(shown).collect();
        let next_page_token = next.unwrap_or_default();
        Ok(Response::new(v1::ListAuditCheckpointsResponse { checkpoints, next_page_token }))
    }

    async fn submit_audit_checkpoint(
        &self,
        request: Request<v1::SubmitAuditCheckpointRequest>,
    ) -> Result<Response<v1::SubmitAuditCheckpointResponse>, Status> {
        let (child, _) = caller::node(request.extensions())?;
        let own = self.engine.shared().own();
        if !own.strictly_contains(child) {
            return Err(status::not_allowed(format!("{child} does not lie inside {own}")));
        }
        let request = request.into_inner();
        let wrong = |field: &str| status::invalid(field, format!("{field}: this cannot be"));
        let signed = request.checkpoint.as_ref().and_then(read).ok_or_else(|| wrong("checkpoint"))?;
        let after = u64::try_from(request.after_number).map_err(|_| wrong("after_number"))?;
        if !request.digests.len().is_multiple_of(32) {
            return Err(wrong("digests"));
        }
        let digests = request.digests.chunks_exact(32).filter_map(Hash::of_bytes).collect();
        let handed = HandedIn { signed, follows: Some((after, digests)) };
        self.check(child, &handed)?;
        let kept = self.engine.keep_checkpoint(handed).await.map_err(|e| status::unfinished(&e))?;
        match kept {
            Ok(_) => Ok(Response::new(v1::SubmitAuditCheckpointResponse {})),
            Err(error @ Untaken::Senseless(_)) => Err(status::invalid("checkpoint", error.to_string())),
            Err(error @ Untaken::Apart { kept }) => Err(not_now(&error, APART, kept)),
            Err(error @ Untaken::Contradicts { kept }) => Err(not_now(&error, CONTRADICTS, kept)),
        }
    }

    async fn accept_audit_checkpoints(
        &self,
        request: Request<v1::AcceptAuditCheckpointsRequest>,
    ) -> Result<Response<v1::AcceptAuditCheckpointsResponse>, Status> {
        let by = caller::operator(request.extensions())?.name();
        let child = page::parent("division", &request.get_ref().division)?;
        let accepted =
            self.engine.accept_checkpoints(child, &by).await.map_err(|e| status::unfinished(&e))?;
        if accepted.is_empty() {
            let text = format!(
                "nothing that {child} signed of its audit log contradicts what this gateway keeps of it, as far as it \
                 knows; a child hands in its checkpoint some seconds after it has linked (没有待确认的审计检查点)"
            );
            return Err(status::not_now(text, "NO_CONTRADICTION"));
        }
        tracing::warn!(%child, %by, "what a child signs of its audit log was accepted in place of what was kept (已确认下级审计日志)");
        let checkpoints = accepted.iter().map(shown).collect();
        Ok(Response::new(v1::AcceptAuditCheckpointsResponse { checkpoints }))
    }
}

fn not_now(error: &Untaken, reason: &str, kept: u64) -> Status {
    let metadata = HashMap::from([("kept".to_owned(), kept.to_string())]);
    status::not_now_with(error.to_string(), reason, metadata)
}
