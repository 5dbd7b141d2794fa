//! A root replaced by a new one: who knows only the old one goes on, and after its end nobody trusts it. Days go by as
//! arguments: what is long over was made with dates in the past.

use super::*;
use crate::identity::pki::dir::DirError;
use crate::identity::pki::{Below, PkiError};
use crate::identity::tls::IdentityError;
use crate::identity::words::{Fault, Trouble};

fn open(world: &World, name: &str) -> Arc<IdentityStore> {
    Arc::new(IdentityStore::open(IdentityFiles::in_dir(&world.path(name))).unwrap())
}

fn reissue(root: &AuthorityDir, world: &World, code: &str) {
    let request = Request::new(node(code), Validity::days(5)).host("127.0.0.1").unwrap();
    root.issue(&request, &world.path(code), true).unwrap();
}

#[tokio::test]
async fn a_node_that_was_away_finds_back_to_a_parent_of_the_new_root() {
    let world = World::new();
    let township = world.node(TOWNSHIP);
    let (county, sister) = (world.node(COUNTY), world.node("220822102000"));
    let before = world.authority.authority().certificate().clone();
    let new = world.authority.rotate(Validity::days(30)).unwrap();
    assert_ne!(new.authority().certificate().serial, before.serial);
    assert_eq!(new.previous().unwrap().unwrap().authority().certificate(), &before);
    assert!(matches!(new.rotate(Validity::days(30)), Err(DirError::Rotating(_))));

    // The county gets a certificate of the new root while it runs; the township has not heard of any of it.
    reissue(&new, &world, COUNTY);
    county.reload().unwrap();
    let server = Server::start(county.clone()).await;
    let dialed = server.dial(&township, ExpectedPeer::Node(division(COUNTY))).await.unwrap();
    ask(&dialed).await.unwrap();
    assert_eq!(township.current().check_dialed(&dialed.peer), Ok(()));

    // The other way about: a gateway that knows only the old root lets in those of the new one as soon as it has the
    // lists, with which the new root comes, signed by the old one.
    reissue(&new, &world, TOWNSHIP);
    let renewed = open(&world, TOWNSHIP);
    let old = Server::start(sister.clone()).await;
    let error = old.dial(&renewed, ExpectedPeer::AnyNode).await.unwrap_err();
    assert_eq!(error.code(), "unknown_authority");
    let noted = Trouble::Theirs(Fault::RevocationUnknown);
    until("the refusal is noted", || old.acceptor.recent_refusals().iter().any(|it| it.trouble == noted))
        .await;
    world.hand_out_list("220822102000");
    sister.reload().unwrap();
    ask(&old.dial(&renewed, ExpectedPeer::AnyNode).await.unwrap()).await.unwrap();
}

#[tokio::test]
async fn what_the_old_root_signed_is_renewed_and_revoked_by_the_new_one() {
    let world = World::new();
    let (county, township) = (world.node(COUNTY), world.node(TOWNSHIP));
    let operator = Request::new(Subject::operator("li").unwrap(), Validity::days(5));
    let operator = world.issue(&operator, "li");
    let new = world.authority.rotate(Validity::days(30)).unwrap();
    let file = world.path(TOWNSHIP).join("certificate.pem");
    let old = std::fs::read_to_string(&file).unwrap();
    let (renewed, _) = new.renew(&old, Validity::days(20), &world.path(TOWNSHIP)).unwrap();
    assert!(matches!(&renewed.signed, Below::Holder(signed) if signed.id == *township.current().id()));
    assert_eq!(renewed.old_serial, township.current().certificate().serial);
    township.reload().unwrap();
    assert_eq!(township.current().certificate().issuer, new.authority().certificate().subject);

    // One that the old root signed and that is not renewed is still in the record, and can be revoked.
    new.export(&world.path(COUNTY), true).unwrap();
    county.reload().unwrap();
    let server = Server::start(county.clone()).await;
    for holder in [&township, &operator] {
        ask(&server.dial(holder, ExpectedPeer::AnyNode).await.unwrap()).await.unwrap();
    }
    new.revoke("operator/li").unwrap();
    assert!(matches!(new.revoke("operator/li"), Err(DirError::Unknown(_))));
    new.export(&world.path(COUNTY), false).unwrap();
    county.reload().unwrap();
    assert_eq!(server.dial(&operator, ExpectedPeer::AnyNode).await.unwrap_err().code(), "revoked");
    ask(&server.dial(&township, ExpectedPeer::AnyNode).await.unwrap()).await.unwrap();
    // A certificate of another key is not written over, nor is one renewed that is revoked or of another root.
    let foreign = other_authority().issue(&Request::new(node(TOWNSHIP), Validity::days(1))).unwrap();
    let in_the_way = new.renew(&old, Validity::days(1), &world.path(COUNTY));
    assert!(matches!(in_the_way, Err(DirError::Exists(_))));
    let revoked = std::fs::read_to_string(world.path("li").join("certificate.pem")).unwrap();
    for other in [&foreign.certificate_pem, &revoked] {
        let refused = new.renew(other, Validity::days(1), &world.path("other"));
        assert!(matches!(refused, Err(DirError::Unknown(_))), "{refused:?}");
    }
}

