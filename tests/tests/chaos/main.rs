//! Chaos on real processes: four tiers over TLS, SQLite and PostgreSQL, while townships write and those above correct. A
//! seed says what goes wrong and where; the writers' own progress says when. Afterwards every acknowledged write must be
//! at every tier, both ends of every link equal, and every count that of a recount.
//!
//! `tests/chaos` is the long form. `TEST_CHAOS_MINUTES` says for how long, `TEST_CHAOS_SEED` what goes wrong; without
//! `TEST_POSTGRES_URL` the prefecture has a file, too. With `TEST_CHAOS_NAMESPACES` each node has a network namespace of its
//! own, and all have files. The events are the same for a seed; how they meet the processes is not.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr, clippy::indexing_slicing, unreachable_pub)]
#![allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]

mod book;
mod events;
mod judge;
mod scene;
mod writers;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use guantong::demo::tree::{Line, NodeSpec};
use guantong_gateway::division::Division;
use guantong_gateway::step::Step;
use guantong_tests::harness::network::Network;
use guantong_tests::harness::{Fleet, division, postgres, program, until};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use book::Book;
use events::Event;
use judge::Settling;
use scene::Scene;
use writers::Desk;

const PROVINCE: &str = "22";
const PREFECTURE: &str = "2208";
const COUNTIES: [&str; 2] = ["220822", "220881"];
const TOWNSHIPS: [&str; 3] = ["220822101", "220822102", "220881101"];
/// Events of a round; after each all is made good and judged.
const EVENTS: usize = 15;
/// Rounds, where no minutes are named.
const ROUNDS: usize = 1;

/// Says how a failed run is done again.
struct Replay {
    seed: u64,
    minutes: Option<u64>,
    /// Lines are those of the system's own network.
    namespaces: bool,
}

impl Replay {
    fn of_environment() -> Replay {
        Replay {
            seed: number("TEST_CHAOS_SEED").unwrap_or(1),
            minutes: number("TEST_CHAOS_MINUTES"),
            namespaces: std::env::var_os("TEST_CHAOS_NAMESPACES").is_some(),
        }
    }

    async fn network(&self) -> Option<Network> {
        if !self.namespaces {
            return None;
        }
        let network = Network::open().await;
        assert!(network.is_some(), "there are no namespaces here");
        network
    }
}

impl Drop for Replay {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let minutes = self.minutes.unwrap_or(1);
            let database = if postgres::process().is_some() { "tests/postgres.sh run " } else { "" };
            let lines = if self.namespaces { " --namespaces" } else { "" };
            eprintln!("REPLAY: {database}tests/chaos --minutes {minutes} --seed {}{lines}", self.seed);
        }
    }
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|text| text.parse().ok())
}

/// The tree; `name` tells its database from others. From networks of their own nodes reach no server of a database.
async fn scene(name: &str, mut network: Option<Network>) -> Scene {
    let [province, prefecture] = [PROVINCE, PREFECTURE].map(division);
    let mut files = scene::divisions(&[&[PROVINCE], &COUNTIES[..], &TOWNSHIPS[..]].concat());
    let mut second = NodeSpec::below(province, prefecture).cuttable();
    let database = match &network {
        Some(_) => None,
        None => postgres::database(name).await,
    };
    match database {
        Some(url) => second = second.environment("GUANTONG_STORE", &url),
        None => files.push(prefecture),
    }
    let mut specs = vec![NodeSpec::top(province), second];
    specs.extend(COUNTIES.map(|code| NodeSpec::below(prefecture, division(code)).cuttable()));
    specs.extend(TOWNSHIPS.map(|code| NodeSpec::below(division(&code[..6]), division(code)).cuttable()));
    let Some(lines) = &mut network else { return Scene::new(Fleet::start(specs).await, network, files) };
    for spec in &mut specs {
        spec.line = Line::Direct;
        spec.host = lines.join(spec.division, spec.parent).await;
    }
    let program = lines.program(&program());
    Scene::new(Fleet::running(&program, specs).await, network, files)
}

type Refusals = Arc<Mutex<BTreeMap<String, usize>>>;

/// What a run has, beside the tree.
struct Run {
    book: Arc<Book>,
    refusals: Refusals,
    random: ChaCha8Rng,
    longest: Settling,
    longest_work: Duration,
}

impl Run {
    fn new(seed: u64) -> Run {
        Run {
            book: Arc::default(),
            refusals: Refusals::default(),
            random: ChaCha8Rng::seed_from_u64(seed),
            longest: Settling::default(),
            longest_work: Duration::ZERO,
        }
    }

    /// Writers go on while something is done to the tree.
    async fn while_they_write(
        &mut self,
        scene: &mut Scene,
        round: usize,
        act: impl AsyncFnOnce(&mut Scene, &mut Run),
    ) {
        let over = Arc::new(AtomicBool::new(false));
        let desk = Desk { book: self.book.clone(), refusals: self.refusals.clone(), over: over.clone() };
        let mut tasks = Vec::new();
        for code in TOWNSHIPS {
            let client = scene.fleet.client(code);
            tasks.push(tokio::spawn(writers::township(
                client,
                code,
                round,
                self.random.random(),
                desk.clone(),
            )));
        }
        for code in [PROVINCE, PREFECTURE].into_iter().chain(COUNTIES) {
            let client = scene.fleet.client(code);
            tasks.push(tokio::spawn(writers::above(client, code, self.random.random(), desk.clone())));
        }
        act(scene, self).await;
        over.store(true, Ordering::Relaxed);
        for task in tasks {
            task.await.unwrap();
        }
    }

