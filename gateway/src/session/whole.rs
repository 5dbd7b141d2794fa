//! Batches in one piece, for bundles: what a link cuts into parts and limits by windows goes into a file as it is. The
//! same records, the same compression and the same limits of size.

use guantong_proto::v1;

use super::payload::{self, BATCH_RAW_BYTES_MAX, BATCH_RECORDS_MAX, PayloadError, raw_bytes_of};
use super::sending::unsendable;
use super::split::split;

/// The size a batch is filled to before compression.
const FILLED_BYTES: usize = 256 * 1024;

/// The records of a batch.
///
/// # Errors
/// It is not what its sender says it is, or larger than a batch may be.
pub fn unpack(batch: &v1::Batch) -> Result<Vec<v1::BatchRecord>, PayloadError> {
    let raw_bytes = batch.raw_bytes as usize;
    if raw_bytes > BATCH_RAW_BYTES_MAX {
        return Err(PayloadError::Compression { raw_bytes });
    }
    payload::unpack(&batch.payload, raw_bytes)
}

/// Records of one lane that become batches.
#[derive(Debug, Default)]
pub struct Packing {
    records: Vec<v1::BatchRecord>,
    raw_bytes: usize,
}

impl Packing {
    /// Adds a record. The error is its refusal: it cannot be sent at all.
    ///
    /// # Errors
    /// One value of it is larger than a batch, or it cannot be read.
    pub fn add(&mut self, record: v1::BatchRecord) -> Result<(), v1::Refusal> {
        let name = record.name.clone();
        let parts = split(record, BATCH_RAW_BYTES_MAX).ok_or_else(|| unsendable(name))?;
        self.raw_bytes += parts.iter().map(raw_bytes_of).sum::<usize>();
        self.records.extend(parts);
        Ok(())
    }

    /// Whether there is enough for a batch.
    pub fn is_full(&self) -> bool {
        self.raw_bytes >= FILLED_BYTES || self.records.len() >= BATCH_RECORDS_MAX
    }

    /// The next batch and how many records it holds; `None`: there are none. Its number and epochs are left to fill in.
    ///
    /// # Errors
    /// It cannot be compressed.
    pub fn take(&mut self, lane: v1::Lane) -> std::io::Result<Option<(v1::Batch, usize)>> {
        let (mut count, mut bytes) = (0, 0);
        for record in self.records.iter().take(BATCH_RECORDS_MAX) {
            let with = bytes + raw_bytes_of(record);
            if count > 0 && with > FILLED_BYTES {
                break;
            }
            (count, bytes) = (count + 1, with);
        }
        if count == 0 {
            return Ok(None);
        }
        let rest = self.records.split_off(count);
        let (payload, raw_bytes) = payload::pack(std::mem::replace(&mut self.records, rest))?;
        self.raw_bytes = self.raw_bytes.saturating_sub(bytes);
        let raw_bytes = u32::try_from(raw_bytes).unwrap_or(u32::MAX);
        Ok(Some((
            v1::Batch { lane: lane.into(), last: true, raw_bytes, payload, ..Default::default() },
            count,
        )))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn record(bytes: usize) -> v1::BatchRecord {
        v1::BatchRecord {
            name: "divisions/220822101000/grids/1".into(),
            state: vec![7; bytes].into(),
            ..Default::default()
        }
    }

    #[test]
    fn all_records_go_into_batches_within_the_limits() {
        let mut packing = Packing::default();
        for _ in 0..2_500 {
            packing.add(record(200)).unwrap();
        }
        packing.add(record(900_000)).unwrap();
        assert!(packing.is_full());
        let mut counts = Vec::new();
        while let Some((batch, count)) = packing.take(v1::Lane::Normal).unwrap() {
            assert_eq!(unpack(&batch).unwrap().len(), count);
            counts.push(count);
        }
        assert_eq!(counts.iter().sum::<usize>(), 2_501);
        assert!(counts.iter().all(|count| *count <= BATCH_RECORDS_MAX));
        assert_eq!((packing.raw_bytes, packing.is_full()), (0, false));
    }

    #[test]
    fn a_batch_that_announces_too_much_is_not_unpacked() {
        let batch = v1::Batch { raw_bytes: u32::MAX, ..Default::default() };
        assert!(matches!(unpack(&batch), Err(PayloadError::Compression { .. })));
    }

    #[test]
    fn what_cannot_be_sent_is_named() {
        let refused = Packing::default().add(record(2 * BATCH_RAW_BYTES_MAX)).unwrap_err();
        assert_eq!(refused.reason(), v1::RefusalReason::TooLarge);
    }
}
