//! Secrets of a project, planted wherever they can come in: none comes out, in a terminal or in a file. What a task gives as its result is data
//! for other tasks: the store keeps it as it is, for its owner alone, and whoever looks on is told it without secrets.

use crate::project::Project;
use crate::up::{Up, wait};
use serde_json::json;
use std::path::Path;

const SECRETS: [(&str, &str); 6] = [
    ("DB_PASSWORD", "swordfish-1"),
    ("SHOP_TOKEN", "tok-swordfish-2"),
    ("LOGIN_SECRET", "login-swordfish-3"),
    ("HOST_KEY", "host-swordfish-4"),
    ("BACKSTOP_VAR_API_PASSWORD", "var-swordfish-5"),
    ("EXTRA_API_KEY", "extra-swordfish-6"),
];

const BACKSTOP_YAML: &str = "name: test\nconnections:\n  db: {conn_type: sqlite, database: data.db}\n  \
    remote: {conn_type: postgres, host: \"${HOST_KEY}.invalid\", login: \"${LOGIN_SECRET}\", password: \"${DB_PASSWORD}\", database: x}\n  \
    api: {conn_type: postgres, host: h.invalid, extra: {api_key: \"${EXTRA_API_KEY}\"}}\n\
    variables:\n  url: \"https://shop.invalid/?t=${SHOP_TOKEN}\"\n  nested: {password: plain-swordfish-7}\n";

const ALL: &str = "{{ var.value.url }} {{ var.value.api_password }} {{ var.json.nested.password }}";

fn planted() -> Project {
    let dag = format!(
        "dag: d\nconnection: db\nmax_active_tasks: 1\ntasks:\n  \
         script:\n    sql: |\n      INSERT INTO t VALUES ('{ALL}');\n      SELECT '{ALL}';\n  \
         bound:\n    sql: INSERT INTO t VALUES (:v)\n    parameters: {{v: \"{ALL}\"}}\n  \
         bad_script: {{sql: \"SELECT * FROM \\\"{ALL}\\\"\", retries: 1, retry_delay: 1ms}}\n  \
         bad_check: {{check: \"SELECT '{ALL}' = ''\"}}\n  \
         printed: {{shell: \"echo '{ALL}'; echo '{ALL}' >&2; exit 3\"}}\n  \
         called: {{http: {{url: \"{{{{ var.value.url }}}}\", headers: {{X-Told: \"{ALL}\"}}}}}}\n  \
         away: {{sql: SELECT 1, connection: remote}}\n  \
         told:\n    sql: SELECT * FROM missing\n    on_failure: [{{shell: \"echo '{ALL}'; exit 1\"}}]\n"
    );
    let project = Project::new(&[("backstop.yaml", BACKSTOP_YAML), ("dags/d.yaml", &dag)]);
    project.sql("CREATE TABLE t (v TEXT)");
    project
}

/// Everything that a command says, after it was looked through.
fn said(project: &Project, arguments: &[&str]) -> String {
    let output = project.command(arguments).envs(SECRETS).output().unwrap();
    let said = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap()).concat();
    assert!(!said.contains("swordfish"), "{arguments:?} tells a secret:\n{}", lines_with_a_secret(said.as_bytes()));
    said
}

fn lines_with_a_secret(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    text.lines().filter(|line| line.contains("swordfish")).map(|line| format!("{line}\n")).collect()
}

fn assert_no_file_has_one(folder: &Path) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            assert_no_file_has_one(&path);
        } else {
            let found = lines_with_a_secret(&std::fs::read(&path).unwrap());
            assert!(found.is_empty(), "{}:\n{found}", path.display());
        }
    }
}

