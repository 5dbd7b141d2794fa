//! A disk that is full in the very middle of a backup, a restore or a rebuild, and what is killed there: it is said, what
//! was half done is gone, and the store is as it was before.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::path::{Path, PathBuf};
use std::process::Stdio;

use guantong::demo::tree::NodeSpec;
use guantong_proto::v1;
use guantong_tests::harness::small_disk::SmallDisk;
use guantong_tests::harness::{Done, Fleet, command, division, ended, until};
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};
use tonic::Code;

const COUNTY: &str = "220822";
const TOWNSHIP: &str = "220822101";
/// Of the disk: enough for the store, another one and what a node leaves free.
const DISK_MIB: u32 = 56;
/// Cases of 60 KB.
const CASES: u32 = 80;
/// How often something is done again that was too fast to be met in the middle.
const TRIES: usize = 50;
/// What a township's folder on the disk holds while nothing runs.
const AT_REST: [&str; 2] = ["guantong.db", "guantong.db-lock"];

fn name(id: u32) -> String {
    format!("divisions/220822101000/cases/{id}")
}

fn case(narrative: &str) -> v1::Case {
    v1::Case { case_kind: Some(1), narrative: Some(narrative.to_owned()), ..v1::Case::default() }
}

/// A county, and a township whose store lies on a small disk.
struct Cramped {
    fleet: Fleet,
    disk: SmallDisk,
}

impl Cramped {
    async fn start() -> Option<Cramped> {
        let disk = SmallDisk::mount(DISK_MIB).await?;
        let (county, township) = (division(COUNTY), division(TOWNSHIP));
        let place = disk.path().to_str().unwrap().to_owned();
        let township = NodeSpec::below(county, township).environment("GUANTONG_DATA_DIR", &place);
        let fleet = Fleet::running(&disk.program(), [NodeSpec::top(county), township]).await;
        let long = "长".repeat(20_000);
        for id in 0..CASES {
            fleet.write(TOWNSHIP, &name(id), &case(&long)).await.unwrap();
        }
        fleet.equal().await;
        Some(Cramped { fleet, disk })
    }

    async fn stop(&mut self) {
        self.fleet.tree.stop(division(TOWNSHIP)).await.unwrap();
        self.is_at_rest();
    }

    /// Nothing half done lies beside the store. SQLite's own log may, if it is empty.
    fn is_at_rest(&self) {
        let mut names = self.disk.names();
        assert_eq!(size(&self.disk.file("guantong.db-wal")), 0);
        let others = ["guantong.db-wal", "guantong.db-shm"];
        names.retain(|name| !name.starts_with("guantong.db-former-") && !others.contains(&&**name));
        assert_eq!(names, AT_REST);
    }

    /// Starts the township again; it works, and lacks nothing.
    async fn goes_on(&mut self) {
        self.fleet.tree.start(division(TOWNSHIP)).await.unwrap();
        self.works().await;
    }

    async fn works(&self) {
        self.fleet.linked(division(TOWNSHIP)).await;
        self.fleet.write(TOWNSHIP, &name(70_000), &case("乙")).await.unwrap();
        until("the county has it", async || self.fleet.record(COUNTY, &name(70_000)).await.is_some()).await;
        assert!(self.fleet.record(TOWNSHIP, &name(CASES - 1)).await.is_some());
        self.fleet.equal().await;
    }

    fn store(&self) -> PathBuf {
        self.disk.file("guantong.db")
    }

    fn bytes(&self) -> Vec<u8> {
        std::fs::read(self.store()).unwrap()
    }

