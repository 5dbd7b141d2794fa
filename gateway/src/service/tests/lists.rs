//! Lists with conditions: what they show, what they refuse, and that paging shows every record exactly once whatever is
//! written meanwhile.

use std::collections::{BTreeMap, BTreeSet};

use guantong_proto::v1;
use guantong_proto::v1::camera_service_server::CameraService;
use guantong_proto::v1::case_service_server::CaseService;
use proptest::prelude::*;
use tonic::Code;

use super::grants::{desk, grant, grant_units, partner};
use super::partners::{HOME, Setting, camera, date, filing, violations};

fn cases(parent: &str) -> v1::ListCasesRequest {
    v1::ListCasesRequest { parent: format!("divisions/{parent}"), page_size: 1_000, ..Default::default() }
}

fn cameras(parent: &str) -> v1::ListCamerasRequest {
    v1::ListCamerasRequest { parent: format!("divisions/{parent}"), page_size: 1_000, ..Default::default() }
}

/// Ids of all that a list shows, read page by page.
async fn all_cases(s: &Setting, mut request: v1::ListCasesRequest) -> Vec<String> {
    let mut ids = Vec::new();
    loop {
        let page = s.cases.list_cases(partner(request.clone())).await.unwrap().into_inner();
        ids.extend(page.cases.iter().map(|case| id(&case.name)));
        request.page_token = page.next_page_token;
        if request.page_token.is_empty() {
            return ids;
        }
    }
}

async fn all_cameras(s: &Setting, mut request: v1::ListCamerasRequest) -> Vec<String> {
    let mut ids = Vec::new();
    loop {
        let page = s.cameras.list_cameras(partner(request.clone())).await.unwrap().into_inner();
        ids.extend(page.cameras.iter().map(|camera| id(&camera.name)));
        request.page_token = page.next_page_token;
        if request.page_token.is_empty() {
            return ids;
        }
    }
}

fn id(name: &str) -> String {
    name.rsplit('/').next().unwrap_or_default().to_owned()
}

async fn put(s: &Setting, camera: v1::Camera) {
    let name = format!("divisions/220822000000/cameras/{}", camera.device_id());
    let camera = Some(v1::Camera { name, ..camera });
    let request = v1::UpdateCameraRequest { camera, allow_missing: true, ..Default::default() };
    s.cameras.update_camera(partner(request)).await.unwrap();
}

