//! A backup as a file: what it is of, in the first 4 KiB, then the store's bytes. `head -n 2 FILE` shows the first.
//!
//! A file has its name only when it is whole and on disk, and what is not whole or not as it was written is never used.
//! Nothing here is secret or signed: whoever can write the file can make another one, so it is kept like the store.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use guantong_gateway::division::Division;
use guantong_proto::v1;
use serde::{Deserialize, Serialize};

#[cfg(test)]
mod tests;

/// The first line, without the number of the form.
const MAGIC: &str = "guantong backup ";
/// The form that this program writes and reads.
const FORM: u32 = 1;
/// Bytes before the store's.
const HEAD_BYTES: usize = 4096;
/// Read at a time.
const PIECE_BYTES: usize = 256 * 1024;
/// What an unfinished file is called besides.
const PART: &str = ".part";

/// Why a file was not written, or is not used.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The name is taken.
    #[error("{} is there already; choose another name, or write over it with --force (文件已存在)", .0.display())]
    Exists(PathBuf),
    /// Another command writes it.
    #[error("another command is writing {} just now (正在被另一命令写入)", .0.display())]
    Written(PathBuf),
    /// No room.
    #[error(
        "{} needs {needed_mib} MiB, and its disk has {free_mib} MiB free; make room or choose another disk: nothing was \
         written (磁盘空间不足)", path.display()
    )]
    NoRoom {
        /// The file.
        path: PathBuf,
        /// How much is needed.
        needed_mib: u64,
        /// How much there is.
        free_mib: u64,
    },
    /// The system refused.
    #[error("{}: {source}; nothing of it is left (文件读写失败)", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The disk that it is put back on refused.
    #[error("the store's disk refused: {0}; nothing was changed (数据目录写入失败，未做任何更改)")]
    Into(io::Error),
    /// What was written or came is not what the node sent.
    #[error("{} is not what the node sent, and was removed; look at the disk, and try again (写入校验失败)", .0.display())]
    Unlike(PathBuf),
    /// It is something else.
    #[error("{} is no backup of guantong, or its beginning is damaged (不是备份文件，或文件头已损坏)", .0.display())]
    NoBackup(PathBuf),
    /// A newer program made it.
    #[error(
        "{} was made by a newer program (form {form}); restore it with that one (备份由更新版本的程序生成)", path.display()
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its form.
        form: u32,
    },
    /// It was cut short, or something hangs on to it.
    #[error(
        "{} has {found} bytes and should have {expected}: it is not whole; fetch it again (备份文件不完整)", path.display()
    )]
    NotWhole {
        /// The file.
        path: PathBuf,
        /// How many there are.
        found: u64,
        /// How many there should be.
        expected: u64,
    },
    /// Its bytes are not those that were written.
    #[error("{} was altered or damaged since it was written; use another backup (备份文件已被改动或损坏)", .0.display())]
    Altered(PathBuf),
}

/// What a backup is of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Whose store, 12 digits.
    pub division: String,
    /// The store's random number, 16 hexadecimal digits.
    pub epoch: String,
    /// The store's last transaction.
    pub revision: u64,
    /// The store's format.
    pub store_format: u32,
    /// Version of the program that made it.
    pub software_version: String,
    /// When, Unix milliseconds.
    pub created_ms: u64,
    /// Records in it.
    pub records: u64,
    /// The store's bytes.
    pub bytes: u64,
    /// BLAKE3 over them, 64 hexadecimal digits.
    pub blake3: String,
}

impl Manifest {
    /// As the node said it; `None`: it makes no sense.
    fn of(said: &v1::BackupManifest) -> Option<Manifest> {
        let created = said.create_time.as_ref()?;
        let millis = u64::try_from(created.nanos).ok()? / 1_000_000;
        let created_ms = u64::try_from(created.seconds).ok()?.checked_mul(1_000)?.checked_add(millis)?;
        Some(Manifest {
            division: Division::parse(&said.division).ok()?.to_string(),
            epoch: format!("{:016x}", said.epoch),
            revision: said.revision,
            store_format: said.store_format,
            software_version: said.software_version.clone(),
            created_ms,
            records: said.record_count,
            bytes: said.copy_bytes,
            blake3: blake3::Hash::from_slice(&said.copy_hash).ok()?.to_hex().to_string(),
        })
    }

