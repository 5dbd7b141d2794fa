//! Which frames are steps on the way of a record, once the line has them.

use guantong_proto::v1;

use crate::step::Step;

/// A frame is about to be given to the line: afterwards this step is reached.
pub(super) fn of(frame: &v1::Frame) -> Option<Step> {
    match &frame.kind {
        Some(v1::frame::Kind::Batch(_)) => Some(Step::BatchGiven),
        Some(v1::frame::Kind::Receipt(_)) => Some(Step::ReceiptGiven),
        _ => None,
    }
}
