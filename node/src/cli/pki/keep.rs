//! What keeps an authority going: its making, its revocation list, what it hands to everyone, and its replacement.
//!
//! It must never take a list or a root out of use that somebody may still need.

use std::fmt::Write as _;
use std::path::PathBuf;

use anyhow::Context as _;
use serde_json::json;

use super::{Dir, Init, Report};
use crate::identity::certificate::Certificate;
use crate::identity::pki::Validity;
use crate::identity::pki::dir::{AuthorityDir, IssuedEntry};
use crate::identity::words::beijing_time;

#[derive(Debug, clap::Args)]
pub(super) struct Revoke {
    /// A serial number; a certificate file; or an identity such as node/220822101000, for all its certificates
    what: String,
    #[command(flatten)]
    dir: Dir,
}

#[derive(Debug, clap::Args)]
pub(super) struct Export {
    #[command(flatten)]
    dir: Dir,
    /// Where to write authority.pem and revocations.pem; newer lists that are there stay
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Replace other roots that are there
    #[arg(long)]
    force: bool,
}

#[derive(Debug, clap::Args)]
pub(super) struct TakeOver {
    #[command(flatten)]
    dir: Dir,
    /// A directory with authority.pem and revocations.pem, as `guantong pki export` writes them
    #[arg(long, value_name = "DIR")]
    from: PathBuf,
}

#[derive(Debug, clap::Args)]
pub(super) struct Rotate {
    #[command(flatten)]
    dir: Dir,
    /// How long the new root is valid
    #[arg(long, value_name = "DAYS", default_value_t = 3650)]
    days: u32,
}

pub(super) fn export(args: &Export) -> anyhow::Result<Report> {
    let files = AuthorityDir::open(&args.dir.dir)?.export(&args.out, args.force)?;
    let mut text = "Wrote what every node and partner needs:\n".to_owned();
    for file in &files {
        let _ = writeln!(text, "  {}", file.display());
    }
    let _ = writeln!(
        text,
        "Next: copy them to each node, over its files; a running node takes them over by itself."
    );
    Ok(Report { text, json: json!({ "files": files }) })
}

pub(super) fn take_over(args: &TakeOver) -> anyhow::Result<Report> {
    let read = |name: &str| {
        let path = args.from.join(name);
        std::fs::read_to_string(&path)
            .with_context(|| format!("cannot read {} (无法读取文件)", path.display()))
    };
    let authority = AuthorityDir::open(&args.dir.dir)?;
    authority.take_over(&read("authority.pem")?, &read("revocations.pem")?)?;
    let files = authority.public_files();
    let text = "Took over the roots and lists; they go out with all that is issued from now on.\n".to_owned();
    Ok(Report { text, json: json!({ "files": files }) })
}

pub(super) fn rotate(args: &Rotate) -> anyhow::Result<Report> {
    let old = AuthorityDir::open(&args.dir.dir)?;
    let new = old.rotate(Validity::days(args.days))?;
    let (old, new) = (old.authority().certificate(), new.authority().certificate());
    let dir = args.dir.dir.display();
    let mut text = format!(
        "Replaced the root by a new one, valid to {}. The old one goes on beside it until {}; its files are in \
         {dir}/previous: keep and back up both.\n",
        beijing_time(new.not_after_ms),
        beijing_time(old.not_after_ms)
    );
    let _ = writeln!(text, "Next: guantong pki export --dir {dir} --out FOLDER, and copy it to every node.");
    Ok(Report { text, json: json!({ "certificate": new, "previous": old }) })
}

pub(super) fn init(init: Init) -> anyhow::Result<Report> {
    let made = AuthorityDir::create(&init.dir.dir, init.trust_domain, Validity::days(init.days), init.force)?;
    let authority = made.authority();
    let dir = init.dir.dir.display();
    let mut text = format!(
        "Made an authority for {} in {dir}, valid to {}.\n",
        authority.trust_domain(),
        beijing_time(authority.certificate().not_after_ms)
    );
    let _ = writeln!(text, "  {dir}/authority.key    its key: keep it safe and backed up, give it to nobody");
    let _ = writeln!(
        text,
        "  {dir}/authority.pem    its certificate: every node gets it, with the revocation list"
    );
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

pub(super) fn revoke(args: &Revoke) -> anyhow::Result<Report> {
    let authority = AuthorityDir::open(&args.dir.dir)?;
    // A file is named by its holder; inside the authority it is its serial number that counts.
    let what = match std::fs::read(&args.what) {
        Ok(pem) => Certificate::read_pem(&pem).with_context(|| args.what.clone())?.serial,
        Err(_) => args.what.clone(),
    };
    let revoked: Vec<IssuedEntry> = authority.revoke(&what)?;
    let [_, list] = authority.public_files();
    let mut text = String::new();
    for entry in &revoked {
        let _ = writeln!(text, "Revoked {} of {}.", entry.serial, entry.id);
    }
    let _ = writeln!(
        text,
        "A running node with this directory as its [authority] takes the list over within seconds, ends the links of \
         what was revoked, and passes it on to every node below. Otherwise: copy {} to the node at the top, over its \
         revocations.pem.",
        list.display()
    );
    Ok(Report { text, json: json!({ "revoked": revoked, "list": list }) })
}

pub(super) fn renew_list(dir: &Dir) -> anyhow::Result<Report> {
    let authority = AuthorityDir::open(&dir.dir)?;
    authority.renew_list()?;
    let [_, list] = authority.public_files();
    let text = format!("Wrote {}. Next: copy it to every node and reload.\n", list.display());
    Ok(Report { text, json: json!({ "list": list }) })
}
