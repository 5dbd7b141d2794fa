//! Sums of a link as they are compared: by kind and field, for the fields that both ends know.

use std::collections::BTreeMap;

use guantong_proto::v1;

use crate::proof::Sum;
use crate::record::{FieldNumber, RecordName};
use crate::schema::{KindId, Schema};

/// Sums that a peer may state: more kinds and fields than any contract has.
const SUMS_MAX: usize = 4_096;

/// What single records add to the sums, by field. A record that adds nothing may be missing.
pub type Shares = BTreeMap<RecordName, Vec<(FieldNumber, Sum)>>;

/// A sum for each kind and field; none stands for 0.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sums {
    sums: BTreeMap<(KindId, FieldNumber), Sum>,
}

impl Sums {
    /// Adds to one.
    pub fn add(&mut self, kind: KindId, field: FieldNumber, sum: Sum) {
        let all = self.sums.entry((kind, field)).or_default();
        *all = *all + sum;
    }

    /// Takes other sums off these.
    pub fn take_off(&mut self, other: &Sums) {
        for ((kind, field), sum) in &other.sums {
            self.add(*kind, *field, Sum::ZERO - *sum);
        }
    }

    fn get(&self, kind: KindId, field: FieldNumber) -> Sum {
        self.sums.get(&(kind, field)).copied().unwrap_or_default()
    }
}

/// The fields that both ends of a link know: only these count.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Common {
    kinds: Vec<Part>,
    is_all: bool,
}

/// Fields of one kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// Which kind.
    pub kind: KindId,
    /// Ascending.
    pub fields: Vec<FieldNumber>,
}

impl Common {
    /// Of this node's rules and those that the peer greeted with.
    pub fn of(schema: &Schema, peer: &v1::RuleTable) -> Common {
        let part = |rules: &v1::KindRules| {
            let kind = schema.kind_named(&rules.kind)?;
            let both = kind.fields().map(|field| field.number).filter(|field| rules.fields.contains(field));
            Some(Part { kind: kind.id, fields: both.collect() })
        };
        let kinds: Vec<Part> = peer.kinds.iter().filter_map(part).collect();
        let own: usize = schema.kinds().iter().map(|kind| kind.fields().count()).sum();
        let theirs: usize = peer.kinds.iter().map(|kind| kind.fields.len()).sum();
        let both: usize = kinds.iter().map(|part| part.fields.len()).sum();
        Common { kinds, is_all: both == own && both == theirs }
    }

    /// Whether both ends know the same fields.
    pub fn is_all(&self) -> bool {
        self.is_all
    }

    /// Whether both ends know the kind.
    pub(super) fn has(&self, kind: KindId) -> bool {
        self.kinds.iter().any(|part| part.kind == kind)
    }

    fn fields(&self) -> impl Iterator<Item = (KindId, FieldNumber)> + '_ {
        self.kinds.iter().flat_map(|part| part.fields.iter().map(|field| (part.kind, *field)))
    }

    /// Sums as they are sent.
    pub fn write(&self, schema: &Schema, sums: &Sums) -> Vec<v1::FieldSum> {
        let sum = |(kind, field)| {
            let sum = sums.get(kind, field);
            (sum != Sum::ZERO).then(|| v1::FieldSum {
                kind: schema.kind(kind).rule.name.into(),
                field,
                sum: sum.to_bytes().to_vec().into(),
            })
        };
        self.fields().filter_map(sum).collect()
    }

    /// Sums as a peer sent them; `None`: they are none.
    pub fn read(&self, schema: &Schema, sent: &[v1::FieldSum]) -> Option<Sums> {
        let mut sums = Sums::default();
        if sent.len() > SUMS_MAX {
            return None;
        }
        for one in sent {
            let sum = read_sum(&one.sum)?;
            if let Some(kind) = schema.kind_named(&one.kind) {
                sums.sums.insert((kind.id, one.field), sum);
            }
        }
        Some(sums)
    }

    /// The fields whose sums differ, by kind.
    pub fn differing(&self, one: &Sums, other: &Sums) -> Vec<Part> {
        let differing = |part: &Part| {
            let differs = |field: &FieldNumber| one.get(part.kind, *field) != other.get(part.kind, *field);
            let fields: Vec<FieldNumber> = part.fields.iter().copied().filter(differs).collect();
            (!fields.is_empty()).then_some(Part { kind: part.kind, fields })
        };
        self.kinds.iter().filter_map(differing).collect()
    }
}

/// A sum as it was sent: 16 bytes, or none for 0.
pub(super) fn read_sum(bytes: &[u8]) -> Option<Sum> {
    if bytes.is_empty() {
        return Some(Sum::ZERO);
    }
    Some(Sum::from_bytes(bytes.try_into().ok()?))
}

/// A sum as it is sent: nothing for 0.
pub(super) fn write_sum(sum: Sum) -> bytes::Bytes {
    if sum == Sum::ZERO { bytes::Bytes::new() } else { sum.to_bytes().to_vec().into() }
}
