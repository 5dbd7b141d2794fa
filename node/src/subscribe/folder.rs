//! A folder of files for one subscription: taken by one process, and described by a manifest that is replaced as a
//! whole. What the manifest names is complete and on disk.

use std::collections::BTreeMap;
use std::fs::{self, File, TryLockError};
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::SinkError;
use super::columns::{Label, Shape, Table};

/// Name of the manifest.
pub const MANIFEST: &str = "manifest.json";
const LOCK: &str = ".lock";
/// Files that are being written begin so; what is left of them after a crash is nothing.
pub(super) const UNFINISHED: &str = ".tmp-";

/// What the folder holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// `jsonl` or `parquet`.
    pub format: String,
    /// The subscription's name.
    pub subscription: String,
    /// Short sum over all columns.
    pub columns: String,
    /// Number of the last commit.
    pub last_seq: i64,
    /// Everything that changed before this moment is in the files.
    pub caught_up_time: Option<String>,
    /// By the tables' names.
    pub tables: BTreeMap<String, TableFiles>,
    /// The English names and Chinese labels of the values of enums, by `table.column`.
    pub labels: BTreeMap<String, BTreeMap<String, String>>,
}

/// The files of one table.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableFiles {
    /// Chinese name.
    pub label: String,
    /// Files with all rows, relative to the folder, the oldest first: of a name the last row counts.
    pub files: Vec<DataFile>,
    /// Files that no longer count; they are deleted when the next take their place.
    pub replaced: Vec<String>,
    /// What the columns are.
    pub columns: Vec<ColumnNote>,
}

/// One file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DataFile {
    /// Relative to the folder.
    pub path: String,
    /// How many.
    pub rows: u64,
}

/// One column.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ColumnNote {
    /// English name.
    pub name: String,
    /// `text`, `int`, `double`, `bool`, `date`, `time`, `text_list` or `json`.
    pub shape: String,
    /// Chinese.
    pub comment: String,
}

/// A folder that this process has taken.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    /// As it is on disk, or will be with the next commit.
    pub manifest: Manifest,
    _lock: File,
}

impl Folder {
    /// Takes a folder for a subscription, making it where it is missing. Says whether it is new or lacks columns.
    ///
    /// # Errors
    /// Another process has it, or it belongs to another subscription or format.
    pub fn open(
        path: &Path,
        format: &str,
        subscription: &str,
        tables: &[Table],
    ) -> Result<(Folder, bool), SinkError> {
        fs::create_dir_all(path).map_err(|error| of_io(path, &error))?;
        let lock_path = path.join(LOCK);
        let lock = File::options().create(true).truncate(false).write(true).open(&lock_path);
        let lock = lock.map_err(|error| of_io(&lock_path, &error))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let text = format!("{}: another process writes there (目录已被另一进程使用)", path.display());
                return Err(SinkError::Refused(text));
            }
            Err(TryLockError::Error(error)) => return Err(of_io(&lock_path, &error)),
        }
        let known = read_manifest(&path.join(MANIFEST))?;
        if let Some(known) = &known
            && (known.format != format || known.subscription != subscription)
        {
            return Err(SinkError::Refused(format!(
                "{} holds the files of subscription {} as {}; give each its own folder (目录属于其他订阅)",
                path.display(),
                known.subscription,
                known.format
            )));
        }
        let columns = super::postgres::fingerprint(tables);
        let wants_all = known.as_ref().is_none_or(|known| known.columns != columns);
        let mut manifest = known.unwrap_or_default();
        manifest.format = format.to_owned();
        manifest.subscription = subscription.to_owned();
        manifest.columns = columns;
        for table in tables {
            describe(&mut manifest, table);
            let folder = path.join(table.name());
            fs::create_dir_all(&folder).map_err(|error| of_io(&folder, &error))?;
            remove_unfinished(&folder)?;
        }
        sync_folder(path)?;
        Ok((Folder { path: path.to_owned(), manifest, _lock: lock }, wants_all))
    }

    /// A path inside it.
    pub fn path(&self, relative: &str) -> PathBuf {
        self.path.join(relative)
    }

    /// Puts the manifest on disk in place of the one before.
    ///
    /// # Errors
    /// What the file system says.
    pub fn commit(&self) -> Result<(), SinkError> {
        let text = serde_json::to_vec_pretty(&self.manifest)
            .map_err(|error| SinkError::Refused(format!("{MANIFEST}: {error}")))?;
        let target = self.path.join(MANIFEST);
        let unfinished = self.path.join(format!("{UNFINISHED}{MANIFEST}"));
        let mut file = File::create(&unfinished).map_err(|error| of_io(&unfinished, &error))?;
        file.write_all(&text).map_err(|error| of_io(&unfinished, &error))?;
        finish(file, &unfinished, &target)
    }
}

