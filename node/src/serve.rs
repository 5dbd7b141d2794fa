//! `guantong serve`: one node, from its configuration to its last word.
//!
//! It puts the parts together and takes them apart again in the right order. What a node does is theirs; nothing is
//! decided here.

mod audited;
mod doors;
mod identity;
mod rated;
mod registrar;
mod signals;
mod unread;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, anyhow, bail};
use guantong_gateway::engine::{Engine, Environment};
use guantong_gateway::service::{
    self, BundleMeans, Checkpoints, Enrolment, Links, NodeInfo, ParentLine, Seal,
};
use guantong_gateway::store::{self, Store, StoreError};
use tokio::signal::unix::Signal;
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::config::{Config, Line};
use crate::identity::bundle_key::NodeBundleKeys;
use crate::identity::seal::NodeSeal;
use crate::links::Uplink;
use crate::telemetry::{self, Listener, Telemetry};
use doors::Doors;
use identity::NodeIdentity;
use registrar::NodeRegistrar;
use signals::Signals;

/// Threads that run tasks; the store has its own. Many nodes may share a machine.
const WORKERS_MAX: usize = 2;
/// Gateways of one database of PostgreSQL, at most.
const PROCESSES_MAX: u8 = 128;
/// How long calls and links that are under way may take to end when the node stops.
const DRAIN_TIME: Duration = Duration::from_secs(10);
/// How long the engine may take to write what it was given before.
const ENGINE_STOP_TIME: Duration = Duration::from_secs(30);

/// Runs a node until it is told to stop by SIGTERM or SIGINT.
///
/// # Errors
/// Why it could not start, or why it stopped by itself.
pub fn run(config: &Path) -> anyhow::Result<()> {
    run_listened_to(config, None)
}

/// The same while somebody is told of each step that records come by.
///
/// # Errors
/// As [`run`].
pub fn run_listened_to(config: &Path, listener: Option<Listener>) -> anyhow::Result<()> {
    let config = Config::load(config)?;
    let workers = std::thread::available_parallelism().map_or(1, usize::from).min(WORKERS_MAX);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(workers).enable_all().build()?;
    let served = runtime.block_on(async {
        // Before anything is opened, so that no signal is missed.
        let mut signals = Signals::catch()?;
        let hangup = signals.hangup()?;
        let telemetry = Telemetry::start(&config, listener)?;
        let served = serve(&config, signals.stop(), hangup).await;
        tokio::task::spawn_blocking(|| telemetry.stop()).await?;
        served
    });
    runtime.shutdown_timeout(Duration::from_secs(1));
    served
}

/// Checks a configuration, the identity it names and the store, and starts nothing. Says which store it is.
///
/// # Errors
/// Everything that is wrong.
pub fn check(config: &Path) -> anyhow::Result<(Config, String)> {
    let config = Config::load(config)?;
    telemetry::level(&config.log.level)?;
    NodeIdentity::open(&config)?;
    let location = config.store_location().context("`data_dir` must be valid UTF-8")?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let store = runtime
        .block_on(Store::check(&location, config.division))
        .context("the store cannot be used (数据存储不可用)")?;
    Ok((config, store))
}

/// Runs a node until `told_to_stop` says why it stops.
async fn serve(
    config: &Config,
    told_to_stop: impl Future<Output = &'static str>,
    hangup: Signal,
) -> anyhow::Result<()> {
    let identity = NodeIdentity::open(config)?;
    let (store, engine, mut writing) = open_engine(config).await?;
    let doors = Doors::open(config, identity.as_ref()).await?;

    let stop = CancellationToken::new();
    let links = Links::new();
    let info = node_info(config, identity.clone(), &doors);
    let seal =
        identity.as_ref().map(|identity| -> Arc<dyn Seal> { Arc::new(NodeSeal(identity.store.clone())) });
    let checkpoints = Checkpoints::new(engine.clone(), links.clone(), seal);
    let registrar = NodeRegistrar::new(identity.as_ref(), config.authority.clone());
    let enrolment = Enrolment::new(engine.clone(), links.clone(), registrar.clone(), stop.clone());
    let services = service::routes(
        engine.clone(),
        links.clone(),
        info.clone(),
        checkpoints.clone(),
        registrar.clone(),
        enrolment.clone(),
        stop.clone(),
    );
    let lobby = config.authority.as_ref().map(|authority| {
        let grace = Duration::from_secs(u64::from(authority.renewal_grace_days) * 24 * 3600);
        (service::lobby(enrolment), grace)
    });
    let mut tasks = JoinSet::new();
    tasks.spawn(registrar.clone().follow(stop.clone()));
    if config.parent.is_none() {
        tasks.spawn(registrar.renew_own(stop.clone()));
    }
    tasks.spawn(service::describe(engine.clone(), links.clone(), info, stop.clone()));
    tasks.spawn(checkpoints.clone().keep(stop.clone()));
    doors.serve(services, lobby, &engine, &stop, &mut tasks);
    if let Some(identity) = &identity {
        tasks.spawn(identity.clone().watch(engine.clone(), hangup, stop.clone()));
        if let Some(parent) = config.dialled_parent().cloned() {
            let identity = identity.store.clone();
            let uplink = Uplink { engine: engine.clone(), links, checkpoints, identity, parent };
            tasks.spawn(uplink.keep(stop.clone()));
        }
    }
    tracing::info!(division = %config.division, "the node is ready (节点已就绪)");

    let outcome = tokio::select! {
        signal = told_to_stop => { tracing::info!("the node stops: {signal} (节点正在停止)"); Ok(()) }
        _ = &mut writing => Err(anyhow!("the engine ended; the log says why (引擎意外终止)")),
        Some(ended) = tasks.join_next() => Err(anyhow!("a part of the node ended unasked: {ended:?}")),
    };
    stop.cancel();
    drain(tasks).await;
    close(store, engine, writing).await?;
    outcome
}

