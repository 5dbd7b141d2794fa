//! Another file in the place of a store: made whole beside it, and then exchanged for it. Whoever does that holds the
//! store's lock. The file of before is kept under another name; it must never be removed or written here.
//!
//! Until the new file has the name `…-next`, nothing has happened, and what there is of it is removed at the next
//! opening. From then on the exchange is decided, and is carried to its end by whoever opens the store next.

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

/// The new file while it is made.
const MAKING: &str = "-making";
/// The new file, whole.
const NEXT: &str = "-next";
/// A copy that is made for a backup.
const COPY: &str = "-copy";
/// What SQLite keeps beside a file: without it, the file is not what was written last.
const PARTS: [&str; 3] = ["", "-wal", "-journal"];
/// What it makes anew.
const INDEX: &str = "-shm";

/// A file beside another one.
pub(super) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Where the new file is made.
pub(super) fn making(path: &Path) -> PathBuf {
    beside(path, MAKING)
}

/// Where a copy for a backup is made.
pub(super) fn copy(path: &Path) -> PathBuf {
    beside(path, COPY)
}

/// Removes a file with all that SQLite keeps beside it.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    for suffix in PARTS.into_iter().chain([INDEX]) {
        match fs::remove_file(beside(path, suffix)) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// Ends an exchange that was cut short, and removes what was never finished. Gives the name that the store of before
/// has now, if there was an exchange to end.
pub(super) fn settle(path: &Path) -> io::Result<Option<PathBuf>> {
    remove(&making(path))?;
    remove(&copy(path))?;
    if !beside(path, NEXT).try_exists()? {
        return Ok(None);
    }
    finish(path)
}

/// Puts the file that was made in the place of the store. Gives the name that the store of before has now; `None`: there
/// was none.
pub(super) fn exchange(path: &Path) -> io::Result<Option<PathBuf>> {
    let making = making(path);
    File::open(&making)?.sync_all()?;
    fs::rename(making, beside(path, NEXT))?;
    sync_folder(path)?;
    finish(path)
}

fn finish(path: &Path) -> io::Result<Option<PathBuf>> {
    let next = beside(path, NEXT);
    // However often this is begun again, the name is the same.
    let made = next.metadata()?.modified()?.duration_since(UNIX_EPOCH).unwrap_or_default();
    let former = beside(path, &format!("-former-{}", made.as_millis()));
    match path.metadata() {
        // Made by an opening that came to nothing.
        Ok(file) if file.len() == 0 => fs::remove_file(path)?,
        Ok(_) if former.try_exists()? => {
            let said = format!("{} is there already; move it away", former.display());
            return Err(io::Error::new(ErrorKind::AlreadyExists, said));
        }
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    for suffix in PARTS {
        match fs::rename(beside(path, suffix), beside(&former, suffix)) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    remove(path)?;
    fs::rename(next, path)?;
    sync_folder(path)?;
    Ok(former.try_exists()?.then_some(former))
}

/// Makes names durable.
fn sync_folder(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn read(path: &Path) -> Option<String> {
        fs::read_to_string(path).ok()
    }

    #[test]
    fn wherever_it_is_cut_short_the_exchange_ends_whole() {
        // Steps: nothing, the file is moved, its log too, the new one is in place.
        for step in 0..4 {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("node.db");
            let next = beside(&path, NEXT);
            for (name, content) in [("", "old"), ("-wal", "old log"), ("-shm", "index"), (NEXT, "new")] {
                fs::write(beside(&path, name), content).unwrap();
            }
            let made = next.metadata().unwrap().modified().unwrap().duration_since(UNIX_EPOCH).unwrap();
            let former = beside(&path, &format!("-former-{}", made.as_millis()));
            for suffix in PARTS.iter().take(step.min(2)) {
                fs::rename(beside(&path, suffix), beside(&former, suffix)).unwrap();
            }
            if step == 3 {
                fs::rename(&next, &path).unwrap();
            }
            assert_eq!(settle(&path).unwrap(), (step < 3).then(|| former.clone()), "{step}");
            assert_eq!(read(&path).unwrap(), "new");
            assert_eq!(read(&former).unwrap(), "old");
            assert_eq!(read(&beside(&former, "-wal")).unwrap(), "old log");
            assert_eq!(settle(&path).unwrap(), None, "once");
            assert_eq!(read(&path).unwrap(), "new");
        }
    }

    #[test]
    fn what_was_not_whole_is_removed_and_nothing_has_happened() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("node.db");
        fs::write(&path, "old").unwrap();
        for suffix in ["", "-wal", "-shm"] {
            fs::write(beside(&making(&path), suffix), "half").unwrap();
        }
        assert_eq!(settle(&path).unwrap(), None);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        assert_eq!(read(&path).unwrap(), "old");
    }

    #[test]
    fn a_store_of_before_is_never_written_over() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("node.db");
        fs::write(&path, "old").unwrap();
        fs::write(making(&path), "new").unwrap();
        let made = making(&path).metadata().unwrap().modified().unwrap().duration_since(UNIX_EPOCH).unwrap();
        let former = beside(&path, &format!("-former-{}", made.as_millis()));
        fs::write(&former, "older").unwrap();
        assert_eq!(exchange(&path).unwrap_err().kind(), ErrorKind::AlreadyExists);
        assert_eq!((read(&path).unwrap(), read(&former).unwrap()), ("old".into(), "older".into()));
    }

    #[test]
    fn where_nothing_stood_nothing_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("node.db");
        fs::write(making(&path), "new").unwrap();
        fs::write(&path, "").unwrap();
        assert_eq!(exchange(&path).unwrap(), None);
        assert_eq!(read(&path).unwrap(), "new");
    }
}
