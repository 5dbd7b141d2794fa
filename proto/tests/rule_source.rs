//! The build refuses a schema whose rules are incomplete, and says where.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../build/rules_source.rs"]
mod rules_source;

use protox::file::{ChainFileResolver, File, FileResolver, GoogleFileResolver, IncludeFileResolver};

/// One schema file that exists in memory only.
struct Schema(String);

impl FileResolver for Schema {
    fn open_file(&self, name: &str) -> Result<File, protox::Error> {
        match name {
            "guantong/v1/thing.proto" => File::from_source(name, &self.0),
            _ => Err(protox::Error::file_not_found(name)),
        }
    }
}

const COMPLETE: &str = r#"policy: POLICY_LATEST release: TIER_PROVINCE label: "甲""#;

/// The table made from a kind with these fields.
fn table_of(fields: &str) -> Result<String, String> {
    let source = format!(
        r#"syntax = "proto3";
        package guantong.v1;
        import "google/protobuf/timestamp.proto";
        import "guantong/v1/options.proto";
        message Thing {{
          option (kind) = {{ number: 9 name: "thing" collection: "things" label: "物" lane: LANE_BULK
            audience: AUDIENCE_STEPS link_writers: LINK_WRITERS_BY_FIELD }};
          string name = 1;
          {fields}
        }}
        message Entry {{ string id = 1; fixed64 stamp = 15; }}
        message Seen {{ google.protobuf.Timestamp observe_time = 2; }}
        message Box {{ repeated Colour colours = 3; string text = 4; }}
        message Nest {{ Nest inner = 1; }}
        enum Colour {{ COLOUR_UNSPECIFIED = 0; COLOUR_RED = 2 [(label) = "红"]; }}"#
    );
    let mut files = ChainFileResolver::new();
    files.add(Schema(source));
    files.add(IncludeFileResolver::new(env!("CARGO_MANIFEST_DIR").into()));
    files.add(GoogleFileResolver::new());
    let mut compiler = protox::Compiler::with_file_resolver(files);
    compiler.open_file("guantong/v1/thing.proto").expect("the schema compiles");
    rules_source::rules_source(&compiler.descriptor_pool()).map_err(|error| error.to_string())
}

fn refused(fields: &str, reason: &str) {
    let error = table_of(fields).expect_err("refused");
    assert!(error.contains("guantong.v1.Thing.") && error.contains(reason), "{error}");
}

#[test]
fn a_complete_rule_becomes_a_row() {
    let table =
        table_of(&format!("optional string first = 2 [(rule) = {{ {COMPLETE} }}];")).expect("accepted");
    assert!(table.contains(r#"number: 2, name: "first", label: "甲""#), "{table}");
    assert!(table.contains("lane: Lane::Bulk"), "the kind's lane: {table}");
    assert!(table.contains("writers: Writers::HomeOwnerAbove"), "the default: {table}");
    assert!(table.contains("pub const FIRST: u32 = 2;"), "{table}");
}

#[test]
fn what_is_said_beside_a_record_is_no_field_of_it() {
    let table = table_of(&format!(
        "optional string first = 2 [(rule) = {{ {COMPLETE} }}]; string etag = 80; repeated string more = 89;"
    ));
    let table = table.expect("accepted");
    assert!(table.contains("first") && !table.contains("etag") && !table.contains("more"), "{table}");
    refused("string etag = 79;", "etag: a field of a kind needs a (rule)");
    refused(&format!("optional string first = 80 [(rule) = {{ {COMPLETE} }}];"), "80 to 89 are never stored");
}

#[test]
fn an_incomplete_rule_is_named() {
    refused("optional string first = 2;", "first: a field of a kind needs a (rule)");
    refused(r#"optional string first = 2 [(rule) = { label: "甲" }];"#, "no policy");
    refused(
        r#"optional string first = 2 [(rule) = { policy: POLICY_LATEST label: "甲" }];"#,
        "no release tier",
    );
    refused(
        "optional string first = 2 [(rule) = { policy: POLICY_LATEST release: TIER_COUNTY }];",
        "no label",
    );
}

#[test]
fn a_contradictory_rule_is_named() {
    let owner = format!("optional string first = 2 [(rule) = {{ {COMPLETE} owner: TIER_COUNTY }}];");
    refused(&owner, "OWNER");
    let ownerless = COMPLETE.replace("LATEST", "OWNER");
    refused(&format!("optional string first = 2 [(rule) = {{ {ownerless} }}];"), "OWNER");
    let derived = format!("optional string first = 2 [(rule) = {{ {COMPLETE} derived_from: \"second\" }}];");
    refused(&derived, "derived_from names no field: second");
}

#[test]
fn the_shape_that_a_policy_reads_is_required() {
    let union = COMPLETE.replace("LATEST", "UNION");
    assert!(table_of(&format!("repeated Entry first = 2 [(rule) = {{ {union} }}];")).is_ok());
    refused(&format!("Entry first = 2 [(rule) = {{ {union} }}];"), "UNION");
    refused(&format!("repeated Seen first = 2 [(rule) = {{ {union} }}];"), "UNION");
    let observed = COMPLETE.replace("LATEST", "OBSERVED");
    assert!(table_of(&format!("Seen first = 2 [(rule) = {{ {observed} }}];")).is_ok());
    refused(&format!("Entry first = 2 [(rule) = {{ {observed} }}];"), "OBSERVED");
}

#[test]
fn the_enums_inside_of_a_field_are_in_its_row() {
    let row = |field: &str| table_of(&format!("{field} = 2 [(rule) = {{ {COMPLETE} }}];")).expect("accepted");
    let red = r#"EnumValue { number: 2, name: "COLOUR_RED", label: "红" }"#;
    let table = row("optional Colour first");
    assert!(table.contains("repeated: false, content: Content::Enum(") && table.contains(red), "{table}");
    let table = row("repeated Box first");
    let inside = r#"content: Content::Message(&[Part { number: 3, name: "colours", repeated: true, content: Content::Enum("#;
    assert!(table.contains(inside) && table.contains(red) && !table.contains(r#""text""#), "{table}");
    assert!(row("optional string first").contains("content: Content::Plain"));
    refused(&format!("Nest first = 2 [(rule) = {{ {COMPLETE} }}];"), "too deep");
}
