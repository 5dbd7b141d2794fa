//! What one caller sees of the records, and may write: what its grant covers, without what it does not. What it may not
//! see is left out of answers; asked for by name it is refused, in words that do not say whether it exists.

use std::sync::Arc;

use bytes::Bytes;
use guantong_proto::v1;
use tonic::{Extensions, Status};

use super::{caller, status, view};
use crate::division::Division;
use crate::engine::{Engine, Shared};
use crate::grant::{Grant, Level, Mandate};
use crate::ingest::local::LocalWrite;
use crate::ingest::writers;
use crate::record::audience::Audience;
use crate::record::{FieldNumber, Record, RecordName, codec};
use crate::schema::Kind;
use crate::store::{Listed, Loaded};

/// The purpose of a partner's writer begins so; no import source is named so.
pub(super) const PARTNER_PURPOSE: &str = "partner:";

/// One caller's view, as of its call.
pub(super) struct Sight {
    grant: Grant,
    purpose: String,
    mandate: Option<Arc<Mandate>>,
}

impl Sight {
    /// Of whoever calls.
    pub(super) fn of(shared: &Shared, extensions: &Extensions) -> Result<Sight, Status> {
        let grant = caller::granted(shared, extensions)?;
        let partner = caller::partner(extensions);
        let purpose =
            partner.map_or_else(|| writers::LOCAL.into(), |name| format!("{PARTNER_PURPOSE}{name}"));
        let mandate = partner.map(|name| {
            Arc::new(Mandate { partner: name.into(), scope: grant.scope, units: grant.units.clone() })
        });
        Ok(Sight { grant, purpose, mandate })
    }

    /// A write of these fields as the caller makes it.
    pub(super) fn local_write(&self, fields: Vec<(FieldNumber, Bytes)>) -> LocalWrite {
        LocalWrite { purpose: self.purpose(), mandate: self.mandate(), ..LocalWrite::of(fields) }
    }

    /// What limits the caller's handling of cases.
    pub(super) fn mandate(&self) -> Option<Arc<Mandate>> {
        self.mandate.clone()
    }

    /// What writes are made as: each partner is a writer of its own.
    pub(super) fn purpose(&self) -> String {
        self.purpose.clone()
    }

    /// The part of a division that the caller may ask about: itself, or the grant's scope inside it.
    pub(super) fn part_of(&self, field: &str, division: Division) -> Result<Division, Status> {
        let scope = self.grant.scope;
        if scope.contains(division) {
            return Ok(division);
        }
        // A list of more than is granted leaves the rest out.
        if division.contains(scope) {
            return Ok(scope);
        }
        Err(status::not_allowed(format!(
            "{field}: {division} lies outside {scope}, which is what you may see"
        )))
    }

    /// Refuses callers who may read no record at all.
    pub(super) fn check_records(&self) -> Result<(), Status> {
        if self.grant.level >= Level::Read {
            return Ok(());
        }
        Err(status::not_allowed("the grant is for aggregates only; no record can be read with it"))
    }

    /// Refuses kinds whose records the caller may not read.
    pub(super) fn check_kind(&self, kind: &Kind) -> Result<(), Status> {
        self.check_records()?;
        if self.grant.kinds.contains(kind.id) {
            return Ok(());
        }
        Err(status::not_allowed(format!("the grant does not cover records of kind `{}`", kind.rule.name)))
    }

    /// Refuses a field that the caller asks for by name and may not see.
    pub(super) fn check_field(&self, kind: &Kind, field: FieldNumber) -> Result<(), Status> {
        if self.shows(kind, field) {
            return Ok(());
        }
        let path = status::path(kind, field);
        Err(status::not_allowed(format!("{path}: the grant does not cover personal data")))
    }

    /// Whether records of a kind that were born there are shown.
    pub(super) fn sees_home(&self, kind: &Kind, home: Division) -> bool {
        self.grant.may_read(kind.id, home)
    }

    /// Whether a record is shown.
    pub(super) fn sees(&self, kind: &Kind, name: &RecordName, record: &Record) -> bool {
        self.grant.may_read_record(kind.id, &Audience::of(kind, name.home, record))
    }

    /// Whether a field is shown.
    pub(super) fn shows(&self, kind: &Kind, field: FieldNumber) -> bool {
        self.grant.personal || kind.field(field).is_some_and(|field| self.grant.shows(field))
    }

