//! What loading gives: definitions, bundles, connections, and refusals.

use super::schema::EVERYTHING;
use super::{definition, loaded, project, report};
use crate::connection::{parse_json, parse_uri};
use crate::definition::{ForEach, Kind};
use crate::{Bundle, Disk, Environment, Files, load, load_definition, load_only, load_unfit};
use backstop_core::DagId;
use std::collections::BTreeMap;
use std::time::Duration;

#[test]
fn a_dag_with_errors_is_absent_and_the_others_are_there() {
    let (_, loaded) = loaded(
        "//- dags/bad.yaml\ndag: bad\ntasks:\n  a: {sql: SELECT 1}\n//- dags/good.yaml\ndag: good\ntasks:\n  a: {empty: true}\n",
    );
    assert_eq!(loaded.project.dags.keys().map(DagId::as_str).collect::<Vec<_>>(), ["good"]);
    assert_eq!(loaded.diagnostics.len(), 1);
}

#[test]
fn a_wrong_connection_stops_only_the_dags_that_use_it() {
    let (_, loaded) = loaded(
        "//- backstop.yaml\nconnections:\n  broken: {conn_type: postgres, password: \"${NO_SUCH}\"}\n\
         //- dags/one.yaml\ndag: one\nconnection: broken\ntasks:\n  a: {sql: SELECT 1}\n\
         //- dags/two.yaml\ndag: two\nconnection: db\ntasks:\n  a: {sql: SELECT 1}\n",
    );
    assert_eq!(loaded.project.dags.keys().map(DagId::as_str).collect::<Vec<_>>(), ["two"]);
    let codes: Vec<&str> = loaded.diagnostics.iter().map(|diagnostic| diagnostic.code).collect();
    assert_eq!(codes, ["B0507", "B0501"]);
}

#[test]
fn an_error_that_concerns_all_dags_stops_all_of_them() {
    let dags = |yaml: &str| {
        let text =
            format!("//- backstop.yaml\n{yaml}\n//- dags/d.yaml\ndag: d\ntasks:\n  a: {{empty: true, on_failure: [ops]}}\n");
        loaded(&text).1.project.dags.len()
    };
    let ops = "notifiers: {ops: {shell: echo}}";
    assert_eq!(dags(ops), 1);
    assert_eq!(dags(&format!("{ops}\nconnections: {{a: {{conn_type: x}}}}")), 1);
    for wrong in ["defaults: {retries: many}", "defualts: {retries: 3}", "pools: {a: x}", "a: [", "a: 1\na: 1"] {
        assert_eq!(dags(&format!("{ops}\n{wrong}")), 0, "{wrong}");
    }
    // A notifier with an error stops those that name it, so that no alert is lost in silence.
    assert_eq!(dags("notifiers: {ops: {shel: echo}}"), 0);
    assert_eq!(dags("notifiers: {ops: {shell: echo}, other: {shel: echo}}"), 1);
    assert_eq!(dags("connections: {a: {conn_type: x}}\nnotifiers: {ops: {sql: SELECT 1, connection: a}}"), 0);
}

