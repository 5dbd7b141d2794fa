use guantong_proto::rules::fields;

use super::*;
use crate::record::{Register, raw};
use crate::schema::Schema;
use crate::stamp::{Stamp, Writer};

/// 2026-01-15, noon in Beijing.
const NOW_MS: u64 = 1_768_449_600_000;
const TOWNSHIP: &str = "220822101";
const GRID: &str = "220822101000001";
const CAMERA: &str = "22082200001310000001";

fn at(code: &str) -> Division {
    Division::parse(code).unwrap()
}

/// A record that is written in steps, each judged as a write of its own.
struct Desk {
    schema: Schema,
    kind: &'static str,
    home: Division,
    id: String,
    own: Division,
    divisions: Divisions,
    record: Record,
    clock: u64,
}

type Judged = Result<(), Vec<Violation>>;

impl Desk {
    fn new(kind: &'static str, home: &str, id: &str) -> Desk {
        Desk {
            schema: Schema::current(),
            kind,
            home: at(home),
            id: id.into(),
            own: at(home),
            divisions: Divisions::embedded(),
            record: Record::default(),
            clock: NOW_MS - 1_000,
        }
    }

    fn own(mut self, own: &str) -> Desk {
        self.own = at(own);
        self
    }

    /// Writes a message's fields over what is shown, and clears some; kept if nothing is wrong.
    fn write(&mut self, writer: &str, message: &impl Message, cleared: &[FieldNumber]) -> Judged {
        let mut pieces = raw::split(&message.encode_to_vec().into()).unwrap();
        pieces.extend(cleared.iter().map(|field| (*field, Bytes::new())));
        self.clock += 1;
        let writer = Writer { division: at(writer), id: 1 };
        let mut after = self.record.clone();
        for (field, value) in &pieces {
            let mut register = after.get(*field).cloned().unwrap_or_default();
            let replaced: Vec<_> = register.live().map(|(e, _)| (e.writer, e.stamp)).collect();
            crate::merge::write(&mut register, writer, Stamp::from_ms(self.clock), value.clone(), &replaced);
            after.set(*field, register);
        }
        let written: Vec<FieldNumber> = pieces.iter().map(|p| p.0).collect();
        self.judge(writer.division, &after, &written)?;
        self.record = after;
        Ok(())
    }

    fn judge(&self, writer: Division, after: &Record, written: &[FieldNumber]) -> Judged {
        check(&Subject {
            kind: self.schema.kind_named(self.kind).unwrap(),
            home: self.home,
            id: &self.id,
            before: &self.record,
            after,
            written,
            writer,
            own: self.own,
            divisions: &self.divisions,
            now_ms: NOW_MS,
            drift_ms: 300_000,
        })
    }
}

/// The fields to blame, and that every message names its field.
fn blamed(judged: Judged) -> Vec<FieldNumber> {
    let violations = judged.unwrap_err();
    for violation in &violations {
        let detail = violation.detail();
        assert!(detail.contains(" (") && detail.contains("): "), "{detail}");
        assert!(!detail.contains("张三") && !detail.contains("13800000000"), "{detail}");
    }
    violations.iter().map(Violation::field).collect()
}

fn date(year: i32, month: i32, day: i32) -> Option<v1::Date> {
    Some(v1::Date { year, month, day })
}

fn grid() -> v1::Grid {
    v1::Grid {
        grid_code: Some(GRID.into()),
        division: Some("220822101000".into()),
        state: Some(v1::ActiveState::Active as i32),
        contact: Some(v1::Contact { name: "张三".into(), telephone: "13800000000".into() }),
        ..v1::Grid::default()
    }
}

mod grids {
    use super::*;
    use fields::grid as f;

    fn write(grid: &v1::Grid) -> Judged {
        Desk::new("grid", TOWNSHIP, GRID).write(TOWNSHIP, grid, &[])
    }

    fn coded(code: &str) -> Judged {
        let grid = v1::Grid { grid_code: Some(code.into()), ..grid() };
        Desk::new("grid", TOWNSHIP, code).write(TOWNSHIP, &grid, &[])
    }

