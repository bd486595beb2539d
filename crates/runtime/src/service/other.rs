//! What runs of this service see of each other: see [`crate::others`].

use super::{Error, Service};
use crate::others::{Child, Others, Refused, look};
use crate::run::Request;
use async_trait::async_trait;
use backstop_core::event::RunType;
use backstop_core::{DagId, InstanceId, RunId};
use backstop_project::params;
use backstop_store::Store;
use std::sync::Arc;
use tokio::sync::watch;

#[async_trait]
impl Others for Service {
    async fn make(&self, child: Child) -> Result<(), Refused> {
        let entry = self.dag(child.dag.as_str()).map_err(|error| refused(&error))?;
        let definition = &entry.definition;
        let params = params::resolve(&definition.params, &child.params)
            .map_err(|errors| refused(&Error::Params { dag: child.dag.clone(), errors }))?;
        let timetable = definition.timetable.as_ref();
        let request = Request {
            run_id: child.run_id,
            logical_date: Some(child.logical_date),
            data_interval: timetable.map(|timetable| timetable.manual_interval(child.logical_date)),
            params,
            only_tasks: Vec::new(),
            dry_run: false,
            run_type: RunType::Manual,
            cause: Some(child.cause),
            asked_by: None,
        };
        Service::make(self, &entry, request).await.map(drop).map_err(|error| refused(&error))
    }

    fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    fn changes(&self, dag: &DagId) -> watch::Receiver<u64> {
        self.live.changes(dag)
    }
}

impl Service {
    /// What an instance waits for, where that is another DAG's run: in a sentence, with how that run stands.
    pub(super) async fn waits_for_run(&self, run: &RunId, instance: &InstanceId) -> Option<String> {
        let awaited = self.control(run)?.awaited(instance).await?;
        let seen = look(&*self.store, &awaited).await.ok()?;
        let mut text = format!("it waits for {awaited}: {seen}");
        if let crate::others::Seen::GoesOn { run, .. } = &seen {
            match self.standing(run) {
                super::Standing::Queued(waiting) => text.push_str(&format!(", and waits: {waiting}")),
                super::Standing::Hindered { why, .. } => text.push_str(&format!(", and could not be driven: {why}")),
                super::Standing::Stuck { .. } => text.push_str(", and a person must say what became of a task"),
                super::Standing::Active { .. } | super::Standing::Unknown => {}
            }
        }
        Some(text)
    }
}

fn refused(error: &Error) -> Refused {
    let (causes, hint, is_permanent) = match error {
        Error::NoDag { hint, .. } => (Vec::new(), Some(hint.clone()), true),
        Error::Params { errors, .. } => {
            (errors.iter().map(|error| format!("`{}`: {}", error.name, error.message)).collect(), None, true)
        }
        Error::Store(_) | Error::Run(_) | Error::Stopping | Error::Crowded { .. } => (Vec::new(), None, false),
        Error::NoRun(_)
        | Error::NoVersion { .. }
        | Error::NoBackfill(_)
        | Error::NoInstance { .. }
        | Error::NoConnection(_)
        | Error::NothingMeant
        | Error::NothingToChange
        | Error::Conflict(_)
        | Error::Invalid(_) => (Vec::new(), None, true),
    };
    Refused { message: super::desk::explain(error), causes, hint, is_permanent }
}
