//! What stands in `deploy/` is what the program takes: every configuration is read by the program itself, its optional
//! settings too, and the four together make a tree.

#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};

use guantong::config::Config;
use guantong_gateway::division::Tier;

const TIERS: [(&str, Tier); 4] = [
    ("township", Tier::Township),
    ("county", Tier::County),
    ("prefecture", Tier::Prefecture),
    ("province", Tier::Province),
];

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/config").join(name).with_extension("toml")
}

/// A configuration as it stands there.
fn plain(name: &str) -> Config {
    Config::load(&file(name)).unwrap()
}

/// The key that a line sets, without its mark if it is left out.
fn key(line: &str) -> Option<&str> {
    let (key, _) = line.trim_start_matches('#').split_once(" = ")?;
    key.chars().all(|c| c.is_ascii_lowercase() || c == '_').then_some(key)
}

/// A configuration with everything that it leaves out.
fn with_options(name: &str) -> (Config, usize) {
    let text = std::fs::read_to_string(file(name)).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let mut taken = String::new();
    let mut options = 0;
    for (i, line) in lines.iter().enumerate() {
        let replaced = lines.get(i + 1).is_some_and(|next| next.starts_with('#') && key(next) == key(line));
        // A limit of the file has no place beside a database.
        let excluded =
            lines[i] == "#store_max_mib = 4096" && lines.iter().any(|l| l.starts_with("#store = "));
        if replaced && key(line).is_some() || excluded {
            continue;
        }
        let option = line.starts_with('#') && key(line).is_some() || line.starts_with("#[");
        options += usize::from(option);
        taken.push_str(if option { &line[1..] } else { line });
        taken.push('\n');
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("node.toml");
    std::fs::write(&path, taken).unwrap();
    (Config::load(&path).unwrap(), options)
}

#[test]
fn each_tier_has_a_configuration_that_the_program_takes() {
    for (name, tier) in TIERS {
        let config = plain(name);
        assert_eq!(config.division.tier(), tier, "{name}");
        assert_eq!(config.listen.is_some(), tier != Tier::Township, "{name}: a township lets nobody in");
        assert!(
            config.tls.unwrap().revocation_list.is_some(),
            "{name}: without a list nothing is ever revoked"
        );
    }
}

#[test]
fn the_four_make_a_tree() {
    for pair in TIERS.windows(2) {
        let (below, above) = (plain(pair[0].0), plain(pair[1].0));
        let parent = below.parent.unwrap();
        assert_eq!(parent.division, above.division, "{}", pair[0].0);
        let port = parent.address[0].rsplit_once(':').unwrap().1;
        assert!(above.listen.unwrap().ends_with(port), "{}", pair[0].0);
        assert_eq!(below.trust_domain, above.trust_domain);
    }
    assert!(plain("province").parent.is_none());
}

#[test]
fn settings_that_are_left_out_can_be_put_in() {
    for (name, _) in TIERS {
        let (config, options) = with_options(name);
        assert!(options >= 6, "{name} shows {options} settings that are left out");
        assert!(config.store_max_mib.is_some() != config.store.is_some(), "{name}");
        assert!(config.socket_group.is_some(), "{name}");
        assert!(config.telemetry.otlp_endpoint.is_some(), "{name}");
        assert_eq!(config.authority.is_some(), name != "township", "{name}");
        let addresses = config.parent.map_or(2, |parent| parent.address.len());
        assert_eq!(addresses, 2, "{name}");
    }
}
