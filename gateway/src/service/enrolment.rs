//! `EnrolmentService`: a first certificate for whoever has a code, a new one for a node that has one, and what this node
//! trusts for those below it.
//!
//! Certificates are made by the node's [`Registrar`]; what is decided here is who gets one. A caller must never learn
//! more of a code than that it is not accepted.

use std::net::IpAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_core::Stream;
use guantong_proto::v1;
use guantong_proto::v1::enrolment_service_server::EnrolmentService;
use prost::Message;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Extensions, Request, Response, Status};

use super::links::Links;
use super::{caller, status};
use crate::audit::Event;
use crate::division::Division;
use crate::engine::Engine;
use crate::invitation::guesses::Guesses;
use crate::invitation::{Admission, FINGERPRINT_BYTES, Fate, Invitation, NotAccepted, secret_hash};
use crate::pace::{Pace, Paces};

const DAY_MS: u64 = 24 * 3600 * 1000;
/// Certificates that one node is given at once, and how long it takes until it may have one more. A node asks once in a
/// certificate's time; one that cannot keep what it was given asks again and again.
const RENEWALS: Pace = Pace::new(10, Duration::from_secs(600));
/// Nodes that are remembered for that: more than one node has below it.
const RENEWERS_MAX: usize = 50_000;

/// Who is at the other end of a connection from outside. Put into the extensions of requests by the node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Visitor {
    /// From where.
    pub address: IpAddr,
    /// It came through the lobby, where nothing is known of it but what it shows.
    pub in_lobby: bool,
    /// The node's certificate that it has shown and that was checked, though it may have run out.
    pub shown: Option<Shown>,
}

/// What a node's certificate says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// Whose it is.
    pub division: Division,
    /// The DNS names and addresses in it.
    pub hosts: Vec<String>,
    /// Its serial number, in lower-case hexadecimal digits.
    pub serial: String,
    /// When it runs out, Unix milliseconds.
    pub not_after_ms: u64,
}

/// Why no certificate is made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RegistrarError {
    /// The node has no authority.
    #[error(
        "the node that was asked has no authority: its configuration must name one, as `dir` in [authority] \
         (该节点未配置签发机构)"
    )]
    NoAuthority,
    /// The request cannot be granted as it is; holds why.
    #[error("{0}")]
    Unacceptable(String),
    /// The certificate that is to be replaced was revoked.
    #[error(
        "the certificate was revoked and is not renewed; the node needs a new invitation (证书已吊销，不能续期)"
    )]
    Revoked,
    /// The authority could not do it; holds why.
    #[error("the authority cannot sign now: {0} (签发机构暂不可用)")]
    Failed(String),
}

/// What a node lends to enrolment: its authority, and what it trusts. All but `trust` wait for the disk.
pub trait Registrar: Send + Sync + 'static {
    /// Whether a node of this division, reached by these hosts, can be given a certificate; and the fingerprint by which
    /// it will know this node.
    ///
    /// # Errors
    /// Why not.
    fn may_invite(
        &self,
        division: Division,
        hosts: &[String],
    ) -> Result<[u8; FINGERPRINT_BYTES], RegistrarError>;

    /// The hash of the public key of a signing request, whose signature is checked.
    ///
    /// # Errors
    /// It is not a sound request.
    fn key_hash(&self, signing_request: &str) -> Result<[u8; 32], RegistrarError>;

    /// A certificate for the key of a signing request, in PEM with its intermediates.
    ///
    /// # Errors
    /// Why not.
    fn sign(
        &self,
        signing_request: &str,
        division: Division,
        hosts: &[String],
    ) -> Result<String, RegistrarError>;

    /// The same in place of a certificate that was shown.
    ///
    /// # Errors
    /// Why not.
    fn renew(&self, signing_request: &str, shown: &Shown) -> Result<String, RegistrarError>;

    /// What is trusted now, and each change of it.
    fn trust(&self) -> watch::Receiver<Arc<v1::Trust>>;
}

/// The service. Clones count together: the same node may come by its link and by the lobby.
#[derive(Clone)]
pub struct Enrolment {
    engine: Engine,
    links: Links,
    registrar: Arc<dyn Registrar>,
    guesses: Arc<Mutex<Guesses>>,
    renewals: Arc<Mutex<Paces<Division>>>,
    stop: CancellationToken,
}

impl Enrolment {
    /// One for each process. `stop` ends what watches what is trusted.
    pub fn new(
        engine: Engine,
        links: Links,
        registrar: Arc<dyn Registrar>,
        stop: CancellationToken,
    ) -> Enrolment {
        let renewals = Arc::new(Mutex::new(Paces::new(RENEWERS_MAX)));
        Enrolment { engine, links, registrar, guesses: Arc::default(), renewals, stop }
    }

