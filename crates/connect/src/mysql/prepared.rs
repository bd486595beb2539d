//! Branches of transactions over several databases: XA.
//!
//! What is prepared stays with its session, and nobody else can end it (XAER_NOTA), until that session has ended; MySQL 8.0.29 lets go of it at once.
//! MariaDB keeps it over the end of the session since 10.5, MySQL since 5.7.7; before, it was rolled back.

use super::marker::{Row, insert_sql};
use super::session::{Failure, MySqlSession};
use super::unit::{Attempt, before_anything, found_already};
use crate::error::{Error, ErrorKind};
use crate::marker::{MarkerKey, MarkerTable, OUTCOME_COMMITTED};
use crate::prepared::{Ended, Ending, Gid, Prepared, XA_FORMAT};
use crate::session::{Unit, UnitError, UnitOutcome, Wrap};
use crate::value::Value;

/// No such branch, or another session has it.
const XAER_NOTA: &str = "1397";
/// The branch was rolled back by the server: for any reason, a time-out, a deadlock.
const XA_RB: [&str; 3] = ["1402", "1613", "1614"];

/// The id as statements write it.
pub(super) fn xid(gid: &Gid) -> String {
    format!("'{}','{}',{XA_FORMAT}", gid.gtrid(), gid.bqual())
}

impl MySqlSession {
    pub(super) async fn cannot_prepare(&mut self) -> Result<Option<Error>, Error> {
        let cannot = |message: String, hint: &str| {
            let mut error = Error::new(ErrorKind::Config, "prepare a transaction", message);
            error.hint = Some(hint.to_owned());
            Ok(Some(error))
        };
        let rows = self.query("SELECT VERSION()").await.map_err(Failure::into_error)?;
        let version = rows.into_iter().flatten().next().and_then(text).unwrap_or_default();
        if loses_branches(&version) {
            let message = format!("this server ({version}) rolls back what is prepared when its session ends");
            return cannot(message, "MariaDB keeps it since 10.5, MySQL since 5.7.7: use a newer server");
        }
        let sql =
            "SELECT 1 FROM information_schema.ENGINES WHERE ENGINE = 'InnoDB' AND SUPPORT IN ('YES', 'DEFAULT') AND XA = 'YES'";
        let rows = self.query(sql).await.map_err(Failure::into_error)?;
        if rows.is_empty() {
            let message = "the server has no InnoDB, and no other engine that prepares transactions".to_owned();
            return cannot(message, "remove `skip-innodb` from the server's settings, and restart it");
        }
        let sql = "SELECT ENGINE FROM information_schema.ENGINES WHERE SUPPORT = 'DEFAULT' AND (XA IS NULL OR XA <> 'YES')";
        let rows = self.query(sql).await.map_err(Failure::into_error)?;
        match rows.into_iter().flatten().next().and_then(text) {
            Some(engine) => cannot(
                format!("tables are made with the engine {engine} by default, which has no transactions over several databases"),
                "set `default_storage_engine = InnoDB` on the server, and give tables of other engines to it (ALTER TABLE ... ENGINE = InnoDB)",
            ),
            None => Ok(None),
        }
    }

