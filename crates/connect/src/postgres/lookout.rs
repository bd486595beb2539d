//! What PostgreSQL tells of sessions at work: `pg_stat_activity`, `pg_blocking_pids`, and the views of progress.
//!
//! `pg_blocking_pids` and `pg_locks` look at the whole lock table, for which the server holds its partitions for a moment: they are asked
//! only of sessions that wait for a lock.

use super::Shared;
use super::session::{Failure, PostgresSession, text_of};
use crate::error::Error;
use crate::lookout::{BLOCKERS_MAX, Blocker, Lookout, Progress, SESSIONS_MAX, Sighting, View};
use crate::script::outline;
use crate::session::Session;
use crate::value::Value;
use async_trait::async_trait;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

/// Since when `pg_locks` tells how long somebody waits, and COPY tells how far it is.
const TELLS_WAITS_SINCE: u32 = 14;

/// What each command that tells its progress has: view, command, phase, done, total, unit, the first version.
const PROGRESS: &[(&str, &str, &str, &str, &str, &str, u32)] = &[
    ("pg_stat_progress_copy", "COPY", "command", "bytes_processed", "nullif(bytes_total, 0)", "bytes", 14),
    ("pg_stat_progress_create_index", "CREATE INDEX", "phase", "blocks_done", "nullif(blocks_total, 0)", "blocks", 12),
    ("pg_stat_progress_vacuum", "VACUUM", "phase", "heap_blks_scanned", "nullif(heap_blks_total, 0)", "blocks", 9),
    ("pg_stat_progress_analyze", "ANALYZE", "phase", "sample_blks_scanned", "nullif(sample_blks_total, 0)", "blocks", 13),
    ("pg_stat_progress_cluster", "CLUSTER", "phase", "heap_blks_scanned", "nullif(heap_blks_total, 0)", "blocks", 12),
];

const NEEDS_STATS: &str = "sessions of other users are hidden from this one: to see who blocks, run as an administrator";

/// A session beside the others.
pub(super) struct PostgresLookout {
    session: PostgresSession,
}

impl PostgresLookout {
    pub(super) async fn open(shared: Arc<Shared>) -> Result<Self, Error> {
        Ok(Self { session: PostgresSession::open(shared).await? })
    }

    async fn rows(&mut self, sql: &str) -> Result<Vec<Vec<Value>>, Error> {
        self.session.query(sql, &[]).await.map_err(Failure::into_error)
    }

    async fn sightings(&mut self, pids: &str) -> Result<Vec<(Sighting, Vec<String>)>, Error> {
        let waits = match self.session.major_version >= TELLS_WAITS_SINCE {
            true => {
                "(SELECT (extract(epoch FROM max(clock_timestamp() - l.waitstart)) * 1000)::bigint FROM pg_catalog.pg_locks l \
                 WHERE l.pid = a.pid AND NOT l.granted)"
            }
            false => "NULL::bigint",
        };
        let sql = format!(
            "SELECT a.pid, a.state, a.wait_event_type, a.wait_event, \
             (extract(epoch FROM clock_timestamp() - a.query_start) * 1000)::bigint, \
             CASE WHEN a.wait_event_type = 'Lock' THEN pg_catalog.array_to_string(pg_catalog.pg_blocking_pids(a.pid), ',') END, \
             CASE WHEN a.wait_event_type = 'Lock' THEN {waits} END \
             FROM pg_catalog.pg_stat_activity a WHERE a.pid IN ({pids})"
        );
        let rows = self.rows(&sql).await?;
        Ok(rows.into_iter().map(|row| sighting(&mut row.into_iter())).collect())
    }

    async fn blockers(&mut self, pids: &BTreeSet<String>, limits: &mut Vec<String>) -> Result<Vec<Blocker>, Error> {
        let sql = format!(
            "SELECT a.pid, a.usename, a.application_name, a.client_addr::text, a.state, a.query, \
             (extract(epoch FROM clock_timestamp() - a.xact_start) * 1000)::bigint, current_user \
             FROM pg_catalog.pg_stat_activity a WHERE a.pid IN ({})",
            joined(pids)
        );
        let mut blockers = Vec::new();
        for row in self.rows(&sql).await? {
            let mut row = row.into_iter();
            let mut next = || row.next().and_then(text_of).filter(|text| !text.is_empty());
            let (session, user, application, host, state) = (next(), next(), next(), next(), next());
            let query = next();
            let transaction_age = next().and_then(|text| milliseconds(&text));
            if query.as_deref() == Some("<insufficient privilege>") {
                let us = next().unwrap_or_default().replace('"', "\"\"");
                limits.push(format!("{NEEDS_STATS}: GRANT pg_read_all_stats TO \"{us}\""));
            }
            let statement = query.filter(|query| query != "<insufficient privilege>").map(|query| outline(&query));
            blockers.push(Blocker { session, user, application, host, state, statement, transaction_age });
        }
        Ok(blockers)
    }

