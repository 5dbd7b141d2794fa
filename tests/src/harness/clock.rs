//! The clock of a node, which can be set wrong and right again while the node runs, as a person or a time server would.
//! Only what it takes for the time of day is touched: what has passed by its own counting stays true.

use std::path::PathBuf;

use super::land::faketime;

/// What a node sees on its wall.
pub struct Clock {
    library: &'static str,
    file: PathBuf,
}

impl Clock {
    /// A right clock, kept in a file of its own; `None`, and said so: this cannot be done here.
    pub fn new(file: PathBuf) -> Option<Clock> {
        let clock = Clock { library: faketime()?, file };
        clock.set("+0");
        Some(clock)
    }

    /// Sets it this far from the right time, such as `-2h`; a process that runs sees it within about a second.
    pub fn set(&self, by: &str) {
        // Whole at once: whoever reads half of it would have no time at all.
        let next = self.file.with_extension("next");
        std::fs::write(&next, by).unwrap();
        std::fs::rename(&next, &self.file).unwrap();
    }

    /// What a process needs in its environment to see it.
    pub fn variables(&self) -> [(&'static str, &str); 4] {
        let file = self.file.to_str().unwrap();
        [
            ("LD_PRELOAD", self.library),
            ("FAKETIME_TIMESTAMP_FILE", file),
            ("FAKETIME_CACHE_DURATION", "1"),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
        ]
    }
}
