//! What the server, the driver or the network said, and what kind of refusal that is.

use super::settings::{Settings, SslMode};
use crate::error::{Error, ErrorKind};
use mysql_async::{DriverError, IoError, ServerError};
use std::io;

/// A classified error; `sql` finds the position of a syntax error.
pub(super) fn classified(operation: &str, sql: &str, source: mysql_async::Error) -> Error {
    match source {
        // The error's own text would only repeat its fields.
        mysql_async::Error::Server(said) => server_error(operation, sql, &said),
        mysql_async::Error::Io(IoError::Io(broken)) => {
            let message = match broken.kind() {
                io::ErrorKind::UnexpectedEof => "the server closed the connection".to_owned(),
                io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => "the connection broke".to_owned(),
                _ => format!("the connection failed ({broken})"),
            };
            behind(Error::new(ErrorKind::Lost, operation, message), broken)
        }
        mysql_async::Error::Io(IoError::Tls(failed)) => {
            behind(Error::new(ErrorKind::Lost, operation, format!("TLS failed ({failed})")), failed)
        }
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
        other => behind(Error::new(ErrorKind::Lost, operation, other.to_string()), other),
    }
}

fn behind(mut error: Error, source: impl std::error::Error + Send + Sync + 'static) -> Error {
    error.source = Some(Box::new(source));
    error
}

fn tls_hint(settings: &Settings) -> &'static str {
    match settings.ssl_mode {
        SslMode::VerifyCa | SslMode::VerifyIdentity => {
            "set `ssl_ca` to the certificate of the authority that signed the server's, and `host` to a name in it"
        }
        SslMode::Disabled | SslMode::Preferred | SslMode::Required => {
            "check the server's TLS settings, or set `ssl_mode` to `disabled`"
        }
    }
}

/// An error of opening a connection: which of host, port, user, database and TLS is to blame.
pub(super) fn opening(settings: &Settings, source: mysql_async::Error) -> Error {
    let unreachable = |message: String, hint: &str| {
        let mut error = Error::new(ErrorKind::Unreachable, settings.connecting(), message);
        error.hint = Some(hint.to_owned());
        error
    };
    let place = settings.place();
    match source {
        mysql_async::Error::Server(said) => refused(settings, &said),
        // A certificate that is refused comes as an error of the socket.
        mysql_async::Error::Io(IoError::Io(failed)) if failed.get_ref().is_some_and(|inner| inner.is::<rustls::Error>()) => {
            behind(unreachable(format!("TLS with {place} failed ({failed})"), tls_hint(settings)), failed)
        }
        mysql_async::Error::Io(IoError::Io(failed)) => {
            let message = match failed.kind() {
                io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound => format!("nothing listens at {place}"),
                io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset => {
                    format!("the server at {place} closed the connection at once")
                }
                io::ErrorKind::InvalidData => strange_server(&place),
                // Name resolution has no kind of its own.
                _ if failed.raw_os_error().is_none() => {
                    format!("the host name `{}` cannot be resolved ({failed})", settings.host)
                }
                _ => format!("{place} cannot be reached ({failed})"),
            };
            behind(unreachable(message, "check host and port, and that the server is running"), failed)
        }
        mysql_async::Error::Io(IoError::Tls(failed)) => {
            behind(unreachable(format!("TLS with {place} failed ({failed})"), tls_hint(settings)), failed)
        }
        mysql_async::Error::Driver(DriverError::ConnectionClosed) => unreachable(
            format!("the server at {place} closed the connection at once"),
            "check host and port, and that the server is running",
        ),
        mysql_async::Error::Driver(DriverError::NoClientSslFlagFromServer) => unreachable(
            format!("the server at {place} does not offer TLS, and `ssl_mode` demands it"),
            "turn TLS on in the server's configuration, or lower `ssl_mode`",
        ),
        mysql_async::Error::Driver(
            strange @ (DriverError::CantParseServerVersion { .. }
            | DriverError::UnexpectedPacket { .. }
            | DriverError::PacketOutOfOrder),
        ) => behind(unreachable(strange_server(&place), "check host and port"), strange),
        other => {
            let message = format!("{place} cannot be used ({other})");
            behind(unreachable(message, "check host and port, and that the server is running"), other)
        }
    }
}

fn strange_server(place: &str) -> String {
    format!("what answers at {place} is neither MySQL nor MariaDB")
}

/// The server answered, and does not let us in.
fn refused(settings: &Settings, said: &ServerError) -> Error {
    let mut error = server_error(&settings.connecting(), "", said);
    let hint = match said.code {
        1044 | 1045 | 1698 => format!("check the user and the password of connection `{}`", settings.id),
        1049 => "create the database, or correct the connection's database".to_owned(),
        1129 | 1130 => {
            format!("the server lets nobody in from this host: grant `{}` the right to connect from it", settings.user)
        }
        _ => return error,
    };
    error.kind = ErrorKind::Refused;
    error.hint = Some(hint);
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
