//! Running checksums of what the two ends of a link share: for each kind and field the sum, modulo 2^128, of a keyed hash
//! of every record's register. Sums are changed by differences, so keeping them costs what a write changes, and two ends
//! are equal when their sums are.
//!
//! Everything here is a pure function of the record and the two divisions, the same at both ends; whatever only one end
//! knows (what it purged, who holds what, when) must never get into a sum.

use siphasher::sip128::SipHasher24;
use smallvec::SmallVec;
use std::ops::{Add, Sub};

use guantong_proto::rules::Field;

use crate::division::Division;
use crate::record::audience::Audience;
use crate::record::raw;
use crate::record::{FieldNumber, Record, RecordName, Register};
use crate::release::{self, Concern};
use crate::schema::{Kind, Schema};

/// Of the way in which sums are made. Who changes what is hashed or what counts raises it, and stores sum anew.
pub const SUMMING: u32 = 2;

/// Part of the protocol: both ends hash with it. It keeps these hashes apart from all others and hides nothing. Sums find
/// what a disk, a line or a fault has changed; an end that lies needs no collision for it.
const KEY: &[u8; 32] = b"guantong: sums of a link, 1.    ";

/// A sum of hashes, modulo 2^128. On the wire 16 bytes, little endian.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Sum(pub u128);

impl Sum {
    /// Of nothing.
    pub const ZERO: Sum = Sum(0);

    /// As it is stored and sent.
    pub const fn to_bytes(self) -> [u8; 16] {
        self.0.to_le_bytes()
    }

    /// As it was stored or sent.
    pub const fn from_bytes(bytes: [u8; 16]) -> Sum {
        Sum(u128::from_le_bytes(bytes))
    }
}

impl Add for Sum {
    type Output = Sum;

    fn add(self, other: Sum) -> Sum {
        Sum(self.0.wrapping_add(other.0))
    }
}

impl Sub for Sum {
    type Output = Sum;

    fn sub(self, other: Sum) -> Sum {
        Sum(self.0.wrapping_sub(other.0))
    }
}

/// The two ends of a link.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Pair {
    /// The lower end.
    pub child: Division,
    /// The upper end.
    pub parent: Division,
}

/// A record with what decides which of its fields cross links.
#[derive(Clone, Debug)]
pub struct Crossing<'a> {
    kind: &'a Kind,
    home: Division,
    record: &'a Record,
    audience: Audience,
    sealed: bool,
}

impl<'a> Crossing<'a> {
    /// Of a record of this kind and home.
    pub fn of(kind: &'a Kind, home: Division, record: &'a Record) -> Crossing<'a> {
        let audience = Audience::of(kind, home, record);
        let sealed = release::is_sealed(kind, home, record);
        Crossing { kind, home, record, audience, sealed }
    }

    /// The divisions that the record concerns.
    pub fn audience(&self) -> &Audience {
        &self.audience
    }

    /// Whether it is a sealed case.
    pub fn is_sealed(&self) -> bool {
        self.sealed
    }

    /// Whether the record concerns the lower end: only then is anything of it shared.
    fn is_shared(&self, pair: Pair) -> bool {
        self.audience.concerns(pair.child)
    }

    /// Whether the field crosses up on a link that the record is shared on.
    fn crosses(&self, field: &Field, pair: Pair) -> bool {
        let concern = Concern { home: self.home, audience: &self.audience, sealed: self.sealed };
        release::crosses_up(field, concern, pair.child, pair.parent)
    }
}

/// Hashes registers of one record after another. It keeps its memory, so that a field costs no allocation.
#[derive(Clone, Debug, Default)]
pub struct Hasher {
    /// Made of the record's name: the key of its fields' hashes.
    name: [u8; 16],
    bytes: Vec<u8>,
}

impl Hasher {
    /// The registers hashed from now on are this record's.
    fn begin(&mut self, name: &RecordName) {
        self.bytes.clear();
        self.bytes.extend_from_slice(&name.kind.0.to_le_bytes());
        self.bytes.extend_from_slice(&name.home.code().to_le_bytes());
        self.bytes.extend_from_slice(name.id.as_bytes());
        self.name.copy_from_slice(&blake3::keyed_hash(KEY, &self.bytes).as_bytes()[..16]);
    }

