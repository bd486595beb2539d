//! What MariaDB and MySQL tell of sessions at work: the process list, InnoDB's transactions, and who waits for whom.

use super::Shared;
use super::session::{Failure, MySqlSession};
use crate::error::{Error, ErrorKind};
use crate::lookout::{BLOCKERS_MAX, Blocker, Lookout, Progress, SESSIONS_MAX, Sighting, View};
use crate::script::outline;
use crate::session::Session;
use crate::value::Value;
use async_trait::async_trait;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// What MariaDB says of who waits for which lock.
const WAITS_OF_MARIADB: &str = "SELECT r.trx_mysql_thread_id, b.trx_mysql_thread_id, \
    TIMESTAMPDIFF(SECOND, r.trx_wait_started, NOW()), TIMESTAMPDIFF(SECOND, b.trx_started, NOW()) \
    FROM information_schema.INNODB_LOCK_WAITS w \
    JOIN information_schema.INNODB_TRX r ON r.trx_id = w.requesting_trx_id \
    JOIN information_schema.INNODB_TRX b ON b.trx_id = w.blocking_trx_id \
    WHERE r.trx_mysql_thread_id IN ({ids}) LIMIT 1000";
/// The same of MySQL 8.
const WAITS_OF_MYSQL: &str = "SELECT r.trx_mysql_thread_id, b.trx_mysql_thread_id, \
    TIMESTAMPDIFF(SECOND, r.trx_wait_started, NOW()), TIMESTAMPDIFF(SECOND, b.trx_started, NOW()) \
    FROM performance_schema.data_lock_waits w \
    JOIN information_schema.INNODB_TRX r ON r.trx_id = w.REQUESTING_ENGINE_TRANSACTION_ID \
    JOIN information_schema.INNODB_TRX b ON b.trx_id = w.BLOCKING_ENGINE_TRANSACTION_ID \
    WHERE r.trx_mysql_thread_id IN ({ids}) LIMIT 1000";
/// Who has what others wait for by its name: tables that are altered while somebody uses them.
const METADATA_WAITS: &str = "SELECT wt.PROCESSLIST_ID, ht.PROCESSLIST_ID, NULL, NULL \
    FROM performance_schema.metadata_locks w \
    JOIN performance_schema.metadata_locks h ON h.OBJECT_TYPE = w.OBJECT_TYPE AND h.OBJECT_SCHEMA <=> w.OBJECT_SCHEMA \
      AND h.OBJECT_NAME <=> w.OBJECT_NAME AND h.LOCK_STATUS = 'GRANTED' AND h.OWNER_THREAD_ID <> w.OWNER_THREAD_ID \
    JOIN performance_schema.threads wt ON wt.THREAD_ID = w.OWNER_THREAD_ID \
    JOIN performance_schema.threads ht ON ht.THREAD_ID = h.OWNER_THREAD_ID \
    WHERE w.LOCK_STATUS = 'PENDING' AND wt.PROCESSLIST_ID IN ({ids}) LIMIT 1000";

/// A session beside the others.
pub(super) struct MySqlLookout {
    session: MySqlSession,
    is_mariadb: bool,
    has_performance_schema: bool,
    user: String,
}

/// One thread of the process list.
struct Thread {
    user: Option<String>,
    host: Option<String>,
    sighting: Sighting,
    statement: Option<String>,
}

/// Who waits for whom.
struct LockWait {
    blocker: String,
    waited: Option<Duration>,
    transaction_age: Option<Duration>,
}

impl MySqlLookout {
    pub(super) async fn open(shared: Arc<Shared>) -> Result<Self, Error> {
        let mut session = MySqlSession::open(shared).await?;
        let asked = session.query("SELECT VERSION(), @@performance_schema, CURRENT_USER()").await.map_err(Failure::into_error)?;
        let mut row = asked.into_iter().next().unwrap_or_default().into_iter();
        let version = row.next().and_then(text).unwrap_or_default();
        let has_performance_schema = row.next().and_then(text).is_some_and(|value| value == "1" || value == "ON");
        let user = row.next().and_then(text).unwrap_or_default();
        let is_mariadb = version.to_ascii_lowercase().contains("mariadb");
        // So that a look at a server in trouble ends. One that knows neither limits nothing.
        let limit = if is_mariadb { "SET max_statement_time = 5" } else { "SET max_execution_time = 5000" };
        let _ = session.query(limit).await;
        Ok(Self { session, is_mariadb, has_performance_schema, user })
    }

