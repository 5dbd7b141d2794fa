//! Messages of the contract as JSON: protobuf's mapping with the names of the contract (`grid_code`), numbers as
//! numbers. What the command line prints it can read again.

use std::sync::OnceLock;

use anyhow::Context as _;
use guantong_proto::rules::Kind;
use guantong_proto::{FILE_DESCRIPTOR_SET, v1};
use prost::Message;
use prost_reflect::{
    DescriptorPool, DynamicMessage, MessageDescriptor, ReflectMessage, SerializeOptions, Value as Field,
};
use serde_json::{Value, json};

/// The kind that a resource name is of.
pub(crate) fn kind_of(name: &str) -> anyhow::Result<&'static Kind> {
    let collection = name.split('/').nth(2).unwrap_or_default();
    guantong_proto::rules::KINDS.iter().find(|kind| kind.collection == collection).with_context(|| {
        format!(
            "«{name}» is not the name of a record, such as divisions/220822101000/cases/ID (记录名称有误)"
        )
    })
}

/// The descriptor of a kind's message.
pub(crate) fn descriptor(message: &str) -> anyhow::Result<MessageDescriptor> {
    static POOL: OnceLock<DescriptorPool> = OnceLock::new();
    let pool = match POOL.get() {
        Some(pool) => pool,
        None => {
            let pool =
                DescriptorPool::decode(FILE_DESCRIPTOR_SET).context("this program's contract is damaged")?;
            POOL.get_or_init(|| pool)
        }
    };
    pool.get_message_by_name(message).with_context(|| format!("the contract has no {message}"))
}

/// Encoded fields of a kind; what is not set is left out.
pub(crate) fn of_fields(kind: &Kind, fields: &[u8]) -> anyhow::Result<Value> {
    of_bytes(kind.message, fields, true)
}

/// A message of the contract, with everything in it.
pub(crate) fn of_message(message: &str, value: &impl Message) -> anyhow::Result<Value> {
    of_bytes(message, &value.encode_to_vec(), false)
}

fn of_bytes(message: &str, bytes: &[u8], skip_default: bool) -> anyhow::Result<Value> {
    let mut dynamic =
        DynamicMessage::decode(descriptor(message)?, bytes).context("the answer cannot be read")?;
    forget_impossible_times(&mut dynamic);
    let options = SerializeOptions::new()
        .use_proto_field_name(true)
        .stringify_64_bit_integers(false)
        .skip_default_fields(skip_default);
    Ok(dynamic.serialize_with_options(serde_json::value::Serializer, &options)?)
}

/// Takes out moments that no calendar has. Answers from afar pass through this node as they are, and one such moment of
/// one node would leave the operator without all the others' answers.
fn forget_impossible_times(message: &mut DynamicMessage) {
    let fields: Vec<_> = message.fields().map(|(field, _)| field).collect();
    for field in fields {
        let is_impossible = match message.get_field_mut(&field) {
            Field::Message(inner) if is_time(inner) => serde_json::to_value(&*inner).is_err(),
            Field::Message(inner) => {
                forget_impossible_times(inner);
                false
            }
            Field::List(list) => {
                list.iter_mut().filter_map(Field::as_message_mut).for_each(forget_impossible_times);
                false
            }
            _ => false,
        };
        if is_impossible {
            message.clear_field(&field);
        }
    }
}

fn is_time(message: &DynamicMessage) -> bool {
    message.descriptor().full_name() == "google.protobuf.Timestamp"
}

/// A record as a node shows it.
pub(crate) fn of_record(record: &v1::Record) -> anyhow::Result<Value> {
    let kind = kind_of(&record.name)?;
    let named =
        |number: u32| kind.field(number).map_or_else(|| number.to_string(), |field| field.name.to_owned());
    let origins: Vec<Value> = record
        .origins
        .iter()
        .map(|origin| {
            let time = origin.write_time.as_ref().map(ToString::to_string);
            json!({ "field": named(origin.field), "writer_division": origin.writer_division, "write_time": time })
        })
        .collect();
    let conflicting: Vec<String> = record.conflicting_fields.iter().map(|number| named(*number)).collect();
    Ok(json!({
        "name": record.name,
        "kind": kind.name,
        "fields": of_fields(kind, &record.fields)?,
        "etag": record.etag,
        "conflicting_fields": conflicting,
        "origins": origins,
        "audience": record.audience,
    }))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_that_no_calendar_has_hides_nothing_else() {
        let at = |seconds, nanos| Some(prost_types::Timestamp { seconds, nanos });
        let link = |equal_time| v1::LinkEquality { equal_time, ..v1::LinkEquality::default() };
        let links = vec![link(at(i64::MAX, 0)), link(at(0, 0))];
        let node = v1::NodeEquality { links, division: "220822000000".into(), ..v1::NodeEquality::default() };
        let json = of_message("guantong.v1.NodeEquality", &node).unwrap();
        assert_eq!(json["division"], "220822000000");
        let times = |n: usize| json["links"][n].get("equal_time").cloned().unwrap_or_default();
        assert_eq!((times(0), times(1)), (Value::Null, json!("1970-01-01T00:00:00Z")));
    }
}
