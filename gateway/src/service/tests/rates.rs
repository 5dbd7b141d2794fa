//! How often partners may call: as their grants say at that moment, and no other caller is counted.

use std::sync::atomic::{AtomicU64, Ordering};

use guantong_proto::v1;
use guantong_proto::v1::grant_service_server::GrantService;
use tonic::Code;
use tonic_types::StatusExt;

use super::grants::{from, partner};
use super::{Node, environment, until};
use crate::engine::Environment;
use crate::service::grants::Grants;
use crate::service::tests::audit::has;
use crate::service::{Rates, Who};

const PATH: &str = "/guantong.v1.RecordService/GetRecord";

static NOW_MS: AtomicU64 = AtomicU64::new(1_700_000_000_000);

async fn allow(node: &Node, requests: i32, period: v1::RatePeriod) -> Result<v1::Grant, tonic::Status> {
    let grant = v1::Grant {
        name: "grants/hotline".into(),
        scope: "220822".into(),
        level: v1::GrantLevel::Read.into(),
        rate: Some(v1::RequestRate { requests, period: period.into() }),
        ..v1::Grant::default()
    };
    let request = v1::UpdateGrantRequest { grant: Some(grant), allow_missing: true };
    let set = Grants::new(node.engine.clone()).update_grant(from(Who::Local, request)).await;
    set.map(tonic::Response::into_inner)
}

#[tokio::test]
async fn a_partner_calls_as_often_as_its_grant_says() {
    let clock = Environment { now_ms: || NOW_MS.load(Ordering::Relaxed), ..environment() };
    let node = Node::in_environment("220822", None, clock).await;
    let rates = Rates::new(node.engine.clone());
    let calls =
        |count: usize| (0..count).filter(|_| rates.admit(PATH, partner(()).extensions()).is_ok()).count();
    assert_eq!(calls(100), 100, "without a grant the service itself refuses");

    let set = allow(&node, 3, v1::RatePeriod::Minute).await.unwrap();
    assert_eq!(set.rate.map(|rate| (rate.requests, rate.period())), Some((3, v1::RatePeriod::Minute)));
    assert_eq!(calls(100), 3);
    let refused = rates.admit(PATH, partner(()).extensions()).unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    assert!(refused.message().contains("3/min"), "{refused:?}");
    let details = refused.get_error_details();
    let info = details.error_info().unwrap();
    assert_eq!((info.reason.as_str(), info.metadata["rate"].as_str()), ("RATE_EXCEEDED", "3/min"));
    let wait = details.retry_info().unwrap().retry_delay.unwrap();
    assert_eq!(wait.as_secs(), 20);
    let acknowledging = "/guantong.v1.SubscriptionService/AcknowledgeChanges";
    assert!((0..10).all(|_| rates.admit(acknowledging, partner(()).extensions()).is_ok()));
    for who in [Who::Local, Who::Operator("li".into()), Who::Partner("other".into()), Who::Node(node.own)] {
        assert!((0..10).all(|_| rates.admit(PATH, from(who.clone(), ()).extensions()).is_ok()), "{who:?}");
    }
    NOW_MS.fetch_add(wait.as_millis() as u64, Ordering::Relaxed);
    assert_eq!(calls(100), 1, "what was told is what had to be waited");

    // A wider rate, a narrower one and none are in force at the next call.
    allow(&node, 50, v1::RatePeriod::Second).await.unwrap();
    assert_eq!(calls(100), 0, "what was used counts");
    NOW_MS.fetch_add(20, Ordering::Relaxed);
    assert_eq!(calls(100), 1, "and is given back at the new rate");
    NOW_MS.fetch_add(1_000, Ordering::Relaxed);
    assert_eq!(calls(100), 50);
    NOW_MS.fetch_add(3_600_000, Ordering::Relaxed);
    allow(&node, 1, v1::RatePeriod::Hour).await.unwrap();
    assert_eq!(calls(100), 1);
    super::grants::grant(&node, "220822", &[], v1::GrantLevel::Read, false).await;
    assert_eq!(calls(100), 100);

    until(async || has(&node, &["grant_set", "\"rate\":\"3/min\""]).await).await;
    until(async || has(&node, &["rate_exceeded", "\"partner\":\"hotline\"", "\"times\":"]).await).await;
}

#[tokio::test]
async fn a_rate_is_kept_and_one_that_is_none_is_refused() {
    let node = Node::new("220822", None).await;
    for (requests, period) in [
        (0, v1::RatePeriod::Second),
        (-1, v1::RatePeriod::Second),
        (100_001, v1::RatePeriod::Hour),
        (5, v1::RatePeriod::Unspecified),
    ] {
        let refused = allow(&node, requests, period).await.unwrap_err();
        assert_eq!(super::partners::violations(&refused), vec!["grant.rate"], "{requests} {period:?}");
    }
    assert!(node.engine.shared().grant("hotline").is_none());
    allow(&node, 50, v1::RatePeriod::Second).await.unwrap();
    let node = node.reopened(async |_| ()).await;
    let kept = node.engine.shared().grant("hotline").unwrap();
    assert_eq!(kept.rate.map(|rate| rate.to_string()).as_deref(), Some("50/s"));
}
