//! `guantong verify`: whether both ends of links hold the same, here or in the whole tree below.

use std::collections::BTreeMap;

use guantong_gateway::division::Division;
use guantong_proto::v1;
use serde_json::{Value, json};

use super::connection::NodeArgs;
use super::report::{Report, table, time};
use super::{json as messages, problem, whereabouts};

const EXAMPLE: &str = "\
  guantong verify
  guantong verify --link 220822101
  guantong verify --tree --json

Both ends of each link compare their running checksums now; that costs the same however many records there are. Where
they differ, they find the records that do and send them again, by themselves: ask again a little later, and see
`guantong where RECORD` for one record. What was refused or is still on its way is left out and counted.
With --tree the nodes below compare their links, too. A node that cannot be asked is named with the reason.

Exit status 0 where all links are equal, 3 where one is not, or is not known to be
(有链路不一致或情况未知时退出码为3).";

/// Compare both ends of links and say whether they hold the same (核对链路两端数据是否一致)
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLE)]
pub(crate) struct VerifyArgs {
    /// Only the link to this division, the parent or a child (只核对与该区划的链路)
    #[arg(long, value_name = "DIVISION", conflicts_with = "tree")]
    link: Option<Division>,
    /// The links of all nodes below, too (核对全部下级节点的链路)
    #[arg(long)]
    tree: bool,
    #[command(flatten)]
    pub(crate) node: NodeArgs,
}

/// What all nodes said.
#[derive(Default)]
struct Said {
    nodes: BTreeMap<String, v1::NodeEquality>,
    truncated: bool,
}

pub(crate) async fn run(args: &VerifyArgs) -> anyhow::Result<Report> {
    let mut assurance = args.node.connect().await?.assurance();
    let peer = args.link.map(|division| format!("divisions/{division}")).unwrap_or_default();
    let request = v1::VerifyLinksRequest { peer, tree: args.tree };
    let mut answers = assurance.verify_links(request).await.map_err(problem::plain)?.into_inner();
    let style = indicatif::ProgressStyle::with_template("{spinner} {pos} nodes answered 已答复 ({elapsed})")?;
    let bar = indicatif::ProgressBar::with_draw_target(None, indicatif::ProgressDrawTarget::stderr());
    bar.set_style(style);
    let (mut said, mut done) = (Said::default(), false);
    while let Some(answer) = answers.message().await.map_err(problem::plain)? {
        said.nodes.extend(answer.nodes.into_iter().map(|node| (node.division.clone(), node)));
        said.truncated |= answer.truncated;
        done = answer.done;
        bar.set_position(said.nodes.len() as u64);
    }
    bar.finish_and_clear();
    anyhow::ensure!(done, "the node stopped before all had answered; try again (核对未完成，请重试)");
    let nodes: Result<Vec<Value>, _> =
        said.nodes.values().map(|node| messages::of_message("guantong.v1.NodeEquality", node)).collect();
    let json = json!({ "equal": said.is_equal(), "nodes": nodes?, "truncated": said.truncated });
    Ok(Report::done(said.text(), json).needs_attention(!said.is_equal()))
}

impl Said {
    fn links(&self) -> impl Iterator<Item = &v1::LinkEquality> {
        self.nodes.values().flat_map(|node| &node.links)
    }

    fn unanswered(&self) -> impl Iterator<Item = &v1::NodeEquality> {
        self.nodes.values().filter(|node| node.answer() != v1::NodeAnswer::Given)
    }

    fn is_equal(&self) -> bool {
        let equal = |link: &v1::LinkEquality| link.state() == v1::EqualityState::Equal;
        !self.truncated && self.unanswered().next().is_none() && self.links().all(equal)
    }

