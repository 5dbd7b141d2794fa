//! Coordinate reference systems of ledgers, and the way from each to CGCS2000.
//!
//! CGCS2000 and WGS 84 differ by centimetres and are taken as one. GCJ-02 shifts WGS 84 by a formula that was never
//! published but has been known since 2010; BD-09 shifts GCJ-02 once more. Both are undone by iteration, to less than
//! a millimetre. Which system a file uses is always said by a person and never guessed: a wrong one is off by 500 m
//! and looks right.

use std::f64::consts::PI;
use std::str::FromStr;

/// The reference system of a ledger's coordinates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crs {
    /// China Geodetic Coordinate System 2000.
    Cgcs2000,
    /// World Geodetic System 1984, as satellite receivers give it.
    Wgs84,
    /// The national shifted system 火星坐标, as of AMap and Tencent.
    Gcj02,
    /// Baidu's.
    Bd09,
}

impl FromStr for Crs {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Crs, Self::Err> {
        match text.to_ascii_lowercase().replace(['-', '_', ' '], "").as_str() {
            "cgcs2000" => Ok(Crs::Cgcs2000),
            "wgs84" => Ok(Crs::Wgs84),
            "gcj02" => Ok(Crs::Gcj02),
            "bd09" => Ok(Crs::Bd09),
            _ => Err("the reference system is one of cgcs2000, wgs84, gcj02, bd09"),
        }
    }
}

/// A point in degrees: longitude, latitude.
type Point = (f64, f64);

impl Crs {
    /// Whether points of this system are moved.
    pub(super) fn is_shifted(self) -> bool {
        matches!(self, Crs::Gcj02 | Crs::Bd09)
    }

    /// The point in CGCS2000. Moved points are rounded to 7 decimals, about a centimetre, so that they stay readable
    /// and the same on every machine; others stay as they are.
    pub(super) fn to_cgcs2000(self, point: Point) -> Point {
        let plain = match self {
            Crs::Cgcs2000 | Crs::Wgs84 => return point,
            Crs::Gcj02 => undo(gcj02, point),
            Crs::Bd09 => undo(gcj02, undo(bd09, point)),
        };
        (rounded(plain.0), rounded(plain.1))
    }
}

/// Whether the point can lie in China.
pub(super) fn within_bounds((longitude, latitude): Point) -> bool {
    (73.0..=136.0).contains(&longitude) && (3.0..=54.0).contains(&latitude)
}

fn rounded(degrees: f64) -> f64 {
    (degrees * 1e7).round() / 1e7
}

/// The point that `shift` moves to `target`. The shifts hardly change from place to place, so each step gains three
/// digits.
fn undo(shift: impl Fn(Point) -> Point, target: Point) -> Point {
    let mut point = target;
    for _ in 0..16 {
        let moved = shift(point);
        let miss = (target.0 - moved.0, target.1 - moved.1);
        point = (point.0 + miss.0, point.1 + miss.1);
        if miss.0.abs() < 1e-11 && miss.1.abs() < 1e-11 {
            break;
        }
    }
    point
}

/// WGS 84 to GCJ-02.
fn gcj02((longitude, latitude): Point) -> Point {
    // Krasovsky 1940.
    const SEMI_MAJOR_AXIS_M: f64 = 6_378_245.0;
    const ECCENTRICITY_SQUARED: f64 = 0.006_693_421_622_965_943;
    let (x, y) = (longitude - 105.0, latitude - 35.0);
    let waves = |terms: &[(f64, f64)]| {
        terms.iter().map(|(size, turns)| size * (turns * PI).sin()).sum::<f64>() * 2.0 / 3.0
    };
    let ripple = waves(&[(20.0, 6.0 * x), (20.0, 2.0 * x)]);
    let root = x.abs().sqrt();
    let east_m = 300.0
        + x
        + 2.0 * y
        + 0.1 * x * x
        + 0.1 * x * y
        + 0.1 * root
        + ripple
        + waves(&[(20.0, x), (40.0, x / 3.0)])
        + waves(&[(150.0, x / 12.0), (300.0, x / 30.0)]);
    let north_m = -100.0
        + 2.0 * x
        + 3.0 * y
        + 0.2 * y * y
        + 0.1 * x * y
        + 0.2 * root
        + ripple
        + waves(&[(20.0, y), (40.0, y / 3.0)])
        + waves(&[(160.0, y / 12.0), (320.0, y / 30.0)]);
    // Metres to degrees on the ellipsoid.
    let (sin, cos) = latitude.to_radians().sin_cos();
    let flatness = 1.0 - ECCENTRICITY_SQUARED * sin * sin;
    let across = SEMI_MAJOR_AXIS_M / flatness.sqrt();
    let along = across * (1.0 - ECCENTRICITY_SQUARED) / flatness;
    (longitude + (east_m / (across * cos)).to_degrees(), latitude + (north_m / along).to_degrees())
}

/// GCJ-02 to BD-09.
fn bd09((longitude, latitude): Point) -> Point {
    const TURN: f64 = PI * 3000.0 / 180.0;
    let distance = longitude.hypot(latitude) + 0.000_02 * (latitude * TURN).sin();
    let angle = latitude.atan2(longitude) + 0.000_003 * (longitude * TURN).cos();
    (distance * angle.cos() + 0.0065, distance * angle.sin() + 0.006)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[track_caller]
    fn assert_near(a: Point, b: Point, degrees: f64) {
        assert!((a.0 - b.0).abs() < degrees && (a.1 - b.1).abs() < degrees, "{a:?} is not {b:?}");
    }

    /// Values that published implementations agree on.
    #[test]
    fn reference_points() {
        let beijing = (116.404, 39.915);
        assert_near(gcj02(beijing), (116.410_244_499_169_38, 39.916_404_281_501_64), 1e-9);
        assert_near(bd09(beijing), (116.410_369_493_710_29, 39.921_336_993_510_21), 1e-9);
        // Published inverses are one approximate step; ours is exact, so they agree to a few metres only.
        assert_near(Crs::Gcj02.to_cgcs2000(beijing), (116.397_755_5, 39.913_595_7), 2e-5);
        assert_near(Crs::Bd09.to_cgcs2000(beijing), (116.391_385, 39.907_253), 2e-5);
        assert_eq!(Crs::Wgs84.to_cgcs2000(beijing), beijing);
    }

    #[test]
    fn systems_are_named() {
        assert_eq!("GCJ-02".parse(), Ok(Crs::Gcj02));
        assert_eq!("bd09".parse(), Ok(Crs::Bd09));
        assert!("epsg:4326".parse::<Crs>().is_err());
    }

    proptest! {
        #[test]
        fn a_shift_is_undone_everywhere(longitude in 73.0..136.0, latitude in 3.0..54.0) {
            let place = (longitude, latitude);
            for (back, shifted) in [(Crs::Gcj02, gcj02(place)), (Crs::Bd09, bd09(gcj02(place)))] {
                let found = back.to_cgcs2000(shifted);
                prop_assert!((found.0 - longitude).abs() < 1.1e-7 && (found.1 - latitude).abs() < 1.1e-7);
            }
        }
    }
}
