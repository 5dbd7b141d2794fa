//! Rules of rows that need no state, and what a row's home is. Rules that depend on records which exist, on the scope
//! of the node or on who writes are the node's.

use guantong_gateway::division::{Division, Tier};
use prost_reflect::{DynamicMessage, ReflectMessage, Value};
use serde_json::Value as Json;

use super::crs::{Crs, within_bounds};
use super::error::CellError;
use super::schema::KindView;

/// Numbers of `ActiveState` and `CameraOwnership`.
const RETIRED: i32 = 2;
const PUBLIC: i32 = 1;
const SOCIAL: i32 = 2;

impl CellError {
    /// Whether a home that the caller names for the whole ledger helps.
    pub(super) fn may_be_given(&self) -> bool {
        matches!(self, CellError::NoHome | CellError::NoOwnership)
    }
}

fn text<'a>(message: &'a DynamicMessage, field: &str) -> Option<std::borrow::Cow<'a, Value>> {
    let descriptor = message.descriptor().get_field_by_name(field)?;
    message.has_field(&descriptor).then(|| message.get_field(&descriptor))
}

fn enum_number(message: &DynamicMessage, field: &str) -> Option<i32> {
    text(message, field)?.as_enum_number()
}

fn division(message: &DynamicMessage, field: &str) -> Option<Division> {
    Division::parse(text(message, field)?.as_str()?).ok()
}

/// What the row is known by.
pub(super) fn key(view: &KindView, message: &DynamicMessage) -> Result<String, CellError> {
    let column = view.key_column().ok_or(CellError::NoKey)?;
    let value = text(message, column.field.name);
    let found = match (value.as_deref(), &column.part) {
        (Some(Value::String(key)), None) => Some(key.clone()),
        (Some(Value::List(entries)), Some(part)) => {
            let entry = entries.first().and_then(Value::as_message);
            entry.and_then(|entry| entry.get_field(part).as_str().map(str::to_owned))
        }
        _ => None,
    };
    found.filter(|key| !key.is_empty()).ok_or(CellError::NoKey)
}

/// Fields that do not fit together, each with the field to blame.
pub(super) fn check(view: &KindView, message: &DynamicMessage) -> Vec<(&'static str, CellError)> {
    let mut problems = Vec::new();
    let date = |field: &str| {
        let value = text(message, field)?;
        let date = value.as_message()?;
        let part = |number| date.get_field_by_number(number).and_then(|v| v.as_i32()).unwrap_or_default();
        Some((part(1), part(2), part(3)))
    };
    if let (Some(from), Some(to)) = (date("valid_from"), date("valid_to"))
        && to < from
    {
        problems.push(("valid_to", CellError::EndsBeforeStart));
    }
    if view.rule.name == "grid"
        && enum_number(message, "state") == Some(RETIRED)
        && date("valid_to").is_none()
    {
        problems.push(("valid_to", CellError::RetiredWithoutDate));
    }
    problems
}

/// The division that the record belongs to, or the field without which it is not known. It follows from the row
/// alone, so that the same row has the same home on every node and in every year.
pub(super) fn home(view: &KindView, message: &DynamicMessage) -> Result<Division, (&'static str, CellError)> {
    let place = division(message, "division");
    let by_grid = || Division::parse(text(message, "grid_code")?.as_str()?.get(..12)?).ok();
    match view.rule.name {
        "division" => {
            let code = division(message, "code").ok_or(("code", CellError::NoHome))?;
            // A pseudo-prefecture governs nothing: above Jiyuan is Henan.
            let above = code.enclosing().skip(1).find(|around| !around.is_pseudo_prefecture());
            above.ok_or(("code", CellError::Province))
        }
        "camera" => match enum_number(message, "ownership") {
            Some(PUBLIC) => {
                let county = || Division::parse(text(message, "device_id")?.as_str()?.get(..6)?).ok();
                let at = place.or_else(county).filter(|at| at.tier() <= Tier::Prefecture);
                at.map(Division::county).ok_or(("division", CellError::NoHome))
            }
            Some(SOCIAL) => place.map(Division::home).ok_or(("division", CellError::NoHome)),
            _ => Err(("ownership", CellError::NoOwnership)),
        },
        _ => place.or_else(by_grid).map(Division::home).ok_or(("division", CellError::NoHome)),
    }
}

/// What follows from the row without being written in it: a case that names no holder is held where it was born.
pub(super) fn complete(view: &KindView, message: &mut DynamicMessage, home: Division) {
    if view.rule.name != "case" || text(message, "lifecycle").is_none() {
        return;
    }
    let lifecycle = message.get_field_by_name_mut("lifecycle").and_then(Value::as_message_mut);
    if let Some(lifecycle) = lifecycle.filter(|lifecycle| !lifecycle.has_field_by_name("holder")) {
        lifecycle.set_field_by_name("holder", Value::String(home.to_string()));
    }
}

/// A GeoJSON Polygon in CGCS2000: the text as it stands where nothing has to be moved.
pub(super) fn boundary(text: &str, crs: Crs) -> Result<String, CellError> {
    let wrong = CellError::Boundary;
    let mut shape: Json = serde_json::from_str(text).map_err(|_| wrong("it is not JSON"))?;
    if shape.get("type").and_then(Json::as_str) != Some("Polygon") {
        return Err(wrong("its type is not Polygon"));
    }
    let rings = shape.get_mut("coordinates").and_then(Json::as_array_mut);
    let rings = rings.filter(|rings| !rings.is_empty()).ok_or(wrong("it has no rings"))?;
    for ring in rings {
        let points = ring.as_array_mut().ok_or(wrong("a ring is not a list of points"))?;
        if points.len() < 4 || points.first() != points.last() {
            return Err(wrong("a ring needs four points or more, the last the same as the first"));
        }
        for point in points {
            let pair = point.as_array().map(Vec::as_slice).unwrap_or_default();
            let place = match pair {
                [longitude, latitude, ..] => longitude.as_f64().zip(latitude.as_f64()),
                _ => None,
            };
            let place = place.ok_or(wrong("a point is not [longitude, latitude]"))?;
            let plain = crs.to_cgcs2000(place);
            if !within_bounds(plain) {
                return Err(CellError::OutsideBounds { swapped: within_bounds((place.1, place.0)) });
            }
            *point = serde_json::json!([plain.0, plain.1]);
        }
    }
    Ok(if crs.is_shifted() { shape.to_string() } else { text.to_owned() })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn boundaries_are_closed_and_in_bounds() {
        let square = "{ \"type\":\"Polygon\",\"coordinates\":[[[123,44],[123.1,44],[123.1,44.1],[123,44]]]}";
        assert_eq!(boundary(square, Crs::Cgcs2000).as_deref(), Ok(square), "not a byte is changed");
        let moved = boundary(square, Crs::Gcj02).unwrap();
        assert!(moved.contains("Polygon") && moved != square && !moved.contains("[123.0,44.0]"), "{moved}");
        assert_eq!(boundary(&moved, Crs::Cgcs2000).as_deref(), Ok(moved.as_str()));
        for (bad, words) in [
            ("POLYGON((1 2))", "not JSON"),
            ("{\"type\":\"Point\",\"coordinates\":[1,2]}", "not Polygon"),
            ("{\"type\":\"Polygon\",\"coordinates\":[]}", "no rings"),
            (&square.replace("[123,44]]", "[123,45]]"), "the same as the first"),
            (&square.replace("[123.1,44]", "[123.1]"), "longitude, latitude"),
            (&square.replace("[123.1,44]", "[44,123.1]"), "swapped"),
        ] {
            let error = boundary(bad, Crs::Cgcs2000).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
    }
}
