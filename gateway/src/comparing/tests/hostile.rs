//! A peer that sends whatever it likes, in any order: little comes of it, nothing but what the two ends share, and records
//! are owed to it only where they concern it.

use super::*;
use crate::comparing::parts::{ENTRIES_MAX, PROBE_RECORDS_MAX};
use guantong_proto::v1::probe::Extent;

/// A home that the lower end has nothing to do with.
const FOREIGN: u64 = 220881101000;
/// Steps that one frame may cause: reads of a probe's records, and what is said.
const STEPS_MAX: usize = 64;
/// Frames that one frame may cause.
const FRAMES_MAX: usize = 3;
/// Parts that a descent keeps in mind: those of one answer for each of its levels.
const WAITING_MAX: usize = 4 * ENTRIES_MAX;

/// What the peer does next; the numbers choose among what could be meant.
#[derive(Clone, Debug)]
enum Turn {
    Checksum { comparison: u8, position: u8, sums: u8, left_out: u8, asks: bool, incomparable: u8 },
    Probe { comparison: u8, kind: u8, home: u8, extent: u8, after: u8, parts: Vec<(u8, u8, u8)> },
    Finding { comparison: u8, id: u8, through: u8, named: Vec<u8>, refused: bool },
    Wait(u32),
}

fn turn() -> impl Strategy<Value = Turn> {
    let parts = prop_oneof![
        9 => prop::collection::vec(any::<(u8, u8, u8)>(), 0..6),
        1 => Just(vec![(7, 1, 1); ENTRIES_MAX + 1]),
    ];
    let named = prop_oneof![
        9 => prop::collection::vec(any::<u8>(), 0..6),
        1 => Just(vec![0; ENTRIES_MAX + 1]),
    ];
    prop_oneof![
        4 => (any::<[u8; 5]>(), any::<bool>()).prop_map(|([comparison, position, sums, left_out, why], asks)| {
            Turn::Checksum { comparison, position, sums, left_out, asks, incomparable: why }
        }),
        4 => (any::<[u8; 5]>(), parts).prop_map(|([comparison, kind, home, extent, after], parts)| {
            Turn::Probe { comparison, kind, home, extent, after, parts }
        }),
        4 => (any::<[u8; 3]>(), named, prop::bool::weighted(0.1)).prop_map(|([comparison, id, through], named, refused)| {
            Turn::Finding { comparison, id, through, named, refused }
        }),
        1 => prop_oneof![0u32..40_000, 290_000u32..400_000].prop_map(Turn::Wait),
    ]
}

/// What the end under attack said last, for the peer to use.
#[derive(Default)]
struct Heard {
    checksum: v1::Checksum,
    probe: v1::Probe,
    /// The comparison in which it found a difference.
    differing: u64,
}

/// Ids and homes that a peer could name: its own, others', what it was just told, and nonsense.
fn text(at: u8, heard: &Heard) -> String {
    let of_probe = || -> Vec<String> {
        let (parts, mut ends) = match heard.probe.extent.clone() {
            Some(Extent::Homes(of)) => (of.homes, vec![of.after_home, of.through_home]),
            Some(Extent::Ranges(of)) => (of.ranges, vec![of.after_id]),
            Some(Extent::Records(of)) => (of.records, vec![of.after_id, of.through_id]),
            None => (Vec::new(), Vec::new()),
        };
        ends.extend(parts.into_iter().map(|part| part.name));
        ends
    };
    match at % 16 {
        0 => String::new(),
        1 => HOMES[0].to_string(),
        2 => HOMES[1].to_string(),
        3 => FOREIGN.to_string(),
        4 => "号\u{0}".repeat(60),
        5 => "220822101".to_owned(),
        6..=9 => format!("g{:05}", at / 16),
        _ => {
            let said = of_probe();
            let one = said.get(usize::from(at / 16) % said.len().max(1)).cloned();
            one.unwrap_or_else(|| format!("g{:05}", at / 6))
        }
    }
}

fn comparison(at: u8, heard: &Heard) -> u64 {
    match at % 8 {
        0 => 0,
        1 => heard.checksum.comparison + 1,
        2 => heard.checksum.comparison + 2,
        3 => u64::from(at) << 40,
        _ => heard.checksum.comparison.max(2),
    }
}

