//! Tables in both formats, as other programs read them, and rows that do not fit.

use super::*;
use ::parquet::file::reader::{FileReader, SerializedFileReader};
use ::parquet::record::Field;
use bytes::Bytes;

fn columns() -> Vec<Column> {
    vec![
        Column::new("division", "区划", Kind::Text),
        Column::new("count", "数量", Kind::Int),
        Column::new("rate", "比率", Kind::Float),
        Column::new("closed", "", Kind::Bool),
        Column::new("day", "日期", Kind::Date),
        Column::new("read", "时间", Kind::Time),
    ]
}

fn rows() -> Vec<Vec<Cell>> {
    let full = vec![
        Cell::Text("通榆县, \"城\"区".into()),
        Cell::Int(-3),
        Cell::Float(0.25),
        Cell::Bool(true),
        Cell::Date(20_747),
        Cell::Time(1_792_540_800_123),
    ];
    vec![full, vec![Cell::Empty; 6]]
}

fn written(format: Format) -> Vec<u8> {
    let mut table = Table::begin(format, columns(), Vec::new()).unwrap();
    rows().iter().for_each(|row| table.push(row).unwrap());
    table.finish().unwrap()
}

#[test]
fn csv_has_both_languages_and_iso_dates() {
    let text = String::from_utf8(written(Format::Csv)).unwrap();
    assert_eq!(
        text,
        "\u{feff}division 区划,count 数量,rate 比率,closed,day 日期,read 时间\n\
         \"通榆县, \"\"城\"\"区\",-3,0.25,true,2026-10-21,2026-10-21T00:00:00.123Z\n,,,,,\n"
    );
}

#[test]
fn parquet_is_read_again_with_its_types() {
    let reader = SerializedFileReader::new(Bytes::from(written(Format::Parquet))).unwrap();
    let metadata = reader.metadata().file_metadata();
    let labels = metadata.key_value_metadata().unwrap();
    assert!(labels.iter().any(|kv| kv.key == "label.division" && kv.value.as_deref() == Some("区划")));
    let read: Vec<Vec<Field>> = reader
        .get_row_iter(None)
        .unwrap()
        .map(|row| row.unwrap().get_column_iter().map(|(_, field)| field.clone()).collect())
        .collect();
    let full = vec![
        Field::Str("通榆县, \"城\"区".into()),
        Field::Long(-3),
        Field::Double(0.25),
        Field::Bool(true),
        Field::Date(20_747),
        Field::TimestampMillis(1_792_540_800_123),
    ];
    assert_eq!(read, vec![full, vec![Field::Null; 6]]);
}

#[test]
fn many_rows_are_written_in_groups() {
    let mut table = Table::begin(Format::Parquet, vec![Column::new("n", "", Kind::Int)], Vec::new()).unwrap();
    (0..250_000).for_each(|n| table.push(&[Cell::Int(n)]).unwrap());
    let reader = SerializedFileReader::new(Bytes::from(table.finish().unwrap())).unwrap();
    assert_eq!(
        (reader.metadata().num_row_groups(), reader.metadata().file_metadata().num_rows()),
        (3, 250_000)
    );
}

#[test]
fn a_row_that_does_not_fit_is_refused() {
    let mut table = Table::begin(Format::Csv, columns(), Vec::new()).unwrap();
    assert!(matches!(table.push(&[Cell::Empty]), Err(TableError::Row(_))));
    let mut wrong = rows().remove(0);
    wrong[1] = Cell::Text("three".into());
    assert!(table.push(&wrong).unwrap_err().to_string().contains("count"));
}
