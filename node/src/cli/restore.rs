//! `guantong restore`: a backup in the place of a node's store, while the node does not run.

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, bail, ensure};
use guantong_gateway::store::{FORMAT, Restored, Restoring, StoreError};
use serde_json::json;

use super::progress;
use super::report::{Report, time};
use crate::backup::{Backup, Manifest};
use crate::config::Config;

const EXAMPLE: &str = "\
  guantong restore /backup/tongyu.backup --config /etc/guantong/node.toml

Stop the node first. The backup is checked and made ready beside the store, and only then takes its place; the store of
before is kept under another name. Interrupted, nothing has happened, or the next start or restore ends it. When the node
starts, it writes as another, and the nodes above and below send what is missing since. (恢复前请先停止节点；旧数据保留)";

/// Put a backup in the place of a node's store (恢复备份)
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLE)]
pub(crate) struct RestoreArgs {
    /// What `guantong backup` wrote (备份文件)
    file: PathBuf,
    /// The node's configuration (配置文件)
    #[arg(long, value_name = "FILE", env = "GUANTONG_CONFIG", hide_env_values = true)]
    config: PathBuf,
    /// Print one JSON object for programs instead of text (输出 JSON)
    #[arg(long)]
    pub(crate) json: bool,
}

pub(crate) async fn run(args: &RestoreArgs) -> anyhow::Result<Report> {
    let config = Config::load(&args.config)?;
    let location = config.store_location().context("`data_dir` must be valid UTF-8")?;
    let mut backup = Backup::open(&args.file)?;
    fits(&backup.manifest, &config)?;
    let restoring = Restoring::begin(&location, config.division, backup.manifest.bytes).map_err(in_words)?;
    let mut file = restoring.file().map_err(in_words)?;
    let bar = progress::bar(backup.manifest.bytes);
    backup.copy(&mut file, |done| bar.set_position(done))?;
    bar.finish_and_clear();
    drop(file);
    let restored = restoring.finish(&this_user(), now_ms()).await.map_err(in_words)?;
    Ok(told(&args.file, &backup.manifest, &restored))
}

/// Whether the backup is one of this node, and this program can read it.
fn fits(manifest: &Manifest, config: &Config) -> anyhow::Result<()> {
    ensure!(
        manifest.division == config.division.to_string(),
        "the backup is of division {}, this node is {}; nothing was changed (不是本节点的备份)",
        manifest.division,
        config.division
    );
    let known = u32::try_from(FORMAT).unwrap_or(u32::MAX);
    ensure!(
        manifest.store_format <= known,
        "the backup was made by a newer program, {}: its store has format {}, and this program knows up to {known}; use \
         the newer program, nothing was changed (备份由更新版本的程序生成)",
        manifest.software_version,
        manifest.store_format
    );
    if config.store.is_some() {
        bail!(
            "this node keeps its records in PostgreSQL: put its dump back with pg_restore; the node notices \
             (数据存储在 PostgreSQL 中，请用 pg_restore 恢复)"
        );
    }
    Ok(())
}

/// What the store says, in the words of somebody who works on its files.
pub(super) fn in_words(error: StoreError) -> anyhow::Error {
    match error {
        StoreError::InUse(path) => anyhow::anyhow!(
            "a node runs on {path}; stop it first, nothing was changed (节点正在运行，请先停止)"
        ),
        other => anyhow::Error::new(other).context("nothing was changed (未做任何更改)"),
    }
}

/// Who runs this program, for the audit log.
pub(super) fn this_user() -> String {
    format!("local user {}", rustix::process::getuid().as_raw())
}

/// Unix milliseconds.
pub(super) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

fn told(file: &Path, manifest: &Manifest, restored: &Restored) -> Report {
    let made = i64::try_from(manifest.created_ms / 1_000).unwrap_or(i64::MAX);
    let made = time(Some(&prost_types::Timestamp { seconds: made, nanos: 0 }));
    let former = match &restored.former {
        Some(former) => format!(
            "the store of before is kept as {}; remove it when you are sure (旧数据保留在该文件，确认后可删除)\n",
            former.display()
        ),
        None => String::new(),
    };
    let text = format!(
        "the store of {} is as it was at {made}: {} records, transaction {} (已恢复)\n{former}Start the node: it writes as \
         another from now on, and the nodes above and below send what is missing since.\nGrants, invitations and \
         subscriptions are those of then: look at `guantong grant list`. Certificates and keys were not in the backup \
         (授权等为备份时的状态，请核对)\n",
        manifest.division, restored.records, restored.meta.revision,
    );
    let mut json = super::backup::as_json(file, manifest);
    json["former_store"] = json!(restored.former);
    Report::done(text, json)
}
