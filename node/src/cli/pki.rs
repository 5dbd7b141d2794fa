//! `guantong pki`: an authority in a directory, certificates for nodes, partners and operators, and their revocation.
//!
//! It works on files only and needs no running node. It must never print a key, and never overwrite what is there
//! unless told to.

use std::fmt::Write as _;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use guantong_gateway::division::Division;
use serde_json::{Value, json};

use crate::identity::certificate::Certificate;
use crate::identity::pki::dir::{AuthorityDir, IssuedEntry};
use crate::identity::pki::{Request, Validity, read_list_pem};
use crate::identity::revocation::RevocationList;
use crate::identity::words::beijing_time;
use crate::identity::{Subject, TrustDomain};

const OVERVIEW: &str = "\
A first authority and a first pair of nodes:
  guantong pki init --dir authority
  guantong pki issue node 220822 --dir authority --out county --host county.example
  guantong pki issue node 220822101 --dir authority --out town
  guantong pki issue operator li.wei --dir authority --out li.wei

Copy each directory to its machine, as it is. The directory of the authority stays where it is,
best on a machine without a network: whoever has its key can be any node.";

const AUTHORITY: &str = "\
The root stays offline; a prefecture or county gets an authority that can sign for its own divisions only:
  guantong pki issue authority 2208 --dir root --out prefecture-authority
  guantong pki issue node 220822 --dir prefecture-authority --out county --host county.example

Every node checks it: a node's certificate from an authority of 2208 is good inside 2208 only, and an operator's or
partner's from there at the nodes inside 2208 only. Revoke it at the root, and all that it signed is refused.";

/// Certificates: make an authority, issue, show and revoke (证书：签发机构、签发、查看、吊销)
#[derive(Debug, clap::Args)]
#[command(after_help = OVERVIEW)]
pub struct PkiArgs {
    /// Print one JSON object instead of text
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Make a new authority (新建签发机构)
    Init(Init),
    /// Issue a certificate with a new key (签发证书)
    #[command(after_help = OVERVIEW)]
    Issue(Issue),
    /// Show what a certificate or revocation list says (查看证书或吊销列表)
    Show {
        /// A file in PEM form
        file: PathBuf,
    },
    /// List what an authority has issued (列出已签发的证书)
    List(Dir),
    /// Revoke certificates and write a new revocation list (吊销证书并更新吊销列表)
    Revoke(Revoke),
    /// Write the revocation list anew, good for another year (更新吊销列表，有效期一年)
    RenewList(Dir),
}

#[derive(Debug, clap::Args)]
struct Dir {
    /// The authority's directory
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
}

#[derive(Debug, clap::Args)]
struct Init {
    #[command(flatten)]
    dir: Dir,
    /// The name that all identities of this authority share; all nodes that are to be linked need the same
    #[arg(long, value_name = "NAME", default_value = TrustDomain::DEFAULT)]
    trust_domain: TrustDomain,
    /// How long the authority is valid; nothing it issues outlives it
    #[arg(long, value_name = "DAYS", default_value_t = 3650)]
    days: u32,
    /// Replace an authority that is there; every certificate it issued becomes worthless
    #[arg(long)]
    force: bool,
}

#[derive(Debug, clap::Args)]
struct Issue {
    #[command(subcommand)]
    whom: Whom,
}

#[derive(Debug, clap::Subcommand)]
enum Whom {
    /// For the node of a division (节点)
    Node {
        /// The division's code: 2, 4, 6, 9 or 12 digits, never a village
        division: Division,
        /// A DNS name or address by which other nodes dial this one; as often as there are names
        #[arg(long, value_name = "NAME")]
        host: Vec<String>,
        #[command(flatten)]
        common: IssueCommon,
    },
    /// A further authority, for a province, prefecture or county: it signs only for what lies inside (下级签发机构)
    #[command(after_help = AUTHORITY)]
    Authority {
        /// The division's code: 2, 4 or 6 digits, or 12
        division: Division,
        #[command(flatten)]
        dir: Dir,
        /// The directory of the new authority
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
        /// How long it is valid; cut to the validity of the authority that signs it
        #[arg(long, value_name = "DAYS", default_value_t = 1825)]
        days: u32,
        /// Replace an authority that is there; every certificate it issued becomes worthless
        #[arg(long)]
        force: bool,
    },
    /// For an operator: a person or program that acts through a node's API (操作员)
    Operator {
        /// A name of the characters a-z 0-9 . - _
        name: String,
        #[command(flatten)]
        common: IssueCommon,
    },
    /// For a partner system; what it may do is granted at the node (合作方)
    Partner {
        /// A name of the characters a-z 0-9 . - _
        name: String,
        #[command(flatten)]
        common: IssueCommon,
    },
}

