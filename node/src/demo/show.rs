//! What the demonstration prints while it runs: steps, what happens in them, and progress. Programs that asked for JSON
//! see nothing of it.

use std::io::{IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

/// Between two lines of progress where nobody sees a bar.
const LINE_INTERVAL: Duration = Duration::from_secs(3);

/// Where it is printed, and what was shown so far.
pub(super) struct Show {
    quiet: bool,
    started: Instant,
    step_started: Instant,
    steps: Vec<(String, f64)>,
}

impl Show {
    pub(super) fn new(quiet: bool) -> Show {
        Show { quiet, started: Instant::now(), step_started: Instant::now(), steps: Vec::new() }
    }

    /// The next step begins.
    pub(super) fn step(&mut self, chinese: &str, english: &str) {
        self.end_step();
        self.step_started = Instant::now();
        self.steps.push((english.to_owned(), 0.0));
        let seconds = self.seconds();
        self.say(&format!("\n[{seconds:5.1} s] {} {chinese} · {english}", self.steps.len()));
    }

    fn end_step(&mut self) {
        let seconds = self.step_started.elapsed().as_secs_f64();
        if let Some((_, took)) = self.steps.last_mut() {
            *took = seconds;
        }
    }

    /// Prints a text of one or more lines.
    pub(super) fn say(&self, text: &str) {
        if !self.quiet {
            // Whoever closed the other end has seen enough; the demonstration still cleans up after itself.
            let _ = writeln!(std::io::stdout().lock(), "{}", text.trim_end());
        }
    }

    /// Prints a text below the step, indented.
    pub(super) fn tell(&self, text: &str) {
        let lines: Vec<String> = text.trim_end().lines().map(|line| format!("    {line}")).collect();
        self.say(&lines.join("\n"));
    }

    /// Shows how far something is.
    pub(super) fn progress(&self, total: u64, what: &str) -> Progress {
        let on_terminal = std::io::stderr().is_terminal() && std::io::stdout().is_terminal();
        let bar = if self.quiet || !on_terminal { ProgressBar::hidden() } else { ProgressBar::new(total) };
        if let Ok(style) = ProgressStyle::with_template("    {bar:40} {pos}/{len} {msg}") {
            bar.set_style(style);
        }
        bar.set_message(what.to_owned());
        let lines = (!self.quiet && !on_terminal).then(|| (Instant::now(), what.to_owned()));
        Progress { bar, total, lines }
    }

    /// Since the demonstration began.
    pub(super) fn seconds(&self) -> f64 {
        self.started.elapsed().as_secs_f64()
    }

    /// The steps and how long each took.
    pub(super) fn steps(&mut self) -> Vec<Value> {
        self.end_step();
        self.steps
            .iter()
            .map(|(name, seconds)| json!({ "name": name, "seconds": rounded(*seconds) }))
            .collect()
    }
}

/// To hundredths.
pub(super) fn rounded(number: f64) -> f64 {
    (number * 100.0).round() / 100.0
}

/// Something under way; dropping it takes the bar away.
pub(super) struct Progress {
    bar: ProgressBar,
    total: u64,
    /// When a line was printed last, and what it is about.
    lines: Option<(Instant, String)>,
}

impl Progress {
    /// So much is done.
    pub(super) fn at(&mut self, done: u64) {
        self.bar.set_position(done);
        if let Some((last, what)) = &mut self.lines
            && last.elapsed() >= LINE_INTERVAL
        {
            *last = Instant::now();
            let _ = writeln!(std::io::stdout().lock(), "    … {done}/{} {what}", self.total);
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
