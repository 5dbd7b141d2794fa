//! Writes the Rust source of the table of rules from the options in the descriptors.
//!
//! A part of the build script; a test compiles it too. A field of a kind that has no complete rule is an
//! error with its name: nothing is ever filled in by a guess.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt::Write as _;

use prost_reflect::{
    DescriptorPool, DynamicMessage, ExtensionDescriptor, FieldDescriptor, Kind, MessageDescriptor,
    ReflectMessage as _, Value,
};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const PACKAGE: &str = "guantong.v1";
/// The resource name: the record's key, which is not a field of it.
const NAME_NUMBER: u32 = 1;
/// Fields from this number on mean the same in every kind.
const FIRST_COMMON_NUMBER: u32 = 90;

/// Fields with these numbers are not of the record: a service says them beside it. They have no rule, and nothing that
/// works on records ever meets them.
const BESIDE_NUMBERS: std::ops::RangeInclusive<u32> = 80..=89;

/// How deep messages may stand inside each other: one that contains itself has no end.
const DEPTH_MAX: usize = 8;

/// The extensions that carry the rules.
struct Options {
    kind: ExtensionDescriptor,
    rule: ExtensionDescriptor,
    label: ExtensionDescriptor,
}

/// Rust source of the table of kinds and of the constants of field numbers.
pub(crate) fn rules_source(pool: &DescriptorPool) -> Result<String> {
    let extension = |name: &str| {
        let full = format!("{PACKAGE}.{name}");
        pool.get_extension_by_name(&full).ok_or(format!("options.proto does not define {full}"))
    };
    let options = Options { kind: extension("kind")?, rule: extension("rule")?, label: extension("label")? };

    let mut kinds = BTreeMap::new();
    for message in pool.all_messages().filter(|m| m.options().has_extension(&options.kind)) {
        let rule = extension_message(&message.options(), &options.kind)?;
        let number = get_u32(&rule, "number")?;
        if number == 0 {
            return Err(format!("{}: the kind has no number", message.full_name()).into());
        }
        if let Some((other, _)) = kinds.insert(number, (message.clone(), rule)) {
            let name = message.full_name();
            return Err(format!("{name} and {} share kind number {number}", other.full_name()).into());
        }
    }

    let mut table = String::from("/// Every kind, by ascending number.\npub static KINDS: &[Kind] = &[\n");
    let mut numbers = String::new();
    let mut common = None;
    for (number, (message, rule)) in &kinds {
        write_kind(&mut table, *number, message, rule, &options)?;
        let name = get_text(rule, "name")?;
        writeln!(numbers, "    /// Numbers of the fields of `{}`.", message.name())?;
        writeln!(numbers, "    pub mod {name} {{")?;
        write_numbers(&mut numbers, "        ", message, |n| n < FIRST_COMMON_NUMBER)?;
        writeln!(numbers, "    }}")?;
        check_common(message, &mut common)?;
    }
    table.push_str("];\n\n");

    table.push_str("/// Field numbers, for code that reads raw fields.\npub mod fields {\n");
    if let Some((_, (message, _))) = kinds.first_key_value() {
        write_numbers(&mut table, "    ", message, |n| n >= FIRST_COMMON_NUMBER)?;
    }
    table.push_str(&numbers);
    table.push_str("}\n");
    Ok(table)
}

/// Every kind has the same common fields under the same numbers.
fn check_common(message: &MessageDescriptor, seen: &mut Option<Vec<(u32, String)>>) -> Result<()> {
    let mut fields: Vec<_> = message
        .fields()
        .filter(|f| f.number() >= FIRST_COMMON_NUMBER)
        .map(|f| (f.number(), f.name().to_owned()))
        .collect();
    fields.sort();
    match seen {
        Some(first) if *first != fields => {
            let name = message.full_name();
            Err(format!("{name} has common fields {fields:?}, other kinds have {first:?}").into())
        }
        Some(_) => Ok(()),
        None => {
            *seen = Some(fields);
            Ok(())
        }
    }
}

fn write_numbers(
    out: &mut String,
    indent: &str,
    message: &MessageDescriptor,
    wanted: impl Fn(u32) -> bool,
) -> Result<()> {
    let of_record = |number| number != NAME_NUMBER && !BESIDE_NUMBERS.contains(&number);
    for field in message.fields().filter(|f| of_record(f.number()) && wanted(f.number())) {
        writeln!(out, "{indent}/// `{}`.", field.name())?;
        let name = field.name().to_uppercase();
        writeln!(out, "{indent}pub const {name}: u32 = {};", field.number())?;
    }
    Ok(())
}