#[derive(Debug, clap::Args)]
struct IssueCommon {
    #[command(flatten)]
    dir: Dir,
    /// Where to write certificate.pem, key.pem, authority.pem and revocations.pem
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// How long the certificate is valid
    #[arg(long, value_name = "DAYS", default_value_t = 730)]
    days: u32,
    /// Replace a certificate and key that are there
    #[arg(long)]
    force: bool,
}

#[derive(Debug, clap::Args)]
struct Revoke {
    /// A serial number; a certificate file; or an identity such as node/220822101000, for all its certificates
    what: String,
    #[command(flatten)]
    dir: Dir,
}

/// Runs the command and prints what was done and what comes next.
///
/// # Errors
/// Says what was wrong and what to do; nothing is half done.
pub fn run(args: PkiArgs) -> anyhow::Result<()> {
    let report = report_of(args.command)?;
    let text = if args.json { format!("{:#}\n", report.json) } else { report.text };
    match io::stdout().lock().write_all(text.as_bytes()) {
        // The reader of a pipe has seen enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => Ok(written?),
    }
}

fn report_of(command: Command) -> anyhow::Result<Report> {
    match command {
        Command::Init(init) => run_init(init),
        Command::Issue(issue) => run_issue(issue),
        Command::Show { file } => run_show(&file),
        Command::List(dir) => run_list(&dir),
        Command::Revoke(revoke) => run_revoke(&revoke),
        Command::RenewList(dir) => run_renew_list(&dir),
    }
}

/// The same outcome twice: for people and for programs.
struct Report {
    text: String,
    json: Value,
}

fn run_init(init: Init) -> anyhow::Result<Report> {
    let made = AuthorityDir::create(&init.dir.dir, init.trust_domain, Validity::days(init.days), init.force)?;
    let authority = made.authority();
    let dir = init.dir.dir.display();
    let mut text = format!(
        "Made an authority for {} in {dir}, valid to {}.\n",
        authority.trust_domain(),
        beijing_time(authority.certificate().not_after_ms)
    );
    let _ = writeln!(text, "  {dir}/authority.key    its key: keep it safe and backed up, give it to nobody");
    let _ = writeln!(text, "  {dir}/authority.pem    its certificate: every node gets it");
    let _ = writeln!(text, "  {dir}/revocations.pem  its revocation list, empty so far: every node gets it");
    let _ = writeln!(text, "  {dir}/issued.jsonl     what it has issued: back it up with the key");
    let _ = writeln!(text, "Next: guantong pki issue node DIVISION --dir {dir} --out DIR --host NAME");
    let json = json!({
        "trust_domain": authority.trust_domain().as_str(),
        "dir": init.dir.dir,
        "certificate": authority.certificate(),
    });
    Ok(Report { text, json })
}

fn run_issue(issue: Issue) -> anyhow::Result<Report> {
    let (subject, hosts, common) = match issue.whom {
        Whom::Authority { division, dir, out, days, force } => {
            let made =
                AuthorityDir::open(&dir.dir)?.issue_authority(division, Validity::days(days), &out, force)?;
            return Ok(report_authority(&made));
        }
        Whom::Node { division, host, common } => (Subject::node(division)?, host, common),
        Whom::Operator { name, common } => (Subject::operator(&name)?, Vec::new(), common),
        Whom::Partner { name, common } => (Subject::partner(&name)?, Vec::new(), common),
    };
    let is_node = matches!(subject, Subject::Node(_));
    let mut request = Request::new(subject, Validity::days(common.days));
    for host in &hosts {
        request = request.host(host)?;
    }
    let authority = AuthorityDir::open(&common.dir.dir)?;
    let (issued, files) = authority.issue(&request, &common.out, common.force)?;
    let mut text = format!(
        "Issued a certificate for {}, valid to {}, serial {}.\n",
        issued.id,
        beijing_time(issued.not_after_ms),
        issued.serial
    );
    for file in &files {
        let _ = writeln!(text, "  {}", file.display());
    }
    if is_node && hosts.is_empty() {
        let _ = writeln!(
            text,
            "It names no host, so this node can dial but nobody can dial it: right for a township, which no other \
             node dials. Otherwise issue again with --host NAME and --force."
        );
    }
    let _ = writeln!(
        text,
        "Next: copy {} to its machine, readable by its user only (key.pem keeps mode 0600), {}.",
        common.out.display(),
        if is_node {
            "and name the four files in the node's configuration"
        } else {
            "and name the files when connecting to a node"
        }
    );
    let json = json!({
        "id": issued.id.to_string(),
        "serial": issued.serial,
        "not_after_ms": issued.not_after_ms,
        "hosts": hosts,
        "files": files,
    });
    Ok(Report { text, json })
}

