//! Records that are likely the same thing twice: cameras and cases. What is found is shown to people and never merged.
//!
//! Rules, on purpose few and plain. Cameras: the same device id under two homes; or within 10 m of each other, with a
//! function in common, in different networks. Cases: the same number of another system under two names; or received on
//! the same day in the same division with the same title, or with a party of the same name and telephone.
//!
//! One pass makes a sketch of each record, a few numbers; what is alike is found by sorting them. Texts and persons are
//! hashed, never kept.

use guantong_proto::rules::fields;
use guantong_proto::v1;
use prost::Message;

use crate::calendar;
use crate::facet::of_text;
use crate::record::raw;
use crate::record::reader::Reader;

/// Likely duplicates that are listed at most.
pub const FOUND_MAX: usize = 10_000;
/// So near each other two cameras are likely one, in metres.
const NEAR_M: f64 = 10.0;
/// A cell of the search, in millionths of a degree of latitude: a little over 10 m.
const CELL: i64 = 100;
/// Neighbours that one camera is compared with: thousands may stand at a made-up point.
const NEIGHBOURS_MAX: usize = 64;
/// Metres of one degree of latitude.
const DEGREE_M: f64 = 111_195.0;

/// Why records are likely one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Likeness {
    /// Cameras with the same device id.
    DeviceId,
    /// Cameras near each other with a function in common, in different networks.
    Nearby,
    /// Cases with the same number of another system.
    ExternalNumber,
    /// Cases of the same day and division with the same title.
    Title,
    /// Cases of the same day and division with the same party.
    Party,
}

/// Records that are likely one.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    /// Why.
    pub likeness: Likeness,
    /// Their numbers, ascending, two or more.
    pub keys: Vec<i64>,
    /// For `Nearby`: metres between the two.
    pub distance_m: f64,
}

/// Where a camera stands, and what it is.
#[derive(Clone, Copy, Debug)]
struct Point {
    key: i64,
    /// Millionths of a degree.
    longitude: i64,
    latitude: i64,
    functions: u16,
    network: u8,
    device: i64,
}

/// What is known of all records that were looked at.
#[derive(Debug, Default)]
pub struct Sketches {
    /// Likeness, what is alike, record.
    alike: Vec<(Likeness, i64, i64)>,
    points: Vec<Point>,
}

impl Sketches {
    /// Looks at a camera.
    pub fn camera(&mut self, key: i64, camera: &Reader<'_>) {
        use fields::camera as f;
        if camera.flag(fields::DELETED) {
            return;
        }
        let device = camera.text(f::DEVICE_ID).filter(|id| !id.is_empty()).map(|id| of_text(&id));
        self.alike.extend(device.map(|device| (Likeness::DeviceId, device, key)));
        let place = camera.within(f::LOCATION, |message| v1::LngLat::decode(message).ok());
        let (Some(place), Some(functions)) = (place, camera.value(f::FUNCTIONS)) else { return };
        let functions = raw::payloads(&functions).flat_map(raw::Payload::numbers).filter(|n| *n < 16);
        let functions = functions.fold(0, |bits, function| bits | 1u16 << function);
        let network = camera.number(f::SOURCE_NETWORK).unwrap_or(0).min(255) as u8;
        if functions != 0 && network != 0 && place.longitude.is_finite() && place.latitude.is_finite() {
            let millionths = |degrees: f64| (degrees * 1e6).round() as i64;
            let (longitude, latitude) = (millionths(place.longitude), millionths(place.latitude));
            let device = device.unwrap_or(key);
            self.points.push(Point { key, longitude, latitude, functions, network, device });
        }
    }

