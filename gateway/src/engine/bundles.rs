//! Bundles, as far as the store is concerned: which is begun for whom, what one that came means, and what is noted of
//! both. Files are the service's; what a greeting means is `bundle::standing`'s to decide.

use guantong_proto::v1;

use super::catch_up::abreast;
use super::command::{Command, Reply};
use super::greet::Meeting;
use super::task::Task;
use super::{Engine, EngineError};
use crate::audit::Event;
use crate::bundle::keeping::{BundleChange, MADE_MAX, Made, TakenIn};
use crate::bundle::standing::{
    Heard, Mark, Memory, Met, PeerKey, Sender, Standing, Taken, is_forgotten, meet,
};
use crate::comparing::Common;
use crate::division::Division;
use crate::ingest::changes::{Changes, LinkChange, PeerState};
use crate::ingest::topology::{PeerId, Role};
use crate::peering::Plan;
use crate::stamp::Stamp;

/// A bundle that is begun: its number is used up, whether or not it is ever finished.
#[derive(Clone, Debug)]
pub struct Begun {
    /// For whom.
    pub peer: PeerId,
    /// It.
    pub mark: Mark,
    /// The one before.
    pub previous: Option<Mark>,
    /// The exchange, as it stands now.
    pub standing: Standing,
    /// The highest number in the outbox when the last one that was finished was begun.
    pub after: i64,
    /// The same now: what is owed later goes into the next one.
    pub through: i64,
    /// When, Unix milliseconds.
    pub begun_ms: u64,
    /// Number of the store's last transaction.
    pub revision: u64,
    /// The latest stamp of the store.
    pub clock: u64,
}

/// A bundle that came, verified.
#[derive(Clone, Debug)]
pub struct Arrival {
    /// What its greeting says.
    pub heard: Heard,
    /// The bundles that its sender remembers to have finished before.
    pub made: Vec<Mark>,
    /// The field rules that its sender knows.
    pub rules: v1::RuleTable,
    /// When it was begun, by its sender's clock, Unix milliseconds.
    pub time_ms: u64,
    /// The key to seal bundles for its sender with.
    pub key: PeerKey,
    /// The bundles that it brings receipts for.
    pub receipts: Vec<Mark>,
}

/// What a bundle that came means.
#[derive(Clone, Debug)]
pub struct Arrived {
    /// From whom.
    pub peer: PeerId,
    /// What follows from it.
    pub met: Met,
    /// Batches of it that are on disk already.
    pub batches: u64,
    /// All of it is.
    pub repeated: bool,
}

/// Something to note of a bundle.
#[derive(Clone, Debug)]
pub enum Note {
    /// A key was accepted.
    Key(PeerKey),
    /// A bundle was made, with these outbox rows and receipts.
    Made {
        /// It.
        made: Made,
        /// Rows, ascending.
        seqs: Vec<i64>,
        /// It holds nothing with a higher number.
        through: i64,
        /// Receipts in it are of what was taken in up to then, Unix milliseconds.
        receipts_until_ms: u64,
    },
    /// A batch of a bundle is on disk.
    Change(BundleChange),
    /// A bundle is on disk, whole.
    Took {
        /// It.
        mark: Mark,
        /// Its sender takes no receipt.
        one_way: bool,
    },
    /// The receipt for a bundle made here was taken in.
    Confirmed(Made),
}

/// What the writing task is asked to do about bundles.
pub(super) enum Step {
    Begin(Reply<Begun>),
    Meet(Arrival, Reply<Arrived>),
    Note(Note, Option<Event>, Reply<()>),
}

impl Engine {
    /// Begins a bundle for the parent or a node below. `None`: it is no peer.
    ///
    /// # Errors
    /// The store cannot take it; nothing is begun.
    pub async fn begin_bundle(&self, division: Division) -> Result<Begun, EngineError> {
        self.ask(|reply| Command::Bundle(division, Box::new(Step::Begin(reply)))).await
    }

    /// Acts on a bundle's greeting, before anything else of it is taken in.
    ///
    /// # Errors
    /// The store cannot take it; nothing changed.
    pub async fn meet_bundle(&self, division: Division, arrival: Arrival) -> Result<Arrived, EngineError> {
        self.ask(|reply| Command::Bundle(division, Box::new(Step::Meet(arrival, reply)))).await
    }

