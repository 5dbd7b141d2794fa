//! The demonstration as a whole, where it is not the county that the README shows: missing tiers, townships without
//! nodes, figures that cannot be.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::process::Command;

use serde_json::Value;

/// Runs the demonstration; whether its exit status was 0, and its document.
fn demo(figures: &str, args: &[&str]) -> (bool, Value) {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("figures.csv");
    std::fs::write(&file, format!("division,measure,class,op,value\n{figures}")).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_guantong"));
    let output = command.args(["demo", "--json", "--figures"]).arg(&file).args(args).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    let document = serde_json::from_slice(&output.stdout);
    (output.status.success(), document.unwrap_or_else(|error| panic!("{error}: {said}")))
}

fn links(document: &Value) -> &Vec<Value> {
    document["links"].as_array().unwrap()
}

#[test]
fn a_prefecture_without_counties() {
    let figures = "441900,grids,all,eq,90\n441900,cameras,public,eq,40\n441900,cases,dispute,approx,100\n";
    let (fine, document) = demo(figures, &["--division", "441900"]);
    assert!(fine && document["ok"] == true, "{document:#}");
    assert!(
        links(&document)
            .iter()
            .any(|link| link["child"] == "441900000000" && link["parent"] == "440000000000")
    );
    assert!(links(&document).iter().all(|link| link["equal"] == true));
}

#[test]
fn a_county_acts_for_its_townships_until_one_gets_a_node() {
    let figures = "220822,grids,all,eq,200\n220822,cameras,social,ge,300\n220822,cases,dispute,eq,100\n\
                   220822,rates,success,eq,97.0\n220822,drones,all,eq,3\n";
    let (fine, document) = demo(figures, &["--acting"]);
    assert!(fine, "{document:#}");
    let children: Vec<&str> = links(&document).iter().filter_map(|link| link["child"].as_str()).collect();
    assert_eq!(children, ["220800000000", "220822000000", "220822001000"]);
    assert_eq!(document["left_out"][0]["measure"], "drones");
    assert_eq!(
        document["conflicts"].as_array().map(Vec::len),
        Some(4),
        "two values each of a case and a camera"
    );
}

#[test]
fn figures_that_contradict_each_other_are_off() {
    let figures = "220822101,cases,dispute,eq,100\n220822101,cases,dispute_succeeded,eq,90\n\
                   220822101,rates,success,eq,95.0\n";
    let (fine, document) = demo(figures, &["--division", "220822101"]);
    assert!(!fine && document["ok"] == false);
    let verdicts: Vec<&str> = document["figures"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|figure| figure["verdict"].as_str())
        .collect();
    assert_eq!(verdicts, ["ok", "ok", "off"]);
}
