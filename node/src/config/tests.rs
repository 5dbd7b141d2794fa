//! Each test runs in a process environment of its own making (`figment::Jail`), one at a time.

use super::*;

const COUNTY: &str = r#"
    division = "220822"
    listen = "0.0.0.0:7443"
    [parent]
    division = 2208
    address = ["prefecture.example:7443", "10.0.0.1:7443"]
    [tls]
    certificate = "certificate.pem"
    key = "key.pem"
    authority = "authority.pem"
"#;

fn load(text: &str, environment: &[(&str, &str)]) -> Result<Config, ConfigError> {
    let mut loaded = None;
    figment::Jail::expect_with(|jail| {
        jail.clear_env();
        jail.create_file("node.toml", text)?;
        for (name, value) in environment {
            jail.set_env(name, value);
        }
        loaded = Some(Config::load(Path::new("node.toml")));
        Ok(())
    });
    loaded.unwrap()
}

fn refused(text: &str, environment: &[(&str, &str)]) -> Vec<Problem> {
    match load(text, environment) {
        Err(ConfigError::Wrong { problems, .. }) => problems,
        other => panic!("should be refused: {other:?}"),
    }
}

#[test]
fn a_county_with_defaults() {
    let config = load(COUNTY, &[]).unwrap();
    assert_eq!(config.division.to_string(), "220822000000");
    assert_eq!(config.socket(), Path::new("/var/lib/guantong/guantong.sock"));
    assert_eq!(config.store_location().unwrap(), "/var/lib/guantong/guantong.db");
    assert_eq!((config.drift_ms, config.store_max_pages()), (300_000, None));
    assert_eq!(config.log, Log { level: "info".to_owned(), format: LogFormat::Text });
    let parent = config.parent.unwrap();
    assert_eq!(parent.division.to_string(), "220800000000");
    assert_eq!(parent.address, ["prefecture.example:7443", "10.0.0.1:7443"]);
    assert_eq!(config.tls.unwrap().files().revocations, None);
}

#[test]
fn authorities_are_limited_unless_the_file_says_otherwise() {
    let scope = |more: &str| {
        load(&format!("{COUNTY}{more}"), &[]).map(|config| config.tls.unwrap().files().authority_scope)
    };
    assert_eq!(scope("").unwrap(), AuthorityScope::Certificate);
    assert_eq!(scope("authority_scope = \"certificate\"").unwrap(), AuthorityScope::Certificate);
    assert_eq!(scope("authority_scope = \"unlimited\"").unwrap(), AuthorityScope::Unlimited);
    assert!(scope("authority_scope = \"none\"").is_err());
}

#[test]
fn a_parent_that_is_reached_by_files_has_no_address() {
    let with =
        |line: &str| COUNTY.replace("address = [\"prefecture.example:7443\", \"10.0.0.1:7443\"]", line);
    let config = load(&with("line = \"bundle\""), &[]).unwrap();
    assert_eq!(config.parent.as_ref().unwrap().line, Line::Bundle);
    assert!(config.dialled_parent().is_none());
    let config = load(&with("line = \"one-way\""), &[]).unwrap();
    assert_eq!(config.parent.unwrap().line, Line::OneWay);
    assert!(load(COUNTY, &[]).unwrap().dialled_parent().is_some());
    assert_eq!(refused(&with(""), &[])[0].key, "parent.address");
    let both = refused(&with("line = \"bundle\"\naddress = \"prefecture.example:7443\""), &[]);
    assert_eq!(both[0].key, "parent.address");
    assert!(!refused(&with("line = \"pigeon\""), &[]).is_empty());
}

#[test]
fn the_environment_wins_over_the_file() {
    let environment = [
        ("GUANTONG_DIVISION", "220822101"),
        ("GUANTONG_PARENT__ADDRESS", "county.example:7000"),
        ("GUANTONG_PARENT__DIVISION", "220822"),
        ("GUANTONG_LOG__FORMAT", "json"),
        ("GUANTONG_STORE_MAX_MIB", "2"),
        ("GUANTONG_CONFIG", "not a key of the file"),
        ("GUANTONG_NODE", "nor this"),
        ("GUANTONG_IDENTITY", "nor this"),
    ];
    let config = load(COUNTY, &environment).unwrap();
    assert_eq!(config.division.to_string(), "220822101000");
    assert_eq!(config.parent.as_ref().unwrap().address, ["county.example:7000"]);
    assert_eq!(config.log.format, LogFormat::Json);
    assert_eq!(config.store_max_pages(), Some(512));
}

