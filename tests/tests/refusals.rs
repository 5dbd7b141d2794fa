//! Everyone whom a node must not let in, over real TLS, one row each: the operator reads the reason in the status, the
//! stranger learns nothing but a TLS alert. Then everything that a right certificate must not be used for.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use guantong::client::Client;
use guantong::demo::tree::NodeSpec;
use guantong::identity::pki::dir::AuthorityDir;
use guantong::identity::pki::{Authority, Request, Validity};
use guantong::identity::{IdentityFiles, Subject, TrustDomain};
use guantong_proto::v1;
use guantong_proto::v1::audit_service_client::AuditServiceClient;
use guantong_proto::v1::case_service_client::CaseServiceClient;
use guantong_proto::v1::frame::Kind;
use guantong_tests::harness::wire::{dial, goodbye, play, send_garbage, speak};
use guantong_tests::harness::{Fleet, Stray, division, found, until};
use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, SanType};
use rustls::SupportedProtocolVersion;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use time::OffsetDateTime;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tonic::{Code, Status};

const COUNTY: &str = "220822";
const TOWNSHIP: &str = "220822101";
const SECOND: &str = "220822102";
/// Above the county, and beside it.
const PREFECTURE: &str = "220800";
const BESIDE: &str = "220881";
const DOMAIN: &str = "spiffe://guantong.local";
const TLS13: &[&SupportedProtocolVersion] = &[&rustls::version::TLS13];
const TLS12: &[&SupportedProtocolVersion] = &[&rustls::version::TLS12];

struct Scene {
    fleet: Fleet,
    address: String,
}

impl Scene {
    async fn set() -> Scene {
        let county = division(COUNTY);
        let fleet = Fleet::start([NodeSpec::top(county), NodeSpec::below(county, division(TOWNSHIP))]).await;
        let address = fleet.tree.address(county).unwrap();
        Scene { fleet, address }
    }

    fn authority(&self) -> &AuthorityDir {
        self.fleet.tree.authority()
    }

    fn node(&self, code: &str) -> PathBuf {
        self.fleet.issue(&format!("node-{code}"), node(code), Validity::days(3))
    }

    fn operator(&self) -> PathBuf {
        self.fleet.issue("operator", Subject::operator("li").unwrap(), Validity::days(3))
    }

    fn partner(&self, name: &str) -> PathBuf {
        self.fleet.issue(&format!("partner-{name}"), Subject::partner(name).unwrap(), Validity::days(3))
    }

    /// A certificate that no authority of ours would make, in a folder of its own.
    fn forged(
        &self,
        name: &str,
        authority: &Authority,
        change: impl FnOnce(&mut CertificateParams),
    ) -> PathBuf {
        let key = KeyPair::generate().unwrap();
        let pem = params_of(change).signed_by(&key, &issuer_of(authority)).unwrap().pem();
        self.folder(name, &(pem + authority.chain_pem()), &key.serialize_pem())
    }

    fn folder(&self, name: &str, certificate: &str, key: &str) -> PathBuf {
        let dir = self.fleet.path(name);
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::write(dir.join("certificate.pem"), certificate).unwrap();
        std::fs::write(dir.join("key.pem"), key).unwrap();
        dir
    }

    async fn client(&self, dir: &Path) -> Client {
        Client::over_tls(&self.address, &IdentityFiles::in_dir(dir)).await.unwrap()
    }

    /// The audit log's lines of connections that were refused.
    async fn audit_lines(&self) -> Vec<String> {
        let mut client = AuditServiceClient::new(self.fleet.client(COUNTY).channel());
        let request = v1::ListAuditEntriesRequest { page_size: 1_000, ..Default::default() };
        let entries = client.list_audit_entries(request).await.unwrap().into_inner().entries;
        let refused = entries.into_iter().map(|entry| entry.line);
        refused.filter(|line| line.contains("connection_refused")).collect()
    }

    /// How many connections were refused for a reason that says this.
    async fn refused(&self, why: &str) -> u64 {
        let status = self.fleet.status(COUNTY).await;
        let times = |reason: &str| {
            let said = reason.rsplit_once(", ").and_then(|(_, end)| end.strip_suffix(" times"));
            said.and_then(|n| n.parse().ok()).unwrap_or(1)
        };
        status.refused_connections.iter().filter(|r| r.reason.contains(why)).map(|r| times(&r.reason)).sum()
    }
}

fn node(code: &str) -> Subject {
    Subject::node(division(code)).unwrap()
}

