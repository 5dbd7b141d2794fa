//! Whom a node lets in, and what it says to those it does not: each gets, or leaves with the operator, an error that
//! names what is wrong, and a link that is up goes on as if nothing had happened. Copies and old backups of a node are
//! noticed.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::path::PathBuf;

use guantong::demo::tree::NodeSpec;
use guantong::identity::pki::dir::AuthorityDir;
use guantong::identity::pki::{Request, Validity};
use guantong::identity::{IdentityFiles, Subject, TrustDomain};
use guantong_proto::v1;
use guantong_proto::v1::frame::Kind;
use guantong_tests::harness::wire::{dial, goodbye, play, send_garbage, speak_tls};
use guantong_tests::harness::{self, Fleet, Stray, copy_files, division, found, run, until};
use time::OffsetDateTime;

const COUNTY: &str = "220822";
const TOWNSHIP: &str = "220822101";
const SECOND: &str = "220822102";
const THIRD: &str = "220822103";
/// A county beside, and a township of it.
const ELSEWHERE: &str = "220881";
const STRANGER: &str = "220881001";

/// A county with a township that is linked, and everything that must not disturb them.
struct Scene {
    fleet: Fleet,
    address: String,
    writes: u32,
}

impl Scene {
    async fn set() -> Scene {
        let county = division(COUNTY);
        let fleet = Fleet::start([NodeSpec::top(county), NodeSpec::below(county, division(TOWNSHIP))]).await;
        let address = fleet.tree.address(county).unwrap();
        Scene { fleet, address, writes: 0 }
    }

    fn node(&self, code: &str) -> PathBuf {
        self.fleet.issue(code, Subject::node(division(code)).unwrap(), Validity::days(3))
    }

    fn authority_file(&self) -> PathBuf {
        self.fleet.tree.authority().public_files()[0].clone()
    }

    /// What the county tells its operator of those it refused.
    async fn tells(&self, what: &str) {
        until(&format!("the county tells of «{what}»"), async || {
            let status = self.fleet.status(COUNTY).await;
            status.refused_connections.iter().any(|refused| refused.reason.contains(what))
        })
        .await;
    }

    /// The link that was up before still is, and carries.
    async fn still_works(&mut self) {
        self.writes += 1;
        let name = format!("divisions/220822101000/cases/{}", self.writes);
        let case = v1::Case { case_kind: Some(1), ..v1::Case::default() };
        self.fleet.write(TOWNSHIP, &name, &case).await.unwrap();
        until("a new case reaches the county", async || self.fleet.record(COUNTY, &name).await.is_some())
            .await;
    }
}