    /// The first bytes of a file; `None`: it does not fit.
    fn head(&self) -> Option<Vec<u8>> {
        let mut head = format!("{MAGIC}{FORM}\n{}\n", serde_json::to_string(self).ok()?);
        let hash = blake3::hash(head.as_bytes()).to_hex();
        head.push_str(&format!("{hash}\n"));
        let mut head = head.into_bytes();
        (head.len() <= HEAD_BYTES).then(|| {
            head.resize(HEAD_BYTES, 0);
            head
        })
    }

    fn read(path: &Path, head: &[u8]) -> Result<Manifest, BackupError> {
        let no_backup = || BackupError::NoBackup(path.to_owned());
        let text = head.iter().position(|byte| *byte == 0).map_or(head, |end| &head[..end]);
        let text = std::str::from_utf8(text).map_err(|_| no_backup())?;
        let (first, rest) = text.split_once('\n').ok_or_else(no_backup)?;
        let form: u32 = first.strip_prefix(MAGIC).and_then(|form| form.parse().ok()).ok_or_else(no_backup)?;
        if form > FORM {
            return Err(BackupError::Newer { path: path.to_owned(), form });
        }
        let (said, hash) = rest.split_once('\n').ok_or_else(no_backup)?;
        let hashed = &text[..first.len() + said.len() + 2];
        if hash.trim_end() != blake3::hash(hashed.as_bytes()).to_hex().as_str() {
            return Err(BackupError::Altered(path.to_owned()));
        }
        serde_json::from_str(said).map_err(|_| no_backup())
    }
}

/// A file that is being written. Dropped before it is finished, nothing of it is left.
#[derive(Debug)]
pub struct Writing {
    path: PathBuf,
    part: PathBuf,
    file: File,
    force: bool,
    hash: blake3::Hasher,
    bytes: u64,
}

impl Writing {
    /// Begins a file beside `path`, readable by its owner only.
    ///
    /// # Errors
    /// The name is taken and not to be written over, or the file cannot be made.
    pub fn begin(path: &Path, force: bool) -> Result<Writing, BackupError> {
        if !force && path.symlink_metadata().is_ok() {
            return Err(BackupError::Exists(path.to_owned()));
        }
        let mut part = path.as_os_str().to_owned();
        part.push(PART);
        let part = PathBuf::from(part);
        let failed = |source| BackupError::File { path: part.clone(), source };
        let mut options = File::options();
        options.read(true).write(true).create(true).truncate(false);
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut file = options.open(&part).map_err(failed)?;
        // Left over by a command that was killed; not by one that goes on.
        file.try_lock().map_err(|_| BackupError::Written(path.to_owned()))?;
        file.set_len(0).and_then(|()| file.write_all(&[0; HEAD_BYTES])).map_err(failed)?;
        Ok(Writing { path: path.to_owned(), part, file, force, hash: blake3::Hasher::new(), bytes: 0 })
    }

    /// Refuses to go on where the disk has no room for so many bytes.
    ///
    /// # Errors
    /// It has none.
    pub fn expect(&self, bytes: u64) -> Result<(), BackupError> {
        let disk = rustix::fs::fstatvfs(&self.file).map_err(|source| self.failed(source.into()))?;
        let free = disk.f_bavail.saturating_mul(disk.f_frsize);
        let needed = bytes.saturating_add(HEAD_BYTES as u64);
        if free >= needed {
            return Ok(());
        }
        let mib = |bytes: u64| bytes >> 20;
        let (needed_mib, free_mib) = (mib(needed.saturating_add(1 << 20)), mib(free));
        Err(BackupError::NoRoom { path: self.path.clone(), needed_mib, free_mib })
    }

    /// Writes the next bytes of the store.
    ///
    /// # Errors
    /// The disk refused.
    pub fn write(&mut self, chunk: &[u8]) -> Result<(), BackupError> {
        self.hash.update(chunk);
        self.bytes += chunk.len() as u64;
        self.file.write_all(chunk).map_err(|source| self.failed(source))
    }