#[tokio::test]
async fn conditions_are_combined() {
    let s = Setting::new().await;
    for (n, home, category, number) in
        [("1", HOME, "land", "W-1"), ("2", HOME, "wages", "W-2"), ("3", "220822102000", "land", "W-3")]
    {
        let mut request = filing(n, "");
        request.parent = format!("divisions/{home}");
        let case = request.case.as_mut().unwrap();
        (case.category, case.division) = (Some(category.into()), Some(home.into()));
        case.external_refs[0].number = number.into();
        case.received_on = Some(date(2026, 10, n.parse().unwrap()));
        s.cases.create_case(partner(request)).await.unwrap();
    }
    let name = format!("divisions/{HOME}/cases/2");
    let accept = v1::AcceptCaseRequest { name, to_unit: "police".into(), ..Default::default() };
    s.cases.accept_case(desk(accept)).await.unwrap();

    let accepted = vec![v1::CaseState::Accepted.into()];
    let either = vec![v1::CaseState::Reported.into(), v1::CaseState::Accepted.into()];
    let days = |since, before| Some(v1::DateRange { since, before });
    let number = |number: &str| Some(v1::ExternalNumber { system: "12345".into(), number: number.into() });
    let county = || cases("220822000000");
    for (request, expected) in [
        (county(), vec!["1", "2", "3"]),
        (cases(HOME), vec!["1", "2"]),
        (v1::ListCasesRequest { states: accepted.clone(), ..county() }, vec!["2"]),
        (v1::ListCasesRequest { states: either, ..county() }, vec!["1", "3", "2"]),
        (v1::ListCasesRequest { categories: vec!["land".into()], ..county() }, vec!["1", "3"]),
        (v1::ListCasesRequest { categories: vec!["land".into()], ..cases(HOME) }, vec!["1"]),
        (v1::ListCasesRequest { holder: "220822102".into(), ..county() }, vec!["3"]),
        (v1::ListCasesRequest { holder: HOME.into(), unit: "police".into(), ..county() }, vec!["2"]),
        (v1::ListCasesRequest { unit: "division".into(), ..county() }, vec!["1", "3"]),
        (v1::ListCasesRequest { received: days(Some(date(2026, 10, 2)), None), ..county() }, vec!["2", "3"]),
        (v1::ListCasesRequest { received: days(None, Some(date(2026, 10, 2))), ..county() }, vec!["1"]),
        (v1::ListCasesRequest { external_number: number("W-3"), ..county() }, vec!["3"]),
        (v1::ListCasesRequest { external_number: number("W-3"), ..cases(HOME) }, vec![]),
        (v1::ListCasesRequest { external_number: number("W-4"), ..county() }, vec![]),
        (v1::ListCasesRequest { states: accepted, categories: vec!["land".into()], ..county() }, vec![]),
    ] {
        for page_size in [1, 2, 0] {
            let request = v1::ListCasesRequest { page_size, ..request.clone() };
            assert_eq!(all_cases(&s, request.clone()).await, expected, "{request:?}");
        }
    }

    for serial in 1..=6 {
        put(&s, camera(serial)).await;
    }
    let county = || cameras("220822000000");
    let pole = v1::ListCamerasRequest { pole_code: "P1".into(), ..county() };
    assert_eq!(all_cameras(&s, pole.clone()).await, vec!["22082200001320000001", "22082200001320000004"]);
    let installed = days(Some(date(2024, 1, 1)), Some(date(2025, 1, 1)));
    assert_eq!(
        all_cameras(&s, v1::ListCamerasRequest { installed, ..pole }).await,
        vec!["22082200001320000004"]
    );
    let off = v1::ListCamerasRequest { states: vec![v1::CameraState::Off.into()], ..county() };
    assert!(all_cameras(&s, off).await.is_empty());
}

#[tokio::test]
async fn a_case_is_listed_once_wherever_it_concerns_somebody() {
    let s = Setting::new().await;
    s.file("1").await;
    let name = || format!("divisions/{HOME}/cases/1");
    s.cases.accept_case(desk(v1::AcceptCaseRequest { name: name(), ..Default::default() })).await.unwrap();
    let listed = async |parent: &str| all_cases(&s, cases(parent)).await.len();
    assert_eq!((listed(HOME).await, listed("220822102000").await), (1, 0));
    let to_division = "220822102000".to_owned();
    let transfer = v1::TransferCaseRequest { name: name(), to_division, ..Default::default() };
    s.cases.transfer_case(desk(transfer)).await.unwrap();
    // It waits at the county for the other township, which finds it.
    assert_eq!((listed(HOME).await, listed("220822102000").await, listed("220822000000").await), (1, 1, 1));
    s.cases.accept_case(desk(v1::AcceptCaseRequest { name: name(), ..Default::default() })).await.unwrap();
    assert_eq!((listed(HOME).await, listed("220822102000").await, listed("220822000000").await), (1, 1, 1));
    let held = v1::ListCasesRequest { holder: "220822102000".into(), ..cases("220822000000") };
    assert_eq!(all_cases(&s, held).await, vec!["1"]);
    let accepted = vec![v1::CaseState::Accepted.into()];
    let held = v1::ListCasesRequest { states: accepted, ..cases("220822102000") };
    assert_eq!(all_cases(&s, held).await, vec!["1"]);
    assert_eq!(listed("220822103000").await, 0);

    // A partner of the other township alone may see it, now that it concerns that township, and may act on it.
    grant_units(&s.node, "220822102", &["division"]).await;
    let seen = all_cases(&s, cases("220822000000")).await;
    assert_eq!(seen, vec!["1"], "a list of more than is granted leaves the rest out");
    let conclude = v1::ConcludeCaseRequest {
        name: name(),
        outcome: Some(v1::Outcome { succeeded: Some(true), ..Default::default() }),
        ..Default::default()
    };
    s.cases.conclude_case(partner(conclude)).await.unwrap();
}

