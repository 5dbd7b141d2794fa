//! What an authority signs, keeps and revokes, and that its files survive a slip or a torn write.

use super::*;
use crate::identity::certificate::Certificate;
use crate::identity::pki::dir::DirError;
use crate::identity::pki::{KeyRequest, PkiError, read_list_pem};
use crate::identity::spiffe::SpiffeError;

#[cfg(unix)]
fn mode(path: &Path) -> u32 {
    use std::os::unix::fs::PermissionsExt;
    std::fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

#[test]
fn certificates_say_what_was_asked_for() {
    let authority = other_authority();
    let validity = between(0, 7);
    let request = Request::new(node(TOWNSHIP), validity).host("town.example").unwrap().host("::1").unwrap();
    let issued = authority.issue(&request).unwrap();
    let certificate = Certificate::read_pem(issued.certificate_pem.as_bytes()).unwrap();
    assert_eq!(certificate.identity().unwrap(), issued.id);
    assert_eq!(certificate.subject, "CN=node 220822101000");
    assert_eq!(certificate.issuer, authority.certificate().subject);
    assert_eq!(certificate.dns_names, ["town.example"]);
    assert_eq!(certificate.addresses, ["::1".parse::<std::net::IpAddr>().unwrap()]);
    assert!(certificate.may_serve && certificate.may_dial && !certificate.is_authority);
    assert_eq!(certificate.not_after_ms / 1000, validity.not_after.unix_timestamp() as u64);
    let again = authority.issue(&request).unwrap();
    assert_ne!(issued.serial, again.serial);
    assert_ne!(issued.key_pem, again.key_pem);
    assert_ne!(other_authority().certificate().subject, authority.certificate().subject);

    // It does not outlive its authority.
    let long = authority.issue(&Request::new(node(TOWNSHIP), Validity::days(10_000))).unwrap();
    assert_eq!(long.not_after_ms, authority.certificate().not_after_ms);
    let over = Authority::create(trust_domain(), "over", between(-3, -1)).unwrap();
    let refused = over.issue(&Request::new(node(TOWNSHIP), Validity::days(1)));
    assert!(matches!(refused, Err(PkiError::AuthorityOutOfDate)));
}

#[test]
fn odd_names_are_not_signed() {
    let authority = other_authority();
    for subject in [
        Subject::Operator("a/../../node/220000000000".into()),
        Subject::Partner(String::new()),
        Subject::Node(division("220822101001")),
    ] {
        let refused = authority.issue(&Request::new(subject.clone(), Validity::days(1)));
        assert!(matches!(refused, Err(PkiError::Name(_))), "{subject}");
    }
    assert_eq!(Subject::operator("Li Wei"), Err(SpiffeError::Name));
    for host in ["", "https://a.example", "a.example:7443", "a b", "镇.example"] {
        let request = Request::new(node(TOWNSHIP), Validity::days(1));
        assert!(matches!(request.host(host), Err(PkiError::Host(_))), "{host}");
    }
}

#[test]
fn nothing_is_overwritten_unasked() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path().join("authority");
    let first = AuthorityDir::create(&at, trust_domain(), Validity::days(2), false).unwrap();
    let again = AuthorityDir::create(&at, trust_domain(), Validity::days(2), false);
    assert!(matches!(again, Err(DirError::Exists(_))));
    let opened = AuthorityDir::open(&at).unwrap();
    assert_eq!(opened.authority().certificate_pem(), first.authority().certificate_pem());
    assert!(matches!(AuthorityDir::open(dir.path()), Err(DirError::NoAuthority(_))));

    let out = dir.path().join("out");
    let request = Request::new(node(TOWNSHIP), Validity::days(1));
    let (issued, files) = opened.issue(&request, &out, false).unwrap();
    assert_eq!(files.len(), 4);
    assert!(matches!(opened.issue(&request, &out, false), Err(DirError::Exists(_))));
    assert_eq!(opened.issued().unwrap().len(), 1, "what was not written was not issued");
    opened.issue(&request, &out, true).unwrap();
    assert_ne!(std::fs::read_to_string(out.join("key.pem")).unwrap(), issued.key_pem);
    #[cfg(unix)]
    {
        assert_eq!(mode(&at.join("authority.key")), 0o600);
        assert_eq!(mode(&out.join("key.pem")), 0o600);
        assert_eq!(mode(&at), 0o700);
    }
    let names: Vec<_> = std::fs::read_dir(&out).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names.len(), 4, "nothing is left lying about: {names:?}");
}

