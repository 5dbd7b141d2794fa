//! A pair of key and certificate takes the place of another, whatever interrupts it.

use super::*;
use crate::identity::keeping::{keep_waiting_key, replace_pair, settle};
use crate::identity::{Identity, IdentityError};

/// A pair on disk, and another one to put in its place.
fn two_pairs() -> (World, IdentityFiles, Issued) {
    let world = World::new();
    world.node(TOWNSHIP);
    let files = IdentityFiles::in_dir(&world.path(TOWNSHIP));
    let new = world.authority.authority().issue(&Request::new(node(TOWNSHIP), Validity::days(4))).unwrap();
    (world, files, new)
}

fn serial(files: &IdentityFiles) -> String {
    Identity::load(files).unwrap().certificate().serial.clone()
}

fn next(path: &Path) -> PathBuf {
    PathBuf::from(format!("{}.next", path.display()))
}

#[test]
fn a_pair_takes_the_place_of_another_and_is_closed_to_others() {
    let (_world, files, new) = two_pairs();
    replace_pair(&files, &new.certificate_pem, &new.key_pem).unwrap();
    assert_eq!(serial(&files), new.serial);
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        assert_eq!(std::fs::metadata(&files.key).unwrap().permissions().mode() & 0o777, 0o600);
    }
    assert!(!next(&files.key).exists() && !next(&files.certificate).exists());
}

/// Wherever a crash interrupts the replacement, one whole pair is there after it.
#[test]
fn a_crash_at_any_step_leaves_one_pair() {
    for step in 0..4 {
        let (_world, files, new) = two_pairs();
        let old = serial(&files);
        // Key written; certificate written; key renamed; certificate renamed.
        keep_waiting_key(&files, &new.key_pem).unwrap();
        if step >= 1 {
            std::fs::write(next(&files.certificate), &new.certificate_pem).unwrap();
        }
        if step >= 2 {
            std::fs::rename(next(&files.key), &files.key).unwrap();
            let mismatched = Identity::load(&files).err();
            assert!(matches!(mismatched, Some(IdentityError::KeyMismatch)), "{mismatched:?}");
        }
        if step >= 3 {
            std::fs::rename(next(&files.certificate), &files.certificate).unwrap();
        }
        settle(&files).unwrap();
        let expected = if step == 0 { old } else { new.serial };
        assert_eq!(serial(&files), expected, "after step {step}");
        settle(&files).unwrap();
    }
}

/// Wherever a crash interrupts it, roots and lists are both as they were, or both new.
#[test]
fn a_crash_at_any_step_leaves_roots_with_their_lists() {
    for step in 0..4 {
        let (world, files, _) = two_pairs();
        let lists = files.revocations.clone().unwrap();
        let old = [&files.authority, &lists].map(|path| std::fs::read_to_string(path).unwrap());
        let rotated = world.authority.rotate(Validity::days(30)).unwrap();
        let new = rotated.public_files().map(|path| std::fs::read_to_string(path).unwrap());
        // Roots written; lists written; roots renamed; lists renamed.
        std::fs::write(next(&files.authority), &new[0]).unwrap();
        if step >= 1 {
            std::fs::write(next(&lists), &new[1]).unwrap();
        }
        if step >= 2 {
            std::fs::rename(next(&files.authority), &files.authority).unwrap();
        }
        if step >= 3 {
            std::fs::rename(next(&lists), &lists).unwrap();
        }
        IdentityStore::open(files.clone()).unwrap();
        let found = [&files.authority, &lists].map(|path| std::fs::read_to_string(path).unwrap());
        assert_eq!(found, if step == 0 { old } else { new }, "after step {step}");
        assert!(!next(&files.authority).exists() && !next(&lists).exists());
    }
}

#[test]
fn a_certificate_without_its_key_is_thrown_away() {
    let (world, files, _) = two_pairs();
    let old = serial(&files);
    let other = world.authority.authority().issue(&Request::new(node(TOWNSHIP), Validity::days(4))).unwrap();
    std::fs::write(next(&files.certificate), &other.certificate_pem).unwrap();
    settle(&files).unwrap();
    assert_eq!(serial(&files), old);
    assert!(!next(&files.certificate).exists());
}

#[test]
fn a_new_pair_that_is_no_good_changes_nothing() {
    let (world, files, new) = two_pairs();
    let old = serial(&files);
    let store = IdentityStore::open(files.clone()).unwrap();
    let foreign = other_authority().issue(&Request::new(node(TOWNSHIP), Validity::days(4))).unwrap();
    let another = world.authority.authority().issue(&Request::new(node(COUNTY), Validity::days(4))).unwrap();
    assert!(store.renew(&foreign.certificate_pem, &foreign.key_pem).is_err());
    assert!(store.renew(&new.certificate_pem, &foreign.key_pem).is_err());
    let refused = store.renew(&another.certificate_pem, &another.key_pem);
    assert!(matches!(refused, Err(IdentityError::AnotherIdentity { .. })));
    assert_eq!((serial(&files), store.current().certificate().serial.clone()), (old.clone(), old));
    store.renew(&new.certificate_pem, &new.key_pem).unwrap();
    assert_eq!(store.current().certificate().serial, new.serial);
}
