//! One record that a disk lost among very many, at either end of a real link: how long the node takes to notice, and then
//! until the record is back and both ends are proven equal.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use guantong::demo::tree::{NodeSpec, Tree};
use guantong_gateway::division::Division;
use guantong_gateway::schema::{KindId, Schema};
use guantong_proto::v1;
use guantong_proto::v1::import_records_request::Content;
use serde_json::json;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection, Row};

use super::aggregates::Ledger;
use super::chain;

/// Rows in one message of an import.
const ROWS_AT_ONCE: usize = 500;
/// Between two looks.
const LOOK_INTERVAL: Duration = Duration::from_millis(5);
/// For what never comes true.
const PATIENCE: Duration = Duration::from_secs(1_800);
/// What a node says of records that are not what it kept of them.
const NOTICED: &str = "are not what was kept of them";

/// Two real nodes with all records on both ends of their link.
struct Ends {
    tree: Tree,
    above: Division,
    below: Division,
    _folder: tempfile::TempDir,
}

/// Imports `records` at a prefecture below its province, in the townships of the prefecture or all in one home, loses one at
/// each end in turn, and measures.
///
/// # Errors
/// The nodes do not start, or something does not come back in half an hour.
pub async fn run(program: &Path, records: u64, one_home: bool) -> Result<serde_json::Value> {
    let (above, below) = if one_home { ("22", "2208") } else { ("36", "3607") };
    let mut ends = Ends::start(program, above, below).await?;
    ends.import(records, one_home).await?;
    let mut equal_ms = Vec::new();
    for _ in 0..20 {
        let begun = Instant::now();
        ensure!(ends.is_equal(ends.below).await?, "the ends do not become equal");
        equal_ms.push(begun.elapsed().as_secs_f64() * 1e3);
    }
    let lost_below = ends.lose(ends.below).await?;
    let lost_above = ends.lose(ends.above).await?;
    Ok(json!({
        "records": records,
        "one_home": one_home,
        "verify_of_equal_ends_median_ms": super::quantile(&mut equal_ms, 0.5),
        "lost_at_the_child": lost_below,
        "lost_at_the_parent": lost_above,
        "synchronous": "FULL",
    }))
}

impl Ends {
    async fn start(program: &Path, above: &str, below: &str) -> Result<Ends> {
        let program = program.canonicalize().context("build the program first: cargo build --release")?;
        let folder = tempfile::Builder::new().prefix("gt").tempdir()?;
        let mut tree = Tree::new(folder.path(), &program)?;
        let (above, below) = (Division::parse(above)?, Division::parse(below)?);
        tree.add(NodeSpec::top(above)).await?;
        tree.add(NodeSpec::below(above, below)).await?;
        tree.start_all().await?;
        Ok(Ends { tree, above, below, _folder: folder })
    }

    /// All records, at both ends.
    async fn import(&self, records: u64, one_home: bool) -> Result<()> {
        let client = self.tree.client(self.below)?;
        let kinds: &[&str] = if one_home { &["camera"] } else { &["case", "camera"] };
        for kind in kinds {
            let rows: Box<dyn Iterator<Item = v1::ImportRow> + Send> = if one_home {
                Box::new((0..records).map(|number| chain::row(number, 0)))
            } else {
                Box::new(Ledger::within(self.below, records, 10).rows(self.below, *kind == "case"))
            };
            let answer = client.records().import_records(messages(kind, rows)).await?.into_inner();
            ensure!(answer.problems.is_empty(), "the ledger was refused: {:?}", answer.problems.first());
        }
        for node in [self.below, self.above] {
            self.wait(async || {
                let status = self.status(node).await?;
                let idle = |l: &v1::LinkStatus| {
                    l.connected && l.urgent_backlog + l.normal_backlog + l.bulk_backlog == 0
                };
                Ok(status.links.iter().all(idle) && !status.links.is_empty())
            })
            .await?;
        }
        self.wait(async || self.is_equal(self.below).await).await
    }

