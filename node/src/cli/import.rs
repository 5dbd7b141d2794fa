//! `guantong import`: a ledger goes to the node row by row; what was wrong comes back in a file.
//!
//! Rows are read and sent at once, so that a ledger of any size takes little memory. A row is never dropped silently.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::File;
use std::path::PathBuf;

use anyhow::{Context as _, anyhow};
use guantong_gateway::division::Division;
use guantong_proto::v1;
use indicatif::ProgressBar;
use prost::Message as _;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::connection::NodeArgs;
use super::progress::{Watched, bar};
use super::report::Report;
use super::{Outcome, problem};
use crate::client::Client;
use crate::ledger::{Crs, Layout, Ledger, LedgerError, Options, Outcome as Row, write_rejects};

/// A message to the node holds about so much.
const MESSAGE_ROWS: usize = 500;
const MESSAGE_BYTES: usize = 512 * 1024;
/// Messages that are read ahead.
const AHEAD: usize = 4;
/// Lines of bad or missing rows that are shown to people.
const SHOWN_MAX: usize = 10;

const EXAMPLE: &str = "\
  guantong import --kind grid   grids.csv   --source grid-office
  guantong import --kind camera cameras.csv --source police --full --crs gcj02
  guantong import --kind case   cases.csv   --source 12345

The file is CSV in UTF-8 or GB18030, with Chinese or English headers. Good rows go in, bad rows come back in a file.
A ledger is compared with the last one of the same source: what did not change there is not written, so importing
twice changes nothing, and an old file does not undo corrections (同一来源重复导入不会产生变化，旧台账不会覆盖更正).
Exit status 3 if rows came back, are missing, are held or now stand in conflict.";

/// Import a ledger (导入台账)
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLE)]
pub(crate) struct ImportArgs {
    /// The ledger
    file: PathBuf,
    /// What its rows are
    #[arg(long)]
    kind: LedgerKind,
    /// What the ledger is called; always the same for the same ledger (台账来源名称)
    #[arg(long, value_name = "NAME")]
    source: String,
    /// The ledger is complete: list the records that it had last time and that are missing now (完整台账)
    #[arg(long)]
    full: bool,
    /// The reference system of its coordinates: cgcs2000, wgs84, gcj02 or bd09 (坐标系)
    #[arg(long, value_name = "SYSTEM")]
    crs: Option<Crs>,
    /// The home of rows that do not say it (默认所属区划)
    #[arg(long, value_name = "CODE")]
    home: Option<Division>,
    /// When the ledger was taken, Beijing time, as '2026-11-21 14:00': the time of observations that have none
    #[arg(long, value_name = "TIME", value_parser = beijing_ms)]
    observed: Option<i64>,
    /// Where to write rows that were not taken; default: beside the ledger, as NAME.rejects.csv (退回行文件)
    #[arg(long, value_name = "FILE")]
    rejects: Option<PathBuf>,
    #[command(flatten)]
    node: NodeArgs,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum LedgerKind {
    /// 网格
    Grid,
    /// 事件
    Case,
    /// 视频监控点位
    Camera,
    /// 行政区划
    Division,
}

impl LedgerKind {
    fn name(self) -> &'static str {
        match self {
            LedgerKind::Grid => "grid",
            LedgerKind::Case => "case",
            LedgerKind::Camera => "camera",
            LedgerKind::Division => "division",
        }
    }
}

impl ImportArgs {
    /// As `guantong divisions import`.
    pub(crate) fn of_divisions(
        file: PathBuf,
        source: String,
        rejects: Option<PathBuf>,
        node: NodeArgs,
    ) -> ImportArgs {
        let kind = LedgerKind::Division;
        ImportArgs { file, kind, source, full: false, crs: None, home: None, observed: None, rejects, node }
    }

    fn header(&self) -> v1::ImportHeader {
        v1::ImportHeader { kind: self.kind.name().to_owned(), source: self.source.clone(), full: self.full }
    }

    fn rejects(&self) -> PathBuf {
        self.rejects.clone().unwrap_or_else(|| self.file.with_extension("rejects.csv"))
    }

    fn open(&self) -> anyhow::Result<File> {
        File::open(&self.file).with_context(|| format!("cannot read {} (无法读取台账)", self.file.display()))
    }
}

