//! Variables and pools that people set while the service runs. They are kept in the store, stand before those of backstop.yaml, and who
//! set them why is noted with them.
//!
//! The functions on a store serve commands without a service as well: a service finds what they left by itself, see
//! `Service::refresh`.

use super::{Error, Service, Who};
use crate::redact::Redactor;
use backstop_project::{Overrides, is_secret_key};
use backstop_store::{Act, Entry, Store};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};

/// The kinds of entries.
const VARIABLE: &str = "variable";
const POOL: &str = "pool";
/// Variables, and pools, that are kept at most.
pub const KEPT_MAX: usize = 10_000;
/// Bytes of a variable's value at most, as JSON.
pub const VALUE_BYTES_MAX: usize = 256 * 1024;
/// Bytes of the values of all variables together at most, as JSON: every loaded project has them in memory.
pub const VALUES_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Bytes of a name at most.
pub const NAME_BYTES_MAX: usize = 250;
/// Characters of a description at most.
pub const DESCRIPTION_CHARACTERS_MAX: usize = 1024;

/// A variable that somebody set.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct KeptVariable {
    /// Any JSON.
    pub value: Value,
    /// In their words.
    #[serde(default)]
    pub description: Option<String>,
}

impl std::fmt::Debug for KeptVariable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The value may be secret.
        f.debug_struct("KeptVariable").field("description", &self.description).finish_non_exhaustive()
    }
}

/// A pool that somebody set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptPool {
    /// At least 1; `None` is without limit.
    pub slots: Option<u32>,
    /// In their words.
    #[serde(default)]
    pub description: Option<String>,
}

/// What is kept.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Kept {
    /// By name.
    pub variables: BTreeMap<String, KeptVariable>,
    /// By name.
    pub pools: BTreeMap<String, KeptPool>,
}

impl Kept {
    /// Reads what is kept.
    ///
    /// # Errors
    /// When the store cannot read.
    pub async fn read(store: &dyn Store) -> Result<Self, backstop_store::Error> {
        // An entry that this version cannot read is of a newer one, and stays as it is.
        let variables = store.entries(VARIABLE).await?.into_iter();
        let pools = store.entries(POOL).await?.into_iter();
        Ok(Self {
            variables: variables.filter_map(|(name, body)| Some((name, serde_json::from_str(&body).ok()?))).collect(),
            pools: pools.filter_map(|(name, body)| Some((name, serde_json::from_str(&body).ok()?))).collect(),
        })
    }

    /// For loading projects.
    pub fn overrides(&self) -> Overrides {
        Overrides {
            variables: self.variables.iter().map(|(name, variable)| (name.clone(), variable.value.clone())).collect(),
            pools: self.pools.iter().map(|(name, pool)| (name.clone(), pool.slots)).collect(),
        }
    }
}

/// Something to set; `None` takes it away.
#[derive(Clone, Debug)]
pub enum Setting {
    /// A variable.
    Variable(Option<KeptVariable>),
    /// A pool.
    Pool(Option<KeptPool>),
}

