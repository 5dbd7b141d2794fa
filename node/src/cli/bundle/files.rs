//! Bundles between a node and files. A file gets its name only when it is whole and on disk.

use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use guantong_gateway::division::Division;
use guantong_proto::v1;
use indicatif::{ProgressBar, ProgressDrawTarget};
use tempfile::NamedTempFile;
use tokio::io::AsyncReadExt as _;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::super::problem;
use super::super::progress::bar;
use super::Client;

/// Read from a file at a time.
const PIECE_BYTES: usize = 256 * 1024;
/// Pieces that may wait for the node.
const PIECES_MAX: usize = 4;

/// A file beside the one that it will be.
struct Whole<'p> {
    path: &'p Path,
    folder: &'p Path,
    file: NamedTempFile,
}

impl<'p> Whole<'p> {
    fn begin(path: &'p Path) -> anyhow::Result<Whole<'p>> {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let file =
            NamedTempFile::new_in(folder).with_context(|| format!("cannot write in {}", folder.display()))?;
        Ok(Whole { path, folder, file })
    }

    fn write(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        let written = self.file.write_all(bytes);
        written.with_context(|| format!("{} is not written; nothing was changed", self.path.display()))
    }

    /// Puts it on disk under its name. Until now nothing of it was to be seen.
    fn finish(self) -> anyhow::Result<()> {
        let of_file = || format!("{} is not written", self.path.display());
        self.file.as_file().sync_all().with_context(of_file)?;
        self.file.persist(self.path).map_err(|error| error.error).with_context(of_file)?;
        Ok(std::fs::File::open(self.folder)?.sync_all()?)
    }
}

/// Writes a file whole or not at all.
pub(super) fn write_whole(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let mut file = Whole::begin(path)?;
    file.write(bytes)?;
    file.finish()
}

/// Has a bundle made, into a file.
pub(super) async fn export(
    client: &mut Client,
    receiver: Division,
    since_last: bool,
    path: &Path,
) -> anyhow::Result<v1::BundleSummary> {
    let mut file = Whole::begin(path)?;
    let request = v1::ExportBundleRequest { peer: format!("divisions/{receiver}"), since_last };
    let mut answers = client.export_bundle(request).await.map_err(problem::plain)?.into_inner();
    let shown = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
    while let Some(answer) = answers.message().await.map_err(problem::plain)? {
        file.write(&answer.chunk)?;
        shown.set_message(format!("{} records 记录", answer.record_count));
        shown.tick();
        if let Some(done) = answer.done {
            file.finish()?;
            shown.finish_and_clear();
            return Ok(done);
        }
    }
    anyhow::bail!("the node ended before the bundle was whole; nothing was written (数据包未完成)")
}

/// Gives a bundle to the node.
pub(super) async fn import(client: &mut Client, path: &Path) -> anyhow::Result<v1::BundleSummary> {
    let mut file = tokio::fs::File::open(path).await.with_context(|| path.display().to_string())?;
    let bytes = file.metadata().await?.len();
    let reading = bar(bytes);
    let (send, pieces) = mpsc::channel(PIECES_MAX);
    let read_bar = reading.clone();
    let sending = tokio::spawn(async move {
        loop {
            let mut piece = vec![0; PIECE_BYTES];
            let count = file.read(&mut piece).await?;
            piece.truncate(count);
            if count == 0 || send.send(v1::ImportBundleRequest { chunk: piece.into() }).await.is_err() {
                return Ok::<(), std::io::Error>(());
            }
            read_bar.inc(count as u64);
        }
    });
    let answers = client.import_bundle(ReceiverStream::new(pieces)).await;
    let mut answers = answers.map_err(problem::plain)?.into_inner();
    let done = loop {
        match answers.message().await.map_err(problem::plain)? {
            Some(v1::ImportBundleResponse { done: Some(done), .. }) => break done,
            Some(answer) if answer.total_batch_count > 0 => {
                reading.set_length(answer.total_batch_count);
                reading.set_position(answer.batch_count);
            }
            Some(_) => {}
            None => anyhow::bail!(
                "the node ended before the bundle was taken in; import it again (导入未完成，请重试)"
            ),
        }
    };
    reading.finish_and_clear();
    tokio::time::timeout(Duration::from_secs(1), sending).await.ok();
    Ok(done)
}
