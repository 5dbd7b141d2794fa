//! Both ends of every link compared, record by record: names, and fingerprints over who wrote what, when, over whom.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::Result;
use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use guantong_gateway::division::Division;
use serde_json::{Value, json};

use super::ask;
use super::show::rounded;
use super::stage::Stage;
use crate::cli::report::table;

/// Links compared side by side; each reads two stores.
const LINKS_AT_ONCE: usize = 2;
/// A node that has just written something about itself may be a moment ahead of its parent.
const SETTLE_TIME: Duration = Duration::from_secs(15);
const LOOK_INTERVAL: Duration = Duration::from_millis(300);
/// Records that differ and are named.
const NAMED_MAX: usize = 3;
const MIB: f64 = 1024.0 * 1024.0;

/// One link after the comparison.
struct Compared {
    child: Division,
    parent: Division,
    records: usize,
    /// Names of records that are not the same, or only at one end.
    differing: Vec<String>,
    /// Refused fields and rows that wait at the child.
    set_aside: u64,
}

impl Compared {
    fn is_equal(&self) -> bool {
        self.differing.is_empty() && self.set_aside == 0
    }
}

/// Compares all links and prints the table. Returns how many are off.
pub(super) async fn play(stage: &mut Stage) -> Result<usize> {
    stage.show.step("逐条比对每条链路的两端", "both ends of every link are compared record by record");
    stage.linked().await?;
    stage.quiet().await?;
    let pairs: Vec<(Division, Division)> = stage
        .tree
        .divisions()
        .into_iter()
        .filter_map(|child| Some((child, stage.tree.parent(child)?)))
        .collect();
    let mut progress = stage.show.progress(pairs.len() as u64, "links compared 已比对链路");
    let mut compared = Vec::new();
    let mut comparing = stream::iter(pairs.iter().map(|(child, parent)| compare(stage, *child, *parent)))
        .buffered(LINKS_AT_ONCE);
    while let Some(link) = comparing.try_next().await? {
        compared.push(link);
        progress.at(compared.len() as u64);
    }
    drop((comparing, progress));
    print(stage, &compared);
    let off = compared.iter().filter(|link| !link.is_equal()).count();
    let listed: Vec<Value> = compared.iter().map(listed).collect();
    stage.report.insert("links".to_owned(), listed.into());
    Ok(off)
}

async fn compare(stage: &Stage, child: Division, parent: Division) -> Result<Compared> {
    let (lower, upper) = (stage.tree.client(child)?, stage.tree.client(parent)?);
    let deadline = Instant::now() + SETTLE_TIME;
    loop {
        let (below, above) = tokio::try_join!(ask::shared(&lower, parent), ask::shared(&upper, child))?;
        let status = ask::status(&lower).await?;
        let set_aside = status.quarantined_count + status.held_count;
        let differing = differing(&below, &above);
        let found = Compared { child, parent, records: above.len(), differing, set_aside };
        if found.is_equal() || Instant::now() > deadline {
            return Ok(found);
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}

fn differing(below: &BTreeMap<String, u64>, above: &BTreeMap<String, u64>) -> Vec<String> {
    let of_below =
        below.iter().filter(|(name, print)| above.get(*name) != Some(*print)).map(|(name, _)| name);
    let only_above = above.keys().filter(|name| !below.contains_key(*name));
    of_below.chain(only_above).cloned().collect()
}

fn print(stage: &Stage, compared: &[Compared]) {
    let rows: Vec<[String; 4]> = compared
        .iter()
        .map(|link| {
            let verdict = match link.is_equal() {
                true => "equal 一致".to_owned(),
                false => format!("OFF 不一致: {} differ, {} set aside", link.differing.len(), link.set_aside),
            };
            let end = |division: Division| format!("{division} {}", stage.name(division));
            [end(link.child), end(link.parent), link.records.to_string(), verdict]
        })
        .collect();
    stage.show.tell(&table(["node 节点", "parent 上级", "records 记录", ""], &rows));
    for name in compared.iter().flat_map(|link| link.differing.iter().take(NAMED_MAX)) {
        stage.show.tell(&format!("differs: {name}"));
    }
}

fn listed(link: &Compared) -> Value {
    json!({
        "child": link.child.to_string(),
        "parent": link.parent.to_string(),
        "records": link.records,
        "equal": link.is_equal(),
        "differing": link.differing.iter().take(NAMED_MAX).collect::<Vec<_>>(),
    })
}

/// Prints and reports the memory of all nodes together.
pub(super) fn memory(stage: &mut Stage) {
    let nodes = stage.tree.divisions();
    let sum =
        |of: &dyn Fn(Division) -> Option<u64>| nodes.iter().filter_map(|d| of(*d)).sum::<u64>() as f64 / MIB;
    let (own, resident) = (sum(&|d| stage.tree.pss_bytes(d)), sum(&|d| stage.tree.rss_bytes(d)));
    let peak = sum(&|d| stage.tree.peak_rss_bytes(d));
    let largest = nodes.iter().filter_map(|d| stage.tree.rss_bytes(*d)).max().unwrap_or(0) as f64 / MIB;
    let count = nodes.len();
    stage.show.tell(&format!(
        "{count} nodes together: {own:.0} MiB of memory, shared pages counted once ({resident:.0} MiB resident, \
         {largest:.0} MiB the largest, {peak:.0} MiB the sum of all peaks)"
    ));
    let memory = json!({ "nodes": count, "pss_mib": rounded(own), "rss_mib": rounded(resident), "largest_rss_mib": rounded(largest), "peak_rss_mib": rounded(peak) });
    stage.report.insert("memory".to_owned(), memory);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prints(pairs: &[(&str, u64)]) -> BTreeMap<String, u64> {
        pairs.iter().map(|(name, print)| ((*name).to_owned(), *print)).collect()
    }

    #[test]
    fn every_way_of_differing_is_found() {
        let below = prints(&[("a", 1), ("b", 2), ("c", 3)]);
        assert!(differing(&below, &below).is_empty());
        let above = prints(&[("a", 1), ("b", 9), ("d", 4)]);
        assert_eq!(differing(&below, &above), ["b", "c", "d"]);
    }
}
