//! How the erasure of a record stands at this node: which marks have come to it, what it purged, whom it tells, and which
//! copies it knows of and cannot reach. Counts, names and times; never content.

use guantong_proto::v1;

use super::super::{Links, view};
use crate::audit::{self, Copied};
use crate::engine::Shared;
use crate::erasure::Erasures;
use crate::ingest::changes::RecordKey;
use crate::ingest::topology::{PeerId, Role};
use crate::record::audience::Audience;
use crate::record::{FieldNumber, Record, RecordName};
use crate::schema::Kind;
use crate::store::StoreError;
use crate::whereabouts::erased;

/// Peers and copies that are named, each: a part of an answer stays small.
const NAMED_MAX: usize = 100;
/// Erasures of one record that are added up.
const ERASURES_MAX: usize = 10_000;

/// A copy that is noted so long after a purge may have been made before it: what comes again is noted later.
const NOTED_LATE_MS: u64 = 2 * audit::JOIN_MS;

/// What is looked at.
pub(in super::super) struct Standing<'a> {
    pub(in super::super) shared: &'a Shared,
    pub(in super::super) links: &'a Links,
    pub(in super::super) name: &'a RecordName,
}

impl Standing<'_> {
    fn kind(&self) -> &Kind {
        self.shared.schema.kind(self.name.kind)
    }

    /// Of the record as it is held; `fields`: those that are to be erased, where they are not yet.
    pub(in super::super) async fn place(
        &self,
        held: Option<(RecordKey, &Record)>,
        fields: &[FieldNumber],
    ) -> Result<v1::ErasurePlace, StoreError> {
        let mut place = v1::ErasurePlace {
            division: self.shared.own().to_string(),
            answer: v1::NodeAnswer::Given.into(),
            held: held.is_some(),
            ..v1::ErasurePlace::default()
        };
        let Some((key, record)) = held else { return Ok(place) };
        let store = &self.shared.store;
        place.erased = erased::marks(self.kind(), record);
        let name = self.name.display(&self.shared.schema).to_string();
        let lines = store.audit_erased(&name, ERASURES_MAX).await?;
        let purged = audit::purged(lines.iter().map(String::as_str), &name);
        place.purge_time = purged.last_ms.map(view::timestamp);
        place.purged = Some(v1::PurgedCounts {
            value_count: purged.values,
            history_count: purged.beside.history,
            ledger_cell_count: purged.beside.ledger_cells,
            held_cell_count: purged.beside.held_cells,
            quarantine_count: purged.beside.refusals,
        });
        place.standing_count = self.standing(record) as u64;
        place.clearing = store.is_clearing().await?;
        let of_marks = place.erased.iter().map(|mark| mark.field_number);
        let fields: Vec<FieldNumber> = fields.iter().copied().chain(of_marks).collect();
        let audience = Audience::of(self.kind(), self.name.home, record);
        let mut copies = self.copies(&audience, &fields, purged.last_ms).await?;
        self.told(&mut place, &mut copies, key, &audience).await?;
        let left_out = place.peers.len().saturating_sub(NAMED_MAX) + copies.len().saturating_sub(NAMED_MAX);
        place.left_out_count = left_out as u64;
        place.peers.truncate(NAMED_MAX);
        copies.truncate(NAMED_MAX);
        place.copies = copies;
        Ok(place)
    }

    /// How many values of erased fields stand: they were written since.
    fn standing(&self, record: &Record) -> usize {
        let erasures = Erasures::of(self.kind(), record);
        let any_time = erasures.fields().iter().map(|erased| (erased.field, crate::stamp::Stamp(u64::MAX)));
        Erasures::of_fields(any_time).count(record)
    }

    /// Copies that were made before the last purge, or by now where there was none, and whoever may read the record.
    async fn copies(
        &self,
        audience: &Audience,
        fields: &[FieldNumber],
        purge_ms: Option<u64>,
    ) -> Result<Vec<v1::ErasureCopies>, StoreError> {
        let topology = self.shared.topology();
        let kind = self.kind();
        let may = erased::may_have_held(kind, self.name.home, &topology, fields.iter().copied());
        if !may && !fields.is_empty() {
            return Ok(Vec::new());
        }
        let store = &self.shared.store;
        let until_ms = purge_ms.map_or(u64::MAX, |purge_ms| purge_ms.saturating_add(NOTED_LATE_MS));
        let mut copies = Vec::new();
        for (copied, span) in store.audit_copies(until_ms).await? {
            let (sort, holder) = match copied {
                Copied::Backup => (v1::CopyKind::Backup, String::new()),
                Copied::FormerStore => (v1::CopyKind::FormerStore, String::new()),
                Copied::Bundle(to) if erased::went_to(self.shared.own(), audience, to) => {
                    (v1::CopyKind::Bundle, to.to_string())
                }
                Copied::Bundle(_) => continue,
            };
            copies.push(v1::ErasureCopies {
                kind: sort.into(),
                holder,
                count: span.count,
                first_time: Some(view::timestamp(span.first_ms)),
                last_time: Some(view::timestamp(span.last_ms)),
                ..v1::ErasureCopies::default()
            });
        }
        if store.is_for_many() {
            let kind = v1::CopyKind::Database.into();
            copies.push(v1::ErasureCopies { kind, ..v1::ErasureCopies::default() });
        }
        for row in store.grants().await? {
            let shows = |field: &FieldNumber| kind.field(*field).is_none_or(|field| row.grant.shows(field));
            let shown = fields.is_empty() || fields.iter().any(shows);
            if shown && row.grant.may_read_record(kind.id, audience) {
                let kind = v1::CopyKind::Partner.into();
                copies.push(v1::ErasureCopies { kind, holder: row.partner, ..Default::default() });
            }
        }
        Ok(copies)
    }

    /// The neighbours that are told, and the subscriptions.
    async fn told(
        &self,
        place: &mut v1::ErasurePlace,
        copies: &mut Vec<v1::ErasureCopies>,
        key: RecordKey,
        audience: &Audience,
    ) -> Result<(), StoreError> {
        let topology = self.shared.topology();
        let subscriptions = self.shared.store.subscriptions().await?;
        let is_erased = !place.erased.is_empty();
        for id in topology.concerned(self.kind().id, audience) {
            let Some((role, division)) = topology.peer(id) else { continue };
            let state = if is_erased { self.state(id, key).await? } else { v1::ErasureState::Unspecified };
            if role == Role::Partner {
                let Some(found) = subscriptions.iter().find(|s| s.peer == id) else { continue };
                copies.push(v1::ErasureCopies {
                    kind: v1::CopyKind::Subscription.into(),
                    holder: format!("subscriptions/{}", found.id),
                    partner: found.owner.clone().unwrap_or_default(),
                    state: state.into(),
                    ..v1::ErasureCopies::default()
                });
                continue;
            }
            place.peers.push(v1::ErasurePeer {
                division: division.to_string(),
                is_parent: role == Role::Parent,
                state: state.into(),
                connected: self.links.status(role, division).connected,
            });
        }
        Ok(())
    }

    async fn state(&self, peer: PeerId, key: RecordKey) -> Result<v1::ErasureState, StoreError> {
        let mark = self.kind().roles.erased.unwrap_or_default();
        let standing = self.shared.store.record_standing(peer, key).await?;
        if standing.waiting.is_some() {
            return Ok(v1::ErasureState::Pending);
        }
        let refused = standing.refused.iter().any(|(refused, _)| [0, mark].contains(&refused.field));
        Ok(if refused { v1::ErasureState::Refused } else { v1::ErasureState::Delivered })
    }
}