fn sum(at: u8) -> bytes::Bytes {
    match at % 32 {
        0..=8 => bytes::Bytes::new(),
        9 => vec![at; 15].into(),
        _ => vec![at; 16].into(),
    }
}

fn checksum(turn: &Turn, heard: &Heard, position: Option<Position>) -> Option<v1::Checksum> {
    let Turn::Checksum { comparison: of, position: at, sums, left_out, asks, incomparable } = turn else {
        return None;
    };
    let position = position.filter(|_| at % 4 != 0).unwrap_or_default();
    let stated = |kind: &str, field| v1::FieldSum { kind: kind.into(), field, sum: sum(*sums) };
    let sums = match sums % 4 {
        0 => Vec::new(),
        1 => vec![stated("grid", 9_999), stated("nothing", 1)],
        // What it was told, but for one.
        2 => heard.checksum.sums.iter().skip(usize::from(*at) % 3).cloned().collect(),
        _ => heard.checksum.sums.iter().map(|sum| stated("grid", sum.field)).collect(),
    };
    let record = |id: u8| v1::LeftOut {
        record: format!("divisions/{}/grids/{}", [HOMES[0], FOREIGN][usize::from(id % 2)], text(id, heard)),
        fields: if id.is_multiple_of(3) { vec![u32::from(id)] } else { Vec::new() },
    };
    let left_out = match left_out % 8 {
        0 => (0..4).map(|n| record(left_out.wrapping_mul(n))).collect(),
        1 => vec![record(6); LEFT_OUT_MAX + 1],
        2 => Vec::new(),
        _ => heard.checksum.left_out.clone(),
    };
    Some(v1::Checksum {
        last_batch_sent: position.last_batch_received,
        last_batch_received: position.last_batch_sent,
        sums,
        quarantined_count: u64::from(*at) << (at % 60),
        comparison: comparison(*of, heard),
        left_out,
        asks: *asks,
        incomparable: if incomparable % 8 == 0 { i32::from(incomparable / 8) } else { 0 },
    })
}

fn probe(turn: &Turn, heard: &Heard) -> Option<v1::Probe> {
    let Turn::Probe { comparison: of, kind, home, extent, after, parts } = turn else { return None };
    let home_or_id = |at: u8| if extent % 4 == 0 { text(at % 6, heard) } else { text(at, heard) };
    let part = |(name, count, of): &(u8, u8, u8)| v1::PartSum {
        name: home_or_id(*name),
        count: u64::from(*count) << (count % 62),
        sum: sum(*of),
    };
    let mut parts: Vec<v1::PartSum> = parts.iter().map(part).collect();
    if after % 8 != 0 {
        parts.sort_by(|one, other| one.name.cmp(&other.name));
        parts.dedup_by(|one, other| one.name == other.name);
    }
    let home = text([1, 2, 3, 1, 2, 3, 5, 4][usize::from(home % 8)], heard);
    let (after_id, through_id) = match after % 4 {
        0 => (text(*after, heard), text(after.wrapping_mul(7), heard)),
        1 => (String::new(), "g00020".to_owned()),
        _ => Default::default(),
    };
    let extent = match extent % 4 {
        0 => Extent::Homes(v1::HomeExtent {
            after_home: text(after % 6, heard),
            through_home: text(after % 5, heard),
            homes: parts,
        }),
        1 => Extent::Ranges(v1::RangeExtent { home, after_id, ranges: parts }),
        _ => Extent::Records(v1::RecordExtent { home, after_id, through_id, records: parts }),
    };
    let kind = ["grid", "grid", "grid", "grid", "case", "nothing"][usize::from(kind % 6)].into();
    let comparison = if of % 8 == 0 { comparison(of / 8, heard) } else { heard.differing };
    Some(v1::Probe { comparison, probe_id: 5, kind, extent: Some(extent) })
}

fn finding(turn: &Turn, heard: &Heard) -> Option<v1::Finding> {
    let Turn::Finding { comparison: of, id, through, named, refused } = turn else { return None };
    let mut differing: Vec<String> = named.iter().map(|at| text(*at, heard)).collect();
    if id % 4 != 0 {
        differing.sort();
        differing.dedup();
    }
    Some(v1::Finding {
        comparison: if of % 8 == 0 { comparison(*of, heard) } else { heard.probe.comparison },
        probe_id: if of % 16 == 1 { u64::from(*id) } else { heard.probe.probe_id },
        differing,
        through: if through % 2 == 0 { String::new() } else { text(*through, heard) },
        refused: *refused,
    })
}

