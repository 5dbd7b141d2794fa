//! Bundles between real engines: both ways, twice, out of order, lost, altered, interrupted, one-way.

use std::sync::Arc;

use guantong_proto::rules::fields;
use guantong_proto::v1;
use tokio_stream::iter;
use tonic::Code;

use super::audit::Scribe;
use super::{Node, case, division, environment, new_case, risk, until};
use crate::bundle::SecretKey;
use crate::bundle::keeping::BundleChange;
use crate::bundle::standing::PeerKey;
use crate::division::Division;
use crate::engine::bundles::Note;
use crate::ingest::local::LocalWrite;
use crate::record::RecordName;
use crate::service::NodeInfo;
use crate::service::bundles::{BundleKeys, BundleMeans, Bundles, ParentLine};
use crate::store::Options;

const TOWNSHIP: &str = "220822101";
const COUNTY: &str = "220822";

/// A key for each division, known to all tests.
struct Drawer(SecretKey);

impl BundleKeys for Drawer {
    fn secrets(&self) -> Result<Vec<SecretKey>, String> {
        Ok(vec![self.0.clone()])
    }
}

pub(super) fn secret(own: &str) -> SecretKey {
    SecretKey::new(*blake3::hash(own.as_bytes()).as_bytes())
}

pub(super) fn bundles(node: &Node, signer: Division, parent_line: ParentLine) -> Bundles {
    let means = BundleMeans {
        seal: Arc::new(Scribe(signer)),
        keys: Arc::new(Drawer(secret(&node.own.to_string()))),
        folder: node.folder.path().into(),
    };
    let info = NodeInfo { parent_line, bundles: Some(Arc::new(means)), ..super::reports::info() };
    Bundles::new(node.engine.clone(), &info)
}

impl Node {
    pub(super) fn bundles(&self) -> Bundles {
        bundles(self, self.own, ParentLine::Bundle)
    }

    /// Accepts the card of another node.
    pub(super) async fn knows(&self, other: &str) {
        let other = division(other);
        let key = PeerKey {
            key: secret(&other.to_string()).public().unwrap(),
            time_ms: 1,
            certificates: other.to_string().into_bytes().into(),
        };
        self.engine.note_bundle(other, Note::Key(key), None).await.unwrap();
    }

    pub(super) async fn try_export(&self, receiver: &str) -> Result<Vec<u8>, tonic::Status> {
        Ok(export(&self.bundles(), receiver, false).await?.0)
    }

    pub(super) async fn export(&self, receiver: &str) -> Vec<u8> {
        self.try_export(receiver).await.unwrap()
    }

    pub(super) async fn import(&self, bundle: &[u8]) -> Result<v1::BundleSummary, tonic::Status> {
        import(&self.bundles(), bundle).await
    }

    pub(super) async fn take(&self, bundle: &[u8]) -> v1::BundleSummary {
        self.import(bundle).await.unwrap()
    }

    pub(super) async fn owed(&self, peer: &str) -> u64 {
        let topology = self.engine.shared().topology();
        let parent = topology.parent().filter(|p| p.1 == division(peer)).map(|p| p.0);
        let child = topology.children().find(|c| c.1 == division(peer)).map(|c| c.0);
        let backlog = self.engine.shared().store.backlog(parent.or(child).unwrap()).await.unwrap();
        backlog.urgent.count + backlog.normal.count + backlog.bulk.count
    }

    async fn logged(&self, words: &[&str]) -> bool {
        let rows = self.engine.shared().store.audit_entries(0, 0, 10_000).await.unwrap();
        rows.iter().any(|row| words.iter().all(|word| row.line.contains(word)))
    }

    pub(super) async fn new_cases(&self, ids: std::ops::Range<usize>) -> Vec<RecordName> {
        let mut names = Vec::new();
        for id in ids {
            let name = case(self, "220822101000", &id.to_string());
            self.write(&name, new_case("220822101000")).await.unwrap();
            names.push(name);
        }
        names
    }
}

#[allow(clippy::panic)]
pub(super) async fn export(
    bundles: &Bundles,
    receiver: &str,
    since_last: bool,
) -> Result<(Vec<u8>, v1::BundleSummary), tonic::Status> {
    let mut answers = bundles.make(division(receiver), since_last).await?;
    let mut file = Vec::new();
    while let Some(answer) = answers.recv().await {
        let answer = answer?;
        file.extend(answer.chunk);
        if let Some(done) = answer.done {
            assert_eq!(done.byte_count, file.len() as u64);
            return Ok((file, done));
        }
    }
    panic!("the bundle was never whole");
}

