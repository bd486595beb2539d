//! One test for each code, as people see it; and that every code is documented and tried.

use super::{project, report};
use crate::diagnostic::code;
use crate::{Bundle, Disk, Environment, load, render};

/// A DAG of one task, with these lines under the task.
fn task(lines: &str) -> String {
    let mut text = "dag: d\ntasks:\n  a:\n".to_owned();
    for line in lines.lines() {
        text.push_str("    ");
        text.push_str(line);
        text.push('\n');
    }
    text
}

/// A DAG with these lines, and one task.
fn header(lines: &str) -> String {
    format!("dag: d\n{lines}\ntasks:\n  a: {{empty: true}}\n")
}

macro_rules! cases {
    ($($name:ident: $code:ident, $text:expr;)*) => {
        $(#[test]
        fn $name() {
            let report = report(&$text);
            assert!(report.contains(code::$code), "{report}");
            insta::assert_snapshot!(stringify!($name), report);
        })*

        const TRIED: &[&str] = &[$(code::$code),*];
    };
}

cases! {
    b0104_path_outside: OUTSIDE, task("sql: ../../etc/secrets.sql\nconnection: db");
    b0105_missing_file: MISSING_FILE, format!("{}//- sql/capture.sql\nSELECT 1\n", task("sql: sql/captrue.sql\nconnection: db"));
    b0201_yaml_syntax: YAML_SYNTAX, task("sql: {{ ds }} and: more\nconnection: db");
    b0201_yaml_tab: YAML_SYNTAX, "dag: d\ntasks:\n\ta: {empty: true}\n";
    b0202_duplicate_key: DUPLICATE_KEY, "dag: d\ntasks:\n  load:\n    empty: true\n  load:\n    empty: true\n";
    b0203_yaml_bomb: YAML_TOO_LARGE, bomb();
    b0203_deep_nesting: YAML_TOO_LARGE, format!("dag: {}", "[".repeat(5000));
    b0204_wrong_type: WRONG_TYPE, task("sql: [SELECT 1]\nconnection: db\nautocommit: \"yes\"\nretries: many");
    b0205_unknown_key: UNKNOWN_KEY, task("sql: SELECT 1\nconnection: db\nretires: 3\nfrobnicate: 1");
    b0206_missing_key: MISSING_KEY, task("retries: 3");
    b0207_not_available: NOT_AVAILABLE, task("sql: SELECT 1\nconnection: db\ncompensate: {sql: SELECT 2}");
    b0207_transfer: NOT_AVAILABLE, task("transfer: {from: db, to: lite}");
    b0207_events: NOT_AVAILABLE, header("schedule: {events: [sales]}\ndeadlines: [{by: \"06:00\", notify: [ops]}]");
    b0208_two_documents: YAML_DOCUMENTS, "dag: d\ntasks: {a: {empty: true}}\n---\ndag: e\n";
    b0208_empty_file: YAML_DOCUMENTS, "# nothing yet\n";
    b0209_two_kinds: CONFLICT, task("sql: SELECT 1\nshell: ls\nconnection: db");
    b0209_setting_of_another_kind: CONFLICT, task("shell: ls\nparameters: {a: 1}");
    b0209_check: CONFLICT, task("check: {sql: SELECT 1, equals: 1, min: 3}\nconnection: db");
    b0210_tag: YAML_TAG, task("sql: !!python/object:os.system ls");
    b0301_bad_duration: BAD_DURATION, task("empty: true\nretry_delay: 10 parsecs");
    b0302_bad_size: BAD_SIZE, task("sql: SELECT 1\nconnection: db\nresult_max: lots");
    b0303_bad_cron: BAD_SCHEDULE, header("schedule: \"61 2 * * *\"");
    b0303_bad_preset: BAD_SCHEDULE, header("schedule: \"@dayly\"");
    b0303_cron_that_never_falls_due: BAD_SCHEDULE, header("schedule: \"0 0 30 2 *\"");
    b0303_asset_without_its_key: BAD_SCHEDULE, header("schedule: [sales, rates]");
    b0303_nothing_says_when: BAD_SCHEDULE, header("schedule: [[], {timezone: UTC}, {every: 10ms}, {assets: {any: []}}]");
    b0209_schedule: CONFLICT, header("schedule: {cron: \"@daily\", every: 15m, timezone: UTC}\ndeadlines: [{by: \"06:00\", within: 2h}, {within: 1h, timezone: UTC}, {by: \"07:00\", of: queued_at}]");
    b0209_assets: CONFLICT, header("schedule: {assets: {any: [a], all: [b]}}");
    b0204_assets: WRONG_TYPE, header("schedule: {assets: [a, [b, c], {any: d}]}\ndeadlines: {by: \"06:00\"}");
    b0205_misspelt_schedule: UNKNOWN_KEY, header("schedule: {asets: [a]}\ndeadlines: [{withn: 2h}]");
    b0307_asset_name: BAD_VALUE, task("empty: true\nupdates: [\"sales_{{ ds }}\", \"\", \" a\"]");
    b0305_bad_time_of_day: BAD_DATE, header("deadlines: [{by: 6am}, {by: \"24:00\"}]");
    b0304_bad_timezone: BAD_TIMEZONE, header("timezone: Europe/Pari");
    b0305_bad_date: BAD_DATE, header("start_date: 2025-02-30");
    b0306_bad_id: BAD_ID, "dag: d\ntasks:\n  load sales: {empty: true}\n";
    b0307_bad_value: BAD_VALUE, task("empty: true\ntrigger_rule: all_sucess\npool_slots: 0");
    b0308_bad_param: BAD_PARAM, header("params: {region: {enum: [eu, us], default: asia}, n: {type: integer, default: 1.5}}");
    b0209_setting_of_no_transaction: CONFLICT, "dag: d\nconnection: db\ntasks:\n  g:\n    isolation: serializable\n    retries: 2\n    tasks: {a: {sql: SELECT 1}}\n";
    b0307_isolation: BAD_VALUE, "dag: d\nconnection: db\ntasks:\n  g:\n    transaction: true\n    isolation: snapshot\n    lock_timeout: 0\n    tasks: {a: {sql: SELECT 1}}\n";
    b0801_kind: TRANSACTION_KIND, "dag: d\nconnection: db\ntasks:\n  g:\n    transaction: true\n    tasks:\n      a: {sql: SELECT 1}\n      b: {shell: ls}\n      c: {empty: true}\n";
    b0802_connection: TRANSACTION_CONNECTION, "dag: d\nconnection: db\ntasks:\n  g:\n    transaction: true\n    tasks:\n      a: {sql: SELECT 1}\n      b: {sql: SELECT 2, connection: lite}\n";
    b0803_setting: TRANSACTION_SETTING, "dag: d\nconnection: db\ntasks:\n  g:\n    transaction: true\n    tasks:\n      a: {sql: SELECT 1, autocommit: true}\n      b: {sql: SELECT 1, for_each: [1, 2]}\n      c: {sql: SELECT 1, trigger_rule: all_done}\n      e: {sql: SELECT 1, setup: true}\n      f: {sql: SELECT 1, delivery: at_least_once}\n";
    b0804_nested: TRANSACTION_NESTED, "dag: d\nconnection: db\ntasks:\n  g:\n    transaction: true\n    tasks:\n      a: {sql: SELECT 1}\n      inner:\n        transaction: true\n        tasks: {b: {sql: SELECT 2}}\n";
    b0605_pull_of_a_transaction: PULL_OF_NOTHING, "dag: d\nconnection: db\ntasks:\n  g:\n    transaction: true\n    tasks: {a: {sql: SELECT 1, result: scalar}}\n  b: {sql: \"SELECT {{ ti.xcom_pull('g') }}\", after: [g]}\n";
    b0401_duplicate_dag: DUPLICATE_DAG, format!("//- dags/one.yaml\n{0}//- dags/two.yaml\n{0}", header(""));
    b0402_unknown_upstream: UNKNOWN_UPSTREAM, "dag: d\ntasks:\n  capture: {empty: true}\n  apply: {empty: true, after: [captrue]}\n";
    b0403_cycle: CYCLE, "dag: d\ntasks:\n  a: {empty: true, after: [c]}\n  b: {empty: true, after: [a]}\n  c:\n    empty: true\n    after:\n      - b\n";
    b0403_itself: CYCLE, "dag: d\ntasks:\n  a: {empty: true, after: [a]}\n";
    b0404_never_followed: UNREACHABLE, branch("  c: {empty: true, after: [choose]}\n");
    b0404_both_sides: UNREACHABLE, branch("  join: {empty: true, after: [yes, no]}\n");
    b0405_branch_target: BRANCH_TARGET, branch("").replace("if_true: [yes]", "if_true: [yse]");
    b0406_teardown: SETUP_TEARDOWN, "dag: d\ntasks:\n  a: {empty: true}\n  b: {empty: true, teardown: [a], trigger_rule: always}\n";
    b0407_no_tasks: NO_TASKS, "dag: d\ntasks: {}\n";
    b0206_dag_and_wait_for: MISSING_KEY, "dag: d\ntasks:\n  a: {dag: {params: {}}}\n  b: {wait_for: {task: x}}\n  c: {wait_for: {dga: x}}\n";
    b0306_dag_by_template: BAD_ID, task("dag: \"{{ params.x }}\"");
    b0409_unknown_dag: UNKNOWN_DAG, two_dags("  a: {dag: nightyl}\n  b: {wait_for: elsewhere}\n  c: {wait_for: {dag: nightly, task: laod}}\n  d: {wait_for: {dag: nightly, task: rows}}\n");
    b0410_waits_for_itself: WAITS_FOR_ITSELF, two_dags("  a: {dag: d}\n  b: {wait_for: d}\n  c: {wait_for: {dag: d, task: a}}\n");
    b0410_in_a_circle: WAITS_FOR_ITSELF, "//- dags/a.yaml\ndag: a\ntasks:\n  t: {wait_for: b}\n//- dags/b.yaml\ndag: b\ntasks:\n  t: {dag: c}\n  u: {wait_for: e}\n//- dags/c.yaml\ndag: c\ntasks:\n  t: {wait_for: a}\n//- dags/e.yaml\ndag: e\ntasks:\n  t: {wait_for: {dag: b, task: u}}\n";
    b0411_wrong_params: WRONG_PARAMS, two_dags("  a: {dag: {id: nightly, params: {regoin: eu, n: many}}}\n  b: {dag: nightly}\n");
    b0412_asset_nobody_updates: ASSET_NOBODY_UPDATES, assets("slaes", "sales");
    b0501_unknown_connection: UNKNOWN_CONNECTION, task("sql: SELECT 1\nconnection: lita");
    b0502_unknown_connection_type: UNKNOWN_CONNECTION_TYPE, "//- backstop.yaml\nconnections:\n  a: {conn_type: postgre}\n  b: snowflake://x\n";
    b0503_no_connection: NO_CONNECTION, task("sql: SELECT 1");
    b0205_misspelt_connection_of_a_task: UNKNOWN_KEY, task("sql: SELECT 1\nconection: db");
    b0205_misspelt_connection_of_a_dag: UNKNOWN_KEY, "dag: d\nconections: db\non_failure: {sql: SELECT 2}\ntasks:\n  a: {sql: SELECT 1}\n  b: {check: SELECT 1, for_each: {sql: SELECT 1}}\n";
    b0205_airflows_connection: UNKNOWN_KEY, task("sql: SELECT 1\npostgres_conn_id: db");
    b0205_misspelt_kind: UNKNOWN_KEY, task("sqll: SELECT 1\nconnection: db");
    b0205_misspelt_type: UNKNOWN_KEY, "//- backstop.yaml\nconnections:\n  shop: {con_type: sqlite, database: a.db}\n";
    b0204_connection_of_a_wrong_type: WRONG_TYPE, task("sql: SELECT 1\nconnection: [db]");
    b0501_wrong_itself: UNKNOWN_CONNECTION, "//- backstop.yaml\nconnections:\n  shop: {conn_type: sqlite, database: a.db, databse: b}\n//- dags/d.yaml\ndag: d\ntasks:\n  a: {sql: SELECT 1, connection: shop}\n  b: {sql: SELECT 1, connection: shop}\n";
    b0501_unknown_in_defaults: UNKNOWN_CONNECTION, "//- backstop.yaml\ndefaults: {connection: shop}\n//- dags/d.yaml\ndag: d\ntasks:\n  a: {sql: SELECT 1}\n  b: {sql: SELECT 1}\n";
    b0504_unknown_pool: UNKNOWN_POOL, task("empty: true\npool: defualt_pool");
    b0505_unknown_notifier: UNKNOWN_NOTIFIER, task("empty: true\non_failure: [ops]");
    b0506_bad_connection: BAD_CONNECTION, "//- backstop.yaml\nconnections:\n  a: postgres://ann:s3cret@host:port/db\n";
    b0507_missing_environment: MISSING_ENVIRONMENT, "//- backstop.yaml\nconnections:\n  a: {conn_type: postgres, password: \"${NO_SUCH}\"}\n";
    b0508_short_password: SHORT_PASSWORD, "//- backstop.yaml\nconnections:\n  a: {conn_type: postgres, password: \"xyz\"}\n  b: mysql://ann:xyz@host/db\n  c: {conn_type: mysql, password: \"\"}\n";
    b0601_template_syntax: TEMPLATE_SYNTAX, task("sql: |\n  SELECT 1;\n  SELECT {{ ds | }};\nconnection: db");
    b0602_template_name: TEMPLATE_NAME, task("sql: SELECT '{{ dss }}', {{ params.regoin }}, {{ var.value.x }}, '{{ execution_date }}'\nconnection: db");
    b0603_template_refused: TEMPLATE_REFUSED, task("sql: SELECT '{{ conn.db.password }}', {{ macros.random() }}\nconnection: db");
    b0604_pull_from_nobody: PULL_FROM_NOBODY, pulling("{{ ti.xcom_pull('totl') }}", "sql: SELECT 60\n    result: scalar");
    b0604_pull_from_a_group: PULL_FROM_NOBODY, "dag: d\ntasks:\n  g:\n    tasks:\n      a: {shell: ls}\n  b: {shell: \"echo {{ ti.xcom_pull(['g', 'a']) }}\", after: [g]}\n";
    b0604_in_a_file: PULL_FROM_NOBODY, "dag: d\nconnection: db\non_failure: {shell: \"echo {{ ti.xcom_pull('nobody', default=1) }}\"}\ntasks:\n  a: {sql: sql/a.sql}\n  b: {sql: sql/a.sql}\n//- sql/a.sql\nSELECT 1;\nSELECT {{ ti.xcom_pull(task_ids='c') }};\n";
    b0605_pull_of_nothing: PULL_OF_NOTHING, pulling("{{ ti.xcom_pull('total') }}", "sql: SELECT 60");
    b0605_of_a_check: PULL_OF_NOTHING, pulling("{{ ti.xcom_pull('total') }}", "check: SELECT 60");
    b0606_not_waited_for: PULL_BEFORE_END, pulling("{{ ti.xcom_pull('other') }}", "sql: SELECT 60");
    b0606_itself_and_what_follows: PULL_BEFORE_END, "dag: d\ntasks:\n  a: {shell: \"echo {{ ti.xcom_pull('a') }} {{ ti.xcom_pull('b') }}\"}\n  b: {shell: ls, after: [a]}\n";
}

