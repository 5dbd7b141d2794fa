//! The audit log on real engines: what a link leaves in it, and what a parent takes of a child's checkpoints.

use std::sync::Arc;

use guantong_proto::v1::audit_service_server::AuditService;
use tonic::{Code, Request};
use tonic_types::StatusExt;

use super::grants::from;
use super::*;
use crate::audit::{Chain, Checkpoint, DIGESTS_MAX, Event, Hash, Head, Row, Signed, digest};
use crate::engine::HandedIn;
use crate::service::audit::Audit;
use crate::service::checkpoints::{Checkpoints, Seal, shown};
use crate::service::{Caller, Who};

/// Signs for everybody: the statement itself, with the signer's division.
pub(super) struct Scribe(pub(super) Division);

impl Seal for Scribe {
    fn sign(&self, statement: &[u8]) -> Result<(Vec<u8>, Vec<u8>), String> {
        Ok((statement.to_vec(), self.0.to_string().into_bytes()))
    }

    fn verify(
        &self,
        division: Division,
        _: u64,
        statement: &[u8],
        signature: &[u8],
        certificates: &[u8],
    ) -> Result<(), String> {
        let fits = signature == statement && certificates == division.to_string().as_bytes();
        if fits { Ok(()) } else { Err("its signature does not fit".into()) }
    }

    fn trusts(&self, division: Division, _: u64, certificates: &[u8]) -> Result<(), String> {
        if certificates == division.to_string().as_bytes() { Ok(()) } else { Err("it is another's".into()) }
    }
}

fn service(node: &Node) -> Audit {
    let seal: Arc<dyn Seal> = Arc::new(Scribe(node.own));
    let checkpoints = Checkpoints::new(node.engine.clone(), node.links.clone(), Some(seal));
    Audit::new(node.engine.clone(), checkpoints)
}

async fn log(node: &Node) -> Vec<Row> {
    let store = &node.engine.shared().store;
    let rows = store.audit_entries(0, 0, 10_000).await.unwrap();
    let mut chain = Chain::new(node.own, 0);
    rows.iter().try_for_each(|row| chain.check(row)).unwrap();
    rows
}

pub(super) async fn has(node: &Node, words: &[&str]) -> bool {
    log(node).await.iter().any(|row| words.iter().all(|word| row.line.contains(word)))
}

#[tokio::test]
async fn an_exchange_leaves_its_counts_at_both_ends_and_no_content() {
    let county = Node::new("220822", None).await;
    let township = Node::new("220822101", Some("220822")).await;
    let name = case(&township, "220822101000", "a1");
    township.write(&name, new_case("220822101000")).await.unwrap();
    let line = link(&township, &county).await;
    until(async || county.record(&name).await.is_some()).await;
    until(async || has(&township, &["\"delivered\"", "node:220822000000", "\"records\":"]).await).await;
    assert!(has(&county, &["\"received\"", "\"peer\":\"220822101000\"", "\"refused\":0", "checksum"]).await);
    for node in [&county, &township] {
        assert!(has(node, &["\"link_up\"", "RECOGNITION_NEW"]).await);
        assert!(has(node, &["\"started\"", "epoch"]).await);
        assert!(!has(node, &["张甲"]).await && !has(node, &["测试"]).await);
    }
    line.cut().await;
    until(async || has(&county, &["\"link_down\"", "\"received\":2"]).await).await;
    let (own, parent, folder) = county.close().await;
    let county = Node::open(own, parent, environment(), folder).await;
    assert!(has(&county, &["\"stopped\""]).await);
}

#[tokio::test]
async fn a_grant_says_for_whom_its_partner_handles_cases() {
    let node = Node::new("220822", None).await;
    super::grants::grant_units(&node, "220822", &["police", "court"]).await;
    assert!(has(&node, &["\"partner\":\"hotline\"", "\"units\":[\"court\",\"police\"]", "\"write\""]).await);
}

#[tokio::test]
async fn entries_are_listed_latest_first_and_read_from_the_beginning() {
    let node = Node::new("220822", None).await;
    until(async || !log(&node).await.is_empty()).await;
    let before = log(&node).await.len();
    for n in 0..7 {
        node.engine.audit(Event::Sealed { record: format!("divisions/220822101000/cases/{n}") });
    }
    until(async || log(&node).await.len() == before + 7).await;
    let service = service(&node);
    let list = async |page_token: String, event: &str| {
        let request = v1::ListAuditEntriesRequest {
            page_size: 3,
            page_token,
            event: event.into(),
            ..Default::default()
        };
        service.list_audit_entries(from(Who::Local, request)).await.unwrap().into_inner()
    };
    let mut found = Vec::new();
    let mut page = list(String::new(), "sealed").await;
    loop {
        found.extend(page.entries.iter().map(|entry| entry.number));
        if page.next_page_token.is_empty() {
            break;
        }
        page = list(page.next_page_token, "sealed").await;
    }
    let latest: Vec<i64> = (before as i64 + 1..before as i64 + 8).rev().collect();
    assert_eq!(found, latest);
    let request = v1::ListAuditEntriesRequest {
        start_time: Some(prost_types::Timestamp { seconds: 95_617_584_000, nanos: 0 }),
        ..Default::default()
    };
    let later = service.list_audit_entries(from(Who::Local, request)).await.unwrap().into_inner();
    assert!(later.entries.is_empty());

    let mut read = service.read_audit_log(from(Who::Local, v1::ReadAuditLogRequest {})).await.unwrap();
    let piece = read.get_mut().next().await.unwrap().unwrap();
    assert_eq!(piece.chain.unwrap().entry_count, before as i64 + 7);
    assert_eq!(piece.entries.len(), before + 7);
    let stranger = from(Who::Partner("hotline".into()), v1::ReadAuditLogRequest {});
    assert_eq!(service.read_audit_log(stranger).await.err().unwrap().code(), Code::PermissionDenied);
}

