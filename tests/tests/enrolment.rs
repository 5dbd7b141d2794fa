//! Trust over the life of a tree, with real nodes: a county and a township come by invitation, certificates renew
//! themselves while links are up and after they have run out, what is revoked is known everywhere below within seconds.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::io::Write as _;
use std::path::Path;

use guantong::client::Client;
use guantong::identity::pki::KeyRequest;
use guantong::identity::pki::dir::AuthorityDir;
use guantong::identity::revocation::revokes;
use guantong_gateway::invitation::Code;
use guantong_proto::v1;
use guantong_proto::v1::enrolment_service_client::EnrolmentServiceClient;
use guantong_tests::harness::land::{
    HOST, Land, between, certificate, days, enroll, free_port, invite, later, link, linked,
    replace_certificate, serve, serve_in, text, with_authority,
};
use guantong_tests::harness::wire::dial;
use guantong_tests::harness::{Stray, found, run, until};
use time::{Duration, OffsetDateTime};
use tonic_types::StatusExt;

const PREFECTURE: &str = "2208";
const COUNTY: &str = "220822";
const TOWNSHIP: &str = "220822101";

/// A root for years to come.
fn land() -> Land {
    Land::new(days(-400, 4_000))
}

/// The node at the top, with the root for its authority. Of its certificate's 400 days 300 have passed.
fn first(land: &Land) -> (std::path::PathBuf, String) {
    land.node(&land.root, PREFECTURE, days(-300, 100), &with_authority(&land.path("root")))
}

