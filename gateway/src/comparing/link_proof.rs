//! What a node can say of a link: whether both ends hold the same, since when, and why not. It outlives the link and the
//! process. It must never say equal of what was not compared.

use std::fmt;

/// What the last comparison of a link says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkProof {
    /// In one word.
    pub state: ProofState,
    /// Since when that is so, Unix milliseconds; 0: always.
    pub since_ms: u64,
    /// When the ends last compared, Unix milliseconds; `None`: never.
    pub compared_ms: Option<u64>,
    /// When they were last found equal, Unix milliseconds; `None`: never.
    pub equal_ms: Option<u64>,
    /// Fields and records that were left out of the last comparison, refused ones among them.
    pub left_out: u64,
    /// Those of them that one end refused; the others were on their way.
    pub refused: u64,
}

/// Whether both ends hold the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProofState {
    /// It is not known.
    Unknown(Unknown),
    /// They do, in all that was not left out.
    Equal,
    /// They do not.
    Differs {
        /// Records found to differ so far; both ends owe them to each other again.
        records: u64,
        /// They were sent again, and differ still: somebody must look.
        stays: bool,
    },
}

/// Why a link's equality is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unknown {
    /// The ends have not compared yet.
    NeverCompared,
    /// This node counts its own records first.
    Counting,
    /// The other end does.
    PeerCounting,
    /// More is owed or refused than can be left out.
    TooMuchOwed,
    /// The link did not come to rest.
    Busy,
    /// The other end's program does not compare.
    OldProgram,
}

impl Default for ProofState {
    fn default() -> ProofState {
        ProofState::Unknown(Unknown::NeverCompared)
    }
}

impl Unknown {
    /// All, each with the number that it is stored under.
    pub const ALL: [(i64, Unknown); 6] = [
        (1, Unknown::NeverCompared),
        (2, Unknown::Counting),
        (3, Unknown::PeerCounting),
        (4, Unknown::TooMuchOwed),
        (5, Unknown::Busy),
        (6, Unknown::OldProgram),
    ];
}

impl LinkProof {
    /// Whether the ends hold the same as far as that can be said.
    pub fn is_equal(&self) -> bool {
        self.state == ProofState::Equal
    }

    /// The same with another state, since `now_ms` if that is new.
    pub(super) fn becomes(self, state: ProofState, now_ms: u64) -> LinkProof {
        let same = match (self.state, state) {
            (ProofState::Differs { .. }, ProofState::Differs { .. }) => true,
            (before, after) => before == after,
        };
        LinkProof { state, since_ms: if same { self.since_ms } else { now_ms }, ..self }
    }
}

impl fmt::Display for ProofState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ProofState::Unknown(why) => why.fmt(f),
            ProofState::Equal => f.write_str("both ends hold the same (两端一致)"),
            ProofState::Differs { records, stays: false } => {
                write!(f, "{records} records differ and are sent again (两端不一致，正在补发)")
            }
            ProofState::Differs { records, stays: true } => write!(
                f,
                "{records} records were sent again and differ still; compare the programs of both ends, and ask with \
                 `guantong where` (补发后仍不一致，请核对两端程序版本)"
            ),
        }
    }
}

impl fmt::Display for Unknown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Unknown::NeverCompared => "the ends have not compared yet (尚未核对)",
            Unknown::Counting => "this node counts its own records first (本端正在核算)",
            Unknown::PeerCounting => "the other end counts its own records first (对端正在核算)",
            Unknown::TooMuchOwed => "too much is still on its way, or was refused (待传或被拒的数据过多)",
            Unknown::Busy => "the link did not come to rest for a moment (链路繁忙)",
            Unknown::OldProgram => {
                "the other end's program does not compare; update it (对端程序过旧，请升级)"
            }
        })
    }
}
