//! The stored form of events: one JSON object an event, with its version.
//!
//! Rules of the format, so that a log can be read for years:
//! - `v` is the version of the format that the event needs. A reader refuses a larger one than it knows, with [`Error::TooNew`]: a
//!   fact that is not understood must not be left out of a fold.
//! - A published version never changes, but for facts that a reader may leave out without harm, which are absent where they are not
//!   known; `golden/v1/` holds one file or more for every kind of event, and a test reads and writes them.
//!   A new kind of event, or a field that changes the meaning of others, makes a new version; older ones stay readable, and an event
//!   that an older version knows is still written in that: whatever reads it can.
//! - A field that has its usual value (no map index, no hint, zero rows) is absent.
//! - Times in an event are RFC 3339 in UTC, with as many decimals as they have, so that nothing is lost: an event that is read back is
//!   equal to what was written. (The log's own time of an event is not in the body: stores keep it in whole microseconds.)
//! - Results, items and parameters are JSON made by others. They stay texts here: not parsed, not judged.

mod v1;
mod v2;
mod v3;
mod v4;
mod v5;

use backstop_core::Event;

/// The newest version this build writes and reads.
pub const VERSION: u32 = 5;

/// Why a stored event cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A newer Backstop wrote it.
    #[error("the event is of format version {found}, and this Backstop knows versions up to {VERSION}")]
    TooNew {
        /// Its version.
        found: u32,
    },
    /// It is no event, or a damaged one.
    #[error("the event is damaged")]
    Malformed(#[source] serde_json::Error),
}

/// What version 1 does not know.
enum Newer<'a> {
    V2(v2::Event<'a>),
    V3(v3::Event<'a>),
    V4(v4::Event<'a>),
    V5(v5::Event<'a>),
}

/// Appends the stored form of an event to a buffer that the caller reuses.
pub fn encode(event: &Event, buffer: &mut Vec<u8>) {
    // The version goes first by hand: a flattened wrapper struct would cost every event a map of its fields.
    buffer.extend_from_slice(b"{\"v\":");
    match v1::Event::try_from(event) {
        Ok(known) => write(b'1', &known, buffer),
        Err(Newer::V2(newer)) => write(b'2', &newer, buffer),
        Err(Newer::V3(newer)) => write(b'3', &newer, buffer),
        Err(Newer::V4(newer)) => write(b'4', &newer, buffer),
        Err(Newer::V5(newer)) => write(b'5', &newer, buffer),
    }
}

fn write(version: u8, event: &impl serde::Serialize, buffer: &mut Vec<u8>) {
    buffer.push(version);
    let body = buffer.len();
    serde_json::to_writer(&mut *buffer, event).expect("texts and numbers always have a JSON form");
    // The object that follows starts with its `type`: its brace becomes the comma after the version.
    buffer[body] = b',';
}

/// Reads the stored form of an event.
///
/// # Errors
/// When it is of a newer version, or damaged.
pub fn decode(body: &str) -> Result<Event, Error> {
    /// Looked at first, alone: nothing else may be assumed of a newer version.
    #[derive(serde::Deserialize)]
    struct Head {
        v: u32,
    }
    let head: Head = serde_json::from_str(body).map_err(Error::Malformed)?;
    if head.v > VERSION {
        return Err(Error::TooNew { found: head.v });
    }
    match head.v {
        5 => serde_json::from_str::<v5::Event<'_>>(body).map(Event::from),
        4 => serde_json::from_str::<v4::Event<'_>>(body).map(Event::from),
        3 => serde_json::from_str::<v3::Event<'_>>(body).map(Event::from),
        2 => serde_json::from_str::<v2::Event<'_>>(body).map(Event::from),
        _ => serde_json::from_str::<v1::Event<'_>>(body).map(Event::from),
    }
    .map_err(Error::Malformed)
}

#[cfg(test)]
mod tests;
