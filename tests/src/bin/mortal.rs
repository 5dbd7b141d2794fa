//! A node that dies at a named step: `serve` of the real program with a listener that ends the process with SIGKILL, in the
//! middle of what it does, when the step that `TEST_DIE_AT` names has been reached so many times (`committed:3`). The
//! program that is deployed has no such thing. It says where it dies, in its log.

use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};

use guantong_tests::harness::mortal::{DIES_AT, Doom, VARIABLE};
use rustix::process::{Signal, getpid, kill_process};
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::layer::{Context, Layer};

/// Counts how often the step is reached.
struct Fate {
    doom: Doom,
    reached: AtomicUsize,
}

/// Whether an event is the step.
struct Named<'n>(&'n str, bool);

impl Visit for Named<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.1 |= field.name() == "step" && value == self.0;
    }

    fn record_debug(&mut self, _: &Field, _: &dyn std::fmt::Debug) {}
}

impl<S: Subscriber> Layer<S> for Fate {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut named = Named(self.doom.step.name(), false);
        event.record(&mut named);
        if named.1 && self.reached.fetch_add(1, Ordering::SeqCst) + 1 == self.doom.count {
            let _ = writeln!(std::io::stderr(), "{DIES_AT}{}", self.doom);
            die();
        }
    }
}

/// At once: nothing is flushed, closed or told to anyone.
fn die() -> ! {
    let _ = kill_process(getpid(), Signal::KILL);
    std::process::abort()
}

fn main() -> ExitCode {
    let doom = std::env::var(VARIABLE).ok().and_then(|text| text.parse().ok());
    let (Some(doom), Some(config)) = (doom, std::env::args_os().next_back()) else {
        eprintln!("mortal: {VARIABLE} must be STEP:COUNT, and the last argument a configuration");
        return ExitCode::FAILURE;
    };
    // The pipe ends with the tests, whatever ends them.
    std::thread::spawn(|| {
        let _ = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
        die()
    });
    let fate = Fate { doom, reached: AtomicUsize::new(0) };
    match guantong::serve::run_listened_to(Path::new(&config), Some(Box::new(fate))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("mortal: {error:#}");
            ExitCode::FAILURE
        }
    }
}