#[test]
fn revoking_lists_each_certificate_once() {
    let world = World::new();
    let authority = &world.authority;
    let request = Request::new(node(TOWNSHIP), Validity::days(1));
    let serial = |name: &str| authority.issue(&request, &world.path(name), false).unwrap().0.serial;
    let (first, second) = (serial("a"), serial("b"));
    let other = Request::new(Subject::operator("li").unwrap(), Validity::days(1));
    let (kept, _) = authority.issue(&other, &world.path("c"), false).unwrap();
    let list = || read_list_pem(&std::fs::read(&authority.public_files()[1]).unwrap()).unwrap();
    let empty = list();
    assert!(empty.serials.is_empty());

    assert_eq!(authority.revoke(&first.to_uppercase()).unwrap().len(), 1);
    assert_eq!(list().serials, std::slice::from_ref(&first));
    assert!(list().number() > empty.number());
    let revoked = authority.revoke("spiffe://guantong.local/node/220822101000").unwrap();
    assert_eq!(revoked.iter().map(|entry| &entry.serial).collect::<Vec<_>>(), [&second]);
    assert_eq!(list().serials.len(), 2);
    for unknown in [first.as_str(), "00", "node/220822101000", "spiffe://other/operator/li", "../x"] {
        assert!(matches!(authority.revoke(unknown), Err(DirError::Unknown(_))), "{unknown}");
    }
    assert!(!list().serials.contains(&kept.serial));
    let before = list();
    authority.renew_list().unwrap();
    assert_eq!(list().serials, before.serials);
    assert!(list().number() > before.number());
}

#[test]
fn a_torn_record_loses_nothing_else() {
    let world = World::new();
    let request = Request::new(node(TOWNSHIP), Validity::days(1));
    world.authority.issue(&request, &world.path("a"), false).unwrap();
    let record = world.path("authority").join("issued.jsonl");
    append(&record, "\n{\"event\":\"issued\",\"ser");
    world.authority.issue(&request, &world.path("b"), false).unwrap();
    assert_eq!(world.authority.revoke("node/220822101000").unwrap().len(), 2);

    append(&record, "{\"event\":\"unheard-of\"}");
    let error = world.authority.issued().unwrap_err();
    assert!(matches!(error, DirError::Record { .. }), "{error}");
}

#[test]
fn an_authority_needs_its_own_key() {
    let (one, other) = (other_authority(), other_authority());
    let mixed = Authority::from_pem(one.certificate_pem(), &other.key_pem());
    assert!(matches!(mixed, Err(PkiError::KeyMismatch)));
    let issued = one.issue(&Request::new(node(TOWNSHIP), Validity::days(1))).unwrap();
    let leaf = Authority::from_pem(&issued.certificate_pem, &issued.key_pem);
    assert!(matches!(leaf, Err(PkiError::NotAnAuthority)));
}

#[test]
fn an_authority_below_signs_for_its_own_divisions_only() {
    let root = other_authority();
    let prefecture = root.issue_authority(division("2208"), Validity::days(5000)).unwrap();
    let county = prefecture.issue_authority(division("220822"), Validity::days(3)).unwrap();
    assert_eq!(county.scope().to_string(), "spiffe://guantong.local/authority/220822000000");
    assert_eq!(prefecture.certificate().not_after_ms, root.certificate().not_after_ms, "it outlives nobody");
    assert_eq!(county.trusted_pem(), format!("{}\n", root.certificate_pem().trim_end()));

    let issued = county.issue(&Request::new(node(TOWNSHIP), Validity::days(1))).unwrap();
    assert_eq!(issued.authority_pem, county.trusted_pem());
    let chain = crate::identity::pem::blocks_of(&issued.certificate_pem, "CERTIFICATE");
    let subjects: Vec<_> =
        chain.iter().map(|pem| Certificate::read_pem(pem.as_bytes()).unwrap().serial).collect();
    assert_eq!(
        subjects,
        [issued.serial.clone(), county.certificate().serial.clone(), prefecture.certificate().serial.clone()],
        "its own, its issuer's, and so on up to the root, which everyone has"
    );

    let refused = county.issue(&Request::new(node("220881000000"), Validity::days(1)));
    assert!(matches!(refused, Err(PkiError::OutsideScope { .. })));
    for (above, code) in [(&prefecture, "220100"), (&prefecture, "22"), (&county, "220800")] {
        let refused = above.issue_authority(division(code), Validity::days(1));
        assert!(matches!(refused, Err(PkiError::OutsideScope { .. })), "{code}");
    }
    let same = prefecture.issue_authority(division("2208"), Validity::days(1));
    assert!(matches!(same, Err(PkiError::SameScope(_))));
    let township = county.issue_authority(division(TOWNSHIP), Validity::days(1));
    assert!(matches!(township, Err(PkiError::Name(SpiffeError::AuthorityTier))));
    // Read again from its files it is the same.
    let again = Authority::from_pem(county.certificate_pem(), &county.key_pem()).unwrap();
    assert_eq!((again.scope(), again.chain_pem()), (county.scope(), county.chain_pem()));
}