    /// A command that works on the township's files.
    fn offline(&self, args: &[&str]) -> Command {
        let mut command = command(&self.disk.program());
        command.args(args).arg("--config").arg(self.fleet.tree.config_path(division(TOWNSHIP)));
        command.env("GUANTONG_DATA_DIR", self.disk.path()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// A backup of the township, beside the small disk.
    async fn backup(&self, file: &str) -> Done {
        self.fleet.cli(TOWNSHIP, &["backup", self.fleet.path(file).to_str().unwrap(), "--force"]).await
    }
}

/// How far the file is that is made, and whether it is still made.
fn size(path: &Path) -> u64 {
    path.metadata().map_or(0, |file| file.len())
}

/// Holds a process still once `is_there`. False: it ended before.
async fn hold(child: &mut Child, is_there: impl Fn() -> bool) -> bool {
    while child.try_wait().unwrap().is_none() {
        if is_there() {
            kill_process(pid(child.id().unwrap()), Signal::STOP).unwrap();
            return true;
        }
        tokio::task::yield_now().await;
    }
    false
}

fn pid(id: u32) -> Pid {
    Pid::from_raw(id.try_into().unwrap()).unwrap()
}

/// What becomes of a command on whose way the disk is full, once the file that it makes has so many bytes; and the store
/// before. Where the command was too fast, it is called again after `prepare`.
async fn on_a_disk_that_fills_up(
    cramped: &Cramped,
    args: &[&str],
    (making, bytes): (&str, u64),
    prepare: impl Fn(&Cramped),
) -> (Vec<u8>, Done) {
    let file = cramped.disk.file(making);
    for _ in 0..TRIES {
        prepare(cramped);
        let before = cramped.bytes();
        let mut child = cramped.offline(args).spawn().unwrap();
        let id = pid(child.id().unwrap());
        let held = hold(&mut child, || size(&file) >= bytes).await;
        if held && size(&file) > 0 {
            cramped.disk.fill();
        }
        if held {
            kill_process(id, Signal::CONT).unwrap();
        }
        let done = ended(child.wait_with_output()).await;
        cramped.disk.make_room();
        if done.code == 1 {
            return (before, done);
        }
    }
    panic!("{args:?} is always done before anybody sees {making}")
}

/// The node's own copy finds no room, or loses it on the way: the backup is refused, nothing is left of it, and the node
/// goes on as soon as there is room.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_without_room_for_its_copy_says_so_and_goes_on() {
    let Some(mut cramped) = Cramped::start().await else { return };
    cramped.stop().await;
    cramped.goes_on().await;
    cramped.disk.fill();
    cramped.backup("a.backup").await.exits(1).says(&[
        "MiB are needed",
        "磁盘空间不足",
        "nothing was changed",
    ]);
    let refused = cramped.fleet.write(TOWNSHIP, &name(90_000), &case("丙")).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused:?}");
    assert!(!cramped.fleet.path("a.backup").exists() && !cramped.fleet.path("a.backup.part").exists());
    cramped.disk.make_room();
    cramped.works().await;
    cramped.backup("a.backup").await.exits(0);
}

/// The disk fills up while the node copies its store: the node and its store lose nothing, and the copy goes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_fills_up_under_a_nodes_own_copy() {
    let Some(mut cramped) = Cramped::start().await else { return };
    cramped.stop().await;
    cramped.goes_on().await;
    let config = cramped.fleet.tree.config_path(division(TOWNSHIP));
    let node = serving(config.to_str().unwrap());
    let copy = cramped.disk.file("guantong.db-copy");
    let mut met = false;
    for _ in 0..TRIES {
        let _ = std::fs::remove_file(cramped.fleet.path("a.backup"));
        let backup = cramped.backup("a.backup");
        tokio::pin!(backup);
        let seen = async {
            while size(&copy) == 0 {
                tokio::task::yield_now().await;
            }
            kill_process(node, Signal::STOP).unwrap();
        };
        let done = tokio::select! {
            biased;
            done = &mut backup => done,
            () = seen => {
                cramped.disk.fill();
                kill_process(node, Signal::CONT).unwrap();
                backup.await
            }
        };
        // It may have been whole by then, and only looked through.
        met = done.code != 0;
        if met {
            done.exits(1).says(&["the disk is full", "nothing was lost", "磁盘已满"]);
            break;
        }
        done.exits(0);
        cramped.disk.make_room();
    }
    assert!(met, "the copy was always done before anybody saw it");
    until("the copy is gone", async || !copy.exists()).await;
    assert!(!cramped.fleet.path("a.backup").exists() && !cramped.fleet.path("a.backup.part").exists());
    assert!(cramped.fleet.record(TOWNSHIP, &name(1)).await.is_some(), "reading goes on");
    cramped.disk.make_room();
    cramped.works().await;
    cramped.backup("a.backup").await.exits(0);
}

/// The process that serves a configuration.
fn serving(config: &str) -> Pid {
    let serves = |id: &u32| {
        let line = std::fs::read(format!("/proc/{id}/cmdline")).unwrap_or_default();
        let words: Vec<&[u8]> = line.split(|byte| *byte == 0).collect();
        words.contains(&&b"serve"[..]) && words.contains(&config.as_bytes())
    };
    let ids =
        std::fs::read_dir("/proc").unwrap().filter_map(|e| e.unwrap().file_name().to_str()?.parse().ok());
    pid(ids.into_iter().find(serves).unwrap())
}

