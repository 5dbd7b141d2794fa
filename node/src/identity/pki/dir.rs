//! An authority's directory: its certificate, its key, what it issued, and its current revocation list.
//!
//! ```text
//! authority.pem    its certificate, for everyone
//! authority.key    its key, mode 0600
//! issued.jsonl     a line for each certificate issued or revoked, blank ones between
//! revocations.pem  the revocation list, for everyone
//! ```
//!
//! Files appear whole or not at all. A key must never be readable by others, not even for a moment, and nothing that
//! is there is overwritten unless that is asked for.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, BufRead, Write};
use std::path::{Path, PathBuf};

use time::OffsetDateTime;

use super::{Authority, Issued, PkiError, Request, Revoked, Validity, read_list_pem};
use crate::identity::now_ms;
use crate::identity::spiffe::{SpiffeId, TrustDomain};

const AUTHORITY: &str = "authority.pem";
const AUTHORITY_KEY: &str = "authority.key";
const ISSUED: &str = "issued.jsonl";
const REVOCATIONS: &str = "revocations.pem";
const CERTIFICATE: &str = "certificate.pem";
const KEY: &str = "key.pem";

/// How long a revocation list is good for. Nodes warn after that; they do not refuse, since a township may be cut off.
const LIST_DAYS: u32 = 365;

/// Why something could not be kept or found.
#[derive(Debug, thiserror::Error)]
pub enum DirError {
    /// A file operation failed.
    #[error("{}: {source}", path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file is in the way.
    #[error(
        "{} is there already and stays as it is; choose another directory, or say --force to replace it \
         (文件已存在，未作改动；请换目录，或用 --force 覆盖)",
        .0.display()
    )]
    Exists(PathBuf),
    /// The directory has no authority.
    #[error(
        "there is no authority in {dir}; make one with: guantong pki init --dir {dir} (该目录中没有签发机构)",
        dir = .0.display()
    )]
    NoAuthority(PathBuf),
    /// A line of the record of issued certificates that cannot be read.
    #[error("{}, line {line}: not readable; restore the file from a backup (签发记录无法读取)", path.display())]
    Record {
        /// Which file.
        path: PathBuf,
        /// Which line, from 1.
        line: usize,
    },
    /// Nothing issued under that serial number or identity.
    #[error(
        "no certificate in use was issued here for «{0}»; give a serial number, an identity or a certificate file \
         (此处没有签发过该证书，或已全部吊销)"
    )]
    Unknown(String),
    /// The authority could not do it.
    #[error(transparent)]
    Pki(#[from] PkiError),
}

/// One line of the record.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
#[serde(tag = "event", rename_all = "snake_case", deny_unknown_fields)]
enum Event {
    Issued { serial: String, id: String, not_after_ms: u64, at_ms: u64 },
    Revoked { serial: String, at_ms: u64 },
}

/// A certificate that was issued here.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct IssuedEntry {
    /// Its serial number, in lower-case hexadecimal digits.
    pub serial: String,
    /// Whom it is for.
    pub id: String,
    /// When it runs out, Unix time in milliseconds.
    pub not_after_ms: u64,
    /// When it was revoked, Unix time in milliseconds.
    pub revoked_at_ms: Option<u64>,
}

/// An authority in its directory.
#[derive(Debug)]
pub struct AuthorityDir {
    dir: PathBuf,
    authority: Authority,
}

impl AuthorityDir {
    /// Makes a new authority in a directory, with an empty revocation list.
    ///
    /// # Errors
    /// [`DirError::Exists`] if one is there and `force` is not given; or a failed file operation.
    pub fn create(
        dir: &Path,
        trust_domain: TrustDomain,
        validity: Validity,
        force: bool,
    ) -> Result<AuthorityDir, DirError> {
        let authority = Authority::create(trust_domain, "Guantong authority", validity)?;
        let files = [AUTHORITY, AUTHORITY_KEY, ISSUED, REVOCATIONS];
        refuse_existing(dir, &files, force)?;
        make_dir(dir)?;
        // A forced new authority starts a new record: serial numbers of the old one mean nothing to it.
        write(&dir.join(ISSUED), b"", 0o600)?;
        write(&dir.join(AUTHORITY_KEY), authority.key_pem().as_bytes(), 0o600)?;
        write(&dir.join(AUTHORITY), authority.certificate_pem().as_bytes(), 0o644)?;
        let made = AuthorityDir { dir: dir.to_owned(), authority };
        made.write_list(&[])?;
        Ok(made)
    }

