//! The answer to a probe: which of the named parts differ from what is here. It reads no more than a probe may be about,
//! whatever sizes the other end claims, and says how far it came. It names nothing but what the other end named, and
//! records that the two ends share.

use std::cmp::Ordering;
use std::sync::Arc;

use guantong_proto::v1;
use guantong_proto::v1::probe::Extent;

use super::parts::{Difference, ENTRIES_MAX, HomeSums, PROBE_RECORDS_MAX, Page, Read};
use super::sums::read_sum;
use crate::division::Division;
use crate::proof::Sum;
use crate::record::{ID_MAX_BYTES, RecordName};
use crate::schema::{KindId, Schema};

/// A part as the other end has it.
struct Part {
    name: Box<str>,
    count: u64,
    sum: Sum,
}

/// What is asked.
enum Question {
    Homes { after: Option<Division>, through: Option<Division> },
    Ranges { home: Division },
    Records { home: Division, through: Option<Box<str>> },
}

/// One answer on its way.
pub(super) struct Answering {
    difference: Arc<Difference>,
    probe_id: u64,
    kind: KindId,
    question: Question,
    /// Ascending.
    theirs: Vec<Part>,
    /// What was read so far of single records.
    own: Vec<(Box<str>, Sum)>,
    /// What was read so far of the stretch at `at`.
    at: usize,
    count: u64,
    sum: Sum,
    after_id: Box<str>,
    records: usize,
    finding: v1::Finding,
    /// Records to be owed before the finding goes out.
    pub(super) owe: Vec<RecordName>,
    done: bool,
}

impl Answering {
    /// `None`: it is no question that can be answered.
    pub(super) fn new(schema: &Schema, difference: Arc<Difference>, probe: v1::Probe) -> Option<Answering> {
        let kind = schema.kind_named(&probe.kind)?.id;
        difference.part(kind)?;
        let home = |code: &str| Division::parse(code).ok().filter(|home| *home == home.home());
        let maybe_home = |code: &str| if code.is_empty() { Some(None) } else { home(code).map(Some) };
        let (question, after_id, parts) = match probe.extent? {
            Extent::Homes(v1::HomeExtent { after_home, through_home, homes }) => {
                let (after, through) = (maybe_home(&after_home)?, maybe_home(&through_home)?);
                (Question::Homes { after, through }, String::new(), homes)
            }
            Extent::Ranges(v1::RangeExtent { home: of, after_id, ranges }) => {
                (Question::Ranges { home: home(&of)? }, after_id, ranges)
            }
            Extent::Records(v1::RecordExtent { home: of, after_id, through_id, records }) => {
                let through = (!through_id.is_empty()).then(|| through_id.into());
                (Question::Records { home: home(&of)?, through }, after_id, records)
            }
        };
        let theirs = read_parts(parts, matches!(question, Question::Ranges { .. }))?;
        let (comparison, probe_id) = (difference.comparison, probe.probe_id);
        Some(Answering {
            difference,
            probe_id,
            kind,
            question,
            theirs,
            own: Vec::new(),
            at: 0,
            count: 0,
            sum: Sum::ZERO,
            after_id: after_id.into(),
            records: 0,
            finding: v1::Finding { comparison, probe_id, ..v1::Finding::default() },
            owe: Vec::new(),
            done: false,
        })
    }

    /// The answer to a question that is not answered.
    pub(super) fn refusal(probe: &v1::Probe) -> v1::Finding {
        let (comparison, probe_id) = (probe.comparison, probe.probe_id);
        v1::Finding { comparison, probe_id, refused: true, ..v1::Finding::default() }
    }

    /// What to read next; `None`: the finding is whole.
    pub(super) fn next(&self) -> Option<Read> {
        if self.done {
            return None;
        }
        let (kind, difference, after_id) = (self.kind, self.difference.clone(), self.after_id.clone());
        Some(match self.question {
            Question::Homes { .. } => Read::Homes { kind },
            Question::Ranges { home } | Question::Records { home, .. } => {
                Read::Page { difference, kind, home, after_id }
            }
        })
    }

