//! The configuration of a node: one TOML file, and environment variables over it.
//!
//! A key that is not known is refused, so that a slip of the pen never silently means the default. Nothing is read
//! here but the file and the environment; whether certificates are sound is `identity`'s to say. It must never guess
//! what a value may have meant, and never print a value: the environment may hold anything.
//!
//! `GUANTONG_DIVISION` stands for `division`, and two underscores go one level down: `GUANTONG_PARENT__ADDRESS` is
//! `address` in the table `parent`.

mod error;
mod read;

pub use error::{ConfigError, Problem};

use std::path::{Path, PathBuf};
use std::time::Duration;

use guantong_gateway::division::{Division, Tier};
use serde::Deserialize;

use crate::identity::dial::check_endpoint;
use crate::identity::{AuthorityScope, IdentityFiles, TrustDomain};

/// Where a node keeps its data unless told otherwise.
pub const DATA_DIR: &str = "/var/lib/guantong";
/// The name of the local socket in the data directory.
pub const SOCKET: &str = "guantong.sock";
/// The name of the store in the data directory.
pub const STORE: &str = "guantong.db";
/// Paths of Unix sockets have 107 bytes on Linux; the socket is made under a name that is four longer.
const SOCKET_PATH_BYTES_MAX: usize = 103;
/// SQLite's pages: as the store makes them.
const PAGES_PER_MIB: u32 = 256;

/// Everything that a node is told before it starts.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The division that this node is for: 2, 4, 6, 9 or 12 digits, never a village. A store keeps its division for
    /// ever.
    #[serde(deserialize_with = "read::division")]
    pub division: Division,
    /// Where the store is kept, on a disk of this machine; made if it is missing.
    #[serde(default = "read::data_dir")]
    pub data_dir: PathBuf,
    /// `postgres://…`: a database of a PostgreSQL server, for a prefecture or province. Without it: a file of SQLite in
    /// the data directory. A URL with a password belongs into the environment, as GUANTONG_STORE.
    #[serde(default)]
    pub store: Option<StoreUrl>,
    /// A file of SQLite may grow to this size, in MiB; then writes are refused and nothing is lost. Without it: the disk.
    #[serde(default)]
    pub store_max_mib: Option<u32>,
    /// `address:port` where other nodes and operators connect over mutual TLS. Without it nobody can: right for a
    /// node without nodes below it that is operated on its own machine.
    #[serde(default)]
    pub listen: Option<String>,
    /// The Unix socket for programs of this machine, in a directory that only trusted users can write to. Whoever can
    /// open it can use all records of the node. Default: `guantong.sock` in the data directory.
    #[serde(default)]
    pub socket: Option<PathBuf>,
    /// The group that may open the socket, by name or number; its members must be able to enter the directory too.
    /// Without it: the group that the node runs as.
    #[serde(default)]
    pub socket_group: Option<String>,
    /// The node above. Without it, this node is the top of its tree.
    #[serde(default)]
    pub parent: Option<Parent>,
    /// Certificate and key. Needed with `listen` and with `parent`.
    #[serde(default)]
    pub tls: Option<Tls>,
    /// The authority that this node signs certificates of nodes below it with. Without it nodes below are neither enrolled
    /// nor renewed here.
    #[serde(default)]
    pub authority: Option<Authority>,
    /// The name that all identities of this tree share, as it was given to `guantong pki init`.
    #[serde(default = "read::default_trust_domain", deserialize_with = "read::trust_domain")]
    pub trust_domain: TrustDomain,
    /// How far another node's clock may be ahead of this one's, in milliseconds: a write stamped later is refused
    /// until its time has come.
    #[serde(default = "read::drift_ms")]
    pub drift_ms: u64,
    /// How often the two ends of an idle link prove to each other that they hold the same, in milliseconds.
    #[serde(default = "read::compare_ms")]
    pub compare_ms: u64,
    /// What is written to standard error.
    #[serde(default)]
    pub log: Log,
    /// Where traces go.
    #[serde(default)]
    pub telemetry: Telemetry,
}

/// Where a store is, as a URL; never shown, since it may hold a password.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct StoreUrl(String);

