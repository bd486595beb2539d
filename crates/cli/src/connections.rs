//! `backstop connections`: which there are, and whether they can be used.

use crate::args::{ConnectionsCommand, Place};
use crate::explain::{Exit, Problem};
use crate::output::{self, Painter};
use crate::sources::{self, Sources};
use crate::{markers, paths, runs, wire, words};
use backstop_connect::session::Call;
use backstop_connect::{Connector, Dialect, Observer, Session, Value};
use backstop_project::definition::{Connection, Project};
use backstop_runtime::{Redactor, connection_config};
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Instant;

/// Looks at connections.
pub(crate) fn connections(command: ConnectionsCommand, place: &Place) -> Result<Exit, Problem> {
    let sources = Sources::of_folder(paths::project(place)?);
    // DAGs are of no interest here.
    let loaded = backstop_project::load_only(&sources, &sources::environment(), &[]);
    sources::show(&sources, loaded.diagnostics.iter());
    match command {
        ConnectionsCommand::List { json } => list(&loaded.project, json),
        ConnectionsCommand::Test { ids, json } => test(&loaded.project, &ids, json),
    }
}

fn connector(id: &str, connection: &Connection, project: &Project) -> Result<Arc<dyn Connector>, backstop_connect::Error> {
    backstop_connect::connector(&connection_config(id, connection, &project.root))
}

