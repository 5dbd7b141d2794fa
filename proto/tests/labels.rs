//! Everything that people see has a Chinese label, and a ledger's header means one thing only.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::{BTreeMap, HashSet};

use guantong_proto::codes::{CATEGORIES, Code, UNITS, find};
use guantong_proto::rules::{Field, KINDS, Kind};
use prost_reflect::{
    DescriptorPool, EnumDescriptor, FieldDescriptor, Kind as Type, MessageDescriptor, Value,
};

fn pool() -> DescriptorPool {
    DescriptorPool::decode(guantong_proto::FILE_DESCRIPTOR_SET).expect("the descriptor set can be read")
}

fn descriptor(pool: &DescriptorPool, kind: &Kind, field: &Field) -> FieldDescriptor {
    let message = pool.get_message_by_name(kind.message).expect("the kind's message exists");
    let found = message.get_field(field.number).expect("the field exists");
    assert_eq!(found.name(), field.name);
    found
}

/// The labelled parts of a nested message of ours; none for scalars and timestamps.
fn parts(pool: &DescriptorPool, field: &FieldDescriptor) -> Vec<(String, String)> {
    let part = pool.get_extension_by_name("guantong.v1.part").expect("the option part exists");
    let Type::Message(message) = field.kind() else { return Vec::new() };
    if message.full_name() == "google.protobuf.Timestamp" {
        return Vec::new();
    }
    // Stamps of entries are the node's, not people's.
    let shown = message.fields().filter(|f| f.name() != "stamp");
    shown
        .map(|f| {
            let rule = f.options().get_extension(&part).into_owned();
            let label = rule.as_message().and_then(|m| m.get_field_by_name("label").map(|v| v.into_owned()));
            let label = label.as_ref().and_then(Value::as_str).unwrap_or_default().to_owned();
            assert!(!label.is_empty(), "{} has no label", f.full_name());
            (f.name().to_owned(), label)
        })
        .collect()
}

fn enums_of(message: &MessageDescriptor, into: &mut BTreeMap<String, EnumDescriptor>) {
    for field in message.fields() {
        match field.kind() {
            Type::Enum(found) => {
                into.insert(found.full_name().to_owned(), found);
            }
            Type::Message(nested) => enums_of(&nested, into),
            _ => {}
        }
    }
}

#[test]
fn every_enum_value_has_words_of_its_own() {
    let pool = pool();
    let label = pool.get_extension_by_name("guantong.v1.label").expect("the option label exists");
    let aliases = pool.get_extension_by_name("guantong.v1.aliases").expect("the option aliases exists");
    let mut enums = BTreeMap::new();
    for kind in KINDS {
        enums_of(&pool.get_message_by_name(kind.message).expect("exists"), &mut enums);
    }
    assert!(enums.len() > 15, "the enums of the kinds are found");
    for found in enums.values() {
        let mut words = HashSet::new();
        for value in found.values().filter(|value| value.number() != 0) {
            let options = value.options();
            let text = options.get_extension(&label).as_str().unwrap_or_default().to_owned();
            assert!(!text.is_empty(), "{} has no label", value.full_name());
            let more = options.get_extension(&aliases).into_owned();
            let more = more.as_list().unwrap_or_default().iter().filter_map(Value::as_str);
            for word in more.map(str::to_owned).chain([text]) {
                assert!(words.insert(word.clone()), "{} has {word} twice", found.full_name());
            }
        }
    }
}

#[test]
fn every_header_means_one_field_or_part() {
    let pool = pool();
    for kind in KINDS {
        let mut meaning: BTreeMap<String, (u32, String)> = BTreeMap::new();
        for field in kind.fields {
            let parts = parts(&pool, &descriptor(&pool, kind, field));
            let mut headers = vec![(field.label.to_owned(), String::new())];
            for (name, label) in &parts {
                headers.push((format!("{}{label}", field.label), name.clone()));
            }
            for alias in field.aliases {
                let known = alias.part.is_empty() || parts.iter().any(|(name, _)| name == alias.part);
                assert!(known, "{}.{}: no part {}", kind.name, field.name, alias.part);
                headers.push((alias.header.to_owned(), alias.part.to_owned()));
            }
            for (header, part) in headers {
                // A field's own label may also be the header of its main part (网格长, the chief's name).
                let target = (field.number, part);
                let other = meaning.insert(header.clone(), target.clone());
                let clash =
                    other.filter(|other| other.0 != target.0 || !(other.1.is_empty() || *other == target));
                assert_eq!(clash, None, "{}: header {header} is also {target:?}", kind.name);
            }
        }
    }
}

#[test]
fn code_lists_are_unambiguous() {
    fn check(list: &'static [Code]) {
        for entry in list {
            let words = [entry.code, entry.english, entry.label];
            for word in words.iter().chain(entry.aliases) {
                assert_eq!(find(list, word), Some(entry), "{word}");
            }
        }
        assert_eq!(find(list, "no such thing"), None);
    }
    check(CATEGORIES);
    check(UNITS);
    assert_eq!(find(UNITS, " Police Station ").map(|entry| entry.code), Some("police"));
}