    fn text(&self) -> String {
        if self.links().next().is_none() && self.unanswered().next().is_none() {
            return "no links: there is nothing to compare with (暂无链路)\n".to_owned();
        }
        let rows: Vec<[String; 4]> = self.links().map(row).collect();
        let headers = ["link 链路", "state 状态", "last equal 最近一致", "left out 未计入"];
        let mut text = table(headers, &rows);
        for link in self.links().filter(|link| link.state() != v1::EqualityState::Equal) {
            text.push_str(&format!(
                "  {} → {}: {}\n",
                link.child_division, link.parent_division, link.reason
            ));
        }
        for node in self.unanswered() {
            let why = whereabouts::unanswered(node.answer(), node.since_time.as_ref(), &node.reason);
            text.push_str(&format!("  {} {} {why}\n", node.division, node.display_name));
        }
        if self.truncated {
            text.push_str("there are more nodes than one answer holds; ask at nodes below (结果过多，请在下级节点核对)\n");
        }
        let (equal, all) =
            (self.links().filter(|l| l.state() == v1::EqualityState::Equal).count(), rows.len());
        let silent = self.unanswered().count();
        let silent = if silent > 0 {
            format!(", {silent} nodes could not be asked 未能查询")
        } else {
            String::new()
        };
        text.push_str(&format!("\n{equal} of {all} links are equal 一致{silent}\n"));
        text
    }
}

fn row(link: &v1::LinkEquality) -> [String; 4] {
    let state = match link.state() {
        v1::EqualityState::Equal => "equal 一致".to_owned(),
        v1::EqualityState::Differs => format!("{} records differ 条不一致", link.differing_record_count),
        v1::EqualityState::Unconfirmed => "sent, unconfirmed 已发送，未确认".to_owned(),
        v1::EqualityState::Unknown | v1::EqualityState::Unspecified => "not known 未知".to_owned(),
    };
    let last = match time(link.equal_time.as_ref()) {
        none if none.is_empty() => "never 从未".to_owned(),
        last => last,
    };
    let ends = format!("{} → {}", link.child_division, link.parent_division);
    [ends, state, last, link.left_out_count.to_string()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(state: v1::EqualityState) -> v1::LinkEquality {
        v1::LinkEquality {
            child_division: "220822101000".into(),
            parent_division: "220822000000".into(),
            state: state.into(),
            equal_time: Some(prost_types::Timestamp { seconds: 1_795_000_000, nanos: 0 }),
            differing_record_count: 7,
            reason: "sent again (正在补发)".into(),
            left_out_count: 3,
            ..v1::LinkEquality::default()
        }
    }

    fn said(nodes: impl IntoIterator<Item = v1::NodeEquality>) -> Said {
        let nodes = nodes.into_iter().map(|node| (node.division.clone(), node)).collect();
        Said { nodes, truncated: false }
    }

    fn node(links: Vec<v1::LinkEquality>) -> v1::NodeEquality {
        let answer = v1::NodeAnswer::Given.into();
        v1::NodeEquality { division: "220822000000".into(), answer, links, ..v1::NodeEquality::default() }
    }

    #[test]
    fn equal_is_said_only_where_all_links_are() {
        let equal = said([node(vec![link(v1::EqualityState::Equal)])]);
        assert!(equal.is_equal());
        assert!(
            equal.text().contains("equal 一致  2026-11-18") && equal.text().contains("1 of 1"),
            "{}",
            equal.text()
        );
        for state in [v1::EqualityState::Differs, v1::EqualityState::Unknown, v1::EqualityState::Unconfirmed]
        {
            let not = said([node(vec![link(v1::EqualityState::Equal), link(state)])]);
            assert!(!not.is_equal() && not.text().contains("正在补发"), "{}", not.text());
        }
        assert!(!Said { truncated: true, ..said([node(vec![link(v1::EqualityState::Equal)])]) }.is_equal());
        assert!(said([node(vec![])]).text().contains("暂无链路"));
    }

    #[test]
    fn a_node_that_does_not_answer_is_named_with_since_when() {
        let silent = v1::NodeEquality {
            division: "220822101000".into(),
            answer: v1::NodeAnswer::NotLinked.into(),
            reason: "nothing listens there".into(),
            since_time: Some(prost_types::Timestamp { seconds: 1_795_000_000, nanos: 0 }),
            ..v1::NodeEquality::default()
        };
        let said = said([node(vec![link(v1::EqualityState::Differs)]), silent]);
        let text = said.text();
        for part in [
            "7 records differ",
            "220822101000",
            "since 自 2026-11-18",
            "nothing listens",
            "0 of 1",
            "1 nodes",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }
}
