//! Runs whose process is gone, or is not.

use crate::project::{Project, Running, scrub};

/// Commits one segment, then counts to what table `speed` says.
const SLOW: &str = "  make: {sql: 'INSERT INTO t VALUES (1)'}\n  count:\n    sql: INSERT INTO t WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c WHERE x < (SELECT n FROM speed)) SELECT max(x) FROM c\n    after: [make]\n";

fn slow() -> (Project, Running) {
    let project = Project::with_tasks(SLOW);
    project.sql("CREATE TABLE t (n INTEGER); CREATE TABLE speed (n INTEGER); INSERT INTO speed VALUES (1000000000000)");
    let mut running = project.start(&["run", "d", "-v", "--logical-date", "2025-05-01"]);
    running.wait_for("count: statement 1 of 1");
    (project, running)
}

fn killed() -> Project {
    let (project, running) = slow();
    running.kill();
    project.sql("UPDATE speed SET n = 10");
    project
}

fn assert_applied_once(project: &Project) {
    assert_eq!(project.ask("SELECT count(*) FROM t WHERE n = 1"), 1);
    assert_eq!(project.ask("SELECT count(*) FROM t WHERE n = 10"), 1);
    assert_eq!(project.json(&["runs", "list", "--json"]).as_array().unwrap().len(), 1);
}

#[test]
fn the_same_command_goes_on_after_kill_9() {
    let project = killed();
    let outcome = project.backstop(&["run", "d", "--logical-date", "2025-05-01"]);
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    assert!(
        outcome.stderr.starts_with("note: run RUN of this date and these parameters is not finished: resuming it"),
        "{}",
        outcome.stderr
    );
    assert_applied_once(&project);
}

