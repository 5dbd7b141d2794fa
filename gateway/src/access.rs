//! Who may write what over a link. It depends on writer, record name, audience and field alone, so what was
//! acceptable once stays so. Rules that depend on state (case moves, holders) are rules of local writes, never of links.

use guantong_proto::rules::{Field, LinkWriters, Writers};

use crate::division::Division;
use crate::record::audience::Audience;
use crate::record::{Entry, FieldNumber, Record, Register};
use crate::schema::{Kind, effective_tier};
use crate::stamp::{Stamp, Writer};

/// Whether a child of `scope` may send a record. `before` is its audience as this node held it before the batch.
pub fn may_send(scope: Division, before: &Audience) -> bool {
    before.concerns(scope)
}

/// Whether `writer`'s division may write the field. `None` for the field: one that this node does not know.
pub fn may_write(
    kind: &Kind,
    field: Option<&Field>,
    home: Division,
    audience: &Audience,
    writer: Division,
) -> bool {
    let Some(field) = field else { return audience.has_at_or_below(writer) };
    if kind.rule.link_writers == LinkWriters::Audience {
        return audience.has_at_or_below(writer);
    }
    let source = field.derived_from.and_then(|n| kind.field(n)).unwrap_or(field);
    match source.writers {
        Writers::HomeOwnerAbove => {
            let high_enough = |tier| writer.tier() >= effective_tier(tier, home);
            writer == home || writer.contains(home) && source.owner.is_none_or(high_enough)
        }
        Writers::Home | Writers::Node => writer == home,
        Writers::HomeAndCounty => writer == home || writer == home.county(),
        Writers::HomeCounty => writer == home.county(),
        Writers::Holder | Writers::AboveHolder | Writers::Audience | Writers::Moves => {
            audience.has_at_or_below(writer)
        }
    }
}

/// A child's right to pass on stamps: those of writers in its scope, others only as far as this node has them.
#[derive(Clone, Copy)]
pub struct ChildRight<'a> {
    /// The child's division.
    pub scope: Division,
    /// While this node recovers: foreign stamps up to here are taken for records in the child's scope. For others that
    /// concern it, only stamps that this node may have given out itself and lost: nobody else can bring them back.
    pub recovering_to: Option<Stamp>,
    /// Whether a writer is, or may have been, one of this node.
    pub is_own: &'a dyn Fn(Writer) -> bool,
    /// Whether this node still writes as one.
    pub is_current: &'a dyn Fn(Writer) -> bool,
}

