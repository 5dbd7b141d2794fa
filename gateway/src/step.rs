//! The named steps on the way of records through a node: of ingest, of sending, and of the greeting before both. Each is an
//! event of the log, at level TRACE and under a target of its own, and nothing else, so that whoever listens for it is
//! exactly there: the tests end a node at each. It must never decide anything, and never say what a record holds.

/// What the events are logged under: `guantong::step=trace` in `log.level` shows them.
pub const TARGET: &str = "guantong::step";

macro_rules! steps {
    ($($(#[$doc:meta])+ $step:ident = $name:literal,)+) => {
        /// A place that records come by.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Step {
            $($(#[$doc])+ $step,)+
        }

        impl Step {
            /// All of them, in the order in which a record comes by.
            pub const ALL: &[Step] = &[$(Step::$step,)+];

            /// Its name, as it is logged.
            pub fn name(self) -> &'static str {
                match self {
                    $(Step::$step => $name,)+
                }
            }
        }
    };
}

steps! {
    /// Parent: a child's Hello is there, and nothing of it is stored.
    HelloReceived = "hello-received",
    /// Parent: the token of the greeting is stored, and the Welcome that carries it has not gone.
    ChildGreeted = "child-greeted",
    /// Child: the parent's Welcome is there, and nothing of it is stored.
    WelcomeReceived = "welcome-received",
    /// Child: the Welcome's token is stored, and nothing was sent under it.
    TokenStored = "token-stored",
    /// A batch is there whole, and nobody has decided anything.
    BatchReceived = "batch-received",
    /// A group of local writes, batches and receipts was taken from the queue, and no record is read yet.
    GroupTaken = "group-taken",
    /// The group's records are read, and nothing is decided.
    RecordsLoaded = "records-loaded",
    /// All is decided, the transaction has begun, and nothing is written.
    TransactionBegun = "transaction-begun",
    /// All is written, and the transaction is not committed.
    TransactionWritten = "transaction-written",
    /// It is on disk, and nobody knows.
    Committed = "committed",
    /// Whoever wrote has been answered.
    Answered = "answered",
    /// A batch is on disk, and there is no receipt.
    BatchIngested = "batch-ingested",
    /// Its receipt was given to the line.
    ReceiptGiven = "receipt-given",
    /// Rows of the outbox and their records were read for a peer, and nothing of them was sent.
    OutboxRead = "outbox-read",
    /// A batch, or a piece of one, was given to the line.
    BatchGiven = "batch-given",
    /// A receipt is there, and its rows still stand in the outbox.
    ReceiptReceived = "receipt-received",
    /// The rows that had their receipt are deleted.
    RowsDeleted = "rows-deleted",
}

#[cfg(feature = "store")]
impl Step {
    /// Somebody is here.
    pub(crate) fn reached(self) {
        tracing::trace!(target: TARGET, step = self.name());
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_two_steps_share_a_name() {
        let names: BTreeSet<&str> = Step::ALL.iter().map(|step| step.name()).collect();
        assert_eq!(names.len(), Step::ALL.len());
    }
}
