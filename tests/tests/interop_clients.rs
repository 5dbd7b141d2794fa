//! Partners' clients in other languages, made only from the `.proto` files, against real nodes over mutual TLS: the
//! stories of `tests/interop` in Python and Node.js. What they show is the documentation for partners.
//!
//! They need `tests/interop.sh` once. Without it they say `NOT RUN`, which `tests/run` takes for a failure.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use guantong::demo::tree::NodeSpec;
use guantong_proto::v1;
use guantong_tests::harness::{Fleet, division, run, until};
use tokio::process::Command;

const PREFECTURE: &str = "220800";
const COUNTY: &str = "220822";
const TOWNSHIP: &str = "220822101";
/// For all stories of one language. Alone on a quiet machine they take a few seconds.
const LIMIT: Duration = Duration::from_secs(300);

/// The folder of the clients.
fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("interop")
}

/// Where `tests/interop.sh` keeps what the clients of a language need; none if that was not done for `made_from`.
fn prepared(language: &str, made_from: &str) -> Option<PathBuf> {
    let tests = std::env::current_exe().unwrap();
    // target/{profile}/deps/{this}
    let tools = tests.ancestors().nth(3).unwrap().join("tools/interop").join(language);
    let wanted = std::fs::read(sources().join(language).join(made_from)).unwrap();
    if std::fs::read(tools.join(made_from)).is_ok_and(|made| made == wanted) {
        return Some(tools);
    }
    let text = format!(
        "the clients in {language} are not prepared ({}); run tests/interop.sh, with the same CARGO_TARGET_DIR",
        tools.display()
    );
    // Past the test harness, which keeps to itself what a test prints that did not fail.
    std::io::stderr().write_all(format!("\nNOT RUN: {text}\n").as_bytes()).unwrap();
    None
}

/// A prefecture, a county and a township, and the certificates of those who call, each in a folder of its own.
struct Scene {
    fleet: Fleet,
}

impl Scene {
    async fn set() -> Scene {
        let (prefecture, county) = (division(PREFECTURE), division(COUNTY));
        let fleet = Fleet::start([
            NodeSpec::top(prefecture),
            NodeSpec::below(prefecture, county),
            NodeSpec::below(county, division(TOWNSHIP)).cuttable(),
        ])
        .await;
        let scene = Scene { fleet };
        for partner in ["hotline-12345", "court-system", "camera-maker", "data-centre", "stranger"] {
            scene.issue("partner", partner).await;
        }
        scene.issue("operator", "county-desk").await;
        let hotline = ["--scope", COUNTY, "--kind", "case", "--level", "write", "--personal-data"];
        scene.grant(COUNTY, "hotline-12345", &hotline).await;
        let court = ["--scope", COUNTY, "--kind", "case", "--level", "write", "--unit", "court"];
        scene.grant(COUNTY, "court-system", &court).await;
        scene
            .grant(COUNTY, "camera-maker", &["--scope", TOWNSHIP, "--kind", "camera", "--level", "write"])
            .await;
        scene.grant(PREFECTURE, "data-centre", &["--scope", PREFECTURE, "--level", "aggregates"]).await;
        scene
    }

    /// The township and the county write the same field while the line between them is cut.
    async fn two_minds(&mut self) {
        let township = division(TOWNSHIP);
        let name = format!("divisions/{township}/cases/two-minds");
        let risk = |risk: v1::CaseRisk| v1::Case { risk: Some(risk.into()), ..v1::Case::default() };
        let fleet = &mut self.fleet;
        fleet.write(TOWNSHIP, &name, &risk(v1::CaseRisk::Blue)).await.unwrap();
        until("the county has the case", async || fleet.record(COUNTY, &name).await.is_some()).await;
        fleet.tree.cut(township);
        until("both know that the line is cut", async || {
            let (up, down) = (fleet.link(TOWNSHIP, COUNTY).await, fleet.link(COUNTY, TOWNSHIP).await);
            up.is_some_and(|link| !link.connected) && down.is_some_and(|link| !link.connected)
        })
        .await;
        fleet.write(TOWNSHIP, &name, &risk(v1::CaseRisk::Green)).await.unwrap();
        fleet.write(COUNTY, &name, &risk(v1::CaseRisk::Red)).await.unwrap();
        fleet.tree.mend(township);
        until("the county sees both", async || {
            fleet.record(COUNTY, &name).await.is_some_and(|record| !record.conflicting_fields.is_empty())
        })
        .await;
    }

    async fn issue(&self, role: &str, name: &str) {
        let authority = self.fleet.path("authority");
        let out = self.fleet.path(name);
        let (authority, out) = (authority.to_str().unwrap(), out.to_str().unwrap());
        run(&["pki", "issue", role, name, "--dir", authority, "--out", out]).await.exits(0);
    }

    async fn grant(&self, node: &str, partner: &str, grant: &[&str]) {
        let mut args = vec!["grant", "set", partner];
        args.extend(grant);
        self.fleet.cli(node, &args).await.exits(0);
    }

    /// The scene as the clients are told of it.
    fn arguments(&self) -> Vec<String> {
        let address = |code| self.fleet.tree.address(division(code)).unwrap();
        let folder = |name: &str| self.fleet.path(name).to_str().unwrap().to_owned();
        [
            ("--county", address(COUNTY)),
            ("--prefecture", address(PREFECTURE)),
            ("--hotline", folder("hotline-12345")),
            ("--court", folder("court-system")),
            ("--maker", folder("camera-maker")),
            ("--data-centre", folder("data-centre")),
            ("--stranger", folder("stranger")),
            ("--operator", folder("county-desk")),
        ]
        .into_iter()
        .flat_map(|(name, value)| [name.to_owned(), value])
        .collect()
    }

    /// Runs a client to its end, and wants it to have found everything as it should be.
    async fn plays(&self, mut client: Command) {
        client.args(self.arguments()).stdin(Stdio::null()).kill_on_drop(true);
        let running = tokio::time::timeout(LIMIT, client.output());
        let Output { status, stdout, stderr } = running.await.expect("the client does not end").unwrap();
        let (out, err) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
        assert!(status.success(), "{status}\n{out}\n{err}");
        println!("{out}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn partners_in_python() {
    let Some(tools) = prepared("python", "requirements.txt") else { return };
    let mut scene = Scene::set().await;
    scene.two_minds().await;
    let mut client = Command::new(tools.join("bin/python"));
    // Nothing is to be written beside the sources.
    client.arg("-B").arg(sources().join("python/run.py"));
    scene.plays(client).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn partners_in_node() {
    let Some(tools) = prepared("node", "package-lock.json") else { return };
    let scene = Scene::set().await;
    let mut client = Command::new("node");
    client.arg(sources().join("node/hotline_case.js")).env("NODE_PATH", tools.join("node_modules"));
    scene.plays(client).await;
}
