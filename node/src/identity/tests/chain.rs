//! Whole chains over real connections: who may vouch for whom, and where.

use super::*;
use crate::identity::pki::Revoked;
use crate::identity::revocation::RevocationError;
use crate::identity::tls::{Identity, IdentityError, IdentityPem};
use crate::identity::words::{Fault, Trouble};

const PREFECTURE: &str = "220800000000";
const ELSEWHERE: &str = "220100000000";

/// A root, the authority of a prefecture below it, and that of a county below that.
struct Tiers {
    dir: tempfile::TempDir,
    root: AuthorityDir,
    prefecture: AuthorityDir,
    county: AuthorityDir,
}

impl Tiers {
    fn new() -> Tiers {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let root = AuthorityDir::create(&at("root"), trust_domain(), Validity::days(10), false).unwrap();
        let below = |above: &AuthorityDir, code: &str, name: &str| {
            above.issue_authority(division(code), Validity::days(9), &at(name), false).unwrap()
        };
        let prefecture = below(&root, PREFECTURE, "prefecture-authority");
        let county = below(&prefecture, COUNTY, "county-authority");
        Tiers { dir, root, prefecture, county }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A node with the lists of all three.
    fn node(&self, issuer: &AuthorityDir, code: &str) -> Arc<IdentityStore> {
        self.holder(issuer, node(code), code)
    }

    fn holder(&self, issuer: &AuthorityDir, subject: Subject, name: &str) -> Arc<IdentityStore> {
        let mut request = Request::new(subject, Validity::days(5));
        if matches!(request.subject, Subject::Node(_)) {
            request = request.host("127.0.0.1").unwrap();
        }
        let out = self.path(name);
        issuer.issue(&request, &out, true).unwrap();
        self.hand_out_lists(name);
        Arc::new(IdentityStore::open(IdentityFiles::in_dir(&out)).unwrap())
    }

    fn hand_out_lists(&self, name: &str) {
        let lists = [&self.county, &self.prefecture, &self.root].map(|dir| dir.revocations().unwrap());
        let all = crate::identity::revocation::merge(lists.iter().map(String::as_str));
        std::fs::write(self.path(name).join("revocations.pem"), all).unwrap();
    }
}

async fn noted(server: &Server, fault: &Fault) {
    let expected = Trouble::Theirs(fault.clone());
    until("the refusal is noted", || {
        server.acceptor.recent_refusals().iter().any(|refusal| refusal.trouble == expected)
    })
    .await;
}

fn pem_identity(certificate: &str, key: &str, authority: &str) -> Result<Identity, IdentityError> {
    Identity::from_pem(IdentityPem {
        certificate: certificate.as_bytes(),
        key: key.as_bytes(),
        authority: authority.as_bytes(),
        revocations: None,
        authority_scope: AuthorityScope::default(),
    })
}

#[tokio::test]
async fn nodes_of_three_authorities_link_in_both_directions() {
    let tiers = Tiers::new();
    let prefecture = tiers.node(&tiers.root, PREFECTURE);
    let county = tiers.node(&tiers.prefecture, COUNTY);
    let township = tiers.node(&tiers.county, TOWNSHIP);
    for (above, below) in [(&prefecture, &county), (&county, &township), (&prefecture, &township)] {
        let server = Server::start(above.clone()).await;
        let expected = ExpectedPeer::Node(above.current().id().subject.division().unwrap());
        let dialed = server.dial(below, expected).await.unwrap();
        ask(&dialed).await.unwrap();
        assert_eq!(server.acceptor.recheck(), 0);
    }
}

/// An authority that does not keep to its scope: it is made by hand, as a thief of its key would.
fn thief_of(authority: &Authority) -> Issuer<'static, KeyPair> {
    let key = KeyPair::from_pem(&authority.key_pem()).unwrap();
    Issuer::from_ca_cert_pem(authority.certificate_pem(), key).unwrap()
}

