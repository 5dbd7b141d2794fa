//! The keys that bundles for this node are opened with: a file of its own beside the certificate, for the node's eyes only.
//!
//! One key a line, hexadecimal, the newest first; earlier ones stay, since bundles that were made for them may still be on
//! their way. A key must never be readable by others, not even for a moment, and never be shown.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use guantong_gateway::bundle::SecretKey;
use guantong_gateway::service::BundleKeys;

use super::keeping::check_key_permissions;

/// Keys in one file.
const KEYS_MAX: usize = 16;
const TITLE: &str = "guantong bundle key 1";

/// The keys of a node.
#[derive(Debug)]
pub struct NodeBundleKeys {
    path: PathBuf,
}

impl NodeBundleKeys {
    /// Those that are kept beside a certificate: `certificate.pem` has `certificate.bundle-key`.
    pub fn beside(certificate: &Path) -> NodeBundleKeys {
        NodeBundleKeys { path: certificate.with_extension("bundle-key") }
    }

    fn failed(&self, error: &io::Error) -> String {
        format!("{}: {error}", self.path.display())
    }

    /// Makes the first key, unless another process was faster.
    fn make(&self) -> io::Result<()> {
        let folder = self.path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let folder = folder.unwrap_or(Path::new("."));
        let mut bytes = [0; 32];
        getrandom::fill(&mut bytes).map_err(io::Error::other)?;
        let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        // Only its owner can read a temporary file.
        let mut file = tempfile::NamedTempFile::new_in(folder)?;
        writeln!(file, "{TITLE}\n{digits}")?;
        file.as_file().sync_all()?;
        match file.persist_noclobber(&self.path) {
            Ok(_) => std::fs::File::open(folder)?.sync_all(),
            Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            Err(error) => Err(error.error),
        }
    }
}

impl BundleKeys for NodeBundleKeys {
    fn secrets(&self) -> Result<Vec<SecretKey>, String> {
        if !self.path.exists() {
            self.make().map_err(|error| self.failed(&error))?;
        }
        check_key_permissions(&self.path).map_err(|error| error.to_string())?;
        let text = std::fs::read_to_string(&self.path).map_err(|error| self.failed(&error))?;
        keys_of(&text).ok_or_else(|| {
            format!(
                "{}: it is not a file of bundle keys, or was damaged (数据包密钥文件已损坏)",
                self.path.display()
            )
        })
    }
}

fn keys_of(text: &str) -> Option<Vec<SecretKey>> {
    let mut lines = text.lines();
    if lines.next()? != TITLE {
        return None;
    }
    let keys: Option<Vec<SecretKey>> = lines.take(KEYS_MAX).map(key_of).collect();
    keys.filter(|keys| !keys.is_empty())
}

fn key_of(line: &str) -> Option<SecretKey> {
    if line.len() != 64 || !line.is_ascii() {
        return None;
    }
    let mut bytes = [0; 32];
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(line.get(2 * at..2 * at + 2)?, 16).ok()?;
    }
    Some(SecretKey::new(bytes))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_made_once_and_only_its_owner_reads_it() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let certificate = folder.path().join("certificate.pem");
        let keys = NodeBundleKeys::beside(&certificate);
        let first = keys.secrets().unwrap();
        let again = NodeBundleKeys::beside(&certificate).secrets().unwrap();
        assert_eq!(first.len(), 1);
        assert_eq!(first[0].reveal(), again[0].reveal());
        let path = folder.path().join("certificate.bundle-key");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert!(keys.secrets().unwrap_err().contains("0644"), "others can read it");
    }

    #[test]
    fn earlier_keys_are_read_and_damaged_files_are_not() {
        let line = "ab".repeat(32);
        assert_eq!(keys_of(&format!("{TITLE}\n{line}\n{line}\n")).unwrap().len(), 2);
        let cut = &line[..63];
        let damaged = [
            String::new(),
            TITLE.into(),
            format!("{TITLE}\n{cut}"),
            format!("{TITLE}\n{cut}g"),
            line.clone(),
        ];
        assert!(damaged.iter().all(|text| keys_of(text).is_none()));
    }
}
