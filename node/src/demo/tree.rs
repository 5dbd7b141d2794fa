//! A tree of real nodes on this machine: each a process of its own with its own certificate, store and loopback port.
//! The demonstration shows it, tests and benchmarks build on it.
//!
//! Nodes are told apart by their division, and spoken to through their local sockets, as any program would. It must
//! never reach into a node's store, and no process of it may outlive the [`Tree`].

mod line;
mod process;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;

use anyhow::{Context as _, Result, anyhow};
use futures::future::{join_all, try_join_all};
use guantong_gateway::division::{Division, Tier};

use crate::client::Client;
use crate::identity::pki::dir::AuthorityDir;
use crate::identity::pki::{Request, Validity};
use crate::identity::{Subject, TrustDomain};
use line::CuttableLine;
pub use line::{LineState, Slowness};
use process::Process;

/// Where nodes listen, unless told otherwise.
const HOST: &str = "127.0.0.1";
/// How long the tree's certificates are good for: longer than the month before the end, in which nodes warn.
const CERTIFICATE_DAYS: u32 = 90;
/// How long before now they begin: nodes can be tried whose clocks are so far behind.
const BACKDATED_DAYS: i64 = 10;
/// Processes that are started side by side.
const STARTS_AT_ONCE: usize = 16;

fn validity() -> Validity {
    let validity = Validity::days(CERTIFICATE_DAYS);
    Validity { not_before: validity.not_before - time::Duration::days(BACKDATED_DAYS), ..validity }
}

/// How a node reaches its parent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Line {
    /// As any program would.
    #[default]
    Direct,
    /// Through this process, where the line can be cut and mended.
    Cuttable,
}

/// What a node is made from.
#[derive(Clone, Debug)]
pub struct NodeSpec {
    /// Its division, never a village.
    pub division: Division,
    /// Its parent, which must be in the tree; `None`: it is the top.
    pub parent: Option<Division>,
    /// How it reaches its parent.
    pub line: Line,
    /// The address where it listens.
    pub host: String,
    /// Environment of its process; `GUANTONG_…` sets keys of its configuration.
    pub environment: Vec<(String, String)>,
}

impl NodeSpec {
    /// The top of a tree.
    pub fn top(division: Division) -> NodeSpec {
        NodeSpec {
            division,
            parent: None,
            line: Line::Direct,
            host: HOST.to_owned(),
            environment: Vec::new(),
        }
    }

    /// A node below another, over a direct line.
    pub fn below(parent: Division, division: Division) -> NodeSpec {
        NodeSpec { parent: Some(parent), ..NodeSpec::top(division) }
    }

    /// The same over a line that can be cut.
    pub fn cuttable(mut self) -> NodeSpec {
        self.line = Line::Cuttable;
        self
    }

    /// The same with a variable in the environment of its process.
    pub fn environment(mut self, name: &str, value: &str) -> NodeSpec {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }
}

/// A node: what it was made from, and its process if it runs.
struct Node {
    spec: NodeSpec,
    line: Option<CuttableLine>,
    process: Process,
}

/// Nodes in a folder, each in a folder of its own named by its 12 digits. Dropping the tree kills what still runs; the
/// folder stays.
pub struct Tree {
    dir: PathBuf,
    program: PathBuf,
    authority: AuthorityDir,
    nodes: BTreeMap<Division, Node>,
}

impl Tree {
    /// An empty tree with a certificate authority of its own. `dir` must be short, since sockets lie in it and their
    /// paths are limited; `program` is the `guantong` to run.
    ///
    /// # Errors
    /// The folder cannot be written.
    pub fn new(dir: &Path, program: &Path) -> Result<Tree> {
        let authority =
            AuthorityDir::create(&dir.join("authority"), TrustDomain::default(), validity(), false)?;
        Ok(Tree { dir: dir.to_owned(), program: program.to_owned(), authority, nodes: BTreeMap::new() })
    }

