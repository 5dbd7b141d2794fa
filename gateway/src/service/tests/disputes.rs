//! Conflicts and likely duplicates, as callers with and without a grant for them see them.

use guantong_proto::v1;
use guantong_proto::v1::case_service_server::CaseService;
use guantong_proto::v1::conflict_service_server::ConflictService;
use guantong_proto::v1::grid_service_server::GridService;
use prost::Message;
use tonic::Code;

use super::grants::{from, grant, partner};
use super::partners::{HOME, Setting, filing};
use crate::engine::Import;
use crate::service::Who;
use crate::service::conflicts::Conflicts;

/// A case of which the hotline has changed title and parties, and a ledger brings the former ones again.
async fn disputed(s: &Setting) -> Conflicts {
    let changed = s.file("1").await;
    let row = |title: &str| {
        let case = v1::Case {
            title: Some(title.into()),
            parties: vec![v1::Party { name: title.into(), ..Default::default() }],
            ..Default::default()
        };
        let (key, home) = ("1".to_owned(), HOME.to_owned());
        v1::ImportRow { key, home, fields: case.encode_to_vec().into(), line: 2, ..Default::default() }
    };
    let kind = s.node.engine.shared().schema.kind_named("case").unwrap().id;
    let import = Import { kind, source: "台账".into(), begun: None, rows: vec![row("台账标题")] };
    let taken = s.node.engine.import(import).await.unwrap();
    assert_eq!((taken.conflict_count, changed.title()), (1, "噪音"));
    Conflicts::new(s.node.engine.clone())
}

fn list() -> v1::ListConflictsRequest {
    v1::ListConflictsRequest { parent: "divisions/220822000000".into(), ..Default::default() }
}

fn named(field: &str) -> String {
    format!("divisions/{HOME}/cases/1/conflicts/{field}")
}

#[tokio::test]
async fn a_conflict_shows_values_writers_and_sources_and_is_settled_by_whom_it_is_granted() {
    let s = Setting::new().await;
    let conflicts = disputed(&s).await;
    let listed = conflicts.list_conflicts(partner(list())).await.unwrap().into_inner().conflicts;
    assert_eq!(listed.iter().map(|c| c.field_name.as_str()).collect::<Vec<_>>(), vec!["title", "parties"]);
    let mut sources: Vec<&str> = listed[0].values.iter().map(|v| v.writer_source.as_str()).collect();
    sources.sort_unstable();
    assert_eq!(sources, vec!["partner:hotline", "台账"]);
    assert!(listed[0].values.iter().all(|v| v.write_time.is_some() && v.writer_division == HOME));

    // Without personal data, that field's conflict is not there; by name it is refused.
    grant(&s.node, "220822", &["case"], v1::GrantLevel::Read, false).await;
    let seen = conflicts.list_conflicts(partner(list())).await.unwrap().into_inner().conflicts;
    assert_eq!(seen.len(), 1);
    let get = |field| v1::GetConflictRequest { name: named(field) };
    assert_eq!(conflicts.get_conflict(partner(get("title"))).await.unwrap().get_ref(), &seen[0]);
    let refused = conflicts.get_conflict(partner(get("parties"))).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    let resolve = |etag: &str| v1::ResolveConflictRequest {
        name: named("title"),
        keep: 1,
        etag: etag.into(),
        ..Default::default()
    };
    let refused = conflicts.resolve_conflict(partner(resolve(""))).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied, "it reads only");
    grant(&s.node, "220822", &["case"], v1::GrantLevel::Write, false).await;
    let refused = conflicts.resolve_conflict(partner(resolve("0"))).await.unwrap_err();
    assert_eq!(refused.code(), Code::Aborted);
    let settled = conflicts.resolve_conflict(partner(resolve(&seen[0].etag))).await.unwrap().into_inner();
    assert_eq!(settled.values.len(), 1);
    let history = v1::ListConflictsRequest { resolved: true, ..list() };
    assert_eq!(conflicts.list_conflicts(partner(history)).await.unwrap().get_ref().conflicts.len(), 1);

    // In a case of elsewhere nothing is found at all.
    grant(&s.node, "220822102", &["case"], v1::GrantLevel::Write, true).await;
    assert!(conflicts.list_conflicts(partner(list())).await.unwrap().get_ref().conflicts.is_empty());
    grant(&s.node, "220822", &[], v1::GrantLevel::Aggregates, true).await;
    let refused = conflicts.list_conflicts(partner(list())).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
}

