//! One link, run: frames from the stream into the session, its requests to the engine and the store, its frames out.
//! The same driver serves both ends. It waits for everything at once, for nothing without a limit, and ends with a
//! Goodbye where it can.

use std::collections::HashMap;
use std::pin::Pin;
use std::time::Duration;

use futures_core::Stream;
use guantong_proto::v1;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_stream::StreamExt;
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tracing::Instrument;

mod claims;
mod dialling;
mod ending;
mod outbox;
mod proof;
mod questions;
mod steps;

pub use dialling::dial;
use ending::ended;

use super::links::{LinkKey, Links};
use super::trace;
use crate::comparing::Found;
use crate::division::Division;
use crate::engine::{Engine, EngineError, Greeted, LinkBatch, Wake};
use crate::ingest::changes::RecordKey;
use crate::ingest::topology::{PeerId, Role};
use crate::session::{End, Inbound, Output, Session};
use crate::step::Step;

/// Frames that may wait for the stream.
pub(super) const FRAMES_MAX: usize = 32;
/// Lanes, as `Wake` counts them.
const LANES: [v1::Lane; 3] = [v1::Lane::Urgent, v1::Lane::Normal, v1::Lane::Bulk];

/// How a link ended.
#[derive(Clone, Debug)]
pub struct LinkEnd {
    /// In plain words.
    pub reason: String,
    /// The other side does not want to be dialled before so many milliseconds.
    pub retry_after_ms: Option<u64>,
    /// The greeting had succeeded.
    pub was_up: bool,
}

/// Frames from the other side.
pub(super) type Frames = Pin<Box<dyn Stream<Item = Result<v1::Frame, Status>> + Send>>;

/// What the engine has done meanwhile.
enum Done {
    Ingested(u64, Result<Vec<v1::Refusal>, EngineError>),
    Stored(Result<(), EngineError>),
    /// A comparison's reads, records that it owes, and what it says, stored.
    Found(Found),
    Owed(Result<(), EngineError>),
    Proved(Result<(), EngineError>),
    /// Rows of the outbox that had all their receipts are deleted.
    Delivered(Vec<i64>, Result<(), EngineError>),
}

/// What a link waits for.
enum Event {
    Frame(Option<Result<v1::Frame, Status>>),
    Woken(Wake),
    Claims,
    Compare,
    Done(Result<Done, tokio::task::JoinError>),
    Said(questions::Said),
    Sent(bool),
    Timeout,
    Stop,
}

pub(super) struct Driver {
    pub(super) engine: Engine,
    pub(super) links: Links,
    pub(super) session: Session,
    pub(super) role: Role,
    pub(super) peer_division: Division,
    pub(super) address: String,
    pub(super) out: mpsc::Sender<v1::Frame>,
    pub(super) stop: CancellationToken,
    peer: Option<PeerId>,
    link: Option<LinkKey>,
    wake: Option<watch::Receiver<Wake>>,
    woken: Wake,
    /// Keys of the outbox rows under way: read, and not yet known to be deleted.
    rows: HashMap<i64, Vec<RecordKey>>,
    jobs: JoinSet<Done>,
    received_records: u64,
    /// A frame that found the stream full.
    waiting: Option<v1::Frame>,
    proving: Option<proof::Proving>,
    /// This store's random number at the greeting.
    epoch: Option<u64>,
    /// How often the store had gone back when the link began.
    setbacks: u64,
    claims: claims::Claims,
    /// The same moment, by two clocks: Unix milliseconds, and one that is never set.
    began: (tokio::time::Instant, u64),
    questions: questions::Questions,
}

impl Driver {
    #[allow(clippy::too_many_arguments)]
    pub(super) fn new(
        engine: Engine,
        links: Links,
        session: Session,
        role: Role,
        peer_division: Division,
        address: &str,
        out: mpsc::Sender<v1::Frame>,
        stop: CancellationToken,
    ) -> Driver {
        let (_, setbacks) = engine.shared().lineage();
        let began = (tokio::time::Instant::now(), (engine.shared().environment.now_ms)());
        Driver {
            engine,
            links,
            session,
            role,
            peer_division,
            address: address.into(),
            out,
            stop,
            peer: None,
            link: None,
            wake: None,
            woken: [0; 3],
            rows: HashMap::new(),
            jobs: JoinSet::new(),
            received_records: 0,
            waiting: None,
            proving: None,
            epoch: None,
            setbacks,
            claims: claims::Claims::default(),
            began,
            questions: questions::Questions::new(),
        }
    }

