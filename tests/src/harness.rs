//! What the end-to-end tests share: a tree of real nodes, the program's command line beside it, and waiting for
//! conditions. Everything goes through what users have: sockets, ports, files that the program reads and prints. It
//! must never look into a store, and never wait for a duration.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::{Duration, Instant};

use guantong::client::Client;
use guantong::demo::tree::{NodeSpec, Tree};
use guantong::identity::Subject;
use guantong::identity::pki::{Request, Validity};
use guantong_gateway::division::Division;
use guantong_proto::v1;
use prost::Message;
use tempfile::TempDir;
use tokio::process::{Child, Command};

pub mod clock;
pub mod collector;
pub mod garden;
pub mod land;
pub mod mortal;
pub mod namespace;
pub mod network;
pub mod postgres;
pub mod rude;
pub mod small_disk;
pub mod wire;

/// When a condition counts as one that never comes true. Nothing is ever waited for so long where all is well.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);
/// Lines of each node's log that a failed test shows.
const LOG_LINES: usize = 12;

/// The `guantong` to test: `GUANTONG_PROGRAM`, or the one that was built beside the tests.
pub fn program() -> PathBuf {
    let built = || {
        let tests = std::env::current_exe().ok()?;
        Some(tests.parent()?.parent()?.join("guantong"))
    };
    let path = std::env::var_os("GUANTONG_PROGRAM").map(PathBuf::from).or_else(built).unwrap_or_default();
    assert!(
        path.is_file(),
        "there is no program at {}; build it with: cargo build --release -p guantong (and test with --release)",
        path.display()
    );
    path
}

/// A division from its code.
pub fn division(code: &str) -> Division {
    Division::parse(code).unwrap()
}

/// Waits until `look` finds something, and gives it back.
pub async fn found<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(Instant::now() < deadline, "this never came true: {what}");
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}

/// Waits until a condition is true.
pub async fn until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    found(what, async || condition().await.then_some(())).await;
}

/// What a command did.
#[derive(Debug)]
pub struct Done {
    /// Its exit status.
    pub code: i32,
    /// What it printed.
    pub out: String,
    /// What it complained of.
    pub err: String,
}

impl Done {
    fn of(output: Output) -> Done {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        Done { code: output.status.code().unwrap_or(-1), out: text(output.stdout), err: text(output.stderr) }
    }

    /// The same, if it ended with this exit status.
    #[track_caller]
    pub fn exits(self, code: i32) -> Done {
        assert_eq!(self.code, code, "{self:#?}");
        self
    }

    /// The one JSON object that it printed.
    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("not JSON ({error}): {self:#?}"))
    }

    /// The same, if its complaint says all this.
    #[track_caller]
    pub fn says(self, parts: &[&str]) -> Done {
        for part in parts {
            assert!(self.err.contains(part), "nothing is said of «{part}»: {self:#?}");
        }
        self
    }

    /// The same, if what it prints shows all this.
    #[track_caller]
    pub fn shows(self, parts: &[&str]) -> Done {
        for part in parts {
            assert!(self.out.contains(part), "«{part}» is not shown: {self:#?}");
        }
        self
    }
}

/// A program, without anything in its environment that was meant for the tests.
pub fn command(program: &Path) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("GUANTONG_")) {
        command.env_remove(name);
    }
    command.stdin(Stdio::null()).kill_on_drop(true);
    command
}

/// Runs the program to its end.
pub async fn run<S: AsRef<std::ffi::OsStr>>(args: &[S]) -> Done {
    ended(command(&program()).args(args).output()).await
}

/// What a command did that was started.
pub async fn ended(running: impl Future<Output = std::io::Result<Output>>) -> Done {
    let output = tokio::time::timeout(PATIENCE, running).await;
    Done::of(output.expect("the command does not end").unwrap())
}

/// Real nodes in a folder of their own. All are killed at the end of the test.
pub struct Fleet {
    /// The processes.
    pub tree: Tree,
    folder: TempDir,
}

