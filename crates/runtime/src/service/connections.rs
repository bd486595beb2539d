//! The connections of the projects, as people may see them, and trying one out.

use super::{Error, Service};
use crate::connection_test::{Tested, test_connection};
use crate::redact::Redactor;
use crate::sessions::connection_config;
use backstop_connect::{Connector, ErrorKind, MarkerTable};
use backstop_project::definition::{Connection, Project};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// A test of a connection takes no longer.
const TEST_AT_MOST: Duration = Duration::from_secs(30);

/// A connection without its secrets.
#[derive(Clone, Debug)]
pub struct ConnectionShown {
    /// Its id.
    pub id: String,
    /// The project it is of.
    pub project: String,
    /// `postgres`, `mysql`, `sqlite`, ...
    pub conn_type: String,
    /// What is connected to; `None` where its settings are wrong.
    pub target: Option<String>,
    /// Where it is defined.
    pub origin: String,
    /// In the author's words.
    pub description: Option<String>,
    /// Sessions at most.
    pub sessions_max: u32,
    /// What is wrong with its settings.
    pub error: Option<String>,
}

impl Service {
    fn connector(
        &self,
        id: &str,
        connection: &Connection,
        project: &Project,
    ) -> Result<Arc<dyn Connector>, backstop_connect::Error> {
        (self.connect)(&connection_config(id, connection, &project.root))
    }

    /// The connections of all projects, by id.
    pub fn connections(&self) -> Vec<ConnectionShown> {
        let catalog = self.catalog();
        let mut shown: Vec<ConnectionShown> = catalog
            .projects()
            .iter()
            .flat_map(|(project, _)| {
                let redactor = Redactor::of(project);
                project.connections.iter().map(move |(id, connection)| {
                    let made = self.connector(id, connection, project);
                    ConnectionShown {
                        id: id.clone(),
                        project: project.name.clone(),
                        conn_type: connection.conn_type.clone(),
                        target: made.as_ref().ok().map(|connector| redactor.clean(&connector.target()).into_owned()),
                        origin: connection.origin.clone(),
                        description: connection.description.as_deref().map(|text| redactor.clean(text).into_owned()),
                        sessions_max: connection.sessions_max,
                        error: made.err().map(|error| redactor.clean(&error.message).into_owned()),
                    }
                })
            })
            .collect();
        shown.sort_by(|a, b| (&a.id, &a.project).cmp(&(&b.id, &b.project)));
        shown
    }

    /// How many sessions are open, by project and connection.
    pub fn sessions_open(&self) -> BTreeMap<(String, String), usize> {
        let catalog = self.catalog();
        let of_projects = catalog.projects().iter();
        let open = of_projects
            .flat_map(|(project, sessions)| sessions.open().into_iter().map(|(id, open)| ((project.name.clone(), id), open)));
        let mut all = BTreeMap::new();
        // A reload may have given two projects one name.
        open.for_each(|(key, open)| *all.entry(key).or_default() += open);
        all
    }

    /// Opens a connection and asks it something. With several projects that have one of this id, `project` says whose; else the first.
    /// Texts of what it found are masked.
    ///
    /// # Errors
    /// No such connection.
    pub async fn test_connection(&self, id: &str, project: Option<&str>) -> Result<(Tested, Redactor), Error> {
        let catalog = self.catalog();
        let mut all = catalog.projects().iter().filter(|(found, _)| project.is_none_or(|name| found.name == name));
        let found = all.find_map(|(project, _)| Some((project.clone(), project.connections.get(id)?)));
        let Some((project, connection)) = found else { return Err(Error::NoConnection(id.to_owned())) };
        let redactor = Redactor::of(&project);
        let connector = match self.connector(id, connection, &project) {
            Ok(connector) => connector,
            Err(error) => return Ok((Tested { error: Some(error), ..Tested::default() }, redactor)),
        };
        let markers = MarkerTable {
            schema: connection.marker_schema.clone(),
            name: connection.marker_table.clone().unwrap_or_else(|| MarkerTable::default().name),
        };
        let tested = tokio::time::timeout(TEST_AT_MOST, test_connection(&connector, &markers)).await.unwrap_or_else(|_| {
            let message = format!("it did not answer within {} seconds", TEST_AT_MOST.as_secs());
            let error = backstop_connect::Error::new(ErrorKind::Unreachable, format!("test the connection `{id}`"), message);
            Tested { target: Some(connector.target()), error: Some(error), ..Tested::default() }
        });
        Ok((tested, redactor))
    }
}
