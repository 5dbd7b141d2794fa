//! What went wrong with a connection, in plain words: the one place where TLS errors and alerts become sentences.
//!
//! A sentence says what is wrong, whose certificate it is, and what to do. It must never go to the peer, and never
//! repeat bytes that a stranger sent.

use std::error::Error;
use std::fmt;
use std::io;

use guantong_gateway::division::Division;
use rustls::{AlertDescription, CertificateError, PeerIncompatible};
use time::macros::{format_description, offset};

use super::certificate::CertificateProblem;
use super::chain::ChainRefused;

/// One statement in both languages. Printed as `english (中文)`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, serde::Serialize)]
pub struct Words {
    /// The English sentence, without a full stop.
    pub en: String,
    /// The same in Chinese.
    pub zh: String,
}

impl Words {
    /// Both sentences.
    pub fn new(en: impl Into<String>, zh: impl Into<String>) -> Words {
        Words { en: en.into(), zh: zh.into() }
    }
}

impl fmt::Display for Words {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.en, self.zh)
    }
}

/// What can be wrong with a certificate, whoever judged it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Fault {
    /// None was shown.
    Missing,
    /// No trusted authority signed it.
    UnknownAuthority,
    /// Expired, at this Unix time in milliseconds.
    Expired(u64),
    /// Not valid before this Unix time in milliseconds.
    NotYetValid(u64),
    /// Expired or not yet valid: an alert does not tell the two apart.
    OutOfDate,
    /// Its authority revoked it.
    Revoked,
    /// No revocation list at hand covers its issuer, or the list is not usable.
    RevocationUnknown,
    /// A server that is reached by a name its certificate lacks; holds the names it has.
    WrongName(String),
    /// It comes from the authority of this division, which may not vouch for it, or not here.
    OutsideScope(Division),
    /// An authority of its chain names no scope, or one that is wider than that of the authority above it.
    AuthorityScope,
    /// The root that its chain ends in has expired.
    AuthorityOutOfDate,
    /// A key that is too weak, its own or that of an authority of its chain.
    WeakKey,
    /// Not made for this use, such as an operator's certificate on a server.
    WrongPurpose,
    /// It carries no usable identity; holds why.
    Identity(String),
    /// Refused without a reason that fits the others.
    Unacceptable,
}

/// What there are too many of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Crowd {
    /// Handshakes of one address.
    Handshakes,
    /// Connections of one address.
    Address,
    /// Connections of one identity.
    Identity,
    /// Connections in all.
    Connections,
}

impl Crowd {
    fn words(self) -> Words {
        let (en, zh) = match self {
            Crowd::Handshakes => {
                ("too many connections of this address begin at once", "该地址同时新建的连接过多")
            }
            Crowd::Address => ("this address has too many connections open", "该地址的连接数过多"),
            Crowd::Identity => (
                "whoever has this certificate has too many connections open; its program should use one for many calls",
                "同一证书的连接数过多；其程序应在一个连接上发起多次调用",
            ),
            Crowd::Connections => ("this node has as many connections as it can serve", "本节点的连接数已满"),
        };
        Words::new(en, zh)
    }
}

/// Why a connection failed or ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Trouble {
    /// The other side's certificate is wrong.
    Theirs(Fault),
    /// The other side says that ours is wrong.
    Ours(Fault),
    /// The two sides have no TLS version, cipher or signature scheme in common.
    NoCommonTls,
    /// What arrived is not TLS.
    NotTls,
    /// The other side does not speak HTTP/2.
    NotHttp2,
    /// The other side closed the connection.
    Closed,
    /// The connection broke.
    Broken,
    /// The other side was silent for too long.
    Silent,
    /// There are too many already.
    Crowded(Crowd),
    /// This node ended the connection; holds why.
    Cut(&'static str),
    /// Anything else, as the library names it.
    Other(String),
}

impl Trouble {
    /// Finds the reason in an error of a TLS stream.
    pub fn of_io(error: &io::Error) -> Trouble {
        if let Some(tls) = error.get_ref().and_then(find_tls) {
            return Trouble::of_tls(tls);
        }
        match error.kind() {
            io::ErrorKind::UnexpectedEof => Trouble::Closed,
            io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionAborted => {
                Trouble::Broken
            }
            io::ErrorKind::TimedOut => Trouble::Silent,
            kind => Trouble::Other(kind.to_string()),
        }
    }

