//! Keys that are left out of sums: what a peer refused, and what is still owed. Both ends subtract their own hashes of
//! every key that either of them leaves out, so that what is left can be compared.

use std::collections::BTreeMap;

use guantong_proto::v1;

use super::sums::{Shares, Sums};
use crate::record::{FieldNumber, RecordName};
use crate::schema::Schema;

/// Keys that may be left out. Where it takes more, nothing is compared.
pub const LEFT_OUT_MAX: usize = 1_000;

/// Some fields of a record, or all.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Fields {
    All,
    /// Ascending.
    Some(Vec<FieldNumber>),
}

impl Fields {
    fn count(&self) -> usize {
        match self {
            Fields::All => 1,
            Fields::Some(some) => some.len(),
        }
    }
}

/// Fields of records that are left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LeftOut {
    keys: BTreeMap<RecordName, Fields>,
}

impl LeftOut {
    /// Leaves out one field; 0: the whole record.
    pub fn add(&mut self, name: RecordName, field: FieldNumber) {
        let fields = self.keys.entry(name).or_insert(Fields::Some(Vec::new()));
        match fields {
            Fields::All => {}
            _ if field == 0 => *fields = Fields::All,
            Fields::Some(some) => {
                if let Err(at) = some.binary_search(&field) {
                    some.insert(at, field);
                }
            }
        }
    }

    /// As a peer sent it. Records that this node cannot name are none that it has, and are passed over; `None`: it is
    /// more than there may be.
    pub fn read(schema: &Schema, sent: &[v1::LeftOut]) -> Option<LeftOut> {
        let mut left = LeftOut::default();
        let mut keys = 0;
        for one in sent {
            keys += one.fields.len().max(1);
            if keys > LEFT_OUT_MAX {
                return None;
            }
            let Ok(name) = RecordName::parse(schema, &one.record) else { continue };
            if one.fields.is_empty() {
                left.add(name, 0);
            } else {
                one.fields.iter().for_each(|field| left.add(name.clone(), *field));
            }
        }
        Some(left)
    }

    /// As it is sent.
    pub fn write(&self, schema: &Schema) -> Vec<v1::LeftOut> {
        let one = |(name, fields): (&RecordName, &Fields)| v1::LeftOut {
            record: name.display(schema).to_string(),
            fields: match fields {
                Fields::All => Vec::new(),
                Fields::Some(some) => some.clone(),
            },
        };
        self.keys.iter().map(one).collect()
    }

    /// How many keys; a whole record counts once.
    pub fn count(&self) -> usize {
        self.keys.values().map(Fields::count).sum()
    }

    /// How many of one record.
    pub fn keys_of(&self, name: &RecordName) -> u64 {
        self.keys.get(name).map_or(0, Fields::count) as u64
    }

    /// The records of which something is left out.
    pub fn names(&self) -> impl Iterator<Item = &RecordName> {
        self.keys.keys()
    }

    /// Whether a field is left out.
    pub fn has(&self, name: &RecordName, field: FieldNumber) -> bool {
        match self.keys.get(name) {
            Some(Fields::All) => true,
            Some(Fields::Some(some)) => some.binary_search(&field).is_ok(),
            None => false,
        }
    }

    /// Whether something of a record is left out.
    pub fn names_record(&self, name: &RecordName) -> bool {
        self.keys.contains_key(name)
    }

    /// Whether everything that `other` leaves out is left out here too.
    pub fn covers(&self, other: &LeftOut) -> bool {
        other.keys.iter().all(|(name, fields)| match (self.keys.get(name), fields) {
            (Some(Fields::All), _) => true,
            (Some(Fields::Some(_)), Fields::Some(some)) => some.iter().all(|field| self.has(name, *field)),
            _ => false,
        })
    }

    /// Leaves out what `other` does, too.
    pub fn join(&mut self, other: &LeftOut) {
        for (name, fields) in &other.keys {
            match fields {
                Fields::All => self.add(name.clone(), 0),
                Fields::Some(some) => some.iter().for_each(|field| self.add(name.clone(), *field)),
            }
        }
    }

    /// What is to be taken off sums that left out `already`: the shares of what only these keys leave out.
    pub fn sums_beyond(&self, already: &LeftOut, shares: &Shares) -> Sums {
        let mut sums = Sums::default();
        for name in self.keys.keys() {
            for (field, sum) in shares.get(name).into_iter().flatten() {
                if self.has(name, *field) && !already.has(name, *field) {
                    sums.add(name.kind, *field, *sum);
                }
            }
        }
        sums
    }
}