impl Fleet {
    /// Starts nodes, and waits until each is linked to its parent.
    pub async fn start(specs: impl IntoIterator<Item = NodeSpec>) -> Fleet {
        Fleet::running(&program(), specs).await
    }

    /// The same, whose nodes run this program.
    pub async fn running(program: &Path, specs: impl IntoIterator<Item = NodeSpec>) -> Fleet {
        let folder = tempfile::Builder::new().prefix("gt").tempdir().unwrap();
        let tree = Tree::new(folder.path(), program).unwrap();
        let mut fleet = Fleet { tree, folder };
        for spec in specs {
            fleet.tree.add(spec).await.unwrap();
        }
        fleet.tree.start_all().await.unwrap();
        for child in fleet.tree.divisions() {
            if fleet.tree.parent(child).is_some() {
                fleet.linked(child).await;
            }
        }
        fleet
    }

    /// A path for a file of the test's own.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A certificate of the tree's own authority for something on this machine, in a folder of its own.
    pub fn issue(&self, name: &str, subject: Subject, validity: Validity) -> PathBuf {
        let dir = self.path(name);
        let request = Request::new(subject, validity).host("127.0.0.1").unwrap();
        self.tree.authority().issue(&request, &dir, true).unwrap();
        dir
    }

    /// Writes a file of the test's own.
    pub fn file(&self, name: &str, content: impl AsRef<[u8]>) -> String {
        let path = self.path(name);
        std::fs::write(&path, content).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// A connection to a node's local socket.
    pub fn client(&self, node: &str) -> Client {
        self.tree.client(division(node)).unwrap()
    }

    /// A node at a glance.
    pub async fn status(&self, node: &str) -> v1::Status {
        self.client(node).node().get_status(v1::GetStatusRequest {}).await.unwrap().into_inner()
    }

    /// A node's link to a peer, as the node sees it.
    pub async fn link(&self, node: &str, peer: &str) -> Option<v1::LinkStatus> {
        let peer = division(peer).to_string();
        self.status(node).await.links.into_iter().find(|link| link.peer_division == peer)
    }

    /// Waits until a node is linked to its parent.
    pub async fn linked(&self, child: Division) {
        let client = self.tree.client(child).unwrap();
        until(&format!("{child} is linked"), async || {
            let status = client.node().get_status(v1::GetStatusRequest {}).await.unwrap().into_inner();
            status.links.iter().any(|link| link.peer_is_parent && link.connected)
        })
        .await;
    }

    /// Runs a command on a node, over its local socket.
    pub async fn cli(&self, node: &str, args: &[&str]) -> Done {
        let socket = self.tree.socket_path(division(node));
        let mut all = args.to_vec();
        all.extend(["--socket", socket.to_str().unwrap()]);
        run(&all).await
    }

    /// A record as a node shows it; none where it has no such record.
    pub async fn record(&self, node: &str, name: &str) -> Option<v1::Record> {
        let request = v1::GetRecordRequest { name: name.to_owned() };
        match self.client(node).records().get_record(request).await {
            Ok(answer) => Some(answer.into_inner()),
            Err(status) if status.code() == tonic::Code::NotFound => None,
            Err(status) => panic!("{node} cannot show {name}: {status}"),
        }
    }

    /// The message of a record, of whichever kind it is.
    pub async fn shown<M: Message + Default>(&self, node: &str, name: &str) -> Option<M> {
        self.record(node, name).await.map(|record| M::decode(record.fields).unwrap())
    }

    /// Writes the fields that are set.
    ///
    /// # Errors
    /// Whatever the node answers.
    pub async fn write(
        &self,
        node: &str,
        name: &str,
        fields: &impl Message,
    ) -> Result<v1::Record, tonic::Status> {
        write(&self.client(node), name, fields).await
    }

    /// Waits until nothing is owed on any link, and until both ends of each hold the same, record by record.
    pub async fn equal(&self) {
        for child in self.tree.divisions() {
            let Some(parent) = self.tree.parent(child) else { continue };
            until(&format!("{child} and {parent} hold the same"), async || self.is_equal(child).await).await;
        }
    }

    /// Whether both ends of a node's link to its parent hold the same now, record by record.
    pub async fn is_equal(&self, child: Division) -> bool {
        let Some(parent) = self.tree.parent(child) else { return true };
        let ends = (self.tree.client(child).unwrap(), self.tree.client(parent).unwrap());
        let (below, above) = (shared(&ends.0, parent).await, shared(&ends.1, child).await);
        below.is_some() && below == above
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        for node in self.tree.divisions() {
            let log = std::fs::read_to_string(self.tree.log_path(node)).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            eprintln!("-- {node} --\n{}", lines[lines.len().saturating_sub(LOG_LINES)..].join("\n"));
        }
    }
}

/// Writes the fields that are set.
///
/// # Errors
/// Whatever the node answers.
pub async fn write(client: &Client, name: &str, fields: &impl Message) -> Result<v1::Record, tonic::Status> {
    let record =
        v1::Record { name: name.to_owned(), fields: fields.encode_to_vec().into(), ..Default::default() };
    let request = v1::WriteRecordRequest { record: Some(record), ..Default::default() };
    Ok(client.records().write_record(request).await?.into_inner())
}

/// What a node shares with a peer: names and fingerprints. None while the node does not know the peer.
async fn shared(client: &Client, peer: Division) -> Option<Vec<(String, u64)>> {
    let request = v1::ListSharedRecordsRequest { peer: format!("divisions/{peer}") };
    let mut stream = client.node().list_shared_records(request).await.ok()?.into_inner();
    let mut all = Vec::new();
    while let Some(page) = stream.message().await.ok()? {
        all.extend(page.records.into_iter().map(|record| (record.name, record.fingerprint)));
    }
    all.sort();
    Some(all)
}

/// A `serve` of its own, beside the tree: a copy of a node, or one that is wrong. Killed when it is dropped.
pub struct Stray {
    child: Child,
    socket: PathBuf,
}

impl Stray {
    /// Starts a node in `dir` from a configuration, in which `data_dir`, `socket` and the files of the certificate are
    /// filled in.
    pub fn serve(dir: &Path, configuration: &str) -> Stray {
        Stray::start(dir, &stray_config(dir, configuration), &[])
    }

