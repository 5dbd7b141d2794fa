//! What certificates, revocation lists and an authority's record say.
//!
//! It must never show a key.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::Context as _;
use rustls::pki_types::CertificateRevocationListDer;
use rustls::pki_types::pem::PemObject as _;
use serde_json::{Value, json};

use super::{Dir, Report};
use crate::identity::certificate::Certificate;
use crate::identity::pki::dir::AuthorityDir;
use crate::identity::revocation::RevocationList;
use crate::identity::words::beijing_time;

pub(super) fn show(file: &Path) -> anyhow::Result<Report> {
    let pem =
        std::fs::read(file).with_context(|| format!("cannot read {} (无法读取文件)", file.display()))?;
    let lists = CertificateRevocationListDer::pem_slice_iter(&pem).filter_map(Result::ok);
    let lists: Vec<_> = lists.filter_map(|der| RevocationList::read(&der)).collect();
    if !lists.is_empty() {
        return Ok(show_lists(&lists));
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
    line("key", &certificate.key.to_string());
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

/// A file holds the lists of all authorities of a chain.
fn show_lists(lists: &[RevocationList]) -> Report {
    let mut text = String::new();
    for list in lists {
        let _ = writeln!(text, "revocation list of {}", list.issuer);
        let _ = writeln!(text, "made        {} (Beijing time)", beijing_time(list.this_update_ms));
        if let Some(due) = list.next_update_ms {
            let _ = writeln!(text, "good until  {} (Beijing time)", beijing_time(due));
        }
        let _ = writeln!(text, "revoked     {}", list.serials.len());
        for serial in &list.serials {
            let _ = writeln!(text, "  {serial}");
        }
    }
    let all: Vec<Value> = lists
        .iter()
        .map(|list| {
            json!({
                "issuer": list.issuer,
                "number": list.number(),
                "this_update_ms": list.this_update_ms,
                "next_update_ms": list.next_update_ms,
                "revoked": list.serials,
            })
        })
        .collect();
    Report { text, json: json!({ "lists": all }) }
}

pub(super) fn list(dir: &Dir) -> anyhow::Result<Report> {
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
