//! "Why isn't this running?": each thing that a run or a task can wait for, said by the API and by the command line in the same words.

use crate::project::Project;
use crate::up::{Up, wait};
use serde_json::{Value, json};

/// A task that goes on until the file `done` is there.
const HOLD: &str = "shell: \"while [ -e backstop.yaml ] && [ ! -e done ]; do sleep 0.05; done\"";
/// A task that looks for what is not there.
const GATE: &str = "gate: {sensor: {sql: \"SELECT count(*) FROM gate\", poke_interval: 1h}}";
const BACKSTOP_YAML: &str =
    "name: test\nconnections:\n  db: {conn_type: sqlite, database: data.db}\npools: {one: 1, narrow: 1}\n";

fn project(dags: &[(&str, String)]) -> Project {
    let project = Project::new(&[]);
    project.write("backstop.yaml", BACKSTOP_YAML);
    for (dag, rest) in dags {
        project.write(&format!("dags/{dag}.yaml"), &format!("dag: {dag}\nconnection: db\n{rest}"));
    }
    project.sql("CREATE TABLE gate (a int)");
    project
}

fn run_why(up: &Up, run: &str) -> Value {
    up.get(&format!("/api/v1/runs/{run}/why"))
}

fn task_why(up: &Up, run: &str, task: &str) -> String {
    up.get(&format!("/api/v1/runs/{run}/tasks/{task}/why"))["why"].as_str().unwrap().to_owned()
}

/// Waits until a task says something, so that what follows is asked of a state that stays.
fn until(up: &Up, run: &str, task: &str, says: &str) {
    wait(&format!("`{task}` to say `{says}`"), || task_why(up, run, task).contains(says));
}

/// What the API says of the task alone, what it says of it with its run, and what the command line says either way: one sentence.
fn told(project: &Project, up: &Up, run: &str, task: &str) -> String {
    let sentence = task_why(up, run, task);
    let of_run = run_why(up, run);
    let with_run = of_run["tasks"].as_array().unwrap().iter().find(|one| one["task"] == task).unwrap();
    assert_eq!(with_run["why"], json!(sentence));
    let line = format!("{task}: {sentence}\n");
    assert_eq!(project.data(&["runs", "why", run, task]), line);
    let all = project.data(&["runs", "why", run]);
    assert!(all.contains(&line), "{all}");
    assert!(all.starts_with(&format!("run {run}: {}\n", of_run["why"].as_str().unwrap())), "{all}");
    sentence
}

/// The time at the end of a sentence.
fn ends_with_time(sentence: &str, before: &str) {
    let rest = sentence.strip_prefix(before);
    assert!(rest.is_some_and(|time| time.parse::<jiff::Timestamp>().is_ok()), "{sentence}");
}