    /// Starts a node from a configuration whose socket is `sock` in `dir`, with variables in its environment.
    pub fn start(dir: &Path, config: &Path, environment: &[(&str, &str)]) -> Stray {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(dir.join("stray.log")).unwrap();
        let child = command(&program())
            .envs(environment.iter().copied())
            .arg("serve")
            .arg("--config")
            .arg(config)
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        Stray { child, socket: dir.join("sock") }
    }

    /// Ends it at once, as a power cut would.
    pub async fn kill(mut self) {
        self.child.kill().await.unwrap();
    }

    /// Waits until it answers.
    pub async fn client(&mut self) -> Client {
        found("the stray node answers", async || {
            assert!(self.child.try_wait().unwrap().is_none(), "the stray node ended");
            Client::over_socket(&self.socket).await.ok()
        })
        .await
    }
}

/// Writes a node's configuration into its folder.
pub fn stray_config(dir: &Path, configuration: &str) -> PathBuf {
    let path = |name: &str| format!("{:?}", dir.join(name).to_str().unwrap());
    let text = format!(
        "data_dir = {}\nsocket = {}\n{configuration}\n[tls]\ncertificate = {}\nkey = {}\nauthority = {}\nrevocation_list = {}\n",
        path(""),
        path("sock"),
        path("certificate.pem"),
        path("key.pem"),
        path("authority.pem"),
        path("revocations.pem"),
    );
    let config = dir.join("stray.toml");
    std::fs::write(&config, text).unwrap();
    config
}

/// Copies the files of a folder, but no sockets and folders.
pub fn copy_files(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_file() {
            std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
}

/// Something that must be done within the limit of patience.
pub async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("{what}: not in {PATIENCE:?}"))
}
