//! Every name of Airflow's that templates have, and everything they must not do.

use super::{definition, loaded};
use crate::definition::{Source, Template};
use crate::{Context, Renderer};
use jiff::Timestamp;
use serde_json::{Value, json};
use std::sync::Arc;

const PROJECT: &str = r#"
//- backstop.yaml
variables: {region: eu, limits: '{"low": 1}', list: [1, 2]}
//- dags/d.yaml
dag: d
description: Sales
tags: [nightly]
connection: db
tasks:
  load: {sql: SELECT 1}
  copy: {sql: SELECT 1, connection: maria}
  count: {sql: SELECT 1, result: scalar}
  each: {sql: SELECT 1, result: scalar}
  none: {sql: SELECT 1, result: scalar}
"#;

fn context() -> Context {
    let time = |text: &str| text.parse::<Timestamp>().unwrap();
    let mut context = Context::new("run-1", "d", "load");
    context.logical_date = Some(time("2025-05-01T02:03:04Z"));
    context.data_interval = Some((time("2025-04-30T00:00:00Z"), time("2025-05-01T00:00:00Z")));
    context.previous_success = Some((time("2025-04-29T00:00:00Z"), time("2025-04-30T00:00:00Z")));
    context.previous_logical_date = Some(time("2025-04-30T02:03:04Z"));
    context.run_start = Some(time("2025-05-01T02:03:05.250Z"));
    context.run_type = "scheduled".to_owned();
    context.try_number = 2;
    context.max_tries = 3;
    context.map_index = Some(1);
    context.item = Some(json!({"n": 7, "names": ["a", "b"]}));
    context.params = json!({"region": "eu", "n": 3, "regions": ["eu", "us"], "none": null}).as_object().cloned().unwrap();
    context.xcom = Arc::new(|task, index| match (task, index) {
        ("count", None) => Some(json!(42)),
        ("each", None) => Some(json!([1, 2])),
        ("each", Some(index)) => Some(json!(index * 10)),
        _ => None,
    });
    context
}

fn template(text: &str) -> Template {
    Template { text: text.into(), source: Source { file: "sql/a.sql".into(), line: 10, column: 5 } }
}

fn render_with(text: &str, context: &Context) -> Result<String, String> {
    let (_, loaded) = loaded(PROJECT);
    let definition = definition(PROJECT);
    let renderer = Renderer::new(&loaded.project, &definition);
    let rendered = renderer.render(&template(text), context);
    rendered.map_err(|error| match &error.hint {
        Some(hint) => format!("{error} ({hint})"),
        None => error.to_string(),
    })
}

fn check(text: &str, expect: &str) {
    assert_eq!(render_with(text, &context()).as_deref(), Ok(expect), "{text}");
}

fn refused(text: &str, expect: &str) {
    let error = render_with(text, &context()).expect_err(text);
    assert!(error.contains(expect), "{text}: {error}");
}

#[test]
fn dates_are_as_airflow_has_them() {
    check("{{ ds }} {{ ds_nodash }}", "2025-05-01 20250501");
    check("{{ ts }} {{ ts_nodash }}", "2025-05-01T02:03:04+00:00 20250501T020304");
    check("{{ ts_nodash_with_tz }}", "20250501T020304+0000");
    check("{{ logical_date }}", "2025-05-01 02:03:04+00:00");
    check("{{ data_interval_start }} {{ data_interval_end | ds }}", "2025-04-30 00:00:00+00:00 2025-05-01");
    check("{{ prev_data_interval_start_success | ds }} {{ prev_data_interval_end_success | ds }}", "2025-04-29 2025-04-30");
    check("{{ prev_ds }} {{ prev_ds_nodash }} {{ prev_logical_date | ts }}", "2025-04-30 20250430 2025-04-30T02:03:04+00:00");
    check("{% if next_ds %}yes{% else %}no{% endif %}{% if prev_start_date_success %}yes{% endif %}", "no");
    check(
        "{{ '2025-05-01' | ds_nodash }} {{ logical_date | ts_nodash }} {{ logical_date | ts_nodash_with_tz }}",
        "20250501 20250501T020304 20250501T020304+0000",
    );
}

