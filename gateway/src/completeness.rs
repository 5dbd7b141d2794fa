//! From which nodes below everything up to a moment is in, and from which it is not.
//!
//! A division without a node is acted for by the node above it and covered by that one's claim. It must never call
//! something complete that nobody claimed.

use std::collections::BTreeMap;

use crate::claiming::{Claimed, Claims};
use crate::division::{Division, Divisions};

/// How far a claim may be behind the present without being listed. A node that is linked and has nothing to send claims
/// every 30 seconds, and each tier passes it on within a few more, so what is further behind is not merely on its way.
pub const LAG_MS: u64 = 90_000;

/// Why a division is not complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// No node of it, or below it, was ever linked; whoever acts for it writes what is known of it.
    NotLinked,
    /// Its node was linked and has claimed nothing yet.
    Silent,
    /// Its node claims an earlier moment.
    Behind {
        /// Unix milliseconds.
        through_ms: u64,
    },
}

/// A division that is not complete to a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Incomplete {
    /// Which.
    pub division: Division,
    /// Why.
    pub state: State,
    /// Since when, Unix milliseconds: the moment to which it was complete, or when its node became known. `None`: it
    /// never had one.
    pub since_ms: Option<u64>,
    /// Values of its node that were refused on their way up.
    pub quarantined_count: u64,
}

/// How complete a division is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Completeness {
    /// The moment asked about, Unix milliseconds.
    pub as_of_ms: u64,
    /// To this moment everything is in from every node of the division; `None`: a node has claimed nothing yet. At most
    /// `as_of_ms`. Divisions without a node do not count: whoever acts for them does.
    pub through_ms: Option<u64>,
    /// By division.
    pub incomplete: Vec<Incomplete>,
    /// Values refused on their way up, of all nodes.
    pub quarantined_count: u64,
}

/// How complete `scope` is at `as_of_ms`, as the node of `own` knows it at `now_ms`.
///
/// `claims` names every node below that was ever linked, directly or further down. Listed are nodes at any depth that
/// are behind, by more than `LAG_MS` where the moment is the present; and of the scope itself and the divisions directly
/// below it those in which no node was ever linked.
pub fn of(
    own: Division,
    scope: Division,
    at: (u64, u64),
    claims: &Claims,
    divisions: &Divisions,
) -> Completeness {
    let mut complete = of_all(own, &[scope], at, claims);
    let below = divisions.children(scope).into_iter().map(|(child, _)| child);
    let without = below.filter(|child| *child == child.home() && !has_node(*child, claims));
    complete.incomplete.extend(without.map(Incomplete::not_linked));
    complete.incomplete.sort_by_key(|i| i.division);
    complete
}

/// The same of several scopes at once, without what lies below those that never had a node.
pub fn of_all(
    own: Division,
    scopes: &[Division],
    (as_of_ms, now_ms): (u64, u64),
    claims: &Claims,
) -> Completeness {
    let due_ms = as_of_ms.min(now_ms.saturating_sub(LAG_MS));
    let mut complete = Completeness { as_of_ms, through_ms: Some(as_of_ms), ..Completeness::default() };
    let mut nodes: BTreeMap<Division, &Claimed> = BTreeMap::new();
    for scope in scopes {
        let inside = claims.range(*scope..=last(*scope)).filter(|(division, _)| **division != own);
        nodes.extend(over(own, *scope, claims).into_iter().chain(inside).map(|(d, claimed)| (*d, claimed)));
        if *scope != own && !has_node(*scope, claims) {
            complete.incomplete.push(Incomplete::not_linked(*scope));
        }
    }
    for (division, claimed) in nodes {
        complete.count(division, claimed, due_ms);
    }
    complete.incomplete.sort_by_key(|i| i.division);
    complete.incomplete.dedup_by_key(|i| i.division);
    complete
}

/// The greatest division inside `scope`.
fn last(scope: Division) -> Division {
    Division::from_code(scope.last_code()).unwrap_or(scope)
}

/// Whether a node of the division, or inside it, was ever linked.
fn has_node(division: Division, claims: &Claims) -> bool {
    claims.range(division..=last(division)).next().is_some()
}

/// The node that acts for a scope which has none of its own: the nearest above it, unless that is this one.
fn over(own: Division, scope: Division, claims: &Claims) -> Option<(&Division, &Claimed)> {
    let above = scope.enclosing().take_while(|division| *division != own);
    let nearest = above.filter_map(|division| claims.get_key_value(&division)).next();
    nearest.filter(|(division, _)| **division != scope)
}

impl Incomplete {
    fn not_linked(division: Division) -> Incomplete {
        Incomplete { division, state: State::NotLinked, since_ms: None, quarantined_count: 0 }
    }
}

