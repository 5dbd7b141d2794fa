//! The workbook: one sheet for each part, in type and widths that print on A4, numbers as numbers, charts that follow
//! the cells.

use guantong_proto::v1;
use rust_xlsxwriter::{
    Chart as Drawn, ChartAxisLabelPosition, ChartDataLabel, ChartFont, ChartFormat, ChartLegendPosition,
    ChartLine, ChartMarker, ChartSolidFill, ChartType, Color, DocProperties, Format, FormatAlign,
    FormatBorder, Workbook, Worksheet,
};

use super::RenderError;
use super::book::{Book, Chart, Column, Part, Shape, Sheet, Table};
use super::cell::{Cell, NOTHING};

/// Rows begin below title and facts.
const FIRST_ROW: u32 = 3;
const ROW_PIXELS: u32 = 20;
const CHARACTER_PIXELS: f64 = 7.0;
const A4: u8 = 9;
const MARGIN_INCH: f64 = 0.6;

const INK: Color = Color::RGB(0x1F_2A_37);
const BLUE: Color = Color::RGB(0x1F_4E_79);
const PALE: Color = Color::RGB(0xDD_E7_F1);
const LINE: Color = Color::RGB(0xA6_B1_BD);
const GREY: Color = Color::RGB(0x5B_66_73);
const SERIES: [Color; 3] = [Color::RGB(0x1F_4E_79), Color::RGB(0xC5_5A_11), Color::RGB(0x54_82_35)];

/// Where everything stands: a row for each part of each sheet. Of a table, the row of its headers.
type Places = Vec<Vec<u32>>;

pub(super) fn render(book: &Book) -> Result<Vec<u8>, RenderError> {
    let mut workbook = Workbook::new();
    let about = DocProperties::new().set_title(&book.title).set_subject(&book.name);
    workbook.set_properties(&about);
    let places: Places = book.sheets.iter().map(|sheet| places_of(book, sheet)).collect();
    for (sheet, rows) in book.sheets.iter().zip(&places) {
        let worksheet = workbook.add_worksheet();
        worksheet.set_name(sheet.name)?;
        write_top(worksheet, book, sheet)?;
        for (part, row) in sheet.parts.iter().zip(rows) {
            match part {
                Part::Table(table) => write_table(worksheet, table, *row)?,
                Part::Chart(chart) => insert(worksheet, book, sheet, chart, *row, &places)?,
                Part::PageBreak => {}
            }
        }
        set_up(worksheet, book, sheet, rows)?;
    }
    Ok(workbook.save_to_buffer()?)
}

fn places_of(book: &Book, sheet: &Sheet) -> Vec<u32> {
    let mut next = FIRST_ROW + sheet.intro.len() as u32;
    let mut places = Vec::with_capacity(sheet.parts.len());
    for part in &sheet.parts {
        match part {
            Part::Table(table) => {
                // The title stands above the headers, an empty row below the table.
                places.push(next + 1);
                next += 3 + table.rows.len().max(1) as u32;
            }
            Part::Chart(chart) => {
                places.push(next);
                next += chart_height(book, chart).div_ceil(ROW_PIXELS) + 1;
            }
            Part::PageBreak => places.push(next),
        }
    }
    places
}

/// In pixels: bars need room for their names.
fn chart_height(book: &Book, chart: &Chart) -> u32 {
    let points = book.source(chart).map_or(0, |table| table.rows.len() as u32);
    match chart.shape {
        Shape::Lines => 300,
        Shape::Bars => 90 + 20 * points.max(3),
    }
}

fn columns_of(sheet: &Sheet) -> &[Column] {
    let widest = sheet.tables().max_by_key(|table| table.columns.len());
    widest.map(|table| table.columns.as_slice()).unwrap_or_default()
}

/// All columns together, in pixels.
fn pixels_of(sheet: &Sheet) -> f64 {
    columns_of(sheet).iter().map(|column| column.width * CHARACTER_PIXELS + 5.0).sum()
}

