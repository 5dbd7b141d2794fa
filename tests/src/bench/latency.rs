//! How long one change takes from the township to the province, on an idle tree.

use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result};
use guantong_proto::v1;
use prost::Message;

use super::{Chain, quantile};

/// Changes that are made before anything is measured.
const WARM_UP: u32 = 20;

/// Writes a case's risk at the township, one change after the other, and asks the province until it shows it.
pub async fn run(program: &Path, changes: u32) -> Result<serde_json::Value> {
    let chain = Chain::start(program).await?;
    let township = chain.tree.client(chain.township())?;
    let province = chain.tree.client(chain.province())?;
    let name = format!("divisions/{}/cases/latency", chain.township());
    let mut write_ms = Vec::new();
    let mut arrive_ms = Vec::new();
    for change in 0..changes + WARM_UP {
        let case = v1::Case { amount_yuan: Some(i64::from(change)), ..case(change) };
        let begun = Instant::now();
        let request = v1::WriteRecordRequest {
            record: Some(v1::Record {
                name: name.clone(),
                fields: case.encode_to_vec().into(),
                ..v1::Record::default()
            }),
            ..v1::WriteRecordRequest::default()
        };
        township.records().write_record(request).await?;
        let written = begun.elapsed();
        let waiting = async {
            loop {
                let get = v1::GetRecordRequest { name: name.clone() };
                let found = province.records().get_record(get).await.ok().map(tonic::Response::into_inner);
                let found = found.and_then(|r| v1::Case::decode(r.fields).ok());
                if found.is_some_and(|c| c.occurred_on == case.occurred_on) {
                    return;
                }
            }
        };
        tokio::time::timeout(std::time::Duration::from_secs(30), waiting)
            .await
            .context("a change did not arrive in 30 s")?;
        if change >= WARM_UP {
            write_ms.push(written.as_secs_f64() * 1e3);
            arrive_ms.push(begun.elapsed().as_secs_f64() * 1e3);
        }
    }
    Ok(serde_json::json!({
        "changes": changes,
        "write_median_ms": quantile(&mut write_ms, 0.5),
        "arrive_median_ms": quantile(&mut arrive_ms, 0.5),
        "arrive_p99_ms": quantile(&mut arrive_ms, 0.99),
        "peak_rss_mib": chain.peak_mib(),
        "synchronous": "FULL",
    }))
}

/// A case whose date says which change it is: released to the province.
fn case(change: u32) -> v1::Case {
    let date = v1::Date {
        year: 2000 + (change / 336) as i32,
        month: (change / 28 % 12 + 1) as i32,
        day: (change % 28 + 1) as i32,
    };
    v1::Case { occurred_on: Some(date), ..v1::Case::default() }
}
