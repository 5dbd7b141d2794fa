//! Tables in somebody else's PostgreSQL, kept up to date: made and widened from the contract, commented in Chinese, and
//! written in transactions that are on disk before anything is acknowledged.
//!
//! The one place beside the store that knows sqlx. It never reads what a person put into the tables, never removes a
//! row or a column, and never names a value in an error.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::str::FromStr;
use std::time::Duration;

use guantong_proto::v1;
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Row};

use super::SinkError;
use super::cells::{self, Cell, Sync, iso_date, rfc3339};
use super::columns::{Shape, Table};

/// Connecting, and each statement.
const STATEMENT_TIME: Duration = Duration::from_secs(120);
const CONNECT_TIME: Duration = Duration::from_secs(15);

/// A connection to the subscriber's database.
pub struct PostgresSink {
    conn: PgConnection,
    schema: String,
    subscription: String,
    tables: HashMap<&'static str, Prepared>,
    fingerprint: String,
    seq: i64,
    open: bool,
}

struct Prepared {
    table: Table,
    upsert: String,
}

impl PostgresSink {
    /// Connects, and makes the tables of `tables` in `schema` where they are missing, with all columns and comments.
    /// Says whether the tables are new or have columns that they had not when they were filled.
    ///
    /// # Errors
    /// Everything that the database says; what cannot help itself by waiting is told apart.
    pub async fn open(
        url: &str,
        schema: &str,
        subscription: &str,
        tables: Vec<Table>,
    ) -> Result<(PostgresSink, bool), SinkError> {
        let options = PgConnectOptions::from_str(url).map_err(|error| {
            SinkError::Refused(format!("--to: {error}; write postgres://user:password@host/database"))
        })?;
        let options = options.application_name("guantong subscribe").disable_statement_logging();
        let conn = within(CONNECT_TIME, options.connect()).await?;
        let fingerprint = fingerprint(&tables);
        let mut sink = PostgresSink {
            conn,
            schema: quoted(schema),
            subscription: subscription.to_owned(),
            tables: HashMap::new(),
            fingerprint,
            seq: 0,
            open: false,
        };
        sink.make_schema(schema).await?;
        sink.make_own_tables().await?;
        for table in tables {
            sink.make(&table).await?;
            let upsert = upsert(&sink.schema, &table);
            sink.tables.insert(table.kind.name, Prepared { table, upsert });
        }
        let filled = sink.remembered().await?;
        let wants_all = filled.as_deref() != Some(sink.fingerprint.as_str());
        Ok((sink, wants_all))
    }

    /// Writes changes into the open transaction, which it begins where there is none.
    ///
    /// # Errors
    /// Then nothing since the last commit is kept.
    pub async fn write(&mut self, changes: &[v1::Change], time_us: i64) -> Result<(), SinkError> {
        if !self.open {
            self.run("BEGIN".to_owned()).await?;
            self.open = true;
            self.seq += 1;
        }
        let sync = Sync { time_us, seq: self.seq };
        for (kind, changes) in super::by_kind(changes) {
            let Some(prepared) = self.tables.get(kind) else { return Err(super::unknown_kind(kind)) };
            let mut columns: Vec<Vec<Option<String>>> =
                vec![Vec::with_capacity(changes.len()); prepared.table.columns.len()];
            for change in changes {
                let row = cells::row(&prepared.table, change, sync)
                    .map_err(|error| SinkError::Refused(error.to_string()))?;
                for (column, cell) in columns.iter_mut().zip(row) {
                    column.push(as_text(cell));
                }
            }
            let mut query = sqlx::query(AssertSqlSafe(prepared.upsert.clone()));
            for column in columns {
                query = query.bind(column);
            }
            within(STATEMENT_TIME, query.execute(&mut self.conn)).await?;
        }
        Ok(())
    }

