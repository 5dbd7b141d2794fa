//! One row of a ledger, made into the fields of a record. All that is wrong with a row is said at once. It must never
//! take a row in part: a row goes in whole or comes back.

use csv::StringRecord;
use guantong_gateway::ingest::VALUE_MAX_BYTES;
use guantong_proto::rules::{Policy, fields};
use guantong_proto::v1::{ImportRow, RowProblem};
use prost_reflect::prost::Message;
use prost_reflect::{DynamicMessage, Kind as Type, ReflectMessage, Value};
use time::OffsetDateTime;

use super::cell::{parse, parse_entries, timestamp};
use super::checks;
use super::crs::{Crs, within_bounds};
use super::error::CellError;
use super::header::{Group, Layout};
use super::read::{Options, record_id};
use super::schema::{Column, Form, KindView, TextForm};

/// A problem and the column to blame.
type At = (usize, CellError);

/// Reads one row.
pub(super) fn read_row(
    view: &'static KindView,
    layout: &Layout,
    options: &Options,
    line: u64,
    row: &StringRecord,
) -> Result<ImportRow, Vec<RowProblem>> {
    let mut reader = RowReader {
        view,
        layout,
        options,
        line,
        row,
        message: view.empty(),
        cleared: Vec::new(),
        problems: Vec::new(),
    };
    let expected = layout.headers.len();
    let surplus = row.iter().skip(expected).any(|cell| !cell.trim().is_empty());
    if row.len() < expected || surplus {
        // Columns may have slipped: nothing in the row can be trusted.
        reader.problem("", &CellError::Cells { found: row.len(), expected });
        return Err(reader.problems);
    }
    for group in &layout.groups {
        reader.group(group);
    }
    reader.finish()
}

struct RowReader<'a> {
    view: &'static KindView,
    layout: &'a Layout,
    options: &'a Options,
    line: u64,
    row: &'a StringRecord,
    message: DynamicMessage,
    cleared: Vec<u32>,
    problems: Vec<RowProblem>,
}

