//! Days offline, with real nodes: while a node is switched off its province gets a new root, its county's revocation
//! list is replaced and its own certificate runs out. Nobody touches it, and it links again; also after the old root's
//! end, if it has heard of the new one before.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::path::{Path, PathBuf};

use guantong::identity::Subject;
use guantong::identity::pki::dir::AuthorityDir;
use guantong::identity::pki::{Request, Validity};
use guantong::identity::revocation::revokes;
use guantong_tests::harness::land::{
    Land, certificate, days, later, link, linked, replace_certificate, serve, serve_in, with_authority,
    with_parent,
};
use guantong_tests::harness::{found, run, until};

const PREFECTURE: &str = "2208";
const COUNTY: &str = "220822";
const TOWNSHIP: &str = "220822101";
const NEVER_BACK: &str = "220822102";
/// The old root ends in twenty days; then it is later.
const OLD_ROOT_DAYS: i64 = 20;
const LATER: &str = "+40d";
/// What expires while the old root is still trusted, and before it was made.
const SPENT: (i64, i64) = (-240, -60);

/// How many roots a node trusts by its file.
fn roots(dir: &Path) -> usize {
    std::fs::read_to_string(dir.join("authority.pem")).unwrap().matches("BEGIN CERTIFICATE").count()
}

fn revoked(dir: &Path, serial: &str) -> bool {
    revokes(&std::fs::read_to_string(dir.join("revocations.pem")).unwrap(), serial)
}

/// The certificate and the key of a node, to be put back later.
fn kept(dir: &Path) -> [(PathBuf, Vec<u8>); 2] {
    ["certificate.pem", "key.pem"].map(|name| (dir.join(name), std::fs::read(dir.join(name)).unwrap()))
}

struct Tree {
    land: Land,
    county_authority: AuthorityDir,
    /// The folders of prefecture, county and the two townships.
    prefecture: PathBuf,
    county: PathBuf,
    township: PathBuf,
    never_back: PathBuf,
}

impl Tree {
    fn new() -> Tree {
        let land = Land::new(days(-400, OLD_ROOT_DAYS));
        let county_authority = land.authority(COUNTY, days(-400, OLD_ROOT_DAYS));
        let now = || days(-10, OLD_ROOT_DAYS);
        let (prefecture, at) = land.node(&land.root, PREFECTURE, now(), &with_authority(&land.path("root")));
        let more = with_parent(PREFECTURE, &at) + &with_authority(county_authority.dir());
        let (county, at) = land.node(&land.root, COUNTY, now(), &more);
        let below = |code| land.node(&county_authority, code, now(), &with_parent(COUNTY, &at)).0;
        let (township, never_back) = (below(TOWNSHIP), below(NEVER_BACK));
        Tree { land, county_authority, prefecture, county, township, never_back }
    }

    /// A new root beside the old one, by the command; then it certifies what stands below it.
    async fn rotate(&mut self) {
        let root = self.land.path("root");
        let rotate = ["pki", "rotate", "--dir", root.to_str().unwrap(), "--days", "400"];
        run(&rotate).await.exits(0).shows(&["goes on beside it"]);
        until("the county trusts both roots", async || roots(&self.county) == 2).await;
        self.land.root = AuthorityDir::open(&root).unwrap();
        let root = &self.land.root;
        let (roots, lists) = (root.authority().trusted_pem(), root.revocations().unwrap());
        self.county_authority.take_over(roots, &lists).unwrap();
        let old = self.county_authority.authority().certificate_pem().to_owned();
        self.land.root.renew(&old, Validity::days(300), self.county_authority.dir()).unwrap();
        self.county_authority = AuthorityDir::open(self.county_authority.dir()).unwrap();
        for (code, dir) in [(PREFECTURE, &self.prefecture), (COUNTY, &self.county)] {
            replace_certificate(&self.land.root, dir, code, days(-1, 200));
            let new = &self.land.root.authority().certificate().subject;
            assert_eq!(certificate(dir).issuer, *new);
        }
    }

    /// The county revokes somebody; gives the serial number.
    fn revoke(&self) -> String {
        let operator = Request::new(Subject::operator("li").unwrap(), Validity::days(5));
        let (issued, _) = self.county_authority.issue(&operator, &self.land.path("li"), false).unwrap();
        self.county_authority.revoke("operator/li").unwrap();
        issued.serial
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn roots_and_lists_change_while_a_node_is_away_with_a_certificate_that_runs_out() {
    let mut tree = Tree::new();
    let mut running = [serve(&tree.prefecture), serve(&tree.county)];
    linked(&running[1].client().await, PREFECTURE).await;
    let mut township = serve(&tree.township);
    linked(&township.client().await, COUNTY).await;
    township.kill().await;
    // What it will have to show: run out long ago, or soon; both of the old root.
    let (from, to) = SPENT;
    replace_certificate(&tree.county_authority, &tree.township, TOWNSHIP, days(-30, 5));
    let soon = kept(&tree.township);
    let spent = replace_certificate(&tree.county_authority, &tree.township, TOWNSHIP, days(from, to));

    tree.rotate().await;
    for node in running {
        node.kill().await;
    }
    let serial = tree.revoke();
    let mut running = [serve(&tree.prefecture), serve(&tree.county)];
    linked(&running[1].client().await, PREFECTURE).await;
    assert_eq!(roots(&tree.township), 1, "nobody has touched it");
    let mut township = serve(&tree.township);
    linked(&township.client().await, COUNTY).await;
    assert_ne!(certificate(&tree.township).serial, spent, "it was renewed");
    until("it trusts both roots", async || roots(&tree.township) == 2).await;
    until("it knows what was revoked", async || revoked(&tree.township, &serial)).await;
    township.kill().await;
    for node in running {
        node.kill().await;
    }

    // Forty days later the old root has ended, and with it all that it had signed.
    let Some(later) = later(LATER) else { return };
    soon.into_iter().for_each(|(path, bytes)| std::fs::write(path, bytes).unwrap());
    let spent = certificate(&tree.township).serial;
    let mut running = [serve_in(&tree.prefecture, &later), serve_in(&tree.county, &later)];
    linked(&running[1].client().await, PREFECTURE).await;
    let mut township = serve_in(&tree.township, &later);
    linked(&township.client().await, COUNTY).await;
    assert_ne!(certificate(&tree.township).serial, spent, "it was renewed");

    // Who never heard of the new root trusts nobody any more, says so, and is invited again.
    let mut never_back = serve_in(&tree.never_back, &later);
    let client = never_back.client().await;
    let told = found("it says that it must be invited again", async || {
        link(&client, COUNTY).await.filter(|link| link.last_error.contains("guantong invite"))
    })
    .await;
    assert!(!told.connected && roots(&tree.never_back) == 1, "{told:?}");
}
