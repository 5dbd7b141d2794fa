//! What local systems do at a node: grids, cameras, cases and divisions are written, corrected, cleared, deleted; cases
//! move along their way, get notes, are supervised and sealed; conflicts are settled.

use bytes::Bytes;
use guantong_gateway::aggregate::snapshot::entry;
use guantong_gateway::calendar::{self, timestamp};
use guantong_gateway::casework::{self, MoveRequest};
use guantong_gateway::division::{Division, Tier};
use guantong_gateway::erasure;
use guantong_gateway::ingest::Work;
use guantong_gateway::ingest::erasure::Erase;
use guantong_gateway::ingest::local::{Basis, LocalWrite, WriteError, etag};
use guantong_gateway::measure::{Code, Count};
use guantong_gateway::period::Day;
use guantong_gateway::record::{FieldNumber, RecordName, raw};
use guantong_proto::rules::fields;
use guantong_proto::v1::{self, Move};
use prost::Message;
use rand::Rng;
use rand::seq::{IndexedRandom, IteratorRandom};
use rand_chacha::ChaCha8Rng;

use super::disk::Disk;
use super::engine::bring;
use super::ledger::{Change, changes_between, contents};
use super::node::Node;

/// Something that a local system asks for.
#[derive(Debug, Clone)]
pub enum Action {
    /// Fields of a record.
    Fields {
        /// Which record.
        name: RecordName,
        /// What, and how.
        write: LocalWrite,
        /// Take the etag, or a token of everything, of the record as it is then.
        seen_all: bool,
    },
    /// The next move of a case, of those that are legal then.
    Move {
        /// Which case.
        name: RecordName,
        /// In whose name.
        actor: Division,
        /// Whom it may go to.
        to: Division,
        /// Which of the legal moves.
        choice: usize,
    },
    /// Content of a record is erased.
    Erase {
        /// Which record.
        name: RecordName,
        /// Which fields.
        fields: Vec<FieldNumber>,
    },
    /// The node says how much a division has.
    Snapshot {
        /// The division's month.
        name: RecordName,
        /// A day of it.
        day: v1::SnapshotDay,
    },
}

impl Action {
    /// Does it. A write that is refused changes nothing.
    pub fn take(self, work: &mut Work<'_>, disk: &mut Disk, seed: u64) -> Vec<Change> {
        let name = match &self {
            Action::Fields { name, .. }
            | Action::Move { name, .. }
            | Action::Erase { name, .. }
            | Action::Snapshot { name, .. } => name.clone(),
        };
        let slot = bring(work, disk, &name);
        let before = work.record(slot).clone();
        let mut ended = Vec::new();
        let outcome = match self {
            Action::Fields { mut write, seen_all, .. } => {
                if seen_all {
                    write.basis = match seed % 2 {
                        0 => Basis::Etag(etag(&before)),
                        _ => Basis::Token(before.clone()),
                    };
                }
                work.write(slot, &write, None).map(drop)
            }
            Action::Move { actor, to, choice, .. } => next_move(work, slot, actor, to, choice, seed),
            Action::Erase { fields, .. } => {
                ended = contents(work.context().schema, &name, &before, &fields);
                work.erase(slot, &Erase { fields, ..Erase::default() }, None).map(drop)
            }
            Action::Snapshot { day, .. } => {
                if work.add_snapshot(slot, day) {
                    Ok(())
                } else {
                    Err(WriteError::NotFound)
                }
            }
        };
        match outcome {
            Ok(()) => {
                let mut changes = changes_between(work.context().schema, &name, &before, work.record(slot));
                let mark = changes.iter_mut().find(|change| change.field == fields::ERASED);
                mark.into_iter().for_each(|mark| mark.ended = std::mem::take(&mut ended));
                changes
            }
            Err(error) => {
                assert!(before == *work.record(slot), "a write was refused ({error}) and changed something");
                if std::env::var_os("GUANTONG_SIM_REFUSED").is_some() {
                    eprintln!("refused: {name:?}: {error}");
                }
                Vec::new()
            }
        }
    }
}

