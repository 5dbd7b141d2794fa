//! What partners may: as an operator granted it, from the next call on.

use guantong_proto::v1;
use guantong_proto::v1::grant_service_server::GrantService;
use guantong_proto::v1::record_service_server::RecordService;
use prost::Message;
use tonic::{Code, Request};
use tonic_types::StatusExt;

use super::{Node, case, new_case};
use crate::service::grants::Grants;
use crate::service::records::Records;
use crate::service::{Caller, Who};

/// A request from somebody.
pub(super) fn from<T>(who: Who, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.extensions_mut().insert(Caller { who, address: "test".into() });
    request
}

pub(super) fn partner<T>(message: T) -> Request<T> {
    from(Who::Partner("hotline".into()), message)
}

/// Somebody at the node's own desk.
pub(super) fn desk<T>(message: T) -> Request<T> {
    from(Who::Local, message)
}

/// Grants the partner `hotline` something.
pub(super) async fn grant(
    node: &Node,
    scope: &str,
    kinds: &[&str],
    level: v1::GrantLevel,
    personal_data: bool,
) {
    let grant = v1::Grant {
        scope: scope.into(),
        kinds: kinds.iter().map(ToString::to_string).collect(),
        level: level.into(),
        personal_data,
        ..v1::Grant::default()
    };
    set(node, grant).await;
}

/// Lets the partner `hotline` write the cases of a scope, and handle them in the name of these units.
pub(super) async fn grant_units(node: &Node, scope: &str, units: &[&str]) {
    let grant = v1::Grant {
        scope: scope.into(),
        level: v1::GrantLevel::Write.into(),
        personal_data: true,
        units: units.iter().map(ToString::to_string).collect(),
        ..v1::Grant::default()
    };
    set(node, grant).await;
}

async fn set(node: &Node, grant: v1::Grant) {
    let grant = v1::Grant { name: "grants/hotline".into(), ..grant };
    let request = v1::UpdateGrantRequest { grant: Some(grant), allow_missing: true };
    Grants::new(node.engine.clone()).update_grant(from(Who::Local, request)).await.unwrap();
}

fn get(name: &str) -> v1::GetRecordRequest {
    v1::GetRecordRequest { name: name.into() }
}

fn list(parent: &str, kind: &str) -> v1::ListRecordsRequest {
    v1::ListRecordsRequest { parent: parent.into(), kind: kind.into(), ..Default::default() }
}

#[tokio::test]
async fn a_partner_sees_what_it_was_granted_and_a_change_is_in_force_at_once() {
    let node = Node::new("220822", None).await;
    let records = Records::new(node.engine.clone(), crate::service::Links::new());
    for home in ["220822101000", "220822102000"] {
        node.write(&case(&node, home, "1"), new_case(home)).await.unwrap();
    }
    let mine = "divisions/220822101000/cases/1";
    let code = |error: tonic::Status| error.code();
    let denied = records.get_record(partner(get(mine))).await.map_err(code);
    assert_eq!(denied.err(), Some(Code::PermissionDenied), "without a grant");

    grant(&node, "220822101", &["case"], v1::GrantLevel::Read, false).await;
    let seen = records.get_record(partner(get(mine))).await.unwrap().into_inner();
    let seen_case = v1::Case::decode(seen.fields).unwrap();
    assert_eq!(seen_case.title(), "测试");
    assert!(seen_case.parties.is_empty(), "personal data was not granted");
    assert!(!seen.origins.iter().any(|o| o.field == guantong_proto::rules::fields::case::PARTIES));

    // Whether something exists outside the grant is not told.
    let there = records.get_record(partner(get("divisions/220822102000/cases/1"))).await.unwrap_err();
    let nowhere = records.get_record(partner(get("divisions/220822102000/cases/2"))).await.unwrap_err();
    assert_eq!((there.code(), there.message()), (nowhere.code(), nowhere.message()));
    assert_eq!(there.code(), Code::PermissionDenied);
    let missing = records.get_record(partner(get("divisions/220822101000/cases/2"))).await;
    assert_eq!(missing.map_err(code).err(), Some(Code::NotFound));

    // A list of more than is granted leaves the rest out; one of something else is refused.
    let listed = records.list_records(partner(list("220822", "case"))).await.unwrap().into_inner();
    assert_eq!(listed.records.iter().map(|r| r.name.as_str()).collect::<Vec<_>>(), vec![mine]);
    for (parent, kind) in [("220822102", "case"), ("220822", "camera")] {
        let refused = records.list_records(partner(list(parent, kind))).await.map_err(code);
        assert_eq!(refused.err(), Some(Code::PermissionDenied), "{parent} {kind}");
    }

    grant(&node, "220822101", &[], v1::GrantLevel::Read, true).await;
    let seen = records.get_record(partner(get(mine))).await.unwrap().into_inner();
    assert_eq!(v1::Case::decode(seen.fields).unwrap().parties.len(), 1);
    let request = v1::DeleteGrantRequest { name: "grants/hotline".into() };
    Grants::new(node.engine.clone()).delete_grant(from(Who::Local, request)).await.unwrap();
    let denied = records.get_record(partner(get(mine))).await.map_err(code);
    assert_eq!(denied.err(), Some(Code::PermissionDenied));
}

