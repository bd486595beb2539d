//! Open sessions, shared by the tasks of a run: as many for a connection as its `sessions` setting allows.

mod kept;
mod shelf;

use crate::monitor::{Monitor, Ticket, User, Watched};
use backstop_connect::{Canceller, Capabilities, Config, Connector, Dialect, Error, Secret, Session};
use backstop_core::{InstanceId, RunId};
use backstop_project::definition::{Connection, Project};
pub(crate) use kept::{ConnectionKey, Kept};
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
    monitor: Arc<Monitor>,
    shelves: Mutex<HashMap<String, Opened>>,
}

/// A connection that was used.
#[derive(Clone)]
struct Opened {
    shelf: Arc<Shelf>,
    watched: Arc<Watched>,
}

impl Sessions {
    /// None is open yet. `connect` makes connectors.
    pub fn new(project: Arc<Project>, connect: Connect) -> Self {
        Self::watched(project, connect, Arc::new(Monitor::default()))
    }

    /// The same, with its statements watched by this monitor.
    pub fn watched(project: Arc<Project>, connect: Connect, monitor: Arc<Monitor>) -> Self {
        Self { project, connect, monitor, shelves: Mutex::new(HashMap::new()) }
    }

    /// Who uses which session.
    pub fn monitor(&self) -> &Arc<Monitor> {
        &self.monitor
    }

    async fn opened(&self, id: &str) -> Result<Opened, Error> {
        let mut shelves = self.shelves.lock().await;
        if let Some(opened) = shelves.get(id) {
            return Ok(opened.clone());
        }
        let Some(connection) = self.project.connections.get(id) else {
            return Err(Error::config(format!("there is no connection `{id}` in this project")));
        };
        let connector = (self.connect)(&connection_config(id, connection, &self.project.root))?;
        let sessions_max = connection.sessions_max.max(1) as usize;
        let watched = self.monitor.connection(&self.project.root, id, sessions_max, connector.clone());
        let (kept, key) = (self.monitor.kept(), self.key(id));
        let shelf = Arc::new(Shelf::new(connector, sessions_max, kept.count(&key)));
        kept.tell(&key, &shelf);
        let opened = Opened { shelf, watched };
        shelves.insert(id.to_owned(), opened.clone());
        Ok(opened)
    }

    /// How many sessions each connection has that was used so far. One that is being looked up just now is left out.
    pub fn open(&self) -> Vec<(String, usize)> {
        let shelves = self.shelves.try_lock();
        shelves.map(|shelves| shelves.iter().map(|(id, opened)| (id.clone(), opened.shelf.open())).collect()).unwrap_or_default()
    }

    /// The lexical rules of a connection's scripts, and what it can do.
    pub(crate) async fn dialect(&self, id: &str) -> Result<(Dialect, Capabilities), Error> {
        let shelf = self.opened(id).await?.shelf;
        Ok((shelf.connector().dialect(), shelf.connector().capabilities()))
    }

    /// How a connection is told from those of other projects.
    pub(crate) fn key(&self, id: &str) -> ConnectionKey {
        (self.project.root.clone(), id.to_owned())
    }

    /// How a connection is told from those of other projects, and how many sessions it may have at once; `None` when there is none.
    pub(crate) fn places(&self, id: &str) -> Option<(ConnectionKey, u32)> {
        let connection = self.project.connections.get(id)?;
        Some((self.key(id), connection.sessions_max))
    }

    /// A session, waiting for a free one when all are in use.
    pub(crate) async fn get(&self, id: &str, purpose: Purpose, user: User) -> Result<Lease, Error> {
        let Opened { shelf, watched } = self.opened(id).await?;
        let ticket = self.monitor.begin(&watched, user);
        let mut session = shelf.take(purpose).await?;
        ticket.got(&mut *session, purpose);
        Ok(Lease { shelf, session: Some(session), ticket: Arc::new(ticket), keeps: None, purpose, may_renew: true })
    }

    /// The same, for an attempt of a task: when it loses the session, its place is kept until the engine says that it is not in doubt.
    pub(crate) async fn get_for_attempt(&self, id: &str, purpose: Purpose, user: User) -> Result<Lease, Error> {
        let keeper = Keeper {
            kept: self.monitor.kept().clone(),
            key: self.key(id),
            run: user.run.clone(),
            instance: user.instance.clone(),
        };
        let mut lease = self.get(id, purpose, user).await?;
        lease.keeps = Some(keeper);
        Ok(lease)
    }

    /// An attempt in doubt keeps a session of a connection.
    pub(crate) fn keep(&self, id: &str, run: &RunId, instance: &InstanceId) {
        self.monitor.kept().keep(&self.key(id), run, instance);
    }

    /// How many sessions still work on the server for an attempt that nobody has here; `None` where that cannot be told.
    ///
    /// # Errors
    /// When the server could not be asked.
    pub(crate) async fn leftovers(&self, id: &str, user: User) -> Result<Option<usize>, Error> {
        let name = user.name();
        let mut lease = self.get(id, Purpose::Ask, user).await?;
        let ours = self.monitor.sessions_in_use(&self.project.root, id);
        let left = lease.session().leftovers(&name, &ours).await;
        lease.give_back().await;
        left
    }
}

/// In whose name a lost session is kept.
struct Keeper {
    kept: Arc<Kept>,
    key: ConnectionKey,
    run: RunId,
    instance: InstanceId,
}

/// A session in use. Give it back with [`Lease::give_back`]; dropping it closes the link, because nothing is known of its state.
pub(crate) struct Lease {
    shelf: Arc<Shelf>,
    session: Option<Box<dyn Session>>,
    ticket: Arc<Ticket>,
    keeps: Option<Keeper>,
    purpose: Purpose,
    /// Nothing was begun in it, and it was not renewed before.
    may_renew: bool,
}

impl Lease {
    /// To tell what runs in the session.
    pub(crate) fn ticket(&self) -> Arc<Ticket> {
        self.ticket.clone()
    }

    /// Somebody else works in it from now on. On the server it keeps its name.
    pub(crate) fn work_for(&self, user: User) {
        self.ticket.work_for(user);
    }

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

    /// Something was begun in the session: it cannot be renewed any more.
    pub(crate) fn has_begun(&mut self) {
        self.may_renew = false;
    }

    /// Another session in the place of one that its server ended while it lay idle. False when something was begun in that, when it was
    /// renewed before, or when none could be opened.
    pub(crate) async fn renew(&mut self) -> bool {
        if !std::mem::take(&mut self.may_renew) {
            return false;
        }
        let Ok(mut session) = self.shelf.connector().open().await else { return false };
        self.ticket.got(&mut *session, self.purpose);
        self.session = Some(session);
        true
    }

    /// Lends the session to others, once it has forgotten what the task left behind; a broken one is closed.
    pub(crate) async fn give_back(mut self) {
        // One that is lost is dropped.
        if let Some(session) = self.session.take_if(|session| session.is_usable()) {
            self.shelf.give_back(session).await;
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if self.session.take().is_some() {
            // Before its place is free: nobody else takes it.
            if let Some(Keeper { kept, key, run, instance }) = &self.keeps {
                kept.keep(key, run, instance);
            }
            self.shelf.lost_one();
        }
    }
}
