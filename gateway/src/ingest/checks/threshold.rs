//! Rules of thresholds: the measure names the record, and the bounds make sense together.

use guantong_proto::rules::fields::threshold as f;
use guantong_proto::v1;

use super::Checker;
use crate::measure::Measure;
use crate::threshold::Bounds;

pub(super) fn check(c: &mut Checker<'_>) {
    let threshold: v1::Threshold = c.read(&[f::MEASURE]);
    let id = c.s.id;
    if c.wrote(f::MEASURE) || c.created() {
        let measure = if c.wrote(f::MEASURE) { threshold.measure.as_deref() } else { Some(id) };
        if let Some(measure) = c.named_by_code(f::MEASURE, measure)
            && Measure::named(measure).is_none()
        {
            let near = Measure::near(measure).join(", ");
            let english = format!("this node knows no such measure; near to it: {near}");
            c.refuse(f::MEASURE, (&english, "没有这个指标"));
        }
    }
    if let Some(bounds) = threshold.bounds.as_ref().filter(|_| c.wrote(f::BOUNDS))
        && let Err(error) = Bounds::of(bounds)
    {
        c.refuse(f::BOUNDS, (&error.to_string(), error.chinese()));
    }
}