    /// Finds the reason in an error of any library above the stream, by walking its sources. `None`: it is not about
    /// the connection.
    pub fn of_error(error: &(dyn Error + 'static)) -> Option<Trouble> {
        std::iter::successors(Some(error), |error| (*error).source()).find_map(|error| {
            let tls = error.downcast_ref::<rustls::Error>().map(Trouble::of_tls);
            tls.or_else(|| error.downcast_ref::<io::Error>().map(Trouble::of_io))
        })
    }

    /// The reason in an error of rustls.
    pub fn of_tls(error: &rustls::Error) -> Trouble {
        match error {
            rustls::Error::InvalidCertificate(error) => Trouble::Theirs(judged(error)),
            rustls::Error::NoCertificatesPresented => Trouble::Theirs(Fault::Missing),
            rustls::Error::InvalidCertRevocationList(_) => Trouble::Theirs(Fault::RevocationUnknown),
            rustls::Error::AlertReceived(alert) => told(*alert),
            rustls::Error::PeerIncompatible(PeerIncompatible::ServerRejectedEncryptedClientHello(_)) => {
                Trouble::Other("encrypted client hello refused".to_owned())
            }
            rustls::Error::PeerIncompatible(_) => Trouble::NoCommonTls,
            rustls::Error::InvalidMessage(_)
            | rustls::Error::InappropriateMessage { .. }
            | rustls::Error::PeerSentOversizedRecord => Trouble::NotTls,
            rustls::Error::NoApplicationProtocol => Trouble::NotHttp2,
            other => Trouble::Other(other.to_string()),
        }
    }

    /// A short fixed name, for metrics and JSON.
    pub fn code(&self) -> &'static str {
        match self {
            Trouble::Theirs(fault) | Trouble::Ours(fault) => fault.code(),
            Trouble::NoCommonTls => "no_common_tls",
            Trouble::NotTls => "not_tls",
            Trouble::NotHttp2 => "not_http2",
            Trouble::Closed => "closed",
            Trouble::Broken => "broken",
            Trouble::Silent => "silent",
            Trouble::Crowded(_) => "too_many",
            Trouble::Cut(_) => "cut",
            Trouble::Other(_) => "other",
        }
    }

    /// Why an open connection is ended for this.
    pub fn cut_reason(&self) -> &'static str {
        match self {
            Trouble::Theirs(Fault::Revoked) => "the peer's certificate was revoked",
            Trouble::Theirs(Fault::Expired(_)) => "the peer's certificate ran out",
            _ => "the peer's certificate is no longer accepted",
        }
    }

    /// The sentence for an operator of this node.
    pub fn words(&self) -> Words {
        match self {
            Trouble::Theirs(fault) => fault.theirs(),
            Trouble::Ours(fault) => fault.ours(),
            Trouble::NoCommonTls => Words::new(
                "the other side offers no TLS 1.3 that this node accepts; older versions are refused",
                "对方未提供本节点接受的 TLS 1.3，旧版本一律拒绝",
            ),
            Trouble::NotTls => Words::new(
                "what arrived is not TLS: something else is speaking on this port",
                "收到的数据不是 TLS：该端口上是别的程序",
            ),
            Trouble::NotHttp2 => {
                Words::new("the other side does not speak HTTP/2 (gRPC)", "对方不支持 HTTP/2（gRPC）")
            }
            Trouble::Closed => Words::new("the other side closed the connection", "对方关闭了连接"),
            Trouble::Broken => Words::new("the connection broke off", "连接中断"),
            Trouble::Silent => Words::new("the other side did not answer in time", "对方未在时限内应答"),
            Trouble::Crowded(crowd) => crowd.words(),
            Trouble::Cut(reason) => {
                Words::new(format!("this node ended the connection: {reason}"), "本节点主动断开了连接")
            }
            Trouble::Other(text) => Words::new(format!("the connection failed: {text}"), "连接失败"),
        }
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.words().fmt(f)
    }
}

fn expired(at: &str) -> Words {
    Words::new(
        format!("the other side's certificate expired on {at}; it needs a new one"),
        format!("对方的证书已于 {at} 过期，需更换"),
    )
}

fn not_yet_valid(at: &str) -> Words {
    Words::new(
        format!("the other side's certificate is valid only from {at}; check this machine's clock"),
        format!("对方的证书自 {at} 起才有效；请检查本机时钟"),
    )
}

