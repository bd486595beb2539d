//! Signals: the first cancels cleanly, the second kills.

use crate::project::Project;
use nix::sys::signal::Signal;

/// A script that first writes, then works for ever.
const ENDLESS: &str = "  load:\n    sql: |\n      INSERT INTO t VALUES (1);\n      INSERT INTO t WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT max(x) FROM c;\n  after: {sql: SELECT 1, after: [load]}\n";

fn endless() -> Project {
    let project = Project::with_tasks(ENDLESS);
    project.sql("CREATE TABLE t (n INTEGER)");
    project
}

fn cancels(signal: Signal) {
    let project = endless();
    let mut running = project.start(&["run", "d", "-v"]);
    running.wait_for("statement 2 of 2");
    running.signal(signal);
    let (code, said) = running.end();
    assert_eq!(code, Some(130), "{said}");
    assert!(said.contains("cancelling") && said.contains("was cancelled in"), "{said}");
    assert_eq!(project.ask("SELECT count(*) FROM t"), 0, "nothing of the script stays");
    assert_eq!(project.json(&["runs", "list", "--json"])[0]["state"], "cancelled");
}

#[test]
fn ctrl_c_interrupts_the_statement_and_nothing_is_committed() {
    cancels(Signal::SIGINT);
}

#[test]
fn sigterm_does_as_ctrl_c() {
    cancels(Signal::SIGTERM);
}

#[test]
fn a_second_ctrl_c_kills() {
    let project = Project::with_tasks("  stubborn: {shell: 'trap \"\" TERM; echo > up; while :; do sleep 1; done'}\n");
    let up = project.path().join("up");
    nix::unistd::mkfifo(&up, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let mut running = project.start(&["run", "d", "-v"]);
    // Ends when the shell has said that it is up and deaf.
    std::fs::read(&up).unwrap();
    running.signal(Signal::SIGINT);
    running.wait_for("cancelling");
    running.signal(Signal::SIGINT);
    let (code, said) = running.end();
    assert_eq!(code, Some(130), "{said}");
    assert!(said.contains("killed: what was going on is in doubt") && said.contains("--resume"), "{said}");
}
