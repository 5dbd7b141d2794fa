//! Many trees, each with its own fate. `GUANTONG_SIM_SEEDS` sets how many; `GUANTONG_SIM_SEED` runs one and tells it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use guantong_gateway::casework;
use guantong_gateway::division::Division;
use guantong_gateway::ingest::local::{Authority, LocalWrite};
use guantong_gateway::record::{RecordName, raw};
use guantong_proto::rules::fields;
use guantong_proto::v1;
use guantong_tests::simulator::{self, Action, Report, World};
use prost::Message;

/// Seeds that are run unless told otherwise.
const SEEDS: u64 = 1_000;

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

/// What is wrong with a seed's run.
fn run(seed: u64) -> Result<Report, String> {
    match catch_unwind(AssertUnwindSafe(|| simulator::run(seed, false))) {
        Ok(Ok(report)) => Ok(report),
        Ok(Err(wrong)) => Err(wrong[0].clone()),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            Err(text.or_else(|| panic.downcast_ref::<&str>().map(|t| (*t).to_owned())).unwrap_or_default())
        }
    }
}

#[test]
fn no_fate_of_the_tree_loses_a_write() {
    if let Some(seed) = number("GUANTONG_SIM_SEED") {
        let outcome = simulator::run(seed, true);
        assert!(outcome.is_ok(), "seed {seed}: {:#?}", outcome.err());
        return;
    }
    let seeds = number("GUANTONG_SIM_SEEDS").unwrap_or(SEEDS);
    let next = AtomicU64::new(number("GUANTONG_SIM_FIRST").unwrap_or(0));
    let last = next.load(Ordering::Relaxed) + seeds;
    let failed: Mutex<Vec<(u64, String)>> = Mutex::new(Vec::new());
    let total: Mutex<Report> = Mutex::default();
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= last {
                break;
            }
            match run(seed) {
                Ok(report) => total.lock().unwrap().add(report),
                Err(why) => failed.lock().unwrap().push((seed, why)),
            }
        }
    };
    std::thread::scope(|scope| (0..2).for_each(|_| drop(scope.spawn(work))));
    let mut failed = failed.into_inner().unwrap();
    failed.sort();
    eprintln!("{seeds} seeds: {:?}", total.into_inner().unwrap());
    for (seed, why) in failed.iter().take(12) {
        eprintln!("GUANTONG_SIM_SEED={seed}: {why}");
    }
    assert!(failed.is_empty(), "{} of {seeds} seeds failed, the first of them {}", failed.len(), failed[0].0);
}

#[test]
fn a_seed_has_one_fate() {
    let fates: Vec<u64> = (0..12).map(simulator::fingerprint).collect();
    assert_eq!(fates, (0..12).map(simulator::fingerprint).collect::<Vec<_>>(), "the same again");
    let different: std::collections::BTreeSet<u64> = fates.iter().copied().collect();
    assert_eq!(different.len(), fates.len(), "every seed has a fate of its own");
}

const PREFECTURE: u64 = 460100000000;
const COUNTIES: [u64; 2] = [460105000000, 460106000000];
const TOWNSHIPS: [u64; 3] = [460105001000, 460105002000, 460106001000];

/// One prefecture with two counties, of which the first has two townships and the second one.
fn two_counties() -> World {
    let above = |code: u64| (code, code / 1_000_000 * 1_000_000);
    let mut tree = vec![(PREFECTURE, 0)];
    tree.extend(COUNTIES.map(|county| (county, PREFECTURE)));
    tree.extend(TOWNSHIPS.map(above));
    let mut world = World::calm(&tree, &[]);
    world.settle().unwrap();
    world
}

fn node(world: &World, code: u64) -> usize {
    world.node_of(Division::from_code(code).unwrap()).unwrap()
}

fn case(world: &World, home: u64) -> RecordName {
    RecordName::new(Division::from_code(home).unwrap(), world.schema.kind_named("case").unwrap().id, "one")
        .unwrap()
}

fn write(name: &RecordName, case: &v1::Case) -> Action {
    let fields = raw::split(&case.encode_to_vec().into()).unwrap();
    // As a ledger would: cases stand where the story begins.
    let write = LocalWrite { authority: Authority::Ledger, ..LocalWrite::of(fields) };
    Action::Fields { name: name.clone(), write, seen_all: false }
}