pub(crate) async fn run(args: ImportArgs) -> anyhow::Result<Outcome> {
    let file = args.open()?;
    let bar = bar(file.metadata().map_or(0, |metadata| metadata.len()));
    let options =
        Options { crs: args.crs, home: args.home, observed_ms: args.observed, ..Options::new(&args.source) };
    let ledger = Ledger::open(args.kind.name(), Watched::new(file, bar.clone()), options)
        .with_context(|| args.file.display().to_string())?;
    let client = args.node.connect().await?;
    let (ledger, mut bad, answer) = send(&client, args.header(), ledger, &bar).await?;
    bar.finish_and_clear();
    for problem in answer.problems.iter().cloned() {
        let field = ledger.layout().header_of(&problem.field).to_owned();
        bad.entry(problem.line).or_default().push(v1::RowProblem { field, ..problem });
    }
    let rejects = write_back(&args, &bad)?;
    let summary = Summary { args: &args, ledger: &ledger, bad: &bad, answer: &answer, rejects };
    summary.report().print(args.node.json)
}

type Bad = BTreeMap<u64, Vec<v1::RowProblem>>;
type Open = Ledger<Watched<File>>;

/// Reads and sends at the same time.
async fn send(
    client: &Client,
    header: v1::ImportHeader,
    ledger: Open,
    bar: &ProgressBar,
) -> anyhow::Result<(Open, Bad, v1::ImportRecordsResponse)> {
    let (messages, stream) = mpsc::channel(AHEAD);
    let mut records = client.records();
    let call = tokio::spawn(async move { records.import_records(ReceiverStream::new(stream)).await });
    let bar = bar.clone();
    let reading = tokio::task::spawn_blocking(move || {
        let mut reading = Reading { ledger, bad: Bad::new(), messages, bar };
        let read = reading.run(header);
        (reading, read)
    });
    let (reading, read) = reading.await?;
    if let Err(error) = read {
        // The stream must not end as if the ledger had ended here.
        call.abort();
        let rows = reading.ledger.counts().good;
        return Err(anyhow!(error).context(format!(
            "the ledger cannot be read to its end; up to {rows} rows before that went in; correct it and import it \
             again (台账未能读完，请修正后重新导入)"
        )));
    }
    // Ends the stream.
    let Reading { ledger, bad, messages, .. } = reading;
    drop(messages);
    let answer = call.await?.map_err(problem::plain)?.into_inner();
    Ok((ledger, bad, answer))
}

struct Reading {
    ledger: Open,
    bad: Bad,
    messages: mpsc::Sender<v1::ImportRecordsRequest>,
    bar: ProgressBar,
}

impl Reading {
    fn run(&mut self, header: v1::ImportHeader) -> Result<(), LedgerError> {
        self.give(v1::import_records_request::Content::Header(header));
        let (mut rows, mut bytes) = (Vec::new(), 0);
        while let Some(row) = self.ledger.next() {
            match row? {
                Row::Bad(problems) => {
                    let line = problems.first().map_or(0, |problem| problem.line);
                    self.bad.insert(line, problems);
                }
                Row::Row(row) => {
                    bytes += row.encoded_len();
                    rows.push(row);
                }
            }
            if rows.len() >= MESSAGE_ROWS || bytes >= MESSAGE_BYTES {
                let rows = std::mem::take(&mut rows);
                bytes = 0;
                let taken = self.give(v1::import_records_request::Content::Rows(v1::ImportRows { rows }));
                if !taken {
                    return Ok(());
                }
                self.bar.set_message(format!("{} rows", self.ledger.counts().rows));
            }
        }
        self.give(v1::import_records_request::Content::Rows(v1::ImportRows { rows }));
        Ok(())
    }

    /// Whether the node still listens; if not, its answer says why.
    fn give(&self, content: v1::import_records_request::Content) -> bool {
        self.messages.blocking_send(v1::ImportRecordsRequest { content: Some(content) }).is_ok()
    }
}

/// Writes the rows that came back, if there are any, and says where.
fn write_back(args: &ImportArgs, bad: &Bad) -> anyhow::Result<Option<PathBuf>> {
    if bad.is_empty() {
        return Ok(None);
    }
    let path = args.rejects();
    let cannot = || {
        format!(
            "{} rows came back, but {} cannot be written; name another file with --rejects",
            bad.len(),
            path.display()
        )
    };
    let file = File::create(&path).with_context(cannot)?;
    write_rejects(args.open()?, bad, file).with_context(cannot)?;
    Ok(Some(path))
}

struct Summary<'a> {
    args: &'a ImportArgs,
    ledger: &'a Open,
    bad: &'a Bad,
    answer: &'a v1::ImportRecordsResponse,
    rejects: Option<PathBuf>,
}