#[allow(clippy::panic)]
async fn import(bundles: &Bundles, bundle: &[u8]) -> Result<v1::BundleSummary, tonic::Status> {
    let pieces: Vec<_> = bundle
        .chunks(1_000)
        .map(|piece| Ok(v1::ImportBundleRequest { chunk: bytes::Bytes::copy_from_slice(piece) }))
        .collect();
    let mut answers = bundles.take(iter(pieces))?;
    while let Some(answer) = answers.recv().await {
        if let Some(done) = answer?.done {
            return Ok(done);
        }
    }
    panic!("the bundle was never taken in");
}

/// A county and a township of it, with no line between them, that know each other's cards.
pub(super) async fn pair() -> (Node, Node) {
    let county = Node::new(COUNTY, None).await;
    let township = Node::new(TOWNSHIP, Some(COUNTY)).await;
    township.knows(COUNTY).await;
    (county, township)
}

#[tokio::test]
async fn records_and_receipts_go_both_ways_and_personal_data_does_not() {
    let (county, township) = pair().await;
    let names = township.new_cases(0..3).await;
    let done = county.take(&township.export(COUNTY).await).await;
    assert_eq!((done.number, done.repeated, done.refused_count), (1, false, 0));
    assert_eq!(county.shown(&names[0]).await.title(), "测试");
    assert!(county.shown(&names[0]).await.parties.is_empty(), "release is enforced as on a line");
    assert!(township.owed(COUNTY).await > 0, "until the receipt is there");

    county
        .write(&names[1], LocalWrite { acting: Some(county.own), ..risk(v1::CaseRisk::Red) })
        .await
        .unwrap();
    let done = township.take(&county.export(TOWNSHIP).await).await;
    assert_eq!((done.receipt_count, done.number), (1, 1));
    assert!(done.delivered_count >= 3);
    assert_eq!(township.owed(COUNTY).await, 0, "what has its receipt goes");
    assert_eq!(township.shown(&names[1]).await.risk(), v1::CaseRisk::Red);

    assert!(county.owed(TOWNSHIP).await > 0);
    let done = county.take(&township.export(COUNTY).await).await;
    assert_eq!((done.record_count, done.receipt_count), (0, 1));
    assert_eq!(county.owed(TOWNSHIP).await, 0);
    let done = township.take(&county.export(TOWNSHIP).await).await;
    assert_eq!(
        (done.record_count, done.receipt_count),
        (0, 1),
        "for the last one, and not for the first again"
    );
    assert!(county.logged(&["\"bundle_taken\"", "\"bundle\":1", TOWNSHIP, "checksum"]).await);
    assert!(township.logged(&["\"bundle_made\"", "\"bundle\":1", COUNTY]).await);
}

#[tokio::test]
async fn bundles_may_be_lost_late_and_taken_in_twice() {
    let (county, township) = pair().await;
    let first = township.new_cases(0..2).await;
    let one = township.export(COUNTY).await;
    let second = township.new_cases(2..4).await;
    let two = township.export(COUNTY).await;
    let third = township.new_cases(4..6).await;
    let three = township.export(COUNTY).await;
    county.take(&three).await;
    for name in first.iter().chain(&second).chain(&third) {
        assert!(county.record(name).await.is_some(), "each holds everything that is owed");
    }
    assert!(county.take(&three).await.repeated);
    assert!(!county.take(&one).await.repeated);
    let down = county.export(TOWNSHIP).await;
    assert_eq!(township.take(&down).await.receipt_count, 2);
    assert_eq!(township.owed(COUNTY).await, 0);
    assert!(township.take(&down).await.repeated);
    county.take(&two).await;
    let standing = county.engine.shared().store.bundle_standing(township.own).await.unwrap();
    assert_eq!(standing.seen.unwrap().0.number, 3);
    assert!(county.engine.shared().alarms().is_empty(), "nobody was restored");
}

