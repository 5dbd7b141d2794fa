//! `guantong status`: a node at a glance.

use std::fmt::Write as _;

use guantong_proto::v1;

use super::connection::NodeArgs;
use super::report::{Report, table, time};
use super::{completeness, fleet, json, problem, recovery};

mod bundles;

/// Refused connections shown to people.
const REFUSED_SHOWN_MAX: usize = 5;

const EXIT: &str = "\
Exit status 3 where something needs a person: a link that is down, a conflict, something in quarantine, a warning,
a store that does not answer.";

/// Show the node's links, queues, conflicts and warnings (查看节点状态)
#[derive(Debug, clap::Args)]
#[command(after_help = EXIT)]
pub(crate) struct StatusArgs {
    /// Every node below and this one, as each said of itself last (列出下级全部节点)
    #[arg(long)]
    fleet: bool,
    #[command(flatten)]
    pub(crate) node: NodeArgs,
}

pub(crate) async fn run(args: &StatusArgs) -> anyhow::Result<Report> {
    let client = args.node.connect().await?;
    if args.fleet {
        return fleet::run(&client).await;
    }
    let mut node = client.node();
    let status = node.get_status(v1::GetStatusRequest {}).await.map_err(problem::plain)?.into_inner();
    let report = Report::done(text(&status), json::of_message("guantong.v1.Status", &status)?);
    Ok(report.needs_attention(needs_attention(&status)))
}

fn needs_attention(status: &v1::Status) -> bool {
    status.conflict_count + status.quarantined_count + status.held_count > 0
        || !status.warnings.is_empty()
        || status.store_outage.is_some()
        || status.recovery.as_ref().is_some_and(|recovery| recovery.end_time.is_none())
        || status.links.iter().any(|link| !link.connected && link.bundles.is_none())
        || status.links.iter().any(|link| link.bundles.as_ref().is_some_and(|bundles| bundles.peer_restored))
        || status.completeness.as_ref().is_some_and(completeness::is_late)
}

fn text(status: &v1::Status) -> String {
    let mut text = String::new();
    let _ = writeln!(
        text,
        "{} {} ({}), guantong {}, up since {}",
        status.division,
        status.display_name,
        status.tier,
        status.software_version,
        time(status.start_time.as_ref())
    );
    match &status.store_outage {
        Some(outage) => away(&mut text, outage),
        None => held(&mut text, status),
    }
    if !status.store.is_empty() {
        let _ = writeln!(text, "store 存储: {}", status.store);
    }
    if status.certificate_expire_time.is_some() {
        let _ = writeln!(
            text,
            "certificate valid to 证书有效期至 {}",
            time(status.certificate_expire_time.as_ref())
        );
    }
    text.push_str(&complete(status));
    text.push_str(&claimed(status));
    if let Some(recovered) = &status.recovery {
        text.push_str(&recovery::text(recovered));
    }
    text.push('\n');
    if status.links.is_empty() {
        text.push_str("no links: no parent is configured, and no node below has connected yet (暂无链路)\n");
    } else {
        let answers = status.store_outage.is_none();
        let rows: Vec<[String; 7]> = status.links.iter().map(|link| row(link, answers)).collect();
        text.push_str(&table(
            [
                "link 链路",
                "peer 对端",
                "state 状态",
                "to send 待发 (u/n/b)",
                "sent 已发",
                "received 已收",
                "held 隔离",
            ],
            &rows,
        ));
        for link in &status.links {
            trouble(&mut text, link);
        }
    }
    for refused in status.refused_connections.iter().take(REFUSED_SHOWN_MAX) {
        let at = time(refused.time.as_ref());
        let _ = writeln!(text, "refused connection 拒绝的连接: {at} {} {}", refused.address, refused.reason);
    }
    for warning in &status.warnings {
        let _ = writeln!(text, "warning 警告: {warning}");
    }
    text
}

