//! What only a server does: it is another program's, it is set up wrongly, it goes away and comes back.

use sqlx::ConnectOptions;

use super::places::PostgresPlace;
use super::*;

async fn open(url: &str) -> Result<(Store, Writer), StoreError> {
    Store::open(url, division("220822"), || 1, 1, fast()).await
}

#[tokio::test]
async fn another_programs_database_is_left_alone() {
    let Some(place) = PostgresPlace::new().await else { return };
    place.script("CREATE TABLE t (a BIGINT); INSERT INTO t VALUES (1)").await;
    let before = place.dump().await;
    let refused = place.open(fast()).await.unwrap_err();
    assert!(matches!(refused, StoreError::NotOurs(_)) && refused.is_fatal(), "{refused}");
    assert_eq!(place.dump().await, before);
    // What a program of ours began, and what only looks like it.
    place.script("CREATE TABLE guantong_format (format BIGINT)").await;
    assert!(matches!(place.open(fast()).await, Err(StoreError::NotOurs(_))));
}

#[tokio::test]
async fn a_newer_database_is_refused() {
    let Some(place) = PostgresPlace::new().await else { return };
    drop(place.opened().await);
    place.script("UPDATE guantong_format SET format = 99").await;
    let before = place.dump().await;
    let refused = place.open(fast()).await.unwrap_err();
    assert!(matches!(refused, StoreError::NewerSchema { found: 99, .. }), "{refused}");
    assert_eq!(place.dump().await, before);
}

#[tokio::test]
async fn a_database_that_cannot_hold_every_character_is_refused() {
    let how = "ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0";
    let Some(place) = PostgresPlace::made(how).await else { return };
    let refused = place.open(fast()).await.unwrap_err();
    assert!(matches!(&refused, StoreError::Unusable(why) if why.contains("LATIN1")), "{refused}");
    assert!(refused.is_fatal());
}

/// Several stores share a database when each has a schema.
#[tokio::test]
async fn a_store_can_have_a_schema_of_its_own() {
    let Some(place) = PostgresPlace::new().await else { return };
    let (_store, mut writer) = place.opened().await;
    cameras(&mut writer, 1).await;
    let url = format!("{}&options=-c%20search_path%3Dother", place.url());
    assert!(matches!(open(&url).await, Err(StoreError::Unusable(why)) if why.contains("CREATE SCHEMA")));
    place.script("CREATE SCHEMA other").await;
    let (store, mut writer) = open(&url).await.unwrap();
    assert_eq!(store.counts().await.unwrap().records, 0);
    cameras(&mut writer, 2).await;
    assert_eq!(store.counts().await.unwrap().records, 2);
}

#[tokio::test]
async fn what_is_refused_at_the_door_says_why_and_never_the_password() {
    let Some(place) = PostgresPlace::new().await else { return };
    let secret = "s3cr3t-of-this-test";
    let with = |change: &dyn Fn(&mut String)| {
        let mut url = place.url();
        change(&mut url);
        url
    };
    let name = place.name().to_owned();
    let (start, end) = (place.url().find("://").unwrap() + 3, place.url().find('@').unwrap());
    let wrong_password = with(&|url| url.replace_range(start..end, &format!("postgres:{secret}")));
    let no_database = with(&|url| *url = url.replace(&name, "no_such_database"));
    let no_tls = with(&|url| *url = url.replace("sslmode=prefer", "sslmode=verify-full"));
    let no_port = format!("postgres://me:{secret}@127.0.0.1:99999999/x");
    let nobody_there = format!("postgres://me:{secret}@127.0.0.1:1/x");
    for (url, fatal, word) in [
        (wrong_password, false, "password authentication failed"),
        (no_database, true, "does not exist"),
        (no_tls, false, "TLS"),
        (no_port, true, "percent-encoded"),
        (nobody_there, false, "refused"),
    ] {
        let error = open(&url).await.unwrap_err();
        let shown = format!("{error} {error:?}");
        assert!(error.is_fatal() == fatal && shown.contains(word), "{shown}");
        assert!(!shown.contains(secret), "{shown}");
    }
    let (store, writer) = place.opened().await;
    let password = place.url()[start..end].rsplit_once(':').unwrap().1.to_owned();
    let shown = format!("{store:?} {writer:?} {}", store.location());
    assert!(shown.contains(&name) && !shown.contains(&password));
}