#[test]
fn connections_are_read_by_airflow_s_rules() {
    let connection =
        parse_uri("postgresql://ann%40x:p%2Fw%3A@db.example:5433/my%20db?sslmode=require&options=a%20b&n=1", "here").unwrap();
    assert_eq!(connection.conn_type, "postgres");
    assert_eq!((connection.login.as_deref(), connection.password.as_deref()), (Some("ann@x"), Some("p/w:")));
    assert_eq!(
        (connection.host.as_deref(), connection.port, connection.database.as_deref()),
        (Some("db.example"), Some(5433), Some("my db"))
    );
    let extra =
        BTreeMap::from([("sslmode", "require"), ("options", "a b"), ("n", "1")].map(|(k, v)| (k.to_owned(), v.to_owned())));
    assert_eq!(connection.extra, extra);

    let nested = parse_uri("my-type://https://host:1/s?__extra__=%7B%22a%22%3A%20%7B%22b%22%3A%201%7D%7D&c=2", "here").unwrap();
    assert_eq!((nested.conn_type.as_str(), nested.host.as_deref(), nested.port), ("my_type", Some("https://host"), Some(1)));
    assert_eq!(nested.extra, BTreeMap::from([("a".to_owned(), "{\"b\":1}".to_owned())]));

    let six = parse_uri("mysql://[::1]:3306/", "here").unwrap();
    assert_eq!((six.host.as_deref(), six.port, six.database), (Some("::1"), Some(3306), None));
    let file = parse_uri("sqlite:////var/data/a.db", "here").unwrap();
    assert_eq!((file.host, file.database.as_deref()), (None, Some("/var/data/a.db")));
    assert_eq!(parse_uri("sqlite:///a.db", "here").unwrap().database.as_deref(), Some("a.db"));

    let json = parse_json(
        r#"{"conn_type": "mysql", "login": "ann", "password": "x", "host": "h", "port": "3307", "schema": "s", "extra": "{\"a\": 1}"}"#,
        "here",
    );
    let json = json.unwrap();
    assert_eq!((json.port, json.database.as_deref(), json.extra["a"].as_str()), (Some(3307), Some("s"), "1"));
    for bad in [
        "",
        "hunter2",
        "postgres:hunter2",
        "postgres://u:hunter2@h:99999/d",
        "postgres://u:%ff@h/hunter2",
        "x://h?__extra__=hunter2",
    ] {
        assert!(!parse_uri(bad, "here").unwrap_err().to_string().contains("hunter2"), "{bad}");
    }
    for bad in [
        r#"{"hunter2""#,
        r#"["hunter2"]"#,
        r#"{"hunter2": 1}"#,
        r#"{"conn_type": "x", "port": "hunter2"}"#,
        r#"{"host": "hunter2"}"#,
    ] {
        assert!(!parse_json(bad, "here").unwrap_err().to_string().contains("hunter2"), "{bad}");
    }
    assert!(!format!("{json:?}").contains('x'), "{json:?}");
}

