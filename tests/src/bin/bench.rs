//! Benchmarks of whole trees: real processes, mutual TLS, every transaction on disk. It prints what it measured and
//! judges nothing.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use guantong_tests::bench::{
    aggregates, audit, authorization, chain, handshake, latency, proof, rebuild, repair, store,
};

/// Measures a tree of real nodes.
#[derive(Parser)]
#[command(
    after_help = "Build the program first: cargo build --release. Figures from one run are comparable with each \
                        other, not with those of another machine."
)]
struct Args {
    /// Print one JSON document.
    #[arg(long, global = true)]
    json: bool,
    /// The node's program; without it, `release/guantong` in `CARGO_TARGET_DIR`, or else in `target`.
    #[arg(long, global = true, value_name = "FILE", default_value_os_t = built_program())]
    program: PathBuf,
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Records from a township through county and prefecture to the province: records per second at the province, CPU
    /// seconds per million records over all processes, greatest memory of each process.
    Chain {
        /// Records that are imported at the township.
        #[arg(long, default_value_t = 100_000)]
        records: u64,
        /// A further load of so many records that changes the first ones.
        #[arg(long, default_value_t = 0)]
        updates: u64,
    },
    /// One change at a time, from the township's answer to the province's store: median and tail in milliseconds.
    Latency {
        /// Changes measured.
        #[arg(long, default_value_t = 300)]
        changes: u32,
    },
    /// A township whose store is gone, from its start until its county has filled it again: seconds.
    Rebuild {
        /// Records of the township.
        #[arg(long, default_value_t = 20_000)]
        records: u64,
    },
    /// The store alone, in transactions of 1,000 records: how many are inserted and changed per second.
    Store {
        /// An empty database of PostgreSQL; without it, a file of SQLite.
        #[arg(long)]
        store: Option<String>,
        /// Records.
        #[arg(long, default_value_t = 200_000)]
        records: usize,
    },
    /// One mutual handshake at a gateway, with a chain of three certificates below the root: its CPU time in milliseconds.
    Handshake {
        /// Handshakes measured.
        #[arg(long, default_value_t = 2_000)]
        handshakes: u32,
        /// Entries in the revocation list of each of the three authorities.
        #[arg(long, default_value_t = 1_000)]
        revoked: usize,
    },
    /// The audit log's share of the CPU time in which four tiers take in records, by a ledger and one by one.
    Audit {
        /// Records that are imported at the township.
        #[arg(long, default_value_t = 100_000)]
        records: u64,
        /// Records that are written one by one.
        #[arg(long, default_value_t = 1_000)]
        changes: u64,
    },
    /// What deciding who may send, write and see costs a record, in microseconds of CPU time.
    Authorization {
        /// Records decided over, of each kind.
        #[arg(long, default_value_t = 200_000)]
        records: u64,
    },
    /// A node whose parent has all its records: how long it takes to read where the link stands, which share of taking the
    /// records in the running checksums are, and how long computing them anew takes.
    Proof {
        /// Records that are imported.
        #[arg(long, default_value_t = 1_000_000)]
        records: u64,
        /// How many percent of them are cases; the others are cameras.
        #[arg(long, default_value_t = 10)]
        cases_percent: u64,
        /// How often it is read.
        #[arg(long, default_value_t = 1_000)]
        reads: usize,
    },
    /// One record that a disk lost among very many, at either end of a real link: seconds until the node notices, which it
    /// does by counting its own records at its start, and from there until the record is back and proven equal.
    Repair {
        /// Records that are imported at a prefecture below its province.
        #[arg(long, default_value_t = 1_000_000)]
        records: u64,
        /// All in one home, instead of in all townships of the prefecture.
        #[arg(long)]
        one_home: bool,
    },
    /// A province that takes in records from its prefectures: how much of its work the kept counts are, and how long
    /// figures of all counties over twelve months take.
    Aggregates {
        /// Records that are imported at the prefectures.
        #[arg(long, default_value_t = 1_000_000)]
        records: u64,
        /// How many percent of them are cases; the others are cameras.
        #[arg(long, default_value_t = 10)]
        cases_percent: u64,
        /// Queries of each sort.
        #[arg(long, default_value_t = 500)]
        queries: usize,
    },
}

/// Where `cargo build --release` puts the node's program.
fn built_program() -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into());
    PathBuf::from(target).join("release/guantong")
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Args::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Each cause in words; the form that prints all would add a backtrace.
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(args: Args) -> anyhow::Result<()> {
    let report = match args.what {
        What::Chain { records, updates } => chain::run(&args.program, records, updates).await?,
        What::Latency { changes } => latency::run(&args.program, changes).await?,
        What::Rebuild { records } => rebuild::run(&args.program, records).await?,
        What::Store { store, records } => store::run(store.as_deref(), records).await?,
        What::Handshake { handshakes, revoked } => handshake::run(handshakes, revoked).await?,
        What::Audit { records, changes } => audit::run(&args.program, records, changes).await?,
        What::Authorization { records } => authorization::run(records)?,
        What::Proof { records, cases_percent, reads } => proof::run(records, cases_percent, reads).await?,
        What::Repair { records, one_home } => repair::run(&args.program, records, one_home).await?,
        What::Aggregates { records, cases_percent, queries } => {
            aggregates::run(&args.program, records, cases_percent, queries).await?
        }
    };
    if args.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        print_table(&report);
    }
    Ok(())
}

fn print_table(report: &serde_json::Value) {
    let Some(figures) = report.as_object() else { return };
    for (name, value) in figures {
        println!("{name:<36} {value}");
    }
}