fn report_authority(made: &AuthorityDir) -> Report {
    let authority = made.authority();
    let certificate = authority.certificate();
    let dir = made.dir().display();
    let mut text = format!(
        "Made the authority {} in {dir}, valid to {}, serial {}.\n",
        authority.scope(),
        beijing_time(certificate.not_after_ms),
        certificate.serial
    );
    let _ = writeln!(
        text,
        "Next: move {dir} to where certificates are to be issued, and delete it here; it is used as any other: \
         guantong pki issue node DIVISION --dir {dir} --out DIR"
    );
    let json = json!({
        "id": authority.scope().to_string(),
        "serial": certificate.serial,
        "not_after_ms": certificate.not_after_ms,
        "dir": made.dir(),
    });
    Report { text, json }
}

fn run_show(file: &Path) -> anyhow::Result<Report> {
    let pem =
        std::fs::read(file).with_context(|| format!("cannot read {} (无法读取文件)", file.display()))?;
    if let Some(list) = read_list_pem(&pem) {
        return Ok(show_list(&list));
    }
    let certificate = Certificate::read_pem(&pem).with_context(|| file.display().to_string())?;
    let identity = certificate.identity();
    let mut text = String::new();
    let mut line = |name: &str, value: &str| {
        let _ = writeln!(text, "{name:<11} {value}");
    };
    match &identity {
        Ok(id) => line("identity", &id.to_string()),
        Err(_) if certificate.is_authority => {
            line("authority", &format!("of {}", certificate.uris.join(", ")))
        }
        Err(problem) => line("identity", &format!("none: {problem}")),
    }
    line("subject", &certificate.subject);
    line("issuer", &certificate.issuer);
    line("serial", &certificate.serial);
    line("valid from", &format!("{} (Beijing time)", beijing_time(certificate.not_before_ms)));
    line("valid to", &format!("{} (Beijing time)", beijing_time(certificate.not_after_ms)));
    if !certificate.is_authority {
        let addresses = certificate.addresses.iter().map(ToString::to_string);
        let hosts: Vec<_> = certificate.dns_names.iter().cloned().chain(addresses).collect();
        line(
            "hosts",
            &if hosts.is_empty() { "none: it cannot be dialled".to_owned() } else { hosts.join(", ") },
        );
        let uses = [(certificate.may_dial, "dial"), (certificate.may_serve, "accept")];
        let uses: Vec<_> = uses.iter().filter(|(may, _)| *may).map(|(_, name)| *name).collect();
        line("may", &uses.join(", "));
    }
    let mut json = serde_json::to_value(&certificate)?;
    if let (Some(object), Ok(id)) = (json.as_object_mut(), identity) {
        object.insert("id".to_owned(), Value::String(id.to_string()));
    }
    Ok(Report { text, json })
}

fn show_list(list: &RevocationList) -> Report {
    let mut text = format!("revocation list of {}\n", list.issuer);
    let _ = writeln!(text, "made        {} (Beijing time)", beijing_time(list.this_update_ms));
    if let Some(due) = list.next_update_ms {
        let _ = writeln!(text, "good until  {} (Beijing time)", beijing_time(due));
    }
    let _ = writeln!(text, "revoked     {}", list.serials.len());
    for serial in &list.serials {
        let _ = writeln!(text, "  {serial}");
    }
    let json = json!({
        "issuer": list.issuer,
        "number": list.number(),
        "this_update_ms": list.this_update_ms,
        "next_update_ms": list.next_update_ms,
        "revoked": list.serials,
    });
    Report { text, json }
}

fn run_list(dir: &Dir) -> anyhow::Result<Report> {
    let entries = AuthorityDir::open(&dir.dir)?.issued()?;
    let mut text = String::new();
    for entry in &entries {
        let state = match entry.revoked_at_ms {
            Some(at) => format!("revoked {}", beijing_time(at)),
            None => format!("valid to {}", beijing_time(entry.not_after_ms)),
        };
        let _ = writeln!(text, "{}  {state}  {}", entry.serial, entry.id);
    }
    let _ = writeln!(text, "{} issued", entries.len());
    Ok(Report { text, json: json!({ "issued": entries }) })
}

