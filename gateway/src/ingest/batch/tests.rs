//! No sequence of frames from a child makes its parent take what is not the child's to say (DESIGN §8, §10): a real
//! session, real greetings and real ingest, fed by a child that lies.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod child;
mod parent;

use proptest::prelude::*;

use child::action;
use parent::Parent;

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, ..ProptestConfig::default() })]

    #[test]
    fn a_child_speaks_for_its_scope_only(actions in proptest::collection::vec(action(), 1..14)) {
        let mut parent = Parent::new();
        for action in actions {
            parent.take(action);
        }
    }
}

/// The generator reaches everything that the laws are about; otherwise they say nothing.
#[test]
fn the_child_of_the_test_is_heard() {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;
    let mut runner = TestRunner::deterministic();
    let mut met = parent::Met::default();
    for _ in 0..400 {
        let actions = proptest::collection::vec(action(), 1..14).new_tree(&mut runner).unwrap().current();
        let mut parent = Parent::new();
        for action in actions {
            parent.take(action);
        }
        met.add(&parent.met);
    }
    assert!(met.taken > 1_000, "{met:?}");
    assert!(met.recovered > 3, "{met:?}");
    for reason in ["OutOfScope", "ForeignWriter", "WriterNotAllowed", "Malformed", "FutureStamp"] {
        assert!(met.refused.get(reason).is_some_and(|count| *count > 3), "{reason}: {met:?}");
    }
}
