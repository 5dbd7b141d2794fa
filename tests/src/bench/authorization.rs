//! What it costs to decide who may do what, a record: by `access`, all that a parent asks of a record from its child, and
//! by a grant, all that is asked before a partner is shown a record. The decisions alone, by the functions that the
//! program calls; nothing is decoded, merged or stored. CPU time of one thread.

use std::hint::black_box;
use std::path::Path;

use anyhow::{Context, Result};
use bytes::Bytes;
use guantong_gateway::access::{self, ChildRight};
use guantong_gateway::division::Division;
use guantong_gateway::grant::{Grant, Kinds, Level, Units};
use guantong_gateway::record::audience::Audience;
use guantong_gateway::record::{Record, Register, raw};
use guantong_gateway::schema::{Kind, Schema};
use guantong_gateway::stamp::{Stamp, Writer};
use guantong_proto::rules::Policy;
use serde_json::json;

use super::cpu_ns;

/// Decides over `records` records of each kind, with every field of the kind.
///
/// # Errors
/// Where the system does not tell a thread's CPU time.
pub fn run(records: u64) -> Result<serde_json::Value> {
    let schema = Schema::current();
    let mut report = json!({ "records": records });
    for name in ["case", "camera", "grid"] {
        let kind = schema.kind_named(name).context("the contract lacks a kind")?;
        let bench = Bench::new(kind)?;
        report[name] = json!({
            "fields": kind.fields().count(),
            "new_from_child_us": micros(records, || bench.takes(&Record::default()))?,
            "changed_from_child_us": micros(records, || bench.takes(&bench.held))?,
            "shown_to_partner_us": micros(records, || bench.shows())?,
        });
    }
    Ok(report)
}

fn micros(times: u64, decide: impl Fn() -> bool) -> Result<f64> {
    let thread = Path::new("/proc/thread-self");
    let mut all = true;
    let before = cpu_ns(thread)?;
    for _ in 0..times {
        all &= black_box(decide());
    }
    let spent = cpu_ns(thread)? - before;
    anyhow::ensure!(all, "what should be allowed was refused");
    Ok((spent as f64 / times.max(1) as f64).round() / 1e3)
}

struct Bench<'s> {
    kind: &'s Kind,
    home: Division,
    parent: Division,
    /// As it comes.
    record: Record,
    /// As the parent has it: written before, and once by itself.
    held: Record,
    grant: Grant,
}

impl<'s> Bench<'s> {
    fn new(kind: &'s Kind) -> Result<Bench<'s>> {
        let (home, parent) = (Division::parse("220822101")?, Division::parse("220822")?);
        let (mut record, mut held) = (Record::default(), Record::default());
        let value = |field| {
            let mut value = Vec::new();
            raw::put_message(&mut value, raw::message_tag(field), b"");
            Bytes::from(value)
        };
        for field in kind.fields() {
            let writer = Writer { division: home, id: 1 };
            record.set(field.number, Register::single(writer, Stamp::from_ms(2), value(field.number)));
            held.set(field.number, Register::single(writer, Stamp::from_ms(1), value(field.number)));
        }
        let units = Units::of(["court"]);
        let grant = Grant {
            scope: parent,
            kinds: Kinds::of([kind.id]),
            level: Level::Read,
            personal: false,
            units,
            rate: None,
        };
        Ok(Bench { kind, home, parent, record, held, grant })
    }

    /// As `ingest::link` asks of every record of a child.
    fn takes(&self, held: &Record) -> bool {
        let audience = Audience::of(self.kind, self.home, held);
        let is_own = |writer: Writer| writer.division == self.parent;
        let right =
            ChildRight { scope: self.home, recovering_to: None, is_own: &is_own, is_current: &|_| true };
        access::may_send(self.home, &audience)
            && self.record.fields().iter().all(|(field, register)| {
                let rule = self.kind.field(*field);
                let may_write = |writer| access::may_write(self.kind, rule, self.home, &audience, writer);
                // The answer is left aside: some fields are not a township's.
                black_box(register.entries().iter().filter(|e| may_write(e.writer.division)).count());
                let union = rule.is_some_and(|rule| rule.policy == Policy::Union);
                let dropped =
                    held.get(*field).map(|ours| right.dropped_values(union, register, ours, may_write));
                right.foreign_entry(self.home, *field, register, held).is_none()
                    && dropped.is_none_or(|dropped| dropped.is_empty())
                    && right.recovered(*field, register, held) == 0
            })
    }

    /// As the services ask before they show a record.
    fn shows(&self) -> bool {
        let audience = Audience::of(self.kind, self.home, &self.record);
        let shown = |field| self.kind.field(field).is_some_and(|rule| black_box(self.grant.shows(rule)));
        self.grant.may_read(self.kind.id, self.home)
            && self.grant.may_read_record(self.kind.id, &audience)
            && self.record.fields().iter().filter(|(field, _)| shown(*field)).count() > 0
    }
}