#[test]
fn what_a_run_waits_for_is_said() {
    let gated = format!("tasks:\n  {GATE}\n");
    let daily = format!("schedule: '@daily'\nend_date: 2025-12-31\ncatchup: false\ntasks:\n  {GATE}\n");
    let project = project(&[
        ("halted", gated.clone()),
        ("limited", format!("max_active_runs: 1\n{gated}")),
        ("daily", daily),
        ("elsewhere", format!("tasks:\n  slow: {{{HOLD}}}\n  last: {{sql: SELECT 1, after: [slow]}}\n")),
    ]);
    let up = Up::of(&project);
    up.ask("PATCH", "/api/v1/dags/halted", Some(&json!({ "paused": true })));
    let run = up.trigger("halted", json!({}));
    assert_eq!(told(&project, &up, &run, "gate"), "its run waits: its DAG is paused");

    let (first, second) = (up.trigger("limited", json!({})), up.trigger("limited", json!({})));
    wait("the first to go on", || up.state(&first) == "running");
    let limit = "its run waits: its DAG has 1 runs going on, of 1 allowed (max_active_runs), and";
    let says = format!("{limit} 0 more wait in front of this one: it waits for {first}");
    assert_eq!(told(&project, &up, &second, "gate"), says);
    let third = up.trigger("limited", json!({}));
    let says = format!("{limit} 1 more wait in front of this one: it waits for {first}");
    assert_eq!(told(&project, &up, &third, "gate"), says);

    // A run of a backfill that is opened again waits for the backfill's own place.
    let asked = json!({ "from": "2025-05-01T00:00:00Z", "to": "2025-05-02T00:00:00Z", "max_active_runs": 1 });
    assert_eq!(up.ask("POST", "/api/v1/dags/daily/backfills", Some(&asked)).status, 201);
    let runs = || -> Vec<String> {
        let listed = up.get("/api/v1/runs?dag=daily");
        listed["items"].as_array().unwrap().iter().map(|run| run["run_id"].as_str().unwrap().to_owned()).collect()
    };
    wait("the first date", || runs().len() == 1);
    let first = runs().remove(0);
    up.ask("POST", &format!("/api/v1/runs/{first}/cancel"), Some(&json!({ "why": "look at the next" })));
    wait("the second date", || runs().len() == 2);
    let second = runs().remove(0);
    wait("it to go on", || up.state(&second) == "running");
    up.wait_for_state(&first, "cancelled");
    let cleared = up.ask("POST", &format!("/api/v1/runs/{first}/clear"), Some(&json!({ "why": "again" })));
    assert_eq!(cleared.status, 200, "{}", cleared.body);
    let says = "its run waits: backfills of its DAG have 1 runs going on, of 1 allowed (max_active_runs of the backfills), and 0 more \
                wait in front of this one: it waits for";
    assert_eq!(told(&project, &up, &first, "gate"), format!("{says} {second}"));

    let other = project.start(&["run", "elsewhere"]);
    let listed = || up.get("/api/v1/runs?dag=elsewhere")["items"][0]["run_id"].as_str().unwrap_or_default().to_owned();
    wait("the other process to begin", || !listed().is_empty());
    let run = listed();
    wait("its task", || up.task(&run, "slow") == "running");
    assert_eq!(run_why(&up, &run)["why"], "another process drives it");
    assert_eq!(
        told(&project, &up, &run, "last"),
        "another process drives its run; it waits for 1 of 1 upstream task instances (all_success): slow (running)"
    );
    project.write("done", "");
    assert_eq!(other.end().0, Some(0));
    assert_eq!(run_why(&up, &run)["why"], "it is over: success");
    assert_eq!(task_why(&up, &run, "last"), "it is done: success");
}