fn title(world: &World, code: u64, name: &RecordName) -> Vec<Vec<u8>> {
    let record = world.nodes[node(world, code)].disk.record(name).unwrap_or_default();
    let register = record.get(fields::case::TITLE).cloned().unwrap_or_default();
    let mut values: Vec<Vec<u8>> = register.live().map(|(_, v)| v[2..].to_vec()).collect();
    values.sort();
    values.dedup();
    values
}

fn titled(text: &str) -> v1::Case {
    v1::Case { title: Some(text.into()), ..v1::Case::default() }
}

fn held_by(code: u64, text: &str) -> v1::Case {
    let lifecycle = v1::Lifecycle {
        state: v1::CaseState::Accepted as i32,
        holder: code.to_string(),
        unit: "division".into(),
        ..v1::Lifecycle::default()
    };
    v1::Case { lifecycle: Some(lifecycle), ..titled(text) }
}

#[test]
fn a_case_that_is_handed_over_reaches_its_audience_and_nobody_else() {
    let mut world = two_counties();
    let name = case(&world, TOWNSHIPS[0]);
    let township = node(&world, TOWNSHIPS[0]);
    world.ask(township, write(&name, &held_by(TOWNSHIPS[0], "x")));
    world.settle().unwrap();
    assert_eq!(title(&world, COUNTIES[0], &name), [b"x"], "a county may hold titles");
    assert!(title(&world, PREFECTURE, &name).is_empty(), "a prefecture may not");

    // Up to the county, up to the prefecture, down to the other county's township.
    let own = |world: &World, code| world.nodes[node(world, code)].division;
    for (code, action, to) in [
        (TOWNSHIPS[0], v1::Move::Escalate, None),
        (COUNTIES[0], v1::Move::Accept, None),
        (COUNTIES[0], v1::Move::Escalate, None),
        (PREFECTURE, v1::Move::Accept, None),
        (PREFECTURE, v1::Move::Assign, Some(TOWNSHIPS[2])),
    ] {
        let (index, actor) = (node(&world, code), own(&world, code));
        let to = to.map_or(actor, |to| Division::from_code(to).unwrap());
        let lifecycle = world.lifecycle(index, &name);
        let legal = casework::legal_moves(name.home, lifecycle.as_ref(), actor);
        let choice = legal.iter().position(|m| *m == action).unwrap();
        world.ask(index, Action::Move { name: name.clone(), actor, to, choice });
        world.settle().unwrap();
    }
    for code in [TOWNSHIPS[0], COUNTIES[0], PREFECTURE, COUNTIES[1], TOWNSHIPS[2]] {
        assert_eq!(title(&world, code, &name), [b"x"], "{code} is concerned");
    }
    assert!(world.nodes[node(&world, TOWNSHIPS[1])].disk.record(&name).is_none(), "the neighbour is not");

    let last = node(&world, TOWNSHIPS[2]);
    let note = v1::CaseNote { id: "n".into(), text: "seen".into(), ..v1::CaseNote::default() };
    world.ask(last, write(&name, &v1::Case { notes: vec![note], ..v1::Case::default() }));
    world.settle().unwrap();
    let first = world.nodes[township].disk.record(&name).unwrap();
    assert!(first.get(fields::case::NOTES).is_some(), "what the new holder notes comes back to the home");
    assert!(simulator::check(&world).is_empty(), "{:#?}", simulator::check(&world));
}

#[test]
fn a_restore_is_noticed_although_the_store_has_caught_up_and_the_first_welcome_is_lost() {
    let mut world = two_counties();
    let name = case(&world, TOWNSHIPS[0]);
    let township = node(&world, TOWNSHIPS[0]);
    world.ask(township, write(&name, &held_by(TOWNSHIPS[0], "a")));
    world.settle().unwrap();
    let backup = world.nodes[township].disk.clone();
    world.ask(township, write(&name, &titled("lost")));
    world.settle().unwrap();
    let seen = world.nodes[township].disk.revision;

    world.crash(township);
    world.put_back(township, Some(backup));
    world.start(township);
    world.nodes[township].line_cut = true;
    for text in ["b", "c", "d", "e", "f", "g", "h", "i"] {
        world.ask(township, write(&name, &titled(text)));
        world.engine_step(township, None);
    }
    assert!(world.nodes[township].disk.revision > seen, "by its revision alone nobody would notice");
    world.nodes[township].line_cut = false;
    world.dial(township);
    world.pump(township);
    let link = *world.wires.keys().last().unwrap();
    world.deliver(link, 0);
    let county = node(&world, COUNTIES[0]);
    world.pump(county);
    world.engine_step(county, None);
    // The Welcome is on its way.
    world.wires.get_mut(&link).unwrap().cut();

    world.settle().unwrap();
    for code in [TOWNSHIPS[0], COUNTIES[0]] {
        assert_eq!(
            title(&world, code, &name),
            [b"i".to_vec(), b"lost".to_vec()],
            "both stand side by side at {code}"
        );
    }
    assert!(simulator::check(&world).is_empty(), "{:#?}", simulator::check(&world));
}

