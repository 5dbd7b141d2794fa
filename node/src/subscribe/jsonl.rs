//! Lines of JSON: for each table segments of one line a change, the later line of a name takes the place of the
//! earlier. The newest segment is appended to under the name `….jsonl.open`, and gets its own when it is closed; from
//! then on it never changes.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;

use guantong_proto::v1;
use serde_json::{Map, Value};

use super::SinkError;
use super::cells::{self, Cell, Sync, iso_date, rfc3339};
use super::columns::Table;
use super::folder::{DataFile, Folder, of_io, sync_folder};

/// A segment is closed when it is this large.
const SEGMENT_BYTES: u64 = 64 * 1024 * 1024;
/// Or this old, once everything that is owed is in it.
const SEGMENT_SECONDS: i64 = 600;
const OPEN: &str = ".open";

/// Segments of lines in a folder.
pub struct JsonlSink {
    folder: Folder,
    tables: Vec<Table>,
    open: BTreeMap<&'static str, Segment>,
}

struct Segment {
    file: File,
    path: String,
    bytes: u64,
    rows: u64,
    begun_us: i64,
    dirty: bool,
}

impl JsonlSink {
    /// Takes a folder. Lines that a crash left half are cut off: they come again.
    ///
    /// # Errors
    /// See [`Folder::open`].
    pub fn open(path: &Path, subscription: &str, tables: Vec<Table>) -> Result<(JsonlSink, bool), SinkError> {
        let (folder, wants_all) = Folder::open(path, "jsonl", subscription, &tables)?;
        let mut sink = JsonlSink { folder, tables, open: BTreeMap::new() };
        let names: Vec<&'static str> = sink.tables.iter().map(Table::name).collect();
        for name in names {
            sink.take_up(name)?;
        }
        Ok((sink, wants_all))
    }

    /// Goes on with the segment that was open. One that was closed just before a crash is listed now.
    fn take_up(&mut self, table: &'static str) -> Result<(), SinkError> {
        loop {
            let path = self.next_name(table);
            let full = self.folder.path(&path);
            let Ok(mut file) = File::open(&full) else { break };
            let (_, rows) = whole_lines(&mut file).map_err(|error| of_io(&full, &error))?;
            let files = self.folder.manifest.tables.entry(table.to_owned()).or_default();
            files.files.push(DataFile { path, rows });
        }
        let next = format!("{}{OPEN}", self.next_name(table));
        let path = self.folder.path(&next);
        if !path.exists() {
            return Ok(());
        }
        let file = File::options().read(true).write(true).open(&path);
        let mut file = file.map_err(|error| of_io(&path, &error))?;
        let (bytes, rows) = whole_lines(&mut file).map_err(|error| of_io(&path, &error))?;
        file.set_len(bytes).map_err(|error| of_io(&path, &error))?;
        file.seek(SeekFrom::End(0)).map_err(|error| of_io(&path, &error))?;
        let segment = Segment { file, path: next, bytes, rows, begun_us: 0, dirty: true };
        self.open.insert(table, segment);
        Ok(())
    }

    /// The name that the open segment of a table will have.
    fn next_name(&self, table: &str) -> String {
        let closed = self.folder.manifest.tables.get(table).map_or(0, |t| t.files.len());
        format!("{table}/{table}-{:08}.jsonl", closed + 1)
    }

    /// Appends changes; they count after [`commit`](Self::commit).
    ///
    /// # Errors
    /// What the file system says.
    pub fn write(&mut self, changes: &[v1::Change], time_us: i64) -> Result<(), SinkError> {
        let sync = Sync { time_us, seq: self.folder.manifest.last_seq + 1 };
        for (kind, changes) in super::by_kind(changes) {
            let table = self.tables.iter().find(|table| table.kind.name == kind).cloned();
            let table = table.ok_or_else(|| super::unknown_kind(kind))?;
            let mut lines = Vec::new();
            for change in &changes {
                let row = cells::row(&table, change, sync)
                    .map_err(|error| SinkError::Refused(error.to_string()))?;
                line(&table, row, &mut lines);
            }
            self.append(table.name(), &lines, changes.len() as u64, time_us)?;
        }
        Ok(())
    }

    fn append(&mut self, table: &'static str, lines: &[u8], rows: u64, now_us: i64) -> Result<(), SinkError> {
        if !self.open.contains_key(table) {
            let path = format!("{}{OPEN}", self.next_name(table));
            let full = self.folder.path(&path);
            let file = File::create(&full).map_err(|error| of_io(&full, &error))?;
            sync_folder(&self.folder.path(table))?;
            let segment = Segment { file, path, bytes: 0, rows: 0, begun_us: now_us, dirty: false };
            self.open.insert(table, segment);
        }
        let Some(segment) = self.open.get_mut(table) else { return Ok(()) };
        let written = segment.file.write_all(lines);
        written.map_err(|error| of_io(&self.folder.path(&segment.path), &error))?;
        segment.bytes += lines.len() as u64;
        segment.rows += rows;
        segment.dirty = true;
        Ok(())
    }

