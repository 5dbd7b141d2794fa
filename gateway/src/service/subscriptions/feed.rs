//! One reader, served: rows of the subscription's outbox become batches until the reader goes, is replaced, or may no
//! longer read. Rows stay in the outbox until they are acknowledged; whoever reads next begins with them.
//!
//! It must never send what the grant of that moment does not cover, nor more than the reader acknowledges.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use guantong_proto::rules::Lane;
use guantong_proto::v1;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::{Extensions, Status};

use super::batches::{self, Batch};
use super::lens::Lens;
use super::readers::{Ending, Reader, Readers};
use super::window::BatchId;
use crate::engine::{Engine, EngineError, Wake};
use crate::ingest::changes::Subscription;
use crate::service::{caller, status, view};

/// Records read at a time; a row of the outbox may hold a few more.
const READ_KEYS: usize = 500;
/// How often a waiting reader's grant is looked at.
const LOOK: Duration = Duration::from_secs(1);
/// How often the outbox is looked at although nobody said that there is something: another process may write to the
/// same database.
const READ_EVERY: Duration = Duration::from_secs(5);
/// A reader that has caught up is told so again after this time.
const CAUGHT_UP_EVERY: Duration = Duration::from_secs(30);
/// A reader with a full window that acknowledges nothing for so long is sent away.
const STALLED_AFTER: Duration = Duration::from_secs(600);
/// How long a reader has time to take the reason why it must end.
const LAST_WORD: Duration = Duration::from_secs(10);
/// Among so many reads one begins with the least urgent lane, so that none waits for ever.
const TURNS: u64 = 8;

pub(super) struct Feed {
    pub(super) engine: Engine,
    pub(super) readers: Readers,
    pub(super) reader: Arc<Reader>,
    pub(super) subscription: Subscription,
    /// Whose grant is looked at.
    pub(super) caller: Extensions,
    pub(super) lens: Lens,
    pub(super) out: mpsc::Sender<Result<v1::ChangeBatch, Status>>,
    pub(super) stop: CancellationToken,
    pub(super) state: State,
}

/// How far a feed has come.
pub(super) struct State {
    pending: VecDeque<Batch>,
    next: BatchId,
    turn: u64,
    /// When the outbox was read last, Unix milliseconds.
    read_ms: u64,
    /// When it is read next.
    due: Instant,
    /// Everything was sent, and the reader was told so then.
    told: Option<Instant>,
    /// Something was sent or acknowledged, or there was something to send again.
    moved: Instant,
}

impl State {
    pub(super) fn new() -> State {
        let (pending, now) = (VecDeque::new(), Instant::now());
        State { pending, next: 1, turn: 0, read_ms: 0, due: now, told: None, moved: now }
    }

    /// Takes what is to be sent now; there was nothing before. However long that was, the reader is not to blame.
    fn hold(&mut self, batches: Vec<Batch>, now: Instant) {
        self.pending.extend(batches);
        self.moved = now;
        self.due = now;
    }

    /// Whether the reader keeps something waiting that it could have had long ago.
    fn is_stalled(&self, now: Instant) -> bool {
        !self.pending.is_empty() && now.duration_since(self.moved) > STALLED_AFTER
    }
}

/// What a feed waits for.
enum Event {
    Room(bool),
    Acknowledged,
    Woken,
    Look,
    Ended(Status),
}

impl Feed {
    /// Serves the reader until its end.
    pub(super) async fn run(mut self) {
        // Registered before the outbox is read, so that nothing is missed.
        let mut wake = self.engine.shared().wake(self.subscription.peer);
        let ended = loop {
            if let Err(end) = self.step(&mut wake).await {
                break end;
            }
        };
        self.readers.gone(&self.subscription.id, &self.reader);
        // The reader may be gone, or read slowly.
        let _ = tokio::time::timeout(LAST_WORD, self.out.send(Err(ended))).await;
    }

    async fn step(&mut self, wake: &mut watch::Receiver<Wake>) -> Result<(), Status> {
        self.check()?;
        if self.state.pending.is_empty() && self.state.due <= Instant::now() {
            self.state.due = Instant::now() + READ_EVERY;
            self.read().await?;
        }
        let sends = match self.state.pending.is_empty() {
            true => self.state.told.is_none_or(|told| told.elapsed() >= CAUGHT_UP_EVERY),
            false => self.reader.window().has_room(),
        };
        if self.state.is_stalled(Instant::now()) {
            return Err(status::not_now(
                "nothing was acknowledged for ten minutes; acknowledge batches, or read again when you can \
                 (长时间未确认)",
                "STALLED",
            ));
        }
        match self.wait(wake, sends).await {
            Event::Room(true) => {
                // The grant may have changed while the reader was waited for.
                self.check()?;
                self.send();
                Ok(())
            }
            Event::Woken => {
                self.state.due = Instant::now();
                Ok(())
            }
            Event::Acknowledged => {
                self.state.moved = Instant::now();
                Ok(())
            }
            Event::Room(false) | Event::Look => Ok(()),
            Event::Ended(end) => Err(end),
        }
    }