    async fn rows(&mut self, sql: &str) -> Result<Vec<Vec<Value>>, Error> {
        self.session.query(sql).await.map_err(Failure::into_error)
    }

    async fn threads(&mut self, ids: &str) -> Result<BTreeMap<String, Thread>, Error> {
        let more = match self.is_mariadb {
            true => "CAST(TIME_MS AS UNSIGNED), STAGE, MAX_STAGE, CAST(PROGRESS * 10 AS UNSIGNED), EXAMINED_ROWS",
            false => "TIME * 1000, NULL, NULL, NULL, NULL",
        };
        let sql = format!(
            "SELECT ID, USER, HOST, COMMAND, STATE, LEFT(INFO, 1024), {more} FROM information_schema.PROCESSLIST WHERE ID IN ({ids})"
        );
        let rows = self.rows(&sql).await?;
        Ok(rows
            .into_iter()
            .map(|row| thread(&mut row.into_iter()))
            .map(|thread| (thread.sighting.session.clone(), thread))
            .collect())
    }

    /// Rows changed by the transactions of sessions, and the sessions whose transaction waits for a lock.
    async fn transactions(&mut self, ids: &str, limits: &mut Vec<String>) -> Result<Vec<(String, bool, Option<u64>)>, Error> {
        let sql = format!(
            "SELECT trx_mysql_thread_id, trx_state, trx_rows_modified FROM information_schema.INNODB_TRX \
             WHERE trx_mysql_thread_id IN ({ids})"
        );
        let rows = match self.rows(&sql).await {
            Ok(rows) => rows,
            Err(error) if error.kind == ErrorKind::Permission => {
                limits.push(self.needs("PROCESS ON *.*"));
                return Ok(Vec::new());
            }
            Err(error) => return Err(error),
        };
        let of_row = |row: Vec<Value>| {
            let mut row = row.into_iter();
            let id = row.next().and_then(text)?;
            let waits = row.next().and_then(text).is_some_and(|state| state == "LOCK WAIT");
            Some((id, waits, row.next().and_then(number)))
        };
        Ok(rows.into_iter().filter_map(of_row).collect())
    }

    fn needs(&self, right: &str) -> String {
        let (user, host) = self.user.rsplit_once('@').unwrap_or((&self.user, "%"));
        format!(
            "sessions of other users and their locks are hidden from this one: to see who blocks, run as an administrator: \
             GRANT {right} TO '{user}'@'{host}'"
        )
    }

    async fn waits(&mut self, sql: &str, ids: &str, limits: &mut Vec<String>) -> Result<Vec<(String, LockWait)>, Error> {
        let sql = sql.replace("{ids}", ids);
        let rows = match self.rows(&sql).await {
            Ok(rows) => rows,
            Err(error) if error.kind == ErrorKind::Permission => {
                limits.push(self.needs(if self.is_mariadb { "PROCESS ON *.*" } else { "SELECT ON performance_schema.*" }));
                return Ok(Vec::new());
            }
            Err(error) => return Err(error),
        };
        let of_row = |row: Vec<Value>| {
            let mut row = row.into_iter();
            let waiting = row.next().and_then(text)?;
            let blocker = row.next().and_then(text)?;
            let mut seconds = || row.next().and_then(number).map(Duration::from_secs);
            Some((waiting, LockWait { blocker, waited: seconds(), transaction_age: seconds() }))
        };
        Ok(rows.into_iter().filter_map(of_row).collect())
    }
}

