//! The program `guantong`: a node of the exchange for each tier, and the commands that act on it.
//!
//! `serve` runs a node; everything else is a client of one, or works on files. What is exchanged and stored, and by
//! which rules, is the gateway's alone: nothing here decides it.

pub mod backup;
pub mod check;
pub mod cli;
pub mod client;
pub mod config;
pub mod demo;
pub mod identity;
pub mod ledger;
pub mod links;
pub mod report;
pub mod serve;
pub mod stated;
pub mod subscribe;
pub mod telemetry;
