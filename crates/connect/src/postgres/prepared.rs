//! Branches of transactions over several databases: PREPARE TRANSACTION, and what ends it.
//!
//! A prepared transaction belongs to its database, and to the user who prepared it: they or a superuser end it.

use super::marker::{Row, insert_parameters, insert_sql};
use super::session::{Failure, PostgresSession, text_of};
use super::unit::{before_anything, found_already, vanished};
use crate::error::{Error, ErrorKind};
use crate::marker::{MarkerKey, MarkerTable, OUTCOME_COMMITTED};
use crate::prepared::{Ended, Ending, Gid, Prepared};
use crate::session::{Ignore, UnitError, UnitOutcome};
use std::time::Duration;

/// No such prepared transaction.
const UNDEFINED_OBJECT: &str = "42704";
/// It is being ended by another session.
const NOT_IN_STATE: &str = "55000";

impl PostgresSession {
    pub(super) async fn cannot_prepare(&mut self) -> Result<Option<Error>, Error> {
        let sql = "SELECT pg_catalog.current_setting('max_prepared_transactions')";
        let rows = self.query(sql, &[]).await.map_err(Failure::into_error)?;
        let most = rows.into_iter().flatten().next().and_then(text_of);
        if most.as_deref() != Some("0") {
            return Ok(None);
        }
        let message = "the server prepares no transactions: its max_prepared_transactions is 0";
        let mut error = Error::new(ErrorKind::Config, "prepare a transaction", message);
        error.hint = Some(
            "set `max_prepared_transactions` to at least the number of two-phase groups that run at once (as max_connections is a good value) \
             in postgresql.conf, and restart the server"
                .to_owned(),
        );
        Ok(Some(error))
    }

    pub(super) async fn prepare_shared(
        &mut self,
        table: &MarkerTable,
        key: &MarkerKey,
        digest: &str,
        gid: &Gid,
    ) -> Result<(), UnitError> {
        key.check().map_err(before_anything)?;
        let name = self.marker_table(table).await?;
        // Of many scripts, whose counts are theirs to tell.
        let row = Row { key, outcome: OUTCOME_COMMITTED, digest, rows_affected: -1, result: None };
        self.put_command(&insert_sql(&name), &insert_parameters(row)).map_err(before_anything)?;
        self.put_command(&format!("PREPARE TRANSACTION '{gid}'"), &[]).map_err(before_anything)?;
        self.put_sync();
        let mut is_marked = false;
        let answers = async {
            self.read_command().await?;
            is_marked = true;
            match self.read_command().await?.as_str() {
                "PREPARE TRANSACTION" => Ok(()),
                tag => {
                    let message = format!("the transaction had failed: the server answered {tag}");
                    Err(Failure::Refused(Error::new(ErrorKind::Other, "prepare a transaction", message)))
                }
            }
        };
        let answers = answers.await;
        let error = match self.read_ready(0, &mut Ignore, answers).await {
            Ok(()) => return Ok(()),
            Err(Failure::Lost(error)) => return Err(UnitError::Unknown { error }),
            Err(failure) => failure.into_error(),
        };
        // A link that breaks now takes the open transaction with it; one that was refused is not prepared.
        let _ = self.roll_back().await;
        match error.sqlstate.as_deref() {
            Some("23505") if !is_marked => match self.find_marker(&name, key).await.map_err(before_anything)? {
                Some(found) => match found_already(found)? {
                    UnitOutcome::AlreadyCommitted(_) | UnitOutcome::Done => Err(before_anything(taken(key))),
                },
                None => Err(before_anything(vanished(key))),
            },
            Some("42501") if !is_marked => Err(UnitError::NoMarkerTable { ddl: self.marker_ddl(table), error }),
            Some("42P01" | "3F000") if !is_marked => {
                self.forget_marker_table(table);
                Err(before_anything(error))
            }
            _ => Err(before_anything(error)),
        }
    }

    pub(super) async fn end_branch(&mut self, gid: &Gid, ending: Ending) -> Result<Ended, Error> {
        let verb = match ending {
            Ending::Commit => "COMMIT PREPARED",
            Ending::RollBack => "ROLLBACK PREPARED",
        };
        let Err(failure) = self.command(&format!("{verb} '{gid}'")).await else { return Ok(Ended::Done) };
        let error = failure.into_error();
        match error.sqlstate.as_deref() {
            Some(UNDEFINED_OBJECT) => Ok(Ended::NotThere),
            // Also the answer where it is of another database of the server, which is to be told.
            Some(NOT_IN_STATE) if error.message.contains("busy") => Ok(Ended::Busy),
            _ => Err(error),
        }
    }

    pub(super) async fn branches(&mut self) -> Result<Vec<Prepared>, Error> {
        let sql = "SELECT gid, owner::text, pg_catalog.floor(pg_catalog.date_part('epoch', pg_catalog.clock_timestamp() - prepared))::bigint \
                   FROM pg_catalog.pg_prepared_xacts WHERE database = pg_catalog.current_database() ORDER BY prepared, gid";
        let rows = self.query(sql, &[]).await.map_err(Failure::into_error)?;
        let read = |row: Vec<crate::Value>| {
            let mut columns = row.into_iter().map(text_of);
            let name = columns.next().flatten()?;
            let owner = columns.next().flatten();
            let seconds: Option<i64> = columns.next().flatten().and_then(|seconds| seconds.parse().ok());
            let age = seconds.map(|seconds| Duration::from_secs(u64::try_from(seconds).unwrap_or(0)));
            let gid = name.parse().ok();
            Some(Prepared { name: format!("'{}'", name.replace('\'', "''")), gid, owner, age })
        };
        Ok(rows.into_iter().filter_map(read).collect())
    }
}

/// The marker is there, though the work that it is of was done only now.
fn taken(key: &MarkerKey) -> Error {
    Error::new(
        ErrorKind::Other,
        "write a marker",
        format!("task {} of this run is marked as committed already: another store used the run's id on this database", key.task),
    )
}