/// A DAG `d` of these tasks beside a DAG `nightly`.
fn two_dags(tasks: &str) -> String {
    format!(
        "//- dags/d.yaml\ndag: d\ntasks:\n{tasks}//- dags/nightly.yaml\ndag: nightly\nparams: {{region: {{type: string}}, n: 3}}\ntasks:\n  \
         load: {{empty: true}}\n  checks:\n    tasks:\n      rows: {{empty: true}}\n"
    )
}

#[test]
fn what_dags_rightly_say_of_each_other_is_not_told() {
    let right = "  a: {dag: {id: nightly, params: {region: \"{{ ds }}\"}}}\n  b: {dag: {id: nightly, params: {region: eu, n: \"7\"}, wait: false}}\n  \
                 c: {wait_for: {dag: nightly, task: checks.rows}}\n  d: {wait_for: {dag: d, logical_date: \"{{ prev_logical_date.isoformat() }}\"}}\n  \
                 e: {dag: {id: d, wait: false}}\n";
    assert_eq!(report(&two_dags(right)), "");
}

#[test]
fn a_dag_that_names_one_that_is_wrong_itself_is_loaded() {
    // Whether the task is there is not known while its DAG has errors; nor is what an unreadable file holds.
    let wrong = two_dags("  a: {wait_for: {dag: nightly, task: nobody}}\n").replace("load: {empty: true}", "load: {empti: true}");
    let (_, loaded) = super::loaded(&wrong);
    assert_eq!(loaded.project.dags.keys().map(|id| id.as_str()).collect::<Vec<_>>(), ["d"]);
    let unread = two_dags("  a: {wait_for: elsewhere}\n").replace("dag: nightly\n", "dag: {\n");
    let (_, loaded) = super::loaded(&unread);
    assert!(loaded.project.dags.keys().any(|id| id.as_str() == "d"), "{:?}", loaded.diagnostics);
}

