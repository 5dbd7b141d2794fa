//! What a page of a list costs, near the beginning of the list and near its end.

use std::time::Instant;

use anyhow::Result;
use guantong::demo::tree::Tree;
use guantong_gateway::division::Division;
use guantong_proto::v1;
use guantong_proto::v1::camera_service_client::CameraServiceClient;
use guantong_proto::v1::case_service_client::CaseServiceClient;

use super::super::quantile;

/// Records of a page.
const PAGE_SIZE: i32 = 100;
/// Pages read of each list at most.
const PAGES_MAX: usize = 12_000;
/// The largest answer that is taken.
const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;

/// One page, gone through: how many records it had and the token of the next one.
type Page = (usize, String);

/// Goes through lists of the province to their ends, a hundred records a page.
pub(super) async fn walk(tree: &Tree, province: Division) -> Result<serde_json::Value> {
    let channel = tree.client(province)?.channel();
    let cameras = CameraServiceClient::new(channel.clone()).max_decoding_message_size(ANSWER_BYTES_MAX);
    let cases = CaseServiceClient::new(channel).max_decoding_message_size(ANSWER_BYTES_MAX);
    let parent = || format!("divisions/{province}");
    let all = || v1::ListCamerasRequest { parent: parent(), page_size: PAGE_SIZE, ..Default::default() };
    let off = vec![v1::CameraState::Off.into()];
    let camera_lists = [
        ("cameras", all()),
        (
            "cameras_updated_since",
            v1::ListCamerasRequest { updated_since: Some(Default::default()), ..all() },
        ),
        ("cameras_off", v1::ListCamerasRequest { states: off, ..all() }),
    ];
    let all = || v1::ListCasesRequest { parent: parent(), page_size: PAGE_SIZE, ..Default::default() };
    let accepted = vec![v1::CaseState::Accepted.into()];
    let case_lists = [
        ("cases", all()),
        ("cases_accepted", v1::ListCasesRequest { states: accepted.clone(), ..all() }),
        ("cases_of_category", v1::ListCasesRequest { categories: vec!["land".into()], ..all() }),
        (
            "cases_accepted_of_category",
            v1::ListCasesRequest { states: accepted, categories: vec!["land".into()], ..all() },
        ),
        ("cases_of_holder", v1::ListCasesRequest { holder: province.to_string(), ..all() }),
    ];
    let mut report = serde_json::Map::new();
    for (name, request) in camera_lists {
        let page = async |page_token: String| -> Result<Page> {
            let request = v1::ListCamerasRequest { page_token, ..request.clone() };
            let answer = cameras.clone().list_cameras(request).await?.into_inner();
            Ok((answer.cameras.len(), answer.next_page_token))
        };
        report.insert(name.into(), measure(page).await?);
    }
    for (name, request) in case_lists {
        let page = async |page_token: String| -> Result<Page> {
            let request = v1::ListCasesRequest { page_token, ..request.clone() };
            let answer = cases.clone().list_cases(request).await?.into_inner();
            Ok((answer.cases.len(), answer.next_page_token))
        };
        report.insert(name.into(), measure(page).await?);
    }
    Ok(report.into())
}

/// Milliseconds of all pages, and of the last hundred.
async fn measure(page: impl AsyncFn(String) -> Result<Page>) -> Result<serde_json::Value> {
    let (mut took_ms, mut records, mut token) = (Vec::new(), 0, String::new());
    while took_ms.len() < PAGES_MAX {
        let begun = Instant::now();
        let (count, next) = page(token).await?;
        took_ms.push(begun.elapsed().as_secs_f64() * 1e3);
        (records, token) = (records + count, next);
        if token.is_empty() {
            break;
        }
    }
    let mut last: Vec<f64> = took_ms.iter().rev().take(100).copied().collect();
    Ok(serde_json::json!({
        "records": records,
        "pages": took_ms.len(),
        "median_ms": quantile(&mut took_ms, 0.5),
        "p99_ms": quantile(&mut took_ms, 0.99),
        "last_pages_median_ms": quantile(&mut last, 0.5),
        "last_pages_p99_ms": quantile(&mut last, 0.99),
    }))
}
