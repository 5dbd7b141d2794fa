//! Bundles at a simulated node: what the engine and the bundle service do, step by step. Files, greetings, contents and
//! batches are the real ones; here are the order of the steps, and what a crash between two of them forgets.
//!
//! It must decide nothing itself, and take in nothing of a file that was not verified whole.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use guantong_gateway::bundle::keeping::{BundleChange, MADE_MAX, Made, TakenIn};
use guantong_gateway::bundle::standing::{
    Mark, Memory, Met, PeerKey, Sender as Store, Standing, Taken, is_forgotten, meet,
};
use guantong_gateway::bundle::{
    BundleError, Contents, Frames, Greeting, Item, PublicKey, SecretKey, inspect,
};
use guantong_gateway::comparing::Common;
use guantong_gateway::division::Division;
use guantong_gateway::ingest::changes::{Changes, LinkChange, PeerState, RecordKey};
use guantong_gateway::ingest::link::Sender;
use guantong_gateway::ingest::topology::{PeerId, Role};
use guantong_gateway::peering::Plan;
use guantong_gateway::session::Inbound;
use guantong_gateway::stamp::Stamp;
use guantong_proto::v1::{self, Recognition};
use prost::Message;

use super::engine::{Fate, Step, take_batch};
use super::node::{DRIFT_MS, Line, Node};

/// A bundle that is being taken in.
pub(super) struct Taking {
    /// Who made it.
    pub(super) from: Division,
    peer: PeerId,
    mark: Mark,
    met: Met,
    /// Batches that are on disk already.
    batches: u64,
    one_way: bool,
    /// No bundle with a higher number was taken in before: its claims are the latest.
    newest: bool,
    receipt_for: Option<Made>,
    /// Something of it.
    refused: bool,
    todo: VecDeque<Todo>,
}

enum Todo {
    Item(Box<Item>),
    Progress(BundleChange),
    Rows(Vec<i64>),
    Confirm(Made),
    Took,
    Recovered,
}

/// What became of the first step of an export or import.
pub(super) enum Started<T> {
    /// There is more to do.
    Job(Box<T>),
    /// There is nothing to do, or the disk is full.
    Nothing,
    /// The process crashed.
    Crashed,
}

/// What a step of an import came to.
pub(super) enum Took {
    /// There is more to do.
    More,
    /// A batch comes in: whoever watches may look into it.
    Batch(Inbound),
    /// What was refused of a batch.
    Refused(Vec<v1::Refusal>),
    /// A claim.
    Claim(v1::Claim),
    /// It is on disk, whole.
    Whole,
    /// The disk is full: it must be taken in again.
    Full,
    /// The process crashed.
    Crashed,
}

/// What a node opens its bundles with.
fn secret(of: Division) -> SecretKey {
    SecretKey::new(*blake3::hash(of.to_string().as_bytes()).as_bytes())
}

thread_local! {
    /// Computing one takes longer than all else that is done with a small bundle.
    static PUBLIC: RefCell<BTreeMap<Division, PublicKey>> = const { RefCell::new(BTreeMap::new()) };
}

/// What bundles for a node are sealed with.
pub(super) fn public(of: Division) -> PublicKey {
    let compute = || secret(of).public().unwrap_or(PublicKey([0; 32]));
    PUBLIC.with_borrow_mut(|known| *known.entry(of).or_insert_with(compute))
}

/// What stands for a signature: only the node of this division can make it, as far as anybody here tries.
pub(super) fn signature(of: Division, statement: &str) -> Vec<u8> {
    blake3::hash(format!("{of} signs {statement}").as_bytes()).as_bytes().to_vec()
}

impl Node {
    /// How it exchanges with a neighbour.
    pub(super) fn line(&self, other: Division) -> Line {
        self.lines.get(&other).copied().unwrap_or_default()
    }

    /// What it owes over lines.
    pub(super) fn owes_by_line(&self) -> bool {
        let dialled = |id: &PeerId| {
            self.disk.peers.get(id).is_some_and(|peer| self.line(peer.division) == Line::Dialled)
        };
        self.disk.outbox.values().any(|row| dialled(&row.peer))
    }

