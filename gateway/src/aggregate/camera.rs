//! What a camera adds: cameras by ownership, class, function and network, and which of them are online, faulty,
//! connected and filed.

use guantong_proto::rules::fields::{self, camera as f};
use guantong_proto::v1;
use smallvec::SmallVec;

use super::facets::{message, part};
use super::{Contribution, Facets, When};
use crate::measure::{Count, Dimension, UNLISTED};
use crate::record::FieldNumber;

pub(super) const FIELDS: &[FieldNumber] = &[
    f::OWNERSHIP,
    f::POINT_CLASS,
    f::FUNCTIONS,
    f::SOURCE_NETWORK,
    f::FILING,
    f::CONNECTED,
    f::STATUS,
    fields::DELETED,
    fields::RECORD_COMPLETE,
];

pub(super) fn count(facets: &Facets<'_>, out: &mut Contribution) {
    out.record(facets.kind, facets.flag(fields::RECORD_COMPLETE));
    let mut classes: SmallVec<[(Dimension, u16); 6]> = SmallVec::new();
    let single = [
        (Dimension::Ownership, f::OWNERSHIP),
        (Dimension::PointClass, f::POINT_CLASS),
        (Dimension::Network, f::SOURCE_NETWORK),
    ];
    classes.extend(single.map(|(dimension, field)| (dimension, dimension.class_of(facets.number(field)))));
    let functions = facets.numbers(f::FUNCTIONS);
    let mut functions: SmallVec<[u16; 4]> =
        functions.iter().map(|n| Dimension::Function.class_of(*n)).filter(|c| *c != UNLISTED).collect();
    functions.sort_unstable();
    functions.dedup();
    classes.extend(functions.iter().map(|class| (Dimension::Function, *class)));
    let state = |field| facets.value(field).map_or(0, |v| part(message(&v), 1));
    let (status, filing) = (state(f::STATUS), state(f::FILING));
    let faulty = [v1::CameraState::VideoLost, v1::CameraState::Defect].map(|s| s as u64).contains(&status);
    let counted = [
        (Count::Cameras, true),
        (Count::CamerasOnline, status == v1::CameraState::On as u64),
        (Count::CamerasFaulty, faulty),
        (Count::CamerasConnected, facets.flag(f::CONNECTED)),
        (Count::CamerasFiled, filing == v1::FilingState::Filed as u64),
        (Count::CamerasExempt, filing == v1::FilingState::Exempt as u64),
    ];
    for (count, _) in counted.into_iter().filter(|(_, counts)| *counts) {
        out.count(When::Undated, count, &classes);
    }
}
