//! Derived fields: coarse forms that may travel further than their fine sources. A derived field copies its source's
//! whole register, stamps and `seen` included, with each value coarsened, so that every node that holds the source
//! makes the same one.

use bytes::Bytes;
use guantong_proto::v1;
use prost::Message;

use crate::merge;
use crate::record::{Entry, FieldNumber, Record, Register, raw};
use crate::schema::Kind;

/// Decimals of a coarse coordinate: about 100 m.
const COARSE_DECIMALS: f64 = 1_000.0;

/// Makes every derived field whose source is held. Returns the fields that changed. It joins what is held of them
/// already: a node that held the source once, and is about to purge it, may know a later coarse form than its source.
pub fn derive(kind: &Kind, record: &mut Record) -> Vec<FieldNumber> {
    let mut changed = Vec::new();
    for field in kind.fields() {
        let Some(register) = field.derived_from.and_then(|source| record.get(source)) else { continue };
        let coarse = Register::from_sorted(
            register
                .entries()
                .iter()
                .map(|e| Entry { value: e.value.as_ref().map(|v| coarsen(field.number, v)), ..e.clone() })
                .collect(),
        );
        if merge::merge_field(record, field.number, &coarse).changed {
            changed.push(field.number);
        }
    }
    changed
}

/// A position with three decimals, as a value of `field`. Anything that is no position becomes "cleared".
fn coarsen(field: FieldNumber, value: &[u8]) -> Bytes {
    let message = raw::payloads(value).filter_map(raw::Payload::bytes).last();
    let Some(point) = message.and_then(|m| v1::LngLat::decode(m).ok()) else { return Bytes::new() };
    let coarse = |degrees: f64| (degrees * COARSE_DECIMALS).round() / COARSE_DECIMALS;
    let point = v1::LngLat { longitude: coarse(point.longitude), latitude: coarse(point.latitude) };
    let mut out = Vec::new();
    raw::put_message(&mut out, raw::message_tag(field), &point.encode_to_vec());
    out.into()
}
