//! Authorities of other makers: an existing provincial system, or SPIRE, whose certificates name no scope of ours.

use super::*;
use crate::identity::tls::{Identity, IdentityError};
use crate::identity::words::{Fault, Trouble};

/// An authority as SPIRE makes it: the trust domain as its only name beside an organisation, and no revocation list.
struct Spire {
    root_pem: String,
    intermediate_pem: String,
    intermediate: Issuer<'static, KeyPair>,
}

fn ca_params(depth: u8) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, format!("SPIFFE {depth}"));
    params.subject_alt_names = vec![uri("spiffe://guantong.local")];
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    params.key_usages = vec![rcgen::KeyUsagePurpose::KeyCertSign, rcgen::KeyUsagePurpose::CrlSign];
    params
}

impl Spire {
    /// `named`: whether the certificates of the authorities carry the trust domain, as they should.
    fn new(named: bool) -> Spire {
        let params = |depth| {
            let mut params = ca_params(depth);
            if !named {
                params.subject_alt_names.clear();
            }
            params
        };
        let root_key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
        let root = params(0).self_signed(&root_key).unwrap();
        let issuer = Issuer::new(params(0), root_key);
        let key = KeyPair::generate().unwrap();
        let intermediate = params(1).signed_by(&key, &issuer).unwrap();
        Spire {
            root_pem: root.pem(),
            intermediate_pem: intermediate.pem(),
            intermediate: Issuer::new(params(1), key),
        }
    }

    /// An X.509 SVID: one URI name, an empty subject, both usages, and the intermediate after it.
    fn svid(&self, id: &str, out: &Path) -> IdentityFiles {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.subject_alt_names = vec![uri(id), SanType::IpAddress("127.0.0.1".parse().unwrap())];
        params.is_ca = rcgen::IsCa::ExplicitNoCa;
        params.key_usages =
            vec![rcgen::KeyUsagePurpose::DigitalSignature, rcgen::KeyUsagePurpose::KeyAgreement];
        params.extended_key_usages =
            vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth, rcgen::ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().unwrap();
        let leaf = params.signed_by(&key, &self.intermediate).unwrap();
        std::fs::create_dir_all(out).unwrap();
        let files =
            IdentityFiles { authority_scope: AuthorityScope::Unlimited, ..IdentityFiles::in_dir(out) };
        std::fs::write(&files.certificate, leaf.pem() + &self.intermediate_pem).unwrap();
        std::fs::write(&files.authority, &self.root_pem).unwrap();
        std::fs::write(&files.key, key.serialize_pem()).unwrap();
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            std::fs::set_permissions(&files.key, PermissionsExt::from_mode(0o600)).unwrap();
        }
        files
    }
}

#[tokio::test]
async fn certificates_as_spire_makes_them_link_when_the_configuration_says_so() {
    for named in [true, false] {
        let dir = tempfile::tempdir().unwrap();
        let spire = Spire::new(named);
        let store = |code: &str| {
            let files = spire.svid(&format!("spiffe://guantong.local/node/{code}"), &dir.path().join(code));
            Arc::new(IdentityStore::open(files).unwrap())
        };
        let (county, township) = (store(COUNTY), store(TOWNSHIP));
        let server = Server::start(county).await;
        let dialed = server.dial(&township, ExpectedPeer::Node(division(COUNTY))).await.unwrap();
        ask(&dialed).await.unwrap();
        assert_eq!(server.acceptor.recheck(), 0);
        assert_eq!(server.callers.lock().unwrap()[0].id.subject, node(TOWNSHIP));
        // A workload of the same system that is nobody here stays outside.
        let other = spire.svid("spiffe://guantong.local/ns/default/sa/web", &dir.path().join("web"));
        let (certificate, key) = (
            std::fs::read_to_string(other.certificate).unwrap(),
            std::fs::read_to_string(other.key).unwrap(),
        );
        let told = Stranger::trusting(&spire.root_pem).with(&certificate, &key).knock(server.address).await;
        assert!(matches!(Trouble::of_io(&told), Trouble::Ours(Fault::Identity(_))), "{told}");
    }
}

#[test]
fn authorities_without_a_scope_are_refused_unless_the_configuration_lets_them() {
    let dir = tempfile::tempdir().unwrap();
    for (named, scope) in [(false, AuthorityScope::Certificate), (true, AuthorityScope::Unlimited)] {
        let files = Spire::new(named).svid("spiffe://guantong.local/node/220822101000", dir.path());
        let loaded = Identity::load(&IdentityFiles { authority_scope: scope, ..files });
        match scope {
            AuthorityScope::Unlimited => assert!(loaded.is_ok(), "{loaded:?}"),
            AuthorityScope::Certificate => {
                let error = loaded.unwrap_err();
                assert!(matches!(error, IdentityError::NoScope(_)), "{error}");
                assert!(error.to_string().contains("authority_scope"), "{error}");
            }
        }
    }
}

#[test]
fn weak_keys_are_refused_whoever_signed_them() {
    let world = World::new();
    let county = world.node(COUNTY).current();
    let authority = world.authority.authority();
    let issuer_key = KeyPair::from_pem(&authority.key_pem()).unwrap();
    let issuer = Issuer::from_ca_cert_pem(authority.certificate_pem(), issuer_key).unwrap();
    for (public, expected) in [
        (include_str!("rsa_1024.pub.pem"), Err(Trouble::Theirs(Fault::WeakKey))),
        (include_str!("rsa_2048.pub.pem"), Ok(())),
    ] {
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![uri("spiffe://guantong.local/node/220822101000")];
        let key = rcgen::SubjectPublicKeyInfo::from_pem(public).unwrap();
        let leaf = params.signed_by(&key, &issuer).unwrap();
        let peer = Peer::of_chain(&[leaf.der().clone()], "127.0.0.1:1".parse().unwrap()).unwrap();
        assert_eq!(county.check_peer(&peer), expected);
    }
}
