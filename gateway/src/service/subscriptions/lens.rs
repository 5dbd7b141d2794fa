//! What one reader sees of a record: what its grant and its subscription cover, without the fields that it may not have
//! or does not want. What this node may no longer hold itself is not passed on.

use guantong_proto::v1;

use crate::engine::Shared;
use crate::grant::{Grant, Level, Units};
use crate::ingest::changes::Subscription;
use crate::ingest::renewal;
use crate::record::audience::Audience;
use crate::record::codec::{self, CodecError};
use crate::record::{FieldNumber, Record, raw};
use crate::schema::Kind;
use crate::service::view;
use crate::store::StoredRecord;

/// Number of `name` in the message of every kind.
const NAME: FieldNumber = 1;

/// A reader's view.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Lens {
    grant: Grant,
    personal: bool,
}

impl Lens {
    /// Of whoever has this grant; personal fields only where they are wanted too.
    pub(super) fn new(grant: &Grant, personal: bool) -> Lens {
        // In whose name the reader handles cases, and how often it calls, makes no difference to what it sees.
        let grant = Grant { units: Units::of([]), rate: None, ..grant.clone() };
        Lens { personal: personal && grant.personal, grant }
    }

    /// Hash over what is seen: where it changes, what was sent before is not what would be sent now.
    pub(super) fn fingerprint(&self) -> u64 {
        let Grant { scope, kinds, level, .. } = self.grant;
        let seen = format!("{scope} {} {} {}", kinds.bits(), level >= Level::Read, self.personal);
        crate::ingest::import::value_hash(seen.as_bytes())
    }

    /// Whether any records are seen.
    pub(super) fn sees_records(&self) -> bool {
        self.grant.level >= Level::Read
    }

    fn shows(&self, kind: &Kind, field: FieldNumber) -> bool {
        kind.field(field).is_some_and(|field| self.personal || !field.personal)
    }

    /// A record as the reader gets it; `None`: it does not.
    pub(super) fn change(
        &self,
        shared: &Shared,
        subscription: &Subscription,
        stored: &StoredRecord,
    ) -> Result<Option<v1::Change>, CodecError> {
        let name = &stored.name;
        let kind = shared.schema.kind(name.kind);
        let record = codec::decode(stored.state.clone())?;
        let audience = Audience::of(kind, name.home, &record);
        if !self.grant.may_read_record(kind.id, &audience) || !subscription.interest.meets(kind.id, &audience)
        {
            return Ok(None);
        }
        let excess = renewal::excess(&shared.topology(), kind, name.home, &record);
        let shows = |field| self.shows(kind, field) && !excess.contains(&field);
        let shown = view::record(&shared.schema, name, &record, shows);
        let mut fields = Vec::with_capacity(shown.fields.len() + shown.name.len() + 3);
        raw::put_message(&mut fields, raw::message_tag(NAME), shown.name.as_bytes());
        fields.extend_from_slice(&shown.fields);
        let written = shown.origins.iter().filter_map(|origin| origin.write_time);
        let update_time = written.max_by_key(|time| (time.seconds, time.nanos));
        Ok(Some(v1::Change {
            kind: kind.rule.name.into(),
            fields: fields.into(),
            deleted: view::is_deleted(kind, name, &record),
            conflicting_fields: names(kind, &shown.conflicting_fields),
            conflicts: conflicts(shared, stored, &record, &shown.conflicting_fields),
            etag: shown.etag,
            update_time,
            name: shown.name,
        }))
    }
}

fn names(kind: &Kind, fields: &[FieldNumber]) -> Vec<String> {
    fields.iter().filter_map(|field| kind.field(*field)).map(|field| field.name.to_owned()).collect()
}

fn conflicts(
    shared: &Shared,
    stored: &StoredRecord,
    record: &Record,
    fields: &[FieldNumber],
) -> Vec<v1::Conflict> {
    let register = |field: &FieldNumber| Some((*field, record.get(*field)?));
    let registers = fields.iter().filter_map(register);
    registers
        .map(|(field, register)| view::conflict(&shared.schema, &stored.name, field, register, &[]))
        .collect()
}