    /// The hash of one field, under the record's own key: its number, and for each writer the stamps and what stands.
    fn field(&mut self, field: FieldNumber, register: &Register) -> Sum {
        self.bytes.clear();
        raw::put_varint(&mut self.bytes, field.into());
        for entry in register.entries() {
            // Twelve digits fit in five bytes.
            self.bytes.extend_from_slice(&entry.writer.division.code().to_le_bytes()[..5]);
            self.bytes.extend_from_slice(&entry.writer.id.to_le_bytes());
            self.bytes.extend_from_slice(&entry.stamp.0.to_le_bytes());
            // Together they say how long what follows is, so that no two registers give the same bytes.
            let dated = entry.content_stamp.0 != 0;
            let length = entry.value.as_ref().map_or(0, |value| value.len() as u64 + 1);
            raw::put_varint(&mut self.bytes, length << 1 | u64::from(dated));
            if dated {
                self.bytes.extend_from_slice(&entry.content_stamp.0.to_le_bytes());
            }
            if let Some(value) = &entry.value {
                self.bytes.extend_from_slice(value);
            }
        }
        // For so few bytes a third of what BLAKE3 takes.
        Sum(SipHasher24::new_with_key(&self.name).hash(&self.bytes).as_u128())
    }
}

/// What a record adds to the sums of a link: the fields that cross up, by number. Nothing where it is not shared.
pub fn shared(schema: &Schema, pair: Pair, name: &RecordName, record: &Record) -> Vec<(FieldNumber, Sum)> {
    let kind = schema.kind(name.kind);
    let (before, after) = (Record::default(), Crossing::of(kind, name.home, record));
    let before = Crossing::of(kind, name.home, &before);
    let mut sums = Vec::new();
    let add = |_, field, sum| sums.push((field, sum));
    differences(name, &before, &after, &[pair], &mut Hasher::default(), add);
    sums
}

/// By how much the sums of links change when a record changes: `add` is given the place in `pairs`, the field and the
/// difference, by field. Only what changed is hashed, once for all links.
pub fn differences(
    name: &RecordName,
    before: &Crossing<'_>,
    after: &Crossing<'_>,
    pairs: &[Pair],
    hasher: &mut Hasher,
    mut add: impl FnMut(usize, FieldNumber, Sum),
) {
    let shared = |pair: &Pair| (before.is_shared(*pair), after.is_shared(*pair));
    let shared: SmallVec<[(bool, bool); 4]> = pairs.iter().map(shared).collect();
    if shared.iter().all(|at| *at == (false, false)) {
        return;
    }
    hasher.begin(name);
    for (number, was, is) in both(before.record, after.record) {
        let Some(field) = after.kind.field(number) else { continue };
        let same = was == is;
        let (mut hash_before, mut hash_after) = (None, None);
        for (place, (pair, (shared_before, shared_after))) in pairs.iter().zip(&shared).enumerate() {
            let was = was.filter(|_| *shared_before && before.crosses(field, *pair));
            let is = is.filter(|_| *shared_after && after.crosses(field, *pair));
            if was.is_none() && is.is_none() || same && was.is_some() == is.is_some() {
                continue;
            }
            let mut difference = Sum::ZERO;
            if let Some(register) = is {
                difference = *hash_after.get_or_insert_with(|| hasher.field(number, register));
            }
            if let Some(register) = was {
                difference = difference - *hash_before.get_or_insert_with(|| hasher.field(number, register));
            }
            add(place, number, difference);
        }
    }
}

/// The fields of two records together, by number.
fn both<'r>(
    one: &'r Record,
    other: &'r Record,
) -> impl Iterator<Item = (FieldNumber, Option<&'r Register>, Option<&'r Register>)> {
    let (mut ones, mut others) = (one.fields().iter().peekable(), other.fields().iter().peekable());
    std::iter::from_fn(move || {
        let number = match (ones.peek(), others.peek()) {
            (None, None) => return None,
            (Some((one, _)), None) => *one,
            (None, Some((other, _))) => *other,
            (Some((one, _)), Some((other, _))) => *one.min(other),
        };
        let one = ones.next_if(|field| field.0 == number).map(|field| &field.1);
        let other = others.next_if(|field| field.0 == number).map(|field| &field.1);
        Some((number, one, other))
    })
}

#[cfg(test)]
mod tests;
