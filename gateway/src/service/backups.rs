//! `BackupService`: a copy of the store while the node runs, sent in pieces. It keeps no copy, and holds nobody up.

use std::fs::File;
use std::io::Read;
use std::pin::Pin;
use std::time::Duration;

use futures_core::Stream;
use guantong_proto::v1;
use guantong_proto::v1::backup_service_server::BackupService;
use guantong_proto::v1::create_backup_response::Step;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::{caller, status, view};
use crate::engine::{Engine, Shared};
use crate::store::{Copied, Copying};

/// A piece of the copy.
const CHUNK_BYTES: usize = 256 * 1024;
/// Messages that may wait for the caller.
const WAITING_MAX: usize = 4;
/// How long a caller may leave one waiting.
const CALLER_TIME: Duration = Duration::from_secs(60);

type Said = Result<v1::CreateBackupResponse, Status>;

pub(super) struct Backups {
    engine: Engine,
    software_version: String,
}

impl Backups {
    pub(super) fn new(engine: Engine, software_version: String) -> Backups {
        Backups { engine, software_version }
    }
}

#[tonic::async_trait]
impl BackupService for Backups {
    type CreateBackupStream = Pin<Box<dyn Stream<Item = Said> + Send>>;

    async fn create_backup(
        &self,
        request: Request<v1::CreateBackupRequest>,
    ) -> Result<Response<Self::CreateBackupStream>, Status> {
        caller::operator(request.extensions())?;
        let shared = self.engine.shared().clone();
        if shared.store.is_for_many() {
            return Err(status::not_copied_here());
        }
        let (out, said) = mpsc::channel(WAITING_MAX);
        let software_version = self.software_version.clone();
        tokio::spawn(async move {
            let sent = async {
                if let Err(error) = send(&shared, software_version, &out).await {
                    // Nobody may be there any more.
                    let _ = out.send(Err(error)).await;
                }
            };
            // A caller that is gone wants no copy.
            tokio::select! {
                () = sent => {}
                () = out.closed() => {}
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(said))))
    }
}

async fn send(shared: &Shared, software_version: String, out: &mpsc::Sender<Said>) -> Result<(), Status> {
    let said = |copying: Copying| {
        let progress = v1::BackupProgress {
            copied_bytes: copying.copied,
            expected_bytes: copying.expected,
            checking: copying.checking,
        };
        // Who does not listen misses it: the next one says more.
        let _ = out.try_send(Ok(v1::CreateBackupResponse { step: Some(Step::Progress(progress)) }));
    };
    let create_ms = (shared.environment.now_ms)();
    let Copied { mut file, bytes, meta, format, records } =
        shared.store.copy(said).await.map_err(|error| status::of_store(&error))?;
    let mut hash = blake3::Hasher::new();
    let mut sent = 0;
    loop {
        let read = tokio::task::spawn_blocking(move || next(&mut file).map(|chunk| (file, chunk))).await;
        let read = read.map_err(|error| status::broken(&error.to_string()))?;
        let (rest, chunk) = read.map_err(|error| status::broken(&error.to_string()))?;
        file = rest;
        if chunk.is_empty() {
            break;
        }
        hash.update(&chunk);
        sent += chunk.len() as u64;
        give(out, Step::Chunk(chunk.into())).await?;
    }
    if sent != bytes {
        return Err(status::broken("the copy changed while it was sent"));
    }
    let manifest = v1::BackupManifest {
        division: meta.division.to_string(),
        epoch: meta.epoch,
        revision: meta.revision,
        store_format: format as u32,
        software_version,
        create_time: Some(view::timestamp(create_ms)),
        record_count: records,
        copy_bytes: bytes,
        copy_hash: hash.finalize().as_bytes().to_vec().into(),
    };
    give(out, Step::Manifest(manifest)).await
}

/// The next piece; empty at the end.
fn next(file: &mut File) -> std::io::Result<Vec<u8>> {
    let mut chunk = Vec::with_capacity(CHUNK_BYTES);
    file.take(CHUNK_BYTES as u64).read_to_end(&mut chunk)?;
    Ok(chunk)
}

/// Waits for a slow caller, but not for ever: the copy takes room on the node's disk.
async fn give(out: &mpsc::Sender<Said>, step: Step) -> Result<(), Status> {
    let sent = out.send(Ok(v1::CreateBackupResponse { step: Some(step) }));
    match tokio::time::timeout(CALLER_TIME, sent).await {
        Ok(Ok(())) => Ok(()),
        _ => Err(status::busy("the copy was not read in time; try again", Duration::from_secs(5))),
    }
}
