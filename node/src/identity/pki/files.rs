//! The files of an authority's directory: written whole or not at all, and by one process at a time.
//!
//! A key must never be readable by others, not even for a moment.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::dir::DirError;

/// How long a change waits for another one to end.
const LOCK_PATIENCE: Duration = Duration::from_secs(10);
/// Wait between two looks at a lock that another holds.
const LOCK_PAUSE: Duration = Duration::from_millis(5);

/// The exclusive right to change a directory, until it is dropped or the process ends.
pub(super) struct Lock {
    _file: fs::File,
}

impl Lock {
    /// Waits for the right, for at most ten seconds.
    pub(super) fn take(dir: &Path) -> Result<Lock, DirError> {
        let path = dir.join("lock");
        let failed = |source| DirError::File { path: path.clone(), source };
        let mut options = fs::OpenOptions::new();
        options.create(true).truncate(false).write(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let file = options.open(&path).map_err(failed)?;
        let until = Instant::now() + LOCK_PATIENCE;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Lock { _file: file }),
                Err(fs::TryLockError::Error(source)) => return Err(failed(source)),
                Err(fs::TryLockError::WouldBlock) if Instant::now() >= until => {
                    return Err(DirError::Busy(dir.to_owned()));
                }
                Err(fs::TryLockError::WouldBlock) => std::thread::sleep(LOCK_PAUSE),
            }
        }
    }
}

pub(super) fn refuse_existing(dir: &Path, names: &[&str], force: bool) -> Result<(), DirError> {
    let in_the_way = names.iter().map(|name| dir.join(name)).find(|path| path.exists());
    match in_the_way {
        Some(path) if !force => Err(DirError::Exists(path)),
        _ => Ok(()),
    }
}

pub(super) fn read(path: &Path) -> Result<String, DirError> {
    fs::read_to_string(path).map_err(|source| DirError::File { path: path.to_owned(), source })
}

/// A directory that only its owner may enter, if it is not there yet.
pub(super) fn make_dir(dir: &Path) -> Result<(), DirError> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(dir).map_err(|source| DirError::File { path: dir.to_owned(), source })
}

/// Writes beside the target, with the final permissions from the start, then renames.
pub(super) fn write(path: &Path, bytes: &[u8], mode: u32) -> Result<(), DirError> {
    write_whole(path, bytes, mode).map_err(|source| DirError::File { path: path.to_owned(), source })
}

/// Puts a text in place of a file, whole or not at all, with these permissions from the start.
///
/// # Errors
/// The failed file operation; what was there before is still there.
pub(in crate::identity) fn write_whole(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let mut unique = [0; 4];
    getrandom::fill(&mut unique).map_err(io::Error::other)?;
    let mut beside = path.as_os_str().to_owned();
    beside.push(format!(".{:08x}.new", u32::from_be_bytes(unique)));
    let beside = PathBuf::from(beside);
    let written = (|| {
        let mut options = fs::OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, mode);
        #[cfg(not(unix))]
        let _ = mode;
        let mut file = options.open(&beside)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&beside, path)?;
        // The new name itself must survive a power loss, too.
        path.parent()
            .filter(|dir| !dir.as_os_str().is_empty())
            .map_or(Ok(()), |dir| fs::File::open(dir)?.sync_all())
    })();
    if written.is_err() {
        let _ = fs::remove_file(&beside);
    }
    written
}
