//! The first words of a statement, past comments: enough to keep transaction control out of a unit.
//!
//! This is a safety net behind the script planner, not a parser: it never decides what a statement means, only whether sending it
//! inside a transaction of ours would end that transaction.

use crate::error::{Error, ErrorKind};
use crate::session::Unit;

/// The first two words of a statement in upper case, past white space and comments; empty where there are none.
pub(crate) fn first_words(sql: &str) -> (String, String) {
    let (first, rest) = word(sql);
    let (second, _) = word(rest);
    (first.to_ascii_uppercase(), second.to_ascii_uppercase())
}

fn word(sql: &str) -> (&str, &str) {
    let sql = past_comments(sql);
    let end = sql.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(sql.len());
    sql.split_at(end)
}

fn past_comments(mut sql: &str) -> &str {
    loop {
        sql = sql.trim_start();
        if let Some(rest) = sql.strip_prefix("--") {
            sql = rest.split_once('\n').map_or("", |(_, rest)| rest);
        } else if sql.starts_with("/*") && !sql.starts_with("/*!") {
            sql = past_block_comment(sql);
        } else {
            return sql;
        }
    }
}

/// Nested comments as PostgreSQL has them; where a database does not nest them, a statement that hides words this way is merely
/// read as having none.
fn past_block_comment(sql: &str) -> &str {
    let (bytes, mut depth, mut at) = (sql.as_bytes(), 0_usize, 0_usize);
    while at + 1 < bytes.len() {
        match &bytes[at..at + 2] {
            b"/*" => (depth, at) = (depth + 1, at + 2),
            b"*/" => {
                (depth, at) = (depth - 1, at + 2);
                if depth == 0 {
                    return &sql[at..];
                }
            }
            _ => at += 1,
        }
    }
    ""
}

/// True when the statement would begin or end a transaction.
pub(crate) fn controls_transaction(sql: &str) -> bool {
    let (first, rest) = word(sql);
    let (second, rest) = word(rest);
    let (third, _) = word(rest);
    let second = second.to_ascii_uppercase();
    match first.to_ascii_uppercase().as_str() {
        // MariaDB's BEGIN NOT ATOMIC is a compound statement.
        "BEGIN" => second != "NOT",
        "COMMIT" | "END" | "ABORT" | "XA" => true,
        "START" | "PREPARE" => second == "TRANSACTION",
        "ROLLBACK" => match second.as_str() {
            "TO" => false,
            "WORK" | "TRANSACTION" => !third.eq_ignore_ascii_case("TO"),
            _ => true,
        },
        _ => false,
    }
}

/// True when the statement may turn PostgreSQL's read-only transaction into one that writes, which it lets its first statements do. Some
/// that do not are taken for it: whoever is told so runs the unit as one that writes.
pub(crate) fn lifts_read_only(sql: &str) -> bool {
    if !word(sql).0.eq_ignore_ascii_case("set") {
        return false;
    }
    let sql = sql.to_ascii_lowercase();
    // A name can be written by the numbers of its characters.
    sql.contains("u&\"") || (sql.contains("transaction") && (sql.contains("write") || sql.contains("read_only")))
}

/// True when the statement may run others that end its transaction, as a procedure of MariaDB or MySQL can: what does not begin as one
/// that cannot.
pub fn may_end_transaction_inside(sql: &str) -> bool {
    let (first, second) = first_words(sql);
    match first.as_str() {
        "SELECT" | "WITH" | "VALUES" | "TABLE" | "SHOW" | "EXPLAIN" | "DESCRIBE" | "DESC" | "INSERT" | "UPDATE" | "DELETE" => {
            false
        }
        "SET" => second == "STATEMENT",
        _ => !sql.trim_start().starts_with('('),
    }
}

/// Refuses a unit whose statements would end the transaction that the marker commits in.
pub(crate) fn refuse_transaction_control(unit: &Unit<'_>) -> Result<(), (usize, Error)> {
    match unit.calls.iter().position(|call| controls_transaction(call.sql)) {
        None => Ok(()),
        Some(place) => {
            let words = first_words(unit.calls[place].sql);
            let message = format!("`{}` inside a unit would end its transaction", format!("{} {}", words.0, words.1).trim_end());
            Err((place, Error::new(ErrorKind::Config, "run a unit", message)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_found_past_comments() {
        let words = |sql| first_words(sql);
        assert_eq!(words("select 1"), ("SELECT".into(), "1".into()));
        assert_eq!(words("-- a\n /* b /* c */ d */ roll_back\tto x"), ("ROLL_BACK".into(), "TO".into()));
        assert_eq!(words("/* never closed"), (String::new(), String::new()));
        assert_eq!(words(""), (String::new(), String::new()));
        assert_eq!(words("(select 1)"), (String::new(), String::new()));
        assert_eq!(words("é select"), (String::new(), String::new()));
    }

    #[test]
    fn what_lifts_read_only_is_seen() {
        for sql in [
            "SET TRANSACTION READ/**/WRITE",
            "set local transaction_read_only = off",
            "SET \"transaction_read_only\" TO 0",
            "SET U&\"transaction\\005Fread_only\" TO 0",
        ] {
            assert!(lifts_read_only(sql), "{sql}");
        }
        for sql in ["SET TRANSACTION ISOLATION LEVEL SERIALIZABLE", "SET search_path TO sales", "SELECT 'transaction write'"] {
            assert!(!lifts_read_only(sql), "{sql}");
        }
    }

    #[test]
    fn what_may_run_others_is_seen() {
        for sql in
            ["CALL p()", "EXECUTE p", "/*! CALL p() */", "SET STATEMENT a = 1 FOR CALL p()", "BEGIN NOT ATOMIC CALL p(); END"]
        {
            assert!(may_end_transaction_inside(sql), "{sql}");
        }
        for sql in ["SELECT f()", " (SELECT 1)", "SET @a = 1", "SHOW TABLES"] {
            assert!(!may_end_transaction_inside(sql), "{sql}");
        }
    }

    #[test]
    fn transaction_control_is_seen_and_savepoints_are_let_through() {
        for sql in [
            "commit",
            "/* x */ END",
            "Start Transaction",
            "PREPARE TRANSACTION 'a'",
            "rollback",
            "abort work",
            "ROLLBACK AND CHAIN",
        ] {
            assert!(controls_transaction(sql), "{sql}");
        }
        for sql in [
            "SAVEPOINT a",
            "ROLLBACK TO a",
            "ROLLBACK WORK TO a",
            "BEGIN NOT ATOMIC SET @a = 1; END",
            "RELEASE a",
            "PREPARE p AS SELECT 1",
            "SELECT 'commit'",
            "INSERT INTO begin VALUES (1)",
        ] {
            assert!(!controls_transaction(sql), "{sql}");
        }
    }
}