fn issuer_of(authority: &Authority) -> Issuer<'static, KeyPair> {
    let key = KeyPair::from_pem(&authority.key_pem()).unwrap();
    Issuer::from_ca_cert_pem(authority.certificate_pem(), key).unwrap()
}

fn uri(text: &str) -> SanType {
    SanType::URI(text.try_into().unwrap())
}

/// A right node certificate, changed.
fn params_of(change: impl FnOnce(&mut CertificateParams)) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "node 220822102000");
    params.subject_alt_names = vec![uri(&format!("{DOMAIN}/node/220822102000"))];
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
    change(&mut params);
    params
}

fn days(from: i64, to: i64) -> Validity {
    let now = OffsetDateTime::now_utc();
    Validity { not_before: now + time::Duration::days(from), not_after: now + time::Duration::days(to) }
}

/// What a stranger shows, and what the operator reads of it.
struct Row {
    what: &'static str,
    shows: Option<PathBuf>,
    versions: &'static [&'static SupportedProtocolVersion],
    protocols: &'static [&'static str],
    tells: &'static str,
}

fn row(what: &'static str, shows: PathBuf, tells: &'static str) -> Row {
    Row { what, shows: Some(shows), versions: TLS13, protocols: &["h2"], tells }
}

/// Names that a certificate may carry and that are no identity here.
fn wrong_names(scene: &Scene) -> Vec<Row> {
    const NO_IDENTITY: &str = "no usable identity";
    let authority = scene.authority().authority();
    let named = |what: &'static str, names: Vec<SanType>| {
        let dir = scene.forged(what, authority, |params| params.subject_alt_names = names);
        row(what, dir, NO_IDENTITY)
    };
    let id = |path: &str| vec![uri(&format!("{DOMAIN}/{path}"))];
    vec![
        named("no name at all", vec![]),
        named("a DNS name only", vec![SanType::DnsName("220822102000".try_into().unwrap())]),
        named("two identities", [id("node/220822102000"), id("operator/li")].concat()),
        named("another trust domain", vec![uri("spiffe://elsewhere/node/220822102000")]),
        named("a node without a division", id("node/")),
        named("a node of nine digits", id("node/220822102")),
        named("a village as a node", id("node/220822102201")),
        named("a division that is no number", id("node/22082210200x")),
        named("a kind that does not exist", id("robot/li")),
        named("a path with more behind it", id("node/220822102000/admin")),
        named("an authority as a caller", id("authority/220822000000")),
        named("an identity with a query", id("operator/li?admin=1")),
    ]
}

/// Authorities that may not vouch for this, or not here.
fn wrong_authorities(scene: &Scene) -> Vec<Row> {
    const UNKNOWN: &str = "not signed by an authority";
    let foreign = Authority::create(TrustDomain::default(), "foreign", Validity::days(3)).unwrap();
    let root = scene.authority().authority();
    let key = KeyPair::generate().unwrap();
    let self_signed = params_of(|_| ()).self_signed(&key).unwrap().pem();
    let own_name = scene.folder("self-signed", &self_signed, &key.serialize_pem());
    let mut twin = params_of(|params| params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained));
    twin.distinguished_name = rcgen::DistinguishedName::new();
    let named_root = root.certificate().subject.trim_start_matches("CN=").to_owned();
    twin.distinguished_name.push(DnType::CommonName, named_root);
    let twin = Issuer::new(twin, KeyPair::generate().unwrap());
    let key_of_twin = KeyPair::generate().unwrap();
    let of_twin = params_of(|_| ()).signed_by(&key_of_twin, &twin).unwrap().pem();
    let of_twin = scene.folder("twin", &of_twin, &key_of_twin.serialize_pem());
    // A node's own certificate, used as an authority.
    let issued = root.issue(&Request::new(node(SECOND), Validity::days(2))).unwrap();
    let leaf_key = KeyPair::from_pem(&issued.key_pem).unwrap();
    let leaf = Issuer::from_ca_cert_pem(&issued.certificate_pem, leaf_key);
    let below_leaf = leaf.map(|leaf| {
        let key = KeyPair::generate().unwrap();
        let pem = params_of(|_| ()).signed_by(&key, &leaf).unwrap().pem();
        scene.folder("below-leaf", &(pem + &issued.certificate_pem), &key.serialize_pem())
    });
    let beside = root.issue_authority(division(BESIDE), Validity::days(3)).unwrap();
    let outside = |name: &str, subject: &str| {
        scene.forged(name, &beside, |params| {
            params.subject_alt_names = vec![uri(&format!("{DOMAIN}/{subject}"))]
        })
    };
    let mut rows = vec![
        row("a foreign authority of the same name", scene.forged("foreign", &foreign, |_| ()), UNKNOWN),
        row("signed by itself, with a right-looking name", own_name, UNKNOWN),
        row("signed by one that has the root's name", of_twin, UNKNOWN),
        row("the authority of another county makes a node", outside("o1", "node/220822102000"), "220881"),
        row("it makes an operator", outside("o2", "operator/li"), "220881"),
        row("it makes a partner", outside("o3", "partner/hotline"), "220881"),
        row("it makes the parent", outside("o4", "node/220800000000"), "220881"),
    ];
    rows.extend(below_leaf.ok().map(|dir| row("a node's certificate as an authority", dir, "certificate")));
    rows
}

