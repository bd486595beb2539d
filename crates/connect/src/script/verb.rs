//! What kind of statement: by its first words, and for those that seem to read by all of their words outside quotes.
//!
//! Whoever is in doubt says [`Verb::Write`]: that costs a marker. Saying [`Verb::Read`] of a statement that writes costs a refusal
//! of the server, since it enforces what is run as read-only.

use super::lexer::{Cursor, Keyword, Token, TokenKind};
use super::{Dialect, Verb};

/// What kind of statement this is. The text begins with its first token.
pub(super) fn classify(dialect: Dialect, sql: &str) -> Verb {
    let mut words = Words::new(dialect, sql);
    let mut first = words.next();
    while first.kind == TokenKind::Byte(b'(') {
        first = words.next();
    }
    let first = words.cursor.keyword(first);
    // Most dialects have one statement here; a batch of Transact-SQL has several.
    if dialect == Dialect::SqlServer {
        return batch(first.as_str(), &mut words);
    }
    match first.as_str() {
        "INSERT" | "UPDATE" | "DELETE" | "MERGE" | "REPLACE" => Verb::Write,
        "SELECT" | "VALUES" | "TABLE" => query(&mut words, false),
        "WITH" => query(&mut words, true),
        "SHOW" => Verb::Read,
        "EXPLAIN" | "DESCRIBE" | "DESC" => explain(dialect, &mut words),
        "BEGIN" => begin(dialect, &mut words),
        "COMMIT" | "ROLLBACK" | "ABORT" | "SAVEPOINT" | "RELEASE" => ending(dialect, first.as_str(), &mut words),
        other => match dialect {
            Dialect::PostgreSql => postgresql(other, &mut words),
            Dialect::MySql => mysql(other, &mut words),
            Dialect::Sqlite => sqlite(other, &mut words),
            Dialect::Oracle => oracle(other, &mut words),
            Dialect::Generic | Dialect::SqlServer => standard(other, &mut words),
        },
    }
}

/// The tokens of a statement, one after the other. What cannot be read ends it: the splitter has already said so.
struct Words<'a> {
    cursor: Cursor<'a>,
}

impl<'a> Words<'a> {
    fn new(dialect: Dialect, sql: &'a str) -> Self {
        Self { cursor: Cursor::new(dialect, sql) }
    }

    fn next(&mut self) -> Token {
        self.cursor.next_token().unwrap_or(Token { kind: TokenKind::End, start: 0, end: 0 })
    }

    /// The next token as a keyword, empty for all that is no word.
    fn next_word(&mut self) -> Keyword {
        let token = self.next();
        self.cursor.keyword(token)
    }

    fn next_is(&mut self, wanted: &[&str]) -> bool {
        wanted.contains(&self.next_word().as_str())
    }

    /// True when one of the words is still to come.
    fn contain(&mut self, wanted: &[&str]) -> bool {
        self.any(|word| wanted.contains(&Keyword::new(word).as_str()))
    }

    /// True when a word is still to come that is so.
    fn any(&mut self, is_so: impl Fn(&[u8]) -> bool) -> bool {
        loop {
            let token = self.next();
            match token.kind {
                TokenKind::End => return false,
                TokenKind::Word if is_so(self.cursor.bytes_of(token)) => return true,
                TokenKind::Word | TokenKind::Number | TokenKind::Quoted | TokenKind::Byte(_) => {}
            }
        }
    }
}

/// SELECT, VALUES, TABLE and WITH: INTO makes a table or a file, FOR UPDATE takes locks, and a WITH can write.
fn query(words: &mut Words<'_>, mut with: bool) -> Verb {
    loop {
        let token = words.next();
        if token.kind == TokenKind::End {
            return Verb::Read;
        }
        match words.cursor.keyword(token).as_str() {
            "WITH" => with = true,
            "INSERT" | "UPDATE" | "DELETE" | "MERGE" if with => return Verb::Write,
            // MySQL's SELECT ... INTO @variable writes nothing.
            "INTO" if !words.cursor.rest().trim_ascii_start().starts_with(b"@") => return Verb::Write,
            "FOR" if matches!(words.cursor.peek_keyword().as_str(), "UPDATE" | "SHARE" | "NO" | "KEY") => return Verb::Write,
            "LOCK" if words.cursor.peek_keyword().as_str() == "IN" => return Verb::Write,
            _ => {}
        }
    }
}

