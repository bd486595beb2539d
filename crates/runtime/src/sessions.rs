//! Open sessions, shared by the tasks of a run: as many for a connection as its `sessions` setting allows.

mod shelf;

use backstop_connect::{Canceller, Capabilities, Config, Connector, Dialect, Error, Secret, Session};
use backstop_project::definition::{Connection, Project};
pub(crate) use shelf::Purpose;
use shelf::Shelf;
use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use tokio::sync::Mutex;

/// Makes connectors. Real ones come from `backstop_connect::connector`; tests give their own.
pub type Connect = Arc<dyn Fn(&Config) -> Result<Arc<dyn Connector>, Error> + Send + Sync>;

/// The settings of a project's connection as the connectors read them.
pub fn connection_config(id: &str, connection: &Connection, base_dir: &Path) -> Config {
    Config {
        id: id.to_owned(),
        conn_type: connection.conn_type.clone(),
        host: connection.host.clone(),
        port: connection.port,
        login: connection.login.clone(),
        password: connection.password.clone().map(Secret::new),
        database: connection.database.clone(),
        extra: connection.extra.clone(),
        base_dir: base_dir.to_path_buf(),
    }
}

/// All connections of a project, opened when first needed.
pub struct Sessions {
    project: Arc<Project>,
    connect: Connect,
    shelves: Mutex<HashMap<String, Arc<Shelf>>>,
}

impl Sessions {
    /// None is open yet. `connect` makes connectors.
    pub fn new(project: Arc<Project>, connect: Connect) -> Self {
        Self { project, connect, shelves: Mutex::new(HashMap::new()) }
    }

    async fn shelf(&self, id: &str) -> Result<Arc<Shelf>, Error> {
        let mut shelves = self.shelves.lock().await;
        if let Some(shelf) = shelves.get(id) {
            return Ok(shelf.clone());
        }
        let Some(connection) = self.project.connections.get(id) else {
            return Err(Error::config(format!("there is no connection `{id}` in this project")));
        };
        let connector = (self.connect)(&connection_config(id, connection, &self.project.root))?;
        let shelf = Arc::new(Shelf::new(connector, connection.sessions_max.max(1) as usize));
        shelves.insert(id.to_owned(), shelf.clone());
        Ok(shelf)
    }

    /// The lexical rules of a connection's scripts, and what it can do.
    pub(crate) async fn dialect(&self, id: &str) -> Result<(Dialect, Capabilities), Error> {
        let shelf = self.shelf(id).await?;
        Ok((shelf.connector().dialect(), shelf.connector().capabilities()))
    }

    /// A session, waiting for a free one when all are in use.
    pub(crate) async fn get(&self, id: &str, purpose: Purpose) -> Result<Lease, Error> {
        let shelf = self.shelf(id).await?;
        let session = shelf.take(purpose).await?;
        Ok(Lease { shelf, session: Some(session) })
    }
}

/// A session in use. Give it back with [`Lease::give_back`]; dropping it closes the link, because nothing is known of its state.
pub(crate) struct Lease {
    shelf: Arc<Shelf>,
    session: Option<Box<dyn Session>>,
}

impl Lease {
    /// The session.
    pub(crate) fn session(&mut self) -> &mut dyn Session {
        match &mut self.session {
            Some(session) => &mut **session,
            None => unreachable!("a lease has its session until it is given back"),
        }
    }

    /// For a cancel from outside.
    pub(crate) fn canceller(&mut self) -> Arc<dyn Canceller> {
        self.session().canceller()
    }

    /// Lends the session to others, once it has forgotten what the task left behind; a broken one is closed.
    pub(crate) async fn give_back(mut self) {
        if let Some(session) = self.session.take() {
            self.shelf.give_back(session).await;
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if self.session.take().is_some() {
            self.shelf.lost_one();
        }
    }
}