impl Setting {
    fn kind(&self) -> &'static str {
        match self {
            Self::Variable(_) => VARIABLE,
            Self::Pool(_) => POOL,
        }
    }

    fn body(&self) -> Option<String> {
        match self {
            Self::Variable(variable) => variable.as_ref().and_then(|variable| serde_json::to_string(variable).ok()),
            Self::Pool(pool) => pool.as_ref().and_then(|pool| serde_json::to_string(pool).ok()),
        }
    }

    /// In a sentence, without values that may be secret.
    fn told(&self, name: &str) -> String {
        match self {
            Self::Variable(Some(_)) => format!("set variable `{name}`"),
            Self::Variable(None) => format!("deleted variable `{name}`"),
            Self::Pool(Some(KeptPool { slots: Some(slots), .. })) => format!("gave pool `{name}` {slots} slots"),
            Self::Pool(Some(KeptPool { slots: None, .. })) => format!("gave pool `{name}` slots without limit"),
            Self::Pool(None) => format!("deleted pool `{name}`"),
        }
    }

    fn check(&self, name: &str, kept: &Kept) -> Result<(), Error> {
        let kind = self.kind();
        let is_fine = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        let begins = name.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_');
        if !begins || name.len() > NAME_BYTES_MAX || !name.chars().all(is_fine) {
            let what =
                format!("`{name}` cannot be the name of a {kind}: it has 1 to {NAME_BYTES_MAX} letters, digits, `-`, `_` or `.`");
            return Err(Error::Invalid(what));
        }
        let (count, is_new, description) = match self {
            Self::Variable(None) | Self::Pool(None) => return Ok(()),
            Self::Variable(Some(variable)) => {
                let bytes = variable.value.to_string().len();
                if bytes > VALUE_BYTES_MAX {
                    return Err(Error::Invalid(format!("the value has {bytes} bytes; {VALUE_BYTES_MAX} are allowed")));
                }
                let others = kept.variables.iter().filter(|(other, _)| *other != name);
                let together = bytes + others.map(|(_, other)| other.value.to_string().len()).sum::<usize>();
                if together > VALUES_BYTES_MAX {
                    return Err(Error::Conflict(format!(
                        "all variables together would have {together} bytes, and {VALUES_BYTES_MAX} are kept: delete some, or put large data into files"
                    )));
                }
                (kept.variables.len(), !kept.variables.contains_key(name), &variable.description)
            }
            Self::Pool(Some(pool)) => {
                if pool.slots == Some(0) {
                    return Err(Error::Invalid(
                        "a pool of no slots would let nothing run: give it 1 at least, or null for no limit".into(),
                    ));
                }
                (kept.pools.len(), !kept.pools.contains_key(name), &pool.description)
            }
        };
        if description.as_ref().is_some_and(|text| text.chars().count() > DESCRIPTION_CHARACTERS_MAX) {
            return Err(Error::Invalid(format!("the description has more than {DESCRIPTION_CHARACTERS_MAX} characters")));
        }
        if is_new && count >= KEPT_MAX {
            return Err(Error::Conflict(format!("there are {count} {kind}s already, and no more are kept: delete some")));
        }
        Ok(())
    }
}

/// Sets, or takes away, and notes who did so. Durable on return. False when there was nothing to take away.
///
/// # Errors
/// `Invalid` for a name or value that makes no sense, `Conflict` when there are too many; the store.
pub async fn set(store: &dyn Store, name: &str, setting: &Setting, who: &Who, now: Timestamp) -> Result<bool, Error> {
    let kept = Kept::read(store).await?;
    setting.check(name, &kept)?;
    let is_absent = match setting {
        Setting::Variable(None) => !kept.variables.contains_key(name),
        Setting::Pool(None) => !kept.pools.contains_key(name),
        Setting::Variable(Some(_)) | Setting::Pool(Some(_)) => false,
    };
    if is_absent {
        return Ok(false);
    }
    let entry = Entry { kind: setting.kind().into(), key: name.to_owned(), body: setting.body() };
    let act = Act { at: now, who: who.who.clone(), why: who.why.clone(), what: setting.told(name) };
    store.put(vec![entry], Some(act)).await?;
    Ok(true)
}

/// A variable, as people may see it.
#[derive(Clone, Debug, PartialEq)]
pub struct VariableShown {
    /// Its name.
    pub name: String,
    /// `None` when it is secret.
    pub value: Option<Value>,
    /// Its name says that nobody may see it.
    pub is_secret: bool,
    /// In the words of who set it.
    pub description: Option<String>,
    /// The project whose backstop.yaml or environment it is of; `None` when it was set.
    pub project: Option<String>,
}

impl VariableShown {
    /// A value is left out where the name says that it is secret, and masked where a part of it is known to be.
    pub fn new(name: &str, value: &Value, redactor: &Redactor) -> Self {
        let is_secret = is_secret_key(name);
        let value = (!is_secret).then(|| redactor.clean_named(value));
        Self { name: name.to_owned(), value, is_secret, description: None, project: None }
    }
}

