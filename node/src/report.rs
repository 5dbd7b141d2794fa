//! The monthly operations report as people read it: a workbook, a page to print, a table. One description of its content
//! (`book`) is made from the node's answer; each format only says how it looks. Nothing here asks a node, reads a clock
//! or works a figure out anew: what was issued is printed the same in ten years.

mod book;
mod cell;
mod csv;
mod html;
mod svg;
mod xlsx;

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests;

use guantong_proto::v1;

pub(crate) use cell::value_text;

/// What a report is printed as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// A workbook with several sheets and charts.
    Xlsx,
    /// One figure a line, for other programs.
    Csv,
    /// A page that needs nothing else and prints on A4.
    Html,
}

impl Format {
    /// The ending of a file's name.
    pub fn ending(self) -> &'static str {
        match self {
            Format::Xlsx => "xlsx",
            Format::Csv => "csv",
            Format::Html => "html",
        }
    }
}

/// Why a report could not be printed.
#[derive(Debug, thiserror::Error)]
pub enum RenderError {
    /// The workbook.
    #[error("the workbook could not be made: {0} (无法生成工作簿)")]
    Workbook(#[from] rust_xlsxwriter::XlsxError),
    /// The table.
    #[error("the table could not be written: {0} (无法生成表格)")]
    Table(#[from] ::csv::Error),
    /// A chart.
    #[error("a chart could not be drawn: {0} (无法绘制图表)")]
    Chart(String),
}

/// A report as the bytes of a file.
///
/// # Errors
/// A library could not do its part, such as a name that is too long for a sheet.
pub fn render(report: &v1::Report, format: Format) -> Result<Vec<u8>, RenderError> {
    match format {
        Format::Xlsx => xlsx::render(&book::Book::of(report)),
        Format::Csv => csv::render(report),
        Format::Html => html::render(&book::Book::of(report)),
    }
}