    #[test]
    fn a_good_grid_goes_in_and_keeps_its_code() {
        let mut desk = Desk::new("grid", TOWNSHIP, GRID);
        assert_eq!(desk.write(TOWNSHIP, &grid(), &[]), Ok(()));
        let other = v1::Grid { grid_code: Some("220822101000002".into()), ..v1::Grid::default() };
        assert_eq!(blamed(desk.write(TOWNSHIP, &other, &[])), [f::GRID_CODE]);
        assert_eq!(blamed(desk.write(TOWNSHIP, &v1::Grid::default(), &[f::GRID_CODE])), [f::GRID_CODE]);
        let unnamed = v1::Grid { grid_code: None, ..grid() };
        assert_eq!(blamed(Desk::new("grid", TOWNSHIP, "g1").write(TOWNSHIP, &unnamed, &[])), [f::GRID_CODE]);
    }

    #[test]
    fn the_code_lies_in_home_and_scope() {
        for wrong in ["22082210100001", "2208221010000011", "22082210100000x", "220822102000001", "220822000000001"] {
            assert_eq!(blamed(coded(wrong)), [f::GRID_CODE], "{wrong}");
        }
        let mut of_county = Desk::new("grid", "220822", GRID);
        assert_eq!(of_county.write("220822", &grid(), &[]), Ok(()));
        let mut other_writer = Desk::new("grid", "220822", GRID);
        assert_eq!(blamed(other_writer.write("220822102", &grid(), &[])), [f::GRID_CODE]);
    }

    #[test]
    fn a_village_that_is_not_known_is_held_until_it_is() {
        let village = "220822101201";
        let code = format!("{village}001");
        let unknown = coded(&code).unwrap_err();
        let [Violation::UnknownDivision { field, division, detail }] = &unknown[..] else {
            panic!("{unknown:?}");
        };
        assert_eq!((*field, *division), (f::GRID_CODE, at(village)));
        assert!(detail.contains(village) && detail.contains("网格编码 (grid_code)"));
        let mut desk = Desk::new("grid", TOWNSHIP, &code);
        let entry = crate::division::DivisionEntry { code: at(village), name: "某村".into(), active: true };
        desk.divisions.insert(entry);
        let grid = v1::Grid { grid_code: Some(code), ..grid() };
        assert_eq!(desk.write(TOWNSHIP, &grid, &[]), Ok(()));
    }

    #[test]
    fn the_division_lies_inside_the_home() {
        for wrong in ["220822102000", "220822101", "22082210100x", ""] {
            let grid = v1::Grid { division: Some(wrong.into()), ..grid() };
            assert_eq!(blamed(write(&grid)), [f::DIVISION], "{wrong}");
        }
    }

    #[test]
    fn a_retired_grid_says_since_when() {
        let retired = v1::Grid { state: Some(v1::ActiveState::Retired as i32), ..grid() };
        assert_eq!(blamed(write(&retired)), [f::VALID_TO]);
        let mut desk = Desk::new("grid", TOWNSHIP, GRID);
        assert_eq!(desk.write(TOWNSHIP, &v1::Grid { valid_to: date(2026, 2, 1), ..retired }, &[]), Ok(()));
        assert_eq!(blamed(desk.write(TOWNSHIP, &v1::Grid::default(), &[f::VALID_TO])), [f::VALID_TO]);
        let late = v1::Grid { valid_from: date(2026, 2, 2), ..v1::Grid::default() };
        assert_eq!(blamed(desk.write(TOWNSHIP, &late, &[])), [f::VALID_FROM], "who writes it is told");
        let same = v1::Grid { valid_from: date(2026, 2, 1), ..v1::Grid::default() };
        assert_eq!(desk.write(TOWNSHIP, &same, &[]), Ok(()));
        let no_day = v1::Grid { valid_from: date(2026, 2, 30), ..grid() };
        assert_eq!(blamed(write(&no_day)), [f::VALID_FROM]);
    }