/// The database's user needs no rights beyond its own tables to see a failover; one who may not do even that is served
/// all the same.
#[tokio::test]
async fn an_ordinary_user_sees_the_timeline_unless_it_is_forbidden() {
    let Some(place) = PostgresPlace::new().await else { return };
    let make = "DO $$ BEGIN EXECUTE format('CREATE ROLE %I', current_database());
        EXECUTE format('GRANT ALL ON SCHEMA public TO %I', current_database()); END $$";
    place.script(make).await;
    let sign = if place.url().contains('?') { '&' } else { '?' };
    let url = format!("{}{sign}options=-c%20role%3D{}", place.url(), place.name());
    let (store, mut writer) = open(&url).await.unwrap();
    assert!(writer.lineage().timeline.is_some_and(|timeline| timeline > 0));
    cameras(&mut writer, 2).await;
    writer.close().await.unwrap();
    store.close().await;
    drop(store);
    place.script("REVOKE EXECUTE ON FUNCTION pg_walfile_name(pg_lsn) FROM PUBLIC").await;
    let (store, mut writer) = open(&url).await.unwrap();
    assert_eq!(writer.lineage().timeline, None);
    cameras(&mut writer, 2).await;
    assert_eq!(store.counts().await.unwrap().records, 4);
    writer.close().await.unwrap();
    store.close().await;
    let unmake = "DO $$ BEGIN EXECUTE format('DROP OWNED BY %I', current_database());
        EXECUTE format('DROP ROLE %I', current_database()); END $$";
    place.script(unmake).await;
}

/// The server cuts every connection, as it does when it is started anew: the write under way fails and changes nothing
/// or is there whole, and the next one goes.
#[tokio::test]
async fn connections_that_were_cut_are_made_anew() {
    let Some(place) = PostgresPlace::new().await else { return };
    let (store, mut writer) = place.opened().await;
    cameras(&mut writer, 3).await;
    for key in 4..=6 {
        assert_eq!(store.counts().await.unwrap().records as i64, key - 1);
        place
            .script("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()")
            .await;
        let id = format!("n{key}");
        let new = with_records(vec![change(key, name(CASE, "220822101", &id), 0)]);
        let cut = writer.apply(&new, &[], 1).await.unwrap_err();
        assert!(matches!(cut, StoreError::Unreachable(_)) && !cut.is_fatal(), "{cut}");
        writer.apply(&new, &[], 1).await.unwrap();
    }
}

/// Two that open one empty database at the same moment: one makes the tables, and one of them has the store.
#[tokio::test]
async fn of_two_that_open_a_database_one_has_it() {
    let Some(place) = PostgresPlace::new().await else { return };
    let (one, two) = tokio::join!(place.open(fast()), place.open(fast()));
    let refused = one.as_ref().err().or(two.as_ref().err());
    assert!(one.is_ok() != two.is_ok());
    assert!(matches!(refused, Some(StoreError::InUse(_))), "{refused:?}");
}

/// Lists go by the bytes of a text, whatever language the server was set up for.
#[tokio::test]
async fn every_text_is_ordered_by_its_bytes() {
    let Some(place) = PostgresPlace::new().await else { return };
    drop(place.opened().await);
    let others = "SELECT coalesce(string_agg(table_name || '.' || column_name, ', '), '')
        FROM information_schema.columns
        WHERE table_schema = current_schema() AND data_type = 'text' AND collation_name IS DISTINCT FROM 'C'";
    let mut conn = place.connect().await;
    let others: String = sqlx::query_scalar(others).fetch_one(&mut conn).await.unwrap();
    assert_eq!(others, "", "write COLLATE \"C\" in the migration");
}

/// Both databases have the same tables with the same columns.
#[tokio::test]
async fn both_databases_have_the_same_columns() {
    let Some(place) = PostgresPlace::new().await else { return };
    drop(place.opened().await);
    let columns = "SELECT table_name || '.' || column_name FROM information_schema.columns
        WHERE table_schema = current_schema() AND table_name <> 'guantong_format'";
    let mut conn = place.connect().await;
    let mut postgres: Vec<String> = sqlx::query_scalar(columns).fetch_all(&mut conn).await.unwrap();
    let file = super::places::SqlitePlace::new();
    drop(file.opened().await);
    let columns = "SELECT t.name || '.' || c.name FROM sqlite_schema t JOIN pragma_table_info(t.name) c
        WHERE t.type = 'table' AND t.name NOT LIKE 'sqlite_%'";
    let mut conn = super::super::sqlite::reading(&file.path()).connect().await.unwrap();
    let mut sqlite: Vec<String> = sqlx::query_scalar(columns).fetch_all(&mut conn).await.unwrap();
    postgres.sort_unstable();
    sqlite.sort_unstable();
    assert_eq!(postgres, sqlite);
}

