//! The program. What it is told on the command line is all it does: run a node, act on one, or keep certificates.

use std::process::ExitCode;

fn main() -> ExitCode {
    guantong::cli::run(clap::Parser::parse())
}
