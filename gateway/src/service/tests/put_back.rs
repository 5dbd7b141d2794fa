//! Bundles between real engines whose stores were put back, by copying files or by `guantong restore`, or emptied.

use std::io::Write as _;

use guantong_proto::v1;
use tempfile::TempDir;

use super::bundles::{pair, secret};
use super::{Node, division, environment, link, risk, until};
use crate::bundle::standing::{Heard, PeerKey};
use crate::engine::bundles::Arrival;
use crate::ingest::local::LocalWrite;
use crate::store::Restoring;

const TOWNSHIP: &str = "220822101";
const COUNTY: &str = "220822";
const PREFECTURE: &str = "2208";

impl Node {
    /// As `guantong restore` puts a backup back: the store knows it.
    pub(super) async fn restored(self, backup: &TempDir) -> Node {
        let (own, parent, folder) = self.close().await;
        let bytes = std::fs::read(backup.path().join("store.sqlite")).unwrap();
        let place = folder.path().join("store.sqlite");
        let restoring = Restoring::begin(place.to_str().unwrap(), own, bytes.len() as u64).unwrap();
        restoring.file().unwrap().write_all(&bytes).unwrap();
        restoring.finish("nobody", 7).await.unwrap();
        Node::open(own, parent, environment(), folder).await
    }
}

#[tokio::test]
async fn a_bundle_that_was_taken_in_halfway_gives_away_that_its_maker_was_put_back() {
    let (county, township) = pair().await;
    let now_ms = (environment().now_ms)();
    township.new_cases(0..1).await;
    county.take(&township.export(COUNTY).await).await;
    let (township, backup) = township.backup().await;
    township.export(COUNTY).await;
    let made = township.engine.shared().store.bundles_made(division(COUNTY)).await.unwrap();
    // As if the county had ended after it met the second.
    let certificates = TOWNSHIP.to_owned().into_bytes().into();
    let arrival = Arrival {
        heard: Heard { mark: made[0], previous: Some(made[1]), whole: true, ..Heard::default() },
        made: vec![made[1]],
        rules: county.engine.shared().schema.rule_table(),
        time_ms: now_ms,
        key: PeerKey { key: secret(TOWNSHIP).public().unwrap(), time_ms: now_ms, certificates },
        receipts: Vec::new(),
    };
    county.engine.meet_bundle(township.own, arrival).await.unwrap();
    let township = township.replace(backup).await;
    let epoch = township.engine.shared().epoch();
    township.take(&county.export(TOWNSHIP).await).await;
    assert_ne!(township.engine.shared().epoch(), epoch, "receipts in the lost bundle may have counted");
}

#[tokio::test]
async fn a_restored_sender_is_noticed_and_gets_back_what_it_forgot() {
    let (county, township) = pair().await;
    let kept = township.new_cases(0..1).await.remove(0);
    county.take(&township.export(COUNTY).await).await;
    let (township, backup) = township.backup().await;
    let forgotten = township.new_cases(1..2).await.remove(0);
    county.take(&township.export(COUNTY).await).await;
    let epoch = township.engine.shared().epoch();
    let township = township.replace(backup).await;
    assert!(township.record(&forgotten).await.is_none());
    let offline = township.new_cases(2..3).await.remove(0);
    let refused = county.import(&township.export(COUNTY).await).await.unwrap_err();
    assert!(refused.message().contains("before it knew"), "{refused}");
    assert!(county.record(&offline).await.is_none(), "it writes under the stamps of what it forgot");
    township.take(&county.export(TOWNSHIP).await).await;
    assert!(township.record(&forgotten).await.is_some(), "it gets back what it forgot");
    assert_ne!(township.engine.shared().epoch(), epoch, "and becomes a new writer");
    county.take(&township.export(COUNTY).await).await;
    assert!(county.record(&offline).await.is_some(), "what it wrote meanwhile is not lost");
    township.take(&county.export(TOWNSHIP).await).await;
    county.take(&township.export(COUNTY).await).await;
    assert_eq!((township.owed(COUNTY).await, county.owed(TOWNSHIP).await), (0, 0), "it settles");
    assert_eq!(
        county.record(&kept).await.map(|r| r.fields().len()),
        county.record(&offline).await.map(|r| r.fields().len())
    );
}

