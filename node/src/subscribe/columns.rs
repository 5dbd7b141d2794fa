//! The tables of a subscriber, derived from the contract: one for each kind, one column for each field, or for each part
//! of a field that has parts. A new field of the contract is a new column by itself; no field is named here.
//!
//! Names are the contract's English ones. What a value means in Chinese is said in comments and in the table of labels.

use guantong_proto::rules::{Field, KINDS, Kind, Tier};
use prost_reflect::{FieldDescriptor, Kind as Type, MessageDescriptor};

use crate::ledger::contract;

/// How a column's values are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Shape {
    /// Text, also the English name of a value of an enum.
    Text,
    /// 64-bit integer.
    Int,
    /// 64-bit floating-point number.
    Double,
    /// Yes or no.
    Bool,
    /// A calendar date.
    Date,
    /// A moment, in microseconds of Unix time.
    Time,
    /// Texts.
    TextList,
    /// What has parts of its own, as JSON with the contract's names.
    Json,
}

/// Where a column's values come from.
#[derive(Clone, Debug, PartialEq)]
pub enum Source {
    /// The change around the record.
    Change(About),
    /// A field.
    Field(FieldDescriptor),
    /// A part of a nested message.
    Part(FieldDescriptor, FieldDescriptor),
}

/// What stands around a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum About {
    /// Its resource name.
    Name,
    /// The division where it was born.
    Home,
    /// Whether it was deleted.
    Deleted,
    /// Fields in which values stand side by side.
    ConflictingFields,
    /// All values of those fields.
    Conflicts,
    /// Hash over the fields shown.
    Etag,
    /// When it was written last.
    UpdateTime,
    /// When the subscriber wrote it.
    SyncTime,
    /// Rises with each commit of the subscriber: of two rows of one name the greater is the later.
    SyncSeq,
}

/// One column.
#[derive(Clone, Debug)]
pub struct Column {
    /// English name, such as `lifecycle_holder`.
    pub name: String,
    /// Chinese, for comments.
    pub comment: String,
    /// How its values are written.
    pub shape: Shape,
    /// Where they come from.
    pub source: Source,
}

/// The table of one kind.
#[derive(Clone, Debug)]
pub struct Table {
    /// The kind.
    pub kind: &'static Kind,
    /// The columns, `name` first.
    pub columns: Vec<Column>,
}

/// A value of an enum, or a code, for the table of labels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Label {
    /// The table.
    pub table: &'static str,
    /// The column.
    pub column: String,
    /// The stable English name.
    pub value: String,
    /// The Chinese label.
    pub label: String,
}

const AROUND: [(About, &str, Shape, &str); 9] = [
    (About::Name, "name", Shape::Text, "资源名称，主键：divisions/归属区划/种类/编号"),
    (About::Home, "home", Shape::Text, "归属区划，12 位代码"),
    (About::Deleted, "deleted", Shape::Bool, "已删除：该行保留，其余列为删除前的取值"),
    (About::ConflictingFields, "conflicting_fields", Shape::TextList, "存在并列取值、待人工处理的字段"),
    (About::Conflicts, "conflicts", Shape::Json, "并列的全部取值及其写入方和时间"),
    (About::Etag, "etag", Shape::Text, "版本标识，回写时使用"),
    (About::UpdateTime, "update_time", Shape::Time, "最近一次写入时间"),
    (About::SyncTime, "sync_time", Shape::Time, "本表写入时间"),
    (About::SyncSeq, "sync_seq", Shape::Int, "写入序号：同名记录以序号大者为准"),
];

impl Table {
    /// The tables of these kinds, of all where none is named.
    pub fn of(kinds: &[&'static Kind]) -> Vec<Table> {
        let all = KINDS.iter().filter(|kind| kinds.is_empty() || kinds.iter().any(|k| k.name == kind.name));
        all.filter_map(Table::build).collect()
    }

    fn build(kind: &'static Kind) -> Option<Table> {
        let message = contract::message(kind.message)?;
        let around = AROUND.iter().map(|(about, name, shape, comment)| Column {
            name: (*name).to_owned(),
            comment: (*comment).to_owned(),
            shape: *shape,
            source: Source::Change(*about),
        });
        let mut columns: Vec<Column> = around.collect();
        // A record that was deleted is said to be so around it.
        for field in kind.fields.iter().filter(|field| field.name != "deleted") {
            add_field(&mut columns, field, &message);
        }
        Some(Table { kind, columns })
    }

    /// Its name: the kind's plural.
    #[allow(clippy::misnamed_getters)]
    pub fn name(&self) -> &'static str {
        self.kind.collection
    }

    /// The message of the kind.
    pub fn message(&self) -> Option<MessageDescriptor> {
        contract::message(self.kind.message)
    }

