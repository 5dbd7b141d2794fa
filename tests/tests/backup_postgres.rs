//! A node on PostgreSQL, backed up and put back by PostgreSQL's own tools: the node notices at its start that it stands
//! in another database or on another timeline, or else at its next greeting; begins as another, gets back what it forgot,
//! and keeps what it wrote meanwhile. `TEST_POSTGRES_URL` names the server (`tests/postgres.sh run …`).

#![allow(clippy::unwrap_used, clippy::panic)]

use std::io::Write as _;
use std::path::PathBuf;
use std::process::Stdio;

use guantong::demo::tree::NodeSpec;
use guantong_proto::v1;
use guantong_tests::harness::land::free_port;
use guantong_tests::harness::{Fleet, command, division, ended, found, program, until};
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection};
use tempfile::TempDir;
use tokio::process::{Child, Command};

const COUNTY: &str = "220822";
const TOWNSHIP: &str = "220822101";
/// Names a server where databases may be made.
const SERVER: &str = "TEST_POSTGRES_URL";

fn name(id: u32) -> String {
    format!("divisions/220822101000/cases/{id}")
}

fn case(title: &str) -> v1::Case {
    v1::Case { case_kind: Some(1), title: Some(title.to_owned()), ..v1::Case::default() }
}

/// An empty database of its own, by its URL; `None`, and loudly so, where no server is named.
async fn database(what: &str) -> Option<String> {
    let Ok(url) = std::env::var(SERVER) else {
        let text = format!("NOT RUN: backups of a node on PostgreSQL; {SERVER} names no server\n");
        std::io::stderr().write_all(text.as_bytes()).unwrap();
        return None;
    };
    let server: PgConnectOptions = url.parse().unwrap();
    let name = format!("backup_{what}_{}", std::process::id());
    let mut conn: PgConnection = server.connect().await.unwrap();
    let make = format!("CREATE DATABASE {name} ENCODING 'UTF8' TEMPLATE template0");
    sqlx::raw_sql(AssertSqlSafe(make)).execute(&mut conn).await.unwrap();
    conn.close().await.unwrap();
    let url = server.database(&name).to_url_lossy().to_string();
    // The tools do not know what the driver adds.
    Some(url.split('?').next().unwrap().to_owned())
}

/// One of PostgreSQL's tools, where Debian puts them or in the path.
fn tool(name: &str) -> PathBuf {
    if let Some(folder) = std::env::var_os("GUANTONG_POSTGRES_BIN") {
        return PathBuf::from(folder).join(name);
    }
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().filter_map(Result::ok);
    let tools = versions.map(|version| version.path().join("bin").join(name)).filter(|tool| tool.exists());
    tools.max().unwrap_or_else(|| name.into())
}