    /// Whether the reader may still see what it may have seen until now.
    fn check(&self) -> Result<(), Status> {
        let shared = self.engine.shared();
        if shared.topology().interest(self.subscription.peer) != Some(&self.subscription.interest) {
            // Another gateway of this store deleted it; its number may be another's by now.
            return Err(self.no_more());
        }
        let grant = caller::granted(shared, &self.caller)?;
        let lens = Lens::new(&grant, self.subscription.personal);
        if !lens.sees_records() {
            return Err(status::not_allowed(super::NO_RECORDS));
        }
        if lens != self.lens {
            return Err(status::stale("the grant was changed; read again (授权已变更，请重新读取)"));
        }
        Ok(())
    }

    fn no_more(&self) -> Status {
        status::not_found(&format!("subscriptions/{}", self.subscription.id))
    }

    async fn wait(&self, wake: &mut watch::Receiver<Wake>, sends: bool) -> Event {
        let idle = self.state.pending.is_empty();
        tokio::select! {
            biased;
            why = self.reader.ended() => Event::Ended(match why {
                Ending::Replaced => status::not_now(
                    "another reader has taken over this subscription; two cannot share one: give each its own \
                     (该订阅已被另一读取端接管)",
                    "READER_REPLACED",
                ),
                Ending::Deleted => self.no_more(),
            }),
            () = self.stop.cancelled() => Event::Ended(status::unfinished(&EngineError::Stopped)),
            () = self.out.closed() => Event::Ended(status::unfinished(&EngineError::Stopped)),
            room = self.out.reserve(), if sends => Event::Room(room.is_ok()),
            _ = wake.changed(), if idle => Event::Woken,
            () = self.reader.acknowledged.notified(), if !idle && !sends => Event::Acknowledged,
            () = tokio::time::sleep(LOOK) => Event::Look,
        }
    }

    /// Reads what is owed next, the most urgent first.
    async fn read(&mut self) -> Result<(), Status> {
        self.state.turn += 1;
        self.state.read_ms = (self.engine.shared().environment.now_ms)();
        let mut lanes = [Lane::Urgent, Lane::Normal, Lane::Bulk];
        if self.state.turn.is_multiple_of(TURNS) {
            lanes.reverse();
        }
        for lane in lanes {
            loop {
                let shared = self.engine.shared();
                let peer = self.subscription.peer;
                let under_way = self.reader.window().under_way();
                let owed = shared.store.owed(peer, lane, &under_way, READ_KEYS).await;
                let owed = owed.map_err(|error| status::of_store(&error))?;
                if owed.rows.is_empty() {
                    break;
                }
                let (batches, unseen) = batches::cut(shared, &self.lens, &self.subscription, &owed);
                if !unseen.is_empty() {
                    let done = self.engine.delivered(peer, unseen, Vec::new(), Vec::new(), 0).await;
                    done.map_err(|error| status::unfinished(&error))?;
                }
                if !batches.is_empty() {
                    self.expect(&batches);
                    self.state.hold(batches, Instant::now());
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// A row that is spread over several batches is not whole before all of them are acknowledged.
    fn expect(&self, batches: &[Batch]) {
        let mut window = self.reader.window();
        for (at, batch) in batches.iter().enumerate() {
            window.expect(self.state.next + at as BatchId, &batch.rows);
        }
    }

    /// Sends the next batch, or says that there is none. There is room for it.
    fn send(&mut self) {
        let read_time = Some(view::timestamp(self.state.read_ms));
        let mut message = v1::ChangeBatch { read_time, ..v1::ChangeBatch::default() };
        match self.state.pending.pop_front() {
            Some(batch) => {
                let id = self.state.next;
                self.state.next += 1;
                self.reader.window().sent(id, batch.bytes, batch.rows);
                message.ack_id = self.reader.ack_id(id);
                message.changes = batch.changes;
                self.state.told = None;
                self.state.moved = Instant::now();
            }
            None => {
                message.caught_up = true;
                self.state.told = Some(Instant::now());
            }
        }
        // There was room, and nobody else sends.
        let _ = self.out.try_send(Ok(message));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_stalls_while_something_waits_for_it_and_not_while_nothing_happens() {
        let mut state = State::new();
        let quiet = state.moved + 3 * STALLED_AFTER;
        assert!(!state.is_stalled(quiet), "there was nothing to read");
        state.hold(vec![Batch::default()], quiet);
        assert!(!state.is_stalled(quiet + STALLED_AFTER), "the time begins with what there is to read");
        assert!(state.is_stalled(quiet + STALLED_AFTER + Duration::from_millis(1)));
    }
}
