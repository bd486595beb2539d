//! Statements to segments: what commits together, and what can be promised of it.

use super::fault::{Fault, FaultKind};
use super::verb::name;
use super::{Dialect, Segment, SegmentEnd, SegmentPromise, SplitError, Statement, Verb};
use std::ops::Range;

/// Groups the statements of a script into the segments that commit together.
///
/// The script's own BEGIN and COMMIT bound segments; what stands outside of them is one segment as far as it is contiguous, or one
/// a statement with `autocommit`. Statements that change the session only belong to the segment after them; where that begins
/// with the script's own BEGIN, they are a (read-only) segment of their own, since they came before it. Statements that commit by
/// themselves or refuse a transaction are segments of their own that say why they are at least once. Empty segments vanish.
///
/// # Errors
/// When a transaction of the script is never ended, is begun inside another, holds a statement that refuses transactions, or is
/// prepared for somebody else to commit.
pub fn plan(dialect: Dialect, text: &str, statements: &[Statement], autocommit: bool) -> Result<Vec<Segment>, SplitError> {
    let mut planner = Planner { dialect, text, statements, autocommit, segments: Vec::new(), open: None };
    planner.run().map_err(|fault| fault.into_error(text))?;
    Ok(planner.segments)
}

/// The statements before a segment that a new session has to run again when it goes on from there: those that changed the session
/// (SET, USE, PREPARE, ATTACH...), without those that a transaction takes along when it ends (SET LOCAL, SET TRANSACTION).
pub fn session_statements_before(
    dialect: Dialect,
    text: &str,
    statements: &[Statement],
    segments: &[Segment],
    segment: usize,
) -> Vec<usize> {
    let earlier = segments.iter().take(segment);
    // PostgreSQL takes a SET back when its transaction rolls back.
    let kept = earlier.filter(|segment| !(dialect == Dialect::PostgreSql && segment.end == SegmentEnd::Rollback));
    kept.flat_map(|segment| segment.statements.clone())
        .filter(|place| {
            let Some(statement) = statements.get(*place) else { return false };
            let sql = &text[statement.text.clone()];
            match statement.verb {
                Verb::Session => !has_words(sql, 1, &["LOCAL", "TRANSACTION", "CONSTRAINTS"]),
                Verb::NoTransaction => dialect == Dialect::Sqlite && !has_words(sql, 0, &["VACUUM"]),
                Verb::Read
                | Verb::Write
                | Verb::Define
                | Verb::ImplicitCommit
                | Verb::Begin
                | Verb::Commit
                | Verb::Rollback
                | Verb::Savepoint => false,
            }
        })
        .collect()
}

/// A segment that is not closed yet.
#[derive(Clone, Copy)]
struct Open {
    first: usize,
    /// The script's BEGIN, whose settings hold.
    begin: Option<usize>,
    /// What the script must end itself: its BEGIN, or the COMMIT AND CHAIN that began this one.
    owed_since: Option<usize>,
}

struct Planner<'a> {
    dialect: Dialect,
    text: &'a str,
    statements: &'a [Statement],
    autocommit: bool,
    segments: Vec<Segment>,
    open: Option<Open>,
}