fn wrong_certificates(scene: &Scene) -> Vec<Row> {
    let authority = scene.authority().authority();
    let forged = |name: &str, usage: Vec<ExtendedKeyUsagePurpose>| {
        scene.forged(name, authority, |params| params.extended_key_usages = usage)
    };
    let right = scene.node(SECOND);
    let revoked = scene.fleet.issue("revoked", Subject::operator("wang").unwrap(), Validity::days(3));
    let expired = scene.forged("expired", authority, |params| {
        (params.not_before, params.not_after) = (days(-9, 0).not_before, days(0, -1).not_after);
    });
    let early = scene.forged("early", authority, |params| {
        (params.not_before, params.not_after) = (days(1, 2).not_before, days(1, 2).not_after);
    });
    vec![
        Row { shows: None, ..row("no certificate", PathBuf::new(), "showed no certificate") },
        row("expired", expired, "certificate expired on"),
        row("not yet valid", early, "valid only from"),
        row("revoked", revoked, "revoked"),
        row("a weak key", weak_key(scene), "is too weak"),
        row(
            "for servers only",
            forged("server", vec![ExtendedKeyUsagePurpose::ServerAuth]),
            "not made for this use",
        ),
        row(
            "for signing code",
            forged("code", vec![ExtendedKeyUsagePurpose::CodeSigning]),
            "not made for this use",
        ),
        Row { versions: TLS12, ..row("TLS 1.2", right.clone(), "offers no TLS 1.3") },
        Row { protocols: &[], ..row("no ALPN", right.clone(), "does not speak HTTP/2") },
        Row { protocols: &["http/1.1"], ..row("HTTP/1.1", right, "does not speak HTTP/2") },
    ]
}

/// A right certificate for RSA of 1024 bits. Its key is at hand nowhere: it is refused before anybody asks for a proof.
fn weak_key(scene: &Scene) -> PathBuf {
    let authority = scene.authority().authority();
    let weak = include_str!("../../node/src/identity/tests/rsa_1024.pub.pem");
    let weak = rcgen::SubjectPublicKeyInfo::from_pem(weak).unwrap();
    let pem = params_of(|_| ()).signed_by(&weak, &issuer_of(authority)).unwrap().pem();
    let other = KeyPair::generate().unwrap().serialize_pem();
    scene.folder("weak", &(pem + authority.chain_pem()), &other)
}

