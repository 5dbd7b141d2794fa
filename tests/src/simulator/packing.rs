//! A bundle that a simulated node makes: greeting, receipts, claims and what is owed, read piece by piece, while
//! everything else goes on.
//!
//! What goes into it stays owed; only when all of it was noted is there a file.

use guantong_gateway::bundle::keeping::{BundleChange, Made};
use guantong_gateway::bundle::standing::{Mark, Standing};
use guantong_gateway::bundle::{BundleError, Writing};
use guantong_gateway::division::Division;
use guantong_gateway::ingest::changes::{Changes, LinkChange};
use guantong_gateway::ingest::topology::{PeerId, Role};
use guantong_gateway::session::whole::Packing;
use guantong_proto::rules::Lane;
use guantong_proto::v1;
use guantong_proto::v1::bundle_frame::Kind;
use prost::Message;
use rand::Rng;

use super::bundles::{Started, public, signature};
use super::engine::{Fate, Step};
use super::node::{Line, Node, lane_out};

/// The most urgent first.
const LANES: [Lane; 3] = [Lane::Urgent, Lane::Normal, Lane::Bulk];

/// A bundle under way.
pub(super) struct Making {
    /// For whom.
    pub(super) to: Division,
    peer: PeerId,
    mark: Mark,
    previous: Option<Mark>,
    standing: Standing,
    since_last: bool,
    one_way: bool,
    after: i64,
    through: i64,
    begun_ms: u64,
    clock: u64,
    writing: Writing,
    file: Vec<u8>,
    /// Lanes that are in it; `None`: not even the greeting.
    lanes: Option<usize>,
    counted: v1::BundleEnd,
    seqs: Vec<i64>,
    receipts_until_ms: u64,
}

/// What a step of an export came to.
pub(super) enum Packed {
    /// There is more to do.
    More(Box<Making>),
    /// The file.
    Whole(Vec<u8>),
    /// The disk is full, or the store was found to be restored.
    Failed,
    /// The process crashed.
    Crashed,
}

fn honest<T>(made: Result<T, BundleError>) -> T {
    match made {
        Ok(made) => made,
        Err(error) => panic!("an honest node cannot make its bundle: {error}"),
    }
}

impl Node {
    /// Begins a bundle.
    pub(super) fn begin_making(
        &mut self,
        step: &mut Step<'_>,
        to: Division,
        since_last: bool,
    ) -> Started<Making> {
        let Some(peer) = self.disk.peer(to).map(|peer| (peer.id, peer.role)) else { return Started::Nothing };
        let mut standing = self.disk.bundles.standing(to);
        if peer.1 == Role::Child && standing.one_way {
            return Started::Nothing;
        }
        let one_way = peer.1 == Role::Parent && self.line(to) == Line::OneWay;
        let (previous, after) = (standing.sent.map(|(mark, _)| mark), standing.sent_through);
        let (through, begun_ms) = (self.disk.newest_owed(peer.0), self.now_ms(step.now_ms));
        let mark = standing.begin(self.disk.epoch, step.rng.random(), begun_ms);
        let change = BundleChange::Standing(Box::new(standing.clone()));
        let begun = LinkChange::Bundle { division: to, change };
        match self.finish(step, &Changes::default(), &[begun], Vec::new(), Vec::new()) {
            Fate::Done => {}
            Fate::Full => return Started::Nothing,
            Fate::Crashed => return Started::Crashed,
        }
        let numbers = (mark.number, begun_ms);
        let (writing, file) =
            honest(Writing::begin(self.division, to, numbers, &public(to), step.rng.random()));
        let clock = self.writers().latest().0;
        Started::Job(Box::new(Making {
            to,
            peer: peer.0,
            mark,
            previous,
            standing,
            since_last: since_last && !one_way,
            one_way,
            after,
            through,
            begun_ms,
            clock,
            writing,
            file,
            lanes: None,
            counted: v1::BundleEnd::default(),
            seqs: Vec::new(),
            receipts_until_ms: 0,
        }))
    }

    /// The next step of an export.
    pub(super) fn go_on_making(&mut self, step: &mut Step<'_>, mut making: Box<Making>) -> Packed {
        match making.lanes {
            None => {
                making.lanes = Some(0);
                self.pack_greeting(&mut making);
                self.pack_receipts(&mut making);
                self.pack_claims(step, &mut making);
                Packed::More(making)
            }
            Some(lane) if lane < LANES.len() => {
                making.lanes = Some(lane + 1);
                self.pack_lane(&mut making, LANES[lane]);
                Packed::More(making)
            }
            Some(_) => self.finish_making(step, making),
        }
    }