impl Planner<'_> {
    fn run(&mut self) -> Result<(), Fault> {
        let mut place = 0;
        while let Some(statement) = self.statements.get(place) {
            let next = place + 1;
            match statement.verb {
                Verb::Begin => self.begin(place)?,
                Verb::Commit => self.end(place, SegmentEnd::Commit),
                Verb::Rollback => self.end(place, SegmentEnd::Rollback),
                Verb::ImplicitCommit => self.implicit_commit(place),
                Verb::NoTransaction => {
                    place = self.no_transaction(place)?;
                    continue;
                }
                Verb::Session if self.dialect == Dialect::PostgreSql && self.has(place, &["PREPARE", "TRANSACTION"]) => {
                    return Err(self.fault(place, FaultKind::PrepareTransaction));
                }
                Verb::Session => self.join(place),
                Verb::Read | Verb::Write | Verb::Define | Verb::Savepoint => {
                    self.join(place);
                    if self.autocommit && self.owed_since().is_none() {
                        self.close(next, SegmentEnd::Commit);
                    }
                }
            }
            place = next;
        }
        match self.open {
            // A chain that nothing follows owes nothing.
            Some(Open { owed_since: Some(owed), first, .. }) if first < place || self.statements[owed].verb == Verb::Begin => {
                Err(self.fault(owed, FaultKind::NeverCommitted))
            }
            Some(_) | None => {
                self.close(place, SegmentEnd::Commit);
                Ok(())
            }
        }
    }

    fn join(&mut self, place: usize) {
        self.open.get_or_insert(Open { first: place, begin: None, owed_since: None });
    }

    fn begin(&mut self, place: usize) -> Result<(), Fault> {
        // MySQL commits what is open when another transaction begins; the others refuse or ignore it.
        if self.owed_since().is_some() && self.dialect != Dialect::MySql {
            return Err(self.fault(place, FaultKind::AlreadyOpen));
        }
        self.close(place, SegmentEnd::Commit);
        self.open = Some(Open { first: place + 1, begin: Some(place), owed_since: Some(place) });
        Ok(())
    }

    fn end(&mut self, place: usize, end: SegmentEnd) {
        let begin = self.open.and_then(|open| open.begin);
        self.close(place, end);
        if self.has(place, &["AND", "CHAIN"]) {
            self.open = Some(Open { first: place + 1, begin, owed_since: Some(place) });
        }
    }

    fn implicit_commit(&mut self, place: usize) {
        let before = self.segments.len();
        let transaction = self.open.and_then(|open| open.owed_since);
        let mut reason = self.implicit_commit_reason(place);
        self.bare(place..place + 1, String::new());
        if let Some(begin) = transaction
            && self.segments.len() > before + 1
        {
            let line = self.statements[begin].line;
            reason.push_str(&format!(", and with it what stands before it in the transaction begun on line {line}"));
        }
        if let Some(segment) = self.segments.last_mut() {
            segment.promise = SegmentPromise::AtLeastOnce(reason);
        }
    }

    /// Plans a statement that refuses transactions; tells the place to go on from.
    fn no_transaction(&mut self, place: usize) -> Result<usize, Fault> {
        if self.owed_since().is_some() {
            // SQLite refuses some of these, ignores others and runs the rest, by version: it is asked.
            if self.dialect == Dialect::Sqlite {
                return Ok(place + 1);
            }
            return Err(self.fault(place, FaultKind::NotInTransaction));
        }
        let name = self.name(place);
        let (after, reason) = match self.dialect {
            Dialect::MySql => {
                (self.after_xa(place, &name), format!("{name} is part of a transaction that the script manages itself"))
            }
            Dialect::PostgreSql if name == "DO" => (place + 1, "the block commits or rolls back by itself".to_owned()),
            Dialect::PostgreSql => (place + 1, format!("PostgreSQL runs {name} outside of transactions only")),
            Dialect::Sqlite => (place + 1, format!("SQLite runs {name} outside of transactions only")),
            Dialect::SqlServer => (place + 1, format!("SQL Server runs {name} outside of transactions only")),
            Dialect::Oracle | Dialect::Generic => (place + 1, format!("{name} runs outside of transactions only")),
        };
        self.bare(place..after, reason);
        Ok(after)
    }

    /// Where the XA transaction ends that begins at `place`: its statements only make sense one after the other on one session.
    fn after_xa(&self, place: usize, name: &str) -> usize {
        if !matches!(name, "XA START" | "XA BEGIN") {
            return place + 1;
        }
        let mut after = place + 1;
        for later in place + 1..self.statements.len() {
            if self.statements[later].verb != Verb::NoTransaction {
                continue;
            }
            match self.name(later).as_str() {
                "XA COMMIT" | "XA ROLLBACK" => return later + 1,
                "XA START" | "XA BEGIN" => return after,
                _ => after = later + 1,
            }
        }
        after
    }

    /// A segment without a transaction. Statements before it that only change the session are its own.
    fn bare(&mut self, mut statements: Range<usize>, reason: String) {
        if let Some(open) = self.open
            && open.owed_since.is_none()
            && self.statements[open.first..statements.start].iter().all(|statement| statement.verb == Verb::Session)
        {
            statements.start = open.first;
            self.open = None;
        }
        self.close(statements.start, SegmentEnd::Commit);
        self.push(statements, None, SegmentEnd::Commit, SegmentPromise::AtLeastOnce(reason));
    }

    fn close(&mut self, until: usize, end: SegmentEnd) {
        let Some(open) = self.open.take() else { return };
        let statements = open.first..until;
        if !statements.is_empty() {
            let promise = self.promise(statements.clone(), open.begin);
            self.push(statements, open.begin, end, promise);
        }
    }

    fn push(&mut self, statements: Range<usize>, begin: Option<usize>, end: SegmentEnd, promise: SegmentPromise) {
        let number = u32::try_from(self.segments.len()).unwrap_or(u32::MAX);
        self.segments.push(Segment { number, statements, begin, end, promise });
    }

    fn promise(&self, statements: Range<usize>, begin: Option<usize>) -> SegmentPromise {
        // A transaction that the script itself makes read-only takes no marker.
        let declared = begin.is_some_and(|begin| self.has(begin, &["READ", "ONLY"]))
            || statements
                .clone()
                .any(|place| self.statements[place].verb == Verb::Session && self.has(place, &["TRANSACTION", "READ", "ONLY"]));
        let reads = self.statements[statements].iter().all(|statement| match statement.verb {
            Verb::Read | Verb::Session | Verb::Savepoint => true,
            Verb::Write
            | Verb::Define
            | Verb::ImplicitCommit
            | Verb::NoTransaction
            | Verb::Begin
            | Verb::Commit
            | Verb::Rollback => false,
        });
        if declared || reads { SegmentPromise::ReadOnly } else { SegmentPromise::ExactlyOnce }
    }

    fn implicit_commit_reason(&self, place: usize) -> String {
        let name = self.name(place);
        match (self.dialect, name.as_str()) {
            (Dialect::SqlServer, _) => "the batch begins, commits or rolls back transactions by itself".to_owned(),
            (Dialect::MySql, "LOCK TABLE" | "LOCK TABLES") => {
                format!("MariaDB/MySQL commits {name} by itself, and its locks end where the next transaction begins")
            }
            (_, "BEGIN" | "DECLARE" | "IF" | "CASE" | "LOOP" | "WHILE" | "REPEAT" | "FOR") => {
                "the block commits or rolls back by itself".to_owned()
            }
            (Dialect::MySql, _) => format!("MariaDB/MySQL commits {name} by itself"),
            (Dialect::Oracle, _) => format!("Oracle commits {name} by itself"),
            (Dialect::PostgreSql | Dialect::Sqlite | Dialect::Generic, _) => format!("the database commits {name} by itself"),
        }
    }

    fn owed_since(&self) -> Option<usize> {
        self.open.and_then(|open| open.owed_since)
    }

    fn name(&self, place: usize) -> String {
        name(self.dialect, self.sql(place))
    }

    fn sql(&self, place: usize) -> &str {
        &self.text[self.statements[place].text.clone()]
    }

    /// True when these words stand one after the other among the statement's first.
    fn has(&self, place: usize, wanted: &[&str]) -> bool {
        const FIRST_WORDS: usize = 16;
        let words: Vec<&str> = words(self.sql(place)).take(FIRST_WORDS).collect();
        words
            .windows(wanted.len())
            .any(|window| window.iter().zip(wanted).all(|(word, wanted)| word.eq_ignore_ascii_case(wanted)))
    }

    fn fault(&self, place: usize, kind: FaultKind) -> Fault {
        Fault { at: self.statements[place].text.start, kind }
    }
}

/// True when the word at this place is one of these.
fn has_words(sql: &str, place: usize, wanted: &[&str]) -> bool {
    words(sql).nth(place).is_some_and(|word| wanted.iter().any(|wanted| word.eq_ignore_ascii_case(wanted)))
}

/// The words of a short statement; BEGIN and SET hold no strings in which more could be hidden.
fn words(sql: &str) -> impl Iterator<Item = &str> {
    sql.split(|letter: char| !letter.is_alphanumeric() && letter != '_').filter(|word| !word.is_empty())
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
