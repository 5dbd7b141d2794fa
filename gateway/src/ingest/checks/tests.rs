//! Each rule of local writes, on records that are written as a local system would.

use guantong_proto::rules::fields;

use super::*;
use crate::record::{Register, raw};
use crate::schema::Schema;
use crate::stamp::{Stamp, Writer};

mod cameras;
mod cases;
mod grids;
mod submissions;
mod thresholds;
mod values;

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
    first: First,
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
            first: First::Anywhere,
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
            first: self.first,
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
