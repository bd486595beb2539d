//! Markers of runs that leave. They go first: of a run that the store does not know nobody can say any more that they are not needed.

use super::Pruned;
use crate::sessions::{Connect, connection_config};
use backstop_connect::prune::{Markers, ROWS_MAX, RUNS_MAX};
use backstop_connect::{Config, Error, MarkerTable};
use backstop_core::RunId;
use backstop_project::definition::Project;
use std::time::Duration;

/// A database that does not answer so long is passed over; its markers stay.
const DATABASE_TIME_MAX: Duration = Duration::from_secs(30);

/// A database that may have markers.
#[derive(Clone, Debug)]
pub struct MarkerPlace {
    /// For people: the connection's name.
    pub name: String,
    /// How to reach it.
    pub config: Config,
    /// The table.
    pub table: MarkerTable,
}

/// The databases of a project's connections.
pub fn marker_places(project: &Project) -> Vec<MarkerPlace> {
    let place = |(id, connection): (&String, &backstop_project::definition::Connection)| MarkerPlace {
        name: id.clone(),
        config: connection_config(id, connection, &project.root),
        table: MarkerTable {
            schema: connection.marker_schema.clone(),
            name: connection.marker_table.clone().unwrap_or_else(|| MarkerTable::default().name),
        },
    };
    project.connections.iter().map(place).collect()
}

/// Deletes all markers of these runs wherever the database can be reached. Where it cannot, that is noted, and it is not asked again.
pub(super) async fn forget(connect: &Connect, places: &[MarkerPlace], runs: &[RunId], pruned: &mut Pruned) {
    let names: Vec<String> = runs.iter().map(RunId::to_string).collect();
    for place in places {
        if pruned.markers_left.contains_key(&place.name) || is_no_file(&place.config) {
            continue;
        }
        let mut count = 0;
        let outcome = tokio::time::timeout(DATABASE_TIME_MAX, forget_in(connect, place, &names, &mut count)).await;
        pruned.markers += count;
        let why = match outcome {
            Ok(Ok(())) => continue,
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("it did not answer within {} s", DATABASE_TIME_MAX.as_secs()),
        };
        pruned.markers_left.insert(place.name.clone(), why);
    }
}

async fn forget_in(connect: &Connect, place: &MarkerPlace, names: &[String], count: &mut u64) -> Result<(), Error> {
    let connector = connect(&place.config)?;
    if !connector.capabilities().markers {
        return Ok(());
    }
    let mut session = connector.open().await?;
    if let Some(mut markers) = Markers::find(&mut *session, connector.dialect(), &place.table).await? {
        for some in names.chunks(RUNS_MAX) {
            loop {
                let gone = markers.prune(some, Duration::ZERO).await?;
                *count += gone;
                if gone < ROWS_MAX {
                    break;
                }
            }
        }
    }
    session.close().await;
    Ok(())
}

/// A SQLite file that nothing has made yet has no markers, and should not be made for them.
fn is_no_file(config: &Config) -> bool {
    let path = config.database.as_deref().filter(|path| config.conn_type == "sqlite" && !path.starts_with(':'));
    path.is_some_and(|path| !config.base_dir.join(path).exists())
}
