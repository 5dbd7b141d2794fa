//! Checks a log: the chain from its first entry, and at every checkpoint the hash that was signed. It asks nobody and
//! reads no file.

use std::collections::BTreeMap;

use anyhow::Context as _;
use guantong_gateway::audit::{Chain, Hash, Row, Signed};
use guantong_gateway::division::Division;
use guantong_gateway::service::checkpoints::read;
use guantong_proto::v1;
use serde_json::json;

use crate::cli::report::Report;
use crate::identity::seal::check_signature;

/// Problems that are told of, at most.
const TOLD_MAX: usize = 20;

/// Who keeps a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Keeper {
    /// The node itself.
    Own,
    /// Its parent.
    Parent,
}

impl Keeper {
    /// As it stands in an export.
    pub(super) fn word(self) -> &'static str {
        match self {
            Keeper::Own => "own",
            Keeper::Parent => "parent",
        }
    }
}

/// Something that does not fit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Problem {
    pub(super) slot: i64,
    /// The first entry that it concerns.
    pub(super) entry: u64,
    pub(super) text: String,
}

/// What was found so far.
#[derive(Default)]
pub(super) struct Judge {
    /// By gateway and entry.
    checkpoints: BTreeMap<(i64, u64), Vec<(Keeper, Signed)>>,
    /// When the last of a gateway's was signed, and the store that it is of.
    newest: BTreeMap<i64, (u64, u64)>,
    chains: BTreeMap<i64, Found>,
    problems: Vec<Problem>,
    parent_not_asked: bool,
}

struct Found {
    division: Division,
    chain: Chain,
    said: u64,
    broken: bool,
}

/// An entry as a node sends it.
pub(super) fn row(entry: &v1::AuditEntry) -> anyhow::Result<Row> {
    let time = entry.time.unwrap_or_default();
    let millis = u64::from(time.nanos.unsigned_abs()) / 1_000_000;
    // A time that no line can say is one that does not fit.
    let time_ms = time.seconds.unsigned_abs().saturating_mul(1_000).saturating_add(millis);
    Ok(Row {
        number: u64::try_from(entry.number).context("an entry without a number")?,
        time_ms,
        event: entry.event.clone(),
        line: entry.line.clone(),
        hash: Hash::of_bytes(&entry.hash).context("an entry without a hash")?,
    })
}

impl Judge {
    /// Takes checkpoints, before the chains that they are of.
    ///
    /// # Errors
    /// One cannot be read at all.
    pub(super) fn take(&mut self, keeper: Keeper, sent: Vec<v1::AuditCheckpoint>) -> anyhow::Result<()> {
        for sent in &sent {
            let signed = read(sent).context("a checkpoint cannot be read (检查点无法读取)")?;
            let at = signed.checkpoint;
            let checked = check_signature(at.division, at.statement().as_bytes(), &signed);
            if let Err(why) = checked {
                let whose = keeper.word();
                let text = format!(
                    "the checkpoint ({whose}) at entry {} counts for nothing: {why} (检查点签名无效)",
                    at.head.number
                );
                self.problem(at.slot, at.head.number, text);
            }
            let newest = self.newest.entry(at.slot).or_default();
            if at.time_ms >= newest.0 {
                *newest = (at.time_ms, at.epoch);
            }
            self.checkpoints.entry((at.slot, at.head.number)).or_default().push((keeper, signed));
        }
        Ok(())
    }

    /// The node has a parent, which could not be asked.
    pub(super) fn parent_not_asked(&mut self) {
        self.parent_not_asked = true;
    }

    /// A chain of so many entries begins.
    ///
    /// # Errors
    /// Whose it is cannot be read.
    pub(super) fn begin(&mut self, division: &str, slot: i64, said: u64) -> anyhow::Result<()> {
        let division = Division::parse(division).context("whose chain it is cannot be read")?;
        let chain = Chain::new(division, slot);
        self.chains.insert(slot, Found { division, chain, said, broken: false });
        Ok(())
    }

    /// The next entry of a chain. After the first that does not fit, nothing more is said of the chain.
    pub(super) fn entry(&mut self, slot: i64, row: &Row) {
        let Some(found) = self.chains.get_mut(&slot).filter(|found| !found.broken) else { return };
        let next = found.chain.head().number + 1;
        if let Err(broken) = found.chain.check(row) {
            found.broken = true;
            self.problem(slot, next, broken.to_string());
            return;
        }
        let head = found.chain.head();
        let of_this = self.checkpoints.get(&(slot, head.number)).into_iter().flatten();
        let wrong = of_this.filter(|(_, c)| c.checkpoint.head.hash != head.hash);
        let wrong = wrong.filter(|(_, c)| self.is_current(c));
        let wrong: Vec<Keeper> = wrong.map(|(keeper, _)| *keeper).collect();
        for keeper in wrong {
            self.problem(slot, head.number, contradiction(keeper, head.number));
        }
    }

