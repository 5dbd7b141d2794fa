//! Ledgers: reading CSV tables that offices keep into rows for the node, and writing records out again.
//!
//! Everything follows from the contract (`schema`): a new kind or field is an edit of a `.proto` only. Nothing here
//! touches the network, a clock or the store: what a row means beside records that exist is the node's to decide.
//! It must never guess a coordinate reference system, keep a column that is out of bounds, hold a whole file in
//! memory, or repeat the content of a cell in an error.
//!
//! A file is opened with [`Ledger::open`], which refuses what is wrong with it as a whole, and then gives one
//! [`Outcome`] for each row. What comes back bad goes into a file beside it with [`write_rejects`].

mod cell;
mod checks;
pub mod contract;
mod crs;
mod encoding;
mod error;
mod header;
mod json;
mod read;
mod row;
mod schema;
mod table;
mod text;
mod when;
mod write;

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests;

pub use crs::Crs;
pub(crate) use encoding::decoded;
pub use error::LedgerError;
pub use header::{Layout, LeftOut};
pub use json::{describe, json_to_fields, record_to_json};
pub use read::{Counts, Ledger, Options, Outcome, RecordIdError, record_id};
pub use schema::{Column, KindView};
pub(crate) use text::{half_width, header_key};
pub use write::{CsvWriter, Labels, write_csv, write_rejects};
