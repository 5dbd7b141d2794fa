//! Every enum of every kind, at any depth: its values pass, other numbers are named with their place.

use guantong_proto::rules::{Content, Enum, KINDS, Part};

use super::*;

/// An enum inside of a field: its path below the field, and the field's value with a number there.
struct Place {
    part: String,
    of: &'static Enum,
    value: Box<dyn Fn(i32) -> Vec<u8>>,
}

fn number_at(field: FieldNumber, number: i32) -> Vec<u8> {
    let mut out = Vec::new();
    raw::put_varint(&mut out, u64::from(field) << 3);
    raw::put_varint(&mut out, number as i64 as u64);
    out
}

/// The enums below a field or part with this number.
fn places(field: FieldNumber, repeated: bool, content: Content) -> Vec<Place> {
    let first = if repeated { "[0]" } else { "" };
    match content {
        Content::Plain => Vec::new(),
        Content::Enum(of) => {
            vec![Place { part: first.into(), of, value: Box::new(move |number| number_at(field, number)) }]
        }
        Content::Message(parts) => {
            let inside = |part: &Part| {
                let name = part.name;
                places(part.number, part.repeated, part.content).into_iter().map(move |place| {
                    let value = move |number| {
                        let mut out = Vec::new();
                        raw::put_message(&mut out, raw::message_tag(field), &(place.value)(number));
                        out
                    };
                    Place {
                        part: format!("{first}.{name}{}", place.part),
                        of: place.of,
                        value: Box::new(value),
                    }
                })
            };
            parts.iter().flat_map(inside).collect()
        }
    }
}

/// The parts of a field that are named when it is written with this value.
fn named(kind: &'static str, field: FieldNumber, value: Vec<u8>) -> Vec<String> {
    let mut after = Record::default();
    let writer = Writer { division: at(TOWNSHIP), id: 1 };
    after.set(field, Register::single(writer, Stamp::from_ms(1), value.into()));
    let violations =
        Desk::new(kind, TOWNSHIP, "1").judge(at(TOWNSHIP), &after, &[field]).err().unwrap_or_default();
    let unknown = violations.iter().filter(|v| matches!(v, Violation::UnknownValue { .. }));
    unknown.map(|v| format!("{}{}", v.field(), v.part())).collect()
}

#[test]
fn what_no_value_has_is_named_wherever_it_stands() {
    let mut seen = 0;
    for kind in KINDS {
        for field in kind.fields {
            for Place { part, of, value } in places(field.number, field.repeated, field.content) {
                seen += 1;
                for known in of.values {
                    assert!(named(kind.name, field.number, value(known.number)).is_empty(), "{}", known.name);
                }
                for unknown in [77, -1, i32::MAX] {
                    let wanted = vec![format!("{}{part}", field.number)];
                    assert_eq!(
                        named(kind.name, field.number, value(unknown)),
                        wanted,
                        "{} {unknown}",
                        kind.name
                    );
                }
            }
        }
    }
    assert!(seen >= 25, "{seen}");
}

#[test]
fn the_words_name_the_place_and_the_known_values() {
    let party = |role: i32| v1::Party { role, ..v1::Party::default() };
    let case = v1::Case { parties: vec![party(1), party(77)], ..v1::Case::default() };
    let judged = Desk::new("case", TOWNSHIP, "1").write(TOWNSHIP, &case, &[]).unwrap_err();
    assert_eq!((judged.len(), judged[0].part()), (1, "[1].role"));
    let detail = judged[0].detail();
    assert!(detail.starts_with(
        "当事人 (parties[1].role): 77 is no value of it; known are 1 PARTY_ROLE_APPLICANT 申请人, "
    ));
    // Of very many, some are named.
    let camera = v1::Camera { functions: vec![99; 1_000], ..v1::Camera::default() };
    let judged = Desk::new("camera", TOWNSHIP, CAMERA).write(TOWNSHIP, &camera, &[]).unwrap_err();
    assert_eq!(judged.iter().filter(|v| !v.part().is_empty()).count(), 5);
}

#[test]
fn a_number_of_more_than_32_bits_is_no_value_even_if_its_end_is_one() {
    let mut value = Vec::new();
    raw::put_varint(&mut value, u64::from(fields::case::RISK) << 3);
    raw::put_varint(&mut value, 0x1_0000_0001);
    assert_eq!(named("case", fields::case::RISK, value).len(), 1);
}
