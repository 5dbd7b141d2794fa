//! An authority's directory: its certificate, its key, what it issued, and the revocation lists.
//!
//! ```text
//! authority.pem    its certificate, and after it those of the authorities above it
//! authority.key    its key, mode 0600
//! authorities.pem  the roots that everyone trusts; without this file the authority is itself the root
//! issued.jsonl     a line for each certificate issued or revoked, blank ones between
//! revocations.pem  its revocation list and those of the authorities above it, for everyone
//! previous/        the root before this one, until it has expired; see [`AuthorityDir::rotate`]
//! rotation/        files of a new root on their way to their places; `rotation.new` while they are made
//! lock             held while something is changed
//! ```
//!
//! A running node and the command line may use one directory at the same time: each change holds the lock, and reads
//! the directory anew. Everything here waits for the disk, and up to ten seconds for the lock, so a task of an async
//! runtime must call it on a thread for blocking work. Nothing that is there is overwritten unless that is asked for.

mod exchange;
mod rotate;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use guantong_gateway::division::Division;
use time::OffsetDateTime;

use super::files::{Lock, make_dir, read, refuse_existing, write};
pub use super::record::IssuedEntry;
use super::record::{self, Event};
use super::{Authority, Issued, PkiError, Request, Revoked, Signed, Validity, read_list_pem};
use crate::identity::certificate::Certificate;
use crate::identity::spiffe::TrustDomain;
use crate::identity::words::beijing_time;
use crate::identity::{now_ms, pem, revocation};
pub use exchange::make_request_in;

const AUTHORITY: &str = "authority.pem";
const AUTHORITY_KEY: &str = "authority.key";
const AUTHORITIES: &str = "authorities.pem";
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
    /// Another process holds the lock for too long.
    #[error(
        "the authority in {} is in use by another command or node; try again when that is done \
         (签发机构正被其他程序使用，请稍后再试)",
        .0.display()
    )]
    Busy(PathBuf),
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
    /// A root that is being replaced already; holds when the one before it ends, Unix time in milliseconds.
    #[error(
        "this root has replaced another one that is good until {}; replace it after that (根机构正在轮换中)",
        beijing_time(*.0)
    )]
    Rotating(u64),
    /// Roots and lists from above that do not fit this authority.
    #[error("what comes from above does not fit this authority: {0} (上级的文件与本签发机构不符)")]
    Above(String),
    /// The authority could not do it.
    #[error(transparent)]
    Pki(#[from] PkiError),
}

/// An authority in its directory.
#[derive(Debug)]
pub struct AuthorityDir {
    dir: PathBuf,
    authority: Authority,
}

