//! The lists and grids of a service with a million task instances, over HTTP: while nothing else happens, and while it runs what it is asked
//! to.

use crate::http::Client;
use crate::lists::{DAGS, ROUNDS, RUNS, TASKS, dag_id, row, run_id, second, task_id};
use crate::measure::Row;
use crate::projects;
use crate::up::Up;
use anyhow::{Result, ensure};
use serde_json::{Value, json};
use std::ffi::OsStr;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

/// Starts a service on the store, and asks it.
pub(crate) fn run(binary: &Path, folder: &Path, store: &Path) -> Result<Vec<Row>> {
    let project = folder.join("project");
    for dag in 0..DAGS {
        let dag = dag_id(dag);
        let mut text = format!("dag: {dag}\ntasks:\n");
        for task in 0..TASKS {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "  {}: {{empty: true}}", task_id(task));
        }
        projects::write(&project, "sqlite:effects.db", dag.as_str(), &text)?;
    }
    let up = Up::start(binary, &project, &[OsStr::new("--store"), store.as_os_str()])?;
    let mut rows = measure(&mut up.client()?, "over HTTP")?;
    rows.extend(while_running(&up)?);
    Ok(rows)
}

fn measure(client: &mut Client, how: &str) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    let spread = |round: u64| round * 7919 % RUNS;
    let asked: [(&str, &dyn Fn(u64) -> String); 7] = [
        ("/runs, a page of 50", &|round| format!("runs?limit=50&before={}", run_id(spread(round)))),
        ("/runs of a DAG", &|round| format!("runs?limit=50&dag={}&before={}", dag_id(round), run_id(spread(round)))),
        ("/runs that failed", &|_| "runs?limit=50&state=failed".into()),
        ("/runs of a DAG until a date", &|round| {
            format!("runs?limit=50&dag={}&logical_date_to={}", dag_id(round), second(spread(round)))
        }),
        ("/runs that are not over", &|_| "runs?limit=50&unfinished=true".into()),
        ("/grid, 25 runs of 100 tasks", &|round| format!("dags/{}/grid?before={}", dag_id(round), run_id(spread(round)))),
        ("/durations of a task", &|round| format!("dags/{}/tasks/{}/durations", dag_id(round), task_id(round % TASKS))),
    ];
    for (what, path) in asked {
        let mut times = Vec::new();
        for round in 0..ROUNDS {
            let begin = Instant::now();
            client.get(&format!("/api/v1/{}", path(round)))?;
            times.push(begin.elapsed());
        }
        rows.push(row(what, how, times));
    }
    for (what, filter) in [
        ("/task_instances, page after page of 50", ""),
        ("/task_instances that failed", "&state=failed"),
        ("/task_instances of a DAG that failed", "&dag=dag_03&state=failed"),
        ("/task_instances of a DAG and a task", "&dag=dag_03&task=task_0007"),
        ("/task_instances in doubt (there is none)", "&dag=dag_03&state=in_doubt"),
    ] {
        rows.push(row(what, how, pages(client, filter)?));
    }
    Ok(rows)
}

/// Page after page of one list, and from its beginning again.
fn pages(client: &mut Client, filter: &str) -> Result<Vec<std::time::Duration>> {
    let mut times = Vec::new();
    let mut next = Value::Null;
    for _ in 0..ROUNDS {
        let after = next.as_str().map_or_else(String::new, |next| format!("&after={next}"));
        let begin = Instant::now();
        let mut page = client.get(&format!("/api/v1/task_instances?limit=50{filter}{after}"))?;
        times.push(begin.elapsed());
        ensure!(page["items"].is_array(), "no page of task instances: {page}");
        next = page["next"].take();
    }
    Ok(times)
}

/// The same while runs of a hundred tasks are asked for one after the other, as fast as they are done.
fn while_running(up: &Up) -> Result<Vec<Row>> {
    let stop = AtomicBool::new(false);
    let done = AtomicU64::new(0);
    let begin = Instant::now();
    let mut rows = std::thread::scope(|scope| {
        let running = scope.spawn(|| -> Result<()> {
            let mut client = up.client()?;
            while !stop.load(Ordering::Relaxed) {
                client.post(&format!("/api/v1/dags/{}/runs", dag_id(done.load(Ordering::Relaxed))), &json!({}))?;
                up.wait_until_done()?;
                done.fetch_add(1, Ordering::Relaxed);
            }
            Ok(())
        });
        let rows = up.client().and_then(|mut client| measure(&mut client, "over HTTP while runs go on"));
        stop.store(true, Ordering::Relaxed);
        running.join().map_err(|_| anyhow::anyhow!("who asks for runs panicked"))??;
        rows
    })?;
    let rate = (done.load(Ordering::Relaxed) * TASKS) as f64 / begin.elapsed().as_secs_f64();
    rows.push(Row {
        what: "the same: done meanwhile".into(),
        figure: format!("{rate:.0} empty tasks/s"),
        against: String::new(),
        ratio: String::new(),
        bar: "",
    });
    Ok(rows)
}
