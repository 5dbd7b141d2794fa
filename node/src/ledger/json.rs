//! Records for programs (canonical protobuf JSON) and for people (labels and words). Both show everything a record
//! has; neither decides who may see it.

use guantong_proto::rules;
use prost_reflect::prost::Message;
use prost_reflect::{DynamicMessage, FieldDescriptor, Value};

use super::cell::show;
use super::error::LedgerError;
use super::schema::{Form, KindView, part_label, parts_of};

/// A record as canonical protobuf JSON, its resource name included. Fields of a newer contract have no JSON and are
/// left out.
///
/// # Errors
/// An unknown kind, or bytes that are no message of it.
pub fn record_to_json(kind: &str, name: &str, fields: &[u8]) -> Result<serde_json::Value, LedgerError> {
    let view = KindView::by_name(kind)?;
    let mut message = DynamicMessage::decode(view.message.clone(), fields)?;
    if !name.is_empty() {
        message.set_field_by_name("name", Value::String(name.to_owned()));
    }
    Ok(serde_json::to_value(&message)?)
}

/// A record from JSON: its resource name (empty where there is none) and its encoded fields. Field names may be
/// `gridCode` or `grid_code`; a field that the kind does not have is an error.
///
/// # Errors
/// An unknown kind, or JSON that is not of it.
pub fn json_to_fields(kind: &str, json: &serde_json::Value) -> Result<(String, Vec<u8>), LedgerError> {
    let view = KindView::by_name(kind)?;
    let mut message = DynamicMessage::deserialize(view.message.clone(), json)?;
    // What a service said beside the record is no part of it.
    let beside: Vec<u32> =
        view.message.fields().map(|f| f.number()).filter(|n| rules::is_beside(*n)).collect();
    beside.into_iter().for_each(|number| message.clear_field_by_number(number));
    let name = message.take_field_by_name("name");
    let name = name.as_ref().and_then(Value::as_str).unwrap_or_default().to_owned();
    Ok((name, message.encode_to_vec()))
}

/// A record for people: Chinese labels and words, in the order of the contract, without what is not set. Nothing in
/// it can steer a terminal.
///
/// # Errors
/// An unknown kind, or bytes that are no message of it.
pub fn describe(kind: &str, fields: &[u8]) -> Result<Vec<(String, String)>, LedgerError> {
    let view = KindView::by_name(kind)?;
    let message = DynamicMessage::decode(view.message.clone(), fields)?;
    let mut lines = Vec::new();
    for rule in view.rule.fields {
        let Some(field) = view.message.get_field(rule.number).filter(|field| message.has_field(field)) else {
            continue;
        };
        let value = message.get_field(&field);
        match (Form::of(&field), &*value) {
            (Some(form), value) => lines.push((rule.label.to_owned(), show(&form, value, true))),
            (None, Value::List(entries)) => {
                let entries = entries.iter().filter_map(Value::as_message);
                lines.extend((1..).zip(entries).map(|(number, entry)| {
                    let parts = parts(&field, entry).into_iter();
                    let parts = parts.map(|(label, text)| format!("{label}：{text}")).collect::<Vec<_>>();
                    (format!("{} {number}", rule.label), parts.join("；"))
                }));
            }
            (None, Value::Message(nested)) => {
                let parts = parts(&field, nested).into_iter();
                lines.extend(parts.map(|(label, text)| (format!("{}{label}", rule.label), text)));
            }
            (None, _) => {}
        }
    }
    let unknown = message.unknown_fields().count();
    if unknown > 0 {
        lines.push(("本版本未知的字段".to_owned(), unknown.to_string()));
    }
    for (_, text) in &mut lines {
        *text = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    }
    Ok(lines)
}

/// The parts of a nested message that are set, in words.
fn parts(field: &FieldDescriptor, nested: &DynamicMessage) -> Vec<(String, String)> {
    let set = parts_of(field).into_iter().filter(|part| nested.has_field(part));
    let shown = set.map(|part| {
        let value = nested.get_field(&part);
        let text = match (Form::of(&part), &*value) {
            (Some(form), value) => show(&form, value, true),
            (None, Value::Message(inner)) => {
                let inner = parts(&part, inner).into_iter();
                inner.map(|(label, text)| format!("{label} {text}")).collect::<Vec<_>>().join("，")
            }
            (None, _) => String::new(),
        };
        (part_label(&part), text)
    });
    shown.collect()
}