/// Words that only an operator may read: whatever the stranger's library says of an alert has none of them.
const OPERATORS_WORDS: [&str; 5] = ["spiffe", "2208", "authority of", "guantong", "operator"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_stranger_is_refused_for_the_right_reason_and_told_nothing() {
    let scene = Scene::set().await;
    let since = scene.fleet.link(COUNTY, TOWNSHIP).await.unwrap().connect_time;
    let rows = [wrong_certificates(&scene), wrong_names(&scene), wrong_authorities(&scene)];
    let rows: Vec<Row> = rows.into_iter().flatten().collect();
    assert!(rows.len() >= 25, "{}", rows.len());
    scene.authority().revoke("operator/wang").unwrap();
    let list = scene.fleet.tree.node_dir(division(COUNTY)).join("revocations.pem");
    std::fs::write(list, scene.authority().revocations().unwrap()).unwrap();
    scene.fleet.tree.reload(division(COUNTY)).unwrap();
    let trusted = scene.authority().public_files()[0].clone();
    for row in rows {
        let Row { what, shows, versions, protocols, tells } = row;
        println!("{what}");
        let before = scene.refused(tells).await;
        found(&format!("«{tells}» is told of {what}"), async || {
            let said = speak(&scene.address, &trusted, shows.as_deref(), versions, protocols).await;
            let told = OPERATORS_WORDS.iter().find(|word| said.contains(*word));
            assert!(told.is_none(), "{what} is told {told:?}: {said}");
            (scene.refused(tells).await > before).then_some(())
        })
        .await;
    }
    send_garbage(&scene.address, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
    until("plain HTTP is told of", async || scene.refused("not TLS").await > 0).await;
    until("the audit log has every reason", async || {
        let lines = scene.audit_lines().await;
        REASONS.iter().all(|reason| lines.iter().any(|line| line.contains(reason)))
    })
    .await;
    let link = scene.fleet.link(COUNTY, TOWNSHIP).await.unwrap();
    assert!(link.connected && link.connect_time == since, "nobody was disturbed: {link:?}");
}

/// The reasons of the table, as the audit log names them.
const REASONS: [&str; 12] = [
    "certificate_missing",
    "expired",
    "not_yet_valid",
    "revoked",
    "wrong_purpose",
    "weak_key",
    "no_common_tls",
    "not_http2",
    "not_tls",
    "no_identity",
    "unknown_authority",
    "outside_scope",
];

/// Shows a certificate to whoever connects, as a parent would, until the test ends.
async fn pose_as_parent(dir: &Path) -> u16 {
    let chain = CertificateDer::pem_file_iter(dir.join("certificate.pem")).unwrap();
    let chain = chain.map(Result::unwrap).collect();
    let key = PrivateKeyDer::from_pem_file(dir.join("key.pem")).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder =
        rustls::ServerConfig::builder_with_provider(provider).with_protocol_versions(TLS13).unwrap();
    let mut config = builder.with_no_client_auth().with_single_cert(chain, key).unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            // Each fails, and the child says why.
            let _ = acceptor.accept(tcp).await;
        }
    });
    port
}

/// A child links to nobody who is not its parent: whatever else the certificate is good for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_child_refuses_who_is_not_its_parent() {
    let scene = Scene::set().await;
    let authority = scene.authority().authority();
    let posing = |name: &str, code: &str, usage: Vec<ExtendedKeyUsagePurpose>| {
        scene.forged(name, authority, |params| {
            params.subject_alt_names = vec![
                uri(&format!("{DOMAIN}/node/{code}")),
                SanType::IpAddress([127, 0, 0, 1].into()),
                SanType::DnsName("localhost".try_into().unwrap()),
            ];
            params.extended_key_usages = usage;
        })
    };
    let (client, server) = (ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth);
    let foreign = Authority::create(TrustDomain::default(), "foreign", Validity::days(3)).unwrap();
    let rows = [
        ("for clients only", posing("p1", "220822000000", vec![client.clone()]), "not made for this use"),
        ("another node", posing("p2", "220881000000", vec![client, server]), "220881000000"),
        ("of a foreign authority", scene.forged("p3", &foreign, |_| ()), "not signed by an authority"),
    ];
    for (what, dir, tells) in rows {
        let port = pose_as_parent(&dir).await;
        let child = scene.fleet.issue(&format!("child {what}"), node(SECOND), Validity::days(3));
        let parent = format!(
            "division = \"{SECOND}\"\n[parent]\ndivision = \"{COUNTY}\"\naddress = \"127.0.0.1:{port}\""
        );
        let mut stray = Stray::serve(&child, &parent);
        let client = stray.client().await;
        let told = found(&format!("the child tells of a parent {what}"), async || {
            let status = client.node().get_status(v1::GetStatusRequest {}).await.ok()?.into_inner();
            status.links.into_iter().find(|link| link.last_error.contains(tells))
        })
        .await;
        assert!(!told.connected, "{what}: {told:?}");
    }
}

fn hello(code: &str) -> Kind {
    Kind::Hello(v1::Hello {
        protocol_min: 1,
        protocol_max: 1,
        division: division(code).to_string(),
        epoch: 7,
        window_bytes: 1 << 20,
        ..v1::Hello::default()
    })
}