#[test]
fn the_folder_comes_first_then_backstop_then_airflow() {
    let bundle = project("//- backstop.yaml\nconnections: {a: sqlite:///yaml.db}\nvariables: {v: yaml, n: 3}\n");
    let environment = Environment::from(
        [
            ("BACKSTOP_CONN_A", "sqlite:///backstop.db"),
            ("BACKSTOP_CONN_B", "sqlite:///backstop.db"),
            ("AIRFLOW_CONN_B", "sqlite:///airflow.db"),
            ("AIRFLOW_CONN_C", r#"{"conn_type": "sqlite", "schema": "airflow.db"}"#),
            ("AIRFLOW_CONN_S", "snowflake://x"),
            ("AIRFLOW_VAR_V", "airflow"),
            ("AIRFLOW_VAR_W", "airflow"),
            ("BACKSTOP_VAR_W", "backstop"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned())),
    );
    let loaded = load(&bundle, &environment);
    let files: Vec<_> =
        loaded.project.connections.iter().map(|(id, c)| (id.as_str(), c.database.as_deref().unwrap_or(""))).collect();
    assert_eq!(files, [("a", "yaml.db"), ("b", "backstop.db"), ("c", "airflow.db")]);
    assert_eq!(loaded.project.connections["a"].origin, "backstop.yaml:1");
    assert_eq!(loaded.project.variables["v"], "yaml");
    assert_eq!(loaded.project.variables["n"], 3);
    assert_eq!(loaded.project.variables["w"], "backstop");
    // A connection of Airflow's that no DAG uses is a warning.
    assert!(loaded.is_valid(), "{:?}", loaded.diagnostics);
    assert_eq!(loaded.diagnostics.len(), 1);
}

#[test]
fn a_bundle_holds_what_the_dag_needs_and_no_secret() {
    let (_, loaded) = loaded(EVERYTHING);
    let definition = &loaded.project.dags["nightly"];
    let names: Vec<&str> = definition.bundle.files.keys().map(String::as_str).collect();
    assert_eq!(names, ["backstop.yaml", "dags/d.yaml", "py/total.py", "sql/capture.sql"]);
    let bytes = definition.bundle.to_bytes();
    let text = String::from_utf8_lossy(&bytes);
    assert!(!text.contains("hunter2") && !text.contains("${HOST"), "{text}");
    // Places in the rest of backstop.yaml stay.
    let again = load_definition(&Bundle::from_bytes(&bytes).unwrap(), &"nightly".into(), &loaded.project).unwrap();
    assert_eq!(format!("{again:?}"), format!("{definition:?}"));
}

#[test]
fn secrets_stay_out_of_bundles_however_they_are_written() {
    for yaml in [
        "{connections: {a: {conn_type: sqlite, password: hunter2}}, defaults: {retries: 3}}",
        "connections:\n  a: &a {conn_type: sqlite, password: hunter2}\n  b: *a\ndefaults: {retries: 3}\n",
        "defaults: &d {retries: 3}\nconnections:\n  # it was hunter2 before\n  a: sqlite://u:hunter2@/x\n",
        "connections: {a: {conn_type: sqlite,\n  password: hunter2}}\ndefaults: {retries: 3}\n",
        "variables: {x: hunter2}\n? connections\n: {a: {conn_type: sqlite, password: \"hunter2\"}}\ndefaults: {retries: 3}\n",
        "connections:\n  a:\n    conn_type: sqlite\n    password: |\n      hunter2\n\n\ndefaults: {retries: 3}\n# hunter is not a secret\n",
    ] {
        let (_, loaded) = loaded(&format!("//- backstop.yaml\n{yaml}\n//- dags/d.yaml\ndag: d\ntasks:\n  a: {{empty: true}}\n"));
        assert!(loaded.is_valid(), "{:?}", loaded.diagnostics);
        let definition = &loaded.project.dags["d"];
        let kept = String::from_utf8(definition.bundle.files["backstop.yaml"].clone()).unwrap();
        assert!(!kept.contains("hunter2"), "{kept}");
        let again = load_definition(&definition.bundle, &"d".into(), &loaded.project).unwrap();
        assert_eq!(again.dag.tasks()[0].settings.retry.retries, 3, "{kept}");
    }
}

#[test]
fn a_pinned_dag_whose_connection_is_gone_is_refused() {
    let (_, mut loaded) = loaded("dag: d\nconnection: db\ntasks:\n  a: {sql: SELECT 1}\n");
    let definition = loaded.project.dags["d"].clone();
    loaded.project.connections.remove("db");
    let errors = load_definition(&definition.bundle, &"d".into(), &loaded.project).unwrap_err();
    assert_eq!(errors[0].code, "B0501");
    assert_eq!(load_definition(&definition.bundle, &"e".into(), &loaded.project).unwrap_err().last().unwrap().code, "B0105");
}

#[test]
fn a_pinned_dag_has_its_shape_also_where_the_project_lacks_what_it_names() {
    let text = "//- backstop.yaml\nconnections: {db: \"sqlite:///d.db\", two: \"sqlite:///e.db\"}\npools: {small: 2}\nvariables: {schema: sales}\n\
                notifiers: {ops: {sql: INSERT INTO told VALUES (1), connection: two}}\ndefaults: {connection: two}\n\
                //- dags/d.yaml\ndag: d\non_failure: [ops]\ntasks:\n  a: {sql: SELECT 1, pool: small}\n  \
                b: {sensor: {sql: \"SELECT 1 FROM {{ var.value.schema }}.t\"}, connection: two, after: [a]}\n";
    let (_, loaded) = loaded(text);
    assert!(loaded.is_valid(), "{:?}", loaded.diagnostics);
    let definition = &loaded.project.dags["d"];
    let (_, bare) = self::loaded("dag: other\ntasks:\n  a: {empty: true}\n");
    assert!(load_definition(&definition.bundle, &"d".into(), &bare.project).is_err());
    let unfit = load_unfit(&definition.bundle, &"d".into(), &bare.project).unwrap_or_else(|errors| panic!("{errors:?}"));
    assert_eq!(unfit.version, definition.version);
    let shape = |definition: &crate::definition::Definition| {
        let tasks = definition.dag.tasks().iter().map(|task| (task.id.clone(), task.upstream.clone()));
        (tasks.collect::<Vec<_>>(), definition.bodies.iter().map(|body| body.connection.clone()).collect::<Vec<_>>())
    };
    assert_eq!(shape(&unfit), shape(definition));
    // What is wrong in itself stays wrong.
    let mut broken = definition.bundle.clone();
    broken.files.insert("dags/d.yaml".into(), b"dag: d\ntasks:\n  a: {nothing: 1}\n".to_vec());
    assert!(load_unfit(&broken, &"d".into(), &bare.project).is_err());
}

#[test]
fn the_version_is_that_of_the_sources_alone() {
    let text = |password: &str, sql: &str| {
        format!(
            "//- backstop.yaml\nconnections: {{a: {{conn_type: sqlite, password: {password}}}}}\n//- dags/d.yaml\ndag: d\nconnection: a\ntasks:\n  a: {{sql: x.sql}}\n//- x.sql\n{sql}\n"
        )
    };
    let version = |password: &str, sql: &str| definition(&text(password, sql)).version.clone();
    assert_eq!(version("one", "SELECT 1"), version("two", "SELECT 1"));
    assert_ne!(version("one", "SELECT 1"), version("one", "SELECT 2"));
}

#[test]
fn settings_of_tasks_are_read() {
    let (_, loaded) = loaded(EVERYTHING);
    let definition = &loaded.project.dags["nightly"];
    assert_eq!(definition.schedule.as_deref(), Some("0 2 * * MON-FRI"));
    assert_eq!(loaded.project.dags["every"].schedule.as_deref(), Some("every 15m"));
    assert_eq!(definition.start_date.unwrap().to_string(), "2025-04-30T22:00:00Z");
    assert_eq!(definition.dag.dagrun_timeout(), Some(Duration::from_secs(7200)));
    assert_eq!((definition.dag.max_active_tasks(), definition.dag.map_length_max()), (4, 10));
    assert_eq!((definition.dag.hooks().on_failure, definition.dag.hooks().on_success), (1, 1));
    let body = |id: &str| definition.body(definition.dag.index(id).unwrap());
    assert_eq!(body("capture").execution_timeout, Some(Duration::from_secs(5400)));
    let Kind::Sql(sql) = &body("capture").kind else { panic!() };
    assert_eq!((sql.result_bytes_max, sql.parameters["n"].as_str()), (1024, Some("{{ params.n }}")));
    assert_eq!((&*sql.script.source.file, sql.script.source.line), ("sql/capture.sql", 1));
    assert!(matches!(&body("mapped").for_each, Some(ForEach::Rows { connection, .. }) if connection == "files"));
    assert!(matches!(body("spread").for_each, Some(ForEach::Expression(_))));
    assert!(matches!(&body("inline").for_each, Some(ForEach::List(items, _)) if items.len() == 2));
    // Hooks of the core and bodies agree everywhere.
    for (task, body) in definition.dag.tasks().iter().zip(&definition.bodies) {
        let callbacks = &body.callbacks;
        let counts =
            [callbacks.on_failure.len(), callbacks.on_retry.len(), callbacks.on_success.len()].map(|n| u32::try_from(n).unwrap());
        let hooks = task.settings.hooks;
        assert_eq!(counts, [hooks.on_failure, hooks.on_retry, hooks.on_success], "{}", task.id);
        assert_eq!(task.settings.mapped, body.for_each.is_some(), "{}", task.id);
    }
}

#[test]
fn values_merged_with_aliases_are_read() {
    let text = "dag: d\nconnection: db\ntasks:\n  a: &a\n    sql: SELECT 1\n    retries: 2\n  b:\n    <<: *a\n    retries: 5\n    after: [a]\n";
    let definition = definition(text);
    let retries: Vec<u32> = definition.dag.tasks().iter().map(|task| task.settings.retry.retries).collect();
    assert_eq!(retries, [2, 5]);
}

#[test]
fn nothing_outside_of_the_folder_is_read() {
    let outer = tempfile::tempdir().unwrap();
    let root = outer.path().join("project");
    std::fs::create_dir_all(root.join("sql")).unwrap();
    std::fs::create_dir_all(root.join("dags")).unwrap();
    std::fs::write(outer.path().join("secret.sql"), "secret").unwrap();
    std::fs::write(root.join("sql/in.sql"), "SELECT 1").unwrap();
    std::os::unix::fs::symlink(outer.path().join("secret.sql"), root.join("sql/link.sql")).unwrap();
    std::os::unix::fs::symlink(root.join("sql/in.sql"), root.join("sql/inner.sql")).unwrap();
    let disk = Disk::new(&root);
    for path in ["../secret.sql", "/etc/passwd", "sql/../../secret.sql", "sql/link.sql", "..\\secret.sql", "~/x"] {
        assert!(disk.read(path).is_err(), "{path}");
        let dag = format!("dag: d\nconnection: lite\ntasks:\n  a: {{sql: '{}.sql'}}\n", path.trim_end_matches(".sql"));
        std::fs::write(root.join("dags/d.yaml"), dag).unwrap();
        let environment = Environment::from([("BACKSTOP_CONN_LITE".to_owned(), "sqlite:///x".to_owned())]);
        let loaded = load(&disk, &environment);
        assert_eq!(loaded.diagnostics.iter().map(|d| d.code).collect::<Vec<_>>(), ["B0104"], "{path}");
    }
    assert_eq!(disk.read("sql/../sql/in.sql").unwrap(), b"SELECT 1");
    assert_eq!(disk.read("sql/inner.sql").unwrap(), b"SELECT 1");
    assert_eq!(disk.list("sql", &[".sql"]).unwrap(), ["sql/in.sql", "sql/inner.sql", "sql/link.sql"]);
    assert_eq!(disk.list("nowhere", &[".sql"]).unwrap(), Vec::<String>::new());
}

#[test]
fn one_file_is_loaded_alone_and_a_missing_one_is_told() {
    let bundle =
        project("//- dags/a.yaml\ndag: a\ntasks:\n  x: {empty: true}\n//- other.yaml\ndag: b\ntasks:\n  x: {empty: true}\n");
    let loaded = load_only(&bundle, &Environment::new(), &["other.yaml", "no.yaml"]);
    assert_eq!(loaded.project.dags.keys().map(DagId::as_str).collect::<Vec<_>>(), ["b"]);
    assert_eq!(loaded.diagnostics[0].code, "B0105");
}

#[test]
fn everything_wrong_is_told_at_once_and_as_json() {
    let text = "dag: d\nschedule: never\ntimezone: Mars\ntasks:\n  a: {sql: SELECT 1, retires: 1, after: [b]}\n  c: {shell: ls, pool: x}\n";
    let (_, loaded) = loaded(text);
    let codes: Vec<&str> = loaded.diagnostics.iter().map(|diagnostic| diagnostic.code).collect();
    assert_eq!(codes, ["B0303", "B0304", "B0503", "B0205", "B0402", "B0504"], "{}", report(text));
    assert_eq!(
        loaded.diagnostics[3].to_json(),
        serde_json::json!({
            "code": "B0205", "severity": "error", "message": "unknown key `retires` in Task", "file": "dags/d.yaml", "line": 5, "column": 22,
            "length": 7, "labels": [], "hint": "did you mean `retries`?",
        })
    );
}

/// The secrets of a project with this backstop.yaml, when these variables are set.
fn secrets(yaml: &str, environment: &[(&str, &str)]) -> Vec<String> {
    let bundle = super::project(&format!("//- backstop.yaml\n{yaml}"));
    let environment = environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let loaded = crate::load(&bundle, &environment);
    assert!(loaded.is_valid(), "{:?}", loaded.diagnostics);
    let shown = format!("{:?}", loaded.project);
    let secrets: Vec<String> = loaded.project.secrets().iter().map(str::to_owned).collect();
    assert!(!secrets.iter().any(|secret| shown.contains(secret)), "{shown}");
    secrets
}

#[test]
fn what_the_environment_puts_in_is_secret_where_its_name_or_its_place_says_so() {
    let set =
        [("PLAIN", "plain-part"), ("SHOP_TOKEN", "token-part"), ("REGION", "emea"), ("BACKSTOP_CONN_X", "mysql://a:of-uri@h/d")];
    assert_eq!(
        secrets("variables: {url: \"https://h/?t=${SHOP_TOKEN}\", region: \"${REGION}\"}\n", &set),
        ["of-uri", "token-part"]
    );
    assert_eq!(secrets("variables: {deep: [{url: \"${NO_SUCH_KEY:-by-default}\"}]}\n", &set), ["by-default", "of-uri"]);
    assert_eq!(
        secrets("connections: {a: {conn_type: mysql, password: \"pre-${PLAIN}\"}}\n", &[("PLAIN", "plain-part")]),
        ["plain-part", "pre-plain-part"]
    );
    assert_eq!(
        secrets("connections: {a: {conn_type: mysql, extra: {ssl_secret: \"${REGION}\", x: \"${SHOP_TOKEN}\"}}}\n", &set),
        ["emea", "of-uri", "token-part"]
    );
}

#[test]
fn variables_are_secret_by_their_names_down_to_the_keys_of_json() {
    let yaml = "variables:\n  api_key: {a: [one-key, 12345678]}\n  limits: {low: open, password: deep-one}\n  text: '{\"token\": \"in-json\"}'\n";
    assert_eq!(
        secrets(yaml, &[("BACKSTOP_VAR_OPS_SECRET", "of-variable")]),
        ["12345678", "deep-one", "in-json", "of-variable", "one-key"]
    );
}

#[test]
fn no_connection_shows_what_may_be_secret() {
    let uri = "postgres://login-fish:password-fish@host-fish:5432/database-fish?sslkey=extra-fish";
    let shown = format!("{:?}", parse_uri(uri, "here").unwrap());
    assert!(!shown.contains("fish") && shown.contains("5432") && shown.contains("here"), "{shown}");
}