#[test]
fn a_copy_and_its_original_lose_no_write() {
    let mut world = two_counties();
    let name = case(&world, TOWNSHIPS[0]);
    let township = node(&world, TOWNSHIPS[0]);
    world.ask(township, write(&name, &held_by(TOWNSHIPS[0], "a")));
    world.settle().unwrap();
    let copy = world.copy(township);
    world.nodes[township].line_cut = true;
    world.crash(township);
    world.start(township);
    world.ask(township, write(&name, &titled("original")));
    world.ask(copy, write(&name, &titled("copy")));
    world.settle_but(&[township]).unwrap();
    world.nodes[township].line_cut = false;
    world.crash(copy);
    world.settle_but(&[copy]).unwrap();
    let both = [b"copy".to_vec(), b"original".to_vec()];
    assert_eq!(title(&world, COUNTIES[0], &name), both);
    world.remove_copy(copy);
    world.settle().unwrap();
    assert!(simulator::check(&world).is_empty(), "{:#?}", simulator::check(&world));
}

#[test]
fn a_parent_that_was_put_back_is_told_nothing_until_it_has_everything_again() {
    let mut world = two_counties();
    let (county, township) = (node(&world, COUNTIES[0]), node(&world, TOWNSHIPS[0]));
    // One record at a time, so that what it is owed anew takes a while.
    world.nodes[county].window_bytes = 1;
    world.nodes[township].batch_raw_bytes = 1;
    let kind = world.schema.kind_named("case").unwrap().id;
    let named = |id: u32| {
        RecordName::new(Division::from_code(TOWNSHIPS[0]).unwrap(), kind, &format!("c{id}")).unwrap()
    };
    let backup = world.nodes[county].disk.clone();
    for id in 0..20 {
        world.ask(township, write(&named(id), &held_by(TOWNSHIPS[0], "x")));
    }
    world.settle().unwrap();
    world.settle_claims().unwrap();

    world.nodes[township].line_cut = true;
    world.crash(county);
    world.put_back(county, Some(backup));
    world.start(county);
    // A round that waits for this one only, and for nothing that the parent has lost.
    world.ask(township, write(&named(20), &held_by(TOWNSHIPS[0], "y")));
    world.settle_but(&[township, county]).unwrap();
    world.nodes[township].line_cut = false;
    // Whatever is claimed on the way is checked as it arrives.
    world.settle_claims().unwrap();
    assert!(simulator::check(&world).is_empty(), "{:#?}", simulator::check(&world));
}

/// A province above, with one prefecture, one county and one township.
fn four_tiers() -> World {
    let mut world = World::calm(
        &[(PROVINCE, 0), (PREFECTURE, PROVINCE), (COUNTIES[0], PREFECTURE), (TOWNSHIPS[0], COUNTIES[0])],
        &[],
    );
    world.settle().unwrap();
    world
}

const PROVINCE: u64 = 460000000000;

fn grid(code: u64) -> RecordName {
    let schema = guantong_gateway::schema::Schema::current();
    let kind = schema.kind_named("grid").unwrap().id;
    RecordName::new(Division::from_code(code).unwrap(), kind, &format!("{code}001")).unwrap()
}

/// A whole grid, of type 1.
fn named_grid(name: &RecordName) -> Action {
    let named = v1::Grid {
        grid_code: Some(name.id.to_string()),
        division: Some(name.home.to_string()),
        display_name: Some("x".into()),
        state: Some(1),
        grid_type: Some(1),
        ..v1::Grid::default()
    };
    let fields = raw::split(&named.encode_to_vec().into()).unwrap();
    Action::Fields { name: name.clone(), write: LocalWrite::of(fields), seen_all: false }
}

