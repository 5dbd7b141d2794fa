//! One loaded identity: certificate, key, trusted authorities and revocation lists, as TLS 1.3 configurations.
//!
//! An [`Identity`] is checked as a whole when it is made and never changes after. It must never allow TLS 1.2, a
//! client without a certificate, or the resumption of a session, by which a revoked peer would get back in.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use guantong_gateway::division::Division;
use rustls::client::{ClientConfig, Resumption};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::danger::ClientCertVerifier as _;
use rustls::server::{NoServerSessionStorage, ResolvesServerCert, ServerConfig};

use super::certificate::{Certificate, CertificateProblem};
use super::chain::{AnchorError, AuthorityScope, ChainCheck, Trust, Usage};
use super::keeping::check_key_permissions;
use super::lobby::Expired;
use super::peer::Peer;
use super::revocation::{self, RevocationError, RevocationList, Revocations};
use super::seal::Signing;
use super::spiffe::{SpiffeId, Subject};
use super::verifier::{ClientVerifier, ServerVerifier};
use super::words::{Fault, Trouble, Words, beijing_time};
use super::{lobby, now_ms, provider, trust};

/// HTTP/2 is the only protocol offered, by both sides.
pub(super) const ALPN_HTTP2: &[u8] = b"h2";
/// A certificate that runs out sooner than this is warned about.
const EXPIRY_WARNING_MS: u64 = 30 * 24 * 3600 * 1000;

/// Where an identity is kept. Paths, not contents, so that it can be loaded again.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IdentityFiles {
    /// The certificate in PEM, followed by its intermediates if there are any.
    pub certificate: PathBuf,
    /// The private key in PEM (PKCS #8, SEC1 or PKCS #1), readable by its owner only.
    pub key: PathBuf,
    /// The certificates of the trusted authorities in PEM; more than one while an authority is being replaced.
    pub authority: PathBuf,
    /// The revocation lists in PEM, one for each authority. Without it nothing is ever revoked.
    #[serde(default)]
    pub revocations: Option<PathBuf>,
    /// What limits the authorities.
    #[serde(default)]
    pub authority_scope: AuthorityScope,
}

impl IdentityFiles {
    /// The files of a directory under the names that `guantong pki issue` gives them. The revocation lists are left
    /// out if there is no such file.
    pub fn in_dir(dir: &Path) -> IdentityFiles {
        let revocations = dir.join("revocations.pem");
        IdentityFiles {
            certificate: dir.join("certificate.pem"),
            key: dir.join("key.pem"),
            authority: dir.join("authority.pem"),
            revocations: revocations.exists().then_some(revocations),
            authority_scope: AuthorityScope::default(),
        }
    }
}

/// The same as [`IdentityFiles`], read.
#[derive(Clone, Copy)]
pub struct IdentityPem<'p> {
    /// Certificate and intermediates.
    pub certificate: &'p [u8],
    /// Private key.
    pub key: &'p [u8],
    /// Trusted authorities.
    pub authority: &'p [u8],
    /// Revocation lists.
    pub revocations: Option<&'p [u8]>,
    /// What limits the authorities.
    pub authority_scope: AuthorityScope,
}