/// How much the node holds.
fn held(text: &mut String, status: &v1::Status) {
    let _ = writeln!(
        text,
        "records 记录 {}, conflicts 冲突 {}, quarantined 隔离 {}, held 待定 {}, store 存储 {}",
        status.record_count,
        status.conflict_count,
        status.quarantined_count,
        status.held_count,
        bytes(status.store_bytes)
    );
}

/// Why nothing is known of that.
fn away(text: &mut String, outage: &v1::StoreOutage) {
    let since = time(outage.start_time.as_ref());
    let _ = writeln!(text, "THE STORE IS AWAY 数据存储不可用 since 自 {since}: {}", outage.reason);
    text.push_str("records, conflicts and backlogs are not known until it is back (恢复前无法统计)\n");
}

/// To when everything from below is in; nothing, where nobody is below.
fn complete(status: &v1::Status) -> String {
    let has_children = status.links.iter().any(|link| !link.peer_is_parent);
    let below = status.completeness.as_ref().filter(|_| has_children);
    below.map(completeness::text).unwrap_or_default()
}

/// To when everything that was written here has left for the parent, with receipts; nothing, where there is none.
fn claimed(status: &v1::Status) -> String {
    let parent = status.links.iter().find(|link| link.peer_is_parent);
    parent.map_or_else(String::new, |parent| match time(parent.claim_time.as_ref()) {
        none if none.is_empty() => {
            "delivered to the parent up to 已送达上级至 not known yet 尚未知\n".to_owned()
        }
        through => format!("delivered to the parent up to 已送达上级至 {through}\n"),
    })
}

fn row(link: &v1::LinkStatus, store_answers: bool) -> [String; 7] {
    let direction = if link.peer_is_parent { "↑ parent 上级" } else { "↓ child 下级" };
    let since = time(link.connect_time.as_ref());
    let state = match (link.connected, since.as_str()) {
        (true, since) => format!("up 已连接 since {since}"),
        (false, "") => "never linked 从未连接".to_owned(),
        (false, since) => format!("down 已断开 since {since}"),
    };
    let state = match &link.bundles {
        Some(state) if !link.connected => bundles::short(state),
        _ => state,
    };
    let to_send = match store_answers {
        true => format!("{}/{}/{}", link.urgent_backlog, link.normal_backlog, link.bulk_backlog),
        false => "?".to_owned(),
    };
    [
        direction.to_owned(),
        format!("{} {}", link.peer_division, link.peer_name),
        state,
        to_send,
        link.sent_records.to_string(),
        link.received_records.to_string(),
        if store_answers { link.quarantined_count.to_string() } else { "?".to_owned() },
    ]
}

/// Why a link is down, and what is done about it.
fn trouble(text: &mut String, link: &v1::LinkStatus) {
    if let Some(state) = &link.bundles {
        let _ = writeln!(text, "  {} {}", link.peer_division, bundles::long(state));
    }
    if link.stripped_fields > 0 {
        let _ = writeln!(
            text,
            "  {} sent {} fields that this tier may not hold; they were left out, and it was told (剔除越级字段)",
            link.peer_division, link.stripped_fields
        );
    }
    if !link.last_error.is_empty() {
        let when = time(link.last_error_time.as_ref());
        let what = if link.connected { "last trouble 上次故障" } else { "trouble 故障" };
        let _ = writeln!(text, "  {} {what} {when}: {}", link.peer_division, link.last_error);
    }
    if link.connected {
        return;
    }
    if link.attempt_count > 0 {
        let next = match time(link.next_attempt_time.as_ref()) {
            next if next.is_empty() => "trying now 正在重试".to_owned(),
            next => format!("next try 下次重试 {next}"),
        };
        let _ = writeln!(
            text,
            "  {} {} attempts 次尝试 at {}, {next}",
            link.peer_division, link.attempt_count, link.address
        );
    }
    if let Some(oldest) = &link.oldest_owed_time {
        let _ = writeln!(text, "  {} oldest to send 最早待发 {}", link.peer_division, time(Some(oldest)));
    }
}

