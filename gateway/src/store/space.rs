//! How much room a disk has, asked before something large is made on it.

use std::path::Path;

use super::StoreError;
use super::sqlite::io;

/// What is left alone, so that the node that runs there goes on.
const LEFT_BYTES: u64 = 16 << 20;
const MIB: u64 = 1 << 20;

/// Refuses to begin what needs so many bytes in the folder of `path`, where they are not there.
pub(super) fn ensure(path: &Path, bytes: u64) -> Result<(), StoreError> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let disk = rustix::fs::statvfs(folder).map_err(|error| io(folder, &error.into()))?;
    judge(folder, bytes, disk.f_bavail.saturating_mul(disk.f_frsize))
}

fn judge(folder: &Path, bytes: u64, free: u64) -> Result<(), StoreError> {
    let needed = bytes.saturating_add(LEFT_BYTES);
    if free >= needed {
        return Ok(());
    }
    let place = folder.display().to_string();
    Err(StoreError::NoRoom { place, needed_mib: needed.div_ceil(MIB), free_mib: free / MIB })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_has_no_room_is_not_begun_and_says_how_much_is_missing() {
        let place = Path::new("/data");
        assert_eq!(judge(place, 4 * MIB, 20 * MIB), Ok(()));
        let refused = judge(place, 4 * MIB, 20 * MIB - 1).unwrap_err();
        assert_eq!(refused, StoreError::NoRoom { place: "/data".into(), needed_mib: 20, free_mib: 19 });
        assert!(judge(place, u64::MAX, u64::MAX - 1).is_err(), "no sum wraps");
        assert_eq!(ensure(Path::new("Cargo.toml"), 1), Ok(()), "a disk that is there");
    }
}