/// EXPLAIN runs the statement when it analyses; Oracle's writes into a table.
fn explain(dialect: Dialect, words: &mut Words<'_>) -> Verb {
    if dialect == Dialect::Oracle || words.contain(&["ANALYZE", "ANALYSE"]) { Verb::Write } else { Verb::Read }
}

/// BEGIN is a transaction, or a block of a language that Oracle and MariaDB have in place of statements.
fn begin(dialect: Dialect, words: &mut Words<'_>) -> Verb {
    match dialect {
        Dialect::Oracle => block(dialect, words),
        Dialect::MySql if words.cursor.peek_keyword().as_str() == "NOT" => block(dialect, words),
        Dialect::PostgreSql | Dialect::MySql | Dialect::Sqlite | Dialect::SqlServer | Dialect::Generic => Verb::Begin,
    }
}

/// A block that ends transactions by itself, or runs what does, cannot be a part of one.
fn block(dialect: Dialect, words: &mut Words<'_>) -> Verb {
    loop {
        let token = words.next();
        match words.cursor.keyword(token).as_str() {
            "COMMIT" => return Verb::ImplicitCommit,
            "ROLLBACK" if words.cursor.peek_keyword().as_str() != "TO" => return Verb::ImplicitCommit,
            "START" if words.cursor.peek_keyword().as_str() == "TRANSACTION" => return Verb::ImplicitCommit,
            "IMMEDIATE" if immediate(dialect, words) == Verb::ImplicitCommit => return Verb::ImplicitCommit,
            // TRUNCATE is a function too, before a parenthesis.
            "CREATE" | "ALTER" | "DROP" | "TRUNCATE" | "RENAME" | "GRANT" | "REVOKE" | "LOCK" | "FLUSH"
                if dialect == Dialect::MySql
                    && words.cursor.peek_keyword().as_str() != "TEMPORARY"
                    && !words.cursor.rest().trim_ascii_start().starts_with(b"(") =>
            {
                return Verb::ImplicitCommit;
            }
            _ if token.kind == TokenKind::End => return Verb::Write,
            _ => {}
        }
    }
}

/// COMMIT, ROLLBACK, ABORT, SAVEPOINT and RELEASE.
fn ending(dialect: Dialect, first: &str, words: &mut Words<'_>) -> Verb {
    let mut next = words.next_word();
    if matches!(next.as_str(), "WORK" | "TRANSACTION") {
        next = words.next_word();
    }
    match (first, next.as_str()) {
        ("COMMIT" | "ROLLBACK", "PREPARED") if dialect == Dialect::PostgreSql => Verb::NoTransaction,
        ("COMMIT", _) => Verb::Commit,
        ("ROLLBACK", "TO") | ("SAVEPOINT" | "RELEASE", _) => Verb::Savepoint,
        ("ABORT", _) if dialect != Dialect::PostgreSql => Verb::Write,
        _ => Verb::Rollback,
    }
}

fn postgresql(first: &str, words: &mut Words<'_>) -> Verb {
    match first {
        "START" => Verb::Begin,
        "END" => Verb::Commit,
        // A plain PREPARE names a statement for this session; the planner refuses PREPARE TRANSACTION.
        "SET" | "RESET" | "PREPARE" | "DEALLOCATE" | "LISTEN" | "UNLISTEN" | "LOAD" | "CLOSE" => Verb::Session,
        "DISCARD" if words.next_is(&["ALL"]) => Verb::NoTransaction,
        "DISCARD" => Verb::Session,
        "FETCH" | "MOVE" => Verb::Read,
        "DECLARE" => query(words, false),
        "COPY" => copy(words),
        "VACUUM" => Verb::NoTransaction,
        "DO" => anonymous_block(words),
        "CREATE" | "DROP" | "ALTER" | "REINDEX" | "CLUSTER" if outside_transactions(first, words) => Verb::NoTransaction,
        "CREATE" | "DROP" | "ALTER" | "REINDEX" | "CLUSTER" | "COMMENT" | "GRANT" | "REVOKE" | "REFRESH" | "IMPORT"
        | "SECURITY" | "REASSIGN" => Verb::Define,
        _ => Verb::Write,
    }
}

