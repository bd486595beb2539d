//! `backstop connections`: which there are, and whether they can be used.

use crate::args::{ConnectionsCommand, Place};
use crate::explain::{Exit, Problem};
use crate::output::{self, Painter};
use crate::sources::{self, Sources};
use crate::{markers, paths, runs, wire, words};
use backstop_connect::Connector;
use backstop_project::definition::{Connection, Project};
use backstop_runtime::{Redactor, Tested, connection_config};
use std::fmt::Write as _;
use std::sync::Arc;

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
    let found = match connector(id, connection, project) {
        Ok(connector) => backstop_runtime::test_connection(&connector, &markers::marker_table(connection)).await,
        Err(error) => Tested { error: Some(error), ..Tested::default() },
    };
    tested.target = found.target;
    tested.server_version = found.server_version;
    tested.open_ms = found.open_ms;
    tested.round_trip_ms = found.round_trip_ms;
    tested.marker_table = found.has_marker_table.map(|is_there| if is_there { "ready" } else { "absent" });
    tested.ok = found.error.is_none();
    if let Some(error) = found.error {
        let problem = Problem::from(error);
        tested.error = Some(problem.message);
        tested.causes = problem.causes;
        tested.hints = problem.hints;
    }
    tested
}
