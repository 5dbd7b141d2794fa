//! The four colours 红黄蓝绿 of a figure: bounds, and what lies beyond them. Everything is compared as whole numbers, so
//! that 19 of 20 is exactly 95 %. Nothing here knows where a threshold or a figure comes from.

use std::collections::BTreeMap;

use guantong_proto::v1;

use crate::division::Division;

/// Bounds are in millionths of a measure's unit.
pub const UNIT_MILLIONTHS: i64 = 1_000_000;

/// Bounds that make sense together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    higher_is_better: bool,
    /// Red, yellow, blue: from the worst to the best.
    at_millionths: [Option<i64>; 3],
}

/// Why bounds make no sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BoundsError {
    /// Which end is good is not said.
    #[error("say whether higher or lower is better")]
    NoDirection,
    /// There is no bound at all.
    #[error("give at least one bound: red, yellow or blue")]
    NoBound,
    /// A worse colour begins after a better one.
    #[error(
        "the bounds are out of order: with higher better red ≤ yellow ≤ blue, with lower better red ≥ yellow ≥ blue"
    )]
    OutOfOrder,
}

impl BoundsError {
    /// The same in Chinese.
    pub fn chinese(self) -> &'static str {
        match self {
            BoundsError::NoDirection => "请指明越高越好或越低越好",
            BoundsError::NoBound => "请至少填写红、黄、蓝中的一个界值",
            BoundsError::OutOfOrder => "界值顺序有误：越高越好时红≤黄≤蓝，越低越好时红≥黄≥蓝",
        }
    }
}

/// The colours that a bound leads to, from the worst to the best.
const WORST_FIRST: [v1::Color; 3] = [v1::Color::Red, v1::Color::Yellow, v1::Color::Blue];

impl Bounds {
    /// Bounds from their message.
    ///
    /// # Errors
    /// No direction, no bound, or bounds out of order.
    pub fn of(bounds: &v1::ThresholdBounds) -> Result<Bounds, BoundsError> {
        let higher_is_better = match bounds.direction() {
            v1::ThresholdDirection::HigherIsBetter => true,
            v1::ThresholdDirection::LowerIsBetter => false,
            v1::ThresholdDirection::Unspecified => return Err(BoundsError::NoDirection),
        };
        let at_millionths = [bounds.red_millionths, bounds.yellow_millionths, bounds.blue_millionths];
        let given: Vec<i64> = at_millionths.iter().copied().flatten().collect();
        if given.is_empty() {
            return Err(BoundsError::NoBound);
        }
        let ordered = if higher_is_better { given.is_sorted() } else { given.is_sorted_by(|a, b| a >= b) };
        if !ordered {
            return Err(BoundsError::OutOfOrder);
        }
        Ok(Bounds { higher_is_better, at_millionths })
    }

    /// The color of `numerator ÷ denominator` (a count: ÷ 1). Without a denominator above zero there is no figure, and
    /// so no color.
    pub fn color(&self, numerator: i64, denominator: i64) -> v1::Color {
        if denominator <= 0 {
            return v1::Color::Unspecified;
        }
        let figure = i128::from(numerator) * i128::from(UNIT_MILLIONTHS);
        let beyond = |bound: i64| {
            let bound = i128::from(bound) * i128::from(denominator);
            if self.higher_is_better { figure < bound } else { figure > bound }
        };
        let crossed = WORST_FIRST.into_iter().zip(self.at_millionths);
        let worst = crossed.filter_map(|(color, at)| at.map(|at| (color, at))).find(|(_, at)| beyond(*at));
        worst.map_or(v1::Color::Green, |(color, _)| color)
    }

    /// The bound whose crossing made the color; `None` for green and for no color.
    pub fn bound_millionths(&self, color: v1::Color) -> Option<i64> {
        let place = WORST_FIRST.iter().position(|worst| *worst == color)?;
        self.at_millionths[place]
    }

    /// Whether higher values are the better ones.
    pub fn higher_is_better(&self) -> bool {
        self.higher_is_better
    }
}

/// What a record tells the table of thresholds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ThresholdEntry {
    /// The record's home: it counts there and below.
    pub home: Division,
    /// The measure's name.
    pub measure: String,
    /// `None`: there is none any more.
    pub bounds: Option<Bounds>,
}

/// The thresholds that a node knows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Thresholds {
    of: BTreeMap<String, BTreeMap<Division, Bounds>>,
}

impl Thresholds {
    /// Takes in what a record says.
    pub fn learn(&mut self, entry: ThresholdEntry) {
        let of = self.of.entry(entry.measure).or_default();
        match entry.bounds {
            Some(bounds) => of.insert(entry.home, bounds),
            None => of.remove(&entry.home),
        };
    }

    /// The bounds that count for a division: those of the nearest division around it, its own before all.
    pub fn nearest(&self, measure: &str, division: Division) -> Option<(Division, &Bounds)> {
        let of = self.of.get(measure)?;
        division.enclosing().find_map(|around| Some((around, of.get(&around)?)))
    }

    /// The measures that have a threshold somewhere, by name.
    pub fn measures(&self) -> impl Iterator<Item = &str> {
        self.of.iter().filter(|(_, of)| !of.is_empty()).map(|(measure, _)| measure.as_str())
    }
}