    /// Commits. Afterwards everything written is on disk, as far as the database keeps its promise.
    ///
    /// # Errors
    /// Then it is not known what is kept: what was not acknowledged comes again.
    pub async fn commit(&mut self, caught_up: Option<prost_types::Timestamp>) -> Result<(), SinkError> {
        if !self.open {
            self.run("BEGIN".to_owned()).await?;
            self.open = true;
        }
        let note = format!(
            "INSERT INTO {}.subscription (name, columns, last_seq, write_time, caught_up_time)
             VALUES ($1, $2, $3, now(), $4::timestamptz)
             ON CONFLICT (name) DO UPDATE SET columns = excluded.columns, last_seq = excluded.last_seq,
                write_time = excluded.write_time,
                caught_up_time = coalesce(excluded.caught_up_time, subscription.caught_up_time)",
            self.schema
        );
        let caught_up = caught_up.and_then(|at| rfc3339(at.seconds, at.nanos));
        let query = sqlx::query(AssertSqlSafe(note));
        let query = query.bind(&self.subscription).bind(&self.fingerprint).bind(self.seq).bind(caught_up);
        within(STATEMENT_TIME, query.execute(&mut self.conn)).await?;
        self.run("COMMIT".to_owned()).await?;
        self.open = false;
        Ok(())
    }

    async fn run(&mut self, statement: String) -> Result<(), SinkError> {
        let run = sqlx::raw_sql(AssertSqlSafe(statement)).execute(&mut self.conn);
        within(STATEMENT_TIME, run).await.map(|_| ())
    }

    /// A schema that is there may belong to somebody else; making one may not be allowed.
    async fn make_schema(&mut self, schema: &str) -> Result<(), SinkError> {
        // What is committed must be on disk, whatever the server's default.
        let durable = "SELECT set_config('synchronous_commit', 'on', false)
            WHERE current_setting('synchronous_commit') = 'off'";
        within(STATEMENT_TIME, sqlx::query(durable).execute(&mut self.conn)).await?;
        let known = "SELECT 1 FROM pg_namespace WHERE nspname = $1";
        let known = sqlx::query(known).bind(schema).fetch_optional(&mut self.conn);
        if within(STATEMENT_TIME, known).await?.is_some() {
            return Ok(());
        }
        self.run(format!("CREATE SCHEMA IF NOT EXISTS {}", self.schema)).await
    }

