//! Reads a feed into a sink: batches are written, committed, and only then acknowledged. Trouble that may pass is tried
//! again without end; where a person must do something it ends.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::anyhow;
use guantong_gateway::division::Division;
use guantong_proto::rules::Kind;
use guantong_proto::v1;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status, Streaming};
use tonic_types::StatusExt as _;

use crate::cli::connection::NodeArgs;
use crate::cli::problem;
use crate::client::{Client, ConnectError};
use crate::links::retry::Retry;
use crate::subscribe::{Sink, SinkError, Target};

/// Batches that share a commit; the node lets eight be under way.
const COMMIT_BATCHES: usize = 6;
/// How long a batch waits for others before it is committed.
const COMMIT_AFTER: Duration = Duration::from_millis(200);
/// The same where every commit is a file of its own.
const FILE_AFTER: Duration = Duration::from_secs(5);
/// A node with nothing to send says so every half minute.
const SILENCE_MAX: Duration = Duration::from_secs(120);
/// For calls beside the feed.
const CALL_TIME: Duration = Duration::from_secs(30);

/// What happens, for whoever looks on.
pub(super) enum Event<'a> {
    /// The subscription was made.
    Created,
    /// Everything was asked for anew.
    Everything,
    /// Changes are on disk and acknowledged.
    Written {
        /// Since the start.
        changes: u64,
    },
    /// Nothing is owed.
    CaughtUp {
        /// Something was written since the last time.
        changed: bool,
    },
    /// Trouble that may pass.
    Waiting {
        /// In plain words.
        why: &'a str,
        /// Until the next attempt.
        wait: Duration,
    },
}

/// How it went.
#[derive(Clone, Debug, Default)]
pub(super) struct Summary {
    pub(super) changes: u64,
    /// Everything that changed before then was written.
    pub(super) caught_up_time: Option<prost_types::Timestamp>,
}

/// What is followed, and where to.
pub(super) struct Follow {
    pub(super) name: String,
    pub(super) target: Target,
    pub(super) kinds: Vec<&'static Kind>,
    pub(super) scope: Option<Division>,
    pub(super) personal_data: bool,
    pub(super) once: bool,
    pub(super) node: NodeArgs,
    pub(super) stop: CancellationToken,
}

/// Why an attempt ended.
enum Trouble {
    /// A person must do something.
    Final(anyhow::Error),
    /// It may pass.
    Passing(String, Option<Duration>),
}

impl From<SinkError> for Trouble {
    fn from(error: SinkError) -> Trouble {
        match error {
            SinkError::Refused(text) => Trouble::Final(anyhow!(text)),
            SinkError::Unavailable(text) => Trouble::Passing(text, None),
        }
    }
}

impl From<Status> for Trouble {
    fn from(status: Status) -> Trouble {
        let details = status.get_error_details();
        let reason = details.error_info().map(|info| info.reason.clone()).unwrap_or_default();
        let passes = match status.code() {
            Code::Unavailable | Code::Unknown | Code::Cancelled | Code::Aborted => true,
            Code::ResourceExhausted | Code::DeadlineExceeded | Code::Internal => true,
            Code::FailedPrecondition => matches!(reason.as_str(), "STALLED" | "NOT_UNDER_WAY"),
            _ => false,
        };
        let after = details.retry_info().and_then(|info| info.retry_delay);
        let words = problem::plain(status);
        if passes { Trouble::Passing(words.to_string(), after) } else { Trouble::Final(words) }
    }
}

/// A feed that is open.
struct Open {
    client: Client,
    sink: Sink,
    batches: Streaming<v1::ChangeBatch>,
    /// Written, and not committed.
    pending: Vec<String>,
    pending_changes: u64,
    /// Everything until then was sent, and is not committed.
    caught_up: Option<prost_types::Timestamp>,
    /// When to commit what is not yet; `None`: there is nothing.
    due: Option<Instant>,
    changed: bool,
}

