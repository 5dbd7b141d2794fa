//! `SubscriptionService`: durable feeds of records. A subscription is a peer like any other: what it is owed stands in
//! its outbox, and goes when it is acknowledged and not before.
//!
//! A subscription belongs to the partner who made it, or to the operators together. Others do not see it; operators see
//! all of them and may delete them, but read only their own.

use std::pin::Pin;

use futures_core::Stream;
use guantong_proto::v1;
use guantong_proto::v1::subscription_service_server::SubscriptionService;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Extensions, Request, Response, Status};

use super::{caller, page, status, view};
use crate::engine::{Engine, NewSubscription};
use crate::grant::Grant;
use crate::ingest::changes::Subscription;
use crate::ingest::topology::Interest;
use crate::schema::KindId;
use feed::{Feed, State};
use lens::Lens;
use readers::Readers;

mod batches;
mod feed;
mod lens;
mod readers;
mod window;

/// Longest id of a subscription.
const ID_MAX: usize = 63;
const NO_RECORDS: &str = "the grant is for aggregates only; no record can be read with it";

pub(super) struct Subscriptions {
    engine: Engine,
    readers: Readers,
    stop: CancellationToken,
}

/// Who calls, as subscriptions know owners.
fn owner(extensions: &Extensions) -> Option<String> {
    caller::partner(extensions).map(str::to_owned)
}

/// The last part of `subscriptions/{id}`.
fn id_of(name: &str) -> Result<&str, Status> {
    let form = "name: write subscriptions/{subscription}";
    name.strip_prefix("subscriptions/").filter(|id| is_id(id)).ok_or_else(|| status::invalid("name", form))
}

fn is_id(id: &str) -> bool {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    id.len() <= ID_MAX && id.starts_with(|c: char| c.is_ascii_lowercase()) && id.chars().all(allowed)
}

impl Subscriptions {
    pub(super) fn new(engine: Engine, stop: CancellationToken) -> Subscriptions {
        Subscriptions { engine, readers: Readers::default(), stop }
    }

    /// Subscriptions that the caller sees, by id.
    async fn visible(&self, extensions: &Extensions) -> Result<Vec<Subscription>, Status> {
        caller::granted(self.engine.shared(), extensions)?;
        let partner = owner(extensions);
        let mut all =
            self.engine.shared().store.subscriptions().await.map_err(|error| status::of_store(&error))?;
        all.retain(|subscription| partner.is_none() || subscription.owner == partner);
        Ok(all)
    }

    async fn find(&self, extensions: &Extensions, name: &str) -> Result<Subscription, Status> {
        let id = id_of(name)?;
        let found = self.visible(extensions).await?.into_iter().find(|s| s.id == id);
        found.ok_or_else(|| status::not_found(name))
    }

    async fn view(&self, subscription: &Subscription) -> Result<v1::Subscription, Status> {
        let shared = self.engine.shared();
        let backlog = shared.store.backlog(subscription.peer).await;
        let backlog = backlog.map_err(|error| status::of_store(&error))?;
        let lanes = [backlog.urgent, backlog.normal, backlog.bulk];
        let oldest = lanes.iter().filter_map(|lane| lane.oldest_ms).min();
        let time = |ms: u64| (ms > 0).then(|| view::timestamp(ms));
        let kinds = subscription.interest.kinds.iter();
        Ok(v1::Subscription {
            name: format!("subscriptions/{}", subscription.id),
            kinds: kinds.map(|kind| shared.schema.kind(*kind).rule.name.to_owned()).collect(),
            scope: subscription.interest.scope.to_string(),
            personal_data: subscription.personal,
            owner: match &subscription.owner {
                Some(partner) => format!("partners/{partner}"),
                None => "operators".into(),
            },
            create_time: time(subscription.created_ms),
            backlog: Some(v1::SubscriptionBacklog {
                urgent_count: backlog.urgent.count,
                normal_count: backlog.normal.count,
                bulk_count: backlog.bulk.count,
                oldest_time: oldest.and_then(time),
            }),
            reader_address: self
                .readers
                .current(&subscription.id)
                .map(|reader| reader.address.clone())
                .unwrap_or_default(),
            acknowledge_time: time(self.readers.acknowledged_ms(&subscription.id)),
        })
    }

    /// What is asked for, if the grant covers it.
    fn interest(&self, asked: &v1::Subscription, grant: &Grant) -> Result<Interest, Status> {
        let schema = &self.engine.shared().schema;
        let scope = match asked.scope.as_str() {
            "" => grant.scope,
            scope => page::parent("subscription.scope", scope)?,
        };
        if !grant.scope.contains(scope) {
            let text = format!("{scope} lies outside {}, which is what can be read here", grant.scope);
            return Err(status::not_allowed(format!("subscription.scope: {text}")));
        }
        let mut kinds: Vec<KindId> = Vec::new();
        for name in &asked.kinds {
            let kind = page::kind(schema, "subscription.kinds", name)?;
            if !grant.kinds.contains(kind.id) {
                let text = format!("subscription.kinds: the grant does not cover records of kind `{name}`");
                return Err(status::not_allowed(text));
            }
            kinds.push(kind.id);
        }
        kinds.sort_unstable();
        kinds.dedup();
        if asked.personal_data && !grant.personal {
            let text = "subscription.personal_data: the grant does not cover personal data";
            return Err(status::not_allowed(text));
        }
        Ok(Interest { scope, kinds })
    }
}

#[tonic::async_trait]
impl SubscriptionService for Subscriptions {
    type ReadChangesStream = Pin<Box<dyn Stream<Item = Result<v1::ChangeBatch, Status>> + Send>>;

