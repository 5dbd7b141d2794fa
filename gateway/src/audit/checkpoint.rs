//! Checkpoints: how far a chain had come, signed by its node and kept by its parent. A parent takes one only if it
//! follows from the one before, so that a node cannot change what it once signed.

use super::{Hash, Head, extend};
use crate::division::Division;

/// How many lines a checkpoint may lie after the one before; a longer way goes in several.
pub const DIGESTS_MAX: usize = 16 * 1024;
/// Slots that a node may have.
const SLOTS: std::ops::Range<i64> = 0..128;

/// How far a chain had come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// Whose chain.
    pub division: Division,
    /// The gateway.
    pub slot: i64,
    /// The random number of the node's store.
    pub epoch: u64,
    /// The last entry.
    pub head: Head,
    /// When it was signed, Unix milliseconds.
    pub time_ms: u64,
}

impl Checkpoint {
    /// What is signed.
    pub fn statement(&self) -> String {
        let Checkpoint { division, slot, epoch, head, time_ms } = self;
        let Head { number, hash } = head;
        format!(
            "guantong audit checkpoint 1\n{division}\n{slot}\n{epoch:016x}\n{number}\n{hash}\n{time_ms}\n"
        )
    }
}

/// A checkpoint, signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signed {
    /// It.
    pub checkpoint: Checkpoint,
    /// Two bytes, the TLS signature scheme, and the signature over the statement.
    pub signature: Vec<u8>,
    /// The certificates of who signed, DER, its own first.
    pub certificates: Vec<u8>,
}

/// What a checkpoint is to the one that is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// The first of its chain.
    First,
    /// The same as the one kept.
    Known,
    /// It follows.
    Next,
    /// The node's store is another one than before, and does not go on from what was kept: it was put back.
    Anew,
}

/// Why a checkpoint is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Untaken {
    /// What it says cannot be.
    #[error("the checkpoint makes no sense: {0}")]
    Senseless(&'static str),
    /// It follows another one than the one kept; begin from that.
    #[error("the checkpoint does not begin at entry {kept}, which is the last one known here")]
    Apart {
        /// The number of the one kept.
        kept: u64,
    },
    /// The chain that it speaks of is not the one that was signed before.
    #[error(
        "the checkpoint contradicts an earlier one: the audit log up to entry {kept} is not what it was \
         (审计日志与先前签名的检查点不符)"
    )]
    Contradicts {
        /// The number of the one kept.
        kept: u64,
    },
}

/// What a checkpoint is to the newest one kept of its chain. `after` is the number of the entry that `digests` begin
/// behind.
pub fn judge(
    newest: Option<&Checkpoint>,
    new: &Checkpoint,
    after: u64,
    digests: &[Hash],
) -> Result<Standing, Untaken> {
    if new.head.number == 0 || !SLOTS.contains(&new.slot) {
        return Err(Untaken::Senseless("it has no entry, or no gateway"));
    }
    if digests.len() > DIGESTS_MAX {
        return Err(Untaken::Senseless("it comes with too many digests"));
    }
    let Some(newest) = newest else { return Ok(Standing::First) };
    let kept = newest.head.number;
    if after == kept && !digests.is_empty() {
        let hash = digests.iter().fold(newest.head.hash, |hash, digest| extend(hash, *digest));
        let reached = Head { number: kept + digests.len() as u64, hash };
        if reached == new.head {
            return Ok(Standing::Next);
        }
    }
    if new.head == newest.head {
        return Ok(Standing::Known);
    }
    if new.epoch != newest.epoch {
        return Ok(Standing::Anew);
    }
    if after != kept && new.head.number > kept {
        return Err(Untaken::Apart { kept });
    }
    Err(Untaken::Contradicts { kept })
}
