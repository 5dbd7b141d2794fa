//! Schemas for stores, for programs that set up a tree for a while, such as the demonstration.

use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Executor};

use super::super::StoreError;
use super::super::sql::in_time;
use super::options;

/// Makes an empty schema in a database of PostgreSQL, and gives the URL of the store in it.
///
/// # Errors
/// The database cannot be reached, or its user may not make a schema.
pub async fn create(url: &str, name: &str) -> Result<String, StoreError> {
    execute(url, "CREATE SCHEMA", name, "").await?;
    let more = if url.contains('?') { '&' } else { '?' };
    Ok(format!("{url}{more}options=-c%20search_path%3D{name}"))
}

/// Drops a schema with all that is in it; one that is not there is no error.
///
/// # Errors
/// The database cannot be reached, or somebody uses the schema.
pub async fn drop(url: &str, name: &str) -> Result<(), StoreError> {
    execute(url, "DROP SCHEMA IF EXISTS", name, "CASCADE").await
}

async fn execute(url: &str, what: &str, name: &str, how: &str) -> Result<(), StoreError> {
    // A name takes no bound value.
    if name.is_empty() || !name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_') {
        return Err(StoreError::Unusable("a schema's name has small letters, digits and _ only".into()));
    }
    let mut conn = in_time(options(url)?.connect()).await?;
    in_time(conn.execute(sqlx::raw_sql(AssertSqlSafe(format!("{what} {name} {how}"))))).await?;
    in_time(conn.close()).await
}