    /// Whether a checkpoint is of the store's present life. What was signed before the store was put back may speak of
    /// entries that the backup did not have; the parent has raised an alarm then.
    fn is_current(&self, signed: &Signed) -> bool {
        let at = &signed.checkpoint;
        self.newest.get(&at.slot).is_none_or(|(_, epoch)| *epoch == at.epoch)
    }

    fn kept(&self) -> impl Iterator<Item = &(Keeper, Signed)> {
        self.checkpoints.values().flatten()
    }

    fn problem(&mut self, slot: i64, entry: u64, text: String) {
        self.problems.push(Problem { slot, entry, text });
    }

    /// What remains to be found at the end: chains that are too short.
    fn close(&mut self) {
        let mut problems = Vec::new();
        for (slot, found) in self.chains.iter().filter(|(_, found)| !found.broken) {
            let last = found.chain.head().number;
            if last < found.said {
                let text =
                    format!("the log ends with entry {last}, but there were {} (日志不完整)", found.said);
                problems.push(Problem { slot: *slot, entry: last + 1, text });
            }
        }
        for (keeper, signed) in self.kept().filter(|(_, c)| self.is_current(c)) {
            let at = signed.checkpoint;
            let last = self.chains.get(&at.slot).map_or(0, |found| found.chain.head().number);
            let broken = self.chains.get(&at.slot).is_some_and(|found| found.broken);
            if !broken && at.head.number > last {
                let text = format!(
                    "entries {} to {} are gone: a checkpoint ({}) was signed after them (末尾记录缺失)",
                    last + 1,
                    at.head.number,
                    keeper.word()
                );
                problems.push(Problem { slot: at.slot, entry: last + 1, text });
            }
        }
        self.problems.append(&mut problems);
        self.problems.sort_by_key(|problem| (problem.slot, problem.entry));
    }

    /// What was found, for people and programs.
    pub(super) fn report(mut self) -> Report {
        self.close();
        let entries: u64 = self.chains.values().map(|found| found.chain.head().number).sum();
        let count = |keeper| self.kept().filter(|(of, _)| *of == keeper).count();
        let (own, parent) = (count(Keeper::Own), count(Keeper::Parent));
        let mut text = String::new();
        for problem in self.problems.iter().take(TOLD_MAX) {
            text.push_str(&format!("gateway {}: {}\n", problem.slot, problem.text));
        }
        if self.problems.len() > TOLD_MAX {
            text.push_str(&format!("and {} more (另有若干处)\n", self.problems.len() - TOLD_MAX));
        }
        if self.parent_not_asked {
            text.push_str(
                "the parent was not asked: there is no link now; what it keeps was not compared (未能与上级留存核对)\n",
            );
        }
        let earlier = self.kept().filter(|(_, c)| !self.is_current(c)).count();
        if earlier > 0 {
            text.push_str(&format!(
                "{earlier} checkpoints are of before the store was put back, and were not compared (恢复前的检查点未核对)\n"
            ));
        }
        text.push_str(&format!(
            "{entries} entries fit; {own} own checkpoints and {parent} kept by the parent (已核对 {entries} 条)\n"
        ));
        if self.problems.is_empty() {
            text.push_str("the audit log is as it was written (审计日志完整)\n");
        }
        let first = self.problems.first().map(|p| json!({ "slot": p.slot, "entry": p.entry }));
        let told = self.problems.iter().take(TOLD_MAX);
        let told: Vec<_> =
            told.map(|p| json!({ "slot": p.slot, "entry": p.entry, "problem": p.text })).collect();
        let chains: Vec<_> = self
            .chains
            .iter()
            .map(|(slot, found)| {
                let head = found.chain.head();
                json!({ "division": found.division.to_string(), "slot": slot, "entries": head.number, "hash": head.hash.to_string() })
            })
            .collect();
        let json = json!({
            "intact": self.problems.is_empty(),
            "chains": chains,
            "own_checkpoints": own,
            "parent_checkpoints": parent,
            "earlier_checkpoints": earlier,
            "parent_asked": !self.parent_not_asked,
            "first_problem": first,
            "problems": told,
        });
        Report::done(text, json).needs_attention(!self.problems.is_empty() || self.parent_not_asked)
    }
}

fn contradiction(keeper: Keeper, number: u64) -> String {
    match keeper {
        Keeper::Own => format!(
            "entry {number} is not the one that this node signed: the log up to there was written anew (与本节点签名的检查点不符)"
        ),
        Keeper::Parent => format!(
            "entry {number} is not the one whose signature the parent keeps: the log up to there was written anew \
             (与上级留存的检查点不符)"
        ),
    }
}