fn typed(name: &RecordName, grid_type: i32) -> Action {
    let grid = v1::Grid { grid_type: Some(grid_type), ..v1::Grid::default() };
    let fields = raw::split(&grid.encode_to_vec().into()).unwrap();
    Action::Fields { name: name.clone(), write: LocalWrite::of(fields), seen_all: false }
}

fn types(world: &World, code: u64, name: &RecordName) -> Vec<u8> {
    let record = world.nodes[node(world, code)].disk.record(name).unwrap_or_default();
    let register = record.get(fields::grid::GRID_TYPE).cloned().unwrap_or_default();
    register.live().filter_map(|(_, value)| value.last().copied()).collect()
}

#[test]
fn a_value_that_was_replaced_does_not_come_back_when_both_neighbours_notice_a_restore() {
    let mut world = four_tiers();
    let name = grid(TOWNSHIPS[0]);
    let (prefecture, county, township) =
        (node(&world, PREFECTURE), node(&world, COUNTIES[0]), node(&world, TOWNSHIPS[0]));
    world.ask(township, named_grid(&name));
    world.settle().unwrap();
    world.ask(prefecture, typed(&name, 2));
    world.settle().unwrap();
    // The county greets again, twice, so that the prefecture knows since when its copy of this is sure.
    for _ in 0..2 {
        world.crash(county);
        world.start(county);
        world.settle().unwrap();
    }
    let backup = world.nodes[prefecture].disk.clone();
    // The province sees a later life of the prefecture, and then nothing more.
    world.ask(prefecture, write(&case(&world, PREFECTURE), &held_by(PREFECTURE, "later")));
    world.settle().unwrap();
    world.nodes[prefecture].line_cut = true;
    world.crash(prefecture);
    world.start(prefecture);
    world.ask(township, typed(&name, 3));
    world.settle_but(&[prefecture]).unwrap();
    world.crash(prefecture);
    world.put_back(prefecture, Some(backup));
    world.start(prefecture);
    world.settle_but(&[prefecture]).unwrap();
    assert_eq!(types(&world, PREFECTURE, &name), [3]);
    assert_eq!(types(&world, PROVINCE, &name), [2], "the province was not reached yet");

    world.nodes[prefecture].line_cut = false;
    world.settle().unwrap();
    for code in [PROVINCE, PREFECTURE, COUNTIES[0], TOWNSHIPS[0]] {
        assert_eq!(types(&world, code, &name), [3], "{code}");
    }
    assert!(simulator::check(&world).is_empty(), "{:#?}", simulator::check(&world));
}

#[test]
fn a_write_of_a_lost_life_stands_beside_one_that_a_store_made_before_it_was_told() {
    let mut world = four_tiers();
    let name = grid(TOWNSHIPS[0]);
    let (county, township) = (node(&world, COUNTIES[0]), node(&world, TOWNSHIPS[0]));
    world.ask(township, named_grid(&name));
    world.settle().unwrap();
    // Both lives write as the same.
    world.ask(county, typed(&name, 4));
    world.settle().unwrap();
    let backup = world.nodes[county].disk.clone();
    // The township meets the county before and after, and never in the life that it loses.
    world.nodes[township].line_cut = true;
    world.crash(township);
    world.start(township);
    world.ask(county, typed(&name, 2));
    world.settle_but(&[county, township]).unwrap();
    assert_eq!(types(&world, PREFECTURE, &name), [2]);
    world.crash(county);
    world.put_back(county, Some(backup));
    world.start(county);
    world.nodes[county].line_cut = true;
    world.nodes[township].line_cut = false;
    world.ask(county, typed(&name, 3));
    world.settle_but(&[county]).unwrap();
    assert_eq!(types(&world, TOWNSHIPS[0], &name), [3], "under a later stamp of the same writer");

    world.nodes[county].line_cut = false;
    world.settle().unwrap();
    for code in [PROVINCE, PREFECTURE, COUNTIES[0], TOWNSHIPS[0]] {
        let types = types(&world, code, &name);
        assert!(types.contains(&2) && types.contains(&3), "{code}: {types:?}");
    }
    assert!(simulator::check(&world).is_empty(), "{:#?}", simulator::check(&world));
}