#[async_trait]
impl Lookout for MySqlLookout {
    async fn look(&mut self, sessions: &[String]) -> Result<View, Error> {
        let ids: BTreeSet<String> = sessions.iter().filter(|id| id.parse::<u64>().is_ok()).take(SESSIONS_MAX).cloned().collect();
        if ids.is_empty() {
            return Ok(View::default());
        }
        let asked = joined(&ids);
        let mut limits = Vec::new();
        let mut threads = self.threads(&asked).await?;
        let transactions = self.transactions(&asked, &mut limits).await?;
        let mut waits = Vec::new();
        if transactions.iter().any(|(_, waits, _)| *waits) {
            let sql = if self.is_mariadb { WAITS_OF_MARIADB } else { WAITS_OF_MYSQL };
            waits.extend(self.waits(sql, &asked, &mut limits).await?);
        }
        let is_metadata = |thread: &Thread| thread.sighting.wait.as_deref().is_some_and(|wait| wait.contains("metadata lock"));
        if threads.values().any(is_metadata) {
            match self.has_performance_schema {
                true => waits.extend(self.waits(METADATA_WAITS, &asked, &mut limits).await?),
                false => limits.push("who holds a table's metadata lock is told by performance_schema, which is off".to_owned()),
            }
        }
        let named: BTreeSet<String> = waits.iter().map(|(_, wait)| wait.blocker.clone()).collect();
        let blockers = if named.is_empty() { BTreeMap::new() } else { self.threads(&joined(&named)).await? };
        for (waiting, wait) in waits {
            let Some(thread) = threads.get_mut(&waiting) else { continue };
            let sighting = &mut thread.sighting;
            let is_known = sighting.blocked_by.iter().any(|blocker| blocker.session.as_deref() == Some(&wait.blocker));
            if is_known || sighting.blocked_by.len() >= BLOCKERS_MAX {
                continue;
            }
            sighting.blocked_for = sighting.blocked_for.max(wait.waited);
            sighting.wait = sighting.wait.take().or_else(|| Some("a row lock".to_owned()));
            sighting.blocked_by.push(blocker(wait, &blockers));
        }
        for (id, waits, rows) in transactions {
            let Some(thread) = threads.get_mut(&id) else { continue };
            thread.sighting.rows = rows;
            if waits {
                thread.sighting.wait = Some("a row lock".to_owned());
            }
        }
        Ok(View { sightings: threads.into_values().map(|thread| thread.sighting).collect(), limits })
    }

    async fn close(self: Box<Self>) {
        Box::new(self.session).close().await;
    }
}

fn blocker(wait: LockWait, known: &BTreeMap<String, Thread>) -> Blocker {
    let thread = known.get(&wait.blocker);
    Blocker {
        user: thread.and_then(|thread| thread.user.clone()),
        application: None,
        host: thread.and_then(|thread| thread.host.clone()),
        state: thread.and_then(|thread| thread.sighting.state.clone()),
        statement: thread.and_then(|thread| thread.statement.clone()),
        transaction_age: wait.transaction_age,
        session: Some(wait.blocker),
    }
}

fn thread(row: &mut dyn Iterator<Item = Value>) -> Thread {
    let mut next = || row.next().and_then(text).filter(|text| !text.is_empty());
    let (session, user, host) = (next().unwrap_or_default(), next(), next());
    let (command, wait, statement) = (next(), next(), next().map(|info| outline(&info)));
    let mut numbers = || next().and_then(|text| text.parse::<u64>().ok());
    let (age, stage, stages, per_mille) = (numbers(), numbers(), numbers(), numbers());
    let progress = stages.filter(|stages| *stages > 0).map(|stages| Progress {
        phase: format!("stage {} of {stages}", stage.unwrap_or(0)),
        done: per_mille.unwrap_or(0),
        total: Some(1000),
        unit: "per mille",
    });
    // A thread that sleeps within a transaction has no statement; what it ran is not told.
    let sighting = Sighting {
        session,
        state: command,
        wait: wait.filter(|state| state.starts_with("Waiting") || state.ends_with("lock")),
        statement_age: age.map(Duration::from_millis),
        progress,
        ..Sighting::default()
    };
    Thread { user, host, sighting, statement }
}

fn text(value: Value) -> Option<String> {
    match value {
        Value::Text(text) | Value::Decimal(text) | Value::Json(text) => Some(text),
        Value::Int(number) => Some(number.to_string()),
        Value::UInt(number) => Some(number.to_string()),
        Value::Bytes(bytes) => Some(String::from_utf8_lossy(&bytes).into_owned()),
        Value::Null | Value::Bool(_) | Value::Float(_) => None,
    }
}

fn number(value: Value) -> Option<u64> {
    text(value)?.parse().ok()
}

fn joined(ids: &BTreeSet<String>) -> String {
    ids.iter().map(String::as_str).collect::<Vec<_>>().join(",")
}