    async fn progress(&mut self, pids: &str) -> Result<Vec<(String, Progress, Option<u64>)>, Error> {
        let version = self.session.major_version;
        let of_view = |(view, command, phase, done, total, unit, since): &(&str, &str, &str, &str, &str, &str, u32)| {
            let rows = if *command == "COPY" { "tuples_processed" } else { "NULL::bigint" };
            (version >= *since).then(|| {
                format!(
                    "SELECT pid, '{command}: ' || {phase}, {done}, {total}, '{unit}', {rows} \
                     FROM pg_catalog.{view} WHERE pid IN ({pids})"
                )
            })
        };
        let sql = PROGRESS.iter().filter_map(of_view).collect::<Vec<_>>().join(" UNION ALL ");
        if sql.is_empty() {
            return Ok(Vec::new());
        }
        let rows = self.rows(&sql).await?;
        Ok(rows.into_iter().filter_map(|row| progress(&mut row.into_iter())).collect())
    }
}

#[async_trait]
impl Lookout for PostgresLookout {
    async fn look(&mut self, sessions: &[String]) -> Result<View, Error> {
        let pids: BTreeSet<String> = sessions.iter().filter(|id| id.parse::<u32>().is_ok()).take(SESSIONS_MAX).cloned().collect();
        if pids.is_empty() {
            return Ok(View::default());
        }
        let asked = joined(&pids);
        let mut view = View::default();
        let seen = self.sightings(&asked).await?;
        let named: BTreeSet<String> = seen.iter().flat_map(|(_, blocking)| blocking).filter(|pid| *pid != "0").cloned().collect();
        let blockers = if named.is_empty() { Vec::new() } else { self.blockers(&named, &mut view.limits).await? };
        let progress = self.progress(&asked).await?;
        for (mut sighting, blocking) in seen {
            sighting.blocked_by = blocking.iter().map(|pid| blocker(pid, &blockers)).collect();
            if let Some((_, how_far, rows)) = progress.iter().find(|(pid, ..)| *pid == sighting.session) {
                sighting.progress = Some(how_far.clone());
                sighting.rows = *rows;
            }
            view.sightings.push(sighting);
        }
        view.limits.dedup();
        Ok(view)
    }

    async fn close(self: Box<Self>) {
        Box::new(self.session).close().await;
    }
}

fn blocker(pid: &str, known: &[Blocker]) -> Blocker {
    let found = known.iter().find(|blocker| blocker.session.as_deref() == Some(pid));
    found.cloned().unwrap_or_else(|| match pid {
        "0" => Blocker { statement: Some("a prepared transaction (see pg_prepared_xacts)".to_owned()), ..Blocker::default() },
        // It ended between the two questions.
        pid => Blocker { session: Some(pid.to_owned()), ..Blocker::default() },
    })
}

fn sighting(row: &mut dyn Iterator<Item = Value>) -> (Sighting, Vec<String>) {
    let mut next = || row.next().and_then(text_of).filter(|text| !text.is_empty());
    let session = next().unwrap_or_default();
    let state = next();
    let wait = match (next(), next()) {
        // The session waits for us, not we for it.
        (Some(kind), _) if kind == "Client" => None,
        (Some(kind), Some(event)) => Some(format!("{kind}: {event}")),
        (kind, None) => kind,
        (None, event) => event,
    };
    let statement_age = next().and_then(|text| milliseconds(&text));
    let blocking = next().unwrap_or_default();
    let blocked_for = next().and_then(|text| milliseconds(&text));
    let mut blocking: Vec<String> = blocking.split(',').filter(|pid| !pid.is_empty()).map(str::to_owned).collect();
    // Parallel workers of one leader are told once each.
    blocking.sort();
    blocking.dedup();
    blocking.truncate(BLOCKERS_MAX);
    (Sighting { session, state, wait, statement_age, blocked_for, ..Sighting::default() }, blocking)
}

fn progress(row: &mut dyn Iterator<Item = Value>) -> Option<(String, Progress, Option<u64>)> {
    let mut next = || row.next().and_then(text_of);
    let (pid, phase) = (next()?, next()?);
    let number = |text: Option<String>| text.and_then(|text| text.parse().ok());
    let done = number(next()).unwrap_or(0);
    let total = number(next());
    let unit = if next().as_deref() == Some("bytes") { "bytes" } else { "blocks" };
    let rows = number(next());
    Some((pid, Progress { phase, done, total, unit }, rows))
}

fn milliseconds(text: &str) -> Option<Duration> {
    // A clock that was set back makes an age negative.
    text.parse::<i64>().ok().map(|age| Duration::from_millis(u64::try_from(age).unwrap_or(0)))
}

fn joined(pids: &BTreeSet<String>) -> String {
    pids.iter().map(String::as_str).collect::<Vec<_>>().join(",")
}
