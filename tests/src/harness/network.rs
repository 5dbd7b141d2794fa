//! Lines that the system's own network carries: each node has a network namespace, and each line is a pair of virtual
//! devices between two of them, taken down, silenced or made slow by the kernel. It needs no rights, but a system that lets
//! its users have namespaces of their own, and the programs `ip` and `tc`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use guantong::demo::tree::{LineState, Slowness};
use guantong_gateway::division::Division;
use tempfile::TempDir;
use tokio::process::Command;

use super::namespace::{Namespace, skipped, write_script};

/// Makes a network ready. The arguments are a node's address, or nothing.
const PREPARE: &str = r#"command -v tc >/dev/null && ip link set lo up &&
{ [ $# = 0 ] || ip addr add "$1/32" dev lo; }"#;
/// A child's device towards its parent.
const ABOVE: &str = "above";
/// At either end of a line, whatever was done to it: device, the other end's address, its own.
const CARRY: &str = r#"tc qdisc del dev "$1" root 2>/dev/null
ip link set "$1" up && ip route replace "$2" dev "$1" src "$3""#;
/// Nothing leaves the device, and nobody is told.
const SILENCE: &str = r#"tc qdisc replace dev "$1" root pfifo limit 0"#;
/// Device, delay in ms, bits and bytes per second, and how much is lost, in percent. A kernel without delays has narrow lines,
/// which lose what a second cannot carry.
const SLOW: &str = r#"tc qdisc replace dev "$1" root netem delay "$2ms" rate "$3bit" loss "$5%" 2>/dev/null ||
tc qdisc replace dev "$1" root tbf rate "$3bit" burst 3000 limit "$4""#;
/// Starts a program in the namespace of the node whose configuration is the fourth argument.
const ENTER: &str = r#"#!/bin/sh
node=$(basename "$(dirname "$4")")
exec nsenter --preserve-credentials --user --net --target "$(cat "FOLDER/$node")" -- 'PROGRAM' "$@"
"#;

/// Runs a script in a node's network.
async fn run(namespace: &Namespace, script: &str, args: &[&str]) {
    let mut command = namespace.enter(&["--user", "--net"]);
    let done =
        command.args(["sh", "-c", script, "sh"]).args(args).env("PATH", path()).output().await.unwrap();
    assert!(done.status.success(), "{script} {args:?}: {}", String::from_utf8_lossy(&done.stderr));
}

/// Where `ip` and `tc` are, for those too who are no administrators.
fn path() -> String {
    std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin"
}

struct Member {
    namespace: Namespace,
    address: String,
    /// Its parent, and its parent's device towards it.
    parent: Option<(Division, String)>,
}

impl Member {
    async fn slow(&self, device: &str, slowness: Slowness) {
        let Slowness { delay, bytes_per_s, lost_one_in } = slowness;
        let (bits_per_s, lost_percent) = (u64::from(bytes_per_s) * 8, 100 / lost_one_in.max(1));
        let numbers = [delay.as_millis() as u64, bits_per_s, u64::from(bytes_per_s), u64::from(lost_percent)];
        let [delay_ms, bits_per_s, bytes_per_s, lost_percent] = &numbers.map(|number| number.to_string());
        run(&self.namespace, SLOW, &[device, delay_ms, bits_per_s, bytes_per_s, lost_percent]).await;
    }
}

/// The networks of a tree, and the lines between them.
pub struct Network {
    owner: Namespace,
    members: BTreeMap<Division, Member>,
    folder: TempDir,
}

impl Network {
    /// Without nodes. `None`, and said so: there can be none here.
    pub async fn open() -> Option<Network> {
        let mut unshare = Command::new("unshare");
        unshare.args(["--user", "--map-root-user", "--net"]).env("PATH", path());
        let Some(owner) = Namespace::hold(unshare, PREPARE, &[]).await else {
            skipped(
                "lines of the kernel; no namespaces for users here (unshare --user --net), or no ip and tc",
            );
            return None;
        };
        let folder = tempfile::Builder::new().prefix("gtn").tempdir().unwrap();
        Some(Network { owner, members: BTreeMap::new(), folder })
    }

    /// A node's network, with a line to its parent's, which is there already. Gives the node's address.
    pub async fn join(&mut self, node: Division, parent: Option<Division>) -> String {
        let place = self.members.len() + 1;
        let address = format!("10.99.0.{place}");
        let mut unshare = self.owner.enter(&["--user"]);
        unshare.args(["unshare", "--net"]).env("PATH", path());
        let namespace =
            Namespace::hold(unshare, PREPARE, &[&address]).await.expect("no namespace for a node");
        std::fs::write(self.folder.path().join(node.to_string()), namespace.id().to_string()).unwrap();
        let parent = parent.map(|parent| (parent, format!("below{place}")));
        if let Some((parent, device)) = &parent {
            let [below, above] = [&namespace, &self.members[parent].namespace].map(|n| n.id().to_string());
            let line = r#"ip link add "$1" netns "$2" type veth peer name "$3" netns "$4""#;
            run(&self.owner, line, &[ABOVE, &below, device, &above]).await;
        }
        self.members.insert(node, Member { namespace, address: address.clone(), parent });
        self.set_line(node, LineState::Whole).await;
        address
    }

    /// A program as nodes of a [`Tree`](guantong::demo::tree::Tree) run it, each in its own network.
    pub fn program(&self, program: &Path) -> PathBuf {
        let path = self.folder.path().join(program.file_name().unwrap());
        if !path.exists() {
            let folder = self.folder.path().to_str().unwrap();
            let script = ENTER.replace("FOLDER", folder).replace("PROGRAM", program.to_str().unwrap());
            write_script(&path, &script);
        }
        path
    }

    /// Makes the line of a child to its parent like this. One that is cut is down at the child's end: nothing can be sent
    /// there, and what was on its way is lost.
    pub async fn set_line(&self, child: Division, state: LineState) {
        let below = &self.members[&child];
        let Some((parent, device)) = &below.parent else { return };
        let above = &self.members[parent];
        for (own, device, other) in [(below, ABOVE, above), (above, device.as_str(), below)] {
            match state {
                LineState::Whole => run(&own.namespace, CARRY, &[device, &other.address, &own.address]).await,
                LineState::Silent => run(&own.namespace, SILENCE, &[device]).await,
                LineState::Slow(slowness) => own.slow(device, slowness).await,
                LineState::Cut if device == ABOVE => {
                    run(&own.namespace, r#"ip link set "$1" down"#, &[device]).await
                }
                LineState::Cut => {}
            }
        }
    }
}