fn next_move(
    work: &mut Work<'_>,
    slot: guantong_gateway::ingest::Slot,
    actor: Division,
    to: Division,
    choice: usize,
    seed: u64,
) -> Result<(), WriteError> {
    let (home, lifecycle) = (work.name(slot).home, work.lifecycle(slot));
    let addressed = lifecycle.as_ref().and_then(|l| Division::parse(&l.pending_to).ok());
    let holder = lifecycle.as_ref().and_then(casework::holder);
    let topology = work.context().topology;
    let able = [addressed, holder, Some(actor)].into_iter().flatten().filter(|d| topology.acts_for(*d));
    let Some((actor, legal)) = able
        .map(|actor| (actor, casework::legal_moves(home, lifecycle.as_ref(), actor)))
        .find(|(_, legal)| !legal.is_empty())
    else {
        return Err(WriteError::NotFound);
    };
    let action = legal[choice % legal.len()];
    let named = matches!(action, Move::Assign | Move::Transfer);
    let target = match action {
        Move::Assign if !actor.strictly_contains(to) => return Err(WriteError::NotFound),
        Move::Transfer if to == actor => return Err(WriteError::NotFound),
        _ => named.then_some(to),
    };
    let outcome = (action == Move::Conclude)
        .then(|| v1::Outcome { succeeded: Some(choice.is_multiple_of(2)), ..Default::default() });
    let request = MoveRequest {
        action,
        actor,
        to_division: target,
        to_unit: "",
        reason: "duplicate",
        outcome,
        now_ms: work.context().now_ms,
    };
    work.move_case(slot, &request, &format!("step-{seed:x}"), LocalWrite::of(Vec::new()), None).map(drop)
}

/// The divisions of the tree, with nodes or without.
pub struct Places {
    /// All of them.
    pub all: Vec<Division>,
}

/// Draws something that a local system of this node might do.
pub(super) fn action(rng: &mut ChaCha8Rng, node: &Node, places: &Places) -> Option<Action> {
    let known = rng.random_bool(0.75);
    let name = if known { node.disk.names.keys().choose(rng).cloned() } else { None };
    let own: Vec<Division> = places.all.iter().copied().filter(|d| node.division.contains(*d)).collect();
    let topology = node.disk.topology(node.division);
    let acted: Vec<Division> = own.iter().copied().filter(|d| topology.acts_for(*d)).collect();
    let acting = if rng.random_bool(0.15) { acted.choose(rng).copied() } else { None };
    let Some(name) = name else {
        // Of its own, or of one that it acts for, or (rarely) somewhere below.
        let homes = if rng.random_bool(0.85) { &acted } else { &own };
        let home = *homes.choose(rng)?;
        if rng.random_bool(0.05) {
            return snapshot(rng, node, home);
        }
        return create(rng, node, home, acting);
    };
    if rng.random_bool(0.04) {
        return erase(rng, node, name);
    }
    let kind = node.schema.kind(name.kind).rule.name;
    if kind == "case" && rng.random_bool(0.5) {
        let to = *places.all.choose(rng)?;
        let near =
            places.all.iter().filter(|d| d.above() == node.division.above() || node.division.contains(**d));
        let to = if rng.random_bool(0.8) { *near.choose(rng)? } else { to };
        return Some(Action::Move { name, actor: node.division, to, choice: rng.random_range(0..64) });
    }
    let now_ms = node.now_ms(super::world::START_MS + rng.random_range(0..1000));
    let message = match kind {
        "grid" => change_grid(rng).encode_to_vec(),
        "case" => change_case(rng, now_ms).encode_to_vec(),
        "camera" => change_camera(rng, now_ms).encode_to_vec(),
        "division" => v1::Division { display_name: Some(text(rng)), ..Default::default() }.encode_to_vec(),
        _ => return None,
    };
    let mut fields = pieces(message);
    if rng.random_bool(0.08) {
        let clear = fields
            .choose(rng)
            .map(|f| f.0)
            .filter(|f| node.schema.kind(name.kind).field(*f).is_some_and(|r| !r.required))?;
        fields.iter_mut().filter(|f| f.0 == clear).for_each(|f| f.1 = Bytes::new());
    }
    Some(fields_action(rng, node, name, fields, acting))
}

