//! Running a unit to its commit.
//!
//! A unit goes out as one group of messages with one Sync at its end: BEGIN, the statements, the marker, COMMIT. The server skips all of
//! it after the first error, so nothing can run outside its transaction and nothing can commit behind an error. Where something has to
//! be read before the commit may be sent (rows that an observer may stop, a result for the marker, COPY data), the commit is held back
//! and goes out with the marker in a second group.
//!
//! A session that still has to forget what was done with it before does so at the head of the group: when that fails, nothing behind
//! it runs.
//!
//! The server is told to flush its answers between statements, so that the observer sees where it is. Not after the last one: the
//! duration of the last statement of a unit that goes out whole includes the commit.

use super::marker::{Row, insert_parameters, insert_sql};
use super::session::{Failure, PostgresSession, RESET, Reset, Status, contains_word, is_copy_in};
use crate::error::{Error, ErrorKind};
use crate::marker::{Found, MarkerKey, MarkerTable, OUTCOME_COMMITTED};
use crate::session::{Call, Ignore, Observer, StatementOutcome, Terms, Unit, UnitError, UnitOutcome, Wrap};
use crate::words::{first_words, lifts_read_only, refuse_transaction_control};
use std::ops::Range;
use std::time::Instant;

/// Bounds of one group, so that a long unit does not lie in memory twice.
const GROUP_STATEMENTS_MAX: usize = 256;
const GROUP_BYTES_MAX: usize = 1024 * 1024;

/// How often the marker table is made anew within one unit: it may be dropped again by somebody else.
const TABLE_TRIES: u32 = 3;

/// How an attempt at a unit ended, short of an error to report.
enum Attempt {
    Done,
    /// The marker's key is taken; everything was rolled back.
    KeyTaken,
    /// The marker table is not there (any more); everything was rolled back.
    TableMissing(Error),
}

/// The marker of a unit, with its table's qualified name.
struct Marker<'a> {
    table: String,
    key: &'a MarkerKey,
    digest: &'a str,
}

impl PostgresSession {
    pub(super) async fn run_wrapped(&mut self, unit: &Unit<'_>, observer: &mut dyn Observer) -> Result<UnitOutcome, UnitError> {
        if unit.wrap == Wrap::Bare {
            return self.run_bare(unit, observer).await;
        }
        refuse_transaction_control(unit).map_err(|(place, error)| UnitError::RolledBack { place: Some(place), error })?;
        if unit.wrap == Wrap::ReadOnly && unit.calls.iter().any(|call| lifts_read_only(call.sql)) {
            return Err(UnitError::Writes);
        }
        let Wrap::Marked { table, key, digest, check_first } = &unit.wrap else {
            return self.attempt(unit, None, observer).await.map(|_| UnitOutcome::Done);
        };
        key.check().map_err(before_anything)?;
        let mut tries_left = TABLE_TRIES;
        let mut checks = *check_first;
        loop {
            let place = self.marker_table(table).await?;
            if checks && let Some(found) = self.find_marker(&place, key).await.map_err(|error| self.before_begin(error))? {
                return found_already(found);
            }
            checks = false;
            let marker = Marker { table: place, key, digest };
            match self.attempt(unit, Some(&marker), observer).await? {
                Attempt::Done => return Ok(UnitOutcome::Done),
                Attempt::KeyTaken => match self.find_marker(&marker.table, key).await.map_err(before_anything)? {
                    Some(found) => return found_already(found),
                    None if tries_left == 0 => return Err(before_anything(vanished(key))),
                    None => tries_left -= 1,
                },
                Attempt::TableMissing(error) if tries_left == 0 => return Err(before_anything(error)),
                Attempt::TableMissing(_) => {
                    tries_left -= 1;
                    self.forget_marker_table(table);
                }
            }
        }
    }

