//! Connections as Airflow writes them: URIs and JSON. No message holds a part of what was read, save names of keys.

use crate::definition::Connection;
use percent_encoding::percent_decode_str;
use serde_json::Value;
use std::collections::BTreeMap;

/// Why a connection could not be read. It never holds the text it was read from.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ConnectionError(String);

/// Airflow's types of connections, and whether this version opens them.
pub(crate) const TYPES: &[(&str, bool)] = &[
    ("postgres", true),
    ("mysql", true),
    ("sqlite", true),
    ("mssql", false),
    ("oracle", false),
    ("snowflake", false),
    ("gcpbigquery", false),
    ("redshift", false),
    ("hiveserver2", false),
    ("presto", false),
    ("trino", false),
    ("odbc", false),
    ("jdbc", false),
    ("vertica", false),
    ("drill", false),
    ("impala", false),
    ("clickhouse", false),
    ("teradata", false),
    ("hana", false),
];

/// Whether this version opens connections of a type.
pub(crate) fn supported(conn_type: &str) -> bool {
    TYPES.iter().any(|(name, supported)| *supported && *name == conn_type)
}

/// Airflow's name of a type: `postgresql` is `postgres`, `-` is `_`. MariaDB is spoken to as MySQL.
pub(crate) fn normal_type(text: &str) -> String {
    let text = text.trim().to_lowercase().replace('-', "_");
    match text.as_str() {
        "postgresql" => "postgres".to_owned(),
        "mariadb" => "mysql".to_owned(),
        "sqlite3" => "sqlite".to_owned(),
        _ => text,
    }
}

impl Connection {
    pub(crate) fn new(conn_type: String, origin: String) -> Self {
        const SESSIONS_MAX: u32 = 16;
        Self {
            conn_type,
            host: None,
            port: None,
            login: None,
            password: None,
            database: None,
            extra: BTreeMap::new(),
            marker_schema: None,
            marker_table: None,
            sessions_max: SESSIONS_MAX,
            description: None,
            origin,
        }
    }
}

/// Reads `postgres://user:password@host:5432/database?key=value`, by Airflow's rules: user, password and path are unquoted, the path without
/// its slash is the database, `scheme://proto://host` nests, query items are extra settings, `__extra__` replaces all others.
///
/// For SQLite the database is a file: `sqlite:///relative/path` and `sqlite:////absolute/path`.
///
/// # Errors
/// When the text is no such URI. The message holds nothing of it.
pub fn parse_uri(text: &str, origin: &str) -> Result<Connection, ConnectionError> {
    let error = |what: &str| ConnectionError(format!("the connection's URI {what}"));
    let text = text.trim();
    let (scheme, rest) = text.split_once(':').ok_or_else(|| error("has no scheme, such as `postgres://`"))?;
    if scheme.is_empty() || !scheme.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.' | '_')) {
        return Err(error("has no scheme, such as `postgres://`"));
    }
    let mut connection = Connection::new(normal_type(scheme), origin.to_owned());
    // `sqlite:data.db`, as SQLite's own programs name a file.
    let plain_path;
    let rest = match rest.strip_prefix("//") {
        Some(rest) => rest,
        None if connection.conn_type == "sqlite" && !rest.is_empty() => {
            plain_path = format!("/{rest}");
            &plain_path
        }
        None => return Err(error("has no `//` after its scheme")),
    };
    let rest = rest.split_once('#').map_or(rest, |(rest, _)| rest);
    let (rest, query) = rest.split_once('?').map_or((rest, None), |(rest, query)| (rest, Some(query)));
    // `http://https://host` is Airflow's way to give the protocol of a host.
    let (protocol, rest) = match rest.split_once("://") {
        Some((protocol, after)) if !protocol.contains(['/', '@', ':']) => (Some(protocol), after),
        Some(_) | None => (None, rest),
    };
    let (authority, path) = rest.split_once('/').map_or((rest, None), |(authority, path)| (authority, Some(path)));
    let unquoted = |text: &str| {
        percent_decode_str(text).decode_utf8().map(|text| text.into_owned()).map_err(|_| error("holds bytes that are not UTF-8"))
    };
    let host = match authority.rsplit_once('@') {
        None => authority,
        Some((login, host)) => {
            let (login, password) = login.split_once(':').map_or((login, None), |(login, password)| (login, Some(password)));
            connection.login = Some(unquoted(login)?).filter(|login| !login.is_empty());
            connection.password = password.map(unquoted).transpose()?;
            host
        }
    };
    let (host, port) = split_port(host).ok_or_else(|| error("has a port that is no number up to 65535"))?;
    let host = unquoted(host)?;
    connection.host = match protocol {
        Some(protocol) => Some(format!("{protocol}://{host}")),
        None => Some(host).filter(|host| !host.is_empty()),
    };
    connection.port = port;
    connection.database = path.map(unquoted).transpose()?.filter(|path| !path.is_empty());
    if let Some(query) = query {
        connection.extra = extra_of_query(query).ok_or_else(|| error("has an `__extra__` that is no JSON object"))?;
    }
    for (key, field) in [("marker_schema", &mut connection.marker_schema), ("marker_table", &mut connection.marker_table)] {
        *field = connection.extra.remove(key);
    }
    if let Some(sessions) = connection.extra.remove("sessions") {
        connection.sessions_max = sessions_of(&sessions).ok_or_else(|| error("has `sessions` that are no number from 1"))?;
    }
    Ok(connection)
}

