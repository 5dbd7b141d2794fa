//! Parquet: rows are gathered by column and written in groups.
//!
//! A feed's files (`node/src/subscribe/parquet`) have a writer of their own: they hold lists, which no table here has,
//! and are read again and joined by it; what both share is only the match from a kind of cell to a type of Parquet.

use std::io::Write;
use std::sync::Arc;

use parquet::basic::{Compression, LogicalType, Repetition, TimeUnit, Type as Physical, ZstdLevel};
use parquet::data_type::{BoolType, ByteArray, ByteArrayType, DataType, DoubleType, Int32Type, Int64Type};
use parquet::errors::ParquetError;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::{SerializedColumnWriter, SerializedFileWriter};
use parquet::schema::types::Type;

use super::{Cell, Column, Kind, TableError};

/// Rows and bytes after which a group is written.
const GROUP_ROWS_MAX: usize = 100_000;
const GROUP_BYTES_MAX: usize = 16 * 1024 * 1024;

pub(super) struct Parquet<W: Write + Send> {
    writer: SerializedFileWriter<W>,
    columns: Vec<Values>,
    rows: usize,
    bytes: usize,
}

/// The values of a column that are not written yet.
struct Values {
    /// Which rows have one.
    present: Vec<i16>,
    values: Typed,
}

enum Typed {
    Text(Vec<ByteArray>),
    Int(Vec<i64>),
    Float(Vec<f64>),
    Bool(Vec<bool>),
    Date(Vec<i32>),
}

impl Values {
    fn new(kind: Kind) -> Values {
        let values = match kind {
            Kind::Text => Typed::Text(Vec::new()),
            Kind::Int | Kind::Time => Typed::Int(Vec::new()),
            Kind::Float => Typed::Float(Vec::new()),
            Kind::Bool => Typed::Bool(Vec::new()),
            Kind::Date => Typed::Date(Vec::new()),
        };
        Values { present: Vec::new(), values }
    }

    /// Adds a cell of the column's kind; gives its size, about.
    fn push(&mut self, cell: &Cell) -> usize {
        let mut size = 8;
        let present = match (&mut self.values, cell) {
            (Typed::Text(values), Cell::Text(text)) => {
                size += text.len();
                values.push(ByteArray::from(text.as_str()));
                true
            }
            (Typed::Int(values), Cell::Int(number) | Cell::Time(number)) => {
                values.push(*number);
                true
            }
            (Typed::Float(values), Cell::Float(number)) => {
                values.push(*number);
                true
            }
            (Typed::Bool(values), Cell::Bool(flag)) => {
                values.push(*flag);
                true
            }
            (Typed::Date(values), Cell::Date(days)) => {
                values.push(*days);
                true
            }
            _ => false,
        };
        self.present.push(i16::from(present));
        size
    }

    fn write(&mut self, column: &mut SerializedColumnWriter<'_>) -> Result<(), ParquetError> {
        fn batch<T: DataType>(
            column: &mut SerializedColumnWriter<'_>,
            values: &mut Vec<T::T>,
            present: &[i16],
        ) -> Result<(), ParquetError> {
            column.typed::<T>().write_batch(values, Some(present), None)?;
            values.clear();
            Ok(())
        }
        let present = std::mem::take(&mut self.present);
        match &mut self.values {
            Typed::Text(values) => batch::<ByteArrayType>(column, values, &present),
            Typed::Int(values) => batch::<Int64Type>(column, values, &present),
            Typed::Float(values) => batch::<DoubleType>(column, values, &present),
            Typed::Bool(values) => batch::<BoolType>(column, values, &present),
            Typed::Date(values) => batch::<Int32Type>(column, values, &present),
        }
    }
}

fn failed(error: ParquetError) -> TableError {
    TableError::Format(error.to_string())
}

fn field(column: &Column) -> Result<Arc<Type>, ParquetError> {
    let (physical, logical) = match column.kind {
        Kind::Text => (Physical::BYTE_ARRAY, Some(LogicalType::String)),
        Kind::Int => (Physical::INT64, None),
        Kind::Float => (Physical::DOUBLE, None),
        Kind::Bool => (Physical::BOOLEAN, None),
        Kind::Date => (Physical::INT32, Some(LogicalType::Date)),
        Kind::Time => (Physical::INT64, Some(LogicalType::timestamp(true, TimeUnit::MILLIS))),
    };
    let field = Type::primitive_type_builder(&column.name, physical)
        .with_repetition(Repetition::OPTIONAL)
        .with_logical_type(logical);
    field.build().map(Arc::new)
}

impl<W: Write + Send> Parquet<W> {
    pub(super) fn begin(columns: &[Column], out: W) -> Result<Parquet<W>, TableError> {
        let fields = columns.iter().map(field).collect::<Result<Vec<_>, _>>().map_err(failed)?;
        let schema = Type::group_type_builder("table").with_fields(fields).build().map_err(failed)?;
        let labels = columns.iter().filter(|c| !c.label.is_empty());
        let labels = labels.map(|c| KeyValue::new(format!("label.{}", c.name), c.label.clone()));
        let properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(ZstdLevel::default()))
            .set_key_value_metadata(Some(labels.collect()))
            .build();
        let writer =
            SerializedFileWriter::new(out, Arc::new(schema), Arc::new(properties)).map_err(failed)?;
        let columns = columns.iter().map(|c| Values::new(c.kind)).collect();
        Ok(Parquet { writer, columns, rows: 0, bytes: 0 })
    }

    pub(super) fn push(&mut self, row: &[Cell]) -> Result<(), TableError> {
        for (values, cell) in self.columns.iter_mut().zip(row) {
            self.bytes += values.push(cell);
        }
        self.rows += 1;
        if self.rows >= GROUP_ROWS_MAX || self.bytes >= GROUP_BYTES_MAX {
            self.write_group().map_err(failed)?;
        }
        Ok(())
    }

    fn write_group(&mut self) -> Result<(), ParquetError> {
        if self.rows == 0 {
            return Ok(());
        }
        let mut group = self.writer.next_row_group()?;
        for values in &mut self.columns {
            if let Some(mut column) = group.next_column()? {
                values.write(&mut column)?;
                column.close()?;
            }
        }
        group.close()?;
        (self.rows, self.bytes) = (0, 0);
        Ok(())
    }

    pub(super) fn finish(mut self) -> Result<W, TableError> {
        self.write_group().map_err(failed)?;
        self.writer.into_inner().map_err(failed)
    }
}