    async fn attempt(
        &mut self,
        unit: &Unit<'_>,
        marker: Option<&Marker<'_>>,
        observer: &mut dyn Observer,
    ) -> Result<Attempt, UnitError> {
        self.rows_affected = 0;
        let groups = groups(unit.calls);
        let is_whole = groups.len() == 1 && may_commit_unseen(unit);
        let last = groups.len() - 1;
        for (number, group) in groups.into_iter().enumerate() {
            let ends_here = is_whole && number == last;
            let mut sending = Sending { begins: number == 0, calls: group, ends: ends_here };
            // COPY data is asked for by the server: the statement goes alone, after whatever opens the transaction.
            if sending.calls.len() == 1 && is_copy_in(&unit.calls[sending.calls.start]) {
                let place = sending.calls.start;
                sending.calls = place..place;
                if sending.begins
                    && let Some(attempt) = self.send_group(unit, marker, &sending, observer).await?
                {
                    return Ok(attempt);
                }
                match self.run(&unit.calls[place], place, observer).await {
                    Ok(outcome) => self.count_rows(&outcome),
                    Err(failure) => return self.undo(unit, Some(place), failure, true).await,
                }
                continue;
            }
            if let Some(attempt) = self.send_group(unit, marker, &sending, observer).await? {
                return Ok(attempt);
            }
        }
        if !is_whole {
            let sending = Sending { begins: false, calls: 0..0, ends: true };
            if let Some(attempt) = self.send_group(unit, marker, &sending, observer).await? {
                return Ok(attempt);
            }
        }
        Ok(Attempt::Done)
    }

    /// Sends one group and reads its answers. `None` when all went well.
    async fn send_group(
        &mut self,
        unit: &Unit<'_>,
        marker: Option<&Marker<'_>>,
        sending: &Sending,
        observer: &mut dyn Observer,
    ) -> Result<Option<Attempt>, UnitError> {
        let put = self.put_group(unit, marker, sending, observer);
        if let Err((place, error)) = put {
            // Nothing of this group is on its way: the messages before the bad one are taken back.
            self.link.outbound().clear();
            if self.reset == Reset::Sent {
                self.reset = Reset::Owed;
            }
            return self.undo(unit, place, Failure::Refused(error), true).await.map(Some);
        }
        let mut progress = Progress { place: None, step: Step::Begin, has_committed: false };
        let answers = self.read_group(unit, marker, sending, observer, &mut progress).await;
        let place = progress.place.unwrap_or(0);
        let ended = match answers {
            Err(Failure::Lost(error)) => Err(Failure::Lost(error)),
            answers => self.read_ready(place, &mut Ignore, answers).await,
        };
        match ended {
            Ok(()) => Ok(None),
            // The server has said COMMIT: what came after it changes nothing, except that the session is lost.
            Err(_) if progress.has_committed => Ok(None),
            // A goodbye before the first answer: the server never began to read the group.
            Err(Failure::Lost(error)) if sending.begins && error.sqlstate.is_some() && !self.has_answered => {
                Err(UnitError::NotBegun { error })
            }
            Err(Failure::Refused(error)) if progress.step == Step::Marker => self.marker_refused(unit, error).await.map(Some),
            Err(failure) => {
                let place = progress.place.filter(|_| progress.step == Step::Statements);
                self.undo(unit, place, failure, !sending.ends).await.map(Some)
            }
        }
    }

    fn put_group(
        &mut self,
        unit: &Unit<'_>,
        marker: Option<&Marker<'_>>,
        sending: &Sending,
        observer: &mut dyn Observer,
    ) -> Result<(), (Option<usize>, Error)> {
        let ours = |error| (None, error);
        if sending.begins {
            if self.reset == Reset::Owed {
                self.put_command(RESET, &[]).map_err(ours)?;
                self.reset = Reset::Sent;
            }
            for sql in opening(unit) {
                self.put_command(sql, &[]).map_err(ours)?;
            }
            if let Some(name) = &self.name {
                // Only for the transaction: nothing is left behind.
                let sql = format!("SET LOCAL application_name = '{name}'");
                self.put_command(&sql, &[]).map_err(ours)?;
            }
        }
        for place in sending.calls.clone() {
            if place > sending.calls.start {
                // Without a flush the server keeps the answers back until the Sync, and nobody could see which statement it is at.
                self.put_flush();
            }
            self.put_call(&unit.calls[place]).map_err(|error| (Some(place), error))?;
        }
        if sending.ends {
            if let Some(marker) = marker {
                let result = if unit.keeps_result { observer.result() } else { None };
                // In one group with the statements, the count is not known yet.
                let rows_affected = if sending.begins { -1 } else { self.rows_affected };
                let row = Row { key: marker.key, outcome: OUTCOME_COMMITTED, digest: marker.digest, rows_affected, result };
                self.put_command(&insert_sql(&marker.table), &insert_parameters(row)).map_err(ours)?;
            }
            self.put_command(closing(unit), &[]).map_err(ours)?;
        }
        self.put_sync();
        Ok(())
    }