/// Valid until a minute ago.
fn past() -> Validity {
    let now = OffsetDateTime::now_utc();
    Validity { not_before: now - time::Duration::days(2), not_after: now - time::Duration::minutes(1) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_are_told_what_is_wrong_and_disturb_nobody() {
    let mut scene = Scene::set().await;
    let linked_since = scene.fleet.link(COUNTY, TOWNSHIP).await.unwrap().connect_time;
    not_even_tls(&mut scene).await;
    wrong_certificates(&mut scene).await;
    wrong_callers(&mut scene).await;
    wrong_frames(&mut scene).await;
    wrong_nodes(&mut scene).await;
    let link = scene.fleet.link(COUNTY, TOWNSHIP).await.unwrap();
    assert_eq!(link.connect_time, linked_since, "the link was up all the time: {link:?}");
    scene.fleet.equal().await;
}

async fn not_even_tls(scene: &mut Scene) {
    let address = scene.address.clone();
    send_garbage(&address, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
    send_garbage(&address, &[0xa5; 100_000]).await;
    scene.tells("what arrived is not TLS").await;
    let authority = scene.authority_file();
    let node = scene.node(SECOND);
    let old = speak_tls(&address, &authority, Some(&node), &[&rustls::version::TLS12]).await;
    assert!(old.to_lowercase().contains("version"), "{old}");
    scene.tells("offers no TLS 1.3").await;
    scene.still_works().await;
}

async fn wrong_certificates(scene: &mut Scene) {
    let (address, authority) = (scene.address.clone(), scene.authority_file());
    let modern = [&rustls::version::TLS13];
    let none = speak_tls(&address, &authority, None, &modern).await;
    assert!(none.contains("CertificateRequired"), "{none}");
    scene.tells("showed no certificate").await;

    let expired = scene.fleet.issue("expired", Subject::node(division(SECOND)).unwrap(), past());
    let said = speak_tls(&address, &authority, Some(&expired), &modern).await;
    assert!(said.contains("CertificateExpired"), "{said}");
    scene.tells("certificate expired on").await;
    let config = harness::stray_config(&expired, &format!("division = \"{SECOND}\""));
    let checked = run(&["serve", "--check", "--config", config.to_str().unwrap()]).await;
    checked.exits(1).says(&["expired on", "issue a new one"]);

    let foreign = foreign(scene);
    let said = speak_tls(&address, &authority, Some(&foreign), &modern).await;
    assert!(said.contains("UnknownCA") || said.contains("DecryptError"), "{said}");
    scene.tells("not signed by an authority this node trusts").await;
    let status = ["status", "--node", &address, "--identity", foreign.to_str().unwrap()];
    run(&status).await.exits(1).says(&["not signed by an authority"]);
    scene.still_works().await;
}

/// A certificate of another authority for the same division and trust domain.
fn foreign(scene: &Scene) -> PathBuf {
    let of_foreign = scene.fleet.path("foreign-authority");
    let authority =
        AuthorityDir::create(&of_foreign, TrustDomain::default(), Validity::days(3), false).unwrap();
    let dir = scene.fleet.path("foreign");
    let request = Request::new(Subject::node(division(SECOND)).unwrap(), Validity::days(3));
    authority.issue(&request, &dir, false).unwrap();
    dir
}

async fn wrong_callers(scene: &mut Scene) {
    let address = scene.address.clone();
    let partner = scene.fleet.issue("partner", Subject::Partner("hospital".to_owned()), Validity::days(3));
    let operator = scene.fleet.issue("operator", Subject::Operator("li".to_owned()), Validity::days(3));
    for dir in [&partner, &operator] {
        let dialed = dial(&address, dir).await.unwrap();
        let refused = play(&dialed, Vec::new()).await.unwrap_err();
        assert_eq!(refused.code(), tonic::Code::PermissionDenied, "{refused:?}");
        assert!(refused.message().contains("only a node certificate can link"), "{refused:?}");
    }
    let as_whom = |dir: &PathBuf| {
        ["status", "--json", "--node", &address, "--identity", dir.to_str().unwrap()].map(str::to_owned)
    };
    let status = run(&as_whom(&operator)).await.exits(0).json();
    assert_eq!(status["division"], "220822000000", "an operator may look");
    run(&as_whom(&partner)).await.exits(1).says(&["no grant"]);
    let node = scene.node(SECOND);
    run(&as_whom(&node)).await.exits(1).says(&["no grant"]);

    let stranger = scene.node(STRANGER);
    let dialed = dial(&address, &stranger).await.unwrap();
    let refused = play(&dialed, vec![Kind::Hello(hello(STRANGER))]).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::PermissionDenied, "{refused:?}");
    let message = refused.message();
    assert!(message.contains("220881001000 does not lie inside 220822000000"), "{message}");
    scene.still_works().await;
}

fn hello(code: &str) -> v1::Hello {
    v1::Hello {
        protocol_min: 1,
        protocol_max: 1,
        division: division(code).to_string(),
        epoch: 7,
        window_bytes: 1 << 20,
        ..v1::Hello::default()
    }
}

/// A node with a good certificate that does not keep to the protocol.
async fn wrong_frames(scene: &mut Scene) {
    let address = scene.address.clone();
    let node = scene.node(SECOND);
    let batch = |payload: usize, raw_bytes: u32| {
        Kind::Batch(v1::Batch {
            batch_id: 1,
            lane: v1::Lane::Bulk.into(),
            last: true,
            raw_bytes,
            payload: vec![7; payload].into(),
            ..v1::Batch::default()
        })
    };
    let greeted = || Kind::Hello(hello(SECOND));
    let broken = v1::GoodbyeReason::ProtocolError;
    for (what, frames, reason) in [
        ("a batch before the greeting", vec![batch(10, 10)], broken),
        ("another division", vec![Kind::Hello(hello(THIRD))], v1::GoodbyeReason::WrongDivision),
        ("a chunk over the limit", vec![greeted(), batch(40_000, 40_000)], broken),
        ("what is no zstd", vec![greeted(), batch(100, 100)], broken),
        ("a huge batch", vec![greeted(), batch(100, u32::MAX)], broken),
    ] {
        let dialed = dial(&address, &node).await.unwrap();
        let answers = play(&dialed, frames).await.unwrap();
        let goodbye = goodbye(&answers).unwrap_or_else(|| panic!("{what}: {answers:?}"));
        assert_eq!(goodbye.reason(), reason, "{what}: {goodbye:?}");
        assert!(!goodbye.detail.is_empty(), "{what}");
    }
    let dialed = dial(&address, &node).await.unwrap();
    let too_large = play(&dialed, vec![greeted(), batch(5_000_000, 5_000_000)]).await;
    let told = match &too_large {
        Ok(answers) => goodbye(answers).map(|goodbye| goodbye.detail.clone()).unwrap_or_default(),
        Err(status) => status.message().to_owned(),
    };
    assert!(told.contains("too large") && told.contains("limit"), "{too_large:?}");
    scene.still_works().await;
}

/// Whole nodes that are wrong: a child with a foreign certificate, and one that finds another parent than it expects.
async fn wrong_nodes(scene: &mut Scene) {
    let county = division(COUNTY);
    let foreign = scene.fleet.path("foreign");
    let tree = &mut scene.fleet.tree;
    tree.add(NodeSpec::below(county, division(SECOND))).await.unwrap();
    copy_files(&foreign, &tree.node_dir(division(SECOND)));
    tree.start(division(SECOND)).await.unwrap();
    tree.add(NodeSpec::top(division(ELSEWHERE))).await.unwrap();
    tree.start(division(ELSEWHERE)).await.unwrap();
    let elsewhere = tree.address(division(ELSEWHERE)).unwrap();
    let lost = NodeSpec::below(county, division(THIRD));
    tree.add(lost.environment("GUANTONG_PARENT__ADDRESS", &elsewhere)).await.unwrap();
    tree.start(division(THIRD)).await.unwrap();
    for (node, expected) in [
        (SECOND, "not signed by an authority this node trusts"),
        (THIRD, "node/220881000000, but node/220822000000 was expected"),
    ] {
        let link = found(&format!("{node} says why it is not linked"), async || {
            let link = scene.fleet.link(node, COUNTY).await.unwrap();
            (link.attempt_count > 0 && link.last_error.contains(expected)).then_some(link)
        })
        .await;
        assert!(!link.connected);
        let shown = scene.fleet.cli(node, &["status"]).await.exits(3);
        assert!(shown.out.contains(expected) && shown.out.contains("never linked"), "{shown:?}");
    }
    for node in [SECOND, THIRD] {
        scene.fleet.tree.stop(division(node)).await.unwrap();
    }
    // With the right certificate and address they are children like any other.
    let request = Request::new(Subject::node(division(SECOND)).unwrap(), Validity::days(3));
    let dir = scene.fleet.tree.node_dir(division(SECOND));
    scene.fleet.tree.authority().issue(&request, &dir, true).unwrap();
    scene.fleet.tree.set_environment(division(THIRD), "GUANTONG_PARENT__ADDRESS", None).unwrap();
    for node in [SECOND, THIRD] {
        scene.fleet.tree.start(division(node)).await.unwrap();
        scene.fleet.linked(division(node)).await;
    }
    scene.still_works().await;
}

/// A revoked certificate ends its link without a restart, and a node that is revoked says so.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revoked_operator_stays_outside() {
    let scene = Scene::set().await;
    let operator = scene.fleet.issue("operator", Subject::Operator("wang".to_owned()), Validity::days(3));
    let client =
        guantong::client::Client::over_tls(&scene.address, &IdentityFiles::in_dir(&operator)).await.unwrap();
    client.node().get_status(v1::GetStatusRequest {}).await.unwrap();
    let authority = scene.fleet.tree.authority();
    authority.revoke("operator/wang").unwrap();
    let list = scene.fleet.tree.node_dir(division(COUNTY)).join("revocations.pem");
    std::fs::copy(&authority.public_files()[1], list).unwrap();
    scene.fleet.tree.reload(division(COUNTY)).unwrap();
    until("the open connection ends", async || {
        client.node().get_status(v1::GetStatusRequest {}).await.is_err()
    })
    .await;
    let status = ["status", "--node", &scene.address, "--identity", operator.to_str().unwrap()];
    run(&status).await.exits(1).says(&["revoked"]);
    scene.tells("revoked").await;
    assert!(scene.fleet.link(COUNTY, TOWNSHIP).await.unwrap().connected);
}

/// A parent whose certificate is revoked is left by its children as soon as they have the list.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revoked_parent_is_left() {
    let scene = Scene::set().await;
    let authority = scene.fleet.tree.authority();
    authority.revoke("node/220822000000").unwrap();
    let list = scene.fleet.tree.node_dir(division(TOWNSHIP)).join("revocations.pem");
    std::fs::copy(&authority.public_files()[1], list).unwrap();
    assert!(scene.fleet.link(TOWNSHIP, COUNTY).await.unwrap().connected);
    scene.fleet.tree.reload(division(TOWNSHIP)).unwrap();
    until("the open link ends and no other comes up", async || {
        let link = scene.fleet.link(TOWNSHIP, COUNTY).await.unwrap();
        !link.connected && link.last_error.contains("was revoked by its authority")
    })
    .await;
}