impl Summary<'_> {
    fn report(&self) -> Report {
        let answer = self.answer;
        let attention = !self.bad.is_empty()
            || !answer.vanished.is_empty()
            || answer.conflict_count + answer.held_count > 0;
        Report::done(self.text(), self.json()).needs_attention(attention)
    }

    fn layout(&self) -> &Layout {
        self.ledger.layout()
    }

    fn json(&self) -> Value {
        let (answer, counts) = (self.answer, self.ledger.counts());
        let problems: Vec<Value> = self
            .bad
            .values()
            .flatten()
            .map(|problem| json!({ "line": problem.line, "field": problem.field, "reason": problem.reason }))
            .collect();
        let left_out: Vec<Value> = self
            .layout()
            .left_out
            .iter()
            .map(|column| json!({ "header": column.header, "reason": column.reason }))
            .collect();
        json!({
            "kind": self.args.kind.name(),
            "source": self.args.source,
            "rows": counts.rows,
            "created": answer.created_count,
            "changed": answer.changed_count,
            "unchanged": answer.unchanged_count,
            "conflicts": answer.conflict_count,
            "held": answer.held_count,
            "erased": answer.erased_count,
            "bad": self.bad.len(),
            "secret": counts.secret_lines.len(),
            "problems": problems,
            "rejects": self.rejects,
            "vanished": answer.vanished,
            "left_out": left_out,
        })
    }

    fn text(&self) -> String {
        let (answer, counts) = (self.answer, self.ledger.counts());
        let mut text = format!(
            "{} rows of {} read (已读取 {} 行)\n",
            counts.rows,
            self.args.file.display(),
            counts.rows
        );
        for (name, count) in [
            ("new 新增", answer.created_count),
            ("changed 变更", answer.changed_count),
            ("unchanged 未变", answer.unchanged_count),
            ("now in conflict 冲突", answer.conflict_count),
            ("held until their division is known 待定", answer.held_count),
            ("cells left out: their content was erased 已擦除，略去", answer.erased_count),
            ("came back 退回", self.bad.len() as u64),
            ("secret, left out 涉密略去", counts.secret_lines.len() as u64),
        ] {
            if count > 0 {
                let _ = writeln!(text, "  {count:>9} {name}");
            }
        }
        for column in &self.layout().left_out {
            let _ = writeln!(text, "column «{}» left out 未导入列: {}", column.header, column.reason);
        }
        self.bad_rows(&mut text);
        self.vanished(&mut text);
        text
    }

    fn bad_rows(&self, text: &mut String) {
        let Some(rejects) = &self.rejects else { return };
        let _ = writeln!(
            text,
            "rows that came back, with line and reason, to correct and import again (退回行): {}",
            rejects.display()
        );
        for problem in self.bad.values().flatten().take(SHOWN_MAX) {
            let field = if problem.field.is_empty() { String::new() } else { format!("{}: ", problem.field) };
            let _ = writeln!(text, "  line {}: {field}{}", problem.line, problem.reason);
        }
    }

    fn vanished(&self, text: &mut String) {
        let vanished = &self.answer.vanished;
        if vanished.is_empty() {
            return;
        }
        let _ = writeln!(
            text,
            "{} records of the last ledger are missing in this one; nothing was done to them. Decide about each, for \
             instance with guantong set NAME deleted=true (上次台账中的 {} 条记录本次缺失，请逐条确认)",
            vanished.len(),
            vanished.len()
        );
        if !self.bad.is_empty() {
            text.push_str("  some may be among the rows that came back (其中可能包含退回行)\n");
        }
        for name in vanished.iter().take(SHOWN_MAX) {
            let _ = writeln!(text, "  {name}");
        }
        if vanished.len() > SHOWN_MAX {
            let _ = writeln!(text, "  and {} more; --json lists all", vanished.len() - SHOWN_MAX);
        }
    }
}

/// A moment of Beijing time as Unix milliseconds.
fn beijing_ms(text: &str) -> Result<i64, String> {
    let format = time::macros::format_description!("[year]-[month]-[day] [hour]:[minute]");
    let moment = time::PrimitiveDateTime::parse(text, format)
        .map_err(|_| "write such as '2026-11-21 14:00'".to_owned())?;
    Ok(moment.assume_offset(time::macros::offset!(+8)).unix_timestamp() * 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn observations_are_dated_in_beijing() {
        assert_eq!(beijing_ms("1970-01-01 08:01"), Ok(60_000));
        assert!(beijing_ms("1970-01-01").is_err());
    }
}
