//! The way down to the records that differ, from the end that leads: homes whose sums differ, stretches of ids, single
//! records. One question at a time. It never trusts what the other end says beyond which of the parts it named differ: a
//! wrong answer ends the descent, and makes nobody send anything that it would not send anyway. Every answer leads on, so
//! that none of them keeps a descent going for ever.

use std::collections::BTreeSet;
use std::sync::Arc;

use guantong_proto::v1;
use guantong_proto::v1::probe::Extent;

use super::parts::{Difference, ENTRIES_MAX, HomeSums, PAGE_RECORDS, PROBE_RECORDS_MAX, Page, Read};
use super::sums::write_sum;
use crate::division::Division;
use crate::proof::Sum;
use crate::record::RecordName;
use crate::schema::{KindId, Schema};

/// Records that one descent finds; more are left to the next.
const FOUND_MAX: u64 = 50_000;

/// What the descent wants next.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Move {
    /// Read, and give it to `homes` or `page`.
    Read(Read),
    /// Ask the other end, and give its answer to `finding`.
    Probe(v1::Probe),
    /// These differ: the other end is owed what there is of them.
    Owe(Vec<RecordName>),
    /// It has been down everywhere. `false`: only as far as it went.
    Done(bool),
}

/// A part that is still to be looked at.
#[derive(Clone, Debug)]
enum Place {
    Homes {
        kind: KindId,
        homes: Vec<(Division, Sum)>,
        after: Option<Division>,
    },
    Ranges {
        kind: KindId,
        home: Division,
        after_id: Box<str>,
    },
    Records {
        kind: KindId,
        home: Division,
        after_id: Box<str>,
        /// Up to this one; `None`: all that follow.
        through: Option<Box<str>>,
    },
}

/// Stretches of ids that are being put together for one probe.
struct Gathering {
    kind: KindId,
    home: Division,
    after_id: Box<str>,
    parts: Vec<v1::PartSum>,
    records: usize,
}

/// What a probe was about.
enum Asked {
    Homes {
        kind: KindId,
        homes: Vec<(Division, Sum)>,
        after: Option<Division>,
        through: Option<Division>,
    },
    Ranges {
        kind: KindId,
        home: Division,
        after_id: Box<str>,
        ends: Vec<Box<str>>,
        more: bool,
    },
    Records {
        kind: KindId,
        home: Division,
        after_id: Box<str>,
        through: Option<Box<str>>,
        own: Vec<Box<str>>,
    },
}

/// One descent.
pub(super) struct Descent {
    difference: Arc<Difference>,
    /// Kinds whose homes were not read yet.
    kinds: Vec<KindId>,
    places: Vec<Place>,
    gathering: Option<Gathering>,
    reading: Option<Place>,
    asked: Option<Asked>,
    ready: Option<Move>,
    last_probe: u64,
    /// Records found to differ, at either end.
    pub(super) found: u64,
    is_cut: bool,
}

impl Descent {
    pub(super) fn new(difference: Arc<Difference>) -> Descent {
        let kinds = difference.parts.iter().map(|part| part.kind).collect();
        Descent {
            difference,
            kinds,
            places: Vec::new(),
            gathering: None,
            reading: None,
            asked: None,
            ready: None,
            last_probe: 0,
            found: 0,
            is_cut: false,
        }
    }

    /// Parts that are still to be looked at.
    #[cfg(test)]
    pub(super) fn waiting(&self) -> usize {
        self.places.len()
    }

    /// What to do next; `None`: an answer or what was read is waited for.
    pub(super) fn next(&mut self, schema: &Schema) -> Option<Move> {
        if let Some(ready) = self.ready.take() {
            return Some(ready);
        }
        if self.asked.is_some() || self.reading.is_some() {
            return None;
        }
        if self.found >= FOUND_MAX {
            self.is_cut = true;
            self.places.clear();
            self.kinds.clear();
        }
        match self.places.pop() {
            Some(Place::Homes { kind, homes, after }) => Some(self.ask_homes(schema, kind, homes, after)),
            Some(place) => Some(self.read(place)),
            None => match self.kinds.pop() {
                Some(kind) => {
                    self.reading = Some(Place::Homes { kind, homes: Vec::new(), after: None });
                    Some(Move::Read(Read::Homes { kind }))
                }
                None => Some(Move::Done(!self.is_cut)),
            },
        }
    }

    fn read(&mut self, place: Place) -> Move {
        let (kind, home, after_id) = match &place {
            Place::Ranges { kind, home, after_id } | Place::Records { kind, home, after_id, .. } => {
                (*kind, *home, after_id.clone())
            }
            Place::Homes { .. } => return Move::Done(false),
        };
        self.reading = Some(place);
        Move::Read(Read::Page { difference: self.difference.clone(), kind, home, after_id })
    }

