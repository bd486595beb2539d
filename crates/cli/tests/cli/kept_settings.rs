//! Variables and pools that are set in the store, as commands without a service know them.

use crate::project::Project;

const DAG: &str =
    "dag: d\nconnection: db\ntasks:\n  load: {sql: \"INSERT INTO effect VALUES ('{{ var.value.region }}')\", pool: night}\n";

fn project() -> Project {
    let project = Project::new(&[("dags/d.yaml", DAG), ("one.sql", "INSERT INTO effect VALUES ('{{ var.value.region }}!');\n")]);
    project.sql("CREATE TABLE effect (what text)");
    project
}

fn count(project: &Project, what: &str) -> i64 {
    project.ask(&format!("SELECT count(*) FROM effect WHERE what = '{what}'"))
}

#[test]
fn what_is_set_in_the_store_is_known_to_every_command() {
    let project = project();
    let unknown = project.backstop(&["check"]);
    assert_eq!(unknown.code, Some(2), "the pool is nowhere yet: {}", unknown.stdout);
    assert_eq!(project.backstop(&["run", "d"]).code, Some(2));
    let set = project.backstop(&["variables", "set", "region", "asia"]);
    assert!(set.stderr.contains("runs that go on keep what they have until they are driven anew"), "{}", set.stderr);
    let set = project.backstop(&["pools", "set", "night", "1"]);
    assert!(set.stderr.contains("it holds at once for all that waits, also of runs that go on"), "{}", set.stderr);
    project.data(&["check"]);
    project.data(&["check", "dags/d.yaml"]);
    assert!(project.data(&["render", "d", "load"]).contains("VALUES ('asia')"));
    assert!(project.data(&["dags", "list"]).contains("dags/d.yaml"));
    assert_eq!(project.backstop(&["run", "d"]).code, Some(0));
    assert_eq!(project.backstop(&["run", "dags/d.yaml"]).code, Some(0));
    assert_eq!(project.backstop(&["run", "one.sql", "--connection", "db"]).code, Some(0));
    assert_eq!((count(&project, "asia"), count(&project, "asia!")), (2, 1));
    // It stands before backstop.yaml, and is gone when it is taken away.
    let yaml = std::fs::read_to_string(project.path().join("backstop.yaml")).unwrap();
    project.write("backstop.yaml", &format!("{yaml}variables: {{region: eu}}\npools: {{night: 3}}\n"));
    assert!(project.data(&["render", "d", "load"]).contains("VALUES ('asia')"));
    project.data(&["variables", "delete", "region"]);
    assert_eq!(project.backstop(&["run", "d"]).code, Some(0));
    assert_eq!(count(&project, "eu"), 1);
    // Another store has other settings.
    project.data(&["variables", "set", "region", "mars", "--store", "other.db"]);
    assert!(project.data(&["render", "d", "load", "--store", "other.db"]).contains("VALUES ('mars')"));
    assert!(project.data(&["render", "d", "load"]).contains("VALUES ('eu')"));
}

#[test]
fn a_secret_that_is_set_in_the_store_is_masked_in_a_run_without_a_service() {
    let dag = DAG.replace("region", "api_token").replace(", pool: night", "");
    let project = Project::new(&[("dags/d.yaml", &dag.replace("INTO effect", "INTO missing"))]);
    project.data(&["variables", "set", "api_token", "t0ps3cret-value"]);
    let failed = project.backstop(&["run", "d", "--verbose"]);
    assert_eq!(failed.code, Some(1), "{}", failed.stderr);
    let told =
        [failed.stdout, failed.stderr, project.data(&["logs", "latest", "load"]), project.data(&["runs", "show", "latest"])]
            .concat();
    assert!(!told.contains("t0ps3cret"), "{told}");
    assert!(!project.data(&["render", "d", "load"]).contains("t0ps3cret"));
}

#[test]
fn a_store_that_cannot_be_read_is_told_of_by_who_looks_and_stops_who_runs() {
    let project = project();
    project.write(".backstop/store.db", "this is no store");
    let check = project.backstop(&["check"]);
    assert!(check.stderr.contains("set in the store are not known here"), "{}", check.stderr);
    let run = project.backstop(&["run", "d"]);
    assert_eq!(run.code, Some(2), "{}", run.stderr);
    assert!(run.stderr.contains("store.db"), "{}", run.stderr);
    assert_eq!(project.ask("SELECT count(*) FROM effect"), 0);
}