impl Fault {
    pub(super) fn code(&self) -> &'static str {
        match self {
            Fault::Missing => "certificate_missing",
            Fault::UnknownAuthority => "unknown_authority",
            Fault::Expired(_) => "expired",
            Fault::NotYetValid(_) => "not_yet_valid",
            Fault::OutOfDate => "out_of_date",
            Fault::Revoked => "revoked",
            Fault::RevocationUnknown => "revocation_unknown",
            Fault::WrongName(_) => "wrong_name",
            Fault::OutsideScope(_) => "outside_scope",
            Fault::AuthorityScope => "authority_scope",
            Fault::AuthorityOutOfDate => "authority_out_of_date",
            Fault::WeakKey => "weak_key",
            Fault::WrongPurpose => "wrong_purpose",
            Fault::Identity(_) => "no_identity",
            Fault::Unacceptable => "unacceptable",
        }
    }

    fn theirs(&self) -> Words {
        match self {
            Fault::Missing => Words::new("the other side showed no certificate", "对方未出示证书"),
            Fault::UnknownAuthority => Words::new(
                "the other side's certificate was not signed by an authority this node trusts; \
                 compare the authority files of both",
                "对方的证书不是由本节点信任的机构签发；请核对双方的签发机构文件",
            ),
            Fault::Expired(at) => expired(&beijing_time(*at)),
            Fault::NotYetValid(at) => not_yet_valid(&beijing_time(*at)),
            Fault::OutOfDate => Words::new(
                "the other side's certificate has expired or is not yet valid",
                "对方的证书已过期或尚未生效",
            ),
            Fault::Revoked => Words::new(
                "the other side's certificate was revoked by its authority",
                "对方的证书已被签发机构吊销",
            ),
            Fault::RevocationUnknown => Words::new(
                "no revocation list at hand covers the issuer of the other side's certificate; \
                 add that authority's list",
                "现有吊销列表不涵盖对方证书的签发机构；请补充该机构的吊销列表",
            ),
            Fault::WrongName(names) => Words::new(
                format!(
                    "the other side's certificate is not for the name it was dialled by; it names: {names}"
                ),
                format!("对方的证书与所拨地址不符；证书中的名称为：{names}"),
            ),
            Fault::OutsideScope(scope) => Words::new(
                format!(
                    "the other side's certificate comes from the authority of {scope}, which may vouch for nodes \
                     inside {scope} only, and for operators and partners at those nodes only"
                ),
                format!(
                    "对方的证书由 {scope} 的签发机构签发，该机构只能为其辖区内的节点及在这些节点上的操作员、合作方签发"
                ),
            ),
            Fault::AuthorityScope => Words::new(
                "an authority in the chain of the other side's certificate names no scope inside that of the authority \
                 above it; if it belongs to another authority's system, see `tls.authority_scope`",
                "对方证书链中的签发机构未注明范围，或超出上级机构的范围；若为其他体系的签发机构，请见 tls.authority_scope",
            ),
            Fault::AuthorityOutOfDate => Words::new(
                "the root authority of the other side's certificate has expired; it needs a certificate of the new root",
                "对方证书的根签发机构已过期，需由新的根机构重新签发",
            ),
            Fault::WeakKey => Words::new(
                "the key of the other side's certificate, or of an authority above it, is too weak: P-256, P-384, \
                 Ed25519 or RSA of 2048 bits and more are accepted",
                "对方证书或其签发机构的密钥强度不足，应为 P-256、P-384、Ed25519 或 2048 位以上的 RSA",
            ),
            Fault::WrongPurpose => {
                Words::new("the other side's certificate is not made for this use", "对方的证书用途不符")
            }
            Fault::Identity(why) => Words::new(
                format!("the other side's certificate has no usable identity: {why}"),
                "对方证书中没有可用的身份",
            ),
            Fault::Unacceptable => {
                Words::new("the other side's certificate is not acceptable", "对方的证书不被接受")
            }
        }
    }

    fn ours(&self) -> Words {
        match self {
            Fault::Missing => Words::new(
                "the other side asks for a certificate and this side showed none",
                "对方要求出示证书，而本方未出示",
            ),
            Fault::UnknownAuthority => Words::new(
                "the other side refused this side's certificate: no authority it trusts signed it, \
                 or it has no revocation list for that authority",
                "对方拒绝了本方的证书：签发机构不受对方信任，或对方缺少该机构的吊销列表",
            ),
            Fault::Expired(_) | Fault::NotYetValid(_) | Fault::OutOfDate => Words::new(
                "the other side refused this side's certificate as expired or not yet valid; \
                 check the certificate's dates and both clocks",
                "对方认为本方的证书已过期或尚未生效；请检查证书有效期和双方时钟",
            ),
            Fault::Revoked => Words::new(
                "the other side refused this side's certificate: its authority revoked it; ask for a new one",
                "对方拒绝了本方的证书：已被签发机构吊销；请申请新证书",
            ),
            Fault::WrongPurpose => Words::new(
                "the other side refused this side's certificate: it is not made for this use",
                "对方拒绝了本方的证书：用途不符",
            ),
            Fault::Identity(_) => Words::new(
                "the other side refused this side's certificate: it carries no identity that the other side accepts \
                 from its authority; the other side's log says why",
                "对方拒绝了本方的证书：其中没有对方认可的、由该机构签发的身份；原因见对方日志",
            ),
            Fault::RevocationUnknown
            | Fault::WrongName(_)
            | Fault::OutsideScope(_)
            | Fault::AuthorityScope
            | Fault::AuthorityOutOfDate
            | Fault::WeakKey
            | Fault::Unacceptable => Words::new(
                "the other side refused this side's certificate; its log says why",
                "对方拒绝了本方的证书；原因见对方日志",
            ),
        }
    }
}