#[test]
fn what_a_task_waits_for_is_said() {
    let project = project(&[
        ("pooled", format!("tasks:\n  hold: {{{HOLD}, pool: one}}\n")),
        (
            "inside",
            format!(
                "max_active_tasks: 2\ntasks:\n  a: {{{HOLD}, pool: narrow}}\n  b: {{{HOLD}, pool: narrow}}\n  \
                 c: {{{HOLD}, pool: narrow}}\n  last: {{sql: SELECT 1, after: [a]}}\n"
            ),
        ),
        ("single", format!("max_active_tasks: 1\ntasks:\n  a: {{{HOLD}}}\n  b: {{{HOLD}}}\n")),
        (
            "timed",
            format!(
                "tasks:\n  {GATE}\n  fail: {{sql: SELECT * FROM missing, retries: 1, retry_delay: 1h}}\n  \
                 join: {{sql: SELECT 1, after: [gate, fail], trigger_rule: all_done}}\n"
            ),
        ),
        (
            "scoped",
            format!(
                "tasks:\n  ready: {{{HOLD}, setup: true}}\n  first: {{sql: SELECT 1, after: [ready]}}\n  free: {{empty: true}}\n  \
                 second: {{sql: SELECT 1, after: [first, free], trigger_rule: one_success}}\n  \
                 down: {{sql: SELECT 1, after: [ready, second], teardown: [ready]}}\n"
            ),
        ),
    ]);
    let up = Up::of(&project);
    let is_running = |run: &str, task: &str| wait(&format!("`{task}`"), || up.task(run, task) == "running");

    let first = up.trigger("pooled", json!({}));
    is_running(&first, "hold");
    let second = up.trigger("pooled", json!({}));
    until(&up, &second, "hold", "pool `one` is full");
    let third = up.trigger("pooled", json!({}));
    until(&up, &third, "hold", "pool `one` is full");
    let full = format!("pool `one` is full: 1 of 1 slots in use, 1 wanted, held by `hold` of run {first}");
    assert_eq!(told(&project, &up, &second, "hold"), format!("{full}; it goes next"));
    let says = format!("{full}; 1 goes before it, first `hold` of run {second} (priority 1)");
    assert_eq!(told(&project, &up, &third, "hold"), says);
    let slots = &run_why(&up, &third)["tasks"][0]["slots"];
    assert_eq!((&slots["pool"], &slots["holders"][0]["run_id"], &slots["ahead"]), (&json!("one"), &json!(first), &json!(1)));

    let inside = up.trigger("inside", json!({}));
    is_running(&inside, "a");
    let pool = "it needs a slot of pool `narrow`; 1 of 1 are held: a (running)";
    assert_eq!(told(&project, &up, &inside, "b"), pool);
    assert_eq!(told(&project, &up, &inside, "c"), format!("1 other goes before it in pool `narrow`, first b: {pool}"));

    let single = up.trigger("single", json!({}));
    is_running(&single, "a");
    assert_eq!(told(&project, &up, &single, "a"), "try 1 is running");
    assert_eq!(told(&project, &up, &single, "b"), "1 of max_active_tasks 1 are running, it is the next: a (running)");

    let timed = up.trigger("timed", json!({}));
    until(&up, &timed, "gate", "it looks again at");
    until(&up, &timed, "fail", "the next is due at");
    ends_with_time(&told(&project, &up, &timed, "gate"), "its condition did not hold; it looks again at ");
    ends_with_time(&told(&project, &up, &timed, "fail"), "try 1 failed; the next is due at ");
    assert_eq!(
        told(&project, &up, &timed, "join"),
        "it waits for 2 of 2 upstream task instances (all_done): gate (up_for_reschedule), fail (up_for_retry)"
    );

    let scoped = up.trigger("scoped", json!({}));
    is_running(&scoped, "ready");
    until(&up, &scoped, "second", "it waits for setups");
    assert_eq!(told(&project, &up, &scoped, "second"), "it waits for setups: ready (running)");

    let unknown = project.backstop(&["runs", "why", &scoped, "secnd"]);
    assert!(unknown.code == Some(2) && unknown.stderr.contains("there is no task instance `secnd`"), "{}", unknown.stderr);

    // On its way out it begins nothing more, and says so as long as something goes on.
    up.running.signal(nix::sys::signal::Signal::SIGTERM);
    until(&up, &inside, "b", "the service is stopping");
    assert_eq!(
        told(&project, &up, &inside, "b"),
        "the service is stopping and begins nothing more: the next one goes on with it"
    );
    assert_eq!(
        run_why(&up, &inside)["why"],
        "the service is stopping: what is running ends, and the next one goes on with the rest"
    );
    assert_eq!(task_why(&up, &inside, "a"), "try 1 is running");
    until(&up, &timed, "fail", "its run waits: the service is stopping: it goes on with the next one");
    project.write("done", "");
    assert_eq!(up.running.end().0, Some(0));
}