fn erase(rng: &mut ChaCha8Rng, node: &Node, name: RecordName) -> Option<Action> {
    let kind = node.schema.kind(name.kind);
    let erasable = |number: &FieldNumber| {
        let derived = kind.field(*number).is_none_or(|field| field.derived_from.is_some());
        !derived && erasure::may_erase(kind, *number)
    };
    let held = node.disk.record(&name)?;
    let held: Vec<FieldNumber> = held.fields().iter().map(|f| f.0).filter(erasable).collect();
    let fields = held.choose_multiple(rng, 3).copied().collect();
    Some(Action::Erase { name, fields })
}

fn snapshot(rng: &mut ChaCha8Rng, node: &Node, home: Division) -> Option<Action> {
    let name = RecordName::new(home, node.schema.kind_named("snapshot")?.id, "2026-01").ok()?;
    let day = Day::of(2026, 1, rng.random_range(1..=5))?;
    let count = |count, amount| (Code::total(count), amount);
    let counts =
        vec![count(Count::Grids, rng.random_range(0..9)), count(Count::Cameras, rng.random_range(0..9))];
    Some(Action::Snapshot { name, day: entry(day, &counts) })
}

fn fields_action(
    rng: &mut ChaCha8Rng,
    node: &Node,
    name: RecordName,
    mut fields: Vec<(FieldNumber, Bytes)>,
    acting: Option<Division>,
) -> Action {
    fields.retain(|(field, _)| node.schema.kind(name.kind).field(*field).is_some());
    let mut write = LocalWrite { acting, ..LocalWrite::of(fields) };
    if rng.random_bool(0.1) {
        write.purpose = "ledger".into();
        write.basis = Basis::Own;
    }
    let seen_all = rng.random_bool(0.15);
    Action::Fields { name, write, seen_all }
}

fn create(rng: &mut ChaCha8Rng, node: &Node, home: Division, acting: Option<Division>) -> Option<Action> {
    let number: u32 = rng.random_range(0..30);
    let now_ms = node.now_ms(super::world::START_MS);
    let (kind, id, message) = match rng.random_range(0..10) {
        0..=1 if home.tier() == Tier::Township => {
            let id = format!("{home}{number:03}");
            let grid = v1::Grid {
                grid_code: Some(id.clone()),
                division: Some(home.to_string()),
                display_name: Some(text(rng)),
                grid_type: Some(1),
                state: Some(1),
                ..change_grid(rng)
            };
            ("grid", id, grid.encode_to_vec())
        }
        2..=3 if home.tier() == Tier::Township => {
            let id = format!("{}0131{number:07}", &home.to_string()[..9]);
            let camera = v1::Camera {
                device_id: Some(id.clone()),
                division: Some(home.to_string()),
                ownership: Some(if rng.random_bool(0.5) { 1 } else { 2 }),
                point_class: Some(1),
                ..change_camera(rng, now_ms)
            };
            ("camera", id, camera.encode_to_vec())
        }
        4 if home.tier() == Tier::County => {
            let id = format!("{}", home.code() + 900_000 + 1_000 * u64::from(number % 3));
            let division =
                v1::Division { code: Some(id.clone()), display_name: Some(text(rng)), ..Default::default() };
            ("division", id, division.encode_to_vec())
        }
        _ => ("case", format!("c{}-{number}", rng.random_range(0..1000)), new_case(rng, home, now_ms)),
    };
    let name = RecordName::new(home, node.schema.kind_named(kind)?.id, &id).ok()?;
    Some(fields_action(rng, node, name, pieces(message), acting))
}