    /// Adds a node: its folder and its certificate. It does not run yet.
    ///
    /// # Errors
    /// The node is there already, its parent is not, or files cannot be written.
    pub async fn add(&mut self, spec: NodeSpec) -> Result<()> {
        let division = spec.division;
        if self.nodes.contains_key(&division) {
            return Err(anyhow!("{division} is in the tree already"));
        }
        let parent_port = match spec.parent {
            Some(parent) => Some(self.node(parent)?.process.port()),
            None => None,
        };
        let dir = self.node_dir(division);
        let request =
            Request::new(Subject::Node(division), validity()).host(&spec.host)?.host("localhost")?;
        self.authority.issue(&request, &dir, false)?;
        let line = match (spec.line, parent_port) {
            (Line::Cuttable, Some(port)) => Some(CuttableLine::open(port).await?),
            _ => None,
        };
        let process = Process::new(division, dir, spec.host.clone(), spec.environment.clone());
        self.nodes.insert(division, Node { spec, line, process });
        Ok(())
    }

    /// Sets a variable in the environment of a node's process, or takes it away, from its next start on.
    ///
    /// # Errors
    /// The node is not in the tree.
    pub fn set_environment(&mut self, division: Division, name: &str, value: Option<&str>) -> Result<()> {
        self.node_mut(division)?.process.set_environment(name, value);
        Ok(())
    }

    /// Starts one node and waits until it answers.
    ///
    /// # Errors
    /// It ended again, with the last lines of its log; or it does not answer in time.
    pub async fn start(&mut self, division: Division) -> Result<()> {
        self.start_some(&[division], None).await
    }