/// True for the definitions that PostgreSQL refuses inside a transaction (its manual names them statement by statement).
fn outside_transactions(first: &str, words: &mut Words<'_>) -> bool {
    let mut object = words.next_word();
    if object.as_str() == "UNIQUE" {
        object = words.next_word();
    }
    match (first, object.as_str()) {
        ("CREATE" | "DROP", "DATABASE" | "TABLESPACE") | ("CREATE", "SUBSCRIPTION") | ("ALTER", "SYSTEM") => true,
        ("CREATE" | "DROP", "INDEX") => words.next_is(&["CONCURRENTLY"]),
        ("ALTER", "DATABASE") => words.contain(&["TABLESPACE"]),
        ("ALTER", "TABLE") => words.contain(&["DETACH"]) && words.contain(&["CONCURRENTLY"]),
        ("REINDEX", "DATABASE" | "SYSTEM" | "SCHEMA") => true,
        ("REINDEX", _) => words.contain(&["CONCURRENTLY", "DATABASE", "SYSTEM", "SCHEMA"]),
        ("CLUSTER", "") => words.cursor.rest().trim_ascii().is_empty(),
        ("CLUSTER", "VERBOSE") => words.next().kind == TokenKind::End,
        _ => false,
    }
}

/// COPY ... TO STDOUT reads, all other forms write tables or files.
fn copy(words: &mut Words<'_>) -> Verb {
    let mut after_to = false;
    let mut reads = false;
    loop {
        let token = words.next();
        let keyword = words.cursor.keyword(token);
        match keyword.as_str() {
            "INSERT" | "UPDATE" | "DELETE" | "MERGE" | "STDIN" => return Verb::Write,
            "STDOUT" if after_to => reads = true,
            _ if token.kind == TokenKind::End => return if reads { Verb::Read } else { Verb::Write },
            _ => {}
        }
        after_to = keyword.as_str() == "TO";
    }
}

/// DO: a body that commits between its steps (a batched delete) runs outside transactions only.
fn anonymous_block(words: &mut Words<'_>) -> Verb {
    loop {
        let token = words.next();
        match token.kind {
            TokenKind::End => return Verb::Write,
            TokenKind::Quoted => {
                let body = std::str::from_utf8(words.cursor.bytes_of(token)).unwrap_or_default();
                let body = body.trim_start_matches(|letter| letter != '$').trim_matches('$');
                let body = body.find('$').map_or(body, |tag| if body.ends_with(&body[..tag]) { &body[tag + 1..] } else { body });
                if ends_transactions(body) {
                    return Verb::NoTransaction;
                }
            }
            TokenKind::Word | TokenKind::Number | TokenKind::Byte(_) => {}
        }
    }
}

/// True when a statement of the body is COMMIT or ROLLBACK (ON COMMIT DROP is not).
fn ends_transactions(body: &str) -> bool {
    let mut words = Words::new(Dialect::PostgreSql, body);
    let mut at_start = true;
    loop {
        let token = words.next();
        let keyword = words.cursor.keyword(token);
        match keyword.as_str() {
            "COMMIT" | "ROLLBACK" if at_start => return true,
            _ if token.kind == TokenKind::End => return false,
            _ => {}
        }
        at_start = token.kind == TokenKind::Byte(b';') || matches!(keyword.as_str(), "BEGIN" | "THEN" | "ELSE" | "LOOP");
    }
}