/// An end under attack, and what it said.
struct Victim {
    schema: Schema,
    end: End,
    now_ms: u64,
    heard: Heard,
    said: Vec<Step>,
}

impl Victim {
    fn new(side: Side, records: BTreeMap<RecordName, Record>) -> Victim {
        let schema = schema();
        let end = End::new(&schema, side, records);
        Victim { schema, end, now_ms: 1, heard: Heard::default(), said: Vec::new() }
    }

    /// Takes one turn of the peer; gives how many frames came of it.
    fn take(&mut self, turn: &Turn) -> Result<usize, TestCaseError> {
        let now_ms = self.now_ms;
        if let Some(checksum) = checksum(turn, &self.heard, self.end.position) {
            self.end.comparing.handle_checksum(now_ms, checksum);
        }
        if let Some(probe) = probe(turn, &self.heard) {
            self.end.comparing.handle_probe(probe);
        }
        if let Some(finding) = finding(turn, &self.heard) {
            self.end.comparing.handle_finding(now_ms, finding);
        }
        if let Turn::Wait(ms) = turn {
            self.now_ms += u64::from(*ms);
        }
        self.rest()
    }

    /// The peer says that it holds nothing: the end finds a difference, and a child begins to lead down.
    fn differ(&mut self) -> Result<(), TestCaseError> {
        let said = self.heard.checksum.clone();
        let sums = v1::Checksum { sums: Vec::new(), asks: false, ..said };
        self.end.comparing.handle_checksum(self.now_ms, sums);
        self.rest().map(drop)
    }

    fn rest(&mut self) -> Result<usize, TestCaseError> {
        let mut frames = 0;
        for _ in 0..STEPS_MAX {
            let view = self.end.view(self.now_ms);
            let Some(step) = self.end.comparing.poll(&self.schema, view) else {
                let waiting = self.end.comparing.descent.as_ref().map_or(0, Descent::waiting);
                prop_assert!(waiting <= WAITING_MAX, "{waiting} parts are kept in mind");
                self.heard.differing =
                    self.end.comparing.difference.as_ref().map_or(0, |found| found.comparison);
                return Ok(frames);
            };
            frames += usize::from(matches!(step, Step::Checksum(..) | Step::Probe(_) | Step::Finding(_)));
            match &step {
                Step::Checksum(_, checksum) => self.heard.checksum = checksum.clone(),
                Step::Probe(probe) => self.heard.probe = probe.clone(),
                Step::Read(read) => {
                    let found = self.end.found(&self.schema, read);
                    self.end.comparing.found(&self.schema, view, found);
                    continue;
                }
                Step::Owe(names) => {
                    self.owes(names)?;
                    self.end.comparing.owed();
                }
                Step::Finding(_) | Step::Hold(_) | Step::Proof(..) => {}
            }
            self.said.push(step);
        }
        prop_assert!(false, "one frame keeps it at work for ever");
        Ok(frames)
    }

    /// Only what concerns the peer, and only records that are there.
    fn owes(&self, names: &[RecordName]) -> Result<(), TestCaseError> {
        for name in names {
            let record = self.end.records.get(name);
            let shared = record.map(|record| proof::shared(&self.schema, pair(), name, record));
            prop_assert!(shared.is_some_and(|shared| !shared.is_empty()), "{name:?} is owed");
        }
        Ok(())
    }
}

/// Fields of grids that stay below the link.
fn kept_back(schema: &Schema) -> Vec<FieldNumber> {
    let kind = schema.kind_named("case").unwrap();
    let mut record = Record::default();
    kind.fields().for_each(|field| {
        record.set(field.number, register(1, 1, 1));
    });
    let name = RecordName::new(Division::from_code(HOMES[0]).unwrap(), kind.id, "1").unwrap();
    let crossing = proof::shared(schema, pair(), &name, &record);
    let stays = |field: &FieldNumber| !crossing.iter().any(|(crosses, _)| crosses == field);
    kind.fields().map(|field| field.number).filter(stays).collect()
}

