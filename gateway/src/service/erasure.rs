//! Erasing content of records, and saying how far the word of it has come. Only operators erase. An answer names fields,
//! counts and peers; never content.

use guantong_proto::v1;
use tonic::{Extensions, Status};

use super::writes::acting;
use super::{Links, caller, status, view};
use crate::engine::{Engine, EngineError, Shared, Write, WriteAction};
use crate::erasure::{self, Erasures};
use crate::ingest::erasure::Erase;
use crate::ingest::topology::{PeerId, Role};
use crate::record::audience::Audience;
use crate::record::{FieldNumber, Record, RecordName, codec};
use crate::schema::Kind;
use crate::store::StoreError;

/// Longest reason, in characters.
const REASON_MAX: usize = 200;

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
    let (_, record) = read(shared, &name).await?;
    let held = count(kind, &record, &fields);
    if request.validate_only {
        let report = report(shared, links, &name, &fields).await?;
        return Ok(v1::ErasureReport { value_count: held as u64, before_time: None, ..report });
    }
    let action = WriteAction::Erase(Erase { fields: fields.clone(), acting, by, reason: request.reason });
    let write = Write { name: name.clone(), action, request: None, traceparent: None };
    engine.write(write).await.map_err(|e: EngineError| status::of_record(&shared.schema, &name, &e))?;
    let report = report(shared, links, &name, &fields).await?;
    Ok(v1::ErasureReport { value_count: held as u64, ..report })
}

/// What was erased of a record, and who has taken it in.
pub(super) async fn progress(
    engine: &Engine,
    links: &Links,
    extensions: &Extensions,
    request: &v1::GetErasureRequest,
) -> Result<v1::ErasureReport, Status> {
    caller::operator(extensions)?;
    let shared = engine.shared();
    let name = engine.name(&request.name).map_err(|e| status::bad_name("name", &e))?;
    if request.tree {
        return Err(status::invalid("tree", "tree: this program asks its neighbours only; leave it out"));
    }
    let (_, record) = read(shared, &name).await?;
    let kind = shared.schema.kind(name.kind);
    let erased: Vec<FieldNumber> =
        Erasures::of(kind, &record).fields().iter().map(|erased| erased.field).collect();
    report(shared, links, &name, &erased).await
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

async fn read(shared: &Shared, name: &RecordName) -> Result<(i64, Record), Status> {
    let found = shared.store.get(name).await.map_err(|e| status::of_store(&e))?;
    let shown = || name.display(&shared.schema).to_string();
    let loaded = found.ok_or_else(|| status::not_found(&shown()))?;
    let record = codec::decode(loaded.state).map_err(|e| status::broken(&e.to_string()))?;
    Ok((loaded.key, record))
}

/// How many values of these fields a record holds.
fn count(kind: &Kind, record: &Record, fields: &[FieldNumber]) -> usize {
    let derived = fields.iter().flat_map(|field| kind.derived_from(*field)).map(|f| f.number);
    let all = fields.iter().copied().chain(derived);
    Erasures::of_fields(all.map(|field| (field, crate::stamp::Stamp(u64::MAX)))).count(record)
}

async fn report(
    shared: &Shared,
    links: &Links,
    name: &RecordName,
    fields: &[FieldNumber],
) -> Result<v1::ErasureReport, Status> {
    let kind = shared.schema.kind(name.kind);
    let (key, record) = read(shared, name).await?;
    let told = Told { shared, links, kind, key, record: &record, name };
    let place = told.place().await.map_err(|e| status::of_store(&e))?;
    let erasures = Erasures::of(kind, &record);
    let before = fields.iter().filter_map(|field| erasures.before(*field)).max();
    Ok(v1::ErasureReport {
        name: name.display(&shared.schema).to_string(),
        field_names: fields.iter().filter_map(|f| kind.field(*f)).map(|f| f.name.to_owned()).collect(),
        before_time: before.map(|stamp| view::timestamp(stamp.ms())),
        value_count: count(kind, &record, fields) as u64,
        division: shared.own().to_string(),
        places: vec![place],
        ..v1::ErasureReport::default()
    })
}

/// Who is told.
struct Told<'a> {
    shared: &'a Shared,
    links: &'a Links,
    kind: &'a Kind,
    key: i64,
    record: &'a Record,
    name: &'a RecordName,
}

impl Told<'_> {
    async fn place(&self) -> Result<v1::ErasurePlace, StoreError> {
        let topology = self.shared.topology();
        let audience = Audience::of(self.kind, self.name.home, self.record);
        let subscriptions = self.shared.store.subscriptions().await?;
        let (mut peers, mut copies) = (Vec::new(), Vec::new());
        for id in topology.concerned(self.kind.id, &audience) {
            let Some((role, division)) = topology.peer(id) else { continue };
            let state = self.state(id).await?.into();
            if role == Role::Partner {
                let Some(found) = subscriptions.iter().find(|s| s.peer == id) else { continue };
                copies.push(v1::ErasureCopies {
                    kind: v1::CopyKind::Subscription.into(),
                    holder: format!("subscriptions/{}", found.id),
                    partner: found.owner.clone().unwrap_or_default(),
                    state,
                    ..v1::ErasureCopies::default()
                });
                continue;
            }
            peers.push(v1::ErasurePeer {
                division: division.to_string(),
                is_parent: role == Role::Parent,
                state,
                connected: self.links.status(role, division).connected,
            });
        }
        Ok(v1::ErasurePlace {
            division: self.shared.own().to_string(),
            display_name: self.shared.divisions().full_name(self.shared.own()),
            answer: v1::NodeAnswer::Given.into(),
            held: true,
            peers,
            copies,
            ..v1::ErasurePlace::default()
        })
    }

    async fn state(&self, peer: PeerId) -> Result<v1::ErasureState, StoreError> {
        let mark = self.kind.roles.erased.unwrap_or_default();
        let standing = self.shared.store.record_standing(peer, self.key).await?;
        if standing.waiting.is_some() {
            return Ok(v1::ErasureState::Pending);
        }
        let refused = standing.refused.iter().any(|(refused, _)| [0, mark].contains(&refused.field));
        Ok(if refused { v1::ErasureState::Refused } else { v1::ErasureState::Delivered })
    }
}
