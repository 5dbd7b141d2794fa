//! The command line: one file for each command.
//!
//! Commands act through the API of a running node, never behind its back on its store; only `serve`, `pki` and `demo`
//! work on files, `restore` and `rebuild` on the store of a node that does not run, and `store` on a database. Each prints for people, or with `--json` one object for programs, and says by its exit status how
//! it went.

mod aggregates;
pub mod audit;
mod backup;
mod bundle;
mod case_move;
mod completeness;
mod conflicts;
mod connection;
mod divisions;
mod duplicates;
mod enroll;
mod erase;
mod export;
mod fleet;
mod get;
mod grant;
mod import;
mod invite;
mod json;
mod pages;
pub mod pki;
mod problem;
mod progress;
mod quarantine;
mod rebuild;
mod recount;
mod recovery;
pub(crate) mod report;
mod reports;
mod restore;
mod serve;
mod set;
mod status;
mod store;
mod submit;
mod subscribe;
mod subscriptions;
mod tallies;
mod threshold;
mod verify;
mod whereabouts;

use std::process::ExitCode;

use clap::builder::styling::{AnsiColor, Styles};

use report::Report;

const STYLES: Styles = Styles::styled()
    .header(AnsiColor::Cyan.on_default().bold())
    .usage(AnsiColor::Cyan.on_default().bold())
    .literal(AnsiColor::Green.on_default());

const OVERVIEW: &str = "\
A first node, from nothing (从零开始):
  guantong pki init --dir authority
  guantong pki issue node 220822 --dir authority --out county --host county.example
  guantong serve --config county.toml --check
  guantong serve --config county.toml
  guantong import --kind grid grids.csv --source grid-office
  guantong status

Exit status (退出码):
  0  done (完成)
  1  it did not work; the message says why (失败)
  2  the command line is wrong (命令行有误)
  3  done, but something needs a person: bad rows, conflicts, a link that is down (完成，但有事项需人工处理)";

/// Exchange of governance records between administrative tiers (社会治理数据贯通节点)
///
/// A node runs at each tier (township, county, prefecture, province), keeps that tier's grids, cases and cameras, and
/// stays equal with the nodes above and below. `serve` runs a node; the other commands act on one that runs.
#[derive(Debug, clap::Parser)]
#[command(name = "guantong", version, after_help = OVERVIEW, styles = STYLES, max_term_width = 110)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    Serve(serve::ServeArgs),
    Status(status::StatusArgs),
    Import(import::ImportArgs),
    Export(export::ExportArgs),
    Get(get::GetArgs),
    Where(whereabouts::WhereArgs),
    Verify(verify::VerifyArgs),
    Set(set::SetArgs),
    Move(case_move::MoveArgs),
    Conflicts(conflicts::ConflictsArgs),
    Duplicates(duplicates::DuplicatesArgs),
    Erase(erase::EraseArgs),
    Grant(grant::GrantArgs),
    Invite(invite::InviteArgs),
    Enroll(enroll::EnrollArgs),
    Quarantine(quarantine::QuarantineArgs),
    Subscriptions(subscriptions::SubscriptionsArgs),
    Subscribe(subscribe::SubscribeArgs),
    Aggregates(aggregates::AggregatesArgs),
    Recount(recount::RecountArgs),
    Backup(backup::BackupArgs),
    Restore(restore::RestoreArgs),
    Rebuild(rebuild::RebuildArgs),
    Tallies(tallies::TalliesArgs),
    Divisions(divisions::DivisionsArgs),
    Submit(submit::SubmitArgs),
    Report(reports::ReportsArgs),
    Threshold(threshold::ThresholdArgs),
    Audit(audit::AuditArgs),
    Bundle(bundle::BundleArgs),
    Store(store::StoreArgs),
    Pki(pki::PkiArgs),
    Demo(crate::demo::DemoArgs),
}

/// What a command is done with, and how it went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Nothing is left to do.
    Done,
    /// It is done, and a person must look at something.
    NeedsAttention,
}

/// Does what the command line says.
pub fn run(cli: Cli) -> ExitCode {
    match execute(cli.command) {
        Ok(Outcome::Done) => ExitCode::SUCCESS,
        Ok(Outcome::NeedsAttention) => ExitCode::from(3),
        Err(error) => {
            eprintln!("guantong: {}", words(&error));
            ExitCode::FAILURE
        }
    }
}

/// An error and its causes. Some libraries repeat the cause in their own words.
fn words(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain().map(ToString::to_string).filter(|cause| !cause.is_empty()) {
        if !text.contains(&cause) {
            text.push_str(if text.is_empty() { "" } else { ": " });
            text.push_str(&cause);
        }
    }
    text
}

fn execute(command: Command) -> anyhow::Result<Outcome> {
    match command {
        Command::Serve(args) => serve::run(&args),
        Command::Pki(args) => pki::run(args).map(|()| Outcome::Done),
        Command::Demo(args) => crate::demo::run(&args).map(|()| Outcome::Done),
        Command::Divisions(args) => divisions::run(args),
        Command::Subscribe(args) => subscribe::run(args),
        Command::Aggregates(args) => on_runtime(aggregates::run(args)),
        Command::Store(args) => on_runtime(store::run(args)),
        Command::Import(args) => on_runtime(import::run(args)),
        Command::Export(args) => on_runtime(export::run(args)),
        Command::Status(args) => print(args.node.json, status::run(&args)),
        Command::Get(args) => print(args.node.json, get::run(&args)),
        Command::Verify(args) => print(args.node.json, verify::run(&args)),
        Command::Where(args) => print(args.node.json, whereabouts::run(&args)),
        Command::Set(args) => print(args.node.json, set::run(&args)),
        Command::Move(args) => print(args.node.json, case_move::run(&args)),
        Command::Conflicts(args) => print(args.node.json, conflicts::run(&args)),
        Command::Duplicates(args) => print(args.node.json, duplicates::run(&args)),
        Command::Erase(args) => print(args.node.json, erase::run(&args)),
        Command::Invite(args) => print(args.node.json, invite::run(&args)),
        Command::Enroll(args) => print(args.json, enroll::run(&args)),
        Command::Grant(args) => print(args.node.json, grant::run(&args)),
        Command::Quarantine(args) => print(args.node.json, quarantine::run(&args)),
        Command::Subscriptions(args) => print(args.node.json, subscriptions::run(&args)),
        Command::Recount(args) => print(args.node.json, recount::run(&args)),
        Command::Backup(args) => print(args.node.json, backup::run(&args)),
        Command::Rebuild(args) => print(args.json, rebuild::run(&args)),
        Command::Restore(args) => print(args.json, restore::run(&args)),
        Command::Report(args) => print(args.node.json, reports::run(&args)),
        Command::Submit(args) => print(args.node.json, submit::run(&args)),
        Command::Threshold(args) => print(args.node.json, threshold::run(&args)),
        Command::Bundle(args) => print(args.node.json, bundle::run(&args)),
        Command::Audit(args) => print(args.node.json, audit::run(&args)),
        Command::Tallies(args) => print(args.node.json, tallies::run(&args)),
    }
}

fn print(json: bool, command: impl Future<Output = anyhow::Result<Report>>) -> anyhow::Result<Outcome> {
    on_runtime(command)?.print(json)
}

/// One thread is enough for a client.
fn on_runtime<T>(command: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(command)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests;
