//! Rules of cameras: the device's code, whose it is and so who may write it, and observations in their order.

use guantong_proto::rules::fields::camera as f;
use guantong_proto::v1;

use super::{Checker, is_digits};
use crate::division::Tier;
use crate::record::{FieldNumber, raw, view};

/// Digits 11 to 13 of a camera's code: camera, network camera.
const DEVICE_TYPES: [&str; 2] = ["131", "132"];

pub(super) fn check(c: &mut Checker<'_>) {
    let camera: v1::Camera = c.read(&[f::OWNERSHIP]);
    if c.wrote(f::DEVICE_ID) || c.created() {
        device_id(c, &camera);
    }
    c.inside_home(f::DIVISION, camera.division.as_deref());
    c.place(f::LOCATION, camera.location.as_ref());
    c.day(f::INSTALLED_ON, camera.installed_on.as_ref());
    if let Some(filing) = &camera.filing {
        c.day(f::FILING, filing.filed_on.as_ref());
    }
    c.count(f::RETENTION_DAYS, camera.retention_days.map(i64::from));
    ownership(c, &camera);
    status(c, &camera);
}

/// The device's code, which is also the record's id.
fn device_id(c: &mut Checker<'_>, camera: &v1::Camera) {
    let id = c.s.id;
    let code = if c.wrote(f::DEVICE_ID) { camera.device_id.as_deref() } else { Some(id) };
    let Some(code) = c.named_by_code(f::DEVICE_ID, code) else { return };
    let fine = is_digits(code, 20) && DEVICE_TYPES.contains(&&code[10..13]);
    let words = (
        "it must be 20 digits of GB/T 28181, with type 131 or 132 at 11 to 13",
        "应为20位国标编码，第11-13位为131或132",
    );
    c.refuse_unless(fine, f::DEVICE_ID, words);
}

/// A township's node writes social cameras only; what public ones were last seen to do, it may say.
fn ownership(c: &mut Checker<'_>, camera: &v1::Camera) {
    if c.s.own.tier() > Tier::Township {
        return;
    }
    let was = c.shown(c.s.before, f::OWNERSHIP).and_then(|v| view::number(&v));
    let public = v1::CameraOwnership::Public as i32;
    let is_public = camera.ownership == Some(public) || was == Some(public as u64);
    let of_county = |field: &FieldNumber| *field != f::STATUS;
    if is_public && let Some(field) = c.s.written.iter().copied().find(of_county) {
        let words = (
            "a public camera is the county's to write; a township writes social ones",
            "公共视频由县级维护，乡级只能维护社会视频",
        );
        c.refuse(field, words);
    }
}

/// An observation has a time, which is neither in the future nor before the one that is shown.
fn status(c: &mut Checker<'_>, camera: &v1::Camera) {
    let Some(status) = camera.status.as_ref().filter(|_| c.wrote(f::STATUS)) else { return };
    let Some(time) = &status.observe_time else {
        return c.refuse(f::STATUS, ("it needs the time at which it was observed", "须填写观测时间"));
    };
    let observed_ms = time.seconds.saturating_mul(1_000).saturating_add(i64::from(time.nanos) / 1_000_000);
    let latest_ms = c.s.now_ms.saturating_add(c.s.drift_ms);
    if i64::try_from(latest_ms).is_ok_and(|latest_ms| observed_ms > latest_ms) {
        let words = (
            "it was observed in the future; set the clock of the device or platform",
            "观测时间晚于当前时间，请校准时钟",
        );
        return c.refuse(f::STATUS, words);
    }
    let shown = c.shown(c.s.before, f::STATUS).filter(|value| raw::payload_tag(value).is_some());
    if shown.is_some_and(|value| observed_ms < view::observed_ms(&value)) {
        c.refuse(f::STATUS, ("a later observation is there already", "已有更新的观测结果"));
    }
}
