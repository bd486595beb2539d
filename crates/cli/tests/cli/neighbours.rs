//! What templates see of the runs and ticks beside theirs.

use crate::project::Project;
use crate::up::{Up, wait};

const SEEN: &str = "'{{ ds }}', '{{ prev_ds or 'none' }}', '{{ next_ds or 'none' }}', \
                    '{{ prev_data_interval_start_success.to_date_string() if prev_data_interval_start_success else 'none' }}', \
                    '{{ prev_data_interval_end_success.to_date_string() if prev_data_interval_end_success else 'none' }}'";

/// What the runs saw, one a line, in the order in which they ran.
fn seen(project: &Project) -> String {
    let database = rusqlite::Connection::open(project.path().join("data.db")).unwrap();
    let line = "SELECT ds || ' prev ' || prev || ' next ' || next || ' success ' || success_start || ' to ' || success_end FROM seen ORDER BY rowid";
    let mut statement = database.prepare(line).unwrap();
    let lines = statement.query_map([], |row| row.get::<_, String>(0)).unwrap();
    lines.collect::<Result<Vec<_>, _>>().unwrap().join("\n")
}

fn daily(more: &str) -> Project {
    let dag = format!(
        "dag: d\nconnection: db\nschedule: '@daily'\nstart_date: 2025-05-01\nend_date: 2025-05-06\n{more}params:\n  \
         fail: {{type: boolean, default: false}}\ntasks:\n  \
         note:\n    sql: |\n      INSERT INTO seen VALUES ({SEEN});\n      {{% if params.fail %}}SELECT wrong{{% endif %}}\n  other: {{empty: true}}\n"
    );
    let project = Project::new(&[("dags/d.yaml", &dag)]);
    project.sql("CREATE TABLE seen (ds, prev, next, success_start, success_end)");
    project
}

#[test]
fn a_run_by_hand_sees_ticks_and_the_last_success_before_its_date() {
    let project = daily("");
    let run = |date: &str, more: &[&str]| project.backstop(&[&["run", "d", "--logical-date", date], more].concat()).code;
    assert_eq!(run("2025-05-01", &[]), Some(0));
    // None of these is a success of the whole DAG.
    assert_eq!(run("2025-05-02", &["--dry-run"]), Some(0));
    assert_eq!(run("2025-05-02", &["--param", "fail=true"]), Some(1));
    assert_eq!(run("2025-05-03", &["--task", "other"]), Some(0));
    assert_eq!(run("2025-05-04T12:00:00Z", &[]), Some(0));
    assert_eq!(run("2025-05-06", &[]), Some(0));
    assert_eq!(run("2025-05-05", &[]), Some(0), "a later date that ran earlier is none before it");
    insta::assert_snapshot!(seen(&project), @r"
    2025-05-01 prev none next 2025-05-02 success none to none
    2025-05-04 prev 2025-05-04 next 2025-05-05 success 2025-05-01 to 2025-05-01
    2025-05-06 prev 2025-05-05 next none success 2025-05-04 to 2025-05-04
    2025-05-05 prev 2025-05-04 next 2025-05-06 success 2025-05-04 to 2025-05-04
    ");
    // Before anything runs only the schedule is known.
    let rendered = project.data(&["render", "d", "note", "--logical-date", "2025-05-02"]);
    assert!(rendered.contains("('2025-05-02', '2025-05-01', '2025-05-03', 'none', 'none')"), "{rendered}");
}

#[test]
fn scheduled_runs_see_those_before_them() {
    for (reading, expected) in [
        ("", "2025-05-03 prev 2025-05-02 next 2025-05-04 success 2025-05-02 to 2025-05-02"),
        ("data_interval: classic\n", "2025-05-03 prev 2025-05-02 next 2025-05-04 success 2025-05-02 to 2025-05-03"),
    ] {
        let project = daily(&format!("catchup: true\nmax_active_runs: 1\n{reading}"));
        let up = Up::of(&project);
        wait("six runs", || project.ask("SELECT count(*) FROM seen") == 6);
        wait("the end of the last", || up.get("/api/v1/runs?unfinished=true")["items"].as_array().unwrap().is_empty());
        let seen = seen(&project);
        assert_eq!(seen.lines().next().unwrap(), "2025-05-01 prev none next 2025-05-02 success none to none");
        assert_eq!(seen.lines().nth(2).unwrap(), expected, "{seen}");
    }
}

#[test]
fn a_run_that_is_retried_sees_what_it_saw_when_it_began() {
    let project = Project::with_tasks(
        "  note:\n    autocommit: true\n    sql: |\n      \
         INSERT INTO seen VALUES ('{{ prev_start_date_success or 'none' }} {{ dag_run.start_date }}');\n      INSERT INTO later VALUES (1);\n",
    );
    project.sql("CREATE TABLE seen (a)");
    assert_eq!(project.backstop(&["run", "d", "--logical-date", "2025-05-03"]).code, Some(1));
    let run = project.newest();
    project.sql("CREATE TABLE later (a)");
    assert_eq!(project.backstop(&["run", "d", "--logical-date", "2025-05-02"]).code, Some(0));
    assert_eq!(project.backstop(&["runs", "retry", &run, "--reason", "the table is there"]).code, Some(0));
    let outcome = project.backstop(&["run", "--resume", &run]);
    assert_eq!(outcome.code, Some(0), "its script is the one that committed: {}", outcome.stderr);
    assert_eq!((project.ask("SELECT count(*) FROM seen"), project.ask("SELECT count(*) FROM later")), (2, 2));
}
