//! `BundleService`: bundles made and taken in, for networks with no line between them. What a bundle means is decided in
//! `bundle` and by the engine; here are the files, the node's keys, and who may ask.
//!
//! A bundle is verified whole before anything of it is written, and only one is made or taken in at a time.

use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_core::Stream;
use guantong_proto::v1;
use guantong_proto::v1::bundle_service_server::BundleService;
use tokio::sync::{Mutex, OwnedMutexGuard, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::checkpoints::Seal;
use super::{NodeInfo, caller, page, status, view};
use crate::audit::Event;
use crate::bundle::standing::PeerKey;
use crate::bundle::{BundleError, Card, SecretKey};
use crate::division::Division;
use crate::engine::Engine;
use crate::engine::bundles::Note;
use crate::ingest::topology::Role;

mod making;
pub(super) mod state;
mod taking;

use making::Making;
use taking::Taking;

/// Messages that may wait for the caller.
const MESSAGES_MAX: usize = 4;
/// Before a caller who finds another bundle under way should come again.
const RETRY: Duration = Duration::from_secs(10);

/// How the node and its parent exchange.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ParentLine {
    /// Over a line that the node dials.
    #[default]
    Dialled,
    /// By bundles, both ways.
    Bundle,
    /// By bundles that go up only 单向: nothing ever comes back.
    OneWay,
}

/// The keys that bundles for this node are opened with.
pub trait BundleKeys: Send + Sync {
    /// All of them, the newest first; the first is made when it is asked for. It waits for the disk.
    ///
    /// # Errors
    /// In plain words.
    fn secrets(&self) -> Result<Vec<SecretKey>, String>;
}

/// What the node lends to bundles.
pub struct BundleMeans {
    /// The node's certificate key, and whom it trusts.
    pub seal: Arc<dyn Seal>,
    /// The keys that bundles are opened with.
    pub keys: Arc<dyn BundleKeys>,
    /// Where a bundle is kept while it is taken in. It is sealed there as it came.
    pub folder: PathBuf,
}

/// What all calls share.
struct Desk {
    engine: Engine,
    means: Arc<BundleMeans>,
    parent_line: ParentLine,
    software_version: String,
    /// When the node's certificate ends, Unix milliseconds.
    certificate_expire_ms: Arc<dyn Fn() -> Option<i64> + Send + Sync>,
}

impl Desk {
    /// The newest key of this node, and the earlier ones.
    async fn secrets(self: &Arc<Self>) -> Result<Vec<SecretKey>, Status> {
        let desk = self.clone();
        let secrets = tokio::task::spawn_blocking(move || desk.means.keys.secrets()).await;
        let failed =
            |error| status::not_now(format!("the key for bundles: {error} (数据包密钥不可用)"), "NO_KEY");
        secrets.unwrap_or_else(|_| Err("it could not be read".into())).map_err(failed)
    }

    /// The parent, or a node below that was met.
    fn role(&self, division: Division) -> Option<Role> {
        let topology = self.engine.shared().topology();
        if topology.parent().is_some_and(|(_, parent)| parent == division) {
            return Some(Role::Parent);
        }
        topology.children().any(|(_, child)| child == division).then_some(Role::Child)
    }
}

pub(super) struct Bundles {
    /// `None`: the node has no identity, and so nobody to exchange with.
    desk: Option<Arc<Desk>>,
    /// Held while a bundle is made or taken in.
    busy: Arc<Mutex<()>>,
}

impl Bundles {
    pub(super) fn new(engine: Engine, info: &NodeInfo) -> Bundles {
        let (parent_line, software_version) = (info.parent_line, info.software_version.clone());
        let certificate_expire_ms = info.certificate_expire_ms.clone();
        let desk =
            |means| Arc::new(Desk { engine, means, parent_line, software_version, certificate_expire_ms });
        Bundles { desk: info.bundles.clone().map(desk), busy: Arc::default() }
    }

    fn desk(&self) -> Result<Arc<Desk>, Status> {
        self.desk.clone().ok_or_else(|| {
            let message = "this node has no certificate, so it can neither sign bundles nor tell who made one; configure \
                           [tls] (本节点没有证书，无法使用数据包)";
            status::not_now(message, "NO_IDENTITY")
        })
    }

    /// Makes a bundle, piece by piece.
    pub(super) async fn make(
        &self,
        division: Division,
        since_last: bool,
    ) -> Result<mpsc::Receiver<Result<v1::ExportBundleResponse, Status>>, Status> {
        let (desk, alone) = (self.desk()?, self.alone()?);
        let (out, answers) = mpsc::channel(MESSAGES_MAX);
        let making = Making::begin(desk, division, since_last, out.clone()).await?;
        tokio::spawn(async move {
            let made = making.run().await;
            // Whoever has the last answer may ask for the next bundle at once.
            drop(alone);
            // Whoever asked may be gone: then the bundle is one of those that are lost on their way.
            let _ = out.send(made).await;
        });
        Ok(answers)
    }