#[test]
fn a_dag_that_names_one_that_is_not_there_is_not_loaded_unless_it_is_looked_at_alone() {
    let text = two_dags("  a: {wait_for: elsewhere}\n");
    let (bundle, loaded) = super::loaded(&text);
    assert_eq!(loaded.project.dags.keys().map(|id| id.as_str()).collect::<Vec<_>>(), ["nightly"]);
    let alone = crate::load_only(&bundle, &Environment::new(), &["dags/d.yaml"]);
    assert!(alone.is_valid() && alone.project.dags.len() == 1, "{:?}", alone.diagnostics);
}

/// A DAG that runs after an asset, beside one that updates another.
fn assets(awaited: &str, updated: &str) -> String {
    format!(
        "//- dags/a.yaml\ndag: a\nschedule: {{assets: {{any: [{awaited}, report]}}}}\ntasks:\n  t: {{empty: true}}\n//- dags/b.yaml\ndag: b\ntasks:\n  \
         t: {{empty: true, updates: [{updated}]}}\n"
    )
}

#[test]
fn assets_from_outside_are_not_told() {
    for (awaited, updated) in
        [("sales", "sales"), ("stocks", "sales"), ("sales_1", "sales_2"), ("sales_eu", "sales_us"), ("eu", "us")]
    {
        assert_eq!(report(&assets(awaited, updated)), "", "{awaited} beside {updated}");
    }
}

