//! What is found, what is not, and that sorting finds what comparing all with all does.

use super::*;
use crate::division::Division;
use crate::record::{Record, Register};
use crate::schema::Schema;
use crate::stamp::{Stamp, Writer};
use proptest::prelude::*;

fn found(kind: &str, messages: &[&dyn Encoded], personal: bool) -> Vec<Found> {
    let schema = Schema::current();
    let (kind, home) = (schema.kind_named(kind).unwrap(), Division::parse("220822").unwrap());
    let writer = Writer { division: home, id: 1 };
    let mut sketches = Sketches::default();
    for (message, key) in messages.iter().zip(1..) {
        let mut record = Record::default();
        for (field, value) in raw::split(&message.bytes().into()).unwrap() {
            record.set(field, Register::single(writer, Stamp::from_ms(1), value));
        }
        let reader = Reader { kind, home, record: &record };
        match kind.rule.name {
            "camera" => sketches.camera(key, &reader),
            _ => sketches.case(key, &reader, personal),
        }
    }
    sketches.find().0
}

trait Encoded {
    fn bytes(&self) -> Vec<u8>;
}

impl<M: Message> Encoded for M {
    fn bytes(&self) -> Vec<u8> {
        self.encode_to_vec()
    }
}

fn camera(id: &str, east_m: f64, network: v1::SourceNetwork, function: v1::CameraFunction) -> v1::Camera {
    let longitude = 123.0 + east_m / (DEGREE_M * 44.8f64.to_radians().cos());
    v1::Camera {
        device_id: Some(id.into()),
        location: Some(v1::LngLat { longitude, latitude: 44.8 }),
        functions: vec![function.into()],
        source_network: Some(network.into()),
        ..v1::Camera::default()
    }
}

fn case(title: &str, day: i32, number: &str) -> v1::Case {
    v1::Case {
        title: Some(title.into()),
        division: Some("220822101000".into()),
        received_on: Some(v1::Date { year: 2026, month: 10, day }),
        external_refs: vec![v1::ExternalRef {
            id: number.into(),
            system: "12345".into(),
            number: number.into(),
            ..Default::default()
        }],
        parties: vec![v1::Party { name: "张甲".into(), telephone: "1380000".into(), ..Default::default() }],
        ..v1::Case::default()
    }
}

#[test]
fn a_device_under_two_homes_and_cameras_side_by_side_are_found() {
    use v1::CameraFunction::{Face, Vehicle};
    use v1::SourceNetwork::{Tianwang, Xueliang};
    let cameras: [v1::Camera; 6] = [
        camera("1", 0.0, Xueliang, Face),
        camera("1", 500.0, Xueliang, Face),
        camera("2", 9.0, Tianwang, Face),
        camera("3", 9.0, Tianwang, Vehicle),
        camera("4", 9.0, Xueliang, Face),
        v1::Camera { deleted: Some(true), ..camera("2", 1.0, Tianwang, Face) },
    ];
    let all: Vec<&dyn Encoded> = cameras.iter().map(|c| c as &dyn Encoded).collect();
    let found = found("camera", &all, false);
    let pairs: Vec<(Likeness, Vec<i64>)> = found.iter().map(|f| (f.likeness, f.keys.clone())).collect();
    // 3 and 4 stand at the same point as 2, one with another function, the other in the network of the first.
    assert_eq!(
        pairs,
        vec![
            (Likeness::DeviceId, vec![1, 2]),
            (Likeness::Nearby, vec![1, 3]),
            (Likeness::Nearby, vec![3, 5]),
        ]
    );
    assert!((found[1].distance_m - 9.0).abs() < 0.2, "{}", found[1].distance_m);
}

#[test]
fn cases_are_alike_by_number_title_or_party() {
    let other_party = |case: v1::Case| v1::Case { parties: vec![], ..case };
    let cases = [
        case("邻里 噪音！", 1, "A"),
        other_party(case("邻里噪音", 1, "B")),
        other_party(case("邻里噪音", 2, "A")),
        case("别的事", 1, "C"),
        v1::Case {
            duplicate_of: Some("divisions/220822101000/cases/1".into()), ..case("邻里噪音", 1, "A")
        },
    ];
    let all: Vec<&dyn Encoded> = cases.iter().map(|c| c as &dyn Encoded).collect();
    let pairs = |personal| -> Vec<(Likeness, Vec<i64>)> {
        found("case", &all, personal).into_iter().map(|f| (f.likeness, f.keys)).collect()
    };
    let plain = vec![(Likeness::ExternalNumber, vec![1, 3]), (Likeness::Title, vec![1, 2])];
    assert_eq!(pairs(false), plain, "what says something about persons is not looked at");
    assert_eq!(pairs(true), [plain, vec![(Likeness::Party, vec![1, 4])]].concat());
}

proptest! {
    #[test]
    fn sorting_finds_what_comparing_all_with_all_finds(
        places in proptest::collection::vec((0i64..600, 0i64..600, 1u8..4), 0..40)
    ) {
        let mut points: Vec<Point> = places
            .iter()
            .zip(1..)
            .map(|((x, y, network), key)| Point {
                key,
                longitude: 123_000_000 + x,
                latitude: 44_800_000 + y,
                functions: 2,
                network: *network,
                device: key,
            })
            .collect();
        let mut expected: Vec<Vec<i64>> = Vec::new();
        for (i, a) in points.iter().enumerate() {
            let near = |b: &&Point| a.network != b.network && distance_m(a, b) <= NEAR_M;
            expected.extend(points[i + 1..].iter().filter(near).map(|b| vec![a.key, b.key]));
        }
        let mut found = Vec::new();
        near(&mut points, &mut found);
        let mut found: Vec<Vec<i64>> = found.into_iter().map(|f| f.keys).collect();
        found.sort();
        expected.sort();
        prop_assert_eq!(found, expected);
    }
}
