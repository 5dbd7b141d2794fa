//! `guantong rebuild`: a damaged store is set aside, and another one begins with what could be read of it.

use std::path::PathBuf;

use anyhow::{Context as _, bail};
use guantong_gateway::engine::{Environment, Rebuilt, rebuild};
use guantong_gateway::store::StoreError;
use serde_json::json;

use super::report::Report;
use super::restore::{in_words, now_ms, this_user};
use crate::config::Config;

const EXAMPLE: &str = "\
  guantong rebuild --config /etc/guantong/node.toml

Stop the node first. The damaged file is kept under another name. Saved out of it, as far as it can be read: what was
written here and is not delivered yet, and what no other node may hold. When the node starts, the nodes above and below
send everything else. A backup holds more than that: if there is one, use `guantong restore`. (损坏的文件保留；尚未上报的
数据尽量保留，其余由上下级补齐)";

/// Set a damaged store aside and begin another one, which other nodes fill (重建损坏的数据存储)
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLE)]
pub(crate) struct RebuildArgs {
    /// The node's configuration (配置文件)
    #[arg(long, value_name = "FILE", env = "GUANTONG_CONFIG", hide_env_values = true)]
    config: PathBuf,
    /// Although no damage is found (即使未发现损坏)
    #[arg(long)]
    even_if_sound: bool,
    /// Print one JSON object for programs instead of text (输出 JSON)
    #[arg(long)]
    pub(crate) json: bool,
}

pub(crate) async fn run(args: &RebuildArgs) -> anyhow::Result<Report> {
    let config = Config::load(&args.config)?;
    if config.store.is_some() {
        bail!(
            "this node keeps its records in PostgreSQL: repair or put back its database with PostgreSQL's own tools \
             (数据存储在 PostgreSQL 中，请用其自身工具修复)"
        );
    }
    let location = config.store_location().context("`data_dir` must be valid UTF-8")?;
    let parent = config.parent.as_ref().map(|parent| parent.division);
    let (drift_ms, compare_ms) = (config.drift_ms, config.compare_ms);
    let environment = Environment { now_ms, random: crate::serve::random, drift_ms, compare_ms };
    let rebuilt =
        rebuild(&location, config.division, parent, environment, &this_user(), args.even_if_sound).await;
    match rebuilt {
        Ok(rebuilt) => Ok(told(&rebuilt)),
        Err(StoreError::Sound) => Err(StoreError::Sound.into()),
        Err(error) => Err(in_words(error)),
    }
}

fn told(rebuilt: &Rebuilt) -> Report {
    let Rebuilt { whole, partial, unreadable, damage, former } = rebuilt;
    let former_text = former.as_ref().map(|path| path.display().to_string()).unwrap_or_default();
    let text = format!(
        "found 发现: {damage}\nthe store of before is kept as {former_text}; remove it when you are sure \
         (旧文件保留，确认后可删除)\nsaved 已保留: {whole} records that are not delivered yet, and of {partial} others what no \
         other node may hold; {unreadable} records or stretches cannot be read (无法读取)\nStart the node: the nodes above and \
         below send the rest, and `guantong status` says how far that is and what cannot come back. Grants, invitations, \
         subscriptions and the audit log stay in the old file: give grants anew (授权、邀请、订阅和审计日志留在旧文件中，请重新授权)\n"
    );
    let json = json!({
        "damage": damage,
        "former_store": former,
        "saved_whole": whole,
        "saved_in_part": partial,
        "unreadable": unreadable,
    });
    Report::done(text, json).needs_attention(*unreadable > 0)
}