impl ChildRight<'_> {
    /// The first entry of `register` that the child may not send, if any.
    pub fn foreign_entry(
        self,
        home: Division,
        field: FieldNumber,
        register: &Register,
        held: &Record,
    ) -> Option<Writer> {
        let refused = register.entries().iter().find(|entry| {
            if self.scope.contains(entry.writer.division) {
                return false;
            }
            let had = held.had(field, entry.writer);
            let altered = had == Some(entry.stamp)
                && entry.value.is_some()
                && held.get(field).is_some_and(|ours| {
                    let same = ours.live().find(|(e, _)| (e.writer, e.stamp) == (entry.writer, entry.stamp));
                    same.is_some_and(|(_, value)| Some(value) != entry.value.as_ref())
                });
            altered || had < Some(entry.stamp) && !self.brings_back(home, entry)
        });
        refused.map(|entry| entry.writer)
    }

    /// Whether an entry may be one that this node lost, and gets back from the child while it recovers.
    pub fn brings_back(self, home: Division, entry: &Entry) -> bool {
        let is_own = (self.is_own)(entry.writer);
        let to = self.recovering_to.filter(|_| self.scope.contains(home) || is_own);
        // What was replaced, no clock is asked about: it may have been written by one that was ahead.
        let replaced = to.is_some() && entry.value.is_none() && is_own && !(self.is_current)(entry.writer);
        to >= Some(entry.stamp) || replaced
    }

    /// How many entries of a register that was taken are there only because this node recovers.
    pub fn recovered(self, field: FieldNumber, register: &Register, held: &Record) -> usize {
        if self.recovering_to.is_none() {
            return 0;
        }
        let foreign = |e: &&Entry| !self.scope.contains(e.writer.division);
        register
            .entries()
            .iter()
            .filter(foreign)
            .filter(|e| held.had(field, e.writer) < Some(e.stamp))
            .count()
    }

    /// The values of writers outside the child's scope that `register` shows as replaced, though it brings nothing that
    /// can have replaced them: a write that is new here, of a writer that may write the field. In a union, writers
    /// replace nothing but their own division's values. (A register that saw the replacement saw the write that did it.
    /// Only a store that was put back can have the replacing write and not know what it replaced.)
    pub fn dropped_values<'r>(
        self,
        union: bool,
        register: &'r Register,
        ours: &Register,
        may_write: impl Fn(Division) -> bool,
    ) -> Vec<&'r Entry> {
        let stands =
            |gone: &Entry| ours.live().any(|(e, _)| (e.writer, e.stamp) == (gone.writer, gone.stamp));
        let may_replace = |gone: &Entry, e: &Entry| {
            ours.seen(e.writer) < Some(e.stamp)
                && may_write(e.writer.division)
                && (!union || e.writer.division == gone.writer.division)
        };
        let dropped = |gone: &&Entry| {
            gone.value.is_none()
                && !self.scope.contains(gone.writer.division)
                && stands(gone)
                && !register.entries().iter().any(|e| may_replace(gone, e))
        };
        register.entries().iter().filter(dropped).collect()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::schema::Schema;
    use bytes::Bytes;

    fn division(code: &str) -> Division {
        Division::parse(code).unwrap()
    }

    fn writer(code: &str) -> Writer {
        Writer { division: division(code), id: 1 }
    }

    #[test]
    fn a_child_sends_what_concerns_its_scope_and_not_what_its_parent_keeps() {
        let schema = Schema::current();
        let (township, county) = (division("220822101"), division("220822"));
        let case = schema.kind_named("case").unwrap();
        assert!(may_send(township, &Audience::of_home(case, township)));
        assert!(!may_send(township, &Audience::of_home(case, county)));
        assert!(!may_send(township, &Audience::of_home(case, division("220822102"))));
        let kind = schema.kind_named("division").unwrap();
        assert!(
            may_send(township, &Audience::of_home(kind, county)),
            "everyone below has it and gives it back"
        );
    }

    #[test]
    fn writers_follow_the_contract() {
        let schema = Schema::current();
        let grid = schema.kind_named("grid").unwrap();
        let home = division("220822101");
        let audience = Audience::of_home(grid, home);
        let may = |field, who: &str| may_write(grid, grid.field_named(field), home, &audience, division(who));
        assert!(may("display_name", "220822101"));
        assert!(may("display_name", "220822"));
        assert!(may("grid_type", "220000"));
        assert!(!may("grid_type", "220822102"), "a neighbour");
        assert!(!may("grid_type", "2209"), "another prefecture");
        assert!(!may("record_complete", "220822"));
        let camera = schema.kind_named("camera").unwrap();
        let status = camera.field_named("status");
        assert!(may_write(camera, status, home, &audience, division("220822")));
        assert!(!may_write(camera, status, home, &audience, division("2208")));
    }

    #[test]
    fn a_child_passes_foreign_stamps_only_as_far_as_we_have_them() {
        let home = division("220822101");
        let right = ChildRight {
            scope: home,
            recovering_to: None,
            is_own: &|w| w.division == division("220822"),
            is_current: &|_| false,
        };
        let value = |n: u8| Bytes::from(vec![0x30, n]);
        let ours = Register::single(writer("220822"), Stamp::from_ms(5), value(1));
        let mut held = Record::default();
        held.set(6, ours.clone());
        assert_eq!(right.foreign_entry(home, 6, &ours, &held), None, "the same");
        let altered = Register::single(writer("220822"), Stamp::from_ms(5), value(9));
        assert!(right.foreign_entry(home, 6, &altered, &held).is_some());
        let newer = Register::single(writer("220822"), Stamp::from_ms(6), value(9));
        assert!(right.foreign_entry(home, 6, &newer, &held).is_some());
        let recovering = ChildRight { recovering_to: Some(Stamp::from_ms(6)), ..right };
        assert_eq!(recovering.foreign_entry(home, 6, &newer, &held), None);
        let early = Register::from_entries([Entry::seen(writer("220822"), Stamp::from_ms(900))]);
        assert_eq!(recovering.foreign_entry(home, 6, &early, &held), None, "replaced, by whatever clock");
        let current = ChildRight { is_current: &|_| true, ..recovering };
        assert!(current.foreign_entry(home, 6, &early, &held).is_some(), "that is yet to be written");
        assert!(right.foreign_entry(home, 6, &early, &held).is_some());
        let elsewhere = division("220822102");
        assert_eq!(recovering.foreign_entry(elsewhere, 6, &newer, &held), None, "its own, lost");
        let others = Register::single(writer("2208"), Stamp::from_ms(6), value(9));
        assert!(recovering.foreign_entry(elsewhere, 6, &others, &held).is_some());
        held.purge(6);
        assert_eq!(right.foreign_entry(home, 6, &ours, &held), None, "what was purged counts as had");
    }

    #[test]
    fn a_child_makes_a_foreign_value_go_only_by_a_write_or_while_this_node_recovers() {
        let home = division("220822101");
        let right =
            ChildRight { scope: home, recovering_to: None, is_own: &|_| false, is_current: &|_| false };
        let above = Entry::new(writer("2208"), Stamp::from_ms(5), Some(Bytes::from_static(b"0\x01")));
        let below = Entry::new(writer("220822101"), Stamp::from_ms(6), Some(Bytes::from_static(b"0\x02")));
        let gone = Entry::seen(above.writer, above.stamp);
        let dropped = |ours: &[&Entry], theirs: &[&Entry]| {
            let [ours, theirs] =
                [ours, theirs].map(|all| Register::from_entries(all.iter().map(|e| (*e).clone())));
            right.dropped_values(false, &theirs, &ours, |_| true).len()
        };
        assert_eq!(dropped(&[&above], &[&gone]), 1, "by nothing");
        assert_eq!(dropped(&[&above], &[&gone, &below]), 0, "by a write");
        assert_eq!(dropped(&[&above, &below], &[&gone, &below]), 1, "by a write that stood beside it");
        assert!(!right.brings_back(home, &gone));
        let recovering = ChildRight { recovering_to: Some(above.stamp), ..right };
        assert!(recovering.brings_back(home, &gone), "what replaced it was known here once");
        assert!(!recovering.brings_back(home, &below), "nothing from after that");
    }
}