/// A task `keep` that binds a template, after a task `total` of this kind; a task `other` stands beside them.
fn pulling(template: &str, total: &str) -> String {
    format!(
        "dag: d\nconnection: db\ntasks:\n  total:\n    {total}\n  other: {{shell: ls}}\n  keep:\n    after: [total]\n    \
         sql: INSERT INTO t VALUES (:n)\n    parameters: {{n: \"{template}\"}}\n"
    )
}

#[test]
fn a_pull_that_finds_its_result_is_not_told() {
    let report = report(
        "dag: d\nconnection: db\ntasks:\n  first: {shell: ls, on_success: {shell: \"echo {{ ti.xcom_pull('first') }}\"}}\n  second: {empty: true, after: [first]}\n  \
         g:\n    after: [second]\n    defaults: {on_failure: {shell: \"echo {{ ti.xcom_pull('beside') }}\"}}\n    tasks:\n      third:\n        \
         for_each: \"{{ ti.xcom_pull('first') }}\"\n        shell: \"echo {{ ti.xcom_pull('beside', default='') }} {{ ti.xcom_pull('g.' ~ 'x') }}\"\n  \
         beside: {shell: ls}\n  last: {shell: \"echo {{ ti.xcom_pull(task_ids=['g.third', 'first']) }}\", after: [g]}\n",
    );
    assert_eq!(report, "");
}

