//! Those who write while nodes fall: each township's own system, and corrections by the tiers above. They say what they
//! saw with each write, and note what was acknowledged. They must never judge.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use guantong::client::Client;
use guantong_proto::v1;
use guantong_tests::harness::division;
use prost::Message;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::book::{self, Book, Outcome};

/// The field that is watched.
pub const FIELD: &str = "due_on";
/// For a call; a node that is held still does not answer.
const CALL_TIME: Duration = Duration::from_secs(2);
/// Narratives have 4 KiB, so that stores that may not grow are full soon.
const NARRATIVE_REPEATS: usize = 340;
/// Between two writes of one writer, so that all of them together do not take the machine from the nodes.
const PAUSE: Duration = Duration::from_millis(25);

/// What every writer needs.
#[derive(Clone)]
pub struct Desk {
    pub book: Arc<Book>,
    /// What nodes answered instead of an acknowledgement, by status.
    pub refusals: Arc<Mutex<BTreeMap<String, usize>>>,
    /// Set: the round is over.
    pub over: Arc<AtomicBool>,
}

/// The records of a division and of all inside it begin like this.
pub fn prefix(code: &str) -> String {
    format!("divisions/{code}")
}

/// Writes new cases of a township, and new values of its older ones.
pub async fn township(client: Client, code: &'static str, round: usize, seed: u64, desk: Desk) {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut serial = 0;
    while !desk.over.load(Ordering::Relaxed) {
        desk.book.count_try();
        let known = desk.book.any_open(&prefix(code), &mut random).filter(|_| random.random_range(0..3) > 0);
        match known {
            Some(name) => change(&client, &name, &desk).await,
            None => {
                serial += 1;
                let name = format!("divisions/{}/cases/{round}-{serial}", division(code));
                let case = v1::Case {
                    case_kind: Some(v1::CaseKind::Dispute.into()),
                    received_on: Some(v1::Date { year: 2026, month: 1, day: 1 + serial % 28 }),
                    narrative: Some("邻里纠纷".repeat(NARRATIVE_REPEATS)),
                    ..v1::Case::default()
                };
                write(&client, &name, case, Seen::default(), &desk).await;
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Corrects records of those below.
pub async fn above(client: Client, code: &'static str, seed: u64, desk: Desk) {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    while !desk.over.load(Ordering::Relaxed) {
        desk.book.count_try();
        if let Some(name) = desk.book.any_open(&prefix(code), &mut random) {
            change(&client, &name, &desk).await;
        }
        tokio::time::sleep(PAUSE * 6).await;
    }
}

/// What a writer saw of the field.
#[derive(Default)]
struct Seen {
    values: Vec<u32>,
    read_token: bytes::Bytes,
}

async fn change(client: &Client, name: &str, desk: &Desk) {
    let seen = tokio::time::timeout(CALL_TIME, read(client, name)).await;
    if let Ok(Some(seen)) = seen {
        write(client, name, v1::Case::default(), seen, desk).await;
    }
}

/// The values of the field that a write with this token will replace.
async fn read(client: &Client, name: &str) -> Option<Seen> {
    let request = v1::GetRecordRequest { name: name.to_owned() };
    let record = client.records().get_record(request).await.ok()?.into_inner();
    let case = v1::Case::decode(record.fields).unwrap();
    let mut values: Vec<u32> = case.due_on.iter().map(book::value).collect();
    if !record.conflicting_fields.is_empty() {
        let request = v1::GetConflictRequest { name: format!("{name}/conflicts/{FIELD}") };
        let conflict = client.conflicts().get_conflict(request).await.ok()?.into_inner();
        values = values_of(&conflict);
    }
    Some(Seen { values, read_token: record.read_token })
}

/// The values that stand side by side.
pub fn values_of(conflict: &v1::Conflict) -> Vec<u32> {
    let days = conflict.values.iter().map(|value| v1::Case::decode(value.fields.clone()).unwrap().due_on);
    days.flatten().map(|day| book::value(&day)).collect()
}

async fn write(client: &Client, name: &str, case: v1::Case, seen: Seen, desk: &Desk) {
    let value = desk.book.begin(name, seen.values);
    let case = v1::Case { due_on: Some(book::day(value)), ..case };
    let record = v1::Record {
        name: name.to_owned(),
        fields: case.encode_to_vec().into(),
        read_token: seen.read_token,
        ..v1::Record::default()
    };
    let request = v1::WriteRecordRequest { record: Some(record), ..v1::WriteRecordRequest::default() };
    let outcome = match tokio::time::timeout(CALL_TIME, client.records().write_record(request)).await {
        Ok(Ok(_)) => Outcome::Acknowledged,
        Ok(Err(status)) => {
            *desk.refusals.lock().unwrap().entry(format!("{:?}", status.code())).or_default() += 1;
            Outcome::Failed
        }
        Err(_) => {
            *desk.refusals.lock().unwrap().entry("no answer".to_owned()).or_default() += 1;
            Outcome::Unknown
        }
    };
    desk.book.end(name, value, outcome);
}
