//! Stated figures that cannot be: a township's own report, number by number, against itself and against what is
//! recorded. Here stands what is read and judged; what is recorded comes in as an argument. It must never guess what an
//! unknown measure means, and never call impossible what some reading of the digits allows.
//!
//! The form is a table (CSV, the first sheet of a workbook, or a JSON list of objects), one figure a line:
//! `division,period,measure,class,op,value,unit,numerator,denominator`. Only measure and value are needed in each line.

mod form;
mod judge;
mod subject;
mod workbook;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;

pub use form::{FormError, Row, of_bytes, read};
pub use judge::{Finding, Kind, Recorded, Statement, judge, state};
