//! One node as a process: its port, its configuration, its start and its end, and what the system says about it.

use std::fs::{self, OpenOptions};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail};
use guantong_gateway::division::{Division, Tier};
use guantong_proto::v1;
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};

use super::HOST;
use crate::client::Client;

/// For a node to answer after its start, and to end after SIGTERM.
const START_TIME: Duration = Duration::from_secs(60);
const STOP_TIME: Duration = Duration::from_secs(45);
/// Between two looks whether it has come up.
const LOOK_INTERVAL: Duration = Duration::from_millis(10);
/// Starts with another port, where somebody else was faster.
const PORT_ATTEMPTS: usize = 5;
/// Below the ports that systems give to outgoing connections: one of those must not take a node's port while it is
/// down.
const PORTS: std::ops::Range<u16> = 20_000..32_000;
/// Lines of the log that an error repeats.
const LOG_LINES: usize = 8;
/// Linux counts processor time in hundredths of a second.
const TICKS_PER_SECOND: f64 = 100.0;

/// A node's port, once it has one. Shared with the lines that lead to it.
#[derive(Clone, Debug, Default)]
pub(super) struct Port(Arc<AtomicU16>);

impl Port {
    pub(super) fn get(&self) -> Option<u16> {
        Some(self.0.load(Ordering::Relaxed)).filter(|port| *port != 0)
    }

    fn set(&self, port: u16) {
        self.0.store(port, Ordering::Relaxed);
    }
}

pub(super) fn config_path(dir: &Path) -> PathBuf {
    dir.join("guantong.toml")
}

pub(super) fn socket_path(dir: &Path) -> PathBuf {
    dir.join("sock")
}

pub(super) fn log_path(dir: &Path) -> PathBuf {
    dir.join("node.log")
}

/// A node's process, running or not.
pub(super) struct Process {
    division: Division,
    dir: PathBuf,
    host: String,
    environment: Vec<(String, String)>,
    port: Port,
    child: Option<Child>,
    client: Option<Client>,
}

impl Process {
    pub(super) fn new(
        division: Division,
        dir: PathBuf,
        host: String,
        environment: Vec<(String, String)>,
    ) -> Process {
        Process { division, dir, host, environment, port: Port::default(), child: None, client: None }
    }

    pub(super) fn port(&self) -> Port {
        self.port.clone()
    }

    pub(super) fn client(&self) -> Option<Client> {
        self.client.clone()
    }

    pub(super) fn set_environment(&mut self, name: &str, value: Option<&str>) {
        self.environment.retain(|(known, _)| known != name);
        self.environment.extend(value.map(|value| (name.to_owned(), value.to_owned())));
    }

    pub(super) fn id(&self) -> Option<u32> {
        self.child.as_ref()?.id()
    }

    /// Starts the process and waits until it answers. `parent` is the parent's division and the address that leads there.
    pub(super) async fn start(&mut self, program: &Path, parent: Option<(Division, String)>) -> Result<()> {
        if self.id().is_some() {
            bail!("{} runs already", self.division);
        }
        let known = self.port.get();
        for _ in 0..PORT_ATTEMPTS {
            // Others know the port of a node that ran before: that one or none.
            let port = known.map_or_else(free_port, Ok)?;
            self.port.set(port);
            fs::write(config_path(&self.dir), self.configuration(port, parent.as_ref()))?;
            self.child = Some(self.spawn(program)?);
            match self.answer().await {
                Ok(client) => {
                    self.client = Some(client);
                    return Ok(());
                }
                Err(_) if is_taken(port) && known.is_none() => self.end().await,
                Err(error) => {
                    self.end().await;
                    return Err(error);
                }
            }
        }
        bail!("no free port for {} after {PORT_ATTEMPTS} attempts", self.division)
    }

    fn configuration(&self, port: u16, parent: Option<&(Division, String)>) -> String {
        let path = |name: &str| toml::Value::from(self.dir.join(name).to_string_lossy().into_owned());
        let mut text =
            format!("division = \"{}\"\ndata_dir = {}\nsocket = {}\n", self.division, path(""), path("sock"));
        // Nothing can be below a township.
        if self.division.tier() > Tier::Township {
            text += &format!("listen = \"{}:{port}\"\n", self.host);
        }
        if let Some((division, address)) = parent {
            text += &format!("\n[parent]\ndivision = \"{division}\"\naddress = \"{address}\"\n");
        }
        text += &format!(
            "\n[tls]\ncertificate = {}\nkey = {}\nauthority = {}\nrevocation_list = {}\n",
            path("certificate.pem"),
            path("key.pem"),
            path("authority.pem"),
            path("revocations.pem"),
        );
        text
    }

