//! Keys of records: 20 bits for the first six digits of the home county, 7 for the slot of the process that gave the key
//! out, 36 for its number. So no two processes give out the same key, keys of one county stand together, and a key says
//! on its own where a distributed database keeps its record.

use crate::division::Division;
use crate::ingest::changes::RecordKey;

/// Bits of a key's number.
pub(super) const NUMBER_BITS: u32 = 36;
const SLOT_BITS: u32 = 7;
/// What a county's code is divided by to leave six digits.
const BELOW_COUNTY: i64 = 1_000_000;

/// A new key.
pub(super) fn key(county: Division, slot: i64, number: i64) -> RecordKey {
    let county = county.county().code() as i64 / BELOW_COUNTY;
    county << (SLOT_BITS + NUMBER_BITS) | slot << NUMBER_BITS | number
}

/// The home county of all these records, as it is stored, if they share one.
pub(super) fn county_of_all(keys: &[RecordKey]) -> Option<i64> {
    let county = |key: &RecordKey| key >> (SLOT_BITS + NUMBER_BITS);
    let first = keys.first().map(county).filter(|county| *county > 0)?;
    keys.iter().all(|key| county(key) == first).then_some(first * BELOW_COUNTY)
}

/// Below the first and up to the last key that a record with its home in `scope` can have.
pub(super) fn keys_of_counties(scope: Division) -> (RecordKey, RecordKey) {
    let last = Division::from_code(scope.last_code()).unwrap_or(scope);
    (keys_of_county(scope).0, keys_of_county(last).1)
}

/// The same of one county; a prefecture or province stands for what is its own.
pub(super) fn keys_of_county(county: Division) -> (RecordKey, RecordKey) {
    (key(county, 0, 0) - 1, key(county, (1 << SLOT_BITS) - 1, (1 << NUMBER_BITS) - 1))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_key_says_its_county_and_slots_never_meet() {
        let greatest = (1 << NUMBER_BITS) - 1;
        for code in ["11", "4419", "220822", "659012", "99"] {
            let home = Division::parse(code).unwrap();
            let keys = [key(home, 0, 1), key(home, 0, greatest), key(home, 1, 1), key(home, 127, greatest)];
            assert!(keys.is_sorted_by(|a, b| 0 < *a && a < b), "{keys:?}");
            assert_eq!(county_of_all(&keys), Some(home.county().code() as i64));
        }
        for (code, homes) in [("22", ["22", "2208", "220899999"]), ("220822101", ["220822101"; 3])] {
            let (first, last) = keys_of_counties(Division::parse(code).unwrap());
            let keys = homes.map(|home| key(Division::parse(home).unwrap(), 127, 1));
            assert!(keys.iter().all(|key| first < *key && *key <= last), "{code}");
        }
        let [jilin, beijing] = ["22", "11"].map(|code| key(Division::parse(code).unwrap(), 0, 1));
        assert_eq!(county_of_all(&[jilin, beijing]), None);
        assert_eq!(county_of_all(&[]), None);
        assert_eq!(county_of_all(&[7]), None, "no county");
    }
}
