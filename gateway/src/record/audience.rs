//! The divisions that a record concerns: its home and every division it was ever handed to. It only grows.

use smallvec::SmallVec;

use super::{Record, raw};
use crate::division::Division;
use crate::schema::Kind;
use guantong_proto::rules;

/// Number of `to` in an entry of `steps`.
const STEP_TO: u32 = 4;

/// The divisions that a record concerns. Every node above or at one of them gets the record.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Audience {
    divisions: SmallVec<[Division; 2]>,
    subtree: bool,
}

impl Audience {
    /// Of a record of which only the name is known.
    pub fn of_home(kind: &Kind, home: Division) -> Audience {
        let subtree = kind.rule.audience == rules::Audience::Subtree;
        Audience { divisions: SmallVec::from_elem(home, 1), subtree }
    }

    /// Of a record. An entry of `steps` counts only if its writer is at or above a division already in the audience,
    /// whatever the order in which the entries came.
    pub fn of(kind: &Kind, home: Division, record: &Record) -> Audience {
        let mut audience = Audience::of_home(kind, home);
        let Some(steps) = kind.roles.steps.and_then(|field| record.get(field)) else { return audience };
        let mut open: SmallVec<[(Division, Division); 4]> = SmallVec::new();
        for (entry, value) in steps.live() {
            for step in raw::payloads(value).filter_map(raw::Payload::bytes) {
                let to = raw::find(step, STEP_TO).and_then(raw::Payload::text);
                if let Some(to) = to.and_then(|to| Division::parse(to).ok()) {
                    open.push((entry.writer.division, to.home()));
                }
            }
        }
        while let Some(i) = open.iter().position(|(writer, _)| audience.has_at_or_below(*writer)) {
            let (_, to) = open.swap_remove(i);
            if !audience.divisions.contains(&to) {
                audience.divisions.push(to);
            }
        }
        audience.divisions[1..].sort_unstable();
        audience
    }

    /// Its divisions, the home first.
    pub fn divisions(&self) -> &[Division] {
        &self.divisions
    }

    /// Whether every node below the home gets the record too.
    pub fn is_subtree(&self) -> bool {
        self.subtree
    }

    /// Whether one of the divisions is `division` or inside it.
    pub fn has_at_or_below(&self, division: Division) -> bool {
        self.divisions.iter().any(|d| division.contains(*d))
    }

    /// Whether a node of `division` gets the record.
    pub fn concerns(&self, division: Division) -> bool {
        self.has_at_or_below(division) || self.subtree && self.divisions[0].contains(division)
    }

    /// Whether one of the divisions lies outside `child`, or is `parent` itself: then what crosses from `child` to
    /// `parent` is on its way to another holder.
    pub fn reaches_beyond(&self, child: Division, parent: Division) -> bool {
        self.divisions.iter().any(|d| !child.contains(*d) || *d == parent)
    }
}
