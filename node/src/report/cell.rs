//! What stands in a cell, and how it is written: counts with marks of thousands, rates to two decimals, changes with
//! their sign. Figures stay quotients of whole numbers until they are written.

use guantong_gateway::threshold::color_label;
use guantong_proto::v1;
use time::OffsetDateTime;

/// What stands where there is nothing.
pub(super) const NOTHING: &str = "—";

/// A quotient of two whole numbers; the lower one is above zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Quotient {
    pub(super) upper: i128,
    pub(super) lower: i128,
}

impl Quotient {
    /// `None` without a lower number.
    pub(super) fn new(upper: i128, lower: i128) -> Option<Quotient> {
        match lower {
            0 => None,
            below if below < 0 => Some(Quotient { upper: -upper, lower: -below }),
            _ => Some(Quotient { upper, lower }),
        }
    }

    /// For programs that draw and calculate.
    pub(super) fn number(self) -> f64 {
        self.upper as f64 / self.lower as f64
    }

    /// Times `scale`, rounded half away from zero, with so many decimals.
    fn decimals(self, scale: i128, places: u32) -> String {
        let unit = 10_i128.pow(places);
        let doubled = self.upper.abs() * scale * unit * 2 + self.lower;
        let rounded = doubled / (self.lower * 2);
        let sign = if self.upper < 0 && rounded > 0 { "-" } else { "" };
        let whole = grouped(rounded / unit);
        match places {
            0 => format!("{sign}{whole}"),
            _ => format!("{sign}{whole}.{:0width$}", rounded % unit, width = places as usize),
        }
    }
}

/// What stands in a cell.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Cell {
    Empty,
    Text(String),
    Count(i64),
    /// A part of a whole.
    Rate(Quotient),
    /// How much more or less than before, as a part of what was before.
    Change(Quotient),
    /// How many more or fewer.
    More(i64),
    /// How many percentage points more or fewer.
    Points(Quotient),
    Rank(i32),
    Color(v1::Color),
    /// A figure on the ground of its color.
    Colored(Box<Cell>, v1::Color),
}

impl Cell {
    pub(super) fn text(text: impl Into<String>) -> Cell {
        Cell::Text(text.into())
    }

    /// A figure.
    pub(super) fn value(value: Option<&v1::ReportValue>) -> Cell {
        match value {
            None => Cell::Empty,
            Some(v1::ReportValue { numerator, denominator: None, .. }) => Cell::Count(*numerator),
            Some(value) => quotient(value).map_or(Cell::Empty, Cell::Rate),
        }
    }

    /// On the ground of a color.
    pub(super) fn colored(self, color: v1::Color) -> Cell {
        match color {
            v1::Color::Unspecified => self,
            color => Cell::Colored(Box::new(self), color),
        }
    }

    /// (x − x₀) ÷ x₀; empty where x₀ is nothing or 0.
    pub(super) fn change(now: Option<&v1::ReportValue>, then: Option<&v1::ReportValue>) -> Cell {
        let change = || {
            let (now, then) = (quotient(now?)?, quotient(then?)?);
            let difference = now.upper * then.lower - then.upper * now.lower;
            Quotient::new(difference, then.upper * now.lower).filter(|_| then.upper != 0)
        };
        change().map_or(Cell::Empty, Cell::Change)
    }

    /// x − x₀: a number, or percentage points between rates.
    pub(super) fn difference(now: Option<&v1::ReportValue>, then: Option<&v1::ReportValue>) -> Cell {
        let (Some(now), Some(then)) = (now, then) else { return Cell::Empty };
        if now.denominator.is_none() && then.denominator.is_none() {
            return Cell::More(now.numerator - then.numerator);
        }
        let points = || {
            let (now, then) = (quotient(now)?, quotient(then)?);
            Quotient::new(now.upper * then.lower - then.upper * now.lower, now.lower * then.lower)
        };
        points().map_or(Cell::Empty, Cell::Points)
    }

    /// As it is written for people.
    pub(super) fn words(&self) -> String {
        match self {
            Cell::Empty => NOTHING.to_owned(),
            Cell::Text(text) => text.clone(),
            Cell::Count(count) => grouped(i128::from(*count)),
            Cell::Rate(rate) => format!("{}%", rate.decimals(100, 2)),
            Cell::Change(change) => format!("{}%", signed(change.decimals(100, 1))),
            Cell::More(more) => signed(grouped(i128::from(*more))),
            Cell::Points(points) => format!("{}个百分点", signed(points.decimals(100, 2))),
            Cell::Rank(0) => NOTHING.to_owned(),
            Cell::Rank(rank) => rank.to_string(),
            Cell::Color(color) => color_label(*color).to_owned(),
            Cell::Colored(cell, _) => cell.words(),
        }
    }

    /// For programs: digits without marks of thousands, changes in percent with their sign; nothing where it is empty.
    pub(super) fn plain(&self) -> Option<String> {
        match self {
            Cell::Count(count) => Some(count.to_string()),
            Cell::Rank(0) | Cell::Empty => None,
            other => Some(other.words().replace(',', "")),
        }
    }

    /// As a number, for charts.
    pub(super) fn number(&self) -> Option<f64> {
        match self {
            Cell::Count(count) | Cell::More(count) => Some(*count as f64),
            Cell::Rate(q) | Cell::Change(q) | Cell::Points(q) => Some(q.number()),
            Cell::Colored(cell, _) => cell.number(),
            Cell::Empty | Cell::Text(_) | Cell::Rank(_) | Cell::Color(_) => None,
        }
    }

    /// Whether it is a number to people: those stand to the right.
    pub(super) fn is_number(&self) -> bool {
        !matches!(self, Cell::Text(_) | Cell::Color(_))
    }
}

/// A count is a quotient by one.
fn quotient(value: &v1::ReportValue) -> Option<Quotient> {
    Quotient::new(value.numerator.into(), value.denominator.unwrap_or(1).into())
}

/// A figure as it is written for people.
pub(crate) fn value_text(value: Option<&v1::ReportValue>) -> String {
    Cell::value(value).words()
}

/// With a plus where it is above zero as written: what rounds to zero has no sign.
fn signed(text: String) -> String {
    if text.starts_with('-') || !text.contains(|c: char| ('1'..='9').contains(&c)) {
        text
    } else {
        format!("+{text}")
    }
}

/// With marks of thousands.
fn grouped(number: i128) -> String {
    let digits = number.unsigned_abs().to_string();
    let mut text = String::new();
    for (at, digit) in digits.char_indices() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    if number < 0 { format!("-{text}") } else { text }
}

/// Beijing time to the minute; nothing where there is none.
pub(super) fn moment(at: Option<&prost_types::Timestamp>) -> String {
    let format = time::macros::format_description!("[year]-[month]-[day] [hour]:[minute]");
    let moment =
        at.filter(|at| at.seconds > 0).and_then(|at| OffsetDateTime::from_unix_timestamp(at.seconds).ok());
    let text = moment.and_then(|moment| moment.to_offset(time::macros::offset!(+8)).format(format).ok());
    text.unwrap_or_default()
}
