//! What the requests of all writing services have in common: as whom, once only, upon what, and which fields.

use bytes::Bytes;
use guantong_proto::rules;
use prost::Message;
use tonic::Status;

use super::sight::Sight;
use super::status;
use crate::division::Division;
use crate::engine::Request as Repeatable;
use crate::ingest::import::value_hash;
use crate::ingest::local::Basis;
use crate::record::{FieldNumber, codec, raw};
use crate::schema::Kind;

/// The division that a request wants to write as, if it names one.
pub(super) fn acting(division: &str) -> Result<Option<Division>, Status> {
    optional_division("acting_division", division)
}

/// A division, where the field of the request names one.
pub(super) fn optional_division(field: &str, division: &str) -> Result<Option<Division>, Status> {
    if division.is_empty() {
        return Ok(None);
    }
    Division::parse(division).map(Some).map_err(|e| status::invalid(field, format!("{field}: {e}")))
}

/// A request id, the caller's own, with a hash over what the request says.
pub(super) fn repeatable(
    sight: &Sight,
    request_id: &str,
    content: &impl Message,
) -> Result<Option<Repeatable>, Status> {
    if request_id.is_empty() {
        return Ok(None);
    }
    if request_id.chars().count() > 64 {
        return Err(status::invalid("request_id", "request_id: at most 64 characters"));
    }
    // Two callers may draw the same id; no caller's name contains the mark between.
    let id = format!("{}/{request_id}", sight.purpose());
    Ok(Some(Repeatable { id, content: value_hash(&content.encode_to_vec()) }))
}

/// What the author of a write saw.
pub(super) fn basis(etag: &str, read_token: &Bytes) -> Result<Basis, Status> {
    if !read_token.is_empty() {
        let token = codec::decode(read_token.clone());
        let token = token
            .map_err(|_| status::invalid("read_token", "read_token: take it from an answer, unchanged"))?;
        return Ok(Basis::Token(token));
    }
    Ok(if etag.is_empty() { Basis::Shown } else { Basis::Etag(etag.to_owned()) })
}

/// The number of an enum's value, if there is such a value. `name` gives the values' names.
pub(super) fn value_of(
    field: &str,
    number: i32,
    name: impl Fn(i32) -> Option<&'static str>,
) -> Result<(), Status> {
    match name(number) {
        Some(_) => Ok(()),
        None => Err(status::invalid(field, no_value(field, number, name))),
    }
}

/// That a number is no value of an enum, and what its values are.
pub(super) fn no_value(field: &str, number: i32, name: impl Fn(i32) -> Option<&'static str>) -> String {
    let known: Vec<String> = (1..64).filter_map(|n| Some(format!("{n} {}", name(n)?))).collect();
    format!("{field}: {number} is no value of it; known are {} (取值不存在)", known.join(", "))
}

/// The fields that a write names, with their encodings. `field` is what the request calls them. What a service says
/// beside a record is left out: nobody can write it.
pub(super) fn fields_to_write(
    kind: &Kind,
    field: &str,
    fields: &Bytes,
    mask: Option<&prost_types::FieldMask>,
) -> Result<Vec<(FieldNumber, Bytes)>, Status> {
    let mut given = raw::split(fields).map_err(|e| status::invalid(field, format!("{field}: {e}")))?;
    given.retain(|(field, _)| *field != 1 && !rules::is_beside(*field));
    let paths = mask.map(|m| m.paths.as_slice()).unwrap_or_default();
    if paths.is_empty() || paths == ["*"] {
        return Ok(given);
    }
    let mut wanted: Vec<(FieldNumber, Bytes)> = Vec::with_capacity(paths.len());
    for path in paths {
        let field = kind.field_named(path).ok_or_else(|| {
            let text = format!(
                "update_mask: `{path}` is not a field of {}; a mask names whole fields",
                kind.rule.name
            );
            status::invalid("update_mask", text)
        })?;
        if wanted.iter().all(|(number, _)| *number != field.number) {
            let value = given.iter().find(|(number, _)| *number == field.number).map(|(_, v)| v.clone());
            wanted.push((field.number, value.unwrap_or_default()));
        }
    }
    Ok(wanted)
}