    /// Whether fields that say something about a person are shown.
    pub(super) fn shows_personal(&self) -> bool {
        self.grant.personal
    }

    /// A record as the caller sees it: without the fields that it may not.
    pub(super) fn view(&self, shared: &Shared, name: &RecordName, record: &Record) -> v1::Record {
        let kind = shared.schema.kind(name.kind);
        view::record(&shared.schema, name, record, |field| self.shows(kind, field))
    }

    /// A record that the caller asks for by name.
    pub(super) async fn read(&self, engine: &Engine, name: &RecordName) -> Result<(Listed, Record), Status> {
        let shared = engine.shared();
        let kind = shared.schema.kind(name.kind);
        let found = shared.store.find(name).await.map_err(|e| status::of_store(&e))?;
        let named_in = self.grant.may_read(kind.id, name.home) || self.has_everything(shared);
        let Some(loaded) = found else {
            let shown = name.display(&shared.schema).to_string();
            return Err(if named_in { status::not_found(&shown) } else { self.outside(kind) });
        };
        let record = codec::decode(loaded.state.clone()).map_err(|e| status::broken(&e.to_string()))?;
        if named_in || self.sees(kind, name, &record) {
            Ok((loaded, record))
        } else {
            Err(self.outside(kind))
        }
    }

    /// Refuses a write of a record, or of fields, that the caller may not write. The audience only grows, so what may
    /// be written now still may when the write is decided.
    pub(super) async fn check_write(
        &self,
        engine: &Engine,
        name: &RecordName,
        fields: impl IntoIterator<Item = FieldNumber>,
    ) -> Result<(), Status> {
        let checked = self.check_writes(engine, vec![(name, fields.into_iter().collect())]).await?;
        checked.into_iter().collect()
    }

    /// The same of many records, each by itself and in their order. What must be looked up is read at once.
    pub(super) async fn check_writes(
        &self,
        engine: &Engine,
        writes: Vec<(&RecordName, Vec<FieldNumber>)>,
    ) -> Result<Vec<Result<(), Status>>, Status> {
        let shared = engine.shared();
        // Operators write whatever the node holds; what it does not is refused by the rules of writes.
        let by_home =
            |name: &RecordName| self.grant.may_write(name.kind, name.home) || self.has_everything(shared);
        let elsewhere = writes.iter().map(|(name, _)| *name).filter(|name| !by_home(name));
        let elsewhere: Vec<RecordName> = elsewhere.cloned().collect();
        let found = match elsewhere.is_empty() {
            true => Vec::new(),
            false => shared.store.get_many(&elsewhere).await.map_err(|e| status::of_store(&e))?,
        };
        let mut found = found.into_iter();
        let check = |(name, fields): (&RecordName, Vec<FieldNumber>)| {
            let kind = shared.schema.kind(name.kind);
            let loaded = if by_home(name) { None } else { Some(found.next().flatten()) };
            // What the contract does not have is refused by the rules of writes.
            for field in fields.into_iter().filter(|field| kind.field(*field).is_some()) {
                self.check_field(kind, field)?;
            }
            loaded.map_or(Ok(()), |loaded| self.check_audience(kind, name, loaded))
        };
        Ok(writes.into_iter().map(check).collect())
    }

    /// Refuses a write of a record that was born elsewhere, unless it concerns the grant's scope by now.
    fn check_audience(&self, kind: &Kind, name: &RecordName, loaded: Option<Loaded>) -> Result<(), Status> {
        let record = loaded.map(|loaded| codec::decode(loaded.state)).transpose();
        let record = record.map_err(|e| status::broken(&e.to_string()))?;
        let audience = record.map(|record| Audience::of(kind, name.home, &record));
        if audience.is_some_and(|audience| self.grant.may_write_record(kind.id, &audience)) {
            return Ok(());
        }
        if self.grant.level == Level::Read && self.grant.may_read(kind.id, name.home) {
            return Err(status::not_allowed("the grant is for reading; nothing can be written with it"));
        }
        Err(self.outside(kind))
    }

    fn has_everything(&self, shared: &Shared) -> bool {
        self.grant.is_whole(shared.own())
    }

    fn outside(&self, kind: &Kind) -> Status {
        match self.check_kind(kind) {
            Err(refused) => refused,
            Ok(()) => status::not_allowed(format!(
                "the record is not one of those that concern {}, which is what you may see",
                self.grant.scope
            )),
        }
    }
}
