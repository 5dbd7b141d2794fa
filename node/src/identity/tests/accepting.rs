//! Whom a listening node lets in, and what it notes of those it refuses.

use super::*;
use crate::identity::words::{Crowd, Fault, Trouble};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// The refusals that the server has noted, once there is one.
async fn refusal(server: &Server) -> Trouble {
    until("a refusal", || !server.acceptor.recent_refusals().is_empty()).await;
    server.acceptor.recent_refusals()[0].trouble.clone()
}

#[tokio::test]
async fn both_sides_know_each_other() {
    let world = World::new();
    let (county, township) = (world.node(COUNTY), world.node(TOWNSHIP));
    let server = Server::start(county.clone()).await;
    let dialed = server.dial(&township, ExpectedPeer::Node(division(COUNTY))).await.unwrap();
    assert_eq!(dialed.peer.id, *county.current().id());
    assert_eq!(dialed.peer.address, server.address);
    ask(&dialed).await.unwrap();
    let caller = server.callers.lock().unwrap()[0].clone();
    assert_eq!(caller.id.subject, node(TOWNSHIP));
    assert_eq!(caller.not_after_ms, township.current().certificate().not_after_ms);
    assert_eq!(*caller.serial, township.current().certificate().serial);
    assert_eq!(server.acceptor.peers().len(), 1);
    assert_eq!(server.acceptor.refused_count(), 0);
    drop(dialed);
    until("the connection is gone", || server.acceptor.peers().is_empty()).await;
}

#[tokio::test]
async fn a_partner_is_let_in_as_a_partner() {
    let world = World::new();
    let server = Server::start(world.node(COUNTY)).await;
    let request = Request::new(Subject::partner("data-centre").unwrap(), Validity::days(5));
    let partner = world.issue(&request, "partner");
    let dialed = server.dial(&partner, ExpectedPeer::AnyNode).await.unwrap();
    ask(&dialed).await.unwrap();
    assert_eq!(server.callers.lock().unwrap()[0].id.subject, Subject::Partner("data-centre".into()));
}

#[tokio::test]
async fn no_certificate_is_refused() {
    let world = World::new();
    let server = Server::start(world.node(COUNTY)).await;
    let told = Stranger::trusting(world.authority.authority().certificate_pem()).knock(server.address).await;
    assert_eq!(Trouble::of_io(&told), Trouble::Ours(Fault::Missing));
    assert_eq!(refusal(&server).await, Trouble::Theirs(Fault::Missing));
}

#[tokio::test]
async fn a_certificate_out_of_its_time_is_refused() {
    let world = World::new();
    let server = Server::start(world.node(COUNTY)).await;
    // The authority itself must be older than what it issues here.
    let old = Authority::create(trust_domain(), "old", between(-20, 20)).unwrap();
    append(&world.path(COUNTY).join("authority.pem"), old.certificate_pem());
    let files = IdentityFiles { revocations: None, ..IdentityFiles::in_dir(&world.path(COUNTY)) };
    let patient = Server::start(Arc::new(IdentityStore::open(files).unwrap())).await;
    let root = world.authority.authority().certificate_pem();
    for (validity, early) in [(between(-3, -1), false), (between(1, 3), true)] {
        let issued = old.issue(&Request::new(node(TOWNSHIP), validity)).unwrap();
        let told = Stranger::trusting(root).with_issued(&issued).knock(patient.address).await;
        assert_eq!(Trouble::of_io(&told), Trouble::Ours(Fault::OutOfDate));
        let refused = patient.acceptor.recent_refusals();
        let expected = |trouble: &Trouble| match trouble {
            Trouble::Theirs(Fault::NotYetValid(_)) => early,
            Trouble::Theirs(Fault::Expired(at)) => !early && *at / 1000 == issued.not_after_ms / 1000,
            _ => false,
        };
        assert!(refused.iter().any(|refusal| expected(&refusal.trouble)), "{refused:?}");
    }
    // A server that does not trust that authority at all says so, whatever the dates.
    let issued = old.issue(&Request::new(node(TOWNSHIP), Validity::days(1))).unwrap();
    let told = Stranger::trusting(root).with_issued(&issued).knock(server.address).await;
    assert_eq!(Trouble::of_io(&told), Trouble::Ours(Fault::UnknownAuthority));
}

