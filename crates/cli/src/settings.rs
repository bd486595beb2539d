//! `backstop variables` and `backstop pools`: what people set beside backstop.yaml, kept in the store. A service that runs takes it in within a
//! second or two; a run that goes on keeps the variables that it has, while sizes of pools hold at once.

use crate::args::{Place, PoolsCommand, VariablesCommand};
use crate::explain::{Exit, Problem};
use crate::output::{self, Painter};
use crate::service::{Entrance, Service, Signature};
use crate::sources::{self, Purpose, Sources};
use crate::{paths, runs, words};
use backstop_project::is_secret_key;
use backstop_runtime::service::settings::{self, Kept, KeptPool, KeptVariable, Setting, VariableShown};
use backstop_runtime::service::{Error, Who};
use backstop_runtime::{Clock as _, Redactor, WallClock};
use backstop_store::SqliteStore;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::Read as _;

/// Bytes of a value that is read from standard input, at most.
const INPUT_BYTES_MAX: u64 = settings::VALUE_BYTES_MAX as u64;

/// Looks at variables, sets one, or takes one away.
pub(crate) fn variables(command: VariablesCommand, place: &Place) -> Result<Exit, Problem> {
    match command {
        VariablesCommand::List { json } => list_variables(place, json),
        VariablesCommand::Set { name, value, json, description, signed } => {
            let text = given(&name, value)?;
            let value = if json {
                serde_json::from_str(&text).map_err(|error| {
                    Problem::usage("the value is not JSON").cause(error.to_string()).hint("leave --json out for a text")
                })?
            } else {
                Value::from(text)
            };
            set(place, &name, &Setting::Variable(Some(KeptVariable { value, description })), &signed)
        }
        VariablesCommand::Delete { name, signed } => set(place, &name, &Setting::Variable(None), &signed),
    }
}

/// Looks at pools, sets one, or takes one away.
pub(crate) fn pools(command: PoolsCommand, place: &Place) -> Result<Exit, Problem> {
    match command {
        PoolsCommand::List { json, entrance } => list_pools(place, json, &entrance),
        PoolsCommand::Set { name, slots, description, signed } => {
            let slots = u32::try_from(slots).ok();
            set(place, &name, &Setting::Pool(Some(KeptPool { slots, description })), &signed)
        }
        PoolsCommand::Delete { name, signed } => set(place, &name, &Setting::Pool(None), &signed),
    }
}

/// A secret comes by standard input: arguments are seen by everybody on the machine.
fn given(name: &str, value: Option<String>) -> Result<String, Problem> {
    match value {
        Some(value) if value != "-" => {
            if is_secret_key(name) {
                output::note(
                    "the value of a secret was on the command line, where others see it: give `-` and write it to standard input",
                );
            }
            Ok(value)
        }
        Some(_) | None => {
            let mut text = String::new();
            let read = std::io::stdin().lock().take(INPUT_BYTES_MAX + 2).read_to_string(&mut text);
            read.map_err(|error| Problem::system("read the value from standard input", &error))?;
            Ok(text.strip_suffix('\n').map_or(text.clone(), str::to_owned))
        }
    }
}

fn set(place: &Place, name: &str, setting: &Setting, signed: &Signature) -> Result<Exit, Problem> {
    let kept = paths::kept(place)?;
    let store = SqliteStore::open(&kept.store, backstop_store::sqlite::Options::default())?;
    let who = Who { who: signed.who(), why: signed.why() };
    runs::block_on(async {
        let was_there =
            settings::set(&store, name, setting, &who, WallClock::starting().now()).await.map_err(|error| match error {
                Error::Store(error) => error.into(),
                other => Problem::usage(other.to_string()),
            })?;
        if was_there {
            let is_taken_away = matches!(setting, Setting::Variable(None) | Setting::Pool(None));
            let done = if is_taken_away { "is taken away" } else { "is set" };
            // What docs/service.md says of them: sizes of pools are limits of the moment, variables are values that a run was given.
            let holds = match setting {
                Setting::Variable(_) => {
                    "; runs that go on keep what they have until they are driven anew (retried, or after a restart)"
                }
                Setting::Pool(_) => {
                    ", and it holds at once for all that waits, also of runs that go on; what runs keeps its slots"
                }
            };
            output::note(&format!("`{name}` {done}; a service takes it in within a few seconds{holds}"));
            return Ok(());
        }
        let set = Kept::read(&store).await?;
        let (kind, known): (_, Vec<&str>) = match setting {
            Setting::Variable(_) => ("variables", set.variables.keys().map(String::as_str).collect()),
            Setting::Pool(_) => ("pools", set.pools.keys().map(String::as_str).collect()),
        };
        let mut problem = Problem::usage(format!("none of the {kind} that were set is called `{name}`"));
        problem.hints = words::hints_for_name(name, kind, known);
        problem.hints.push("what stands in backstop.yaml is taken away there".to_owned());
        Err(problem)
    })?;
    Ok(Exit::Success)
}