    #[test]
    fn boundaries_are_closed_polygons_in_the_country() {
        let bounded = |text: &str| write(&v1::Grid { boundary: Some(text.into()), ..grid() });
        let good = r#"{"type":"Polygon","coordinates":[[[123.1,44.8],[123.2,44.8],[123.2,44.9,150],[123.1,44.8]]]}"#;
        assert_eq!(bounded(good), Ok(()));
        for wrong in [
            "",
            "POLYGON((1 2))",
            r#"{"type":"Polygon","coordinates":[]}"#,
            r#"{"type":"Point","coordinates":[123.1,44.8]}"#,
            r#"{"type":"MultiPolygon","coordinates":[[[123.1,44.8],[123.2,44.8],[123.2,44.9],[123.1,44.8]]]}"#,
            r#"{"type":"Polygon","coordinates":[[[123.1,44.8],[123.2,44.8],[123.2,44.9],[123.1,44.9]]]}"#,
            r#"{"type":"Polygon","coordinates":[[[123.1,44.8],[123.2,44.8],[123.1,44.8]]]}"#,
            r#"{"type":"Polygon","coordinates":[[[44.8,123.1],[44.8,123.2],[44.9,123.2],[44.8,123.1]]]}"#,
            r#"{"type":"Polygon","coordinates":[[[123.1],[123.2],[123.2],[123.1]]]}"#,
            r#"{"type":"Polygon","coordinates":[[]]}"#,
        ] {
            assert_eq!(blamed(bounded(wrong)), [f::BOUNDARY], "{wrong}");
        }
        let deep = "[".repeat(60_000);
        assert_eq!(blamed(bounded(&deep)), [f::BOUNDARY]);
    }

    #[test]
    fn everything_wrong_is_named_at_once() {
        let wrong = v1::Grid {
            households: Some(-1),
            residents: Some(-1),
            staffing: Some(v1::Staffing { chiefs: Some(1), part_time_members: Some(-2), ..Default::default() }),
            centroid: Some(v1::LngLat { longitude: f64::NAN, latitude: 44.0 }),
            ..grid()
        };
        assert_eq!(blamed(write(&wrong)), [f::CENTROID, f::HOUSEHOLDS, f::RESIDENTS, f::STAFFING]);
    }
}

mod cases {
    use super::*;
    use fields::case as f;
    use v1::CaseState::{Accepted, Concluded, Reported, Verified};

    fn stands(state: v1::CaseState, holder: &str) -> Option<v1::Lifecycle> {
        let holder = at(holder).to_string();
        Some(v1::Lifecycle { state: state as i32, holder, unit: "police".into(), ..Default::default() })
    }

    fn case() -> v1::Case {
        v1::Case {
            category: Some("land".into()),
            division: Some("220822101201".into()),
            received_on: date(2026, 1, 10),
            title: Some("张三 13800000000".into()),
            ..v1::Case::default()
        }
    }

    fn desk() -> Desk {
        Desk::new("case", TOWNSHIP, "c1")
    }

    fn write(case: &v1::Case) -> Judged {
        desk().write(TOWNSHIP, case, &[])
    }

    #[test]
    fn dates_are_in_order_and_not_in_the_future() {
        let dated = |occurred, received, due| {
            let (occurred_on, received_on, due_on) = (occurred, received, due);
            write(&v1::Case { occurred_on, received_on, due_on, ..case() })
        };
        assert_eq!(dated(date(2026, 1, 9), date(2026, 1, 15), date(2026, 3, 1)), Ok(()));
        assert_eq!(blamed(dated(date(2026, 1, 11), date(2026, 1, 10), None)), [f::RECEIVED_ON]);
        assert_eq!(blamed(dated(None, date(2026, 1, 16), None)), [f::RECEIVED_ON]);
        assert_eq!(blamed(dated(date(2026, 1, 16), None, None)), [f::OCCURRED_ON]);
        assert_eq!(blamed(dated(None, date(2026, 1, 10), date(2026, 1, 9))), [f::DUE_ON]);
        assert_eq!(blamed(dated(None, date(2026, 13, 1), None)), [f::RECEIVED_ON]);
        let mut later = desk();
        assert_eq!(later.write(TOWNSHIP, &case(), &[]), Ok(()));
        let due = v1::Case { due_on: date(2026, 1, 9), ..v1::Case::default() };
        assert_eq!(blamed(later.write(TOWNSHIP, &due, &[])), [f::DUE_ON], "beside what is there");
    }

