//! `guantong export`: records of a division as a table or as JSON lines, page by page.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::PathBuf;

use anyhow::Context as _;
use guantong_gateway::division::Division;
use guantong_proto::rules::{KINDS, Kind};
use guantong_proto::v1;

use super::connection::{NodeArgs, division_or_own};
use super::{Outcome, json, pages};
use crate::client::Client;
use crate::ledger::{CsvWriter, Labels, LedgerError};

/// Export records as CSV or JSON lines (导出记录)
#[derive(Debug, clap::Args)]
pub(crate) struct ExportArgs {
    /// grid, case, camera, division, node, submission or threshold
    #[arg(long, value_parser = kind)]
    kind: &'static Kind,
    /// Records of this division and those inside it; default: the node's own
    #[arg(long, value_name = "CODE")]
    division: Option<Division>,
    /// A table that can be imported again, or one JSON object a line
    #[arg(long, default_value = "csv")]
    format: Format,
    /// Headers and words of the table
    #[arg(long, default_value = "chinese")]
    labels: Language,
    /// Whose numbers to write where other systems gave a record several
    #[arg(long, value_name = "NAME")]
    source: Option<String>,
    /// Deleted records, too
    #[arg(long)]
    deleted: bool,
    /// Where to write; default: standard output
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    #[command(flatten)]
    node: NodeArgs,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Format {
    Csv,
    Jsonl,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Language {
    Chinese,
    English,
}

fn kind(name: &str) -> Result<&'static Kind, String> {
    let known = || KINDS.iter().map(|kind| kind.name).collect::<Vec<_>>().join(", ");
    Kind::by_name(name).ok_or_else(|| format!("the kinds are {}", known()))
}

pub(crate) async fn run(args: ExportArgs) -> anyhow::Result<Outcome> {
    let client = args.node.connect().await?;
    let division = division_or_own(&client, args.division).await?;
    let out: Box<dyn Write> = match &args.out {
        Some(file) => {
            Box::new(File::create(file).with_context(|| format!("cannot write {}", file.display()))?)
        }
        None => Box::new(io::stdout().lock()),
    };
    let mut sink = Sink::new(&args, BufWriter::new(out))?;
    let written = match write(&client, &args, division, &mut sink).await {
        Ok(count) => sink.finish().map(|()| count),
        Err(error) => Err(error),
    };
    match written {
        Ok(count) => {
            if let Some(file) = &args.out {
                let summary = serde_json::json!({ "records": count, "file": file });
                let text = format!("{count} records written to {} (已导出)\n", file.display());
                return super::report::Report::done(text, summary).print(args.node.json);
            }
            Ok(Outcome::Done)
        }
        // The reader of a pipe has seen enough.
        Err(error) if is_broken_pipe(&error) => Ok(Outcome::Done),
        Err(error) => Err(error),
    }
}

async fn write(
    client: &Client,
    args: &ExportArgs,
    division: Division,
    sink: &mut Sink,
) -> anyhow::Result<u64> {
    let mut count = 0;
    pages::records(client, args.kind.name, division, args.deleted, |record| {
        count += 1;
        sink.write(&record)
    })
    .await?;
    Ok(count)
}

type Out = BufWriter<Box<dyn Write>>;

enum Sink {
    Csv(Box<CsvWriter<Out>>),
    Jsonl(Out),
}

impl Sink {
    fn new(args: &ExportArgs, out: Out) -> anyhow::Result<Sink> {
        let labels = match args.labels {
            Language::Chinese => Labels::Chinese,
            Language::English => Labels::English,
        };
        Ok(match args.format {
            Format::Csv => {
                Sink::Csv(Box::new(CsvWriter::new(args.kind.name, labels, args.source.as_deref(), out)?))
            }
            Format::Jsonl => Sink::Jsonl(out),
        })
    }

    fn write(&mut self, record: &v1::Record) -> anyhow::Result<()> {
        match self {
            Sink::Csv(csv) => Ok(csv.write(&record.name, &record.fields)?),
            Sink::Jsonl(out) => Ok(writeln!(out, "{}", json::of_record(record)?)?),
        }
    }

    fn finish(self) -> anyhow::Result<()> {
        let mut out = match self {
            Sink::Csv(csv) => csv.finish()?,
            Sink::Jsonl(out) => out,
        };
        Ok(out.flush()?)
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        let io = cause.downcast_ref::<io::Error>().or_else(|| match cause.downcast_ref::<LedgerError>() {
            Some(LedgerError::Io(error)) => Some(error),
            _ => None,
        });
        io.is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
    })
}
