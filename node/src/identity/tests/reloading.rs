//! Certificates and lists are replaced while connections stay up, and never by worse ones.

use super::*;
use crate::identity::revocation::RevocationError;
use crate::identity::tls::IdentityError;
use crate::identity::words::{Fault, Trouble};

#[tokio::test]
async fn a_new_certificate_serves_new_connections_and_leaves_the_open_ones() {
    let world = World::new();
    let (county, township) = (world.node(COUNTY), world.node(TOWNSHIP));
    let server = Server::start(county.clone()).await;
    let before = server.dial(&township, ExpectedPeer::Node(division(COUNTY))).await.unwrap();
    ask(&before).await.unwrap();

    let request = Request::new(node(COUNTY), Validity::days(6)).host("127.0.0.1").unwrap();
    let (issued, _) = world.authority.issue(&request, &world.path(COUNTY), true).unwrap();
    county.reload().unwrap();
    let after = server.dial(&township, ExpectedPeer::Node(division(COUNTY))).await.unwrap();
    assert_eq!(*after.peer.serial, issued.serial);
    assert_ne!(before.peer.serial, after.peer.serial);
    assert_eq!(server.acceptor.recheck(), 0);
    ask(&before).await.unwrap();
    assert_eq!(before.peer.ended(), None);
}

#[tokio::test]
async fn a_revoked_peer_is_cut_and_stays_out() {
    let world = World::new();
    let (county, township) = (world.node(COUNTY), world.node(TOWNSHIP));
    let other = world.node("220822102000");
    let server = Server::start(county.clone()).await;
    let dialed = server.dial(&township, ExpectedPeer::AnyNode).await.unwrap();
    let bystander = server.dial(&other, ExpectedPeer::AnyNode).await.unwrap();
    ask(&dialed).await.unwrap();
    let caller = server.callers.lock().unwrap()[0].clone();

    let revoked = world.authority.revoke("node/220822101000").unwrap();
    assert_eq!(revoked[0].serial, *caller.serial);
    world.hand_out_list(COUNTY);
    county.reload().unwrap();
    until("the connection is cut", || caller.ended().is_some()).await;
    assert_eq!(caller.ended(), Some(Trouble::Cut("the peer's certificate was revoked")));
    until("the far end notices", || dialed.peer.ended().is_some()).await;
    let error = server.dial(&township, ExpectedPeer::AnyNode).await.unwrap_err();
    assert_eq!(error.code(), "revoked");
    assert_eq!(server.acceptor.recent_refusals()[0].trouble, Trouble::Theirs(Fault::Revoked));
    ask(&bystander).await.unwrap();

    // The revoked node sees it by itself once it has the list.
    world.hand_out_list(TOWNSHIP);
    assert!(matches!(township.reload(), Err(IdentityError::Revoked)));
    // A dialled server is checked the same way.
    let identity = other.current();
    assert_eq!(identity.check_peer(&bystander.peer), Ok(()));
}

#[tokio::test]
async fn a_replacement_that_is_worse_is_refused() {
    let world = World::new();
    let county = world.node(COUNTY);
    let serial = county.current().certificate().serial.clone();
    let path = |name: &str| world.path(COUNTY).join(name);
    let authority = world.authority.authority();
    let current = || county.current().certificate().serial.clone();
    let number = county.current().revocation_lists()[0].number().unwrap();

    let older = authority.revocation_list(&[], number - 1, Validity::days(1)).unwrap();
    std::fs::write(path("revocations.pem"), older).unwrap();
    let error = county.reload().unwrap_err();
    assert!(matches!(error, IdentityError::Revocations(RevocationError::Older(_))), "{error}");

    let late = authority.revocation_list(&[], number + 1, between(-3, -1)).unwrap();
    std::fs::write(path("revocations.pem"), late).unwrap();
    let error = county.reload().unwrap_err();
    assert!(matches!(error, IdentityError::Revocations(RevocationError::Late(_))), "{error}");

    world.hand_out_list(COUNTY);
    county.reload().unwrap();

    let key = std::fs::read(path("key.pem")).unwrap();
    std::fs::write(path("key.pem"), "half a ke").unwrap();
    assert!(matches!(county.reload(), Err(IdentityError::NoKey)));
    std::fs::write(path("key.pem"), key).unwrap();
    county.reload().unwrap();

    let request = Request::new(node(TOWNSHIP), Validity::days(5));
    world.authority.issue(&request, &world.path(COUNTY), true).unwrap();
    assert!(matches!(county.reload(), Err(IdentityError::AnotherIdentity { .. })));
    assert_eq!(current(), serial);
}
