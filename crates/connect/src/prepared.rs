//! Branches of transactions over several databases: the ids under which servers keep them, and what a server says of them.
//!
//! A branch that is prepared outlives its session, its client and a restart of its server, with all its locks, until somebody commits it or rolls
//! it back. So its id says whose it is, and is read strictly: what somebody else prepared is never touched.

use crate::error::Error;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// What all our ids begin with.
const PREFIX: &str = "backstop";
/// The format of our XA ids, so that they are told from those of others also where those begin alike.
pub const XA_FORMAT: u32 = 16_979;
/// The longest run id in an id: with prefix and mark it fits into the 64 bytes of an XA `gtrid`.
pub const RUN_BYTES_MAX: usize = 42;
/// Digits of the mark.
const MARK_DIGITS: usize = 12;

/// The id of a branch: `backstop:<run>:<mark>:<branch>.<opening>`, and in XA the last part is the `bqual`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Gid {
    run: String,
    mark: String,
    branch: u32,
    opening: u32,
}

impl Gid {
    /// `digest` is what tells the work from other work of a run of that name: hexadecimal digits, of which the first 12 are kept. `branch` is its
    /// place among the branches, and `opening` is another number each time the branch is begun.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) when the run's id is too long or has letters that an id cannot have, or the digest is none.
    pub fn new(run: &str, digest: &str, branch: u32, opening: u32) -> Result<Self, Error> {
        let fits = |letter: u8| letter.is_ascii_alphanumeric() || matches!(letter, b'-' | b'_' | b'.');
        if run.is_empty() || run.len() > RUN_BYTES_MAX || !run.bytes().all(fits) {
            return Err(Error::config(format!("the id of a prepared transaction cannot hold the run `{run}`")));
        }
        let mark = digest.get(..MARK_DIGITS).filter(|mark| mark.bytes().all(is_digit));
        let Some(mark) = mark else {
            return Err(Error::config(format!("the id of a prepared transaction needs a digest, not `{digest}`")));
        };
        Ok(Self { run: run.to_owned(), mark: mark.to_owned(), branch, opening })
    }

    /// The run's id.
    pub fn run(&self) -> &str {
        &self.run
    }

    /// True for branches of the work with this digest in this run, whichever of its branches and openings.
    pub fn is_of(&self, run: &str, digest: &str) -> bool {
        self.run == run && digest.starts_with(&self.mark)
    }

    /// Its place among the branches.
    pub fn branch(&self) -> u32 {
        self.branch
    }

    /// The first part in XA, at most 64 bytes.
    pub fn gtrid(&self) -> String {
        format!("{PREFIX}:{}:{}", self.run, self.mark)
    }

    /// The second part in XA, at most 64 bytes.
    pub fn bqual(&self) -> String {
        format!("{}.{}", self.branch, self.opening)
    }

    /// Ours only when it is exactly as we write it.
    pub fn from_xa(format: u32, gtrid: &str, bqual: &str) -> Option<Self> {
        (format == XA_FORMAT).then(|| Self::read(gtrid, bqual)).flatten()
    }

    fn read(first: &str, second: &str) -> Option<Self> {
        let (prefix, rest) = first.split_once(':')?;
        let (run, mark) = rest.split_once(':')?;
        let (branch, opening) = second.split_once('.')?;
        if prefix != PREFIX || mark.len() != MARK_DIGITS {
            return None;
        }
        let gid = Self::new(run, mark, branch.parse().ok()?, opening.parse().ok()?).ok()?;
        // Numbers have other spellings, which are not ours.
        (gid.bqual() == second).then_some(gid)
    }
}

fn is_digit(letter: u8) -> bool {
    letter.is_ascii_digit() || (b'a'..=b'f').contains(&letter)
}

impl fmt::Display for Gid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.gtrid(), self.bqual())
    }
}

/// The text is no id of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it is no id of a transaction that Backstop prepared")]
pub struct NotOurs;

impl FromStr for Gid {
    type Err = NotOurs;

    fn from_str(text: &str) -> Result<Self, NotOurs> {
        text.rsplit_once(':').and_then(|(first, second)| Self::read(first, second)).ok_or(NotOurs)
    }
}

/// What shall become of a prepared branch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// It takes effect.
    Commit,
    /// Nothing of it does.
    RollBack,
}

/// What became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It was prepared, and has ended as wanted.
    Done,
    /// The server knows no such branch: it was not prepared, or somebody has ended it. A marker tells which.
    NotThere,
    /// It is prepared, and another session has it: the one that prepared it and is still connected (MariaDB), or one that ends it just now.
    Busy,
}

/// A transaction that is prepared on a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prepared {
    /// As the server's own statements name it.
    pub name: String,
    /// Whose it is, where it is of ours.
    pub gid: Option<Gid>,
    /// Who prepared it, where the server tells.
    pub owner: Option<String>,
    /// For how long it is prepared, where the server tells.
    pub age: Option<Duration>,
}

#[cfg(test)]
mod tests {
    use super::*;

    const RUN: &str = "0197c0de-0000-7000-8000-00000000abcd";
    const DIGEST: &str = "0123456789abcdef0123456789abcdef";

    #[test]
    fn an_id_comes_back_as_it_was_written() {
        let gid = Gid::new(RUN, DIGEST, 2, 7).unwrap();
        assert_eq!(gid.to_string(), "backstop:0197c0de-0000-7000-8000-00000000abcd:0123456789ab:2.7");
        assert_eq!(gid.to_string().parse(), Ok(gid.clone()));
        assert_eq!(Gid::from_xa(XA_FORMAT, &gid.gtrid(), &gid.bqual()), Some(gid.clone()));
        assert!(gid.is_of(RUN, DIGEST) && !gid.is_of(RUN, "fedcba9876543210") && !gid.is_of("other", DIGEST));
        let long = Gid::new(&"r".repeat(RUN_BYTES_MAX), DIGEST, u32::MAX, u32::MAX).unwrap();
        assert!(long.gtrid().len() <= 64 && long.bqual().len() <= 64 && long.to_string().len() < 200);
    }

    #[test]
    fn what_others_wrote_is_not_ours() {
        for text in [
            "",
            "backstop",
            "backstop:run:0123456789ab:0",
            "backstop:run:0123456789ab:0.1.2",
            "backstop:run:0123456789ab:00.1",
            "backstop:run:0123456789ab:+0.1",
            "backstop:run:0123456789ab:0.99999999999",
            "backstop:run:0123456789AB:0.1",
            "backstop:run:0123456789abc:0.1",
            "backstop::0123456789ab:0.1",
            "backstop:r:un:0123456789ab:0.1",
            "Backstop:run:0123456789ab:0.1",
            "backstop:r'un:0123456789ab:0.1",
            " backstop:run:0123456789ab:0.1",
        ] {
            assert_eq!(text.parse::<Gid>(), Err(NotOurs), "{text}");
        }
        assert_eq!(Gid::from_xa(1, "backstop:run:0123456789ab", "0.1"), None);
        for run in ["", "a b", "a'b", &"r".repeat(RUN_BYTES_MAX + 1)] {
            assert!(Gid::new(run, DIGEST, 0, 1).is_err(), "{run}");
        }
    }
}
