//! Namespaces of Linux, for what tests do to disks and networks where only their own processes see it. They need no rights,
//! but a system that lets its users have namespaces of their own.

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Stdio;

use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

/// A process that keeps a namespace until its standard input ends; dropping it lets it go.
pub struct Namespace(Child);

impl Namespace {
    /// Started by `unshare`, complete but for what runs inside: `prepare`, a script with its arguments, makes it ready.
    /// `None`: there can be none here.
    pub async fn hold(mut unshare: Command, prepare: &str, args: &[&str]) -> Option<Namespace> {
        let script = format!("{{ {prepare}; }} && echo ready && exec cat >/dev/null");
        unshare.args(["sh", "-c", &script, "sh"]).args(args);
        unshare.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
        let mut holder = unshare.spawn().ok()?;
        let mut said = String::new();
        BufReader::new(holder.stdout.take()?).read_line(&mut said).await.ok()?;
        (said == "ready\n").then_some(Namespace(holder))
    }

    /// The process that keeps it.
    pub fn id(&self) -> u32 {
        self.0.id().unwrap()
    }

    /// A command inside these of its namespaces, to be completed.
    pub fn enter(&self, namespaces: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        command.arg("--preserve-credentials").args(namespaces);
        command.args(["--target", &self.id().to_string(), "--"]);
        command
    }
}

/// Says past the capture of passing tests what is not tested here: it must be seen.
pub fn skipped(what: &str) {
    let _ = std::io::stderr().write_all(format!("SKIPPED: {what}\n").as_bytes());
}

/// Writes a program.
pub fn write_script(path: &Path, script: &str) {
    std::fs::write(path, script).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700)).unwrap();
}