#[test]
fn a_key_that_is_not_known_is_named_with_its_table() {
    let problems = refused("division = \"22\"\ndata_dri = \"/srv\"", &[]);
    assert_eq!(problems[0].key, "data_dri");
    assert!(problems[0].what.contains("data_dir"), "{}", problems[0]);

    let problems = refused("division = \"22\"\n[log]\nlevle = \"info\"", &[]);
    assert_eq!(problems[0].key, "log.levle");

    let problems = refused("division = \"22\"", &[("GUANTONG_LOG__LEVLE", "info")]);
    assert_eq!((problems[0].key.as_str(), problems[0].from_environment), ("log.levle", true));
    assert!(problems[0].to_string().contains("GUANTONG_LOG__LEVLE"), "{}", problems[0]);
}

#[test]
fn what_is_missing_is_named() {
    assert_eq!(refused("", &[])[0].key, "division");
    assert_eq!(
        refused("division = \"220822\"\nparent = {division = \"2208\"}", &[])[0].key,
        "parent.address"
    );
    let error = load("division = \"22\"", &[]).map(|_| Config::load(Path::new("no-such-file.toml")));
    assert!(matches!(error, Ok(Err(ConfigError::File { .. }))));
}

#[test]
fn values_that_make_no_sense_are_refused_together() {
    let text = r#"
        division = "220822101201"
        listen = "7443"
        store_max_mib = 0
        [parent]
        division = "2209"
        address = "prefecture.example"
    "#;
    let problems = refused(text, &[]);
    let keys: Vec<&str> = problems.iter().map(|problem| problem.key.as_str()).collect();
    assert_eq!(keys, ["division", "parent.division", "parent.address", "listen", "tls", "store_max_mib"]);
}

#[test]
fn values_of_the_wrong_form_are_refused_without_being_repeated() {
    for (text, key) in [
        ("division = \"2208221\"", "division"),
        ("division = true", "division"),
        ("division = \"22\"\nlog = {format = \"xml\"}", "log.format"),
        ("division = \"22\"\ntrust_domain = \"A/B\"", "trust_domain"),
        ("division = \"22\"\ndrift_ms = -1", "drift_ms"),
    ] {
        let problems = refused(text, &[]);
        assert_eq!(problems[0].key, key);
        assert!(
            !problems[0].what.contains("A/B") && !problems[0].what.contains("2208221"),
            "{}",
            problems[0]
        );
    }
    let problems = refused("division = [", &[]);
    assert_eq!(problems[0].key, "");
}

#[test]
fn a_socket_path_that_the_system_would_cut_is_refused() {
    let text = format!("division = \"22\"\nsocket = \"/{}\"", "x".repeat(103));
    assert_eq!(refused(&text, &[])[0].key, "socket");
}

#[test]
fn a_store_in_postgresql_is_named_by_a_url_that_is_never_shown() {
    let url = "postgres://node:s3cr3t@db.example:5432/province?sslmode=verify-full";
    let config = load("division = \"22\"", &[("GUANTONG_STORE", url)]).unwrap();
    assert_eq!(config.store_location().unwrap(), url);
    assert!(!format!("{config:?}").contains("s3cr3t"));
    let wrong = "division = \"22\"\nstore = \"mysql://node:s3cr3t@x/y\"\nstore_max_mib = 9";
    let problems = refused(wrong, &[]);
    let keys: Vec<&str> = problems.iter().map(|problem| problem.key.as_str()).collect();
    assert_eq!(keys, ["store", "store_max_mib"]);
    assert!(problems.iter().all(|problem| !problem.to_string().contains("s3cr3t")));
}
