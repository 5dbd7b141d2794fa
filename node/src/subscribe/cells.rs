//! A change as a row of its kind's table. Whatever comes is written as something: what cannot be a date or a text of a
//! database becomes empty or is mended, so that one record never holds up the others.

use guantong_proto::v1;
use prost_reflect::{DynamicMessage, FieldDescriptor, Kind as Type, MapKey, ReflectMessage, Value};
use serde_json::{Map, Value as Json};
use time::format_description::well_known::Rfc3339;
use time::{Date, Month, OffsetDateTime};

use super::columns::{About, Column, Shape, Source, Table};
use crate::ledger::contract;

/// Number of a Julian day at the start of Unix time.
const UNIX_DAY: i32 = 2_440_588;

/// A value in a row.
#[derive(Clone, Debug, PartialEq)]
pub enum Cell {
    /// Not known here, or cleared.
    Null,
    /// See [`Shape`].
    Text(String),
    /// See [`Shape`].
    Int(i64),
    /// See [`Shape`].
    Double(f64),
    /// See [`Shape`].
    Bool(bool),
    /// Days since 1970-01-01.
    Date(i32),
    /// Microseconds since 1970-01-01, UTC.
    Time(i64),
    /// See [`Shape`].
    List(Vec<String>),
    /// See [`Shape`].
    Json(Json),
}

/// When, and in which commit, a row is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sync {
    /// Microseconds of Unix time.
    pub time_us: i64,
    /// See [`About::SyncSeq`].
    pub seq: i64,
}

/// A change that is no record of its kind. The bytes are not shown.
#[derive(Debug, thiserror::Error)]
#[error(
    "{name} cannot be read as {message}; is this program older than the node? (无法解析，程序版本可能过旧)"
)]
pub struct Unreadable {
    name: String,
    message: &'static str,
}

/// The row of a change.
pub fn row(table: &Table, change: &v1::Change, sync: Sync) -> Result<Vec<Cell>, Unreadable> {
    let unreadable = || Unreadable { name: change.name.clone(), message: table.kind.message };
    let descriptor = table.message().ok_or_else(unreadable)?;
    let message = DynamicMessage::decode(descriptor, &change.fields[..]).map_err(|_| unreadable())?;
    Ok(table.columns.iter().map(|column| cell(table, column, change, &message, sync)).collect())
}

fn cell(table: &Table, column: &Column, change: &v1::Change, message: &DynamicMessage, sync: Sync) -> Cell {
    match &column.source {
        Source::Change(about) => around(table, *about, change, sync),
        Source::Field(field) => of_field(message, field, column.shape),
        Source::Part(field, part) => match message.has_field(field) {
            false => Cell::Null,
            true => match &*message.get_field(field) {
                Value::Message(nested) => of_field(nested, part, column.shape),
                _ => Cell::Null,
            },
        },
    }
}

fn around(table: &Table, about: About, change: &v1::Change, sync: Sync) -> Cell {
    match about {
        About::Name => text(&change.name),
        About::Home => text(change.name.split('/').nth(1).unwrap_or_default()),
        About::Deleted => Cell::Bool(change.deleted),
        About::ConflictingFields => Cell::List(change.conflicting_fields.clone()),
        About::Conflicts if change.conflicts.is_empty() => Cell::Null,
        About::Conflicts => {
            Cell::Json(Json::Array(change.conflicts.iter().map(|c| conflict(table, c)).collect()))
        }
        About::Etag => text(&change.etag),
        About::UpdateTime => change.update_time.map_or(Cell::Null, |t| micros(t.seconds, t.nanos)),
        About::SyncTime => Cell::Time(sync.time_us),
        About::SyncSeq => Cell::Int(sync.seq),
    }
}

fn conflict(table: &Table, conflict: &v1::Conflict) -> Json {
    let field = table.message().and_then(|message| message.get_field(conflict.field));
    let values = conflict.values.iter().map(|value| {
        let shown = field.as_ref().and_then(|field| {
            let message = DynamicMessage::decode(field.parent_message().clone(), &value.fields[..]).ok()?;
            message.has_field(field).then(|| json(field, &message.get_field(field)))
        });
        let time = value.write_time.and_then(|t| rfc3339(t.seconds, t.nanos)).map(Json::String);
        Json::Object(Map::from_iter([
            ("value".to_owned(), shown.unwrap_or_default()),
            ("writer_division".to_owned(), Json::String(value.writer_division.clone())),
            ("write_time".to_owned(), time.unwrap_or_default()),
            ("shown".to_owned(), Json::Bool(value.shown)),
        ]))
    });
    Json::Object(Map::from_iter([
        ("field".to_owned(), Json::String(conflict.field_name.clone())),
        ("values".to_owned(), Json::Array(values.collect())),
    ]))
}

/// A text that every database takes.
fn clean(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}

fn text(text: &str) -> Cell {
    if text.is_empty() { Cell::Null } else { Cell::Text(clean(text)) }
}

