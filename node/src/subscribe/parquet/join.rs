//! Joins files of one table into one that has each name once: the row with the greatest `sync_seq`. It goes column by
//! column, so that memory holds the names of all rows and one column of some rows, never a whole table.

use std::collections::HashMap;
use std::fs::File;
use std::path::PathBuf;

use bytes::Bytes;
use parquet::errors::ParquetError;
use parquet::file::properties::WriterPropertiesPtr;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::types::TypePtr;

use super::data::ColumnData;
use crate::subscribe::columns::{About, Column, Source, Table};

/// Rows that share a row group.
const GROUP_ROWS: usize = 100_000;

/// One row group of a source.
struct Part {
    file: usize,
    group: usize,
    keep: Vec<bool>,
}

/// Writes the join of `sources` into `target`; gives how many rows it has.
pub(super) fn join(
    table: &Table,
    sources: &[PathBuf],
    target: &File,
    schema: TypePtr,
    properties: WriterPropertiesPtr,
) -> Result<u64, ParquetError> {
    let mut readers = Vec::with_capacity(sources.len());
    for path in sources {
        let file = File::open(path).map_err(|error| ParquetError::General(error.to_string()))?;
        readers.push(SerializedFileReader::new(file)?);
    }
    let parts = latest(table, &readers)?;
    let mut writer = SerializedFileWriter::new(target, schema, properties)?;
    let mut rows = 0;
    let mut rest = parts.as_slice();
    while !rest.is_empty() {
        let (group, after) = rest.split_at(group_of(rest));
        rest = after;
        let count: usize = group.iter().map(kept).sum();
        if count == 0 {
            continue;
        }
        rows += count as u64;
        let mut out = writer.next_row_group()?;
        for column in &table.columns {
            let Some(mut to) = out.next_column()? else { break };
            for part in group {
                read(&readers[part.file], part.group, column)?.keep(&part.keep).write(to.untyped())?;
            }
            to.close()?;
        }
        out.close()?;
    }
    writer.close()?;
    Ok(rows)
}

fn kept(part: &Part) -> usize {
    part.keep.iter().filter(|keep| **keep).count()
}

/// How many parts at the start share a row group: one at least.
fn group_of(parts: &[Part]) -> usize {
    let mut rows = 0;
    let fits = |part: &&Part| {
        rows += kept(part);
        rows <= GROUP_ROWS
    };
    parts.iter().take_while(fits).count().max(1)
}

/// The row groups of all files with the rows that count.
fn latest(table: &Table, readers: &[SerializedFileReader<File>]) -> Result<Vec<Part>, ParquetError> {
    let about = |wanted: About| {
        let found = table.columns.iter().find(|column| column.source == Source::Change(wanted));
        found.ok_or_else(|| ParquetError::General("a table without names".to_owned()))
    };
    let (name, seq) = (about(About::Name)?, about(About::SyncSeq)?);
    let mut parts = Vec::new();
    // Of each name: where it counts.
    let mut best: HashMap<Bytes, (i64, usize, usize)> = HashMap::new();
    for (file, reader) in readers.iter().enumerate() {
        for group in 0..reader.num_row_groups() {
            let names = read(reader, group, name)?;
            let seqs = read(reader, group, seq)?;
            for (row, (name, seq)) in names.texts().iter().zip(seqs.numbers()).enumerate() {
                // Copied: a slice would keep its whole page in memory.
                let place = (*seq, parts.len(), row);
                match best.get_mut(name.data()) {
                    Some(known) if known.0 > *seq => {}
                    Some(known) => *known = place,
                    None => drop(best.insert(Bytes::copy_from_slice(name.data()), place)),
                }
            }
            parts.push(Part { file, group, keep: vec![false; names.texts().len()] });
        }
    }
    for (_, part, row) in best.into_values() {
        if let Some(keep) = parts.get_mut(part).and_then(|part| part.keep.get_mut(row)) {
            *keep = true;
        }
    }
    Ok(parts)
}

/// One column of a row group; a file from before the column was there has no values.
fn read(
    reader: &SerializedFileReader<File>,
    group: usize,
    column: &Column,
) -> Result<ColumnData, ParquetError> {
    let group = reader.get_row_group(group)?;
    let rows = usize::try_from(group.metadata().num_rows()).unwrap_or(0);
    let columns = group.metadata().schema_descr();
    let at = columns.columns().iter().position(|c| c.path().parts().first() == Some(&column.name));
    match at {
        Some(at) => ColumnData::read(column.shape, rows, group.get_column_reader(at)?),
        None => Ok(ColumnData::nulls(column.shape, rows)),
    }
}
