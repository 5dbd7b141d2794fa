//! Certificates signed: with a new key, for a key that stays elsewhere, or anew for another while.
//!
//! A key that is made here must never be readable by others, nor printed.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use guantong_gateway::division::Division;
use serde_json::json;

use super::{Dir, Report};
use crate::identity::pki::dir::{AuthorityDir, make_request_in};
use crate::identity::pki::{Below, Request, Validity};
use crate::identity::words::beijing_time;
use crate::identity::{SpiffeId, Subject};

const AUTHORITY: &str = "\
The root stays offline; a prefecture or county gets an authority that can sign for its own divisions only:
  guantong pki issue authority 2208 --dir root --out prefecture-authority
  guantong pki issue node 220822 --dir prefecture-authority --out county --host county.example

Every node checks it: a node's certificate from an authority of 2208 is good inside 2208 only, and an operator's or
partner's from there at the nodes inside 2208 only. Revoke it at the root, and all that it signed is refused.";

#[derive(Debug, clap::Args)]
pub(super) struct Issue {
    #[command(subcommand)]
    whom: Whom,
}

#[derive(Debug, clap::Subcommand)]
pub(super) enum Whom {
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
pub(super) struct IssueCommon {
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

pub(super) fn issue(issue: Issue) -> anyhow::Result<Report> {
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
    write_files(&mut text, &files);
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

#[derive(Debug, clap::Args)]
pub(super) struct MakeRequest {
    /// Where to write the key and request.pem
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// For an authority: the key is named authority.key instead of key.pem
    #[arg(long)]
    authority: bool,
    /// Replace a key that is there; its certificate becomes worthless
    #[arg(long)]
    force: bool,
}

#[derive(Debug, clap::Args)]
pub(super) struct SignRequest {
    /// The request in PEM form, as `guantong pki request` or openssl made it; only its key counts
    request: PathBuf,
    /// Whom for: node/DIVISION, operator/NAME, partner/NAME or authority/DIVISION, the division with 12 digits
    #[arg(long = "for", value_name = "IDENTITY")]
    identity: String,
    #[command(flatten)]
    dir: Dir,
    /// Where to write the certificate, authority.pem and revocations.pem
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// For a node: a DNS name or address by which others dial it; as often as there are names
    #[arg(long, value_name = "NAME")]
    host: Vec<String>,
    /// How long the certificate is valid
    #[arg(long, value_name = "DAYS", default_value_t = 730)]
    days: u32,
    /// Replace a certificate that is there
    #[arg(long)]
    force: bool,
}

#[derive(Debug, clap::Args)]
pub(super) struct Renew {
    /// The certificate, of a node, partner, operator or authority; its key is not needed
    certificate: PathBuf,
    #[command(flatten)]
    dir: Dir,
    /// Where to write the new one; the directory of the old one will do
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// How long it is valid from now
    #[arg(long, value_name = "DAYS", default_value_t = 730)]
    days: u32,
}

pub(super) fn make_request(args: &MakeRequest) -> anyhow::Result<Report> {
    let files = make_request_in(&args.out, args.authority, args.force)?;
    let mut text = "Made a key and a request for a certificate of it.\n".to_owned();
    write_files(&mut text, &files);
    let _ = writeln!(
        text,
        "Next: take request.pem, and nothing else, to the authority: guantong pki sign-request request.pem \
         --for IDENTITY --dir DIR --out DIR"
    );
    Ok(Report { text, json: json!({ "files": files }) })
}

pub(super) fn sign_request(args: &SignRequest) -> anyhow::Result<Report> {
    let request_pem = read(&args.request)?;
    let authority = AuthorityDir::open(&args.dir.dir)?;
    let validity = Validity::days(args.days);
    let (id, serial, not_after_ms, files) = match args.identity.strip_prefix("authority/") {
        Some(division) => {
            if !args.host.is_empty() {
                bail!("an authority is not dialled: leave out --host (签发机构不需要 --host)");
            }
            let division = Division::parse(division)?;
            let (signed, files) =
                authority.sign_authority_to(&request_pem, division, validity, &args.out, args.force)?;
            (signed.uris.join(" "), signed.serial, signed.not_after_ms, files)
        }
        None => {
            let full = format!("{}/{}", authority.authority().trust_domain().uri(), args.identity);
            let mut request = Request::new(SpiffeId::parse(&full)?.subject, validity);
            for host in &args.host {
                request = request.host(host)?;
            }
            let (signed, files) = authority.sign_request_to(&request_pem, &request, &args.out, args.force)?;
            (signed.id.to_string(), signed.serial, signed.not_after_ms, files)
        }
    };
    let mut text = format!("Signed for {id}, valid to {}, serial {serial}.\n", beijing_time(not_after_ms));
    write_files(&mut text, &files);
    let _ = writeln!(text, "Next: copy these files to where the key is.");
    if args.identity.starts_with("authority/") {
        let _ = writeln!(text, "There, add the new authority's own list: guantong pki renew-list --dir DIR");
    }
    let json = json!({ "id": id, "serial": serial, "not_after_ms": not_after_ms, "files": files });
    Ok(Report { text, json })
}

pub(super) fn renew(args: &Renew) -> anyhow::Result<Report> {
    let old = read(&args.certificate)?;
    let authority = AuthorityDir::open(&args.dir.dir)?;
    let (renewed, files) = authority.renew(&old, Validity::days(args.days), &args.out)?;
    let (id, serial, not_after_ms) = match renewed.signed {
        Below::Holder(signed) => (signed.id.to_string(), signed.serial, signed.not_after_ms),
        Below::Authority(chain) => {
            let signed = crate::identity::certificate::Certificate::read_pem(chain.as_bytes())?;
            (signed.uris.join(" "), signed.serial, signed.not_after_ms)
        }
    };
    let mut text = format!("Renewed {id}, valid to {}, serial {serial}.\n", beijing_time(not_after_ms));
    write_files(&mut text, &files);
    let _ = writeln!(
        text,
        "Next: copy these files over the old ones; a running node takes them over by itself. The old certificate stays \
         good until it ends."
    );
    let json = json!({
        "id": id,
        "serial": serial,
        "replaces": renewed.old_serial,
        "not_after_ms": not_after_ms,
        "files": files,
    });
    Ok(Report { text, json })
}

fn read(file: &Path) -> anyhow::Result<String> {
    std::fs::read_to_string(file).with_context(|| format!("cannot read {} (无法读取文件)", file.display()))
}

fn write_files(text: &mut String, files: &[PathBuf]) {
    for file in files {
        let _ = writeln!(text, "  {}", file.display());
    }
}
