//! `guantong divisions`: what divisions there are. `find` looks in the table that comes with the program and needs no
//! node; `import` adds villages, and new or renamed divisions, to a node and all below it.

use std::path::PathBuf;

use guantong_gateway::division::{Division, Divisions};
use serde_json::{Value, json};

use super::import::ImportArgs;
use super::report::{Report, table};
use super::{Outcome, connection::NodeArgs, import, on_runtime};

/// Divisions shown to people.
const SHOWN_MAX: usize = 50;

/// Look divisions up, or import villages and changes (行政区划的查询与导入)
#[derive(Debug, clap::Args)]
pub(crate) struct DivisionsArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Find divisions by a part of their full name, or by a code; a code lists what is below it (按名称或代码查询)
    Find {
        /// Such as 通榆, 白城通榆 or 220822
        what: String,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Import a CSV table of divisions: columns code and name (导入区划表，列：代码、名称)
    Import {
        /// The table
        file: PathBuf,
        /// What the table is called; the next one of the same name is compared with it
        #[arg(long, value_name = "NAME", default_value = "divisions")]
        source: String,
        /// Where to write rows that were not taken
        #[arg(long, value_name = "FILE")]
        rejects: Option<PathBuf>,
        #[command(flatten)]
        node: Box<NodeArgs>,
    },
}

pub(crate) fn run(args: DivisionsArgs) -> anyhow::Result<Outcome> {
    match args.command {
        Command::Find { what, json } => find(&what).print(json),
        Command::Import { file, source, rejects, node } => {
            on_runtime(import::run(ImportArgs::of_divisions(file, source, rejects, *node)))
        }
    }
}

fn find(what: &str) -> Report {
    let divisions = Divisions::embedded();
    let found: Vec<Division> = match Division::parse(what) {
        Ok(code) => {
            let own = divisions.known(code).then_some(code);
            own.into_iter().chain(divisions.children(code).into_iter().map(|(code, _)| code)).collect()
        }
        Err(_) => named(&divisions, what),
    };
    let name = |code: &Division| divisions.full_name(*code);
    let rows: Vec<[String; 3]> = found
        .iter()
        .take(SHOWN_MAX)
        .map(|code| [code.to_string(), code.tier().label().to_owned(), name(code)])
        .collect();
    let mut text = match rows.as_slice() {
        [] => format!(
            "no division is called «{what}»; villages are not in this table (未找到；内置表不含村级)\n"
        ),
        rows => table(["code 代码", "tier 层级", "name 名称"], rows),
    };
    if found.len() > rows.len() {
        text.push_str(&format!("and {} more; --json lists all\n", found.len() - rows.len()));
    }
    let json: Vec<Value> = found
        .iter()
        .map(|code| json!({ "code": code.to_string(), "tier": code.tier().name(), "full_name": name(code) }))
        .collect();
    Report::done(text, json!({ "divisions": json }))
}

/// All divisions whose full name has these characters in this order, the shortest names first: 白城通榆 is 吉林省白城市通榆县.
fn named(divisions: &Divisions, what: &str) -> Vec<Division> {
    let wanted: Vec<char> = what.chars().filter(|c| !c.is_whitespace()).collect();
    let mut pending: Vec<Division> =
        (11..=99).filter_map(|code: u64| Division::from_code(code * 10_000_000_000)).collect();
    let mut found = Vec::new();
    while let Some(code) = pending.pop() {
        pending.extend(divisions.children(code).into_iter().map(|(child, _)| child));
        let (own, full) = (divisions.name(code).unwrap_or_default(), divisions.full_name(code));
        // The last character must be in the division's own name, or all that lies below would match too.
        let ends_here = wanted.last().is_some_and(|last| own.contains(*last));
        if ends_here && divisions.known(code) && has_in_order(&full, &wanted) {
            found.push((full.chars().count(), code));
        }
    }
    found.sort_unstable();
    found.into_iter().map(|(_, code)| code).collect()
}

fn has_in_order(text: &str, wanted: &[char]) -> bool {
    let mut rest = text.chars();
    wanted.iter().all(|wanted| rest.any(|c| c == *wanted))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn divisions_are_found_by_name_and_by_code() {
        let codes = |what: &str| -> Vec<String> {
            let json = find(what).json;
            let list = json["divisions"].as_array().cloned().unwrap_or_default();
            list.iter().filter_map(|d| d["code"].as_str().map(str::to_owned)).collect()
        };
        assert_eq!(codes("通榆县"), ["220822000000"]);
        assert_eq!(codes("白城 通榆").first().map(String::as_str), Some("220822000000"));
        let below = codes("220822");
        assert_eq!((below.len(), below[0].as_str()), (23, "220822000000"));
        assert!(codes("无此地名").is_empty());
    }
}