fn branch(more: &str) -> String {
    format!(
        "dag: d\nconnection: db\ntasks:\n  choose:\n    branch: {{sql: SELECT true, if_true: [yes], if_false: [no]}}\n  \
         yes: {{empty: true, after: [choose]}}\n  no: {{empty: true, after: [choose]}}\n{more}"
    )
}

/// Nine aliases of nine aliases of ...: a billion values in a few lines.
fn bomb() -> String {
    let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..10 {
        let aliases = vec![format!("*a{}", level - 1); 9].join(", ");
        text.push_str(&format!("a{level}: &a{level} [{aliases}]\n"));
    }
    text
}

#[test]
fn b0101_unreadable() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(folder.path().join("dags/d.yaml")).unwrap();
    std::fs::create_dir_all(folder.path().join("backstop.yaml")).unwrap();
    let disk = Disk::new(folder.path());
    let diagnostics = load(&disk, &Environment::new()).diagnostics;
    assert_eq!(diagnostics[0].code, code::UNREADABLE);
    insta::assert_snapshot!(render(&diagnostics[0], &disk, false));
}

#[test]
fn b0102_latin_1() {
    let mut bundle = project("dag: d\nconnection: db\ntasks:\n  a: {sql: sql/a.sql}\n");
    bundle.files.insert("sql/a.sql".to_owned(), b"SELECT 1;\nSELECT 'caf\xe9';\n".to_vec());
    bundle.files.insert("dags/e.yaml".to_owned(), b"dag: e\ndescription: caf\xe9\n".to_vec());
    let rendered = rendered(&bundle);
    assert!(rendered.contains(code::NOT_UTF8), "{rendered}");
    insta::assert_snapshot!(rendered);
}

