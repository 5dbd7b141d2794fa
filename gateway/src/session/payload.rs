//! What a batch carries: records as one `RecordBatch`, compressed, in parts.
//!
//! Sizes are those of the protocol, not settings: both ends must agree on them. Nothing is taken in that is larger,
//! before or after decompression.

use bytes::Bytes;
use guantong_proto::v1;
use prost::Message;

use crate::record::raw;

/// The largest part of a batch, in bytes: buffers of an HTTP/2 stream never shrink.
pub const PART_BYTES_MAX: usize = 16 * 1024;
/// The largest batch before compression, in bytes.
pub const BATCH_RAW_BYTES_MAX: usize = 1024 * 1024;
/// The most records in one batch, so that a receipt which refuses them all still fits a frame.
pub const BATCH_RECORDS_MAX: usize = 1_000;
/// The most batches that may be without a receipt, each way.
pub const IN_FLIGHT_BATCHES_MAX: usize = 64;

const ZSTD_LEVEL: i32 = 1;
/// Number of `RecordBatch.records`.
const RECORDS: u32 = 1;

/// A batch that is not what its sender says it is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PayloadError {
    /// It cannot be decompressed to the length that was announced.
    #[error("the batch does not decompress to the {raw_bytes} bytes announced")]
    Compression {
        /// Announced with part 0.
        raw_bytes: usize,
    },
    /// Not a `RecordBatch`.
    #[error("the batch cannot be read as records")]
    Records,
    /// More records than a batch may hold.
    #[error("the batch holds more than {BATCH_RECORDS_MAX} records")]
    TooMany,
}

/// Bytes that a record takes up in a batch.
pub(super) fn raw_bytes_of(record: &v1::BatchRecord) -> usize {
    let body = record.encoded_len();
    1 + prost::length_delimiter_len(body) + body
}

/// The compressed batch and its length before compression.
pub(super) fn pack(records: Vec<v1::BatchRecord>) -> std::io::Result<(Bytes, usize)> {
    let raw = v1::RecordBatch { records }.encode_to_vec();
    Ok((zstd::bulk::compress(&raw, ZSTD_LEVEL)?.into(), raw.len()))
}

/// The most bytes that a batch of `raw_bytes` can need compressed.
pub(super) fn compressed_max(raw_bytes: usize) -> usize {
    zstd::zstd_safe::compress_bound(raw_bytes)
}

/// The records of a compressed batch; they share its memory. Never allocates more than `raw_bytes` for decompression.
pub(super) fn unpack(payload: &[u8], raw_bytes: usize) -> Result<Vec<v1::BatchRecord>, PayloadError> {
    let raw =
        zstd::bulk::decompress(payload, raw_bytes).map_err(|_| PayloadError::Compression { raw_bytes })?;
    if raw.len() != raw_bytes {
        return Err(PayloadError::Compression { raw_bytes });
    }
    check_count(&raw)?;
    let batch = v1::RecordBatch::decode(Bytes::from(raw)).map_err(|_| PayloadError::Records)?;
    Ok(batch.records)
}

/// Counts the records of a `RecordBatch` before they are decoded: a megabyte of empty ones would take up fifty.
fn check_count(mut raw: &[u8]) -> Result<(), PayloadError> {
    let mut records = 0;
    while let Some((field, _)) = raw::next(&mut raw).map_err(|_| PayloadError::Records)? {
        records += usize::from(field == RECORDS);
        if records > BATCH_RECORDS_MAX {
            return Err(PayloadError::TooMany);
        }
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn record(bytes: usize) -> v1::BatchRecord {
        v1::BatchRecord {
            name: "divisions/220822101000/cases/1".into(),
            state: vec![7; bytes].into(),
            ..Default::default()
        }
    }

    #[test]
    fn a_batch_survives_packing_and_its_size_is_known_before() {
        let records = vec![record(0), record(200), record(70_000)];
        let expected: usize = records.iter().map(raw_bytes_of).sum();
        let (payload, raw_bytes) = pack(records.clone()).unwrap();
        assert_eq!(raw_bytes, expected);
        assert!(payload.len() <= compressed_max(raw_bytes));
        assert_eq!(unpack(&payload, raw_bytes).unwrap(), records);
    }

    #[test]
    fn a_wrong_length_is_refused_both_ways() {
        let (payload, raw_bytes) = pack(vec![record(500)]).unwrap();
        assert!(unpack(&payload, raw_bytes - 1).is_err());
        assert!(unpack(&payload, raw_bytes + 1).is_err());
        assert!(unpack(b"not zstd", 8).is_err());
    }

    #[test]
    fn a_bomb_is_not_unpacked() {
        let bomb = zstd::bulk::compress(&vec![0; 64 << 20], ZSTD_LEVEL).unwrap();
        assert!(bomb.len() < 16_384);
        assert_eq!(unpack(&bomb, 1_000), Err(PayloadError::Compression { raw_bytes: 1_000 }));
    }

    #[test]
    fn what_is_no_record_batch_is_refused() {
        let payload = zstd::bulk::compress(&[0xff; 40], ZSTD_LEVEL).unwrap();
        assert_eq!(unpack(&payload, 40), Err(PayloadError::Records));
        let many = pack(vec![v1::BatchRecord::default(); BATCH_RECORDS_MAX + 1]).unwrap();
        assert_eq!(unpack(&many.0, many.1), Err(PayloadError::TooMany));
        // Cut short after the last one that is counted: had all been decoded first, this were no batch at all.
        let mut raw = [0x0a, 0].repeat(BATCH_RECORDS_MAX + 1);
        raw.push(0x0a);
        let payload = zstd::bulk::compress(&raw, ZSTD_LEVEL).unwrap();
        assert_eq!(unpack(&payload, raw.len()), Err(PayloadError::TooMany), "counted before it is decoded");
    }
}