/// A bound as it is written for people: `95%`, `12`.
pub fn millionths_text(millionths: i64, rate: bool) -> String {
    let (scale, sign) = if rate { (UNIT_MILLIONTHS / 100, "%") } else { (UNIT_MILLIONTHS, "") };
    let (whole, rest) = (millionths / scale, (millionths % scale).abs());
    let decimals = if rate { format!("{rest:04}") } else { format!("{rest:06}") };
    let decimals = decimals.trim_end_matches('0');
    let point = if decimals.is_empty() { "" } else { "." };
    format!("{whole}{point}{decimals}{sign}")
}

/// What a color is called.
pub fn color_label(color: v1::Color) -> &'static str {
    match color {
        v1::Color::Unspecified => "",
        v1::Color::Green => "绿",
        v1::Color::Blue => "蓝",
        v1::Color::Yellow => "黄",
        v1::Color::Red => "红",
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bounds(direction: v1::ThresholdDirection, at: [Option<i64>; 3]) -> Result<Bounds, BoundsError> {
        Bounds::of(&v1::ThresholdBounds {
            direction: direction.into(),
            red_millionths: at[0],
            yellow_millionths: at[1],
            blue_millionths: at[2],
        })
    }

    const HIGHER: v1::ThresholdDirection = v1::ThresholdDirection::HigherIsBetter;
    const LOWER: v1::ThresholdDirection = v1::ThresholdDirection::LowerIsBetter;

    #[test]
    fn a_bound_itself_belongs_to_the_better_color() {
        let rate = bounds(HIGHER, [Some(800_000), Some(900_000), Some(950_000)]).unwrap();
        let colors = [(19, 20), (94, 100), (9, 10), (89, 100), (8, 10), (79, 100), (0, 1)];
        let colors = colors.map(|(n, d)| color_label(rate.color(n, d)));
        assert_eq!(colors, ["绿", "蓝", "蓝", "黄", "黄", "红", "红"]);
        let overdue = bounds(LOWER, [Some(10_000_000), None, Some(0)]).unwrap();
        assert_eq!([0, 1, 10, 11].map(|n| color_label(overdue.color(n, 1))), ["绿", "蓝", "蓝", "红"]);
        assert_eq!(overdue.bound_millionths(v1::Color::Red), Some(10_000_000));
        assert_eq!(overdue.bound_millionths(v1::Color::Green), None);
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        assert_eq!(bounds(HIGHER, [None; 3]), Err(BoundsError::NoBound));
        assert_eq!(bounds(HIGHER, [Some(2), Some(1), None]), Err(BoundsError::OutOfOrder));
        assert_eq!(bounds(LOWER, [Some(1), None, Some(2)]), Err(BoundsError::OutOfOrder));
        assert_eq!(bounds(v1::ThresholdDirection::Unspecified, [Some(1); 3]), Err(BoundsError::NoDirection));
    }

    #[test]
    fn bounds_are_written_without_rounding() {
        let texts = [(950_000, true), (971_250, true), (1, true), (12_000_000, false), (500_000, false)];
        let texts = texts.map(|(at, rate)| millionths_text(at, rate));
        assert_eq!(texts, ["95%", "97.125%", "0.0001%", "12", "0.5"]);
    }

    #[test]
    fn the_nearest_division_around_counts() {
        let at = |code: &str| Division::parse(code).unwrap();
        let own = bounds(HIGHER, [Some(1), None, None]).unwrap();
        let above = bounds(HIGHER, [Some(2), None, None]).unwrap();
        let mut thresholds = Thresholds::default();
        let entry = |home, bounds| ThresholdEntry { home: at(home), measure: "online_rate".into(), bounds };
        thresholds.learn(entry("2208", Some(above)));
        thresholds.learn(entry("220822", Some(own)));
        let nearest = |code| thresholds.nearest("online_rate", at(code)).map(|(home, _)| home);
        assert_eq!(nearest("220822101"), Some(at("220822")));
        assert_eq!(nearest("220821"), Some(at("2208")));
        assert_eq!(nearest("22"), None, "never from below");
        assert_eq!(thresholds.measures().count(), 1);
        thresholds.learn(entry("220822", None));
        assert_eq!(thresholds.nearest("online_rate", at("220822101")), Some((at("2208"), &above)));
        thresholds.learn(entry("2208", None));
        assert_eq!(thresholds.measures().count(), 0);
    }

    #[test]
    fn nothing_has_no_color() {
        let rate = bounds(HIGHER, [Some(1), None, None]).unwrap();
        assert_eq!(rate.color(0, 0), v1::Color::Unspecified);
    }

    proptest! {
        /// A better figure never has a worse color, and the same figure written otherwise has the same.
        #[test]
        fn colors_follow_the_figure(
            mut at in prop::array::uniform3(prop::option::of(0i64..2_000_000)),
            higher: bool, n in 0i64..1_000, more in 0i64..1_000, d in 1i64..1_000, times in 1i64..1_000,
        ) {
            let mut given: Vec<i64> = at.iter().copied().flatten().collect();
            prop_assume!(!given.is_empty());
            given.sort_unstable();
            if !higher {
                given.reverse();
            }
            let mut given = given.into_iter();
            for bound in at.iter_mut().filter(|b| b.is_some()) {
                *bound = given.next();
            }
            let bounds = bounds(if higher { HIGHER } else { LOWER }, at).unwrap();
            let (low, high) = (bounds.color(n, d) as i32, bounds.color(n + more, d) as i32);
            let better = if higher { high <= low } else { high >= low };
            prop_assert!(better, "{low} and then {high}");
            prop_assert_eq!(bounds.color(n, d), bounds.color(n * times, d * times));
        }
    }
}
