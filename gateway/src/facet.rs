//! What records are found by beside their names: values that a list may ask for, each as one number of a stretch that a
//! store can walk in order. Kept in the transaction that changes the record, from the difference before and after.
//!
//! A facet leads to candidates only: texts are hashed here, so whoever lists looks at the record too. Every facet costs
//! a row a record at every tier: cameras, the bulk of all records, have one only for what few of them carry.

use std::ops::RangeInclusive;

use guantong_proto::rules::fields;
use smallvec::SmallVec;

use crate::casework::OWN_UNIT;
use crate::division::Division;
use crate::record::Record;
use crate::record::reader::Reader;
use crate::schema::{Kind, KindId};

/// Which value of a record.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Facet {
    /// A number in another system, any kind.
    ExternalNumber,
    /// A camera's pole.
    Pole,
    /// Where a case stands.
    State,
    /// A case's category.
    Category,
    /// The division and unit that hold a case.
    Holder,
    /// The division that holds a case, or that a hand-over waits for, where it does not contain the home: lists of that
    /// division show the case, too.
    Handed,
}

/// One value that a record is found by.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct FacetValue {
    /// Which facet of which kind, as one number.
    pub facet: i64,
    /// The value.
    pub value: i64,
}

/// The values of one record, ascending, each once.
pub type FacetValues = SmallVec<[FacetValue; 4]>;

/// Room for units below a holder's code.
const UNIT_BITS: u32 = 16;

impl Facet {
    /// The number of this facet of a kind, as it is stored.
    pub const fn number(self, kind: KindId) -> i64 {
        let facet = match self {
            Facet::ExternalNumber => 1,
            Facet::Pole => 2,
            Facet::State => 3,
            Facet::Category => 4,
            Facet::Holder => 5,
            Facet::Handed => 6,
        };
        (kind.0 as i64) << 8 | facet
    }
}

/// The number of a text.
pub fn of_text(text: &str) -> i64 {
    let hash = blake3::hash(text.as_bytes());
    let mut first = [0; 8];
    first.copy_from_slice(&hash.as_bytes()[..8]);
    i64::from_le_bytes(first)
}

/// The number of a number in another system.
pub fn of_external(system: &str, number: &str) -> i64 {
    of_text(&format!("{system}:{number}"))
}

/// The number of a holder with its unit.
pub fn of_holder(holder: Division, unit: &str) -> i64 {
    (holder.code() as i64) << UNIT_BITS | unit_bits(unit)
}

/// The numbers of all holders in a scope, with any unit.
pub fn of_holders(scope: Division) -> RangeInclusive<i64> {
    (scope.code() as i64) << UNIT_BITS..=(scope.last_code() as i64) << UNIT_BITS | ((1 << UNIT_BITS) - 1)
}

fn unit_bits(unit: &str) -> i64 {
    let unit = if unit.is_empty() { OWN_UNIT } else { unit };
    of_text(unit) & ((1 << UNIT_BITS) - 1)
}

/// The values that a record is found by.
pub fn facets_of(kind: &Kind, home: Division, record: &Record) -> FacetValues {
    let mut found = FacetValues::new();
    if record.is_empty() {
        return found;
    }
    let reader = Reader { kind, home, record };
    let mut add = |facet: Facet, value: i64| found.push(FacetValue { facet: facet.number(kind.id), value });
    for (system, number) in reader.external_numbers() {
        add(Facet::ExternalNumber, of_external(&system, &number));
    }
    match kind.rule.name {
        "camera" => {
            let pole = reader.text(fields::camera::POLE_CODE).filter(|pole| !pole.is_empty());
            pole.into_iter().for_each(|pole| add(Facet::Pole, of_text(&pole)));
        }
        "case" => case(&reader, &mut add),
        _ => {}
    }
    found.sort_unstable();
    found.dedup();
    found
}

fn case(reader: &Reader<'_>, add: &mut impl FnMut(Facet, i64)) {
    use fields::case as f;
    if let Some(category) = reader.text(f::CATEGORY).filter(|category| !category.is_empty()) {
        add(Facet::Category, of_text(&category));
    }
    // Numbers of the parts of `Lifecycle`: state 1, holder 2, unit 3, pending_to 6.
    add(Facet::State, reader.part_number(f::LIFECYCLE, 1).unwrap_or(0) as i64);
    if let Some(holder) = holder(reader) {
        add(Facet::Holder, of_holder(holder, &unit(reader)));
    }
    for division in [holder(reader), addressed(reader)].into_iter().flatten() {
        if !division.contains(reader.home) {
            add(Facet::Handed, of_holder(division, ""));
        }
    }
}

