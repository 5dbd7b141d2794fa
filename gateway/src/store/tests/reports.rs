//! Issued reports: kept as they were, listed with the latest first, each number given once.

use super::*;
use crate::ingest::changes::{LinkChange, ReportKey, ReportRow};
use crate::store::ReportHead;

fn report(code: &str, period: &str, issue: u32, issued_ms: u64) -> ReportRow {
    let key = ReportKey { division: division(code), period: period.into(), issue };
    let content = Bytes::from(format!("{code} {period} {issue}"));
    ReportRow { key, issued_ms, issued_by: "li.wei".into(), as_of_ms: issued_ms - 1, content }
}

pub(super) async fn reports_are_kept_and_listed(place: &impl Place) {
    let (store, mut writer) = place.opened().await;
    let rows = [
        report("220822", "2026-10", 1, 50),
        report("220822101", "2026-10", 1, 50),
        report("220822", "2026-10", 2, 70),
        report("220822", "2026-09", 1, 60),
        report("220881", "2026-10", 1, 80),
    ];
    for row in &rows {
        writer.apply(&Changes::default(), &[LinkChange::Report(row.clone())], 1).await.unwrap();
    }
    assert_eq!(store.report(&rows[2].key).await.unwrap(), Some(rows[2].content.clone()));
    assert_eq!(store.report(&ReportKey { issue: 3, ..rows[2].key.clone() }).await.unwrap(), None);
    assert_eq!(store.report_issues(division("220822"), "2026-10").await.unwrap(), 2);
    assert_eq!(store.report_issues(division("220822"), "2026-11").await.unwrap(), 0);

    let county = division("220822");
    let listed = async |period: &str, after: Option<&ReportHead>, limit| {
        store.reports(county, period, after, limit).await.unwrap()
    };
    let ids = |heads: &[ReportHead]| -> Vec<(u64, String, u32)> {
        let id = |h: &ReportHead| (h.key.division.code() / 1_000, h.key.period.clone(), h.key.issue);
        heads.iter().map(id).collect()
    };
    let all = listed("", None, 9).await;
    let expected = [
        (220_822_000, "2026-10".to_owned(), 2),
        (220_822_000, "2026-09".to_owned(), 1),
        (220_822_000, "2026-10".to_owned(), 1),
        (220_822_101, "2026-10".to_owned(), 1),
    ];
    assert_eq!(ids(&all), expected, "the other county's is not among them");
    assert_eq!((all[0].issued_by.as_str(), all[0].as_of_ms), ("li.wei", 69));
    let mut paged = Vec::new();
    loop {
        let page = listed("", paged.last(), 1).await;
        if page.is_empty() {
            break;
        }
        paged.extend(page);
    }
    assert_eq!(paged, all, "page by page the same");
    assert_eq!(listed("2026-10", None, 9).await.len(), 3);
}

pub(super) async fn the_number_of_a_report_is_given_once(place: &impl Place) {
    let (store, mut writer) = place.opened().await;
    let first = report("220822", "2026-10", 1, 50);
    writer.apply(&Changes::default(), &[LinkChange::Report(first.clone())], 1).await.unwrap();
    let other = ReportRow { content: Bytes::from("other"), ..first.clone() };
    let refused = writer.apply(&Changes::default(), &[LinkChange::Report(other)], 1).await;
    assert!(matches!(refused, Err(StoreError::Stale)), "{refused:?}");
    assert_eq!(store.report(&first.key).await.unwrap(), Some(first.content), "what was issued stays");
}