/// What a child has: entries, with the hash after each.
fn chain_of(child: Division, count: u64, seed: u64) -> Vec<Row> {
    let mut chain = Chain::new(child, 0);
    (0..count).map(|n| chain.add(n, &Event::Lost { entries: n + seed }.into())).collect()
}

fn submission(
    child: Division,
    rows: &[Row],
    after: usize,
    epoch: u64,
) -> Request<v1::SubmitAuditCheckpointRequest> {
    let last = rows.last().unwrap();
    let head = Head { number: last.number, hash: last.hash };
    let checkpoint = Checkpoint { division: child, slot: 0, epoch, head, time_ms: 1_000 + last.number };
    let (signature, certificates) = Scribe(child).sign(checkpoint.statement().as_bytes()).unwrap();
    let signed = Signed { checkpoint, signature, certificates };
    let digests = if after == 0 { &[] } else { &rows[after..] };
    let request = v1::SubmitAuditCheckpointRequest {
        checkpoint: Some(shown(&signed)),
        after_number: after as i64,
        digests: digests.iter().flat_map(|row| digest(&row.line).0).collect(),
    };
    from(Who::Node(child), request)
}

#[tokio::test]
async fn a_parent_takes_what_follows_and_an_alarm_is_raised_for_what_contradicts() {
    let county = Node::new("220822", None).await;
    let service = service(&county);
    let child = division("220822101");
    let rows = chain_of(child, 30, 0);
    let submit = async |request| service.submit_audit_checkpoint(request).await.map(drop);
    submit(submission(child, &rows[..10], 0, 7)).await.unwrap();
    submit(submission(child, &rows[..10], 0, 7)).await.unwrap();
    // It was away, and does not know what the parent has.
    let apart = submit(submission(child, &rows[..20], 0, 7)).await.unwrap_err();
    assert_eq!(apart.get_details_error_info().unwrap().metadata["kept"], "10");
    submit(submission(child, &rows[..20], 10, 7)).await.unwrap();
    assert!(county.engine.shared().alarms().is_empty());

    // The whole chain made anew, cut, or with the parent's hash in the middle of it.
    let other = chain_of(child, 30, 1);
    let mut mixed = rows.clone();
    mixed[25] = other[25].clone();
    for (rows, after) in [(&other[..30], 20), (&other[..20], 0), (&rows[..15], 0), (&mixed[..30], 20)] {
        let refused = submit(submission(child, rows, after, 7)).await.unwrap_err();
        assert_eq!(refused.get_details_error_info().unwrap().reason, "AUDIT_CONTRADICTED");
    }
    assert_eq!(county.engine.shared().alarms().len(), 1);
    until(async || has(&county, &["checkpoint_contradicted", "\"kept\":20", "\"signed\":15"]).await).await;
    assert!(
        accept(&county, division("220822102")).await.unwrap_err().code() == Code::FailedPrecondition,
        "a sister's log is in order"
    );
    // What it signed stays, and it can still go on with that.
    submit(submission(child, &rows[..30], 20, 7)).await.unwrap();

    assert!(accept(&county, child).await.is_err(), "there is nothing to accept any more");

    // A store that was put back is taken, and seen.
    submit(submission(child, &rows[..12], 0, 8)).await.unwrap();
    assert!(has(&county, &["checkpoint_anew", "\"kept\":30", "\"signed\":12"]).await);
    assert_eq!(county.engine.shared().alarms().len(), 2);
    let request = v1::ListAuditCheckpointsRequest { division: child.to_string(), ..Default::default() };
    let kept = service.list_audit_checkpoints(from(Who::Node(child), request)).await.unwrap().into_inner();
    // Of one day the last of each life of the store.
    let numbers: Vec<_> = kept.checkpoints.iter().map(|c| (c.epoch, c.number)).collect();
    assert_eq!(numbers, [(8, 12), (7, 30)]);
}

async fn accept(county: &Node, child: Division) -> Result<v1::AcceptAuditCheckpointsResponse, tonic::Status> {
    let request = v1::AcceptAuditCheckpointsRequest { division: child.to_string() };
    let operator = from(Who::Operator("li".into()), request);
    service(county).accept_audit_checkpoints(operator).await.map(tonic::Response::into_inner)
}

