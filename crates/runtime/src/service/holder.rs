//! One service a store: who has it.

use backstop_core::RunId;
use backstop_store::{Entry, Error, ErrorKind, RunLock, Store};
use jiff::Timestamp;
use serde_json::json;

/// What a service holds as long as it has a store, by `Store::lock_run`. No run has such a name: ids have 8 characters at least.
pub const LOCK: &str = "service";
const KIND: &str = "service";

/// Takes the store for this process.
///
/// # Errors
/// `Busy`, with the address of who has it.
pub(super) async fn take(store: &dyn Store, address: &str, now: Timestamp) -> Result<RunLock, Error> {
    let lock = match store.lock_run(&RunId::new(LOCK)) {
        Ok(lock) => lock,
        Err(error) if error.kind == ErrorKind::Busy => return Err(refusal(store).await),
        Err(error) => return Err(error),
    };
    let body = json!({ "pid": std::process::id(), "address": address, "since": now.to_string() });
    store.put(vec![Entry { kind: KIND.into(), key: "holder".into(), body: Some(body.to_string()) }], None).await?;
    Ok(lock)
}

/// A service that has a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Its process; 0 where it is not known.
    pub pid: u64,
    /// Where it listens: an address and a port.
    pub address: String,
}

/// The service that has a store now; `None` when there is none. Takes nothing, so that a store opened for reading will do.
///
/// # Errors
/// When the store cannot read.
pub async fn holder(store: &dyn Store) -> Result<Option<Holder>, Error> {
    if !store.is_run_held(&RunId::new(LOCK))? {
        return Ok(None);
    }
    let body = store.entries(KIND).await?.into_iter().next().map(|(_, body)| body);
    let known: serde_json::Value = body.and_then(|body| serde_json::from_str(&body).ok()).unwrap_or_default();
    let address = known["address"].as_str().map(str::to_owned);
    Ok(address.map(|address| Holder { pid: known["pid"].as_u64().unwrap_or(0), address }))
}

/// That another service has the store, and which: for who could not take it, or the address that goes with it.
pub async fn refusal(store: &dyn Store) -> Error {
    let holder = store.entries(KIND).await.unwrap_or_default().into_iter().next().map(|(_, body)| body);
    let holder: serde_json::Value = holder.and_then(|body| serde_json::from_str(&body).ok()).unwrap_or_default();
    let text = |key: &str| holder[key].as_str().unwrap_or("not known").to_owned();
    Error {
        kind: ErrorKind::Busy,
        message: format!(
            "another service has this store: process {}, at {}, since {}",
            holder["pid"].as_u64().map_or_else(|| "not known".into(), |pid| pid.to_string()),
            text("address"),
            text("since"),
        ),
        hint: Some("stop that one first, or name another store with --store".into()),
        source: None,
    }
}