fn bytes(count: u64) -> String {
    const KIB: u64 = 1024;
    match count {
        0..1_048_576 => format!("{} KiB", count.div_ceil(KIB)),
        1_048_576..1_073_741_824 => format!("{:.1} MiB", count as f64 / (KIB * KIB) as f64),
        _ => format!("{:.1} GiB", count as f64 / (KIB * KIB * KIB) as f64),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(connected: bool) -> v1::LinkStatus {
        v1::LinkStatus {
            peer_division: "220822000000".to_owned(),
            peer_is_parent: true,
            connected,
            attempt_count: 3,
            last_error: "nothing listens there".to_owned(),
            address: "county.example:7443".to_owned(),
            next_attempt_time: Some(prost_types::Timestamp { seconds: 1_795_000_000, nanos: 0 }),
            ..v1::LinkStatus::default()
        }
    }

    #[test]
    fn a_link_that_is_down_says_why_and_when_it_is_tried_again() {
        let status = v1::Status { links: vec![link(false)], ..v1::Status::default() };
        let text = text(&status);
        for part in ["never linked", "nothing listens there", "3 attempts", "county.example:7443", "next try"]
        {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(needs_attention(&status));
    }

    #[test]
    fn a_link_that_is_up_needs_nobody() {
        let status = v1::Status { links: vec![link(true)], ..v1::Status::default() };
        assert!(!needs_attention(&status));
        assert!(!text(&status).contains("next try"));
        assert!(needs_attention(&v1::Status { held_count: 1, ..v1::Status::default() }));
    }

    #[test]
    fn it_says_to_when_everything_has_left() {
        let mut status = v1::Status { links: vec![link(true)], ..v1::Status::default() };
        assert!(text(&status).contains("已送达上级至 not known yet"));
        status.links[0].claim_time = Some(prost_types::Timestamp { seconds: 1_795_000_000, nanos: 0 });
        assert!(text(&status).contains("已送达上级至 2026-11-18"));
        status.links[0].peer_is_parent = false;
        assert!(!text(&status).contains("已送达上级"), "nobody is above");
    }

    #[test]
    fn it_says_to_when_everything_is_in_and_who_is_behind() {
        let at = |seconds| Some(prost_types::Timestamp { seconds, nanos: 0 });
        let behind = v1::IncompleteDivision {
            division: "220822101000".to_owned(),
            display_name: "瞻榆镇".to_owned(),
            state: v1::CompletenessState::Behind.into(),
            incomplete_since_time: at(1_795_000_000),
            ..v1::IncompleteDivision::default()
        };
        let not_linked =
            v1::IncompleteDivision { state: v1::CompletenessState::NotLinked.into(), ..Default::default() };
        let complete = v1::Completeness {
            complete_through_time: at(1_795_000_000),
            incomplete: vec![not_linked, behind],
            ..v1::Completeness::default()
        };
        let child = v1::LinkStatus { peer_is_parent: false, ..link(true) };
        let status = v1::Status { links: vec![child], completeness: Some(complete), ..v1::Status::default() };
        let text = text(&status);
        for part in ["complete to 数据完整至 2026-", "1 divisions without a node", "瞻榆镇 behind since"]
        {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(needs_attention(&status));
    }

    #[test]
    fn a_store_that_is_away_is_said_with_the_reason_and_nothing_is_called_zero() {
        let outage = v1::StoreOutage {
            start_time: Some(prost_types::Timestamp { seconds: 1_795_000_000, nanos: 0 }),
            reason: "connection refused".to_owned(),
        };
        let status =
            v1::Status { store_outage: Some(outage), links: vec![link(true)], ..v1::Status::default() };
        let text = text(&status);
        for part in ["AWAY 数据存储不可用 since 自 2026-11-18", "connection refused", "?"] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(!text.contains("0/0/0") && !text.contains("records 记录 0"), "{text}");
        assert!(needs_attention(&status));
    }

    #[test]
    fn sizes_are_short() {
        assert_eq!([bytes(1), bytes(5 << 20), bytes(3 << 30)], ["1 KiB", "5.0 MiB", "3.0 GiB"]);
    }
}
