//! What commands print: the same twice, as text for people and as JSON for programs. Columns line up for Chinese
//! words, too.

use std::fmt::Write as _;
use std::io::{self, Write as _};

use serde_json::Value;
use time::OffsetDateTime;

use super::Outcome;

/// The result of a command.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) text: String,
    pub(crate) json: Value,
    pub(crate) outcome: Outcome,
}

impl Report {
    pub(crate) fn done(text: String, json: Value) -> Report {
        Report { text, json, outcome: Outcome::Done }
    }

    /// The same, where a person must look at something if `it_does`.
    pub(crate) fn needs_attention(mut self, it_does: bool) -> Report {
        if it_does {
            self.outcome = Outcome::NeedsAttention;
        }
        self
    }

    /// Prints it. A reader who has seen enough is no error.
    pub(crate) fn print(self, json: bool) -> anyhow::Result<Outcome> {
        let text = if json { format!("{:#}\n", self.json) } else { printable(&self.text) };
        match io::stdout().lock().write_all(text.as_bytes()) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(self.outcome),
            written => Ok(written.map(|()| self.outcome)?),
        }
    }
}

/// The text without what would tell a terminal what to do: others wrote the names and values in it.
fn printable(text: &str) -> String {
    text.chars().filter(|c| !c.is_control() || matches!(c, '\n' | '\t')).collect()
}

/// How many columns a text takes up in a terminal: Chinese characters take two.
pub(crate) fn width(text: &str) -> usize {
    let wide = |c: char| matches!(c as u32, 0x1100..=0x115f | 0x2e80..=0xa4cf | 0xac00..=0xd7a3 | 0xf900..=0xfaff | 0xfe30..=0xfe6f | 0xff00..=0xff60 | 0xffe0..=0xffe6 | 0x20000..=0x3fffd);
    text.chars().map(|c| if wide(c) { 2 } else { 1 }).sum()
}

/// Rows under headers, each column as wide as it must be.
pub(crate) fn table<const N: usize>(headers: [&str; N], rows: &[[String; N]]) -> String {
    columns(&headers, rows)
}

/// As `table`, where the columns are known only at run time.
pub(crate) fn columns<R: AsRef<[String]>>(headers: &[&str], rows: &[R]) -> String {
    let mut widths: Vec<usize> = headers.iter().map(|header| width(header)).collect();
    for row in rows.iter().map(AsRef::as_ref) {
        for (at, cell) in row.iter().enumerate() {
            if let Some(widest) = widths.get_mut(at) {
                *widest = width(cell).max(*widest);
            }
        }
    }
    let mut text = String::new();
    let mut line = |cells: &[&str]| {
        let mut out = String::new();
        for (cell, widest) in cells.iter().zip(&widths) {
            let _ = write!(out, "{cell}{}  ", " ".repeat(widest - width(cell)));
        }
        text.push_str(out.trim_end());
        text.push('\n');
    };
    line(headers);
    for row in rows {
        line(&row.as_ref().iter().map(String::as_str).collect::<Vec<_>>());
    }
    text
}

/// Names and values below each other.
pub(crate) fn list(lines: &[(String, String)]) -> String {
    let widest = lines.iter().map(|(name, _)| width(name)).max().unwrap_or_default();
    let mut text = String::new();
    for (name, value) in lines {
        let _ = writeln!(text, "  {name}{}  {value}", " ".repeat(widest - width(name)));
    }
    text
}

/// A time for people, Beijing time, to the second; empty where there is none.
pub(crate) fn time(at: Option<&prost_types::Timestamp>) -> String {
    let format = time::macros::format_description!("[year]-[month]-[day] [hour]:[minute]:[second]");
    let moment =
        at.filter(|at| at.seconds > 0).and_then(|at| OffsetDateTime::from_unix_timestamp(at.seconds).ok());
    let text = moment.and_then(|moment| moment.to_offset(time::macros::offset!(+8)).format(format).ok());
    text.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_under_chinese_words() {
        let rows = [["通榆县".to_owned(), "1".to_owned()], ["x".to_owned(), "2".to_owned()]];
        assert_eq!(table(["name", "n"], &rows), "name    n\n通榆县  1\nx       2\n");
    }

    #[test]
    fn a_value_cannot_tell_the_terminal_what_to_do() {
        assert_eq!(printable("标题\u{1b}[2J\u{9b}0m\r\nnext\n"), "标题[2J0m\nnext\n");
    }

    #[test]
    fn no_time_is_no_text() {
        assert_eq!(time(None), "");
        assert!(
            time(Some(&prost_types::Timestamp { seconds: 1_795_000_000, nanos: 0 })).starts_with("2026-11-")
        );
    }
}
