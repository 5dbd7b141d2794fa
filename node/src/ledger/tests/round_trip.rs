//! What is exported imports again as the same bytes, in both languages; and through JSON.

use std::io::Cursor;

use guantong_proto::codes::{CATEGORIES, UNITS};
use guantong_proto::v1;
use proptest::collection::vec;
use proptest::option::of;
use proptest::prelude::*;
use prost_reflect::prost::Message;

use super::super::*;

const SOURCE: &str = "台账A";

/// Text as people may write it, without outer blanks.
fn text() -> impl Strategy<Value = String> {
    "[=+@'\\-a-z0-9镇村，；、\"\\\\,;|/（）]([a-z 镇\n，；\\\\\"',=]{0,12}[a-z镇])?"
        .prop_filter("reads as a spreadsheet's mark for text", |text| !text.starts_with("=\""))
}

fn date() -> impl Strategy<Value = v1::Date> {
    (1900..2200, 1..=12, 1..=28).prop_map(|(year, month, day)| v1::Date { year, month, day })
}

fn time() -> impl Strategy<Value = prost_types::Timestamp> {
    (0i64..4_000_000_000, 0..1_000_000_000)
        .prop_map(|(seconds, nanos)| prost_types::Timestamp { seconds, nanos })
}

fn place() -> impl Strategy<Value = v1::LngLat> {
    (73.0..136.0, 3.0..54.0).prop_map(|(longitude, latitude)| v1::LngLat { longitude, latitude })
}

fn contact() -> impl Strategy<Value = v1::Contact> {
    (text(), text()).prop_map(|(name, telephone)| v1::Contact { name, telephone })
}

fn division() -> impl Strategy<Value = String> {
    (101u32..125, 0u32..300).prop_map(|(township, village)| format!("220822{township}{village:03}"))
}

fn reference(number: &str) -> v1::ExternalRef {
    let (id, system) = (format!("{SOURCE}:{number}"), SOURCE.to_owned());
    v1::ExternalRef { id, system, number: number.to_owned(), stamp: 0 }
}

prop_compose! {
    fn grid()(
        place_code in division(), serial in 0u32..1000, division in of(division()), display_name in of(text()),
        grid_type in of(1..=3), valid_from in of(date()), centroid in of(place()), households in of(0..i32::MAX),
        chiefs in of(0..9), full_time in of(0..9), contact in of(contact()), deleted in of(any::<bool>()),
        number in of(text()), end in of(1..=28),
    ) -> v1::Grid {
        v1::Grid {
            grid_code: Some(format!("{place_code}{serial:03}")),
            state: end.map(|_| v1::ActiveState::Retired as i32),
            valid_to: end.map(|day| v1::Date { year: 2199, month: 12, day }),
            boundary: end.map(|_| "{\"type\":\"Polygon\",\"coordinates\":[[[100,30],[101,30],[101,31],[100,30]]]}".into()),
            staffing: chiefs.or(full_time).map(|_| v1::Staffing { chiefs, full_time_members: full_time, part_time_members: None }),
            external_refs: number.iter().map(|number| reference(number)).collect(),
            division, display_name, grid_type, valid_from, centroid, households, contact, deleted,
            ..Default::default()
        }
    }
}

prop_compose! {
    fn lifecycle()(state in 1..=8, holder in division(), unit in 0..UNITS.len(), since in of(time()), reason in of(text()))
        -> v1::Lifecycle
    {
        let unit = UNITS[unit].code.to_owned();
        v1::Lifecycle { state, holder, unit, since, reason: reason.unwrap_or_default(), ..Default::default() }
    }
}

prop_compose! {
    fn party()(role in 0..=5, name in text(), telephone in of(text())) -> v1::Party {
        let role = if role == 5 { 9 } else { role };
        v1::Party { role, name, telephone: telephone.unwrap_or_default() }
    }
}

prop_compose! {
    fn case()(
        number in "[0-9a-z（）〔〕-]{1,20}", division in division(), category in 0..CATEGORIES.len(), risk in of(1..=4),
        received_on in of(date()), narrative in of(text()), parties in vec(party(), 0..4), amount_yuan in of(0..i64::MAX),
        lifecycle in of(lifecycle()), succeeded in of(any::<bool>()), concluded_on in of(date()), sealed in of(any::<bool>()),
        mediator in of(contact()),
    ) -> v1::Case {
        v1::Case {
            division: Some(division),
            category: Some(CATEGORIES[category].code.to_owned()),
            outcome: succeeded.map(|_| v1::Outcome { method: 2, succeeded, concluded_on, ..Default::default() }),
            external_refs: vec![reference(&number)],
            risk, received_on, narrative, parties, amount_yuan, lifecycle, sealed, mediator,
            ..Default::default()
        }
    }
}