impl RowReader<'_> {
    fn problem(&mut self, header: &str, error: &CellError) {
        self.problems.push(RowProblem {
            line: self.line,
            field: header.to_owned(),
            reason: error.to_string(),
        });
    }

    fn problem_in(&mut self, (at, error): &At) {
        let header = self.layout.header(*at).to_owned();
        self.problem(&header, error);
    }

    fn cell(&self, at: usize) -> &str {
        self.row.get(at).unwrap_or_default()
    }

    fn group(&mut self, group: &Group) {
        let Some((first, column)) = group.cells.first().copied() else { return };
        let value = match &column.part {
            None => parse(column, self.cell(first)).map_err(|error| vec![(first, error)]),
            Some(_) if group.field.number == fields::EXTERNAL_REFS => self.reference(first, column),
            Some(_) if column.descriptor.is_list() => self.entries(group),
            Some(_) => self.nested(group),
        };
        let value = value.and_then(|value| self.boundary(first, column, value));
        match value {
            Ok(Some(value)) => self.message.set_field(&column.descriptor, value),
            Ok(None) => self.cleared.push(group.field.number),
            Err(problems) => problems.iter().for_each(|problem| self.problem_in(problem)),
        }
    }

    /// The parts of a nested message that are given; none: the field is empty.
    fn parts(&self, group: &Group) -> Result<Vec<(usize, &'static Column, Value)>, Vec<At>> {
        let (mut values, mut problems) = (Vec::new(), Vec::new());
        for (at, column) in &group.cells {
            match parse(column, self.cell(*at)) {
                Ok(Some(value)) => values.push((*at, *column, value)),
                Ok(None) => {}
                Err(error) => problems.push((*at, error)),
            }
        }
        if problems.is_empty() { Ok(values) } else { Err(problems) }
    }

    fn nested(&self, group: &Group) -> Result<Option<Value>, Vec<At>> {
        let parts = self.parts(group)?;
        let (Some((first, column)), false) = (group.cells.first(), parts.is_empty()) else { return Ok(None) };
        let mut message = nested_message(column);
        for (_, column, value) in &parts {
            set_part(&mut message, column, value.clone());
        }
        let blame = |error| vec![(*first, error)];
        if group.is_point() {
            return self
                .point(&mut message, parts.len())
                .map(|()| Some(Value::Message(message)))
                .map_err(blame);
        }
        if group.field.policy == Policy::Observed {
            return self.observed(message, &parts).map_err(blame);
        }
        Ok(Some(Value::Message(message)))
    }

    fn point(&self, message: &mut DynamicMessage, given: usize) -> Result<(), CellError> {
        if given < 2 {
            return Err(CellError::HalfPoint);
        }
        let part = |number| message.get_field_by_number(number).and_then(|v| v.as_f64()).unwrap_or_default();
        let place = (part(1), part(2));
        let crs = self.options.crs.unwrap_or(Crs::Cgcs2000);
        let plain = crs.to_cgcs2000(place);
        if !within_bounds(plain) {
            return Err(CellError::OutsideBounds { swapped: within_bounds((place.1, place.0)) });
        }
        message.set_field_by_number(1, Value::F64(plain.0));
        message.set_field_by_number(2, Value::F64(plain.1));
        Ok(())
    }

    /// An observation has its time, from the row or from the caller. A time without anything observed is none.
    fn observed(
        &self,
        mut message: DynamicMessage,
        parts: &[(usize, &'static Column, Value)],
    ) -> Result<Option<Value>, CellError> {
        let is_time = |column: &Column| matches!(column.form, Form::Timestamp(_));
        if parts.iter().all(|(_, column, _)| is_time(column)) {
            return Ok(None);
        }
        if !parts.iter().any(|(_, column, _)| is_time(column)) {
            let at = self.options.observed_ms.ok_or(CellError::Unobserved)?;
            let at = OffsetDateTime::from_unix_timestamp_nanos(i128::from(at) * 1_000_000);
            let time = message.descriptor().get_field(2).map(|part| part.kind());
            if let (Ok(at), Some(Type::Message(time))) = (at, time) {
                message.set_field_by_number(2, Value::Message(timestamp(&time, at)));
            }
        }
        Ok(Some(Value::Message(message)))
    }

    /// The number that the source gave the record. The entry's stamp is set by the node.
    fn reference(&self, at: usize, column: &'static Column) -> Result<Option<Value>, Vec<At>> {
        let number = parse(column, self.cell(at)).map_err(|error| vec![(at, error)])?;
        let Some(number) = number.as_ref().and_then(Value::as_str) else { return Ok(None) };
        let source = &self.options.source;
        let mut entry = nested_message(column);
        for (part, text) in
            [("id", format!("{source}:{number}")), ("system", source.clone()), ("number", number.to_owned())]
        {
            if let Some(part) = entry.descriptor().get_field_by_name(part) {
                entry.set_field(&part, Value::String(text));
            }
        }
        Ok(Some(Value::List(vec![Value::Message(entry)])))
    }

    /// A list of messages: each column lists one part of all entries, in the same order.
    fn entries(&self, group: &Group) -> Result<Option<Value>, Vec<At>> {
        let Some((first, column)) = group.cells.first().copied() else { return Ok(None) };
        let mut columns = Vec::new();
        let mut problems = Vec::new();
        for (at, column) in &group.cells {
            match parse_entries(column, self.cell(*at)) {
                Ok(values) if values.iter().all(Option::is_none) => {}
                Ok(values) => columns.push((*at, *column, values)),
                Err(error) => problems.push((*at, error)),
            }
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        let count = columns.iter().map(|(_, _, values)| values.len()).max().unwrap_or(0);
        if columns.iter().any(|(_, _, values)| values.len() != count) {
            // One person with several telephone numbers is one entry.
            let is_name = |column: &Column| column.part.as_ref().is_some_and(|part| part.name() == "name");
            let single = columns.iter().any(|(_, column, values)| is_name(column) && values.len() == 1);
            if !single {
                return Err(vec![(first, CellError::Uneven)]);
            }
            columns = self
                .parts(group)?
                .into_iter()
                .map(|(at, column, value)| (at, column, vec![Some(value)]))
                .collect();
        }
        let mut entries =
            vec![nested_message(column); columns.first().map_or(0, |(_, _, values)| values.len())];
        for (_, column, values) in columns {
            for (entry, value) in entries.iter_mut().zip(values) {
                if let Some(value) = value {
                    set_part(entry, column, value);
                }
            }
        }
        entries.retain(|entry| entry.encoded_len() > 0);
        let entries: Vec<Value> = entries.into_iter().map(Value::Message).collect();
        Ok(if entries.is_empty() { None } else { Some(Value::List(entries)) })
    }

    fn boundary(&self, at: usize, column: &Column, value: Option<Value>) -> Result<Option<Value>, Vec<At>> {
        let Some(Value::String(text)) = &value else { return Ok(value) };
        if !matches!(column.form, Form::Text(TextForm::Boundary)) {
            return Ok(value);
        }
        let crs = self.options.crs.unwrap_or(Crs::Cgcs2000);
        let plain = checks::boundary(text, crs).map_err(|error| vec![(at, error)])?;
        Ok(Some(Value::String(plain)))
    }

    /// Names the fields that are too large to be stored.
    fn sizes(&mut self) {
        if self.message.encoded_len() <= VALUE_MAX_BYTES {
            return;
        }
        for group in &self.layout.groups {
            let Some((at, column)) = group.cells.first() else { continue };
            let mut alone = self.view.empty();
            alone.set_field(&column.descriptor, self.message.get_field(&column.descriptor).into_owned());
            let bytes = alone.encoded_len();
            if bytes > VALUE_MAX_BYTES {
                self.problem_in(&(*at, CellError::TooLong { bytes, limit_bytes: VALUE_MAX_BYTES }));
            }
        }
    }

    fn finish(mut self) -> Result<ImportRow, Vec<RowProblem>> {
        self.sizes();
        let key = match checks::key(self.view, &self.message) {
            Ok(key) => key,
            // An empty cell is named here; a bad one was already.
            Err(error) => {
                let blamed = self.layout.header(self.layout.key).to_owned();
                if !self.problems.iter().any(|problem| problem.field == blamed) {
                    self.problem(&blamed, &error);
                }
                String::new()
            }
        };
        let mut id = String::new();
        if !key.is_empty() {
            match record_id(self.view, &self.options.source, &key) {
                Ok(fine) => id = fine,
                Err(error) => self.problem_in(&(self.layout.key, CellError::BadKey(error.limit_bytes))),
            }
        }
        for (field, error) in checks::check(self.view, &self.message) {
            let header = self.layout.header_of(field).to_owned();
            self.problem(&header, &error);
        }
        let home = checks::home(self.view, &self.message).or_else(|(field, error)| {
            self.options.home.filter(|_| error.may_be_given()).ok_or((field, error))
        });
        let home = match home {
            Ok(home) => home,
            Err((field, error)) => {
                // What cannot be read has been said already; that it is missing follows from it.
                if self.problems.is_empty() {
                    let header = self.layout.header_of(field).to_owned();
                    self.problem(&header, &error);
                }
                return Err(self.problems);
            }
        };
        if !self.problems.is_empty() {
            return Err(self.problems);
        }
        checks::complete(self.view, &mut self.message, home);
        self.cleared.sort_unstable();
        Ok(ImportRow {
            key,
            record_id: if self.view.is_keyed_by_source() { id } else { String::new() },
            home: home.to_string(),
            fields: self.message.encode_to_vec().into(),
            line: self.line,
            cleared: self.cleared,
        })
    }
}

fn nested_message(column: &Column) -> DynamicMessage {
    match column.descriptor.kind() {
        Type::Message(message) => DynamicMessage::new(message),
        // Only columns with a part come here, and those are of messages.
        _ => DynamicMessage::new(column.descriptor.parent_message().clone()),
    }
}

fn set_part(message: &mut DynamicMessage, column: &Column, value: Value) {
    if let Some(part) = &column.part {
        message.set_field(part, value);
    }
}
