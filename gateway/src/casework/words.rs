//! What operators read about moves: the names of states and moves in English and Chinese, and why a move is refused.
//! Nothing here decides, and no reason that somebody gave for a move is ever repeated.

use guantong_proto::v1::{CaseState, Move};

use crate::division::Division;

/// A move that is not allowed, or a direct write of the lifecycle that no move allows.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the case is {}; {} is refused: {cause}. {}",
    state_words(*.state), action_words(*.action), legal_words(.legal, *.holder, .holder_may)
)]
pub struct MoveRefused {
    /// Where the case stands; unspecified: it is not registered yet.
    pub state: CaseState,
    /// What was asked for; unspecified: a direct write of the lifecycle.
    pub action: Move,
    /// Why not.
    pub cause: Cause,
    /// What the one who asked may do instead; often nothing.
    pub legal: Vec<Move>,
    /// Who holds the case.
    pub holder: Option<Division>,
    /// What the holder may do.
    pub holder_may: Vec<Move>,
}

/// Why a move is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Cause {
    /// The state does not allow it.
    #[error("the state does not allow it (当前状态不允许)")]
    State,
    /// The case has ended.
    #[error("the case has ended; register a new one that refers to it (事件已结束，请另行登记并注明续办)")]
    Ended,
    /// Somebody else holds the case.
    #[error("{0} does not hold the case (该区划不是承办区划)")]
    NotHolder(Division),
    /// A village is never an actor.
    #[error("a village does not move cases; its township does (村级不办理事件，由乡级办理)")]
    Village,
    /// Only the home and the divisions above it register a case.
    #[error("only {0} or a division above it registers its case (只能由出生地或其上级登记)")]
    NotHome(Division),
    /// The division addressed cannot be.
    #[error("{0} cannot hold a case: a village, or a code without a government (该区划不能承办事件)")]
    CannotHold(Division),
    /// No division or unit was named.
    #[error("it needs a division or a unit to hand to (请指明转入区划或部门)")]
    NeedsTarget,
    /// A reason is missing.
    #[error("it needs a reason (请填写原因)")]
    NeedsReason,
    /// A reason is too long, or has characters that no text has.
    #[error("the reason has over 256 bytes or control characters (原因过长或含控制字符)")]
    BadReason,
    /// A unit's code is too long, or has characters that no code has.
    #[error("a unit's code has 1 to 64 bytes without blanks or control characters (部门代码格式不正确)")]
    BadUnit,
    /// There is nobody above.
    #[error("there is no tier above {0} (没有上级)")]
    NothingAbove(Division),
    /// Escalation goes upwards only.
    #[error("{0} is not above the holder (该区划不是承办区划的上级)")]
    NotAbove(Division),
    /// A tier is skipped without a reason.
    #[error("it skips {0}, which needs a reason (越级上报须填写原因)")]
    Skips(Division),
    /// Assignment goes downwards only.
    #[error("{0} does not lie below the holder (该区划不在承办区划辖区内)")]
    NotBelow(Division),
    /// The two have no common parent.
    #[error(
        "{0} is not of the same parent as the holder; escalate it, or hand it up first (两区划没有共同的上一级，请逐级上报)"
    )]
    NotSibling(Division),
    /// The unit has it already.
    #[error("that unit has it already (该部门已在承办)")]
    SameUnit,
    /// Nobody sent it.
    #[error(
        "nobody handed it to the holder, so there is nobody to return it to; accept, file or cancel it (无转出区划，不能退回)"
    )]
    NoSender,
    /// The target does not go with the move.
    #[error("this move goes to {0} and cannot name another division (该动作的转入区划应为此区划)")]
    OtherTarget(Division),
    /// A conclusion without a result.
    #[error("it needs an outcome that says whether it succeeded (请填写办理结果及是否成功)")]
    NeedsOutcome,
    /// An outcome with another move.
    #[error("only a conclusion carries an outcome (只有办结可以附办理结果)")]
    OutcomeElsewhere,
    /// The day of the conclusion cannot be.
    #[error("the day of the conclusion is no day, or lies in the future (办结日期不正确)")]
    ConcludedOn,
    /// A part of a written lifecycle is malformed; names the part.
    #[error("`{0}` of the lifecycle is missing or malformed (办理状态的该项缺失或格式不正确)")]
    Malformed(&'static str),
    /// A new case that does not begin with its report.
    #[error(
        "a new case is reported first: state CASE_STATE_REPORTED, holder {}; leave the lifecycle out for that, and make \
         moves then. Only a ledger (`guantong import`) brings cases that stand elsewhere already \
         (新登记的事件应为待受理，由出生地或其上一级承办；存量事件请用台账导入)",
        holders_words(*home, *above)
    )]
    FirstReported {
        /// Where it is born.
        home: Division,
        /// The division next above, where there is one.
        above: Option<Division>,
    },
    /// A written lifecycle that no single move gives.
    #[error("no single move leads from there to {} (没有一个动作可以到达该状态)", state_words(*.0))]
    NoMove(CaseState),
    /// A state from a newer program.
    #[error("this program does not know the state {0}; upgrade this node (本节点版本过旧，不认识该状态)")]
    UnknownState(i32),
}

