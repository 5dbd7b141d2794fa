//! What one mutual handshake costs a gateway: its own thread's CPU time, over TCP, with a chain of three certificates
//! below the root and a revocation list of every authority.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use guantong::identity::pki::dir::AuthorityDir;
use guantong::identity::pki::{Request, Revoked, Validity};
use guantong::identity::{
    Acceptor, Identity, IdentityFiles, IdentityStore, Subject, TrustDomain, revocation,
};
use guantong_gateway::division::Division;
use serde_json::json;
use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio_stream::StreamExt as _;

use super::cpu_ns;

/// Handshakes before anything is measured.
const WARM_UP: u32 = 50;

/// Lets a township into a county's gateway, one handshake after the other. `revoked`: entries of each list.
pub async fn run(handshakes: u32, revoked: usize) -> Result<serde_json::Value> {
    let folder = tempfile::tempdir()?;
    let (gateway, township) = identities(folder.path(), revoked)?;
    let (started, mut gateway_started) = tokio::sync::mpsc::channel(1);
    std::thread::spawn(move || serve(gateway, &started));
    let (address, thread) = gateway_started.recv().await.context("the gateway did not start")??;
    for _ in 0..WARM_UP {
        shake(address, &township).await?;
    }
    let (before, begun) = (cpu_ns(&thread)?, Instant::now());
    for _ in 0..handshakes {
        shake(address, &township).await?;
    }
    let per = |ms: f64| ms / f64::from(handshakes.max(1));
    Ok(json!({
        "handshakes": handshakes,
        "certificates_below_root": 3,
        "revoked_per_list": revoked,
        "gateway_cpu_ms": per((cpu_ns(&thread)? - before) as f64 / 1e6),
        "wall_ms": per(begun.elapsed().as_secs_f64() * 1e3),
    }))
}

/// A county's node that the prefecture's authority certified, and a township's that the county's did.
fn identities(folder: &Path, revoked: usize) -> Result<(IdentityStore, Identity)> {
    let at = |name: &str| folder.join(name);
    let days = Validity::days(30);
    let root = AuthorityDir::create(&at("root"), TrustDomain::default(), days, false)?;
    let prefecture =
        root.issue_authority(Division::parse("2208")?, days, &at("prefecture-authority"), false)?;
    let county =
        prefecture.issue_authority(Division::parse("220822")?, days, &at("county-authority"), false)?;
    let lists = lists(&[&root, &prefecture, &county], revoked)?;
    let node = |issuer: &AuthorityDir, code: &str| -> Result<IdentityFiles> {
        let request = Request::new(Subject::node(Division::parse(code)?)?, days).host("127.0.0.1")?;
        issuer.issue(&request, &at(code), false)?;
        std::fs::write(at(code).join("revocations.pem"), &lists)?;
        Ok(IdentityFiles::in_dir(&at(code)))
    };
    Ok((
        IdentityStore::open(node(&prefecture, "220822000000")?)?,
        Identity::load(&node(&county, "220822101000")?)?,
    ))
}

fn lists(authorities: &[&AuthorityDir], revoked: usize) -> Result<String> {
    let entries: Vec<Revoked> = (0..revoked)
        .map(|number| Revoked { serial: format!("40{number:030x}"), at: Validity::days(1).not_before })
        .collect();
    let number = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let mut texts = Vec::new();
    for dir in authorities {
        let list = dir.authority().revocation_list(&entries, number, Validity::days(30))?;
        texts.push(list + dir.authority().chain_pem());
    }
    Ok(revocation::merge(texts.iter().map(String::as_str)))
}

/// A gateway on a thread of its own, which takes connections and drops them.
fn serve(
    identity: IdentityStore,
    started: &tokio::sync::mpsc::Sender<Result<(std::net::SocketAddr, PathBuf)>>,
) {
    let serving = async {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let thread = Path::new("/proc").join(std::fs::read_link("/proc/thread-self")?);
        let address = listener.local_addr()?;
        let mut incoming = Acceptor::new(Arc::new(identity)).incoming(listener);
        started.send(Ok((address, thread))).await?;
        while let Some(connection) = incoming.next().await {
            drop(connection?);
        }
        Ok::<_, anyhow::Error>(())
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let served = runtime.map_err(anyhow::Error::from).and_then(|runtime| runtime.block_on(serving));
    if let Err(error) = served {
        // Whoever waits for the start is told; after it, the next handshake fails and says so.
        let _ = started.blocking_send(Err(error));
    }
}

/// One handshake, until the gateway has let this one in and closed.
async fn shake(address: std::net::SocketAddr, identity: &Identity) -> Result<()> {
    let tcp = TcpStream::connect(address).await?;
    tcp.set_nodelay(true)?;
    let connector = tokio_rustls::TlsConnector::from(identity.client_config());
    let mut stream = connector.connect("127.0.0.1".try_into()?, tcp).await?;
    match stream.read(&mut [0; 1]).await {
        Ok(0) => Ok(()),
        // Closed without a goodbye: it was let in and dropped. A refusal is an alert, another error.
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => Ok(()),
        Err(error) => Err(error).context("the gateway refused the township"),
        Ok(_) => anyhow::bail!("the gateway spoke before it was asked"),
    }
}