/// Columns, title, facts, and what is said before the tables.
fn write_top(worksheet: &mut Worksheet, book: &Book, sheet: &Sheet) -> Result<(), RenderError> {
    let columns = columns_of(sheet);
    let last = columns.len().saturating_sub(1).max(1) as u16;
    for (at, column) in columns.iter().enumerate() {
        worksheet.set_column_width(at as u16, column.width)?;
    }
    let first = book.sheets.first().is_some_and(|first| first.name == sheet.name);
    let title = if first { book.title.clone() } else { format!("{}　{}", book.title, sheet.name) };
    worksheet.merge_range(0, 0, 0, last, &title, &title_format())?;
    worksheet.set_row_height(0, 34)?;
    worksheet.merge_range(1, 0, 1, last, &book.facts, &facts_format())?;
    worksheet.set_row_height(1, 18)?;
    let width: f64 = columns.iter().map(|column| column.width).sum();
    for (at, text) in sheet.intro.iter().enumerate() {
        let row = FIRST_ROW + at as u32 - 1;
        worksheet.merge_range(row, 0, row, last, text, &intro_format())?;
        worksheet.set_row_height(row, 17.0 * lines_of(text, width))?;
    }
    Ok(())
}

/// Freezing, and how it prints.
fn set_up(worksheet: &mut Worksheet, book: &Book, sheet: &Sheet, rows: &[u32]) -> Result<(), RenderError> {
    let tables = sheet.parts.iter().zip(rows).filter(|(part, _)| matches!(part, Part::Table(_)));
    let headers: Vec<u32> = tables.map(|(_, row)| *row).collect();
    if let Some(header) = headers.first() {
        worksheet.set_freeze_panes(header + 1, u16::from(sheet.landscape))?;
    }
    // Headers are repeated on every page only where there is nothing but one table.
    if let ([header], 1) = (&headers[..], sheet.parts.len()) {
        worksheet.set_repeat_rows(*header, *header)?;
    }
    let breaks = sheet.parts.iter().zip(rows).filter(|(part, _)| matches!(part, Part::PageBreak));
    let breaks: Vec<u32> = breaks.map(|(_, row)| *row).collect();
    worksheet.set_page_breaks(&breaks)?;
    worksheet.set_screen_gridlines(false);
    worksheet.set_margins(MARGIN_INCH, MARGIN_INCH, 0.7, 0.7, 0.3, 0.3);
    worksheet.set_paper_size(A4).set_print_center_horizontally(true);
    if sheet.landscape {
        worksheet.set_landscape();
    }
    // As wide as the page, whatever font a program has; as long as it is.
    worksheet.set_print_fit_to_pages(1, 0);
    worksheet.set_footer(format!("&L&9{}&R&9第 &P 页，共 &N 页", book.name));
    Ok(())
}

fn write_table(worksheet: &mut Worksheet, table: &Table, header: u32) -> Result<(), RenderError> {
    worksheet.write_string_with_format(header - 1, 0, &table.title, &heading_format())?;
    worksheet.set_row_height(header - 1, 24)?;
    let tall = table.columns.iter().any(|column| super::book::width(&column.header) > column.width);
    worksheet.set_row_height(header, if tall { 34 } else { 21 })?;
    for (at, column) in table.columns.iter().enumerate() {
        worksheet.write_string_with_format(header, at as u16, &column.header, &header_format())?;
    }
    for (below, cells) in table.rows.iter().enumerate() {
        let row = header + 1 + below as u32;
        let lines =
            cells.iter().zip(&table.columns).map(|(cell, column)| lines_of(&cell.words(), column.width));
        worksheet.set_row_height(row, 18.0 * lines.fold(1.0, f64::max))?;
        for (at, cell) in cells.iter().enumerate() {
            write_cell(worksheet, row, at as u16, cell)?;
        }
    }
    if table.rows.is_empty() {
        let last = table.columns.len().saturating_sub(1) as u16;
        let format = cell_format().set_align(FormatAlign::Center).set_font_color(GREY);
        match last {
            0 => worksheet.write_string_with_format(header + 1, 0, table.empty, &format)?,
            _ => worksheet.merge_range(header + 1, 0, header + 1, last, table.empty, &format)?,
        };
    }
    Ok(())
}

