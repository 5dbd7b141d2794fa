//! Published figures: reading them, and judging sums against them. A figure is taken as closely as it was stated and
//! no closer. It must never guess what an unknown measure may mean.

use anyhow::{Context as _, Result, bail};
use guantong_gateway::division::Division;
use serde::Deserialize;

use crate::stated::{Op, Stated};

/// The figures that come with the program.
pub(super) const EMBEDDED: &str = include_str!("../../../deploy/demo/figures.csv");

/// Every pair of measure and class that is known.
const KNOWN: [(&str, &[&str]); 7] = [
    ("units", &["town", "subdistrict", "township", "village", "community"]),
    ("grids", &["all", "comprehensive", "dedicated"]),
    ("staff", &["chief", "member"]),
    ("cameras", &["public", "social", "face", "vehicle", "connected", "new", "built"]),
    ("cases", &["dispute", "dispute_rural", "dispute_succeeded", "incident"]),
    ("rates", &["success"]),
    ("poles", &["coded"]),
];
/// One published figure.
#[derive(Clone, Debug)]
pub(super) struct Figure {
    pub(super) division: Division,
    pub(super) place: String,
    pub(super) measure: String,
    pub(super) class: String,
    pub(super) op: Op,
    pub(super) number: Number,
    stated: Stated,
    pub(super) period: String,
}

impl Figure {
    /// Whether it is this measure and class.
    pub(super) fn is(&self, measure: &str, class: &str) -> bool {
        self.measure == measure && self.class == class
    }

    /// Whether a count that was found agrees with it.
    pub(super) fn allows_count(&self, found: i64) -> bool {
        self.stated.allows_count(found)
    }

    /// Whether it, a percentage, agrees with a quotient of two exact counts under its own rounding.
    pub(super) fn allows_rate(&self, numerator: i64, denominator: i64) -> bool {
        self.stated.allows_ratio(numerator, denominator)
    }

    /// The year that its period names first.
    pub(super) fn year(&self) -> Option<i32> {
        self.period.get(..4)?.parse().ok().filter(|year| (1990..2100).contains(year))
    }
}

/// A number as it was written.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Number {
    pub(super) text: String,
    pub(super) value: f64,
}

impl Number {
    fn parse(text: &str) -> Option<Number> {
        let text = text.trim();
        let (whole, decimals) = text.split_once('.').unwrap_or((text, ""));
        let digits = format!("{whole}{decimals}");
        let is_number = !whole.is_empty() && digits.len() <= 15 && digits.bytes().all(|b| b.is_ascii_digit());
        let value = text.parse::<f64>().ok().filter(|_| is_number)?;
        Some(Number { text: text.to_owned(), value })
    }

    /// As a count.
    pub(super) fn count(&self) -> u64 {
        self.value.max(0.0).round() as u64
    }
}

/// A row that was left out, since nobody said what it means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LeftOut {
    pub(super) line: u64,
    pub(super) measure: String,
    pub(super) class: String,
}

/// A file of figures.
#[derive(Clone, Debug, Default)]
pub(super) struct Figures {
    pub(super) figures: Vec<Figure>,
    pub(super) left_out: Vec<LeftOut>,
}

#[derive(Deserialize)]
struct Row {
    division: String,
    #[serde(default)]
    place: String,
    measure: String,
    class: String,
    op: Op,
    value: String,
    #[serde(default)]
    period: String,
}

impl Figures {
    /// Reads a table with the columns division, place, measure, class, op, value and period.
    ///
    /// # Errors
    /// Names the first line that cannot be read.
    pub(super) fn parse(text: &str) -> Result<Figures> {
        let mut found = Figures::default();
        let text = text.trim_start_matches('\u{feff}');
        let mut reader =
            csv::ReaderBuilder::new().trim(csv::Trim::All).flexible(true).from_reader(text.as_bytes());
        let headers = reader.headers()?.clone();
        for record in reader.records() {
            let record = record.context("the figures are no CSV table")?;
            let line = record.position().map_or(0, csv::Position::line);
            let row: Row = record.deserialize(Some(&headers)).with_context(|| {
                format!("line {line}: a figure has division, measure, class, op (eq, ge or approx) and value")
            })?;
            found
                .take(line, row)
                .with_context(|| format!("line {line} of the figures (指标第 {line} 行)"))?;
        }
        Ok(found)
    }

