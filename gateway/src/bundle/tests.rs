//! Bundles as files: what is written is read, and nothing else is. Any altered byte and any other end is refused.

use std::io::Cursor;

use guantong_proto::v1;
use guantong_proto::v1::bundle_frame::Kind;
use proptest::prelude::*;

use super::*;
use crate::division::Division;
use crate::session::whole::Packing;

const NOW_MS: u64 = 1_700_000_000_000;

fn division(code: &str) -> Division {
    Division::parse(code).unwrap()
}

fn secret(seed: u8) -> SecretKey {
    SecretKey::new([seed; 32])
}

fn greeting(number: u64) -> v1::BundleGreeting {
    v1::BundleGreeting {
        mark: Some(v1::BundleMark { epoch: 7, number, random: 9 }),
        public_key: vec![1; 32].into(),
        whole: true,
        ..Default::default()
    }
}

fn batch(batch_id: u64, records: usize) -> v1::Batch {
    let mut packing = Packing::default();
    for i in 0..records {
        let name = format!("divisions/220822101000/grids/{i}");
        packing.add(v1::BatchRecord { name, state: vec![5; 20].into(), ..Default::default() }).unwrap();
    }
    let (batch, count) = packing.take(v1::Lane::Bulk).unwrap().unwrap();
    assert_eq!(count, records);
    v1::Batch { batch_id, ..batch }
}

fn frame(kind: Kind) -> v1::BundleFrame {
    v1::BundleFrame { kind: Some(kind) }
}

/// Frames of a small bundle.
fn frames() -> Vec<v1::BundleFrame> {
    let bundle = Some(v1::BundleMark { epoch: 1, number: 4, random: 2 });
    let receipt = |taken| v1::BundleReceipt { bundle, taken, refusals: Vec::new() };
    vec![
        frame(Kind::Greeting(greeting(3))),
        frame(Kind::Batch(batch(1, 2))),
        frame(Kind::Receipt(receipt(false))),
        frame(Kind::Receipt(receipt(true))),
        frame(Kind::Claim(v1::Claim::default())),
        frame(Kind::Batch(batch(2, 5))),
        frame(Kind::End(v1::BundleEnd { batch_count: 2, record_count: 7, receipt_count: 1 })),
    ]
}

/// A file of these frames; its seal is its own statement.
fn file(frames: &[v1::BundleFrame]) -> Vec<u8> {
    let key = secret(1).public().unwrap();
    let begun = Writing::begin(division("220822101"), division("220822"), (3, NOW_MS), &key, [8; 32]);
    let (mut writing, mut out) = begun.unwrap();
    for (i, frame) in frames.iter().enumerate() {
        out.extend(writing.frame(frame, i + 1 == frames.len()).unwrap());
    }
    let seal = v1::BundleSeal { signature: writing.statement().into(), certificates: Default::default() };
    let (end, bytes, checksum) = writing.finish(&seal).unwrap();
    out.extend(end);
    assert_eq!((bytes, checksum), (out.len() as u64, *blake3::hash(&out).as_bytes()));
    out
}

/// Reads a file as an import does before it writes anything; `seal` says whether its statement is signed.
fn read(file: &[u8]) -> Result<Vec<Item>, BundleError> {
    let found = inspect(file)?;
    if found.seal.signature != found.statement.as_bytes() {
        return Err(BundleError::Seal("another statement".into()));
    }
    found.head.check(division("220822"), NOW_MS, 0)?;
    let mut frames = Frames::open(Cursor::new(file), &[secret(2), secret(1)])?;
    let mut contents = Contents::new(found.head.number);
    let mut items = Vec::new();
    while let Some((frame, last)) = frames.next_frame()? {
        items.push(contents.take(frame, last)?);
    }
    assert_eq!(found.byte_count, file.len() as u64);
    Ok(items)
}

#[test]
fn what_is_written_is_read() {
    let items = read(&file(&frames())).unwrap();
    assert_eq!(items.len(), 7);
    assert!(matches!(&items[0], Item::Greeting(g) if g.heard.mark.number == 3 && g.heard.whole));
    assert!(matches!(&items[5], Item::Batch { batch_id: 2, records, .. } if records.len() == 5));
    assert_eq!(items[6], Item::End);
}

#[test]
fn each_altered_byte_and_each_other_end_is_refused() {
    let whole = file(&frames());
    for at in 0..whole.len() {
        for bit in [0x01, 0x80] {
            let mut altered = whole.clone();
            altered[at] ^= bit;
            assert!(read(&altered).is_err(), "byte {at}");
        }
        assert!(read(&whole[..at]).is_err(), "cut at {at}");
    }
    let longer = [whole.as_slice(), &[0]].concat();
    assert!(matches!(read(&longer), Err(BundleError::Damaged("the end"))));
}

#[test]
fn a_newer_format_is_named_before_anything_else_is_read() {
    let mut newer = file(&frames());
    newer[11] = 2;
    newer.truncate(13);
    let error = read(&newer).unwrap_err();
    assert!(matches!(error, BundleError::Newer(2)), "{error}");
    assert!(matches!(read(b"PK\x03\x04 something else"), Err(BundleError::NotOne)));
    assert!(matches!(read(b""), Err(BundleError::NotOne)));
}

