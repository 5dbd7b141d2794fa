//! Backup files: whole or not there, and never used when they are not what was written.
#![allow(clippy::unwrap_used)]

use super::*;

fn said(store: &[u8]) -> v1::BackupManifest {
    v1::BackupManifest {
        division: "220822101000".into(),
        epoch: 7,
        revision: 9,
        store_format: 13,
        software_version: "1".into(),
        create_time: Some(prost_types::Timestamp { seconds: 1_795_000_000, nanos: 5_000_000 }),
        record_count: 3,
        copy_bytes: store.len() as u64,
        copy_hash: blake3::hash(store).as_bytes().to_vec().into(),
    }
}

fn written(path: &Path, store: &[u8], force: bool) -> Result<Manifest, BackupError> {
    let mut writing = Writing::begin(path, force)?;
    store.chunks(1_000).try_for_each(|chunk| writing.write(chunk))?;
    writing.finish(&said(store))
}

fn names(folder: &Path) -> Vec<String> {
    let name = |entry: io::Result<fs::DirEntry>| entry.unwrap().file_name().into_string().unwrap();
    fs::read_dir(folder).unwrap().map(name).collect()
}

#[test]
fn what_is_written_is_read_again_and_its_first_lines_are_for_people() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.backup");
    let store: Vec<u8> = (0..900_000_u32).map(|i| (i % 251) as u8).collect();
    let manifest = written(&path, &store, false).unwrap();
    assert_eq!((manifest.records, manifest.created_ms), (3, 1_795_000_000_005));
    assert_eq!(names(folder.path()), ["a.backup"]);
    let mut backup = Backup::open(&path).unwrap();
    assert_eq!(backup.manifest, manifest);
    let mut read = Vec::new();
    backup.copy(&mut read, |_| ()).unwrap();
    assert_eq!(read, store);
    let head = fs::read(&path).unwrap()[..HEAD_BYTES].to_vec();
    let head = String::from_utf8(head).unwrap();
    assert!(head.starts_with("guantong backup 1\n{\"division\":\"220822101000\""), "{head}");
    use std::os::unix::fs::PermissionsExt;
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn no_file_is_written_over_unasked_and_none_is_left_half() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.backup");
    written(&path, b"first", false).unwrap();
    assert!(matches!(written(&path, b"second", false), Err(BackupError::Exists(_))));
    assert_eq!(Backup::open(&path).unwrap().manifest.bytes, 5);
    written(&path, b"second", true).unwrap();
    assert_eq!(Backup::open(&path).unwrap().manifest.bytes, 6);
    // Taken by someone else while it was written.
    let other = folder.path().join("b.backup");
    let mut writing = Writing::begin(&other, false).unwrap();
    assert!(matches!(Writing::begin(&other, false), Err(BackupError::Written(_))));
    fs::write(&other, "taken").unwrap();
    writing.write(b"x").unwrap();
    assert!(matches!(writing.finish(&said(b"x")), Err(BackupError::Exists(_))));
    assert_eq!(fs::read(&other).unwrap(), b"taken");
    drop(Writing::begin(&folder.path().join("c.backup"), false).unwrap());
    assert!(!names(folder.path()).iter().any(|name| name.ends_with(PART)), "{:?}", names(folder.path()));
}

#[test]
fn what_came_must_be_what_the_node_sent() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.backup");
    for wrong in [
        v1::BackupManifest { copy_bytes: 2, ..said(b"x") },
        v1::BackupManifest { copy_hash: said(b"y").copy_hash, ..said(b"x") },
        v1::BackupManifest { copy_hash: vec![1].into(), ..said(b"x") },
        v1::BackupManifest { division: "nowhere".into(), ..said(b"x") },
    ] {
        let mut writing = Writing::begin(&path, false).unwrap();
        writing.write(b"x").unwrap();
        assert!(matches!(writing.finish(&wrong), Err(BackupError::Unlike(_))));
        assert!(names(folder.path()).is_empty());
    }
}

#[test]
fn what_is_not_as_it_was_written_is_not_used() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.backup");
    written(&path, &[7; 100_000], false).unwrap();
    let whole = fs::read(&path).unwrap();
    let used = |bytes: &[u8]| {
        fs::write(&path, bytes).unwrap();
        Backup::open(&path).and_then(|mut backup| backup.copy(&mut io::sink(), |_| ()))
    };
    used(&whole).unwrap();
    assert!(matches!(used(&whole[..whole.len() - 1]), Err(BackupError::NotWhole { .. })));
    assert!(matches!(used(&[&whole[..], b"x"].concat()), Err(BackupError::NotWhole { .. })));
    assert!(matches!(used(b""), Err(BackupError::NoBackup(_))));
    assert!(matches!(used(b"SQLite format 3\0"), Err(BackupError::NoBackup(_))));
    let newer =
        whole.iter().copied().enumerate().map(|(at, byte)| if at == MAGIC.len() { b'2' } else { byte });
    assert!(matches!(used(&newer.collect::<Vec<u8>>()), Err(BackupError::Newer { form: 2, .. })));
    for at in [30, 80, HEAD_BYTES, HEAD_BYTES + 50_000, whole.len() - 1] {
        let mut altered = whole.clone();
        altered[at] ^= 1;
        assert!(used(&altered).is_err(), "byte {at}");
    }
}
