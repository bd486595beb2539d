//! Measures loading: 1,000 DAGs of 20 tasks, and one DAG of 100,000 tasks. `cargo run --release -p backstop-project --example load_speed`.
#![allow(clippy::print_stdout)]

use backstop_project::{Bundle, Environment, load};
use std::fmt::Write;
use std::time::Instant;

fn dag(id: &str, tasks: usize) -> String {
    let mut text =
        format!("dag: {id}\nconnection: db\nschedule: '0 2 * * *'\ntimezone: Europe/Paris\ndefaults: {{retries: 3}}\ntasks:\n");
    for task in 0..tasks {
        let _ = write!(text, "  task_{task}:\n    sql: INSERT INTO t SELECT {task}, '{{{{ ds }}}}'\n    retry_delay: 10m\n");
        if task > 0 {
            let _ = writeln!(text, "    after: [task_{}]", task / 2);
        }
    }
    text
}

fn measure(what: &str, files: impl Iterator<Item = (String, String)>) {
    let files = files.map(|(path, text)| (path, text.into_bytes())).collect();
    let bundle = Bundle { root: "/project".into(), files };
    let environment = Environment::from([("BACKSTOP_CONN_DB".to_owned(), "postgres://h/d".to_owned())]);
    let start = Instant::now();
    let loaded = load(&bundle, &environment);
    println!("{what}: {:?}, {} DAGs, {} diagnostics", start.elapsed(), loaded.project.dags.len(), loaded.diagnostics.len());
}

fn main() {
    measure("1,000 DAGs of 20 tasks", (0..1000).map(|n| (format!("dags/d{n}.yaml"), dag(&format!("d{n}"), 20))));
    let plain = dag("d", 100_000).replace("{{ ds }}", "");
    measure("1 DAG of 100,000 tasks without templates", std::iter::once(("dags/d.yaml".to_owned(), plain)));
    measure("1 DAG of 100,000 tasks", std::iter::once(("dags/d.yaml".to_owned(), dag("d", 100_000))));
}
