//! Where a record is: what this node holds of it, what the nodes beyond say, and how the ends of each link between them
//! compare. Own reads come after the answers, so that what was on its way meanwhile is seen waiting or arrived.

use std::collections::BTreeMap;

use guantong_proto::v1;
use guantong_proto::v1::ask::Question;

use super::super::equality;
use super::super::view::timestamp;
use super::about::{AboutError, Gathered, Heard, Held};
use super::{Asking, Reach};
use crate::division::Division;
use crate::ingest::topology::{PeerId, Role};
use crate::proof::Pair;
use crate::record::{Record, RecordName};
use crate::store::StoreError;
use crate::whereabouts::{self, Asker};

/// Refused fields of one record that are named, and what is said of each: a part of an answer stays small.
const REFUSED_MAX: usize = 64;
const DETAIL_CHARS_MAX: usize = 200;

/// What is known of a record beyond one point of the tree.
#[derive(Debug, Default)]
pub(in super::super) struct Located {
    /// By node.
    pub(in super::super) places: Vec<v1::RecordPlace>,
    /// By lower end.
    pub(in super::super) links: Vec<v1::RecordLink>,
    /// On the link that the question came by.
    pub(super) shared: v1::SharedForm,
    /// There was more than is taken.
    pub(in super::super) truncated: bool,
}

impl Gathered for Located {
    fn question(record: String) -> Question {
        Question::Where(v1::WhereQuestion { record })
    }

    fn take(&mut self, part: v1::Answer) {
        self.places.extend(part.places);
        self.links.extend(part.links);
        if let Some(shared) = part.shared {
            self.shared = shared;
        }
    }

    fn pieces(self) -> Vec<v1::Answer> {
        let shared = v1::Answer { shared: Some(self.shared), ..v1::Answer::default() };
        let place = |place| v1::Answer { places: vec![place], ..v1::Answer::default() };
        let link = |link| v1::Answer { links: vec![link], ..v1::Answer::default() };
        let places = self.places.into_iter().map(place);
        std::iter::once(shared).chain(places).chain(self.links.into_iter().map(link)).collect()
    }
}

impl Asking {
    /// Where a record is, from this node on; not back to where the question came from.
    pub(in super::super) async fn locate(
        &self,
        name: &RecordName,
        asker: Asker,
        reach: Reach,
    ) -> Result<Located, AboutError> {
        let answers = self.ask_about::<Located>(name, asker, reach).await?;
        let held = self.held(name).await?;
        let mut join = Join { asking: self, name, held: &held, found: Found::default() };
        join.place();
        for heard in answers {
            join.peer(heard).await?;
        }
        let mut located = join.found.located();
        if let Some((role, peer)) = asker {
            let join = Join { asking: self, name, held: &held, found: Found::default() };
            let (link, shared) = join.own_end(role, peer).await?;
            located.links.push(link);
            located.shared = shared;
        }
        Ok(located)
    }
}

/// Places and links, each once.
#[derive(Default)]
struct Found {
    places: BTreeMap<String, v1::RecordPlace>,
    links: BTreeMap<(String, String), v1::RecordLink>,
    truncated: bool,
}

impl Found {
    fn located(self) -> Located {
        Located {
            places: self.places.into_values().collect(),
            links: self.links.into_values().collect(),
            shared: v1::SharedForm::default(),
            truncated: self.truncated,
        }
    }
}

/// Joins answers with what this node has.
struct Join<'a> {
    asking: &'a Asking,
    name: &'a RecordName,
    held: &'a Held,
    found: Found,
}