fn write_cell(worksheet: &mut Worksheet, row: u32, column: u16, cell: &Cell) -> Result<(), RenderError> {
    let right = cell_format().set_align(FormatAlign::Right);
    match cell {
        Cell::Empty | Cell::Rank(0) => worksheet.write_string_with_format(row, column, NOTHING, &right)?,
        Cell::Text(text) => worksheet.write_string_with_format(
            row,
            column,
            text,
            &cell_format().set_text_wrap().set_indent(1),
        )?,
        Cell::Rank(rank) => {
            let format = cell_format().set_align(FormatAlign::Center);
            worksheet.write_number_with_format(row, column, *rank, &format)?
        }
        Cell::Colored(inner, color) => {
            let format =
                color_format(*color).set_align(FormatAlign::Right).set_num_format(number_format(inner));
            match inner.number() {
                Some(number) => worksheet.write_number_with_format(row, column, number, &format)?,
                None => worksheet.write_string_with_format(row, column, NOTHING, &format)?,
            }
        }
        Cell::Color(color) => {
            worksheet.write_string_with_format(row, column, cell.words(), &color_format(*color))?
        }
        Cell::Count(_) | Cell::Rate(_) | Cell::Change(_) | Cell::More(_) | Cell::Points(_) => {
            let format = right.set_num_format(number_format(cell));
            // Points are written as they are spoken of: 1.25, not 0.0125.
            let scale = if matches!(cell, Cell::Points(_)) { 100.0 } else { 1.0 };
            let number = cell.number().unwrap_or_default() * scale;
            // What rounds to zero has no sign.
            let is_nothing = !cell.words().contains(|c: char| ('1'..='9').contains(&c));
            let number = if is_nothing { 0.0 } else { number };
            worksheet.write_number_with_format(row, column, number, &format)?
        }
    };
    Ok(())
}

fn number_format(cell: &Cell) -> &'static str {
    match cell {
        Cell::Rate(_) => "0.00%",
        Cell::Change(_) => "+0.0%;-0.0%;0.0%",
        Cell::More(_) => "+#,##0;-#,##0;0",
        Cell::Points(_) => "+0.00\"个百分点\";-0.00\"个百分点\";0.00\"个百分点\"",
        _ => "#,##0",
    }
}

/// Lines that a text takes up in a column, or in merged columns, of this width.
fn lines_of(text: &str, width: f64) -> f64 {
    (super::book::width(text) / (width - 1.0).max(1.0)).ceil().max(1.0)
}

fn plain() -> Format {
    Format::new()
        .set_font_name("宋体")
        .set_font_size(10.5)
        .set_font_color(INK)
        .set_align(FormatAlign::VerticalCenter)
}

fn title_format() -> Format {
    plain().set_font_name("黑体").set_font_size(18).set_align(FormatAlign::Center).set_bold()
}

fn facts_format() -> Format {
    plain().set_font_size(9).set_font_color(GREY).set_align(FormatAlign::Center)
}

fn intro_format() -> Format {
    plain().set_text_wrap().set_align(FormatAlign::Left)
}

fn heading_format() -> Format {
    plain().set_font_name("黑体").set_font_size(12).set_font_color(BLUE).set_bold()
}

fn header_format() -> Format {
    plain()
        .set_font_name("黑体")
        .set_background_color(PALE)
        .set_align(FormatAlign::Center)
        .set_border(FormatBorder::Thin)
        .set_border_color(LINE)
        .set_text_wrap()
}

fn cell_format() -> Format {
    plain().set_border(FormatBorder::Thin).set_border_color(LINE)
}

