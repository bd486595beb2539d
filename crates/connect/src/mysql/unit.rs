//! Running a unit to its commit.

use super::marker::{Row, insert_sql};
use super::prepared::xid;
use super::session::{Failure, MySqlSession};
use crate::error::{Error, ErrorKind};
use crate::marker::{Found, MarkerKey, MarkerTable, OUTCOME_COMMITTED};
use crate::session::{Observer, Terms, Unit, UnitError, UnitOutcome, Wrap};
use crate::words::{may_end_transaction_inside, refuse_transaction_control};

/// How often the marker table is made anew within one unit: it may be dropped again by somebody else.
const TABLE_TRIES: u32 = 3;

/// Set behind the beginning of a unit with statements that may end its transaction inside: gone with it, whatever was begun instead.
const GUARD: &str = "backstop_unit";

/// How an attempt at a unit ended, short of an error to report.
pub(super) enum Attempt {
    Done,
    /// The marker's key is taken; everything was rolled back.
    KeyTaken,
    /// The marker table is not there (any more); everything was rolled back.
    TableMissing(Error),
}

impl MySqlSession {
    pub(super) async fn run_wrapped(&mut self, unit: &Unit<'_>, observer: &mut dyn Observer) -> Result<UnitOutcome, UnitError> {
        if unit.wrap == Wrap::Bare {
            return self.run_bare(unit, observer).await;
        }
        refuse_transaction_control(unit).map_err(|(place, error)| UnitError::RolledBack { place: Some(place), error })?;
        let Wrap::Marked { table, key, check_first, .. } = &unit.wrap else {
            return self.run_unmarked(unit, observer).await;
        };
        key.check().map_err(before_anything)?;
        let mut tries_left = TABLE_TRIES;
        let mut checks = *check_first;
        loop {
            let name = self.marker_table(table).await?;
            if checks && let Some(found) = self.find_marker(&name, key).await.map_err(|error| self.before_begin(error))? {
                return found_already(found);
            }
            checks = false;
            match self.attempt(unit, Some(&name), observer).await? {
                Attempt::Done => return Ok(UnitOutcome::Done),
                Attempt::KeyTaken => match self.find_marker(&name, key).await.map_err(before_anything)? {
                    Some(found) => return found_already(found),
                    None if tries_left == 0 => {
                        let message = format!("the marker of task {} was taken and released again by somebody", key.task);
                        return Err(before_anything(Error::new(ErrorKind::Serialization, "write a marker", message)));
                    }
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

    /// A procedure can commit, and would write behind that: where it may only read, so may all that the session begins meanwhile.
    async fn run_unmarked(&mut self, unit: &Unit<'_>, observer: &mut dyn Observer) -> Result<UnitOutcome, UnitError> {
        let guards = unit.wrap == Wrap::ReadOnly && unit.calls.iter().any(|call| may_end_transaction_inside(call.sql));
        if !guards {
            return self.attempt(unit, None, observer).await.map(|_| UnitOutcome::Done);
        }
        let was_read_only = self.read_only_by_default().await.map_err(not_begun)?;
        self.query("SET SESSION TRANSACTION READ ONLY").await.map_err(not_begun)?;
        let ended = self.attempt(unit, None, observer).await;
        // What stays read-only must not run what writes: that would fail, and do no harm.
        if !was_read_only {
            let _ = self.query("SET SESSION TRANSACTION READ WRITE").await;
        }
        ended.map(|_| UnitOutcome::Done)
    }

    /// Whether the session's transactions only read when they do not say. MySQL 8 and MariaDB before 11.1 have no name of it in common.
    async fn read_only_by_default(&mut self) -> Result<bool, Failure> {
        let rows = self
            .query("SHOW SESSION VARIABLES WHERE variable_name IN ('tx_read_only', 'transaction_read_only') AND value = 'ON'");
        Ok(!rows.await?.is_empty())
    }

    async fn attempt(
        &mut self,
        unit: &Unit<'_>,
        marker_table: Option<&str>,
        observer: &mut dyn Observer,
    ) -> Result<Attempt, UnitError> {
        let begin = match (&unit.wrap, unit.begin) {
            (Wrap::ReadOnly, _) => "START TRANSACTION READ ONLY",
            (_, begin) => begin.unwrap_or("START TRANSACTION"),
        };
        self.query(begin).await.map_err(not_begun)?;
        let is_guarded = is_guarded(unit);
        if is_guarded {
            self.query(&format!("SAVEPOINT {GUARD}")).await.map_err(not_begun)?;
        }
        let mut changes = 0_u64;
        for (place, call) in unit.calls.iter().enumerate() {
            match self.run(call, place, observer).await {
                Ok(outcome) => changes = changes.saturating_add(outcome.rows_affected.unwrap_or(0)),
                Err(failure) => return self.undo(unit, place, failure).await,
            }
            if !self.is_in_transaction() {
                // Whatever ran so far has taken effect. Nothing that we could do now would be exactly once.
                let message = "it committed by itself, so that the unit is no longer one transaction";
                let mut error = Error::new(ErrorKind::Config, "run a unit", message);
                error.hint =
                    Some("put statements that commit implicitly (DDL, LOCK TABLES) into segments of their own".to_owned());
                return Err(UnitError::Partial { place: place + 1, error });
            }
        }
        if is_guarded && let Err(failure) = self.query(&format!("RELEASE SAVEPOINT {GUARD}")).await {
            let error = failure.into_error();
            self.roll_back().await;
            return Err(if error.is_of_a_lost_savepoint() { ended_inside(unit) } else { before_anything(error) });
        }
        match (&unit.wrap, marker_table) {
            (Wrap::Marked { key, digest, .. }, Some(table)) => {
                let result = if unit.keeps_result { observer.result() } else { None };
                let rows_affected = i64::try_from(changes).unwrap_or(i64::MAX);
                let row = Row { key, outcome: OUTCOME_COMMITTED, digest, rows_affected, result };
                let ended = self.query_parts(&format!("{}; COMMIT", insert_sql(table, &row))).await;
                self.marked_end(unit, ended.map(|_| ())).await
            }
            (Wrap::ReadOnly, _) => {
                // It only read: that its end was not acknowledged changes nothing but the session.
                let _ = self.query("COMMIT").await;
                Ok(Attempt::Done)
            }
            (Wrap::RolledBack, _) => {
                self.query("ROLLBACK").await.map(|_| Attempt::Done).map_err(|failure| before_anything(failure.into_error()))
            }
            (Wrap::Marked { .. } | Wrap::Unmarked | Wrap::Bare, _) => match self.query("COMMIT").await {
                Ok(_) => Ok(Attempt::Done),
                Err(failure) => Err(self.commit_failed(failure).await),
            },
        }
    }

    /// The answer to `INSERT marker; COMMIT`: part 0 is the INSERT.
    pub(super) async fn marked_end(
        &mut self,
        unit: &Unit<'_>,
        ended: Result<(), (usize, Failure)>,
    ) -> Result<Attempt, UnitError> {
        match ended {
            Ok(()) => Ok(Attempt::Done),
            Err((_, Failure::Lost(error))) => Err(UnitError::Unknown { error }),
            Err((0, Failure::Refused(error) | Failure::Stopped(error))) => {
                self.roll_back().await;
                match (error.native_code.as_deref(), &unit.wrap) {
                    (Some("1062"), _) => Ok(Attempt::KeyTaken),
                    (Some("1146" | "1049"), _) => Ok(Attempt::TableMissing(error)),
                    (Some("1142" | "1044" | "1227"), Wrap::Marked { table, .. }) => {
                        Err(UnitError::NoMarkerTable { ddl: self.marker_ddl(table), error })
                    }
                    _ => Err(before_anything(error)),
                }
            }
            Err((_, failure)) => Err(self.commit_failed(failure).await),
        }
    }

    /// A refused COMMIT. Only a deadlock is sure to have rolled back; a killed one may have got through.
    async fn commit_failed(&mut self, failure: Failure) -> UnitError {
        match failure {
            Failure::Refused(error) if error.kind == ErrorKind::Deadlock => {
                self.roll_back().await;
                before_anything(error)
            }
            Failure::Refused(error) | Failure::Stopped(error) | Failure::Lost(error) => {
                self.roll_back().await;
                UnitError::Unknown { error }
            }
        }
    }

    /// A statement failed: some errors have rolled everything back, some only their statement; a ROLLBACK serves both.
    async fn undo(&mut self, unit: &Unit<'_>, place: usize, failure: Failure) -> Result<Attempt, UnitError> {
        let error = match failure {
            // The commit was not sent yet: the server rolls back what it no longer hears of.
            Failure::Lost(error) => return Err(UnitError::RolledBack { place: Some(place), error }),
            Failure::Refused(error) | Failure::Stopped(error) => error,
        };
        let is_guarded = is_guarded(unit) && !error.may_have_rolled_all_back();
        if is_guarded && let Err(Failure::Refused(gone)) = self.query(&format!("ROLLBACK TO SAVEPOINT {GUARD}")).await {
            self.roll_back().await;
            return Err(match gone.is_of_a_lost_savepoint() {
                true => UnitError::EndedInside { place: Some(place), error },
                false => UnitError::RolledBack { place: Some(place), error },
            });
        }
        self.roll_back().await;
        if unit.wrap == Wrap::ReadOnly && error.native_code.as_deref() == Some("1792") {
            return Err(UnitError::Writes);
        }
        Err(UnitError::RolledBack { place: Some(place), error })
    }

    async fn run_bare(&mut self, unit: &Unit<'_>, observer: &mut dyn Observer) -> Result<UnitOutcome, UnitError> {
        // Nothing else goes before the first statement, and of one that was sent nobody could say that it did not run.
        if self.was_idle {
            self.ping().await.map_err(not_begun)?;
        }
        for (place, call) in unit.calls.iter().enumerate() {
            match self.run(call, place, observer).await {
                Ok(_) => {}
                Err(Failure::Refused(error) | Failure::Stopped(error)) => return Err(UnitError::Partial { place, error }),
                Err(Failure::Lost(error)) => return Err(UnitError::Unknown { error }),
            }
        }
        Ok(UnitOutcome::Done)
    }

    /// Finds or makes the marker table, as a unit needs it.
    async fn marker_table(&mut self, table: &MarkerTable) -> Result<String, UnitError> {
        match self.ensure_marker_table(table).await {
            Ok(name) => Ok(name),
            Err(error) if matches!(error.native_code.as_deref(), Some("1142" | "1044" | "1227" | "1290")) => {
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

/// What only reads is guarded by the server: see `run_unmarked`.
fn is_guarded(unit: &Unit<'_>) -> bool {
    unit.wrap != Wrap::ReadOnly && unit.calls.iter().any(|call| may_end_transaction_inside(call.sql))
}

/// All statements went well: the one that did it is known when no other can have.
fn ended_inside(unit: &Unit<'_>) -> UnitError {
    let mut suspects = (0..unit.calls.len()).filter(|place| may_end_transaction_inside(unit.calls[*place].sql));
    let place = suspects.next().filter(|_| suspects.next().is_none());
    let message = "it has ended the transaction that it ran in, as a procedure that commits does";
    UnitError::EndedInside { place, error: Error::new(ErrorKind::Config, "run a unit", message) }
}

/// A failure of the opening, or of what goes before it.
fn not_begun(failure: Failure) -> UnitError {
    match failure {
        Failure::Lost(error) => UnitError::NotBegun { error },
        Failure::Refused(error) | Failure::Stopped(error) => before_anything(error),
    }
}

/// A transaction that several scripts share.
impl MySqlSession {
    pub(super) async fn open_shared(&mut self, terms: &Terms, markers: Option<&MarkerTable>) -> Result<(), UnitError> {
        if let Some(table) = markers {
            self.marker_table(table).await?;
        }
        self.hold_name().await.map_err(|failure| before_anything(failure.into_error()))?;
        // Of the next transaction alone.
        let isolation = terms.isolation.map(|isolation| format!("SET TRANSACTION ISOLATION LEVEL {}", isolation.as_sql()));
        // Until the session is reset; of rows and of tables.
        let limit = terms.lock_timeout.map(|limit| {
            let seconds = limit.as_millis().div_ceil(1000).clamp(1, 1_073_741_824);
            format!("SET SESSION innodb_lock_wait_timeout = {seconds}, SESSION lock_wait_timeout = {}", seconds.min(31_536_000))
        });
        let begin = match &terms.branch {
            Some(gid) => format!("XA START {}", xid(gid)),
            None => "START TRANSACTION".to_owned(),
        };
        for sql in limit.into_iter().chain(isolation).chain([begin]) {
            self.query(&sql).await.map_err(|failure| before_anything(failure.into_error()))?;
        }
        self.branch.clone_from(&terms.branch);
        Ok(())
    }

    pub(super) async fn commit_shared(
        &mut self,
        table: &MarkerTable,
        key: &MarkerKey,
        digest: &str,
    ) -> Result<UnitOutcome, UnitError> {
        key.check().map_err(before_anything)?;
        let name = self.marker_name(table).map_err(before_anything)?;
        let row = Row { key, outcome: OUTCOME_COMMITTED, digest, rows_affected: -1, result: None };
        let ended = self.query_parts(&format!("{}; COMMIT", insert_sql(&name, &row))).await;
        let wrap = Wrap::Marked { table: table.clone(), key: key.clone(), digest: digest.to_owned(), check_first: false };
        let unit = Unit { calls: &[], begin: None, wrap, keeps_result: false };
        match self.marked_end(&unit, ended.map(|_| ())).await? {
            Attempt::Done => Ok(UnitOutcome::Done),
            Attempt::KeyTaken => match self.find_marker(&name, key).await.map_err(before_anything)? {
                Some(found) => found_already(found),
                None => {
                    let message = format!("the marker of task {} was taken and released again by somebody", key.task);
                    Err(before_anything(Error::new(ErrorKind::Serialization, "write a marker", message)))
                }
            },
            Attempt::TableMissing(error) => {
                self.forget_marker_table(table);
                Err(before_anything(error))
            }
        }
    }
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