    async fn read_group(
        &mut self,
        unit: &Unit<'_>,
        marker: Option<&Marker<'_>>,
        sending: &Sending,
        observer: &mut dyn Observer,
        progress: &mut Progress,
    ) -> Result<(), Failure> {
        let mut since = Instant::now();
        if !sending.calls.is_empty() {
            progress.place = Some(sending.calls.start);
            observer.started(sending.calls.start);
        }
        if sending.begins {
            if self.reset == Reset::Sent {
                match self.read_command().await {
                    Ok(_) => self.reset = Reset::None,
                    Err(Failure::Lost(error)) => return Err(Failure::Lost(error)),
                    // Nothing behind it ran, and nothing more shall be done with this session.
                    Err(failure) => return Err(Failure::Refused(self.reset_failed(failure))),
                }
            }
            for _ in 0..opening(unit).count() + usize::from(self.name.is_some()) {
                self.read_command().await?;
            }
        }
        progress.step = Step::Statements;
        for place in sending.calls.clone() {
            if progress.place != Some(place) {
                progress.place = Some(place);
                observer.started(place);
            }
            let mut outcome = self.read_answer(place, observer).await?;
            outcome.duration = since.elapsed();
            self.count_rows(&outcome);
            since = Instant::now();
            observer.finished(place, &outcome);
        }
        if sending.ends {
            progress.place = None;
            if marker.is_some() {
                progress.step = Step::Marker;
                self.read_command().await?;
            }
            progress.step = Step::End;
            let tag = self.read_command().await?;
            if tag != closing(unit) {
                return Err(Failure::Refused(Error::new(ErrorKind::Other, "commit", format!("the server answered {tag}"))));
            }
            progress.has_committed = true;
        }
        Ok(())
    }

    /// The marker could not be inserted: its key is taken, its table is missing, or there is no right to it.
    async fn marker_refused(&mut self, unit: &Unit<'_>, error: Error) -> Result<Attempt, UnitError> {
        match error.sqlstate.as_deref() {
            Some("23505") => self.roll_back().await.map(|()| Attempt::KeyTaken).map_err(before_anything),
            Some("42P01" | "3F000") => self.roll_back().await.map(|()| Attempt::TableMissing(error)).map_err(before_anything),
            Some("42501") => {
                self.roll_back().await.map_err(before_anything)?;
                let Wrap::Marked { table, .. } = &unit.wrap else { return Err(before_anything(error)) };
                Err(UnitError::NoMarkerTable { ddl: self.marker_ddl(table), error })
            }
            _ => self.undo(unit, None, Failure::Refused(error), true).await,
        }
    }

    /// Rolls back what a failure left, and says how the unit ended.
    async fn undo(
        &mut self,
        unit: &Unit<'_>,
        place: Option<usize>,
        failure: Failure,
        commit_was_held: bool,
    ) -> Result<Attempt, UnitError> {
        let error = match failure {
            Failure::Lost(error) => {
                let has_no_effect = matches!(unit.wrap, Wrap::ReadOnly | Wrap::RolledBack);
                let cannot_have_arrived = commit_was_held || !self.link.everything_was_sent();
                // A goodbye before the first answer: the server never began to read the group.
                let was_not_read = error.sqlstate.is_some() && !self.has_answered;
                if has_no_effect || cannot_have_arrived || was_not_read {
                    return Err(UnitError::RolledBack { place, error });
                }
                return Err(UnitError::Unknown { error });
            }
            Failure::Refused(error) | Failure::Stopped(error) => error,
        };
        // A link that breaks now takes the open transaction with it.
        let _ = self.roll_back().await;
        if unit.wrap == Wrap::ReadOnly && error.sqlstate.as_deref() == Some("25006") {
            return Err(UnitError::Writes);
        }
        Err(UnitError::RolledBack { place, error })
    }

    fn count_rows(&mut self, outcome: &StatementOutcome) {
        let rows = outcome.rows_affected.and_then(|rows| i64::try_from(rows).ok()).unwrap_or(0);
        self.rows_affected = self.rows_affected.saturating_add(rows);
    }

    pub(super) async fn roll_back(&mut self) -> Result<(), Error> {
        if self.status == Status::Idle {
            return Ok(());
        }
        self.command("ROLLBACK").await.map(|_| ()).map_err(Failure::into_error)
    }

