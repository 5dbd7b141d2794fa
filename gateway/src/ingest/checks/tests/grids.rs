//! What a grid may be.

use super::*;
use fields::grid as f;

fn write(grid: &v1::Grid) -> Judged {
    Desk::new("grid", TOWNSHIP, GRID).write(TOWNSHIP, grid, &[])
}

fn coded(code: &str) -> Judged {
    let grid = v1::Grid { grid_code: Some(code.into()), ..grid() };
    Desk::new("grid", TOWNSHIP, code).write(TOWNSHIP, &grid, &[])
}

#[test]
fn a_good_grid_goes_in_and_keeps_its_code() {
    let mut desk = Desk::new("grid", TOWNSHIP, GRID);
    assert_eq!(desk.write(TOWNSHIP, &grid(), &[]), Ok(()));
    let other = v1::Grid { grid_code: Some("220822101000002".into()), ..v1::Grid::default() };
    assert_eq!(blamed(desk.write(TOWNSHIP, &other, &[])), [f::GRID_CODE]);
    assert_eq!(blamed(desk.write(TOWNSHIP, &v1::Grid::default(), &[f::GRID_CODE])), [f::GRID_CODE]);
    let unnamed = v1::Grid { grid_code: None, ..grid() };
    assert_eq!(blamed(Desk::new("grid", TOWNSHIP, "g1").write(TOWNSHIP, &unnamed, &[])), [f::GRID_CODE]);
}

#[test]
fn the_code_lies_in_home_and_scope() {
    for wrong in
        ["22082210100001", "2208221010000011", "22082210100000x", "220822102000001", "220822000000001"]
    {
        assert_eq!(blamed(coded(wrong)), [f::GRID_CODE], "{wrong}");
    }
    let mut of_county = Desk::new("grid", "220822", GRID);
    assert_eq!(of_county.write("220822", &grid(), &[]), Ok(()));
    let mut other_writer = Desk::new("grid", "220822", GRID);
    assert_eq!(blamed(other_writer.write("220822102", &grid(), &[])), [f::GRID_CODE]);
}

#[test]
fn a_village_that_is_not_known_is_held_until_it_is() {
    let village = "220822101201";
    let code = format!("{village}001");
    let unknown = coded(&code).unwrap_err();
    let [Violation::UnknownDivision { field, division, detail }] = &unknown[..] else {
        panic!("{unknown:?}");
    };
    assert_eq!((*field, *division), (f::GRID_CODE, at(village)));
    assert!(detail.contains(village) && detail.contains("网格编码 (grid_code)"));
    let mut desk = Desk::new("grid", TOWNSHIP, &code);
    let entry = crate::division::DivisionEntry { code: at(village), name: "某村".into(), active: true };
    desk.divisions.insert(entry);
    let grid = v1::Grid { grid_code: Some(code), ..grid() };
    assert_eq!(desk.write(TOWNSHIP, &grid, &[]), Ok(()));
}

#[test]
fn the_division_lies_inside_the_home() {
    for wrong in ["220822102000", "220822101", "22082210100x", ""] {
        let grid = v1::Grid { division: Some(wrong.into()), ..grid() };
        assert_eq!(blamed(write(&grid)), [f::DIVISION], "{wrong}");
    }
}

#[test]
fn a_retired_grid_says_since_when() {
    let retired = v1::Grid { state: Some(v1::ActiveState::Retired as i32), ..grid() };
    assert_eq!(blamed(write(&retired)), [f::VALID_TO]);
    let mut desk = Desk::new("grid", TOWNSHIP, GRID);
    assert_eq!(desk.write(TOWNSHIP, &v1::Grid { valid_to: date(2026, 2, 1), ..retired }, &[]), Ok(()));
    assert_eq!(blamed(desk.write(TOWNSHIP, &v1::Grid::default(), &[f::VALID_TO])), [f::VALID_TO]);
    let late = v1::Grid { valid_from: date(2026, 2, 2), ..v1::Grid::default() };
    assert_eq!(blamed(desk.write(TOWNSHIP, &late, &[])), [f::VALID_FROM], "who writes it is told");
    let same = v1::Grid { valid_from: date(2026, 2, 1), ..v1::Grid::default() };
    assert_eq!(desk.write(TOWNSHIP, &same, &[]), Ok(()));
    let no_day = v1::Grid { valid_from: date(2026, 2, 30), ..grid() };
    assert_eq!(blamed(write(&no_day)), [f::VALID_FROM]);
}

#[test]
fn boundaries_are_closed_polygons_in_the_country() {
    let bounded = |text: &str| write(&v1::Grid { boundary: Some(text.into()), ..grid() });
    let good =
        r#"{"type":"Polygon","coordinates":[[[123.1,44.8],[123.2,44.8],[123.2,44.9,150],[123.1,44.8]]]}"#;
    assert_eq!(bounded(good), Ok(()));
    for wrong in [
        "",
        "POLYGON((1 2))",
        r#"{"type":"Polygon","coordinates":[]}"#,
        r#"{"type":"Point","coordinates":[123.1,44.8]}"#,
        r#"{"type":"MultiPolygon","coordinates":[[[123.1,44.8],[123.2,44.8],[123.2,44.9],[123.1,44.8]]]}"#,
        r#"{"type":"Polygon","coordinates":[[[123.1,44.8],[123.2,44.8],[123.2,44.9],[123.1,44.9]]]}"#,
        r#"{"type":"Polygon","coordinates":[[[123.1,44.8],[123.2,44.8],[123.1,44.8]]]}"#,
        r#"{"type":"Polygon","coordinates":[[[44.8,123.1],[44.8,123.2],[44.9,123.2],[44.8,123.1]]]}"#,
        r#"{"type":"Polygon","coordinates":[[[123.1],[123.2],[123.2],[123.1]]]}"#,
        r#"{"type":"Polygon","coordinates":[[]]}"#,
    ] {
        assert_eq!(blamed(bounded(wrong)), [f::BOUNDARY], "{wrong}");
    }
    let deep = "[".repeat(60_000);
    assert_eq!(blamed(bounded(&deep)), [f::BOUNDARY]);
}

#[test]
fn everything_wrong_is_named_at_once() {
    let wrong = v1::Grid {
        households: Some(-1),
        residents: Some(-1),
        staffing: Some(v1::Staffing { chiefs: Some(1), part_time_members: Some(-2), ..Default::default() }),
        centroid: Some(v1::LngLat { longitude: f64::NAN, latitude: 44.0 }),
        ..grid()
    };
    assert_eq!(blamed(write(&wrong)), [f::CENTROID, f::HOUSEHOLDS, f::RESIDENTS, f::STAFFING]);
}
