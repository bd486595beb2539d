//! The JSON Schema: current, in step with the reader, and true of a project that has every key.

use super::{loaded, report};
use crate::format::{dag_schema, project_schema};
use crate::yaml::keys_asked;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// A valid project with every object of the format.
pub(super) const EVERYTHING: &str = r#"
//- backstop.yaml
name: shop
connections:
  sales:
    conn_type: postgres
    host: ${HOST:-localhost}
    port: 5432
    login: ann
    password: hunter2
    database: shop
    extra: {sslmode: disable}
    marker: {schema: ops, table: markers}
    sessions: 4
    description: The shop
  files: sqlite:///files.db
variables: {region: eu, limits: {low: 1}}
pools:
  small: 2
  big: {slots: -1, description: without limit}
notifiers:
  ops: {shell: "echo {{ exception }}", timeout: 1m}
  audit: {sql: "INSERT INTO audit VALUES (:run)", parameters: {run: "{{ run_id }}"}, connection: files}
defaults: {retries: 1, retry_delay: 10s, on_failure: [ops]}
//- sql/capture.sql
CREATE TABLE IF NOT EXISTS {{ params.target | identifier }} (n int);
INSERT INTO t SELECT :n;
//- py/total.py
def total(context): return 1
//- dags/d.yaml
dag: nightly
description: All there is
tags: [a, b]
schedule: "0 2 * * MON-FRI"
timezone: Europe/Paris
start_date: 2025-05-01
end_date: "2026-05-01T00:00:00+02:00"
catchup: true
data_interval: classic
max_active_runs: 2
deadlines: [{by: "06:00", timezone: UTC}, {within: 2h, of: queued_at}]
connection: sales
defaults: {execution_timeout: 1h30m}
params:
  target: t
  n: {type: integer, default: 3, enum: [1, 3], description: how many}
on_failure: ops
on_success: [audit]
max_active_tasks: 4
dagrun_timeout: 2h
max_map_length: 10
tasks:
  create: {empty: true, setup: true}
  capture:
    sql: sql/capture.sql
    parameters: {n: "{{ params.n }}"}
    autocommit: false
    result: scalar
    result_max: 1KiB
    templated: true
    after: [create]
    doc: Captures
    updates: [sales, "s3://lake/sales"]
    retry_exponential_backoff: 1.5
    max_retry_delay: 1h
    pool: small
    pool_slots: 2
    priority_weight: 5
    weight_rule: upstream
    delivery: exactly_once
    trigger_rule: all_success
    on_retry: [{http: {url: "https://example.com/hook", method: post, headers: {A: b}, body: {text: "{{ run_id }}"}, expect: [200], result: true, timeout: 5s}}]
  checks:
    after: capture
    doc: A group
    defaults: {retries: 0}
    tasks:
      rows: {check: SELECT count(*) > 0 FROM t}
      value: {check: {sql: SELECT 1, parameters: {}, equals: 1, tolerance: 0.1}}
      bounds: {check: {sql: SELECT 1, min: 0, max: SELECT 10}}
      columns: {check: {table: t, columns: {n: {null_check: {equal_to: 0, tolerance: 0.1}, max: {greater_than: 0, less_than: 9, geq_to: 1, leq_to: 8}}}, partition: n > 0, accept_none: true}}
      table: {check: {table: t, checks: {some: COUNT(*) > 0}, partition: n > 0}}
      interval: {check: {table: t, metrics: {COUNT(*): 1.5}, date_column: ds, days_back: 7, ratio_formula: relative_diff, ignore_zero: false}}
  atomic:
    after: checks
    transaction: true
    isolation: read_committed
    lock_timeout: 5s
    statement_timeout: 1m
    retries: 2
    retry_delay: 1s
    tasks: {one: {sql: SELECT 1}}
  choose: {branch: {sql: SELECT :x, parameters: {x: 1}, if_true: [yes], if_false: [no]}, after: [checks]}
  when: {branch: {when: "{{ params.n > 1 }}", if_true: [wait_sql]}, after: [checks]}
  ask: {branch: {python: py/total.py}, after: [checks]}
  yes: {shell: {command: "echo {{ ds }}", env: {A: "{{ ts }}"}, cwd: sql, skip_on_exit_code: 98}, after: [choose]}
  no: {python: {file: py/total.py, function: total, args: {a: 1}, interpreter: python3}, after: [choose]}
  inline: {python: {code: print(1)}, for_each: [1, {a: "{{ ds }}"}]}
  mapped: {sql: "SELECT {{ item.n }}", for_each: {sql: SELECT n FROM t, parameters: {a: 1}, connection: files}}
  spread: {shell: "echo {{ item }}", for_each: "{{ ti.xcom_pull('capture') }}", after: [capture]}
  wait_sql: {sensor: {sql: SELECT 1, parameters: {}, fail_on_empty: true, poke_interval: 5s, timeout: 1h, soft_fail: true}, after: [when]}
  wait_file: {sensor: {file: "in/{{ ds }}.csv"}}
  wait_http: {sensor: {http: "https://example.com/{{ ds }}"}}
  wait_time: {sensor: {time: "{{ data_interval_end.add(hours=2).isoformat() }}"}}
  drop: {empty: true, teardown: [create], on_failure_fail_dagrun: true, after: [capture], on_success: [{python: py/total.py}]}
