//! How exchange by bundles stands, in words: what was sent is never called equal before its receipt came.

use guantong_proto::v1;

use super::super::report::time;

/// In a table.
pub(super) fn short(state: &v1::BundleState) -> String {
    match (state.one_way, state.sent_number, state.confirmed_number) {
        (true, 0, _) => format!("receives only 单向接收 #{}", state.received_number),
        (true, sent, _) => format!("sent, unconfirmed 已发未确认 #{sent}"),
        (false, 0, _) => "by bundle, none sent 离线，未发送".to_owned(),
        (false, sent, confirmed) if sent == confirmed => format!("by bundle, confirmed 离线，已确认 #{sent}"),
        (false, sent, 0) => format!("by bundle 离线, sent 已发 #{sent}, none confirmed 未确认"),
        (false, sent, confirmed) => {
            format!("by bundle 离线, sent 已发 #{sent}, confirmed 已确认 #{confirmed}")
        }
    }
}

/// All that is known.
pub(super) fn long(state: &v1::BundleState) -> String {
    let mut parts = Vec::new();
    if state.sent_number > 0 {
        parts.push(format!("sent 已发 #{} {}", state.sent_number, time(state.sent_time.as_ref())));
    }
    match (state.one_way, state.confirmed_number) {
        (true, _) if state.sent_number > 0 => parts.push("never confirmed 单向，不回执".to_owned()),
        (false, number) if number > 0 => parts.push(format!(
            "confirmed 已确认 #{number} {}, complete to 完整至 {}",
            time(state.confirmed_time.as_ref()),
            time(state.confirmed_up_to_time.as_ref())
        )),
        _ => {}
    }
    if state.received_number > 0 {
        parts.push(format!(
            "received 已收 #{} {}",
            state.received_number,
            time(state.received_time.as_ref())
        ));
    }
    if state.missing_count > 0 {
        parts.push(format!("never came 未收到 {}", state.missing_count));
    }
    if state.peer_restored {
        parts.push(restored(state.one_way).to_owned());
    }
    if state.receipts_owed_count > 0 && !state.one_way {
        parts.push(format!("receipts to bring back 待带回回执 {}", state.receipts_owed_count));
    }
    if !state.key_known {
        parts.push("no card yet, accept one 尚无名片".to_owned());
    }
    match parts.is_empty() {
        true => "bundles 数据包: none yet 暂无".to_owned(),
        false => format!("bundles 数据包: {}", parts.join("; ")),
    }
}

/// The peer does not know what it was put back from; over a line that goes one way nobody can tell it but a person.
fn restored(one_way: bool) -> &'static str {
    match one_way {
        true => {
            "its store was put back or copied: have its operator make a backup and restore that, so that it writes as \
             another 对方数据曾被恢复或复制，请通知对方备份后再恢复一次"
        }
        false => {
            "its store was put back or copied: the next bundle from here tells it 对方数据曾被恢复或复制，将随下一个数据包告知"
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_no_receipt_is_never_called_confirmed() {
        let one_way = v1::BundleState { one_way: true, sent_number: 4, ..v1::BundleState::default() };
        assert!(short(&one_way).contains("sent, unconfirmed") && long(&one_way).contains("never confirmed"));
        let waiting = v1::BundleState { sent_number: 4, confirmed_number: 3, ..v1::BundleState::default() };
        assert!(short(&waiting).contains("#4") && short(&waiting).contains("confirmed 已确认 #3"));
        let first = v1::BundleState { confirmed_number: 0, ..waiting };
        assert!(short(&first).contains("none confirmed"));
        let done = v1::BundleState { confirmed_number: 4, key_known: true, ..waiting };
        assert!(short(&done).contains("by bundle, confirmed"));
        assert!(!long(&done).contains("no card"));
        let lost = v1::BundleState { received_number: 7, missing_count: 2, peer_restored: true, ..one_way };
        assert!(long(&lost).contains("never came 未收到 2") && long(&lost).contains("have its operator"));
        assert!(!long(&one_way).contains("put back") && !long(&one_way).contains("never came"));
        assert!(
            long(&v1::BundleState { key_known: true, ..v1::BundleState::default() }).contains("none yet")
        );
    }
}