/// The list of MariaDB's manual, "SQL statements that cause an implicit commit", and MySQL's of the same name.
fn mysql(first: &str, words: &mut Words<'_>) -> Verb {
    match first {
        "START" => {
            if words.next_is(&["TRANSACTION"]) {
                Verb::Begin
            } else {
                Verb::ImplicitCommit
            }
        }
        "SET" => mysql_set(words),
        "EXECUTE" if words.next_is(&["IMMEDIATE"]) => immediate(Dialect::MySql, words),
        "XA" => Verb::NoTransaction,
        "USE" | "PREPARE" | "DEALLOCATE" => Verb::Session,
        "HELP" | "CHECKSUM" => Verb::Read,
        "CREATE" | "DROP" => temporary(first, words),
        "LOAD" => {
            if words.next_is(&["INDEX"]) {
                Verb::ImplicitCommit
            } else {
                Verb::Write
            }
        }
        "ANALYZE" => {
            if words.next_is(&["TABLE", "NO_WRITE_TO_BINLOG", "LOCAL"]) {
                Verb::ImplicitCommit
            } else {
                Verb::Write
            }
        }
        "ALTER" | "RENAME" | "TRUNCATE" | "GRANT" | "REVOKE" | "LOCK" | "UNLOCK" | "OPTIMIZE" | "CHECK" | "REPAIR" | "CACHE"
        | "FLUSH" | "RESET" | "INSTALL" | "UNINSTALL" | "CHANGE" | "STOP" | "BACKUP" | "SHUTDOWN" | "PURGE" | "IMPORT"
        | "CLONE" | "RESTART" => Verb::ImplicitCommit,
        // MariaDB runs blocks outside routines; so does a label before one.
        "IF" | "CASE" | "LOOP" | "WHILE" | "REPEAT" | "FOR" => block(Dialect::MySql, words),
        _ if words.cursor.rest().trim_ascii_start().starts_with(b":") => block(Dialect::MySql, words),
        _ => Verb::Write,
    }
}

/// SET STATEMENT runs the statement after its FOR, and turning autocommit on commits what is open.
fn mysql_set(words: &mut Words<'_>) -> Verb {
    match words.cursor.peek_keyword().as_str() {
        "PASSWORD" | "DEFAULT" => return Verb::ImplicitCommit,
        // Another SET inside is not looked into, so that no text can nest without end.
        "STATEMENT" if words.contain(&["FOR"]) => {
            let inner = std::str::from_utf8(words.cursor.rest()).unwrap_or_default();
            let sets = words.cursor.peek_keyword().as_str() == "SET";
            return if sets { Verb::Write } else { inside(Dialect::MySql, inner) };
        }
        _ => {}
    }
    while words.contain(&["AUTOCOMMIT"]) {
        let mut value = words.next();
        if !matches!(value.kind, TokenKind::Byte(b'=' | b':')) {
            continue;
        }
        while matches!(value.kind, TokenKind::Byte(b'=' | b':')) {
            value = words.next();
        }
        let is_off = words.cursor.bytes_of(value) == b"0" || matches!(words.cursor.keyword(value).as_str(), "OFF" | "FALSE");
        if !is_off {
            return Verb::ImplicitCommit;
        }
    }
    Verb::Session
}

/// The verb of EXECUTE IMMEDIATE with a string; what is in a variable is not known.
fn immediate(dialect: Dialect, words: &mut Words<'_>) -> Verb {
    let token = words.next();
    let text = std::str::from_utf8(words.cursor.bytes_of(token)).unwrap_or_default();
    let inner = text.strip_prefix(['\'', '"']).unwrap_or_default();
    // One string inside the other is as deep as this looks.
    let nests = inner.trim_ascii_start().get(..7).is_some_and(|word| word.eq_ignore_ascii_case("EXECUTE"));
    if nests { Verb::Write } else { inside(dialect, inner) }
}

/// The verb of a statement that runs another. A transaction's boundary inside of it is out of the planner's hands.
fn inside(dialect: Dialect, sql: &str) -> Verb {
    match classify(dialect, sql) {
        Verb::Begin | Verb::Commit | Verb::Rollback | Verb::ImplicitCommit => Verb::ImplicitCommit,
        Verb::Read => Verb::Read,
        Verb::Write | Verb::Define | Verb::NoTransaction | Verb::Session | Verb::Savepoint => Verb::Write,
    }
}

/// Temporary tables are made and dropped inside the transaction (though that itself is not rolled back).
fn temporary(first: &str, words: &mut Words<'_>) -> Verb {
    let mut next = words.next_word();
    while matches!(next.as_str(), "OR" | "REPLACE") {
        next = words.next_word();
    }
    match (first, next.as_str()) {
        (_, "TEMPORARY") => Verb::Define,
        ("DROP", "PREPARE") => Verb::Session,
        _ => Verb::ImplicitCommit,
    }
}

