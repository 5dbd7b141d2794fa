//! Keeping issued reports. What they say is made elsewhere; here it only goes to disk.

use super::command::Command;
use super::{Engine, EngineError};
use crate::ingest::changes::ReportRow;

impl Engine {
    /// Keeps a report as it was issued. One of its number that is there already is a stale write: draw the next number.
    pub async fn keep_report(&self, report: ReportRow) -> Result<(), EngineError> {
        self.ask(|reply| Command::Report(Box::new(report), reply)).await
    }
}