    /// Puts everything on disk. `close` also closes what is open, for a reader that takes closed segments only.
    ///
    /// # Errors
    /// What the file system says.
    pub fn commit(
        &mut self,
        caught_up: Option<prost_types::Timestamp>,
        now_us: i64,
        close: bool,
    ) -> Result<(), SinkError> {
        for segment in self.open.values_mut().filter(|segment| segment.dirty) {
            let synced = segment.file.sync_all();
            synced.map_err(|error| of_io(&self.folder.path(&segment.path), &error))?;
            segment.dirty = false;
        }
        let idle = caught_up.is_some();
        let old = |s: &Segment| idle && now_us - s.begun_us >= SEGMENT_SECONDS * 1_000_000;
        let due = |s: &Segment| s.rows > 0 && (close || s.bytes >= SEGMENT_BYTES || old(s));
        let closing: Vec<&'static str> = self.open.iter().filter(|(_, s)| due(s)).map(|(t, _)| *t).collect();
        for table in closing {
            self.close(table)?;
        }
        self.folder.manifest.last_seq += 1;
        if let Some(at) = caught_up {
            self.folder.manifest.caught_up_time = rfc3339(at.seconds, at.nanos);
        }
        self.folder.commit()
    }

    fn close(&mut self, table: &'static str) -> Result<(), SinkError> {
        let Some(segment) = self.open.remove(table) else { return Ok(()) };
        let name = self.next_name(table);
        let target = self.folder.path(&name);
        let renamed = fs::rename(self.folder.path(&segment.path), &target);
        renamed.map_err(|error| of_io(&target, &error))?;
        sync_folder(&self.folder.path(table))?;
        let files = self.folder.manifest.tables.entry(table.to_owned()).or_default();
        files.files.push(DataFile { path: name, rows: segment.rows });
        Ok(())
    }
}

/// How many bytes at the start are whole lines, and how many lines.
fn whole_lines(file: &mut File) -> std::io::Result<(u64, u64)> {
    let (mut bytes, mut whole, mut lines) = (0, 0, 0);
    let mut buffer = vec![0; 1 << 16];
    loop {
        let count = file.read(&mut buffer)?;
        if count == 0 {
            return Ok((whole, lines));
        }
        for (at, _) in buffer[..count].iter().enumerate().filter(|(_, byte)| **byte == b'\n') {
            whole = bytes + at as u64 + 1;
            lines += 1;
        }
        bytes += count as u64;
    }
}

fn line(table: &Table, row: Vec<Cell>, out: &mut Vec<u8>) {
    let value = |cell| match cell {
        Cell::Null => Value::Null,
        Cell::Text(text) => Value::String(text),
        Cell::Int(n) => Value::from(n),
        Cell::Double(n) => Value::from(n),
        Cell::Bool(yes) => Value::Bool(yes),
        Cell::Date(days) => iso_date(days).map_or(Value::Null, Value::String),
        Cell::Time(us) => {
            let nanos = us.rem_euclid(1_000_000) as i32 * 1_000;
            rfc3339(us.div_euclid(1_000_000), nanos).map_or(Value::Null, Value::String)
        }
        Cell::List(entries) => Value::from(entries),
        Cell::Json(json) => json,
    };
    let cells = table.columns.iter().zip(row).map(|(column, cell)| (column.name.clone(), value(cell)));
    let object: Map<String, Value> = cells.collect();
    out.extend_from_slice(Value::Object(object).to_string().as_bytes());
    out.push(b'\n');
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use prost::Message;

    fn change(id: &str, title: &str) -> v1::Change {
        let case = v1::Case { title: Some(title.into()), ..v1::Case::default() };
        v1::Change {
            name: format!("divisions/220822101000/cases/{id}"),
            kind: "case".into(),
            fields: case.encode_to_vec().into(),
            ..v1::Change::default()
        }
    }

    fn titles(path: &Path) -> Vec<String> {
        let text = fs::read_to_string(path).unwrap();
        let line =
            |line: &str| serde_json::from_str::<Value>(line).unwrap()["title"].as_str().unwrap().into();
        text.lines().map(line).collect()
    }

    #[test]
    fn lines_are_whole_after_a_crash_and_segments_are_closed() {
        let place = tempfile::tempdir().unwrap();
        let open = || JsonlSink::open(place.path(), "feed", Table::of(&[])).unwrap();
        let (mut sink, wants_all) = open();
        assert!(wants_all);
        sink.write(&[change("1", "一"), change("2", "二")], 5).unwrap();
        sink.commit(None, 6, false).unwrap();
        drop(sink);
        let segment = place.path().join("cases/cases-00000001.jsonl.open");
        assert_eq!(titles(&segment), ["一", "二"]);
        File::options().append(true).open(&segment).unwrap().write_all(b"{\"title\":\"half").unwrap();

        let (mut sink, wants_all) = open();
        assert!(!wants_all);
        sink.write(&[change("1", "三")], 7).unwrap();
        sink.commit(None, 8, true).unwrap();
        assert!(!segment.exists());
        assert_eq!(titles(&place.path().join("cases/cases-00000001.jsonl")), ["一", "二", "三"]);
        let files = &sink.folder.manifest.tables["cases"].files;
        assert_eq!(files[0], DataFile { path: "cases/cases-00000001.jsonl".into(), rows: 3 });
        // As after a crash between closing a segment and noting it.
        sink.folder.manifest.tables.get_mut("cases").unwrap().files.clear();
        sink.folder.commit().unwrap();
        drop(sink);
        let (mut sink, _) = open();
        assert_eq!(sink.folder.manifest.tables["cases"].files[0].rows, 3, "it is not written over");
        sink.write(&[change("4", "四")], 9).unwrap();
        sink.commit(
            Some(prost_types::Timestamp { seconds: 1, nanos: 0 }),
            SEGMENT_SECONDS * 1_000_000 + 9,
            false,
        )
        .unwrap();
        assert_eq!(titles(&place.path().join("cases/cases-00000002.jsonl")), ["四"], "old enough");
    }
}
