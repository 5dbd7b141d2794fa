//! Pages: opaque tokens that continue a list at any depth at the same cost. A token of another query is refused.

use tonic::Status;

use super::status;
use crate::division::Division;
use crate::schema::Schema;

/// The largest page.
const PAGE_MAX: i32 = 1_000;
/// The page where none is asked for.
const PAGE_DEFAULT: usize = 100;
/// A page with so many bytes of records is full: clients refuse answers of more than 4 MiB, unless told otherwise.
pub(super) const BYTES_ENOUGH: usize = 1024 * 1024;

/// How many to answer with.
pub(super) fn size(page_size: i32) -> Result<usize, Status> {
    match page_size {
        0 => Ok(PAGE_DEFAULT),
        n if n < 0 => Err(status::invalid("page_size", "page_size is negative; 0 asks for 100")),
        n => Ok(n.min(PAGE_MAX) as usize),
    }
}

/// How many of the records, by their lengths in bytes, make a full page.
pub(super) fn fitting(lengths: impl Iterator<Item = usize>) -> usize {
    let mut bytes = 0;
    let before = lengths.take_while(|length| {
        let open = bytes < BYTES_ENOUGH;
        bytes += length;
        open
    });
    before.count()
}

/// The token that continues `query` after `last`.
pub(super) fn token(query: &str, last: &str) -> String {
    format!("{}.{last}", tag(query))
}

/// Where a token continues; `None`: from the start.
pub(super) fn after(query: &str, token: &str) -> Result<Option<String>, Status> {
    if token.is_empty() {
        return Ok(None);
    }
    match token.split_once('.') {
        Some((of, last)) if of == tag(query) => Ok(Some(last.to_owned())),
        _ => Err(status::invalid("page_token", "the page token belongs to another query; start without one")),
    }
}

fn tag(query: &str) -> String {
    blake3::hash(query.as_bytes()).to_hex()[..12].to_owned()
}

/// The division of a `divisions/{division}` parent.
pub(super) fn parent(field: &str, parent: &str) -> Result<Division, Status> {
    let code = parent.strip_prefix("divisions/").unwrap_or(parent);
    Division::parse(code).map_err(|e| status::invalid(field, format!("{field}: {e}")))
}

/// The kind that a field of a request names.
pub(super) fn kind<'s>(
    schema: &'s Schema,
    field: &str,
    kind: &str,
) -> Result<&'s crate::schema::Kind, Status> {
    schema.kind_named(kind).ok_or_else(|| {
        let known: Vec<&str> = schema.kinds().iter().map(|k| k.rule.name).collect();
        status::invalid(field, format!("{field}: there is no kind `{kind}`; known: {}", known.join(", ")))
    })
}
