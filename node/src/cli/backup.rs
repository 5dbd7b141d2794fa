//! `guantong backup`: the store of a running node as one file.

use std::path::PathBuf;

use guantong_proto::v1;
use guantong_proto::v1::create_backup_response::Step;
use serde_json::json;

use super::connection::NodeArgs;
use super::report::{Report, time};
use super::{problem, progress};
use crate::backup::{Manifest, Writing};

const EXAMPLE: &str = "\
  guantong backup /backup/tongyu-2026-11-22.backup
  guantong backup /backup/tongyu.backup --force

The node goes on meanwhile. The file holds every record, and so personal data: keep it like the store. Certificates, keys
and the directory of an authority are not in it; copy those by themselves. A node on PostgreSQL is backed up with
PostgreSQL's own tools. Put it back with `guantong restore`. (备份含个人信息，请妥善保管；证书和密钥不在其中)";

/// Back up the store of a running node into one file (备份运行中节点的数据)
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLE)]
pub(crate) struct BackupArgs {
    /// The file to write; it has this name only when it is whole (备份文件)
    file: PathBuf,
    /// Write over a file that is there (覆盖已有文件)
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    pub(crate) node: NodeArgs,
}

pub(crate) async fn run(args: &BackupArgs) -> anyhow::Result<Report> {
    // Before the node is put to any work.
    let mut writing = Writing::begin(&args.file, args.force)?;
    let client = args.node.connect().await?;
    let request = v1::CreateBackupRequest {};
    let mut sent = client.backups().create_backup(request).await.map_err(problem::plain)?.into_inner();
    let bar = progress::bar(0);
    let mut manifest = None;
    while let Some(said) = sent.message().await.map_err(problem::plain)? {
        match said.step {
            Some(Step::Progress(said)) => {
                writing.expect(said.expected_bytes)?;
                bar.set_length(said.expected_bytes.max(said.copied_bytes));
                bar.set_position(said.copied_bytes);
                bar.set_message(if said.checking { "checking the copy" } else { "copying" });
            }
            Some(Step::Chunk(chunk)) => {
                bar.set_message("writing");
                writing.write(&chunk)?;
            }
            Some(Step::Manifest(said)) => manifest = Some(said),
            None => {}
        }
    }
    bar.finish_and_clear();
    let manifest = manifest.ok_or_else(|| {
        anyhow::anyhow!("the node stopped before everything was sent; nothing was written (备份未完成)")
    })?;
    let taken = manifest.create_time;
    let manifest = writing.finish(&manifest)?;
    let text = format!(
        "{} holds the store of {} as it was at {}: {} records, transaction {}, {} KiB, read again and found whole \
         (备份完成并已校验)\nit holds personal data: keep it like the store. Certificates, keys and the authority's directory \
         are not in it (证书、密钥和签发机构目录不在其中)\n",
        args.file.display(),
        manifest.division,
        time(taken.as_ref()),
        manifest.records,
        manifest.revision,
        manifest.bytes.div_ceil(1024),
    );
    Ok(Report::done(text, as_json(&args.file, &manifest)))
}

/// What a backup is of, for programs.
pub(super) fn as_json(file: &std::path::Path, manifest: &Manifest) -> serde_json::Value {
    json!({
        "file": file,
        "division": manifest.division,
        "epoch": manifest.epoch,
        "revision": manifest.revision,
        "store_format": manifest.store_format,
        "software_version": manifest.software_version,
        "created_ms": manifest.created_ms,
        "record_count": manifest.records,
        "store_bytes": manifest.bytes,
        "blake3": manifest.blake3,
    })
}
