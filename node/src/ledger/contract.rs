//! What the contract says of messages, parts and values, for whoever makes tables of records: descriptors, labels, and
//! the words for values. It must never name a field.

use prost_reflect::{EnumDescriptor, FieldDescriptor, MessageDescriptor};

use super::schema::{self, Form, TextForm};

/// A message of the contract.
pub fn message(name: &str) -> Option<MessageDescriptor> {
    schema::POOL.get_message_by_name(name)
}

/// The parts of a nested message that people see: all but the stamps of entries, which are the node's.
pub fn parts(field: &FieldDescriptor) -> Vec<FieldDescriptor> {
    schema::parts_of(field)
}

/// The Chinese label of a part.
pub fn part_label(part: &FieldDescriptor) -> String {
    schema::part_label(part)
}

/// The stable English name and the Chinese label of each value of an enum, and of each code of a text that is one of a
/// list.
pub fn words(field: &FieldDescriptor) -> Vec<(String, String)> {
    match schema::Form::of(field) {
        Some(Form::Enum(vocabulary)) => vocabulary.words(),
        Some(Form::Text(TextForm::Code(codes))) => {
            codes.iter().map(|code| (code.code.to_owned(), code.label.to_owned())).collect()
        }
        _ => Vec::new(),
    }
}

/// The English name of a value; a number that this program does not know stays one.
pub fn enum_word(values: &EnumDescriptor, number: i32) -> String {
    let zero = values.get_value(0).map(|value| value.name().to_owned()).unwrap_or_default();
    let prefix = zero.trim_end_matches("UNSPECIFIED");
    values.get_value(number).map_or_else(
        || number.to_string(),
        |value| value.name().strip_prefix(prefix).unwrap_or(value.name()).to_lowercase(),
    )
}
