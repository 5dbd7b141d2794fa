//! `guantong where`: at which nodes a record is, in which form since when, and if it is not where it should be, why not.

use std::fmt::Write as _;

use guantong_proto::rules::Kind;
use guantong_proto::v1;

use super::connection::NodeArgs;
use super::report::{Report, table, time};
use super::{json, problem};

const EXAMPLE: &str = "\
  guantong where divisions/220822101000/cases/ID
  guantong where divisions/220822101000/cases/ID --json

Any node that the record concerns can be asked; it asks the others through the links, up to the top and down to the
record's home and to wherever it was handed. For each node: what it holds, by the latest write, and since when. For each
link: whether both ends hold the same, and if not, why: the link is down, the record waits and in which lane, the other
end refused a field. Fields that may go no further up are named; that is as it should be (按规定不上行属正常).
A node that cannot be asked is named with the link that leads to it; nothing is known beyond it.

Exit status 0 where the record is everywhere it should be, 3 where it is not or that is not known
(记录未全部到达或情况未知时退出码为3).";

/// Where is this record, and why is it not where it should be (查询记录到达各级的情况)
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLE)]
pub(crate) struct WhereArgs {
    /// The record's name, such as divisions/220822101000/cases/ID
    name: String,
    #[command(flatten)]
    pub(crate) node: NodeArgs,
}

pub(crate) async fn run(args: &WhereArgs) -> anyhow::Result<Report> {
    let kind = json::kind_of(&args.name)?;
    let mut assurance = args.node.connect().await?.assurance();
    let request = v1::LocateRecordRequest { name: args.name.clone() };
    let response = assurance.locate_record(request).await.map_err(problem::plain)?.into_inner();
    let json = json::of_message("guantong.v1.LocateRecordResponse", &response)?;
    let report = Report::done(text(kind, &response), json);
    Ok(report.needs_attention(response.state() != v1::LocateState::Everywhere))
}

fn text(kind: &Kind, response: &v1::LocateRecordResponse) -> String {
    let verdict = match response.state() {
        v1::LocateState::Everywhere => "it is everywhere it should be 已全部到达",
        v1::LocateState::OnItsWay => "it is on its way 在途",
        v1::LocateState::Refused => "a node refused part of it 部分内容被拒绝",
        v1::LocateState::Unknown | v1::LocateState::Unspecified => {
            "not all nodes could be asked; as far as is known, nothing waits 部分节点未能查询"
        }
    };
    let mut text = format!("{}: {verdict}\n\n", response.name);
    let rows: Vec<[String; 3]> = response.places.iter().map(place).collect();
    text.push_str(&table(["node 节点", "latest write that it holds 持有的最新写入", "since 自"], &rows));
    for place in response.places.iter().filter(|place| place.answer() != v1::NodeAnswer::Given) {
        let _ = writeln!(text, "  {} {}", place.division, not_asked(place));
    }
    text.push('\n');
    for one in &response.links {
        link(&mut text, kind, one);
    }
    text.push_str(&claims(&response.places));
    if response.truncated {
        text.push_str(
            "there is more than one answer holds; ask at a node below (结果过多，请在下级节点查询)\n",
        );
    }
    text
}

fn place(place: &v1::RecordPlace) -> [String; 3] {
    let holds = match (&place.version, place.held) {
        (Some(version), _) => {
            format!("{} by {}", time(version.write_time.as_ref()), version.writer_division)
        }
        (None, true) => "nothing that stands 无有效内容".to_owned(),
        (None, false) if place.answer() == v1::NodeAnswer::Given => "does not have it 没有".to_owned(),
        (None, false) => "not known 未知".to_owned(),
    };
    let node = format!("{} {}", place.division, place.display_name);
    [node, holds, time(place.update_time.as_ref())]
}

/// Why a node did not speak for itself.
pub(super) fn not_asked(place: &v1::RecordPlace) -> String {
    unanswered(place.answer(), place.since_time.as_ref(), &place.reason)
}

/// Why a node did not speak for itself.
pub(super) fn unanswered(
    answer: v1::NodeAnswer,
    since: Option<&prost_types::Timestamp>,
    reason: &str,
) -> String {
    let what = match answer {
        v1::NodeAnswer::NotLinked => "could not be asked 未能查询",
        v1::NodeAnswer::Silent => "did not answer 未答复",
        v1::NodeAnswer::Busy => "was too busy to ask 繁忙",
        v1::NodeAnswer::Refused => "does not answer this 拒绝答复",
        v1::NodeAnswer::Failed => "cannot say now 暂不能答复",
        v1::NodeAnswer::Given | v1::NodeAnswer::Unspecified => "answered 已答复",
    };
    match time(since) {
        none if none.is_empty() => format!("{what}: {reason}"),
        since => format!("{what} since 自 {since}: {reason}"),
    }
}