#[tokio::test]
async fn what_contradicts_is_kept_once_an_operator_accepts_it() {
    let county = Node::new("220822", None).await;
    let service = service(&county);
    let child = division("220822101");
    let (rows, other) = (chain_of(child, 30, 0), chain_of(child, 30, 1));
    let submit = async |request| service.submit_audit_checkpoint(request).await.map(drop);
    submit(submission(child, &rows[..10], 0, 7)).await.unwrap();
    assert_eq!(accept(&county, child).await.unwrap_err().code(), Code::FailedPrecondition);
    submit(submission(child, &other[..10], 0, 7)).await.unwrap_err();
    assert_eq!(county.engine.shared().alarms().len(), 1);
    let request = v1::AcceptAuditCheckpointsRequest { division: child.to_string() };
    for who in [Who::Node(child), Who::Partner("hotline".into())] {
        let refused = service.accept_audit_checkpoints(from(who, request.clone())).await.unwrap_err();
        assert_eq!(refused.code(), Code::PermissionDenied);
    }

    let accepted = accept(&county, child).await.unwrap().checkpoints;
    assert_eq!(
        accepted.iter().map(|c| (c.number, &c.hash[..])).collect::<Vec<_>>(),
        [(10, &other[9].hash.0[..])]
    );
    assert!(county.engine.shared().alarms().is_empty(), "it is settled");
    let (before, after) = (rows[9].hash.to_string(), other[9].hash.to_string());
    assert!(has(&county, &["checkpoint_accepted", &before, &after, "operator li"]).await);
    submit(submission(child, &other[..20], 10, 7)).await.unwrap();
    submit(submission(child, &rows[..20], 10, 7)).await.unwrap_err();
    let kept = county.engine.shared().store.checkpoints(child, None, 100).await.unwrap();
    assert!(kept.iter().all(|signed| signed.checkpoint.head.hash != rows[9].hash), "{kept:?}");
    assert!(county.engine.shared().alarms().len() == 1 && accept(&county, child).await.is_ok());
    assert!(accept(&county, child).await.is_err(), "once");
}

#[tokio::test]
async fn a_checkpoint_is_taken_only_from_who_signed_it() {
    let county = Node::new("220822", None).await;
    let service = service(&county);
    let child = division("220822101");
    let rows = chain_of(child, 3, 0);
    let as_other = |who: Who, mut request: Request<_>| {
        request.extensions_mut().insert(Caller { who, address: "test".into() });
        request
    };
    let code = async |request| service.submit_audit_checkpoint(request).await.unwrap_err().code();
    let sister = as_other(Who::Node(division("220822102")), submission(child, &rows, 0, 7));
    assert_eq!(code(sister).await, Code::PermissionDenied);
    let outside = division("220802101");
    assert_eq!(code(submission(outside, &rows, 0, 7)).await, Code::PermissionDenied);
    let operator = as_other(Who::Operator("a".into()), submission(child, &rows, 0, 7));
    assert_eq!(code(operator).await, Code::PermissionDenied);
    let change = |change: fn(&mut v1::SubmitAuditCheckpointRequest)| {
        let mut request = submission(child, &rows, 0, 7);
        change(request.get_mut());
        request
    };
    for wrong in [
        change(|r| r.checkpoint.as_mut().unwrap().number += 1),
        change(|r| r.checkpoint.as_mut().unwrap().signature = Bytes::new()),
        change(|r| r.checkpoint.as_mut().unwrap().certificates = vec![0; 100_000].into()),
        change(|r| r.checkpoint.as_mut().unwrap().hash = Bytes::from_static(b"short")),
        change(|r| r.checkpoint.as_mut().unwrap().slot = -1),
        change(|r| r.checkpoint = None),
        change(|r| r.after_number = -1),
        change(|r| r.digests = vec![0; 33].into()),
        change(|r| r.digests = vec![0; 32 * (DIGESTS_MAX + 1)].into()),
    ] {
        assert_eq!(code(wrong).await, Code::InvalidArgument);
    }
    let request = v1::ListAuditCheckpointsRequest { division: child.to_string(), ..Default::default() };
    let other = from(Who::Node(division("220822102")), request);
    assert_eq!(service.list_audit_checkpoints(other).await.unwrap_err().code(), Code::PermissionDenied);
}

#[tokio::test]
async fn what_is_kept_of_a_chain_is_bounded() {
    let county = Node::new("220822", None).await;
    let child = division("220822101");
    for number in 1..=5 {
        let head = Head { number, hash: Hash([number as u8; 32]) };
        let checkpoint = Checkpoint { division: child, slot: 0, epoch: 1, head, time_ms: number };
        let signed = Signed { checkpoint, signature: vec![1], certificates: vec![2] };
        county.engine.keep_checkpoint(HandedIn { signed, follows: None }).await.unwrap().unwrap();
    }
    let kept = county.engine.shared().store.checkpoints(child, None, 100).await.unwrap();
    // The test may run over midnight.
    assert!((1..=2).contains(&kept.len()) && kept.last().unwrap().checkpoint.head.number == 5);
}