    pub(super) async fn prepare_shared(
        &mut self,
        table: &MarkerTable,
        key: &MarkerKey,
        digest: &str,
        gid: &Gid,
    ) -> Result<(), UnitError> {
        key.check().map_err(before_anything)?;
        if self.branch.as_ref() != Some(gid) {
            let message = format!("the transaction that is open is not that of {gid}");
            return Err(before_anything(Error::new(ErrorKind::Other, "prepare a transaction", message)));
        }
        let name = self.marker_name(table).map_err(before_anything)?;
        let row = Row { key, outcome: OUTCOME_COMMITTED, digest, rows_affected: -1, result: None };
        let xid = xid(gid);
        let ended = self.query_parts(&format!("{}; XA END {xid}; XA PREPARE {xid}", insert_sql(&name, &row))).await;
        let (part, failure) = match ended {
            Ok(_) => {
                self.is_prepared = true;
                return Ok(());
            }
            Err((_, Failure::Lost(error))) => {
                self.branch = None;
                return Err(UnitError::Unknown { error });
            }
            Err((part, failure)) => (part, failure),
        };
        if let Err(left) = self.leave_branch().await {
            // It may be prepared for all that is known.
            let error = if part > 1 { failure.into_error() } else { return Err(before_anything(failure.into_error())) };
            drop(left);
            return Err(UnitError::Unknown { error });
        }
        if part > 0 {
            return Err(before_anything(failure.into_error()));
        }
        let wrap = Wrap::Marked { table: table.clone(), key: key.clone(), digest: digest.to_owned(), check_first: false };
        let unit = Unit { calls: &[], begin: None, wrap, keeps_result: false };
        match self.marked_end(&unit, Err((0, failure))).await? {
            Attempt::Done => Err(before_anything(Error::new(ErrorKind::Other, "write a marker", "it was not written"))),
            Attempt::TableMissing(error) => {
                self.forget_marker_table(table);
                Err(before_anything(error))
            }
            Attempt::KeyTaken => match self.find_marker(&name, key).await.map_err(before_anything)? {
                Some(found) => match found_already(found)? {
                    UnitOutcome::AlreadyCommitted(_) | UnitOutcome::Done => {
                        let message = format!(
                            "task {} of this run is marked as committed already: another store used the run's id",
                            key.task
                        );
                        Err(before_anything(Error::new(ErrorKind::Other, "write a marker", message)))
                    }
                },
                None => {
                    let message = format!("the marker of task {} was taken and released again by somebody", key.task);
                    Err(before_anything(Error::new(ErrorKind::Serialization, "write a marker", message)))
                }
            },
        }
    }

    /// Rolls back the branch that is open here. One that is prepared is let go of by whatever ends the session.
    pub(super) async fn leave_branch(&mut self) -> Result<(), Failure> {
        let Some(gid) = self.branch.take() else { return Ok(()) };
        if std::mem::take(&mut self.is_prepared) {
            return Ok(());
        }
        let xid = xid(&gid);
        // Refused where it has ended already, or was rolled back by the server.
        match self.query(&format!("XA END {xid}")).await {
            Ok(_) | Err(Failure::Refused(_)) => {}
            Err(failure) => return Err(failure),
        }
        match self.query(&format!("XA ROLLBACK {xid}")).await {
            Ok(_) => Ok(()),
            Err(Failure::Refused(error))
                if error.native_code.as_deref().is_some_and(|code| code == XAER_NOTA || XA_RB.contains(&code)) =>
            {
                Ok(())
            }
            Err(failure) => Err(failure),
        }
    }

    pub(super) async fn end_branch(&mut self, gid: &Gid, ending: Ending) -> Result<Ended, Error> {
        let verb = match ending {
            Ending::Commit => "XA COMMIT",
            Ending::RollBack => "XA ROLLBACK",
        };
        let ended = self.query(&format!("{verb} {}", xid(gid))).await;
        if self.branch.as_ref() == Some(gid) {
            self.branch = None;
            self.is_prepared = false;
        }
        let Err(failure) = ended else { return Ok(Ended::Done) };
        let error = failure.into_error();
        match error.native_code.as_deref() {
            Some(XAER_NOTA) => {
                let left = self.branches().await.map_err(Failure::into_error)?;
                Ok(if left.iter().any(|prepared| prepared.gid.as_ref() == Some(gid)) { Ended::Busy } else { Ended::NotThere })
            }
            // It had failed before, and is gone: what was wanted of it was that.
            Some(code) if XA_RB.contains(&code) && ending == Ending::RollBack => Ok(Ended::Done),
            _ => Err(error),
        }
    }

    pub(super) async fn branches(&mut self) -> Result<Vec<Prepared>, Failure> {
        let rows = self.query("XA RECOVER").await?;
        Ok(rows.into_iter().filter_map(prepared).collect())
    }
}