impl Service {
    /// What people set.
    pub fn kept_settings(&self) -> Arc<Kept> {
        self.settings.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Sets a variable or a pool, or takes it away. Durable, and in force for runs that begin from now on, on return.
    ///
    /// # Errors
    /// As [`set`]; `Invalid` for one that is only in backstop.yaml and cannot be taken away here.
    pub async fn set(self: &Arc<Self>, name: &str, setting: &Setting, who: &Who) -> Result<bool, Error> {
        let who = &self.masked(who);
        let was_there = {
            let _one_at_a_time = self.setting.lock().await;
            set(&*self.store, name, setting, who, self.clock.now()).await?
        };
        if was_there {
            self.refresh().await?;
        }
        Ok(was_there)
    }

    /// Takes in what is kept, also what another process put there. Loads the projects again when it differs.
    ///
    /// # Errors
    /// When the store cannot read.
    pub(super) async fn refresh(self: &Arc<Self>) -> Result<(), Error> {
        let kept = Kept::read(&*self.store).await?;
        if *self.kept_settings() == kept {
            return Ok(());
        }
        *self.settings.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(kept);
        let service = self.clone();
        // Reading many files takes a while. A panic of the loader leaves what was in force.
        let _ = tokio::task::spawn_blocking(move || service.reload()).await;
        Ok(())
    }

    /// Masks the secrets of all projects.
    pub fn redactor(&self) -> Arc<Redactor> {
        self.catalog().redactor().clone()
    }

    /// The variables in force: those that were set, then those of each project that are not covered by them.
    pub fn variables(&self) -> Vec<VariableShown> {
        let kept = self.kept_settings();
        let catalog = self.catalog();
        let redactors: Vec<Redactor> = catalog.projects().iter().map(|(project, _)| Redactor::of(project)).collect();
        let first = redactors.first().cloned().unwrap_or_default();
        let set = kept.variables.iter().map(|(name, variable)| VariableShown {
            description: variable.description.clone(),
            ..VariableShown::new(name, &variable.value, &first)
        });
        let of_projects = catalog.projects().iter().zip(&redactors).flat_map(|((project, _), redactor)| {
            let uncovered = project.variables.iter().filter(|(name, _)| !kept.variables.contains_key(*name));
            uncovered.map(|(name, value)| VariableShown {
                project: Some(project.name.clone()),
                ..VariableShown::new(name, value, redactor)
            })
        });
        let mut shown: Vec<VariableShown> = set.chain(of_projects).collect();
        shown.sort_by(|a, b| (&a.name, &a.project).cmp(&(&b.name, &b.project)));
        shown
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn secrets_are_left_out_of_what_is_shown() {
        let redactor = Redactor::default();
        let shown = |name: &str, value: Value| VariableShown::new(name, &value, &redactor);
        assert_eq!(shown("api_token", json!("t0ps3cret")).value, None);
        assert_eq!(
            shown("mail", json!({ "host": "h", "password": "t0ps3cret" })).value,
            Some(json!({ "host": "h", "password": "***" }))
        );
        assert_eq!(shown("region", json!("eu")).value, Some(json!("eu")));
        let kept = KeptVariable { value: json!("t0ps3cret"), description: None };
        assert!(!format!("{kept:?} {:?}", Setting::Variable(Some(kept.clone()))).contains("t0ps3cret"));
    }

    #[test]
    fn names_and_values_are_checked() {
        let variable = |value: Value| Setting::Variable(Some(KeptVariable { value, description: None }));
        let pool = |slots| Setting::Pool(Some(KeptPool { slots, description: None }));
        let kept = Kept::default();
        for name in ["", "a b", "-a", "a/b", "ä", &"x".repeat(251)] {
            assert!(variable(json!(1)).check(name, &kept).is_err(), "{name}");
        }
        assert!(variable(json!(1)).check("_a.b-c", &kept).is_ok());
        assert!(variable(json!("x".repeat(VALUE_BYTES_MAX))).check("a", &kept).is_err());
        assert!(pool(Some(0)).check("a", &kept).is_err());
        assert!(pool(None).check("a", &kept).is_ok());
    }

    #[test]
    fn variables_have_a_size_together() {
        let variable = |bytes: usize| KeptVariable { value: Value::from("x".repeat(bytes - 2)), description: None };
        let names = (0..64).map(|number| format!("v{number}"));
        let mut kept = Kept { variables: names.map(|name| (name, variable(VALUE_BYTES_MAX))).collect(), ..Kept::default() };
        let set = |name: &str, bytes: usize, kept: &Kept| Setting::Variable(Some(variable(bytes))).check(name, kept);
        assert!(set("v1", VALUE_BYTES_MAX, &kept).is_ok(), "one in the place of another");
        assert!(matches!(set("one_more", 3, &kept), Err(Error::Conflict(why)) if why.contains("16777219 bytes")));
        kept.variables.remove("v0");
        assert!(set("one_more", 3, &kept).is_ok());
    }
}