    /// Takes in a bundle. What was begun is brought to its end, whether or not anybody watches.
    pub(super) fn take(
        &self,
        file: impl Stream<Item = Result<v1::ImportBundleRequest, Status>> + Send + Unpin + 'static,
    ) -> Result<mpsc::Receiver<Result<v1::ImportBundleResponse, Status>>, Status> {
        let (desk, alone) = (self.desk()?, self.alone()?);
        let (out, answers) = mpsc::channel(MESSAGES_MAX);
        let taking = Taking::new(desk, out.clone());
        tokio::spawn(async move {
            let taken = taking.run(file).await;
            drop(alone);
            let _ = out.send(taken).await;
        });
        Ok(answers)
    }

    fn alone(&self) -> Result<OwnedMutexGuard<()>, Status> {
        self.busy.clone().try_lock_owned().map_err(|_| {
            status::busy("another bundle is being made or taken in here (另一个数据包正在处理)", RETRY)
        })
    }
}

/// Why a bundle was not taken in, for the caller.
fn refused(error: &BundleError) -> Status {
    match error {
        BundleError::Read(_) => status::not_now(error.to_string(), "BUNDLE_UNREADABLE"),
        _ => status::invalid("bundle", error.to_string()),
    }
}

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl BundleService for Bundles {
    type ExportBundleStream = Answers<v1::ExportBundleResponse>;
    type ImportBundleStream = Answers<v1::ImportBundleResponse>;

    async fn get_bundle_card(
        &self,
        request: Request<v1::GetBundleCardRequest>,
    ) -> Result<Response<v1::GetBundleCardResponse>, Status> {
        caller::operator(request.extensions())?;
        let desk = self.desk()?;
        let key = desk.secrets().await?.first().and_then(SecretKey::public);
        let key = key.ok_or_else(|| status::not_now("the key for bundles cannot be used", "NO_KEY"))?;
        let shared = desk.engine.shared();
        let mut card = Card::new(shared.own(), key, (shared.environment.now_ms)());
        let signed = desk.means.seal.sign(card.statement().as_bytes());
        let (signature, certificates) = signed.map_err(|error| status::not_now(error, "NO_KEY"))?;
        (card.signature, card.certificates) = (signature.into(), certificates.into());
        Ok(Response::new(v1::GetBundleCardResponse {
            card: card.encode().into(),
            division: card.division.to_string(),
            key_id: key.id().to_string(),
        }))
    }

    async fn accept_bundle_card(
        &self,
        request: Request<v1::AcceptBundleCardRequest>,
    ) -> Result<Response<v1::AcceptBundleCardResponse>, Status> {
        caller::operator(request.extensions())?;
        let desk = self.desk()?;
        let card = Card::decode(&request.get_ref().card);
        let card = card.map_err(|error| status::invalid("card", error.to_string()))?;
        let shared = desk.engine.shared();
        let division = card.division;
        if desk.role(division).is_none() && !shared.own().strictly_contains(division) {
            let text = format!(
                "card: it is that of {division}, which is neither this node's parent nor below it (名片所属节点既非上级也非下级)"
            );
            return Err(status::invalid("card", text));
        }
        let statement = card.statement();
        let (signature, certificates) = (&card.signature, &card.certificates);
        let seal = &desk.means.seal;
        let verified = seal.verify(division, card.time_ms, statement.as_bytes(), signature, certificates);
        verified.map_err(|why| {
            status::invalid("card", format!("the card is not accepted: {why} (名片签名无效)"))
        })?;
        if card.time_ms > (shared.environment.now_ms)().saturating_add(shared.environment.drift_ms) {
            return Err(status::invalid(
                "card",
                "card: it was signed in the future; compare the clocks (名片时间晚于当前时间)",
            ));
        }
        let key = PeerKey { key: card.key, time_ms: card.time_ms, certificates: card.certificates.clone() };
        let key_id = key.key.id().to_string();
        let event = Event::BundleKeyAccepted { peer: division, key: key_id.clone() };
        let noted = desk.engine.note_bundle(division, Note::Key(key), Some(event)).await;
        noted.map_err(|error| status::unfinished(&error))?;
        Ok(Response::new(v1::AcceptBundleCardResponse {
            division: division.to_string(),
            key_id,
            time: Some(view::timestamp(card.time_ms)),
        }))
    }

    async fn export_bundle(
        &self,
        request: Request<v1::ExportBundleRequest>,
    ) -> Result<Response<Self::ExportBundleStream>, Status> {
        caller::operator(request.extensions())?;
        let v1::ExportBundleRequest { peer, since_last } = request.into_inner();
        let answers = self.make(page::parent("peer", &peer)?, since_last).await?;
        Ok(Response::new(Box::pin(ReceiverStream::new(answers))))
    }

    async fn import_bundle(
        &self,
        request: Request<Streaming<v1::ImportBundleRequest>>,
    ) -> Result<Response<Self::ImportBundleStream>, Status> {
        caller::operator(request.extensions())?;
        let answers = self.take(request.into_inner())?;
        Ok(Response::new(Box::pin(ReceiverStream::new(answers))))
    }
}