fn run_revoke(revoke: &Revoke) -> anyhow::Result<Report> {
    let authority = AuthorityDir::open(&revoke.dir.dir)?;
    // A file is named by its holder; inside the authority it is its serial number that counts.
    let what = match std::fs::read(&revoke.what) {
        Ok(pem) => Certificate::read_pem(&pem).with_context(|| revoke.what.clone())?.serial,
        Err(_) => revoke.what.clone(),
    };
    let revoked: Vec<IssuedEntry> = authority.revoke(&what)?;
    let [_, list] = authority.public_files();
    let mut text = String::new();
    for entry in &revoked {
        let _ = writeln!(text, "Revoked {} of {}.", entry.serial, entry.id);
    }
    let _ = writeln!(
        text,
        "Next: copy {} to every node that others dial, over its revocations.pem, and reload it; its links with the \
         revoked certificate end at once. Until then they stay.",
        list.display()
    );
    Ok(Report { text, json: json!({ "revoked": revoked, "list": list }) })
}

fn run_renew_list(dir: &Dir) -> anyhow::Result<Report> {
    let authority = AuthorityDir::open(&dir.dir)?;
    authority.renew_list()?;
    let [_, list] = authority.public_files();
    let text = format!("Wrote {}. Next: copy it to every node and reload.\n", list.display());
    Ok(Report { text, json: json!({ "list": list }) })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use clap::Parser as _;

    #[derive(Debug, clap::Parser)]
    struct Program {
        #[command(flatten)]
        pki: PkiArgs,
    }

    fn guantong_pki(line: &str) -> anyhow::Result<Report> {
        let args = Program::try_parse_from(std::iter::once("pki").chain(line.split(' ')))?;
        report_of(args.pki.command)
    }

    #[test]
    fn an_authority_from_its_making_to_a_revocation() {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path().display();
        guantong_pki(&format!("init --dir {at}/ca --trust-domain example.gov.cn")).unwrap();
        let issue =
            format!("issue node 220822101 --dir {at}/ca --out {at}/town --host town.example --host 10.0.0.1");
        let issued = guantong_pki(&issue).unwrap();
        assert_eq!(issued.json["id"], "spiffe://example.gov.cn/node/220822101000");
        let again = guantong_pki(&issue).err().unwrap().to_string();
        assert!(again.contains("--force"), "{again}");
        guantong_pki(&format!("issue operator li.wei --dir {at}/ca --out {at}/li")).unwrap();
        guantong_pki(&format!("issue partner data --dir {at}/ca --out {at}/data")).unwrap();

        let shown = guantong_pki(&format!("show {at}/town/certificate.pem")).unwrap();
        assert_eq!(shown.json["serial"], issued.json["serial"]);
        for part in ["spiffe://example.gov.cn/node/220822101000", "town.example, 10.0.0.1", "dial, accept"] {
            assert!(shown.text.contains(part), "{}", shown.text);
        }
        assert!(
            guantong_pki(&format!("show {at}/ca/authority.pem")).unwrap().text.contains("example.gov.cn")
        );

        guantong_pki(&format!("revoke {at}/town/certificate.pem --dir {at}/ca")).unwrap();
        guantong_pki(&format!("revoke operator/li.wei --dir {at}/ca")).unwrap();
        let list = guantong_pki(&format!("show {at}/ca/revocations.pem")).unwrap();
        assert_eq!(list.json["revoked"].as_array().unwrap().len(), 2);
        guantong_pki(&format!("renew-list --dir {at}/ca")).unwrap();
        let listed = guantong_pki(&format!("list --dir {at}/ca")).unwrap();
        assert!(listed.text.ends_with("3 issued\n"), "{}", listed.text);
    }

    #[test]
    fn what_cannot_be_is_said() {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path().display();
        let missing =
            guantong_pki(&format!("issue node 22 --dir {at} --out {at}/x")).err().unwrap().to_string();
        assert!(missing.contains("guantong pki init"), "{missing}");
        guantong_pki(&format!("init --dir {at}/ca")).unwrap();
        for (line, part) in [
            ("issue node 220822101001", "village"),
            ("issue node 2208221", "digits"),
            ("issue operator LiWei", "a-z"),
            ("issue node 220822 --host https://x", "without port"),
        ] {
            let error =
                guantong_pki(&format!("{line} --dir {at}/ca --out {at}/x")).err().unwrap().to_string();
            assert!(error.contains(part), "{line}: {error}");
        }
        assert!(guantong_pki("show Cargo.toml").is_err());
        assert!(!dir.path().join("x").exists());
    }
}
