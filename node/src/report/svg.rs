//! Charts as SVG, to stand in a page: no script, no font of their own, nothing to fetch.

use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::RenderError;
use super::book::{Chart, Shape, Table};

const WIDTH: u32 = 720;
const LINES_HEIGHT: u32 = 270;
/// Of one bar with its gap, and of what stands above and below all.
const BAR_HEIGHT: u32 = 20;
const BARS_MARGIN: u32 = 44;
const SERIES: [RGBColor; 3] =
    [RGBColor(0x1f, 0x4e, 0x79), RGBColor(0xc5, 0x5a, 0x11), RGBColor(0x54, 0x82, 0x35)];
const INK: RGBColor = RGBColor(0x1f, 0x2a, 0x37);
const PALE: RGBColor = RGBColor(0xe1, 0xe5, 0xea);
const FONT: &str = "sans-serif";
/// Of more months, every second or third is written.
const MONTHS_MAX: usize = 13;
/// Letters of a name beside its bar.
const LETTERS_MAX: usize = 9;

/// One chart as an `<svg>` element.
///
/// # Errors
/// What the library says.
pub(super) fn draw(chart: &Chart, table: &Table) -> Result<String, RenderError> {
    let height = match chart.shape {
        Shape::Lines => LINES_HEIGHT,
        Shape::Bars => BARS_MARGIN + BAR_HEIGHT * table.rows.len().max(1) as u32,
    };
    let mut text = String::new();
    {
        let root = SVGBackend::with_string(&mut text, (WIDTH, height)).into_drawing_area();
        let painted = match chart.shape {
            Shape::Lines => lines(&root, chart, table),
            Shape::Bars => bars(&root, chart, table),
        };
        painted.map_err(|error| RenderError::Chart(error.to_string()))?;
        root.present().map_err(|error| RenderError::Chart(error.to_string()))?;
    }
    Ok(text)
}

type Area<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;
type Drawn<'a, 'b> = ChartContext<'a, SVGBackend<'b>, Cartesian2d<RangedCoordf64, RangedCoordf64>>;
type Painted = Result<(), Box<dyn std::error::Error + Send + Sync>>;

fn number(table: &Table, row: usize, column: usize) -> Option<f64> {
    table.rows.get(row)?.get(column)?.number()
}

/// Values over time.
fn lines(root: &Area<'_>, chart: &Chart, table: &Table) -> Painted {
    let rows = || 0..table.rows.len();
    let all =
        rows().flat_map(|row| chart.values.iter().filter_map(move |column| number(table, row, *column)));
    let top = if chart.percent { 1.0 } else { round_up(all.fold(0.0, f64::max)) };
    let right = (table.rows.len() as f64 - 0.5).max(0.5);
    let mut area = ChartBuilder::on(root)
        .margin(8)
        .margin_top(14)
        .x_label_area_size(30)
        .y_label_area_size(56)
        .build_cartesian_2d(-0.5..right, 0.0..top)?;
    let label = |y: &f64| value_label(*y, chart.percent);
    area.configure_mesh()
        .disable_x_mesh()
        .disable_x_axis()
        .y_labels(6)
        .light_line_style(TRANSPARENT)
        .bold_line_style(PALE)
        .y_label_formatter(&label)
        .label_style((FONT, 12))
        .draw()?;
    for (column, color) in chart.values.iter().zip(SERIES) {
        let points: Vec<(f64, f64)> =
            rows().filter_map(|row| Some((row as f64, number(table, row, *column)?))).collect();
        let line = area.draw_series(LineSeries::new(points.clone(), color.stroke_width(2)))?;
        let header = table.columns.get(*column).map(|column| column.header.clone());
        line.label(header.unwrap_or_default())
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], color.stroke_width(2)));
        area.draw_series(points.into_iter().map(|point| Circle::new(point, 3, color.filled())))?;
    }
    months(root, &area, chart, table)?;
    if chart.values.len() > 1 {
        area.configure_series_labels()
            .label_font((FONT, 12))
            .border_style(PALE)
            .background_style(WHITE.mix(0.85))
            .position(SeriesLabelPosition::LowerLeft)
            .draw()?;
    }
    Ok(())
}

/// The months under their points.
fn months(root: &Area<'_>, area: &Drawn<'_, '_>, chart: &Chart, table: &Table) -> Painted {
    let step = table.rows.len().div_ceil(MONTHS_MAX).max(1);
    let floor = area.plotting_area().get_pixel_range().1.end;
    for (at, row) in table.rows.iter().enumerate().step_by(step) {
        let name = row.get(chart.names).map(|cell| cell.words()).unwrap_or_default();
        let (x, _) = area.backend_coord(&(at as f64, 0.0));
        root.draw_text(&name, &style(HPos::Center, VPos::Top), (x, floor + 8))?;
    }
    Ok(())
}

/// Values below each other, each with its name before and its number behind the bar.
fn bars(root: &Area<'_>, chart: &Chart, table: &Table) -> Painted {
    let Some(column) = chart.values.first().copied() else { return Ok(()) };
    let count = table.rows.len().max(1);
    let greatest = (0..table.rows.len()).filter_map(|row| number(table, row, column)).fold(0.0, f64::max);
    let right = if chart.percent { 1.0 } else { round_up(greatest) };
    let mut area = ChartBuilder::on(root)
        .margin(8)
        .margin_right(64)
        .x_label_area_size(24)
        .y_label_area_size(124)
        .build_cartesian_2d(0.0..right, count as f64 - 0.5..-0.5)?;
    let label = |x: &f64| value_label(*x, chart.percent);
    area.configure_mesh()
        .disable_y_mesh()
        .disable_y_axis()
        .x_labels(6)
        .light_line_style(TRANSPARENT)
        .bold_line_style(PALE)
        .x_label_formatter(&label)
        .label_style((FONT, 12))
        .draw()?;
    let values = (0..table.rows.len()).filter_map(|row| Some((row as f64, number(table, row, column)?)));
    area.draw_series(
        values.map(|(y, x)| Rectangle::new([(0.0, y - 0.34), (x, y + 0.34)], SERIES[0].filled())),
    )?;
    for (at, row) in table.rows.iter().enumerate() {
        let name = row.get(chart.names).map(|cell| cell.words()).unwrap_or_default();
        let short: String = name.chars().take(LETTERS_MAX).collect();
        let (left, y) = area.backend_coord(&(0.0, at as f64));
        root.draw_text(&short, &style(HPos::Right, VPos::Center), (left - 6, y))?;
        let Some(cell) = row.get(column) else { continue };
        let (x, _) = area.backend_coord(&(cell.number().unwrap_or_default(), at as f64));
        root.draw_text(&cell.words(), &style(HPos::Left, VPos::Center), (x + 5, y))?;
    }
    Ok(())
}

fn style(horizontal: HPos, vertical: VPos) -> TextStyle<'static> {
    (FONT, 12).into_font().color(&INK).pos(Pos::new(horizontal, vertical))
}

fn value_label(value: f64, percent: bool) -> String {
    if percent { format!("{:.0}%", value * 100.0) } else { format!("{value:.0}") }
}

/// The next round number above.
fn round_up(greatest: f64) -> f64 {
    if greatest <= 5.0 {
        return 5.0;
    }
    let unit = 10_f64.powf(greatest.log10().floor()) / 2.0;
    (greatest * 1.04 / unit).ceil() * unit
}