/// A request of openssl's making: other names in it, another kind of key.
fn request_of(algorithm: &'static rcgen::SignatureAlgorithm) -> (String, KeyPair) {
    let key = KeyPair::generate_for(algorithm).unwrap();
    let mut params = CertificateParams::new(["evil.example".to_owned()]).unwrap();
    params.subject_alt_names.push(uri("spiffe://guantong.local/node/220000000000"));
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    (params.serialize_request(&key).unwrap().pem().unwrap(), key)
}

#[test]
fn a_request_gives_its_key_and_no_name() {
    let authority = other_authority();
    let wanted = Request::new(node(TOWNSHIP), Validity::days(1)).host("town.example").unwrap();
    for algorithm in [&rcgen::PKCS_ECDSA_P256_SHA256, &rcgen::PKCS_ECDSA_P384_SHA384, &rcgen::PKCS_ED25519] {
        let (request, key) = request_of(algorithm);
        let signed = authority.sign_request(&request, &wanted).unwrap();
        let certificate = Certificate::read_pem(signed.certificate_pem.as_bytes()).unwrap();
        assert_eq!(certificate.uris, ["spiffe://guantong.local/node/220822101000"]);
        assert_eq!(certificate.dns_names, ["town.example"]);
        assert!(!certificate.is_authority);
        let identity = crate::identity::tls::Identity::from_pem(crate::identity::tls::IdentityPem {
            certificate: signed.certificate_pem.as_bytes(),
            key: key.serialize_pem().as_bytes(),
            authority: signed.authority_pem.as_bytes(),
            revocations: None,
            authority_scope: AuthorityScope::default(),
        });
        assert_eq!(*identity.unwrap().id(), signed.id);
    }
    let ours = KeyRequest::new().unwrap();
    authority.sign_request(&ours.request_pem, &wanted).unwrap();
    assert!(!format!("{ours:?}").contains("PRIVATE"));
}

/// Made with `openssl req -newkey rsa:2048`: an authority of ours signs no such key.
const RSA_REQUEST: &str = include_str!("rsa_request.pem");

#[test]
fn requests_that_show_nothing_are_refused() {
    let authority = other_authority();
    let wanted = Request::new(node(TOWNSHIP), Validity::days(1));
    let refused = |request: &str| authority.sign_request(request, &wanted).unwrap_err();
    assert!(matches!(refused(RSA_REQUEST), PkiError::WeakKey));
    assert!(matches!(refused(""), PkiError::Request));
    assert!(matches!(refused(authority.certificate_pem()), PkiError::Request));
    let (request, _) = request_of(&rcgen::PKCS_ECDSA_P256_SHA256);
    assert!(matches!(refused(&format!("{request}{}", "x".repeat(16 * 1024))), PkiError::Request));
    // One bit of the signature is another.
    let signature = request.find("\n-----END").unwrap() - 30;
    let other = if request.as_bytes()[signature] == b'A' { "B" } else { "A" };
    let forged = format!("{}{other}{}", &request[..signature], &request[signature + 1..]);
    assert!(matches!(refused(&forged), PkiError::RequestSignature));
}

#[test]
fn many_at_once_record_all_that_they_sign() {
    let world = World::new();
    let dir = world.path("authority");
    let request = KeyRequest::new().unwrap().request_pem;
    let serials: Vec<String> = std::thread::scope(|scope| {
        let signing: Vec<_> = (0..8)
            .map(|_| {
                scope.spawn(|| {
                    let authority = AuthorityDir::open(&dir).unwrap();
                    let wanted = Request::new(node(TOWNSHIP), Validity::days(1));
                    let signed = authority.sign_request(&request, &wanted).unwrap();
                    authority.revoke(&signed.serial).unwrap();
                    signed.serial
                })
            })
            .collect();
        signing.into_iter().map(|signing| signing.join().unwrap()).collect()
    });
    let list = read_list_pem(world.authority.revocations().unwrap().as_bytes()).unwrap();
    assert_eq!(world.authority.issued().unwrap().len(), 8);
    for serial in serials {
        assert!(list.serials.contains(&serial), "no revocation is lost");
    }
}