    async fn run_bare(&mut self, unit: &Unit<'_>, observer: &mut dyn Observer) -> Result<UnitOutcome, UnitError> {
        if let Some(name) = self.name.clone() {
            match self.command(&format!("SET application_name = '{name}'")).await {
                Err(Failure::Lost(error)) => return Err(UnitError::NotBegun { error }),
                // It is only shown to people.
                Ok(_) | Err(Failure::Refused(_) | Failure::Stopped(_)) => {}
            }
        }
        for (place, call) in unit.calls.iter().enumerate() {
            match self.run(call, place, observer).await {
                Ok(_) => {}
                Err(Failure::Refused(error) | Failure::Stopped(error)) => return Err(UnitError::Partial { place, error }),
                // As behind a BEGIN: the server said goodbye before it read any of it.
                Err(Failure::Lost(error)) if place == 0 && error.sqlstate.is_some() && !self.has_answered => {
                    return Err(UnitError::NotBegun { error });
                }
                Err(Failure::Lost(error)) if !self.link.everything_was_sent() => return Err(UnitError::Partial { place, error }),
                Err(Failure::Lost(error)) => return Err(UnitError::Unknown { error }),
            }
        }
        Ok(UnitOutcome::Done)
    }
}

/// What one group holds.
struct Sending {
    begins: bool,
    calls: Range<usize>,
    ends: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Step {
    Begin,
    Statements,
    Marker,
    End,
}

/// How far the answers of a group have come.
struct Progress {
    place: Option<usize>,
    step: Step,
    has_committed: bool,
}

fn opening<'a>(unit: &Unit<'a>) -> impl Iterator<Item = &'a str> + use<'a> {
    let (first, second) = match (&unit.wrap, unit.begin) {
        (Wrap::ReadOnly, None) => ("BEGIN READ ONLY", None),
        (Wrap::ReadOnly, Some(begin)) => (begin, Some("SET TRANSACTION READ ONLY")),
        (_, begin) => (begin.unwrap_or("BEGIN"), None),
    };
    std::iter::once(first).chain(second)
}