fn risk(risk: v1::CaseRisk) -> v1::Case {
    v1::Case { case_kind: Some(1), risk: Some(risk.into()), ..v1::Case::default() }
}

fn case(id: u32) -> String {
    format!("divisions/220822101000/cases/{id}")
}

/// A copy of a node that runs while the node itself is linked is refused, and both operators are told.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_of_a_linked_node_is_refused() {
    let mut scene = Scene::set().await;
    scene.still_works().await;
    scene.fleet.tree.stop(division(TOWNSHIP)).await.unwrap();
    let copy = scene.fleet.path("copy");
    copy_files(&scene.fleet.tree.node_dir(division(TOWNSHIP)), &copy);
    scene.fleet.tree.start(division(TOWNSHIP)).await.unwrap();
    scene.fleet.linked(division(TOWNSHIP)).await;
    scene.still_works().await;
    let since = scene.fleet.link(COUNTY, TOWNSHIP).await.unwrap().connect_time;

    let configuration = format!(
        "division = \"{TOWNSHIP}\"\n[parent]\ndivision = \"{COUNTY}\"\naddress = \"{}\"",
        scene.address
    );
    let mut clone = Stray::serve(&copy, &configuration);
    let clone = clone.client().await;
    until("the copy is told", async || {
        let status = clone.node().get_status(v1::GetStatusRequest {}).await.unwrap().into_inner();
        let link = &status.links[0];
        !link.connected && link.last_error.contains("another node with this identity is linked")
    })
    .await;
    let link = scene.fleet.link(COUNTY, TOWNSHIP).await.unwrap();
    assert!(link.connected && link.connect_time == since, "the node itself is not disturbed: {link:?}");
    assert!(link.last_error.contains("a second node with the identity"), "{link:?}");
    // What is written into the copy stays there; the county never mistakes it for the node.
    harness::write(&clone, &case(99), &risk(v1::CaseRisk::Red)).await.unwrap();
    scene.still_works().await;
    assert!(scene.fleet.record(COUNTY, &case(99)).await.is_none());
}

