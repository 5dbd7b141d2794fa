//! A store that is filled again, for people: what becomes of it, and what cannot come back.

use std::fmt::Write as _;

use guantong_proto::v1;

use super::report::{table, time};

/// Fields shown to people; `--json` has all.
const LOSSES_SHOWN_MAX: usize = 20;

/// What a node's status says of its last recovery.
pub(super) fn text(recovery: &v1::Recovery) -> String {
    let why = match recovery.cause() {
        v1::RecoveryCause::Emptied => "the store began empty 数据存储为空",
        _ => "the store was put back or copied 数据存储曾恢复或复制",
    };
    let since = time(recovery.start_time.as_ref());
    let mut text = String::new();
    match &recovery.end_time {
        None => {
            let _ = writeln!(
                text,
                "RECOVERING 正在恢复 since 自 {since}: {why}; {} records came so far 已收, waiting for 等待 {}",
                recovery.received_records,
                recovery.pending_peers.join(", ")
            );
        }
        Some(end) => {
            let _ = writeln!(text, "recovered 已恢复 {since} – {}: {why}", time(Some(end)));
        }
    }
    if !recovery.losses.is_empty() {
        text.push_str(&losses(&recovery.losses));
    }
    if recovery.end_time.is_some() && recovery.cause() == v1::RecoveryCause::Emptied {
        text.push_str(NOWHERE_ELSE);
    }
    text
}

/// What a node keeps for itself, whatever its tier.
const NOWHERE_ELSE: &str = "\
no other node keeps grants, invitations, subscriptions, the audit log of before, and what had not been delivered: give \
grants anew; `guantong rebuild` saves the last of these (授权、邀请、订阅、此前的审计日志和未送出的数据不在其他节点，请重新授权)
";

fn losses(losses: &[v1::RecoveryLoss]) -> String {
    let whole: Vec<&str> =
        losses.iter().filter(|l| l.field_name.is_empty()).map(|l| &*l.kind_label).collect();
    let mut text = String::from(
        "no other node may hold these, so they cannot come back; a backup or the ledgers may have them (其他节点不得保存，\
         无法找回；可从备份或台账补录):\n",
    );
    if !whole.is_empty() {
        let _ = writeln!(
            text,
            "  records of this division itself, and of divisions without a node of their own 本级及无节点区划的记录: {}",
            whole.join(" ")
        );
        return text;
    }
    let row = |loss: &v1::RecoveryLoss| {
        let count = loss.record_count.map_or_else(String::new, |count| count.to_string());
        [
            format!("  {} {}", loss.kind, loss.kind_label),
            format!("{} {}", loss.field_name, loss.field_label),
            count,
        ]
    };
    let rows: Vec<_> = losses.iter().take(LOSSES_SHOWN_MAX).map(row).collect();
    text.push_str(&table(
        ["  kind 类别", "field 字段", "records without it 缺失的记录 (at most 最多)"],
        &rows,
    ));
    if losses.len() > LOSSES_SHOWN_MAX {
        let _ = writeln!(text, "  and {} more fields (另有 {0} 个字段)", losses.len() - LOSSES_SHOWN_MAX);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_says_who_is_waited_for_and_afterwards_what_cannot_come_back() {
        let at = |seconds| Some(prost_types::Timestamp { seconds, nanos: 0 });
        let going_on = v1::Recovery {
            cause: v1::RecoveryCause::Emptied.into(),
            start_time: at(1_795_000_000),
            pending_peers: vec!["220822000000".to_owned()],
            received_records: 41,
            ..v1::Recovery::default()
        };
        let said = text(&going_on);
        assert!(
            said.contains("RECOVERING") && said.contains("41") && said.contains("220822000000"),
            "{said}"
        );
        let loss = v1::RecoveryLoss {
            kind: "case".to_owned(),
            kind_label: "案件".to_owned(),
            field_name: "parties".to_owned(),
            field_label: "当事人".to_owned(),
            record_count: Some(7),
        };
        let ended = v1::Recovery { end_time: at(1_795_000_009), losses: vec![loss.clone()], ..going_on };
        let said = text(&ended);
        for part in
            ["recovered", "began empty", "parties 当事人", "7", "cannot come back", "grants", "审计日志"]
        {
            assert!(said.contains(part), "{part}: {said}");
        }
        let put_back = v1::Recovery { cause: v1::RecoveryCause::PutBack.into(), ..ended.clone() };
        assert!(!text(&put_back).contains("grants"), "a backup has them");
        let whole = v1::RecoveryLoss { field_name: String::new(), record_count: None, ..loss };
        assert!(text(&v1::Recovery { losses: vec![whole], ..ended }).contains("of this division itself"));
    }
}