    fn pack_greeting(&self, making: &mut Making) {
        let after = making.standing.seen.map_or(0, |(seen, _)| seen.number) + 1..=u64::MAX;
        let begun = self.disk.bundles.taken(making.to, making.standing.peer_epoch, after).pop();
        let greeting = v1::BundleGreeting {
            mark: Some(making.mark.into()),
            previous: making.previous.map(Into::into),
            seen: making.standing.seen.map(|(seen, _)| seen.into()),
            peer_epoch: making.standing.peer_epoch,
            restored_epoch: making.standing.restored_epoch,
            revision: self.disk.revision,
            rules: Some(self.schema.rule_table()),
            one_way: making.one_way,
            whole: !making.since_last,
            software_version: String::new(),
            public_key: public(self.division).0.to_vec().into(),
            made: self.disk.bundles.all_made(making.to).into_iter().map(Into::into).collect(),
            begun: begun.map(|begun| begun.mark.into()),
        };
        making.frame(Kind::Greeting(greeting), false);
    }

    fn pack_receipts(&self, making: &mut Making) {
        for taken in self.disk.bundles.receipts(making.to) {
            let bundle = Some(taken.mark.into());
            for kept in self.disk.bundles.refusals(making.to, taken.mark) {
                let kept = v1::BundleReceipt::decode(kept).unwrap_or_default();
                let receipt = v1::BundleReceipt { bundle, taken: false, refusals: kept.refusals };
                making.frame(Kind::Receipt(receipt), false);
            }
            let receipt = v1::BundleReceipt { bundle, taken: true, refusals: Vec::new() };
            making.frame(Kind::Receipt(receipt), false);
            making.counted.receipt_count += 1;
            making.receipts_until_ms = taken.taken_ms;
        }
    }

    fn pack_claims(&mut self, step: &mut Step<'_>, making: &mut Making) {
        if self.parent != Some(making.to) {
            return;
        }
        for claim in self.spoken_since(0).0 {
            step.ledger.said(step.index, self.division, &claim);
            making.frame(Kind::Claim(claim), false);
        }
    }

    fn pack_lane(&self, making: &mut Making, lane: Lane) {
        let Some(route) = self.route(making.peer) else { return };
        let after = if making.since_last { making.after } else { 0 };
        if making.through <= after {
            return;
        }
        let mut packing = Packing::default();
        let between = self.disk.outbox.range(after + 1..=making.through);
        for (seq, row) in between.filter(|(_, row)| row.peer == making.peer && row.lane == lane) {
            let stored = row.keys.iter().filter_map(|key| self.disk.records.get(key));
            // Never `fresh`: by the time it arrives the peer may have the record from elsewhere.
            let sent =
                stored.filter_map(|s| route.batch_record(&s.name, &s.state, None, false).ok().flatten());
            for record in sent {
                assert!(packing.add(record).is_ok(), "nothing here is too large to send");
            }
            making.seqs.push(*seq);
        }
        while let Ok(Some((batch, records))) = packing.take(lane_out(lane)) {
            making.counted.batch_count += 1;
            making.counted.record_count += records as u64;
            let batch_id = making.counted.batch_count;
            making.frame(Kind::Batch(v1::Batch { batch_id, ..batch }), false);
        }
    }

    fn finish_making(&mut self, step: &mut Step<'_>, mut making: Box<Making>) -> Packed {
        if self.disk.epoch != making.mark.epoch {
            return Packed::Failed;
        }
        making.frame(Kind::End(making.counted), true);
        let statement = making.writing.statement();
        let mut seqs = std::mem::take(&mut making.seqs);
        seqs.sort_unstable();
        if making.one_way {
            seqs.clear();
        }
        let Making { mark, begun_ms: made_ms, clock, through, receipts_until_ms, .. } = *making;
        let (whole, records) = (!making.since_last, making.counted.record_count);
        let made = Made { mark, made_ms, whole, records, clock };
        let fate = self.note(step, making.to, |standing| {
            standing.sent_through = through;
            Some(BundleChange::Made { made, seqs, receipts_until_ms })
        });
        match fate {
            Fate::Done => {}
            Fate::Full => return Packed::Failed,
            Fate::Crashed => return Packed::Crashed,
        }
        let seal = v1::BundleSeal {
            signature: signature(self.division, &statement).into(),
            certificates: Default::default(),
        };
        let (end, ..) = honest(making.writing.finish(&seal));
        making.file.extend(end);
        Packed::Whole(making.file)
    }
}

impl Making {
    fn frame(&mut self, kind: Kind, last: bool) {
        let frame = v1::BundleFrame { kind: Some(kind) };
        let bytes = honest(self.writing.frame(&frame, last));
        self.file.extend(bytes);
    }
}