    #[test]
    fn codes_counts_and_names() {
        let grid_code = |code: &str| write(&v1::Case { grid_code: Some(code.into()), ..case() });
        assert_eq!(grid_code("220822101201001"), Ok(()), "a village need not be known");
        assert_eq!(blamed(grid_code("220822102201001")), [f::GRID_CODE]);
        assert_eq!(blamed(grid_code("网格一二三四")), [f::GRID_CODE]);
        for category in ["", "a b", &"x".repeat(65)] {
            assert_eq!(blamed(write(&v1::Case { category: Some(category.into()), ..case() })), [f::CATEGORY]);
        }
        assert_eq!(write(&v1::Case { category: Some("不认识的类别".into()), ..case() }), Ok(()));
        let counts = v1::Case { involved_count: Some(-1), amount_yuan: Some(-1), ..case() };
        assert_eq!(blamed(write(&counts)), [f::INVOLVED_COUNT, f::AMOUNT_YUAN]);
        let of = |name: &str| write(&v1::Case { duplicate_of: Some(name.into()), ..case() });
        assert_eq!(of("divisions/220822000000/cases/c1"), Ok(()));
        for wrong in ["c2", "divisions/220822/cases/c2", "divisions/220822000000/grids/c2", "divisions/220822101000/cases/c1"]
        {
            assert_eq!(blamed(of(wrong)), [f::DUPLICATE_OF], "{wrong}");
        }
    }

    #[test]
    fn the_first_write_may_carry_any_state_and_later_ones_are_judged() {
        let mut desk = desk();
        let loaded = v1::Case {
            lifecycle: stands(Accepted, TOWNSHIP),
            mediator: Some(v1::Contact { name: "张三".into(), telephone: "13800000000".into() }),
            supervision: Some(v1::Supervision { by: "220000000000".into(), ..Default::default() }),
            ..case()
        };
        assert_eq!(desk.write(TOWNSHIP, &loaded, &[]), Ok(()));
        let only = |lifecycle| v1::Case { lifecycle, ..v1::Case::default() };
        let skipped = desk.write(TOWNSHIP, &only(stands(Verified, TOWNSHIP)), &[]);
        assert!(skipped.clone().unwrap_err()[0].detail().contains("conclude 办结"));
        assert_eq!(blamed(skipped), [f::LIFECYCLE]);
        assert_eq!(blamed(desk.write("220822", &only(stands(Concluded, TOWNSHIP)), &[])), [f::LIFECYCLE]);
        assert_eq!(blamed(desk.write(TOWNSHIP, &v1::Case::default(), &[f::LIFECYCLE])), [f::LIFECYCLE]);
        assert_eq!(desk.write(TOWNSHIP, &only(stands(Concluded, TOWNSHIP)), &[]), Ok(()));
        let bad = v1::Case { lifecycle: Some(v1::Lifecycle::default()), ..case() };
        assert_eq!(blamed(write(&bad)), [f::LIFECYCLE]);
    }

    #[test]
    fn what_is_written_beside_a_shown_value_is_judged_too() {
        let mut desk = desk();
        assert_eq!(desk.write(TOWNSHIP, &v1::Case { lifecycle: stands(Reported, "220822"), ..case() }, &[]), Ok(()));
        let taken = v1::Case { lifecycle: stands(Accepted, "220822"), ..v1::Case::default() };
        assert_eq!(desk.write("220822", &taken, &[]), Ok(()));
        let mut register = desk.record.get(f::LIFECYCLE).unwrap().clone();
        let mine = v1::Case { lifecycle: stands(Concluded, TOWNSHIP), ..v1::Case::default() };
        let writer = Writer { division: at(TOWNSHIP), id: 2 };
        crate::merge::write(&mut register, writer, Stamp::from_ms(NOW_MS), mine.encode_to_vec().into(), &[]);
        let mut after = desk.record.clone();
        after.set(f::LIFECYCLE, register);
        assert_eq!(blamed(desk.judge(at(TOWNSHIP), &after, &[f::LIFECYCLE])), [f::LIFECYCLE]);
    }