    /// The clock as it was when the link began, and what has passed since: a clock that is set back meanwhile must not
    /// make the session wait for it.
    fn now_ms(&self) -> u64 {
        let (began, began_ms) = self.began;
        began_ms.saturating_add(u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX))
    }

    /// Runs the link until it ends.
    pub(super) async fn run(mut self, mut frames: Frames) -> LinkEnd {
        let end = loop {
            if let Some(end) = self.pump().await {
                break end;
            }
            match self.next(&mut frames).await {
                Event::Frame(Some(Ok(frame))) => {
                    // A broken frame is the session's to answer: it says goodbye and ends.
                    let now_ms = self.now_ms();
                    let _ = self.session.handle_frame(now_ms, frame);
                }
                Event::Frame(Some(Err(status))) => break self.unreadable(&status).await,
                Event::Frame(None) => break ended("the other side closed the line"),
                Event::Woken(woken) => self.woken(woken),
                Event::Done(done) => self.done(done),
                Event::Said(said) => self.say(said),
                Event::Compare => self.compare_now(),
                // Pumping says them.
                Event::Claims | Event::Sent(true) => {}
                Event::Sent(false) => break ended("the line does not take frames any more"),
                Event::Timeout => self.session.handle_timeout(self.now_ms()),
                Event::Stop => self.shut_down(),
            }
        };
        let was_up = self.link.is_some();
        if let Some(link) = self.link {
            self.links.down(link, &end.detail);
            self.note_end(&end);
        }
        self.last_words(frames).await;
        let retry_after_ms = (end.retry_after_ms > 0).then_some(u64::from(end.retry_after_ms));
        tracing::info!(peer = %self.peer_division, reason = %end.detail, "link ended");
        LinkEnd { reason: end.detail, retry_after_ms, was_up }
    }

    /// Waits for whatever comes first.
    async fn next(&mut self, frames: &mut Frames) -> Event {
        let now_ms = self.now_ms();
        let timeout_ms = self.session.next_timeout().into_iter().chain(self.next_proving(now_ms)).min();
        let timeout = timeout_ms.map(|at| Duration::from_millis(at.saturating_sub(now_ms)));
        let timer = tokio::time::sleep(timeout.unwrap_or(Duration::from_secs(3_600)));
        let has_waiting = self.waiting.is_some();
        let takes_answers = self.session.takes_answers();
        let waiting = &mut self.waiting;
        let out = &self.out;
        let send = async {
            let permit = out.reserve().await;
            match (permit, waiting.take()) {
                (Ok(permit), Some(frame)) => {
                    let step = steps::of(&frame);
                    permit.send(frame);
                    step.into_iter().for_each(Step::reached);
                    true
                }
                _ => false,
            }
        };
        tokio::select! {
            frame = frames.next() => Event::Frame(frame),
            woken = changed(&mut self.wake) => Event::Woken(woken),
            () = self.claims.changed() => Event::Claims,
            () = proof::asked(&mut self.proving) => Event::Compare,
            Some(done) = self.jobs.join_next() => Event::Done(done),
            said = self.questions.next(takes_answers) => Event::Said(said),
            sent = send, if has_waiting => Event::Sent(sent),
            () = timer => Event::Timeout,
            () = self.stop.cancelled() => Event::Stop,
        }
    }

    fn shut_down(&mut self) {
        let (reason, detail) = match self.link {
            Some(_) if self.links.replaced(self.link) => {
                (v1::GoodbyeReason::Replaced, "a newer link of the same node took over")
            }
            _ => (v1::GoodbyeReason::Shutdown, "the node stops"),
        };
        self.session.shutdown(self.now_ms(), reason, detail, 1_000);
        // Cancelled for good: from now on only the session's own limits end the link.
        self.stop = CancellationToken::new();
    }

    fn woken(&mut self, now: Wake) {
        for (i, lane) in LANES.into_iter().enumerate() {
            if now[i] != self.woken[i] {
                self.session.notify(lane);
            }
        }
        self.woken = now;
    }

    fn done(&mut self, done: Result<Done, tokio::task::JoinError>) {
        let failed = match done {
            Ok(Done::Ingested(batch_id, Ok(refusals))) => {
                Step::BatchIngested.reached();
                self.session.set_revision(self.engine.shared().revision());
                self.count_stripped(&refusals);
                self.session.ingested(batch_id, refusals);
                None
            }
            Ok(Done::Stored(Ok(()))) => None,
            Ok(Done::Found(found)) => {
                self.found(found);
                None
            }
            Ok(Done::Owed(Ok(()))) => {
                self.owed();
                None
            }
            Ok(Done::Proved(Ok(()))) => {
                self.proved();
                None
            }
            Ok(Done::Delivered(seqs, Ok(()))) => {
                Step::RowsDeleted.reached();
                seqs.iter().for_each(|seq| drop(self.rows.remove(seq)));
                None
            }
            Ok(
                Done::Ingested(_, Err(error))
                | Done::Stored(Err(error))
                | Done::Owed(Err(error))
                | Done::Proved(Err(error))
                | Done::Delivered(_, Err(error)),
            ) => Some(error.to_string()),
            Err(_) => Some("a task of the link failed".into()),
        };
        if let Some(detail) = failed {
            // Nothing was lost: without a receipt the other side keeps what it sent.
            self.session.shutdown(self.now_ms(), v1::GoodbyeReason::Busy, &detail, 5_000);
        }
    }

    /// Fields that this tier may not hold were left out; the receipt tells the peer.
    fn count_stripped(&self, refusals: &[v1::Refusal]) {
        let stripped = [v1::RefusalReason::NotReleased, v1::RefusalReason::Sealed];
        let count = refusals.iter().filter(|refusal| stripped.contains(&refusal.reason())).count();
        if let Some(link) = self.link.filter(|_| count > 0) {
            self.links.stripped(link, count as u64);
        }
    }

    /// Does everything that can be done without waiting for the other side. `Some`: the link is over. While the stream
    /// is full, frames wait and everything else goes on, so that two full streams never wait for each other.
    pub(super) async fn pump(&mut self) -> Option<End> {
        loop {
            self.say_claims();
            let shared = self.engine.shared();
            self.session.set_revision(shared.revision());
            if self.epoch.is_some() && self.peer.is_some_and(|peer| shared.is_elsewhere(peer)) {
                let detail = "the node is linked to another gateway of this store now";
                self.epoch = None;
                self.session.shutdown(self.now_ms(), v1::GoodbyeReason::Replaced, detail, 1_000);
            }
            if self.epoch.is_some_and(|epoch| (epoch, self.setbacks) != shared.lineage()) {
                let detail = "this store was found to be restored; greet again";
                self.epoch = None;
                self.session.shutdown(self.now_ms(), v1::GoodbyeReason::Busy, detail, 0);
            }
            if let Some(output) = self.session.poll_event() {
                if let Some(end) = self.output(output).await {
                    return Some(end);
                }
            } else if let Some(want) = self.session.wants() {
                if let Err(error) = self.read_outbox(want).await {
                    self.session.shutdown(self.now_ms(), v1::GoodbyeReason::Busy, &error.to_string(), 5_000);
                }
            } else if !self.prove_step() && !self.send_frame() {
                return None;
            }
        }
    }

    /// Gives the next frame to the stream. False: there is none, or the stream is full.
    fn send_frame(&mut self) -> bool {
        if self.waiting.is_none() {
            self.waiting = self.session.poll_frame(self.now_ms());
        }
        let Some(frame) = self.waiting.take() else { return false };
        let step = steps::of(&frame);
        match self.out.try_send(frame) {
            Ok(()) => {
                step.into_iter().for_each(Step::reached);
                true
            }
            Err(mpsc::error::TrySendError::Full(frame)) => {
                self.waiting = Some(frame);
                false
            }
            // The reader's side ends the link.
            Err(mpsc::error::TrySendError::Closed(_)) => false,
        }
    }

    async fn output(&mut self, output: Output) -> Option<End> {
        match output {
            Output::Send(frame) => self.waiting = Some(frame),
            Output::Greeted(hello) => return self.greeted(hello).await,
            Output::Welcomed(welcome) => return self.welcomed(welcome).await,
            Output::TokenConfirmed => {
                let (engine, peer) = (self.engine.clone(), self.peer?);
                self.jobs.spawn(async move { Done::Stored(engine.token_confirmed(peer).await) });
            }
            Output::Ingest(inbound) => self.ingest(inbound),
            Output::Delivered { seqs, refusals } => self.delivered(seqs, refusals),
            Output::Drained => {}
            Output::PeerChecksum(checksum) => self.peer_checksum(checksum),
            Output::PeerProbe(probe) => self.peer_probe(probe),
            Output::PeerFinding(finding) => self.peer_finding(finding),
            Output::PeerClaim(claim) => self.peer_claims(&claim),
            Output::PeerAsks(ask) => self.peer_asks(ask),
            Output::PeerAnswers(answer) => self.peer_answers(answer),
            Output::End(end) => return Some(end),
        }
        None
    }

    async fn greeted(&mut self, hello: v1::Hello) -> Option<End> {
        Step::HelloReceived.reached();
        match self.engine.welcome(self.peer_division, hello.clone()).await {
            Ok(greeted) => {
                Step::ChildGreeted.reached();
                let Some(token) = greeted.token else { return Some(ended("the engine gave no token")) };
                self.up(&greeted, &hello.software_version, hello.clock_ms, hello.rules.clone());
                self.session.welcome(self.now_ms(), greeted.epoch, greeted.recognition, token);
                None
            }
            Err(error) => self.turn_away(&error),
        }
    }

    async fn welcomed(&mut self, welcome: v1::Welcome) -> Option<End> {
        Step::WelcomeReceived.reached();
        match self.engine.welcomed(welcome.clone()).await {
            Ok(greeted) => {
                Step::TokenStored.reached();
                self.up(&greeted, &welcome.software_version, welcome.clock_ms, welcome.rules.clone());
                self.session.token_stored(greeted.epoch);
                None
            }
            Err(error) => self.turn_away(&error),
        }
    }

    /// The greeting cannot be stored: the other side is told why, and when to come again.
    fn turn_away(&mut self, error: &EngineError) -> Option<End> {
        self.session.shutdown(self.now_ms(), v1::GoodbyeReason::Busy, &error.to_string(), 5_000);
        None
    }

    fn up(&mut self, greeted: &Greeted, version: &str, clock_ms: i64, rules: Option<v1::RuleTable>) {
        let link = self.links.up(self.role, self.peer_division, &self.address, &self.stop);
        self.links.greeted(link, version, clock_ms - self.now_ms() as i64);
        self.link = Some(link);
        self.peer = Some(greeted.peer.id);
        self.epoch = Some(greeted.epoch);
        // Registered before the outbox is read for the first time, so that nothing is missed.
        let wake = self.engine.shared().wake(greeted.peer.id);
        self.woken = *wake.borrow();
        self.wake = Some(wake);
        self.begin_claims();
        self.begin_questions(link);
        self.begin_proving(greeted.peer.id, rules);
        tracing::info!(peer = %self.peer_division, recognition = greeted.recognition.as_str_name(), "linked");
    }

    fn ingest(&mut self, inbound: Inbound) {
        let Some(peer) = self.peer else { return };
        Step::BatchReceived.reached();
        self.received_records += inbound.records.len() as u64;
        self.report();
        let traceparents = inbound.records.iter().filter_map(|r| r.traceparent.as_deref());
        let span = trace::batch_span("ingest", self.peer_division, inbound.records.len(), traceparents);
        let batch = LinkBatch {
            peer,
            same_epoch: inbound.same_epoch,
            bulk: inbound.lane == v1::Lane::Bulk,
            peer_revision: self.session.peer_revision(),
            records: inbound.records,
        };
        let engine = self.engine.clone();
        let done = async move { Done::Ingested(inbound.batch_id, engine.ingest(batch).await) };
        self.jobs.spawn(done.instrument(span));
    }

    fn delivered(&mut self, seqs: Vec<i64>, refusals: Vec<v1::Refusal>) {
        let Some(peer) = self.peer else { return };
        Step::ReceiptReceived.reached();
        let keys = seqs.iter().filter_map(|seq| self.rows.get(seq)).flatten().copied().collect();
        let (engine, revision) = (self.engine.clone(), self.session.peer_revision());
        self.jobs.spawn(async move {
            let done = engine.delivered(peer, seqs.clone(), keys, refusals, revision).await;
            Done::Delivered(seqs, done)
        });
        self.report();
    }

    fn report(&self) {
        if let Some(link) = self.link {
            self.links.carried(link, self.session.stats().sent_records, self.received_records);
        }
    }
}

/// Waits until something new is owed; for ever, while the peer is not known.
async fn changed(wake: &mut Option<watch::Receiver<Wake>>) -> Wake {
    if let Some(wake) = wake
        && wake.changed().await.is_ok()
    {
        return *wake.borrow_and_update();
    }
    std::future::pending().await
}