fn write_kind(
    out: &mut String,
    number: u32,
    message: &MessageDescriptor,
    rule: &DynamicMessage,
    options: &Options,
) -> Result<()> {
    let lane = get_enum(rule, "lane")?.ok_or("a kind has no lane")?;
    let audience = get_enum(rule, "audience")?.ok_or("a kind has no audience")?;
    let link_writers = get_enum(rule, "link_writers")?.ok_or("a kind has no link_writers")?;
    writeln!(
        out,
        "    Kind {{ number: {number}, name: {:?}, collection: {:?}, label: {:?}, message: {:?}, \
         audience: Audience::{audience}, link_writers: LinkWriters::{link_writers}, fields: &[",
        get_text(rule, "name")?,
        get_text(rule, "collection")?,
        get_text(rule, "label")?,
        message.full_name(),
    )?;
    // Descriptors keep the order of the file; tables are searched by number.
    let fields: BTreeMap<u32, _> = message.fields().map(|f| (f.number(), f)).collect();
    for field in fields.values().filter(|f| f.number() != NAME_NUMBER) {
        if BESIDE_NUMBERS.contains(&field.number()) {
            check_beside(field, options).map_err(|reason| format!("{}: {reason}", field.full_name()))?;
            continue;
        }
        let line = field_source(message, field, &lane, options)
            .map_err(|reason| format!("{}: {reason}", field.full_name()))?;
        writeln!(out, "        {line},")?;
    }
    out.push_str("    ] },\n");
    Ok(())
}

/// What a service says beside a record must not look like a field of it.
fn check_beside(field: &FieldDescriptor, options: &Options) -> Result<()> {
    if field.options().has_extension(&options.rule) {
        return Err("numbers 80 to 89 are never stored: a field with a (rule) needs another number".into());
    }
    Ok(())
}

/// Rust source of one field's rule.
fn field_source(
    message: &MessageDescriptor,
    field: &FieldDescriptor,
    kind_lane: &str,
    options: &Options,
) -> Result<String> {
    if !field.options().has_extension(&options.rule) {
        return Err("a field of a kind needs a (rule)".into());
    }
    let rule = extension_message(&field.options(), &options.rule)?;
    let policy = get_enum(&rule, "policy")?.ok_or("the rule has no policy")?;
    let release = get_enum(&rule, "release")?.ok_or("the rule has no release tier")?;
    let label = get_text(&rule, "label")?;
    let owner = get_enum(&rule, "owner")?;
    let derived = get_text(&rule, "derived_from")?;
    if label.is_empty() {
        return Err("the rule has no label".into());
    }
    if (policy == "Owner") != owner.is_some() {
        return Err("policy OWNER and an owner tier belong together".into());
    }
    check_shape(field, &policy)?;
    let derived_from = match derived.as_str() {
        "" => "None".to_owned(),
        source => match message.get_field_by_name(source) {
            Some(source) => format!("Some({})", source.number()),
            None => return Err(format!("derived_from names no field: {source}").into()),
        },
    };
    Ok(format!(
        "Field {{ number: {}, name: {:?}, label: {label:?}, aliases: &[{}], policy: Policy::{policy}, \
         owner: {}, writers: Writers::{}, release: Tier::{release}, file: {}, personal: {}, \
         lane: Lane::{}, required: {}, derived_from: {derived_from}, repeated: {}, \
         content: {} }}",
        field.number(),
        field.name(),
        aliases(&rule)?,
        owner.map_or("None".to_owned(), |tier| format!("Some(Tier::{tier})")),
        get_enum(&rule, "writers")?.unwrap_or("HomeOwnerAbove".to_owned()),
        get_bool(&rule, "file")?,
        get_bool(&rule, "personal")?,
        get_enum(&rule, "lane")?.unwrap_or(kind_lane.to_owned()),
        get_bool(&rule, "required")?,
        field.is_list(),
        content_source(field, options, DEPTH_MAX)?,
    ))
}

