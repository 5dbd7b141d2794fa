//! Which fields may be held at which tier, and so which cross a link. Release drops whole fields and never rewrites a
//! value; it limits upward crossing only.
//!
//! A field that this node does not know crosses nowhere until the node knows its rule.

use guantong_proto::rules::Field;

use crate::division::{Division, Tier};
use crate::record::Record;
use crate::record::audience::Audience;
use crate::record::view;
use crate::schema::{Kind, effective_tier};

/// What release depends on besides the field.
#[derive(Clone, Copy, Debug)]
pub struct Concern<'a> {
    /// Where the record was born.
    pub home: Division,
    /// Whom it concerns.
    pub audience: &'a Audience,
    /// The case was ended and sealed: file fields fall back to their ordinary limit.
    pub sealed: bool,
}

/// Whether a case is sealed. Records of other kinds never are.
pub fn is_sealed(kind: &Kind, home: Division, record: &Record) -> bool {
    let Some(field) = kind.roles.sealed.and_then(|n| kind.field(n)) else { return false };
    let shown = record.get(field.number).and_then(|r| view::shown(field, r, home));
    shown.is_some_and(|s| s.value.last() == Some(&1))
}

/// Whether a node of `tier` is within the field's ordinary limit.
pub fn within_limit(field: &Field, home: Division, tier: Tier) -> bool {
    tier <= effective_tier(field.release, home)
}

/// Whether the field crosses from `child` up to `parent`. Where the record was born all of it may be held: what a child may
/// hold came from there, and goes back there when it was lost.
pub fn crosses_up(field: &Field, concern: Concern<'_>, child: Division, parent: Division) -> bool {
    within_limit(field, concern.home, parent.tier())
        || parent == concern.home && within_limit(field, concern.home, child.tier())
        || field.file && !concern.sealed && concern.audience.reaches_beyond(child, parent)
}

/// Whether the node of `own` may hold the field. `heir` is the child that the home lies in, where one was ever
/// welcomed; without one, a node above the home acts for it and holds what it would hold.
pub fn may_hold(field: &Field, concern: Concern<'_>, own: Division, heir: Option<Division>) -> bool {
    if within_limit(field, concern.home, own.tier()) {
        return true;
    }
    match heir {
        Some(child) => crosses_up(field, concern, child, own),
        None => own.contains(concern.home) || field.file && !concern.sealed,
    }
}

/// Where a projection goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From `own` up to the parent's division.
    Up(Division),
    /// Down to a child.
    Down,
}

/// What a peer is sent of a record.
pub fn project(kind: &Kind, concern: Concern<'_>, own: Division, to: Direction, record: &Record) -> Record {
    let mut projection = record.clone();
    projection.forget_purged();
    projection.retain(|number, _| match (kind.field(number), to) {
        (None, _) => false,
        (Some(field), Direction::Up(parent)) => crosses_up(field, concern, own, parent),
        (Some(_), Direction::Down) => true,
    });
    projection
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::schema::Schema;

    fn division(code: &str) -> Division {
        Division::parse(code).unwrap()
    }

    #[test]
    fn parties_stay_at_the_township_until_the_case_is_handed_on() {
        let schema = Schema::current();
        let kind = schema.kind_named("case").unwrap();
        let parties = kind.field_named("parties").unwrap();
        let (township, county) = (division("220822101"), division("220822"));
        let audience = Audience::of_home(kind, township);
        let concern = Concern { home: township, audience: &audience, sealed: false };
        assert!(!crosses_up(parties, concern, township, county));
        assert!(may_hold(parties, concern, county, None), "the county acts for a township without a node");
        assert!(!may_hold(parties, concern, county, Some(township)));
    }

    #[test]
    fn what_a_province_wrote_of_its_own_case_goes_back_to_it_whatever_the_limit() {
        let schema = Schema::current();
        let kind = schema.kind_named("case").unwrap();
        let (prefecture, province) = (division("220800"), division("220000"));
        let crosses = |field, home| {
            let audience = Audience::of_home(kind, home);
            let field = kind.field_named(field).unwrap();
            crosses_up(field, Concern { home, audience: &audience, sealed: false }, prefecture, province)
        };
        assert!(crosses("amount_yuan", province));
        assert!(!crosses("amount_yuan", prefecture));
        assert!(!crosses("mediator", province), "no prefecture holds it");
    }

    #[test]
    fn what_counties_may_hold_prefectures_may_where_there_is_no_county() {
        let schema = Schema::current();
        let kind = schema.kind_named("grid").unwrap();
        let contact = kind.field_named("contact").unwrap();
        assert!(within_limit(contact, division("441900003"), Tier::Prefecture));
        assert!(!within_limit(contact, division("220822101"), Tier::Prefecture));
    }
}
