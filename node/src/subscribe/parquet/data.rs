//! The values of one column, as Parquet keeps them: values that are there, and levels that say where they are not.

use bytes::Bytes;
use parquet::column::reader::ColumnReader;
use parquet::column::writer::ColumnWriter;
use parquet::data_type::ByteArray;
use parquet::errors::ParquetError;

use crate::subscribe::cells::Cell;
use crate::subscribe::columns::Shape;

/// The level of a value that is there.
const PRESENT: i16 = 1;
/// Of an entry of a list; one less is an empty list.
const ENTRY: i16 = 2;

/// Some rows of one column.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct ColumnData {
    definitions: Vec<i16>,
    /// Lists only: 0 begins a row.
    repetitions: Option<Vec<i16>>,
    values: Values,
}

#[derive(Clone, Debug, PartialEq)]
enum Values {
    Text(Vec<ByteArray>),
    Long(Vec<i64>),
    Double(Vec<f64>),
    Bool(Vec<bool>),
    Day(Vec<i32>),
}

impl ColumnData {
    /// Of no rows.
    pub(super) fn new(shape: Shape) -> ColumnData {
        let values = match shape {
            Shape::Text | Shape::Json | Shape::TextList => Values::Text(Vec::new()),
            Shape::Int | Shape::Time => Values::Long(Vec::new()),
            Shape::Double => Values::Double(Vec::new()),
            Shape::Bool => Values::Bool(Vec::new()),
            Shape::Date => Values::Day(Vec::new()),
        };
        let repetitions = (shape == Shape::TextList).then(Vec::new);
        ColumnData { definitions: Vec::new(), repetitions, values }
    }

    /// Of rows that have no value.
    pub(super) fn nulls(shape: Shape, rows: usize) -> ColumnData {
        let mut data = ColumnData::new(shape);
        (0..rows).for_each(|_| data.push(Cell::Null));
        data
    }

    fn level(&mut self, definition: i16, repetition: i16) {
        self.definitions.push(definition);
        if let Some(repetitions) = &mut self.repetitions {
            repetitions.push(repetition);
        }
    }

    /// One more row. A cell of another shape is no value.
    pub(super) fn push(&mut self, cell: Cell) {
        if let (Cell::List(entries), Values::Text(values)) = (&cell, &mut self.values) {
            values.extend(entries.iter().map(|e| ByteArray::from(Bytes::from(e.clone()))));
            if entries.is_empty() {
                self.level(ENTRY - 1, 0);
            }
            for at in 0..entries.len() {
                self.level(ENTRY, i16::from(at > 0));
            }
            return;
        }
        let present = match (&mut self.values, cell) {
            (Values::Text(values), Cell::Text(text)) => {
                values.push(ByteArray::from(Bytes::from(text)));
                true
            }
            (Values::Text(values), Cell::Json(json)) => {
                values.push(ByteArray::from(Bytes::from(json.to_string())));
                true
            }
            (Values::Long(values), Cell::Int(n) | Cell::Time(n)) => {
                values.push(n);
                true
            }
            (Values::Double(values), Cell::Double(n)) => {
                values.push(n);
                true
            }
            (Values::Bool(values), Cell::Bool(yes)) => {
                values.push(yes);
                true
            }
            (Values::Day(values), Cell::Date(day)) => {
                values.push(day);
                true
            }
            _ => false,
        };
        self.level(if present { PRESENT } else { 0 }, 0);
    }

    /// Appends it to a column of a file.
    pub(super) fn write(&self, writer: &mut ColumnWriter<'_>) -> Result<(), ParquetError> {
        let (levels, repetitions) = (Some(self.definitions.as_slice()), self.repetitions.as_deref());
        match (writer, &self.values) {
            (ColumnWriter::ByteArrayColumnWriter(w), Values::Text(v)) => {
                w.write_batch(v, levels, repetitions)
            }
            (ColumnWriter::Int64ColumnWriter(w), Values::Long(v)) => w.write_batch(v, levels, repetitions),
            (ColumnWriter::DoubleColumnWriter(w), Values::Double(v)) => w.write_batch(v, levels, repetitions),
            (ColumnWriter::BoolColumnWriter(w), Values::Bool(v)) => w.write_batch(v, levels, repetitions),
            (ColumnWriter::Int32ColumnWriter(w), Values::Day(v)) => w.write_batch(v, levels, repetitions),
            _ => Err(ParquetError::General("a column of another type".to_owned())),
        }
        .map(|_| ())
    }

    /// Reads `rows` rows of a column of a file.
    pub(super) fn read(shape: Shape, rows: usize, reader: ColumnReader) -> Result<ColumnData, ParquetError> {
        let mut data = ColumnData::new(shape);
        let levels = Some(&mut data.definitions);
        let repetitions = data.repetitions.as_mut();
        match (reader, &mut data.values) {
            (ColumnReader::ByteArrayColumnReader(mut r), Values::Text(v)) => {
                r.read_records(rows, levels, repetitions, v)
            }
            (ColumnReader::Int64ColumnReader(mut r), Values::Long(v)) => {
                r.read_records(rows, levels, repetitions, v)
            }
            (ColumnReader::DoubleColumnReader(mut r), Values::Double(v)) => {
                r.read_records(rows, levels, repetitions, v)
            }
            (ColumnReader::BoolColumnReader(mut r), Values::Bool(v)) => {
                r.read_records(rows, levels, repetitions, v)
            }
            (ColumnReader::Int32ColumnReader(mut r), Values::Day(v)) => {
                r.read_records(rows, levels, repetitions, v)
            }
            _ => Err(ParquetError::General("a column of another type".to_owned())),
        }?;
        Ok(data)
    }

    /// The rows for which `keep` says so.
    pub(super) fn keep(&self, keep: &[bool]) -> ColumnData {
        let present = if self.repetitions.is_some() { ENTRY } else { PRESENT };
        let mut definitions = Vec::with_capacity(self.definitions.len());
        let mut repetitions = self.repetitions.as_ref().map(|all| Vec::with_capacity(all.len()));
        let mut kept = Vec::new();
        let mut row = 0;
        for (at, definition) in self.definitions.iter().enumerate() {
            let repetition = self.repetitions.as_ref().and_then(|all| all.get(at).copied()).unwrap_or(0);
            row += usize::from(repetition == 0);
            let keeps = keep.get(row - 1).copied().unwrap_or(false);
            if *definition == present {
                kept.push(keeps);
            }
            if keeps {
                definitions.push(*definition);
                if let Some(repetitions) = &mut repetitions {
                    repetitions.push(repetition);
                }
            }
        }
        let values = match &self.values {
            Values::Text(v) => Values::Text(filtered(v, &kept)),
            Values::Long(v) => Values::Long(filtered(v, &kept)),
            Values::Double(v) => Values::Double(filtered(v, &kept)),
            Values::Bool(v) => Values::Bool(filtered(v, &kept)),
            Values::Day(v) => Values::Day(filtered(v, &kept)),
        };
        ColumnData { definitions, repetitions, values }
    }

    /// The texts of a column that has one in each row.
    pub(super) fn texts(&self) -> &[ByteArray] {
        if let Values::Text(values) = &self.values { values } else { &[] }
    }

    /// The numbers of a column that has one in each row.
    pub(super) fn numbers(&self) -> &[i64] {
        if let Values::Long(values) = &self.values { values } else { &[] }
    }
}

fn filtered<T: Clone>(values: &[T], keep: &[bool]) -> Vec<T> {
    values.iter().zip(keep).filter(|(_, keep)| **keep).map(|(value, _)| value.clone()).collect()
}