impl AuthorityDir {
    /// Makes a new root in a directory, with an empty revocation list.
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
        AuthorityDir::keep(dir, authority, "", force)
    }

    /// Puts an authority into a directory of its own. `lists` are those of the authorities above it.
    fn keep(dir: &Path, authority: Authority, lists: &str, force: bool) -> Result<AuthorityDir, DirError> {
        refuse_existing(dir, &[AUTHORITY, AUTHORITY_KEY, AUTHORITIES, ISSUED, REVOCATIONS], force)?;
        make_dir(dir)?;
        let _lock = Lock::take(dir)?;
        rotate::settle(dir)?;
        // A forced new authority starts a new record: serial numbers of the old one mean nothing to it.
        write(&dir.join(ISSUED), b"", 0o600)?;
        write(&dir.join(AUTHORITY_KEY), authority.key_pem().as_bytes(), 0o600)?;
        write(&dir.join(AUTHORITY), authority.certificate_pem().as_bytes(), 0o644)?;
        write(&dir.join(AUTHORITIES), authority.trusted_pem().as_bytes(), 0o644)?;
        write(&dir.join(REVOCATIONS), lists.as_bytes(), 0o644)?;
        let made = AuthorityDir { dir: dir.to_owned(), authority };
        made.write_list(&[])?;
        Ok(made)
    }

    /// Opens the authority of a directory, and finishes the replacement of a root that was interrupted.
    ///
    /// # Errors
    /// [`DirError::NoAuthority`], or what is wrong with it.
    pub fn open(dir: &Path) -> Result<AuthorityDir, DirError> {
        if rotate::is_unsettled(dir) {
            let _lock = Lock::take(dir)?;
            rotate::settle(dir)?;
        }
        let certificate = dir.join(AUTHORITY);
        if !certificate.exists() {
            return Err(DirError::NoAuthority(dir.to_owned()));
        }
        let mut authority = Authority::from_pem(&read(&certificate)?, &read(&dir.join(AUTHORITY_KEY))?)?;
        let trusted = dir.join(AUTHORITIES);
        if trusted.exists() || !authority.is_root() {
            authority = authority.trusting(&unexpired(&read(&trusted)?));
        }
        Ok(AuthorityDir { dir: dir.to_owned(), authority })
    }

    /// The authority, as it was when the directory was opened.
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// Where it is kept.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The files for everyone: the roots to trust and the revocation lists.
    pub fn public_files(&self) -> [PathBuf; 2] {
        let trusted = self.dir.join(AUTHORITIES);
        let trusted = if trusted.exists() { trusted } else { self.dir.join(AUTHORITY) };
        [trusted, self.dir.join(REVOCATIONS)]
    }

    /// The revocation lists for everyone, in PEM.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn revocations(&self) -> Result<String, DirError> {
        read(&self.dir.join(REVOCATIONS))
    }

    /// Does something that changes the directory, with nobody else doing so and the authority as it is now.
    fn change<T>(&self, change: impl FnOnce(&AuthorityDir) -> Result<T, DirError>) -> Result<T, DirError> {
        let _lock = Lock::take(&self.dir)?;
        rotate::settle(&self.dir)?;
        change(&AuthorityDir::open(&self.dir)?)
    }

    /// Issues a certificate with a new key and writes `certificate.pem`, `key.pem`, `authority.pem` and
    /// `revocations.pem` to `out`. Returns the files written.
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
        self.change(|now| {
            let issued = now.authority.issue(request)?;
            // Recorded before it is handed out: a certificate that nobody recorded could not be revoked.
            now.record_issued(&issued.serial, &issued.id.to_string(), issued.not_after_ms)?;
            make_dir(out)?;
            let lists = now.revocations()?;
            let written = write_all(
                out,
                &[
                    (KEY, &issued.key_pem, 0o600),
                    (CERTIFICATE, &issued.certificate_pem, 0o644),
                    (AUTHORITY, &issued.authority_pem, 0o644),
                    (REVOCATIONS, &lists, 0o644),
                ],
            )?;
            Ok((issued, written))
        })
    }

    /// Signs the key of a signing request for whom `request` says, and records it. Nothing else is taken from the
    /// request than its key.
    ///
    /// # Errors
    /// As [`Authority::sign_request`]; nothing is recorded then.
    pub fn sign_request(&self, request_pem: &str, request: &Request) -> Result<Signed, DirError> {
        self.change(|now| {
            let signed = now.authority.sign_request(request_pem, request)?;
            now.record_issued(&signed.serial, &signed.id.to_string(), signed.not_after_ms)?;
            Ok(signed)
        })
    }

    /// Makes an authority for a division inside this one's scope, in a directory of its own.
    ///
    /// # Errors
    /// [`DirError::Exists`] if one is there and `force` is not given; as [`Authority::issue_authority`]; or a failed file
    /// operation.
    pub fn issue_authority(
        &self,
        division: Division,
        validity: Validity,
        out: &Path,
        force: bool,
    ) -> Result<AuthorityDir, DirError> {
        refuse_existing(out, &[AUTHORITY, AUTHORITY_KEY], force)?;
        self.change(|now| {
            let made = now.authority.issue_authority(division, validity)?;
            let certificate = made.certificate();
            now.record_issued(&certificate.serial, &made.scope().to_string(), certificate.not_after_ms)?;
            AuthorityDir::keep(out, made, &now.revocations()?, force)
        })
    }

    /// Everything issued here, by serial number.
    ///
    /// # Errors
    /// A record that cannot be read.
    pub fn issued(&self) -> Result<Vec<IssuedEntry>, DirError> {
        let mut entries = record::read(&self.dir.join(ISSUED))?;
        if let Some(previous) = self.previous()? {
            entries.extend(previous.issued()?);
        }
        Ok(entries)
    }

    /// Revokes one certificate by serial number, or every certificate of an identity or authority (`spiffe://…`, or
    /// `node/…`, `authority/…`), and writes a new revocation list. Returns what was revoked by this call.
    ///
    /// # Errors
    /// [`DirError::Unknown`] if nothing that is in use matches.
    pub fn revoke(&self, what: &str) -> Result<Vec<IssuedEntry>, DirError> {
        self.change(|now| now.revoke_now(what))
    }

    fn revoke_now(&self, what: &str) -> Result<Vec<IssuedEntry>, DirError> {
        let full = format!("{}/{what}", self.authority.trust_domain().uri());
        let serial = what.to_ascii_lowercase().replace(':', "");
        let mut entries = record::read(&self.dir.join(ISSUED))?;
        let mut revoked = Vec::new();
        for entry in entries.iter_mut().filter(|entry| entry.revoked_at_ms.is_none()) {
            if entry.serial == serial || entry.id == what || entry.id == full {
                let at_ms = now_ms();
                let event = Event::Revoked { serial: entry.serial.clone(), at_ms };
                record::append(&self.dir.join(ISSUED), &event)?;
                entry.revoked_at_ms = Some(at_ms);
                revoked.push(entry.clone());
            }
        }
        if let Some(previous) = self.previous()? {
            match previous.revoke(what) {
                Ok(also) => revoked.extend(also),
                Err(DirError::Unknown(_)) => {}
                Err(error) => return Err(error),
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
        self.change(|now| {
            if let Some(previous) = now.previous()? {
                previous.renew_list()?;
            }
            now.write_list(&record::read(&now.dir.join(ISSUED))?)
        })
    }

    /// Makes the authority's own list; those of the authorities above stay in the file.
    fn write_list(&self, entries: &[IssuedEntry]) -> Result<(), DirError> {
        let path = self.dir.join(REVOCATIONS);
        let others = fs::read_to_string(&path).unwrap_or_default();
        let before = read_list_pem(others.as_bytes()).and_then(|list| list.number());
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
        let previous =
            self.previous()?.map(|previous| previous.revocations()).transpose()?.unwrap_or_default();
        let lists = revocation::merge([list.as_str(), self.authority.chain_pem(), &previous, &others]);
        write(&path, lists.as_bytes(), 0o644)
    }
}

/// Those certificates that have not expired. A text that cannot be read stays as it is, for others to complain about.
fn unexpired(certificates_pem: &str) -> String {
    let now = now_ms();
    let in_force = |text: &&str| {
        Certificate::read_pem(text.as_bytes()).map_or(true, |certificate| certificate.not_after_ms >= now)
    };
    let blocks = pem::blocks_of(certificates_pem, pem::CERTIFICATE).into_iter().filter(in_force);
    blocks.flat_map(|text| [text, "\n"]).collect()
}

fn write_all(out: &Path, files: &[(&str, &str, u32)]) -> Result<Vec<PathBuf>, DirError> {
    let mut written = Vec::with_capacity(files.len());
    for (name, text, mode) in files {
        let path = out.join(name);
        write(&path, text.as_bytes(), *mode)?;
        written.push(path);
    }
    Ok(written)
}