    /// How far each subscription has come, and the labels of all values.
    async fn make_own_tables(&mut self) -> Result<(), SinkError> {
        let s = self.schema.clone();
        self.run(format!(
            "CREATE TABLE IF NOT EXISTS {s}.subscription (
                name text PRIMARY KEY,
                columns text NOT NULL,
                last_seq bigint NOT NULL,
                write_time timestamptz NOT NULL,
                caught_up_time timestamptz
            );
            COMMENT ON TABLE {s}.subscription IS '订阅进度：每个订阅一行';
            COMMENT ON COLUMN {s}.subscription.columns IS '上次写入时各表列的摘要';
            COMMENT ON COLUMN {s}.subscription.last_seq IS '最近一次写入的序号，对应各表 sync_seq';
            COMMENT ON COLUMN {s}.subscription.write_time IS '最近一次写入时间';
            COMMENT ON COLUMN {s}.subscription.caught_up_time IS '各表完整到该时刻：此前的变化均已写入';
            CREATE TABLE IF NOT EXISTS {s}.enum_labels (
                table_name text NOT NULL,
                column_name text NOT NULL,
                value text NOT NULL,
                label text NOT NULL,
                PRIMARY KEY (table_name, column_name, value)
            );
            COMMENT ON TABLE {s}.enum_labels IS '枚举值的中文名称：value 为各表中的英文值，label 为中文'"
        ))
        .await
    }

    /// The table of one kind, with every column of the contract.
    async fn make(&mut self, table: &Table) -> Result<(), SinkError> {
        let (schema, name) = (self.schema.clone(), quoted(table.name()));
        let mut made = format!("CREATE TABLE IF NOT EXISTS {schema}.{name} (name text PRIMARY KEY);\n");
        let _ = writeln!(made, "COMMENT ON TABLE {schema}.{name} IS {};", literal(table.kind.label));
        self.run(made).await?;
        let known = self.columns_of(table).await?;
        let mut widen = String::new();
        for column in &table.columns {
            let (kind, quoted) = (sql_type(column.shape), quoted(&column.name));
            match known.get(&column.name) {
                Some(found) if found == kind => {}
                Some(found) => {
                    return Err(SinkError::Refused(format!(
                        "{}.{}: the column is {found} and must be {kind}; use another --schema, or change it \
                         (列类型不符)",
                        table.name(),
                        column.name
                    )));
                }
                None => {
                    let _ = writeln!(
                        widen,
                        "ALTER TABLE {schema}.{name} ADD COLUMN IF NOT EXISTS {quoted} {kind};"
                    );
                }
            }
            let comment = literal(&column.comment);
            let _ = writeln!(widen, "COMMENT ON COLUMN {schema}.{name}.{quoted} IS {comment};");
        }
        self.run(widen).await?;
        let labels = table.labels();
        let column = |of: fn(&super::columns::Label) -> String| labels.iter().map(of).collect::<Vec<_>>();
        let put = format!(
            "INSERT INTO {schema}.enum_labels (table_name, column_name, value, label)
             SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[])
             ON CONFLICT (table_name, column_name, value) DO UPDATE SET label = excluded.label"
        );
        let query = sqlx::query(AssertSqlSafe(put))
            .bind(column(|l| l.table.to_owned()))
            .bind(column(|l| l.column.clone()))
            .bind(column(|l| l.value.clone()))
            .bind(column(|l| l.label.clone()));
        within(STATEMENT_TIME, query.execute(&mut self.conn)).await.map(|_| ())
    }

    async fn columns_of(&mut self, table: &Table) -> Result<HashMap<String, String>, SinkError> {
        let columns = "SELECT a.attname::text, format_type(a.atttypid, a.atttypmod) FROM pg_attribute a
            WHERE a.attrelid = ($1)::regclass AND a.attnum > 0 AND NOT a.attisdropped";
        let named = format!("{}.{}", self.schema, quoted(table.name()));
        let rows = within(STATEMENT_TIME, sqlx::query(columns).bind(named).fetch_all(&mut self.conn)).await?;
        let column = |row: &sqlx::postgres::PgRow| Ok((row.try_get(0)?, row.try_get(1)?));
        rows.iter().map(column).collect::<Result<_, sqlx::Error>>().map_err(|error| of_sqlx(&error))
    }

    /// The columns that the tables had when this subscription was written last; how many commits there were.
    async fn remembered(&mut self) -> Result<Option<String>, SinkError> {
        let own = format!("SELECT columns, last_seq FROM {}.subscription WHERE name = $1", self.schema);
        let query = sqlx::query(AssertSqlSafe(own)).bind(&self.subscription);
        let row = within(STATEMENT_TIME, query.fetch_optional(&mut self.conn)).await?;
        let Some(row) = row else { return Ok(None) };
        self.seq = row.try_get(1).map_err(|error| of_sqlx(&error))?;
        Ok(Some(row.try_get(0).map_err(|error| of_sqlx(&error))?))
    }

    /// Closes the connection; an open transaction is given up.
    pub async fn close(self) {
        let _ = tokio::time::timeout(CONNECT_TIME, self.conn.close()).await;
    }
}

