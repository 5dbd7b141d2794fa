//! Questions to nodes, asked through the same API that any local system uses.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, bail};
use guantong_gateway::division::Division;
use guantong_proto::v1;
use tonic::{Code, Status};

use crate::client::Client;

/// Between two looks whether a condition holds.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);
const PAGE: i32 = 1_000;

/// Sums over the records of a division, by measure and class.
pub(super) type Sums = BTreeMap<(String, String), i64>;

/// An answer's words, without the gRPC around them.
pub(super) fn plain(status: Status) -> anyhow::Error {
    anyhow!("{} ({:?})", status.message(), status.code())
}

/// Waits until the probe finds something.
///
/// # Errors
/// The probe's own, or that it took too long for `what`.
pub(super) async fn until<T>(
    what: &str,
    limit: Duration,
    mut probe: impl AsyncFnMut() -> Result<Option<T>>,
) -> Result<T> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(found) = probe().await? {
            return Ok(found);
        }
        if Instant::now() > deadline {
            bail!("not within {} s: {what}", limit.as_secs());
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}

pub(super) async fn status(client: &Client) -> Result<v1::Status> {
    Ok(client.node().get_status(v1::GetStatusRequest {}).await.map_err(plain)?.into_inner())
}

/// The link to the parent, as the child sees it.
pub(super) async fn uplink(client: &Client) -> Result<v1::LinkStatus> {
    Ok(status(client).await?.links.into_iter().find(|link| link.peer_is_parent).unwrap_or_default())
}

pub(super) async fn sums(client: &Client, division: Division) -> Result<Sums> {
    let request = v1::ListTalliesRequest { parent: format!("divisions/{division}") };
    let answer = client.node().list_tallies(request).await.map_err(plain)?.into_inner();
    let mut sums = Sums::new();
    for tally in answer.tallies {
        if let Some(name) = published(&tally.measure, &tally.class) {
            *sums.entry(name).or_default() += tally.value;
        }
    }
    Ok(sums)
}

/// The name that published figures have for a kept count.
fn published(measure: &str, class: &str) -> Option<(String, String)> {
    let class = class.split_once('=').map_or(class, |(_, class)| class);
    let (measure, class) = match (measure, class) {
        ("grids", class) => ("grids", class),
        ("staff", "chief") => ("staff", "chief"),
        ("staff", "full_time_member" | "part_time_member") => ("staff", "member"),
        ("cameras", "public" | "social" | "face" | "vehicle") => ("cameras", class),
        ("cameras_connected", "all") => ("cameras", "connected"),
        ("cases_received", "dispute" | "incident") => ("cases", class),
        ("cases_succeeded", "dispute") => ("cases", "dispute_succeeded"),
        _ => return None,
    };
    Some((measure.to_owned(), class.to_owned()))
}

/// One of the sums; what nobody counted is none.
pub(super) fn sum(sums: &Sums, measure: &str, class: &str) -> i64 {
    sums.get(&(measure.to_owned(), class.to_owned())).copied().unwrap_or(0)
}

/// A record, if the node has it.
pub(super) async fn record(client: &Client, name: &str) -> Result<Option<v1::Record>> {
    match client.records().get_record(v1::GetRecordRequest { name: name.to_owned() }).await {
        Ok(answer) => Ok(Some(answer.into_inner())),
        Err(status) if status.code() == Code::NotFound => Ok(None),
        Err(status) => Err(plain(status)),
    }
}

/// The first record of a kind inside a division, by name.
pub(super) async fn first_record(
    client: &Client,
    kind: &str,
    division: Division,
) -> Result<Option<v1::Record>> {
    Ok(page(client, kind, division, 1, String::new()).await?.records.into_iter().next())
}

/// How many records of a kind a node has inside a division.
pub(super) async fn count_records(client: &Client, kind: &str, division: Division) -> Result<usize> {
    let (mut count, mut token) = (0, String::new());
    loop {
        let answer = page(client, kind, division, PAGE, token).await?;
        count += answer.records.len();
        if answer.next_page_token.is_empty() {
            return Ok(count);
        }
        token = answer.next_page_token;
    }
}

async fn page(
    client: &Client,
    kind: &str,
    division: Division,
    page_size: i32,
    page_token: String,
) -> Result<v1::ListRecordsResponse> {
    let parent = format!("divisions/{division}");
    let request =
        v1::ListRecordsRequest { parent, kind: kind.to_owned(), page_size, page_token, show_deleted: false };
    Ok(client.records().list_records(request).await.map_err(plain)?.into_inner())
}

/// Writes fields of a record, over what is shown.
pub(super) async fn write(client: &Client, name: &str, fields: &impl prost::Message) -> Result<v1::Record> {
    let record =
        v1::Record { name: name.to_owned(), fields: fields.encode_to_vec().into(), ..v1::Record::default() };
    let request = v1::WriteRecordRequest { record: Some(record), ..v1::WriteRecordRequest::default() };
    Ok(client.records().write_record(request).await.map_err(plain)?.into_inner())
}

/// Open conflicts of the records of a division.
pub(super) async fn conflicts(client: &Client, division: Division) -> Result<Vec<v1::Conflict>> {
    let request = v1::ListConflictsRequest {
        parent: format!("divisions/{division}"),
        page_size: PAGE,
        ..v1::ListConflictsRequest::default()
    };
    Ok(client.conflicts().list_conflicts(request).await.map_err(plain)?.into_inner().conflicts)
}

/// Everything that a node shares with a peer: names and fingerprints.
pub(super) async fn shared(client: &Client, peer: Division) -> Result<BTreeMap<String, u64>> {
    let request = v1::ListSharedRecordsRequest { peer: format!("divisions/{peer}") };
    let mut stream = client.node().list_shared_records(request).await.map_err(plain)?.into_inner();
    let mut found = BTreeMap::new();
    while let Some(page) = stream.message().await.map_err(plain)? {
        found.extend(page.records.into_iter().map(|record| (record.name, record.fingerprint)));
    }
    Ok(found)
}
