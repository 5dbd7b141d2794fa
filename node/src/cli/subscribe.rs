//! `guantong subscribe`: keeps tables or files up to date from a subscription, until it is stopped.

mod follow;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::bail;
use guantong_proto::rules::{KINDS, Kind};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::Outcome;
use super::connection::NodeArgs;
use super::report::{Report, time};
use super::subscriptions::Covers;
use crate::subscribe::Target;
use follow::{Event, Follow, Summary};

const EXAMPLE: &str = "\
  guantong subscribe centre --to postgres://gt@db.example/gt --format postgres
  guantong subscribe centre --to /data/gt --format parquet --kinds case,camera --scope 2208 --once
  guantong subscribe centre --to /data/gt --format jsonl --node county.example:7443 --identity centre

Tables (表), in every format: one for each kind (grids, cases, cameras, divisions, nodes …) with
the contract's English names as columns; `lifecycle.state` is `lifecycle_state`. Each also has
  name                resource name, the key: divisions/HOME/KINDs/ID (主键)
  home                division where the record was born, 12 digits (归属区划)
  deleted             the record was deleted; its row stays (已删除，行保留)
  conflicting_fields  fields where values stand side by side (存在并列取值的字段)
  conflicts           all those values, with writers and times, as JSON (并列的全部取值)
  etag, update_time   version, and when it was written last (版本与写入时间)
  sync_time, sync_seq when and in which commit this row was written (同步时间与序号)
Values of enums are stable English names; their Chinese labels are in the table enum_labels, or
in manifest.json. Personal fields come only with --personal-data and a grant that covers them.

postgres  Tables in --schema, made and widened by this command, with Chinese comments. The table
          `subscription` says up to when they are complete. Password: PGPASSWORD or ~/.pgpass;
          TLS: ?sslmode=verify-full&sslrootcert=FILE in the URL.
parquet   DIR/manifest.json names the files of each table. Of a name the row with the greatest
          sync_seq counts: SELECT * FROM read_parquet([files])
          QUALIFY row_number() OVER (PARTITION BY name ORDER BY sync_seq DESC) = 1