async fn run(name: &str, args: &[&str]) {
    let done = Command::new(tool(name)).args(args).output().await.unwrap();
    assert!(done.status.success(), "{name}: {}", String::from_utf8_lossy(&done.stderr));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dump_that_is_put_back_is_noticed_and_nothing_is_lost() {
    let (Some(first), Some(second)) = (database("first").await, database("second").await) else { return };
    let (county, township) = (division(COUNTY), division(TOWNSHIP));
    let top = NodeSpec::top(county).environment("GUANTONG_STORE", &first);
    let mut fleet = Fleet::start([top, NodeSpec::below(county, township)]).await;
    fleet.write(TOWNSHIP, &name(1), &case("甲")).await.unwrap();
    fleet.equal().await;
    let file = fleet.path("county.dump").to_str().unwrap().to_owned();
    fleet.cli(COUNTY, &["backup", &file]).await.exits(1).says(&["PostgreSQL", "pg_dump"]);
    let config = fleet.tree.config_path(county);
    let mut rebuild = command(&program());
    rebuild.args(["rebuild", "--config"]).arg(config).env("GUANTONG_STORE", &first);
    ended(rebuild.output()).await.exits(1).says(&["PostgreSQL's own tools", "请用其自身工具修复"]);
    // While the node runs.
    run("pg_dump", &["--format=custom", "--file", &file, "--dbname", &first]).await;
    fleet.write(TOWNSHIP, &name(1), &case("乙")).await.unwrap();
    fleet.write(TOWNSHIP, &name(2), &case("丙")).await.unwrap();
    fleet.equal().await;

    fleet.tree.stop(county).await.unwrap();
    run("pg_restore", &["--no-owner", "--exit-on-error", "--dbname", &second, &file]).await;
    fleet.tree.set_environment(county, "GUANTONG_STORE", Some(&second)).unwrap();
    fleet.tree.start(county).await.unwrap();
    let warnings = fleet.status(COUNTY).await.warnings;
    assert!(warnings.iter().any(|warning| warning.contains("another database than before")), "{warnings:?}");
    fleet.linked(township).await;
    let title =
        async |id| fleet.shown::<v1::Case>(COUNTY, &name(id)).await.map(|case| case.title().to_owned());
    until("the county has what it forgot", async || {
        title(1).await.as_deref() == Some("乙") && title(2).await.as_deref() == Some("丙")
    })
    .await;
    fleet.equal().await;
    let recovery = fleet.status(COUNTY).await.recovery.unwrap();
    assert_eq!(recovery.cause(), v1::RecoveryCause::PutBack);
    // At the next start it is the same store as before.
    fleet.tree.stop(county).await.unwrap();
    fleet.tree.start(county).await.unwrap();
    assert!(!fleet.status(COUNTY).await.warnings.iter().any(|warning| warning.contains("another database")));
    fleet.tree.end().await;
    for url in [first, second] {
        drop_database(&url).await;
    }
}

async fn drop_database(url: &str) {
    let database: PgConnectOptions = url.parse().unwrap();
    let drop = format!("DROP DATABASE {} WITH (FORCE)", database.get_database().unwrap());
    let server: PgConnectOptions = std::env::var(SERVER).unwrap().parse().unwrap();
    let mut conn: PgConnection = server.connect().await.unwrap();
    sqlx::raw_sql(AssertSqlSafe(drop)).execute(&mut conn).await.unwrap();
    conn.close().await.unwrap();
}

/// A copy of a whole server, as `pg_basebackup` made it, and a server that runs on it.
struct Copied {
    folder: TempDir,
    /// Who owns it: a server never runs as root.
    user: Option<(u32, u32)>,
    running: Option<Child>,
}

impl Copied {
    /// Copies the server that the tests use, while it runs.
    async fn of(url: &str) -> Copied {
        let folder = tempfile::Builder::new().prefix("gtpg").tempdir().unwrap();
        let user = rustix::process::geteuid()
            .is_root()
            .then(|| ["postgres", "nobody"].into_iter().find_map(ids).unwrap());
        if let Some((user, group)) = user {
            std::os::unix::fs::chown(folder.path(), Some(user), Some(group)).unwrap();
        }
        let copied = Copied { folder, user, running: None };
        let (data, url) = (copied.data(), format!("--dbname={url}"));
        let done = copied
            .tool("pg_basebackup")
            .args(["--checkpoint=fast", "--wal-method=stream", "--pgdata", data.to_str().unwrap(), &url])
            .output()
            .await
            .unwrap();
        assert!(done.status.success(), "pg_basebackup: {}", String::from_utf8_lossy(&done.stderr));
        copied
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn tool(&self, name: &str) -> Command {
        let mut command = Command::new(tool(name));
        if let Some((user, group)) = self.user {
            command.uid(user).gid(group);
        }
        command.current_dir("/").stdin(Stdio::null()).kill_on_drop(true);
        command
    }

    /// Runs a server on it; gives the same database there.
    async fn start(&mut self, database: &str, settings: &[&str]) -> String {
        let port = free_port();
        let log = std::fs::File::create(self.folder.path().join("log")).unwrap();
        let mut server = self.tool("postgres");
        server.arg("-D").arg(self.data()).args([
            "-c",
            "listen_addresses=127.0.0.1",
            "-c",
            &format!("port={port}"),
        ]);
        server.args(["-c", "unix_socket_directories="]);
        for setting in settings {
            server.args(["-c", setting]);
        }
        self.running = Some(server.stdout(Stdio::null()).stderr(log).spawn().unwrap());
        let options: PgConnectOptions = database.parse().unwrap();
        let options = options.host("127.0.0.1").port(port);
        until("the copied server takes writes", async || {
            let Ok(mut conn) = options.connect().await else {
                let ended = self.running.as_mut().unwrap().try_wait().unwrap();
                assert!(
                    ended.is_none(),
                    "{}",
                    std::fs::read_to_string(self.folder.path().join("log")).unwrap()
                );
                return false;
            };
            let reads = sqlx::query_scalar("SELECT pg_is_in_recovery()").fetch_one(&mut conn).await;
            reads.is_ok_and(|reads_only: bool| !reads_only)
        })
        .await;
        options.to_url_lossy().as_str().split('?').next().unwrap().to_owned()
    }

    /// Ends the server in good order, whoever is connected.
    async fn stop(&mut self) {
        let data = self.data();
        let stop = ["stop", "--wait", "--mode=fast", "--pgdata", data.to_str().unwrap()];
        assert!(self.tool("pg_ctl").args(stop).stdout(Stdio::null()).status().await.unwrap().success());
        self.running.take().unwrap().wait().await.unwrap();
    }
}

/// A user of this system, and its group.
fn ids(name: &str) -> Option<(u32, u32)> {
    let users = std::fs::read_to_string("/etc/passwd").ok()?;
    let line: Vec<&str> =
        users.lines().map(|line| line.split(':').collect()).find(|line: &Vec<&str>| line[0] == name)?;
    Some((line.get(2)?.parse().ok()?, line.get(3)?.parse().ok()?))
}

/// The county stands on what `pg_basebackup` made while it worked. Seen from inside that is the same database as before: the
/// greeting shows what is missing, and what the county wrote before it stays. Recovered to a new timeline, the node sees it
/// by itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_base_backup_that_is_put_back_is_noticed_and_nothing_is_lost() {
    let Some(first) = database("base").await else { return };
    let (county, township) = (division(COUNTY), division(TOWNSHIP));
    let top = NodeSpec::top(county).environment("GUANTONG_STORE", &first);
    let mut fleet = Fleet::start([top, NodeSpec::below(county, township)]).await;
    fleet.write(TOWNSHIP, &name(1), &case("甲")).await.unwrap();
    fleet.equal().await;
    // While the node runs.
    let mut copied = Copied::of(&std::env::var(SERVER).unwrap()).await;
    fleet.write(TOWNSHIP, &name(1), &case("乙")).await.unwrap();
    fleet.write(TOWNSHIP, &name(2), &case("丙")).await.unwrap();
    fleet.write(COUNTY, &name(3), &case("丁")).await.unwrap();
    fleet.equal().await;

    fleet.tree.stop(township).await.unwrap();
    fleet.tree.stop(county).await.unwrap();
    let second = copied.start(&first, &[]).await;
    fleet.tree.set_environment(county, "GUANTONG_STORE", Some(&second)).unwrap();
    fleet.tree.start(county).await.unwrap();
    assert_eq!(title(&fleet, COUNTY, 2).await, None, "it has forgotten");
    // At work before anybody greets it.
    fleet.write(COUNTY, &name(4), &case("戊")).await.unwrap();
    fleet.tree.start(township).await.unwrap();
    all_there(&fleet, &[(1, "乙"), (2, "丙"), (3, "丁"), (4, "戊")]).await;
    let recovery = fleet.status(COUNTY).await.recovery.unwrap();
    assert_eq!(recovery.cause(), v1::RecoveryCause::PutBack);
    let audit = fleet.cli(COUNTY, &["audit", "show", "--limit", "1000"]).await.out;
    assert!(audit.contains("store_renewed"), "{audit}");

    // The same files once more, now by a recovery that begins a timeline of its own.
    fleet.tree.stop(county).await.unwrap();
    copied.stop().await;
    std::fs::write(copied.data().join("recovery.signal"), "").unwrap();
    let third = copied.start(&first, &["restore_command=false"]).await;
    fleet.tree.set_environment(county, "GUANTONG_STORE", Some(&third)).unwrap();
    fleet.tree.start(county).await.unwrap();
    let warnings = fleet.status(COUNTY).await.warnings;
    assert!(warnings.iter().any(|warning| warning.contains("timeline 2, before on 1")), "{warnings:?}");
    fleet.write(COUNTY, &name(5), &case("己")).await.unwrap();
    all_there(&fleet, &[(1, "乙"), (2, "丙"), (3, "丁"), (4, "戊"), (5, "己")]).await;
    fleet.cli(COUNTY, &["recount"]).await.exits(0);
    fleet.tree.end().await;
    copied.stop().await;
    drop_database(&first).await;
}

async fn title(fleet: &Fleet, node: &str, id: u32) -> Option<String> {
    fleet.shown::<v1::Case>(node, &name(id)).await.map(|case| case.title().to_owned())
}

/// Waits until both nodes have these, that both links are equal, and sees that nothing stands twice.
async fn all_there(fleet: &Fleet, titles: &[(u32, &str)]) {
    for node in [COUNTY, TOWNSHIP] {
        for (id, expected) in titles {
            until(&format!("{node} has case {id}"), async || {
                title(fleet, node, *id).await.as_deref() == Some(*expected)
            })
            .await;
        }
    }
    fleet.equal().await;
    found("no conflict", async || (fleet.status(COUNTY).await.conflict_count == 0).then_some(())).await;
}