#[tokio::test]
async fn a_partner_writes_as_a_writer_of_its_own_and_only_where_it_may() {
    let node = Node::new("220822", None).await;
    let records = Records::new(node.engine.clone(), crate::service::Links::new());
    let name = case(&node, "220822101000", "1");
    node.write(&name, new_case("220822101000")).await.unwrap();
    let write = |home: &str, case: v1::Case| v1::WriteRecordRequest {
        record: Some(v1::Record {
            name: format!("divisions/{home}/cases/1"),
            fields: case.encode_to_vec().into(),
            ..Default::default()
        }),
        ..Default::default()
    };
    let titled = v1::Case { title: Some("新标题".into()), ..Default::default() };
    let party = v1::Party { name: "李乙".into(), ..Default::default() };
    let parties = v1::Case { parties: vec![party], ..Default::default() };

    grant(&node, "220822101", &["case"], v1::GrantLevel::Read, true).await;
    let refused = records.write_record(partner(write("220822101000", titled.clone()))).await.unwrap_err();
    assert!(refused.code() == Code::PermissionDenied && refused.message().contains("for reading"));

    grant(&node, "220822101", &["case"], v1::GrantLevel::Write, false).await;
    for (home, case) in [("220822101000", parties), ("220822102000", titled.clone())] {
        let refused = records.write_record(partner(write(home, case))).await.unwrap_err();
        assert_eq!(refused.code(), Code::PermissionDenied, "{home}: {}", refused.message());
    }
    assert_eq!(node.shown(&name).await.parties[0].name, "张甲");
    records.write_record(partner(write("220822101000", titled))).await.unwrap();
    assert_eq!(node.shown(&name).await.title(), "新标题");
    let writers = node.engine.shared().store.writers().await.unwrap();
    let own = writers.iter().find(|w| w.purpose == "partner:hotline").unwrap();
    assert_eq!(
        own.writer.division,
        super::division("220822101"),
        "it writes as the home that the node acts for"
    );
}

#[tokio::test]
async fn grants_are_kept_and_listed_and_bad_ones_refused() {
    let node = Node::new("220822", None).await;
    grant(&node, "220822101000", &["case", "grid"], v1::GrantLevel::Write, true).await;
    let node = node.reopened(async |_| {}).await;
    let grants = Grants::new(node.engine.clone());
    let listed = grants.list_grants(from(Who::Local, v1::ListGrantsRequest::default())).await.unwrap();
    assert_eq!(listed.get_ref().grants.len(), 1);
    let kept = &listed.get_ref().grants[0];
    assert_eq!(
        (kept.scope.as_str(), kept.level(), kept.personal_data),
        ("220822101000", v1::GrantLevel::Write, true)
    );
    assert_eq!(kept.kinds, vec!["grid", "case"]);
    assert!(kept.units.is_empty(), "nothing that was not granted");
    // A partner reads its own and nobody else's, and changes none.
    let own = v1::GetGrantRequest { name: "grants/hotline".into() };
    assert_eq!(grants.get_grant(partner(own.clone())).await.unwrap().get_ref(), kept);
    let other = from(Who::Partner("other".into()), own);
    assert_eq!(grants.get_grant(other).await.unwrap_err().code(), Code::PermissionDenied);
    let update = v1::UpdateGrantRequest { grant: Some(kept.clone()), allow_missing: true };
    assert_eq!(grants.update_grant(partner(update)).await.unwrap_err().code(), Code::PermissionDenied);

    let bad = v1::Grant {
        name: "grants/x".into(),
        scope: "2199".into(),
        kinds: vec!["gird".into()],
        ..kept.clone()
    };
    let bad = v1::Grant { level: 0, ..bad };
    let update = v1::UpdateGrantRequest { grant: Some(bad), allow_missing: true };
    let refused = grants.update_grant(from(Who::Local, update)).await.unwrap_err();
    let details = refused.get_error_details();
    let fields: Vec<&str> =
        details.bad_request().unwrap().field_violations.iter().map(|v| v.field.as_str()).collect();
    assert_eq!(fields, vec!["grant.scope", "grant.level", "grant.kinds"]);
    for (kinds, level, units) in [
        (vec![], v1::GrantLevel::Read, vec!["court".into()]),
        (vec!["camera".into()], v1::GrantLevel::Write, vec!["court".into()]),
        (vec![], v1::GrantLevel::Write, vec!["a court".into()]),
        (vec![], v1::GrantLevel::Write, (0..51).map(|n| format!("u{n}")).collect()),
    ] {
        let bad = v1::Grant { kinds, level: level.into(), units, ..kept.clone() };
        let update = v1::UpdateGrantRequest { grant: Some(bad), allow_missing: true };
        let refused = grants.update_grant(from(Who::Local, update)).await.unwrap_err();
        assert_eq!(super::partners::violations(&refused), vec!["grant.units"], "{refused:?}");
    }
    let missing = v1::Grant { name: "grants/nobody".into(), ..kept.clone() };
    let update = v1::UpdateGrantRequest { grant: Some(missing), allow_missing: false };
    assert_eq!(grants.update_grant(from(Who::Local, update)).await.unwrap_err().code(), Code::NotFound);
    // A write of the operator is not the partner's.
    node.write(&case(&node, "220822101000", "1"), new_case("220822101000")).await.unwrap();
    assert!(node.engine.shared().store.writers().await.unwrap().iter().all(|w| w.purpose.is_empty()));
}