fn sqlite(first: &str, words: &mut Words<'_>) -> Verb {
    match first {
        "END" => Verb::Commit,
        "CREATE" | "DROP" | "ALTER" | "REINDEX" | "ANALYZE" => Verb::Define,
        "VACUUM" | "ATTACH" | "DETACH" => Verb::NoTransaction,
        "PRAGMA" => pragma(words),
        _ => Verb::Write,
    }
}

/// Pragmas that have no effect, or are refused, inside a transaction; those that only tell something; those that write the file.
fn pragma(words: &mut Words<'_>) -> Verb {
    let mut name = words.next_word();
    if words.cursor.rest().trim_ascii_start().starts_with(b".") {
        words.next();
        name = words.next_word();
    }
    let sets = !words.cursor.rest().trim_ascii().is_empty();
    match name.as_str() {
        "JOURNAL_MODE" | "SYNCHRONOUS" | "FOREIGN_KEYS" | "TEMP_STORE" | "LOCKING_MODE" | "AUTO_VACUUM" | "PAGE_SIZE" if sets => {
            Verb::NoTransaction
        }
        "WAL_CHECKPOINT" => Verb::NoTransaction,
        "USER_VERSION" | "APPLICATION_ID" | "SCHEMA_VERSION" if sets => Verb::Write,
        "INCREMENTAL_VACUUM" | "OPTIMIZE" => Verb::Write,
        "INTEGRITY_CHECK" | "QUICK_CHECK" | "FOREIGN_KEY_CHECK" | "FOREIGN_KEY_LIST" | "TABLE_INFO" | "TABLE_XINFO"
        | "TABLE_LIST" | "INDEX_LIST" | "INDEX_INFO" | "INDEX_XINFO" | "DATABASE_LIST" => Verb::Read,
        _ if sets => Verb::Session,
        _ => Verb::Read,
    }
}

fn oracle(first: &str, words: &mut Words<'_>) -> Verb {
    match first {
        "DECLARE" => block(Dialect::Oracle, words),
        "" if words.cursor.token_end() > 0 => block(Dialect::Oracle, words),
        "SET" => Verb::Session,
        "ALTER" if words.next_is(&["SESSION"]) => Verb::Session,
        "CREATE" if words.next_is(&["PRIVATE"]) => Verb::Define,
        "CREATE" | "ALTER" | "DROP" | "TRUNCATE" | "RENAME" | "GRANT" | "REVOKE" | "COMMENT" | "ANALYZE" | "AUDIT"
        | "NOAUDIT" | "PURGE" | "FLASHBACK" | "ASSOCIATE" | "DISASSOCIATE" | "ADMINISTER" => Verb::ImplicitCommit,
        _ => Verb::Write,
    }
}

fn standard(first: &str, words: &mut Words<'_>) -> Verb {
    match first {
        "START" => {
            if words.next_is(&["TRANSACTION"]) {
                Verb::Begin
            } else {
                Verb::Write
            }
        }
        "END" => Verb::Commit,
        "SET" | "USE" => Verb::Session,
        "CREATE" | "ALTER" | "DROP" | "GRANT" | "REVOKE" | "COMMENT" => Verb::Define,
        _ => Verb::Write,
    }
}