fn link(text: &mut String, kind: &Kind, link: &v1::RecordLink) {
    let named = |names: &[String]| names.iter().map(|n| field(kind, n)).collect::<Vec<_>>().join(", ");
    let state = match link.state() {
        v1::RecordLinkState::Same => "the same at both ends 两端一致".to_owned(),
        v1::RecordLinkState::Differs => format!("differs in 不一致: {}", named(&link.differing_fields)),
        v1::RecordLinkState::HeldBack => "nothing of it may go up 按规定全部不上行".to_owned(),
        v1::RecordLinkState::Unknown | v1::RecordLinkState::Unspecified => {
            "not known: one end could not be asked 未知".to_owned()
        }
    };
    let _ = writeln!(text, "{} → {}  {state}", link.child_division, link.parent_division);
    let ends = [
        (&link.child, &link.child_division, &link.parent_division),
        (&link.parent, &link.parent_division, &link.child_division),
    ];
    for (end, at, to) in ends {
        if let Some(end) = end {
            one_end(text, kind, end, at, to);
        }
    }
}

/// What keeps a record at one end of a link.
fn one_end(text: &mut String, kind: &Kind, end: &v1::RecordLinkEnd, at: &str, to: &str) {
    if !end.linked {
        let since = match time(end.link_time.as_ref()) {
            none if none.is_empty() => "not linked since its start 启动后未连接".to_owned(),
            since => format!("the link is down since 链路中断，自 {since}"),
        };
        let why = if end.last_error.is_empty() { String::new() } else { format!(": {}", end.last_error) };
        let _ = writeln!(text, "    {at}: {since}{why}");
    }
    // Equal, or not known for want of a link: both were said.
    let unequal = end.equality.as_ref().filter(|all| end.linked && all.state() != v1::EqualityState::Equal);
    if let Some(all) = unequal {
        let why = &all.reason;
        let _ =
            writeln!(text, "    {at}: the link as a whole is not verified equal 整条链路未核对一致: {why}");
    }
    if end.waiting_since_time.is_some() {
        let lane = match end.waiting_lane() {
            v1::Lane::Urgent => "urgent 紧急",
            v1::Lane::Normal => "normal 普通",
            v1::Lane::Bulk | v1::Lane::Unspecified => "bulk 批量",
        };
        let since = time(end.waiting_since_time.as_ref());
        let _ = writeln!(
            text,
            "    {at}: waits for {to} since 待发，自 {since}, lane 通道 {lane}; {} wait in all 共待发",
            end.backlog_count
        );
    }
    for refused in &end.refused {
        let what = if refused.field_name.is_empty() {
            "the record 整条".to_owned()
        } else {
            field(kind, &refused.field_name)
        };
        let next = match time(refused.retry_time.as_ref()) {
            none if none.is_empty() => "within the hour 一小时内".to_owned(),
            next => next,
        };
        let _ = writeln!(
            text,
            "    {at}: {to} refused 拒绝 {what} at {}: {}; next try 下次重试 {next}",
            time(refused.create_time.as_ref()),
            refused.reason
        );
    }
    if !end.held_back.is_empty() {
        let kept = end
            .held_back
            .iter()
            .map(|kept| format!("{} ({})", field(kind, &kept.field_name), limit(kept.release())));
        let _ = writeln!(
            text,
            "    held back by release, as it should be 按规定不上行: {}",
            kept.collect::<Vec<_>>().join(", ")
        );
    }
}

/// Up to which tier a field goes.
fn limit(tier: v1::Tier) -> &'static str {
    match tier {
        v1::Tier::Township => "up to the township 至乡级",
        v1::Tier::County => "up to the county 至县级",
        v1::Tier::Prefecture => "up to the prefecture 至地级",
        v1::Tier::Province => "up to the province 至省级",
        v1::Tier::Unspecified => "its rule is not known to this node's program 程序未知",
    }
}

/// A field's name with its Chinese label.
fn field(kind: &Kind, name: &str) -> String {
    let known = kind.fields.iter().find(|field| field.name == name);
    known.map_or_else(|| name.to_owned(), |field| format!("{name} {}", field.label))
}

