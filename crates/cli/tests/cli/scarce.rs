//! Connections with fewer sessions than tasks that want one.

use crate::server::Database;

fn list(items: u32) -> String {
    (0..items).map(|item| item.to_string()).collect::<Vec<_>>().join(", ")
}

/// `db` has one session.
fn settings(project: &crate::project::Project) {
    let settings = std::fs::read_to_string(project.path().join("backstop.yaml")).unwrap();
    project.write("backstop.yaml", &settings.replace("{uri:", "{sessions: 1, uri:"));
}

#[test]
fn the_wait_for_a_session_is_no_part_of_an_execution_timeout() {
    let Some(database) = Database::postgres() else { return };
    // One behind the other they take 12 seconds.
    let tasks = format!("  some: {{for_each: [{}], sql: SELECT pg_sleep(1), execution_timeout: 8s}}\n", list(12));
    let project = database.project(&tasks);
    settings(&project);
    let run = project.backstop(&["run", "d"]);
    assert_eq!(run.code, Some(0), "{}", run.stderr);
}