fn stolen(authority: &Authority, name: &str) -> (String, String) {
    let mut params = CertificateParams::default();
    params.subject_alt_names = vec![uri(name), SanType::IpAddress("127.0.0.1".parse().unwrap())];
    let key = KeyPair::generate().unwrap();
    let certificate = params.signed_by(&key, &thief_of(authority)).unwrap();
    (certificate.pem() + authority.chain_pem(), key.serialize_pem())
}

#[tokio::test]
async fn a_stolen_authority_makes_nobody_outside_its_scope() {
    let tiers = Tiers::new();
    let (top, county) = (tiers.node(&tiers.root, PREFECTURE), tiers.node(&tiers.prefecture, COUNTY));
    let (above, here) = (Server::start(top.clone()).await, Server::start(county.clone()).await);
    let roots = tiers.root.authority().trusted_pem();
    let outside = Fault::OutsideScope(division(COUNTY));
    for name in ["node/220881000000", "node/220800000000", "operator/li", "partner/data"] {
        let name = format!("spiffe://guantong.local/{name}");
        let (certificate, key) = stolen(tiers.county.authority(), &name);
        let told = Stranger::trusting(roots).with(&certificate, &key).knock(above.address).await;
        assert!(matches!(Trouble::of_io(&told), Trouble::Ours(Fault::Identity(_))), "{name}: {told}");
    }
    noted(&above, &outside).await;
    assert_eq!(above.acceptor.refused_count(), 4);
    // At the county itself its operators are right; a node elsewhere is not.
    let operator = tiers.holder(&tiers.county, Subject::operator("li").unwrap(), "li");
    ask(&here.dial(&operator, ExpectedPeer::AnyNode).await.unwrap()).await.unwrap();
    let refused = above.dial(&operator, ExpectedPeer::AnyNode).await.unwrap_err();
    assert_eq!(refused.code(), "no_identity");
    // Nor is one taken that poses as a parent: the dialler checks the same chain.
    let (certificate, key) = stolen(tiers.county.authority(), "spiffe://guantong.local/node/220100000000");
    let loaded = pem_identity(&certificate, &key, roots);
    assert!(matches!(loaded, Err(IdentityError::OutsideScope(scope)) if scope == division(COUNTY)));
    let error = dial_forged(&certificate, &key, &tiers.node(&tiers.county, TOWNSHIP)).await;
    assert_eq!(error.code(), "outside_scope", "{error}");
}

/// What a dialler makes of a server with this certificate.
pub(super) async fn dial_forged(certificate: &str, key: &str, from: &IdentityStore) -> DialError {
    let chain = CertificateDer::pem_slice_iter(certificate.as_bytes()).map(Result::unwrap).collect();
    let config = rustls::ServerConfig::builder_with_provider(crate::identity::provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap())
        .unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        let (tcp, _) = listener.accept().await.unwrap();
        let _ = tokio_rustls::TlsAcceptor::from(Arc::new(config)).accept(tcp).await;
    });
    connect(&address, &from.current(), ExpectedPeer::AnyNode, PATIENCE).await.unwrap_err()
}

#[tokio::test]
async fn an_authority_never_widens_by_one_below_it() {
    let tiers = Tiers::new();
    let server = Server::start(tiers.node(&tiers.root, ELSEWHERE)).await;
    let roots = tiers.root.authority().trusted_pem();
    // The prefecture's key signs an authority of another prefecture, of everything, or of nothing that is said.
    for scope in [
        vec![uri("spiffe://guantong.local/authority/220100000000")],
        vec![uri("spiffe://guantong.local")],
        vec![uri("spiffe://other.example/authority/220822000000")],
        vec![],
    ] {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "widened");
        params.subject_alt_names = scope.clone();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Constrained(0));
        let key = KeyPair::generate().unwrap();
        let authority = params.signed_by(&key, &thief_of(tiers.prefecture.authority())).unwrap();
        let issuer = Issuer::from_ca_cert_der(authority.der(), key).unwrap();
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![uri("spiffe://guantong.local/node/220101000000")];
        let key = KeyPair::generate().unwrap();
        let leaf = params.signed_by(&key, &issuer).unwrap().pem();
        let chain = leaf + &authority.pem() + tiers.prefecture.authority().chain_pem();
        Stranger::trusting(roots).with(&chain, &key.serialize_pem()).knock(server.address).await;
        let loaded = pem_identity(&chain, &key.serialize_pem(), roots);
        assert!(
            matches!(&loaded, Err(IdentityError::Unusable(why)) if why == "authority scope"),
            "{scope:?}: {loaded:?}"
        );
    }
    noted(&server, &Fault::AuthorityScope).await;
    assert_eq!(server.acceptor.refused_count(), 4);
}

