//! A record as bytes: `guantong.v1.RecordState`, in the store and on the wire alike.
//!
//! Encoding is canonical: equal records give equal bytes. Decoding shares the memory of what it reads. It refuses what
//! no encoder writes: unknown writers, villages as writers, values of another field, unsorted registers.

use bytes::Bytes;
use guantong_proto::v1;
use prost::Message;
use smallvec::SmallVec;

use super::{Entry, FieldNumber, Record, Register, raw};
use crate::division::Division;
use crate::stamp::{Stamp, Writer};

/// Bytes that are no record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// Not protobuf.
    #[error("the record's state cannot be read: {0}")]
    Protobuf(String),
    /// A field's bytes are not that field's.
    #[error("the bytes of field {0} are not an encoding of field {0}")]
    Value(FieldNumber),
    /// An entry refers to a writer that is not listed, or the writer's division cannot write.
    #[error("the record's state names a writer that is not listed or not a division")]
    Writer,
    /// A field stands twice, or is out of order.
    #[error("field {0} stands twice or out of order")]
    Order(FieldNumber),
}

/// The canonical encoding.
pub fn encode(record: &Record) -> Bytes {
    let mut writers = Writers::default();
    let base = base_of(record);
    if let Some((writer, _)) = base {
        writers.position(writer);
    }
    let mut state = v1::RecordState::default();
    let mut plain = Vec::new();
    for (field, register) in record.fields() {
        match single(register) {
            Some((writer, stamp, value)) if base == Some((writer, stamp)) => {
                if value.is_empty() {
                    state.cleared.push(*field);
                } else {
                    plain.extend_from_slice(value);
                }
            }
            _ => state.registers.push(writers.register(*field, register)),
        }
    }
    state.purged =
        record.purged().iter().map(|(field, register)| writers.register(*field, register)).collect();
    state.fields = plain.into();
    state.base_stamp = base.map_or(0, |(_, stamp)| stamp.0);
    state.writers = writers.list;
    state.encode_to_vec().into()
}

/// Reads an encoded record.
pub fn decode(bytes: Bytes) -> Result<Record, CodecError> {
    let state = v1::RecordState::decode(bytes).map_err(|e| CodecError::Protobuf(e.to_string()))?;
    let writers = state.writers.iter().map(writer_from).collect::<Result<SmallVec<[Writer; 4]>, _>>()?;
    let base = Stamp(state.base_stamp);
    let plain = raw::split(&state.fields).map_err(|e| CodecError::Protobuf(e.to_string()))?;
    let mut fields = Vec::with_capacity(plain.len() + state.cleared.len() + state.registers.len());
    if !plain.is_empty() || !state.cleared.is_empty() {
        let writer = *writers.first().ok_or(CodecError::Writer)?;
        let cleared = state.cleared.iter().map(|field| (*field, Bytes::new()));
        fields.extend(plain.into_iter().chain(cleared).map(|(f, v)| (f, Register::single(writer, base, v))));
    }
    for register in state.registers {
        fields.push(register_from(register, &writers, false)?);
    }
    fields.sort_by_key(|f| f.0);
    let purged =
        state.purged.into_iter().map(|r| register_from(r, &writers, true)).collect::<Result<Vec<_>, _>>()?;
    for list in [&fields, &purged] {
        if let Some(pair) = list.windows(2).find(|w| w[0].0 >= w[1].0) {
            return Err(CodecError::Order(pair[1].0));
        }
    }
    Ok(Record::from_sorted(fields, purged))
}

/// Writer, stamp and value of a register that holds one value and has seen nothing else.
fn single(register: &Register) -> Option<(Writer, Stamp, &Bytes)> {
    match register.entries() {
        [Entry { writer, stamp, value: Some(value), content_stamp }]
            if *content_stamp == Stamp::default() =>
        {
            Some((*writer, *stamp, value))
        }
        _ => None,
    }
}

/// The writer and stamp that most fields were written by; of equals, the greater.
fn base_of(record: &Record) -> Option<(Writer, Stamp)> {
    let mut counts: SmallVec<[((Writer, Stamp), usize); 4]> = SmallVec::new();
    for (_, register) in record.fields() {
        if let Some((writer, stamp, _)) = single(register) {
            match counts.iter_mut().find(|c| c.0 == (writer, stamp)) {
                Some(count) => count.1 += 1,
                None => counts.push(((writer, stamp), 1)),
            }
        }
    }
    counts.into_iter().max_by_key(|c| (c.1, c.0)).map(|c| c.0)
}

#[derive(Default)]
struct Writers {
    list: Vec<v1::Writer>,
}

impl Writers {
    fn position(&mut self, writer: Writer) -> u32 {
        let item = v1::Writer { division: writer.division.code(), id: writer.id };
        let found = self.list.iter().position(|w| *w == item);
        found.unwrap_or_else(|| {
            self.list.push(item);
            self.list.len() - 1
        }) as u32
    }

    fn register(&mut self, field: FieldNumber, register: &Register) -> v1::Register {
        let entries = register.entries().iter().map(|entry| v1::RegisterEntry {
            writer: self.position(entry.writer),
            stamp: entry.stamp.0,
            value: entry.value.clone(),
            content_stamp: entry.content_stamp.0,
        });
        v1::Register { field, entries: entries.collect() }
    }
}

fn writer_from(writer: &v1::Writer) -> Result<Writer, CodecError> {
    let division = Division::from_code(writer.division).ok_or(CodecError::Writer)?;
    if division != division.home() {
        return Err(CodecError::Writer);
    }
    Ok(Writer { division, id: writer.id })
}

/// A content stamp says something of a value, and where it was `purged`, of a doubt.
fn register_from(
    register: v1::Register,
    writers: &[Writer],
    purged: bool,
) -> Result<(FieldNumber, Register), CodecError> {
    let field = register.field;
    let mut entries: SmallVec<[Entry; 1]> = SmallVec::with_capacity(register.entries.len());
    for entry in register.entries {
        let writer = *writers.get(entry.writer as usize).ok_or(CodecError::Writer)?;
        if entry.value.as_ref().is_some_and(|v| !raw::is_value_of(field, v)) {
            return Err(CodecError::Value(field));
        }
        let content_stamp =
            if purged || entry.value.is_some() { Stamp(entry.content_stamp) } else { Stamp::default() };
        entries.push(Entry { writer, stamp: Stamp(entry.stamp), value: entry.value, content_stamp });
    }
    entries.sort_by_key(|e| e.writer);
    if entries.is_empty() || entries.windows(2).any(|w| w[0].writer == w[1].writer) {
        return Err(CodecError::Order(field));
    }
    Ok((field, Register::from_sorted(entries)))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::merge::tests::arbitrary_record;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_record_survives_its_encoding(record in arbitrary_record()) {
            let bytes = encode(&record);
            prop_assert_eq!(&decode(bytes.clone()).unwrap(), &record);
            prop_assert_eq!(encode(&decode(bytes.clone()).unwrap()), bytes);
        }

        #[test]
        fn garbage_is_refused_or_read_never_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..128)) {
            let _ = decode(bytes.into());
        }
    }

    #[test]
    fn a_fresh_record_costs_little_more_than_its_message() {
        let writer = Writer { division: Division::from_code(220822101000).unwrap(), id: u64::MAX };
        let mut record = Record::default();
        for field in 1..=15 {
            let value = Bytes::from(vec![field as u8 * 8, 1]);
            record.set(field, Register::single(writer, Stamp::from_ms(1_700_000_000_000), value));
        }
        assert!(encode(&record).len() <= 30 + 32);
    }
}
