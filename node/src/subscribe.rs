//! Where a subscription's records are kept for others to read: tables of a PostgreSQL, lines of JSON, or Parquet files.
//!
//! Tables follow from the contract ([`columns`]); a change becomes a row ([`cells`]); a sink puts rows on disk. A sink
//! never says that something is kept before it is. It knows nothing of the node: who reads the feed and acknowledges
//! it is the command line's part.

pub mod cells;
pub mod columns;
pub mod folder;
pub mod jsonl;
pub mod parquet;
pub mod postgres;

use std::path::PathBuf;

use guantong_proto::rules::Kind;
use guantong_proto::v1;

use columns::Table;
use jsonl::JsonlSink;
use parquet::ParquetSink;
use postgres::PostgresSink;

/// Why nothing could be written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SinkError {
    /// A person must do something.
    #[error("{0}")]
    Refused(String),
    /// It may work later.
    #[error("{0}")]
    Unavailable(String),
}

/// Where records go, and as what.
#[derive(Clone, Debug)]
pub enum Target {
    /// Tables in a schema of a database.
    Postgres {
        /// `postgres://…`; never shown.
        url: String,
        /// The schema.
        schema: String,
    },
    /// Files in a folder.
    Jsonl(PathBuf),
    /// Files in a folder.
    Parquet(PathBuf),
}

/// Somewhere records are kept.
pub enum Sink {
    /// See [`Target::Postgres`].
    Postgres(Box<PostgresSink>),
    /// See [`Target::Jsonl`].
    Jsonl(JsonlSink),
    /// See [`Target::Parquet`].
    Parquet(ParquetSink),
}

impl Sink {
    /// Opens a target for a subscription, with the tables of these kinds, all where none is named. Says whether it
    /// lacks what was sent before: it is new, or has columns that it had not.
    ///
    /// # Errors
    /// What the target says.
    pub async fn open(
        target: &Target,
        subscription: &str,
        kinds: &[&'static Kind],
    ) -> Result<(Sink, bool), SinkError> {
        let tables = Table::of(kinds);
        match target {
            Target::Postgres { url, schema } => {
                let (sink, wants_all) = PostgresSink::open(url, schema, subscription, tables).await?;
                Ok((Sink::Postgres(Box::new(sink)), wants_all))
            }
            Target::Jsonl(path) => {
                let (sink, wants_all) = JsonlSink::open(path, subscription, tables)?;
                Ok((Sink::Jsonl(sink), wants_all))
            }
            Target::Parquet(path) => {
                let (sink, wants_all) = ParquetSink::open(path, subscription, tables)?;
                Ok((Sink::Parquet(sink), wants_all))
            }
        }
    }

    /// Takes changes; they are kept after [`commit`](Self::commit) and not before. `time_us`: now, Unix microseconds.
    ///
    /// # Errors
    /// Then nothing since the last commit is kept, and the sink is of no further use.
    pub async fn write(&mut self, changes: &[v1::Change], time_us: i64) -> Result<(), SinkError> {
        match self {
            Sink::Postgres(sink) => sink.write(changes, time_us).await,
            Sink::Jsonl(sink) => sink.write(changes, time_us),
            Sink::Parquet(sink) => sink.write(changes, time_us),
        }
    }

    /// Puts on disk what was taken. `caught_up`: everything that changed before then was written. `last`: nothing
    /// follows for now.
    ///
    /// # Errors
    /// Then it is not known what is kept, and the sink is of no further use.
    pub async fn commit(
        &mut self,
        caught_up: Option<prost_types::Timestamp>,
        time_us: i64,
        last: bool,
    ) -> Result<(), SinkError> {
        match self {
            Sink::Postgres(sink) => sink.commit(caught_up).await,
            Sink::Jsonl(sink) => sink.commit(caught_up, time_us, last),
            Sink::Parquet(sink) => sink.commit(caught_up),
        }
    }

    /// Ends it. What was not committed is given up.
    pub async fn close(self) {
        if let Sink::Postgres(sink) = self {
            sink.close().await;
        }
    }
}

/// Changes by their kinds, in their order.
fn by_kind(changes: &[v1::Change]) -> Vec<(&str, Vec<&v1::Change>)> {
    let mut kinds: Vec<(&str, Vec<&v1::Change>)> = Vec::new();
    for change in changes {
        match kinds.iter_mut().find(|(kind, _)| *kind == change.kind) {
            Some((_, same)) => same.push(change),
            None => kinds.push((&change.kind, vec![change])),
        }
    }
    kinds
}

fn unknown_kind(kind: &str) -> SinkError {
    SinkError::Refused(format!(
        "records of kind `{kind}` came, which this program does not know; take the node's version of it, or subscribe \
         with --kinds (程序版本过旧，不认识该种类)"
    ))
}