#[test]
fn b0103_too_large() {
    let mut bundle = project("dag: d\nconnection: db\ntasks:\n  a: {sql: sql/a.sql}\n");
    bundle.files.insert("dags/e.yaml".to_owned(), vec![b'#'; (64 << 20) + 1]);
    bundle.files.insert("sql/a.sql".to_owned(), vec![b'-'; (256 << 20) + 1]);
    let diagnostics = load(&bundle, &environment()).diagnostics;
    let told: Vec<String> = diagnostics.iter().map(|d| format!("{} {}", d.code, d.message)).collect();
    insta::assert_snapshot!(told.join("\n"));
}

fn environment() -> Environment {
    Environment::from([("BACKSTOP_CONN_DB".to_owned(), "postgres://pg.example/shop".to_owned())])
}

fn rendered(bundle: &Bundle) -> String {
    let diagnostics = load(bundle, &environment()).diagnostics;
    diagnostics.iter().map(|diagnostic| render(diagnostic, bundle, false)).collect::<Vec<_>>().join("\n")
}

/// Codes with tests of their own above, and one that no source can reach as the other checks come first.
const TRIED_APART: &[&str] = &[code::UNREADABLE, code::NOT_UTF8, code::TOO_LARGE, code::REFUSED_BY_CORE];

#[test]
fn every_code_is_tried_and_documented() {
    let documented = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/diagnostics.md")).unwrap();
    for code in code::ALL {
        assert!(TRIED.contains(code) || TRIED_APART.contains(code), "{code} is not tried");
        assert!(documented.contains(&format!("## {code}")), "{code} is not in docs/diagnostics.md");
    }
    let mut sorted = code::ALL.to_vec();
    sorted.sort_unstable();
    sorted.dedup();
    assert_eq!(sorted.len(), code::ALL.len(), "a code is there twice");
}

#[test]
fn no_secret_is_in_a_diagnostic() {
    for yaml in [
        "connections:\n  a: postgres://ann:hunter2@host:port/db\n  b: {uri: \"ann:hunter2\"}\n  c: {conn_type: x, password: hunter2}\n",
        "connections:\n  a:\n    password: \"hunter2\n",
        "connections:\n  a:\n    password: {hunter2: 1}\n    unknown: hunter2\n    port: hunter2\n    sessions: hunter2\n",
        "{connections: {a: {pasword: hunter2}}}\n",
        "\"connections\":\n  a: [hunter2]\nvariables: {a: \"${hunter1}hunter2\"}\n",
        "name: x\nconnections:\n# hunter2\n  a: {password: [hunter2], conn_type: postgres\n",
    ] {
        let report = report(&format!("//- backstop.yaml\n{yaml}"));
        assert!(report.contains("error["), "{yaml}");
        assert!(!report.contains("hunter2"), "{report}");
    }
}
