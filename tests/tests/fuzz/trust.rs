//! What strangers show at the door, and what an authority is asked for: certificates, lists, names, codes.

use std::str::FromStr;

use guantong::identity::Subject;
use guantong::identity::certificate::Certificate;
use guantong::identity::pki::{Authority, KeyRequest, Request, Revoked, Validity, read_list_pem};
use guantong::identity::revocation::RevocationList;
use guantong::identity::spiffe::{SpiffeId, TrustDomain};
use guantong_gateway::division::Division;
use guantong_gateway::invitation::{Code, FINGERPRINT_BYTES, SECRET_BYTES};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer};
use time::OffsetDateTime;

use super::runner::{fuzz, turn};

fn node() -> Subject {
    Subject::node(Division::parse("220822101").unwrap()).unwrap()
}

fn authority() -> Authority {
    Authority::create(TrustDomain::default(), "fuzz", Validity::days(3)).unwrap()
}

fn der(pem: &str) -> Vec<u8> {
    CertificateDer::from_pem_slice(pem.as_bytes()).unwrap().to_vec()
}

#[test]
fn certificates() {
    let turn = turn();
    let authority = authority();
    let issued =
        authority.issue(&Request::new(node(), Validity::days(1)).host("127.0.0.1").unwrap()).unwrap();
    let pems = [authority.certificate_pem().to_owned(), issued.certificate_pem];
    let samples: Vec<Vec<u8>> = pems.iter().flat_map(|pem| [der(pem), pem.as_bytes().to_vec()]).collect();
    fuzz(&turn, "certificates", &samples, |input| {
        for read in [Certificate::read(input), Certificate::read_pem(input)].into_iter().flatten() {
            let _ = read.identity();
        }
    });
}

#[test]
fn revocation_lists() {
    let turn = turn();
    let revoked = ["01", "7fffffffffffffff"]
        .map(|serial| Revoked { serial: serial.to_owned(), at: OffsetDateTime::now_utc() });
    let list = authority().revocation_list(&revoked, 9, Validity::days(1)).unwrap();
    let der = CertificateRevocationListDer::from_pem_slice(list.as_bytes()).unwrap();
    fuzz(&turn, "lists", &[der.to_vec(), list.into_bytes()], |input| {
        for list in [RevocationList::read(input), read_list_pem(input)].into_iter().flatten() {
            let _ = (list.number(), list.is_late(1));
        }
    });
}

#[test]
fn signing_requests() {
    let turn = turn();
    let authority = authority();
    let request = Request::new(node(), Validity::days(1));
    let made = KeyRequest::new().unwrap();
    fuzz(
        &turn,
        "requests",
        &[made.request_pem.into_bytes(), b"-----BEGIN CERTIFICATE REQUEST-----\n".to_vec()],
        |input| {
            let Ok(text) = std::str::from_utf8(input) else { return };
            if let Ok(signed) = authority.sign_request(text, &request) {
                assert_eq!(signed.id.subject, node(), "nothing but the key is taken from a request");
            }
        },
    );
}

#[test]
fn invitation_codes() {
    let turn = turn();
    let code = Code { secret: [0x5a; SECRET_BYTES], fingerprint: [7; FINGERPRINT_BYTES] };
    let samples = [code.to_string(), code.to_string().to_lowercase().replace('-', " ")];
    fuzz(&turn, "codes", &samples.map(String::into_bytes), |input| {
        let Ok(text) = std::str::from_utf8(input) else { return };
        if let Ok(read) = Code::from_str(text) {
            assert_eq!(Code::from_str(&read.to_string()).as_ref(), Ok(&read));
        }
    });
}

#[test]
fn spiffe_ids() {
    let turn = turn();
    let samples =
        ["spiffe://guantong/node/220822101000", "spiffe://a.b-c/partner/x", "spiffe://d/operator/li"];
    fuzz(&turn, "names", &samples.map(|text| text.as_bytes().to_vec()), |input| {
        let Ok(text) = std::str::from_utf8(input) else { return };
        if let Ok(id) = SpiffeId::parse(text) {
            assert_eq!(id.to_string(), text, "there is one way to write a name");
        }
        if let Ok(domain) = TrustDomain::parse(text) {
            assert_eq!(domain.as_str(), text);
        }
    });
}
