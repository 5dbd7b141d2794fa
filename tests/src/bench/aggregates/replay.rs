//! The part of ingest that kept counts are, done alone: what each record adds, joined by group, and written to a store.

use anyhow::{Context, Result};
use guantong_gateway::aggregate::{self, Sheet};
use guantong_gateway::division::Division;
use guantong_gateway::ingest::changes::Changes;
use guantong_gateway::period::Day;
use guantong_gateway::record::{Record, Register, raw};
use guantong_gateway::schema::{Kind, Schema};
use guantong_gateway::stamp::{Stamp, Writer};
use guantong_gateway::store::{Options, Store};
use guantong_proto::v1;

use super::super::cpu_seconds;
use super::ledger::Ledger;

/// Records in a transaction: fewer than a busy node puts into one, so that the figure is rather too high.
const GROUP_RECORDS: usize = 1_000;

/// CPU seconds for all records: those of groups with their counts, without those of the same groups alone.
pub(super) async fn run(ledger: &Ledger, own: Division) -> Result<f64> {
    let without = pass(ledger, own, false).await?;
    let with = pass(ledger, own, true).await?;
    Ok(with - without)
}

async fn pass(ledger: &Ledger, own: Division, count: bool) -> Result<f64> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("store.sqlite");
    let path = path.to_str().context("the temporary folder has a strange name")?;
    let (_, mut store) = Store::open(path, own, || 1, 1, Options::default()).await?;
    let schema = Schema::current();
    let begun = cpu_seconds()?;
    for prefecture in ledger.prefectures() {
        for (cases, name) in [(true, "case"), (false, "camera")] {
            let kind = schema.kind_named(name).context("the contract lacks a kind")?;
            let mut rows = ledger.clone().rows(prefecture, cases).peekable();
            while rows.peek().is_some() {
                let mut sheet = Sheet::default();
                for row in rows.by_ref().take(GROUP_RECORDS) {
                    let (home, record) = record(&row)?;
                    if count {
                        add(&mut sheet, kind, home, &record);
                    }
                }
                let tallies = sheet.into_changes(own, Day::LAST);
                store.apply(&Changes { tallies, ..Changes::default() }, &[], 1).await?;
            }
        }
    }
    let spent = cpu_seconds()? - begun;
    store.close().await?;
    Ok(spent)
}

fn add(sheet: &mut Sheet, kind: &Kind, home: Division, record: &Record) {
    if aggregate::may_differ(kind, &Record::default(), record) {
        sheet.add(&aggregate::contribution_of(kind, home, record), home, 1);
    }
}

/// A row as the record that arrives at the province.
fn record(row: &v1::ImportRow) -> Result<(Division, Record)> {
    let home = Division::parse(&row.home)?;
    let mut record = Record::default();
    for (field, value) in raw::split(&row.fields)? {
        record.set(field, Register::single(Writer { division: home, id: 1 }, Stamp::from_ms(1), value));
    }
    Ok((home, record))
}
