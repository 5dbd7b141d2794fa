//! Parquet files: for each table segments with the rows of some commits, named by the manifest. The row of a name with
//! the greatest `sync_seq` counts. When there are many, segments are joined into one file with each name once.
//!
//! A file that the manifest names never changes, and stays for a while after it was replaced, so that whoever reads it
//! can finish.
//!
//! The gateway's tables (`tabular::parquet`) have a writer of their own: it has neither lists nor readers, and a shared
//! one would make both depend on the levels of Parquet's columns for the sake of one match.

mod data;
mod join;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::Path;
use std::sync::Arc;

use guantong_proto::v1;
use parquet::basic::{Compression, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::{WriterProperties, WriterPropertiesPtr};
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use parquet::schema::types::TypePtr;

use super::SinkError;
use super::cells::{self, Cell, Sync, rfc3339};
use super::columns::{Shape, Table};
use super::folder::{DataFile, Folder, UNFINISHED, finish, of_io};
use data::ColumnData;

/// Segments are joined when there are so many and they hold as much as what was joined before,
const SEGMENTS_MIN: usize = 16;
/// or when there are so many.
const SEGMENTS_MAX: usize = 400;

/// Segments of rows in a folder.
pub struct ParquetSink {
    folder: Folder,
    tables: Vec<Table>,
    /// Rows that are not in a file yet, by the tables' names.
    rows: BTreeMap<&'static str, Vec<Vec<Cell>>>,
}

impl ParquetSink {
    /// Takes a folder.
    ///
    /// # Errors
    /// See [`Folder::open`].
    pub fn open(
        path: &Path,
        subscription: &str,
        tables: Vec<Table>,
    ) -> Result<(ParquetSink, bool), SinkError> {
        let (folder, wants_all) = Folder::open(path, "parquet", subscription, &tables)?;
        for table in &tables {
            remove_unlisted(&folder, table)?;
        }
        Ok((ParquetSink { folder, tables, rows: BTreeMap::new() }, wants_all))
    }

    /// Takes changes; they count after [`commit`](Self::commit).
    ///
    /// # Errors
    /// A change that cannot be read.
    pub fn write(&mut self, changes: &[v1::Change], time_us: i64) -> Result<(), SinkError> {
        let sync = Sync { time_us, seq: self.folder.manifest.last_seq + 1 };
        for (kind, changes) in super::by_kind(changes) {
            let table = self.tables.iter().find(|table| table.kind.name == kind);
            let table = table.ok_or_else(|| super::unknown_kind(kind))?;
            let rows = self.rows.entry(table.name()).or_default();
            for change in changes {
                let row = cells::row(table, change, sync);
                rows.push(row.map_err(|error| SinkError::Refused(error.to_string()))?);
            }
        }
        Ok(())
    }

    /// Puts everything on disk: segments first, then the manifest that names them.
    ///
    /// # Errors
    /// What the file system says.
    pub fn commit(&mut self, caught_up: Option<prost_types::Timestamp>) -> Result<(), SinkError> {
        let seq = self.folder.manifest.last_seq + 1;
        for table in &self.tables {
            let rows = self.rows.remove(table.name()).unwrap_or_default();
            // A later change of the same name takes the place of an earlier one.
            let rows = last_of_each(rows);
            if rows.is_empty() {
                continue;
            }
            let path = format!("{0}/{0}-{seq:010}.parquet", table.name());
            let count = rows.len() as u64;
            write_rows(&self.folder, table, &path, rows)?;
            let files = self.folder.manifest.tables.entry(table.name().to_owned()).or_default();
            files.files.push(DataFile { path, rows: count });
        }
        self.folder.manifest.last_seq = seq;
        if let Some(at) = caught_up {
            self.folder.manifest.caught_up_time = rfc3339(at.seconds, at.nanos);
        }
        self.folder.commit()?;
        for at in 0..self.tables.len() {
            self.join(at)?;
        }
        Ok(())
    }

    /// Joins the segments of a table, if there are many.
    fn join(&mut self, at: usize) -> Result<(), SinkError> {
        let Some(table) = self.tables.get(at) else { return Ok(()) };
        let Some(known) = self.folder.manifest.tables.get(table.name()) else { return Ok(()) };
        let (first, rest) = match known.files.as_slice() {
            [] => return Ok(()),
            [first, rest @ ..] => (first.rows, rest),
        };
        let added: u64 = rest.iter().map(|file| file.rows).sum();
        if rest.len() < SEGMENTS_MIN || added < first && rest.len() < SEGMENTS_MAX {
            return Ok(());
        }
        let seq = self.folder.manifest.last_seq;
        let path = format!("{0}/{0}-{seq:010}-joined.parquet", table.name());
        let sources: Vec<_> = known.files.iter().map(|file| self.folder.path(&file.path)).collect();
        let (file, unfinished) = create(&self.folder, table, &path)?;
        let rows = join::join(table, &sources, &file, schema(table)?, properties(table)?)
            .map_err(|error| of_parquet(&path, &error))?;
        finish(file, &unfinished, &self.folder.path(&path))?;
        let files = self.folder.manifest.tables.entry(table.name().to_owned()).or_default();
        let before = std::mem::replace(&mut files.files, vec![DataFile { path, rows }]);
        let replaced = before.into_iter().map(|file| file.path).collect();
        let gone = std::mem::replace(&mut files.replaced, replaced);
        self.folder.commit()?;
        for path in gone {
            // Whoever still reads them has had the time of many segments.
            let _ = fs::remove_file(self.folder.path(&path));
        }
        Ok(())
    }
}

/// Removes what a crash left between a file and the manifest that names it: its rows come again.
fn remove_unlisted(folder: &Folder, table: &Table) -> Result<(), SinkError> {
    let known = folder.manifest.tables.get(table.name());
    let listed = |path: &str| {
        known.is_some_and(|known| {
            known.files.iter().any(|file| file.path == path) || known.replaced.iter().any(|p| p == path)
        })
    };
    let place = folder.path(table.name());
    for entry in fs::read_dir(&place).map_err(|error| of_io(&place, &error))? {
        let entry = entry.map_err(|error| of_io(&place, &error))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.ends_with(".parquet") && !listed(&format!("{}/{name}", table.name())) {
            fs::remove_file(entry.path()).map_err(|error| of_io(&entry.path(), &error))?;
        }
    }
    Ok(())
}

/// The last row of each name, in the order they came.
fn last_of_each(rows: Vec<Vec<Cell>>) -> Vec<Vec<Cell>> {
    let name = |row: &[Cell]| match row.first() {
        Some(Cell::Text(name)) => name.clone(),
        _ => String::new(),
    };
    let last: BTreeMap<String, usize> = rows.iter().enumerate().map(|(at, row)| (name(row), at)).collect();
    let keep: std::collections::HashSet<usize> = last.into_values().collect();
    rows.into_iter().enumerate().filter(|(at, _)| keep.contains(at)).map(|(_, row)| row).collect()
}

fn create(folder: &Folder, table: &Table, path: &str) -> Result<(File, std::path::PathBuf), SinkError> {
    let name = path.rsplit('/').next().unwrap_or(path);
    let unfinished = folder.path(&format!("{}/{UNFINISHED}{name}", table.name()));
    let file = File::create(&unfinished).map_err(|error| of_io(&unfinished, &error))?;
    Ok((file, unfinished))
}

fn write_rows(folder: &Folder, table: &Table, path: &str, rows: Vec<Vec<Cell>>) -> Result<(), SinkError> {
    let mut columns: Vec<ColumnData> = table.columns.iter().map(|c| ColumnData::new(c.shape)).collect();
    for row in rows {
        for (column, cell) in columns.iter_mut().zip(row) {
            column.push(cell);
        }
    }
    let (file, unfinished) = create(folder, table, path)?;
    let (schema, properties) = (schema(table)?, properties(table)?);
    let write = || -> Result<(), ParquetError> {
        let mut writer = SerializedFileWriter::new(&file, schema, properties)?;
        let mut group = writer.next_row_group()?;
        for column in &columns {
            let Some(mut target) = group.next_column()? else { break };
            column.write(target.untyped())?;
            target.close()?;
        }
        group.close()?;
        writer.close().map(|_| ())
    };
    write().map_err(|error| of_parquet(path, &error))?;
    finish(file, &unfinished, &folder.path(path))
}

fn of_parquet(path: &str, error: &ParquetError) -> SinkError {
    SinkError::Unavailable(format!("{path}: {error}"))
}

/// The columns of a file. Names are those of the contract: letters, digits and underscores.
fn schema(table: &Table) -> Result<TypePtr, SinkError> {
    let column = |column: &super::columns::Column| {
        let name = &column.name;
        match column.shape {
            Shape::Text | Shape::Json => format!("optional binary {name} (UTF8);"),
            Shape::Int => format!("optional int64 {name};"),
            Shape::Double => format!("optional double {name};"),
            Shape::Bool => format!("optional boolean {name};"),
            Shape::Date => format!("optional int32 {name} (DATE);"),
            Shape::Time => format!("optional int64 {name} (TIMESTAMP(MICROS,true));"),
            Shape::TextList => format!(
                "optional group {name} (LIST) {{ repeated group list {{ required binary element (UTF8); }} }}"
            ),
        }
    };
    let columns: Vec<String> = table.columns.iter().map(column).collect();
    let message = format!("message {} {{ {} }}", table.name(), columns.join(" "));
    parse_message_type(&message).map(Arc::new).map_err(|error| of_parquet(table.name(), &error))
}

fn properties(table: &Table) -> Result<WriterPropertiesPtr, SinkError> {
    let level = ZstdLevel::try_new(3).map_err(|error| of_parquet(table.name(), &error))?;
    let comments: serde_json::Map<String, serde_json::Value> =
        table.columns.iter().map(|c| (c.name.clone(), c.comment.clone().into())).collect();
    let notes = vec![
        KeyValue::new("guantong.table".to_owned(), table.kind.label.to_owned()),
        KeyValue::new("guantong.columns".to_owned(), serde_json::Value::Object(comments).to_string()),
    ];
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(level))
        .set_key_value_metadata(Some(notes))
        .build();
    Ok(Arc::new(properties))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