    /// The kept sums that were asked for.
    pub(super) fn homes(&mut self, kept: HomeSums) {
        let Some(Place::Homes { kind, .. }) = self.reading.take() else { return };
        let Some(part) = self.difference.part(kind) else { return };
        let homes = self.difference.homes(part, kept);
        self.places.push(Place::Homes { kind, homes, after: None });
    }

    fn ask_homes(
        &mut self,
        schema: &Schema,
        kind: KindId,
        homes: Vec<(Division, Sum)>,
        after: Option<Division>,
    ) -> Move {
        let from = homes.partition_point(|(home, _)| Some(*home) <= after);
        let asked = &homes[from..homes.len().min(from + ENTRIES_MAX)];
        let through = asked.last().map(|(home, _)| *home).filter(|_| from + asked.len() < homes.len());
        let part = |(home, sum): &(Division, Sum)| v1::PartSum {
            name: home.to_string(),
            count: 0,
            sum: write_sum(*sum),
        };
        let extent = Extent::Homes(v1::HomeExtent {
            after_home: after.map(|home| home.to_string()).unwrap_or_default(),
            through_home: through.map(|home| home.to_string()).unwrap_or_default(),
            homes: asked.iter().map(part).collect(),
        });
        self.asked = Some(Asked::Homes { kind, homes, after, through });
        self.probe(schema, kind, extent)
    }

    fn probe(&mut self, schema: &Schema, kind: KindId, extent: Extent) -> Move {
        self.last_probe += 1;
        Move::Probe(v1::Probe {
            comparison: self.difference.comparison,
            probe_id: self.last_probe,
            kind: schema.kind(kind).rule.name.into(),
            extent: Some(extent),
        })
    }

    /// The page that was asked for.
    pub(super) fn page(&mut self, schema: &Schema, page: Page) {
        match self.reading.take() {
            Some(Place::Ranges { kind, home, after_id }) => self.gather(schema, kind, home, after_id, page),
            Some(Place::Records { kind, home, after_id, through }) => {
                self.ready = Some(self.ask_records(schema, kind, home, after_id, through, page));
            }
            _ => {}
        }
    }

    /// A stretch for each page, until there are as many records as a probe may be about.
    fn gather(&mut self, schema: &Schema, kind: KindId, home: Division, after_id: Box<str>, page: Page) {
        let first = self.gathering.is_none();
        if first && page.more_after.is_none() {
            // So few that they are compared one by one at once.
            self.ready = Some(self.ask_records(schema, kind, home, after_id, None, page));
            return;
        }
        let mut gathering = self.gathering.take().unwrap_or_else(|| Gathering {
            kind,
            home,
            after_id,
            parts: Vec::new(),
            records: 0,
        });
        gathering.records += page.records;
        gathering.parts.push(v1::PartSum {
            name: page.more_after.as_deref().unwrap_or_default().into(),
            count: page.digests.len() as u64,
            sum: write_sum(page.digests.iter().fold(Sum::ZERO, |all, (_, sum)| all + *sum)),
        });
        if let Some(after_id) = page.more_after.clone()
            && gathering.records + PAGE_RECORDS <= PROBE_RECORDS_MAX
        {
            self.gathering = Some(gathering);
            self.ready = Some(self.read(Place::Ranges { kind, home, after_id }));
            return;
        }
        let Gathering { kind, home, after_id, parts, .. } = gathering;
        let ends = parts.iter().map(|part| part.name.as_str().into()).collect();
        let more = page.more_after.is_some();
        self.asked = Some(Asked::Ranges { kind, home, after_id: after_id.clone(), ends, more });
        let extent = v1::RangeExtent { home: home.to_string(), after_id: after_id.into(), ranges: parts };
        self.ready = Some(self.probe(schema, kind, Extent::Ranges(extent)));
    }

    fn ask_records(
        &mut self,
        schema: &Schema,
        kind: KindId,
        home: Division,
        after_id: Box<str>,
        through: Option<Box<str>>,
        mut page: Page,
    ) -> Move {
        if let Some(through) = &through {
            page.digests.retain(|(id, _)| id <= through);
        }
        // What lies beyond this page is asked next.
        let end = match (page.more_after, through) {
            (Some(last), Some(through)) if last >= through => Some(through),
            (Some(last), through) => {
                let after_id = last.clone();
                self.places.push(Place::Records { kind, home, after_id, through });
                Some(last)
            }
            (None, through) => through,
        };
        let part = |(id, sum): &(Box<str>, Sum)| v1::PartSum {
            name: (&**id).into(),
            count: 1,
            sum: write_sum(*sum),
        };
        let extent = Extent::Records(v1::RecordExtent {
            home: home.to_string(),
            after_id: (&*after_id).into(),
            through_id: end.as_deref().unwrap_or_default().into(),
            records: page.digests.iter().map(part).collect(),
        });
        let own = page.digests.into_iter().map(|(id, _)| id).collect();
        self.asked = Some(Asked::Records { kind, home, after_id, through: end, own });
        self.probe(schema, kind, extent)
    }

