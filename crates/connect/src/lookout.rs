//! Looking at sessions at work, from a session beside them: what they wait for, who blocks them, how far they are.
//!
//! A lookout only reads the server's own tables of activity. It takes no locks of users' tables, changes nothing, and needs no more rights
//! than its connection has: what those do not let it see it says, with the grant that is missing. Of the statements of strangers it tells
//! the [`outline`](crate::script::outline()) alone.

use crate::error::Error;
use async_trait::async_trait;
use std::time::Duration;

/// Sessions that one look asks about, at most.
pub const SESSIONS_MAX: usize = 256;
/// Blockers that are told of one session, at most.
pub const BLOCKERS_MAX: usize = 8;

/// A session beside the others.
#[async_trait]
pub trait Lookout: Send {
    /// Looks at sessions by their [`server_id`](crate::Session::server_id)s; those behind the first [`SESSIONS_MAX`] are left out.
    /// One that is not there any more is in no sighting.
    ///
    /// # Errors
    /// When the server could not be asked: open another lookout.
    async fn look(&mut self, sessions: &[String]) -> Result<View, Error>;

    /// Says goodbye. Dropping does the same less politely.
    async fn close(self: Box<Self>);
}

/// What was seen in one look.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct View {
    /// One a session that is there.
    pub sightings: Vec<Sighting>,
    /// What could not be seen, and which right is missing; empty when all could.
    pub limits: Vec<String>,
}

/// One session at one moment. Absent is what the server does not tell.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sighting {
    /// Its id.
    pub session: String,
    /// In the server's word: `active`, `idle in transaction`, `Query`.
    pub state: Option<String>,
    /// What it waits for, in the server's words: `Lock: transactionid`, `IO: DataFileRead`.
    pub wait: Option<String>,
    /// How long the statement runs, by the server's clock.
    pub statement_age: Option<Duration>,
    /// Who keeps it waiting; empty when nobody does.
    pub blocked_by: Vec<Blocker>,
    /// Since when it waits for them.
    pub blocked_for: Option<Duration>,
    /// How far it is.
    pub progress: Option<Progress>,
    /// Rows it has handled so far.
    pub rows: Option<u64>,
}

/// A session that keeps another waiting.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Blocker {
    /// Its id; `None` is nobody who could be named: another process, a prepared transaction.
    pub session: Option<String>,
    /// Whose it is.
    pub user: Option<String>,
    /// What the client says it is.
    pub application: Option<String>,
    /// Where it comes from.
    pub host: Option<String>,
    /// In the server's word.
    pub state: Option<String>,
    /// The [`outline`](crate::script::outline()) of what it runs, or ran last. For one without an id: what is known of it.
    pub statement: Option<String>,
    /// How long its transaction is open.
    pub transaction_age: Option<Duration>,
}

/// How far a command is that reports it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Progress {
    /// Which command or phase, in the server's words.
    pub phase: String,
    /// Done so far, in the unit.
    pub done: u64,
    /// Of so much, where that is known.
    pub total: Option<u64>,
    /// `bytes`, `blocks`, `rows`, `per mille`.
    pub unit: &'static str,
}
