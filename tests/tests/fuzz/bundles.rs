//! Bundles and cards: files that came from anywhere, and what is inside a bundle once it is opened.

use std::io::Cursor;

use guantong_gateway::bundle::{Card, Contents, Frames, Item, SecretKey, Writing, inspect};
use guantong_gateway::division::Division;
use guantong_gateway::session::whole::Packing;
use guantong_proto::v1;
use guantong_proto::v1::bundle_frame::Kind;
use prost::Message as _;

use super::runner::{fuzz, turn};

fn division(code: &str) -> Division {
    Division::parse(code).unwrap()
}

fn frames() -> Vec<v1::BundleFrame> {
    let mark = Some(v1::BundleMark { epoch: 7, number: 3, random: 9 });
    let mut packing = Packing::default();
    let record = |id| v1::BatchRecord {
        name: format!("divisions/220822101000/grids/{id}"),
        state: vec![5; 40].into(),
        ..v1::BatchRecord::default()
    };
    (0..20).for_each(|id| packing.add(record(id)).unwrap());
    let (batch, records) = packing.take(v1::Lane::Bulk).unwrap().unwrap();
    let refusal = v1::Refusal { record: record(1).name, field: 3, reason: 6, ..v1::Refusal::default() };
    let kinds = [
        Kind::Greeting(v1::BundleGreeting { mark, public_key: vec![1; 32].into(), ..Default::default() }),
        Kind::Receipt(v1::BundleReceipt { bundle: mark, refusals: vec![refusal], taken: false }),
        Kind::Receipt(v1::BundleReceipt { bundle: mark, refusals: vec![], taken: true }),
        Kind::Claim(v1::Claim { division: "220822101000".into(), through_ms: 5, quarantined_count: 1 }),
        Kind::Batch(v1::Batch { batch_id: 1, ..batch }),
        Kind::End(v1::BundleEnd { batch_count: 1, record_count: records as u64, receipt_count: 1 }),
    ];
    kinds.into_iter().map(|kind| v1::BundleFrame { kind: Some(kind) }).collect()
}

/// A bundle without a seal that would hold: nobody asks for it here.
fn file(key: &SecretKey) -> Vec<u8> {
    let (sender, receiver) = (division("220822101"), division("220822"));
    let begun = Writing::begin(sender, receiver, (3, 5), &key.public().unwrap(), [4; 32]);
    let (mut writing, mut file) = begun.unwrap();
    let frames = frames();
    for (at, frame) in frames.iter().enumerate() {
        file.extend(writing.frame(frame, at + 1 == frames.len()).unwrap());
    }
    let seal = v1::BundleSeal { signature: vec![7; 70].into(), certificates: vec![8; 900].into() };
    file.extend(writing.finish(&seal).unwrap().0);
    file
}

/// The input is a file. What is not byte for byte what was made opens up to the change at most.
#[test]
fn bundle_files() {
    let turn = turn();
    let key = SecretKey::new([3; 32]);
    let keys = [SecretKey::new([4; 32]), key.clone()];
    let whole = file(&key);
    let card = Card::new(division("220822"), key.public().unwrap(), 5).encode();
    let mut read = 0;
    fuzz(&turn, "bundle files", &[whole.clone(), card], |input| {
        let _ = Card::decode(input);
        let found = inspect(input);
        let Ok(mut frames) = Frames::open(Cursor::new(input), &keys) else { return };
        let mut contents = Contents::new(3);
        let mut ended = false;
        while let Ok(Some((frame, last))) = frames.next_frame() {
            let Ok(item) = contents.take(frame, last) else { break };
            ended |= item == Item::End;
        }
        read += usize::from(ended);
        if ended && let Ok(found) = found {
            let seal_at = whole.len() - found.seal.encoded_len().min(whole.len());
            assert_eq!(input[..seal_at.min(800)], whole[..seal_at.min(800)], "another file opened");
        }
    });
    assert!(read > 0, "what was made opens");
}

/// The input is a frame that a sender with a good key and a good certificate may have sealed.
#[test]
fn bundle_frames() {
    let turn = turn();
    let known = frames();
    let samples: Vec<Vec<u8>> = known.iter().map(v1::BundleFrame::encode_to_vec).collect();
    let greeting = known[0].clone();
    fuzz(&turn, "bundle frames", &samples, |input| {
        let Ok(frame) = v1::BundleFrame::decode(input) else { return };
        for last in [false, true] {
            let _ = Contents::new(3).take(frame.clone(), last);
            let mut contents = Contents::new(3);
            contents.take(greeting.clone(), false).unwrap();
            if let Ok(Item::Batch { records, .. }) = contents.take(frame.clone(), last) {
                assert_eq!(contents.records(), records.len() as u64);
            }
        }
    });
}