impl Completeness {
    fn count(&mut self, division: Division, claimed: &Claimed, due_ms: u64) {
        let Claimed { through_ms, arrived_ms, quarantined_count } = *claimed;
        self.quarantined_count += quarantined_count;
        let claimed = (through_ms > 0).then_some(through_ms);
        self.through_ms = self.through_ms.zip(claimed).map(|(all, this)| all.min(this));
        let (state, since_ms) = match claimed {
            None => (State::Silent, arrived_ms),
            Some(through_ms) if through_ms < due_ms => (State::Behind { through_ms }, through_ms),
            Some(_) => return,
        };
        self.incomplete.push(Incomplete { division, state, since_ms: Some(since_ms), quarantined_count });
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const PROVINCE: &str = "22";
    const COUNTY: &str = "220822";

    fn division(code: &str) -> Division {
        Division::parse(code).unwrap()
    }

    fn claims(of: &[(&str, u64)]) -> Claims {
        let claimed = |through_ms| Claimed { through_ms, arrived_ms: 7, quarantined_count: 1 };
        of.iter().map(|(code, through_ms)| (division(code), claimed(*through_ms))).collect()
    }

    fn asked(own: &str, scope: &str, as_of_ms: u64, of: &[(&str, u64)]) -> Completeness {
        let at = (as_of_ms, as_of_ms + LAG_MS);
        super::of(division(own), division(scope), at, &claims(of), &Divisions::embedded())
    }

    fn listed(completeness: &Completeness) -> Vec<(Division, State)> {
        let linked = completeness.incomplete.iter().filter(|i| i.state != State::NotLinked);
        linked.map(|i| (i.division, i.state)).collect()
    }

    #[test]
    fn the_moment_is_the_earliest_claim_and_whoever_is_behind_is_named() {
        let of = [("2208", 900), (COUNTY, 500), ("220822101", 700), ("2203", 100)];
        let found = asked(PROVINCE, "2208", 800, &of);
        assert_eq!(found.through_ms, Some(500), "2203 lies elsewhere");
        let behind = |code, through_ms| (division(code), State::Behind { through_ms });
        assert_eq!(listed(&found), [behind(COUNTY, 500), behind("220822101", 700)]);
        assert_eq!(found.quarantined_count, 3);
        assert_eq!(
            asked(PROVINCE, "2208", 400, &of).through_ms,
            Some(400),
            "never past what was asked about"
        );
    }

    #[test]
    fn a_node_that_has_claimed_nothing_leaves_the_moment_open() {
        let found = asked(PROVINCE, "2208", 800, &[("2208", 900), (COUNTY, 0)]);
        assert_eq!(found.through_ms, None);
        assert_eq!(listed(&found), [(division(COUNTY), State::Silent)]);
        let since = found.incomplete.iter().find(|i| i.state == State::Silent).unwrap().since_ms;
        assert_eq!(since, Some(7));
    }

    #[test]
    fn a_division_without_a_node_is_as_complete_as_the_node_that_acts_for_it() {
        let of = [("2208", 900), (COUNTY, 500), ("220822101", 700)];
        let found = asked(PROVINCE, "220822102", 800, &of);
        assert_eq!(found.through_ms, Some(500));
        assert_eq!(listed(&found), [(division(COUNTY), State::Behind { through_ms: 500 })]);
        let found = asked(PROVINCE, "220822101", 800, &of);
        assert_eq!(found.through_ms, Some(700), "its own node, and no other");
        let own = asked(COUNTY, "220822102", 800, &of[2..]);
        assert_eq!(own.through_ms, Some(800), "what this node writes itself is here");
        assert!(listed(&own).is_empty());
    }

    #[test]
    fn of_several_divisions_each_node_counts_once() {
        let claims = claims(&[("2208", 900), (COUNTY, 500), ("220822101", 700)]);
        let scopes = ["2208", "220881", COUNTY, "2203"].map(division);
        let found = of_all(division(PROVINCE), &scopes, (800, 800 + LAG_MS), &claims);
        let states: Vec<_> = found.incomplete.iter().map(|i| (i.division, i.state)).collect();
        let behind = |code, through_ms| (division(code), State::Behind { through_ms });
        let not_linked = |code| (division(code), State::NotLinked);
        let expected =
            [not_linked("2203"), behind(COUNTY, 500), behind("220822101", 700), not_linked("220881")];
        assert_eq!(states, expected);
        assert_eq!((found.through_ms, found.quarantined_count), (Some(500), 3));
    }

    #[test]
    fn a_claim_that_may_be_on_its_way_is_not_called_late() {
        let now_ms = 10 * LAG_MS;
        let listed_at = |through_ms, at| {
            let claims = claims(&[(COUNTY, through_ms)]);
            let found = super::of(division("2208"), division(COUNTY), at, &claims, &Divisions::embedded());
            (found.through_ms, listed(&found).len())
        };
        let late = now_ms - LAG_MS - 1;
        assert_eq!(listed_at(late, (now_ms, now_ms)), (Some(late), 1));
        assert_eq!(listed_at(late + 1, (now_ms, now_ms)), (Some(late + 1), 0));
        assert_eq!(
            listed_at(late, (late, now_ms)),
            (Some(late), 0),
            "asked about the past, all of it counts"
        );
        assert_eq!(listed_at(late - 1, (late, now_ms)), (Some(late - 1), 1));
    }

    #[test]
    fn what_never_had_a_node_is_named_directly_below_only() {
        let found = asked(PROVINCE, PROVINCE, 800, &[(COUNTY, 900)]);
        let not_linked: Vec<Division> = found.incomplete.iter().map(|i| i.division).collect();
        assert!(not_linked.contains(&division("2201")), "{not_linked:?}");
        assert!(!not_linked.contains(&division("2208")), "a county of it is linked");
        assert!(!not_linked.contains(&division("220103")), "too far down");
        assert_eq!(found.through_ms, Some(800));
    }
}
