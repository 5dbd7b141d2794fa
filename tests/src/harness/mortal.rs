//! Nodes that die at a named step (`src/bin/mortal.rs`): which step, at which time that it is reached, and whether they did.
//! It must never decide when: that is the node's own work, at that step.

use std::fmt;
use std::str::FromStr;

use guantong_gateway::step::Step;

/// Names the [`Doom`] of a node that is started with it.
pub const VARIABLE: &str = "TEST_DIE_AT";
/// What the log's last line begins with.
pub const DIES_AT: &str = "mortal: dies at ";

/// Where a node dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Doom {
    /// At this step,
    pub step: Step,
    /// when it is reached for this time since the start; from 1.
    pub count: usize,
}

impl fmt::Display for Doom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.step.name(), self.count)
    }
}

impl FromStr for Doom {
    type Err = String;

    fn from_str(text: &str) -> Result<Doom, String> {
        let read = || {
            let (name, count) = text.split_once(':')?;
            let step = Step::ALL.iter().find(|step| step.name() == name)?;
            Some(Doom { step: *step, count: count.parse().ok()? })
        };
        read().ok_or_else(|| format!("{text} is not STEP:COUNT"))
    }
}