    /// Looks at a case; `personal`: at its parties, too.
    pub fn case(&mut self, key: i64, case: &Reader<'_>, personal: bool) {
        use fields::case as f;
        let said = |field| case.text(field).is_some_and(|name| !name.is_empty());
        let cancelled = case.part_number(f::LIFECYCLE, 1) == Some(v1::CaseState::Cancelled as u64);
        // Somebody has decided already, or the case takes up another one on purpose.
        if case.flag(fields::DELETED) || cancelled || said(f::DUPLICATE_OF) || said(f::REOPENED_FROM) {
            return;
        }
        for (system, number) in case.external_numbers().iter().filter(|(s, n)| !s.is_empty() && !n.is_empty())
        {
            self.alike.push((Likeness::ExternalNumber, crate::facet::of_external(system, number), key));
        }
        let day = case.within(f::RECEIVED_ON, |message| v1::Date::decode(message).ok());
        let (Some(day), Some(division)) = (day, case.text(f::DIVISION)) else { return };
        let about = format!("{division} {}", calendar::sort_key(&day));
        let title = case.text(f::TITLE).map(|title| plain(&title)).filter(|title| !title.is_empty());
        self.alike.extend(title.map(|title| (Likeness::Title, of_text(&format!("{about} {title}")), key)));
        let parties = case.value(f::PARTIES).filter(|_| personal);
        let parties = parties.and_then(|value| v1::Case::decode(value).ok()).unwrap_or_default().parties;
        for party in parties.iter().filter(|p| !p.name.is_empty() && !p.telephone.is_empty()) {
            let party = format!("{about} {} {}", plain(&party.name), plain(&party.telephone));
            self.alike.push((Likeness::Party, of_text(&party), key));
        }
    }

    /// What is alike, and whether there is more than is given.
    pub fn find(mut self) -> (Vec<Found>, bool) {
        let mut found = Vec::new();
        self.alike.sort_unstable();
        self.alike.dedup();
        for group in self.alike.chunk_by(|a, b| (a.0, a.1) == (b.0, b.1)).filter(|group| group.len() > 1) {
            if found.len() >= FOUND_MAX {
                return (found, true);
            }
            let keys = group.iter().map(|(_, _, key)| *key).collect();
            found.push(Found { likeness: group[0].0, keys, distance_m: 0.0 });
        }
        let more = near(&mut self.points, &mut found);
        found.sort_by(|a, b| (a.likeness, &a.keys).cmp(&(b.likeness, &b.keys)));
        // Two cases may be alike in several ways; the first says it.
        found.dedup_by(|later, earlier| later.keys == earlier.keys && later.likeness == earlier.likeness);
        (found, more)
    }
}

/// A text without blanks and punctuation, so that it is compared by what it says.
fn plain(text: &str) -> String {
    text.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect()
}

/// Adds the pairs of cameras that stand near each other; gives whether there are more.
fn near(points: &mut [Point], found: &mut Vec<Found>) -> bool {
    let cell = |p: &Point| (p.latitude.div_euclid(CELL), p.longitude);
    points.sort_unstable_by_key(|p| (cell(p), p.key));
    for (i, point) in points.iter().enumerate() {
        let row = cell(point).0;
        // Degrees of longitude are shorter in the north: this is wide enough everywhere below 60 degrees.
        let (west, east) = (point.longitude - 2 * CELL, point.longitude + 2 * CELL);
        let here = points[i + 1..].iter().take_while(|p| cell(p).0 == row && p.longitude <= east);
        let above = points.partition_point(|p| cell(p) < (row + 1, west));
        let above = points[above..].iter().take_while(|p| cell(p).0 == row + 1 && p.longitude <= east);
        for other in here.take(NEIGHBOURS_MAX).chain(above.take(NEIGHBOURS_MAX)) {
            let distance_m = distance_m(point, other);
            let alike = point.functions & other.functions != 0 && point.network != other.network;
            if alike && point.device != other.device && distance_m <= NEAR_M {
                if found.len() >= FOUND_MAX {
                    return true;
                }
                let keys = vec![point.key.min(other.key), point.key.max(other.key)];
                found.push(Found { likeness: Likeness::Nearby, keys, distance_m });
            }
        }
    }
    false
}

/// Metres between two points that are near each other.
fn distance_m(a: &Point, b: &Point) -> f64 {
    let degrees = |millionths: i64| millionths as f64 / 1e6;
    let north = degrees(a.latitude - b.latitude) * DEGREE_M;
    let east = degrees(a.longitude - b.longitude) * DEGREE_M * degrees(a.latitude).to_radians().cos();
    north.hypot(east)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