    fn spawn(&self, program: &Path) -> Result<Child> {
        let log = OpenOptions::new().create(true).append(true).open(log_path(&self.dir))?;
        let mut command = Command::new(program);
        command.args(["serve", "--until-stdin-ends", "--config"]).arg(config_path(&self.dir));
        // What is set for the command line of whoever runs the tree is not meant for its nodes.
        for (name, _) in
            std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("GUANTONG_"))
        {
            command.env_remove(name);
        }
        command.envs(self.environment.iter().cloned());
        // The pipe closes with this process, whatever ends it, and takes the node along.
        command.stdin(Stdio::piped()).stdout(log.try_clone()?).stderr(log).kill_on_drop(true);
        command.spawn().with_context(|| format!("cannot run {}", program.display()))
    }

    /// Waits until the node answers on its socket.
    async fn answer(&mut self) -> Result<Client> {
        let deadline = Instant::now() + START_TIME;
        let socket = socket_path(&self.dir);
        loop {
            if let Some(status) = self.child.as_mut().map(Child::try_wait).transpose()?.flatten() {
                bail!(
                    "node {} ended at its start ({status}); its log ends:\n{}",
                    self.division,
                    self.log_end()
                );
            }
            if let Ok(client) = Client::over_socket(&socket).await
                && client.node().get_status(v1::GetStatusRequest {}).await.is_ok()
            {
                return Ok(client);
            }
            if Instant::now() > deadline {
                let log = self.log_end();
                bail!("node {} does not answer after {START_TIME:?}; its log ends:\n{log}", self.division);
            }
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
    }

    fn log_end(&self) -> String {
        let text = fs::read_to_string(log_path(&self.dir)).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(LOG_LINES)..].join("\n")
    }

    /// Ends the process at once, if it runs.
    pub(super) async fn end(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill().await;
        }
    }

    pub(super) async fn kill(&mut self) -> Result<()> {
        let mut child = self.child.take().with_context(|| format!("node {} does not run", self.division))?;
        child.kill().await.with_context(|| format!("cannot kill node {}", self.division))
    }

    pub(super) fn ended(&mut self) -> Option<ExitStatus> {
        let status = self.child.as_mut()?.try_wait().ok().flatten()?;
        self.child = None;
        Some(status)
    }

    fn pid(&self) -> Option<Pid> {
        Pid::from_raw(i32::try_from(self.id()?).ok()?)
    }

    pub(super) fn reload(&self) -> Result<()> {
        let id = self.pid().with_context(|| format!("node {} does not run", self.division))?;
        Ok(kill_process(id, Signal::HUP)?)
    }

    pub(super) async fn stop(&mut self) -> Result<()> {
        let id = self.pid();
        let (Some(id), Some(child)) = (id, self.child.as_mut()) else {
            bail!("node {} does not run", self.division);
        };
        kill_process(id, Signal::TERM)?;
        let ended = tokio::time::timeout(STOP_TIME, child.wait()).await;
        let ended =
            ended.map_err(|_| anyhow!("node {} does not end within {STOP_TIME:?}", self.division))??;
        self.child = None;
        if ended.success() {
            Ok(())
        } else {
            bail!("node {} ended with {ended}:\n{}", self.division, self.log_end())
        }
    }

    pub(super) fn rss_bytes(&self) -> Option<u64> {
        kib(&self.proc("status")?, "VmRSS:")
    }

    pub(super) fn peak_rss_bytes(&self) -> Option<u64> {
        kib(&self.proc("status")?, "VmHWM:")
    }

    pub(super) fn pss_bytes(&self) -> Option<u64> {
        kib(&self.proc("smaps_rollup")?, "Pss:")
    }

    pub(super) fn cpu_seconds(&self) -> Option<f64> {
        let stat = self.proc("stat")?;
        // The program's name, in parentheses, may hold anything; user and system time are the 12th and 13th after it.
        let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
        let mut ticks = || fields.next()?.parse::<f64>().ok();
        Some((ticks()? + ticks()?) / TICKS_PER_SECOND)
    }

    fn proc(&self, file: &str) -> Option<String> {
        fs::read_to_string(format!("/proc/{}/{file}", self.id()?)).ok()
    }
}

/// The value of a line such as `VmRSS:   1234 kB`, in bytes.
fn kib(text: &str, key: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(key))?;
    line.split_whitespace().next()?.parse::<u64>().ok()?.checked_mul(1024)
}

fn is_taken(port: u16) -> bool {
    TcpListener::bind((HOST, port)).is_err()
}

/// A port that nobody has now.
fn free_port() -> Result<u16> {
    for _ in 0..1_000 {
        let random = getrandom::u32().context("the system gives no random numbers")?;
        let width = u32::from(PORTS.end - PORTS.start);
        let port = PORTS.start + u16::try_from(random % width)?;
        if !is_taken(port) {
            return Ok(port);
        }
    }
    bail!("no free port between {} and {}", PORTS.start, PORTS.end)
}
