//! What the server said, and what kind of refusal that is.

use crate::error::{Error, ErrorKind};
use mysql_async::{DriverError, ServerError};

/// A classified error; `sql` finds the position of a syntax error.
pub(super) fn classified(operation: &str, sql: &str, source: mysql_async::Error) -> Error {
    let mut error = match &source {
        mysql_async::Error::Server(said) => server_error(operation, sql, said),
        mysql_async::Error::Io(io) => Error::new(ErrorKind::Lost, operation, format!("the connection failed ({io})")),
        mysql_async::Error::Driver(DriverError::ConnectionClosed) => {
            Error::new(ErrorKind::Lost, operation, "the server closed the connection")
        }
        mysql_async::Error::Driver(DriverError::LocalInfile(infile)) => {
            let mut error = Error::new(ErrorKind::Permission, operation, format!("LOAD DATA LOCAL: {infile}"));
            error.hint =
                Some("set `local_infile: true` on the connection, and keep the file below the project's folder".to_owned());
            error
        }
        mysql_async::Error::Driver(DriverError::StmtParamsMismatch { required, supplied }) => {
            let message = format!("the statement has {required} parameters, {supplied} were given");
            Error::new(ErrorKind::Config, operation, message)
        }
        // What the driver does not understand leaves the link out of step.
        other => Error::new(ErrorKind::Lost, operation, other.to_string()),
    };
    error.source = Some(Box::new(source));
    error
}

fn server_error(operation: &str, sql: &str, said: &ServerError) -> Error {
    let message = said.message.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut error = Error::new(kind(said.code), operation, message);
    error.sqlstate = Some(said.state.clone());
    error.native_code = Some(said.code.to_string());
    if matches!(said.code, 1064 | 1149) {
        error.position = near(&said.message, sql);
    }
    if said.code == 1205 {
        error.hint =
            Some("another transaction holds the rows; `innodb_lock_wait_timeout` is how long the server waits".to_owned());
    }
    error
}

/// `... near 'FORM t' at line 2`: the server quotes the rest of the statement from the error on, cut after some characters.
fn near(message: &str, sql: &str) -> Option<u32> {
    let (_, rest) = message.split_once("near '")?;
    let (quoted, line) = rest.rsplit_once("' at line ")?;
    let line: usize = line.trim().parse().ok()?;
    let line_start = match line {
        1 => 0,
        _ => sql.match_indices('\n').nth(line - 2)?.0 + 1,
    };
    let offset = if quoted.is_empty() { sql.len() } else { line_start + sql.get(line_start..)?.find(quoted)? };
    u32::try_from(sql.get(..offset)?.chars().count() + 1).ok()
}

/// Codes of MySQL's and MariaDB's error lists.
fn kind(code: u16) -> ErrorKind {
    match code {
        1213 | 1614 => ErrorKind::Deadlock,
        1020 => ErrorKind::Serialization,
        1205 | 3572 => ErrorKind::LockTimeout,
        1317 | 1969 | 3024 => ErrorKind::Cancelled,
        1022 | 1048 | 1062 | 1169 | 1216 | 1217 | 1364 | 1451 | 1452 | 1557 | 1586 | 1859 | 3819 | 4025 => ErrorKind::Constraint,
        1051 | 1054 | 1060 | 1061 | 1064 | 1091 | 1109 | 1146 | 1149 | 1305 | 1360 | 1584 => ErrorKind::Syntax,
        1044 | 1045 | 1142 | 1143 | 1227 | 1290 | 1370 | 1698 | 1792 | 1836 => ErrorKind::Permission,
        3 | 1021 | 1037 | 1038 | 1040 | 1041 | 1114 | 1203 | 1206 | 1226 => ErrorKind::Resources,
        1053 | 1152 | 1158 | 1159 | 1160 | 1161 | 1184 | 1927 | 2006 | 2013 | 4031 => ErrorKind::Lost,
        _ => ErrorKind::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_position_of_a_syntax_error_is_found_from_what_the_server_quotes() {
        let message = |near: &str, line: u32| {
            format!("You have an error in your SQL syntax; check ... to use near '{near}' at line {line}")
        };
        assert_eq!(near(&message("FORM t", 1), "SELECT * FORM t"), Some(10));
        assert_eq!(near(&message("FORM t WHERE x = 'it's'", 2), "SELECT 'é'\n FORM t WHERE x = 'it's'"), Some(13));
        assert_eq!(near(&message("", 1), "SELECT 1 +"), Some(11));
        assert_eq!(near(&message("elsewhere", 1), "SELECT 1"), None);
        assert_eq!(near("something else", "SELECT 1"), None);
    }
}