/// A colour is also a word: not everyone sees, and not every printer prints, the colour.
fn color_format(color: v1::Color) -> Format {
    let format = cell_format().set_align(FormatAlign::Center);
    match color {
        v1::Color::Unspecified => format,
        v1::Color::Green => format.set_background_color(Color::RGB(0xC6_E0_B4)),
        v1::Color::Blue => format.set_background_color(Color::RGB(0xBD_D7_EE)),
        v1::Color::Yellow => format.set_background_color(Color::RGB(0xFF_E6_99)),
        v1::Color::Red => format.set_background_color(Color::RGB(0xF4_A6_A0)).set_bold(),
    }
}

/// A chart as wide as the sheet's tables.
fn insert(
    worksheet: &mut Worksheet,
    book: &Book,
    sheet: &Sheet,
    chart: &Chart,
    row: u32,
    places: &Places,
) -> Result<(), RenderError> {
    for (source, rows) in book.sheets.iter().zip(places) {
        for (part, header) in source.parts.iter().zip(rows) {
            if let Part::Table(table) = part
                && table.title == chart.source
            {
                let mut drawn = draw(chart, table, source.name, *header);
                drawn.set_width(pixels_of(sheet) as u32).set_height(chart_height(book, chart));
                worksheet.insert_chart(row, 0, &drawn)?;
            }
        }
    }
    Ok(())
}

fn draw(chart: &Chart, table: &Table, sheet: &str, header: u32) -> Drawn {
    let (first, last) = (header + 1, header + table.rows.len().max(1) as u32);
    let mut drawn = Drawn::new(match chart.shape {
        Shape::Lines => ChartType::Line,
        Shape::Bars => ChartType::Bar,
    });
    let names = chart.names as u16;
    let mut font = ChartFont::new();
    font.set_size(9);
    for (column, color) in chart.values.iter().zip(SERIES) {
        let series = drawn.add_series();
        let values = *column as u16;
        series.set_categories((sheet, first, names, last, names));
        series.set_values((sheet, first, values, last, values));
        series.set_name((sheet, header, values));
        if chart.shape == Shape::Lines {
            series.set_format(ChartFormat::new().set_line(ChartLine::new().set_color(color).set_width(2)));
            let mut fill = ChartFormat::new();
            fill.set_solid_fill(ChartSolidFill::new().set_color(color));
            series.set_marker(ChartMarker::new().set_size(5).set_format(&mut fill));
        } else {
            series
                .set_format(ChartFormat::new().set_solid_fill(ChartSolidFill::new().set_color(color)))
                .set_gap(45);
            let mut label = ChartDataLabel::new();
            label.show_value().set_num_format(if chart.percent { "0.00%" } else { "#,##0" }).set_font(&font);
            series.set_data_label(&label);
        }
    }
    let mut heading = ChartFont::new();
    heading.set_size(12);
    drawn.title().set_name(&chart.title).set_font(&heading);
    drawn.x_axis().set_font(&font);
    drawn.y_axis().set_font(&font);
    // The names of bars stand upright, and the first of them at the top.
    let values = match chart.shape {
        Shape::Lines => drawn.y_axis(),
        Shape::Bars => {
            drawn.y_axis().set_reverse().set_major_gridlines(false);
            drawn.x_axis().set_label_position(ChartAxisLabelPosition::High)
        }
    };
    let gridlines = ChartLine::new().set_color(Color::RGB(0xE1_E5_EA)).clone();
    values.set_num_format(if chart.percent { "0%" } else { "#,##0" });
    values.set_min(0).set_major_gridlines(true).set_major_gridlines_line(&gridlines);
    if chart.percent {
        values.set_max(1.0);
    }
    if chart.values.len() > 1 {
        drawn.legend().set_position(ChartLegendPosition::Bottom).set_font(&font);
    } else {
        drawn.legend().set_hidden();
    }
    drawn
}