fn closing(unit: &Unit<'_>) -> &'static str {
    if unit.wrap == Wrap::RolledBack { "ROLLBACK" } else { "COMMIT" }
}

/// True when the commit may be sent before the answers were seen: no result is kept, and no statement can return rows that an
/// observer might stop at. What only reads may always: nothing depends on its commit.
fn may_commit_unseen(unit: &Unit<'_>) -> bool {
    if unit.keeps_result || unit.calls.iter().any(is_copy_in) {
        return false;
    }
    matches!(unit.wrap, Wrap::ReadOnly | Wrap::RolledBack) || unit.calls.iter().all(|call| returns_no_rows(call.sql))
}

/// True only when the first word proves it.
fn returns_no_rows(sql: &str) -> bool {
    match first_words(sql).0.as_str() {
        "INSERT" | "UPDATE" | "DELETE" | "MERGE" => !contains_word(sql, "returning"),
        "CREATE" | "ALTER" | "DROP" | "TRUNCATE" | "GRANT" | "REVOKE" | "COMMENT" | "SET" | "RESET" | "LOCK" | "DO"
        | "SAVEPOINT" | "RELEASE" | "ROLLBACK" | "ANALYZE" | "REFRESH" | "NOTIFY" => true,
        _ => false,
    }
}

/// Cuts the calls into groups: COPY FROM STDIN alone, the others together up to the bounds. There is always at least one.
fn groups(calls: &[Call<'_>]) -> Vec<Range<usize>> {
    let mut groups: Vec<Range<usize>> = Vec::new();
    let mut bytes = 0;
    for (place, call) in calls.iter().enumerate() {
        let alone = is_copy_in(call);
        let joins = groups.last().is_some_and(|group| {
            !alone
                && group.len() < GROUP_STATEMENTS_MAX
                && bytes + call.sql.len() <= GROUP_BYTES_MAX
                && !is_copy_in(&calls[group.start])
        });
        match groups.last_mut() {
            Some(group) if joins => (group.end, bytes) = (place + 1, bytes + call.sql.len()),
            _ => {
                groups.push(place..place + 1);
                bytes = call.sql.len();
            }
        }
    }
    if groups.is_empty() {
        groups.push(0..0);
    }
    groups
}

pub(super) fn found_already(found: Found) -> Result<UnitOutcome, UnitError> {
    match found {
        Found::Committed(row) => Ok(UnitOutcome::AlreadyCommitted(row)),
        Found::Tombstone => Err(UnitError::Fenced),
    }
}

pub(super) fn before_anything(error: Error) -> UnitError {
    UnitError::RolledBack { place: None, error }
}

pub(super) fn vanished(key: &MarkerKey) -> Error {
    Error::new(
        ErrorKind::Serialization,
        "write a marker",
        format!("the marker of task {} was taken and released again by somebody", key.task),
    )
}

/// A transaction that several scripts share.
impl PostgresSession {
    pub(super) async fn open_shared(&mut self, terms: &Terms, markers: Option<&MarkerTable>) -> Result<(), UnitError> {
        if let Some(table) = markers {
            self.marker_table(table).await?;
        }
        let isolation = terms.isolation.map(|isolation| format!(" ISOLATION LEVEL {}", isolation.as_sql()));
        let begin = format!("BEGIN{}", isolation.unwrap_or_default());
        // Only for the transaction: nothing is left behind.
        let name = self.name.as_ref().map(|name| format!("SET LOCAL application_name = '{name}'"));
        let limit = terms.lock_timeout.map(|limit| format!("SET LOCAL lock_timeout = {}", limit.as_millis().max(1)));
        for sql in std::iter::once(begin).chain(name).chain(limit) {
            if let Err(failure) = self.command(&sql).await {
                let error = failure.into_error();
                // A link that breaks now takes the open transaction with it.
                let _ = self.roll_back().await;
                return Err(before_anything(error));
            }
        }
        Ok(())
    }

    pub(super) async fn commit_shared(
        &mut self,
        table: &MarkerTable,
        key: &MarkerKey,
        digest: &str,
    ) -> Result<UnitOutcome, UnitError> {
        key.check().map_err(before_anything)?;
        let wrap = Wrap::Marked { table: table.clone(), key: key.clone(), digest: digest.to_owned(), check_first: false };
        let unit = Unit { calls: &[], begin: None, wrap, keeps_result: false };
        let marker = Marker { table: self.marker_table(table).await?, key, digest };
        // Of many scripts, whose counts are theirs to tell.
        self.rows_affected = -1;
        let sending = Sending { begins: false, calls: 0..0, ends: true };
        match self.send_group(&unit, Some(&marker), &sending, &mut Ignore).await? {
            None | Some(Attempt::Done) => Ok(UnitOutcome::Done),
            Some(Attempt::KeyTaken) => match self.find_marker(&marker.table, key).await.map_err(before_anything)? {
                Some(found) => found_already(found),
                None => Err(before_anything(vanished(key))),
            },
            Some(Attempt::TableMissing(error)) => {
                self.forget_marker_table(table);
                Err(before_anything(error))
            }
        }
    }
}

impl PostgresSession {
    /// Finds or makes the marker table, as a unit needs it.
    pub(super) async fn marker_table(&mut self, table: &MarkerTable) -> Result<String, UnitError> {
        match self.ensure_marker_table(table).await {
            Ok(name) => Ok(name),
            Err(error) if error.sqlstate.as_deref() == Some("42501") || error.sqlstate.as_deref() == Some("25006") => {
                Err(UnitError::NoMarkerTable { ddl: self.marker_ddl(table), error })
            }
            Err(error) => Err(self.before_begin(error)),
        }
    }

    /// An error of what goes before the beginning of a unit.
    pub(super) fn before_begin(&self, error: Error) -> UnitError {
        if self.is_lost { UnitError::NotBegun { error } } else { before_anything(error) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_grouped_up_to_the_bounds_with_copies_alone() {
        let call = |sql| Call { sql, parameters: &[], copy_data: None };
        let copy = Call { sql: "COPY t FROM STDIN", parameters: &[], copy_data: Some("1\n") };
        assert_eq!(groups(&[]), vec![0..0]);
        assert_eq!(groups(&[call("a"), call("b"), copy.clone(), copy, call("c"), call("d")]), [0..2, 2..3, 3..4, 4..6]);
        let many: Vec<_> = (0..GROUP_STATEMENTS_MAX + 1).map(|_| call("a")).collect();
        assert_eq!(groups(&many), [0..GROUP_STATEMENTS_MAX, GROUP_STATEMENTS_MAX..GROUP_STATEMENTS_MAX + 1]);
        let long = "x".repeat(GROUP_BYTES_MAX);
        assert_eq!(groups(&[call("a"), call(&long), call("b")]), [0..1, 1..2, 2..3]);
    }

    #[test]
    fn a_commit_is_held_back_where_rows_may_come() {
        for sql in ["INSERT INTO t VALUES (1)", "update t set a = 1", "DO $$ BEGIN END $$", "CREATE TABLE t (a int)"] {
            assert!(returns_no_rows(sql), "{sql}");
        }
        for sql in [
            "SELECT f()",
            "INSERT INTO t VALUES (1) Returning a",
            "WITH x AS (DELETE FROM t) SELECT 1",
            "CALL p()",
            "EXPLAIN ANALYZE DELETE FROM t",
            "(SELECT 1)",
            "",
        ] {
            assert!(!returns_no_rows(sql), "{sql}");
        }
    }
}