fn of_field(message: &DynamicMessage, field: &FieldDescriptor, shape: Shape) -> Cell {
    if !message.has_field(field) {
        return Cell::Null;
    }
    let value = message.get_field(field);
    match shape {
        Shape::Json => Cell::Json(json(field, &value)),
        Shape::TextList => {
            let entries = value.as_list().unwrap_or_default();
            Cell::List(entries.iter().filter_map(|entry| word(field, entry)).collect())
        }
        Shape::Text => word(field, &value).map_or(Cell::Null, |word| text(&word)),
        Shape::Bool => value.as_bool().map_or(Cell::Null, Cell::Bool),
        Shape::Double => {
            value.as_f64().or_else(|| value.as_f32().map(f64::from)).map_or(Cell::Null, Cell::Double)
        }
        Shape::Int => integer(&value).map_or(Cell::Null, Cell::Int),
        Shape::Date => date(&value).map_or(Cell::Null, |d| Cell::Date(d.to_julian_day() - UNIX_DAY)),
        Shape::Time => moment(&value).map_or(Cell::Null, |(seconds, nanos)| micros(seconds, nanos)),
    }
}

/// A text, or the English name of a value of an enum.
fn word(field: &FieldDescriptor, value: &Value) -> Option<String> {
    match (field.kind(), value) {
        (Type::Enum(_), Value::EnumNumber(0)) => None,
        (Type::Enum(values), Value::EnumNumber(number)) => Some(contract::enum_word(&values, *number)),
        (_, Value::String(text)) => Some(clean(text)),
        _ => None,
    }
}

fn integer(value: &Value) -> Option<i64> {
    let unsigned = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    match value {
        Value::I32(n) => Some(i64::from(*n)),
        Value::I64(n) => Some(*n),
        Value::U32(n) => Some(i64::from(*n)),
        Value::U64(n) => Some(unsigned(*n)),
        _ => None,
    }
}

/// The numbers of a nested message, by field number.
fn number(value: &Value, field: u32) -> Option<i64> {
    integer(&*value.as_message()?.get_field_by_number(field)?)
}

fn date(value: &Value) -> Option<Date> {
    let part = |field| number(value, field);
    let month = Month::try_from(u8::try_from(part(2)?).ok()?).ok()?;
    Date::from_calendar_date(i32::try_from(part(1)?).ok()?, month, u8::try_from(part(3)?).ok()?).ok()
}

fn moment(value: &Value) -> Option<(i64, i32)> {
    Some((number(value, 1)?, i32::try_from(number(value, 2)?).ok()?))
}

/// A moment as a database keeps it; one that no calendar has is left out.
fn micros(seconds: i64, nanos: i32) -> Cell {
    match OffsetDateTime::from_unix_timestamp(seconds) {
        Ok(_) => Cell::Time(seconds * 1_000_000 + i64::from(nanos) / 1_000),
        Err(_) => Cell::Null,
    }
}

/// A moment as text, UTC.
pub fn rfc3339(seconds: i64, nanos: i32) -> Option<String> {
    let nanos = i128::from(seconds) * 1_000_000_000 + i128::from(nanos);
    OffsetDateTime::from_unix_timestamp_nanos(nanos).ok()?.format(&Rfc3339).ok()
}

/// A date as text.
pub fn iso_date(days: i32) -> Option<String> {
    let date = Date::from_julian_day(days.checked_add(UNIX_DAY)?).ok()?;
    Some(format!("{:04}-{:02}-{:02}", date.year(), u8::from(date.month()), date.day()))
}

/// A value with parts, with the contract's names and words, without what is not set and the stamps of entries.
fn json(field: &FieldDescriptor, value: &Value) -> Json {
    match value {
        Value::List(entries) => Json::Array(entries.iter().map(|entry| json(field, entry)).collect()),
        Value::Message(message) => match message.descriptor().full_name() {
            "guantong.v1.Date" => {
                let days = date(value).map(|d| d.to_julian_day() - UNIX_DAY);
                days.and_then(iso_date).map_or(Json::Null, Json::String)
            }
            "google.protobuf.Timestamp" => {
                moment(value).and_then(|(s, n)| rfc3339(s, n)).map_or(Json::Null, Json::String)
            }
            _ => object(message),
        },
        Value::EnumNumber(_) | Value::String(_) => word(field, value).map_or(Json::Null, Json::String),
        Value::Bool(yes) => Json::Bool(*yes),
        Value::F64(n) => Json::from(*n),
        Value::F32(n) => Json::from(*n),
        Value::Map(entries) => Json::Object(
            entries.iter().filter_map(|(key, value)| Some((map_key(key)?, json(field, value)))).collect(),
        ),
        other => integer(other).map_or(Json::Null, Json::from),
    }
}

fn map_key(key: &MapKey) -> Option<String> {
    key.as_str().map(clean)
}

