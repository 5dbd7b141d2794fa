//! Lines that bundles cross one way only: nothing is ever confirmed, and a sender that was put back hears of it from nobody.

use super::Node;
use super::bundles::{bundles, export};
use crate::ingest::topology::Role;
use crate::service::bundles::{Bundles, ParentLine, state};
use guantong_proto::v1;

const TOWNSHIP: &str = "220822101";
const COUNTY: &str = "220822";

async fn pair() -> (Node, Node) {
    let county = Node::new(COUNTY, None).await;
    let township = Node::new(TOWNSHIP, Some(COUNTY)).await;
    township.knows(COUNTY).await;
    (county, township)
}

fn one_way(township: &Node) -> Bundles {
    bundles(township, township.own, ParentLine::OneWay)
}

/// The line as the county shows it.
async fn above(county: &Node, township: &Node) -> v1::BundleState {
    let store = &county.engine.shared().store;
    state::state(store, Role::Child, township.own, ParentLine::Dialled).await.unwrap().unwrap()
}

#[tokio::test]
async fn a_one_way_line_is_never_confirmed_and_each_of_its_bundles_is_full() {
    let (county, township) = pair().await;
    let one_way = one_way(&township);
    let names = township.new_cases(0..2).await;
    let (first, _) = export(&one_way, COUNTY, false).await.unwrap();
    township.new_cases(2..3).await;
    let (second, done) = export(&one_way, COUNTY, false).await.unwrap();
    assert!(done.record_count >= 3, "all of it again");
    county.take(&first).await;
    county.take(&second).await;
    assert!(county.record(&names[1]).await.is_some());
    assert!(township.owed(COUNTY).await >= 3, "nothing is ever called delivered");
    let refused = export(&county.bundles(), TOWNSHIP, false).await.unwrap_err();
    assert!(refused.message().contains("only sends"), "{refused}");
    let store = &county.engine.shared().store;
    let state = state::state(store, Role::Child, township.own, ParentLine::Dialled);
    let state = state.await.unwrap().unwrap();
    assert_eq!((state.one_way, state.received_number, state.receipts_owed_count), (true, 2, 0));
    let store = &township.engine.shared().store;
    let state = state::state(store, Role::Parent, county.own, ParentLine::OneWay);
    let state = state.await.unwrap().unwrap();
    assert_eq!((state.one_way, state.sent_number, state.confirmed_number), (true, 2, 0));
}

#[tokio::test]
async fn a_one_way_sender_that_was_put_back_is_shown_above_however_many_bundles_were_lost() {
    let (county, township) = pair().await;
    let make = async |township: &Node| export(&one_way(township), COUNTY, false).await.unwrap().0;
    township.new_cases(0..1).await;
    county.take(&make(&township).await).await;
    let (township, copy) = township.backup().await;
    county.take(&make(&township).await).await;
    assert!(!above(&county, &township).await.peer_restored);
    let township = township.replace(copy).await;
    for _lost in 0..3 {
        make(&township).await;
    }
    county.take(&make(&township).await).await;
    let state = above(&county, &township).await;
    assert_eq!((state.peer_restored, state.received_number, state.missing_count), (true, 5, 2));
    assert!(county.engine.shared().alarms().iter().any(|a| a.contains("put back or copied")));
}

#[tokio::test]
async fn what_goes_one_way_is_always_full() {
    let (_county, township) = pair().await;
    let refused = export(&one_way(&township), COUNTY, true).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::FailedPrecondition, "{refused}");
    assert!(refused.message().contains("full"), "{refused}");
}
