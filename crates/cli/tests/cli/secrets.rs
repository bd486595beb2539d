//! Secrets of a project, planted wherever they can come in: none comes out, in a terminal or in a file. What a task gives as its result is not
//! looked at: it is data for other tasks, and kept and told as it is.

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