//- dags/every.yaml
dag: every
schedule: {every: 15m}
tasks:
  a: {http: "https://example.com"}
//- dags/after.yaml
dag: after
schedule:
  - "@daily"
  - {cron: "0 2 * * *", timezone: Europe/Paris}
  - {assets: [sales, {any: [ecb, {all: [fed, boe]}]}]}
  - {assets: sales}
  - {assets: {any: ["s3://lake/sales", sales]}}
tasks:
  a: {empty: true, updates: report}
  start: {dag: {id: nightly, params: {target: "{{ ds }}", n: 1}, logical_date: "{{ ts }}", wait: false}}
  start_and_wait: {dag: every, after: [a]}
  wait: {wait_for: every}
  wait_long: {wait_for: {dag: nightly, task: checks.rows, logical_date: "{{ logical_date.subtract(days=1).isoformat() }}", if_failed: skip, timeout: 2h, soft_fail: true}}
"#;

#[test]
fn a_project_with_every_key_is_valid() {
    assert_eq!(report(EVERYTHING), "");
    assert_eq!(loaded(EVERYTHING).1.project.dags.len(), 3);
}

/// The schemas are files, so that editors find them. `BACKSTOP_UPDATE_SCHEMA=1 cargo test` writes them.
#[test]
fn the_schema_files_are_current() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../schema");
    for (name, schema) in [("backstop.schema.json", project_schema()), ("dag.schema.json", dag_schema())] {
        let path = format!("{folder}/{name}");
        let wanted = serde_json::to_string_pretty(&schema).unwrap() + "\n";
        if std::env::var_os("BACKSTOP_UPDATE_SCHEMA").is_some() {
            std::fs::create_dir_all(folder).unwrap();
            std::fs::write(&path, &wanted).unwrap();
        }
        let found = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(found == wanted, "{name} is not current: run the tests with BACKSTOP_UPDATE_SCHEMA=1");
    }
}

/// The keys of every object of the schemas, by the type's name.
fn schema_keys() -> BTreeMap<String, BTreeSet<String>> {
    let mut keys = BTreeMap::new();
    for (name, schema) in [("Project", project_schema()), ("Dag", dag_schema())] {
        let mut objects = vec![(name.to_owned(), schema.clone())];
        let definitions = schema["$defs"].as_object().cloned().unwrap_or_default();
        objects.extend(definitions);
        for (name, object) in objects {
            if let Some(properties) = object["properties"].as_object() {
                keys.insert(name, properties.keys().cloned().collect());
            }
        }
    }
    keys
}

#[test]
fn the_reader_and_the_schema_know_the_same_keys() {
    keys_asked::take();
    assert_eq!(report(EVERYTHING), "");
    let mut schema = schema_keys();
    for (object, asked) in keys_asked::take() {
        let asked: BTreeSet<String> = asked.into_iter().map(str::to_owned).collect();
        let known = schema.remove(object).unwrap_or_else(|| panic!("the schema has no {object}"));
        assert_eq!(asked, known, "keys of {object}");
    }
    // Its keys are metrics, which the reader knows as a list.
    schema.remove("ColumnChecks");
    assert!(schema.is_empty(), "the reader never reads {:?}", schema.keys());
}