#[tokio::test]
async fn a_revoked_authority_takes_all_below_with_it() {
    let tiers = Tiers::new();
    let top = tiers.node(&tiers.root, PREFECTURE);
    let (county, township) = (tiers.node(&tiers.prefecture, COUNTY), tiers.node(&tiers.county, TOWNSHIP));
    let server = Server::start(top.clone()).await;
    let bystander = server.dial(&county, ExpectedPeer::AnyNode).await.unwrap();
    let dialed = server.dial(&township, ExpectedPeer::AnyNode).await.unwrap();
    ask(&dialed).await.unwrap();
    ask(&bystander).await.unwrap();
    tiers.prefecture.revoke("authority/220822000000").unwrap();
    tiers.hand_out_lists(PREFECTURE);
    top.reload().unwrap();
    until("the open connection is cut", || dialed.peer.ended().is_some()).await;
    let error = server.dial(&township, ExpectedPeer::AnyNode).await.unwrap_err();
    assert_eq!(error.code(), "revoked");
    noted(&server, &Fault::Revoked).await;
    ask(&bystander).await.unwrap();
    // Below it nobody goes on either, once the list is there.
    tiers.hand_out_lists(TOWNSHIP);
    assert!(matches!(township.reload(), Err(IdentityError::Revoked)));
}

#[tokio::test]
async fn a_missing_list_closes_the_door_only_where_others_stay_in() {
    let tiers = Tiers::new();
    let county = tiers.node(&tiers.prefecture, COUNTY);
    let township = tiers.node(&tiers.county, TOWNSHIP);
    // The county knows no list of its own authority: nodes from there are refused, and the words say why.
    let lists = tiers.path(COUNTY).join("revocations.pem");
    std::fs::write(&lists, tiers.prefecture.revocations().unwrap()).unwrap();
    let refused = county.reload().unwrap_err();
    assert!(
        matches!(refused, IdentityError::Revocations(RevocationError::Gone(_))),
        "a list in use is not forgotten: {refused}"
    );
    let fresh = Arc::new(IdentityStore::open(IdentityFiles::in_dir(&tiers.path(COUNTY))).unwrap());
    let server = Server::start(fresh.clone()).await;
    let error = server.dial(&township, ExpectedPeer::AnyNode).await.unwrap_err();
    assert_eq!(error.code(), "unknown_authority");
    noted(&server, &Fault::RevocationUnknown).await;
    // Without the list of the authority that signed its own certificate it goes on, and says so.
    std::fs::write(&lists, tiers.root.revocations().unwrap()).unwrap();
    let bare = Arc::new(IdentityStore::open(IdentityFiles::in_dir(&tiers.path(COUNTY))).unwrap());
    let warned = bare.current().warnings().iter().any(|words| words.en.contains("no revocation list of"));
    assert!(warned, "{:?}", bare.current().warnings());
    let sister = tiers.node(&tiers.prefecture, "220881000000");
    let server = Server::start(bare).await;
    ask(&server.dial(&sister, ExpectedPeer::AnyNode).await.unwrap()).await.unwrap();
    // But never without the root's.
    std::fs::write(&lists, own_list(&tiers.prefecture)).unwrap();
    let refused = IdentityStore::open(IdentityFiles::in_dir(&tiers.path(COUNTY))).unwrap_err();
    assert!(matches!(refused, IdentityError::Revocations(RevocationError::Missing(_))), "{refused}");
}

/// The list of an authority below a root without those above it.
fn own_list(dir: &AuthorityDir) -> String {
    let list = dir.authority().revocation_list(&[], 1, Validity::days(1)).unwrap();
    list + dir.authority().chain_pem()
}

