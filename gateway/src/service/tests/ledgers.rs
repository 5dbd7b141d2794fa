//! Ledgers into an engine on a real store: what comes twice, late, corrected elsewhere, or for an unknown village.

use guantong_proto::rules::fields;
use guantong_proto::v1;
use prost::Message;

use super::{Node, until};
use crate::engine::{Begun, Import, ImportProgress};
use crate::ingest::local::LocalWrite;
use crate::record::RecordName;

fn grid(code: &str, name: &str) -> v1::Grid {
    v1::Grid {
        grid_code: Some(code.into()),
        division: Some(code[..12].into()),
        display_name: Some(name.into()),
        grid_type: Some(v1::GridType::Comprehensive.into()),
        state: Some(v1::ActiveState::Active.into()),
        ..v1::Grid::default()
    }
}

fn row(grid: &v1::Grid) -> v1::ImportRow {
    let key = grid.grid_code.clone().unwrap_or_default();
    let home = format!("{}000", &key[..9]);
    v1::ImportRow { key, home, fields: grid.encode_to_vec().into(), line: 2, ..v1::ImportRow::default() }
}

async fn import(node: &Node, kind: &str, begun: Option<Begun>, rows: Vec<v1::ImportRow>) -> ImportProgress {
    let kind = node.engine.shared().schema.kind_named(kind).unwrap().id;
    node.engine.import(Import { kind, source: "台账".into(), begun, rows }).await.unwrap()
}

fn name(node: &Node, code: &str) -> RecordName {
    node.engine.name(&format!("divisions/{}000/grids/{code}", &code[..9])).unwrap()
}

async fn revision(node: &Node, name: &RecordName) -> i64 {
    node.engine.shared().store.get(name).await.unwrap().unwrap().revision
}

const CODE: &str = "220822101000001";

#[tokio::test]
async fn a_ledger_imported_twice_changes_nothing() {
    let node = Node::new("220822101", None).await;
    let rows = vec![row(&grid(CODE, "一网格"))];
    let first = import(&node, "grid", None, rows.clone()).await;
    assert_eq!((first.created_count, first.problems.len()), (1, 0), "{:?}", first.problems);
    let before = revision(&node, &name(&node, CODE)).await;
    let second = import(&node, "grid", None, rows).await;
    assert_eq!((second.created_count, second.changed_count, second.unchanged_count), (0, 0, 1));
    assert_eq!(revision(&node, &name(&node, CODE)).await, before);
}

#[tokio::test]
async fn an_old_ledger_reverts_no_correction_and_a_new_value_stands_beside_it() {
    let node = Node::new("220822101", None).await;
    let record = name(&node, CODE);
    import(&node, "grid", None, vec![row(&grid(CODE, "一网格"))]).await;
    let corrected = v1::Grid { display_name: Some("更正".into()), ..v1::Grid::default() };
    let write = LocalWrite::of(vec![(fields::grid::DISPLAY_NAME, corrected.encode_to_vec().into())]);
    node.write(&record, write).await.unwrap();
    let again = import(&node, "grid", None, vec![row(&grid(CODE, "一网格"))]).await;
    assert_eq!((again.unchanged_count, again.conflict_count), (1, 0));
    let live =
        async || node.record(&record).await.unwrap().get(fields::grid::DISPLAY_NAME).unwrap().live().count();
    assert_eq!(live().await, 1, "the correction stands alone");
    let changed = import(&node, "grid", None, vec![row(&grid(CODE, "新一网格"))]).await;
    assert_eq!(changed.conflict_count, 1);
    assert_eq!(live().await, 2);
}

#[tokio::test]
async fn a_village_that_nobody_knows_holds_its_rows_until_it_is_imported() {
    let node = Node::new("220822101", None).await;
    let code = "220822101201001";
    let held = import(&node, "grid", None, vec![row(&grid(code, "村网格"))]).await;
    assert_eq!((held.held_count, held.created_count, held.problems.len()), (1, 0, 0));
    let village = v1::Division {
        code: Some("220822101201".into()),
        display_name: Some("某村".into()),
        ..v1::Division::default()
    };
    let village = v1::ImportRow {
        key: "220822101201".into(),
        home: "220822101000".into(),
        fields: village.encode_to_vec().into(),
        ..v1::ImportRow::default()
    };
    let known = import(&node, "division", None, vec![village]).await;
    assert_eq!(known.created_count, 1, "{:?}", known.problems);
    until(async || node.record(&name(&node, code)).await.is_some()).await;
    assert_eq!(node.engine.shared().store.counts().await.unwrap().held, 0);
}

#[tokio::test]
async fn rows_that_vanish_from_a_full_ledger_are_listed() {
    let node = Node::new("220822101", None).await;
    let (one, two) = (grid(CODE, "一"), grid("220822101000002", "二"));
    import(&node, "grid", None, vec![row(&one), row(&two)]).await;
    let second = import(&node, "grid", None, vec![row(&one)]).await;
    let Begun { source, generation } = second.begun;
    let vanished = node.engine.shared().store.vanished(source, generation, "", 10).await.unwrap();
    assert_eq!(vanished.iter().map(|v| &*v.row).collect::<Vec<_>>(), ["220822101000002"]);
}

#[tokio::test]
async fn a_bad_row_is_named_and_the_good_ones_go_in() {
    let node = Node::new("220822101", None).await;
    let foreign = v1::ImportRow { line: 3, ..row(&grid("220822102000001", "别处")) };
    let progress = import(&node, "grid", None, vec![row(&grid(CODE, "一")), foreign]).await;
    assert_eq!((progress.created_count, progress.problems.len()), (1, 1));
    assert_eq!(progress.problems[0].line, 3);
}
