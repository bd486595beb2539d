//! Who acts, and why: words that are kept with what was done, and have a length.

use backstop_runtime::service::{WHO_CHARACTERS_MAX, WHY_BYTES_MAX};
use serde::de::{Deserialize, Deserializer, Error};

/// A name.
pub(super) fn who<'de, D: Deserializer<'de>>(given: D) -> Result<Option<String>, D::Error> {
    let who = of("who", Option::<String>::deserialize(given))?;
    let characters = who.as_ref().map_or(0, |who| who.chars().count());
    if characters > WHO_CHARACTERS_MAX {
        return Err(D::Error::custom(format!("`who` has {characters} characters; {WHO_CHARACTERS_MAX} are allowed")));
    }
    Ok(who)
}

/// A reason, where none must be given.
pub(super) fn why<'de, D: Deserializer<'de>>(given: D) -> Result<Option<String>, D::Error> {
    of("why", Option::<String>::deserialize(given))?.map(short).transpose()
}

/// A reason.
pub(super) fn reason<'de, D: Deserializer<'de>>(given: D) -> Result<String, D::Error> {
    short(of("why", String::deserialize(given))?)
}

/// Whether something is only to be tried.
pub(super) fn dry_run<'de, D: Deserializer<'de>>(given: D) -> Result<bool, D::Error> {
    of("dry_run", bool::deserialize(given))
}

/// These are parts of many bodies, so that nobody else can tell which field was read.
fn of<T, E: Error>(field: &str, read: Result<T, E>) -> Result<T, E> {
    read.map_err(|error| E::custom(super::body::of_field(field, &error.to_string())))
}

fn short<E: Error>(why: String) -> Result<String, E> {
    if why.len() > WHY_BYTES_MAX {
        return Err(E::custom(format!("`why` has {} bytes; {WHY_BYTES_MAX} are allowed", why.len())));
    }
    Ok(why)
}