    /// Notes something of a bundle, and of the audit log an entry with it.
    ///
    /// # Errors
    /// The store cannot take it; nothing changed.
    pub async fn note_bundle(
        &self,
        division: Division,
        note: Note,
        event: Option<Event>,
    ) -> Result<(), EngineError> {
        self.ask(|reply| Command::Bundle(division, Box::new(Step::Note(note, event, reply)))).await
    }
}

impl Task {
    pub(super) async fn bundle(&mut self, division: Division, step: Step) {
        // Other gateways may have changed what is remembered.
        self.doubt_others();
        match step {
            Step::Begin(reply) => drop(reply.send(abreast!(self, self.begin_bundle(division)))),
            Step::Meet(arrival, reply) => {
                drop(reply.send(abreast!(self, self.meet_bundle(division, &arrival))));
            }
            Step::Note(note, event, reply) => {
                drop(reply.send(abreast!(self, self.note_bundle(division, &note, event.as_ref()))));
            }
        }
    }

    /// The configured parent, or a child.
    fn bundle_peer(&self, division: Division) -> Option<PeerState> {
        let parent = self.shared.topology().parent().filter(|(_, parent)| *parent == division);
        let child = |p: &&PeerState| p.role == Role::Child && p.division == division;
        match parent {
            Some((id, _)) => self.peers.get(&id).cloned(),
            None => self.peers.values().find(child).cloned(),
        }
    }

    async fn begin_bundle(&mut self, division: Division) -> Result<Begun, EngineError> {
        let peer = self.bundle_peer(division).ok_or(EngineError::Elsewhere)?.id;
        let store = self.shared.store.clone();
        let mut standing = store.bundle_standing(division).await?;
        let (previous, after) = (standing.sent.map(|(mark, _)| mark), standing.sent_through);
        let through = store.newest_owed(peer).await?;
        let environment = self.shared.environment;
        let begun_ms = (environment.now_ms)();
        let mark = standing.begin(self.shared.epoch(), (environment.random)(), begun_ms);
        let change = BundleChange::Standing(Box::new(standing.clone()));
        self.commit(&Changes::default(), &[LinkChange::Bundle { division, change }]).await?;
        let (revision, clock) = (self.shared.revision(), self.writers.latest().0);
        Ok(Begun { peer, mark, previous, standing, after, through, begun_ms, revision, clock })
    }

    async fn meet_bundle(&mut self, division: Division, arrival: &Arrival) -> Result<Arrived, EngineError> {
        let Arrival { heard, made: remembered, rules, time_ms, key, receipts } = arrival;
        let (heard, time_ms) = (*heard, *time_ms);
        let store = self.shared.store.clone();
        let known = store.bundle_standing(division).await?;
        let number = heard.mark.number;
        let around = number.saturating_sub(MADE_MAX)..=number.saturating_add(1);
        let taken = store.bundles_taken(division, heard.mark.epoch, around).await?;
        let marks: Vec<Mark> = taken.iter().map(|t| t.mark).collect();
        let of = |number: Option<u64>| {
            let found = taken.iter().find(|t| Some(t.mark.number) == number);
            found.map(|t| Taken { mark: t.mark, previous: t.previous })
        };
        let made = match heard.seen {
            Some(seen) => store.bundle_made(division, seen.number).await?.map(|made| (made.mark, made.clock)),
            None => None,
        };
        let memory = Memory {
            own_epoch: self.shared.epoch(),
            made,
            taken: [of(number.checked_sub(1)), of(Some(number)), of(number.checked_add(1))],
            time_ms,
            strange_receipt: self
                .is_any_strange(division, &known, receipts.iter().chain(&heard.begun))
                .await?,
            forgotten: is_forgotten(heard.mark, remembered, &marks),
            knows_other_fields: self.knows_other_fields(division, rules),
            was_renewed: self.renewed_ms.is_some(),
            follows: remembered.iter().any(|made| made.epoch == known.peer_epoch),
        };
        let mut met = meet(&known, &heard, &memory);
        if met.sender == Sender::Restored && known.restored_epoch != heard.mark.epoch {
            let why = format!(
                "the store of {division} was put back or copied: it does not know a bundle of its own"
            );
            self.shared.alarm(format!("{why} (对方数据曾被恢复或复制)"));
        }
        met.standing.learn(key);
        let before = taken.iter().find(|t| t.mark == heard.mark).copied();
        let mut links = vec![BundleChange::Standing(Box::new(met.standing.clone()))];
        if before.is_none() && met.contents_count {
            let (mark, previous) = (heard.mark, heard.previous);
            links.push(BundleChange::Taking(TakenIn { mark, previous, ..TakenIn::default() }));
        }
        // The peer has what it says it took in, and the receipts that it carried.
        if !met.own_restored && met.sender != Sender::Past {
            let newest = known.seen.is_none_or(|(seen, _)| seen.number <= number);
            let number = heard.seen.map_or(0, |seen| seen.number);
            links.push(BundleChange::ReceiptsArrived { number, newest });
        }
        let plan = self.plan_of(division, &met, heard.mark.epoch);
        let peer = plan.peer.id;
        let scope = (plan.peer.role == Role::Child).then_some(division);
        let mut meeting = Meeting::of(plan, scope);
        meeting.also = links.into_iter().map(|change| LinkChange::Bundle { division, change }).collect();
        self.settle_meeting(meeting).await?;
        let repeated = before.is_some_and(|before| before.taken_ms > 0);
        Ok(Arrived { peer, met, batches: before.map_or(0, |before| before.batches), repeated })
    }