#[tokio::test]
async fn bad_conditions_are_refused_by_name() {
    let s = Setting::new().await;
    for n in ["1", "2"] {
        s.file(n).await;
    }
    let county = || cases("220822000000");
    let backwards = Some(v1::DateRange { since: Some(date(2026, 2, 1)), before: Some(date(2026, 1, 1)) });
    let no_day = Some(v1::DateRange { since: Some(date(2026, 13, 1)), before: None });
    let half = Some(v1::ExternalNumber { system: "12345".into(), number: String::new() });
    for (request, field) in [
        (v1::ListCasesRequest { received: backwards, ..county() }, "received.before"),
        (v1::ListCasesRequest { occurred: no_day, ..county() }, "occurred.since"),
        (v1::ListCasesRequest { external_number: half, ..county() }, "external_number"),
        (v1::ListCasesRequest { states: vec![99], ..county() }, "states"),
        (v1::ListCasesRequest { states: vec![0], ..county() }, "states"),
        (v1::ListCasesRequest { categories: vec![String::new()], ..county() }, "categories"),
        (v1::ListCasesRequest { holder: "22082".into(), ..county() }, "holder"),
        (v1::ListCasesRequest { page_size: -1, ..county() }, "page_size"),
        (v1::ListCasesRequest { parent: "divisions/x".into(), ..county() }, "parent"),
        (v1::ListCasesRequest { page_token: "x".into(), ..county() }, "page_token"),
    ] {
        let refused = s.cases.list_cases(partner(request)).await.unwrap_err();
        assert_eq!((refused.code(), violations(&refused)), (Code::InvalidArgument, vec![field.to_owned()]));
    }
    // A token belongs to its query, and to nobody's with another grant.
    let first = s.cases.list_cases(partner(v1::ListCasesRequest { page_size: 1, ..county() })).await.unwrap();
    let page_token = first.into_inner().next_page_token;
    let fine = v1::ListCasesRequest { page_token: page_token.clone(), page_size: 7, ..county() };
    assert_eq!(all_cases(&s, fine.clone()).await, vec!["2"], "the size may change");
    for request in [
        v1::ListCasesRequest { show_deleted: true, ..fine.clone() },
        v1::ListCasesRequest { unit: "police".into(), ..fine.clone() },
        v1::ListCasesRequest { page_token, ..cases(HOME) },
    ] {
        let refused = s.cases.list_cases(partner(request)).await.unwrap_err();
        assert_eq!(violations(&refused), vec!["page_token"]);
    }
    grant(&s.node, HOME, &["case"], v1::GrantLevel::Read, false).await;
    let refused = s.cases.list_cases(partner(fine)).await.unwrap_err();
    assert_eq!(violations(&refused), vec!["page_token"]);
    let outside = s.cases.list_cases(partner(cases("220822102000"))).await.unwrap_err();
    assert_eq!(outside.code(), Code::PermissionDenied);
}

/// What happens between two pages.
#[derive(Clone, Debug)]
enum Meanwhile {
    Create(u32),
    Change(u32),
}

fn meanwhile() -> impl Strategy<Value = Meanwhile> {
    prop_oneof![(0u32..90).prop_map(Meanwhile::Create), (0u32..90).prop_map(Meanwhile::Change)]
}