    fn take(&mut self, line: u64, row: Row) -> Result<()> {
        let Row { division, place, measure, class, op, value, period } = row;
        if !KNOWN.iter().any(|(known, classes)| *known == measure && classes.contains(&&*class)) {
            self.left_out.push(LeftOut { line, measure, class });
            return Ok(());
        }
        let division = Division::parse(&division)?;
        let number = Number::parse(&value).context("the value is written in digits, such as 98.6")?;
        let is_rate = measure == "rates";
        let stated = if is_rate { Stated::rate(&value, op, true) } else { Stated::count(&value, op) }?;
        if is_rate && number.value > 100.0 || !is_rate && number.value.fract() != 0.0 {
            bail!("a count is a whole number, and a rate a percentage of at most 100");
        }
        if self.figures.iter().any(|f| f.division == division && f.is(&measure, &class)) {
            bail!("{division} has {measure} {class} twice");
        }
        self.figures.push(Figure { division, place, measure, class, op, number, stated, period });
        Ok(())
    }

    /// Only those of divisions inside `scope`.
    pub(super) fn inside(mut self, scope: Division) -> Figures {
        self.figures.retain(|figure| scope.contains(figure.division));
        self
    }

    /// The divisions that have figures, the innermost first.
    pub(super) fn divisions(&self) -> Vec<Division> {
        let mut divisions: Vec<Division> = self.figures.iter().map(|figure| figure.division).collect();
        divisions.sort_by_key(|division| (division.tier(), *division));
        divisions.dedup();
        divisions
    }

    /// One figure of a division.
    pub(super) fn get(&self, division: Division, measure: &str, class: &str) -> Option<&Figure> {
        self.figures.iter().find(|figure| figure.division == division && figure.is(measure, class))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const HEADER: &str = "division,place,measure,class,op,value,unit,period,note\n";

    fn one(measure: &str, class: &str, op: &str, value: &str) -> Figure {
        let text = format!("{HEADER}220822,通榆县,{measure},{class},{op},{value},count,2022-11,\n");
        Figures::parse(&text).unwrap().figures.remove(0)
    }

    #[test]
    fn the_embedded_figures_are_all_known() {
        let figures = Figures::parse(EMBEDDED).unwrap();
        assert!(figures.left_out.is_empty() && figures.figures.len() == 25, "{figures:?}");
        let county = Division::parse("220822").unwrap();
        assert_eq!(figures.get(county, "grids", "all").map(|f| f.number.count()), Some(1_058));
        assert_eq!(figures.clone().inside(county).figures.len(), 13);
    }

    #[test]
    fn counts_are_judged_as_they_were_stated() {
        let eq = one("grids", "all", "eq", "1058");
        assert!(eq.allows_count(1_058) && !eq.allows_count(1_057));
        let ge = one("cameras", "social", "ge", "16000");
        assert!(ge.allows_count(16_000) && ge.allows_count(16_001) && !ge.allows_count(15_999));
        let approx = one("cameras", "social", "approx", "16000");
        assert!(approx.allows_count(16_500) && approx.allows_count(15_500) && !approx.allows_count(16_501));
    }

    #[test]
    fn a_rate_is_judged_under_its_own_rounding() {
        let rate = one("rates", "success", "eq", "98.6");
        assert!(rate.allows_rate(2_154, 2_185) && rate.allows_rate(2_155, 2_185));
        assert!(!rate.allows_rate(2_153, 2_185) && !rate.allows_rate(2_156, 2_185));
        assert!(!rate.allows_rate(0, 0));
        // 99.61 %.
        assert!(!one("rates", "success", "eq", "97.12").allows_rate(7_762, 7_792));
        assert!(one("rates", "success", "ge", "95").allows_rate(95, 100));
    }

    #[test]
    fn what_nobody_knows_is_named_and_left_out() {
        let text =
            format!("{HEADER}220822,,drones,all,eq,3,count,2022,\n220822,,grids,all,eq,9,count,2022,\n");
        let figures = Figures::parse(&text).unwrap();
        assert_eq!(figures.figures.len(), 1);
        assert_eq!(figures.left_out, [LeftOut { line: 2, measure: "drones".into(), class: "all".into() }]);
    }

    #[test]
    fn a_line_that_cannot_be_read_is_named() {
        for row in [
            "22082,,grids,all,eq,3,,,",
            "220822,,grids,all,lt,3,,,",
            "220822,,grids,all,eq,1e3,,,",
            "220822,,grids,all,eq,1.5,,,",
            "220822,,rates,success,eq,101,,,",
        ] {
            let error = format!("{:#}", Figures::parse(&format!("{HEADER}{row}\n")).unwrap_err());
            assert!(error.contains("line 2"), "{error}");
        }
        let twice = format!("{HEADER}220822,,grids,all,eq,3,,,\n220822,,grids,all,eq,4,,,\n");
        assert!(format!("{:#}", Figures::parse(&twice).unwrap_err()).contains("twice"));
    }
}