#[tokio::test]
async fn what_changed_after_a_bundle_stays_owed_when_its_receipt_comes() {
    let (county, township) = pair().await;
    let name = township.new_cases(0..1).await.remove(0);
    county.take(&township.export(COUNTY).await).await;
    township.write(&name, risk(v1::CaseRisk::Red)).await.unwrap();
    township.take(&county.export(TOWNSHIP).await).await;
    assert_eq!(township.owed(COUNTY).await, 1, "its row is newer than the bundle");
    assert_eq!(county.take(&township.export(COUNTY).await).await.record_count, 1);
    assert_eq!(county.shown(&name).await.risk(), v1::CaseRisk::Red);
}

#[tokio::test]
async fn a_small_bundle_holds_what_was_added_and_a_whole_one_what_was_lost() {
    let (county, township) = pair().await;
    township.new_cases(0..3).await;
    let lost = township.export(COUNTY).await;
    drop(lost);
    let added = township.new_cases(3..4).await;
    let (small, done) = export(&township.bundles(), COUNTY, true).await.unwrap();
    assert_eq!((done.record_count, done.since_last), (1, true));
    county.take(&small).await;
    assert!(county.record(&added[0]).await.is_some());
    township.take(&county.export(TOWNSHIP).await).await;
    assert_eq!(township.owed(COUNTY).await, 3, "the receipt is for the small one only");
    assert_eq!(county.take(&township.export(COUNTY).await).await.record_count, 3);
}

#[tokio::test]
async fn whatever_is_not_right_is_refused_whole_and_logged() {
    let (county, township) = pair().await;
    let names = township.new_cases(0..1).await;
    let bundle = township.export(COUNTY).await;
    for at in [0, 9, 20, 100, bundle.len() / 2, bundle.len() - 1] {
        let mut altered = bundle.clone();
        altered[at] ^= 4;
        assert!(county.import(&altered).await.is_err(), "byte {at}");
    }
    assert!(county.import(&bundle[..bundle.len() - 40]).await.unwrap_err().message().contains("cut short"));
    let mut newer = bundle.clone();
    newer[11] = 9;
    assert!(county.import(&newer).await.unwrap_err().message().contains("format 9"));
    assert!(township.import(&bundle).await.unwrap_err().message().contains("made the bundle itself"));
    let other = Node::new("220821", None).await;
    let refused = other.import(&bundle).await.unwrap_err();
    assert!(refused.message().contains("is for 220822000000"), "{refused}");
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert!(county.record(&names[0]).await.is_none());
    let standing = county.engine.shared().store.bundle_standing(township.own).await.unwrap();
    assert_eq!(standing.version, 0, "nothing was written");
    assert!(county.engine.shared().topology().children().next().is_none(), "nobody was met");
    for reason in ["\"seal\"", "\"cut_short\"", "\"newer_format\"", "\"not_a_bundle\""] {
        until(async || county.logged(&["\"bundle_refused\"", reason]).await).await;
    }
    county.take(&bundle).await;
}

#[tokio::test]
async fn another_nodes_signature_is_not_its_own() {
    let (county, township) = pair().await;
    township.new_cases(0..1).await;
    let forged = bundles(&township, division("220822102"), ParentLine::Bundle);
    let (forged, _) = export(&forged, COUNTY, false).await.unwrap();
    assert!(county.import(&forged).await.unwrap_err().message().contains("seal does not hold"));
}

#[tokio::test]
async fn nobody_is_sent_anything_before_its_card_is_known_and_trusted() {
    let (county, township) = (Node::new(COUNTY, None).await, Node::new(TOWNSHIP, Some(COUNTY)).await);
    let refused = export(&township.bundles(), COUNTY, false).await.unwrap_err();
    assert!(refused.message().contains("no key of 220822000000 is known"), "{refused}");
    let refused = export(&county.bundles(), TOWNSHIP, false).await.unwrap_err();
    assert!(refused.message().contains("met"), "{refused}");
    let revoked = PeerKey {
        key: secret("220822000000").public().unwrap(),
        time_ms: 1,
        certificates: b"somebody else"[..].into(),
    };
    township.engine.note_bundle(division(COUNTY), Note::Key(revoked), None).await.unwrap();
    let refused = export(&township.bundles(), COUNTY, false).await.unwrap_err();
    assert!(refused.message().contains("not trusted any more"), "{refused}");
}