/// A batch of Transact-SQL. Its statements need no separator, so every word of it counts.
fn batch(first: &str, words: &mut Words<'_>) -> Verb {
    match first {
        "BEGIN" if words.next_is(&["TRAN", "TRANSACTION"]) => return transaction_control(words, Verb::Begin),
        "SAVE" => return transaction_control(words, Verb::Savepoint),
        "COMMIT" => return transaction_control(words, Verb::Commit),
        "ROLLBACK" => return transaction_control(words, Verb::Rollback),
        "BACKUP" | "RESTORE" | "RECONFIGURE" => return Verb::NoTransaction,
        "CREATE" | "ALTER" | "DROP" => match words.cursor.peek_keyword().as_str() {
            "DATABASE" => return Verb::NoTransaction,
            // What a body commits is committed when it is called.
            "PROCEDURE" | "PROC" | "FUNCTION" | "TRIGGER" | "VIEW" | "OR" => return Verb::Define,
            _ => {}
        },
        // What big scripts are made of: one question is left, and few words begin like an answer.
        "INSERT" | "UPDATE" | "DELETE" | "MERGE" => {
            let ends = words.any(|word| {
                matches!(word.first(), Some(b'c' | b'C' | b'r' | b'R'))
                    && matches!(Keyword::new(word).as_str(), "COMMIT" | "ROLLBACK")
            });
            return if ends { Verb::ImplicitCommit } else { Verb::Write };
        }
        _ => {}
    }
    let mut writes = false;
    let mut selects = false;
    loop {
        let token = words.next();
        match words.cursor.keyword(token).as_str() {
            "COMMIT" | "ROLLBACK" => return Verb::ImplicitCommit,
            "INSERT" | "UPDATE" | "DELETE" | "MERGE" | "INTO" | "EXEC" | "EXECUTE" | "TRUNCATE" | "BULK" | "CREATE" | "ALTER"
            | "DROP" | "GRANT" | "REVOKE" | "DENY" | "DBCC" | "ENABLE" | "DISABLE" | "KILL" | "BACKUP" | "RESTORE"
            | "DECLARE" | "WRITETEXT" | "UPDATETEXT" | "RECONFIGURE" | "SHUTDOWN" | "BEGIN" => writes = true,
            "SELECT" => selects = true,
            _ if token.kind == TokenKind::End => break,
            _ => {}
        }
    }
    match first {
        "CREATE" | "ALTER" | "DROP" | "GRANT" | "REVOKE" | "DENY" => Verb::Define,
        "SELECT" | "WITH" if !writes => Verb::Read,
        "SET" | "USE" if !writes => {
            if selects {
                Verb::Read
            } else {
                Verb::Session
            }
        }
        _ => Verb::Write,
    }
}

/// A batch that is a transaction's boundary alone; with other statements beside, it manages its transactions by itself.
fn transaction_control(words: &mut Words<'_>, verb: Verb) -> Verb {
    for _ in 0..4 {
        match words.next().kind {
            TokenKind::End => return verb,
            TokenKind::Byte(b';') if words.next().kind == TokenKind::End => return verb,
            TokenKind::Byte(b';') => return Verb::ImplicitCommit,
            TokenKind::Word | TokenKind::Number | TokenKind::Quoted | TokenKind::Byte(_) => {}
        }
    }
    Verb::ImplicitCommit
}

/// The name of a statement for people, in capitals: its first word, and what it is about (`CREATE TABLE`, `XA PREPARE`).
pub(super) fn name(dialect: Dialect, sql: &str) -> String {
    const OBJECTS: [&str; 29] = [
        "TABLE",
        "TABLES",
        "VIEW",
        "INDEX",
        "DATABASE",
        "SCHEMA",
        "USER",
        "ROLE",
        "PROCEDURE",
        "FUNCTION",
        "TRIGGER",
        "EVENT",
        "SEQUENCE",
        "SERVER",
        "TABLESPACE",
        "PACKAGE",
        "TYPE",
        "SYNONYM",
        "SYSTEM",
        "SUBSCRIPTION",
        "PASSWORD",
        "PREPARED",
        "PLUGIN",
        "AUTOCOMMIT",
        "MASTER",
        "REPLICA",
        "SLAVE",
        "PRIVILEGES",
        "LOGS",
    ];
    let mut words = Words::new(dialect, sql);
    let first = words.next_word();
    if matches!(first.as_str(), "XA" | "PRAGMA" | "DISCARD" | "START" | "STOP") {
        return format!("{} {}", first.as_str(), words.next_word().as_str()).trim_end().to_owned();
    }
    // Whoever is named in DEFINER = and the like stands between.
    for _ in 0..14 {
        let token = words.next();
        let keyword = words.cursor.keyword(token);
        if token.kind == TokenKind::End || token.kind == TokenKind::Byte(b'(') && keyword.as_str().is_empty() {
            break;
        }
        if OBJECTS.contains(&keyword.as_str()) {
            let concurrently = words.cursor.peek_keyword().as_str() == "CONCURRENTLY";
            return format!("{} {}{}", first.as_str(), keyword.as_str(), if concurrently { " CONCURRENTLY" } else { "" });
        }
    }
    first.as_str().to_owned()
}

#[cfg(test)]
#[path = "verb_tests.rs"]
mod tests;