    /// What the seed says happens, and the writers' progress says when.
    async fn strike(&mut self, scene: &mut Scene) {
        for _ in 0..EVENTS {
            let next = self.book.tries() + events::pause(&mut self.random);
            until("the writers go on", async || self.book.tries() >= next).await;
            let what = scene.strike(&mut self.random).await;
            eprintln!("  {what}");
        }
    }

    /// All is made good, settles, and is judged; `after` says what.
    async fn judge(&mut self, scene: &mut Scene, after: &str) {
        scene.make_good().await;
        let took = judge::settled(&scene.fleet, &self.book).await;
        let asked = judge::verified(&scene.fleet, PROVINCE).await;
        judge::recounted(&scene.fleet).await;
        eprintln!(
            "{after}: {} writes acknowledged; linked after {} ms, settled after {} ms, verified when asked {asked} times",
            self.book.acknowledged(),
            took.linked.as_millis(),
            took.done.as_millis()
        );
        self.longest = self.longest.or_longer(took);
        self.longest_work = self.longest_work.max(took.work());
    }
}

/// The tests of this file use one server of PostgreSQL, which one of them restarts.
static ONE_AT_A_TIME: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_whatever_happens_to_nodes_and_lines() {
    let _alone = ONE_AT_A_TIME.lock().await;
    let replay = Replay::of_environment();
    storm(&replay, replay.network().await).await;
}

/// One round; `tests/chaos --namespaces` is the long form.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_on_lines_that_the_kernel_cuts_and_slows_down() {
    let _alone = ONE_AT_A_TIME.lock().await;
    let replay = Replay { namespaces: true, ..Replay::of_environment() };
    if replay.minutes.is_none()
        && let Some(network) = Network::open().await
    {
        storm(&replay, Some(network)).await;
    }
}

async fn storm(replay: &Replay, network: Option<Network>) {
    let began = Instant::now();
    let mut run = Run::new(replay.seed);
    let mut scene = scene("chaos", network).await;
    let mut rounds = 0;
    let goes_on = |rounds| match replay.minutes {
        Some(minutes) => began.elapsed() < Duration::from_secs(60 * minutes),
        None => rounds < ROUNDS,
    };
    while goes_on(rounds) {
        run.while_they_write(&mut scene, rounds, async |scene, run| run.strike(scene).await).await;
        run.judge(&mut scene, &format!("round {rounds}")).await;
        if rounds % 2 == 0 {
            let node = scene.damage_one(&mut run.random).await;
            run.judge(&mut scene, &format!("{:?} {node}", Event::Damage)).await;
        }
        rounds += 1;
    }
    let written = run.book.acknowledged();
    assert!(written > 0 && scene.counts.len() > 5, "{written} writes, {:?}", scene.counts);
    eprintln!(
        "seed {}: {rounds} rounds, {} events {:?}; deaths at steps {:?}; {written} writes acknowledged, 0 lost, 0 links \
         unequal; longest until linked {} ms, longest work after that {} ms, longest settling {} ms; not acknowledged: \
         {:?}; {:?}",
        replay.seed,
        scene.counts.values().sum::<usize>(),
        scene.counts,
        scene.deaths,
        run.longest.linked.as_millis(),
        run.longest_work.as_millis(),
        run.longest.done.as_millis(),
        run.refusals.lock().unwrap(),
        began.elapsed(),
    );
}

/// Two nodes that are parent and child both, on both databases where there are two. Where no minutes are named, each step is
/// the end of one of them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_dies_at_any_named_step_loses_nothing() {
    let _alone = ONE_AT_A_TIME.lock().await;
    let replay = Replay::of_environment();
    let mut run = Run::new(replay.seed);
    let mut scene = scene("steps", replay.network().await).await;
    let nodes = [PREFECTURE, COUNTIES[0]].map(division);
    let at_once = if replay.minutes.is_some() { nodes.len() } else { 1 };
    run.while_they_write(&mut scene, 0, async |scene, run| {
        for (i, step) in Step::ALL.iter().copied().enumerate() {
            let dying: Vec<Division> = (0..at_once).map(|n| nodes[(i + n) % nodes.len()]).collect();
            for node in &dying {
                scene.doom(*node, events::doom_at(&mut run.random, step)).await;
            }
            until(&format!("{dying:?} have died at {}", step.name()), async || {
                let mut any = false;
                for node in &dying {
                    any |= scene.is_dying(*node).await;
                }
                !any
            })
            .await;
        }
    })
    .await;
    let expected: BTreeMap<Step, usize> = Step::ALL.iter().map(|step| (*step, at_once)).collect();
    assert_eq!(scene.deaths, expected);
    run.judge(
        &mut scene,
        &format!("seed {}: {at_once} deaths at each of {} steps", replay.seed, expected.len()),
    )
    .await;
}