fn list(project: &Project, json: bool) -> Result<Exit, Problem> {
    let redactor = Redactor::of(project);
    let rows: Vec<wire::Connection<'_>> = project
        .connections
        .iter()
        .map(|(id, connection)| {
            let made = connector(id, connection, project);
            wire::Connection {
                id,
                r#type: &connection.conn_type,
                target: made.as_ref().ok().map(|connector| redactor.clean(&connector.target()).into_owned()),
                origin: &connection.origin,
                description: connection.description.as_deref(),
                error: made.err().map(|error| redactor.clean(&error.message).into_owned()),
            }
        })
        .collect();
    if json {
        output::json(&rows)?;
        return Ok(Exit::Success);
    }
    if rows.is_empty() {
        output::note("there are no connections: add them to `connections:` in backstop.yaml, or set BACKSTOP_CONN_<ID>");
        return Ok(Exit::Success);
    }
    let mut table = vec![["ID", "TYPE", "TARGET", "DEFINED IN"].map(str::to_owned).to_vec()];
    table.extend(rows.into_iter().map(|row| {
        let target = row.target.or_else(|| row.error.map(|error| format!("wrong: {error}"))).unwrap_or_default();
        vec![row.id.to_owned(), row.r#type.to_owned(), target, row.origin.to_owned()]
    }));
    output::data(&output::table(&table, Painter::stdout()))?;
    Ok(Exit::Success)
}

fn test(project: &Project, ids: &[String], json: bool) -> Result<Exit, Problem> {
    let chosen = sources::connections(ids, project)?;
    let redactor = Redactor::of(project);
    let mut tests = Vec::new();
    runs::block_on(async {
        for (id, connection) in chosen {
            let tested = masked(test_one(id, connection, project).await, &redactor);
            if !json {
                output::data(&told(&tested, Painter::stdout()))?;
            }
            tests.push(tested);
        }
        Ok(())
    })?;
    if json {
        output::json(&tests)?;
    } else if tests.is_empty() {
        output::note("there are no connections to test");
    }
    Ok(if tests.iter().all(|tested| tested.ok) { Exit::Success } else { Exit::RunFailed })
}

/// A host or a login may be a secret too, and errors quote them.
fn masked(mut tested: wire::ConnectionTest, redactor: &Redactor) -> wire::ConnectionTest {
    let texts = [&mut tested.target, &mut tested.server_version, &mut tested.error].into_iter().flatten();
    texts.chain(&mut tested.causes).chain(&mut tested.hints).for_each(|text| *text = redactor.clean(text).into_owned());
    tested
}

fn told(tested: &wire::ConnectionTest, paint: Painter) -> String {
    let mut text = String::new();
    let target = tested.target.as_deref().unwrap_or_default();
    match &tested.error {
        None => {
            let version = tested.server_version.as_deref().unwrap_or("unknown version");
            let times = tested
                .open_ms
                .zip(tested.round_trip_ms)
                .map(|(open, trip)| format!("opened in {open:.1} ms, round trip {trip:.2} ms"));
            let _ = writeln!(text, "{} {}: {target}", paint.good("✓"), tested.id);
            let _ = writeln!(text, "    server: {}", words::short(version, 120));
            let _ = writeln!(text, "    {}", times.unwrap_or_default());
            let marker = match tested.marker_table {
                Some("ready") => "is there",
                Some(_) => "is not there yet: it is made when a task first writes",
                None => "is not used: this database cannot promise exactly once",
            };
            let _ = writeln!(text, "    marker table: {marker}");
        }
        Some(error) => {
            let _ = writeln!(text, "{} {}: {error}", paint.bad("✗"), tested.id);
            for cause in &tested.causes {
                let _ = writeln!(text, "    {} {cause}", paint.bold("cause:"));
            }
            for hint in &tested.hints {
                let _ = writeln!(text, "    {} {hint}", paint.note("hint:"));
            }
        }
    }
    text
}

async fn test_one(id: &str, connection: &Connection, project: &Project) -> wire::ConnectionTest {
    let mut tested = wire::ConnectionTest {
        id: id.to_owned(),
        ok: false,
        target: None,
        server_version: None,
        open_ms: None,
        round_trip_ms: None,
        marker_table: None,
        error: None,
        causes: Vec::new(),
        hints: Vec::new(),
    };
    match try_out(id, connection, project, &mut tested).await {
        Ok(()) => tested.ok = true,
        Err(error) => {
            let problem = Problem::from(error);
            tested.error = Some(problem.message);
            tested.causes = problem.causes;
            tested.hints = problem.hints;
        }
    }
    tested
}

async fn try_out(
    id: &str,
    connection: &Connection,
    project: &Project,
    tested: &mut wire::ConnectionTest,
) -> Result<(), backstop_connect::Error> {
    let connector = connector(id, connection, project)?;
    tested.target = Some(connector.target());
    let before = Instant::now();
    let mut session = connector.open().await?;
    tested.open_ms = Some(milliseconds(before));
    // The first query may pay for what the session prepares; the second tells the way there and back.
    first_value(&mut *session, "SELECT 1").await?;
    let before = Instant::now();
    first_value(&mut *session, "SELECT 1").await?;
    tested.round_trip_ms = Some(milliseconds(before));
    tested.server_version = first_value(&mut *session, version_query(connector.dialect())).await?;
    if connector.capabilities().markers {
        let is_there = session.marker_table_name(&markers::marker_table(connection)).await?.is_some();
        tested.marker_table = Some(if is_there { "ready" } else { "absent" });
    }
    session.close().await;
    Ok(())
}

fn milliseconds(since: Instant) -> f64 {
    (since.elapsed().as_secs_f64() * 100_000.0).round() / 100.0
}

fn version_query(dialect: Dialect) -> &'static str {
    match dialect {
        Dialect::PostgreSql | Dialect::MySql => "SELECT version()",
        Dialect::Sqlite => "SELECT 'SQLite ' || sqlite_version()",
        Dialect::SqlServer => "SELECT @@VERSION",
        Dialect::Oracle => "SELECT banner FROM v$version",
        Dialect::Generic => "SELECT 1",
    }
}

/// Keeps the first value of the first row.
#[derive(Default)]
struct First(Option<String>);

impl Observer for First {
    fn row(&mut self, _: usize, row: &[Value]) -> Result<(), String> {
        if self.0.is_none() {
            self.0 = row.first().map(in_words);
        }
        Ok(())
    }
}

fn in_words(value: &Value) -> String {
    match value {
        Value::Null => "NULL".to_owned(),
        Value::Bool(value) => value.to_string(),
        Value::Int(value) => value.to_string(),
        Value::UInt(value) => value.to_string(),
        Value::Float(value) => value.to_string(),
        Value::Decimal(text) | Value::Text(text) | Value::Json(text) => text.clone(),
        Value::Bytes(bytes) => format!("{} bytes", bytes.len()),
    }
}

async fn first_value(session: &mut dyn Session, sql: &str) -> Result<Option<String>, backstop_connect::Error> {
    let mut first = First::default();
    session.execute(&Call { sql, parameters: &[], copy_data: None }, 0, &mut first).await?;
    Ok(first.0)
}