/// A refusal of a call: the code, and what to do in words; never whom else the node knows.
fn refused(what: &str, answer: Result<(), Status>, code: Code, says: &str) {
    let status = answer.err().unwrap_or_else(|| panic!("{what} was let through"));
    assert_eq!(status.code(), code, "{what}: {status:?}");
    assert!(status.message().contains(says), "{what}: {status:?}");
    assert!(!status.message().contains(TOWNSHIP), "{what} is told of others: {status:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_right_certificate_opens_no_other_door() {
    let scene = Scene::set().await;
    let denied = Code::PermissionDenied;
    let link = async |dir: &Path, frames| {
        let dialed = dial(&scene.address, dir).await.unwrap();
        play(&dialed, frames).await.map(|answers| goodbye(&answers).cloned())
    };
    let only_nodes = "only a node certificate can link";
    for (what, dir, says) in [
        ("an operator links", scene.operator(), only_nodes),
        ("a partner links", scene.partner("hotline"), only_nodes),
        ("a partner posing as a node links", scene.partner("220822102000"), only_nodes),
        ("the parent poses as a child", scene.node(PREFECTURE), "does not lie inside"),
        ("a county beside poses as a child", scene.node(BESIDE), "does not lie inside"),
        ("the child of another parent links", scene.node("220881001"), "does not lie inside"),
        ("the node links to itself", scene.node(COUNTY), "does not lie inside"),
    ] {
        refused(what, link(&dir, vec![hello(SECOND)]).await.map(drop), denied, says);
    }
    let second = scene.node(SECOND);
    let batch = |payload: usize| {
        let payload = vec![7; payload].into();
        Kind::Batch(v1::Batch { batch_id: 1, last: true, raw_bytes: 9, payload, ..v1::Batch::default() })
    };
    let broken = v1::GoodbyeReason::ProtocolError;
    for (what, frames, reason) in [
        ("another node's name in the greeting", vec![hello("220822103")], v1::GoodbyeReason::WrongDivision),
        ("a batch before the greeting", vec![batch(9)], broken),
        ("two greetings", vec![hello(SECOND), hello(SECOND)], broken),
        ("a chunk over the limit", vec![hello(SECOND), batch(40_000)], broken),
    ] {
        let answer = link(&second, frames).await.unwrap();
        assert_eq!(answer.unwrap_or_else(|| panic!("{what}")).reason(), reason, "{what}");
    }
    let large = link(&second, vec![hello(SECOND), batch(5_000_000)]).await;
    let told =
        large.map(|g| g.map(|g| g.detail).unwrap_or_default()).unwrap_or_else(|s| s.message().to_owned());
    assert!(told.contains("too large"), "a message over the limit: {told}");
    wrong_calls(&scene, &second).await;
    assert!(scene.fleet.link(COUNTY, TOWNSHIP).await.unwrap().connected);
}

/// Calls that the caller's certificate is not for.
async fn wrong_calls(scene: &Scene, node: &Path) {
    let denied = Code::PermissionDenied;
    let as_node = scene.client(node).await;
    let status = |client: &Client| {
        let mut node = client.node();
        async move { node.get_status(v1::GetStatusRequest {}).await.map(drop) }
    };
    refused("a node asks for the status", status(&as_node).await, denied, "no grant for this call");
    let cases = v1::ListCasesRequest { parent: "divisions/220822000000".into(), ..Default::default() };
    let listed = CaseServiceClient::new(as_node.channel()).list_cases(cases.clone()).await.map(drop);
    refused("a node uses the partners' API", listed, denied, "a node's certificate is for links");
    let partner = scene.client(&scene.partner("hotline")).await;
    refused("a partner asks for the status", status(&partner).await, denied, "no grant for this call");
    let listed = CaseServiceClient::new(partner.channel()).list_cases(cases).await.map(drop);
    refused("a partner without a grant lists cases", listed, denied, "grant");
    let grant = v1::Grant {
        name: "grants/hotline".into(),
        scope: "220822000000".into(),
        level: v1::GrantLevel::Write.into(),
        ..v1::Grant::default()
    };
    let request = v1::UpdateGrantRequest { grant: Some(grant), allow_missing: true };
    let granted = partner.grants().update_grant(request.clone()).await.map(drop);
    refused("a partner grants itself", granted, denied, "no grant for this call");
    let granted = as_node.grants().update_grant(request.clone()).await.map(drop);
    refused("a node grants to a partner", granted, denied, "no grant for this call");
    let operator = scene.client(&scene.operator()).await;
    operator.grants().update_grant(request.clone()).await.unwrap();
    let granted = partner.grants().update_grant(request).await.map(drop);
    refused("a partner with a grant widens it", granted, denied, "no grant for this call");
    refused("a partner with a grant asks for the status", status(&partner).await, denied, "no grant");
}

/// One identity has so many connections; its operator is told, and others are not disturbed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_identity_does_not_take_all_connections() {
    let scene = Scene::set().await;
    let operator = scene.operator();
    let mut open = Vec::new();
    while scene.refused("too many connections open").await == 0 {
        assert!(open.len() < 200, "nobody counts connections");
        if let Ok(dialed) = dial(&scene.address, &operator).await {
            open.push(dialed);
        }
    }
    assert!(open.len() >= 60, "{}", open.len());
    assert!(scene.fleet.link(COUNTY, TOWNSHIP).await.unwrap().connected);
}
