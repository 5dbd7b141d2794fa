//! Lists as bytes: the keys of an outbox row, the hashes of a ledger's row, and the checksums of a link. Reading never trusts a length.

use std::collections::BTreeMap;

use super::StoreError;
use crate::ingest::changes::RecordKey;
use crate::proof::Sum;
use crate::record::FieldNumber;

/// Ascending keys, each as the difference from the one before.
pub(super) fn pack_keys(keys: &[RecordKey]) -> Vec<u8> {
    let mut packed = Vec::with_capacity(keys.len() + 8);
    let mut last = 0;
    for key in keys {
        put_varint(&mut packed, (key - last) as u64);
        last = *key;
    }
    packed
}

/// The keys of an outbox row.
pub(super) fn keys_of(mut packed: &[u8]) -> Result<Vec<RecordKey>, StoreError> {
    let mut keys = Vec::with_capacity(packed.len());
    let mut last: RecordKey = 0;
    while !packed.is_empty() {
        let step = take_varint(&mut packed).and_then(|step| RecordKey::try_from(step).ok());
        let next = step.and_then(|step| last.checked_add(step));
        last = next.ok_or_else(|| StoreError::unreadable("a row of the outbox"))?;
        keys.push(last);
    }
    Ok(keys)
}

/// Number and hash of each field.
pub(super) fn pack_hashes(hashes: &BTreeMap<FieldNumber, u64>) -> Vec<u8> {
    let mut packed = Vec::with_capacity(hashes.len() * 10);
    for (field, hash) in hashes {
        put_varint(&mut packed, u64::from(*field));
        packed.extend_from_slice(&hash.to_le_bytes());
    }
    packed
}

/// What `pack_hashes` made.
pub(super) fn hashes_of(mut packed: &[u8]) -> Result<BTreeMap<FieldNumber, u64>, StoreError> {
    let unreadable = || StoreError::unreadable("what a ledger's row brought");
    let mut hashes = BTreeMap::new();
    while !packed.is_empty() {
        let field =
            take_varint(&mut packed).and_then(|f| FieldNumber::try_from(f).ok()).ok_or_else(unreadable)?;
        let (hash, rest) = packed.split_first_chunk::<8>().ok_or_else(unreadable)?;
        hashes.insert(field, u64::from_le_bytes(*hash));
        packed = rest;
    }
    Ok(hashes)
}

/// Number and sum of each field.
pub(super) fn pack_sums(sums: &[(FieldNumber, Sum)]) -> Vec<u8> {
    let mut packed = Vec::with_capacity(sums.len() * 18);
    for (field, sum) in sums {
        put_varint(&mut packed, u64::from(*field));
        packed.extend_from_slice(&sum.to_bytes());
    }
    packed
}

/// What `pack_sums` made.
pub(super) fn sums_of(mut packed: &[u8]) -> Result<Vec<(FieldNumber, Sum)>, StoreError> {
    let unreadable = || StoreError::unreadable("checksums of a link");
    let mut sums: Vec<(FieldNumber, Sum)> = Vec::with_capacity(packed.len() / 17);
    while !packed.is_empty() {
        let field =
            take_varint(&mut packed).and_then(|f| FieldNumber::try_from(f).ok()).ok_or_else(unreadable)?;
        let (sum, rest) = packed.split_first_chunk::<16>().ok_or_else(unreadable)?;
        if sums.last().is_some_and(|last| last.0 >= field) {
            return Err(unreadable());
        }
        sums.push((field, Sum::from_bytes(*sum)));
        packed = rest;
    }
    Ok(sums)
}

/// Adds sums to others, both by ascending field; nothing stays of those that come to 0.
pub(super) fn add_sums(all: &mut Vec<(FieldNumber, Sum)>, added: &[(FieldNumber, Sum)]) {
    for (field, sum) in added {
        match all.binary_search_by_key(field, |held| held.0) {
            Ok(at) => all[at].1 = all[at].1 + *sum,
            Err(at) => all.insert(at, (*field, *sum)),
        }
    }
    all.retain(|(_, sum)| *sum != Sum::ZERO);
}

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn take_varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f).checked_shl(shift)?;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn keys_survive(keys in proptest::collection::btree_set(1..i64::MAX, 0..50)) {
            let keys: Vec<i64> = keys.into_iter().collect();
            prop_assert_eq!(keys_of(&pack_keys(&keys)).unwrap(), keys);
        }

        #[test]
        fn hashes_survive(hashes in proptest::collection::btree_map(any::<u32>(), any::<u64>(), 0..30)) {
            prop_assert_eq!(hashes_of(&pack_hashes(&hashes)).unwrap(), hashes);
        }

        #[test]
        fn sums_survive_and_add_up(
            one in proptest::collection::btree_map(0..9u32, 1..u128::MAX, 0..9),
            other in proptest::collection::btree_map(0..9u32, 1..u128::MAX, 0..9),
        ) {
            let list = |map: &BTreeMap<u32, u128>| -> Vec<_> { map.iter().map(|(f, s)| (*f, Sum(*s))).collect() };
            let (one, other) = (list(&one), list(&other));
            prop_assert_eq!(&sums_of(&pack_sums(&one)).unwrap(), &one);
            let mut all = one.clone();
            add_sums(&mut all, &other);
            let negated: Vec<_> = other.iter().map(|(f, s)| (*f, Sum::ZERO - *s)).collect();
            add_sums(&mut all, &negated);
            prop_assert_eq!(all, one);
        }

        #[test]
        fn garbage_is_refused_or_read_never_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = keys_of(&bytes);
            let _ = hashes_of(&bytes);
            let _ = sums_of(&bytes);
        }
    }

    #[test]
    fn a_run_of_keys_costs_a_byte_each() {
        let keys: Vec<i64> = (1_000_000..1_001_000).collect();
        assert!(pack_keys(&keys).len() < 1_010);
    }
}
