//! Runs that cannot be gone on with as things are: a connection of theirs is gone, their project is not loaded, or what was kept of their
//! sources is gone or cannot be read. Nothing of such a run is begun. But a person may end it, mark its tasks and say what became of an
//! attempt in doubt: for that the shape of its DAG is enough. What an earlier process may have begun ahead of the log is looked for in the
//! databases that are there; where one is not, it stays in doubt, and is said.

use super::Service;
use super::desk::explain;
use crate::prepared::Prepared;
use crate::run::read_all;
use crate::sessions::Sessions;
use backstop_core::dag::{DagSpec, Delivery, Hooks, Pool, TaskSettings, TaskSpec};
use backstop_core::event::RunHeader;
use backstop_core::{Dag, Event, TaskId};
use backstop_project::definition::{
    Body, Callbacks, Definition, ForEach, Kind, Parameters, Project, ResultKind, Source, Sql, Template,
};
use backstop_project::{Bundle, Overrides, Secrets};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

/// What stands for the tasks that the log of a run does not name, where nothing but the log is left of its DAG: as long as nobody knows them
/// the run cannot have succeeded. No task has such a name.
const OTHERS: &str = "(others)";
/// What stands for the connections of such tasks. No connection has such a name.
const UNKNOWN: &str = "(not known: the sources of the run are not kept)";
/// What is said of a run of which only the log is left.
pub(super) const ONLY_LOG: &str =
    "its sources cannot be read any more, so that nobody knows what comes behind its tasks: it can only be cancelled";

impl Service {
    /// As [`Self::pinned`]; of a run that cannot be gone on with, what is there of it.
    pub(super) async fn pinned_or_shape(&self, header: &RunHeader) -> Result<(Arc<Prepared>, Arc<Sessions>), String> {
        match self.pinned(header).await {
            Ok(found) => Ok(found),
            Err(_) => self.shape(header).await,
        }
    }

    /// The shape of a run that cannot be gone on with, and the connections that are there of its project: none where that is not loaded.
    pub(super) async fn shape(&self, header: &RunHeader) -> Result<(Arc<Prepared>, Arc<Sessions>), String> {
        let (project, sessions) = match self.project_of(&self.catalog(), header).await {
            Ok(found) => found,
            Err(_) => {
                let absent = Arc::new(absent(header));
                let sessions = Sessions::watched(absent.clone(), self.connect.clone(), self.monitor.clone());
                (absent, Arc::new(sessions))
            }
        };
        let kept = self.store.version(&header.version).await.map_err(|error| explain(&error))?;
        let bundle = kept.and_then(|kept| Bundle::from_bytes(&kept.bundle).ok());
        let read = bundle.and_then(|bundle| backstop_project::load_unfit(&bundle, &header.dag_id, &project).ok());
        if let Some(definition) = read {
            return Ok((Prepared::shape(project, definition, false), sessions));
        }
        let events = read_all(&*self.store, &header.run_id).await.map_err(|error| explain(&error))?;
        let definition = Arc::new(of_log(header, &events)?);
        Ok((Prepared::shape(project, definition, true), sessions))
    }
}

/// A project that is not loaded: it has its name and place, and nothing else.
fn absent(header: &RunHeader) -> Project {
    let own = header.project.as_ref();
    Project {
        name: own.map_or_else(String::new, |own| own.name.to_string()),
        root: own.map_or_else(PathBuf::new, |own| PathBuf::from(&*own.root)),
        connections: BTreeMap::new(),
        variables: BTreeMap::new(),
        interpolated_secrets: Secrets::default(),
        overrides: Overrides::default(),
        dags: BTreeMap::new(),
    }
}

/// What the log of a run tells of its DAG. Each task may have done anything to a database that is not known: what is in doubt stays so until
/// a person has said what became of it.
fn of_log(header: &RunHeader, events: &[Event]) -> Result<Definition, String> {
    let mut named: Vec<(TaskId, bool)> = Vec::new();
    let mut name = |task: &TaskId, is_mapped: bool| match named.iter_mut().find(|(known, _)| known == task) {
        Some((_, mapped)) => *mapped |= is_mapped,
        None => named.push((task.clone(), is_mapped)),
    };
    for event in events {
        // Nothing happens to an instance before one of these.
        if let Event::TaskExpanded { task, .. } = event {
            name(task, true);
        } else if let Event::TaskScheduled { instance }
        | Event::TaskSkipped { instance, .. }
        | Event::TaskUpstreamFailed { instance, .. }
        | Event::InstanceMarked { instance, .. } = event
        {
            name(&instance.task, instance.map_index.is_some());
        }
    }
    let all: Vec<TaskId> = named.iter().map(|(task, _)| task.clone()).collect();
    let others = TaskSpec { id: TaskId::new(OTHERS), after: all, settings: TaskSettings::default() };
    let settings = |mapped: bool| TaskSettings { mapped, ..TaskSettings::default() };
    let tasks = named.iter().map(|(id, mapped)| TaskSpec { id: id.clone(), after: Vec::new(), settings: settings(*mapped) });
    let bodies = named.iter().map(|(_, mapped)| body(*mapped)).chain([body(false)]).collect();
    let dag = Dag::new(DagSpec {
        id: header.dag_id.clone(),
        tasks: tasks.chain([others]).collect(),
        groups: Vec::new(),
        pools: vec![Pool { name: "default_pool".into(), slots: None }],
        max_active_tasks: u32::MAX,
        hooks: Hooks::default(),
        dagrun_timeout: None,
        map_length_max: u32::MAX,
    });
    let dag = dag.map_err(|errors| errors.first().map_or_else(|| ONLY_LOG.to_owned(), ToString::to_string))?;
    Ok(Definition {
        dag: Arc::new(dag),
        description: None,
        tags: Vec::new(),
        file: "".into(),
        version: header.version.clone(),
        bundle: Bundle::default(),
        schedule: None,
        timezone: "UTC".into(),
        start_date: None,
        end_date: None,
        catchup: false,
        timetable: None,
        max_active_runs: 1,
        deadlines: Vec::new(),
        params: Vec::new(),
        bodies,
        callbacks: Callbacks::default(),
    })
}

fn body(is_mapped: bool) -> Body {
    let source = Source { file: "".into(), line: 1, column: 1 };
    let script = Template { text: "".into(), source: source.clone() };
    Body {
        kind: Kind::Sql(Sql {
            script,
            parameters: Parameters::default(),
            autocommit: false,
            result: ResultKind::None,
            result_bytes_max: 0,
            templated: false,
        }),
        connection: Some(UNKNOWN.to_owned()),
        execution_timeout: None,
        for_each: is_mapped.then(|| ForEach::List(Vec::new(), source.clone())),
        callbacks: Callbacks::default(),
        delivery: Delivery::ExactlyOnce,
        source,
        updates: Vec::new(),
        doc: None,
    }
}
