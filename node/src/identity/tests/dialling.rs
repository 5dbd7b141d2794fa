//! Whom a dialling node trusts, and in which words it says why it does not.

use super::chain::dial_forged;
use super::*;
use crate::identity::dial::{Stage, check_endpoint};
use crate::identity::words::{Fault, Trouble};

fn refused(result: Result<Dialed, DialError>) -> Trouble {
    match result {
        Err(DialError::Refused { trouble, .. }) => trouble,
        other => panic!("not a refusal: {other:?}"),
    }
}

#[tokio::test]
async fn another_node_than_expected_is_told_apart() {
    let world = World::new();
    let (county, township) = (world.node(COUNTY), world.node(TOWNSHIP));
    let server = Server::start(county.clone()).await;
    let expected = ExpectedPeer::Node(division("220800000000"));
    let error = server.dial(&township, expected).await.unwrap_err();
    let found = county.current().id().clone();
    assert_eq!(error, DialError::WrongPeer { endpoint: server.endpoint(), found, expected });
    assert!(error.to_string().contains("spiffe://guantong.local/node/220822000000"), "{error}");
    assert!(error.to_string().contains("node/220800000000"), "{error}");
    // Nothing was said to it.
    until("the connection is gone", || server.acceptor.peers().is_empty()).await;
    assert!(server.callers.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_server_of_a_foreign_authority_is_refused() {
    let (ours, theirs) = (World::new(), World::new());
    let server = Server::start(theirs.node(COUNTY)).await;
    let result = server.dial(&ours.node(TOWNSHIP), ExpectedPeer::AnyNode).await;
    assert_eq!(refused(result), Trouble::Theirs(Fault::UnknownAuthority));
    // The server learns why from the alert.
    until("the server notes it", || !server.acceptor.recent_refusals().is_empty()).await;
    assert_eq!(server.acceptor.recent_refusals()[0].trouble, Trouble::Ours(Fault::UnknownAuthority));
}

#[tokio::test(flavor = "multi_thread")]
async fn being_refused_is_known_before_the_first_call() {
    let (ours, theirs) = (World::new(), World::new());
    let server = Server::start(theirs.node(COUNTY)).await;
    // A child that trusts both authorities; the server trusts only its own. Many times, since a reset of the
    // connection must not hide the reason.
    drop(ours.node(TOWNSHIP));
    let files = IdentityFiles { revocations: None, ..IdentityFiles::in_dir(&ours.path(TOWNSHIP)) };
    append(&files.authority, theirs.authority.authority().certificate_pem());
    let township = IdentityStore::open(files).unwrap();
    for _ in 0..50 {
        let result = server.dial(&township, ExpectedPeer::Node(division(COUNTY))).await;
        assert_eq!(refused(result), Trouble::Ours(Fault::UnknownAuthority));
    }
    // The child may know before the server has noted it.
    until("the server has noted all", || server.acceptor.recent_refusals()[0].count == 50).await;
    assert_eq!(server.acceptor.recent_refusals().len(), 1);
}

#[tokio::test]
async fn a_server_is_known_by_the_names_in_its_certificate() {
    let world = World::new();
    let township = world.node(TOWNSHIP);
    let server = Server::start(world.node(COUNTY)).await;
    let by_name = format!("localhost:{}", server.address.port());
    let result = connect(&by_name, &township.current(), ExpectedPeer::AnyNode, PATIENCE).await;
    assert_eq!(refused(result), Trouble::Theirs(Fault::WrongName("127.0.0.1".into())));

    let request = Request::new(node(COUNTY), Validity::days(5)).host("LocalHost").unwrap();
    let server = Server::start(world.issue(&request, "named")).await;
    let by_name = format!("localhost:{}", server.address.port());
    connect(&by_name, &township.current(), ExpectedPeer::AnyNode, PATIENCE).await.unwrap();
}

#[tokio::test]
async fn a_server_with_an_old_certificate_is_refused() {
    let world = World::new();
    let old = Authority::create(trust_domain(), "old", between(-20, 20)).unwrap();
    let issued = old.issue(&Request::new(node(COUNTY), between(-3, -1)).host("127.0.0.1").unwrap()).unwrap();
    drop(world.node(TOWNSHIP));
    let files = IdentityFiles { revocations: None, ..IdentityFiles::in_dir(&world.path(TOWNSHIP)) };
    append(&files.authority, old.certificate_pem());
    let township = IdentityStore::open(files).unwrap();
    let error = dial_forged(&issued.certificate_pem, &issued.key_pem, &township).await;
    assert!(matches!(refused(Err(error)), Trouble::Theirs(Fault::Expired(_))));
}

#[tokio::test]
async fn each_way_to_miss_a_server_has_its_own_words() {
    let world = World::new();
    let township = world.node(TOWNSHIP).current();
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let error = connect(&free.to_string(), &township, ExpectedPeer::AnyNode, PATIENCE).await.unwrap_err();
    assert_eq!(error.code(), "not_listening");

    let error =
        connect("no-such-host.invalid:7443", &township, ExpectedPeer::AnyNode, PATIENCE).await.unwrap_err();
    assert_eq!(error.code(), "unknown_host");

    // Listens, but never answers.
    let mute = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let allowed = Duration::from_millis(50);
    let endpoint = mute.local_addr().unwrap().to_string();
    let error = connect(&endpoint, &township, ExpectedPeer::AnyNode, allowed).await.unwrap_err();
    assert_eq!(error, DialError::TimedOut { endpoint, stage: Stage::Greeting, allowed });

    // Answers, but not with TLS.
    let endpoint = mute.local_addr().unwrap().to_string();
    let answering = tokio::spawn(async move {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        // The first connection is the one above.
        let _ = mute.accept().await.unwrap();
        let (mut tcp, _) = mute.accept().await.unwrap();
        tcp.read_exact(&mut [0; 5]).await.unwrap();
        tcp.write_all(b"SSH-2.0-x\r\n").await.unwrap();
        tcp.read_to_end(&mut Vec::new()).await.unwrap_or_default();
    });
    let result = connect(&endpoint, &township, ExpectedPeer::AnyNode, PATIENCE).await;
    assert_eq!(refused(result), Trouble::NotTls);
    answering.await.unwrap();
}

#[test]
fn an_endpoint_is_a_host_and_a_port() {
    for right in ["county.example:7443", "10.0.0.1:1", "[::1]:7443", "localhost:65535"] {
        check_endpoint(right).unwrap();
    }
    for wrong in [
        "",
        "county.example",
        ":7443",
        "county.example:",
        "county.example:0",
        "county.example:65536",
        "::1:7443",
    ]
    .into_iter()
    .chain([
        "https://county.example:7443",
        "[county.example]:7443",
        "a b:7443",
        "user@county.example:7443",
    ]) {
        assert!(check_endpoint(wrong).is_err(), "{wrong}");
    }
}
