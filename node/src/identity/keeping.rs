//! The files of a node's identity, put in the place of others.
//!
//! A key and its certificate stand in two files, so they cannot change in one step. The new pair is written beside the
//! old one first, whole; then both are renamed. [`settle`] finishes or takes back what a crash has interrupted, before
//! the files are read: a mismatched pair is never put to use. Roots and revocation lists are replaced in the same way. A
//! key must never be readable by others, not even for a moment.

use std::io;
use std::path::{Path, PathBuf};

use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

use super::pki::files::write_whole;
use super::tls::{IdentityError, IdentityFiles};
use super::words::Words;

/// The permissions of a key, and those of what everyone may read.
const SECRET: u32 = 0o600;
const PUBLIC: u32 = 0o644;

/// Where a key or certificate waits for the other.
fn beside(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".next");
    PathBuf::from(name)
}

fn of_file(path: &Path) -> impl FnOnce(io::Error) -> IdentityError {
    |source| IdentityError::File { path: path.to_owned(), source }
}

/// Puts a key where only its owner reads it, to wait for its certificate.
///
/// # Errors
/// The failed file operation.
pub fn keep_waiting_key(files: &IdentityFiles, key_pem: &str) -> Result<(), IdentityError> {
    let path = beside(&files.key);
    write_whole(&path, key_pem.as_bytes(), SECRET).map_err(of_file(&path))
}

/// The key that waits, if there is one.
pub fn waiting_key(files: &IdentityFiles) -> Option<String> {
    std::fs::read_to_string(beside(&files.key)).ok()
}

/// Puts a new pair in the place of the old one.
///
/// # Errors
/// The failed file operation; [`settle`] makes one pair of what is there.
pub fn replace_pair(
    files: &IdentityFiles,
    certificate_pem: &str,
    key_pem: &str,
) -> Result<(), IdentityError> {
    keep_waiting_key(files, key_pem)?;
    let certificate = beside(&files.certificate);
    write_whole(&certificate, certificate_pem.as_bytes(), PUBLIC).map_err(of_file(&certificate))?;
    settle(files)
}

/// Puts a text for everyone in the place of a file.
///
/// # Errors
/// The failed file operation.
pub fn replace(path: &Path, text: &str) -> Result<(), IdentityError> {
    write_whole(path, text.as_bytes(), PUBLIC).map_err(of_file(path))
}

/// Puts new roots and revocation lists in the place of the old ones: a new root never without its list.
///
/// # Errors
/// The failed file operation; [`settle`] leaves both as they were, or both new.
pub fn replace_trust(
    files: &IdentityFiles,
    authorities: &str,
    revocations: &str,
) -> Result<(), IdentityError> {
    let lists = files.revocations.as_deref();
    for (path, text) in [(Some(files.authority.as_path()), authorities), (lists, revocations)] {
        let Some(path) = path.map(beside) else { continue };
        write_whole(&path, text.as_bytes(), PUBLIC).map_err(of_file(&path))?;
    }
    settle(files)
}

/// Makes one of what an interrupted replacement has left: one pair of key and certificate, roots with their lists.
///
/// # Errors
/// The failed file operation.
pub fn settle(files: &IdentityFiles) -> Result<(), IdentityError> {
    settle_trust(files)?;
    let (next_certificate, next_key) = (beside(&files.certificate), beside(&files.key));
    if !next_certificate.exists() {
        return Ok(());
    }
    let belongs = |key: &Path| belong(&next_certificate, key);
    if belongs(&next_key) {
        rename(&next_key, &files.key)?;
    } else if !belongs(&files.key) {
        // Never finished, and of no use without its key.
        return std::fs::remove_file(&next_certificate).map_err(of_file(&next_certificate));
    }
    rename(&next_certificate, &files.certificate)
}

/// The lists are written last and renamed last: while they wait, the roots wait or are in their place.
fn settle_trust(files: &IdentityFiles) -> Result<(), IdentityError> {
    let Some(revocations) = &files.revocations else { return Ok(()) };
    let (next_authority, next_revocations) = (beside(&files.authority), beside(revocations));
    let finished = next_revocations.exists();
    if next_authority.exists() {
        if !finished {
            return std::fs::remove_file(&next_authority).map_err(of_file(&next_authority));
        }
        rename(&next_authority, &files.authority)?;
    }
    if finished { rename(&next_revocations, revocations) } else { Ok(()) }
}

/// Whether a certificate is for a key.
fn belong(certificate: &Path, key: &Path) -> bool {
    let read = || {
        let certificate = CertificateDer::from_pem_slice(&std::fs::read(certificate).ok()?).ok()?;
        let key = PrivateKeyDer::from_pem_slice(&std::fs::read(key).ok()?).ok()?;
        let provider: &CryptoProvider = &super::provider();
        CertifiedKey::from_der(vec![certificate], key, provider).ok()
    };
    read().is_some()
}

fn rename(from: &Path, to: &Path) -> Result<(), IdentityError> {
    let renamed = std::fs::rename(from, to).and_then(|()| {
        // The new name must survive a power loss, too.
        let dir = to.parent().filter(|dir| !dir.as_os_str().is_empty());
        dir.map_or(Ok(()), |dir| std::fs::File::open(dir)?.sync_all())
    });
    renamed.map_err(of_file(to))
}

/// Refuses a key that everyone can read; a group may (a service's group often must), with a warning.
#[cfg(unix)]
pub(super) fn check_key_permissions(path: &Path) -> Result<Option<Words>, IdentityError> {
    use std::os::unix::fs::PermissionsExt;
    let metadata =
        std::fs::metadata(path).map_err(|source| IdentityError::File { path: path.to_owned(), source })?;
    let mode = metadata.permissions().mode() & 0o7777;
    if mode & 0o007 != 0 {
        return Err(IdentityError::KeyIsOpen { path: path.to_owned(), mode });
    }
    Ok((mode & 0o070 != 0).then(|| {
        Words::new(
            format!(
                "the key {} can be read by its group (mode {mode:04o}); chmod 600 is safer",
                path.display()
            ),
            "私钥可被同组用户读取，建议执行 chmod 600",
        )
    }))
}

#[cfg(not(unix))]
pub(super) fn check_key_permissions(_: &Path) -> Result<Option<Words>, IdentityError> {
    Ok(None)
}