#[tokio::test]
async fn a_restored_receiver_notices_itself_and_is_sent_everything_again() {
    let (county, township) = pair().await;
    let kept = township.new_cases(0..1).await.remove(0);
    county.take(&township.export(COUNTY).await).await;
    township.take(&county.export(TOWNSHIP).await).await;
    let (county, backup) = county.backup().await;
    let forgotten = township.new_cases(1..2).await.remove(0);
    county.take(&township.export(COUNTY).await).await;
    township.take(&county.export(TOWNSHIP).await).await;
    assert_eq!(township.owed(COUNTY).await, 0);
    let epoch = county.engine.shared().epoch();
    let county = county.replace(backup).await;
    assert!(county.record(&forgotten).await.is_none());
    // What the township sends says which bundle of the county it has; the county does not know that bundle.
    township.new_cases(2..3).await;
    county.take(&township.export(COUNTY).await).await;
    assert_ne!(county.engine.shared().epoch(), epoch);
    township.take(&county.export(TOWNSHIP).await).await;
    county.take(&township.export(COUNTY).await).await;
    assert!(county.record(&forgotten).await.is_some() && county.record(&kept).await.is_some());
    assert!(!county.recovers_from(&township).await, "it has sent all that it was asked for");
}

#[tokio::test]
async fn a_county_that_was_put_back_by_its_operator_gets_back_what_it_wrote_itself() {
    let (county, township) = pair().await;
    let name = township.new_cases(0..1).await.remove(0);
    county.take(&township.export(COUNTY).await).await;
    let (county, backup) = county.backup().await;
    let forgotten = LocalWrite { acting: Some(county.own), ..risk(v1::CaseRisk::Red) };
    county.write(&name, forgotten).await.unwrap();
    township.take(&county.export(TOWNSHIP).await).await;
    assert_eq!(township.shown(&name).await.risk(), v1::CaseRisk::Red);
    let county = county.restored(&backup).await;
    assert_ne!(county.shown(&name).await.risk(), v1::CaseRisk::Red);
    // It knows already that it was put back: nothing in the township's bundles shows it.
    for _there_and_back in 0..2 {
        township.take(&county.export(TOWNSHIP).await).await;
        county.take(&township.export(COUNTY).await).await;
    }
    let risk = county.shown(&name).await.risk();
    assert_eq!(risk, v1::CaseRisk::Red, "it is not refused as a write that it never made");
    assert!(!county.recovers_from(&township).await, "it has sent all that it was asked for");
}

#[tokio::test]
async fn what_a_prefecture_wrote_comes_back_to_it_in_bundles_of_a_county_that_both_have_forgotten() {
    let (prefecture, backup) = Node::new(PREFECTURE, None).await.reopened(async |_| {}).await.backup().await;
    let county = Node::new(COUNTY, Some(PREFECTURE)).await;
    county.knows(PREFECTURE).await;
    let township = Node::new(TOWNSHIP, Some(COUNTY)).await;
    let line = link(&township, &county).await;
    let name = township.new_cases(0..1).await.remove(0);
    until(async || county.record(&name).await.is_some()).await;
    prefecture.take(&county.export(PREFECTURE).await).await;
    let red = LocalWrite { acting: Some(prefecture.own), ..risk(v1::CaseRisk::Red) };
    prefecture.write(&name, red).await.unwrap();
    county.take(&prefecture.export(COUNTY).await).await;
    until(async || township.shown(&name).await.risk() == v1::CaseRisk::Red).await;
    line.cut().await;
    let prefecture = prefecture.restored(&backup).await;
    let county = county.replace(TempDir::new().unwrap()).await;
    county.knows(PREFECTURE).await;
    let _line = link(&township, &county).await;
    until(async || county.shown(&name).await.risk() == v1::CaseRisk::Red).await;
    for _there_and_back in 0..3 {
        prefecture.take(&county.export(PREFECTURE).await).await;
        county.take(&prefecture.export(COUNTY).await).await;
    }
    let risk = prefecture.shown(&name).await.risk();
    assert_eq!(risk, v1::CaseRisk::Red, "it is not refused as a write that it never made");
    assert!(!prefecture.recovers_from(&county).await, "it has sent all that it was asked for");
}

#[tokio::test]
async fn an_emptied_county_is_filled_from_what_the_township_brings() {
    let (county, township) = pair().await;
    let names = township.new_cases(0..2).await;
    county.take(&township.export(COUNTY).await).await;
    township.take(&county.export(TOWNSHIP).await).await;
    assert_eq!(township.owed(COUNTY).await, 0);
    let county = county.replace(TempDir::new().unwrap()).await;
    township.new_cases(2..3).await;
    county.take(&township.export(COUNTY).await).await;
    township.take(&county.export(TOWNSHIP).await).await;
    county.take(&township.export(COUNTY).await).await;
    for name in &names {
        assert!(county.record(name).await.is_some());
    }
}
