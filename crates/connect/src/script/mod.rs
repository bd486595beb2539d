//! SQL text to statements and segments, by lexical rules alone: user SQL is run whether or not any parser understands it.
//!
//! The way through: [`split`] cuts a script into statements (`lexer` scans the bytes, `split` holds the rules of each dialect and
//! `compound` those of bodies with semicolons inside, `verb` says what kind of statement it is), [`plan`] groups them into segments
//! that commit together, [`bind_names`] turns `:name` into the database's own placeholders ([`unbound`] are those without a value), [`digest`] names what ran for the
//! marker, and [`statement_position_to_source`] leads an error of the server back to a line of the script.
//!
//! What is not here: no parser, no knowledge of the server's version or settings. Strings are read as the database reads them with
//! its default settings (`standard_conforming_strings` on, no `NO_BACKSLASH_ESCAPES`, no `ANSI_QUOTES`).

mod batch;
mod bind;
mod compound;
mod digest;
mod fault;
mod lexer;
mod outline;
mod place;
mod plan;
mod split;
mod unbound;
mod verb;

pub use bind::{Bound, bind_names};
pub use digest::digest;
pub use outline::outline;
pub use place::{statement_position_to_source, summary};
pub use plan::{plan, session_statements_before};
pub use split::split;
pub use unbound::{Unbound, unbound};

pub use crate::words::may_end_transaction_inside;

use std::ops::Range;

/// The lexical rules of a kind of database.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dialect {
    /// Dollar quotes, nested comments, E'' strings, BEGIN ATOMIC, COPY FROM STDIN, psql's \. end of data.
    PostgreSql,
    /// MySQL and MariaDB: backticks, # comments, DELIMITER, /*! */ comments, compound statements.
    MySql,
    /// SQLite: triggers with BEGIN ... END, all four identifier quotes.
    Sqlite,
    /// Transact-SQL: `GO [n]` on its own line, `[brackets]`.
    SqlServer,
    /// PL/SQL blocks ended by / on its own line, q'[...]' quotes.
    Oracle,
    /// Standard SQL only.
    Generic,
}

/// One statement of a script. Ranges are in bytes of the script's text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statement {
    /// From 1 within the script.
    pub number: u32,
    /// Line of its first token, from 1.
    pub line: u32,
    /// Column of its first token in characters, from 1.
    pub column: u32,
    /// From its first token to its last, without leading comments and without the terminator.
    pub text: Range<usize>,
    /// The data lines after `COPY ... FROM STDIN;`, without the closing `\.` line.
    pub copy_data: Option<Range<usize>>,
    /// How often to run it (`GO 5`); 1 otherwise.
    pub repeat: u32,
    /// What kind of statement.
    pub verb: Verb,
}

/// What kind of statement, as far as its first words tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verb {
    /// Looks like it only reads: SELECT, VALUES, SHOW, EXPLAIN without ANALYZE, WITH that ends in SELECT and has no writing part.
    Read,
    /// Changes rows, or may (INSERT, UPDATE, DELETE, MERGE, CALL, DO, SELECT ... INTO, COPY FROM, and all that is not known).
    Write,
    /// Changes definitions inside the transaction.
    Define,
    /// Commits by itself, before and after (MySQL's and Oracle's DDL, LOCK TABLES...).
    ImplicitCommit,
    /// Refuses to run inside a transaction (VACUUM, CREATE DATABASE, CREATE INDEX CONCURRENTLY, SQLite's ATTACH...).
    NoTransaction,
    /// Changes the session only (SET, USE, PRAGMA, PREPARE, LISTEN...).
    Session,
    /// BEGIN, START TRANSACTION, in any of the dialect's forms.
    Begin,
    /// COMMIT, END.
    Commit,
    /// ROLLBACK (not to a savepoint).
    Rollback,
    /// SAVEPOINT, RELEASE, ROLLBACK TO.
    Savepoint,
}

/// Why a script cannot be split.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}")]
pub struct SplitError {
    /// `the string that begins here is never closed`.
    pub what: String,
    /// From 1.
    pub line: u32,
    /// In characters, from 1.
    pub column: u32,
    /// In bytes.
    pub offset: usize,
    /// What to do.
    pub hint: Option<String>,
}

/// How a segment ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SegmentEnd {
    /// With a commit.
    Commit,
    /// With the script's own ROLLBACK: it leaves no effect.
    Rollback,
}

/// What a segment can promise, as far as the text tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SegmentPromise {
    /// Marked: exactly once.
    ExactlyOnce,
    /// Looks read-only; run it so that the server enforces it.
    ReadOnly,
    /// Not transactional, for this reason in words.
    AtLeastOnce(String),
}

/// Statements that commit together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// From 0 within the script.
    pub number: u32,
    /// Places in the list of statements; BEGIN and COMMIT themselves are not in it.
    pub statements: Range<usize>,
    /// The place of the script's own BEGIN, where it has one.
    pub begin: Option<usize>,
    /// How it ends.
    pub end: SegmentEnd,
    /// What it can promise.
    pub promise: SegmentPromise,
}
