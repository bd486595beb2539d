//! Projects made for measuring.

use anyhow::Result;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

/// Writes a project with one DAG.
pub(crate) fn write(folder: &Path, connection: &str, dag: &str, text: &str) -> Result<()> {
    fs::create_dir_all(folder.join("dags"))?;
    fs::write(folder.join("backstop.yaml"), format!("name: bench\nconnections:\n  db: {{uri: \"{connection}\"}}\n"))?;
    fs::write(folder.join("dags").join(format!("{dag}.yaml")), text)?;
    Ok(())
}

/// `tasks` tasks, each after the one before.
pub(crate) fn chain(dag: &str, tasks: usize, sql: impl Fn(usize) -> String) -> String {
    let mut text = format!("dag: {dag}\nconnection: db\ntasks:\n");
    for n in 0..tasks {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "  t{n}:\n    sql: {}", sql(n));
        if n > 0 {
            let _ = writeln!(text, "    after: [t{}]", n - 1);
        }
    }
    text
}

/// `tasks` tasks of one transaction, each after the one before.
pub(crate) fn transaction(dag: &str, tasks: usize, sql: &str) -> String {
    let mut text = format!("dag: {dag}\nconnection: db\ntasks:\n  g:\n    transaction: true\n    tasks:\n");
    for n in 0..tasks {
        let after = if n > 0 { format!(", after: [t{}]", n - 1) } else { String::new() };
        let _ = writeln!(text, "      t{n}: {{sql: \"{sql}\"{after}}}");
    }
    text
}

/// `tasks` tasks that wait for nothing, 16 at once.
pub(crate) fn fan_out(dag: &str, tasks: usize, sql: impl Fn(usize) -> String) -> String {
    let mut text = format!("dag: {dag}\nconnection: db\nmax_active_tasks: 16\ntasks:\n");
    for n in 0..tasks {
        let _ = writeln!(text, "  t{n}:\n    sql: {}", sql(n));
    }
    text
}

/// Empty tasks: one, then all others, then one.
pub(crate) fn empty(dag: &str, tasks: usize) -> String {
    let mut text = format!("dag: {dag}\nmax_active_tasks: 1000\ntasks:\n  first: {{empty: true}}\n");
    for n in 0..tasks - 2 {
        let _ = writeln!(text, "  t{n}: {{empty: true, after: [first]}}");
    }
    let _ = writeln!(text, "  last: {{empty: true, after: [t0, t1, t2]}}");
    text
}