/// English name and Chinese label of a state: `accepted 办理中`.
pub fn state_words(state: CaseState) -> String {
    let label = match state {
        CaseState::Unspecified => return "not registered 未登记".into(),
        CaseState::Reported => "待受理",
        CaseState::Accepted => "办理中",
        CaseState::Returned => "退回",
        CaseState::Filed => "备案",
        CaseState::Cancelled => "关闭",
        CaseState::Pending => "待接收",
        CaseState::Concluded => "办结",
        CaseState::Verified => "结案",
    };
    format!("{} {label}", english(state.as_str_name(), "CASE_STATE_"))
}

/// English name and Chinese label of a move: `send back 验证未通过`.
pub fn action_words(action: Move) -> String {
    let label = match action {
        Move::Unspecified => return "this write of its lifecycle 直接填写".into(),
        Move::Report => "上报登记",
        Move::Accept => "受理",
        Move::Return => "退回",
        Move::File => "备案",
        Move::Cancel => "关闭",
        Move::Escalate => "上报",
        Move::Assign => "交办",
        Move::Transfer => "移交",
        Move::Refuse => "拒收",
        Move::Conclude => "办结",
        Move::Verify => "结案",
        Move::SendBack => "验证未通过",
    };
    format!("{} {label}", english(action.as_str_name(), "MOVE_"))
}

fn english(name: &str, prefix: &str) -> String {
    name.trim_start_matches(prefix).to_lowercase().replace('_', " ")
}

fn holders_words(home: Division, above: Option<Division>) -> String {
    above.map_or_else(|| home.to_string(), |above| format!("{home} or {above}"))
}

fn legal_words(legal: &[Move], holder: Option<Division>, holder_may: &[Move]) -> String {
    let list = |moves: &[Move]| moves.iter().map(|m| action_words(*m)).collect::<Vec<_>>().join(", ");
    match holder {
        _ if !legal.is_empty() => format!("Possible now (可选动作): {}", list(legal)),
        Some(holder) if !holder_may.is_empty() => {
            format!("Its holder {holder} may (承办区划可选动作): {}", list(holder_may))
        }
        _ => "No move is possible (无可选动作)".into(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::record::raw::{Payload, find, occurrences};

    /// Field of an enum value's options that holds its Chinese label.
    const LABEL: u32 = 50_001;

    /// English constant and label of every value of an enum of the contract.
    fn labels(name: &str) -> Vec<(i32, String)> {
        let text =
            |message, field| find(message, field).and_then(Payload::text).unwrap_or_default().to_owned();
        let files = occurrences(guantong_proto::FILE_DESCRIPTOR_SET, 1).filter_map(Payload::bytes);
        let mut enums = files.flat_map(|file| occurrences(file, 5).filter_map(Payload::bytes));
        let found = enums.find(|e| text(e, 1) == name).unwrap();
        let values = occurrences(found, 2).filter_map(Payload::bytes);
        let label = |value| text(find(value, 3).and_then(Payload::bytes).unwrap_or_default(), LABEL);
        let number = |value| find(value, 2).and_then(Payload::number).unwrap_or(0) as i32;
        values.map(|v| (number(v), label(v))).filter(|(n, _)| *n != 0).collect()
    }

    #[test]
    fn the_words_are_those_of_the_contract() {
        let (states, moves) = (labels("CaseState"), labels("Move"));
        assert!(states.len() >= 8 && moves.len() >= 12);
        for (number, label) in states {
            let words = state_words(CaseState::try_from(number).unwrap());
            assert_eq!(words.split_once(' ').unwrap().1, label);
        }
        for (number, label) in moves {
            let words = action_words(Move::try_from(number).unwrap());
            assert_eq!(words.rsplit_once(' ').unwrap().1, label);
        }
    }

    #[test]
    fn a_refusal_says_state_move_why_and_what_is_possible() {
        let refused = MoveRefused {
            state: CaseState::Reported,
            action: Move::Conclude,
            cause: Cause::State,
            legal: vec![Move::Accept, Move::SendBack],
            holder: None,
            holder_may: vec![],
        };
        assert_eq!(
            refused.to_string(),
            "the case is reported 待受理; conclude 办结 is refused: the state does not allow it (当前状态不允许). \
             Possible now (可选动作): accept 受理, send back 验证未通过"
        );
    }
}
