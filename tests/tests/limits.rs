//! What one caller may take of a node: calls in a time, calls at once, memory for answers that it does not read, the place
//! of a connection that says nothing any more. Whoever keeps within it is not disturbed.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use guantong::client::Client;
use guantong::demo::tree::NodeSpec;
use guantong::identity::pki::Validity;
use guantong::identity::{IdentityFiles, Subject};
use guantong_proto::v1;
use guantong_proto::v1::audit_service_client::AuditServiceClient;
use guantong_proto::v1::case_service_client::CaseServiceClient;
use guantong_proto::v1::subscription_service_client::SubscriptionServiceClient;
use guantong_tests::harness::rude::{DATA, HEADERS, PING, RESET, Rude};
use guantong_tests::harness::{Fleet, division, found, until, within};
use tonic::{Code, Status};
use tonic_types::StatusExt;

const COUNTY: &str = "220822";
const TOWNSHIP: &str = "220822101";
const STATUS: &str = "/guantong.v1.NodeService/GetStatus";
/// A slow reader is let go after 40 s and a look; nothing is waited for so long where all is well.
const LET_GO: Duration = Duration::from_secs(120);
/// `REFUSED_STREAM` of HTTP/2.
const REFUSED: [u8; 4] = [0, 0, 0, 7];

struct Scene {
    fleet: Fleet,
    address: String,
}

impl Scene {
    async fn set() -> Scene {
        let county = division(COUNTY);
        let township = NodeSpec::below(county, division(TOWNSHIP)).cuttable();
        let fleet = Fleet::start([NodeSpec::top(county), township]).await;
        let address = fleet.tree.address(county).unwrap();
        Scene { fleet, address }
    }

    fn certificate(&self, subject: Subject) -> PathBuf {
        self.fleet.issue(&subject.to_string().replace('/', "-"), subject, Validity::days(3))
    }

    async fn client(&self, subject: Subject) -> Client {
        let dir = self.certificate(subject);
        Client::over_tls(&self.address, &IdentityFiles::in_dir(&dir)).await.unwrap()
    }

    /// An operator who keeps to no rules.
    async fn rude(&self, name: &str, window: u32) -> Rude {
        let dir = self.certificate(Subject::operator(name).unwrap());
        let authority = self.fleet.tree.authority().public_files()[0].clone();
        Rude::connect(&self.address, &authority, &dir, window).await.unwrap()
    }

    async fn audit_lines(&self, event: &str) -> Vec<String> {
        let mut client = AuditServiceClient::new(self.fleet.client(COUNTY).channel());
        let request =
            v1::ListAuditEntriesRequest { event: event.into(), page_size: 1_000, ..Default::default() };
        let entries = client.list_audit_entries(request).await.unwrap().into_inner().entries;
        entries.into_iter().map(|entry| entry.line).collect()
    }
}

async fn list(client: &Client) -> Result<(), Status> {
    let request = v1::ListCasesRequest { parent: "divisions/220822000000".into(), ..Default::default() };
    CaseServiceClient::new(client.channel()).list_cases(request).await.map(drop)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_partner_calls_as_often_as_its_grant_says_over_all_its_connections() {
    let scene = Scene::set().await;
    let partner = Subject::partner("hotline").unwrap();
    let (one, other) = (scene.client(partner.clone()).await, scene.client(partner).await);
    let second = scene.client(Subject::partner("court").unwrap()).await;
    let grant = async |partner: &str, rate: &[&str]| {
        let args = [&["grant", "set", partner, "--scope", COUNTY, "--level", "read"], rate].concat();
        scene.fleet.cli(COUNTY, &args).await
    };
    for (rate, says) in
        [("50", "50/s"), ("50/day", "50/s"), ("0/s", "1 to 100000"), ("200000/s", "1 to 100000")]
    {
        grant("hotline", &["--rate", rate]).await.exits(2).says(&[says]);
    }
    grant("hotline", &["--rate", "3/h"]).await.exits(0).shows(&["3/h"]);
    grant("court", &[]).await.exits(0).shows(&["no limit"]);
    scene.fleet.cli(COUNTY, &["grant", "list"]).await.exits(0).shows(&["hotline", "3/h"]);
    let shown = scene.fleet.cli(COUNTY, &["grant", "show", "hotline", "--json"]).await.exits(0).json();
    assert_eq!(shown["rate"]["requests"], 3, "{shown}");

    list(&one).await.unwrap();
    list(&other).await.unwrap();
    list(&one).await.unwrap();
    for client in [&one, &other].repeat(30) {
        let refused = list(client).await.unwrap_err();
        assert_eq!(refused.code(), Code::ResourceExhausted, "{refused:?}");
        assert!(refused.message().contains("3/h"), "{refused:?}");
        let details = refused.get_error_details();
        assert_eq!(details.error_info().unwrap().reason, "RATE_EXCEEDED");
        let wait = details.retry_info().unwrap().retry_delay.unwrap();
        assert!((1..=1_200).contains(&wait.as_secs()), "{wait:?}");
        list(&second).await.unwrap();
    }
    // In force at once, and so is none.
    grant("hotline", &["--rate", "100000/s"]).await.exits(0);
    until("a wider rate is in force", async || list(&one).await.is_ok()).await;
    grant("hotline", &[]).await.exits(0);
    for _ in 0..50 {
        list(&other).await.unwrap();
    }
    let lines = found("the refusals are in the audit log", async || {
        Some(scene.audit_lines("rate_exceeded").await).filter(|lines| !lines.is_empty())
    })
    .await;
    assert!(lines.len() <= 3, "one for a burst, not one for each: {lines:?}");
    assert!(lines[0].contains("\"partner\":\"hotline\""), "{lines:?}");
}

/// A subscription is one call when it is opened, whatever goes through it and is acknowledged.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_is_one_call_of_a_rate() {
    let scene = Scene::set().await;
    let partner = scene.client(Subject::partner("hotline").unwrap()).await;
    let set = ["grant", "set", "hotline", "--scope", COUNTY, "--level", "read", "--rate", "2/h"];
    scene.fleet.cli(COUNTY, &set).await.exits(0);
    let mut client = SubscriptionServiceClient::new(partner.channel());
    let subscription = v1::Subscription { kinds: vec!["case".into()], ..Default::default() };
    let request =
        v1::CreateSubscriptionRequest { subscription_id: "all".into(), subscription: Some(subscription) };
    let name = client.create_subscription(request).await.unwrap().into_inner().name;
    let request = v1::ReadChangesRequest { name: name.clone(), ..Default::default() };
    let mut batches = client.read_changes(request).await.unwrap().into_inner();
    assert_eq!(list(&partner).await.unwrap_err().code(), Code::ResourceExhausted);
    for case in 1..=5 {
        let written = format!("divisions/220822000000/cases/{case}");
        let fields = v1::Case { case_kind: Some(1), ..v1::Case::default() };
        scene.fleet.write(COUNTY, &written, &fields).await.unwrap();
        let batch = within("a batch", async {
            loop {
                let batch = batches.message().await.unwrap().unwrap();
                if batch.changes.iter().any(|change| change.name == written) {
                    return batch;
                }
            }
        })
        .await;
        let request = v1::AcknowledgeChangesRequest { name: name.clone(), ack_id: batch.ack_id };
        client.acknowledge_changes(request).await.unwrap();
    }
    assert_eq!(list(&partner).await.unwrap_err().code(), Code::ResourceExhausted);
}

