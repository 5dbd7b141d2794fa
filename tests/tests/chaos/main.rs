//! Chaos on real processes: four tiers over TLS, SQLite and PostgreSQL, while townships write and those above correct. A
//! seed says what goes wrong and where; the writers' own progress says when. Afterwards every acknowledged write must be
//! at every tier, both ends of every link equal, and every count that of a recount.
//!
//! `tests/chaos` is the long form. `TEST_CHAOS_MINUTES` says for how long, `TEST_CHAOS_SEED` what goes wrong; without
//! `TEST_POSTGRES_URL` the prefecture has a file, too. The events are the same for a seed; how they meet the processes is
//! not.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr, clippy::indexing_slicing, unreachable_pub)]
#![allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]

mod book;
mod events;
mod judge;
mod writers;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use guantong::demo::tree::NodeSpec;
use guantong_tests::harness::{Fleet, division, postgres, until};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use book::Book;
use events::{Event, Scene};
use writers::Desk;

const PROVINCE: &str = "22";
const PREFECTURE: &str = "2208";
const COUNTIES: [&str; 2] = ["220822", "220881"];
const TOWNSHIPS: [&str; 3] = ["220822101", "220822102", "220881101"];
/// Events of a round; after each all is made good and judged.
const EVENTS: usize = 15;
/// Rounds, where no minutes are named.
const ROUNDS: usize = 2;

/// Says how a failed run is done again.
struct Replay {
    seed: u64,
    minutes: Option<u64>,
}

impl Drop for Replay {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let minutes = self.minutes.unwrap_or(1);
            eprintln!("REPLAY: tests/chaos --minutes {minutes} --seed {}", self.seed);
        }
    }
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|text| text.parse().ok())
}

async fn scene() -> Scene {
    let [province, prefecture] = [PROVINCE, PREFECTURE].map(division);
    let mut files = events::divisions(&[&[PROVINCE], &COUNTIES[..], &TOWNSHIPS[..]].concat());
    let mut second = NodeSpec::below(province, prefecture).cuttable();
    match postgres::database("chaos").await {
        Some(url) => second = second.environment("GUANTONG_STORE", &url),
        None => files.push(prefecture),
    }
    let mut specs = vec![NodeSpec::top(province), second];
    specs.extend(COUNTIES.map(|code| NodeSpec::below(prefecture, division(code)).cuttable()));
    specs.extend(TOWNSHIPS.map(|code| NodeSpec::below(division(&code[..6]), division(code)).cuttable()));
    Scene::new(Fleet::start(specs).await, files)
}

/// Writers go on while things go wrong.
async fn round(
    scene: &mut Scene,
    number: usize,
    book: &Arc<Book>,
    refusals: &Refusals,
    random: &mut ChaCha8Rng,
) {
    let over = Arc::new(AtomicBool::new(false));
    let desk = Desk { book: book.clone(), refusals: refusals.clone(), over: over.clone() };
    let mut tasks = Vec::new();
    for code in TOWNSHIPS {
        let client = scene.fleet.client(code);
        tasks.push(tokio::spawn(writers::township(client, code, number, random.random(), desk.clone())));
    }
    for code in [PROVINCE, PREFECTURE].into_iter().chain(COUNTIES) {
        let client = scene.fleet.client(code);
        tasks.push(tokio::spawn(writers::above(client, code, random.random(), desk.clone())));
    }
    for _ in 0..EVENTS {
        let next = book.tries() + events::pause(random);
        until("the writers go on", async || book.tries() >= next).await;
        let (event, node) = scene.strike(random).await;
        eprintln!("  {event:?} {node}");
    }
    over.store(true, Ordering::Relaxed);
    for task in tasks {
        task.await.unwrap();
    }
}

type Refusals = Arc<Mutex<BTreeMap<String, usize>>>;

/// All is made good, settles, and is judged.
async fn judged(scene: &mut Scene, book: &Book) -> Duration {
    scene.make_good().await;
    let took = judge::settled(&scene.fleet, book).await;
    judge::recounted(&scene.fleet).await;
    took
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_whatever_happens_to_nodes_and_lines() {
    let replay =
        Replay { seed: number("TEST_CHAOS_SEED").unwrap_or(1), minutes: number("TEST_CHAOS_MINUTES") };
    let mut random = ChaCha8Rng::seed_from_u64(replay.seed);
    let began = Instant::now();
    let mut scene = scene().await;
    let (book, refusals) = (Arc::new(Book::default()), Refusals::default());
    let mut longest = Duration::ZERO;
    let mut rounds = 0;
    let goes_on = |rounds| match replay.minutes {
        Some(minutes) => began.elapsed() < Duration::from_secs(60 * minutes),
        None => rounds < ROUNDS,
    };
    while goes_on(rounds) {
        round(&mut scene, rounds, &book, &refusals, &mut random).await;
        let took = judged(&mut scene, &book).await;
        let said = judge::said_by_links(&scene.fleet).await;
        eprintln!(
            "round {rounds}: {} writes acknowledged, settled after {took:?}; the ends of links say {said:?}",
            book.acknowledged()
        );
        longest = longest.max(took);
        if rounds % 2 == 0 {
            let node = scene.damage_one(&mut random).await;
            let took = judged(&mut scene, &book).await;
            eprintln!("  {:?} {node}: settled after {took:?}", Event::Damage);
            longest = longest.max(took);
        }
        rounds += 1;
    }
    let written = book.acknowledged();
    assert!(written > 0 && scene.counts.len() > 5, "{written} writes, {:?}", scene.counts);
    eprintln!(
        "seed {}: {rounds} rounds, {} events {:?}; {written} writes acknowledged, 0 lost, 0 links unequal; longest settling {} ms; not acknowledged: {:?}; {:?}",
        replay.seed,
        scene.counts.values().sum::<usize>(),
        scene.counts,
        longest.as_millis(),
        refusals.lock().unwrap(),
        began.elapsed(),
    );
}