async fn open_engine(config: &Config) -> anyhow::Result<(Store, Engine, JoinHandle<()>)> {
    let location = config.store_location().context("`data_dir` must be valid UTF-8")?;
    let options = store::Options {
        max_page_count: config.store_max_pages(),
        processes_max: PROCESSES_MAX,
        ..store::Options::default()
    };
    let opened = Store::open(&location, config.division, random, now_ms(), options).await;
    let (store, writer) = match opened {
        Err(StoreError::InUse(path)) => {
            bail!(
                "another guantong is running on this store, {path}; stop it first (另一个节点正在使用此数据目录)"
            )
        }
        opened => opened.context("cannot open the store (无法打开数据存储)")?,
    };
    let environment =
        Environment { now_ms, random, drift_ms: config.drift_ms, compare_ms: config.compare_ms };
    let parent = config.parent.as_ref().map(|parent| parent.division);
    let (engine, writing) = Engine::start(store.clone(), writer, config.division, parent, environment)
        .await
        .context("cannot start the engine (无法启动引擎)")?;
    Ok((store, engine, writing))
}

/// Lets go of what is under way: links say goodbye, calls get their answers, all within a limit.
async fn drain(mut tasks: JoinSet<()>) {
    let ended = async { while tasks.join_next().await.is_some() {} };
    if tokio::time::timeout(DRAIN_TIME, ended).await.is_err() {
        tracing::warn!(
            "some connections did not end within {DRAIN_TIME:?} and are cut (部分连接未能及时结束)"
        );
    }
}

/// Writes what was given before, and closes.
async fn close(store: Store, engine: Engine, writing: JoinHandle<()>) -> anyhow::Result<()> {
    let stopped = async {
        engine.stop().await;
        // It may have ended before, and said so.
        if !writing.is_finished() {
            let _ = writing.await;
        }
        store.close().await;
    };
    tokio::time::timeout(ENGINE_STOP_TIME, stopped).await.map_err(|_| {
        anyhow!("the store did not finish within {ENGINE_STOP_TIME:?}; nothing confirmed is lost")
    })
}

fn parent_line(config: &Config) -> ParentLine {
    match config.parent.as_ref().map(|parent| parent.line) {
        None | Some(Line::Dialled) => ParentLine::Dialled,
        Some(Line::Bundle) => ParentLine::Bundle,
        Some(Line::OneWay) => ParentLine::OneWay,
    }
}

/// What bundles are signed, opened and kept with.
fn bundle_means(config: &Config, identity: &NodeIdentity) -> Arc<BundleMeans> {
    Arc::new(BundleMeans {
        seal: Arc::new(NodeSeal(identity.store.clone())),
        keys: Arc::new(NodeBundleKeys::beside(&identity.store.files().certificate)),
        folder: config.data_dir.clone(),
    })
}

/// What the node itself adds to its status.
fn node_info(config: &Config, identity: Option<Arc<NodeIdentity>>, doors: &Doors) -> NodeInfo {
    let certificate = identity.clone();
    NodeInfo {
        software_version: env!("CARGO_PKG_VERSION").to_owned(),
        started_ms: now_ms(),
        certificate_expire_ms: Arc::new(move || {
            let not_after_ms = certificate.as_ref()?.store.current().certificate().not_after_ms;
            i64::try_from(not_after_ms).ok()
        }),
        refused_connections: doors.refusals(),
        parent_line: parent_line(config),
        bundles: identity.as_ref().map(|identity| bundle_means(config, identity)),
        warnings: Arc::new(move || identity.as_ref().map_or_else(Vec::new, |identity| identity.warnings())),
    }
}

/// Unix milliseconds.
fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// 64 random bits for identities.
pub(crate) fn random() -> u64 {
    getrandom::u64().unwrap_or_else(|error| {
        // Two writers with one number would overwrite each other's work unseen. That must not be risked.
        tracing::error!("the system gives no random numbers: {error} (系统无法提供随机数)");
        std::process::abort()
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests;
