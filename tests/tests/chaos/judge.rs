//! What the nodes show once everything is good again, held against what was acknowledged: at every tier, on every link, in
//! every count. It must only ask what any user may ask.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use guantong::client::Client;
use guantong_gateway::division::{Division, Tier};
use guantong_proto::v1;
use guantong_tests::harness::Fleet;
use prost::Message;

use crate::book::{self, Book};
use crate::writers::{FIELD, prefix, values_of};

/// After this, what is missing is lost, and what differs stays so.
const PATIENCE: Duration = Duration::from_secs(90);
/// Between two looks.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);
/// Records and conflicts a page.
const PAGE: i32 = 1_000;
/// Said of links that are down.
const NOT_LINKED: &str = "not linked";
/// Of what is wrong, so much is shown.
const SHOWN: usize = 10;

/// How long it took until all was well again, from the moment when everything had been made good.
#[derive(Clone, Copy, Debug, Default)]
pub struct Settling {
    /// Until every node was linked to its parent: how long nodes waited before they dialled again.
    pub linked: Duration,
    /// Until nothing was owed, every link equal and every write where it must be.
    pub done: Duration,
}

impl Settling {
    /// From the last link that came up until all was well.
    pub fn work(self) -> Duration {
        self.done.saturating_sub(self.linked)
    }

    /// The longest of each.
    pub fn or_longer(self, other: Settling) -> Settling {
        Settling { linked: self.linked.max(other.linked), done: self.done.max(other.done) }
    }
}

/// Waits until all is well again.
pub async fn settled(fleet: &Fleet, book: &Book) -> Settling {
    let began = Instant::now();
    let mut settling = Settling::default();
    loop {
        let idle = not_idle(fleet).await;
        settling.done = began.elapsed();
        if idle.iter().any(|found| found.contains(NOT_LINKED)) {
            settling.linked = settling.done;
        }
        let (unequal, wrong) = if idle.is_empty() {
            (unequal(fleet).await, wrong(fleet, book).await)
        } else {
            Default::default()
        };
        if idle.is_empty() && unequal.is_empty() && wrong.is_empty() {
            return settling;
        }
        if settling.done > PATIENCE {
            panic!(
                "after {PATIENCE:?}: {} nodes at work or cut off {idle:?}; {} links unequal {unequal:?}; {} records wrong: {:#?}",
                idle.len(),
                unequal.len(),
                wrong.len(),
                &wrong[..wrong.len().min(SHOWN)]
            );
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}

/// The nodes themselves say so, too: all links of the whole tree compare their checksums now, and are equal. Gives how
/// often they were asked.
pub async fn verified(fleet: &Fleet, top: &str) -> usize {
    let all = fleet.tree.divisions().len();
    let verified = async || {
        let said = fleet.cli(top, &["verify", "--tree", "--json"]).await;
        let json = said.json();
        (said.code == 0 && json["equal"] == true && json["nodes"].as_array().map(Vec::len) == Some(all), json)
    };
    let deadline = Instant::now() + PATIENCE;
    for asked in 1.. {
        match verified().await {
            (true, _) => return asked,
            (false, said) => assert!(Instant::now() < deadline, "not verified: {said:#}"),
        }
    }
    unreachable!()
}

/// Nodes that owe something, hold something in quarantine, or are not linked to their parent.
async fn not_idle(fleet: &Fleet) -> Vec<String> {
    let mut found = Vec::new();
    for node in fleet.tree.divisions() {
        let Ok(client) = fleet.tree.client(node) else { continue };
        let Ok(answer) = client.node().get_status(v1::GetStatusRequest {}).await else {
            found.push(format!("{node} does not answer; {NOT_LINKED}"));
            continue;
        };
        let status = answer.into_inner();
        if status.quarantined_count > 0 {
            found.push(format!("{node} has {} in quarantine", status.quarantined_count));
        }
        for link in status.links {
            let owed = link.urgent_backlog + link.normal_backlog + link.bulk_backlog;
            if !link.connected || owed > 0 {
                let (peer, error) = (link.peer_division, link.last_error);
                let linked = if link.connected { "linked" } else { NOT_LINKED };
                found.push(format!("{node} to {peer}: {linked}, owes {owed}, {error}"));
            }
        }
    }
    found
}

async fn unequal(fleet: &Fleet) -> Vec<Division> {
    let mut unequal = Vec::new();
    for child in fleet.tree.divisions() {
        if !fleet.is_equal(child).await {
            unequal.push(child);
        }
    }
    unequal
}

/// What is wrong with the records of all nodes.
async fn wrong(fleet: &Fleet, book: &Book) -> Vec<String> {
    let mut all = Vec::new();
    for node in fleet.tree.divisions() {
        let client = fleet.tree.client(node).unwrap();
        let shown = shown(&client, node).await;
        let wrong = book.wrong(&prefix(&code(node)), &shown);
        all.extend(wrong.into_iter().map(|wrong| format!("{node}: {wrong}")));
    }
    all
}

/// The digits that all divisions inside begin with.
fn code(node: Division) -> String {
    let digits = match node.tier() {
        Tier::Province => 2,
        Tier::Prefecture => 4,
        Tier::County => 6,
        _ => 9,
    };
    node.to_string()[..digits].to_owned()
}

/// The values of the field at each record of a node, shown or side by side.
async fn shown(client: &Client, node: Division) -> BTreeMap<String, BTreeSet<u32>> {
    let mut values: BTreeMap<String, BTreeSet<u32>> = BTreeMap::new();
    let (parent, mut page_token) = (format!("divisions/{node}"), String::new());
    loop {
        let request = v1::ListRecordsRequest {
            parent: parent.clone(),
            kind: "case".into(),
            page_size: PAGE,
            page_token,
            ..v1::ListRecordsRequest::default()
        };
        let page = client.records().list_records(request).await.unwrap().into_inner();
        for record in page.records {
            let case = v1::Case::decode(record.fields).unwrap();
            values.entry(record.name).or_default().extend(case.due_on.iter().map(book::value));
        }
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    loop {
        let request = v1::ListConflictsRequest {
            parent: parent.clone(),
            page_size: PAGE,
            page_token,
            ..v1::ListConflictsRequest::default()
        };
        let page = client.conflicts().list_conflicts(request).await.unwrap().into_inner();
        for conflict in page.conflicts.iter().filter(|conflict| conflict.field_name == FIELD) {
            values.entry(conflict.record.clone()).or_default().extend(values_of(conflict));
        }
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return values;
        }
    }
}

/// What every node has counted is what its records say, and so are the checksums of its links.
pub async fn recounted(fleet: &Fleet) {
    for node in fleet.tree.divisions() {
        let request = v1::RecountAggregatesRequest { repair: false };
        let client = fleet.tree.client(node).unwrap();
        let mut answers = client.aggregates().recount_aggregates(request).await.unwrap().into_inner();
        let mut last = v1::RecountAggregatesResponse::default();
        while let Some(answer) = answers.message().await.unwrap() {
            last = answer;
        }
        assert!(last.done, "{node}: the recount ended early");
        assert_eq!(last.difference_count, 0, "{node}: {:?}", last.differences);
        let checksums = (last.checksum_difference_count, &last.checksum_differences);
        assert_eq!(checksums.0, 0, "{node}: {checksums:?}");
    }
}
