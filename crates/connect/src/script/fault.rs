//! What can be wrong with a script, small enough to travel through the scanning loops, and how it is told to its author.

use super::SplitError;
use super::place::Place;

/// What is wrong, and at which byte it begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) at: usize,
    pub(super) kind: FaultKind,
}

/// What is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FaultKind {
    String,
    Identifier,
    DollarQuote,
    Comment,
    AtomicBody,
    RuleActions,
    TriggerBody,
    CompoundBody,
    CopyData,
    CopySameLine,
    CopyWithoutData,
    PsqlCommand,
    EmptyDelimiter,
    MissingDelimiter,
    RepeatCount,
    MixedPlaceholders,
    NeverCommitted,
    AlreadyOpen,
    NotInTransaction,
    PrepareTransaction,
}

impl Fault {
    /// The error for the author of `text`.
    pub(super) fn into_error(self, text: &str) -> SplitError {
        let place = Place::of(text, self.at);
        let (what, hint) = self.kind.words();
        SplitError { what: what.to_owned(), line: place.line, column: place.column, offset: self.at, hint: Some(hint.to_owned()) }
    }
}

impl FaultKind {
    /// What is wrong and what to do.
    fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::String => (
                "the string that begins here is never closed",
                "close it with the same quote; a quote inside the string is written twice",
            ),
            Self::Identifier => {
                ("the quoted name that begins here is never closed", "close it; a closing quote inside the name is written twice")
            }
            Self::DollarQuote => {
                ("the dollar quote that begins here is never closed", "close it with the very same tag, in the same case")
            }
            Self::Comment => {
                ("the comment that begins here is never closed", "close it with */; nested comments each need their own")
            }
            Self::AtomicBody => {
                ("the BEGIN ATOMIC that begins here has no END", "end the body with END; each CASE in it needs its END too")
            }
            Self::RuleActions => {
                ("the parenthesis that begins here is never closed", "close the list of the rule's actions with )")
            }
            Self::TriggerBody => (
                "the trigger body that begins here is never ended",
                "end each statement of the body with a semicolon, and the body with END",
            ),
            Self::CompoundBody => (
                "the block that begins here is never ended",
                "each BEGIN, IF, CASE, LOOP, WHILE, REPEAT and FOR needs its own END (END IF, END LOOP...)",
            ),
            Self::CopyData => ("the COPY data that begins here is never ended", "end it with a line of \\. alone"),
            Self::CopySameLine => (
                "COPY data begins on the line after the semicolon, but here is something else",
                "put what follows the semicolon after the line of \\. that ends the data",
            ),
            Self::CopyWithoutData => (
                "this COPY ... FROM STDIN has no data",
                "end the statement with a semicolon, then write the data, then a line of \\. alone",
            ),
            Self::PsqlCommand => (
                "this is a command of psql, not SQL",
                "commands that begin with a backslash cannot run here: remove it, or write what it does in SQL; \\set variables become params",
            ),
            Self::EmptyDelimiter => ("this DELIMITER line names no delimiter", "write it on the same line: DELIMITER //"),
            Self::MissingDelimiter => (
                "this DELIMITER line comes before the statement above it has ended",
                "end the statement above with the delimiter that is in force",
            ),
            Self::RepeatCount => ("this GO has a count that cannot be", "the count is a whole number from 1 to 4294967295"),
            Self::MixedPlaceholders => (
                "this statement has positional placeholders beside named ones",
                "name them all: a statement has either one kind or the other",
            ),
            Self::NeverCommitted => (
                "the transaction begun here is never committed",
                "end it with COMMIT (or ROLLBACK), or remove the BEGIN: the script's statements then commit together by themselves",
            ),
            Self::AlreadyOpen => (
                "a transaction is already open here",
                "end it with COMMIT or ROLLBACK first; for a part that can be undone on its own use SAVEPOINT",
            ),
            Self::NotInTransaction => (
                "this statement cannot run inside a transaction, and one is open here",
                "put it before the BEGIN or after the COMMIT",
            ),
            Self::PrepareTransaction => (
                "PREPARE TRANSACTION leaves the transaction to be committed by someone else, so nothing can be promised of it",
                "end it with COMMIT; to commit on several databases together use `two_phase: true` on a group",
            ),
        }
    }
}