/// To when the highest node that answered was told that everything from the record's home is out.
fn claims(places: &[v1::RecordPlace]) -> String {
    let highest = places.iter().find(|place| place.claim_time.is_some());
    highest.map_or_else(String::new, |place| {
        format!(
            "\n{} was told that everything of the record's home left it up to 本级收到的报送截至 {}\n",
            place.division,
            time(place.claim_time.as_ref())
        )
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const NAME: &str = "divisions/220822101000/cases/1";

    fn at(seconds: i64) -> Option<prost_types::Timestamp> {
        Some(prost_types::Timestamp { seconds, nanos: 0 })
    }

    fn shown(response: &v1::LocateRecordResponse) -> String {
        text(json::kind_of(NAME).unwrap(), response)
    }

    /// A record that the township and the county have, and that cannot go on.
    fn waiting() -> v1::LocateRecordResponse {
        let version =
            Some(v1::RecordVersion { write_time: at(1_795_000_000), writer_division: "220822101000".into() });
        let county = v1::RecordPlace {
            division: "220822000000".into(),
            answer: v1::NodeAnswer::Given.into(),
            held: true,
            version,
            update_time: at(1_795_000_001),
            ..v1::RecordPlace::default()
        };
        let prefecture = v1::RecordPlace {
            division: "220800000000".into(),
            answer: v1::NodeAnswer::NotLinked.into(),
            reason: "nothing listens there".into(),
            since_time: at(1_795_000_002),
            ..v1::RecordPlace::default()
        };
        let held_back =
            v1::HeldBackField { field_name: "parties".into(), release: v1::Tier::Township.into() };
        let refused = v1::RefusedField {
            field_name: "title".into(),
            reason: "TOO_LARGE: cut it".into(),
            create_time: at(1_795_000_000),
            ..Default::default()
        };
        let end = v1::RecordLinkEnd {
            link_time: at(1_795_000_002),
            last_error: "connection refused".into(),
            waiting_lane: v1::Lane::Urgent.into(),
            waiting_since_time: at(1_795_000_003),
            backlog_count: 5,
            held_back: vec![held_back],
            refused: vec![refused],
            ..v1::RecordLinkEnd::default()
        };
        let link = v1::RecordLink {
            child_division: "220822000000".into(),
            parent_division: "220800000000".into(),
            state: v1::RecordLinkState::Unknown.into(),
            child: Some(end),
            ..v1::RecordLink::default()
        };
        v1::LocateRecordResponse {
            name: NAME.into(),
            state: v1::LocateState::OnItsWay.into(),
            places: vec![prefecture, county],
            links: vec![link],
            ..v1::LocateRecordResponse::default()
        }
    }

    #[test]
    fn it_says_who_has_it_and_why_it_goes_no_further() {
        let text = shown(&waiting());
        for part in [
            "on its way 在途",
            "by 220822101000",
            "could not be asked 未能查询 since 自 2026-11-18",
            "nothing listens there",
            "the link is down since 链路中断，自 2026-11-18",
            "connection refused",
            "urgent 紧急",
            "5 wait in all",
            "refused 拒绝 title 标题",
            "TOO_LARGE: cut it; next try 下次重试 within the hour",
            "parties 当事人 (up to the township 至乡级)",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }

    #[test]
    fn what_is_everywhere_says_only_that() {
        let mut response = waiting();
        response.state = v1::LocateState::Everywhere.into();
        response.places.remove(0);
        response.places[0].claim_time = at(1_795_000_009);
        response.links[0].state = v1::RecordLinkState::Same.into();
        let equal = v1::LinkEquality { state: v1::EqualityState::Equal.into(), ..Default::default() };
        let end = v1::RecordLinkEnd { linked: true, equality: Some(equal), ..Default::default() };
        response.links[0].child = Some(end.clone());
        let text = shown(&response);
        assert!(text.contains("everywhere") && text.contains("the same at both ends"), "{text}");
        assert!(text.contains("was told that everything"), "{text}");
        for part in ["waits", "down", "refused", "held back", "not verified"] {
            assert!(!text.contains(part), "{part}: {text}");
        }
        let differs = v1::LinkEquality { reason: "7 records differ".into(), ..Default::default() };
        response.links[0].child = Some(v1::RecordLinkEnd { equality: Some(differs), ..end });
        let text = shown(&response);
        assert!(text.contains("not verified equal 整条链路未核对一致: 7 records differ"), "{text}");
    }
}