    #[test]
    fn the_holder_writes_what_is_the_holders() {
        let mut desk = desk().own("220822102");
        let held = v1::Case { lifecycle: stands(Accepted, "220822102"), ..case() };
        desk.own = at(TOWNSHIP);
        assert_eq!(desk.write(TOWNSHIP, &held, &[]), Ok(()));
        let result = v1::Case {
            outcome: Some(v1::Outcome { succeeded: Some(true), ..Default::default() }),
            mediator: Some(v1::Contact { name: "张三".into(), ..Default::default() }),
            reply: Some(v1::Reply { text: "张三".into(), ..Default::default() }),
            ..v1::Case::default()
        };
        assert_eq!(blamed(desk.write(TOWNSHIP, &result, &[])), [f::OUTCOME, f::MEDIATOR, f::REPLY]);
        desk.own = at("220822102");
        assert_eq!(desk.write("220822102", &result, &[]), Ok(()));
        let note = v1::CaseNote { id: "n".into(), text: "张三".into(), ..Default::default() };
        assert_eq!(desk.write("220822102", &v1::Case { notes: vec![note], ..Default::default() }, &[]), Ok(()));
        let title = v1::Case { title: Some("张三".into()), ..v1::Case::default() };
        assert_eq!(blamed(desk.write("220822102", &title, &[])), [f::TITLE], "not the home");
        desk.own = at("220822");
        assert_eq!(desk.write("220822102", &title, &[]), Ok(()), "by a node over both");
        let tomorrow = v1::Outcome { concluded_on: date(2026, 1, 16), ..Default::default() };
        let early = v1::Case { outcome: Some(tomorrow), ..v1::Case::default() };
        assert_eq!(blamed(desk.write("220822102", &early, &[])), [f::OUTCOME]);
    }

    #[test]
    fn those_above_the_holder_supervise_and_the_county_seals() {
        let mut desk = desk();
        assert_eq!(desk.write(TOWNSHIP, &v1::Case { lifecycle: stands(Accepted, TOWNSHIP), ..case() }, &[]), Ok(()));
        desk.own = at("22");
        let press = v1::Case {
            supervision: Some(v1::Supervision { by: "220822000000".into(), ..Default::default() }),
            ..v1::Case::default()
        };
        assert_eq!(blamed(desk.write(TOWNSHIP, &press, &[])), [f::SUPERVISION]);
        assert_eq!(blamed(desk.write("220821", &press, &[])), [f::SUPERVISION]);
        assert_eq!(desk.write("2208", &press, &[]), Ok(()));
        let seal = v1::Case { sealed: Some(true), ..v1::Case::default() };
        assert_eq!(blamed(desk.write("220822", &seal, &[])), [f::SEALED], "not ended");
        let state = |state| v1::Case { lifecycle: stands(state, TOWNSHIP), ..v1::Case::default() };
        assert_eq!(desk.write(TOWNSHIP, &state(Concluded), &[]), Ok(()));
        assert_eq!(desk.write(TOWNSHIP, &state(Verified), &[]), Ok(()));
        assert_eq!(blamed(desk.write("2208", &seal, &[])), [f::SEALED], "not the county");
        assert_eq!(desk.write("220822", &seal, &[]), Ok(()));
    }

