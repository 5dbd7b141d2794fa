//! Figures as a file, in pieces, written while they are sent.

use std::io::{self, Write};

use bytes::Bytes;
use guantong_proto::v1;
use tokio::sync::mpsc;
use tonic::Status;

use crate::measure::{Dimension, Measure};
use crate::period::{Day, Period};
use crate::tabular::{Cell, Column, Format, Kind, Table, TableError};

/// Bytes of a piece.
const PIECE_BYTES: usize = 64 * 1024;

pub(super) type Pieces = mpsc::Sender<Result<v1::ExportAggregatesResponse, Status>>;

/// Takes a file's bytes and sends them in pieces. For a thread that may wait.
struct Pipe {
    buffer: Vec<u8>,
    out: Pieces,
}

impl Pipe {
    fn send(&mut self) -> io::Result<()> {
        let data = Bytes::from(std::mem::take(&mut self.buffer));
        let sent = self.out.blocking_send(Ok(v1::ExportAggregatesResponse { data }));
        sent.map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

impl Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= PIECE_BYTES {
            self.send()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes the table and sends it. The receiver may go at any time.
pub(super) fn write(
    answer: &v1::QueryAggregatesResponse,
    dimension: Option<Dimension>,
    format: Format,
    out: Pieces,
) -> Result<(), TableError> {
    let mut table = Table::begin(format, columns(), Pipe { buffer: Vec::new(), out })?;
    let read_ms = answer.read_time.as_ref().map(|t| t.seconds * 1_000 + i64::from(t.nanos) / 1_000_000);
    let classes = dimension.map(Dimension::classes).unwrap_or_default();
    for figure in &answer.figures {
        let class = classes.iter().find(|c| c.name == figure.class_name).map_or("", |c| c.label);
        table.push(&row(figure, class, read_ms))?;
    }
    table.finish()?.send()?;
    Ok(())
}

fn columns() -> Vec<Column> {
    let column = Column::new;
    vec![
        column("division", "区划代码", Kind::Text),
        column("division_name", "区划名称", Kind::Text),
        column("measure", "指标", Kind::Text),
        column("measure_label", "指标名称", Kind::Text),
        column("unit", "单位", Kind::Text),
        column("class", "分类", Kind::Text),
        column("class_label", "分类名称", Kind::Text),
        column("period", "统计周期", Kind::Text),
        column("period_first", "周期起", Kind::Date),
        column("period_last", "周期止", Kind::Date),
        column("period_closed", "周期已结束", Kind::Bool),
        column("value", "数值", Kind::Float),
        column("numerator", "分子", Kind::Int),
        column("denominator", "分母", Kind::Int),
        column("basis", "比率口径", Kind::Text),
        column("revision", "修订次数", Kind::Int),
        column("year_before_value", "上年同期", Kind::Float),
        column("year_on_year_change", "同比", Kind::Float),
        column("previous_value", "上期", Kind::Float),
        column("period_on_period_change", "环比", Kind::Float),
        column("rank", "排名", Kind::Int),
        column("read_time", "读取时间", Kind::Time),
    ]
}

fn row(figure: &v1::Figure, class_label: &str, read_ms: Option<i64>) -> Vec<Cell> {
    let text = |text: &str| if text.is_empty() { Cell::Empty } else { Cell::Text(text.to_owned()) };
    let number = |number: Option<f64>| Cell::maybe(number, Cell::Float);
    let measure = Measure::named(&figure.measure);
    let period: Option<Period> = figure.period.parse().ok();
    let date = |day: Day| Cell::maybe(Day::of_seconds(0), |epoch| Cell::Date(day.since(epoch)));
    vec![
        text(&figure.division),
        text(&figure.display_name),
        text(&figure.measure),
        text(measure.map_or("", |m| m.label)),
        text(measure.map_or("", |m| m.unit)),
        text(&figure.class_name),
        text(class_label),
        text(&figure.period),
        period.map_or(Cell::Empty, |p| date(p.first())),
        // A period without an end has none.
        period.filter(|p| p.last() < Day::LAST).map_or(Cell::Empty, |p| date(p.last())),
        Cell::Bool(figure.period_closed),
        number(figure.value),
        Cell::maybe(figure.numerator, Cell::Int),
        Cell::maybe(figure.denominator, Cell::Int),
        text(measure.map_or("", |m| m.formula.basis().1)),
        Cell::Int(figure.revision as i64),
        number(figure.year_before_value),
        number(figure.year_on_year_change),
        number(figure.previous_value),
        number(figure.period_on_period_change),
        Cell::maybe(figure.rank, |rank| Cell::Int(i64::from(rank))),
        Cell::maybe(read_ms, Cell::Time),
    ]
}
