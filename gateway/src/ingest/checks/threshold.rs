//! Rules of thresholds: the measure names the record, and the bounds make sense together.

use guantong_proto::rules::fields::threshold as f;
use guantong_proto::v1;

use super::Checker;
use crate::threshold::Bounds;

pub(super) fn check(c: &mut Checker<'_>) {
    let threshold: v1::Threshold = c.read(&[f::MEASURE]);
    let id = c.s.id;
    if c.wrote(f::MEASURE) || c.created() {
        let measure = if c.wrote(f::MEASURE) { threshold.measure.as_deref() } else { Some(id) };
        c.named_by_code(f::MEASURE, measure);
    }
    if let Some(bounds) = threshold.bounds.as_ref().filter(|_| c.wrote(f::BOUNDS))
        && let Err(error) = Bounds::of(bounds)
    {
        c.refuse(f::BOUNDS, (&error.to_string(), error.chinese()));
    }
}