/// Calls beyond those allowed on one connection are refused one by one; other connections are not touched.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_connection_has_so_many_calls_at_once() {
    let scene = Scene::set().await;
    let since = scene.fleet.link(COUNTY, TOWNSHIP).await.unwrap().connect_time;
    let mut rude = scene.rude("greedy", 65_535).await;
    let opened: u32 = 140;
    for call in 0..opened {
        rude.call(call * 2 + 1, STATUS, false).await.unwrap();
    }
    let mut refused = 0;
    let counted = async {
        while refused < opened - 128 {
            let frame = rude.next().await?;
            if frame.kind == RESET {
                assert_eq!(frame.payload, REFUSED, "call {}", frame.stream);
                assert!(frame.stream > 256, "the first 128 go on: call {}", frame.stream);
                refused += 1;
            }
        }
        io::Result::Ok(())
    };
    tokio::time::timeout(LET_GO, counted).await.unwrap().unwrap();
    let other = scene.client(Subject::operator("greedy").unwrap()).await;
    other.node().get_status(v1::GetStatusRequest {}).await.unwrap();
    let link = scene.fleet.link(COUNTY, TOWNSHIP).await.unwrap();
    assert!(link.connected && link.connect_time == since, "{link:?}");
}

/// Who answers pings and takes no answer, and who says nothing at all, are let go by time; a quiet link is not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_takes_no_answers_and_who_falls_silent_are_let_go() {
    let scene = Scene::set().await;
    let since = scene.fleet.link(COUNTY, TOWNSHIP).await.unwrap().connect_time;
    // Takes nothing; takes a few bytes; reads all, but is not there when asked.
    let slow = async |name: &str, window: u32, silent: bool| {
        let mut rude = scene.rude(name, window).await;
        rude.call(1, STATUS, true).await.unwrap();
        if silent {
            rude.fall_silent();
        }
        let (mut answered, mut pinged, mut bytes) = (false, 0, 0);
        let ended = async {
            while let Ok(frame) = rude.next().await {
                match frame.kind {
                    HEADERS => answered = true,
                    DATA => bytes += frame.payload.len(),
                    PING => pinged += 1,
                    _ => {}
                }
            }
        };
        tokio::time::timeout(LET_GO, ended).await.unwrap_or_else(|_| panic!("{name} is never let go"));
        assert!(answered && pinged > 0, "{name}: answered {answered}, pinged {pinged} times");
        bytes
    };
    let taken =
        tokio::join!(slow("nothing", 0, false), slow("little", 10, false), slow("silent", 65_535, true));
    assert!(taken.0 == 0 && taken.1 == 10 && taken.2 > 10, "{taken:?}");
    let log = std::fs::read_to_string(scene.fleet.tree.log_path(division(COUNTY))).unwrap();
    assert_eq!(log.matches("takes no answers").count(), 2, "the operator reads of it");
    let link = scene.fleet.link(COUNTY, TOWNSHIP).await.unwrap();
    assert!(link.connected && link.connect_time == since, "{link:?}");
}

/// A line that carries nothing any more and breaks for nobody: both ends notice, and link anew once it carries again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_that_fell_silent_is_let_go_at_both_ends() {
    let mut scene = Scene::set().await;
    scene.fleet.tree.silence(division(TOWNSHIP));
    for (node, peer) in [(COUNTY, TOWNSHIP), (TOWNSHIP, COUNTY)] {
        until(&format!("{node} lets {peer} go"), async || {
            !scene.fleet.link(node, peer).await.unwrap().connected
        })
        .await;
    }
    scene.fleet.tree.mend(division(TOWNSHIP));
    scene.fleet.linked(division(TOWNSHIP)).await;
    let case = v1::Case { case_kind: Some(1), ..v1::Case::default() };
    let name = "divisions/220822101000/cases/1";
    scene.fleet.write(TOWNSHIP, name, &case).await.unwrap();
    until("a new case crosses", async || scene.fleet.record(COUNTY, name).await.is_some()).await;
}