#[test]
fn every_source_is_valid_by_the_schema() {
    let bundle = super::project(EVERYTHING);
    let dags = ["dags/d.yaml", "dags/every.yaml", "dags/after.yaml"].map(|path| (path, dag_schema()));
    for (path, schema) in std::iter::once(("backstop.yaml", project_schema())).chain(dags) {
        let text = String::from_utf8(bundle.files[path].clone()).unwrap();
        let root = crate::yaml::parse(&text, &path.into(), &mut Vec::new()).unwrap().unwrap();
        let mut errors = Vec::new();
        validate(&schema, &schema, &root.to_json(), "", &mut errors);
        assert!(errors.is_empty(), "{path}: {errors:?}");
    }
    let mut errors = Vec::new();
    validate(
        &dag_schema(),
        &dag_schema(),
        &json!({"dag": "d", "tasks": {"a": {"sql": "SELECT 1", "retires": 1}}}),
        "",
        &mut errors,
    );
    assert!(!errors.is_empty(), "the schema accepts an unknown key");
}

/// As much of JSON Schema as the generated schemas use. An unknown keyword is an error, so that nothing is skipped unseen.
fn validate(root: &Value, schema: &Value, value: &Value, at: &str, errors: &mut Vec<String>) {
    let Some(schema) = schema.as_object() else {
        if schema == &json!(false) {
            errors.push(format!("{at}: nothing is allowed here"));
        }
        return;
    };
    for (keyword, rule) in schema {
        match keyword.as_str() {
            "$schema" | "title" | "description" | "$defs" | "format" | "default" | "properties" | "unevaluatedProperties" => {}
            "$ref" => {
                let name = rule.as_str().unwrap().trim_start_matches("#/$defs/");
                validate(root, &root["$defs"][name], value, at, errors);
            }
            "type" => {
                let kinds: Vec<&str> = rule
                    .as_array()
                    .map_or_else(|| vec![rule.as_str().unwrap()], |all| all.iter().map(|k| k.as_str().unwrap()).collect());
                let fits = |kind: &&str| match *kind {
                    "string" => value.is_string(),
                    "integer" => value.is_i64(),
                    "number" => value.is_number(),
                    "boolean" => value.is_boolean(),
                    "array" => value.is_array(),
                    "object" => value.is_object(),
                    "null" => value.is_null(),
                    other => panic!("type {other}"),
                };
                if !kinds.iter().any(fits) {
                    errors.push(format!("{at}: {value} is none of {kinds:?}"));
                }
            }
            "minimum" | "maximum" => {
                let (limit, number) = (rule.as_f64().unwrap(), value.as_f64().unwrap_or(0.0));
                if (keyword == "minimum" && number < limit) || (keyword == "maximum" && number > limit) {
                    errors.push(format!("{at}: {number} is out of range"));
                }
            }
            "const" if value != rule => errors.push(format!("{at}: {value} is not {rule}")),
            "enum" if !rule.as_array().unwrap().contains(value) => errors.push(format!("{at}: {value} is none of {rule}")),
            "const" | "enum" => {}
            "required" => {
                for key in rule.as_array().unwrap() {
                    if value.is_object() && value.get(key.as_str().unwrap()).is_none() {
                        errors.push(format!("{at}: {key} is missing"));
                    }
                }
            }
            "items" => {
                for item in value.as_array().into_iter().flatten() {
                    validate(root, rule, item, at, errors);
                }
            }
            "additionalProperties" => {
                let known = schema.get("properties").and_then(Value::as_object);
                for (key, value) in value.as_object().into_iter().flatten() {
                    match known.and_then(|known| known.get(key)) {
                        Some(property) => validate(root, property, value, &format!("{at}.{key}"), errors),
                        None => validate(root, rule, value, &format!("{at}.{key}"), errors),
                    }
                }
            }
            "anyOf" | "oneOf" => {
                let passes = |choice: &Value| {
                    let mut inner = Vec::new();
                    validate(root, choice, value, at, &mut inner);
                    inner.is_empty()
                };
                if !rule.as_array().unwrap().iter().any(passes) {
                    errors.push(format!("{at}: {value} fits no choice"));
                }
            }
            other => panic!("keyword {other}"),
        }
    }
}