impl Join<'_> {
    fn record(&self) -> Option<&Record> {
        self.held.as_ref().map(|held| &held.1)
    }

    /// What this node holds.
    fn place(&mut self) {
        let shared = self.asking.engine.shared();
        let own = shared.own();
        let claims = shared.claims();
        // The node nearest to the record's home claims for it.
        let claims = claims.iter().filter(|(division, _)| division.contains(self.name.home));
        let claimed =
            claims.min_by_key(|(division, _)| division.tier()).map(|(_, claimed)| claimed.through_ms);
        let place = v1::RecordPlace {
            division: own.to_string(),
            answer: v1::NodeAnswer::Given.into(),
            held: self.held.is_some(),
            version: self.record().and_then(|record| whereabouts::version(record, |_| true)),
            update_time: self.held.as_ref().map(|held| timestamp(held.0.updated_ms)),
            top: shared.topology().parent().is_none(),
            claim_time: claimed.filter(|ms| *ms > 0).map(timestamp),
            ..v1::RecordPlace::default()
        };
        self.found.places.insert(own.to_string(), place);
    }

    /// What a peer said, and how both ends of the link to it compare.
    async fn peer(&mut self, heard: Heard<Located>) -> Result<(), AboutError> {
        let Heard { role, peer, answered } = heard;
        let (mut link, own) = self.own_end(role, peer).await?;
        match answered {
            Err(unanswered) => {
                link.state = v1::RecordLinkState::Unknown.into();
                let place = v1::RecordPlace {
                    division: peer.to_string(),
                    answer: unanswered.answer.into(),
                    reason: unanswered.reason,
                    since_time: unanswered.since_time,
                    ..v1::RecordPlace::default()
                };
                self.found.places.insert(place.division.clone(), place);
            }
            Ok((located, truncated)) => {
                self.found.truncated |= truncated;
                self.compare(&mut link, role, &own, &located);
                self.take(role, peer, located);
            }
        }
        self.found.links.insert((link.child_division.clone(), link.parent_division.clone()), link);
        Ok(())
    }

    /// Adds the other end to a link, and says whether both hold the same.
    fn compare(&self, link: &mut v1::RecordLink, role: Role, own: &v1::SharedForm, located: &Located) {
        let ends = (&link.child_division, &link.parent_division);
        let same = |other: &&v1::RecordLink| (&other.child_division, &other.parent_division) == ends;
        let other = located.links.iter().find(same).cloned().unwrap_or_default();
        match role {
            Role::Parent => link.parent = other.parent,
            Role::Child | Role::Partner => link.child = other.child,
        }
        let state = match (&link.child, &link.parent) {
            (Some(child), Some(parent)) => {
                let kind = self.asking.engine.shared().schema.kind(self.name.kind);
                link.differing_fields = whereabouts::differing(kind, own, &located.shared);
                whereabouts::link_state(&link.differing_fields, [child, parent])
            }
            _ => v1::RecordLinkState::Unknown,
        };
        link.state = state.into();
    }

    /// Takes in what a peer says of others, as far as it may speak of them.
    fn take(&mut self, role: Role, peer: Division, located: Located) {
        let own = self.asking.engine.shared().own();
        let credible = |node: &str| whereabouts::is_credible(own, role, peer, node);
        for place in located.places.into_iter().filter(|place| credible(&place.division)) {
            self.found.places.entry(place.division.clone()).or_insert(place);
        }
        // The link that was asked through is this node's own, and comes with both ends.
        let beyond =
            |link: &v1::RecordLink| credible(&link.child_division) && credible(&link.parent_division);
        for link in located.links.into_iter().filter(beyond) {
            let ends = (link.child_division.clone(), link.parent_division.clone());
            self.found.links.entry(ends).or_insert(link);
        }
    }

    /// This node's end of a link, and what crosses up on it.
    async fn own_end(
        &self,
        role: Role,
        peer: Division,
    ) -> Result<(v1::RecordLink, v1::SharedForm), AboutError> {
        let shared = self.asking.engine.shared();
        let own = shared.own();
        let (child, parent) = if role == Role::Parent { (own, peer) } else { (peer, own) };
        let form = whereabouts::shared_form(&shared.schema, Pair { child, parent }, self.name, self.record());
        let crosses = |field| form.digests.iter().any(|digest| digest.field == field);
        let status = self.asking.links.status(role, peer);
        let mut end = v1::RecordLinkEnd {
            linked: status.connected,
            link_time: status.connect_time,
            last_error: if status.connected { String::new() } else { status.last_error },
            version: self.record().and_then(|record| whereabouts::version(record, crosses)),
            equality: Some(equality::of_link(shared, &self.asking.links, role, peer)),
            ..v1::RecordLinkEnd::default()
        };
        let kind = shared.schema.kind(self.name.kind);
        if let (Role::Parent, Some(record)) = (role, self.record()) {
            end.held_back = whereabouts::held_back(kind, self.name, record, &form);
        }
        if let Some(id) = self.asking.peer_id(role, peer) {
            self.owed(id, &mut end).await?;
        }
        let mut link = v1::RecordLink {
            child_division: child.to_string(),
            parent_division: parent.to_string(),
            ..v1::RecordLink::default()
        };
        *(if role == Role::Parent { &mut link.child } else { &mut link.parent }) = Some(end);
        Ok((link, form))
    }

    /// What waits here for the peer, and what it refused.
    async fn owed(&self, peer: PeerId, end: &mut v1::RecordLinkEnd) -> Result<(), StoreError> {
        let shared = self.asking.engine.shared();
        let kind = shared.schema.kind(self.name.kind);
        let backlog = shared.store.backlog(peer).await?;
        end.backlog_count = backlog.urgent.count + backlog.normal.count + backlog.bulk.count;
        let Some((listed, _)) = self.held else { return Ok(()) };
        let standing = shared.store.record_standing(peer, listed.key).await?;
        if let Some((lane, since_ms)) = standing.waiting {
            end.waiting_lane = lane as i32 + 1;
            end.waiting_since_time = Some(timestamp(since_ms));
        }
        let refused =
            standing.refused.into_iter().take(REFUSED_MAX).map(|(refused, at_ms)| v1::RefusedField {
                field_name: kind.field(refused.field).map(|f| f.name.to_owned()).unwrap_or_default(),
                reason: format!(
                    "{}: {}",
                    refused.reason.as_str_name(),
                    refused.detail.chars().take(DETAIL_CHARS_MAX).collect::<String>()
                ),
                create_time: Some(timestamp(at_ms)),
                retry_time: refused.retry_at_ms.map(timestamp),
            });
        end.refused = refused.collect();
        Ok(())
    }
}