/// What was written last before the backup could as well have been written after the restore: such a value stands
/// beside the one that the county kept, for a person to decide, and neither is lost.
async fn what_the_backup_may_have_repeated(fleet: &Fleet) {
    let listed = fleet.cli(TOWNSHIP, &["conflicts", "list", "--json"]).await.exits(3).json();
    let listed = listed["conflicts"].as_array().unwrap().clone();
    let names: Vec<&str> = listed.iter().map(|conflict| conflict["name"].as_str().unwrap()).collect();
    assert_eq!(names, [format!("{}/conflicts/risk", case(49))]);
    let values = listed[0]["values"].as_array().unwrap().iter();
    let mut values: Vec<&str> = values.map(|value| value["value"].as_str().unwrap()).collect();
    values.sort_unstable();
    assert_eq!(values, ["CASE_RISK_BLUE", "CASE_RISK_RED"]);
}

/// A node that goes on from an old backup is noticed, gets back what it forgot, and loses nothing that it writes after.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restored_node_gets_back_what_it_forgot() {
    let mut scene = Scene::set().await;
    scene.still_works().await;
    let township = division(TOWNSHIP);
    let fleet = &mut scene.fleet;
    fleet.write(TOWNSHIP, &case(50), &risk(v1::CaseRisk::Blue)).await.unwrap();
    // Two greetings: what was written before the tokens that are good now is above doubt.
    for _ in 0..2 {
        fleet.equal().await;
        fleet.tree.stop(township).await.unwrap();
        fleet.tree.start(township).await.unwrap();
        fleet.linked(township).await;
    }
    fleet.write(TOWNSHIP, &case(49), &risk(v1::CaseRisk::Blue)).await.unwrap();
    fleet.equal().await;
    fleet.tree.stop(township).await.unwrap();
    let (dir, backup) = (fleet.tree.node_dir(township), fleet.path("backup"));
    copy_files(&dir, &backup);
    fleet.tree.start(township).await.unwrap();
    fleet.linked(township).await;
    fleet.write(TOWNSHIP, &case(50), &risk(v1::CaseRisk::Red)).await.unwrap();
    fleet.write(TOWNSHIP, &case(49), &risk(v1::CaseRisk::Red)).await.unwrap();
    fleet.write(TOWNSHIP, &case(51), &risk(v1::CaseRisk::Green)).await.unwrap();
    fleet.equal().await;
    fleet.tree.stop(township).await.unwrap();

    for old in std::fs::read_dir(&dir).unwrap().filter_map(Result::ok) {
        let name = old.file_name().into_string().unwrap();
        if name.starts_with("guantong.db") {
            std::fs::remove_file(old.path()).unwrap();
        }
    }
    copy_files(&backup, &dir);
    // Back from the backup, and at work before the line is up again.
    fleet.tree.set_environment(township, "GUANTONG_PARENT__ADDRESS", Some("127.0.0.1:9")).unwrap();
    fleet.tree.start(township).await.unwrap();
    assert!(fleet.record(TOWNSHIP, &case(51)).await.is_none(), "it has forgotten");
    fleet.write(TOWNSHIP, &case(52), &risk(v1::CaseRisk::Yellow)).await.unwrap();
    fleet.tree.stop(township).await.unwrap();
    fleet.tree.set_environment(township, "GUANTONG_PARENT__ADDRESS", None).unwrap();
    fleet.tree.start(township).await.unwrap();
    let shown =
        async |node: &str, id: u32| fleet.shown::<v1::Case>(node, &case(id)).await.map(|case| case.risk());
    for (id, expected) in [(50, v1::CaseRisk::Red), (51, v1::CaseRisk::Green), (52, v1::CaseRisk::Yellow)] {
        for node in [TOWNSHIP, COUNTY] {
            until(&format!("case {id} is right at {node}"), async || shown(node, id).await == Some(expected))
                .await;
        }
    }
    fleet.equal().await;
    what_the_backup_may_have_repeated(fleet).await;
    let warnings = fleet.status(TOWNSHIP).await.warnings;
    assert!(warnings.iter().any(|warning| warning.contains("restored or copied")), "{warnings:?}");
    scene.writes = 100;
    scene.still_works().await;
}
