//! Version 3 of the stored events: runs that other runs made, assets, deadlines, alerts, and what is unusual. Published: only comments may change here. What an
//! older version knows is still written as that.

use super::v1::{Failure, Header, Instance};
use backstop_core::event as core;
use backstop_core::{InstanceId, RunId, TaskId};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::sync::Arc;

type Text<'a> = Cow<'a, str>;

#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum Event<'a> {
    RunCreated(#[serde(borrow)] Box<CausedHeader<'a>>),
    AssetsUpdated {
        #[serde(borrow)]
        task: Text<'a>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        map: Option<u32>,
        r#try: u32,
        #[serde(borrow)]
        assets: Vec<Text<'a>>,
    },
    DeadlineAtRisk {
        deadline: u32,
        due_at: Timestamp,
        done_at: Timestamp,
    },
    DeadlineMissed {
        deadline: u32,
        due_at: Timestamp,
    },
    AlertScheduled {
        alert: Alert,
    },
    AlertFinished {
        alert: Alert,
        #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
        failure: Option<Failure<'a>>,
    },
    AnomalyNoticed {
        #[serde(borrow)]
        task: Text<'a>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        map: Option<u32>,
        r#try: u32,
        statement: u32,
        unusual: Unusual,
        seen: u64,
        usual: u64,
        of: u32,
    },
}

/// A header as version 1 has it, and what made the run.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct CausedHeader<'a> {
    #[serde(borrow)]
    pub(super) header: Header<'a>,
    #[serde(borrow)]
    pub(super) cause: Cause<'a>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Cause<'a> {
    Task {
        #[serde(borrow)]
        run: Text<'a>,
        #[serde(borrow)]
        instance: Instance<'a>,
        depth: u32,
    },
    Assets {
        #[serde(borrow)]
        updates: Vec<AssetUpdate<'a>>,
        until: u64,
    },
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct AssetUpdate<'a> {
    #[serde(borrow)]
    asset: Text<'a>,
    #[serde(borrow)]
    run: Text<'a>,
    #[serde(borrow)]
    instance: Instance<'a>,
    at: Timestamp,
}

/// A callback of the run as a whole on an occasion that is not its end.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Alert {
    pub(super) occasion: AlertOccasion,
    /// How many there were before.
    pub(super) number: u32,
    pub(super) place: u32,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum AlertOccasion {
    Deadline,
    Stuck,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Unusual {
    Slow,
    NoRows,
    FewRows,
    ManyRows,
}

impl From<Event<'_>> for core::Event {
    fn from(event: Event<'_>) -> Self {
        match event {
            Event::RunCreated(caused) => {
                let CausedHeader { header, cause } = *caused;
                Self::RunCreated(Arc::new(core::RunHeader { cause: Some(cause.into()), ..header.into() }))
            }
            Event::AssetsUpdated { task, map, r#try, assets } => Self::AssetsUpdated {
                instance: InstanceId { task: TaskId::new(&*task), map_index: map },
                try_number: r#try,
                assets: assets.into_iter().map(|asset| Arc::from(&*asset)).collect(),
            },
            Event::DeadlineAtRisk { deadline, due_at, done_at } => Self::DeadlineAtRisk { deadline, due_at, done_at },
            Event::DeadlineMissed { deadline, due_at } => Self::DeadlineMissed { deadline, due_at },
            Event::AlertScheduled { alert } => Self::CallbackScheduled { callback: alert.into() },
            Event::AlertFinished { alert, failure } => {
                Self::CallbackFinished { callback: alert.into(), failure: failure.map(|failure| Arc::new(failure.into())) }
            }
            Event::AnomalyNoticed { task, map, r#try, statement, unusual, seen, usual, of } => Self::AnomalyNoticed {
                instance: InstanceId { task: TaskId::new(&*task), map_index: map },
                try_number: r#try,
                anomaly: core::Anomaly { statement, unusual: unusual.into(), seen, usual, of },
            },
        }
    }
}

impl<'a> From<&'a core::Cause> for Cause<'a> {
    fn from(cause: &'a core::Cause) -> Self {
        match cause {
            core::Cause::Task { run, instance, depth } => {
                Self::Task { run: Cow::Borrowed(run.as_str()), instance: instance.into(), depth: *depth }
            }
            core::Cause::Assets { updates, until } => {
                Self::Assets { updates: updates.iter().map(AssetUpdate::from).collect(), until: *until }
            }
        }
    }
}

impl From<Cause<'_>> for core::Cause {
    fn from(cause: Cause<'_>) -> Self {
        match cause {
            Cause::Task { run, instance, depth } => Self::Task { run: RunId::new(&*run), instance: instance.into(), depth },
            Cause::Assets { updates, until } => {
                Self::Assets { updates: updates.into_iter().map(core::AssetUpdate::from).collect(), until }
            }
        }
    }
}

impl<'a> From<&'a core::AssetUpdate> for AssetUpdate<'a> {
    fn from(update: &'a core::AssetUpdate) -> Self {
        let core::AssetUpdate { asset, run, instance, at } = update;
        Self { asset: Cow::Borrowed(asset), run: Cow::Borrowed(run.as_str()), instance: instance.into(), at: *at }
    }
}

impl From<AssetUpdate<'_>> for core::AssetUpdate {
    fn from(update: AssetUpdate<'_>) -> Self {
        let AssetUpdate { asset, run, instance, at } = update;
        Self { asset: Arc::from(&*asset), run: RunId::new(&*run), instance: instance.into(), at }
    }
}

impl From<Alert> for core::CallbackId {
    fn from(alert: Alert) -> Self {
        let Alert { occasion, number, place } = alert;
        let occasion = match occasion {
            AlertOccasion::Deadline => core::Occasion::Deadline,
            AlertOccasion::Stuck => core::Occasion::Stuck,
        };
        Self { instance: None, try_number: number, occasion, place }
    }
}

impl From<core::Unusual> for Unusual {
    fn from(unusual: core::Unusual) -> Self {
        match unusual {
            core::Unusual::Slow => Self::Slow,
            core::Unusual::NoRows => Self::NoRows,
            core::Unusual::FewRows => Self::FewRows,
            core::Unusual::ManyRows => Self::ManyRows,
        }
    }
}

impl From<Unusual> for core::Unusual {
    fn from(unusual: Unusual) -> Self {
        match unusual {
            Unusual::Slow => Self::Slow,
            Unusual::NoRows => Self::NoRows,
            Unusual::FewRows => Self::FewRows,
            Unusual::ManyRows => Self::ManyRows,
        }
    }
}
