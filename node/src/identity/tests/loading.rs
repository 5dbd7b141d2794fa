//! Which certificate, key, authority and list a node starts with, and which it refuses.

use super::*;
use crate::identity::certificate::CertificateProblem;
use crate::identity::revocation::RevocationError;
use crate::identity::tls::{Identity, IdentityError, IdentityPem};

struct Pem {
    certificate: String,
    key: String,
    authority: String,
    revocations: Option<String>,
}

impl Pem {
    fn of(issued: &Issued) -> Pem {
        Pem {
            certificate: issued.certificate_pem.clone(),
            key: issued.key_pem.clone(),
            authority: issued.authority_pem.clone(),
            revocations: None,
        }
    }

    fn load(&self) -> Result<Identity, IdentityError> {
        Identity::from_pem(IdentityPem {
            certificate: self.certificate.as_bytes(),
            key: self.key.as_bytes(),
            authority: self.authority.as_bytes(),
            revocations: self.revocations.as_deref().map(str::as_bytes),
            authority_scope: AuthorityScope::default(),
        })
    }
}

macro_rules! assert_refused {
    ($result:expr, $expected:pat) => {
        match $result {
            Err($expected) => {}
            other => panic!("{other:?} is not {}", stringify!($expected)),
        }
    };
}

#[test]
fn what_does_not_fit_together_is_refused() {
    let authority = Authority::create(trust_domain(), "a", between(-20, 20)).unwrap();
    let issue = |validity| authority.issue(&Request::new(node(TOWNSHIP), validity)).unwrap();
    let (issued, other) = (issue(Validity::days(19)), issue(Validity::days(1)));
    let good = Pem::of(&issued);
    let identity = good.load().unwrap();
    assert_eq!(identity.id().to_string(), "spiffe://guantong.local/node/220822101000");
    assert_eq!(identity.warnings().len(), 1, "it expires within thirty days");

    assert_refused!(
        Pem { key: other.key_pem.clone(), ..Pem::of(&issued) }.load(),
        IdentityError::KeyMismatch
    );
    assert_refused!(Pem { key: "no key".into(), ..Pem::of(&issued) }.load(), IdentityError::NoKey);
    assert_refused!(
        Pem { certificate: String::new(), ..Pem::of(&issued) }.load(),
        IdentityError::NoCertificate
    );
    assert_refused!(Pem { authority: String::new(), ..Pem::of(&issued) }.load(), IdentityError::NoAuthority);
    let foreign = other_authority().certificate_pem().to_owned();
    assert_refused!(Pem { authority: foreign, ..Pem::of(&issued) }.load(), IdentityError::NotSigned);
    let leaf = issued.certificate_pem.clone();
    assert_refused!(Pem { authority: leaf, ..Pem::of(&issued) }.load(), IdentityError::NotAnAuthority(_));
    assert_refused!(Pem::of(&issue(between(-3, -1))).load(), IdentityError::Expired(_));
    assert_refused!(Pem::of(&issue(between(1, 3))).load(), IdentityError::NotYetValid(_));
    let own =
        Pem { certificate: authority.certificate_pem().into(), key: authority.key_pem(), ..Pem::of(&issued) };
    assert_refused!(own.load(), IdentityError::Certificate(CertificateProblem::Authority));
}

#[test]
fn lists_that_would_lock_everyone_out_are_refused() {
    let (authority, other) = (other_authority(), other_authority());
    let issued = authority.issue(&Request::new(node(TOWNSHIP), Validity::days(1))).unwrap();
    let list = |authority: &Authority| authority.revocation_list(&[], 1, Validity::days(1)).unwrap();
    let load = |authorities: String, lists: String| {
        Pem { authority: authorities, revocations: Some(lists), ..Pem::of(&issued) }.load()
    };
    let (a, b) = (authority.certificate_pem(), other.certificate_pem());
    load(a.into(), list(&authority)).unwrap();
    load(format!("{a}{b}"), list(&authority) + &list(&other)).unwrap();
    assert_refused!(load(a.into(), String::new()), IdentityError::Revocations(RevocationError::Empty));
    assert_refused!(load(a.into(), list(&other)), IdentityError::Revocations(RevocationError::Missing(_)));
    let beside = load(a.into(), list(&authority) + &list(&other)).unwrap();
    assert_eq!(beside.revocation_lists().len(), 1, "a stranger's list is not used");
    assert!(beside.warnings().iter().any(|words| words.en.contains("is not used")));
    assert_refused!(
        load(format!("{a}{b}"), list(&authority)),
        IdentityError::Revocations(RevocationError::Missing(_))
    );
    assert_refused!(
        load(a.into(), list(&authority) + &list(&authority)),
        IdentityError::Revocations(RevocationError::Doubled(_))
    );
    let revoked = super::super::pki::Revoked { serial: issued.serial.clone(), at: OffsetDateTime::now_utc() };
    let list = authority.revocation_list(&[revoked], 2, Validity::days(1)).unwrap();
    assert_refused!(load(a.into(), list), IdentityError::Revoked);
}

#[test]
fn a_node_needs_a_certificate_that_may_serve() {
    let authority = other_authority();
    let operator =
        authority.issue(&Request::new(Subject::operator("li").unwrap(), Validity::days(1))).unwrap();
    let identity = Pem::of(&operator).load().unwrap();
    assert!(identity.certificate().may_dial && !identity.certificate().may_serve);

    let issuer_key = KeyPair::from_pem(&authority.key_pem()).unwrap();
    let issuer = Issuer::from_ca_cert_pem(authority.certificate_pem(), issuer_key).unwrap();
    let mut params = CertificateParams::default();
    params.subject_alt_names = vec![uri("spiffe://guantong.local/node/220822101000")];
    params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
    let key = KeyPair::generate().unwrap();
    let certificate = params.signed_by(&key, &issuer).unwrap().pem();
    let client_only = Pem { certificate, key: key.serialize_pem(), ..Pem::of(&operator) };
    assert_refused!(client_only.load(), IdentityError::WrongPurpose);
}

#[cfg(unix)]
#[test]
fn a_key_open_to_all_is_refused_and_one_open_to_its_group_warned_about() {
    use std::os::unix::fs::PermissionsExt;
    let world = World::new();
    let request = Request::new(node(TOWNSHIP), Validity::days(9));
    world.authority.issue(&request, &world.path("a"), false).unwrap();
    let files = IdentityFiles::in_dir(&world.path("a"));
    let mode = |mode| std::fs::set_permissions(&files.key, PermissionsExt::from_mode(mode)).unwrap();
    let before = Identity::load(&files).unwrap().warnings().len();
    mode(0o640);
    assert_eq!(Identity::load(&files).unwrap().warnings().len(), before + 1);
    mode(0o604);
    assert_refused!(Identity::load(&files), IdentityError::KeyIsOpen { mode: 0o604, .. });
    std::fs::remove_file(&files.key).unwrap();
    let error = Identity::load(&files).unwrap_err();
    assert!(error.to_string().contains("key.pem"), "{error}");
}