#[test]
fn a_list_counts_only_if_its_signer_leads_to_a_root() {
    let tiers = Tiers::new();
    let roots: Vec<_> = ders(tiers.root.authority().trusted_pem());
    let root_list = tiers.root.revocations().unwrap();
    let check = |lists: &str| {
        crate::identity::revocation::check((root_list.clone() + lists).as_bytes(), &roots, &[], 0)
    };
    let revoked = Revoked { serial: "4a".to_owned(), at: OffsetDateTime::now_utc() };
    let county = tiers.county.authority();
    let list = county.revocation_list(&[revoked], 1, Validity::days(1)).unwrap();
    // Without the certificates of both authorities in between nobody knows whose it is.
    let counts = |lists: &str| check(lists).unwrap().lists.len();
    assert_eq!(counts(&list), 1);
    assert_eq!(counts(&(list + county.certificate_pem())), 2);
    let stray = other_authority();
    let stray_list = stray.revocation_list(&[], 1, Validity::days(1)).unwrap();
    assert_eq!(counts(&(stray_list + stray.certificate_pem())), 1);
    assert!(matches!(check(&root_list), Err(RevocationError::Doubled(_))));
}

#[test]
fn an_authority_that_takes_the_name_of_another_changes_nothing_for_it() {
    let tiers = Tiers::new();
    let county = tiers.county.authority();
    // The thief of the prefecture's key names an authority of his own like that of the county, and writes newer lists.
    let mut params = CertificateParams::default();
    let name = county.certificate().subject.trim_start_matches("CN=").to_owned();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.subject_alt_names = vec![uri("spiffe://guantong.local/authority/220822000000")];
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Constrained(0));
    let key = KeyPair::generate().unwrap();
    let twin = params.signed_by(&key, &thief_of(tiers.prefecture.authority())).unwrap();
    let issuer = Issuer::from_ca_cert_der(twin.der(), key).unwrap();
    let forged = rcgen::CertificateRevocationListParams {
        this_update: OffsetDateTime::now_utc(),
        next_update: OffsetDateTime::now_utc() + time::Duration::days(1),
        crl_number: u64::MAX.into(),
        issuing_distribution_point: None,
        revoked_certs: vec![],
        key_identifier_method: rcgen::KeyIdMethod::Sha256,
    };
    let forged = forged.signed_by(&issuer).unwrap().pem().unwrap();
    tiers.node(&tiers.county, TOWNSHIP);
    let lists = std::fs::read_to_string(tiers.path(TOWNSHIP).join("revocations.pem")).unwrap();
    let merged = crate::identity::revocation::merge([lists.as_str(), &forged, &twin.pem()]);
    let roots = ders(tiers.root.authority().trusted_pem());
    let check = |text: String| crate::identity::revocation::check(text.as_bytes(), &roots, &[], 0).unwrap();
    let [before, after] = [lists, merged].map(check);
    assert_eq!(after.lists, before.lists);
    assert_eq!(after.unused.len(), 1);
}

fn ders(pem: &str) -> Vec<CertificateDer<'static>> {
    CertificateDer::pem_slice_iter(pem.as_bytes()).map(Result::unwrap).collect()
}

#[test]
fn files_are_put_together_with_the_newest_of_each() {
    let tiers = Tiers::new();
    let old = tiers.county.revocations().unwrap();
    tiers.prefecture.renew_list().unwrap();
    let newer = tiers.prefecture.revocations().unwrap();
    let merged = crate::identity::revocation::merge([old.as_str(), newer.as_str(), old.as_str()]);
    let roots = ders(tiers.root.authority().trusted_pem());
    let checked = crate::identity::revocation::check(merged.as_bytes(), &roots, &[], 0).unwrap();
    assert_eq!(checked.lists.len(), 3);
    let of_prefecture = crate::identity::pki::read_list_pem(newer.as_bytes()).unwrap();
    assert!(checked.lists.iter().any(|list| list.number() == of_prefecture.number()));
    assert_eq!(merged.matches("BEGIN CERTIFICATE").count(), 2);
}