/// Why an identity is not put to use. Each says what to do; the key's contents never appear.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// A file that cannot be read.
    #[error("cannot read {}: {source} (无法读取文件)", path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A key that every user of the machine may read.
    #[error(
        "the key {} can be read by every user of this machine (mode {mode:04o}); run chmod 600 on it \
         (本机任何用户都能读取该私钥，请执行 chmod 600)",
        path.display()
    )]
    KeyIsOpen {
        /// Which file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The certificate file has no certificate.
    #[error("the certificate file holds no certificate in PEM form (证书文件中没有 PEM 格式的证书)")]
    NoCertificate,
    /// The key file has no key.
    #[error("the key file holds no private key in PEM form (私钥文件中没有 PEM 格式的私钥)")]
    NoKey,
    /// The authority file has no certificate.
    #[error("the authority file holds no certificate in PEM form (签发机构文件中没有 PEM 格式的证书)")]
    NoAuthority,
    /// The authority file has something that is not an authority; holds its subject.
    #[error(
        "«{0}» in the authority file is not the certificate of an authority \
         (签发机构文件中有不属于签发机构的证书)"
    )]
    NotAnAuthority(String),
    /// An authority that says nothing of its scope; holds its subject.
    #[error(
        "«{0}» in the authority file names no scope of this trust domain; if it belongs to an existing authority's \
         system (SPIRE or another), say `authority_scope = \"unlimited\"` under `tls` \
         (该签发机构的证书未注明范围；若为现有证书体系，请设置 authority_scope = \"unlimited\")"
    )]
    NoScope(String),
    /// The own certificate comes from an authority that may not vouch for it; holds that authority's division.
    #[error(
        "the certificate comes from the authority of {0}, which may vouch for nodes inside {0} only; ask the authority \
         of a division around this node (签发机构无权为本节点签发证书)"
    )]
    OutsideScope(Division),
    /// The certificate carries no usable identity.
    #[error(transparent)]
    Certificate(#[from] CertificateProblem),
    /// Key and certificate do not belong together.
    #[error(
        "the key does not belong to the certificate; use the two files that were issued together (私钥与证书不匹配)"
    )]
    KeyMismatch,
    /// The certificate ran out; holds when, Unix time in milliseconds.
    #[error("the certificate expired on {}; issue a new one (证书已过期，请重新签发)", beijing_time(*.0))]
    Expired(u64),
    /// The certificate is not valid yet; holds from when, Unix time in milliseconds.
    #[error(
        "the certificate is valid only from {}; check this machine's clock (证书尚未生效，请检查本机时钟)",
        beijing_time(*.0)
    )]
    NotYetValid(u64),
    /// No authority in the authority file signed the certificate.
    #[error(
        "no authority in the authority file signed this certificate; both must come from the same authority \
         (证书不是由签发机构文件中的机构签发)"
    )]
    NotSigned,
    /// The authority revoked the certificate.
    #[error("the certificate was revoked by its authority; ask for a new one (证书已被吊销，请申请新证书)")]
    Revoked,
    /// A certificate without the usages that its holder needs.
    #[error(
        "the certificate is not made for this use: a node's must allow client and server authentication, \
         others' client authentication (证书用途不符：节点证书须同时允许客户端和服务端认证)"
    )]
    WrongPurpose,
    /// Revocation lists that would do harm.
    #[error(transparent)]
    Revocations(#[from] RevocationError),
    /// A reload that would turn this node into another.
    #[error(
        "the new certificate is for {found}, but this node is {expected}; a node keeps its identity while it runs \
         (新证书的身份与本节点不符)"
    )]
    AnotherIdentity {
        /// Who this node is.
        expected: SpiffeId,
        /// Whom the new certificate names.
        found: SpiffeId,
    },
    /// Anything else that TLS objects to.
    #[error("the certificate cannot be used: {0} (证书无法使用)")]
    Unusable(String),
}

/// A checked identity, ready to dial and to accept. Made by [`Identity::load`]; shared as `Arc<Identity>`.
pub struct Identity {
    id: SpiffeId,
    certificate: Certificate,
    server: Arc<ServerConfig>,
    pub(super) client: Arc<ClientConfig>,
    pub(super) chain: Arc<ChainCheck>,
    lists: Vec<RevocationList>,
    warnings: Vec<Words>,
    pub(super) signing: Signing,
    pub(super) trust: trust::Trust,
    pub(super) anchor: Option<CertificateDer<'static>>,
    pub(super) shown_in_lobby: Arc<dyn ResolvesServerCert>,
}

impl Identity {
    /// Reads and checks the files: the key must fit the certificate and be closed to other users, the certificate must
    /// be valid now and signed by a trusted authority, the revocation lists must be usable.
    ///
    /// # Errors
    /// Says which file is wrong and what to do; see [`IdentityError`].
    pub fn load(files: &IdentityFiles) -> Result<Identity, IdentityError> {
        Identity::load_with(files, Expired::Refused)
    }

    /// The same, and a certificate that has run out may be kept.
    ///
    /// # Errors
    /// As [`Identity::load`].
    pub fn load_with(files: &IdentityFiles, expired: Expired) -> Result<Identity, IdentityError> {
        let read = |path: &Path| {
            std::fs::read(path).map_err(|source| IdentityError::File { path: path.to_owned(), source })
        };
        let open_to_group = check_key_permissions(&files.key)?;
        let revocations = files.revocations.as_deref().map(read).transpose()?;
        let pem = IdentityPem {
            certificate: &read(&files.certificate)?,
            key: &read(&files.key)?,
            authority: &read(&files.authority)?,
            revocations: revocations.as_deref(),
            authority_scope: files.authority_scope,
        };
        let mut identity = Identity::from_pem_with(pem, expired)?;
        identity.warnings.extend(open_to_group);
        Ok(identity)
    }

    /// The same from text in PEM form, without looking at files.
    ///
    /// # Errors
    /// As [`Identity::load`].
    pub fn from_pem(pem: IdentityPem<'_>) -> Result<Identity, IdentityError> {
        Identity::from_pem_with(pem, Expired::Refused)
    }