/// The division that holds a case.
pub fn holder(case: &Reader<'_>) -> Option<Division> {
    Division::parse(&case.part_text(fields::case::LIFECYCLE, 2)?).ok()
}

/// The unit that holds a case; the division itself where none is named.
pub fn unit(case: &Reader<'_>) -> String {
    let unit = case.part_text(fields::case::LIFECYCLE, 3).filter(|unit| !unit.is_empty());
    unit.unwrap_or_else(|| OWN_UNIT.into())
}

/// The division that a hand-over waits for.
pub fn addressed(case: &Reader<'_>) -> Option<Division> {
    Division::parse(&case.part_text(fields::case::LIFECYCLE, 6)?).ok()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::record::{Register, raw};
    use crate::schema::Schema;
    use crate::stamp::{Stamp, Writer};
    use guantong_proto::v1;
    use prost::Message;

    fn division(code: &str) -> Division {
        Division::parse(code).unwrap()
    }

    fn facets(kind: &str, message: &impl Message) -> Vec<FacetValue> {
        let schema = Schema::current();
        let mut record = Record::default();
        let writer = Writer { division: division("220822101"), id: 1 };
        for (field, value) in raw::split(&message.encode_to_vec().into()).unwrap() {
            record.set(field, Register::single(writer, Stamp::from_ms(1), value));
        }
        facets_of(schema.kind_named(kind).unwrap(), division("220822101"), &record).to_vec()
    }

    fn values(of: Facet, found: &[FacetValue]) -> Vec<i64> {
        found.iter().filter(|f| f.facet & 0xff == of.number(KindId(0))).map(|f| f.value).collect()
    }

    fn held(holder: &str, unit: &str) -> v1::Case {
        let state = v1::CaseState::Accepted.into();
        let lifecycle =
            v1::Lifecycle { state, holder: holder.into(), unit: unit.into(), ..v1::Lifecycle::default() };
        v1::Case { lifecycle: Some(lifecycle), category: Some("land".into()), ..v1::Case::default() }
    }

    #[test]
    fn a_case_is_found_by_state_category_and_holder() {
        let found = facets("case", &held("220822101000", "police"));
        assert_eq!(values(Facet::State, &found), vec![v1::CaseState::Accepted as i64]);
        assert_eq!(values(Facet::Category, &found), vec![of_text("land")]);
        let holder = values(Facet::Holder, &found)[0];
        assert_eq!(holder, of_holder(division("220822101"), "police"));
        for scope in ["220822101", "220822", "22"] {
            assert!(of_holders(division(scope)).contains(&holder), "{scope}");
        }
        assert!(!of_holders(division("220822102")).contains(&holder));
        assert!(values(Facet::Handed, &found).is_empty(), "its home has it");
    }

    #[test]
    fn only_a_holder_that_does_not_contain_the_home_is_a_way_of_its_own() {
        let handed = |holder| values(Facet::Handed, &facets("case", &held(holder, ""))).len();
        assert_eq!((handed("220822000000"), handed("220822101000")), (0, 0));
        assert_eq!((handed("220822102000"), handed("220821000000")), (1, 1));
    }

    #[test]
    fn a_camera_without_pole_or_other_numbers_costs_no_row() {
        let camera =
            v1::Camera { device_id: Some("1".into()), connected: Some(true), ..v1::Camera::default() };
        assert!(facets("camera", &camera).is_empty());
        let (id, system, number) = ("市平台:7".into(), "市平台".into(), "7".into());
        let reference = v1::ExternalRef { id, system, number, ..v1::ExternalRef::default() };
        let camera = v1::Camera { pole_code: Some("A1".into()), external_refs: vec![reference], ..camera };
        let found = facets("camera", &camera);
        assert_eq!(values(Facet::Pole, &found), vec![of_text("A1")]);
        assert_eq!(values(Facet::ExternalNumber, &found), vec![of_external("市平台", "7")]);
    }
}