#[test]
fn a_run_whose_process_is_gone_is_told_from_one_that_goes_on() {
    let (project, running) = slow();
    assert_eq!(project.json(&["runs", "list", "--json"])[0]["abandoned"], false);
    assert!(!project.data(&["runs", "show", "latest"]).contains("gone"));
    running.kill();
    let run = &project.json(&["runs", "list", "--json"])[0];
    assert_eq!((&run["state"], &run["abandoned"]), (&"running".into(), &true.into()));
    let outcome = project.backstop(&["runs", "list"]);
    insta::assert_snapshot!(format!("{}{}", scrub(&outcome.stdout, project.path()), outcome.stderr), @r#"
    RUN  DAG  STATE  LOGICAL DATE  BEGUN  TOOK
    RUN  d  running (its process is gone)  TIME  TIME
    note: nobody runs RUN of `d`: resume it with `backstop run --resume RUN`
    "#);
    let shown = project.scrubbed(&["runs", "show", "latest"]);
    assert!(shown.contains("running (its process is gone)\nresume  backstop run --resume RUN\n"), "{shown}");
    project.sql("UPDATE speed SET n = 10");
    assert_eq!(project.backstop(&["run", "--resume", "latest"]).code, Some(0), "a look took nothing");
    assert_eq!(project.json(&["runs", "list", "--json"])[0]["abandoned"], false);
}

#[test]
fn a_run_is_resumed_by_the_beginning_of_its_id() {
    let project = killed();
    let id = project.newest();
    let outcome = project.backstop(&["run", "--resume", &id[..13]]);
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    assert_applied_once(&project);
    let outcome = project.backstop(&["run", "--resume", &id]);
    assert_eq!(outcome.code, Some(2));
    insta::assert_snapshot!(outcome.stderr.lines().skip_while(|line| !line.starts_with("error")).collect::<Vec<_>>().join("\n"), @r#"
    error: run RUN is over (success): there is nothing to resume
      hint: a new run, which leaves --resume out, does all of it a second time
    "#);
    assert_eq!(project.backstop(&["run", "--resume", "latest"]).code, Some(2));
}

#[test]
fn a_run_goes_on_with_the_files_it_began_with() {
    let project = killed();
    project.write("dags/d.yaml", "dag: d\nconnection: db\ntasks:\n  other: {sql: 'INSERT INTO t VALUES (99)'}\n");
    let outcome = project.backstop(&["run", "--resume", "latest"]);
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("files have changed since the run began"), "{}", outcome.stderr);
    assert_applied_once(&project);
    assert_eq!(project.ask("SELECT count(*) FROM t WHERE n = 99"), 0);
}

#[test]
fn without_a_terminal_another_date_starts_a_new_run_and_says_how_to_resume_the_old() {
    let project = killed();
    let outcome = project.backstop(&["run", "d"]);
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    let warning = outcome.stderr.lines().take(2).collect::<Vec<_>>().join("\n");
    insta::assert_snapshot!(warning, @r#"
    warning: run RUN of `d`, begun TIME, is not finished, and nobody runs it; starting a new run
             resume it with: backstop run d --resume RUN
    "#);
}

#[test]
fn a_run_that_goes_on_is_not_taken() {
    let (project, running) = slow();
    let id = project.newest();
    let holder = running.id().to_string();
    for arguments in [["run", "d", "--logical-date", "2025-05-01"].as_slice(), &["run", "--resume", &id]] {
        let output = project.command(arguments).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(&format!("is being run by process {holder} ")), "{}", scrub(&said, project.path()));
    }
    running.kill();
}

#[test]
fn of_two_that_start_at_once_for_one_date_only_one_runs() {
    // Long enough that the other looks for runs meanwhile.
    let project = Project::with_tasks(
        "  pay:\n    sql: INSERT INTO t WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c WHERE x < 200000) SELECT max(x) FROM c\n",
    );
    project.sql("CREATE TABLE t (n INTEGER)");
    for day in 1..=8 {
        let date = format!("2025-05-{day:02}");
        let arguments = ["run", "d", "--logical-date", &date, "--skip-if-successful"];
        let ended = [project.start(&arguments), project.start(&arguments)].map(crate::project::Running::end);
        assert_eq!(project.ask("SELECT count(*) FROM t"), day, "{ended:?}");
        let refused = ended.iter().filter(|(code, _)| *code != Some(0));
        for (code, said) in refused {
            assert_eq!(*code, Some(2), "{said}");
            assert!(said.contains("is being run by "), "{said}");
            assert!(said.contains("start it a second time with --new, if that is what you mean"), "{said}");
        }
    }
    let (project, running) = slow();
    let output = project.command(&["run", "d", "--logical-date", "2025-05-01"]).output().unwrap();
    let said = scrub(&String::from_utf8_lossy(&output.stderr), project.path());
    assert!(said.starts_with("error: `d` for TIME is being run by "), "{said}");
    running.kill();
}

#[test]
fn a_shell_task_that_was_killed_waits_for_a_person() {
    let project = Project::with_tasks("  pay: {shell: 'echo paying > began; sleep 20'}\n  book: {sql: SELECT 1, after: [pay]}\n");
    let fifo = project.path().join("began");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let running = project.start(&["run", "d"]);
    // Opening it waits until the task has opened it, too.
    assert_eq!(std::fs::read_to_string(&fifo).unwrap(), "paying\n");
    running.kill();
    let outcome = project.backstop(&["run", "--resume", "latest"]);
    assert_eq!(outcome.code, Some(3), "{}", outcome.stderr);
    insta::assert_snapshot!(outcome.stderr.split_once("\n\n").unwrap().1, @r#"
    ? pay is in doubt: it is not known whether its last attempt took effect
        the process that ran this attempt is gone
        effect: not known yet
        why: a shell command leaves no marker, so nobody can know whether it did its work
        log: backstop logs RUN pay
        Find out what it did, then say so:
          backstop run --resume RUN --resolve pay=committed --why "how you know"
          backstop run --resume RUN --resolve pay=not-committed --why "how you know"

    ? d is stuck in TOOK: 1 in_doubt, 1 none
      it goes on when a person has said what is in doubt
      backstop runs show RUN
    "#);
    let shown = project.scrubbed(&["runs", "show", "latest"]);
    for told in
        ["state  stuck\n", "? pay is in doubt", "--resume RUN --resolve pay=committed", "it goes on when a person has said"]
    {
        assert!(shown.contains(told), "it does not say `{told}`:\n{shown}");
    }
    assert_eq!(project.json(&["runs", "list", "--json"])[0]["abandoned"], false, "it waits for a person, not for a process");
    let outcome = project.backstop(&["run", "--resume", "latest", "--resolve", "pay=committed"]);
    assert_eq!(outcome.code, Some(2), "a reason is wanted");
    let outcome = project.backstop(&["run", "--resume", "latest", "--resolve", "pay=committed", "--why", "the bank confirms it"]);
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    let events = project.data(&["runs", "events", "latest"]);
    assert!(events.contains("because: the bank confirms it"), "{events}");
}
