//! Bundles when something breaks in the middle, on real processes: nodes and commands killed at several moments, disks
//! that fill up. What was begun is done again safely: nothing is lost, nothing counts twice, and no half file is left
//! under the name that somebody will carry.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::path::{Path, PathBuf};
use std::process::Stdio;

use guantong::client::Client;
use guantong::demo::tree::NodeSpec;
use guantong::identity::Subject;
use guantong::identity::pki::Validity;
use guantong_proto::v1;
use guantong_proto::v1::bundle_service_client::BundleServiceClient;
use guantong_tests::harness::{
    Done, Fleet, Stray, division, found, program, run, stray_config, until, within, write,
};
use tokio::process::{Child, Command};
use tokio_stream::wrappers::ReceiverStream;

const COUNTY: &str = "220822";
const TOWNSHIP: &str = "220822101";
/// Cases of some 60 KB each: several batches, and more than a pipe holds.
const CASES: u32 = 60;
const PIECE_BYTES: usize = 64 * 1024;

/// A county that is served, and a township that exchanges with it by files only.
struct Apart {
    fleet: Fleet,
    township: Option<Stray>,
    dir: PathBuf,
    config: PathBuf,
}

impl Apart {
    async fn start() -> Apart {
        let fleet = Fleet::start([NodeSpec::top(division(COUNTY))]).await;
        let dir = fleet.issue("township", Subject::Node(division(TOWNSHIP)), Validity::days(30));
        let text = format!("division = \"{TOWNSHIP}\"\n[parent]\ndivision = \"{COUNTY}\"\nline = \"bundle\"");
        let config = stray_config(&dir, &text);
        let mut apart = Apart { fleet, township: None, dir, config };
        apart.serve_township(&[]).await;
        let card = apart.path("county.card");
        apart.county(&["bundle", "card", &card]).await.exits(0);
        apart.below(&["bundle", "accept", &card]).await.exits(0);
        apart
    }

    async fn serve_township(&mut self, environment: &[(&str, &str)]) -> Client {
        self.township.insert(Stray::start(&self.dir, &self.config, environment)).client().await
    }

    async fn kill_township(&mut self) {
        self.township.take().unwrap().kill().await;
    }

    /// Starts the county again, after it was killed or to give it a variable.
    async fn serve_county(&mut self, max_mib: Option<&str>) {
        let county = division(COUNTY);
        if self.fleet.tree.is_running(county) {
            self.fleet.tree.stop(county).await.unwrap();
        }
        self.fleet.tree.set_environment(county, "GUANTONG_STORE_MAX_MIB", max_mib).unwrap();
        self.fleet.tree.start(county).await.unwrap();
    }

    fn path(&self, name: &str) -> String {
        self.fleet.path(name).to_str().unwrap().to_owned()
    }

    async fn county(&self, args: &[&str]) -> Done {
        self.fleet.cli(COUNTY, args).await
    }

    async fn below(&self, args: &[&str]) -> Done {
        let mut all = args.to_vec();
        let socket = self.dir.join("sock");
        all.extend(["--socket", socket.to_str().unwrap()]);
        run(&all).await
    }

    /// Writes large cases at the township that do not get smaller by compression.
    async fn fill(&mut self, ids: std::ops::Range<u32>) {
        let client = self.township.as_mut().unwrap().client().await;
        for id in ids {
            let digest = |n: u32| blake3::hash(format!("{id} {n}").as_bytes()).to_hex().to_string();
            let narrative = (0..900).map(digest).collect::<String>();
            let case = v1::Case { case_kind: Some(1), narrative: Some(narrative), ..v1::Case::default() };
            write(&client, &name(id), &case).await.unwrap();
        }
    }

    /// Makes a bundle of everything.
    async fn export(&self, file: &str) {
        self.below(&["bundle", "export", "--for", COUNTY, file]).await.exits(0);
    }

    /// Everything is at the county, once; its receipt is taken in, and nothing is owed any more.
    async fn holds_all(&self, cases: u32) {
        for id in 0..cases {
            assert!(self.fleet.record(COUNTY, &name(id)).await.is_some(), "case {id} is lost");
        }
        self.county(&["recount"]).await.exits(0);
        let down = self.path("down.bundle");
        self.county(&["bundle", "export", "--for", TOWNSHIP, &down]).await.exits(0);
        self.below(&["bundle", "import", &down]).await.exits(0);
        let status = self.below(&["status", "--json"]).await.json();
        let link = &status["links"][0];
        for lane in ["urgent_backlog", "normal_backlog", "bulk_backlog"] {
            assert_eq!(link[lane].as_u64().unwrap_or(0), 0, "{link}");
        }
    }