    /// Puts everything on disk, reads it again, and gives the file its name.
    ///
    /// # Errors
    /// What is there is not what the node sent, or the disk refused.
    pub fn finish(mut self, said: &v1::BackupManifest) -> Result<Manifest, BackupError> {
        let unlike = || BackupError::Unlike(self.path.clone());
        let manifest = Manifest::of(said).ok_or_else(unlike)?;
        let head = manifest.head().ok_or_else(unlike)?;
        if manifest.bytes != self.bytes || manifest.blake3 != self.hash.finalize().to_hex().as_str() {
            return Err(unlike());
        }
        let written = self.file.seek(SeekFrom::Start(0)).and_then(|_| self.file.write_all(&head));
        written.and_then(|()| self.file.sync_all()).map_err(|source| self.failed(source))?;
        let again = Backup::open(&self.part).and_then(|mut backup| backup.copy(&mut io::sink(), |_| ()));
        again.map_err(|_| BackupError::Unlike(self.path.clone()))?;
        self.name().map_err(|source| match source.kind() {
            io::ErrorKind::AlreadyExists => BackupError::Exists(self.path.clone()),
            _ => self.failed(source),
        })?;
        Ok(manifest)
    }

    fn name(&self) -> io::Result<()> {
        if self.force {
            fs::rename(&self.part, &self.path)?;
        } else {
            // Unlike renaming, this takes no name that somebody else has taken meanwhile.
            fs::hard_link(&self.part, &self.path)?;
        }
        let folder = self.path.parent().filter(|folder| !folder.as_os_str().is_empty());
        File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
    }

    fn failed(&self, source: io::Error) -> BackupError {
        BackupError::File { path: self.path.clone(), source }
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        // Nothing is there any more where it was renamed.
        let _ = fs::remove_file(&self.part);
    }
}

/// A backup that is there.
#[derive(Debug)]
pub struct Backup {
    path: PathBuf,
    file: File,
    /// What it is of.
    pub manifest: Manifest,
}

impl Backup {
    /// Opens a file and reads what it is of.
    ///
    /// # Errors
    /// It is no backup, a newer program's, or not whole.
    pub fn open(path: &Path) -> Result<Backup, BackupError> {
        let failed = |source| BackupError::File { path: path.to_owned(), source };
        let mut file = File::open(path).map_err(failed)?;
        let found = file.metadata().map_err(failed)?.len();
        let mut head = Vec::with_capacity(HEAD_BYTES);
        (&mut file).take(HEAD_BYTES as u64).read_to_end(&mut head).map_err(failed)?;
        let manifest = Manifest::read(path, &head)?;
        let expected = manifest.bytes.saturating_add(HEAD_BYTES as u64);
        if found != expected {
            return Err(BackupError::NotWhole { path: path.to_owned(), found, expected });
        }
        Ok(Backup { path: path.to_owned(), file, manifest })
    }

    /// Writes the store's bytes into `out`; `said` hears how many so far.
    ///
    /// # Errors
    /// They are not those that were written once, or a disk refused.
    pub fn copy(&mut self, out: &mut impl Write, mut said: impl FnMut(u64)) -> Result<(), BackupError> {
        let path = self.path.clone();
        let failed = |source| BackupError::File { path: path.clone(), source };
        self.file.seek(SeekFrom::Start(HEAD_BYTES as u64)).map_err(failed)?;
        let (mut hash, mut done) = (blake3::Hasher::new(), 0);
        let mut piece = vec![0; PIECE_BYTES];
        loop {
            let count = self.file.read(&mut piece).map_err(failed)?;
            if count == 0 {
                break;
            }
            hash.update(&piece[..count]);
            out.write_all(&piece[..count]).map_err(BackupError::Into)?;
            done += count as u64;
            said(done);
        }
        if hash.finalize().to_hex().as_str() == self.manifest.blake3 {
            Ok(())
        } else {
            Err(BackupError::Altered(self.path.clone()))
        }
    }
}
