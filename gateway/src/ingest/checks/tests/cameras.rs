//! What a camera may be, and who may write it.

use super::*;
use fields::camera as f;

fn camera(ownership: v1::CameraOwnership) -> v1::Camera {
    v1::Camera {
        device_id: Some(CAMERA.into()),
        division: Some("220822101000".into()),
        ownership: Some(ownership as i32),
        location: Some(v1::LngLat { longitude: 123.1, latitude: 44.8 }),
        retention_days: Some(90),
        ..v1::Camera::default()
    }
}

fn social() -> v1::Camera {
    camera(v1::CameraOwnership::Social)
}

fn desk() -> Desk {
    Desk::new("camera", TOWNSHIP, CAMERA)
}

fn seen(offset_ms: i64) -> v1::Camera {
    let ms = NOW_MS as i64 + offset_ms;
    let time = prost_types::Timestamp { seconds: ms / 1_000, nanos: (ms % 1_000 * 1_000_000) as i32 };
    let status = v1::CameraStatus { state: v1::CameraState::On as i32, observe_time: Some(time) };
    v1::Camera { status: Some(status), ..v1::Camera::default() }
}

#[test]
fn the_code_is_one_of_a_camera() {
    assert_eq!(desk().write(TOWNSHIP, &social(), &[]), Ok(()));
    for wrong in
        ["2208220000131000001", "22082200001110000001", "2208220000131000000x", "网网网网网网网网网网"]
    {
        let camera = v1::Camera { device_id: Some(wrong.into()), ..social() };
        let mut desk = Desk::new("camera", TOWNSHIP, wrong);
        assert_eq!(blamed(desk.write(TOWNSHIP, &camera, &[])), [f::DEVICE_ID], "{wrong}");
    }
    let mut other = Desk::new("camera", TOWNSHIP, "22082200001310000002");
    assert_eq!(blamed(other.write(TOWNSHIP, &social(), &[])), [f::DEVICE_ID]);
}

#[test]
fn places_days_and_counts() {
    let swapped = Some(v1::LngLat { longitude: 44.8, latitude: 123.1 });
    let wrong = v1::Camera {
        location: swapped,
        retention_days: Some(-1),
        division: Some("220822102000".into()),
        installed_on: date(2023, 2, 29),
        filing: Some(v1::Filing { filed_on: date(0, 0, 0), ..Default::default() }),
        ..social()
    };
    let all = [f::DIVISION, f::LOCATION, f::INSTALLED_ON, f::FILING, f::RETENTION_DAYS];
    assert_eq!(blamed(desk().write(TOWNSHIP, &wrong, &[])), all);
}

#[test]
fn a_township_node_writes_social_cameras_only() {
    let public = camera(v1::CameraOwnership::Public);
    assert_eq!(blamed(desk().write(TOWNSHIP, &public, &[])).len(), 1);
    let mut acting = desk().own("220822");
    assert_eq!(acting.write(TOWNSHIP, &public, &[]), Ok(()), "the county acts for the township");
    let mut desk = desk().own("220822");
    assert_eq!(desk.write("220822", &public, &[]), Ok(()));
    desk.own = at(TOWNSHIP);
    let name = v1::Camera { display_name: Some("路口".into()), ..v1::Camera::default() };
    assert_eq!(blamed(desk.write(TOWNSHIP, &name, &[])), [f::DISPLAY_NAME]);
    let taken = v1::Camera { ownership: social().ownership, ..v1::Camera::default() };
    assert_eq!(blamed(desk.write(TOWNSHIP, &taken, &[])), [f::OWNERSHIP]);
    assert_eq!(desk.write(TOWNSHIP, &seen(-1_000), &[]), Ok(()), "what it was seen to do");
}

#[test]
fn observations_come_in_their_order() {
    let mut desk = desk();
    assert_eq!(desk.write(TOWNSHIP, &social(), &[]), Ok(()));
    assert_eq!(blamed(desk.write(TOWNSHIP, &seen(300_001), &[])), [f::STATUS]);
    assert_eq!(desk.write(TOWNSHIP, &seen(0), &[]), Ok(()));
    assert_eq!(blamed(desk.write(TOWNSHIP, &seen(-1), &[])), [f::STATUS]);
    assert_eq!(desk.write(TOWNSHIP, &seen(0), &[]), Ok(()));
    let timeless = v1::Camera { status: Some(v1::CameraStatus::default()), ..v1::Camera::default() };
    assert_eq!(blamed(desk.write(TOWNSHIP, &timeless, &[])), [f::STATUS]);
    assert_eq!(desk.write(TOWNSHIP, &v1::Camera::default(), &[f::STATUS]), Ok(()), "cleared");
    assert_eq!(desk.write(TOWNSHIP, &seen(-1), &[]), Ok(()), "nothing is shown");
}