fn new_case(rng: &mut ChaCha8Rng, home: Division, now_ms: u64) -> Vec<u8> {
    let lifecycle = v1::Lifecycle {
        state: v1::CaseState::Reported as i32,
        holder: home.to_string(),
        unit: "division".into(),
        since: Some(timestamp(now_ms)),
        ..Default::default()
    };
    // Cases of the last two months, some of them overdue, in counts that other transactions touch as well.
    let received = rng.random_range(1..60u64);
    let day = |days_ago: u64| calendar::beijing_date(now_ms - 86_400_000 * days_ago);
    let case = v1::Case {
        case_kind: Some(rng.random_range(1..=2)),
        category: ["labour", "land", "a new code"].choose(rng).map(|code| (*code).to_owned()),
        channel: Some(1),
        division: Some(home.to_string()),
        risk: Some(rng.random_range(0..=4)).filter(|risk| *risk > 0),
        received_on: Some(day(received)),
        due_on: rng.random_bool(0.6).then(|| day(received - rng.random_range(0..received))),
        title: Some(text(rng)),
        parties: vec![party(rng)],
        lifecycle: Some(lifecycle),
        ..Default::default()
    };
    case.encode_to_vec()
}

fn change_grid(rng: &mut ChaCha8Rng) -> v1::Grid {
    let mut grid = v1::Grid::default();
    match rng.random_range(0..6) {
        0 => grid.display_name = Some(text(rng)),
        1 => grid.grid_type = Some(rng.random_range(1..=3)),
        2 => grid.residents = Some(rng.random_range(0..900)),
        3 => {
            grid.staffing = Some(v1::Staffing { chiefs: Some(rng.random_range(0..3)), ..Default::default() })
        }
        4 => grid.contact = Some(v1::Contact { name: text(rng), telephone: String::new() }),
        _ => grid.deleted = Some(rng.random_bool(0.5)),
    }
    grid
}

fn change_case(rng: &mut ChaCha8Rng, now_ms: u64) -> v1::Case {
    let mut case = v1::Case::default();
    match rng.random_range(0..12) {
        0 => case.title = Some(text(rng)),
        1 => case.narrative = Some(text(rng)),
        2 => case.parties = vec![party(rng), party(rng)],
        3 => case.risk = Some(rng.random_range(1..=4)),
        4 => case.amount_yuan = Some(rng.random_range(0..5000)),
        5 | 6 => {
            let id = format!("n{}", rng.random_range(0..200));
            case.notes = vec![v1::CaseNote { id, text: text(rng), ..Default::default() }];
        }
        7 => {
            let number = rng.random_range(0..50).to_string();
            let id = format!("x:{number}");
            case.external_refs =
                vec![v1::ExternalRef { id, system: "x".into(), number, ..Default::default() }];
        }
        8 => case.mediator = Some(v1::Contact { name: text(rng), telephone: String::new() }),
        9 => case.reply = Some(v1::Reply { text: text(rng), satisfaction: 1 }),
        10 => {
            case.supervision =
                Some(v1::Supervision { level: 1, at: Some(timestamp(now_ms)), ..Default::default() })
        }
        _ => case.sealed = Some(rng.random_bool(0.9)),
    }
    case
}

fn change_camera(rng: &mut ChaCha8Rng, now_ms: u64) -> v1::Camera {
    let mut camera = v1::Camera::default();
    match rng.random_range(0..6) {
        0 => camera.display_name = Some(text(rng)),
        1 => {
            let longitude = 108.0 + f64::from(rng.random_range(0..3000)) / 1234.0;
            camera.location = Some(v1::LngLat { longitude, latitude: 19.5 });
        }
        2 => camera.functions = vec![rng.random_range(1..=3)],
        3 => camera.connected = Some(rng.random_bool(0.5)),
        4 => camera.contact = Some(v1::Contact { name: text(rng), telephone: String::new() }),
        _ => {
            let observe_time = Some(timestamp(now_ms - rng.random_range(0..1_000_000)));
            camera.status = Some(v1::CameraStatus { state: rng.random_range(1..=4), observe_time });
        }
    }
    camera
}

fn pieces(message: Vec<u8>) -> Vec<(FieldNumber, Bytes)> {
    let mut pieces = raw::split(&message.into()).unwrap_or_default();
    pieces.retain(|(field, _)| *field != fields::RECORD_COMPLETE);
    pieces
}

fn party(rng: &mut ChaCha8Rng) -> v1::Party {
    v1::Party { role: 1, name: text(rng), telephone: String::new() }
}

fn text(rng: &mut ChaCha8Rng) -> String {
    format!("t{}", rng.random_range(0..100_000))
}