impl Follow {
    /// Follows until it is told to stop, or `once` and nothing is owed.
    pub(super) async fn run(self, mut tell: impl FnMut(Event<'_>)) -> anyhow::Result<Summary> {
        let mut retry = Retry::default();
        let mut summary = Summary::default();
        loop {
            let before = summary.changes;
            let trouble = match self.attempt(&mut summary, &mut tell).await {
                Ok(()) => return Ok(summary),
                Err(Trouble::Final(error)) => return Err(error),
                Err(Trouble::Passing(why, _)) if self.once => return Err(anyhow!(why)),
                Err(Trouble::Passing(why, after)) => (why, after),
            };
            if self.stop.is_cancelled() {
                return Ok(summary);
            }
            if summary.changes > before {
                retry.reset();
            }
            let wait = retry.wait(trouble.1);
            tell(Event::Waiting { why: &trouble.0, wait });
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = self.stop.cancelled() => return Ok(summary),
            }
        }
    }

    async fn attempt(&self, summary: &mut Summary, tell: &mut impl FnMut(Event<'_>)) -> Result<(), Trouble> {
        let opened = tokio::select! {
            opened = self.open(tell) => opened?,
            () = self.stop.cancelled() => return Ok(()),
        };
        let mut open = opened;
        let followed = self.follow(&mut open, summary, tell).await;
        open.sink.close().await;
        followed
    }

    async fn follow(
        &self,
        open: &mut Open,
        summary: &mut Summary,
        tell: &mut impl FnMut(Event<'_>),
    ) -> Result<(), Trouble> {
        loop {
            let until = open.due.unwrap_or_else(|| Instant::now() + SILENCE_MAX);
            let message = tokio::select! {
                message = tokio::time::timeout_at(until, open.batches.message()) => message,
                () = self.stop.cancelled() => return self.commit(open, summary, true, tell).await,
            };
            let batch = match message {
                Ok(Ok(Some(batch))) => batch,
                Ok(Ok(None)) => return Err(passing("the node ended the feed (节点结束了订阅)")),
                Ok(Err(status)) => return Err(status.into()),
                Err(_) if open.due.is_none() => {
                    return Err(passing("the node has said nothing for two minutes (节点无响应)"));
                }
                Err(_) => {
                    self.commit(open, summary, false, tell).await?;
                    continue;
                }
            };
            if !batch.changes.is_empty() {
                open.sink.write(&batch.changes, now_us()).await?;
                open.pending_changes += batch.changes.len() as u64;
            }
            if !batch.ack_id.is_empty() {
                open.pending.push(batch.ack_id);
            }
            if batch.caught_up {
                open.caught_up = batch.read_time;
            }
            let wait = self.patience(batch.caught_up);
            open.due.get_or_insert_with(|| Instant::now() + wait);
            let once = self.once && batch.caught_up;
            if once || open.pending.len() >= COMMIT_BATCHES {
                self.commit(open, summary, once, tell).await?;
            }
            if once {
                return Ok(());
            }
        }
    }

    /// How long something waits for more before it is committed.
    fn patience(&self, caught_up: bool) -> Duration {
        match self.target {
            Target::Parquet(_) => FILE_AFTER,
            _ if caught_up => Duration::ZERO,
            _ => COMMIT_AFTER,
        }
    }

    /// Puts on disk what was written, and only then acknowledges it.
    async fn commit(
        &self,
        open: &mut Open,
        summary: &mut Summary,
        last: bool,
        tell: &mut impl FnMut(Event<'_>),
    ) -> Result<(), Trouble> {
        open.due = None;
        let caught_up = open.caught_up.take();
        open.sink.commit(caught_up, now_us(), last).await?;
        let mut client = open.client.subscriptions();
        for ack_id in std::mem::take(&mut open.pending) {
            let request = v1::AcknowledgeChangesRequest { name: self.resource(), ack_id };
            let asked = tokio::time::timeout(CALL_TIME, client.acknowledge_changes(request)).await;
            asked.map_err(|_| passing("the node does not answer (节点无响应)"))??;
        }
        let changes = std::mem::take(&mut open.pending_changes);
        summary.changes += changes;
        open.changed |= changes > 0;
        if caught_up.is_some() {
            summary.caught_up_time = caught_up;
        }
        if changes > 0 {
            tell(Event::Written { changes: summary.changes });
        }
        if caught_up.is_some() {
            tell(Event::CaughtUp { changed: std::mem::take(&mut open.changed) });
        }
        Ok(())
    }

    async fn open(&self, tell: &mut impl FnMut(Event<'_>)) -> Result<Open, Trouble> {
        let client = self.node.connect().await.map_err(of_connecting)?;
        let made = self.ensure(&client).await?;
        if made {
            tell(Event::Created);
        }
        let (sink, lacks) = Sink::open(&self.target, &self.name, &self.kinds).await?;
        let everything = lacks && !made;
        if everything {
            tell(Event::Everything);
        }
        let request = v1::ReadChangesRequest { name: self.resource(), everything };
        let mut feeds = client.subscriptions();
        let asked = tokio::time::timeout(CALL_TIME, feeds.read_changes(request)).await;
        let batches = asked.map_err(|_| passing("the node does not answer (节点无响应)"))??.into_inner();
        Ok(Open {
            client,
            sink,
            batches,
            pending: Vec::new(),
            pending_changes: 0,
            caught_up: None,
            due: None,
            changed: false,
        })
    }

    fn resource(&self) -> String {
        format!("subscriptions/{}", self.name)
    }

    /// Makes the subscription where it is missing; says whether it did. One that covers something else is refused.
    async fn ensure(&self, client: &Client) -> Result<bool, Trouble> {
        let mut client = client.subscriptions();
        let request = v1::GetSubscriptionRequest { name: self.resource() };
        match tokio::time::timeout(CALL_TIME, client.get_subscription(request)).await {
            Ok(Ok(found)) => return self.check(&found.into_inner()).map(|()| false),
            Ok(Err(status)) if status.code() == Code::NotFound => {}
            Ok(Err(status)) => return Err(status.into()),
            Err(_) => return Err(passing("the node does not answer (节点无响应)")),
        }
        let subscription = v1::Subscription {
            kinds: self.kinds.iter().map(|kind| kind.name.to_owned()).collect(),
            scope: self.scope.map(|scope| scope.to_string()).unwrap_or_default(),
            personal_data: self.personal_data,
            ..v1::Subscription::default()
        };
        let request = v1::CreateSubscriptionRequest {
            subscription_id: self.name.clone(),
            subscription: Some(subscription),
        };
        client.create_subscription(request).await?;
        Ok(true)
    }

    fn check(&self, found: &v1::Subscription) -> Result<(), Trouble> {
        let mut wanted: Vec<&str> = self.kinds.iter().map(|kind| kind.name).collect();
        let mut kinds: Vec<&str> = found.kinds.iter().map(String::as_str).collect();
        wanted.sort_unstable();
        wanted.dedup();
        kinds.sort_unstable();
        let scope_fits = self.scope.is_none_or(|scope| scope.to_string() == found.scope);
        if wanted == kinds && scope_fits && self.personal_data == found.personal_data {
            return Ok(());
        }
        let all = |kinds: &[&str]| if kinds.is_empty() { "all".to_owned() } else { kinds.join(",") };
        Err(Trouble::Final(anyhow!(
            "the subscription {} covers other records (kinds {}, scope {}, personal data {}); name it as it was made, \
             use another name, or delete it with `guantong subscriptions delete` (订阅内容不符)",
            self.name,
            all(&kinds),
            found.scope,
            found.personal_data
        )))
    }
}

fn passing(text: &str) -> Trouble {
    Trouble::Passing(text.to_owned(), None)
}

/// A line that is down comes back; a certificate that is wrong does not become right.
fn of_connecting(error: anyhow::Error) -> Trouble {
    match error.downcast_ref::<ConnectError>() {
        Some(ConnectError::NoNode(_) | ConnectError::Socket { .. } | ConnectError::Dial(_)) => {
            Trouble::Passing(format!("{error:#}"), None)
        }
        _ => Trouble::Final(error),
    }
}

/// Microseconds of Unix time.
fn now_us() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}