#[test]
fn dates_are_objects() {
    check("{{ data_interval_start.strftime('%Y-%m-%d %H:%M') }}", "2025-04-30 00:00");
    check("{{ logical_date.strftime('%Y%m%d%H%M%S.%f %j %B %A') }}", "20250501020304.000000 121 May Thursday");
    check("{{ logical_date.isoformat() }} {{ logical_date.to_date_string() }}", "2025-05-01T02:03:04+00:00 2025-05-01");
    check("{{ logical_date.add(days=1, hours=2) | ts }}", "2025-05-02T04:03:04+00:00");
    check("{{ logical_date.subtract(months=2).ds | default('x') }}{{ logical_date.subtract(months=2) | ds }}", "x2025-03-01");
    check("{{ logical_date.add(macros.timedelta(days=1)) | ds }}", "2025-05-02");
    check(
        "{{ logical_date.year }}-{{ logical_date.month }}-{{ logical_date.day }} {{ logical_date.hour }}:{{ logical_date.minute }}",
        "2025-5-1 2:3",
    );
    check(
        "{{ logical_date.quarter }} {{ logical_date.weekday() }} {{ logical_date.isoweekday() }} {{ logical_date.week_of_year }}",
        "2 3 4 18",
    );
    check("{{ logical_date.start_of('month') | ds }} {{ logical_date.end_of('month') | ds }}", "2025-05-01 2025-05-31");
    check("{{ logical_date.start_of('week') | ds }} {{ logical_date.start_of('quarter') | ds }}", "2025-04-28 2025-04-01");
    check("{{ logical_date.in_timezone('Europe/Paris') }}", "2025-05-01 04:03:04+02:00");
    check("{{ logical_date.replace(day=15, hour=0).isoformat() }}", "2025-05-15T00:03:04+00:00");
    check(
        "{{ logical_date.timestamp() | int }} {{ logical_date.int_timestamp }} {{ logical_date.date() }}",
        "1746064984 1746064984 2025-05-01",
    );
    check("{{ data_interval_start < data_interval_end }} {{ logical_date == logical_date.add(days=0) }}", "True True");
    check("{{ dag_run.start_date.isoformat() }}", "2025-05-01T02:03:05.250000+00:00");
}

#[test]
fn runs_tasks_and_results_are_there() {
    check("{{ run_id }} {{ dag.dag_id }} {{ dag.description }} {{ dag.tags[0] }}", "run-1 d Sales nightly");
    check(
        "{{ dag_run.run_id }} {{ dag_run.run_type }} {{ dag_run.logical_date | ds }} {{ dag_run.conf.n }}",
        "run-1 scheduled 2025-05-01 3",
    );
    check(
        "{{ task.task_id }} {{ ti.task_id }} {{ task_instance.try_number }} {{ ti.max_tries }} {{ ti.map_index }} {{ map_index }}",
        "load load 2 3 1 1",
    );
    check("{{ task_instance_key_str }}", "d__load__20250501");
    check("{{ ti.xcom_pull('count') }} {{ ti.xcom_pull(task_ids='count', key='return_value') + 1 }}", "42 43");
    check("{{ ti.xcom_pull(task_ids=['count', 'each']) }} {{ ti.xcom_pull('each', map_indexes=3) }}", "[42, [1, 2]] 30");
    check("{{ ti.xcom_pull('each', map_indexes=[0, 2]) | join(',') }} {{ ti.xcom_pull('none') is none }}", "0,20 True");
    check("{{ item.n }} {{ item.names | join(',') }} {{ params.region.upper() }} {{ params['regions'][1] }}", "7 a,b EU us");
    check("{% for r in params.regions %}{{ loop.index }}:{{ r }};{% endfor %}{{ params.get('x', 'y') }}", "1:eu;2:us;y");
}