#[test]
fn whose_it_is_is_checked_first() {
    let found = inspect(file(&frames()).as_slice()).unwrap();
    let check = |own: &str, now_ms| found.head.check(division(own), now_ms, 1_000);
    assert!(check("220822", NOW_MS).is_ok());
    assert!(check("220822", NOW_MS - 1_000).is_ok(), "a clock may be ahead a little");
    assert!(matches!(check("220822", NOW_MS - 1_001), Err(BundleError::Time)));
    assert!(matches!(check("220822", NOW_MS + AGE_MAX_MS + 1), Err(BundleError::Time)));
    assert!(matches!(check("220821", NOW_MS), Err(BundleError::ForAnother { .. })));
    assert!(matches!(check("220822101", NOW_MS), Err(BundleError::OwnBundle { .. })));
}

#[test]
fn it_opens_with_its_receivers_key_only() {
    let file = file(&frames());
    let open = |keys: &[SecretKey]| Frames::open(Cursor::new(&file), keys).map(drop);
    assert!(matches!(open(&[secret(3)]), Err(BundleError::UnknownKey { .. })));
    assert!(matches!(open(&[]), Err(BundleError::UnknownKey { .. })));
    assert!(open(&[secret(3), secret(1)]).is_ok(), "an earlier key");
}

#[test]
fn a_head_of_another_bundle_opens_nothing() {
    // The seal holds, since whoever signs may sign anything; the encryption is bound to the head all the same.
    let whole = file(&frames());
    let at = whole.windows(12).position(|w| w == b"220822101000").unwrap();
    let mut other = whole.clone();
    other[at..at + 12].copy_from_slice(b"220822102000");
    let mut frames = Frames::open(Cursor::new(&other), &[secret(1)]).unwrap();
    assert!(matches!(frames.next_frame(), Err(BundleError::Unopened)));
}

#[test]
fn frames_stand_in_their_order_only() {
    let wrong = |change: fn(&mut Vec<v1::BundleFrame>)| {
        let mut frames = frames();
        change(&mut frames);
        let error = read(&file(&frames)).unwrap_err();
        assert!(matches!(error, BundleError::Content(_)), "{error}");
    };
    wrong(|frames| drop(frames.remove(0)));
    wrong(|frames| frames.insert(1, frame(Kind::Greeting(greeting(3)))));
    wrong(|frames| frames[0] = frame(Kind::Greeting(greeting(4))));
    wrong(|frames| frames.swap(1, 5));
    wrong(|frames| drop(frames.remove(1)));
    wrong(|frames| drop(frames.remove(3)));
    wrong(|frames| drop(frames.pop()));
    wrong(|frames| frames.push(frame(Kind::Claim(v1::Claim::default()))));
    wrong(|frames| frames[4] = v1::BundleFrame::default());
    wrong(|frames| frames[1] = frame(Kind::Batch(v1::Batch { raw_bytes: u32::MAX, ..batch(1, 2) })));
}

#[test]
fn a_frame_beyond_its_size_is_not_written() {
    let key = secret(1).public().unwrap();
    let begun = Writing::begin(division("220822101"), division("220822"), (1, 1), &key, [8; 32]);
    let huge = v1::Batch { payload: vec![0; FRAME_BYTES_MAX].into(), ..Default::default() };
    assert!(begun.unwrap().0.frame(&frame(Kind::Batch(huge)), false).is_err());
}

#[test]
fn two_bundles_of_one_content_differ_and_a_key_is_known_by_its_name() {
    let key = secret(1).public().unwrap();
    let begin =
        |seed| Writing::begin(division("220822101"), division("220822"), (1, 1), &key, seed).unwrap().1;
    assert_ne!(begin([1; 32]), begin([2; 32]));
    assert_eq!(begin([1; 32]), begin([1; 32]));
    assert_eq!(key.id().to_string().len(), 16);
    assert_eq!(format!("{:?}", secret(1)), "SecretKey(…)");
}

#[test]
fn a_card_is_read_as_it_was_written_and_nothing_else_is() {
    let mut card = Card::new(division("220822"), secret(1).public().unwrap(), 5);
    card.signature = vec![1, 2].into();
    let file = card.encode();
    assert_eq!(Card::decode(&file), Ok(card.clone()));
    assert!(card.statement().contains("220822000000"));
    assert_eq!(Card::decode(&file[..file.len() - 1]), Err(CardError));
    assert_eq!(Card::decode(b"GTBUNDLE"), Err(CardError));
    let other = Card { time_ms: 6, ..card.clone() };
    assert_ne!(other.statement(), card.statement());
}

proptest! {
    #[test]
    fn nothing_makes_the_reader_fall_over(bytes in proptest::collection::vec(any::<u8>(), 0..400), whole in any::<bool>()) {
        let mut bytes = bytes;
        if whole {
            bytes.splice(0..0, file(&frames()).into_iter().take(60));
        }
        prop_assert!(read(&bytes).is_err());
        let _ = Frames::open(Cursor::new(&bytes), &[secret(1)]).and_then(|mut frames| frames.next_frame());
        let _ = Card::decode(&bytes);
    }

    #[test]
    fn frames_of_any_kind_are_taken_or_refused(kinds in proptest::collection::vec(0usize..8, 0..12)) {
        let frames = frames();
        let mut contents = Contents::new(3);
        for (i, kind) in kinds.iter().enumerate() {
            let frame = frames.get(*kind).cloned().unwrap_or_default();
            let taken = contents.take(frame, *kind == 6);
            prop_assert!(i > 0 || taken.is_ok() == (*kind == 0));
        }
    }
}