    /// Starts one node with another program than the others, until its next start.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub async fn start_as(&mut self, division: Division, program: &Path) -> Result<()> {
        self.start_some(&[division], Some(program)).await
    }

    /// Starts all nodes that do not run, from the top down, many side by side.
    ///
    /// # Errors
    /// As [`start`](Self::start), for the first that fails.
    pub async fn start_all(&mut self) -> Result<()> {
        for tier in Tier::ALL.into_iter().rev() {
            let waiting: Vec<Division> =
                self.nodes.keys().copied().filter(|d| d.tier() == tier && !self.is_running(*d)).collect();
            for some in waiting.chunks(STARTS_AT_ONCE) {
                self.start_some(some, None).await?;
            }
        }
        Ok(())
    }

    async fn start_some(&mut self, divisions: &[Division], program: Option<&Path>) -> Result<()> {
        let mut parents = BTreeMap::new();
        for division in divisions {
            let node = self.node(*division)?;
            let Some(parent) = node.spec.parent else { continue };
            let address = match &node.line {
                Some(line) => Some(format!("{HOST}:{}", line.port())),
                None => self.address(parent),
            };
            parents.insert(*division, (parent, address.context("start its parent first")?));
        }
        let chosen = self.nodes.iter_mut().filter(|(division, _)| divisions.contains(division));
        let program = program.unwrap_or(&self.program);
        try_join_all(chosen.map(|(division, node)| node.process.start(program, parents.remove(division))))
            .await?;
        Ok(())
    }

    /// Ends a node at once, as a power cut would (SIGKILL).
    ///
    /// # Errors
    /// It does not run.
    pub async fn kill(&mut self, division: Division) -> Result<()> {
        self.node_mut(division)?.process.kill().await
    }

    /// How a node's process ended, if it did so by itself since its start. It does not run then.
    pub fn ended(&mut self, division: Division) -> Option<ExitStatus> {
        self.nodes.get_mut(&division)?.process.ended()
    }

    /// Lets a node end in good order (SIGTERM), and waits for it.
    ///
    /// # Errors
    /// It does not run, or does not end in time.
    pub async fn stop(&mut self, division: Division) -> Result<()> {
        self.node_mut(division)?.process.stop().await
    }

    /// Ends all nodes at once and waits until they are gone.
    pub async fn end(&mut self) {
        join_all(self.nodes.values_mut().map(|node| node.process.end())).await;
    }

    /// Lets a node read its certificate and revocation list again (SIGHUP).
    ///
    /// # Errors
    /// It does not run.
    pub fn reload(&self, division: Division) -> Result<()> {
        self.node(division)?.process.reload()
    }

    /// A connection to a node that runs; it lives on over a restart.
    ///
    /// # Errors
    /// The node is not in the tree or was never started.
    pub fn client(&self, division: Division) -> Result<Client> {
        self.node(division)?.process.client().with_context(|| format!("node {division} does not run"))
    }

    /// Cuts the line of a child to its parent: connections break, new ones fail. Lines that are direct stay.
    pub fn cut(&mut self, child: Division) {
        self.set_line(child, LineState::Cut);
    }

    /// Mends the line of a child to its parent.
    pub fn mend(&mut self, child: Division) {
        self.set_line(child, LineState::Whole);
    }

    /// Silences the line of a child to its parent: nothing arrives any more, and no connection breaks.
    pub fn silence(&mut self, child: Division) {
        self.set_line(child, LineState::Silent);
    }

    /// Makes the line of a child to its parent like this. Lines that are direct stay as they are.
    pub fn set_line(&mut self, child: Division, state: LineState) {
        if let Some(line) = self.nodes.get(&child).and_then(|node| node.line.as_ref()) {
            line.set(state);
        }
    }

    /// Every node, by division.
    pub fn divisions(&self) -> Vec<Division> {
        self.nodes.keys().copied().collect()
    }

    /// The parent of a node.
    pub fn parent(&self, division: Division) -> Option<Division> {
        self.nodes.get(&division)?.spec.parent
    }

    /// The children of a node, by division.
    pub fn children(&self, parent: Division) -> Vec<Division> {
        let is_child = |node: &&Node| node.spec.parent == Some(parent);
        self.nodes.values().filter(is_child).map(|node| node.spec.division).collect()
    }

    /// The node that a division's own systems would speak to: its own, or the nearest one above.
    pub fn node_of(&self, division: Division) -> Option<Division> {
        division.enclosing().find(|around| self.nodes.contains_key(around))
    }

    /// Whether the node's process was started and has not been ended from here.
    pub fn is_running(&self, division: Division) -> bool {
        self.nodes.get(&division).is_some_and(|node| node.process.id().is_some())
    }

    /// The number of a node's process, if it runs.
    pub fn process_id(&self, division: Division) -> Option<u32> {
        self.nodes.get(&division)?.process.id()
    }

    /// Memory of a node's process that is resident, in bytes; pages that it shares with others count in full.
    pub fn rss_bytes(&self, division: Division) -> Option<u64> {
        self.nodes.get(&division)?.process.rss_bytes()
    }

    /// Memory of a node's process, in bytes; pages that it shares with others count in part, so that sums are right.
    pub fn pss_bytes(&self, division: Division) -> Option<u64> {
        self.nodes.get(&division)?.process.pss_bytes()
    }

    /// The most memory of a node's process that was ever resident, in bytes.
    pub fn peak_rss_bytes(&self, division: Division) -> Option<u64> {
        self.nodes.get(&division)?.process.peak_rss_bytes()
    }

    /// Processor time that a node has used since its last start, in seconds.
    pub fn cpu_seconds(&self, division: Division) -> Option<f64> {
        self.nodes.get(&division)?.process.cpu_seconds()
    }

    /// A node's folder: store, certificate, configuration, log.
    pub fn node_dir(&self, division: Division) -> PathBuf {
        self.dir.join(division.to_string())
    }

    /// A node's configuration, written at its start.
    pub fn config_path(&self, division: Division) -> PathBuf {
        process::config_path(&self.node_dir(division))
    }

    /// A node's local socket.
    pub fn socket_path(&self, division: Division) -> PathBuf {
        process::socket_path(&self.node_dir(division))
    }

    /// What a node wrote to standard error, over all its starts.
    pub fn log_path(&self, division: Division) -> PathBuf {
        process::log_path(&self.node_dir(division))
    }

    /// `host:port` where a node listens for mutual TLS, once it was started.
    pub fn address(&self, division: Division) -> Option<String> {
        let node = self.nodes.get(&division)?;
        Some(format!("{}:{}", node.spec.host, node.process.port().get()?))
    }

    /// The authority that issued the nodes' certificates, for more of them.
    pub fn authority(&self) -> &AuthorityDir {
        &self.authority
    }

    /// The program that nodes run.
    pub fn program(&self) -> &Path {
        &self.program
    }

    fn node(&self, division: Division) -> Result<&Node> {
        self.nodes.get(&division).with_context(|| format!("{division} is not in the tree"))
    }

    fn node_mut(&mut self, division: Division) -> Result<&mut Node> {
        self.nodes.get_mut(&division).with_context(|| format!("{division} is not in the tree"))
    }
}