    fn now_ms(&self) -> u64 {
        (self.engine.shared().environment.now_ms)()
    }

    /// The invitation of a secret.
    async fn invitation(&self, secret: &[u8]) -> Result<Option<Invitation>, Status> {
        let store = &self.engine.shared().store;
        store.invitation(&secret_hash(secret)).await.map_err(|e| status::of_store(&e))
    }

    /// What a code brings whoever has this key.
    async fn admit(&self, secret: &[u8], request: &str, key_hash: [u8; 32]) -> Result<Admitted, Status> {
        let Some(invitation) = self.invitation(secret).await? else {
            return Ok(Admitted::No(NotAccepted::Wrong, None));
        };
        let division = invitation.division;
        match invitation.admits(&key_hash, self.now_ms()) {
            Err(why) => return Ok(Admitted::No(why, Some(division))),
            Ok(Admission::Again(answer)) => return Ok(Admitted::Yes(division, answer.to_vec())),
            Ok(Admission::New) => {}
        }
        let (request, hosts) = (request.to_owned(), invitation.hosts.clone());
        let certificate =
            lend(&self.registrar, move |registrar| registrar.sign(&request, division, &hosts)).await?;
        let answer = v1::EnrolResponse {
            certificate,
            division: division.to_string(),
            parent_division: self.engine.shared().own().to_string(),
            hosts: invitation.hosts,
            trust: None,
        };
        let answer = answer.encode_to_vec();
        let used = Fate::Used { at_ms: self.now_ms(), key_hash, answer: answer.clone() };
        let first = self.engine.close_invitation(invitation.id, used).await;
        if first.map_err(|e| status::unfinished(&e))? {
            return Ok(Admitted::Yes(division, answer));
        }
        // Somebody was faster. What was signed here is handed to nobody.
        let now = self.invitation(secret).await?;
        Ok(match now.as_ref().map(|now| now.admits(&key_hash, self.now_ms())) {
            Some(Ok(Admission::Again(answer))) => Admitted::Yes(division, answer.to_vec()),
            Some(Err(why)) => Admitted::No(why, Some(division)),
            Some(Ok(Admission::New)) | None => Admitted::No(NotAccepted::Wrong, Some(division)),
        })
    }

    /// The certificate that the caller shows, if it is that of a node below this one.
    fn shown(&self, extensions: &Extensions) -> Result<Visitor, Status> {
        let own = self.engine.shared().own();
        match extensions.get::<Visitor>() {
            Some(Visitor { shown: Some(shown), .. }) if !own.strictly_contains(shown.division) => {
                let text =
                    format!("{} does not lie inside {own}: this node is not its parent", shown.division);
                Err(status::not_allowed(text))
            }
            Some(visitor) if visitor.shown.is_some() => Ok(visitor.clone()),
            _ => Err(status::not_allowed("only a node that shows its certificate can have it renewed")),
        }
    }
}

/// Lends the registrar to a thread where it may wait for the disk.
pub(super) async fn lend<T: Send + 'static>(
    registrar: &Arc<dyn Registrar>,
    ask: impl FnOnce(&dyn Registrar) -> Result<T, RegistrarError> + Send + 'static,
) -> Result<T, Status> {
    let registrar = registrar.clone();
    let asked = tokio::task::spawn_blocking(move || ask(registrar.as_ref())).await;
    let asked = asked.unwrap_or_else(|_| Err(RegistrarError::Failed("it ended".into())));
    asked.map_err(|error| status::of_registrar(&error))
}

enum Admitted {
    Yes(Division, Vec<u8>),
    No(NotAccepted, Option<Division>),
}

#[tonic::async_trait]
impl EnrolmentService for Enrolment {
    type WatchTrustStream = Pin<Box<dyn Stream<Item = Result<v1::WatchTrustResponse, Status>> + Send>>;

