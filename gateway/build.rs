//! Packs the table of divisions into the program. It checks the table here, so that the program need not at
//! every start: it must never pack one that is out of order or has a row that would not split cleanly.

use std::error::Error;
use std::path::Path;
use std::{env, fs};

const TABLE: &str = "data/divisions.csv";
const LEVEL: i32 = 19;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed={TABLE}");
    let text = fs::read_to_string(TABLE)?;
    check(&text)?;
    let out = env::var_os("OUT_DIR").ok_or("OUT_DIR is not set")?;
    fs::write(Path::new(&out).join("divisions.csv.zst"), zstd::bulk::compress(text.as_bytes(), LEVEL)?)?;
    Ok(())
}

fn check(text: &str) -> Result<(), Box<dyn Error>> {
    let mut lines = text.lines();
    if lines.next() != Some("code,name") {
        return Err(format!("{TABLE}: the first line must be code,name").into());
    }
    let mut last = String::new();
    for (line, row) in lines.enumerate().map(|(index, row)| (index + 2, row)) {
        let (code, name) = row.split_once(',').ok_or(format!("{TABLE}:{line}: no comma"))?;
        if !matches!(code.len(), 2 | 4 | 6 | 9) || !code.bytes().all(|digit| digit.is_ascii_digit()) {
            return Err(format!("{TABLE}:{line}: a code has 2, 4, 6 or 9 digits").into());
        }
        if name.is_empty() || name.contains([',', '"', '\r']) || name.trim() != name {
            return Err(format!("{TABLE}:{line}: a name is plain text without quotes or commas").into());
        }
        let code = format!("{code:0<12}");
        if code <= last {
            return Err(format!("{TABLE}:{line}: codes must rise, each given once").into());
        }
        last = code;
    }
    Ok(())
}
