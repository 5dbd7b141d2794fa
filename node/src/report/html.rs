//! The page: one file that needs nothing else, prints on A4, and opens in any browser.

use std::fmt::Write as _;

use guantong_proto::v1;

use super::RenderError;
use super::book::{Book, Part, Sheet, Table};
use super::cell::Cell;
use super::svg;

const STYLE: &str = include_str!("style.css");

pub(super) fn render(book: &Book) -> Result<Vec<u8>, RenderError> {
    let mut page = String::with_capacity(64 * 1024);
    let title = escaped(&book.title);
    let _ = write!(
        page,
        "<!DOCTYPE html>\n<html lang=\"zh-CN\">\n<head>\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" \
         content=\"width=device-width\">\n<title>{title}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<header>\n\
         <h1>{title}</h1>\n<p class=\"facts\">{}</p>\n</header>\n",
        escaped(&book.facts)
    );
    for sheet in &book.sheets {
        write_sheet(&mut page, book, sheet)?;
    }
    let _ = write!(page, "<footer>{}</footer>\n</body>\n</html>\n", escaped(&book.name));
    Ok(page.into_bytes())
}

fn write_sheet(page: &mut String, book: &Book, sheet: &Sheet) -> Result<(), RenderError> {
    let _ = writeln!(page, "<section>\n<h2>{}</h2>", escaped(sheet.name));
    for text in &sheet.intro {
        let _ = writeln!(page, "<p>{}</p>", escaped(text));
    }
    for part in &sheet.parts {
        match part {
            Part::Table(table) => write_table(page, table),
            Part::Chart(chart) => {
                let Some(source) = book.source(chart) else { continue };
                let drawn = svg::draw(chart, source)?;
                let title = escaped(&chart.title);
                let _ = writeln!(page, "<figure>\n<figcaption>{title}</figcaption>\n{drawn}</figure>");
            }
            // A browser breaks pages itself, between rows and around pictures.
            Part::PageBreak => {}
        }
    }
    page.push_str("</section>\n");
    Ok(())
}

fn write_table(page: &mut String, table: &Table) {
    let _ = write!(page, "<h3>{}</h3>\n<table>\n<thead><tr>", escaped(&table.title));
    for column in &table.columns {
        let _ = write!(page, "<th>{}</th>", escaped(&column.header));
    }
    page.push_str("</tr></thead>\n<tbody>\n");
    for row in &table.rows {
        page.push_str("<tr>");
        for cell in row {
            let _ = write!(page, "<td class=\"{}\">{}</td>", class(cell), escaped(&cell.words()));
        }
        page.push_str("</tr>\n");
    }
    if table.rows.is_empty() {
        let _ = writeln!(
            page,
            "<tr><td class=\"none\" colspan=\"{}\">{}</td></tr>",
            table.columns.len(),
            table.empty
        );
    }
    page.push_str("</tbody>\n</table>\n");
}

fn class(cell: &Cell) -> &'static str {
    match cell {
        Cell::Color(v1::Color::Red) => "color red",
        Cell::Color(v1::Color::Yellow) => "color yellow",
        Cell::Color(v1::Color::Blue) => "color blue",
        Cell::Color(v1::Color::Green) => "color green",
        Cell::Color(v1::Color::Unspecified) => "color",
        Cell::Rank(_) => "rank",
        Cell::Colored(_, v1::Color::Red) => "number red",
        Cell::Colored(_, v1::Color::Yellow) => "number yellow",
        Cell::Colored(_, v1::Color::Blue) => "number blue",
        Cell::Colored(_, v1::Color::Green) => "number green",
        cell if cell.is_number() => "number",
        _ => "text",
    }
}

/// Names come from other people's tables: nothing of them may become markup.
fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            other => safe.push(other),
        }
    }
    safe
}
