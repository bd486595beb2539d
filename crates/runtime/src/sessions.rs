//! Open sessions, shared by the tasks of a run: as many for a connection as its `sessions` setting allows.

use backstop_connect::{Canceller, Capabilities, Config, Connector, Dialect, Error, Secret, Session};
use backstop_project::definition::{Connection, Project};
use deadpool::managed::{Manager, Metrics, Object, Pool, PoolError, RecycleError, RecycleResult};
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

struct Opener(Arc<dyn Connector>);

impl Manager for Opener {
    type Type = Box<dyn Session>;
    type Error = Error;

    async fn create(&self) -> Result<Self::Type, Self::Error> {
        self.0.open().await
    }

    async fn recycle(&self, session: &mut Self::Type, _: &Metrics) -> RecycleResult<Self::Error> {
        if session.is_usable() { Ok(()) } else { Err(RecycleError::message("the session is broken")) }
    }
}

struct Place {
    connector: Arc<dyn Connector>,
    pool: Pool<Opener>,
}

/// All connections of a project, opened when first needed.
pub(crate) struct Sessions {
    project: Arc<Project>,
    connect: Connect,
    places: Mutex<HashMap<String, Arc<Place>>>,
}

impl Sessions {
    pub(crate) fn new(project: Arc<Project>, connect: Connect) -> Self {
        Self { project, connect, places: Mutex::new(HashMap::new()) }
    }

    async fn place(&self, id: &str) -> Result<Arc<Place>, Error> {
        let mut places = self.places.lock().await;
        if let Some(place) = places.get(id) {
            return Ok(place.clone());
        }
        let Some(connection) = self.project.connections.get(id) else {
            return Err(Error::config(format!("there is no connection `{id}` in this project")));
        };
        let connector = (self.connect)(&connection_config(id, connection, &self.project.root))?;
        let pool = Pool::builder(Opener(connector.clone()))
            .max_size(connection.sessions_max.max(1) as usize)
            .build()
            .map_err(|error| Error::config(format!("connection `{id}`: {error}")))?;
        let place = Arc::new(Place { connector, pool });
        places.insert(id.to_owned(), place.clone());
        Ok(place)
    }

    /// The lexical rules of a connection's scripts, and what it can do.
    pub(crate) async fn dialect(&self, id: &str) -> Result<(Dialect, Capabilities), Error> {
        let place = self.place(id).await?;
        Ok((place.connector.dialect(), place.connector.capabilities()))
    }

    /// A session, waiting for a free one when all are in use.
    pub(crate) async fn get(&self, id: &str) -> Result<Lease, Error> {
        let place = self.place(id).await?;
        match place.pool.get().await {
            Ok(session) => Ok(Lease { session: Some(session) }),
            Err(PoolError::Backend(error)) => Err(error),
            Err(other) => Err(Error::config(format!("connection `{id}`: {other}"))),
        }
    }
}

/// A session in use. Give it back with [`Lease::give_back`]; dropping it closes the link, because nothing is known of its state.
pub(crate) struct Lease {
    session: Option<Object<Opener>>,
}

impl Lease {
    /// The session.
    pub(crate) fn session(&mut self) -> &mut dyn Session {
        match &mut self.session {
            Some(session) => &mut ***session,
            None => unreachable!("a lease has its session until it is given back"),
        }
    }

    /// For a cancel from outside.
    pub(crate) fn canceller(&mut self) -> Arc<dyn Canceller> {
        self.session().canceller()
    }

    /// Makes the session forget what the task left behind, and lends it to others; a broken one is closed.
    pub(crate) async fn give_back(mut self) {
        if let Some(mut session) = self.session.take() {
            if session.is_usable() && session.reset().await.is_ok() {
                drop(session);
            } else {
                drop(Object::take(session));
            }
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(session) = self.session.take() {
            drop(Object::take(session));
        }
    }
}