    /// What the other end found. False: it is no answer to what was asked, and the descent is over.
    pub(super) fn finding(&mut self, finding: v1::Finding) -> bool {
        let Some(asked) = self.asked.take() else { return false };
        let theirs = finding.comparison == self.difference.comparison && finding.probe_id == self.last_probe;
        if !theirs || finding.refused || finding.differing.len() > ENTRIES_MAX {
            return false;
        }
        match asked {
            Asked::Homes { kind, homes, after, through } => {
                self.found_homes(kind, homes, after, through, &finding)
            }
            Asked::Ranges { kind, home, after_id, ends, more } => {
                self.found_ranges(kind, home, &after_id, &ends, more, &finding)
            }
            Asked::Records { kind, home, after_id, through, own } => {
                self.found_records(kind, home, &after_id, through, &own, finding)
            }
        }
    }

    fn found_homes(
        &mut self,
        kind: KindId,
        homes: Vec<(Division, Sum)>,
        after: Option<Division>,
        through: Option<Division>,
        finding: &v1::Finding,
    ) -> bool {
        let inside = |home: Division| Some(home) > after && through.is_none_or(|through| home <= through);
        let looked_at = match finding.through.as_str() {
            "" => through,
            cut => match Division::parse(cut) {
                Ok(cut) if inside(cut) => Some(cut),
                _ => return false,
            },
        };
        if let Some(after) = looked_at {
            self.places.push(Place::Homes { kind, homes, after: Some(after) });
        }
        let mut before = after;
        for home in &finding.differing {
            let Ok(home) = Division::parse(home) else { return false };
            if home != home.home() || !inside(home) || Some(home) <= before {
                return false;
            }
            before = Some(home);
            self.places.push(Place::Ranges { kind, home, after_id: Box::default() });
        }
        true
    }

    fn found_ranges(
        &mut self,
        kind: KindId,
        home: Division,
        after_id: &str,
        ends: &[Box<str>],
        more: bool,
        finding: &v1::Finding,
    ) -> bool {
        let looked_at = match finding.through.as_str() {
            "" => ends.len(),
            cut => match ends.iter().position(|end| &**end == cut) {
                Some(at) => at + 1,
                None => return false,
            },
        };
        if let Some(end) = ends[..looked_at].last().filter(|end| !end.is_empty())
            && (more || looked_at < ends.len())
        {
            self.places.push(Place::Ranges { kind, home, after_id: end.clone() });
        }
        let mut looked_for = 0;
        for differing in &finding.differing {
            let ahead = &ends[looked_for.min(looked_at)..looked_at];
            let Some(at) = ahead.iter().position(|end| **end == **differing) else { return false };
            let at = looked_for + at;
            looked_for = at + 1;
            let after_id = if at == 0 { after_id.into() } else { ends[at - 1].clone() };
            let through = Some(ends[at].clone()).filter(|end| !end.is_empty());
            self.places.push(Place::Records { kind, home, after_id, through });
        }
        true
    }

    fn found_records(
        &mut self,
        kind: KindId,
        home: Division,
        after_id: &str,
        through: Option<Box<str>>,
        own: &[Box<str>],
        finding: v1::Finding,
    ) -> bool {
        let cut: Box<str> = finding.through.into();
        let inside = |id: &str| *id > *after_id && through.as_ref().is_none_or(|through| *id <= **through);
        if !finding.differing.iter().all(|id| inside(id)) {
            return false;
        }
        if !cut.is_empty() {
            // It must lead on, and not beyond what was asked.
            if !inside(&cut) {
                return false;
            }
            if through.as_ref() != Some(&cut) {
                self.places.push(Place::Records { kind, home, after_id: cut, through });
            }
        }
        let differing: BTreeSet<String> = finding.differing.into_iter().collect();
        self.found += differing.len() as u64;
        let held = differing.iter().filter(|id| own.binary_search_by(|o| (**o).cmp(id.as_str())).is_ok());
        let names: Vec<RecordName> = held.filter_map(|id| RecordName::new(home, kind, id).ok()).collect();
        if !names.is_empty() {
            self.ready = Some(Move::Owe(names));
        }
        true
    }
}