    /// The finding, once there is nothing more to read.
    pub(super) fn into_finding(self) -> v1::Finding {
        v1::Finding { probe_id: self.probe_id, ..self.finding }
    }

    /// Single records that differ.
    pub(super) fn records_found(&self) -> u64 {
        if matches!(self.question, Question::Records { .. }) {
            self.finding.differing.len() as u64
        } else {
            0
        }
    }

    /// The kept sums that were asked for.
    pub(super) fn homes(&mut self, kept: HomeSums) {
        self.done = true;
        let Question::Homes { after, through } = self.question else { return };
        let difference = self.difference.clone();
        let Some(part) = difference.part(self.kind) else { return };
        let inside = |home: &Division| Some(*home) > after && through.is_none_or(|through| *home <= through);
        let homes = difference.homes(part, kept).into_iter().filter(|(home, _)| inside(home));
        // Codes have 12 digits, so that their order as texts is that of the divisions.
        let own: Vec<(Box<str>, Sum)> = homes.map(|(home, sum)| (home.to_string().into(), sum)).collect();
        let theirs = self.theirs.iter().map(|part| (&*part.name, part.sum));
        let differing = differing(own.iter().map(|(home, sum)| (&**home, *sum)), theirs);
        self.finding.differing = differing.into_iter().map(Into::into).collect();
        self.cut();
    }

    /// No more than a finding may hold.
    fn cut(&mut self) {
        if self.finding.differing.len() > ENTRIES_MAX {
            self.finding.differing.truncate(ENTRIES_MAX);
            self.finding.through = self.finding.differing.last().cloned().unwrap_or_default();
        }
    }

    /// The page that was asked for.
    pub(super) fn page(&mut self, page: Page) {
        self.records += page.records;
        match self.question {
            Question::Ranges { .. } => self.ranges(page),
            Question::Records { .. } => self.single(page),
            Question::Homes { .. } => self.done = true,
        }
    }

    /// Adds up stretches; one that is known to differ is not read to its end.
    fn ranges(&mut self, page: Page) {
        for (id, sum) in page.digests {
            while self.theirs.get(self.at).is_some_and(|part| !part.name.is_empty() && *id > *part.name) {
                self.end_range();
            }
            let Some(part) = self.theirs.get(self.at) else { break };
            (self.count, self.sum) = (self.count + 1, self.sum + sum);
            if self.count > part.count {
                self.after_id = part.name.clone();
                self.end_range();
                return self.go_on();
            }
        }
        match page.more_after {
            Some(last) => {
                while self.theirs.get(self.at).is_some_and(|p| !p.name.is_empty() && *last >= *p.name) {
                    self.end_range();
                }
                self.after_id = last;
                self.go_on();
            }
            None => {
                while self.at < self.theirs.len() {
                    self.end_range();
                }
                self.done = true;
            }
        }
    }

    /// The stretch was read, or is known to differ.
    fn end_range(&mut self) {
        let Some(part) = self.theirs.get(self.at) else { return };
        if (self.count, self.sum) != (part.count, part.sum) {
            self.finding.differing.push((&*part.name).into());
        }
        (self.at, self.count, self.sum) = (self.at + 1, 0, Sum::ZERO);
    }

    /// Whether to read on: not beyond the last stretch, and not more than a probe may be about.
    fn go_on(&mut self) {
        if self.at == self.theirs.len() {
            self.done = true;
        } else if self.records >= PROBE_RECORDS_MAX + PROBE_RECORDS_MAX / 2 {
            if self.at == 0 {
                // Much more lies in it here than the other end can have meant.
                (self.count, self.sum) = (u64::MAX, Sum::ZERO);
                self.end_range();
            }
            self.finding.through = (&*self.theirs[self.at - 1].name).into();
            self.done = true;
        }
    }

