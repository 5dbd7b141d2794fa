//! What is taken over of roots and revocation lists that somebody passes on.

use super::*;
use crate::identity::revocation::revokes;
use crate::identity::trust::{NotTaken, Trust};
use rcgen::{BasicConstraints, IsCa, KeyUsagePurpose};

const NOW_MS: fn() -> u64 = crate::identity::now_ms;

/// An authority's root and its list, of this number.
fn trust(authority: &Authority, number: u64, revoked: &[&str]) -> Trust {
    let revoked: Vec<_> = revoked
        .iter()
        .map(|serial| crate::identity::pki::Revoked {
            serial: (*serial).to_owned(),
            at: OffsetDateTime::now_utc(),
        })
        .collect();
    let list = authority.revocation_list(&revoked, number, Validity::days(5)).unwrap();
    Trust { authorities: authority.certificate_pem().to_owned(), revocations: list }
}

/// A certificate by which the old root vouches for the new one.
fn cross(old: &Authority, new: &Authority) -> String {
    let key = KeyPair::from_pem(&old.key_pem()).unwrap();
    let issuer = Issuer::from_ca_cert_pem(old.certificate_pem(), key).unwrap();
    let mut params = CertificateParams::default();
    let name = new.certificate().subject.strip_prefix("CN=").unwrap().to_owned();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = OffsetDateTime::now_utc() - time::Duration::days(1);
    params.subject_alt_names = vec![SanType::URI(trust_domain().uri().try_into().unwrap())];
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(2));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.signed_by(&KeyPair::from_pem(&new.key_pem()).unwrap(), &issuer).unwrap().pem()
}

#[test]
fn a_newer_list_is_taken_and_an_older_one_is_not() {
    let authority = other_authority();
    let (old, new) = (trust(&authority, 5, &[]), trust(&authority, 6, &["4a"]));
    let (taken, not_taken) = old.with(&new, NOW_MS());
    assert!(revokes(&taken.revocations, "4a") && not_taken.is_empty());
    assert_eq!(taken.authorities, old.authorities);
    assert_eq!(taken.with(&old, NOW_MS()), (taken.clone(), Vec::new()), "an older list is no news");
    assert_eq!(taken.with(&new, NOW_MS()).0, taken);
    assert_eq!(taken.with(&Trust::default(), NOW_MS()).0, taken, "nothing is ever taken away");
}

#[test]
fn a_list_that_nobody_trusted_signed_is_not_taken() {
    let (ours, theirs) = (other_authority(), other_authority());
    let own = trust(&ours, 5, &[]);
    let foreign = Trust { authorities: String::new(), ..trust(&theirs, 9, &["4a"]) };
    let (taken, not_taken) = own.with(&foreign, NOW_MS());
    assert_eq!(taken, own);
    assert!(matches!(not_taken.as_slice(), [NotTaken::List(_)]), "{not_taken:?}");
    // One whose time has passed would be worse than the one in use.
    let late = ours.revocation_list(&[], 9, between(-9, -1)).unwrap();
    assert_eq!(own.with(&Trust { revocations: late, ..own.clone() }, NOW_MS()).0, own);
}

#[test]
fn a_new_root_needs_one_that_vouches_for_it() {
    let (old, new) = (other_authority(), other_authority());
    let own = trust(&old, 5, &[]);
    let alone = trust(&new, 7, &[]);
    let (taken, not_taken) = own.with(&alone, NOW_MS());
    assert_eq!(taken, own);
    assert!(not_taken.iter().any(|not| matches!(not, NotTaken::Root(_))), "{not_taken:?}");

    let vouched =
        Trust { authorities: format!("{}{}", alone.authorities, cross(&old, &new)), ..alone.clone() };
    let without_list = Trust { revocations: String::new(), ..vouched.clone() };
    assert!(!own.with(&without_list, NOW_MS()).0.authorities.contains(new.certificate_pem().trim()));
    let (taken, not_taken) = own.with(&vouched, NOW_MS());
    assert!(not_taken.is_empty(), "{not_taken:?}");
    for root in [&old, &new] {
        assert!(taken.authorities.contains(root.certificate_pem().trim()));
    }
    // Who comes later learns it from this node.
    assert_eq!(own.with(&taken, NOW_MS()).0, taken);
    assert_eq!(taken.with(&vouched, NOW_MS()).0, taken);
    // A root that comes twice, or with its text broken otherwise, is one root.
    let twice = Trust { authorities: vouched.authorities.repeat(2), ..vouched.clone() };
    assert_eq!(own.with(&twice, NOW_MS()).0.authorities, taken.authorities);
    let otherwise = Trust { authorities: vouched.authorities.replace('\n', "\r\n"), ..vouched };
    assert_eq!(taken.with(&otherwise, NOW_MS()).0.authorities, taken.authorities);

    let stranger = other_authority();
    let forged = Trust { authorities: format!("{}{}", alone.authorities, cross(&stranger, &new)), ..alone };
    assert_eq!(own.with(&forged, NOW_MS()).0, own);
}

#[tokio::test]
async fn what_is_taken_over_is_in_use_and_in_the_files() {
    let world = World::new();
    let county = world.node(COUNTY);
    let request = Request::new(Subject::operator("li").unwrap(), Validity::days(2));
    let (issued, _) = world.authority.issue(&request, &world.path("li"), false).unwrap();
    world.authority.revoke("operator/li").unwrap();
    let [roots, lists] = world.authority.public_files();
    let offered = Trust::new(&std::fs::read(roots).unwrap(), Some(&std::fs::read(lists).unwrap()));
    assert_eq!(county.take_over(&offered).unwrap(), (true, Vec::new()));
    let kept = std::fs::read_to_string(county.files().revocations.as_ref().unwrap()).unwrap();
    assert!(revokes(&kept, &issued.serial));
    assert!(county.current().revocation_lists().iter().any(|list| list.serials.contains(&issued.serial)));
    assert_eq!(county.take_over(&offered).unwrap(), (false, Vec::new()));

    // A new root comes with the lists; both are trusted from then on.
    let new = world.authority.rotate(Validity::days(30)).unwrap();
    let [roots, lists] = new.public_files();
    let offered = Trust::new(&std::fs::read(roots).unwrap(), Some(&std::fs::read(lists).unwrap()));
    assert_eq!(county.take_over(&offered).unwrap(), (true, Vec::new()));
    let kept = std::fs::read_to_string(&county.files().authority).unwrap();
    for root in [&world.authority, &new] {
        let root = root.authority().certificate_pem();
        assert!(kept.contains(root.split_inclusive("-----END CERTIFICATE-----").next().unwrap().trim()));
    }
    let signed = new.authority().issue(&Request::new(node(COUNTY), Validity::days(4))).unwrap();
    county.renew(&signed.certificate_pem, &signed.key_pem).unwrap();
}