    /// Opens the authority of a directory.
    ///
    /// # Errors
    /// [`DirError::NoAuthority`], or what is wrong with it.
    pub fn open(dir: &Path) -> Result<AuthorityDir, DirError> {
        let certificate = dir.join(AUTHORITY);
        if !certificate.exists() {
            return Err(DirError::NoAuthority(dir.to_owned()));
        }
        let authority = Authority::from_pem(&read(&certificate)?, &read(&dir.join(AUTHORITY_KEY))?)?;
        Ok(AuthorityDir { dir: dir.to_owned(), authority })
    }

    /// The authority.
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// The files for everyone: the authority's certificate and its revocation list.
    pub fn public_files(&self) -> [PathBuf; 2] {
        [self.dir.join(AUTHORITY), self.dir.join(REVOCATIONS)]
    }

    /// Issues a certificate and writes `certificate.pem`, `key.pem`, `authority.pem` and `revocations.pem` to `out`.
    /// Returns the files written.
    ///
    /// # Errors
    /// [`DirError::Exists`] if there is a certificate or key already and `force` is not given.
    pub fn issue(
        &self,
        request: &Request,
        out: &Path,
        force: bool,
    ) -> Result<(Issued, Vec<PathBuf>), DirError> {
        refuse_existing(out, &[CERTIFICATE, KEY], force)?;
        let issued = self.authority.issue(request)?;
        // Recorded before it is handed out: a certificate that nobody recorded could not be revoked.
        self.record(&Event::Issued {
            serial: issued.serial.clone(),
            id: issued.id.to_string(),
            not_after_ms: issued.not_after_ms,
            at_ms: now_ms(),
        })?;
        make_dir(out)?;
        let list = read(&self.dir.join(REVOCATIONS))?;
        let files = [
            (KEY, issued.key_pem.as_str(), 0o600),
            (CERTIFICATE, issued.certificate_pem.as_str(), 0o644),
            (AUTHORITY, issued.authority_pem.as_str(), 0o644),
            (REVOCATIONS, list.as_str(), 0o644),
        ];
        let mut written = Vec::with_capacity(files.len());
        for (name, text, mode) in files {
            let path = out.join(name);
            write(&path, text.as_bytes(), mode)?;
            written.push(path);
        }
        Ok((issued, written))
    }

    /// Everything issued here, by serial number.
    ///
    /// # Errors
    /// A record that cannot be read.
    pub fn issued(&self) -> Result<Vec<IssuedEntry>, DirError> {
        let path = self.dir.join(ISSUED);
        let file = fs::File::open(&path).map_err(|source| DirError::File { path: path.clone(), source })?;
        let mut entries = BTreeMap::new();
        for (index, line) in io::BufReader::new(file).lines().enumerate() {
            let unreadable = || DirError::Record { path: path.clone(), line: index + 1 };
            let line = line.map_err(|_| unreadable())?;
            if !line.ends_with('}') {
                // Torn by a crash, so the certificate was never handed out.
                continue;
            }
            match serde_json::from_str(&line).map_err(|_| unreadable())? {
                Event::Issued { serial, id, not_after_ms, .. } => {
                    let entry = IssuedEntry { serial: serial.clone(), id, not_after_ms, revoked_at_ms: None };
                    entries.insert(serial, entry);
                }
                Event::Revoked { serial, at_ms } => {
                    let entry: &mut IssuedEntry = entries.get_mut(&serial).ok_or_else(unreadable)?;
                    entry.revoked_at_ms.get_or_insert(at_ms);
                }
            }
        }
        Ok(entries.into_values().collect())
    }