/// Rust source of what a field holds, as far as enums are concerned.
fn content_source(field: &FieldDescriptor, options: &Options, depth: usize) -> Result<String> {
    match field.kind() {
        Kind::Enum(found) => {
            let values: BTreeMap<i32, _> = found.values().map(|value| (value.number(), value)).collect();
            let mut source = String::new();
            for (number, value) in values {
                let said = value.options();
                let label = said.get_extension(&options.label);
                let label = label.as_str().unwrap_or_default();
                let name = value.name();
                write!(source, "EnumValue {{ number: {number}, name: {name:?}, label: {label:?} }}, ")?;
            }
            Ok(format!("Content::Enum(&Enum {{ values: &[{source}] }})"))
        }
        Kind::Message(_) if depth == 0 => Err("messages stand too deep inside each other".into()),
        Kind::Message(message) => {
            let mut source = String::new();
            for part in message.fields() {
                let content = content_source(&part, options, depth - 1)?;
                if content != "Content::Plain" {
                    let (number, name, repeated) = (part.number(), part.name(), part.is_list());
                    write!(
                        source,
                        "Part {{ number: {number}, name: {name:?}, repeated: {repeated}, content: {content} }}, "
                    )?;
                }
            }
            let plain = source.is_empty();
            Ok(if plain { "Content::Plain".into() } else { format!("Content::Message(&[{source}])") })
        }
        _ => Ok("Content::Plain".into()),
    }
}

/// The engine reads entry ids, entry stamps and observation times from raw bytes at fixed numbers.
fn check_shape(field: &FieldDescriptor, policy: &str) -> Result<()> {
    let part = |number: u32, wanted: &Kind| match field.kind() {
        Kind::Message(message) => message.get_field(number).is_some_and(|f| f.kind() == *wanted),
        _ => false,
    };
    let timestamp = || match field.kind() {
        Kind::Message(message) => message.get_field(2).is_some_and(|f| match f.kind() {
            Kind::Message(time) => time.full_name() == "google.protobuf.Timestamp",
            _ => false,
        }),
        _ => false,
    };
    match policy {
        "Union" if !(field.is_list() && part(1, &Kind::String) && part(15, &Kind::Fixed64)) => {
            Err("policy UNION needs repeated messages with `string id = 1` and `fixed64 stamp = 15`".into())
        }
        "Observed" if !timestamp() => {
            Err("policy OBSERVED needs a message with a google.protobuf.Timestamp as field 2".into())
        }
        _ => Ok(()),
    }
}

/// Rust source of the other headers of a column, each "header" or "part=header".
fn aliases(rule: &DynamicMessage) -> Result<String> {
    let mut source = String::new();
    let value = rule.get_field_by_name("aliases").ok_or("no option aliases")?;
    for alias in value.as_list().unwrap_or_default().iter().filter_map(Value::as_str) {
        let (part, header) = alias.split_once('=').unwrap_or(("", alias));
        write!(source, "Alias {{ part: {part:?}, header: {header:?} }}, ")?;
    }
    Ok(source)
}

fn extension_message(options: &DynamicMessage, extension: &ExtensionDescriptor) -> Result<DynamicMessage> {
    let value = options.get_extension(extension);
    Ok(value.as_message().ok_or("a rule is a message")?.clone())
}

fn get_text(message: &DynamicMessage, name: &str) -> Result<String> {
    let value = message.get_field_by_name(name).ok_or(format!("no option {name}"))?;
    Ok(value.as_str().ok_or(format!("option {name} is no text"))?.to_owned())
}

fn get_bool(message: &DynamicMessage, name: &str) -> Result<bool> {
    let value = message.get_field_by_name(name).ok_or(format!("no option {name}"))?;
    Ok(value.as_bool().ok_or(format!("option {name} is no bool"))?)
}

fn get_u32(message: &DynamicMessage, name: &str) -> Result<u32> {
    let value = message.get_field_by_name(name).ok_or(format!("no option {name}"))?;
    Ok(value.as_u32().ok_or(format!("option {name} is no number"))?)
}

/// The name of an enum option's value as Rust spells it (`WRITERS_HOME_COUNTY` is `HomeCounty`);
/// `None` if it is unspecified.
fn get_enum(message: &DynamicMessage, name: &str) -> Result<Option<String>> {
    let field = message.descriptor().get_field_by_name(name).ok_or(format!("no option {name}"))?;
    let Kind::Enum(kind) = field.kind() else {
        return Err(format!("option {name} is no enum").into());
    };
    let number = message.get_field(&field).as_enum_number().unwrap_or_default();
    if number == 0 {
        return Ok(None);
    }
    let value = kind.get_value(number).ok_or(format!("option {name} has no value {number}"))?;
    // The zero value is the prefix and UNSPECIFIED.
    let zero = kind.get_value(0).ok_or(format!("option {name} has no zero value"))?;
    let prefix = zero.name().trim_end_matches("UNSPECIFIED").len();
    let words = value.name()[prefix..].split('_');
    Ok(Some(words.map(|word| format!("{}{}", &word[..1], word[1..].to_lowercase())).collect()))
}