fn kept(place: &Place) -> Result<Kept, Problem> {
    let kept = paths::kept(place)?;
    if !kept.store.exists() {
        return Ok(Kept::default());
    }
    let store = SqliteStore::open_read_only(&kept.store)?;
    runs::block_on(async { Ok(Kept::read(&store).await?) })
}

fn list_variables(place: &Place, json: bool) -> Result<Exit, Problem> {
    let kept = kept(place)?;
    let shown: Vec<VariableShown> = kept
        .variables
        .iter()
        .map(|(name, variable)| VariableShown {
            description: variable.description.clone(),
            ..VariableShown::new(name, &variable.value, &Redactor::default())
        })
        .collect();
    if json {
        let rows: Vec<Value> = shown
            .iter()
            .map(|row| json!({ "variable": row.name, "value": row.value, "secret": row.is_secret, "description": row.description }))
            .collect();
        output::json(&rows)?;
        return Ok(Exit::Success);
    }
    if shown.is_empty() {
        output::note("no variable was set: those of backstop.yaml are in force");
        return Ok(Exit::Success);
    }
    let mut table = vec![["VARIABLE", "VALUE", "DESCRIPTION"].map(str::to_owned).to_vec()];
    table.extend(shown.into_iter().map(|row| {
        let value =
            row.value.map_or_else(|| "***".to_owned(), |value| value.as_str().map_or_else(|| value.to_string(), str::to_owned));
        vec![row.name, words::short(&value, 80).to_string(), row.description.unwrap_or_default()]
    }));
    output::data(&output::table(&table, Painter::stdout()))?;
    Ok(Exit::Success)
}

/// With a service, as it has them now; else as the files and the store say.
async fn known_pools(place: &Place, entrance: &Entrance) -> Result<Vec<Value>, Problem> {
    let kept = paths::kept(place)?;
    if let Some(service) = Service::of_kept(&kept, entrance).await? {
        return service.list("/api/v1/pools", "after").await;
    }
    let set = match kept.store.exists() {
        true => Kept::read(&SqliteStore::open_read_only(&kept.store)?).await?,
        false => Kept::default(),
    };
    // The store's pools can be listed where there is no project.
    let project = paths::project(place).and_then(|root| sources::load(&Sources::of_folder(&root), place, Purpose::Look));
    let of_files = project.iter().flat_map(|loaded| loaded.project.dags.values()).flat_map(|dag| dag.dag.pools());
    let mut slots: BTreeMap<String, Option<u32>> = of_files.map(|pool| (pool.name.clone(), pool.slots)).collect();
    slots.extend(set.pools.iter().map(|(name, pool)| (name.clone(), pool.slots)));
    let row = |(name, slots): (String, Option<u32>)| {
        let set = set.pools.get(&name);
        let description = set.and_then(|set| set.description.clone());
        json!({ "pool": name, "slots": slots, "description": description, "set": set.is_some() })
    };
    Ok(slots.into_iter().map(row).collect())
}

fn list_pools(place: &Place, json: bool, entrance: &Entrance) -> Result<Exit, Problem> {
    let pools = runs::block_on(known_pools(place, entrance))?;
    if json {
        output::json(&pools)?;
        return Ok(Exit::Success);
    }
    if pools.is_empty() {
        output::note("there are no pools: neither in backstop.yaml nor set");
        return Ok(Exit::Success);
    }
    let mut table = vec![["POOL", "SLOTS", "USED", "WAITING", "FROM", "DESCRIPTION"].map(str::to_owned).to_vec()];
    let number = |value: &Value| value.as_u64().map_or_else(|| "-".to_owned(), |number| number.to_string());
    table.extend(pools.iter().map(|pool| {
        let slots = if pool["slots"].is_null() { "no limit".to_owned() } else { number(&pool["slots"]) };
        let from = if pool["set"] == true { "set" } else { "backstop.yaml" };
        let text = |name: &str| pool[name].as_str().unwrap_or_default().to_owned();
        vec![text("pool"), slots, number(&pool["used"]), number(&pool["waiting"]), from.to_owned(), text("description")]
    }));
    output::data(&output::table(&table, Painter::stdout()))?;
    Ok(Exit::Success)
}
