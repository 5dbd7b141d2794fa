//! `guantong status --fleet`: what every node below said of itself last, as it is known at this one.

use std::collections::HashMap;

use guantong_proto::v1;
use prost::Message as _;
use prost_types::Timestamp;
use serde_json::{Value, json};

use super::report::{Report, table, time};
use super::{json as messages, pages, problem};
use crate::client::Client;

/// A node, as it described itself.
struct Said {
    division: String,
    node: v1::Node,
    /// When it last wrote anything of this.
    at: Option<Timestamp>,
}

/// Lists the fleet. Needs attention where a node is late, or could not link when it last said something.
pub(super) async fn run(client: &Client) -> anyhow::Result<Report> {
    let status =
        client.node().get_status(v1::GetStatusRequest {}).await.map_err(problem::plain)?.into_inner();
    let complete = status.completeness.unwrap_or_default();
    let late: HashMap<&str, &v1::IncompleteDivision> =
        complete.incomplete.iter().map(|i| (i.division.as_str(), i)).collect();
    let said = list(client, &status.division).await?;
    let rows: Vec<[String; 7]> = said.iter().map(|said| row(said, late.get(&*said.division))).collect();
    let header = [
        "node 节点",
        "version 版本",
        "complete 数据",
        "to send 待发 (u/n/b)",
        "linked since 连通自",
        "certificate to 证书至",
        "said 上报时间",
    ];
    let nodes: Vec<Value> = said.iter().map(entry).collect::<anyhow::Result<_>>()?;
    let report = Report::done(table(header, &rows), json!({ "nodes": nodes }));
    let behind = |said: &Said| late.contains_key(&*said.division);
    Ok(report.needs_attention(said.iter().any(behind)))
}

async fn list(client: &Client, own: &str) -> anyhow::Result<Vec<Said>> {
    let mut said = Vec::new();
    pages::records(client, "node", own, false, |record| {
        said.extend(read(record));
        Ok(())
    })
    .await?;
    Ok(said)
}

fn read(record: v1::Record) -> Option<Said> {
    let division = record.name.split('/').nth(1)?.to_owned();
    let at = record.origins.iter().filter_map(|o| o.write_time).max_by_key(|at| (at.seconds, at.nanos));
    Some(Said { division, node: v1::Node::decode(record.fields).ok()?, at })
}

fn row(said: &Said, late: Option<&&v1::IncompleteDivision>) -> [String; 7] {
    let node = &said.node;
    let complete = match late {
        None => "current 及时".to_owned(),
        Some(late) => format!("behind since 滞后，自 {}", time(late.incomplete_since_time.as_ref())),
    };
    let backlog = node.backlog.map_or_else(String::new, |b| {
        format!("{}/{}/{}", b.urgent.unwrap_or(0), b.normal.unwrap_or(0), b.bulk.unwrap_or(0))
    });
    [
        said.division.clone(),
        node.software_version().to_owned(),
        complete,
        backlog,
        linked(node),
        time(node.certificate_expire_time.as_ref()),
        time(said.at.as_ref()),
    ]
}

/// When it last linked; where it exchanges by files, how far these have come.
fn linked(node: &v1::Node) -> String {
    let Some(bundles) = &node.parent_bundles else { return time(node.last_linked_time.as_ref()) };
    let sent = format!("bundle 数据包 #{} {}", bundles.sent_number(), time(bundles.sent_time.as_ref()));
    match (bundles.one_way(), bundles.confirmed_number()) {
        (true, _) => format!("{sent}, unconfirmed 单向未确认"),
        (false, 0) => format!("{sent}, none confirmed 未确认"),
        (false, number) => format!("{sent}, confirmed 已确认 #{number}"),
    }
}

fn entry(said: &Said) -> anyhow::Result<Value> {
    Ok(json!({
        "division": said.division,
        "node": messages::of_message("guantong.v1.Node", &said.node)?,
        "write_time": time(said.at.as_ref()),
    }))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_shown_as_it_said_with_how_far_it_is_behind() {
        let node = v1::Node {
            software_version: Some("1.2.3".to_owned()),
            backlog: Some(v1::Backlog { urgent: Some(1), normal: None, bulk: Some(7) }),
            ..v1::Node::default()
        };
        let origin = |seconds| v1::FieldOrigin {
            write_time: Some(Timestamp { seconds, nanos: 0 }),
            ..v1::FieldOrigin::default()
        };
        let record = v1::Record {
            name: "divisions/220822101000/nodes/node".to_owned(),
            fields: node.encode_to_vec().into(),
            origins: vec![origin(1_795_000_000), origin(5)],
            ..v1::Record::default()
        };
        let said = read(record).unwrap();
        let late = v1::IncompleteDivision {
            incomplete_since_time: Some(Timestamp { seconds: 1_795_000_000, nanos: 0 }),
            ..v1::IncompleteDivision::default()
        };
        let shown = row(&said, Some(&&late));
        assert_eq!(
            (shown[0].as_str(), shown[1].as_str(), shown[3].as_str()),
            ("220822101000", "1.2.3", "1/0/7")
        );
        assert!(shown[2].contains("2026-") && shown[6].starts_with("2026-"), "{shown:?}");
        assert_eq!(row(&said, None)[2], "current 及时");
        assert_eq!(entry(&said).unwrap()["node"]["software_version"], "1.2.3");
    }
}