/// A folder whose configuration says only where the socket is: `enroll` says the rest.
fn prepare(dir: &Path) {
    std::fs::create_dir_all(dir).unwrap();
    std::fs::write(dir.join("guantong.toml"), format!("socket = {:?}\n", text(&dir.join("sock")))).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tree_grows_by_invitation_and_keeps_itself_trusted() {
    let land = land();
    let (prefecture_dir, prefecture_at) = first(&land);
    let due = certificate(&prefecture_dir).serial;
    let mut prefecture = serve(&prefecture_dir);
    prefecture.client().await;
    until("the top of the tree renews its own", async || certificate(&prefecture_dir).serial != due).await;
    let authority = land.authority(COUNTY, days(-400, 4_000));

    // The county comes by invitation, and has an authority from then on.
    let county_dir = land.path(COUNTY);
    prepare(&county_dir);
    let county_at = format!("{HOST}:{}", free_port());
    let code = invite(&prefecture_dir, &[COUNTY, "--host", HOST]).await;
    enroll(&prefecture_at, &code, &county_dir, &["--listen", &county_at])
        .await
        .exits(0)
        .shows(&["220822000000"]);
    let config = county_dir.join("guantong.toml");
    let mut file = std::fs::OpenOptions::new().append(true).open(config).unwrap();
    writeln!(file, "\n{}", with_authority(authority.dir())).unwrap();
    let mut county = serve(&county_dir);
    linked(&county.client().await, PREFECTURE).await;

    let township_dir = land.path(TOWNSHIP);
    let township = grow(&county_dir, &county_at, &township_dir).await;
    let township = renews_while_linked(&authority, &township_dir, township).await;
    revoked_at_the_top(&land, &prefecture_dir, &prefecture_at, &township_dir).await;
    away_for_long(&authority, &county.client().await, &county_at, &county_dir, &township_dir, township).await;
    asks_again_and_again(&county_at, &township_dir).await;
    drop((prefecture, county));
}

/// A node that does not keep what it is given is slowed, whatever it does with its connections.
async fn asks_again_and_again(county_at: &str, dir: &Path) {
    let mut given = 0;
    let refused = loop {
        let dialed = dial(county_at, dir).await.unwrap();
        let signing_request = KeyRequest::new().unwrap().request_pem;
        let mut client = EnrolmentServiceClient::new(dialed.channel.clone());
        match client.renew(v1::RenewRequest { signing_request }).await {
            Ok(_) => given += 1,
            Err(status) => break status,
        }
        assert!(given <= 10, "nobody counts renewals");
    };
    assert_eq!(refused.code(), tonic::Code::ResourceExhausted, "{refused:?}");
    assert!(given >= 5 && refused.get_details_retry_info().is_some(), "{given} given: {refused:?}");
}

/// The township, by a code that works once; all others are refused alike.
async fn grow(county_dir: &Path, county_at: &str, dir: &Path) -> Stray {
    prepare(dir);
    let code = invite(county_dir, &[TOWNSHIP]).await;
    let refused = "the code is not accepted";
    let wrong = Code { secret: [7; 11], ..code.clone() };
    enroll(county_at, &wrong, dir, &[]).await.exits(1).says(&[refused]);
    let elsewhere = Code { fingerprint: [7; 16], ..code.clone() };
    enroll(county_at, &elsewhere, dir, &[]).await.exits(1).says(&["not signed by an authority"]);
    let typed = code.to_string().replace('-', "").chars().rev().collect::<String>();
    run(&["enroll", "--parent", county_at, "--code", &typed]).await.exits(2).says(&["typing error"]);
    assert!(!dir.join("key.pem").exists());

    enroll(county_at, &code, dir, &[]).await.exits(0).shows(&["220822101000", "guantong serve"]);
    use std::os::unix::fs::PermissionsExt as _;
    let mode = std::fs::metadata(dir.join("key.pem")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    enroll(county_at, &code, dir, &[]).await.exits(1).says(&["--force"]);
    let other = dir.join("other");
    enroll(county_at, &code, &other, &[]).await.exits(1).says(&[refused]);

    let withdrawn = invite(county_dir, &[TOWNSHIP]).await;
    let socket = text(&county_dir.join("sock"));
    let listed = run(&["invite", "--list", "--json", "--socket", &socket]).await.exits(0);
    let listed = listed.json()["invitations"].as_array().unwrap().clone();
    assert_eq!(
        listed.iter().map(|one| one["state"].as_str().unwrap()).collect::<Vec<_>>(),
        ["INVITATION_STATE_OPEN", "INVITATION_STATE_USED"]
    );
    let name = listed[0]["name"].as_str().unwrap();
    run(&["invite", "--withdraw", name, "--socket", &socket]).await.exits(0);
    enroll(county_at, &withdrawn, &other, &[]).await.exits(1).says(&[refused]);

    let mut township = serve(dir);
    linked(&township.client().await, COUNTY).await;
    township
}

/// A certificate that falls due while the link is up is renewed, with a new key, and the link stays.
async fn renews_while_linked(authority: &AuthorityDir, dir: &Path, township: Stray) -> Stray {
    township.kill().await;
    // Of twenty minutes two thirds have passed in a moment, give or take what its serial number adds.
    let old = loop {
        let validity = between(Duration::seconds(-797), Duration::seconds(403));
        let serial = replace_certificate(authority, dir, TOWNSHIP, validity);
        if serial[serial.len() - 4..].starts_with('0') {
            break serial;
        }
    };
    let key = std::fs::read(dir.join("key.pem")).unwrap();
    let mut township = serve(dir);
    let client = township.client().await;
    let since = linked(&client, COUNTY).await.connect_time;
    until("the certificate is renewed", async || certificate(dir).serial != old).await;
    assert_ne!(std::fs::read(dir.join("key.pem")).unwrap(), key, "a new key each time");
    let status = found("the new certificate is in use", async || {
        let status = client.node().get_status(v1::GetStatusRequest {}).await.unwrap().into_inner();
        let expire_s = status.certificate_expire_time.unwrap().seconds;
        (expire_s > OffsetDateTime::now_utc().unix_timestamp() + 86_400).then_some(status)
    })
    .await;
    let link = &status.links[0];
    assert!(link.connected && link.connect_time == since, "the link stayed: {link:?}");
    township
}

/// What the prefecture revokes ends the link at once, and is known two tiers below.
async fn revoked_at_the_top(land: &Land, prefecture_dir: &Path, prefecture_at: &str, township_dir: &Path) {
    let dir = land.path("220881");
    prepare(&dir);
    let code = invite(prefecture_dir, &["220881"]).await;
    enroll(prefecture_at, &code, &dir, &[]).await.exits(0);
    let mut county = serve(&dir);
    let client = county.client().await;
    linked(&client, PREFECTURE).await;
    let serial = certificate(&dir).serial;
    run(&["pki", "revoke", "node/220881000000", "--dir", land.path("root").to_str().unwrap()]).await.exits(0);
    let told = found("the link is cut", async || {
        link(&client, PREFECTURE).await.filter(|link| !link.connected && link.last_error.contains("revoked"))
    })
    .await;
    assert!(told.last_error.contains("its authority revoked it"), "{told:?}");
    until("the township knows it", async || {
        revokes(&std::fs::read_to_string(township_dir.join("revocations.pem")).unwrap(), &serial)
    })
    .await;
}

/// A node whose certificate ran out comes back by itself within the grace, and not beyond it, nor if it was revoked.
async fn away_for_long(
    authority: &AuthorityDir,
    county: &Client,
    county_at: &str,
    county_dir: &Path,
    dir: &Path,
    township: Stray,
) {
    township.kill().await;
    replace_certificate(authority, dir, TOWNSHIP, days(-240, -60));
    let mut township = serve(dir);
    linked(&township.client().await, COUNTY).await;
    let seen = link(county, TOWNSHIP).await.unwrap();
    assert!(seen.connected && seen.last_error.contains("60 days"), "shown at the parent: {seen:?}");
    township.kill().await;

    for revoke in [false, true] {
        let validity = if revoke { days(-100, -1) } else { days(-340, -100) };
        let serial = replace_certificate(authority, dir, TOWNSHIP, validity);
        if revoke {
            authority.revoke(&serial).unwrap();
        }
        let mut township = serve(dir);
        let client = township.client().await;
        let told = found("it says that it must be invited again", async || {
            link(&client, COUNTY).await.filter(|link| link.last_error.contains("guantong invite"))
        })
        .await;
        assert!(!told.connected && certificate(dir).serial == serial, "{told:?}");
        township.kill().await;
    }
    let code = invite(county_dir, &[TOWNSHIP]).await;
    enroll(county_at, &code, dir, &["--force"]).await.exits(0);
    let mut township = serve(dir);
    linked(&township.client().await, COUNTY).await;
}

/// A code is good for its time only; who tries too many is made to wait.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn codes_run_out_and_guesses_are_slowed() {
    let land = land();
    let (dir, at) = first(&land);
    let mut node = serve(&dir);
    node.client().await;
    let code = invite(&dir, &[COUNTY, "--valid", "1h"]).await;
    let out = land.path("new");
    let wrong = Code { secret: [9; 11], ..code.clone() };
    for _ in 0..5 {
        enroll(&at, &wrong, &out, &[]).await.exits(1).says(&["the code is not accepted"]);
    }
    enroll(&at, &wrong, &out, &[]).await.exits(1).says(&["too many codes were tried", "try again in"]);
    node.kill().await;

    let Some(late) = later("+2h") else { return };
    let mut node = serve_in(&dir, &late);
    node.client().await;
    enroll(&at, &code, &out, &[]).await.exits(1).says(&["the code is not accepted"]);
    let socket = text(&dir.join("sock"));
    run(&["invite", "--list", "--socket", &socket]).await.exits(0).shows(&["expired"]);
}