    /// Whether a child's program knows other fields than this one.
    fn knows_other_fields(&self, division: Division, rules: &v1::RuleTable) -> bool {
        let child = self.shared.topology().parent().is_none_or(|(_, parent)| parent != division);
        child && !Common::of(&self.shared.schema, rules).is_all()
    }

    /// Whether one of them is a bundle of this store's present life that this store does not know.
    async fn is_any_strange(
        &self,
        division: Division,
        known: &Standing,
        marks: impl Iterator<Item = &Mark>,
    ) -> Result<bool, EngineError> {
        let sent = known.sent.map_or(0, |(mark, _)| mark.number);
        for mark in marks.filter(|mark| mark.epoch == self.shared.epoch()) {
            let made = self.shared.store.bundle_made(division, mark.number).await?;
            let forgotten = mark.number <= sent.saturating_sub(MADE_MAX);
            if made.map_or(!forgotten, |made| made.mark != *mark) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// What a bundle means for the store, in the terms of a greeting over a line.
    fn plan_of(&self, division: Division, met: &Met, epoch: u64) -> Plan {
        let known = self.bundle_peer(division);
        let first_welcome = known.is_none();
        let new = || PeerState::new(self.next_peer(), Role::Child, division);
        let mut peer = known.unwrap_or_else(new);
        // Of a line there was once: its store is not the one that was greeted then.
        let another = met.sender == Sender::New && peer.epoch != 0 && peer.epoch != epoch;
        if met.may_bring_back && peer.role == Role::Child {
            peer.recovering_to = Some(self.own_store().recovering_to());
        }
        Plan {
            recognition: guantong_proto::v1::Recognition::Known,
            peer,
            renew_after: met.own_restored.then_some(Stamp(met.standing.clock)),
            recover: met.own_restored,
            backfill: first_welcome || another || met.backfill,
            first_welcome,
        }
    }

    async fn note_bundle(
        &mut self,
        division: Division,
        note: &Note,
        event: Option<&Event>,
    ) -> Result<(), EngineError> {
        let now_ms = (self.shared.environment.now_ms)();
        let mut standing = self.shared.store.bundle_standing(division).await?;
        let before = standing.clone();
        let mut links = Vec::new();
        match note {
            Note::Key(key) => standing.learn(key),
            Note::Made { made, seqs, through, receipts_until_ms } => {
                standing.sent_through = *through;
                let (seqs, receipts_until_ms) = (seqs.clone(), *receipts_until_ms);
                links.push(BundleChange::Made { made: *made, seqs, receipts_until_ms });
            }
            Note::Change(change) => links.push(change.clone()),
            Note::Took { mark, one_way } => {
                standing.took(*mark, now_ms);
                links.push(BundleChange::Took { mark: *mark, taken_ms: now_ms, one_way: *one_way });
            }
            Note::Confirmed(made) => {
                standing.confirm(made.mark.number, made.made_ms, now_ms);
                links.push(BundleChange::Confirmed { number: made.mark.number, whole: made.whole });
            }
        }
        if standing != before {
            links.push(BundleChange::Standing(Box::new(standing)));
        }
        let links: Vec<LinkChange> =
            links.into_iter().map(|change| LinkChange::Bundle { division, change }).collect();
        let audit = event.cloned().map(Into::into).into_iter().collect();
        self.commit(&Changes { audit, ..Changes::default() }, &links).await
    }
}