/// A Unix time in milliseconds as a person in China reads it: `2026-11-21 20:30`, Beijing time.
pub fn beijing_time(unix_ms: u64) -> String {
    let seconds = i64::try_from(unix_ms / 1000).unwrap_or(i64::MAX);
    let format = format_description!("[year]-[month]-[day] [hour]:[minute]");
    time::OffsetDateTime::from_unix_timestamp(seconds)
        .ok()
        .and_then(|time| time.checked_to_offset(offset!(+8)))
        .and_then(|time| time.format(format).ok())
        .unwrap_or_else(|| format!("{seconds} s"))
}

fn find_tls<'e>(error: &'e (dyn Error + Send + Sync + 'static)) -> Option<&'e rustls::Error> {
    let first: &'e (dyn Error + 'static) = error;
    std::iter::successors(Some(first), |error| (*error).source()).find_map(|error| error.downcast_ref())
}

fn judged(error: &CertificateError) -> Fault {
    match error {
        CertificateError::ExpiredContext { not_after, .. } => {
            Fault::Expired(not_after.as_secs().saturating_mul(1000))
        }
        CertificateError::NotValidYetContext { not_before, .. } => {
            Fault::NotYetValid(not_before.as_secs().saturating_mul(1000))
        }
        CertificateError::Expired | CertificateError::NotValidYet => Fault::OutOfDate,
        CertificateError::Revoked => Fault::Revoked,
        // An authority of the same name with another key shows as a bad signature.
        CertificateError::UnknownIssuer | CertificateError::BadSignature => Fault::UnknownAuthority,
        CertificateError::UnknownRevocationStatus
        | CertificateError::ExpiredRevocationList
        | CertificateError::ExpiredRevocationListContext { .. } => Fault::RevocationUnknown,
        CertificateError::NotValidForNameContext { presented, .. } => Fault::WrongName(names(presented)),
        CertificateError::NotValidForName => Fault::WrongName(names(&[])),
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            Fault::WrongPurpose
        }
        CertificateError::Other(other) => {
            let identity = other.0.downcast_ref::<CertificateProblem>();
            let chain = other.0.downcast_ref::<ChainRefused>();
            match (identity, chain) {
                (Some(problem), _) => Fault::Identity(problem.to_string()),
                (None, Some(refused)) => refused.0.clone(),
                (None, None) => Fault::Unacceptable,
            }
        }
        CertificateError::ApplicationVerificationFailure => {
            Fault::Identity("another trust domain".to_owned())
        }
        _ => Fault::Unacceptable,
    }
}

fn told(alert: AlertDescription) -> Trouble {
    let fault = match alert {
        AlertDescription::CertificateRequired | AlertDescription::NoCertificate => Fault::Missing,
        AlertDescription::UnknownCA | AlertDescription::DecryptError => Fault::UnknownAuthority,
        AlertDescription::CertificateExpired => Fault::OutOfDate,
        AlertDescription::CertificateRevoked => Fault::Revoked,
        AlertDescription::UnsupportedCertificate => Fault::WrongPurpose,
        AlertDescription::CertificateUnknown | AlertDescription::AccessDenied => {
            Fault::Identity(String::new())
        }
        AlertDescription::BadCertificate => Fault::Unacceptable,
        AlertDescription::ProtocolVersion
        | AlertDescription::InsufficientSecurity
        | AlertDescription::HandshakeFailure => return Trouble::NoCommonTls,
        AlertDescription::NoApplicationProtocol => return Trouble::NotHttp2,
        AlertDescription::CloseNotify => return Trouble::Closed,
        AlertDescription::UnexpectedMessage | AlertDescription::DecodeError => return Trouble::NotTls,
        other => return Trouble::Other(format!("TLS alert {other:?}")),
    };
    Trouble::Ours(fault)
}

/// The library writes a name as `DnsName("a.example")` or `IpAddress(10.0.0.1)`; only what stands inside is for people.
fn names(presented: &[String]) -> String {
    let hosts: Vec<&str> = presented
        .iter()
        .filter_map(|name| name.strip_prefix("DnsName(").or_else(|| name.strip_prefix("IpAddress(")))
        .map(|name| name.trim_end_matches(')').trim_matches('"'))
        .collect();
    if hosts.is_empty() { "no host at all".to_owned() } else { hosts.join(", ") }
}