    #[test]
    fn where_there_is_no_county_the_prefecture_seals() {
        let mut desk = Desk::new("case", "441900003", "c1").own("4419");
        let ended = v1::Case { lifecycle: stands(Verified, "441900003"), ..v1::Case::default() };
        assert_eq!(desk.write("441900003", &ended, &[]), Ok(()));
        let seal = v1::Case { sealed: Some(true), ..v1::Case::default() };
        assert_eq!(desk.write("4419", &seal, &[]), Ok(()));
    }

    #[test]
    fn bytes_that_are_no_encoding_are_named() {
        let desk = desk();
        let mut after = Record::default();
        let writer = Writer { division: at(TOWNSHIP), id: 1 };
        // A title that is not UTF-8, and a lifecycle whose holder is a number.
        let title = Bytes::from_static(&[0x62, 2, 0xff, 0xfe]);
        let lifecycle = Bytes::from_static(&[0x92, 0x01, 2, 0x10, 1]);
        after.set(f::TITLE, Register::single(writer, Stamp::from_ms(1), title));
        after.set(f::LIFECYCLE, Register::single(writer, Stamp::from_ms(1), lifecycle));
        let judged = desk.judge(at(TOWNSHIP), &after, &[f::TITLE, f::LIFECYCLE]);
        assert!(blamed(judged).starts_with(&[f::TITLE, f::LIFECYCLE]));
    }
}

mod cameras {
    use super::*;
    use fields::camera as f;

    fn camera(ownership: v1::CameraOwnership) -> v1::Camera {
        v1::Camera {
            device_id: Some(CAMERA.into()),
            division: Some("220822101000".into()),
            ownership: Some(ownership as i32),
            location: Some(v1::LngLat { longitude: 123.1, latitude: 44.8 }),
            retention_days: Some(90),
            ..v1::Camera::default()
        }
    }

    fn social() -> v1::Camera {
        camera(v1::CameraOwnership::Social)
    }

    fn desk() -> Desk {
        Desk::new("camera", TOWNSHIP, CAMERA)
    }

    fn seen(offset_ms: i64) -> v1::Camera {
        let ms = NOW_MS as i64 + offset_ms;
        let time = prost_types::Timestamp { seconds: ms / 1_000, nanos: (ms % 1_000 * 1_000_000) as i32 };
        let status = v1::CameraStatus { state: v1::CameraState::On as i32, observe_time: Some(time) };
        v1::Camera { status: Some(status), ..v1::Camera::default() }
    }

    #[test]
    fn the_code_is_one_of_a_camera() {
        assert_eq!(desk().write(TOWNSHIP, &social(), &[]), Ok(()));
        for wrong in ["2208220000131000001", "22082200001110000001", "2208220000131000000x", "网网网网网网网网网网"] {
            let camera = v1::Camera { device_id: Some(wrong.into()), ..social() };
            let mut desk = Desk::new("camera", TOWNSHIP, wrong);
            assert_eq!(blamed(desk.write(TOWNSHIP, &camera, &[])), [f::DEVICE_ID], "{wrong}");
        }
        let mut other = Desk::new("camera", TOWNSHIP, "22082200001310000002");
        assert_eq!(blamed(other.write(TOWNSHIP, &social(), &[])), [f::DEVICE_ID]);
    }

    #[test]
    fn places_days_and_counts() {
        let swapped = Some(v1::LngLat { longitude: 44.8, latitude: 123.1 });
        let wrong = v1::Camera {
            location: swapped,
            retention_days: Some(-1),
            division: Some("220822102000".into()),
            installed_on: date(2023, 2, 29),
            filing: Some(v1::Filing { filed_on: date(0, 0, 0), ..Default::default() }),
            ..social()
        };
        let all = [f::DIVISION, f::LOCATION, f::INSTALLED_ON, f::FILING, f::RETENTION_DAYS];
        assert_eq!(blamed(desk().write(TOWNSHIP, &wrong, &[])), all);
    }