fn object(message: &DynamicMessage) -> Json {
    let descriptor = message.descriptor();
    let set = descriptor.fields().filter(|part| part.name() != "stamp" && message.has_field(part));
    Json::Object(set.map(|part| (part.name().to_owned(), json(&part, &message.get_field(&part)))).collect())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use prost::Message;

    use super::*;

    fn cases() -> Table {
        Table::of(&[]).into_iter().find(|t| t.name() == "cases").unwrap()
    }

    fn change(case: &v1::Case) -> v1::Change {
        v1::Change {
            name: "divisions/220822101000/cases/1".into(),
            kind: "case".into(),
            fields: case.encode_to_vec().into(),
            update_time: Some(prost_types::Timestamp { seconds: 1_795_000_000, nanos: 5_000 }),
            ..v1::Change::default()
        }
    }

    fn cell_of(case: &v1::Case, column: &str) -> Cell {
        let table = cases();
        let row = row(&table, &change(case), Sync { time_us: 7, seq: 3 }).unwrap();
        row[table.columns.iter().position(|c| c.name == column).unwrap()].clone()
    }

    #[test]
    fn values_become_what_their_columns_hold() {
        let party = v1::Party {
            name: "张\0甲".into(),
            role: v1::PartyRole::Applicant.into(),
            ..v1::Party::default()
        };
        let case = v1::Case {
            risk: Some(v1::CaseRisk::Red.into()),
            title: Some("测试".into()),
            involved_count: Some(0),
            due_on: Some(v1::Date { year: 2026, month: 11, day: 22 }),
            received_on: Some(v1::Date { year: 2026, month: 13, day: 1 }),
            lifecycle: Some(v1::Lifecycle {
                state: v1::CaseState::Accepted.into(),
                holder: "220822101000".into(),
                since: Some(prost_types::Timestamp { seconds: 1, nanos: 0 }),
                ..v1::Lifecycle::default()
            }),
            parties: vec![party],
            steps: vec![v1::CaseStep {
                id: "a".into(),
                stamp: 9,
                r#move: v1::Move::Accept.into(),
                ..v1::CaseStep::default()
            }],
            ..v1::Case::default()
        };
        for (column, expected) in [
            ("name", Cell::Text("divisions/220822101000/cases/1".into())),
            ("home", Cell::Text("220822101000".into())),
            ("risk", Cell::Text("red".into())),
            ("title", Cell::Text("测试".into())),
            ("involved_count", Cell::Int(0)),
            ("amount_yuan", Cell::Null),
            ("due_on", Cell::Date(20_779)),
            ("received_on", Cell::Null),
            ("lifecycle_state", Cell::Text("accepted".into())),
            ("lifecycle_since", Cell::Time(1_000_000)),
            ("lifecycle_unit", Cell::Null),
            ("update_time", Cell::Time(1_795_000_000_000_005)),
            ("sync_seq", Cell::Int(3)),
            ("parties", Cell::Json(serde_json::json!([{"role": "applicant", "name": "张\u{fffd}甲"}]))),
            ("steps", Cell::Json(serde_json::json!([{"id": "a", "move": "accept"}]))),
        ] {
            assert_eq!(cell_of(&case, column), expected, "{column}");
        }
        assert_eq!(iso_date(20_779).as_deref(), Some("2026-11-22"));
    }

    #[test]
    fn values_side_by_side_are_listed_with_their_writers() {
        let value = |risk: v1::CaseRisk, writer: &str| v1::ConflictValue {
            fields: v1::Case { risk: Some(risk.into()), ..v1::Case::default() }.encode_to_vec().into(),
            writer_division: writer.into(),
            write_time: None,
            shown: risk == v1::CaseRisk::Red,
            writer_source: String::new(),
        };
        let conflict = v1::Conflict {
            field_name: "risk".into(),
            field: guantong_proto::rules::fields::case::RISK,
            values: vec![
                value(v1::CaseRisk::Red, "220822000000"),
                value(v1::CaseRisk::Green, "220822101000"),
            ],
            ..v1::Conflict::default()
        };
        let table = cases();
        let change = v1::Change { conflicts: vec![conflict], ..change(&v1::Case::default()) };
        let row = row(&table, &change, Sync { time_us: 0, seq: 0 }).unwrap();
        let at = table.columns.iter().position(|c| c.name == "conflicts").unwrap();
        let Cell::Json(json) = &row[at] else { unreachable!() };
        assert_eq!(json[0]["values"][0]["value"], "red");
        assert_eq!(json[0]["values"][1]["writer_division"], "220822101000");
    }

    #[test]
    fn what_is_no_record_is_refused_without_its_content() {
        let broken = v1::Change { fields: vec![0xff, 1].into(), ..change(&v1::Case::default()) };
        let refused = row(&cases(), &broken, Sync { time_us: 0, seq: 0 }).unwrap_err().to_string();
        assert!(refused.contains("divisions/220822101000/cases/1"), "{refused}");
    }
}
