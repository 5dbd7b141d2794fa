//! Protobuf fields as raw bytes: cutting a message into its fields, and reading the few values that rules depend on
//! without decoding the rest.

use bytes::{Buf, Bytes};

use super::FieldNumber;

/// Bytes that are no protobuf message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a protobuf message: {0}")]
pub struct RawError(&'static str);

/// The payload of one field occurrence.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Payload<'a> {
    /// Wire type 0.
    Varint(u64),
    /// Wire type 1.
    Fixed64(u64),
    /// Wire type 2: a string, bytes, a message or packed numbers.
    Bytes(&'a [u8]),
    /// Wire type 5.
    Fixed32(u32),
}

fn varint(buf: &mut &[u8]) -> Result<u64, RawError> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        if buf.is_empty() {
            return Err(RawError("cut short"));
        }
        let byte = buf.get_u8();
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Ok(value);
        }
    }
    Err(RawError("a number of more than ten bytes"))
}

/// The next field occurrence of `buf`: its number and payload. Groups (wire types 3 and 4) are refused.
pub fn next<'a>(buf: &mut &'a [u8]) -> Result<Option<(FieldNumber, Payload<'a>)>, RawError> {
    if buf.is_empty() {
        return Ok(None);
    }
    let tag = varint(buf)?;
    let field = u32::try_from(tag >> 3).map_err(|_| RawError("a field number over 29 bits"))?;
    if field == 0 || field > 0x1fff_ffff {
        return Err(RawError("a field number out of range"));
    }
    let payload = match tag & 7 {
        0 => Payload::Varint(varint(buf)?),
        1 => Payload::Fixed64(buf.try_get_u64_le().map_err(|_| RawError("cut short"))?),
        2 => {
            let len = varint(buf)?;
            let len = usize::try_from(len).ok().filter(|len| *len <= buf.len());
            let (bytes, rest) = buf.split_at(len.ok_or(RawError("cut short"))?);
            *buf = rest;
            Payload::Bytes(bytes)
        }
        5 => Payload::Fixed32(buf.try_get_u32_le().map_err(|_| RawError("cut short"))?),
        _ => return Err(RawError("a wire type that does not exist")),
    };
    Ok(Some((field, payload)))
}

/// Cuts a message into its fields, sorted by number; occurrences of one field are kept together, in their order.
/// The pieces share the message's memory.
pub fn split(message: &Bytes) -> Result<Vec<(FieldNumber, Bytes)>, RawError> {
    let mut pieces: Vec<(FieldNumber, Bytes)> = Vec::with_capacity(24);
    let mut sorted = true;
    let mut buf: &[u8] = message;
    let mut start = 0;
    let mut open: Option<FieldNumber> = None;
    loop {
        let before = message.len() - buf.len();
        let item = next(&mut buf)?;
        let field = item.map(|(field, _)| field);
        if let Some(done) = open.filter(|_| open != field) {
            sorted &= pieces.last().is_none_or(|last| last.0 < done);
            pieces.push((done, message.slice(start..before)));
            start = before;
        }
        open = field;
        if field.is_none() {
            break;
        }
    }
    if !sorted {
        pieces = join_pieces(pieces);
    }
    Ok(pieces)
}

/// Sorts pieces by field and joins those of the same field.
fn join_pieces(mut pieces: Vec<(FieldNumber, Bytes)>) -> Vec<(FieldNumber, Bytes)> {
    pieces.sort_by_key(|p| p.0);
    let mut joined: Vec<(FieldNumber, Bytes)> = Vec::with_capacity(pieces.len());
    for (field, piece) in pieces {
        match joined.last_mut().filter(|last| last.0 == field) {
            Some(last) => last.1 = [&last.1[..], &piece[..]].concat().into(),
            None => joined.push((field, piece)),
        }
    }
    joined
}

/// The last payload of `field` inside `message`; `None` where it is absent or the message is malformed.
pub fn find(message: &[u8], field: FieldNumber) -> Option<Payload<'_>> {
    occurrences(message, field).last()
}