#[test]
fn what_only_a_person_can_mend_is_said() {
    let project = project(&[
        ("doubt", format!("tasks:\n  pay: {{{HOLD}}}\n  last: {{sql: SELECT 1, after: [pay]}}\n")),
        ("moved", format!("tasks:\n  {GATE}\n").replace("gate: {", "gate: {connection: other, ")),
    ]);
    let other = BACKSTOP_YAML.replace("pools:", "  other: {conn_type: sqlite, database: data.db}\npools:");
    project.write("backstop.yaml", &other);
    let up = Up::of(&project);
    let (doubt, moved) = (up.trigger("doubt", json!({})), up.trigger("moved", json!({})));
    wait("the payment", || up.task(&doubt, "pay") == "running");
    until(&up, &moved, "gate", "it looks again at");
    up.running.kill();
    project.write("done", "");
    std::fs::remove_file(project.path().join("dags/moved.yaml")).unwrap();
    project.write("backstop.yaml", BACKSTOP_YAML);
    let up = Up::of(&project);
    up.wait_for_state(&doubt, "stuck");
    wait("it to be let go", || run_why(&up, &doubt)["why"].as_str().unwrap().starts_with("a person must say"));
    let why = run_why(&up, &doubt)["why"].as_str().unwrap().to_owned();
    assert!(why.starts_with("a person must say what became of `pay`: a shell command leaves no marker"), "{why}");
    assert!(
        told(&project, &up, &doubt, "pay").starts_with("a person must say what became of it: a shell command leaves no marker")
    );
    assert_eq!(told(&project, &up, &doubt, "last"), "it waits for 1 of 1 upstream task instances (all_success): pay (in_doubt)");

    until(&up, &moved, "gate", "is tried again at");
    // The time moves on with every try: the words around it do not.
    let gate = task_why(&up, &moved, "gate");
    assert!(gate.starts_with("its run could not be driven, and is tried again at "), "{gate}");
    assert!(gate.contains("the sources it began with do not fit the project any more"), "{gate}");
    let said = project.data(&["runs", "why", &moved]);
    assert!(said.starts_with(&format!("run {moved}: it could not be driven, and is tried again at ")), "{said}");
    assert!(said.contains("\ngate: its run could not be driven, and is tried again at "), "{said}");
}

#[test]
fn what_all_runs_share_is_said_and_the_answer_is_bounded() {
    let many: String = (0..120).map(|number| format!("  t{number}: {{sql: SELECT 1, after: [gate]}}\n")).collect();
    let project = project(&[
        ("slow", format!("tasks:\n  hold: {{{HOLD}}}\n")),
        ("many", format!("max_active_runs: 300\ntasks:\n  {GATE}\n{many}")),
        ("crowd", format!("max_active_runs: 300\ntasks:\n  hold: {{{HOLD}}}\n")),
    ]);
    let up = Up::with(&project, &["--parallelism", "1"]);
    let many = up.trigger("many", json!({}));
    until(&up, &many, "gate", "it looks again at");
    let answer = run_why(&up, &many);
    assert_eq!((answer["tasks"].as_array().unwrap().len(), &answer["more"]), (100, &json!(21)));
    let said = project.backstop(&["runs", "why", &many]);
    assert_eq!(said.stdout.lines().count(), 101);
    assert!(said.stderr.contains("21 more are not listed: name a task"), "{}", said.stderr);
    assert!(project.data(&["runs", "why", &many, "t119"]).starts_with("t119: it waits for 1 of 1 upstream"));

    let (first, second) = (up.trigger("slow", json!({})), up.trigger("slow", json!({})));
    let holds = |run: &str| up.task(run, "hold") == "running";
    wait("one of them", || holds(&first) || holds(&second));
    let (has, waits) = if holds(&first) { (&first, &second) } else { (&second, &first) };
    until(&up, waits, "hold", "as many tasks go on");
    let says = format!("as many tasks go on as may over all runs: 1 of 1, held by `hold` of run {has}; it goes next");
    assert_eq!(told(&project, &up, waits, "hold"), says);

    // One that only waits for time takes no place; two have one, and the rest of the 256 go to the crowd.
    for _ in 0..254 {
        up.trigger("crowd", json!({}));
    }
    let last = up.trigger("crowd", json!({}));
    until(&up, &last, "hold", "over all DAGs");
    assert_eq!(
        told(&project, &up, &last, "hold"),
        "its run waits: the service drives 256 runs, of 256 allowed over all DAGs, and 0 more of its DAG wait in front of this one"
    );
    project.write("done", "");
}