#[test]
fn variables_connections_and_macros_are_there() {
    check("{{ var.value.region }} {{ var.json.limits.low }} {{ var.value.get('x', 'y') }} {{ var.json.list[1] }}", "eu 1 y 2");
    check(
        "{{ conn.db.host }}:{{ conn.db.port }}/{{ conn.db.schema }} {{ conn.db.login }} {{ conn.DB.database }} {{ conn.db.conn_type }}",
        "pg.example:5433/shop ann shop postgres",
    );
    check("{{ conn.get('db').host }}", "pg.example");
    check("{{ macros.ds_add(ds, 5) }} {{ macros.ds_add('2025-03-01', -1) }}", "2025-05-06 2025-02-28");
    check("{{ macros.ds_format(ds, '%Y-%m-%d', '%d/%m/%y') }}", "01/05/25");
    check(
        "{{ macros.datetime(2025, 1, 31, 12) }} {{ macros.datetime.strptime('01.02.2025', '%d.%m.%Y') | ds }}",
        "2025-01-31 12:00:00+00:00 2025-02-01",
    );
    check("{{ \"it's `touch x` $(id) \\\"y\\\"\" | shell_quote }}", "'it'\\''s `touch x` $(id) \"y\"'");
    check("{{ '' | shell_quote }}", "''");
    check("{{ 'a\"b' | identifier }} {{ ['s', 't'] | identifier }}", "\"a\"\"b\" \"s\".\"t\"");
    let copy = Context { task_id: "copy".to_owned(), ..context() };
    assert_eq!(render_with("{{ 'a`b' | identifier }}", &copy).as_deref(), Ok("`a``b`"));
}

#[test]
fn callbacks_know_the_failure() {
    let context = Context { exception: Some("boom".to_owned()), failure: Some(json!({"sqlstate": "40001"})), ..context() };
    assert_eq!(render_with("{{ exception }} {{ failure.sqlstate }}", &context).as_deref(), Ok("boom 40001"));
    refused("{{ exception }}", "`exception` is not defined");
}

#[test]
fn texts_without_templates_are_left_alone() {
    check("SELECT '{' || '}' -- %}\n", "SELECT '{' || '}' -- %}\n");
    check("SELECT {{ 1 }};\n", "SELECT 1;\n");
    check("{% raw %}{{ x }}{% endraw %}", "{{ x }}");
    check("<a href='x'>{{ \"<&'\" }}</a>", "<a href='x'><&'</a>");
}

#[test]
fn what_templates_must_not_do_is_refused_at_its_place() {
    refused("SELECT 1;\n  {{ dss }}", "sql/a.sql:11:10: `dss` is not defined (did you mean `ds`?)");
    refused("{{ execution_date }}", "use `logical_date`");
    refused("{{ params.regoin }}", "`params.regoin` is not defined");
    refused("{{ conn.db.password }}", "secrets are not for SQL text");
    refused("{{ conn.db.extra }}", "secrets are not for SQL text");
    refused("{{ conn.db.get_uri() }}", "secrets are not for SQL text");
    refused("{{ conn['db']['password'] }}", "secrets are not for SQL text");
    refused("{{ conn.db | attr('password') }}", "secrets are not for SQL text");
    refused("{{ macros.random() }}", "renders to the same text each time");
    refused("{{ macros.datetime.now() }}", "has no clock");
    refused("{% include '/etc/passwd' %}", "cannot include");
    refused("{% import 'x' as y %}", "cannot include");
    refused("{{ debug() }}", "debug");
    refused("{{ params.none }}", "the value is none");
    refused("{{ ti.xcom_pull('count', key='other') }}", "return_value");
    refused("{{ ti.xcom_pull('cuont') }}", "there is no task `cuont`");
    refused("{{ ti.xcom_pull('load') }}", "keeps no result");
    refused("{{ logical_date - macros.timedelta(days=1) }}", ".subtract(");
    refused("{{ ds | nosuch }}", "nosuch");
    refused("{{ '' | identifier }}", "is empty");
    let undated = Context { logical_date: None, data_interval: None, ..context() };
    assert!(render_with("{{ ds }}", &undated).unwrap_err().contains("needs a logical date"));
    assert!(render_with("{{ data_interval_end }}", &undated).unwrap_err().contains("needs a logical date"));
    assert_eq!(render_with("{% if dag_run.logical_date %}x{% endif %}{{ run_id }}", &undated).as_deref(), Ok("run-1"));
}

