//! Likely duplicates: one bounded pass over the records of a division at a time; what it found is kept for the pages
//! that follow.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use guantong_proto::v1;
use tonic::Status;

use super::sight::Sight;
use super::{page, status};
use crate::division::Division;
use crate::duplicates::{Found, Likeness, Sketches};
use crate::engine::Shared;
use crate::record::codec;
use crate::record::reader::Reader;
use crate::schema::Kind;

/// Records looked at together.
const RECORDS_AT_ONCE: usize = 1_000;
/// Searches that are kept for their further pages.
const KEPT_MAX: usize = 4;
/// How long.
const KEPT_MS: u64 = 600_000;
/// When to ask again while another search is under way.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// What a search found.
#[derive(Clone)]
struct Search {
    id: String,
    query: String,
    at_ms: u64,
    found: Arc<Vec<Found>>,
    truncated: bool,
}

/// Searches, one at a time.
#[derive(Default)]
pub(super) struct Duplicates {
    kept: Mutex<Vec<Search>>,
    searching: tokio::sync::Mutex<()>,
}

impl Duplicates {
    /// A page of the records of a kind that are likely the same twice.
    pub(super) async fn list(
        &self,
        shared: &Shared,
        sight: &Sight,
        request: &v1::ListDuplicatesRequest,
    ) -> Result<v1::ListDuplicatesResponse, Status> {
        let kind = page::kind(&shared.schema, "kind", &request.kind)?;
        if !matches!(kind.rule.name, "camera" | "case") {
            return Err(status::invalid(
                "kind",
                "kind: likely duplicates are looked for among camera and case",
            ));
        }
        sight.check_kind(kind)?;
        let scope = sight.part_of("parent", page::parent("parent", &request.parent)?)?;
        let size = page::size(request.page_size)?;
        let query = format!("duplicates {} {scope} {}", kind.rule.name, sight.purpose());
        let (search, first) = match page::after(&query, &request.page_token)? {
            Some(token) => self.continued(shared, &query, &token)?,
            None => (self.search(shared, sight, kind, scope, &query).await?, 0),
        };
        let part: Vec<&Found> = search.found.iter().skip(first).take(size).collect();
        let next = first + part.len();
        let next_page_token = match next < search.found.len() {
            true => page::token(&query, &format!("{}.{next}", search.id)),
            false => String::new(),
        };
        let duplicates = shown(shared, sight, kind, &part).await?;
        Ok(v1::ListDuplicatesResponse { duplicates, next_page_token, truncated: search.truncated })
    }

    fn continued(&self, shared: &Shared, query: &str, token: &str) -> Result<(Search, usize), Status> {
        let now_ms = (shared.environment.now_ms)();
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let found = token.split_once('.').and_then(|(id, first)| {
            let fresh = |s: &&Search| s.id == id && s.query == query && s.at_ms + KEPT_MS > now_ms;
            Some((kept.iter().find(fresh)?.clone(), first.parse().ok()?))
        });
        found.ok_or_else(|| {
            let text = "page_token: what that search found is no longer kept; start again without a token";
            status::invalid("page_token", text)
        })
    }

    async fn search(
        &self,
        shared: &Shared,
        sight: &Sight,
        kind: &Kind,
        scope: Division,
        query: &str,
    ) -> Result<Search, Status> {
        let Ok(_alone) = self.searching.try_lock() else {
            return Err(status::busy("another search for duplicates is under way; ask again", RETRY_AFTER));
        };
        let personal = sight.shows_personal();
        let mut sketches = Sketches::default();
        let mut after = None;
        loop {
            let last = after.as_ref().map(|name: &crate::record::RecordName| (name.home, &*name.id));
            let listed = shared.store.list(kind.id, Some(scope), last, RECORDS_AT_ONCE).await;
            let listed = listed.map_err(|e| status::of_store(&e))?;
            after = listed.last().map(|stored| stored.name.clone());
            let whole = listed.len() == RECORDS_AT_ONCE;
            for stored in listed {
                let record = codec::decode(stored.state).map_err(|e| status::broken(&e.to_string()))?;
                let reader = Reader { kind, home: stored.name.home, record: &record };
                match kind.rule.name {
                    "camera" => sketches.camera(stored.key, &reader),
                    _ => sketches.case(stored.key, &reader, personal),
                }
            }
            if !whole {
                break;
            }
            tokio::task::yield_now().await;
        }
        let sorted = tokio::task::spawn_blocking(move || sketches.find()).await;
        let (found, truncated) = sorted.map_err(|e| status::broken(&e.to_string()))?;
        let search = Search {
            id: format!("{:016x}", (shared.environment.random)()),
            query: query.to_owned(),
            at_ms: (shared.environment.now_ms)(),
            found: Arc::new(found),
            truncated,
        };
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.retain(|s| s.at_ms + KEPT_MS > search.at_ms);
        if kept.len() >= KEPT_MAX {
            kept.remove(0);
        }
        kept.push(search.clone());
        Ok(search)
    }
}

/// What was found with the names of the records, as far as the caller sees them.
async fn shown(
    shared: &Shared,
    sight: &Sight,
    kind: &Kind,
    part: &[&Found],
) -> Result<Vec<v1::Duplicate>, Status> {
    let keys: Vec<i64> = part.iter().flat_map(|found| found.keys.iter().copied()).collect();
    let listed = shared.store.listed(&keys).await.map_err(|e| status::of_store(&e))?;
    let mut names = std::collections::HashMap::with_capacity(listed.len());
    for record in listed {
        let state = codec::decode(record.state).map_err(|e| status::broken(&e.to_string()))?;
        if sight.sees(kind, &record.name, &state) {
            names.insert(record.key, record.name.display(&shared.schema).to_string());
        }
    }
    let duplicate = |found: &&Found| {
        let records: Vec<String> = found.keys.iter().filter_map(|key| names.get(key).cloned()).collect();
        let reason = match found.likeness {
            Likeness::DeviceId => v1::DuplicateReason::DeviceId,
            Likeness::Nearby => v1::DuplicateReason::Nearby,
            Likeness::ExternalNumber => v1::DuplicateReason::ExternalNumber,
            Likeness::Title => v1::DuplicateReason::Title,
            Likeness::Party => v1::DuplicateReason::Party,
        };
        let distance_m = found.distance_m;
        (records.len() > 1).then(|| v1::Duplicate { records, reason: reason.into(), distance_m })
    };
    Ok(part.iter().filter_map(duplicate).collect())
}