    /// The same, and a certificate that has run out may be kept.
    ///
    /// # Errors
    /// As [`Identity::load`].
    pub fn from_pem_with(pem: IdentityPem<'_>, expired: Expired) -> Result<Identity, IdentityError> {
        let chain: Vec<_> = CertificateDer::pem_slice_iter(pem.certificate)
            .collect::<Result<_, _>>()
            .map_err(|_| IdentityError::NoCertificate)?;
        let (own, intermediates) = chain.split_first().ok_or(IdentityError::NoCertificate)?;
        let certificate = Certificate::read(own)?;
        let id = certificate.identity()?;
        let key = PrivateKeyDer::from_pem_slice(pem.key).map_err(|_| IdentityError::NoKey)?;
        let authorities = read_authorities(pem.authority)?;
        let revoked = match pem.revocations {
            Some(text) => revocation::check(text, &authorities, intermediates, now_ms())?,
            None => Revocations::default(),
        };
        let check = ChainCheck::new(Trust {
            id: &id,
            limit: pem.authority_scope,
            authorities: &authorities,
            lists: revoked.for_tls()?,
            covered: revoked.covered.clone(),
        });
        let check = Arc::new(check.map_err(of_anchor)?);
        match check_own(&id, &chain, &check, UnixTime::now()) {
            Err(IdentityError::Expired(at_ms)) if expired == Expired::Kept => {
                let then = UnixTime::since_unix_epoch(Duration::from_millis(at_ms));
                check_own(&id, &chain, &check, then)?;
            }
            checked => checked?,
        }
        let anchor = lobby::anchor_of(&chain, &authorities);
        Ok(Identity {
            signing: Signing::new(&chain, &key).map_err(|error| of_key(&error))?,
            trust: trust::Trust::new(pem.authority, pem.revocations),
            shown_in_lobby: lobby::shown(&chain, anchor.clone(), &key).map_err(|error| of_key(&error))?,
            anchor,
            server: Arc::new(server_config(&chain, &key, check.clone())?),
            client: Arc::new(client_config(chain, key, check.clone())?),
            warnings: warnings(&certificate, &authorities, &revoked),
            id,
            certificate,
            chain: check,
            lists: revoked.lists,
        })
    }

    /// Who this is.
    pub fn id(&self) -> &SpiffeId {
        &self.id
    }

    /// The own certificate's names and dates.
    pub fn certificate(&self) -> &Certificate {
        &self.certificate
    }

    /// The revocation lists in use; empty if none are configured.
    pub fn revocation_lists(&self) -> &[RevocationList] {
        &self.lists
    }

    /// What an operator should see to before it becomes an error.
    pub fn warnings(&self) -> &[Words] {
        &self.warnings
    }

    /// For accepting: TLS 1.3, HTTP/2, a certificate of the same trust domain required, no resumption.
    pub fn server_config(&self) -> Arc<ServerConfig> {
        self.server.clone()
    }

    /// For dialling: TLS 1.3, HTTP/2, the own certificate shown, no resumption. It checks the server's chain and DNS
    /// name or address; who the server is, is for the caller to compare.
    pub fn client_config(&self) -> Arc<ClientConfig> {
        self.client.clone()
    }

    /// Whether the server of an open connection would be accepted now, by this identity's authorities and lists.
    ///
    /// # Errors
    /// Why not.
    pub fn check_dialed(&self, peer: &Peer) -> Result<(), Trouble> {
        let Some((own, intermediates)) = peer.chain.split_first() else {
            return Err(Trouble::Theirs(Fault::Missing));
        };
        let checked = self.chain.check(own, intermediates, UnixTime::now(), Usage::Serves);
        checked.map(|_| ()).map_err(|error| Trouble::of_tls(&error))
    }

    /// Whether the client of an open connection would be let in now, by this identity's authorities and lists.
    ///
    /// # Errors
    /// Why not.
    pub fn check_peer(&self, peer: &Peer) -> Result<(), Trouble> {
        let Some((own, intermediates)) = peer.chain.split_first() else {
            return Err(Trouble::Theirs(Fault::Missing));
        };
        let verifier = ClientVerifier(self.chain.clone());
        let checked = verifier.verify_client_cert(own, intermediates, UnixTime::now());
        checked.map(|_| ()).map_err(|error| Trouble::of_tls(&error))
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").field("id", &self.id).finish_non_exhaustive()
    }
}

fn server_config(
    chain: &[CertificateDer<'static>],
    key: &PrivateKeyDer<'static>,
    check: Arc<ChainCheck>,
) -> Result<ServerConfig, IdentityError> {
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| IdentityError::Unusable(error.to_string()))?
        .with_client_cert_verifier(Arc::new(ClientVerifier(check)))
        .with_single_cert(chain.to_vec(), key.clone_key())
        .map_err(|error| of_key(&error))?;
    config.alpn_protocols = vec![ALPN_HTTP2.to_vec()];
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    Ok(config)
}

