//! How far the erasure of a record has come: what this node purged and cannot reach, and what the nodes beyond say.

use std::collections::BTreeMap;

use guantong_proto::v1;
use guantong_proto::v1::ask::Question;

use super::super::erasure::Standing;
use super::about::{AboutError, Gathered, Heard};
use super::{Asking, Reach};
use crate::record::{FieldNumber, RecordName};
use crate::whereabouts::{self, Asker};

/// What nodes say of the erasure of a record.
#[derive(Debug, Default)]
pub(in super::super) struct Erased {
    /// By node.
    pub(in super::super) places: Vec<v1::ErasurePlace>,
    /// There was more than is taken.
    pub(in super::super) truncated: bool,
}

impl Gathered for Erased {
    fn question(record: String) -> Question {
        Question::Erasure(v1::ErasureQuestion { record })
    }

    fn take(&mut self, part: v1::Answer) {
        self.places.extend(part.erasures);
    }

    fn pieces(self) -> Vec<v1::Answer> {
        let place = |place| v1::Answer { erasures: vec![place], ..v1::Answer::default() };
        self.places.into_iter().map(place).collect()
    }
}

impl Asking {
    /// How the erasure of a record stands at every node from this one on; not back to where the question came from.
    pub(in super::super) async fn erasures(
        &self,
        name: &RecordName,
        asker: Asker,
        reach: Reach,
    ) -> Result<Erased, AboutError> {
        let answers = self.ask_about::<Erased>(name, asker, reach).await?;
        let own = self.own_erasure(name, &[]).await?;
        let shared = self.engine.shared();
        let division = shared.own();
        // Nodes below that only get a record from above are not asked.
        let kind = shared.schema.kind(name.kind);
        let below = shared.topology().children().next().is_some();
        let mut truncated = below && whereabouts::places(kind, name, None).is_subtree();
        let mut places: BTreeMap<String, v1::ErasurePlace> = BTreeMap::new();
        for Heard { role, peer, answered } in answers {
            let beyond = match answered {
                Ok((erased, more)) => {
                    truncated |= more;
                    erased.places
                }
                Err(unanswered) => {
                    let peer = peer.to_string();
                    let told = own.peers.iter().find(|told| told.division == peer);
                    vec![v1::ErasurePlace {
                        answer: unanswered.answer.into(),
                        reason: unanswered.reason,
                        since_time: unanswered.since_time,
                        told: told.map_or(0, |told| told.state),
                        division: peer,
                        ..v1::ErasurePlace::default()
                    }]
                }
            };
            for place in beyond {
                if whereabouts::is_credible(division, role, peer, &place.division) {
                    places.entry(place.division.clone()).or_insert(place);
                }
            }
        }
        places.insert(own.division.clone(), own);
        Ok(Erased { places: places.into_values().collect(), truncated })
    }

    /// How it stands at this node. `fields`: those that are to be erased, where they are not yet.
    pub(in super::super) async fn own_erasure(
        &self,
        name: &RecordName,
        fields: &[FieldNumber],
    ) -> Result<v1::ErasurePlace, AboutError> {
        let held = self.held(name).await?;
        let held = held.as_ref().map(|(listed, record)| (listed.key, record));
        let standing = Standing { shared: self.engine.shared(), links: &self.links, name };
        Ok(standing.place(held, fields).await?)
    }
}
