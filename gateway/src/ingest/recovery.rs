//! A store that is filled again by its peers: since when and why, and what no peer can give back. Decisions over values;
//! the engine stores them.

use guantong_proto::rules::Field;

use super::topology::Topology;
use crate::division::Division;
use crate::record::{FieldNumber, Record};
use crate::release;
use crate::schema::{Kind, KindId};

/// Why a store is filled again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// It began empty, and a peer knew its node.
    Emptied,
    /// It was put back to an earlier state, or copied.
    PutBack,
}

/// The last time that a store was filled again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recovery {
    /// Why.
    pub cause: Cause,
    /// Unix milliseconds.
    pub begun_ms: u64,
    /// When all peers had given what they have, Unix milliseconds; `None`: it goes on.
    pub ended_ms: Option<u64>,
    /// The parent has not given everything yet. Children say so themselves: `PeerState::recovering_to`.
    pub from_parent: bool,
    /// What cannot come back, by kind and field; `None`: it is not counted yet.
    pub losses: Option<Vec<Loss>>,
}

/// A field that no other node may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Loss {
    /// The kind.
    pub kind: KindId,
    /// The field.
    pub field: FieldNumber,
    /// Records of this node without it: at most so many have lost it.
    pub records: u64,
}

impl Recovery {
    /// What is known once a peer was found to have more than this store. One that goes on stays the same one.
    pub fn begun(known: Option<&Recovery>, cause: Cause, from_parent: bool, now_ms: u64) -> Recovery {
        match known.filter(|known| known.ended_ms.is_none()) {
            Some(known) => Recovery { from_parent: known.from_parent || from_parent, ..known.clone() },
            None => Recovery { cause, begun_ms: now_ms, ended_ms: None, from_parent, losses: None },
        }
    }
}

/// The fields that a record of this node lacks and that no other node may hold. Nothing where another node speaks for
/// the record, and nothing at the top, where nobody above holds any of it.
pub fn lacking(topology: &Topology, kind: &Kind, home: Division, record: &Record) -> Vec<FieldNumber> {
    let Some((_, parent)) = topology.parent().filter(|_| topology.acts_for(home)) else { return Vec::new() };
    let own_alone = |field: &&Field| {
        let known = kind.field(field.number).is_some();
        known && field.derived_from.is_none() && !release::within_limit(field, home, parent.tier())
    };
    let fields = kind.rule.fields.iter().filter(own_alone).map(|field| field.number);
    fields.filter(|field| record.get(*field).is_none()).collect()
}

/// Of a record whose node loses its store, what no other node may hold; `None`: nothing, or another node speaks for the
/// record. Without a parent, that is all of it.
pub fn worth_saving(topology: &Topology, kind: &Kind, home: Division, record: &Record) -> Option<Record> {
    if !topology.acts_for(home) {
        return None;
    }
    let Some((_, parent)) = topology.parent() else { return Some(record.clone()) };
    let mut saved = record.clone();
    saved.retain(|field, _| {
        kind.field(field).is_none_or(|field| !release::within_limit(field, home, parent.tier()))
    });
    (!saved.fields().is_empty()).then_some(saved)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::ingest::topology::PeerId;
    use crate::record::Register;
    use crate::schema::Schema;
    use crate::stamp::{Stamp, Writer};

    #[test]
    fn one_recovery_is_not_begun_twice() {
        let first = Recovery::begun(None, Cause::Emptied, false, 5);
        let second = Recovery::begun(Some(&first), Cause::PutBack, true, 9);
        assert_eq!(second, Recovery { from_parent: true, ..first.clone() });
        let ended = Recovery { ended_ms: Some(7), losses: Some(Vec::new()), ..first };
        let again = Recovery::begun(Some(&ended), Cause::PutBack, true, 9);
        assert_eq!((again.begun_ms, again.ended_ms, again.losses), (9, None, None));
    }

    #[test]
    fn what_a_township_alone_may_hold_cannot_come_back() {
        let schema = Schema::current();
        let kind = schema.kind_named("case").unwrap();
        let division = |code| Division::parse(code).unwrap();
        let (home, neighbour) = (division("220822101"), division("220822102"));
        let mut topology = Topology::new(home);
        let parties = kind.field_named("parties").unwrap().number;
        assert!(
            lacking(&topology, kind, home, &Record::default()).is_empty(),
            "at the top there is nobody to ask"
        );
        topology.set_parent(PeerId(1), division("220822"));
        let names = |record: &Record, home| lacking(&topology, kind, home, record);
        assert!(names(&Record::default(), home).contains(&parties));
        assert!(!names(&Record::default(), home).contains(&kind.field_named("risk").unwrap().number));
        assert!(names(&Record::default(), neighbour).is_empty(), "another node's");
        let mut record = Record::default();
        let writer = Writer { division: home, id: 1 };
        record.set(parties, Register::single(writer, Stamp::from_ms(1), vec![1].into()));
        assert!(!names(&record, home).contains(&parties));
        let risk = kind.field_named("risk").unwrap().number;
        record.set(risk, Register::single(writer, Stamp::from_ms(1), vec![2].into()));
        let saved = worth_saving(&topology, kind, home, &record).unwrap();
        assert!(saved.get(parties).is_some() && saved.get(risk).is_none(), "the county has the risk");
        record.retain(|field, _| field == risk);
        assert_eq!(worth_saving(&topology, kind, home, &record), None);
        assert_eq!(
            worth_saving(&Topology::new(home), kind, home, &record),
            Some(record.clone()),
            "at the top"
        );
        assert_eq!(worth_saving(&Topology::new(home), kind, neighbour, &record), None);
    }
}