fn client_config(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    check: Arc<ChainCheck>,
) -> Result<ClientConfig, IdentityError> {
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| IdentityError::Unusable(error.to_string()))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(ServerVerifier(check)))
        .with_client_auth_cert(chain, key)
        .map_err(|error| of_key(&error))?;
    config.alpn_protocols = vec![ALPN_HTTP2.to_vec()];
    config.resumption = Resumption::disabled();
    Ok(config)
}

fn of_key(error: &rustls::Error) -> IdentityError {
    match error {
        rustls::Error::InconsistentKeys(_) => IdentityError::KeyMismatch,
        other => IdentityError::Unusable(other.to_string()),
    }
}

fn of_anchor(error: AnchorError) -> IdentityError {
    match error {
        AnchorError::Certificate(problem) => problem.into(),
        AnchorError::NoScope(subject) => IdentityError::NoScope(subject),
        AnchorError::Unusable(error) => IdentityError::Unusable(error.to_string()),
    }
}

/// The own certificate must pass the checks that its peers will make.
fn check_own(
    id: &SpiffeId,
    chain: &[CertificateDer<'static>],
    check: &ChainCheck,
    now: UnixTime,
) -> Result<(), IdentityError> {
    let Some((own, intermediates)) = chain.split_first() else {
        return Err(IdentityError::NoCertificate);
    };
    let refused = |error: rustls::Error| match Trouble::of_tls(&error) {
        Trouble::Theirs(Fault::Expired(at)) => IdentityError::Expired(at),
        Trouble::Theirs(Fault::NotYetValid(at)) => IdentityError::NotYetValid(at),
        Trouble::Theirs(Fault::UnknownAuthority) => IdentityError::NotSigned,
        Trouble::Theirs(Fault::Revoked) => IdentityError::Revoked,
        Trouble::Theirs(Fault::WrongPurpose) => IdentityError::WrongPurpose,
        Trouble::Theirs(Fault::OutsideScope(scope)) => IdentityError::OutsideScope(scope),
        Trouble::Theirs(fault) => IdentityError::Unusable(fault.code().replace('_', " ")),
        _ => IdentityError::Unusable(error.to_string()),
    };
    check.check(own, intermediates, now, Usage::Dials).map_err(refused)??;
    if matches!(id.subject, Subject::Node(_)) {
        check.check(own, intermediates, now, Usage::Serves).map_err(refused)??;
    }
    Ok(())
}

fn read_authorities(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, IdentityError> {
    let authorities: Vec<_> = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .map_err(|_| IdentityError::NoAuthority)?;
    if authorities.is_empty() {
        return Err(IdentityError::NoAuthority);
    }
    for der in &authorities {
        let authority = Certificate::read(der)?;
        if !authority.is_authority {
            return Err(IdentityError::NotAnAuthority(authority.subject));
        }
    }
    Ok(authorities)
}

fn warnings(
    certificate: &Certificate,
    authorities: &[CertificateDer<'static>],
    revoked: &Revocations,
) -> Vec<Words> {
    let now = now_ms();
    let mut warnings = Vec::new();
    if certificate.not_after_ms < now {
        let at = beijing_time(certificate.not_after_ms);
        warnings.push(Words::new(
            format!("this node's certificate expired on {at}; it is good for nothing but a renewal"),
            format!("本节点的证书已于 {at} 过期，仅可用于续期"),
        ));
    } else if certificate.not_after_ms < now.saturating_add(EXPIRY_WARNING_MS) {
        let at = beijing_time(certificate.not_after_ms);
        warnings.push(Words::new(
            format!("this node's certificate expires on {at}; issue a new one in time"),
            format!("本节点的证书将于 {at} 过期，请及时更换"),
        ));
    }
    let trusted = authorities.iter().filter_map(|der| Certificate::read(der).ok());
    for authority in trusted.filter(|authority| authority.not_after_ms < now) {
        warnings.push(Words::new(
            format!("the authority «{}» has expired and is no longer trusted; remove it", authority.subject),
            "有签发机构已过期，不再受信任，可从文件中删除",
        ));
    }
    for issuer in &revoked.unused {
        warnings.push(Words::new(
            format!("the revocation list of «{issuer}» is not used: that authority leads to no root here"),
            "有吊销列表未被使用：其签发机构不受本节点信任",
        ));
    }
    for issuer in &revoked.missing {
        warnings.push(Words::new(
            format!(
                "there is no revocation list of «{issuer}», an authority of this node's own chain: what it revoked is \
                 not known here; add its list"
            ),
            "缺少本节点证书链中签发机构的吊销列表，其吊销情况本节点并不知道，请补充",
        ));
    }
    for list in revoked.lists.iter().filter(|list| list.is_late(now)) {
        warnings.push(Words::new(
            format!(
                "the revocation list of «{}» is out of date: later revocations are not known here",
                list.issuer
            ),
            "吊销列表已过期，此后的吊销本节点并不知道",
        ));
    }
    warnings
}