    async fn enrol(&self, request: Request<v1::EnrolRequest>) -> Result<Response<v1::EnrolResponse>, Status> {
        let from = match request.extensions().get::<Visitor>() {
            Some(Visitor { address, in_lobby: true, .. }) => *address,
            _ => {
                return Err(status::not_allowed(
                    "new nodes are enrolled in the lobby: use `guantong enroll`",
                ));
            }
        };
        let request = request.into_inner();
        let lock = || self.guesses.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(wait_ms) = lock().take(from, self.now_ms()) {
            self.engine.audit(Event::CodeRefused { address: from.to_string(), reason: "too_many" });
            tracing::warn!(%from, wait_ms, "too many codes were tried (尝试邀请码过于频繁)");
            let text = "too many codes were tried; wait before you try again (尝试过于频繁，请稍后再试)";
            return Err(status::busy(text, Duration::from_millis(wait_ms)));
        }
        let pem = request.signing_request.clone();
        let key_hash = lend(&self.registrar, move |registrar| registrar.key_hash(&pem)).await?;
        match self.admit(&request.secret, &request.signing_request, key_hash).await? {
            Admitted::Yes(division, answer) => {
                lock().was_right(from);
                self.engine.audit(Event::Enrolled { division, address: from.to_string() });
                tracing::info!(%division, %from, "a new node has come by its invitation (新节点已入网)");
                let mut answer = v1::EnrolResponse::decode(answer.as_slice())
                    .map_err(|_| status::broken("what an invitation brought"))?;
                answer.trust = Some(v1::Trust::clone(&self.registrar.trust().borrow()));
                Ok(Response::new(answer))
            }
            Admitted::No(why, division) => {
                self.engine.audit(Event::CodeRefused { address: from.to_string(), reason: why.code() });
                tracing::warn!(%from, ?division, "a code was not accepted: {why}");
                Err(status::not_allowed(
                    "the code is not accepted; ask the parent's operator for a new invitation (邀请码未被接受)",
                ))
            }
        }
    }

    async fn renew(&self, request: Request<v1::RenewRequest>) -> Result<Response<v1::RenewResponse>, Status> {
        let visitor = self.shown(request.extensions())?;
        let Some(shown) = visitor.shown else { return Err(status::not_allowed("no certificate was shown")) };
        let pem = request.into_inner().signing_request;
        let old = shown.clone();
        let (division, now_ms) = (shown.division, self.now_ms());
        let renewals = || self.renewals.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(wait_ms) = renewals().take(division, RENEWALS, now_ms) {
            self.engine.audit(Event::RenewalRefused { division, reason: "too_many".into() });
            tracing::warn!(%division, wait_ms, "a node asks for certificates again and again (下级节点频繁申请续期)");
            let text = "this node was given many certificates in a short time; see why it does not keep them \
                        (续期过于频繁，请检查该节点为何未保存证书)";
            return Err(status::busy(text, Duration::from_millis(wait_ms)));
        }
        let renewed = lend(&self.registrar, move |registrar| registrar.renew(&pem, &old)).await;
        let certificate = renewed.inspect_err(|status| {
            // That this node cannot sign is not the child's doing.
            if matches!(status.code(), Code::FailedPrecondition | Code::Unavailable) {
                renewals().give_back(&division, RENEWALS);
            }
            let reason = status::reason(status);
            self.engine.audit(Event::RenewalRefused { division, reason });
        })?;
        let late_ms = now_ms.saturating_sub(shown.not_after_ms);
        let late_days = late_ms.div_ceil(DAY_MS);
        self.engine.audit(Event::CertificateRenewed { division, serial: shown.serial, late_days });
        if late_ms > 0 {
            let days = late_ms / DAY_MS;
            let text = format!(
                "its certificate had run out {days} days before; it was let in for a new one only (证书过期后续期)"
            );
            self.links.refused(division, &visitor.address.to_string(), &text);
            tracing::warn!(%division, from = %visitor.address, days, "a certificate was renewed after it had run out (证书过期后续期)");
        } else {
            tracing::info!(%division, "a certificate was renewed (证书已续期)");
        }
        Ok(Response::new(v1::RenewResponse { certificate }))
    }

    async fn watch_trust(
        &self,
        request: Request<v1::WatchTrustRequest>,
    ) -> Result<Response<Self::WatchTrustStream>, Status> {
        let (child, _) = caller::node(request.extensions())?;
        if !self.engine.shared().own().strictly_contains(child) {
            return Err(status::not_allowed("what a node trusts is told to the nodes below it"));
        }
        let mut trust = self.registrar.trust();
        let stop = self.stop.clone();
        let (out, answers) = mpsc::channel(1);
        tokio::spawn(async move {
            loop {
                let now = v1::Trust::clone(&trust.borrow_and_update());
                let answer = v1::WatchTrustResponse { trust: Some(now) };
                let changed = async { out.send(Ok(answer)).await.is_ok() && trust.changed().await.is_ok() };
                tokio::select! {
                    go_on = changed => if !go_on { return },
                    () = out.closed() => return,
                    () = stop.cancelled() => return,
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(answers))))
    }
}