impl std::fmt::Debug for StoreUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("StoreUrl(…)")
    }
}

impl StoreUrl {
    /// With its password.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    fn is_postgres(&self) -> bool {
        self.0.starts_with("postgres://") || self.0.starts_with("postgresql://")
    }
}

/// The node above.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Parent {
    /// Its division, which must contain this node's. Its certificate must say the same.
    #[serde(deserialize_with = "read::division")]
    pub division: Division,
    /// How they exchange: `dialled`, over a line to `address`; `bundle`, by files carried by hand both ways; or `one-way`, by
    /// files that only go up 单向光闸.
    #[serde(default)]
    pub line: Line,
    /// `host:port`, or a list of them that are tried in turn. The host must be in the parent's certificate. Needed where
    /// the parent is dialled.
    #[serde(default, deserialize_with = "read::one_or_many")]
    pub address: Vec<String>,
}

/// How a node and its parent exchange.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Line {
    /// Over a line that the node dials.
    #[default]
    Dialled,
    /// By bundles, both ways.
    Bundle,
    /// By bundles that only go up.
    OneWay,
}

/// The files of this node's identity, as `guantong pki issue node` writes them. They are read again on SIGHUP and
/// when they change.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// The certificate in PEM.
    pub certificate: PathBuf,
    /// Its key in PEM, readable by the node only.
    pub key: PathBuf,
    /// The root authorities' certificates in PEM; several while one is being replaced.
    pub authority: PathBuf,
    /// The authorities' revocation lists in PEM. Without it nothing is ever revoked.
    #[serde(default)]
    pub revocation_list: Option<PathBuf>,
    /// What limits the authorities below a root: `certificate`, the scope that each one's certificate names, as with
    /// those of `guantong pki`; or `unlimited`, nothing but the identity in the certificates they sign: for an existing
    /// authority's system, or SPIRE, whose authorities name no scope.
    #[serde(default)]
    pub authority_scope: AuthorityScope,
}

impl Tls {
    /// The same for `identity`.
    pub fn files(&self) -> IdentityFiles {
        IdentityFiles {
            certificate: self.certificate.clone(),
            key: self.key.clone(),
            authority: self.authority.clone(),
            revocations: self.revocation_list.clone(),
            authority_scope: self.authority_scope,
        }
    }
}

/// The authority of this node.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Authority {
    /// Its directory, as `guantong pki init` or `guantong pki issue authority` made it; the node must be able to write
    /// there.
    pub dir: PathBuf,
    /// How long after its certificate ran out a node may still have it renewed, in days.
    #[serde(default = "read::renewal_grace_days")]
    pub renewal_grace_days: u32,
    /// How long the certificates are good for, in days. Nodes renew them by themselves at two thirds of that.
    #[serde(default = "read::certificate_days")]
    pub certificate_days: u32,
}

/// What is written to standard error.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Log {
    /// `error`, `warn`, `info`, `debug` or `trace`, or a list such as `info,guantong::links=debug`.
    #[serde(default = "read::level")]
    pub level: String,
    /// Lines for people or JSON objects for programs.
    #[serde(default)]
    pub format: LogFormat,
}

impl Default for Log {
    fn default() -> Log {
        Log { level: read::level(), format: LogFormat::default() }
    }
}

/// How a line of the log is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Where traces go.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Telemetry {
    /// The collector's address for OTLP over gRPC, such as `http://127.0.0.1:4317`; without TLS, so on this machine
    /// or a network one trusts. Without it no traces are made. They never hold personal data.
    #[serde(default)]
    pub otlp_endpoint: Option<String>,
}