    /// What stands in the folder of bundles beside the test's own files.
    fn unfinished(&self, folder: &str) -> Vec<String> {
        let files = std::fs::read_dir(self.fleet.path(folder)).unwrap();
        files.map(|file| file.unwrap().file_name().into_string().unwrap()).collect()
    }

    /// Starts a command at the township without waiting for it.
    fn begin(&self, args: &[&str]) -> Child {
        let socket = self.dir.join("sock");
        let mut command = Command::new(program());
        command.args(args).arg("--socket").arg(socket).stdout(Stdio::null()).stderr(Stdio::piped());
        command.stdin(Stdio::null()).kill_on_drop(true).spawn().unwrap()
    }
}

fn name(id: u32) -> String {
    format!("divisions/220822101000/cases/{id}")
}

/// Gives a file to a node until `stop` says so of its progress, batches of how many; false: it was taken in whole, or the
/// node is still busy with another.
async fn import_until(client: &Client, file: &str, stop: impl Fn(u64) -> bool) -> bool {
    let (send, pieces) = tokio::sync::mpsc::channel(1);
    let bytes = std::fs::read(file).unwrap();
    tokio::spawn(async move {
        for piece in bytes.chunks(PIECE_BYTES) {
            let chunk = piece.to_vec().into();
            if send.send(v1::ImportBundleRequest { chunk }).await.is_err() {
                return;
            }
        }
    });
    let mut bundles = BundleServiceClient::new(client.channel());
    let mut answers = match bundles.import_bundle(ReceiverStream::new(pieces)).await {
        Ok(answers) => answers.into_inner(),
        Err(status) if status.code() == tonic::Code::ResourceExhausted => return false,
        Err(status) => panic!("{status}"),
    };
    while let Ok(Some(answer)) = answers.message().await {
        if answer.done.is_some() {
            return false;
        }
        if stop(answer.batch_count) {
            return true;
        }
    }
    panic!("the node ended by itself")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_killed_while_it_takes_in_a_bundle_goes_on_where_it_was() {
    let mut apart = Apart::start().await;
    apart.fill(0..CASES).await;
    let up = apart.path("up.bundle");
    apart.export(&up).await;
    let county = division(COUNTY);
    for batches in 1..4 {
        let killed = import_until(&apart.fleet.client(COUNTY), &up, |done| done >= batches).await;
        assert!(killed, "there are more than {batches} batches");
        apart.fleet.tree.kill(county).await.unwrap();
        apart.serve_county(None).await;
        let status = apart.county(&["status", "--json"]).await.json();
        assert_ne!(status["links"][0]["bundles"]["received_number"], 1, "it is not whole yet");
    }
    let done = apart.county(&["bundle", "import", &up, "--json"]).await.exits(0).json();
    assert_ne!(done["bundle"]["repeated"], true, "what was left of it was done now");
    apart.county(&["bundle", "import", &up]).await.exits(0).shows(&["taken in before"]);
    apart.holds_all(CASES).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_that_is_killed_while_a_bundle_is_taken_in_does_no_harm() {
    let mut apart = Apart::start().await;
    apart.fill(0..CASES).await;
    let up = apart.path("up.bundle");
    apart.export(&up).await;
    // In the middle of the file: nothing of it was used.
    let bytes = std::fs::read(&up).unwrap();
    let (send, pieces) = tokio::sync::mpsc::channel(1);
    let client = apart.fleet.client(COUNTY);
    let mut bundles = BundleServiceClient::new(client.channel());
    let taking = bundles.import_bundle(ReceiverStream::new(pieces));
    let half = bytes[..PIECE_BYTES].to_vec().into();
    send.send(v1::ImportBundleRequest { chunk: half }).await.unwrap();
    drop(tokio::time::timeout(std::time::Duration::ZERO, taking).await);
    drop((send, bundles));
    assert!(apart.fleet.record(COUNTY, &name(0)).await.is_none());
    // Once the node has all of it, it goes on alone.
    let client = apart.fleet.client(COUNTY);
    until("the node takes it", async || {
        import_until(&client, &up, |_| true).await
            || apart.county(&["bundle", "import", &up]).await.out.contains("taken in before")
    })
    .await;
    until("it is taken in to its end", async || {
        let status = apart.county(&["status", "--json"]).await.json();
        status["links"][0]["bundles"]["received_number"] == 1
    })
    .await;
    apart.county(&["bundle", "import", &up]).await.exits(0).shows(&["taken in before"]);
    apart.holds_all(CASES).await;
}

/// How large what is being written in a folder is by now.
fn written(folder: &Path) -> u64 {
    let files = std::fs::read_dir(folder).unwrap().flatten();
    files.filter_map(|file| file.metadata().ok()).map(|data| data.len()).max().unwrap_or(0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_export_that_is_killed_leaves_no_file_that_somebody_might_carry() {
    let mut apart = Apart::start().await;
    apart.fill(0..CASES).await;
    let folder = apart.fleet.path("carried");
    std::fs::create_dir(&folder).unwrap();
    let up = apart.path("carried/up.bundle");
    let (mut commands, mut nodes) = (0, 0);
    for (bytes, node) in [(1, true), (1, false), (300_000, true), (300_000, false), (900_000, false)] {
        let mut child = apart.begin(&["bundle", "export", "--for", COUNTY, &up]);
        let under_way = loop {
            if child.try_wait().unwrap().is_some() {
                break false;
            }
            if written(&folder) >= bytes {
                break true;
            }
            tokio::task::yield_now().await;
        };
        if under_way && node {
            apart.kill_township().await;
            let ended = within("the command ends", child.wait_with_output()).await.unwrap();
            if !ended.status.success() {
                nodes += 1;
                assert_eq!(apart.unfinished("carried"), Vec::<String>::new(), "nothing is left of it");
            }
            apart.serve_township(&[]).await;
        } else if under_way {
            child.kill().await.unwrap();
            commands += 1;
        }
        if Path::new(&up).exists() {
            // It was faster: then it is whole.
            apart.below(&["bundle", "show", &up]).await.exits(0);
        }
        for file in apart.unfinished("carried") {
            std::fs::remove_file(folder.join(file)).unwrap();
        }
    }
    assert!(commands > 0 && nodes > 0, "killed: {commands} commands, {nodes} nodes");
    until("the node makes another", async || {
        apart.below(&["bundle", "export", "--for", COUNTY, &up]).await.code == 0
    })
    .await;
    apart.county(&["bundle", "import", &up]).await.exits(0);
    apart.holds_all(CASES).await;
}

/// Runs the program with a limit on the size of the files that it writes, as a disk that fills up in the middle.
fn cramped(blocks: u32, args: &[&str]) -> Command {
    let script = format!("trap '' XFSZ; ulimit -f {blocks}; exec \"$0\" \"$@\"");
    let mut command = Command::new("bash");
    command.arg("-c").arg(script).arg(program()).args(args).kill_on_drop(true);
    command
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_is_full_refuses_an_export_and_leaves_what_was_there() {
    let mut apart = Apart::start().await;
    let up = apart.path("up.bundle");
    apart.export(&up).await;
    let before = std::fs::read(&up).unwrap();
    apart.fill(0..CASES).await;
    let socket = apart.dir.join("sock");
    let args = ["bundle", "export", "--for", COUNTY, &up, "--socket", socket.to_str().unwrap()];
    let output = cramped(300, &args).output().await.unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("up.bundle is not written; nothing was changed"), "{said}");
    assert_eq!(std::fs::read(&up).unwrap(), before, "the bundle that was there stays");
    let left = apart.unfinished("");
    assert!(!left.iter().any(|file| file.starts_with(".tmp")), "{left:?}");
    until("another is made", async || {
        apart.below(&["bundle", "export", "--for", COUNTY, &up]).await.code == 0
    })
    .await;
    apart.county(&["bundle", "import", &up]).await.exits(0);
    apart.holds_all(CASES).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_refuses_a_bundle_and_takes_the_rest_when_there_is_room() {
    let mut apart = Apart::start().await;
    apart.fill(0..CASES).await;
    let up = apart.path("up.bundle");
    apart.export(&up).await;
    // No room for the file itself.
    let county = division(COUNTY);
    apart.fleet.tree.stop(county).await.unwrap();
    let config = apart.fleet.tree.config_path(county);
    let mut small = cramped(1_300, &["serve", "--config", config.to_str().unwrap()])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let socket = apart.fleet.tree.socket_path(county);
    found("the county answers", async || Client::over_socket(&socket).await.ok()).await;
    let refused = apart.county(&["bundle", "import", &up]).await.exits(1);
    refused.says(&["nothing was taken in, make room and try again", "未接收任何内容"]);
    assert!(apart.fleet.record(COUNTY, &name(0)).await.is_none());
    small.kill().await.unwrap();
    // No room in the store for all of it: what was taken in stays, and the rest comes when there is.
    apart.serve_county(Some("2")).await;
    let refused = apart.county(&["bundle", "import", &up]).await.exits(1);
    refused.says(&["the store has reached its limit"]);
    assert!(apart.fleet.record(COUNTY, &name(CASES - 1)).await.is_none());
    let status = apart.county(&["status", "--json"]).await.json();
    assert_ne!(status["links"][0]["bundles"]["received_number"], 1, "it is not whole");
    apart.serve_county(None).await;
    let done = apart.county(&["bundle", "import", &up, "--json"]).await.exits(0).json();
    assert_ne!(done["bundle"]["repeated"], true);
    apart.holds_all(CASES).await;
}