    /// Revokes one certificate by serial number, or every certificate of an identity (`spiffe://…` or `node/…`), and
    /// writes a new revocation list. Returns what was revoked by this call.
    ///
    /// # Errors
    /// [`DirError::Unknown`] if nothing that is in use matches.
    pub fn revoke(&self, what: &str) -> Result<Vec<IssuedEntry>, DirError> {
        let full = format!("{}/{what}", self.authority.trust_domain().uri());
        let id = SpiffeId::parse(what).or_else(|_| SpiffeId::parse(&full)).ok().map(|id| id.to_string());
        let serial = what.to_ascii_lowercase().replace(':', "");
        let mut entries = self.issued()?;
        let mut revoked = Vec::new();
        for entry in entries.iter_mut().filter(|entry| entry.revoked_at_ms.is_none()) {
            if entry.serial == serial || id.as_ref() == Some(&entry.id) {
                let at_ms = now_ms();
                self.record(&Event::Revoked { serial: entry.serial.clone(), at_ms })?;
                entry.revoked_at_ms = Some(at_ms);
                revoked.push(entry.clone());
            }
        }
        if revoked.is_empty() {
            return Err(DirError::Unknown(what.to_owned()));
        }
        self.write_list(&entries)?;
        Ok(revoked)
    }

    /// Writes the revocation list anew from the record, good for another year.
    ///
    /// # Errors
    /// A record that cannot be read, or a failed file operation.
    pub fn renew_list(&self) -> Result<(), DirError> {
        self.write_list(&self.issued()?)
    }

    fn write_list(&self, entries: &[IssuedEntry]) -> Result<(), DirError> {
        let path = self.dir.join(REVOCATIONS);
        let before = fs::read(&path).ok().and_then(|pem| read_list_pem(&pem)).and_then(|list| list.number());
        // Seconds since 1970, so that numbers rise even if the file before this one was lost.
        let number = (now_ms() / 1000).max(before.map_or(0, |number| number.saturating_add(1)));
        let revoked: Vec<_> = entries
            .iter()
            .filter_map(|entry| {
                let at_seconds = i64::try_from(entry.revoked_at_ms? / 1000).ok()?;
                let at = OffsetDateTime::from_unix_timestamp(at_seconds).ok()?;
                Some(Revoked { serial: entry.serial.clone(), at })
            })
            .collect();
        let list = self.authority.revocation_list(&revoked, number, Validity::days(LIST_DAYS))?;
        write(&path, list.as_bytes(), 0o644)
    }

    fn record(&self, event: &Event) -> Result<(), DirError> {
        let path = self.dir.join(ISSUED);
        let append = || {
            // A line end on both sides keeps a torn line before it apart.
            let line = format!("\n{}\n", serde_json::to_string(event).map_err(io::Error::other)?);
            let mut file = fs::OpenOptions::new().append(true).open(&path)?;
            file.write_all(line.as_bytes())?;
            file.sync_all()
        };
        append().map_err(|source| DirError::File { path: path.clone(), source })
    }
}

fn refuse_existing(dir: &Path, names: &[&str], force: bool) -> Result<(), DirError> {
    let in_the_way = names.iter().map(|name| dir.join(name)).find(|path| path.exists());
    match in_the_way {
        Some(path) if !force => Err(DirError::Exists(path)),
        _ => Ok(()),
    }
}

fn read(path: &Path) -> Result<String, DirError> {
    fs::read_to_string(path).map_err(|source| DirError::File { path: path.to_owned(), source })
}

/// A directory that only its owner may enter, if it is not there yet.
fn make_dir(dir: &Path) -> Result<(), DirError> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(dir).map_err(|source| DirError::File { path: dir.to_owned(), source })
}

/// Writes beside the target, with the final permissions from the start, then renames.
fn write(path: &Path, bytes: &[u8], mode: u32) -> Result<(), DirError> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(format!(".{}.new", std::process::id()));
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
    written.map_err(|source| {
        let _ = fs::remove_file(&beside);
        DirError::File { path: path.to_owned(), source }
    })
}