    fn single(&mut self, page: Page) {
        let Question::Records { through, .. } = &self.question else { return };
        let through = through.clone();
        let beyond = |id: &str| through.as_ref().is_some_and(|through| id > &**through);
        self.own.extend(page.digests.into_iter().filter(|(id, _)| !beyond(id)));
        let mut end = None;
        if let Some(last) = page.more_after {
            let full = self.own.len() >= ENTRIES_MAX || self.records >= PROBE_RECORDS_MAX;
            let passed = through.as_ref().is_some_and(|through| last >= *through);
            let nameable = self.last_nameable(&last).filter(|_| full);
            if !passed && nameable.is_none() {
                self.after_id = last;
                return;
            }
            end = nameable.filter(|_| !passed);
        }
        self.done = true;
        self.finding.through = end.as_deref().unwrap_or_default().into();
        let looked_at = |id: &str| end.as_deref().is_none_or(|end| id <= end);
        let theirs = self.theirs.iter().map(|part| (&*part.name, part.sum)).filter(|(id, _)| looked_at(id));
        let differing = differing(self.own.iter().map(|(id, sum)| (&**id, *sum)), theirs);
        self.finding.differing = differing.into_iter().map(Into::into).collect();
        self.cut();
        let Question::Records { home, .. } = self.question else { return };
        let held = |id: &&String| self.own.binary_search_by(|(own, _)| (**own).cmp(id.as_str())).is_ok();
        let names = self.finding.differing.iter().filter(held);
        self.owe = names.filter_map(|id| RecordName::new(home, self.kind, id).ok()).collect();
    }

    /// The last id up to `last` that the other end may hear of. Of a record that does not concern it, not even the id.
    fn last_nameable(&self, last: &str) -> Option<Box<str>> {
        let upto = self.theirs.partition_point(|part| *part.name <= *last);
        let theirs = upto.checked_sub(1).map(|at| self.theirs[at].name.clone());
        self.own.last().map(|(id, _)| id.clone()).max(theirs)
    }

    /// For how many more probes it counts, where records had to be passed over that do not concern the other end.
    pub(super) fn cost_beyond(&self) -> u32 {
        u32::try_from(self.records / (2 * PROBE_RECORDS_MAX)).unwrap_or(u32::MAX)
    }
}

/// Parts as they were sent: ascending, not too many, only the last stretch without an end.
fn read_parts(sent: Vec<v1::PartSum>, stretches: bool) -> Option<Vec<Part>> {
    let count = sent.len();
    if count > ENTRIES_MAX || stretches && count == 0 {
        return None;
    }
    let mut parts: Vec<Part> = Vec::with_capacity(count);
    for (place, one) in sent.into_iter().enumerate() {
        let open = stretches && place + 1 == count && one.name.is_empty();
        let ascends = parts.last().is_none_or(|before| *one.name > *before.name) && !one.name.is_empty();
        if !(open || ascends) || one.name.len() > ID_MAX_BYTES {
            return None;
        }
        parts.push(Part { name: one.name.into(), count: one.count, sum: read_sum(&one.sum)? });
    }
    Some(parts)
}

/// The names whose sums are not the same on both sides, ascending.
fn differing<'a>(
    own: impl Iterator<Item = (&'a str, Sum)>,
    theirs: impl Iterator<Item = (&'a str, Sum)>,
) -> Vec<&'a str> {
    let (mut own, mut theirs) = (own.peekable(), theirs.peekable());
    let mut differing = Vec::new();
    loop {
        let order = match (own.peek(), theirs.peek()) {
            (None, None) => return differing,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some((own, _)), Some((theirs, _))) => own.cmp(theirs),
        };
        let one = if order.is_le() { own.next() } else { None };
        let other = if order.is_ge() { theirs.next() } else { None };
        if let Some((name, _)) = one.or(other)
            && one.map(|(_, sum)| sum) != other.map(|(_, sum)| sum)
        {
            differing.push(name);
        }
    }
}
