//! `connections:` of backstop.yaml.

use super::Reading;
use super::project::{ProjectFile, key_span};
use crate::connection::{self, TYPES, normal_type, supported};
use crate::definition::Connection;
use crate::diagnostic::{Diagnostic, code, did_you_mean};
use crate::environment::Environment;
use crate::secrets::{MASKED_BYTES_MIN, is_secret_key, is_short};
use crate::yaml::{Fields, Key, Node, Value};
use std::collections::BTreeMap;
use std::sync::Arc;

impl Reading<'_> {
    pub(super) fn connections(&mut self, node: &Node, environment: &Environment, file: &mut ProjectFile) {
        for (key, value) in self.map(node, "`connections`").unwrap_or_default() {
            let at = key_span(key, &self.file);
            if !self.id(&key.text, "a connection", at, true) {
                continue;
            }
            // Variables of the environment are in capitals, so ids are told apart without case.
            let id = key.text.to_lowercase();
            let before = self.errors();
            let read = self.connection(key, value, environment);
            match read.filter(|_| self.errors() == before) {
                Some(connection) => {
                    file.connections.insert(id, connection);
                }
                None => {
                    file.broken.insert(id);
                }
            }
        }
    }

    fn connection(&mut self, key: &Key, node: &Arc<Node>, environment: &Environment) -> Option<Connection> {
        let origin = format!("{}:{}", self.file, key.line);
        if let Value::Scalar { .. } = node.value {
            return self.connection_uri(node, environment, &origin);
        }
        let entries = self.map(node, "a connection")?;
        let mut fields = Fields::new("Connection", entries);
        let uri = fields.take_present("uri");
        let conn_type = fields.take_present("conn_type");
        let mut connection = match uri {
            Some(uri) => self.connection_uri(uri, environment, &origin),
            None => Some(Connection::new(String::new(), origin)),
        };
        let mut scratch = Connection::new(String::new(), String::new());
        let target = connection.as_mut().unwrap_or(&mut scratch);
        if let Some(node) = conn_type {
            target.conn_type = self.conn_type(node, environment).unwrap_or_default();
        }
        self.connection_texts(&mut fields, environment, target);
        if let Some(node) = fields.take_present("extra") {
            target.extra.extend(self.extra(node, environment));
        }
        if let Some(node) = fields.take_present("marker") {
            self.marker(node, target);
        }
        if let Some(sessions) = fields.take_present("sessions").and_then(|node| self.integer(node, "`sessions`", 1, 10_000)) {
            target.sessions_max = u32::try_from(sessions).unwrap_or(u32::MAX);
        }
        if let Some(description) = fields.take_present("description").and_then(|node| self.text(node, "`description`")) {
            target.description = Some(description.to_string());
        }
        let is_misspelt = fields.misspells("uri") || fields.misspells("conn_type");
        fields.finish(&[], &self.file.clone(), &mut self.diagnostics);
        if uri.is_none() && conn_type.is_none() && !is_misspelt {
            let hint = "add `conn_type: postgres` (or mysql, sqlite), or `uri: postgres://user@host/database`";
            self.error_with_hint(code::MISSING_KEY, "the connection has no type", node, hint);
        }
        connection
    }

    fn connection_texts(&mut self, fields: &mut Fields<'_>, environment: &Environment, target: &mut Connection) {
        let text = |reading: &mut Self, fields: &mut Fields<'_>, name: &'static str| {
            let node = fields.take_present(name)?;
            reading.substituted(node, environment)
        };
        let host = text(self, fields, "host");
        let login = text(self, fields, "login");
        let password = fields.take_present("password").and_then(|node| {
            let password = self.substituted_in(node, environment, true)?;
            self.masked(&password, node);
            Some(password)
        });
        let database = text(self, fields, "database");
        // Airflow calls the database `schema`.
        let schema = text(self, fields, "schema");
        target.host = host.or(target.host.take());
        target.login = login.or(target.login.take());
        target.password = password.or(target.password.take());
        target.database = database.or(schema).or(target.database.take());
        if let Some(node) = fields.take_present("port") {
            let port = self.substituted(node, environment);
            match port.as_ref().map(|port| port.trim().parse::<u16>()) {
                Some(Ok(port)) => target.port = Some(port),
                Some(Err(_)) => self.error(code::BAD_VALUE, "`port` must be a number between 0 and 65535", node),
                None => {}
            }
        }
    }

    fn connection_uri(&mut self, node: &Node, environment: &Environment, origin: &str) -> Option<Connection> {
        let text = self.substituted(node, environment)?;
        match connection::parse_uri(&text, origin) {
            Ok(connection) => {
                self.known_type(&connection.conn_type, node)?;
                self.masked(connection.password.as_deref().unwrap_or_default(), node);
                Some(connection)
            }
            Err(error) => {
                let hint = "write `postgres://user:password@host:5432/database`, and `%40` for an `@` in the password";
                self.error_with_hint(code::BAD_CONNECTION, error.to_string(), node, hint);
                None
            }
        }
    }

    /// Warns of a password that will not be masked.
    fn masked(&mut self, password: &str, node: &Node) {
        if is_short(Some(password)) {
            let (message, hint) = short_password();
            let diagnostic = Diagnostic::error(code::SHORT_PASSWORD, message, node.span(&self.file));
            self.diagnostics.push(diagnostic.hint(hint).warning());
        }
    }

    fn conn_type(&mut self, node: &Node, environment: &Environment) -> Option<String> {
        let text = normal_type(&self.substituted(node, environment)?);
        self.known_type(&text, node)?;
        Some(text)
    }

    fn known_type(&mut self, conn_type: &str, node: &Node) -> Option<()> {
        if supported(conn_type) {
            return Some(());
        }
        let (message, hint) = unknown_type(conn_type);
        self.error_with_hint(code::UNKNOWN_CONNECTION_TYPE, message, node, hint);
        None
    }

    fn extra(&mut self, node: &Node, environment: &Environment) -> BTreeMap<String, String> {
        let mut extra = BTreeMap::new();
        for (key, value) in self.map(node, "`extra`").unwrap_or_default() {
            let text = match &value.value {
                Value::Scalar { .. } => self.substituted_in(value, environment, is_secret_key(&key.text)),
                Value::List(_) | Value::Map(_) => Some(value.to_json().to_string()),
            };
            extra.extend(text.map(|text| (key.text.to_string(), text)));
        }
        extra
    }

    fn marker(&mut self, node: &Node, target: &mut Connection) {
        let Some(entries) = self.map(node, "`marker`") else { return };
        let mut fields = Fields::new("Marker", entries);
        let schema = fields.take_present("schema").and_then(|node| self.text(node, "`schema`"));
        let table = fields.take_present("table").and_then(|node| self.text(node, "`table`"));
        target.marker_schema = schema.map(|text| text.to_string());
        target.marker_table = table.map(|text| text.to_string());
        fields.finish(&[], &self.file.clone(), &mut self.diagnostics);
    }
}

/// What to say of a password that will not be masked.
pub(crate) fn short_password() -> (String, String) {
    let message = format!("the password has fewer than {MASKED_BYTES_MIN} bytes, and is not masked where it is told back");
    (message, "choose a longer one: a mask for so short a text would hide ordinary words everywhere".to_owned())
}

/// What to say of a type that this version cannot open.
pub(crate) fn unknown_type(conn_type: &str) -> (String, String) {
    let known: Vec<&str> = TYPES.iter().filter(|(_, supported)| *supported).map(|(name, _)| *name).collect();
    if TYPES.iter().any(|(name, _)| *name == conn_type) {
        let message = format!("connections of type `{conn_type}` are not available in this version");
        return (message, format!("available: {}", known.join(", ")));
    }
    let hint = match did_you_mean(conn_type, known.iter().copied()) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("available: {}", known.join(", ")),
    };
    (format!("there is no connection type `{conn_type}`"), hint)
}