#[tokio::test]
async fn likely_duplicates_are_listed_page_by_page() {
    let s = Setting::new().await;
    let conflicts = Conflicts::new(s.node.engine.clone());
    for (n, title) in ["一", "二", "三"].iter().enumerate() {
        for copy in 0..2 {
            let mut request = filing(&format!("{n}{copy}"), "");
            let case = request.case.as_mut().unwrap();
            (case.title, case.parties) = (Some((*title).into()), vec![]);
            case.external_refs[0].number = format!("{n}{copy}");
            s.cases.create_case(partner(request)).await.unwrap();
        }
    }
    let list = |page_token: &str| v1::ListDuplicatesRequest {
        parent: "divisions/220822".into(),
        kind: "case".into(),
        page_size: 2,
        page_token: page_token.into(),
    };
    let first = conflicts.list_duplicates(partner(list(""))).await.unwrap().into_inner();
    let second = conflicts.list_duplicates(partner(list(&first.next_page_token))).await.unwrap().into_inner();
    assert!(second.next_page_token.is_empty() && !second.truncated);
    let mut found: Vec<Vec<String>> =
        first.duplicates.into_iter().chain(second.duplicates).map(|d| d.records).collect();
    found.sort();
    let name = |id: &str| format!("divisions/{HOME}/cases/{id}");
    assert_eq!(found, [["00", "01"], ["10", "11"], ["20", "21"]].map(|pair| pair.map(name).to_vec()));
    // The search belongs to whoever asked, and to its question.
    let other = from(Who::Local, list(&first.next_page_token));
    assert_eq!(conflicts.list_duplicates(other).await.unwrap_err().code(), Code::InvalidArgument);
    for kind in ["grid", "gird"] {
        let request = v1::ListDuplicatesRequest { kind: kind.into(), ..list("") };
        assert_eq!(
            conflicts.list_duplicates(partner(request)).await.unwrap_err().code(),
            Code::InvalidArgument
        );
    }
    grant(&s.node, "220822102", &["case"], v1::GrantLevel::Read, false).await;
    let elsewhere = conflicts.list_duplicates(partner(list(""))).await.unwrap().into_inner();
    assert!(elsewhere.duplicates.is_empty());
}

#[tokio::test]
async fn a_kind_that_is_not_granted_is_refused_by_name() {
    let s = Setting::new().await;
    grant(&s.node, "220822", &["case"], v1::GrantLevel::Write, true).await;
    let list = v1::ListGridsRequest { parent: "divisions/220822".into(), ..Default::default() };
    assert_eq!(s.grids.list_grids(partner(list)).await.unwrap_err().code(), Code::PermissionDenied);
    let get = v1::GetGridRequest { name: format!("divisions/{HOME}/grids/1") };
    assert_eq!(s.grids.get_grid(partner(get)).await.unwrap_err().code(), Code::PermissionDenied);
}

#[tokio::test]
async fn a_page_of_conflicts_ends_before_clients_would_refuse_it() {
    let s = Setting::new().await;
    let conflicts = Conflicts::new(s.node.engine.clone());
    let kind = s.node.engine.shared().schema.kind_named("case").unwrap().id;
    let count = 30;
    let ids: Vec<String> = (0..count).map(|n| format!("{n:02}")).collect();
    let told = |word: &str| v1::Case { narrative: Some(word.repeat(20_000)), ..Default::default() };
    for id in &ids {
        s.file(id).await;
        let name = format!("divisions/{HOME}/cases/{id}");
        let case = Some(v1::Case { name, ..told("甲") });
        s.cases.update_case(partner(v1::UpdateCaseRequest { case, ..Default::default() })).await.unwrap();
    }
    let row = |id: &String| v1::ImportRow {
        key: id.clone(),
        home: HOME.into(),
        fields: told("乙").encode_to_vec().into(),
        ..Default::default()
    };
    let rows = ids.iter().map(row).collect();
    let import = Import { kind, source: "台账".into(), begun: None, rows };
    assert_eq!(s.node.engine.import(import).await.unwrap().conflict_count, count);

    let mut open = Vec::new();
    for resolved in [false, true] {
        let mut seen = Vec::new();
        let mut request = v1::ListConflictsRequest { page_size: 1_000, resolved, ..list() };
        let mut pages = 0;
        loop {
            let page = conflicts.list_conflicts(partner(request.clone())).await.unwrap().into_inner();
            assert!(page.encoded_len() < 2 * 1024 * 1024, "{} bytes", page.encoded_len());
            seen.extend(page.conflicts.iter().map(|conflict| conflict.name.clone()));
            pages += 1;
            request.page_token = page.next_page_token;
            if request.page_token.is_empty() {
                break;
            }
        }
        assert!(pages >= 4, "{pages} pages of {count} conflicts of 120 KB each");
        assert_eq!(seen.len(), count as usize);
        if resolved {
            seen.reverse();
            assert_eq!(seen, open, "the latest first, none twice and none left out");
        } else {
            for name in &seen {
                let settle = v1::ResolveConflictRequest { name: name.clone(), ..Default::default() };
                conflicts.resolve_conflict(partner(settle)).await.unwrap();
            }
            open = seen;
        }
    }
}