/// `formatID, gtrid_length, bqual_length, data`.
fn prepared(row: Vec<Value>) -> Option<Prepared> {
    let mut columns = row.into_iter();
    let mut number = || match columns.next() {
        Some(Value::Int(number)) => usize::try_from(number).ok(),
        Some(Value::UInt(number)) => usize::try_from(number).ok(),
        Some(Value::Text(text)) => text.parse().ok(),
        _ => None,
    };
    let (format, gtrid, bqual) = (number()?, number()?, number()?);
    let data = match columns.next()? {
        Value::Text(text) => text.into_bytes(),
        Value::Bytes(bytes) => bytes,
        _ => return None,
    };
    let (gtrid, bqual) = (data.get(..gtrid)?, data.get(gtrid..gtrid + bqual)?);
    let ours = || {
        let (gtrid, bqual) = (std::str::from_utf8(gtrid).ok()?, std::str::from_utf8(bqual).ok()?);
        Gid::from_xa(u32::try_from(format).ok()?, gtrid, bqual)
    };
    let gid = ours();
    let name = match &gid {
        Some(gid) => xid(gid),
        None => format!("{},{},{format}", shown(gtrid), shown(bqual)),
    };
    Some(Prepared { name, gid, owner: None, age: None })
}

/// A literal that every client can send.
fn shown(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) if text.bytes().all(|letter| (b' '..=b'~').contains(&letter) && !matches!(letter, b'\'' | b'\\')) => {
            format!("'{text}'")
        }
        _ => bytes.iter().fold("X'".to_owned(), |hex, byte| hex + &format!("{byte:02x}")) + "'",
    }
}

fn text(value: Value) -> Option<String> {
    match value {
        Value::Text(text) => Some(text),
        _ => None,
    }
}

/// `10.11.19-MariaDB`, `8.0.36`; some MariaDB servers begin with `5.5.5-` for old clients.
fn loses_branches(version: &str) -> bool {
    let is_mariadb = version.contains("MariaDB");
    let told = version.strip_prefix("5.5.5-").filter(|_| is_mariadb).unwrap_or(version);
    let mut parts = told.split(|letter: char| !letter.is_ascii_digit()).map(|part| part.parse::<u32>().unwrap_or(0));
    let mut part = || parts.next().unwrap_or(0);
    let number = (part(), part(), part());
    if is_mariadb { number < (10, 5, 0) } else { number < (5, 7, 7) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_servers_are_told_by_their_version() {
        for old in ["10.4.30-MariaDB", "5.5.5-10.3.1-MariaDB-log", "5.7.6", "5.6.51-log"] {
            assert!(loses_branches(old), "{old}");
        }
        for new in ["10.11.19-MariaDB-0+deb12u1", "11.4.2-MariaDB", "5.7.44", "8.0.36", "9.1.0", "5.5.5-10.11.2-MariaDB"] {
            assert!(!loses_branches(new), "{new}");
        }
    }

    #[test]
    fn ids_of_others_are_shown_as_literals() {
        let row = |format, gtrid: &[u8], bqual: &[u8]| {
            let data = [gtrid, bqual].concat();
            prepared(vec![Value::Int(format), Value::Int(gtrid.len() as i64), Value::Int(bqual.len() as i64), Value::Bytes(data)])
        };
        let other = row(1, b"it's", b"").unwrap();
        assert_eq!((other.name.as_str(), other.gid), ("X'69742773','',1", None));
        let ours = Gid::new("run-1", "0123456789abcdef", 0, 3).unwrap();
        let found = row(16_979, ours.gtrid().as_bytes(), ours.bqual().as_bytes()).unwrap();
        assert_eq!(found.gid, Some(ours.clone()));
        assert_eq!(row(1, ours.gtrid().as_bytes(), ours.bqual().as_bytes()).unwrap().gid, None);
    }
}