    /// Whether anything of a file may be taken in; all of it is read, and nothing used.
    fn verified(&self, file: &[u8], world_ms: u64) -> Result<(Greeting, u64, Vec<Item>), BundleError> {
        let found = inspect(file)?;
        let head = &found.head;
        head.check(self.division, self.now_ms(world_ms), DRIFT_MS)?;
        let above = head.sender.strictly_contains(self.division);
        if above && (self.parent != Some(head.sender) || self.line(head.sender) == Line::OneWay) {
            return Err(BundleError::Stranger { sender: head.sender });
        }
        if found.seal.signature != signature(head.sender, &found.statement) {
            return Err(BundleError::Seal("not its sender's".into()));
        }
        let mut frames = Frames::open(file, &[secret(self.division)])?;
        let mut contents = Contents::new(head.number);
        let (mut greeting, mut items) = (None, Vec::new());
        while let Some((frame, last)) = frames.next_frame()? {
            match contents.take(frame, last)? {
                Item::Greeting(first) => greeting = Some(first),
                item => items.push(item),
            }
        }
        let greeting = greeting.ok_or_else(|| BundleError::Content("it is empty".into()))?;
        Ok((greeting, head.time_ms, items))
    }

    /// Verifies a bundle and acts on its greeting.
    pub(super) fn begin_taking(
        &mut self,
        step: &mut Step<'_>,
        file: &[u8],
    ) -> Result<Started<Taking>, BundleError> {
        let (greeting, time_ms, items) = self.verified(file, step.now_ms)?;
        let from = inspect(file)?.head.sender;
        let heard = greeting.heard;
        let known = self.disk.bundles.standing(from);
        let receipts: Vec<Mark> = items.iter().filter_map(taken_of).collect();
        let number = heard.mark.number;
        let around = number.saturating_sub(MADE_MAX)..=number.saturating_add(1);
        let taken = self.disk.bundles.taken(from, heard.mark.epoch, around);
        let strange_receipt = self.is_any_strange(from, &known, receipts.iter().chain(&heard.begun));
        let follows = greeting.made.iter().any(|made| made.epoch == known.peer_epoch);
        let child = self.parent != Some(from);
        let knows_other_fields = child && !Common::of(&self.schema, &greeting.rules).is_all();
        let memory = Memory {
            time_ms,
            strange_receipt,
            follows,
            knows_other_fields,
            was_renewed: self.disk.renewed_ms.is_some(),
            ..self.memory_of(from, &greeting, &taken)
        };
        let mut met = meet(&known, &heard, &memory);
        met.standing.learn(&PeerKey { key: greeting.key, time_ms, certificates: Bytes::new() });
        let before = taken.iter().find(|t| t.mark == heard.mark).copied();
        let mut also = vec![BundleChange::Standing(Box::new(met.standing.clone()))];
        if before.is_none() && met.contents_count {
            let (mark, previous) = (heard.mark, heard.previous);
            also.push(BundleChange::Taking(TakenIn { mark, previous, ..TakenIn::default() }));
        }
        let newest = known.seen.is_none_or(|(seen, _)| seen.number <= number);
        if !met.own_restored && met.sender != Store::Past {
            also.push(BundleChange::ReceiptsArrived {
                number: heard.seen.map_or(0, |seen| seen.number),
                newest,
            });
        }
        step.ledger.trace(|| {
            format!(
                "{} takes in bundle {number} of {from}, a store that is {:?}, own restored: {}",
                self.division, met.sender, met.own_restored
            )
        });
        let plan = self.plan_of(step, from, &met, heard.mark.epoch);
        let peer = plan.peer.id;
        let also = also.into_iter().map(|change| LinkChange::Bundle { division: from, change }).collect();
        let fate = self.settle_meeting(step, plan, None, also);
        match fate {
            Fate::Done if before.is_none_or(|before| before.taken_ms == 0) => {}
            Fate::Done | Fate::Full => return Ok(Started::Nothing),
            Fate::Crashed => return Ok(Started::Crashed),
        }
        let mut todo = VecDeque::new();
        if met.contents_count {
            todo.extend(items.into_iter().map(|item| Todo::Item(Box::new(item))));
            todo.push_back(Todo::Took);
        }
        if met.recovered {
            todo.push_back(Todo::Recovered);
        }
        Ok(Started::Job(Box::new(Taking {
            from,
            peer,
            mark: heard.mark,
            met,
            batches: before.map_or(0, |before| before.batches),
            one_way: heard.one_way,
            newest,
            receipt_for: None,
            refused: false,
            todo,
        })))
    }