#[test]
fn no_secret_comes_out() {
    let project = planted();
    let mut everything = said(&project, &["check"]);
    for json in [false, true] {
        let with = |arguments: &[&'static str]| -> Vec<&'static str> {
            arguments.iter().copied().chain(json.then_some("--json")).collect()
        };
        let logical_date = if json { "2025-05-02" } else { "2025-05-01" };
        let mut run = with(&["run", "d", "--logical-date"]);
        run.insert(3, logical_date);
        everything.push_str(&said(&project, &run));
        for arguments in [
            &["runs", "list"][..],
            &["runs", "show", "latest"],
            &["runs", "events", "latest"],
            &["connections", "list"],
            &["connections", "test"],
        ] {
            everything.push_str(&said(&project, &with(arguments)));
        }
    }
    everything.push_str(&said(&project, &["run", "d", "--dry-run", "-v"]));
    everything.push_str(&said(&project, &["graph", "d"]));
    everything.push_str(&said(&project, &["graph", "d", "--format", "svg"]));
    for task in ["script", "bound", "bad_script", "bad_check", "printed", "called", "away", "told"] {
        everything.push_str(&said(&project, &["render", "d", task]));
        everything.push_str(&said(&project, &["logs", "latest", task]));
    }
    assert!(
        everything.contains("***") && everything.contains("https://shop.invalid/?t=***"),
        "nothing was masked:\n{everything}"
    );
    assert_no_file_has_one(&project.path().join(".backstop"));
    assert!(
        project.ask("SELECT count(*) FROM t WHERE v LIKE '%tok-swordfish-2%var-swordfish-5%plain-swordfish-7%'") > 0,
        "masked where it is wanted"
    );
}

const TOKEN: &str = "service-swordfish-token";

/// Two versions of a DAG that has a secret in its file, and prints the token and a key of two lines.
fn printing() -> Project {
    let yaml = "name: test\nvariables:\n  private_key: \"-BEGIN swordfish\\nmiddle-swordfish\\n\"\n";
    let project = Project::new(&[("backstop.yaml", yaml), ("token.txt", TOKEN)]);
    for password in ["swordfish-9", "swordfish-10"] {
        let dag = format!(
            "dag: d\ntasks:\n  printed:\n    shell: |\n      echo \"its token is [$BACKSTOP_TOKEN]\"; cat token.txt; echo\n      \
             echo '{{{{ var.value.private_key }}}}'\n  \
             called: {{http: {{url: \"http://127.0.0.1:1/\", headers: {{Authorization: Bearer {password}}}}}}}\n"
        );
        project.write("dags/d.yaml", &dag);
        project.command(&["run", "d"]).env("BACKSTOP_TOKEN", TOKEN).output().unwrap();
    }
    project
}

#[test]
fn tasks_do_not_get_the_token_and_nothing_prints_it_or_a_line_of_a_key() {
    let project = printing();
    let output = project.command(&["logs", &project.newest(), "printed"]).output().unwrap();
    let log = String::from_utf8(output.stdout).unwrap();
    assert!(log.contains("its token is []") && log.matches("***").count() == 3, "{log}");
    assert!(!log.contains("swordfish"), "{log}");
    assert_no_file_has_one(&project.path().join(".backstop/logs"));
    // One that came from a file is as secret.
    let up = Up::with(&project, &["--token-file", "token.txt"]);
    let ask = |method, path: &str, body| {
        let answer = up.ask_with(method, path, body, &format!("Host: x\r\nAuthorization: Bearer {TOKEN}"));
        assert!(matches!(answer.status, 200 | 201), "{path}: {}", answer.body);
        answer.body
    };
    let wanted = json!({});
    let run = ask("POST", "/api/v1/dags/d/runs", Some(&wanted));
    let run = run["run_id"].as_str().unwrap();
    wait("the run", || ask("GET", &format!("/api/v1/runs/{run}"), None)["state"] == "failed");
    let log = ask("GET", &format!("/api/v1/runs/{run}/tasks/printed/logs"), None);
    assert!(log["text"].as_str().unwrap().contains("its token is []") && !log.to_string().contains("swordfish"), "{log}");
}

#[test]
fn secrets_that_stand_in_files_are_masked_in_what_is_told_of_them() {
    let project = printing();
    let versions = project.json(&["versions", "d", "--json"]);
    let (now, before) = (versions[0]["version"].as_str().unwrap(), versions[1]["version"].as_str().unwrap());
    let diff = project.data(&["versions", "d", before, now]);
    assert_eq!(diff, "--- a/dags/d.yaml\n+++ b/dags/d.yaml\n@@ what differs is secret @@\n");
    let up = Up::of(&project);
    for path in ["source".to_owned(), format!("source?version={before}"), format!("versions/{before}/diff/{now}")] {
        let told = up.get(&format!("/api/v1/dags/d/{path}"));
        assert!(!told.to_string().contains("swordfish"), "{told}");
    }
    let source = up.get("/api/v1/dags/d/source");
    assert!(source["files"][0]["text"].as_str().unwrap().contains("headers: {Authorization: ***}"), "{source}");
}

const KNOWN: &str = "known-swordfish-11";
const GIVEN: &str = "given-swordfish-12";

/// A secret variable becomes a result of a shell task and of a query, the item of a mapped task and the parameter of another run.
fn resulting() -> Project {
    let yaml =
        format!("name: test\nconnections:\n  db: {{conn_type: sqlite, database: data.db}}\nvariables: {{api_token: {KNOWN}}}\n");
    let value = "{{ var.value.api_token }}";
    let parent = format!(
        "dag: parent\nconnection: db\nparams: {{password: {{type: string, default: {GIVEN}}}}}\ntasks:\n  \
         printed: {{shell: \"echo '{value}'\"}}\n  \
         own: {{shell: \"echo '{{{{ params.password }}}}'\"}}\n  \
         asked: {{sql: \"SELECT '{value}' AS v\", result: rows}}\n  \
         each: {{shell: \"echo '{{{{ item }}}}'\", for_each: [\"{value}\", b]}}\n  \
         child: {{dag: {{id: child, params: {{tok: \"{value}\"}}}}, after: [printed, own, asked, each]}}\n"
    );
    let child = "dag: child\nparams: {tok: none}\ntasks:\n  seen: {shell: \"echo 'len {{ params.tok | length }}'\"}\n";
    Project::new(&[("backstop.yaml", &yaml), ("dags/parent.yaml", &parent), ("dags/child.yaml", child)])
}

fn assert_masked(path: &str, told: &str) {
    assert!(told.contains("***") && !told.contains("swordfish"), "{path}: {told}");
}

/// What the stream tells of all that happened, until a text has come.
fn streamed(up: &Up, until: &str) -> String {
    use std::io::{Read as _, Write as _};
    let mut stream = std::net::TcpStream::connect(&up.address).unwrap();
    stream.set_read_timeout(Some(std::time::Duration::from_secs(60))).unwrap();
    write!(stream, "GET /api/v1/stream HTTP/1.1\r\nHost: {}\r\nLast-Event-ID: 1\r\n\r\n", up.address).unwrap();
    let (mut told, mut piece) = (String::new(), [0; 4096]);
    while !told.contains(until) {
        let count = stream.read(&mut piece).unwrap();
        assert!(count > 0, "the stream ended: {told}");
        told.push_str(&String::from_utf8_lossy(&piece[..count]));
    }
    told
}

#[test]
fn results_items_and_parameters_are_masked_for_whoever_looks_on() {
    let project = resulting();
    let up = Up::of(&project);
    let run = up.trigger("parent", json!({ "who": "ann", "why": format!("it is {KNOWN}") }));
    up.wait_for_state(&run, "success");
    let list = up.get("/api/v1/runs");
    let child = list["items"].as_array().unwrap().iter().find(|row| row["dag"] == "child").unwrap()["run_id"].as_str().unwrap();
    let events = up.get(&format!("/api/v1/runs/{run}/events?limit=1000"));
    let of = |task: &str, kind: &str| {
        let events = events["items"].as_array().unwrap();
        events.iter().find(|event| event["task"] == task && event["type"] == kind).unwrap_or_else(|| panic!("{task} {kind}"))
    };
    assert_eq!(of("printed", "attempt_succeeded")["result"], "***");
    assert_eq!(of("own", "attempt_succeeded")["result"], "***", "what the run was given");
    assert_eq!(of("each", "task_expanded")["items"], json!(["***", "b"]));
    assert_masked("asked", &of("asked", "attempt_succeeded")["result"].to_string());
    assert_masked("events", &events.to_string());
    assert_eq!(up.get(&format!("/api/v1/runs/{child}"))["params"], json!({ "tok": "***" }));
    let length = up.get(&format!("/api/v1/runs/{child}/tasks/seen/logs")).to_string();
    assert!(length.contains(&format!("len {}", KNOWN.len())), "the child got it whole: {length}");
    for path in [
        "/api/v1/runs".to_owned(),
        format!("/api/v1/runs/{run}"),
        format!("/api/v1/runs/{child}/events"),
        format!("/api/v1/runs/{run}/tasks/printed/logs"),
        format!("/api/v1/runs/{run}/tasks/own/logs"),
        "/api/v1/dags/parent".to_owned(),
        "/api/v1/dags/parent/source".to_owned(),
    ] {
        assert_masked(&path, &up.get(&path).to_string());
    }
    assert_masked("the stream", &streamed(&up, "\"result\":\"len "));
    for arguments in [
        &["runs", "list", "--json"][..],
        &["runs", "show", &run],
        &["runs", "show", &run, "--json"],
        &["runs", "events", &run],
        &["runs", "events", &run, "--json"],
        &["runs", "show", child],
    ] {
        assert_masked(&arguments.join(" "), &project.data(arguments));
    }
}

#[test]
fn a_secret_in_a_reason_is_neither_kept_nor_told() {
    let project = resulting();
    let up = Up::of(&project);
    let why = format!("the token is {KNOWN}");
    let run = up.trigger("parent", json!({ "why": why }));
    up.wait_for_state(&run, "success");
    for (path, body) in [
        (format!("/api/v1/runs/{run}/clear"), json!({ "tasks": ["child"], "why": why })),
        ("/api/v1/variables/region".to_owned(), json!({ "value": "eu", "why": why })),
    ] {
        let method = if path.contains("variables") { "PUT" } else { "POST" };
        let answer = up.ask(method, &path, Some(&body));
        assert!(answer.status < 300, "{path}: {}", answer.body);
    }
    assert_masked("audit", &up.get("/api/v1/audit").to_string());
    up.wait_for_state(&run, "success");
    assert_eq!(up.running.terminate().0, Some(0));
    let store = rusqlite::Connection::open(project.path().join(".backstop/store.db")).unwrap();
    let count = |sql: &str| store.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap();
    let kept = format!("SELECT count(*) FROM events WHERE body LIKE '%the token is {KNOWN}%'");
    assert_eq!(count(&kept), 0);
    assert!(count("SELECT count(*) FROM events WHERE body LIKE '%the token is ***%'") > 0);
}

#[test]
fn what_is_kept_is_for_its_owner_alone() {
    use std::os::unix::fs::PermissionsExt as _;
    fn look(path: &Path) {
        let mode = std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, if path.is_dir() { 0o700 } else { 0o600 }, "{}: {mode:o}", path.display());
        if path.is_dir() {
            std::fs::read_dir(path).unwrap().for_each(|entry| look(&entry.unwrap().path()));
        }
    }
    let project = resulting();
    let up = Up::of(&project);
    let run = up.trigger("child", json!({}));
    up.wait_for_state(&run, "success");
    project.data(&["store", "backup", ".backstop/copy.db"]);
    for file in ["store.db", "store.db-wal", "copy.db", "logs"] {
        assert!(project.path().join(".backstop").join(file).exists(), "{file}");
    }
    look(&project.path().join(".backstop"));
}