    async fn create_subscription(
        &self,
        request: Request<v1::CreateSubscriptionRequest>,
    ) -> Result<Response<v1::Subscription>, Status> {
        let grant = caller::granted(self.engine.shared(), request.extensions())?;
        let owner = owner(request.extensions());
        let request = request.into_inner();
        if !is_id(&request.subscription_id) {
            let form = "subscription_id: a lower-case letter, then letters, digits and hyphens, at most 63";
            return Err(status::invalid("subscription_id", form));
        }
        let asked = request
            .subscription
            .ok_or_else(|| status::invalid("subscription", "subscription is missing; say what is wanted"))?;
        let lens = Lens::new(&grant, asked.personal_data);
        if !lens.sees_records() {
            return Err(status::not_allowed(NO_RECORDS));
        }
        let new = NewSubscription {
            id: request.subscription_id,
            owner,
            interest: self.interest(&asked, &grant)?,
            personal: asked.personal_data,
            filled_for: lens.fingerprint(),
        };
        let made = self.engine.subscribe(new).await.map_err(|error| status::unfinished(&error))?;
        Ok(Response::new(self.view(&made).await?))
    }

    async fn get_subscription(
        &self,
        request: Request<v1::GetSubscriptionRequest>,
    ) -> Result<Response<v1::Subscription>, Status> {
        let found = self.find(request.extensions(), &request.get_ref().name).await?;
        Ok(Response::new(self.view(&found).await?))
    }

    async fn list_subscriptions(
        &self,
        request: Request<v1::ListSubscriptionsRequest>,
    ) -> Result<Response<v1::ListSubscriptionsResponse>, Status> {
        let visible = self.visible(request.extensions()).await?;
        let request = request.into_inner();
        let size = page::size(request.page_size)?;
        let after = page::after("subscriptions", &request.page_token)?.unwrap_or_default();
        let rest: Vec<&Subscription> = visible.iter().filter(|s| s.id > after).collect();
        let mut subscriptions = Vec::with_capacity(rest.len().min(size));
        for subscription in rest.iter().take(size) {
            subscriptions.push(self.view(subscription).await?);
        }
        let last = rest.get(size - 1).filter(|_| rest.len() > size);
        let next_page_token = last.map(|last| page::token("subscriptions", &last.id)).unwrap_or_default();
        Ok(Response::new(v1::ListSubscriptionsResponse { subscriptions, next_page_token }))
    }

    async fn delete_subscription(
        &self,
        request: Request<v1::DeleteSubscriptionRequest>,
    ) -> Result<Response<()>, Status> {
        let found = self.find(request.extensions(), &request.get_ref().name).await?;
        self.engine.unsubscribe(found.peer).await.map_err(|error| status::unfinished(&error))?;
        self.readers.delete(&found.id);
        Ok(Response::new(()))
    }

    async fn read_changes(
        &self,
        request: Request<v1::ReadChangesRequest>,
    ) -> Result<Response<Self::ReadChangesStream>, Status> {
        let shared = self.engine.shared();
        let grant = caller::granted(shared, request.extensions())?;
        let subscription = self.find(request.extensions(), &request.get_ref().name).await?;
        if subscription.owner != owner(request.extensions()) {
            return Err(status::not_allowed(
                "a partner's subscription is read by the partner; make one of your own (不能读取合作方的订阅)",
            ));
        }
        let lens = Lens::new(&grant, subscription.personal);
        if !lens.sees_records() {
            return Err(status::not_allowed(NO_RECORDS));
        }
        // What was sent under another grant is not what is sent now.
        let filled =
            self.engine.refill(subscription.peer, lens.fingerprint(), request.get_ref().everything).await;
        filled.map_err(|error| status::unfinished(&error))?;
        let random = (shared.environment.random)();
        let reader = self.readers.begin(&subscription.id, &caller::address(request.extensions()), random);
        let (out, batches) = mpsc::channel(1);
        let feed = Feed {
            engine: self.engine.clone(),
            readers: self.readers.clone(),
            reader,
            subscription,
            caller: request.extensions().clone(),
            lens,
            out,
            stop: self.stop.child_token(),
            state: State::new(),
        };
        tokio::spawn(feed.run());
        Ok(Response::new(Box::pin(ReceiverStream::new(batches))))
    }

    async fn acknowledge_changes(
        &self,
        request: Request<v1::AcknowledgeChangesRequest>,
    ) -> Result<Response<v1::AcknowledgeChangesResponse>, Status> {
        let found = self.find(request.extensions(), &request.get_ref().name).await?;
        if found.owner != owner(request.extensions()) {
            return Err(status::not_allowed("only the owner of a subscription acknowledges its changes"));
        }
        let not_under_way = || {
            let text = "this batch is not under way to the present reader: it was acknowledged before, or it comes \
                        again (该批次已确认，或将重新发送)";
            status::not_now(text, "NOT_UNDER_WAY")
        };
        let reader = self.readers.current(&found.id).ok_or_else(not_under_way)?;
        let batch = reader.batch(&request.get_ref().ack_id).ok_or_else(not_under_way)?;
        let rows = reader.window().acknowledge(batch).ok_or_else(not_under_way)?;
        if !rows.is_empty()
            && let Err(error) = self.engine.delivered(found.peer, rows, Vec::new(), Vec::new(), 0).await
        {
            reader.window().not_stored(batch);
            return Err(status::unfinished(&error));
        }
        reader.window().stored(batch);
        reader.acknowledged.notify_one();
        self.readers.acknowledged(&found.id, (self.engine.shared().environment.now_ms)());
        Ok(Response::new(v1::AcknowledgeChangesResponse {}))
    }
}
