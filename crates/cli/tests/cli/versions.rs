//! Versions of a DAG: listed, and compared, by the command and by the API.

use crate::project::Project;
use crate::up::{Up, wait};
use serde_json::{Value, json};

const DAG: &str = "dag: d\nconnection: db\ntasks:\n  load: {sql: load.sql}\n";
const DIFF: &str = "--- a/load.sql\n+++ b/load.sql\n@@ -1 +1,2 @@\n SELECT 1;\n+SELECT 2;\n";

/// A DAG that ran in two versions: the project, the later and the earlier one.
fn changed() -> (Project, String, String) {
    let project = Project::new(&[("dags/d.yaml", DAG), ("load.sql", "SELECT 1;\n")]);
    assert_eq!(project.backstop(&["run", "d"]).code, Some(0));
    project.write("load.sql", "SELECT 1;\nSELECT 2;\n");
    assert_eq!(project.backstop(&["run", "d"]).code, Some(0));
    let listed = project.json(&["versions", "d", "--json"]);
    assert_eq!(listed.as_array().unwrap().len(), 2, "{listed}");
    let version = |place: usize| listed[place]["version"].as_str().unwrap().to_owned();
    let (now, before) = (version(0), version(1));
    (project, now, before)
}

#[test]
fn what_changed_between_two_versions_is_told_by_the_command() {
    let (project, now, before) = changed();
    let runs = project.json(&["runs", "list", "--json"]);
    assert_eq!((&runs[0]["version"], &runs[1]["version"]), (&json!(now), &json!(before)));
    let listed = project.json(&["versions", "d", "--json"]);
    assert_eq!((&listed[0]["first_run"], &listed[1]["last_run"]), (&runs[0]["run_id"], &runs[1]["run_id"]));
    let table = project.data(&["versions", "d"]);
    assert!(table.starts_with("VERSION ") && table.contains(&now[..12]) && table.contains(&before[..12]), "{table}");
    assert_eq!(project.data(&["versions", "d", &before[..12]]), DIFF);
    assert_eq!(project.data(&["versions", "d", &before, &now]), DIFF);
    let turned = project.data(&["versions", "d", &now, &before]);
    assert!(turned.contains("-SELECT 2;"), "{turned}");
    let same = project.backstop(&["versions", "d", &now, &now]);
    assert_eq!((same.code, same.stdout.as_str()), (Some(0), ""));
    assert!(same.stderr.contains("they are the same version"), "{}", same.stderr);
    let diff = project.json(&["versions", "d", &before, "--json"]);
    assert_eq!((&diff["files"][0]["change"], &diff["files"][0]["diff"]), (&json!("changed"), &json!(DIFF)));
}

#[test]
fn versions_that_are_not_there_are_refused_with_what_to_do() {
    let (project, now, _) = changed();
    for (wrong, told) in [
        (["versions", "e"].as_slice(), "no version of DAG `e` is kept"),
        (&["versions", "d", "nothing"], "DAG `d` has no version `nothing`"),
        (&["versions", "d", &now, "12z"], "DAG `d` has no version `12z`"),
        (&["versions", "d", ""], "2 versions of `d` begin with ``"),
    ] {
        let outcome = project.backstop(wrong);
        assert_eq!(outcome.code, Some(2), "{wrong:?}");
        assert!(outcome.stderr.contains(told) && outcome.stderr.contains("hint:"), "{wrong:?}: {}", outcome.stderr);
    }
    let nothing_ran = Project::new(&[("dags/d.yaml", DAG), ("load.sql", "SELECT 1;\n")]).backstop(&["versions", "d"]);
    assert_eq!(nothing_ran.code, Some(2), "{}", nothing_ran.stderr);
}

#[test]
fn the_api_lists_versions_and_compares_them() {
    let (project, now, before) = changed();
    let up = Up::of(&project);
    let versions = "/api/v1/dags/d/versions";
    assert_eq!(up.get(versions)["items"], project.json(&["versions", "d", "--json"]));
    let diff = up.get(&format!("{versions}/{before}/diff/{now}"));
    assert_eq!((&diff["from"], &diff["to"]), (&json!(before), &json!(now)));
    assert_eq!((&diff["files"][0]["path"], &diff["files"][0]["diff"]), (&json!("load.sql"), &json!(DIFF)));
    assert_eq!(up.get(&format!("{versions}/{now}/diff/{now}"))["files"], json!([]));
    let source = up.get(&format!("/api/v1/dags/d/source?version={before}"));
    let load = source["files"].as_array().unwrap().iter().find(|file| file["file"] == "load.sql").unwrap();
    assert_eq!(load["text"], "SELECT 1;\n");

    // The version in force is compared also before it ran.
    project.write("load.sql", "SELECT 3;\n");
    let in_force = || up.get("/api/v1/dags/d")["version"].as_str().unwrap().to_owned();
    wait("the new version", || in_force() != now);
    let diff = up.get(&format!("{versions}/{now}/diff/{}", in_force()));
    assert!(diff["files"][0]["diff"].as_str().unwrap().contains("+SELECT 3;"), "{diff}");

    // What ran is there also when the DAG's file is gone.
    std::fs::remove_file(project.path().join("dags/d.yaml")).unwrap();
    wait("the DAG to go", || up.ask("GET", "/api/v1/dags/d", None).status == 404);
    assert_eq!(up.get(versions)["items"].as_array().map(Vec::len), Some(2));
    assert_eq!(up.get(&format!("{versions}/{before}/diff/{now}"))["files"][0]["diff"], json!(DIFF));
    assert_eq!(project.data(&["versions", "d", &before]), DIFF);

    for unknown in [
        "e/versions".to_owned(),
        format!("d/versions/{before}/diff/nothing"),
        format!("d/versions/nothing/diff/{now}"),
        format!("e/versions/{before}/diff/{now}"),
    ] {
        let answer = up.ask("GET", &format!("/api/v1/dags/{unknown}"), None);
        assert_eq!((answer.status, &answer.body["type"]), (404, &json!("not-found")), "{unknown}: {}", answer.body);
        assert_ne!(answer.body["detail"], Value::Null);
    }
}
