//! Spreading a store over the machines of a Citus cluster, by home county: what belongs to a county's records stands on
//! one of them. Everything else (peers, outboxes, ledgers, requests) is small and stays with the coordinator.
//!
//! It must never leave a store half spread: all of it is one transaction.

use super::super::migrations::KNOWN;
use super::super::sql::{Args, Sql};
use super::super::{Options, StoreError};
use super::Database;
use crate::division::Division;

/// Tables that concern records, with the statement that spreads each; the first decides where the others go.
const TABLES: [(&str, &str); 6] = [
    ("record", "SELECT CAST(create_distributed_table('record', 'county') AS TEXT)"),
    (
        "audience",
        "SELECT CAST(create_distributed_table('audience', 'county', colocate_with => 'record') AS TEXT)",
    ),
    (
        "conflict",
        "SELECT CAST(create_distributed_table('conflict', 'county', colocate_with => 'record') AS TEXT)",
    ),
    (
        "resolution",
        "SELECT CAST(create_distributed_table('resolution', 'county', colocate_with => 'record') AS TEXT)",
    ),
    ("facet", "SELECT CAST(create_distributed_table('facet', 'county', colocate_with => 'record') AS TEXT)"),
    ("tally", "SELECT CAST(create_distributed_table('tally', 'county', colocate_with => 'record') AS TEXT)"),
];

/// A distributed table's keys contain what it is distributed by. Numbers are found without it, too.
const KEYS: &str = "
    ALTER TABLE record DROP CONSTRAINT record_pkey, ADD PRIMARY KEY (county, key);
    CREATE INDEX record_key ON record (key);
    ALTER TABLE resolution DROP CONSTRAINT resolution_pkey, ADD PRIMARY KEY (county, id);
";

/// What became of a store that was to be spread.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Distribution {
    /// These tables are spread now.
    Done(Vec<&'static str>),
    /// They were before.
    Already,
    /// The database has no extension that could do it; nothing was changed.
    NoExtension,
}

/// Spreads the store at `url` over the cluster that its database is the coordinator of.
///
/// # Errors
/// The database cannot be reached or holds no store of this program's format; or the extension refused, with nothing
/// changed.
pub async fn distribute(url: &str) -> Result<Distribution, StoreError> {
    // Only for the name of the connection.
    let nobody = Division::from_code(110_000_000_000).ok_or_else(|| StoreError::unreadable("a division"))?;
    let database = Database::at(url, nobody, &Options::default())?;
    let mut conn = database.session().await?;
    let mut sql = conn.sql(None);
    database.check_server(&mut sql).await?;
    match database.format(&mut sql).await? {
        KNOWN => {}
        0 => {
            return Err(StoreError::Unusable(
                "there is no store yet; start its node once, then spread it".into(),
            ));
        }
        found => {
            let text =
                format!("the store has format {found}, this program {KNOWN}; use the node's own program");
            return Err(StoreError::Unusable(text));
        }
    }
    let outcome = spread(&mut sql).await?;
    conn.close().await?;
    Ok(outcome)
}

async fn spread(sql: &mut Sql<'_>) -> Result<Distribution, StoreError> {
    let extension = "SELECT count(*) FROM pg_proc WHERE proname = 'create_distributed_table'";
    if sql.number(extension, Args::new()).await? == 0 {
        return Ok(Distribution::NoExtension);
    }
    sql.run("BEGIN", Args::new()).await?;
    let spread_before = "SELECT count(*) FROM pg_dist_partition WHERE logicalrelid = 'record'::regclass";
    if sql.number(spread_before, Args::new()).await? != 0 {
        return Ok(Distribution::Already);
    }
    sql.script(KEYS).await?;
    for (_, statement) in TABLES {
        sql.rows(statement, Args::new()).await?;
    }
    sql.run("COMMIT", Args::new()).await?;
    Ok(Distribution::Done(TABLES.map(|(table, _)| table).to_vec()))
}