/// The columns of all tables in one value: where it changes, older rows lack something.
pub(super) fn fingerprint(tables: &[Table]) -> String {
    let mut columns = Vec::new();
    for table in tables {
        columns.extend(table.columns.iter().map(|c| format!("{}.{} {:?}", table.name(), c.name, c.shape)));
    }
    // Not a secret and not from outside: a short sum is enough.
    let sum = columns.join("\n").bytes().fold(0xcbf2_9ce4_8422_2325_u64, |sum, byte| {
        (sum ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    format!("{sum:016x}")
}

/// A name in a statement.
fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A text in a statement that takes no bound values.
fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

fn sql_type(shape: Shape) -> &'static str {
    match shape {
        Shape::Text => "text",
        Shape::Int => "bigint",
        Shape::Double => "double precision",
        Shape::Bool => "boolean",
        Shape::Date => "date",
        Shape::Time => "timestamp with time zone",
        Shape::TextList => "text[]",
        Shape::Json => "jsonb",
    }
}

/// One statement for any number of rows: each column is bound as an array of texts.
fn upsert(schema: &str, table: &Table) -> String {
    let names: Vec<String> = table.columns.iter().map(|c| quoted(&c.name)).collect();
    let casts = table.columns.iter().enumerate();
    let casts: Vec<String> = casts.map(|(i, c)| format!("u.c{i}::{}", sql_type(c.shape))).collect();
    let arrays: Vec<String> = (1..=table.columns.len()).map(|i| format!("${i}::text[]")).collect();
    let aliases: Vec<String> = (0..table.columns.len()).map(|i| format!("c{i}")).collect();
    let set = names.iter().filter(|name| *name != "\"name\"");
    let set: Vec<String> = set.map(|name| format!("{name} = excluded.{name}")).collect();
    format!(
        "INSERT INTO {schema}.{} ({}) SELECT {} FROM unnest({}) AS u({}) ON CONFLICT (name) DO UPDATE SET {}",
        quoted(table.name()),
        names.join(", "),
        casts.join(", "),
        arrays.join(", "),
        aliases.join(", "),
        set.join(", ")
    )
}

/// A cell as PostgreSQL reads it from text.
fn as_text(cell: Cell) -> Option<String> {
    match cell {
        Cell::Null => None,
        Cell::Text(text) => Some(text),
        Cell::Int(n) => Some(n.to_string()),
        Cell::Double(n) => Some(n.to_string()),
        Cell::Bool(yes) => Some(yes.to_string()),
        Cell::Date(days) => iso_date(days),
        Cell::Time(us) => {
            let nanos = us.rem_euclid(1_000_000) as i32 * 1_000;
            rfc3339(us.div_euclid(1_000_000), nanos)
        }
        Cell::List(entries) => {
            let quote = |entry: &String| format!("\"{}\"", entry.replace('\\', "\\\\").replace('"', "\\\""));
            Some(format!("{{{}}}", entries.iter().map(quote).collect::<Vec<_>>().join(",")))
        }
        Cell::Json(json) => Some(json.to_string()),
    }
}

async fn within<T>(
    limit: Duration,
    asked: impl Future<Output = Result<T, sqlx::Error>>,
) -> Result<T, SinkError> {
    match tokio::time::timeout(limit, asked).await {
        Ok(done) => done.map_err(|error| of_sqlx(&error)),
        Err(_) => Err(SinkError::Unavailable(format!(
            "the database did not answer in {} s (数据库无响应)",
            limit.as_secs()
        ))),
    }
}

/// Whether a person must do something, or waiting may help. What a database says about values is not passed on.
fn of_sqlx(error: &sqlx::Error) -> SinkError {
    let Some(said) = error.as_database_error() else {
        return match error {
            sqlx::Error::Configuration(_) | sqlx::Error::Protocol(_) => SinkError::Refused(error.to_string()),
            _ => SinkError::Unavailable(format!("the database cannot be reached: {error} (无法连接数据库)")),
        };
    };
    let code = said.code().unwrap_or_default().into_owned();
    match code.get(..2) {
        // Connection, resources, an operator's stop, a conflict with another transaction.
        Some("08" | "53" | "55" | "57" | "58" | "40") => SinkError::Unavailable(format!(
            "the database answers {code}: {} (数据库暂不可用)",
            said.message()
        )),
        Some("22" | "23") => SinkError::Refused(format!(
            "the database refuses a row ({code}); its tables were changed (数据库拒绝写入)"
        )),
        _ => SinkError::Refused(format!("the database answers {code}: {} (数据库拒绝)", said.message())),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_written_as_postgres_reads_them() {
        for (cell, text) in [
            (Cell::Null, None),
            (Cell::Bool(true), Some("true")),
            (Cell::Date(0), Some("1970-01-01")),
            (Cell::Time(1_500_000), Some("1970-01-01T00:00:01.5Z")),
            (Cell::Time(-1), Some("1969-12-31T23:59:59.999999Z")),
            (Cell::List(vec!["a\"b\\".into(), "人脸".into()]), Some(r#"{"a\"b\\","人脸"}"#)),
            (Cell::List(vec![]), Some("{}")),
        ] {
            assert_eq!(as_text(cell).as_deref(), text);
        }
    }

    #[test]
    fn names_and_texts_cannot_leave_their_quotes() {
        assert_eq!(quoted("a\"; DROP"), "\"a\"\"; DROP\"");
        assert_eq!(literal("a'b"), "'a''b'");
    }
}