fn sessions_of(text: &str) -> Option<u32> {
    text.parse().ok().filter(|sessions| *sessions > 0)
}

/// The host and the port; `[::1]:5432` has colons in its host.
fn split_port(host: &str) -> Option<(&str, Option<u16>)> {
    if let Some(inner) = host.strip_prefix('[') {
        let (inner, after) = inner.split_once(']')?;
        return match after.strip_prefix(':') {
            None | Some("") => Some((inner, None)),
            Some(port) => Some((inner, Some(port.parse().ok()?))),
        };
    }
    match host.rsplit_once(':') {
        None => Some((host, None)),
        Some((host, "")) => Some((host, None)),
        Some((host, port)) => Some((host, Some(port.parse().ok()?))),
    }
}

/// Query items; `__extra__` replaces all others.
fn extra_of_query(query: &str) -> Option<BTreeMap<String, String>> {
    let unquoted = |text: &str| percent_decode_str(&text.replace('+', " ")).decode_utf8_lossy().into_owned();
    let mut extra = BTreeMap::new();
    for item in query.split('&').filter(|item| !item.is_empty()) {
        let (key, value) = item.split_once('=').unwrap_or((item, ""));
        extra.insert(unquoted(key), unquoted(value));
    }
    match extra.remove("__extra__") {
        None => Some(extra),
        Some(json) => extra_of_json(&serde_json::from_str(&json).ok()?),
    }
}

/// An object, or its JSON in a text. Values that are no texts are kept as JSON.
fn extra_of_json(value: &Value) -> Option<BTreeMap<String, String>> {
    let text_of = |value: &Value| match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    match value {
        Value::Null => Some(BTreeMap::new()),
        Value::Object(map) => Some(map.iter().map(|(key, value)| (key.clone(), text_of(value))).collect()),
        Value::String(text) if text.trim().is_empty() => Some(BTreeMap::new()),
        Value::String(text) => match serde_json::from_str(text).ok()? {
            Value::Object(map) => extra_of_json(&Value::Object(map)),
            _ => None,
        },
        Value::Bool(_) | Value::Number(_) | Value::Array(_) => None,
    }
}

/// Reads `{"conn_type": "postgres", "host": ...}`, with Airflow's keys.
///
/// # Errors
/// When the text is no such JSON. The message holds no value of it.
pub fn parse_json(text: &str, origin: &str) -> Result<Connection, ConnectionError> {
    let error = |what: String| ConnectionError(format!("the connection's JSON {what}"));
    // The parser's own message may hold a part of the text, so only its place is told.
    let read: Value =
        serde_json::from_str(text).map_err(|e| error(format!("cannot be read: line {}, column {}", e.line(), e.column())))?;
    let Value::Object(map) = read else { return Err(error("is no object".to_owned())) };
    let mut connection = Connection::new(String::new(), origin.to_owned());
    for (key, value) in &map {
        let text = |value: &Value| match value {
            Value::Null => Ok(None),
            Value::String(text) => Ok(Some(text.clone())),
            Value::Number(number) => Ok(Some(number.to_string())),
            Value::Bool(_) | Value::Array(_) | Value::Object(_) => Err(error(format!("has a `{key}` that is no text"))),
        };
        match key.as_str() {
            "conn_type" => connection.conn_type = normal_type(&text(value)?.unwrap_or_default()),
            "host" => connection.host = text(value)?.filter(|text| !text.is_empty()),
            "login" => connection.login = text(value)?.filter(|text| !text.is_empty()),
            "password" => connection.password = text(value)?,
            "schema" | "database" => {
                connection.database = text(value)?.filter(|text| !text.is_empty()).or(connection.database.take())
            }
            "description" => connection.description = text(value)?,
            "port" => match text(value)?.filter(|text| !text.is_empty()) {
                None => {}
                Some(port) => {
                    connection.port =
                        Some(port.parse().map_err(|_| error("has a `port` that is no number up to 65535".to_owned()))?)
                }
            },
            "extra" => {
                connection.extra = extra_of_json(value).ok_or_else(|| error("has an `extra` that is no object".to_owned()))?;
            }
            // A key is no secret, yet it may be a secret that went astray; its name is not told.
            _ => {
                return Err(error(
                    "has a key besides conn_type, description, login, password, host, port, schema, extra".to_owned(),
                ));
            }
        }
    }
    if connection.conn_type.is_empty() {
        return Err(error("has no `conn_type`".to_owned()));
    }
    for (key, field) in [("marker_schema", &mut connection.marker_schema), ("marker_table", &mut connection.marker_table)] {
        *field = connection.extra.remove(key);
    }
    if let Some(sessions) = connection.extra.remove("sessions") {
        connection.sessions_max =
            sessions_of(&sessions).ok_or_else(|| error("has `sessions` that are no number from 1".to_owned()))?;
    }
    Ok(connection)
}