    /// What is remembered that a greeting is compared with.
    fn memory_of(&self, from: Division, greeting: &Greeting, taken: &[TakenIn]) -> Memory {
        let (heard, number) = (greeting.heard, greeting.heard.mark.number);
        let marks: Vec<Mark> = taken.iter().map(|t| t.mark).collect();
        let of = |number: Option<u64>| {
            let found = taken.iter().find(|t| Some(t.mark.number) == number);
            found.map(|t| Taken { mark: t.mark, previous: t.previous })
        };
        let made = heard.seen.and_then(|seen| self.disk.bundles.made(from, seen.number));
        Memory {
            own_epoch: self.disk.epoch,
            made: made.map(|made| (made.mark, made.clock)),
            taken: [of(number.checked_sub(1)), of(Some(number)), of(number.checked_add(1))],
            forgotten: is_forgotten(heard.mark, &greeting.made, &marks),
            ..Memory::default()
        }
    }

    fn is_any_strange<'m>(
        &self,
        from: Division,
        known: &Standing,
        mut marks: impl Iterator<Item = &'m Mark>,
    ) -> bool {
        let sent = known.sent.map_or(0, |(mark, _)| mark.number);
        marks.any(|mark| {
            if mark.epoch != self.disk.epoch {
                return false;
            }
            let forgotten = mark.number <= sent.saturating_sub(MADE_MAX);
            self.disk.bundles.made(from, mark.number).map_or(!forgotten, |made| made.mark != *mark)
        })
    }

    fn plan_of(&self, step: &Step<'_>, from: Division, met: &Met, epoch: u64) -> Plan {
        let known = self.disk.peer(from).cloned();
        let first_welcome = known.is_none();
        let mut peer = known.unwrap_or_else(|| PeerState::new(self.disk.next_peer(), Role::Child, from));
        let another = met.sender == Store::New && peer.epoch != 0 && peer.epoch != epoch;
        if met.may_bring_back && peer.role == Role::Child {
            peer.recovering_to = Some(self.own_store(&self.writers(), step.now_ms).recovering_to());
        }
        Plan {
            recognition: Recognition::Known,
            peer,
            renew_after: met.own_restored.then_some(Stamp(met.standing.clock)),
            recover: met.own_restored,
            backfill: first_welcome || another || met.backfill,
            first_welcome,
        }
    }

    /// The next step of an import.
    pub(super) fn go_on_taking(&mut self, step: &mut Step<'_>, taking: &mut Taking) -> Took {
        let Some(todo) = taking.todo.pop_front() else { return Took::Whole };
        let (from, mark) = (taking.from, taking.mark);
        let fate = match todo {
            Todo::Item(item) => return self.take_item(step, taking, *item),
            Todo::Progress(change) => self.note(step, from, |_| Some(change)),
            Todo::Rows(seqs) => self.deliver(step, taking.peer, seqs, &[]),
            Todo::Confirm(made) => {
                let now_ms = self.now_ms(step.now_ms);
                let (number, whole) = (made.mark.number, made.whole);
                self.note(step, from, |standing| {
                    standing.confirm(number, made.made_ms, now_ms);
                    Some(BundleChange::Confirmed { number, whole })
                })
            }
            Todo::Took => {
                let (taken_ms, one_way) = (self.now_ms(step.now_ms), taking.one_way);
                self.note(step, from, |standing| {
                    standing.took(mark, taken_ms);
                    Some(BundleChange::Took { mark, taken_ms, one_way })
                })
            }
            Todo::Recovered => {
                let own = self.own_store(&self.writers(), step.now_ms);
                let peer = self.disk.peers.get(&taking.peer).and_then(|peer| peer.given(taking.refused, own));
                let links: Vec<LinkChange> = peer.map(LinkChange::Peer).into_iter().collect();
                self.finish(step, &Changes::default(), &links, Vec::new(), Vec::new())
            }
        };
        match fate {
            Fate::Done if taking.todo.is_empty() => Took::Whole,
            Fate::Done => Took::More,
            Fate::Full => Took::Full,
            Fate::Crashed => Took::Crashed,
        }
    }

    fn take_item(&mut self, step: &mut Step<'_>, taking: &mut Taking, item: Item) -> Took {
        match item {
            Item::Batch { batch_id, lane, records } if batch_id > taking.batches => {
                let same_epoch = taking.met.same_epoch;
                Took::Batch(Inbound { batch_id, lane, same_epoch, records })
            }
            Item::Receipt { bundle, refusals, taken } if taking.met.receipts_count => {
                if taking.receipt_for.is_none_or(|made| made.mark != bundle) {
                    let made = self.disk.bundles.made(taking.from, bundle.number);
                    taking.receipt_for =
                        made.filter(|made| made.mark == bundle && bundle.epoch == self.disk.epoch);
                }
                let Some(made) = taking.receipt_for else { return Took::More };
                if taken {
                    taking.receipt_for = None;
                    taking.todo.push_front(Todo::Confirm(made));
                    taking.todo.push_front(Todo::Rows(self.disk.bundles.rows(taking.from, bundle.number)));
                }
                match self.deliver(step, taking.peer, Vec::new(), &refusals) {
                    Fate::Done => Took::More,
                    Fate::Full => Took::Full,
                    Fate::Crashed => Took::Crashed,
                }
            }
            Item::Claim(claim) => {
                let child = self.disk.peers.get(&taking.peer).is_some_and(|p| p.role == Role::Child);
                match child && taking.newest && taking.met.same_epoch {
                    true => Took::Claim(claim),
                    false => Took::More,
                }
            }
            Item::Greeting(_) | Item::Batch { .. } | Item::Receipt { .. } | Item::End => Took::More,
        }
    }

    /// Takes in a batch, in one transaction; how far the import is goes into the next.
    pub(super) fn take_bundle_batch(
        &mut self,
        step: &mut Step<'_>,
        taking: &mut Taking,
        batch: &Inbound,
    ) -> Took {
        let Some(peer) = self.disk.peers.get(&taking.peer) else { return Took::Crashed };
        let sender = Sender {
            peer: peer.id,
            role: peer.role,
            division: peer.division,
            recovering_to: peer.recovering_to,
            same_epoch: batch.same_epoch,
            bulk: batch.lane == v1::Lane::Bulk,
        };
        let (mut writers, schema, mut written) = (self.writers(), self.schema.clone(), Vec::new());
        let (refusals, changes, links) = self.decide(step.now_ms, step.rng, &mut writers, |work, disk| {
            take_batch(work, disk, &schema, &sender, batch, &mut written)
        });
        match self.finish(step, &changes, &links, written, Vec::new()) {
            Fate::Done => {}
            Fate::Full => return Took::Full,
            Fate::Crashed => return Took::Crashed,
        }
        let refused = refusals.len() as u64;
        taking.refused |= refused > 0;
        let kept = v1::BundleReceipt { refusals: refusals.clone(), ..v1::BundleReceipt::default() };
        let kept = if refused == 0 { Vec::new() } else { kept.encode_to_vec() };
        let (mark, batch_id, refusals_kept) = (taking.mark, batch.batch_id, kept.into());
        let progress = BundleChange::Progress { mark, batch_id, refused, refusals: refusals_kept };
        taking.todo.push_front(Todo::Progress(progress));
        Took::Refused(refusals)
    }

    /// Notes something of a bundle, and what follows from it for the standing.
    pub(super) fn note(
        &mut self,
        step: &mut Step<'_>,
        division: Division,
        change: impl FnOnce(&mut Standing) -> Option<BundleChange>,
    ) -> Fate {
        let before = self.disk.bundles.standing(division);
        let mut standing = before.clone();
        let mut noted: Vec<BundleChange> = change(&mut standing).into_iter().collect();
        if standing != before {
            noted.push(BundleChange::Standing(Box::new(standing)));
        }
        let links: Vec<LinkChange> =
            noted.into_iter().map(|change| LinkChange::Bundle { division, change }).collect();
        self.finish(step, &Changes::default(), &links, Vec::new(), Vec::new())
    }

    fn deliver(
        &mut self,
        step: &mut Step<'_>,
        peer: PeerId,
        seqs: Vec<i64>,
        refusals: &[v1::Refusal],
    ) -> Fate {
        let rows = seqs.iter().filter_map(|seq| self.disk.outbox.get(seq)).filter(|row| row.peer == peer);
        let keys: Vec<RecordKey> = rows.flat_map(|row| row.keys.iter().copied()).collect();
        let refused = refusals.iter().filter_map(|refusal| self.quarantined(refusal)).collect();
        let delivered = LinkChange::Delivered { peer, seqs, keys, refused };
        self.finish(step, &Changes::default(), &[delivered], Vec::new(), Vec::new())
    }
}

fn taken_of(item: &Item) -> Option<Mark> {
    match item {
        Item::Receipt { bundle, taken: true, .. } => Some(*bundle),
        _ => None,
    }
}