/// What a peer may never learn of, in one of two forms: fields that do not cross, and records of others.
fn with_secrets(
    schema: &Schema,
    mut all: BTreeMap<RecordName, Record>,
    form: u8,
) -> BTreeMap<RecordName, Record> {
    let foreign = Division::from_code(FOREIGN).unwrap();
    let (grid, case) = (schema.kind_named("grid").unwrap().id, schema.kind_named("case").unwrap().id);
    for id in 0..6 + u32::from(form) {
        let mut record = Record::default();
        fields(schema).into_iter().for_each(|field| {
            record.set(field, register(9, 5, form));
        });
        all.insert(RecordName::new(foreign, grid, &format!("g{id:05}")).unwrap(), record);
    }
    let mut record = Record::default();
    for field in kept_back(schema) {
        record.set(field, register(9, 5 + u64::from(form), form));
    }
    all.insert(RecordName::new(Division::from_code(HOMES[0]).unwrap(), case, "g00003").unwrap(), record);
    all
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Two ends that differ in nothing but what the peer may not know answer alike, whatever it tries.
    #[test]
    fn whatever_a_peer_sends_little_comes_of_it_and_nothing_that_it_may_not_know(
        above in any::<bool>(),
        count in 0u32..40,
        turns in prop::collection::vec(turn(), 1..80),
    ) {
        let schema = schema();
        let side = if above { Side::Parent } else { Side::Child };
        let all = records(&schema, count);
        let [mut one, mut other] = [1, 2].map(|form| Victim::new(side, with_secrets(&schema, all.clone(), form)));
        for end in [&mut one, &mut other] {
            // A parent that hears nothing begins, too.
            end.now_ms += 40_000;
            end.rest()?;
            end.differ()?;
        }
        for turn in &turns {
            let frames = one.take(turn)?;
            prop_assert!(frames <= FRAMES_MAX, "{frames} frames for one: {turn:?}");
            other.take(turn)?;
            prop_assert_eq!(&one.said, &other.said);
            one.said.clear();
            other.said.clear();
        }
    }
}

/// A peer that always finds something more, at the same place, does not keep a descent going.
#[test]
fn an_answer_that_does_not_lead_on_ends_the_descent() {
    let schema = schema();
    let mut child = Victim::new(Side::Child, records(&schema, 30));
    child.rest().unwrap();
    for through in ["", "010000000000"] {
        child.now_ms += 400_000;
        child.rest().unwrap();
        child.differ().unwrap();
        assert!(child.end.comparing.descent.is_some(), "it leads down");
        let mut answers = 0;
        while child.end.comparing.descent.is_some() {
            let v1::Probe { comparison, probe_id, .. } = child.heard.probe;
            let (differing, through) = (vec![HOMES[0].to_string()], through.to_owned());
            let finding = v1::Finding { comparison, probe_id, differing, through, refused: false };
            child.end.comparing.handle_finding(child.now_ms, finding);
            child.rest().unwrap();
            answers += 1;
            assert!(answers < 10, "no end to it");
        }
    }
}

/// Of records that do not concern the child, a parent with very many of them names none.
#[test]
fn no_id_of_a_record_of_others_is_named() {
    let schema = schema();
    let mut all = records(&schema, 3);
    let grid = schema.kind_named("grid").unwrap().id;
    let foreign = Division::from_code(FOREIGN).unwrap();
    for id in 0..PROBE_RECORDS_MAX + 2 * PAGE_RECORDS {
        all.insert(RecordName::new(foreign, grid, &format!("x{id:06}")).unwrap(), Record::default());
    }
    let mut parent = Victim::new(Side::Parent, all);
    parent.now_ms += 40_000;
    parent.rest().unwrap();
    parent.differ().unwrap();
    parent.said.clear();
    let comparison = parent.heard.differing;
    let extent = v1::RecordExtent { home: FOREIGN.to_string(), ..v1::RecordExtent::default() };
    let (kind, extent) = ("grid".into(), Some(Extent::Records(extent)));
    parent.end.comparing.handle_probe(v1::Probe { comparison, probe_id: 1, kind, extent });
    parent.rest().unwrap();
    let [Step::Finding(finding)] = &*parent.said else { unreachable!("{:?}", parent.said) };
    assert!(!finding.refused && finding.differing.is_empty(), "{finding:?}");
    assert_eq!(finding.through, "", "an id of somebody else's record");
}