#[tokio::test]
async fn a_foreign_authority_is_refused_even_under_the_same_name() {
    let world = World::new();
    let server = Server::start(world.node(COUNTY)).await;
    let ours = world.authority.authority();
    let issued = other_authority().issue(&Request::new(node(TOWNSHIP), Validity::days(1))).unwrap();
    let told = Stranger::trusting(ours.certificate_pem()).with_issued(&issued).knock(server.address).await;
    assert_eq!(Trouble::of_io(&told), Trouble::Ours(Fault::UnknownAuthority));
    assert_eq!(refusal(&server).await, Trouble::Theirs(Fault::UnknownAuthority));

    // Same distinguished name, another key.
    let mut params = CertificateParams::default();
    let name = ours.certificate().subject.trim_start_matches("CN=").to_owned();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    let issuer = Issuer::new(params, KeyPair::generate().unwrap());
    let mut params = CertificateParams::default();
    params.subject_alt_names = vec![uri("spiffe://guantong.local/node/220822101000")];
    let key = KeyPair::generate().unwrap();
    let forged = params.signed_by(&key, &issuer).unwrap();
    let stranger = Stranger::trusting(ours.certificate_pem()).with(&forged.pem(), &key.serialize_pem());
    let told = stranger.knock(server.address).await;
    assert_eq!(Trouble::of_io(&told), Trouble::Ours(Fault::UnknownAuthority));
    assert_eq!(server.acceptor.refused_count(), 2);
}

#[tokio::test]
async fn a_certificate_without_one_identity_of_ours_is_refused() {
    let world = World::new();
    let server = Server::start(world.node(COUNTY)).await;
    let authority = world.authority.authority();
    for names in [
        vec![],
        vec![SanType::DnsName("guantong.local".try_into().unwrap())],
        vec![uri("spiffe://guantong.local/node/220822101001")],
        vec![uri("https://guantong.local/node/220822101000")],
        vec![uri("spiffe://other.example/node/220822101000")],
        vec![
            uri("spiffe://guantong.local/node/220822101000"),
            uri("spiffe://guantong.local/node/220822102000"),
        ],
    ] {
        let (certificate, key) = forge(authority, names.clone());
        let stranger = Stranger::trusting(authority.certificate_pem()).with(&certificate, &key);
        let told = Trouble::of_io(&stranger.knock(server.address).await);
        assert!(matches!(told, Trouble::Ours(Fault::Identity(_))), "{names:?}: {told:?}");
    }
    let refused = server.acceptor.recent_refusals();
    assert!(refused.iter().all(|refusal| matches!(refusal.trouble, Trouble::Theirs(Fault::Identity(_)))));
    assert_eq!(server.acceptor.refused_count(), 6);
}

#[tokio::test]
async fn an_older_tls_is_refused() {
    let world = World::new();
    let server = Server::start(world.node(COUNTY)).await;
    let authority = world.authority.authority();
    let issued = authority.issue(&Request::new(node(TOWNSHIP), Validity::days(1))).unwrap();
    let mut stranger = Stranger::trusting(authority.certificate_pem()).with_issued(&issued);
    stranger.versions = vec![&rustls::version::TLS12];
    let told = stranger.knock(server.address).await;
    assert_eq!(Trouble::of_io(&told), Trouble::NoCommonTls);
    assert_eq!(refusal(&server).await, Trouble::NoCommonTls);
}

#[tokio::test]
async fn noise_on_the_port_disturbs_nobody() {
    let world = World::new();
    let (county, township) = (world.node(COUNTY), world.node(TOWNSHIP));
    let server = Server::start(county).await;
    let dialed = server.dial(&township, ExpectedPeer::AnyNode).await.unwrap();
    for noise in
        [b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(), vec![0xff; 100_000], vec![0x16, 3, 1, 0xff, 0xff]]
    {
        let mut tcp = TcpStream::connect(server.address).await.unwrap();
        // The server may hang up in the middle of it.
        let _ = tcp.write_all(&noise).await;
        let _ = tcp.shutdown().await;
        let _ = tcp.read_to_end(&mut Vec::new()).await;
        ask(&dialed).await.unwrap();
    }
    assert_eq!(refusal(&server).await, Trouble::NotTls);
    server.dial(&township, ExpectedPeer::AnyNode).await.unwrap();
}

#[tokio::test]
async fn silence_takes_a_place_only_for_a_while() {
    let world = World::new();
    let (county, township) = (world.node(COUNTY), world.node(TOWNSHIP));
    let limits =
        AcceptLimits { handshakes: 2, handshake_time: Duration::from_millis(50), ..AcceptLimits::default() };
    let server = Server::start_with(county, limits).await;
    let mut silent = Vec::new();
    for _ in 0..5 {
        silent.push(TcpStream::connect(server.address).await.unwrap());
    }
    let dialed = server.dial(&township, ExpectedPeer::AnyNode).await.unwrap();
    ask(&dialed).await.unwrap();
    for mut tcp in silent {
        assert_eq!(tcp.read(&mut [0; 1]).await.unwrap(), 0);
    }
    let refusals = server.acceptor.recent_refusals();
    assert_eq!((refusals.len(), &refusals[0].trouble, refusals[0].count), (1, &Trouble::Silent, 5));
}

/// Waits until the server has noted this refusal.
async fn noted(server: &Server, trouble: Trouble) {
    let has = || server.acceptor.recent_refusals().iter().any(|refusal| refusal.trouble == trouble);
    until(&format!("a refusal of {trouble:?}"), has).await;
}

