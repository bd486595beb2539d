//! Who holds the lock of an SQLite file, among the sessions of this process. SQLite tells nothing of other processes.

use super::Settings;
use super::worker::{Control, Standing};
use crate::error::Error;
use crate::lookout::{Blocker, Lookout, SESSIONS_MAX, Sighting, View};
use async_trait::async_trait;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// A session of this process.
struct Known {
    path: PathBuf,
    number: u64,
    control: Weak<Control>,
}

/// All sessions of this process that are on files. Those that have ended are removed when another begins.
static KNOWN: Mutex<Vec<Known>> = Mutex::new(Vec::new());

/// A session begins.
pub(super) fn note(settings: &Settings, number: u64, control: &Arc<Control>) {
    let Some(path) = &settings.path else { return };
    let path = std::path::absolute(path).unwrap_or_else(|_| path.clone());
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    known.retain(|known| known.control.strong_count() > 0);
    known.push(Known { path, number, control: Arc::downgrade(control) });
}

/// Needs no session of its own.
pub(super) struct SqliteLookout;

#[async_trait]
impl Lookout for SqliteLookout {
    async fn look(&mut self, sessions: &[String]) -> Result<View, Error> {
        let known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
        let standings: Vec<(&Known, Standing)> = known
            .iter()
            .filter_map(|known| {
                let control = known.control.upgrade()?;
                let standing = *control.standing.lock().unwrap_or_else(PoisonError::into_inner);
                Some((known, standing))
            })
            .collect();
        let wanted = standings.iter().filter(|(known, _)| sessions.contains(&id(known.number))).take(SESSIONS_MAX);
        let sightings = wanted.map(|(known, standing)| sighting(known, *standing, &standings)).collect();
        Ok(View { sightings, limits: Vec::new() })
    }

    async fn close(self: Box<Self>) {}
}

/// As the session's own `server_id`.
pub(super) fn id(number: u64) -> String {
    format!("thread {number}")
}

fn sighting(one: &Known, standing: Standing, all: &[(&Known, Standing)]) -> Sighting {
    let session = id(one.number);
    let Standing::Waits(since) = standing else { return Sighting { session, ..Sighting::default() } };
    let holders = all.iter().filter(|(other, _)| other.number != one.number && other.path == one.path);
    let blocked_by: Vec<Blocker> = holders
        .filter_map(|(other, standing)| match standing {
            Standing::Holds(since) => {
                let state = Some("in a transaction that writes".to_owned());
                let transaction_age = Some(since.elapsed());
                Some(Blocker { session: Some(id(other.number)), state, transaction_age, ..Blocker::default() })
            }
            Standing::Free | Standing::Waits(_) => None,
        })
        .collect();
    let stranger = || Blocker { statement: Some("another process, which has the file's lock".to_owned()), ..Blocker::default() };
    Sighting {
        session,
        wait: Some("the file's lock".to_owned()),
        blocked_for: Some(since.elapsed()),
        blocked_by: if blocked_by.is_empty() { vec![stranger()] } else { blocked_by },
        ..Sighting::default()
    }
}