/// A page of cameras with small budgets, so that all ends of stretches are met.
async fn page_through(
    s: &Setting,
    request: v1::ListCamerasRequest,
    writes: &[Vec<Meanwhile>],
    born: &BTreeSet<u32>,
) -> BTreeMap<String, usize> {
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    let (mut request, mut writes, mut known) = (request, writes.iter(), born.clone());
    loop {
        let page = s.cameras.list_cameras(partner(request.clone())).await.unwrap().into_inner();
        assert!(page.cameras.len() <= request.page_size as usize);
        for camera in &page.cameras {
            *seen.entry(camera.device_id().to_owned()).or_default() += 1;
        }
        request.page_token = page.next_page_token;
        if request.page_token.is_empty() {
            return seen;
        }
        for write in writes.next().into_iter().flatten() {
            let number = match write {
                Meanwhile::Create(number) => *number,
                Meanwhile::Change(number) if known.contains(number) => *number,
                Meanwhile::Change(_) => continue,
            };
            known.insert(number);
            let address = Some(format!("第{}次", seen.len()));
            put(s, v1::Camera { address, ..camera(number) }).await;
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    #[test]
    fn paging_shows_every_record_exactly_once_whatever_is_written_meanwhile(
        born in proptest::collection::btree_set(0u32..90, 1..40),
        page_size in 1i32..9,
        writes in proptest::collection::vec(proptest::collection::vec(meanwhile(), 0..4), 0..12),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let s = Setting::new().await;
            for number in &born {
                put(&s, camera(*number)).await;
            }
            let plain = v1::ListCamerasRequest { page_size, ..cameras("220822000000") };
            let pole = v1::ListCamerasRequest { pole_code: "P1".into(), ..plain.clone() };
            for (request, fits) in [(plain, None), (pole, Some(1))] {
                let seen = page_through(&s, request, &writes, &born).await;
                for number in born.iter().filter(|number| fits.is_none_or(|pole| *number % 3 == pole)) {
                    let id = camera(*number).device_id().to_owned();
                    assert_eq!(seen.get(&id), Some(&1), "{id} of {seen:?}");
                }
                assert!(seen.values().all(|times| *times == 1), "{seen:?}");
            }
            // In the order of changes a record comes again when it changes, and none is missed.
            let since = Some(prost_types::Timestamp::default());
            let request = v1::ListCamerasRequest { page_size, updated_since: since, ..cameras("220822000000") };
            let seen = page_through(&s, request.clone(), &writes, &born).await;
            let now = page_through(&s, v1::ListCamerasRequest { page_size: 1_000, ..request }, &[], &born).await;
            assert!(now.keys().all(|id| seen.contains_key(id)), "{seen:?} of {now:?}");
        });
    }
}

#[tokio::test]
async fn a_page_costs_a_bounded_number_of_records_and_the_list_goes_on() {
    let s = Setting::new().await;
    let items: Vec<v1::UpdateCameraRequest> = (0..450)
        .map(|serial| {
            let name = format!("divisions/220822000000/cameras/{}", camera(serial).device_id());
            let camera = Some(v1::Camera { name, ..camera(serial) });
            v1::UpdateCameraRequest { camera, allow_missing: true, ..Default::default() }
        })
        .collect();
    let parent = "divisions/220822000000".to_owned();
    let request = v1::BatchWriteCamerasRequest { parent, requests: items };
    s.cameras.batch_write_cameras(partner(request)).await.unwrap();
    // Nobody has this ownership: the first page ends before all were looked at.
    let ownerships = vec![v1::CameraOwnership::Social.into()];
    let request = v1::ListCamerasRequest { ownerships, page_size: 10, ..cameras("220822000000") };
    let page = s.cameras.list_cameras(partner(request.clone())).await.unwrap().into_inner();
    assert!(page.cameras.is_empty() && !page.next_page_token.is_empty());
    assert!(all_cameras(&s, request).await.is_empty());
}

/// Clients refuse answers beyond 4 MiB, so a page of large records is a short one.
#[tokio::test]
async fn a_page_of_large_records_is_short() {
    let s = Setting::new().await;
    for n in 0..40 {
        let mut request = filing(&format!("{n:02}"), "");
        request.case.as_mut().unwrap().narrative = Some("长".repeat(20_000));
        s.cases.create_case(partner(request)).await.unwrap();
    }
    let mut request = cases("220822000000");
    let (mut seen, mut longest) = (0, 0);
    loop {
        let page = s.cases.list_cases(partner(request.clone())).await.unwrap().into_inner();
        seen += page.cases.len();
        longest = longest.max(prost::Message::encoded_len(&page));
        request.page_token = page.next_page_token;
        if request.page_token.is_empty() {
            break;
        }
    }
    assert_eq!(seen, 40);
    assert!((1 << 20..2 << 20).contains(&longest), "{longest} bytes");
}
