//! A folder with nodes, each started by itself, and the root of their trust: for what becomes of certificates over time.
//! Nodes are given certificates of any dates; what they do with them is theirs.

use std::path::{Path, PathBuf};

use guantong::client::Client;
use guantong::identity::certificate::Certificate;
use guantong::identity::pki::dir::AuthorityDir;
use guantong::identity::pki::{Request, Validity};
use guantong::identity::{Subject, TrustDomain};
use guantong_gateway::invitation::Code;
use guantong_proto::v1;
use time::{Duration, OffsetDateTime};

use super::{Done, Stray, division, found, run, stray_config};

/// Where nodes listen.
pub const HOST: &str = "127.0.0.1";
/// Where Debian puts the library that lies about the time.
const FAKETIME: [&str; 2] = [
    "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib/aarch64-linux-gnu/faketime/libfaketimeMT.so.1",
];

/// A folder with nodes, and the root of their trust.
pub struct Land {
    folder: tempfile::TempDir,
    /// The root; whoever replaces it opens its directory again.
    pub root: AuthorityDir,
}

/// From and to, seen from now.
pub fn between(from: Duration, to: Duration) -> Validity {
    let now = OffsetDateTime::now_utc();
    Validity { not_before: now + from, not_after: now + to }
}

/// From and to in days, seen from now.
pub fn days(from: i64, to: i64) -> Validity {
    between(Duration::days(from), Duration::days(to))
}

/// A port that nobody listens on.
pub fn free_port() -> u16 {
    std::net::TcpListener::bind((HOST, 0)).unwrap().local_addr().unwrap().port()
}

/// A path as it is written in commands and configurations.
pub fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

/// What a process needs in its environment to live so much later, such as `+2h`; `None`, and said so: this cannot be done
/// here.
pub fn later(by: &'static str) -> Option<[(&'static str, &'static str); 3]> {
    Some([("LD_PRELOAD", faketime()?), ("FAKETIME", by), ("FAKETIME_DONT_FAKE_MONOTONIC", "1")])
}

/// The library that lies about the time; `None`, and said so: it is not there.
pub(super) fn faketime() -> Option<&'static str> {
    let library = FAKETIME.into_iter().find(|path| Path::new(path).exists());
    if library.is_none() {
        use std::io::Write as _;
        // Past the capture of passing tests: what is not tested must be seen.
        let _ =
            std::io::stderr().write_all(b"SKIPPED: faketime is not installed (apt-get install faketime)\n");
    }
    library
}

impl Land {
    /// A root of this validity, and nothing below it.
    pub fn new(validity: Validity) -> Land {
        let folder = tempfile::Builder::new().prefix("gt").tempdir().unwrap();
        let root = AuthorityDir::create(&folder.path().join("root"), TrustDomain::default(), validity, false);
        Land { root: root.unwrap(), folder }
    }

    /// A path in the folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A node with a certificate of `issuer`, and more lines of configuration; its folder and address.
    pub fn node(
        &self,
        issuer: &AuthorityDir,
        code: &str,
        validity: Validity,
        more: &str,
    ) -> (PathBuf, String) {
        let dir = self.path(code);
        let request = Request::new(Subject::node(division(code)).unwrap(), validity);
        issuer.issue(&request.host(HOST).unwrap(), &dir, false).unwrap();
        let address = format!("{HOST}:{}", free_port());
        stray_config(&dir, &format!("division = \"{code}\"\nlisten = \"{address}\"\n{more}"));
        (dir, address)
    }

    /// An authority for a division, below the root.
    pub fn authority(&self, code: &str, validity: Validity) -> AuthorityDir {
        self.root
            .issue_authority(division(code), validity, &self.path(&format!("{code}-authority")), false)
            .unwrap()
    }
}

/// The lines that name a node's authority.
pub fn with_authority(dir: &Path) -> String {
    format!("[authority]\ndir = {:?}\n", text(dir))
}

/// The lines that name a node's parent.
pub fn with_parent(code: &str, address: &str) -> String {
    format!("[parent]\ndivision = \"{code}\"\naddress = \"{address}\"\n")
}

/// A code for a new node.
pub async fn invite(parent: &Path, args: &[&str]) -> Code {
    let socket = text(&parent.join("sock"));
    let mut all = vec!["invite", "--json", "--socket", &socket];
    all.extend(args);
    let made = run(&all).await.exits(0).json();
    made["code"].as_str().unwrap().parse().unwrap()
}

/// A new node's part of it.
pub async fn enroll(parent: &str, code: &Code, out: &Path, more: &[&str]) -> Done {
    let (code, out) = (code.to_string(), text(out));
    let mut args = vec!["enroll", "--parent", parent, "--code", &code, "--out", &out];
    args.extend(more);
    run(&args).await
}

/// Starts the node of a folder.
pub fn serve(dir: &Path) -> Stray {
    serve_in(dir, &[])
}

/// Starts the node of a folder with variables in its environment.
pub fn serve_in(dir: &Path, environment: &[(&str, &str)]) -> Stray {
    let config =
        ["guantong.toml", "stray.toml"].map(|name| dir.join(name)).into_iter().find(|path| path.exists());
    Stray::start(dir, &config.unwrap(), environment)
}

/// The certificate of a folder's node.
pub fn certificate(dir: &Path) -> Certificate {
    Certificate::read_pem(&std::fs::read(dir.join("certificate.pem")).unwrap()).unwrap()
}

/// What a node says of its link to a peer, if it knows one.
pub async fn link(client: &Client, peer: &str) -> Option<v1::LinkStatus> {
    let status = client.node().get_status(v1::GetStatusRequest {}).await.ok()?.into_inner();
    let peer = division(peer).to_string();
    status.links.into_iter().find(|link| link.peer_division == peer)
}

/// Waits for a link to a peer.
pub async fn linked(client: &Client, peer: &str) -> v1::LinkStatus {
    found(&format!("a link to {peer}"), async || link(client, peer).await.filter(|link| link.connected)).await
}

/// Puts a certificate of a validity of the test's choosing in place of the node's; gives its serial number.
pub fn replace_certificate(authority: &AuthorityDir, dir: &Path, code: &str, validity: Validity) -> String {
    let request = Request::new(Subject::node(division(code)).unwrap(), validity);
    let (issued, _) = authority.issue(&request.host(HOST).unwrap(), dir, true).unwrap();
    issued.serial
}