/// All payloads of `field`, in order, up to the first malformed byte.
pub fn occurrences(message: &[u8], field: FieldNumber) -> impl Iterator<Item = Payload<'_>> {
    let mut buf = message;
    std::iter::from_fn(move || next(&mut buf).ok().flatten())
        .filter(move |(f, _)| *f == field)
        .map(|(_, p)| p)
}

/// The payloads of a value, whose bytes hold one field's tags and nothing else.
pub fn payloads(value: &[u8]) -> impl Iterator<Item = Payload<'_>> {
    let mut buf = value;
    std::iter::from_fn(move || next(&mut buf).ok().flatten()).map(|(_, p)| p)
}

/// Whether `value` is well formed and holds occurrences of `field` only.
pub fn is_value_of(field: FieldNumber, value: &[u8]) -> bool {
    let mut buf = value;
    loop {
        match next(&mut buf) {
            Ok(None) => return true,
            Ok(Some((f, _))) if f == field => {}
            _ => return false,
        }
    }
}

impl<'a> Payload<'a> {
    /// The number, where it is one.
    pub fn number(self) -> Option<u64> {
        match self {
            Payload::Varint(n) | Payload::Fixed64(n) => Some(n),
            Payload::Fixed32(n) => Some(u64::from(n)),
            Payload::Bytes(_) => None,
        }
    }

    /// The numbers of a repeated field: one, or a packed run of varints.
    pub fn numbers(self) -> Vec<u64> {
        match self {
            Payload::Bytes(mut packed) => std::iter::from_fn(|| varint(&mut packed).ok()).collect(),
            other => other.number().into_iter().collect(),
        }
    }

    /// The bytes, where they are.
    pub fn bytes(self) -> Option<&'a [u8]> {
        match self {
            Payload::Bytes(bytes) => Some(bytes),
            _ => None,
        }
    }

    /// The text, where it is UTF-8.
    pub fn text(self) -> Option<&'a str> {
        self.bytes().and_then(|b| std::str::from_utf8(b).ok())
    }
}

/// The tag that a value begins with.
pub fn payload_tag(value: &[u8]) -> Option<u64> {
    let mut buf = value;
    varint(&mut buf).ok()
}

/// Appends a number in base 128.
pub fn put_varint(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// Appends an occurrence of a message field, of which `tag` says number and wire type.
pub fn put_message(out: &mut Vec<u8>, tag: u64, message: &[u8]) {
    put_varint(out, tag);
    put_varint(out, message.len() as u64);
    out.extend_from_slice(message);
}

/// The tag of a message, string or bytes field.
pub const fn message_tag(field: FieldNumber) -> u64 {
    (field as u64) << 3 | 2
}

/// The milliseconds of an encoded `google.protobuf.Timestamp`.
pub fn timestamp_ms(message: &[u8]) -> i64 {
    let seconds = find(message, 1).and_then(Payload::number).unwrap_or(0) as i64;
    let nanos = find(message, 2).and_then(Payload::number).unwrap_or(0) as i64;
    seconds.saturating_mul(1_000).saturating_add(nanos / 1_000_000)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn split_joins_scattered_occurrences() {
        // Field 2 = 7, field 1 = 1, field 2 = 8.
        let message = Bytes::from_static(&[0x10, 7, 0x08, 1, 0x10, 8]);
        let pieces = split(&message).unwrap();
        assert_eq!(
            pieces,
            vec![(1, Bytes::from_static(&[8, 1])), (2, Bytes::from_static(&[0x10, 7, 0x10, 8]))]
        );
    }

    proptest! {
        #[test]
        fn split_never_panics_and_keeps_every_byte(message in proptest::collection::vec(any::<u8>(), 0..64)) {
            let message = Bytes::from(message);
            if let Ok(pieces) = split(&message) {
                prop_assert_eq!(pieces.iter().map(|p| p.1.len()).sum::<usize>(), message.len());
                prop_assert!(pieces.windows(2).all(|w| w[0].0 < w[1].0));
                prop_assert!(pieces.iter().all(|(f, v)| is_value_of(*f, v)));
            }
        }
    }
}