#[tokio::test]
async fn after_the_end_of_the_old_root_only_the_new_one_counts() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path().join("authority");
    let old = AuthorityDir::create(&at, trust_domain(), between(-20, -1), false).unwrap();
    let world = World { dir, authority: old };
    let old_roots = world.authority.authority().trusted_pem().to_owned();
    let old_lists = world.authority.revocations().unwrap();
    let new = world.authority.rotate(between(-5, 20)).unwrap();
    assert!(new.previous().unwrap().is_none(), "nothing is left to revoke");
    assert_eq!(AuthorityDir::open(&at).unwrap().authority().trusted_pem().matches("BEGIN").count(), 1);
    for code in [COUNTY, TOWNSHIP] {
        reissue(&new, &world, code);
    }
    // Both nodes still have the old root in their files, and its list.
    for code in [COUNTY, TOWNSHIP] {
        append(&world.path(code).join("authority.pem"), &old_roots);
        let lists = world.path(code).join("revocations.pem");
        append(&lists, &old_lists);
        let text = crate::identity::revocation::merge([std::fs::read_to_string(&lists).unwrap().as_str()]);
        std::fs::write(&lists, text).unwrap();
    }
    let (county, township) = (open(&world, COUNTY), open(&world, TOWNSHIP));
    assert!(county.current().warnings().iter().any(|words| words.en.contains("no longer trusted")));
    let server = Server::start(county).await;
    let dialed = server.dial(&township, ExpectedPeer::Node(division(COUNTY))).await.unwrap();
    ask(&dialed).await.unwrap();

    // Who holds the key of the old root makes nobody any more, whatever dates he writes.
    let issuer = KeyPair::from_pem(&world.authority.authority().key_pem()).unwrap();
    let issuer = Issuer::from_ca_cert_pem(&old_roots, issuer).unwrap();
    let mut params = CertificateParams::default();
    params.subject_alt_names = vec![uri("spiffe://guantong.local/node/220822101000")];
    let key = KeyPair::generate().unwrap();
    let late = params.signed_by(&key, &issuer).unwrap().pem();
    let roots = new.authority().trusted_pem();
    Stranger::trusting(roots).with(&late, &key.serialize_pem()).knock(server.address).await;
    let noted = Trouble::Theirs(Fault::AuthorityOutOfDate);
    until("the refusal is noted", || server.acceptor.recent_refusals().iter().any(|it| it.trouble == noted))
        .await;
}

