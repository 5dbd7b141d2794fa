//! The commands on directories of their own, from the line that is typed to the files.

use super::*;
use std::path::Path;

use clap::Parser as _;

use crate::identity::IdentityFiles;
use crate::identity::tls::Identity;

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
    assert!(guantong_pki(&format!("show {at}/ca/authority.pem")).unwrap().text.contains("example.gov.cn"));

    guantong_pki(&format!("revoke {at}/town/certificate.pem --dir {at}/ca")).unwrap();
    guantong_pki(&format!("revoke operator/li.wei --dir {at}/ca")).unwrap();
    let list = guantong_pki(&format!("show {at}/ca/revocations.pem")).unwrap();
    assert_eq!(list.json["lists"][0]["revoked"].as_array().unwrap().len(), 2);
    guantong_pki(&format!("renew-list --dir {at}/ca")).unwrap();
    let listed = guantong_pki(&format!("list --dir {at}/ca")).unwrap();
    assert!(listed.text.ends_with("3 issued\n"), "{}", listed.text);
}

#[test]
fn what_cannot_be_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path().display();
    let missing = guantong_pki(&format!("issue node 22 --dir {at} --out {at}/x")).err().unwrap().to_string();
    assert!(missing.contains("guantong pki init"), "{missing}");
    guantong_pki(&format!("init --dir {at}/ca")).unwrap();
    for (line, part) in [
        ("issue node 220822101001", "village"),
        ("issue node 2208221", "digits"),
        ("issue operator LiWei", "a-z"),
        ("issue node 220822 --host https://x", "without port"),
    ] {
        let error = guantong_pki(&format!("{line} --dir {at}/ca --out {at}/x")).err().unwrap().to_string();
        assert!(error.contains(part), "{line}: {error}");
    }
    assert!(guantong_pki("show Cargo.toml").is_err());
    assert!(!dir.path().join("x").exists());
}

#[test]
fn a_key_stays_where_it_was_made() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path().display();
    guantong_pki(&format!("init --dir {at}/root")).unwrap();
    guantong_pki(&format!("request --out {at}/town")).unwrap();
    let again = guantong_pki(&format!("request --out {at}/town")).err().unwrap().to_string();
    assert!(again.contains("--force"), "{again}");
    let sign = |what: &str| {
        guantong_pki(&format!(
            "sign-request {at}/town/request.pem --for {what} --dir {at}/root --out {at}/signed"
        ))
    };
    for (what, part) in [
        ("node/2208", "12 digits"),
        ("nobody", "/node/DIVISION"),
        ("authority/220822 --host a", "leave out --host"),
    ] {
        let error = sign(what).err().unwrap().to_string();
        assert!(error.contains(part), "{what}: {error}");
    }
    let signed = sign("node/220822101000 --host town.example").unwrap();
    assert_eq!(signed.json["id"], "spiffe://guantong.local/node/220822101000");
    assert_eq!(signed.json["files"].as_array().unwrap().len(), 3, "no key among them");
    for name in ["certificate.pem", "authority.pem", "revocations.pem"] {
        std::fs::copy(dir.path().join("signed").join(name), dir.path().join("town").join(name)).unwrap();
    }
    let load = || Identity::load(&IdentityFiles::in_dir(&dir.path().join("town"))).unwrap();
    let before = load();
    let renew = format!("renew {at}/town/certificate.pem --dir {at}/root --out {at}/town --days 9");
    let renewed = guantong_pki(&renew).unwrap();
    assert_eq!(renewed.json["replaces"], before.certificate().serial.as_str());
    assert_eq!(load().certificate().serial, renewed.json["serial"].as_str().unwrap());
    assert_eq!(load().certificate().dns_names, ["town.example"]);
    let shown = guantong_pki(&format!("show {at}/town/certificate.pem")).unwrap();
    assert!(shown.text.contains("P-256"), "{}", shown.text);
    let listed = guantong_pki(&format!("list --dir {at}/root")).unwrap();
    assert!(listed.text.ends_with("2 issued\n"), "{}", listed.text);
}

#[test]
fn a_prefecture_signs_for_itself_and_the_root_is_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path().display();
    guantong_pki(&format!("init --dir {at}/root")).unwrap();
    let made = guantong_pki(&format!("issue authority 2208 --dir {at}/root --out {at}/p")).unwrap();
    assert_eq!(made.json["id"], "spiffe://guantong.local/authority/220800000000");
    // Or with a key that is made at the prefecture.
    guantong_pki(&format!("request --authority --out {at}/q")).unwrap();
    guantong_pki(&format!(
        "sign-request {at}/q/request.pem --for authority/220800000000 --dir {at}/root --out {at}/q"
    ))
    .unwrap();
    guantong_pki(&format!("renew-list --dir {at}/q")).unwrap();
    let rotated = guantong_pki(&format!("rotate --dir {at}/root")).unwrap();
    assert_ne!(rotated.json["certificate"]["serial"], rotated.json["previous"]["serial"]);
    guantong_pki(&format!("export --dir {at}/root --out {at}/public")).unwrap();
    for authority in ["p", "q"] {
        guantong_pki(&format!("take-over --dir {at}/{authority} --from {at}/public")).unwrap();
        let renew = format!("renew {at}/{authority}/authority.pem --dir {at}/root --out {at}/{authority}");
        guantong_pki(&renew).unwrap();
        let out = format!("{at}/{authority}-county");
        let issued =
            guantong_pki(&format!("issue node 220822 --dir {at}/{authority} --out {out} --host a.example"));
        assert_eq!(issued.unwrap().json["id"], "spiffe://guantong.local/node/220822000000");
        let identity = Identity::load(&IdentityFiles::in_dir(Path::new(&out))).unwrap();
        assert_eq!(identity.warnings(), []);
        let outside = guantong_pki(&format!("issue node 2201 --dir {at}/{authority} --out {at}/x"));
        assert!(outside.err().unwrap().to_string().contains("does not lie inside"));
    }
    let export = format!("export --dir {at}/p --out {at}/p-county");
    guantong_pki(&export).unwrap();
    std::fs::write(dir.path().join("p-county/authority.pem"), "other").unwrap();
    assert!(guantong_pki(&export).err().unwrap().to_string().contains("--force"));
}
