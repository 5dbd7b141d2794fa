//! Rules of grids: the code says where a grid lies, a retired grid says since when, a boundary is a closed shape.

use guantong_proto::rules::fields::grid as f;
use guantong_proto::v1;
use serde::Deserialize;

use super::{Checker, Violation, division_of, is_digits, is_place};
use crate::division::{Division, Tier};

/// Corners of the smallest ring, a triangle, with the first one repeated at the end.
const RING_MIN: usize = 4;

pub(super) fn check(c: &mut Checker<'_>) {
    let grid: v1::Grid = c.read(&[f::STATE, f::VALID_FROM, f::VALID_TO]);
    if c.wrote(f::GRID_CODE) || c.created() {
        code(c, &grid);
    }
    c.inside_home(f::DIVISION, grid.division.as_deref());
    let from = c.day(f::VALID_FROM, grid.valid_from.as_ref());
    let to = c.day(f::VALID_TO, grid.valid_to.as_ref());
    let words = ("the grid ends before it begins", "停用日期早于启用日期");
    c.in_order((f::VALID_FROM, from), (f::VALID_TO, to), words);
    let retired = grid.state == Some(v1::ActiveState::Retired as i32);
    if retired && grid.valid_to.is_none() && (c.wrote(f::STATE) || c.wrote(f::VALID_TO)) {
        c.refuse(f::VALID_TO, ("a retired grid needs the day on which it ended", "停用的网格须填写停用日期"));
    }
    if let Some(boundary) = grid.boundary.as_deref().filter(|_| c.wrote(f::BOUNDARY))
        && let Err(words) = polygon(boundary)
    {
        c.refuse(f::BOUNDARY, words);
    }
    c.place(f::CENTROID, grid.centroid.as_ref());
    c.count(f::HOUSEHOLDS, grid.households.map(i64::from));
    c.count(f::RESIDENTS, grid.residents.map(i64::from));
    let staff = grid.staffing.unwrap_or_default();
    let least = [staff.chiefs, staff.full_time_members, staff.part_time_members].into_iter().flatten().min();
    c.count(f::STAFFING, least.map(i64::from));
}

/// The grid's code, which is also the record's id.
fn code(c: &mut Checker<'_>, grid: &v1::Grid) {
    let id = c.s.id;
    let code = if c.wrote(f::GRID_CODE) { grid.grid_code.as_deref() } else { Some(id) };
    let Some(code) = c.named_by_code(f::GRID_CODE, code) else { return };
    let lies_in = |code: &str| division_of(code.get(..12)?);
    let place = lies_in(code).filter(|place| is_digits(code, 15) && place.tier() <= Tier::Township);
    let Some(place) = place else {
        let words = (
            "it must be 15 digits: a village's or township's 12 and a serial of 3",
            "网格编码应为15位：12位村级或乡级代码加3位序号",
        );
        return c.refuse(f::GRID_CODE, words);
    };
    scope(c, place);
}

/// Whether the writer may speak for where the grid lies, and whether that is known.
fn scope(c: &mut Checker<'_>, place: Division) {
    let (home, writer) = (c.s.home, c.s.writer);
    if !home.contains(place) || !writer.contains(place) {
        let english = format!(
            "its first 12 digits, {place}, do not lie inside {home}, or not in the scope of {writer}"
        );
        return c.refuse(f::GRID_CODE, (&english, "编码前12位不在本区划内"));
    }
    if !c.s.divisions.known(place) {
        let english = format!(
            "this node does not know the division {place}; correct the code, or import that division (`guantong divisions import`)"
        );
        let detail = c.say(f::GRID_CODE, (&english, "未知区划，请更正编码或先导入该区划"));
        c.found.push(Violation::UnknownDivision { field: f::GRID_CODE, division: place, detail });
    }
}

/// A GeoJSON geometry, as far as it matters. Heights and other members are passed over.
#[derive(Deserialize)]
struct Geometry {
    r#type: String,
    coordinates: Vec<Vec<Vec<f64>>>,
}

/// Whether the text is a GeoJSON polygon with closed rings, inside the country's bounds.
fn polygon(text: &str) -> Result<(), (&'static str, &'static str)> {
    let geometry = serde_json::from_str::<Geometry>(text).ok().filter(|g| g.r#type == "Polygon");
    let geometry = geometry.filter(|g| !g.coordinates.is_empty());
    let Some(Geometry { coordinates: rings, .. }) = geometry else {
        return Err(("it is not a GeoJSON geometry of type Polygon", "不是 GeoJSON 多边形"));
    };
    if rings.iter().flatten().any(|corner| corner.len() < 2 || !is_place(corner[0], corner[1])) {
        return Err((
            "a corner lies outside 73 to 136 degrees east, 3 to 54 north; longitude comes first",
            "边界坐标超出范围，请检查经度与纬度的顺序",
        ));
    }
    if rings.iter().any(|ring| ring.len() < RING_MIN || ring.first() != ring.last()) {
        return Err((
            "a ring is not closed: repeat its first corner at its end",
            "边界未闭合，首尾坐标应相同",
        ));
    }
    Ok(())
}