prop_compose! {
    fn camera()(
        serial in 0u32..1_000_000, division in division(), ownership in 1..=2, functions in vec(prop_oneof![1..=5, Just(9)], 0..6),
        imaging in vec(1..=5, 0..3), location in of(place()), pole_code in of(text()), filed_on in of(date()),
        number in of(text()), connected in of(any::<bool>()), status in of((1..=4, time())), installed_on in of(date()),
    ) -> v1::Camera {
        let distinct = |values: Vec<i32>| {
            values.iter().enumerate().filter(|(i, v)| !values[..*i].contains(v)).map(|(_, v)| *v).collect::<Vec<_>>()
        };
        v1::Camera {
            device_id: Some(format!("22082200001320{serial:06}")),
            division: Some(division),
            ownership: Some(ownership),
            functions: distinct(functions),
            imaging: distinct(imaging),
            filing: filed_on.map(|date| v1::Filing { state: 3, number: number.unwrap_or_default(), filed_on: Some(date) }),
            status: status.map(|(state, at)| v1::CameraStatus { state, observe_time: Some(at) }),
            location, pole_code, connected, installed_on,
            ..Default::default()
        }
    }
}

/// Exports a record, imports it again, and does the same through JSON.
fn check(kind: &str, fields: &[u8]) -> Result<(), TestCaseError> {
    let name = format!("divisions/220822000000/{kind}s/x");
    for labels in [Labels::Chinese, Labels::English] {
        let csv = write_csv(kind, [(name.clone(), fields)], Vec::new(), labels).unwrap();
        let options = Options { crs: Some(Crs::Cgcs2000), ..Options::new(SOURCE) };
        let mut ledger = Ledger::open(kind, Cursor::new(&csv), options).unwrap();
        let left: Vec<_> =
            ledger.layout().left_out.iter().filter(|left| !left.reason.contains("nodes")).collect();
        prop_assert!(left.is_empty(), "{:?}", left);
        let outcome = ledger.next().unwrap().unwrap();
        let Outcome::Row(row) = outcome else {
            return Err(TestCaseError::fail(format!("{outcome:?}\n{}", String::from_utf8_lossy(&csv))));
        };
        prop_assert_eq!(&row.fields[..], fields, "{}", String::from_utf8_lossy(&csv));
        prop_assert!(ledger.next().is_none());
    }
    let json = record_to_json(kind, &name, fields).unwrap();
    let json = serde_json::from_str(&json.to_string()).unwrap();
    prop_assert_eq!(json_to_fields(kind, &json).unwrap(), (name, fields.to_vec()));
    prop_assert!(describe(kind, fields).is_ok());
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn grids(grid in grid()) {
        check("grid", &grid.encode_to_vec())?;
    }

    #[test]
    fn cases(case in case()) {
        check("case", &case.encode_to_vec())?;
    }

    #[test]
    fn cameras(camera in camera()) {
        check("camera", &camera.encode_to_vec())?;
    }
}

#[test]
fn json_is_canonical() {
    let case = v1::Case { amount_yuan: Some(5), risk: Some(1), ..Default::default() };
    let json = record_to_json("case", "divisions/220822101000/cases/a", &case.encode_to_vec()).unwrap();
    let expected = serde_json::json!({"name": "divisions/220822101000/cases/a", "risk": "CASE_RISK_RED", "amountYuan": "5"});
    assert_eq!(json, expected);
    let error = json_to_fields("case", &serde_json::json!({"identityNumber": "1"})).unwrap_err().to_string();
    assert!(error.contains("identityNumber"), "{error}");
}

#[test]
fn a_case_that_no_ledger_brought_is_exported_by_its_id() {
    let csv =
        write_csv("case", [("divisions/220822101000/cases/a1".to_owned(), b"")], Vec::new(), Labels::English);
    let csv = String::from_utf8(csv.unwrap()).unwrap();
    assert!(csv.lines().nth(1).unwrap().contains(",a1,"), "{csv}");
}