#[test]
fn only_roots_are_replaced_and_those_below_move_over() {
    let world = World::new();
    let below = world
        .authority
        .issue_authority(division("2208"), Validity::days(3), &world.path("below"), false)
        .unwrap();
    assert!(matches!(below.rotate(Validity::days(3)), Err(DirError::Pki(PkiError::NotARoot))));
    let new = world.authority.rotate(Validity::days(30)).unwrap();
    // The authority below takes over roots and lists, and goes on; then its certificate is renewed, key and name stay.
    let export = world.path("export");
    new.export(&export, false).unwrap();
    let read = |name: &str| std::fs::read_to_string(export.join(name)).unwrap();
    below.take_over(&read("authority.pem"), &read("revocations.pem")).unwrap();
    let request = Request::new(node(COUNTY), Validity::days(2));
    below.issue(&request, &world.path("a"), false).unwrap();
    assert_eq!(open(&world, "a").current().revocation_lists().len(), 3);
    let (_, files) =
        new.renew(below.authority().certificate_pem(), Validity::days(20), &world.path("below")).unwrap();
    assert_eq!(files.len(), 3);
    let moved = AuthorityDir::open(&world.path("below")).unwrap();
    assert_eq!(moved.authority().certificate().subject, below.authority().certificate().subject);
    assert_eq!(moved.authority().certificate().issuer, new.authority().certificate().subject);
    moved.issue(&request, &world.path("b"), false).unwrap();
    let identity = open(&world, "b").current();
    assert_eq!((identity.revocation_lists().len(), identity.warnings().len()), (3, 1), "it ends soon");
    // The roots of others are not taken over.
    let other = other_authority();
    let foreign = other.revocation_list(&[], 1, Validity::days(1)).unwrap();
    let refused = moved.take_over(other.trusted_pem(), &foreign);
    assert!(matches!(refused, Err(DirError::Above(_))), "{refused:?}");
    let itself = new.take_over(other.trusted_pem(), &foreign);
    assert!(matches!(itself, Err(DirError::Above(_))));
    // Nor does a certificate load that comes from another root than the files say.
    let mixed =
        IdentityFiles { authority: export.join("other.pem"), ..IdentityFiles::in_dir(&world.path("b")) };
    std::fs::write(&mixed.authority, other.trusted_pem()).unwrap();
    assert!(matches!(IdentityStore::open(mixed), Err(IdentityError::Revocations(_))));
}

fn copy_dir(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_dir(&entry.path(), &to);
        } else {
            std::fs::copy(entry.path(), to).unwrap();
        }
    }
}

/// What an authority is to everyone: its certificate, roots, lists, what it issued, and the root before it.
fn told(dir: &AuthorityDir) -> (String, [String; 2], Vec<String>, Option<String>) {
    let texts = dir.public_files().map(|path| std::fs::read_to_string(path).unwrap());
    let issued = dir.issued().unwrap().into_iter().map(|entry| entry.serial).collect();
    let previous = dir.previous().unwrap().map(|previous| previous.authority().certificate().serial.clone());
    (dir.authority().certificate().serial.clone(), texts, issued, previous)
}

/// Wherever a crash interrupts it, the root is the old one and can be replaced, or the new one with all that belongs to
/// it. Nobody has to put files back.
#[test]
fn a_replacement_that_is_interrupted_is_made_again_or_finished() {
    let world = World::new();
    world.node(TOWNSHIP);
    let root = world.authority.dir().to_owned();
    let (old, before) = (world.path("before"), told(&world.authority));
    copy_dir(&root, &old);
    let after = told(&world.authority.rotate(Validity::days(30)).unwrap());
    assert_eq!((after.3.as_ref(), before.3.as_ref()), (Some(&before.0), None));

    let made = world.path("unfinished");
    copy_dir(&old, &made);
    std::fs::create_dir(made.join("rotation.new")).unwrap();
    std::fs::write(made.join("rotation.new/authority.key"), "half of a k").unwrap();
    let opened = AuthorityDir::open(&made).unwrap();
    assert_eq!(told(&opened), before);
    assert_eq!(told(&opened.rotate(Validity::days(30)).unwrap()).3, Some(before.0));

    let names =
        ["previous", "authority.key", "authority.pem", "authorities.pem", "issued.jsonl", "revocations.pem"];
    for step in 0..=names.len() {
        let dir = world.path(&format!("step-{step}"));
        copy_dir(&old, &dir);
        copy_dir(&root, &dir.join("rotation"));
        for name in &names[..step] {
            std::fs::rename(dir.join("rotation").join(name), dir.join(name)).unwrap();
        }
        assert_eq!(told(&AuthorityDir::open(&dir).unwrap()), after, "after step {step}");
        assert!(!dir.join("rotation").exists());
    }
}