    /// The Chinese labels of the values of enums and of codes.
    pub fn labels(&self) -> Vec<Label> {
        let mut labels = Vec::new();
        for column in &self.columns {
            let (Source::Field(field) | Source::Part(_, field)) = &column.source else { continue };
            labels.extend(contract::words(field).into_iter().map(|(value, label)| Label {
                table: self.name(),
                column: column.name.clone(),
                value,
                label,
            }));
        }
        labels
    }
}

fn add_field(columns: &mut Vec<Column>, field: &'static Field, message: &MessageDescriptor) {
    let Some(descriptor) = message.get_field(field.number) else { return };
    let mut add = |name: String, label: String, shape, source| {
        columns.push(Column { name, comment: comment(&label, field), shape, source });
    };
    if let Some(shape) = shape(&descriptor) {
        add(field.name.to_owned(), field.label.to_owned(), shape, Source::Field(descriptor));
        return;
    }
    for part in contract::parts(&descriptor) {
        let (name, label) = (format!("{}_{}", field.name, part.name()), contract::part_label(&part));
        let shape = shape(&part).unwrap_or(Shape::Json);
        add(name, format!("{}：{label}", field.label), shape, Source::Part(descriptor.clone(), part));
    }
}

/// How a field is written in one column; `None`: a column for each of its parts.
fn shape(descriptor: &FieldDescriptor) -> Option<Shape> {
    let shape = match descriptor.kind() {
        Type::String | Type::Enum(_) => Shape::Text,
        Type::Bool => Shape::Bool,
        Type::Double | Type::Float => Shape::Double,
        Type::Bytes => Shape::Json,
        Type::Message(message) => match message.full_name() {
            "guantong.v1.Date" => Shape::Date,
            "google.protobuf.Timestamp" => Shape::Time,
            _ if descriptor.is_list() => Shape::Json,
            _ => return None,
        },
        _ => Shape::Int,
    };
    if !descriptor.is_list() {
        return Some(shape);
    }
    Some(if shape == Shape::Text { Shape::TextList } else { Shape::Json })
}

/// A column's comment: what it is, how far up it may be held, whether it says something about a person.
fn comment(label: &str, field: &Field) -> String {
    let tier = match field.release {
        Tier::Township => "乡级",
        Tier::County => "县级",
        Tier::Prefecture => "地级",
        Tier::Province => "省级",
    };
    let file = if field.file { "及经办各级" } else { "" };
    let personal = if field.personal { "，个人信息" } else { "" };
    format!("{label}（最高保存到{tier}{file}{personal}）")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_field_of_every_kind_has_a_column_of_its_own() {
        let tables = Table::of(&[]);
        assert_eq!(tables.len(), KINDS.len());
        for table in &tables {
            let names: HashSet<&str> = table.columns.iter().map(|c| c.name.as_str()).collect();
            assert_eq!(names.len(), table.columns.len(), "{}", table.name());
            assert!(names.iter().all(|n| n.len() < 60), "PostgreSQL cuts names after 63 bytes");
            for field in table.kind.fields.iter().filter(|f| f.name != "deleted") {
                let has =
                    |c: &Column| c.name == field.name || c.name.starts_with(&format!("{}_", field.name));
                assert!(table.columns.iter().any(has), "{}.{}", table.name(), field.name);
            }
            assert!(table.columns.iter().all(|c| !c.comment.is_empty()));
        }
    }

    #[test]
    fn columns_are_named_and_shaped_as_the_contract_says() {
        let tables = Table::of(&[]);
        for (table, column, shape) in [
            ("grids", "grid_code", Shape::Text),
            ("grids", "grid_type", Shape::Text),
            ("grids", "households", Shape::Int),
            ("grids", "centroid_longitude", Shape::Double),
            ("grids", "valid_from", Shape::Date),
            ("cases", "lifecycle_state", Shape::Text),
            ("cases", "lifecycle_since", Shape::Time),
            ("cases", "outcome_succeeded", Shape::Bool),
            ("cases", "parties", Shape::Json),
            ("cases", "steps", Shape::Json),
            ("cameras", "functions", Shape::TextList),
            ("cameras", "status_observe_time", Shape::Time),
            ("nodes", "acts_for", Shape::TextList),
        ] {
            let found = tables.iter().find(|t| t.name() == table).unwrap();
            let found = found.columns.iter().find(|c| c.name == column);
            assert_eq!(found.map(|c| c.shape), Some(shape), "{table}.{column}");
        }
        let cases = tables.iter().find(|t| t.name() == "cases").unwrap();
        let parties = cases.columns.iter().find(|c| c.name == "parties").unwrap();
        assert_eq!(parties.comment, "当事人（最高保存到乡级及经办各级，个人信息）");
        let labels = cases.labels();
        let red = labels.iter().find(|l| l.column == "risk" && l.value == "red").unwrap();
        assert_eq!(red.label, "红");
        for column in ["category", "lifecycle_unit", "lifecycle_state", "channel"] {
            assert!(labels.iter().any(|l| l.column == column), "{column}");
        }
    }
}