    /// Deletes one record's row from a stopped node's file, starts it, and waits until all is as it was; seconds.
    async fn lose(&mut self, node: Division) -> Result<serde_json::Value> {
        self.tree.stop(node).await?;
        let lost = delete_one(&self.tree.node_dir(node).join("guantong.db")).await?;
        let begun = Instant::now();
        self.tree.start(node).await?;
        let started_s = begun.elapsed().as_secs_f64();
        self.wait(async || Ok(self.status(node).await?.warnings.iter().any(|w| w.contains(NOTICED)))).await?;
        let noticed_s = begun.elapsed().as_secs_f64();
        let client = self.tree.client(node)?;
        self.wait(async || {
            let request = v1::GetRecordRequest { name: lost.clone() };
            Ok(client.records().get_record(request).await.is_ok())
        })
        .await?;
        let back_s = begun.elapsed().as_secs_f64() - noticed_s;
        for end in [self.below, self.above] {
            self.wait(async || self.is_equal(end).await).await?;
        }
        let proven_s = begun.elapsed().as_secs_f64() - noticed_s;
        Ok(json!({
            "started_s": rounded(started_s),
            "noticed_after_start_s": rounded(noticed_s),
            "noticed_to_back_s": rounded(back_s),
            "noticed_to_proven_equal_s": rounded(proven_s),
        }))
    }

    async fn status(&self, node: Division) -> Result<v1::Status> {
        let request = v1::GetStatusRequest {};
        Ok(self.tree.client(node)?.node().get_status(request).await?.into_inner())
    }

    /// Whether both ends compare now and find each other equal, as one of them says.
    async fn is_equal(&self, node: Division) -> Result<bool> {
        let request = v1::VerifyLinksRequest::default();
        let mut answers = self.tree.client(node)?.assurance().verify_links(request).await?.into_inner();
        let mut links = Vec::new();
        while let Some(answer) = answers.message().await? {
            links.extend(answer.nodes.into_iter().flat_map(|node| node.links));
        }
        Ok(!links.is_empty() && links.iter().all(|link| link.state() == v1::EqualityState::Equal))
    }

    async fn wait(&self, mut done: impl AsyncFnMut() -> Result<bool>) -> Result<()> {
        let waiting = async {
            while !done().await? {
                tokio::time::sleep(LOOK_INTERVAL).await;
            }
            anyhow::Ok(())
        };
        tokio::time::timeout(PATIENCE, waiting).await.context("it never came true")?
    }
}

/// Deletes the row in the middle of all; gives the record's name.
async fn delete_one(store: &PathBuf) -> Result<String> {
    let mut conn = SqliteConnectOptions::new().filename(store).connect().await?;
    let middle = "SELECT key, kind, home, id FROM record ORDER BY key LIMIT 1
        OFFSET (SELECT count(*) / 2 FROM record)";
    let row = sqlx::query(middle).fetch_one(&mut conn).await?;
    let (key, kind, home, id): (i64, i64, i64, String) = (row.get(0), row.get(1), row.get(2), row.get(3));
    let deleted = sqlx::query("DELETE FROM record WHERE key = ?").bind(key).execute(&mut conn).await?;
    ensure!(deleted.rows_affected() == 1, "nothing was deleted");
    conn.close().await?;
    let collection = Schema::current().kind(KindId(u32::try_from(kind)?)).rule.collection;
    Ok(format!("divisions/{home:012}/{collection}/{id}"))
}

/// The ledger as messages: a header, then rows.
fn messages(
    kind: &str,
    mut rows: impl Iterator<Item = v1::ImportRow> + Send + 'static,
) -> impl tokio_stream::Stream<Item = v1::ImportRecordsRequest> + Send + 'static {
    let header = v1::ImportHeader { kind: kind.into(), source: "bench".into(), full: false };
    let pieces = std::iter::from_fn(move || {
        let rows: Vec<_> = rows.by_ref().take(ROWS_AT_ONCE).collect();
        (!rows.is_empty()).then_some(Content::Rows(v1::ImportRows { rows }))
    });
    let contents = std::iter::once(Content::Header(header)).chain(pieces);
    tokio_stream::iter(contents.map(|content| v1::ImportRecordsRequest { content: Some(content) }))
}

fn rounded(seconds: f64) -> f64 {
    (seconds * 100.0).round() / 100.0
}