/// A name that is mistyped is told from a task that is not there, with a service and without one.
#[test]
fn an_unknown_task_is_answered_with_a_near_name() {
    let project = project(&[("d", "tasks:\n  load: {sql: SELECT 1}\n  mapped: {sql: SELECT 1, for_each: [1, 2]}\n".to_owned())]);
    let up = Up::of(&project);
    let run = up.trigger("d", json!({}));
    up.wait_for_state(&run, "success");
    let refused = |task: &str, told: &str| {
        let outcome = project.backstop(&["runs", "why", &run, task]);
        assert_eq!(outcome.code, Some(2), "{task}: {}", outcome.stdout);
        assert!(outcome.stderr.contains(told), "{task}: {}", outcome.stderr);
    };
    refused("laod", "did you mean `load`?");
    refused("nothing_like_it", "tasks: load, mapped");
    refused("load[1]", "`load` is not mapped");
    refused("mapped[7]", "there is no task instance `mapped[7]`");
    let answer = up.ask("GET", &format!("/api/v1/runs/{run}/tasks/laod/why"), None);
    assert_eq!((answer.status, &answer.body["hint"]), (404, &json!("did you mean `load`?")), "{}", answer.body);
    up.running.kill();
    refused("laod", "did you mean `load`?");
    refused("nothing_like_it", "tasks: load, mapped");
}

/// What ended it, who, and what to do next: by the service, and where none is.
#[test]
fn what_ended_a_run_is_said() {
    let load = "tasks:\n  load: {sql: sql/load.sql}\n  report: {sql: SELECT 1, after: [load]}\n".to_owned();
    let project = project(&[("load", load), ("held", format!("tasks:\n  {GATE}\n"))]);
    project.write("sql/load.sql", "INSERT INTO gate VALUES (1);\n\nINSERT INTO gate SELECT n FROM mistyped;\n");
    let up = Up::of(&project);
    let failed = up.trigger("load", json!({}));
    up.wait_for_state(&failed, "failed");
    let cancelled = up.trigger("held", json!({}));
    wait("the sensor", || up.task(&cancelled, "gate") == "up_for_reschedule");
    let asked = project.backstop(&["runs", "cancel", &cancelled, "--reason", "wrong day", "--who", "ada"]);
    assert_eq!(asked.code, Some(0), "{}", asked.stderr);
    up.wait_for_state(&cancelled, "cancelled");
    assert_eq!(run_why(&up, &failed)["why"], "it is over: failed: `load` failed");
    let sentence = "it is done: failed, try 1: sql/load.sql:3:1: statement 2 of 2: no such table: mistyped (code 1)";
    assert_eq!(told(&project, &up, &failed, "load"), sentence);
    assert_eq!(run_why(&up, &failed)["tasks"].as_array().unwrap().len(), 1, "those alone that failed");
    assert_eq!(run_why(&up, &cancelled)["why"], "it is over: cancelled: ada: wrong day");
    let said = |run: &str| {
        let outcome = project.backstop(&["runs", "why", run]);
        format!("{}{}", crate::project::scrub(&outcome.stdout, project.path()), outcome.stderr)
    };
    let by_service = (said(&failed), said(&cancelled));
    insta::assert_snapshot!(by_service.0, @r#"
    run RUN: it is over: failed: `load` failed
    load: it is done: failed, try 1: sql/load.sql:3:1: statement 2 of 2: no such table: mistyped (code 1)
    note: what it did in full: backstop runs show RUN
    note: once mended, go on behind the last commit: backstop runs retry RUN --current-files --reason "what was mended"
    "#);
    insta::assert_snapshot!(by_service.1, @r#"
    run RUN: it is over: cancelled: ada: wrong day
    note: to go on behind the last commit: backstop runs retry RUN --reason "why"
    "#);
    assert_eq!(up.running.terminate().0, Some(0));
    assert_eq!((said(&failed), said(&cancelled)), by_service, "the same without a service");
}
