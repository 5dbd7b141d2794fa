//! Erasing content of records, and saying how far that has come. Only operators erase. An answer names fields, counts,
//! nodes and copies; never content.

use std::cmp::Reverse;
use std::time::Duration;

use guantong_proto::v1;
use tonic::{Extensions, Status};

use super::asking::{Asking, Erased, Reach};
use super::writes::acting;
use super::{Links, caller, status, view};
use crate::division::Division;
use crate::engine::{Engine, EngineError, Shared, Write, WriteAction};
use crate::erasure::{self, Erasures};
use crate::ingest::erasure::Erase;
use crate::record::{FieldNumber, Record, RecordName, codec};
use crate::schema::Kind;
use crate::stamp::Stamp;
use crate::whereabouts::erased;

mod standing;

pub(super) use standing::Standing;

/// Longest reason, in characters.
const REASON_MAX: usize = 200;
/// How long the nodes have to say what they purged.
const TREE_TIME: Duration = Duration::from_secs(12);

/// What an erasure is asked to do.
pub(super) async fn erase(
    engine: &Engine,
    links: &Links,
    extensions: &Extensions,
    request: v1::EraseRecordRequest,
) -> Result<v1::ErasureReport, Status> {
    let by = caller::operator(extensions)?.name();
    let shared = engine.shared();
    let name = engine.name(&request.name).map_err(|e| status::bad_name("name", &e))?;
    let kind = shared.schema.kind(name.kind);
    let fields = fields(kind, request.field_mask.as_ref())?;
    check_reason(&request.reason)?;
    let acting = acting(&request.acting_division)?;
    let held = count(kind, &read(shared, &name).await?, &fields);
    if !request.validate_only {
        let action = WriteAction::Erase(Erase { fields: fields.clone(), acting, by, reason: request.reason });
        let write = Write { name: name.clone(), action, request: None, traceparent: None };
        let written = engine.write(write).await;
        written.map_err(|e: EngineError| status::of_record(&shared.schema, &name, &e))?;
    }
    let own = Asking::new(engine.clone(), links.clone()).own_erasure(&name, &fields).await;
    let own = own.map_err(|e| status::of_about(&e))?;
    let mut report = report(shared, &name, Erased { places: vec![own], truncated: false });
    if request.validate_only {
        (report.before_time, report.spread) = (None, v1::ErasureSpread::Unspecified.into());
    }
    report.field_names = fields.iter().map(|field| field_name(kind, *field)).collect();
    Ok(v1::ErasureReport { value_count: held as u64, ..report })
}

/// What was erased of a record, and who has purged it.
pub(super) async fn progress(
    engine: &Engine,
    links: &Links,
    extensions: &Extensions,
    request: &v1::GetErasureRequest,
) -> Result<v1::ErasureReport, Status> {
    caller::operator(extensions)?;
    let name = engine.name(&request.name).map_err(|e| status::bad_name("name", &e))?;
    let asking = Asking::new(engine.clone(), links.clone());
    let erased = match request.tree {
        true => asking.erasures(&name, None, Reach::whole(TREE_TIME)).await,
        false => {
            asking.own_erasure(&name, &[]).await.map(|own| Erased { places: vec![own], truncated: false })
        }
    };
    let erased = erased.map_err(|e| status::of_about(&e))?;
    let all_answered = erased.places.iter().all(|place| place.answer() == v1::NodeAnswer::Given);
    if all_answered && !erased.places.iter().any(|place| place.held) {
        return Err(status::not_found(&request.name));
    }
    Ok(report(engine.shared(), &name, erased))
}

fn check_reason(reason: &str) -> Result<(), Status> {
    let fits = (1..=REASON_MAX).contains(&reason.trim().chars().count());
    if fits && !reason.chars().any(char::is_control) {
        return Ok(());
    }
    let text = format!("reason: say why in 1 to {REASON_MAX} characters, without personal data");
    Err(status::invalid("reason", text))
}

fn fields(kind: &Kind, mask: Option<&prost_types::FieldMask>) -> Result<Vec<FieldNumber>, Status> {
    let paths = mask.map(|mask| mask.paths.as_slice()).unwrap_or_default();
    if paths.is_empty() {
        let usual = erasure::usual_fields(kind);
        if usual.is_empty() {
            let text =
                format!("field_mask: a {} has no personal fields; name those to erase", kind.rule.name);
            return Err(status::invalid("field_mask", text));
        }
        return Ok(usual);
    }
    let number = |path: &String| {
        let text = || format!("field_mask: `{path}` is not a field of {}", kind.rule.name);
        kind.field_named(path).map(|f| f.number).ok_or_else(|| status::invalid("field_mask", text()))
    };
    paths.iter().map(number).collect()
}

async fn read(shared: &Shared, name: &RecordName) -> Result<Record, Status> {
    let found = shared.store.get(name).await.map_err(|e| status::of_store(&e))?;
    let shown = || name.display(&shared.schema).to_string();
    let loaded = found.ok_or_else(|| status::not_found(&shown()))?;
    codec::decode(loaded.state).map_err(|e| status::broken(&e.to_string()))
}

/// How many values of these fields a record holds.
fn count(kind: &Kind, record: &Record, fields: &[FieldNumber]) -> usize {
    let derived = fields.iter().flat_map(|field| kind.derived_from(*field)).map(|f| f.number);
    let all = fields.iter().copied().chain(derived);
    Erasures::of_fields(all.map(|field| (field, Stamp(u64::MAX)))).count(record)
}

fn field_name(kind: &Kind, number: FieldNumber) -> String {
    kind.field(number).map_or_else(|| number.to_string(), |field| field.name.to_owned())
}

/// What nodes said, for people: the highest first, with names.
fn report(shared: &Shared, name: &RecordName, erased: Erased) -> v1::ErasureReport {
    let Erased { mut places, truncated } = erased;
    erased::settle(&mut places);
    let divisions = shared.divisions();
    let division = |place: &v1::ErasurePlace| Division::parse(&place.division).ok();
    places.sort_by_key(|place| (Reverse(division(place).map(|d| d.tier())), place.division.clone()));
    for place in &mut places {
        place.display_name = division(place).map(|d| divisions.full_name(d)).unwrap_or_default();
    }
    let marks = erased::all_marks(&places);
    let kind = shared.schema.kind(name.kind);
    let own = shared.own().to_string();
    let standing = places.iter().find(|place| place.division == own).map_or(0, |own| own.standing_count);
    v1::ErasureReport {
        name: name.display(&shared.schema).to_string(),
        field_names: marks.keys().map(|field| field_name(kind, *field)).collect(),
        before_time: marks.values().max().map(|before| view::timestamp(Stamp(*before).ms())),
        value_count: standing,
        spread: erased::spread(&places, truncated).into(),
        division: own,
        places,
        truncated,
    }
}