/// Puts a whole file on disk under its name.
pub(super) fn finish(file: File, unfinished: &Path, target: &Path) -> Result<(), SinkError> {
    file.sync_all().map_err(|error| of_io(unfinished, &error))?;
    drop(file);
    fs::rename(unfinished, target).map_err(|error| of_io(target, &error))?;
    target.parent().map_or(Ok(()), sync_folder)
}

/// What a folder lists is on disk.
pub(super) fn sync_folder(path: &Path) -> Result<(), SinkError> {
    let synced = File::open(path).and_then(|folder| folder.sync_all());
    synced.map_err(|error| of_io(path, &error))
}

/// A full disk may be emptied; a folder that may not be written stays so.
pub(super) fn of_io(path: &Path, error: &std::io::Error) -> SinkError {
    let text = format!("{}: {error}", path.display());
    match error.kind() {
        std::io::ErrorKind::PermissionDenied
        | std::io::ErrorKind::NotADirectory
        | std::io::ErrorKind::ReadOnlyFilesystem => SinkError::Refused(text),
        _ => SinkError::Unavailable(text),
    }
}

fn read_manifest(path: &Path) -> Result<Option<Manifest>, SinkError> {
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(of_io(path, &error)),
    };
    let manifest = serde_json::from_slice(&text);
    manifest.map(Some).map_err(|error| {
        SinkError::Refused(format!("{} is not a manifest of this program: {error}", path.display()))
    })
}

fn remove_unfinished(folder: &Path) -> Result<(), SinkError> {
    for entry in fs::read_dir(folder).map_err(|error| of_io(folder, &error))? {
        let entry = entry.map_err(|error| of_io(folder, &error))?;
        if entry.file_name().to_string_lossy().starts_with(UNFINISHED) {
            fs::remove_file(entry.path()).map_err(|error| of_io(&entry.path(), &error))?;
        }
    }
    Ok(())
}

fn describe(manifest: &mut Manifest, table: &Table) {
    let files = manifest.tables.entry(table.name().to_owned()).or_default();
    files.label = table.kind.label.to_owned();
    let note = |column: &super::columns::Column| ColumnNote {
        name: column.name.clone(),
        shape: shape_name(column.shape).to_owned(),
        comment: column.comment.clone(),
    };
    files.columns = table.columns.iter().map(note).collect();
    for Label { table, column, value, label } in table.labels() {
        manifest.labels.entry(format!("{table}.{column}")).or_default().insert(value, label);
    }
}

fn shape_name(shape: Shape) -> &'static str {
    match shape {
        Shape::Text => "text",
        Shape::Int => "int",
        Shape::Double => "double",
        Shape::Bool => "bool",
        Shape::Date => "date",
        Shape::Time => "time",
        Shape::TextList => "text_list",
        Shape::Json => "json",
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_has_one_writer_one_subscription_and_one_format() {
        let place = tempfile::tempdir().unwrap();
        let tables = Table::of(&[]);
        let (folder, wants_all) = Folder::open(place.path(), "jsonl", "feed", &tables).unwrap();
        assert!(wants_all, "nothing is there yet");
        let second = Folder::open(place.path(), "jsonl", "feed", &tables).unwrap_err();
        assert!(matches!(second, SinkError::Refused(_)), "{second}");
        folder.commit().unwrap();
        drop(folder);
        assert!(Folder::open(place.path(), "parquet", "feed", &tables).is_err());
        assert!(Folder::open(place.path(), "jsonl", "other", &tables).is_err());
        let (folder, wants_all) = Folder::open(place.path(), "jsonl", "feed", &tables).unwrap();
        assert!(!wants_all);
        drop(folder);
        let fewer = Table::of(&[guantong_proto::rules::Kind::by_name("grid").unwrap()]);
        assert!(Folder::open(place.path(), "jsonl", "feed", &fewer).unwrap().1, "other columns");
    }
}