/// While the backup's bytes are brought, and while what was brought is made ready: nothing has happened.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_fills_up_under_a_restore() {
    let Some(mut cramped) = Cramped::start().await else { return };
    cramped.backup("a.backup").await.exits(0);
    cramped.fleet.write(TOWNSHIP, &name(60_000), &case("后")).await.unwrap();
    cramped.fleet.equal().await;
    cramped.stop().await;
    let file = cramped.fleet.path("a.backup");
    let whole = size(&file) - 4096;
    let restore = ["restore", file.to_str().unwrap()];
    for bytes in [1, whole] {
        let making = ("guantong.db-making", bytes);
        let (before, done) = on_a_disk_that_fills_up(&cramped, &restore, making, |_| ()).await;
        // As the system says it, or SQLite.
        let said = ["No space left on device", "the disk is full"].iter().any(|said| done.err.contains(said));
        assert!(said, "{done:?}");
        done.exits(1).says(&["nothing was changed", "未做任何更改"]);
        assert!(cramped.bytes() == before, "the store of before, byte for byte");
        cramped.is_at_rest();
    }
    cramped.disk.fill();
    let refused = cramped.fleet.tree.start(division(TOWNSHIP)).await.unwrap_err().to_string();
    assert!(refused.contains("the disk is full") && refused.contains("磁盘已满"), "{refused}");
    cramped.disk.fill();
    let refused = ended(cramped.offline(&restore).output()).await;
    refused.exits(1).says(&["MiB are needed", "磁盘空间不足", "nothing was changed"]);
    cramped.disk.make_room();
    cramped.goes_on().await;
    assert!(cramped.fleet.record(TOWNSHIP, &name(60_000)).await.is_some());
}

/// The store as it was whole, but for one page.
fn damage(cramped: &Cramped, whole: &[u8]) {
    let mut bytes = whole.to_vec();
    let page = bytes.len() / 4096 / 2 * 4096;
    bytes[page..page + 4096].fill(0xa5);
    std::fs::write(cramped.store(), bytes).unwrap();
}

/// A rebuild without room, or that is killed, has not happened; the next one does it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rebuild_without_room_or_killed_has_not_happened() {
    let Some(mut cramped) = Cramped::start().await else { return };
    cramped.stop().await;
    let (log, whole) = (("guantong.db-making-wal", 100_000), cramped.bytes());
    let prepare = |cramped: &Cramped| damage(cramped, &whole);
    let (before, done) = on_a_disk_that_fills_up(&cramped, &["rebuild"], log, prepare).await;
    done.exits(1).says(&["nothing was changed", "未做任何更改", "the disk is full"]);
    assert!(cramped.bytes() == before, "the damaged store, as it was");
    cramped.is_at_rest();
    cramped.disk.fill();
    let refused = ended(cramped.offline(&["rebuild"]).output()).await;
    refused.exits(1).says(&["MiB are needed", "nothing was changed"]);
    cramped.disk.make_room();

    killed_in_the_middle(&cramped, &whole).await;
    // What was never finished goes with the next attempt.
    let done = ended(cramped.offline(&["rebuild", "--json"]).output()).await;
    assert!([0, 3].contains(&done.code), "{done:?}");
    cramped.is_at_rest();
    cramped.goes_on().await;
}

/// Kills a rebuild while it makes another store.
async fn killed_in_the_middle(cramped: &Cramped, whole: &[u8]) {
    let making = cramped.disk.file("guantong.db-making");
    for _ in 0..TRIES {
        damage(cramped, whole);
        let before = cramped.bytes();
        let mut child = cramped.offline(&["rebuild"]).spawn().unwrap();
        if hold(&mut child, || size(&making) > 0).await && making.exists() {
            child.kill().await.unwrap();
            assert!(cramped.bytes() == before, "the damaged store, as it was");
            return;
        }
    }
    panic!("a rebuild is always done before anybody sees it");
}

/// A node that is killed in the middle of its copy starts without it; the command says that nothing was written.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_killed_while_it_is_copied() {
    let Some(mut cramped) = Cramped::start().await else { return };
    let done = killed_while_copied(&cramped).await;
    done.exits(1).says(&["the connection to the node was lost"]);
    assert!(!cramped.fleet.path("a.backup").exists() && !cramped.fleet.path("a.backup.part").exists());
    cramped.fleet.tree.kill(division(TOWNSHIP)).await.unwrap();
    cramped.goes_on().await;
    assert!(!cramped.disk.file("guantong.db-copy").exists());
}

/// Kills the node while it makes a copy of its store; gives what the command said.
async fn killed_while_copied(cramped: &Cramped) -> Done {
    let config = cramped.fleet.tree.config_path(division(TOWNSHIP));
    let node = serving(config.to_str().unwrap());
    let copy = cramped.disk.file("guantong.db-copy");
    for _ in 0..TRIES {
        let _ = std::fs::remove_file(cramped.fleet.path("a.backup"));
        let backup = cramped.backup("a.backup");
        tokio::pin!(backup);
        let seen = async {
            while !copy.exists() {
                tokio::task::yield_now().await;
            }
            kill_process(node, Signal::KILL).unwrap();
        };
        tokio::select! {
            biased;
            _ = &mut backup => {}
            () = seen => return backup.await,
        }
    }
    panic!("the copy is always done before anybody sees it");
}
