//! Segments are joined with the last row of each name, and what a crash left without a manifest does not count.

use prost::Message;

use super::*;

fn change(id: u64, name: &str, functions: &[v1::CameraFunction]) -> v1::Change {
    let camera = v1::Camera {
        display_name: Some(name.into()),
        functions: functions.iter().map(|f| i32::from(*f)).collect(),
        installed_on: Some(v1::Date { year: 2026, month: 11, day: 22 }),
        location: id.is_multiple_of(2).then_some(v1::LngLat { longitude: 123.5, latitude: 44.25 }),
        connected: Some(id.is_multiple_of(3)),
        ..v1::Camera::default()
    };
    v1::Change {
        name: format!("divisions/220822000000/cameras/{id}"),
        kind: "camera".into(),
        fields: camera.encode_to_vec().into(),
        conflicting_fields: vec!["address".into(); (id % 3) as usize],
        ..v1::Change::default()
    }
}

fn cameras() -> Vec<Table> {
    Table::of(&[guantong_proto::rules::Kind::by_name("camera").unwrap()])
}

fn files(sink: &ParquetSink) -> Vec<DataFile> {
    sink.folder.manifest.tables["cameras"].files.clone()
}

/// Names, display names and numbers of conflicting fields of all rows of a file.
fn rows(sink: &ParquetSink, file: &DataFile) -> Vec<(String, String, usize)> {
    use parquet::file::reader::{FileReader, SerializedFileReader};
    use parquet::record::RowAccessor;
    let reader = SerializedFileReader::new(File::open(sink.folder.path(&file.path)).unwrap()).unwrap();
    let at = |name: &str| cameras()[0].columns.iter().position(|c| c.name == name).unwrap();
    let row = |row: Result<parquet::record::Row, ParquetError>| {
        let row = row.unwrap();
        let list = row.get_list(at("conflicting_fields")).unwrap();
        let text = |name| row.get_string(at(name)).unwrap().clone();
        (text("name"), text("display_name"), list.len())
    };
    reader.get_row_iter(None).unwrap().map(row).collect()
}

#[test]
fn segments_are_joined_with_the_last_row_of_each_name() {
    let place = tempfile::tempdir().unwrap();
    let (mut sink, wants_all) = ParquetSink::open(place.path(), "feed", cameras()).unwrap();
    assert!(wants_all);
    let face = [v1::CameraFunction::Face, v1::CameraFunction::Vehicle];
    for round in 0..=SEGMENTS_MIN as u64 {
        let changes: Vec<_> = (0..10).map(|id| change(id + round, &format!("轮{round}"), &face)).collect();
        sink.write(&changes, 5).unwrap();
        // Twice in one commit: the later counts.
        sink.write(&changes[..1], 6).unwrap();
        sink.commit(None).unwrap();
    }
    let joined = files(&sink);
    assert_eq!(joined.len(), 1, "{joined:?}");
    let all = rows(&sink, &joined[0]);
    assert_eq!((all.len(), joined[0].rows), (26, 26));
    let find = |id: u64| all.iter().find(|row| row.0.ends_with(&format!("/{id}"))).unwrap();
    assert_eq!(find(0).1, "轮0");
    assert_eq!(find(12).1, "轮12", "the last row of a name");
    assert_eq!((find(12).2, find(13).2, find(14).2), (0, 1, 2), "lists are kept with their rows");

    // What was replaced goes with the next join, not before.
    let before = sink.folder.manifest.tables["cameras"].replaced.clone();
    assert!(before.iter().all(|path| sink.folder.path(path).exists()));
    for _ in 0..SEGMENTS_MIN {
        let changes: Vec<_> = (0..10).map(|id| change(id, "后", &[])).collect();
        sink.write(&changes, 5).unwrap();
        sink.commit(None).unwrap();
    }
    assert_eq!(files(&sink).len(), 1);
    assert!(before.iter().all(|path| !sink.folder.path(path).exists()));
    assert_eq!(rows(&sink, &files(&sink)[0]).len(), 26);
}

#[test]
fn a_crash_before_the_manifest_leaves_nothing_that_counts() {
    let place = tempfile::tempdir().unwrap();
    let (mut sink, _) = ParquetSink::open(place.path(), "feed", cameras()).unwrap();
    sink.write(&[change(1, "一", &[])], 5).unwrap();
    sink.commit(None).unwrap();
    let manifest = fs::read(place.path().join("manifest.json")).unwrap();
    sink.write(&[change(2, "二", &[])], 5).unwrap();
    sink.commit(None).unwrap();
    drop(sink);
    fs::write(place.path().join("manifest.json"), manifest).unwrap();
    fs::write(place.path().join("cameras/.tmp-half"), b"half").unwrap();

    let (mut sink, wants_all) = ParquetSink::open(place.path(), "feed", cameras()).unwrap();
    assert!(!wants_all && !place.path().join("cameras/.tmp-half").exists());
    assert_eq!(files(&sink).len(), 1);
    // It was not acknowledged: it comes again, under the same number.
    sink.write(&[change(2, "二", &[]), change(3, "三", &[])], 5).unwrap();
    sink.commit(None).unwrap();
    let listed = files(&sink);
    assert_eq!((listed.len(), rows(&sink, &listed[1]).len()), (2, 2));
}
