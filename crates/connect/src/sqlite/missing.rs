//! A name that the database does not know: what it may have meant, and which file was looked into.

use super::Settings;
use crate::marker::MarkerTable;
use crate::settings::closest;
use rusqlite::Connection;

/// How many names are read to guess from, and how many are listed.
const NAMES_READ_MAX: usize = 1000;
const NAMES_LISTED_MAX: usize = 8;

/// What to do about a message of SQLite that says that a table or column is missing; `None` for other messages.
pub(super) fn hint(connection: &Connection, settings: &Settings, message: &str, sql: &str) -> Option<String> {
    match Missing::read(message)? {
        Missing::Table(name) => {
            let known = tables(connection);
            Some(format!("{}; {}", place(settings), guess(name, &known, "it has no tables", "its tables")))
        }
        Missing::Column(name, table) => {
            // An alias may stand before the column: then every table that the statement names comes into question.
            let known = tables(connection);
            let meant: Vec<&String> = match table.and_then(|table| known.iter().find(|known| same(known, table))) {
                Some(table) => vec![table],
                None => known.iter().filter(|table| names(sql, table)).collect(),
            };
            let columns: Vec<String> = meant.into_iter().flat_map(|table| columns(connection, table)).collect();
            (!columns.is_empty()).then(|| guess(name, &columns, "", "the columns there"))
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Missing<'a> {
    Table(&'a str),
    /// The column, and the table or alias it was looked for in, where the message tells.
    Column(&'a str, Option<&'a str>),
}

impl<'a> Missing<'a> {
    fn read(message: &'a str) -> Option<Self> {
        if let Some(name) = message.strip_prefix("no such table: ") {
            return Some(Self::Table(name.rsplit_once('.').map_or(name, |(_, name)| name)));
        }
        if let Some(name) = message.strip_prefix("no such column: ") {
            // `"x" - should this be a string literal in single-quotes?` says already what to do.
            let bare = !name.contains(['"', ' ']);
            return bare.then(|| match name.rsplit_once('.') {
                Some((table, column)) => Self::Column(column, Some(table.rsplit_once('.').map_or(table, |(_, table)| table))),
                None => Self::Column(name, None),
            });
        }
        let (table, column) = message.strip_prefix("table ")?.split_once(" has no column named ")?;
        Some(Self::Column(column, Some(table)))
    }
}

/// The one that is close, else the first few.
fn guess(name: &str, known: &[String], none: &str, label: &str) -> String {
    let lower: Vec<String> = known.iter().map(|known| known.to_lowercase()).collect();
    let lower: Vec<&str> = lower.iter().map(String::as_str).collect();
    let close = closest(&name.to_lowercase(), &lower).and_then(|close| known.iter().find(|known| same(known, close)));
    if let Some(close) = close {
        return format!("did you mean `{close}`?");
    }
    if known.is_empty() {
        return none.to_owned();
    }
    let listed = known.iter().take(NAMES_LISTED_MAX).map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    let more = known.len().saturating_sub(NAMES_LISTED_MAX);
    if more > 0 { format!("{label}: {listed} and {more} more") } else { format!("{label}: {listed}") }
}

/// Which database was looked into: a wrong folder is the commonest reason of a missing table, since SQLite makes a file that is not there.
fn place(settings: &Settings) -> String {
    match &settings.path {
        None => "the database is in memory, private to each session, and begins empty".to_owned(),
        Some(path) => {
            let from = if settings.is_relative { " (a relative path begins at the project's folder)" } else { "" };
            format!("the database is {}{from}", path.display())
        }
    }
}

fn same(one: &str, other: &str) -> bool {
    one.eq_ignore_ascii_case(other)
}

/// True when a word of the statement is this name.
fn names(sql: &str, name: &str) -> bool {
    sql.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| same(word, name))
}

/// Tables and views of all attached databases, without SQLite's own and ours. An error on the way only costs the guess.
fn tables(connection: &Connection) -> Vec<String> {
    let own = MarkerTable::default().name;
    let sql = "SELECT DISTINCT name FROM pragma_table_list WHERE name NOT LIKE 'sqlite\\_%' ESCAPE '\\' ORDER BY name";
    let mut known = first_column(connection, sql, &[]).unwrap_or_default();
    known.retain(|name| *name != own);
    known
}

fn columns(connection: &Connection, table: &str) -> Vec<String> {
    first_column(connection, "SELECT name FROM pragma_table_info(?1)", &[table]).unwrap_or_default()
}

fn first_column(connection: &Connection, sql: &str, values: &[&str]) -> rusqlite::Result<Vec<String>> {
    let mut statement = connection.prepare(sql)?;
    let names = statement.query_map(rusqlite::params_from_iter(values), |row| row.get(0))?;
    names.take(NAMES_READ_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_read_from_the_message() {
        let cases = [
            ("no such table: orders", Some(Missing::Table("orders"))),
            ("no such table: main.orders", Some(Missing::Table("orders"))),
            ("no such column: amuont", Some(Missing::Column("amuont", None))),
            ("no such column: o.amuont", Some(Missing::Column("amuont", Some("o")))),
            ("no such column: main.orders.amuont", Some(Missing::Column("amuont", Some("orders")))),
            ("no such column: \"x\" - should this be a string literal in single-quotes?", None),
            ("table orders has no column named amuont", Some(Missing::Column("amuont", Some("orders")))),
            ("no such function: f", None),
            ("near \"SELEC\": syntax error", None),
        ];
        for (message, missing) in cases {
            assert_eq!(Missing::read(message), missing, "{message}");
        }
    }

    #[test]
    fn a_close_name_is_guessed_and_others_are_listed() {
        let known = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let told = |name, names: &[&str]| guess(name, &known(names), "none", "its tables");
        assert_eq!(told("ODRERS", &["customers", "Orders"]), "did you mean `Orders`?");
        assert_eq!(told("zebra", &["customers", "orders"]), "its tables: `customers`, `orders`");
        assert_eq!(
            told("zebra", &["aa", "bb", "cc", "dd", "ee", "ff", "gg", "hh", "ii", "jj"]),
            "its tables: `aa`, `bb`, `cc`, `dd`, `ee`, `ff`, `gg`, `hh` and 2 more"
        );
        assert_eq!(told("zebra", &[]), "none");
    }
}
