//! The local socket's file: open to one group and nobody else from the moment it appears, and never taken from
//! another process that listens on it.

use std::fs;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _, chown};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use tokio::net::UnixListener;

/// Owner and group may use it.
const MODE: u32 = 0o660;
/// Where the system lists its groups.
const GROUPS: &str = "/etc/group";

/// A socket that is listened on.
pub(super) struct LocalSocket {
    pub(super) listener: UnixListener,
    path: PathBuf,
}

impl LocalSocket {
    /// Listens on `path`. A socket that an earlier process left behind is replaced.
    pub(super) fn open(path: &Path, group: Option<&str>) -> anyhow::Result<LocalSocket> {
        let shown = path.display();
        match fs::symlink_metadata(path) {
            Ok(found) if !found.file_type().is_socket() => {
                bail!("{shown} is there and is not a socket; name another path")
            }
            Ok(_) if UnixStream::connect(path).is_ok() => {
                bail!(
                    "another program listens on {shown}; stop it, or name another path (另一程序正在使用该套接字)"
                )
            }
            _ => {}
        }
        // Made beside its place, closed to others there, and only then put in its place.
        let mut beside = path.as_os_str().to_owned();
        beside.push(".new");
        let beside = PathBuf::from(beside);
        let _ = fs::remove_file(&beside);
        let listener = UnixListener::bind(&beside)
            .with_context(|| format!("cannot listen on {shown}; does its directory exist?"))?;
        fs::set_permissions(&beside, fs::Permissions::from_mode(MODE)).with_context(|| shown.to_string())?;
        if let Some(group) = group {
            let id = group_id(group)?;
            chown(&beside, None, Some(id)).with_context(|| {
                format!("cannot give {shown} to the group {group}; the node's user must be a member of it")
            })?;
        }
        fs::rename(&beside, path).with_context(|| shown.to_string())?;
        Ok(LocalSocket { listener, path: path.to_owned() })
    }

    /// Takes the file away: who comes later is told at once that nobody is here.
    pub(super) fn remove(self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// The number of a group, by its name or number.
fn group_id(group: &str) -> anyhow::Result<u32> {
    if let Ok(id) = group.parse() {
        return Ok(id);
    }
    let groups = fs::read_to_string(GROUPS).with_context(|| format!("cannot read {GROUPS}"))?;
    find_group(&groups, group).with_context(|| {
        format!("`socket_group`: there is no group {group} in {GROUPS}; make it, or name another")
    })
}

fn find_group(groups: &str, name: &str) -> Option<u32> {
    let line = groups.lines().find(|line| line.split(':').next() == Some(name))?;
    line.split(':').nth(2)?.parse().ok()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_socket_is_closed_to_strangers_and_replaces_one_that_was_left_behind() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("node.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let socket = LocalSocket::open(&path, None).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, MODE);
        assert!(UnixStream::connect(&path).is_ok());

        let second = LocalSocket::open(&path, None).err().unwrap().to_string();
        assert!(second.contains("another program listens"), "{second}");
        socket.remove();
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_file_of_somebody_else_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("letter.txt");
        fs::write(&path, "dear").unwrap();
        assert!(LocalSocket::open(&path, None).is_err());
        assert_eq!(fs::read_to_string(&path).unwrap(), "dear");
    }

    #[test]
    fn groups_are_found_by_name_or_number() {
        let groups = "root:x:0:\nguantong:x:990:li,wang\n";
        assert_eq!(find_group(groups, "guantong"), Some(990));
        assert_eq!(find_group(groups, "guan"), None);
        assert_eq!(group_id("990").unwrap(), 990);
        assert!(group_id("no group has this name").is_err());
    }
}