jsonl     DIR/TABLE/*.jsonl are complete and never change; the newest lines stand in *.jsonl.open.
          Of a name the later line counts.

Changes are acknowledged only after they are on disk. Stopped at any moment, it goes on from there.
(变化落盘后才确认；随时可停止，再次运行即从断点继续)";

/// Keep tables or files up to date from a subscription (订阅数据，持续写入数据库或文件)
///
/// Makes the subscription where it is missing: first everything comes, then every change.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLE)]
pub(crate) struct SubscribeArgs {
    /// The subscription (订阅名称): a lower-case letter, then letters, digits and hyphens
    name: String,
    /// postgres://… or a folder (数据库地址或目录)
    #[arg(long, value_name = "URL|DIR", env = "GUANTONG_SUBSCRIBE_TO", hide_env_values = true)]
    to: String,
    /// As what (输出形式)
    #[arg(long)]
    format: Format,
    #[command(flatten)]
    covers: Covers,
    /// For postgres: the schema of the tables
    #[arg(long, default_value = "guantong")]
    schema: String,
    /// End when nothing is owed any more, as for cron (取完即退出)
    #[arg(long)]
    once: bool,
    #[command(flatten)]
    pub(crate) node: NodeArgs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// Tables of a PostgreSQL
    Postgres,
    /// Lines of JSON in files
    Jsonl,
    /// Parquet files
    Parquet,
}

pub(crate) fn run(args: SubscribeArgs) -> anyhow::Result<Outcome> {
    let json = args.node.json;
    // Writing files must not hold up the connection.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(follow(args))?.print(json)
}

async fn follow(args: SubscribeArgs) -> anyhow::Result<Report> {
    let stop = CancellationToken::new();
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let follow = Follow {
        name: args.name.clone(),
        target: target(&args)?,
        kinds: kinds(&args.covers.kinds)?,
        scope: args.covers.scope,
        personal_data: args.covers.personal_data,
        once: args.once,
        node: args.node.clone(),
        stop: stop.clone(),
    };
    let mut teller = Teller::new();
    let mut following = std::pin::pin!(follow.run(|event| teller.tell(&event)));
    let stopped = async {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    let summary = tokio::select! {
        summary = &mut following => summary?,
        () = stopped => {
            stop.cancel();
            following.await?
        }
    };
    Ok(report(&args.name, &summary))
}

fn report(name: &str, summary: &Summary) -> Report {
    let up_to = time(summary.caught_up_time.as_ref());
    let state = if summary.caught_up_time.is_some() {
        format!("complete up to {up_to} (数据完整至 {up_to})")
    } else {
        "not complete yet; run it again to go on (尚未取完，可再次运行继续)".to_owned()
    };
    let text = format!("{name}: {} changes written; {state}\n", summary.changes);
    let caught_up = summary.caught_up_time.as_ref().map(ToString::to_string);
    let value = json!({ "subscription": name, "changes": summary.changes, "caught_up_time": caught_up });
    Report::done(text, value)
}

fn target(args: &SubscribeArgs) -> anyhow::Result<Target> {
    let is_url = args.to.starts_with("postgres://") || args.to.starts_with("postgresql://");
    Ok(match (args.format, is_url) {
        (Format::Postgres, true) => {
            if args.schema.is_empty() || args.schema.len() > 63 || args.schema.starts_with("pg_") {
                bail!("--schema: 1 to 63 characters, not beginning with pg_");
            }
            Target::Postgres { url: args.to.clone(), schema: args.schema.clone() }
        }
        (Format::Postgres, false) => bail!("--format postgres needs --to postgres://user@host/database"),
        (_, true) => bail!("--to names a database; write --format postgres, or a folder"),
        (Format::Jsonl, false) => Target::Jsonl(PathBuf::from(&args.to)),
        (Format::Parquet, false) => Target::Parquet(PathBuf::from(&args.to)),
    })
}

fn kinds(names: &[String]) -> anyhow::Result<Vec<&'static Kind>> {
    let mut kinds = Vec::with_capacity(names.len());
    for name in names {
        let Some(kind) = Kind::by_name(name) else {
            let known: Vec<&str> = KINDS.iter().map(|kind| kind.name).collect();
            bail!("--kinds: there is no kind `{name}`; known: {} (种类有误)", known.join(", "));
        };
        kinds.push(kind);
    }
    Ok(kinds)
}

/// Progress on a terminal; where nobody looks, a line now and then for the log.
struct Teller {
    bar: ProgressBar,
    quiet: bool,
    changes: u64,
}

impl Teller {
    fn new() -> Teller {
        let bar = ProgressBar::new_spinner();
        if let Ok(style) = ProgressStyle::with_template("{spinner} {msg}") {
            bar.set_style(style);
        }
        Teller { quiet: bar.is_hidden(), bar, changes: 0 }
    }

    fn tell(&mut self, event: &Event<'_>) {
        match event {
            Event::Created => {
                self.line("the subscription was made: everything comes first (已创建订阅，先取全量)")
            }
            Event::Everything => {
                self.line("what is there lacks records or columns: everything comes again (重新获取全量)");
            }
            Event::Written { changes } => {
                self.changes = *changes;
                self.bar.set_message(format!("{changes} changes written (已写入)"));
                self.bar.tick();
            }
            Event::CaughtUp { changed: true } => {
                self.line(&format!("{} changes written; nothing is owed (已写入全部变化)", self.changes));
            }
            Event::CaughtUp { changed: false } => {}
            Event::Waiting { why, wait } => {
                let seconds = wait.max(&Duration::from_secs(1)).as_secs();
                self.line(&format!("{why}; trying again in {seconds} s ({seconds} 秒后重试)"));
            }
        }
    }

    fn line(&self, text: &str) {
        if self.quiet {
            eprintln!("guantong: {text}");
        } else {
            self.bar.println(text);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        args: SubscribeArgs,
    }

    fn parse(line: &str) -> SubscribeArgs {
        Line::try_parse_from(line.split(' ')).unwrap().args
    }

    #[test]
    fn a_target_and_its_format_must_fit() {
        for (line, fits) in [
            ("subscribe feed --to postgres://db/x --format postgres", true),
            ("subscribe feed --to /data --format jsonl", true),
            ("subscribe feed --to /data --format parquet --kinds case,grid", true),
            ("subscribe feed --to /data --format postgres", false),
            ("subscribe feed --to postgres://db/x --format parquet", false),
            ("subscribe feed --to postgres://db/x --format postgres --schema pg_x", false),
        ] {
            assert_eq!(target(&parse(line)).is_ok(), fits, "{line}");
        }
        let args = parse("subscribe feed --to /data --format parquet --kinds case,grid");
        assert_eq!(kinds(&args.covers.kinds).unwrap().len(), 2);
        let unknown = kinds(&["cat".into()]).unwrap_err().to_string();
        assert!(unknown.contains("grid, case, camera"), "{unknown}");
    }
}