#[test]
fn a_template_that_does_not_end_is_stopped() {
    let never = "SELECT 1;\n{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}";
    assert!(render_with(never, &context()).is_err());
    let long = "\n\n{% for a in range(99999) %}{% for b in range(99999) %}{% for c in range(99999) %}{% endfor %}{% endfor %}{% endfor %}";
    let error = render_with(long, &context()).unwrap_err();
    assert!(error.contains("does not come to an end") && error.starts_with("sql/a.sql:12:"), "{error}");
    let large = "{% for a in range(99999) %}{{ 'x' * 10000 }}{% endfor %}";
    assert!(render_with(large, &context()).is_err());
    let doubling = "{% set a = 'x' * 100000 %}{% set a = a ~ a ~ a ~ a ~ a ~ a ~ a ~ a ~ a ~ a %}{% set a = a ~ a ~ a ~ a ~ a ~ a ~ a ~ a ~ a ~ a ~ a %}{% set a = a ~ a ~ a ~ a ~ a ~ a ~ a ~ a ~ a ~ a %}{{ a }}";
    assert!(render_with(doubling, &context()).is_err());
}

#[test]
fn values_keep_the_type_of_a_sole_expression() {
    let (_, loaded) = loaded(PROJECT);
    let definition = definition(PROJECT);
    let renderer = Renderer::new(&loaded.project, &definition);
    let source = Source { file: "dags/d.yaml".into(), line: 3, column: 7 };
    let render = |value: Value| renderer.render_value(&value, &source, &context());
    assert_eq!(render(json!("{{ params.n }}")), Ok(json!(3)));
    assert_eq!(render(json!(" {{ params.n + 1 }} ")), Ok(json!(4)));
    assert_eq!(render(json!("{{- params.regions -}}")), Ok(json!(["eu", "us"])));
    assert_eq!(render(json!("{{ params.none }}")), Ok(Value::Null));
    assert_eq!(render(json!("{{ logical_date }}")), Ok(json!("2025-05-01T02:03:04+00:00")));
    assert_eq!(render(json!("{{ params.n }}{{ params.n }}")), Ok(json!("33")));
    assert_eq!(render(json!("n={{ params.n }}")), Ok(json!("n=3")));
    assert_eq!(render(json!("{{ item }}")), Ok(json!({"n": 7, "names": ["a", "b"]})));
    assert_eq!(render(json!({"a": ["{{ ds }}", 1, null, true]})), Ok(json!({"a": ["2025-05-01", 1, null, true]})));
    let error = render(json!("{{ params.x }}")).unwrap_err();
    assert_eq!((error.line, error.file.as_str()), (3, "dags/d.yaml"), "{error}");
    assert!(error.message.contains("`params.x` is not defined"), "{error}");
    assert!(render(json!("{{ conn.db.password }}")).unwrap_err().message.contains("secrets"));
}

#[test]
fn names_of_templates_are_all_documented_and_all_there() {
    let documented = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/format.md")).unwrap();
    for name in crate::template::names() {
        assert!(documented.contains(&format!("`{name}`")), "{name} is not in docs/format.md");
        let context = Context { exception: Some(String::new()), failure: Some(json!({})), ..context() };
        let rendered = render_with(&format!("{{% if {name} is defined %}}there{{% endif %}}"), &context);
        assert_eq!(rendered.as_deref(), Ok("there"), "{name}");
    }
}
