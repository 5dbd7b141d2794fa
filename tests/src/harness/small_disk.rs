//! A disk of a few MiB, for what a full one does to real processes: memory that is mounted where only the processes of one
//! test see it. It needs no rights, but a system that lets its users have namespaces of their own.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use tempfile::TempDir;
use tokio::process::Command;

use super::namespace::{Namespace, skipped, write_script};
use super::program;

/// Mounts the disk.
const MOUNT: &str = r#"mount -t tmpfs -o "size=$1m,mode=700" none "$2""#;
/// What takes the room.
const FILLER: &str = "filler";

/// A disk; gone with the processes that use it.
pub struct SmallDisk {
    namespace: Namespace,
    folder: TempDir,
}

impl SmallDisk {
    /// An empty disk of so many MiB. `None`, and said so: there can be none here.
    pub async fn mount(mib: u32) -> Option<SmallDisk> {
        let folder = tempfile::Builder::new().prefix("gtd").tempdir().unwrap();
        let place = folder.path().join("disk");
        std::fs::create_dir(&place).unwrap();
        let mut unshare = Command::new("unshare");
        unshare.args(["--user", "--map-root-user", "--mount"]);
        let args = [&mib.to_string(), place.to_str().unwrap()];
        let Some(namespace) = Namespace::hold(unshare, MOUNT, &args).await else {
            skipped("full disks; this system gives users no namespaces (unshare --user --mount)");
            return None;
        };
        let disk = SmallDisk { namespace, folder };
        let script = format!(
            "#!/bin/sh\nexec nsenter --preserve-credentials --user --mount --target {} -- '{}' \"$@\"\n",
            disk.namespace.id(),
            program().display()
        );
        write_script(&disk.program(), &script);
        Some(disk)
    }

    /// Runs `guantong` where it sees the disk, under its own process id.
    pub fn program(&self) -> PathBuf {
        self.folder.path().join("guantong")
    }

    /// The disk, as that program names it.
    pub fn path(&self) -> PathBuf {
        self.folder.path().join("disk")
    }

    /// A file on it, as this process names it.
    pub fn file(&self, name: &str) -> PathBuf {
        let inside = self.path().join(name);
        Path::new("/proc")
            .join(self.namespace.id().to_string())
            .join("root")
            .join(inside.strip_prefix("/").unwrap())
    }

    /// The names on it, ascending.
    pub fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.file("")).unwrap();
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.retain(|name| name != FILLER);
        names.sort();
        names
    }

    /// Leaves no room on it.
    pub fn fill(&self) {
        let mut filler = File::options().create(true).append(true).open(self.file(FILLER)).unwrap();
        let block = [1; 64 << 10];
        // What is not for want of room is tried again.
        for _ in 0..1_000 {
            for bytes in [block.len(), 4 << 10] {
                while filler.write_all(&block[..bytes]).is_ok() {}
            }
            if rustix::fs::fstatvfs(&filler).unwrap().f_bavail == 0 {
                return;
            }
        }
        panic!("the small disk cannot be filled");
    }

    /// Makes room again, if it was filled.
    pub fn make_room(&self) {
        let _ = std::fs::remove_file(self.file(FILLER));
    }
}