#[tokio::test]
async fn a_store_is_checked_without_being_opened() {
    let Some(place) = PostgresPlace::new().await else { return };
    let own = division("220822");
    let check = async |own| Store::check(&place.url(), own).await;
    assert!(check(own).await.unwrap().contains(place.name()));
    place.script("CREATE TABLE proof (nothing_else BIGINT)").await;
    assert!(matches!(check(own).await, Err(StoreError::NotOurs(_))), "it made no tables of its own");
    place.script("DROP TABLE proof").await;
    let _store = place.opened().await;
    assert!(check(own).await.is_ok(), "also while it is in use");
    assert!(matches!(check(division("22")).await, Err(StoreError::OtherDivision { .. })));
}

#[tokio::test]
async fn a_schema_is_made_and_dropped() {
    let Some(place) = PostgresPlace::new().await else { return };
    let url = crate::store::schemas::create(&place.url(), "for_a_while").await.unwrap();
    drop(open(&url).await.unwrap());
    assert!(crate::store::schemas::create(&place.url(), "for_a_while").await.is_err(), "it is there already");
    crate::store::schemas::drop(&place.url(), "for_a_while").await.unwrap();
    assert!(matches!(open(&url).await, Err(StoreError::Unusable(_))));
    let name = "x; DROP SCHEMA public";
    assert!(matches!(crate::store::schemas::create(&place.url(), name).await, Err(StoreError::Unusable(_))));
    place.script("CREATE ROLE reader LOGIN PASSWORD 'p'").await;
    let url = place.url().replacen(&place.url()[11..place.url().find('@').unwrap()], "reader:p", 1);
    let refused = crate::store::schemas::create(&url, "mine").await;
    place.script("DROP ROLE reader").await;
    assert!(matches!(&refused, Err(StoreError::Unusable(why)) if why.contains("may not")), "{refused:?}");
}

/// Citus itself is not here: functions of its names stand for it, and what a store does must go on with the keys that
/// are changed for it.
#[tokio::test]
async fn a_store_is_spread_by_county_where_there_is_something_to_spread_it_over() {
    use crate::store::{Distribution, distribute};
    let Some(place) = PostgresPlace::new().await else { return };
    assert!(matches!(distribute(&place.url()).await, Err(StoreError::Unusable(_))), "there is no store yet");
    let (store, mut writer) = place.opened().await;
    let keys = cameras(&mut writer, 5).await;
    let before = place.dump().await;
    assert_eq!(distribute(&place.url()).await, Ok(Distribution::NoExtension));
    assert_eq!(place.dump().await, before);
    place
        .script(
            "CREATE SCHEMA stand_in; CREATE TABLE stand_in.pg_dist_partition (logicalrelid REGCLASS);
             CREATE FUNCTION stand_in.create_distributed_table(t REGCLASS, c TEXT, colocate_with TEXT DEFAULT '')
             RETURNS VOID LANGUAGE sql AS 'INSERT INTO stand_in.pg_dist_partition VALUES (t)'",
        )
        .await;
    let url = format!("{}&options=-c%20search_path%3Dpublic,stand_in", place.url());
    let Ok(Distribution::Done(tables)) = distribute(&url).await else { panic!("it is spread") };
    let mut conn = place.connect().await;
    let without = "SELECT coalesce(string_agg(c.relname, ', '), '')
        FROM stand_in.pg_dist_partition p JOIN pg_index i ON i.indrelid = p.logicalrelid AND i.indisunique
        JOIN pg_class c ON c.oid = i.indexrelid
        WHERE NOT EXISTS (SELECT 1 FROM pg_attribute a WHERE a.attrelid = i.indrelid AND a.attname = 'county'
            AND a.attnum = ANY (i.indkey))";
    let without: String = sqlx::query_scalar(without).fetch_one(&mut conn).await.unwrap();
    assert_eq!(without, "", "unique indexes without the county cannot be distributed");
    assert_eq!((tables.len(), distribute(&url).await), (6, Ok(Distribution::Already)));
    let changed = keys.iter().map(|key| change(*key, name(CAMERA, "220822101", &format!("c{key:05}")), 1));
    writer.apply(&with_records(changed.collect()), &[], 1).await.unwrap();
    assert_eq!(writer.load_keys(&keys).await.unwrap().len(), 5);
    assert_eq!(store.counts().await.unwrap().records, 5);
}