#[test]
fn what_is_erased_stays_erased_when_a_store_is_put_back() {
    let mut world = two_counties();
    let name = case(&world, TOWNSHIPS[0]);
    let township = node(&world, TOWNSHIPS[0]);
    world.ask(township, write(&name, &held_by(TOWNSHIPS[0], "secret")));
    world.settle().unwrap();
    let backup = world.nodes[township].disk.clone();
    world.ask(township, Action::Erase { name: name.clone(), fields: vec![fields::case::TITLE] });
    world.settle().unwrap();
    let gone = |world: &World| [TOWNSHIPS[0], COUNTIES[0]].iter().all(|c| title(world, *c, &name).is_empty());
    assert!(gone(&world));

    world.crash(township);
    world.put_back(township, Some(backup));
    world.start(township);
    assert_eq!(title(&world, TOWNSHIPS[0], &name), [b"secret"], "the backup has it");
    world.settle().unwrap();
    assert!(gone(&world), "written again by the store that was put back, and older than the mark");
    world.ask(township, write(&name, &titled("new")));
    world.settle().unwrap();
    assert_eq!(title(&world, COUNTIES[0], &name), [b"new"], "what is written afterwards stands");
    assert!(simulator::check(&world).is_empty(), "{:#?}", simulator::check(&world));
}

#[test]
fn a_clock_that_falls_behind_takes_nothing_back_and_one_that_was_ahead_is_mended() {
    let mut world = two_counties();
    world.ledger.wrong_clocks = true;
    let name = case(&world, TOWNSHIPS[0]);
    let (county, township) = (node(&world, COUNTIES[0]), node(&world, TOWNSHIPS[0]));
    world.ask(township, write(&name, &held_by(TOWNSHIPS[0], "secret")));
    world.settle().unwrap();
    world.nodes[township].line_cut = true;
    world.ask(township, Action::Erase { name: name.clone(), fields: vec![fields::case::TITLE] });
    let apart = [township, county];
    world.settle_but(&apart).unwrap();
    let marks =
        |world: &World| world.nodes[township].disk.record(&name).unwrap().get(fields::ERASED).cloned();
    let made = marks(&world);
    world.nodes[township].skew_ms = -3_600_000;
    world.settle_but(&apart).unwrap();
    assert_eq!(marks(&world), made, "nobody refused it for its time");

    world.nodes[township].skew_ms = 3_600_000;
    world.nodes[township].line_cut = false;
    world.settle().unwrap();
    assert!(title(&world, COUNTIES[0], &name).is_empty());
    world.ask(township, write(&name, &titled("early")));
    world.settle().unwrap();
    assert!(title(&world, COUNTIES[0], &name).is_empty(), "refused for its time");
    world.nodes[township].skew_ms = 0;
    let begun_ms = world.now_ms;
    world.settle().unwrap();
    assert_eq!(title(&world, COUNTIES[0], &name), [b"early"]);
    assert!(world.now_ms < begun_ms + 600_000, "before that time has come");
    assert!(simulator::check(&world).is_empty(), "{:#?}", simulator::check(&world));
}

#[test]
fn a_record_that_a_disk_lost_silently_is_found_and_brought_back() {
    let mut world = two_counties();
    let kind = world.schema.kind_named("case").unwrap().id;
    let named = |id: u32| {
        RecordName::new(Division::from_code(TOWNSHIPS[0]).unwrap(), kind, &format!("c{id}")).unwrap()
    };
    let (county, township) = (node(&world, COUNTIES[0]), node(&world, TOWNSHIPS[0]));
    for id in 0..30 {
        world.ask(township, write(&named(id), &held_by(TOWNSHIPS[0], "x")));
    }
    world.heal().unwrap();
    assert!(simulator::check(&world).is_empty(), "{:#?}", simulator::check(&world));

    // What is kept of the record stays: only whoever counts its records notices.
    world.crash(county);
    let lost = named(7);
    let key = world.nodes[county].disk.names.remove(&lost).unwrap();
    assert!(world.nodes[county].disk.records.remove(&key).is_some());
    world.start(county);
    assert!(title(&world, COUNTIES[0], &lost).is_empty());
    world.heal().unwrap();
    assert_eq!(title(&world, COUNTIES[0], &lost), [b"x"], "the township had it");
    assert!(world.ledger.repaired > 0 && world.ledger.stays.is_empty(), "{:?}", world.ledger.stays);
    assert!(simulator::check(&world).is_empty(), "{:#?}", simulator::check(&world));
}