#[tokio::test]
async fn what_is_refused_goes_to_quarantine_with_the_receipt_and_leaves_it_with_a_later_one() {
    let (county, township) = pair().await;
    let name = township.new_cases(0..1).await.remove(0);
    county.take(&township.export(COUNTY).await).await;
    let refusal = v1::Refusal {
        record: name.display(&township.engine.shared().schema).to_string(),
        field: fields::case::TITLE,
        reason: v1::RefusalReason::FutureStamp.into(),
        ..v1::Refusal::default()
    };
    let refusals = v1::BundleReceipt { refusals: vec![refusal], ..v1::BundleReceipt::default() };
    // As if the county's clock were behind: its part of the title was not taken.
    let store = &county.engine.shared().store;
    let mark = store.bundle_standing(township.own).await.unwrap().seen.unwrap().0;
    let refusals = prost::Message::encode_to_vec(&refusals).into();
    let progress = BundleChange::Progress { mark, batch_id: 1_000, refused: 1, refusals };
    county.engine.note_bundle(township.own, Note::Change(progress), None).await.unwrap();
    township.take(&county.export(TOWNSHIP).await).await;
    let quarantined = async || township.engine.shared().store.quarantine(None, 10).await.unwrap();
    let held = quarantined().await;
    assert_eq!((held.len(), held[0].refused.reason), (1, v1::RefusalReason::FutureStamp));
    // It is owed again by the next greeting, and goes with the bundle after that.
    county.take(&township.export(COUNTY).await).await;
    township.take(&county.export(TOWNSHIP).await).await;
    assert_eq!(county.take(&township.export(COUNTY).await).await.record_count, 1);
    township.take(&county.export(TOWNSHIP).await).await;
    assert!(quarantined().await.is_empty());
}

#[tokio::test]
async fn an_import_that_was_interrupted_goes_on_where_it_was() {
    let (county, township) = pair().await;
    township.new_cases(0..3).await;
    let bundle = township.export(COUNTY).await;
    county.take(&bundle).await;
    // As if the node had ended after the first batch.
    let store = &county.engine.shared().store;
    let standing = store.bundle_standing(township.own).await.unwrap();
    let mark = standing.seen.unwrap().0;
    let taken = store.bundles_taken(township.own, mark.epoch, 1..=1).await.unwrap().remove(0);
    assert!(taken.batches >= 1 && taken.taken_ms > 0);
    let again = BundleChange::Took { mark, taken_ms: 0, one_way: false };
    county.engine.note_bundle(township.own, Note::Change(again), None).await.unwrap();
    let done = county.take(&bundle).await;
    assert!(!done.repeated);
    // Each batch that is taken in leaves an entry.
    let rows = county.engine.shared().store.audit_entries(0, 0, 10_000).await.unwrap();
    let received = rows.iter().filter(|row| row.line.contains("\"received\"")).count();
    assert_eq!(received as u64, taken.batches, "no batch was taken in again");
}

#[tokio::test]
async fn a_store_that_is_full_in_the_middle_keeps_what_it_had_and_goes_on_when_there_is_room() {
    let (county, township) = pair().await;
    let names = township.new_cases(0..600).await;
    let bundle = township.export(COUNTY).await;
    let (own, parent, folder) = county.close().await;
    let path = folder.path().join("store.sqlite");
    let pages = u32::try_from(std::fs::metadata(&path).unwrap().len() / 4096).unwrap();
    let options = Options { durable: false, max_page_count: Some(pages + 40), ..Options::default() };
    let environment = environment();
    let small = Node::with_options(own, parent, environment, folder, options).await;
    let refused = small.import(&bundle).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
    assert!(small.record(&names[599]).await.is_none());
    let (own, parent, folder) = small.close().await;
    let county = Node::open(own, parent, environment, folder).await;
    let done = county.take(&bundle).await;
    assert!(!done.repeated);
    for name in [&names[0], &names[300], &names[599]] {
        assert!(county.record(name).await.is_some());
    }
    township.take(&county.export(TOWNSHIP).await).await;
    assert_eq!(township.owed(COUNTY).await, 0);
}

#[tokio::test]
async fn only_one_bundle_is_under_way_at_a_time() {
    let (_county, township) = pair().await;
    township.new_cases(0..1).await;
    let bundles = township.bundles();
    let answers = bundles.make(division(COUNTY), false).await.unwrap();
    let busy = bundles.make(division(COUNTY), false).await.unwrap_err();
    assert_eq!(busy.code(), Code::ResourceExhausted);
    drop(answers);
}