    #[test]
    fn a_township_node_writes_social_cameras_only() {
        let public = camera(v1::CameraOwnership::Public);
        assert_eq!(blamed(desk().write(TOWNSHIP, &public, &[])).len(), 1);
        let mut acting = desk().own("220822");
        assert_eq!(acting.write(TOWNSHIP, &public, &[]), Ok(()), "the county acts for the township");
        let mut desk = desk().own("220822");
        assert_eq!(desk.write("220822", &public, &[]), Ok(()));
        desk.own = at(TOWNSHIP);
        let name = v1::Camera { display_name: Some("路口".into()), ..v1::Camera::default() };
        assert_eq!(blamed(desk.write(TOWNSHIP, &name, &[])), [f::DISPLAY_NAME]);
        let taken = v1::Camera { ownership: social().ownership, ..v1::Camera::default() };
        assert_eq!(blamed(desk.write(TOWNSHIP, &taken, &[])), [f::OWNERSHIP]);
        assert_eq!(desk.write(TOWNSHIP, &seen(-1_000), &[]), Ok(()), "what it was seen to do");
    }

    #[test]
    fn observations_come_in_their_order() {
        let mut desk = desk();
        assert_eq!(desk.write(TOWNSHIP, &social(), &[]), Ok(()));
        assert_eq!(blamed(desk.write(TOWNSHIP, &seen(300_001), &[])), [f::STATUS]);
        assert_eq!(desk.write(TOWNSHIP, &seen(0), &[]), Ok(()));
        assert_eq!(blamed(desk.write(TOWNSHIP, &seen(-1), &[])), [f::STATUS]);
        assert_eq!(desk.write(TOWNSHIP, &seen(0), &[]), Ok(()));
        let timeless = v1::Camera { status: Some(v1::CameraStatus::default()), ..v1::Camera::default() };
        assert_eq!(blamed(desk.write(TOWNSHIP, &timeless, &[])), [f::STATUS]);
        assert_eq!(desk.write(TOWNSHIP, &v1::Camera::default(), &[f::STATUS]), Ok(()), "cleared");
        assert_eq!(desk.write(TOWNSHIP, &seen(-1), &[]), Ok(()), "nothing is shown");
    }
}

mod divisions {
    use super::*;
    use fields::division as f;

    fn write(home: &str, code: &str, writer: &str) -> Judged {
        let division = v1::Division { code: Some(code.into()), ..v1::Division::default() };
        Desk::new("division", home, code).own("22").write(writer, &division, &[])
    }

    #[test]
    fn a_division_belongs_to_the_one_above() {
        assert_eq!(write(TOWNSHIP, "220822101201", TOWNSHIP), Ok(()));
        assert_eq!(write("220822", "220822999000", "22"), Ok(()));
        assert_eq!(write("4419", "441900999000", "4419"), Ok(()), "no county between");
        assert_eq!(write("11", "110101000000", "11"), Ok(()), "no prefecture either");
        assert_eq!(write("1101", "110101000000", "11"), Ok(()), "by its digits");
        assert_eq!(blamed(write("2208", "220822101000", "2208")), [f::CODE]);
        assert_eq!(blamed(write("220821", "220822101000", "220821")), [f::CODE]);
        assert_eq!(blamed(write("22", "220000000000", "22")), [f::CODE]);
        assert_eq!(blamed(write("220822", "220822101", "220822")), [f::CODE]);
    }

    #[test]
    fn it_is_written_at_or_above_its_home() {
        assert_eq!(blamed(write("220822", "220822101000", TOWNSHIP)), [f::CODE]);
        let mut desk = Desk::new("division", "220822", "220822101000");
        let wrong = v1::Division {
            code: Some("220822101000".into()),
            previous_code: Some("220822".into()),
            valid_from: date(2024, 1, 2),
            valid_to: date(2024, 1, 1),
            ..v1::Division::default()
        };
        assert_eq!(blamed(desk.write("220822", &wrong, &[])), [f::PREVIOUS_CODE, f::VALID_TO]);
    }
}

#[test]
fn kinds_without_rules_pass() {
    let node = v1::Node { software_version: Some("1".into()), ..v1::Node::default() };
    assert_eq!(Desk::new("node", TOWNSHIP, "n").write(TOWNSHIP, &node, &[]), Ok(()));
}
