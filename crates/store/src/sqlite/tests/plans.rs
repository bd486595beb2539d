//! No list reads more than it shows: how SQLite carries out each of them, whatever is asked for.

use super::super::assets;
use super::super::lists::{RunPlace, instances_query, runs_query, statements_behind};
use super::*;
use crate::InstanceFilter;
use crate::conformance::script::single;
use backstop_core::state::RunPhase;
use rusqlite::params_from_iter;
use rusqlite::types::Value;

/// The steps of a statement's plan. One that names an index which is not there, or cannot be used, does not compile at all.
fn plan(connection: &rusqlite::Connection, sql: &str, values: Vec<Value>) -> Vec<String> {
    let mut statement = connection.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap_or_else(|error| panic!("{sql}: {error}"));
    let steps = statement.query_map(params_from_iter(values), |row| row.get(3)).unwrap();
    steps.map(Result::unwrap).collect()
}

/// Nothing is read whole, and nothing is sorted.
fn assert_flat(connection: &rusqlite::Connection, sql: &str, values: Vec<Value>) {
    let steps = plan(connection, sql, values);
    let is_flat = steps.iter().all(|step| {
        // The newest runs without any filter are the end of the table; an index that holds only what is wanted is gone along.
        let goes_along = step == "SCAN r" || step == "SCAN r USING INDEX runs_unfinished";
        // What is behind such a heading is a step of its own.
        let is_heading = step.contains(" SUBQUERY ") || step == "CREATE BLOOM FILTER";
        step.starts_with("SEARCH ") || goes_along || is_heading
    });
    assert!(is_flat, "{sql}\n{steps:#?}");
}

#[test]
fn no_list_of_runs_is_a_scan_or_a_sort() {
    let folder = tempfile::tempdir().unwrap();
    let store = open_in(&folder);
    let connection = rusqlite::Connection::open(store.path()).unwrap();
    let some_date = || Some(jiff::Timestamp::UNIX_EPOCH);
    for case in 0..32 {
        let has = |bit: u32| case & (1 << bit) != 0;
        let filter = RunFilter {
            dag: has(0).then(|| "d".into()),
            phase: has(1).then_some(RunPhase::Failed),
            dates_from: has(2).then(some_date).flatten(),
            dates_until: has(3).then(some_date).flatten(),
            ..RunFilter::default()
        };
        let before = has(4).then_some(RunPlace { id: 9, date: Some(9) });
        let query = runs_query(&filter, before);
        assert_flat(&connection, &query.sql, query.values);
        // Of what is left to do there is little, so that much may be sorted and looked through.
        let query = runs_query(&RunFilter { unfinished: true, ..filter }, before);
        let steps = plan(&connection, &query.sql, query.values);
        assert!(steps[0].contains("runs_unfinished"), "{steps:?}");
    }
}

#[test]
fn no_list_of_instances_or_statements_is_a_scan_or_a_sort() {
    let folder = tempfile::tempdir().unwrap();
    let store = open_in(&folder);
    let connection = rusqlite::Connection::open(store.path()).unwrap();
    for case in 0..12 {
        let filter = InstanceFilter {
            task: (case % 2 == 1).then(|| "t".into()),
            state: [None, Some("failed"), Some("success")][case / 2 % 3].map(str::to_owned),
            ..InstanceFilter::default()
        };
        let behind = single("a");
        let query = instances_query(1, &filter, (case >= 6).then_some(&behind));
        assert_flat(&connection, &query.sql, query.values);
    }
    for sql in [assets::SUPERSEDED_OF_RUN, assets::SUPERSEDED_LEFT] {
        assert_flat(&connection, sql, vec![Value::Integer(1), Value::Integer(9)]);
    }
    let query = assets::of_asset_query("a", 1, 9, 10);
    assert_flat(&connection, &query.sql, query.values);
    assert_flat(&connection, &statements_behind(), vec![1.into(), 1.into(), 0.into()]);
    use super::super::lists::{RUNS_BEFORE, RUNS_IN_STATE_BEFORE, RUNS_OF_DAG_BEFORE};
    for sql in [RUNS_BEFORE, RUNS_IN_STATE_BEFORE, RUNS_OF_DAG_BEFORE] {
        let values = vec![Value::Null; connection.prepare(sql).unwrap().parameter_count()];
        assert_flat(&connection, sql, values);
    }
}