#[tokio::test]
async fn handshakes_of_one_address_leave_room_for_others() {
    let world = World::new();
    let (county, township) = (world.node(COUNTY), world.node(TOWNSHIP));
    let limits = AcceptLimits { handshakes_per_address: 2, ..AcceptLimits::default() };
    let server = Server::start_with(county, limits).await;
    let silent = [
        TcpStream::connect(server.address).await.unwrap(),
        TcpStream::connect(server.address).await.unwrap(),
    ];
    let mut third = TcpStream::connect(server.address).await.unwrap();
    assert_eq!(third.read(&mut [0; 1]).await.unwrap_or(0), 0, "it is closed at once");
    noted(&server, Trouble::Crowded(Crowd::Handshakes)).await;
    drop(silent);
    until_let_in(&server, &township).await;
}

/// Waits until a place is free again, and holds it.
async fn until_let_in(server: &Server, from: &IdentityStore) -> Dialed {
    let waiting = async {
        loop {
            if let Ok(dialed) = server.dial(from, ExpectedPeer::AnyNode).await
                && ask(&dialed).await.is_ok()
            {
                return dialed;
            }
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.expect("a place is free")
}

#[tokio::test]
async fn an_identity_an_address_and_all_have_so_many_connections() {
    let world = World::new();
    let (county, township) = (world.node(COUNTY), world.node(TOWNSHIP));
    let request = Request::new(Subject::partner("hotline").unwrap(), Validity::days(5));
    let partner = world.issue(&request, "partner");
    let usual = AcceptLimits::default();
    for (limits, crowd) in [
        (AcceptLimits { connections_per_identity: 1, ..usual }, Crowd::Identity),
        (AcceptLimits { connections_per_address: 1, ..usual }, Crowd::Address),
        (AcceptLimits { connections: 1, ..usual }, Crowd::Connections),
    ] {
        let server = Server::start_with(county.clone(), limits).await;
        let first = until_let_in(&server, &township).await;
        if let Ok(second) = server.dial(&township, ExpectedPeer::AnyNode).await {
            ask(&second).await.unwrap_err();
        }
        noted(&server, Trouble::Crowded(crowd)).await;
        ask(&first).await.unwrap();
        if crowd == Crowd::Identity {
            until_let_in(&server, &partner).await;
        }
        drop(first);
        until_let_in(&server, &township).await;
    }
}

#[tokio::test]
async fn only_http2_is_spoken() {
    let world = World::new();
    let server = Server::start(world.node(COUNTY)).await;
    let authority = world.authority.authority();
    let issued = authority.issue(&Request::new(node(TOWNSHIP), Validity::days(1))).unwrap();
    for protocols in [vec![], vec![b"http/1.1".to_vec()]] {
        let stranger = Stranger::trusting(authority.certificate_pem()).with_issued(&issued);
        Stranger { protocols, ..stranger }.knock(server.address).await;
    }
    until("both were refused", || server.acceptor.refused_count() == 2).await;
    let refusals = server.acceptor.recent_refusals();
    assert!(refusals.iter().all(|refusal| refusal.trouble == Trouble::NotHttp2), "{refusals:?}");
    assert!(server.acceptor.peers().is_empty());
}

#[tokio::test]
async fn a_cut_ends_one_connection_and_says_why() {
    let world = World::new();
    let (county, township) = (world.node(COUNTY), world.node(TOWNSHIP));
    let server = Server::start(county).await;
    let first = server.dial(&township, ExpectedPeer::AnyNode).await.unwrap();
    let second = server.dial(&township, ExpectedPeer::AnyNode).await.unwrap();
    ask(&first).await.unwrap();
    let caller = server.callers.lock().unwrap()[0].clone();
    caller.cut("a test");
    until("the far end notices", || first.peer.ended().is_some()).await;
    assert_eq!(caller.ended(), Some(Trouble::Cut("a test")));
    ask(&second).await.unwrap();
    // The channel stays ended; it does not dial by itself.
    ask(&first).await.unwrap_err();
    until("one is left", || server.acceptor.peers().len() == 1).await;
}

#[tokio::test]
async fn no_session_can_be_resumed() {
    let world = World::new();
    let (county, township) = (world.node(COUNTY), world.node(TOWNSHIP));
    let server = Server::start(county).await;
    // A client that would resume if it could.
    let mut config = township.current().client_config().as_ref().clone();
    config.resumption = rustls::client::Resumption::in_memory_sessions(8);
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    for _ in 0..3 {
        let tcp = TcpStream::connect(server.address).await.unwrap();
        let name = rustls::pki_types::ServerName::try_from("127.0.0.1").unwrap();
        let mut stream = connector.connect(name, tcp).await.unwrap();
        stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
        // Tickets would come before the server's first word.
        stream.read_exact(&mut [0; 9]).await.unwrap();
        let session = stream.get_ref().1;
        assert_eq!(session.handshake_kind(), Some(rustls::HandshakeKind::Full));
        assert_eq!(session.tls13_tickets_received(), 0);
    }
}