impl Config {
    /// Reads the file and the environment, and checks all of it.
    ///
    /// # Errors
    /// Names the keys that are wrong, and says what to write instead.
    pub fn load(path: &Path) -> Result<Config, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::File { path: path.to_owned(), source })?;
        let wrong = |problems| ConfigError::Wrong { path: path.to_owned(), problems };
        let config = read::parse(&text).map_err(wrong)?;
        let problems = config.problems();
        if problems.is_empty() { Ok(config) } else { Err(wrong(problems)) }
    }

    /// The local socket.
    pub fn socket(&self) -> PathBuf {
        self.socket.clone().unwrap_or_else(|| self.data_dir.join(SOCKET))
    }

    /// Where the store is: a URL of PostgreSQL, or the path of SQLite's file. Not to be shown: see [`StoreUrl`].
    /// `None`: the path is not UTF-8.
    pub fn store_location(&self) -> Option<String> {
        match &self.store {
            Some(url) => Some(url.reveal().to_owned()),
            None => self.data_dir.join(STORE).to_str().map(str::to_owned),
        }
    }

    /// The store's greatest size in its own pages.
    pub fn store_max_pages(&self) -> Option<u32> {
        self.store_max_mib.map(|mib| mib.saturating_mul(PAGES_PER_MIB))
    }

    /// The parent, if it is dialled.
    pub fn dialled_parent(&self) -> Option<&Parent> {
        self.parent.as_ref().filter(|parent| parent.line == Line::Dialled)
    }

    /// How far in the future a stamp may lie.
    pub fn drift(&self) -> Duration {
        Duration::from_millis(self.drift_ms)
    }

    /// Everything that is wrong although each value alone has its form.
    fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        let mut wrong = |key: &str, what: String| problems.push(Problem::new(key, what));
        if self.division.tier() == Tier::Village {
            wrong("division", "a village has no node; name its township (村级没有节点，请填乡级)".to_owned());
        }
        if let Some(parent) = &self.parent {
            if parent.division == self.division || !parent.division.contains(self.division) {
                let what = format!(
                    "{} does not lie inside {}: a parent is a node of a division around this one \
                     (上级区划应包含本节点的区划)",
                    self.division, parent.division
                );
                wrong("parent.division", what);
            }
            if parent.line == Line::Dialled && parent.address.is_empty() {
                wrong("parent.address", "give at least one address, such as county.example:7443".to_owned());
            }
            if parent.line != Line::Dialled && !parent.address.is_empty() {
                let what =
                    "the parent is reached by files; leave `address` out, or `line` (离线交换无需填写地址)";
                wrong("parent.address", what.to_owned());
            }
            for error in parent.address.iter().filter_map(|address| check_endpoint(address).err()) {
                wrong("parent.address", error.to_string());
            }
        }
        if let Some(listen) = &self.listen
            && let Err(error) = check_endpoint(listen)
        {
            wrong("listen", error.to_string());
        }
        if self.tls.is_none() && (self.listen.is_some() || self.parent.is_some()) {
            let what = "`listen` and `parent` need a certificate: issue one with `guantong pki issue node`, and name \
                        its files here (缺少证书配置)";
            wrong("tls", what.to_owned());
        }
        if self.authority.is_some() && self.tls.as_ref().is_none_or(|tls| tls.revocation_list.is_none()) {
            let what = "needs the node's own certificate and `revocation_list`, in [tls]: those who enrol know the node by \
                        the one and are given the other (缺少证书或吊销列表配置)";
            wrong("authority", what.to_owned());
        }
        if self.authority.as_ref().is_some_and(|authority| authority.certificate_days == 0) {
            wrong("authority.certificate_days", "must be at least 1 (至少为1天)".to_owned());
        }
        if self.socket().as_os_str().len() > SOCKET_PATH_BYTES_MAX {
            let what = format!("the path is longer than {SOCKET_PATH_BYTES_MAX} bytes; choose a shorter one");
            wrong("socket", what);
        }
        if self.store.as_ref().is_some_and(|store| !store.is_postgres()) {
            let what = "write postgres://USER@HOST/DATABASE, or leave it out for a file in `data_dir` (应为 postgres://…)";
            wrong("store", what.to_owned());
        }
        if self.store.is_some() && self.store_max_mib.is_some() {
            let what = "limits a file of SQLite only; limit a database on its server (仅适用于 SQLite)";
            wrong("store_max_mib", what.to_owned());
        }
        if self.store_max_mib == Some(0) {
            wrong("store_max_mib", "must be at least 1; leave it out for no limit".to_owned());
        }
        problems
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic, clippy::result_large_err)]
mod tests;
