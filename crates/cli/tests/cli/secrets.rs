//! Secrets of a project, planted wherever they can come in: none comes out, in a terminal or in a file. What a task gives as its result is not
//! looked at: it is data for other tasks, and kept and told as it is.

use crate::project::Project;
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
