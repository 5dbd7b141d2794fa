//! What strangers show at the door, and what an authority is asked for: certificates, lists, names, codes.

use std::str::FromStr;
use std::sync::Arc;

use guantong::identity::certificate::Certificate;
use guantong::identity::pki::dir::AuthorityDir;
use guantong::identity::pki::{Authority, KeyRequest, Request, Revoked, Validity, read_list_pem};
use guantong::identity::revocation::RevocationList;
use guantong::identity::seal::NodeSeal;
use guantong::identity::spiffe::SpiffeId;
use guantong::identity::trust::Trust;
use guantong::identity::{IdentityFiles, IdentityStore, Subject, TrustDomain};
use guantong_gateway::audit::{Checkpoint, Hash, Head, Signed, Standing, digest, extend, judge};
use guantong_gateway::division::Division;
use guantong_gateway::invitation::{Code, FINGERPRINT_BYTES, SECRET_BYTES};
use guantong_gateway::service::Seal as _;
use guantong_gateway::service::checkpoints::read;
use guantong_proto::v1;
use prost::Message as _;

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

/// Now, in whole seconds: certificates that were made before begin before it.
fn now_ms() -> u64 {
    OffsetDateTime::now_utc().unix_timestamp() as u64 * 1_000
}

/// A checkpoint that a node of the division signed itself.
pub(super) fn signed(division: Division, head: Head) -> Signed {
    let checkpoint = Checkpoint { division, slot: 0, epoch: 7, head, time_ms: now_ms() };
    let (_folder, identity) = identity(division);
    let (signature, certificates) = NodeSeal(identity).sign(checkpoint.statement().as_bytes()).unwrap();
    Signed { checkpoint, signature, certificates }
}

/// The node of a division, and the folder with its files.
fn identity(division: Division) -> (tempfile::TempDir, Arc<IdentityStore>) {
    let folder = tempfile::tempdir().unwrap();
    let root =
        AuthorityDir::create(&folder.path().join("root"), TrustDomain::default(), Validity::days(3), false);
    let request = Request::new(Subject::node(division).unwrap(), Validity::days(1));
    let place = folder.path().join("node");
    root.unwrap().issue(&request, &place, false).unwrap();
    let identity = IdentityStore::open(IdentityFiles::in_dir(&place)).unwrap();
    (folder, Arc::new(identity))
}

/// The input is what a child hands in.
#[test]
fn checkpoints() {
    let turn = turn();
    let division = Division::parse("220822101").unwrap();
    let (_folder, identity) = identity(division);
    let seal = NodeSeal(identity);
    let kept = Checkpoint {
        division,
        slot: 0,
        epoch: 7,
        head: Head { number: 4, hash: digest("four") },
        time_ms: now_ms(),
    };
    let lines = ["five", "six"].map(digest);
    let head = Head { number: 6, hash: lines.iter().fold(kept.head.hash, |hash, line| extend(hash, *line)) };
    let new = Checkpoint { head, ..kept };
    let (signature, certificates) = seal.sign(new.statement().as_bytes()).unwrap();
    let request = v1::SubmitAuditCheckpointRequest {
        checkpoint: Some(v1::AuditCheckpoint {
            division: division.to_string(),
            slot: 0,
            epoch: 7,
            number: 6,
            hash: head.hash.0.to_vec().into(),
            time: Some(prost_types::Timestamp { seconds: (kept.time_ms / 1_000) as i64, nanos: 0 }),
            signature: signature.into(),
            certificates: certificates.into(),
        }),
        after_number: 4,
        digests: lines.iter().flat_map(|line| line.0).collect(),
    };
    let (mut taken, samples) = (0, [request.encode_to_vec()]);
    fuzz(&turn, "checkpoints", &samples, |input| {
        let Ok(request) = v1::SubmitAuditCheckpointRequest::decode(input) else { return };
        let Some(signed) = request.checkpoint.as_ref().and_then(read) else { return };
        let at = &signed.checkpoint;
        let digests: Option<Vec<Hash>> = request.digests.chunks(32).map(Hash::of_bytes).collect();
        let after = u64::try_from(request.after_number).unwrap_or(u64::MAX);
        let follows = judge(Some(&kept), at, after, &digests.unwrap_or_default());
        if seal
            .verify(division, at.time_ms, at.statement().as_bytes(), &signed.signature, &signed.certificates)
            .is_ok()
        {
            assert_eq!(*at, new, "nothing else was signed");
            taken += usize::from(follows == Ok(Standing::Next));
        }
    });
    assert!(taken > 0, "what was signed is taken");
}

/// The input is what a parent says of roots and revocation lists. Whatever it is, what was trusted stays.
#[test]
fn offers_of_trust() {
    let turn = turn();
    let folder = tempfile::tempdir().unwrap();
    let root =
        AuthorityDir::create(&folder.path().join("root"), TrustDomain::default(), Validity::days(3), false)
            .unwrap();
    let known = Trust {
        authorities: root.authority().trusted_pem().to_owned(),
        revocations: root.revocations().unwrap(),
    };
    let new = root.rotate(Validity::days(3)).unwrap();
    let offered =
        [new.authority().trusted_pem(), new.authority().chain_pem(), &new.revocations().unwrap()].concat();
    let both =
        |text: &str| known.with(&Trust { authorities: text.into(), revocations: text.into() }, now_ms());
    let taken = both(&offered).0.authorities;
    assert_eq!(taken.matches("BEGIN").count(), 2, "what proves itself is taken");
    let samples = [offered.into_bytes(), known.revocations.clone().into_bytes()];
    let roots = CertificateDer::pem_slice_iter(new.authority().trusted_pem().as_bytes());
    let roots: Vec<CertificateDer<'_>> = roots.map(Result::unwrap).collect();
    fuzz(&turn, "offers", &samples, |input| {
        let (trust, not_taken) = both(&String::from_utf8_lossy(input));
        assert!(trust.authorities.starts_with(known.authorities.trim_end()));
        assert!(not_taken.iter().all(|left| !left.to_string().is_empty()));
        // Roots are what signed itself: nothing of a stranger is among them, and nothing twice.
        let taken: Vec<_> = CertificateDer::pem_slice_iter(trust.authorities.as_bytes()).flatten().collect();
        assert!(
            taken.iter().all(|root| roots.contains(root)) && taken.len() <= roots.len(),
            "{}",
            trust.authorities
        );
    });
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
