//! What can go wrong, drawn from a seed: which event, where, how wrong and how slow. It must do nothing itself, and never
//! know what was written.

use std::time::Duration;

use guantong::demo::tree::Slowness;
use guantong_gateway::division::Tier;
use guantong_gateway::step::Step;
use guantong_tests::harness::mortal::Doom;
use rand::Rng;
use rand::seq::IndexedRandom;
use rand_chacha::ChaCha8Rng;

/// What can happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Event {
    /// kill -9; the node stays down until it is started, or the round ends.
    Kill,
    /// kill -9, and a start at once.
    KillAndStart,
    /// kill -9, and a start as a node that dies by itself at a named step.
    Doom,
    /// A node that is down starts.
    Start,
    /// SIGTERM, and a start.
    Restart,
    /// SIGSTOP.
    Pause,
    /// SIGCONT.
    Resume,
    /// A line breaks.
    Cut,
    /// A line carries nothing, and breaks no connection.
    Silence,
    /// A line gets slow and narrow, and loses some of what it carries.
    Slow,
    /// A line is mended.
    Mend,
    /// kill -9, and a start with a store that may not grow.
    FullDisk,
    /// kill -9, and a start with a clock that is wrong.
    WrongClock,
    /// The clock of a node is set while it runs: wrong, wrong in another way, or right.
    StepClock,
    /// The server of PostgreSQL ends at once, and starts.
    RestartDatabase,
    /// A store of SQLite is damaged and rebuilt. Between rounds only: what no other node has yet can be lost with a disk.
    Damage,
}

/// What is drawn within a round, each as often as it stands here.
const DRAWN: [Event; 24] = [
    Event::Kill,
    Event::Kill,
    Event::KillAndStart,
    Event::KillAndStart,
    Event::Doom,
    Event::Doom,
    Event::Doom,
    Event::Doom,
    Event::Start,
    Event::Start,
    Event::Start,
    Event::Restart,
    Event::Pause,
    Event::Resume,
    Event::Cut,
    Event::Cut,
    Event::Silence,
    Event::Slow,
    Event::Slow,
    Event::Mend,
    Event::FullDisk,
    Event::WrongClock,
    Event::StepClock,
    Event::RestartDatabase,
];
/// How wrong clocks are; not as far behind as to lie before the certificates of the tree.
const CLOCKS: [&str; 9] = ["-3d", "-1d", "-3h", "-10m", "-2m", "+2m", "+10m", "+3h", "+2d"];
/// Which time that a step is reached since its start is a node's last, at most.
const COUNT_MAX: usize = 5;

/// What happens next.
pub fn draw(random: &mut ChaCha8Rng) -> Event {
    *DRAWN.choose(random).unwrap()
}

/// How wrong a clock is, or that it is right.
pub fn clock(random: &mut ChaCha8Rng, may_be_right: bool) -> &'static str {
    if may_be_right && random.random_range(0..4) == 0 { "+0" } else { CLOCKS.choose(random).unwrap() }
}

/// Where a node of a tier dies.
pub fn doom(random: &mut ChaCha8Rng, tier: Tier) -> Doom {
    let comes_by = |step: &Step| match step {
        // Only children say hello, and only to a parent.
        Step::HelloReceived | Step::ChildGreeted => tier > Tier::Township,
        Step::WelcomeReceived | Step::TokenStored => tier < Tier::Province,
        _ => true,
    };
    let steps: Vec<Step> = Step::ALL.iter().copied().filter(comes_by).collect();
    let step = *steps.choose(random).unwrap();
    doom_at(random, step)
}

/// At which time of this step a node dies.
pub fn doom_at(random: &mut ChaCha8Rng, step: Step) -> Doom {
    let count_max = match step {
        // Who is linked greets nobody again.
        Step::HelloReceived | Step::ChildGreeted | Step::WelcomeReceived | Step::TokenStored => 1,
        _ => COUNT_MAX,
    };
    Doom { step, count: random.random_range(1..=count_max) }
}

/// How slow a line is: of a satellite or of an old modem, with what such lines lose.
pub fn slowness(random: &mut ChaCha8Rng) -> Slowness {
    Slowness {
        delay: Duration::from_millis(random.random_range(20..=600)),
        bytes_per_s: random.random_range(4_000..=100_000),
        lost_one_in: random.random_range(5..=50),
    }
}

/// How long until the next event, in tries of all writers together: 1 to 40.
pub fn pause(random: &mut ChaCha8Rng) -> usize {
    random.random_range(1..=40)
}
