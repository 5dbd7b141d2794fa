//! What can be typed, and what is refused before anything happens.

use clap::{CommandFactory as _, Parser as _};

use super::*;

fn parse(line: &str) -> Result<Cli, clap::Error> {
    Cli::try_parse_from(std::iter::once("guantong").chain(line.split(' ')))
}

#[test]
fn the_command_line_is_sound() {
    Cli::command().debug_assert();
}

#[test]
fn every_command_says_what_it_is_for_in_both_languages() {
    for command in Cli::command().get_subcommands() {
        let about = command.get_about().map(ToString::to_string).unwrap_or_default();
        assert!(!about.is_ascii(), "{}: {about}", command.get_name());
    }
}

#[test]
fn what_the_documentation_shows_can_be_typed() {
    for line in [
        "serve --config county.toml --check",
        "status --json",
        "status --node county.example:7443 --identity li.wei",
        "import --kind grid grids.csv --source grid-office",
        "import --kind camera cameras.csv --source police --full --crs gcj02 --rejects back.csv",
        "export --kind case --division 220822 --format jsonl --out cases.jsonl",
        "get divisions/220822101000/cases/1",
        "where divisions/220822101000/cases/1 --json",
        "verify --link 220822101",
        "verify --tree --json",
        "set divisions/220822101000/cases/1 title=x address=",
        "set divisions/220822101000/cases/1 --from -",
        "move divisions/220822101000/cases/1 assign --to 220822101 --unit police",
        "move divisions/220822101000/cases/1 conclude --succeeded false --concluded-on 2026-11-21",
        "conflicts list --division 220822 --socket node.sock --json",
        "conflicts --socket node.sock list",
        "conflicts resolve divisions/220822101000/cases/1/conflicts/title --keep 0",
        "quarantine list",
        "tallies 220822",
        "aggregates --list",
        "aggregates cases_received success_rate --period 2026-10 --compare yoy,pop",
        "aggregates cases_received --period 2026 --step month --by kind",
        "aggregates online_rate --period 2026-11-21 --within 220000 --tier county --rank",
        "aggregates cases_open cases_overdue --period 2026-Q3 --within 2208 --export parquet --out q3.parquet",
        "recount --repair",
        "submit --period 2026-10",
        "submit --period 2026-Q4 --division 220822101 --withdraw --by 综治中心",
        "submit --period 2026-10 --list --json",
        "threshold set online_rate --higher --blue 95% --yellow 90% --red 85%",
        "threshold set cases_overdue --lower --red 20 --division 220822",
        "threshold list --json",
        "threshold remove online_rate",
        "report --division 220822 --period 2026-10 --format xlsx",
        "report --period 2026-10 --format html --out october.html --socket node.sock",
        "report list --period 2026-10",
        "report print divisions/220822000000/reports/2026-10-1 --format csv --out -",
        "report diff --division 220822 --period 2026-10 --json",
        "report diff divisions/220822000000/reports/2026-10-1",
        "report check township.csv --division 220822101 --period 2026-10 --offline",
        "divisions find 通榆",
        "divisions import villages.csv --socket /run/node.sock",
        "pki list --dir authority",
        "demo --division 5329 --figures figures.csv --stay --json",
    ] {
        if let Err(error) = parse(line) {
            panic!("{line}: {error}");
        }
    }
}

#[test]
fn what_makes_no_sense_is_refused() {
    for line in [
        "status --node county.example:7443",
        "import --kind table file.csv --source x",
        "import --kind grid file.csv",
        "import --kind camera file.csv --source x --crs mercator",
        "export --kind video",
        "set divisions/220822101000/cases/1",
        "set divisions/220822101000/cases/1 title=x --from -",
        "conflicts resolve divisions/220822101000/cases/1/conflicts/title",
        "conflicts resolve divisions/220822101000/cases/1/conflicts/title --keep 0 --value 1",
        "move divisions/220822101000/cases/1 reopen",
        "tallies 2208221",
        "aggregates cases_received",
        "aggregates cases_received --period 2026-13",
        "aggregates cases_received --period 2026 --tier county",
        "aggregates cases_received --period 2026 --export xlsx",
        "submit",
        "submit --period 2026-13",
        "threshold set online_rate --red 85%",
        "threshold set online_rate --higher --lower --red 85%",
        "threshold set online_rate --higher --red many",
        "report --division 220822",
        "report --period 2026-10 --format pdf",
        "report print",
        "report diff divisions/220822000000/reports/2026-10-1 --period 2026-10",
        "report check",
        "serve",
    ] {
        let error = parse(line).err();
        assert_eq!(error.map(|error| error.exit_code()), Some(2), "{line}");
    }
}
