//! Version 2 of the stored events: what people do to instances of a run. Published: only comments may change here. What version 1 knows is
//! still written as that.

use super::v1::Instance;
use backstop_core::event as core;
use backstop_core::{InstanceId, TaskId};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;

type Text<'a> = Cow<'a, str>;

#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum Event<'a> {
    RunReopened,
    InstancesCleared {
        #[serde(borrow)]
        instances: Vec<Instance<'a>>,
        restart: Restart,
    },
    TaskUnexpanded {
        #[serde(borrow)]
        task: Text<'a>,
        count: u32,
    },
    InstanceMarked {
        #[serde(borrow)]
        task: Text<'a>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        map: Option<u32>,
        mark: Mark,
    },
    InstanceCancelRequested {
        #[serde(borrow)]
        task: Text<'a>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        map: Option<u32>,
        #[serde(borrow)]
        reason: Text<'a>,
        then: Afterwards,
    },
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Restart {
    Beginning,
    LastCommit,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Mark {
    Success,
    Failed,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Afterwards {
    Fail,
    Clear(Restart),
    Mark(Mark),
}

impl From<Event<'_>> for core::Event {
    fn from(event: Event<'_>) -> Self {
        let instance = |task: Text<'_>, map_index| InstanceId { task: TaskId::new(&*task), map_index };
        match event {
            Event::RunReopened => Self::RunReopened,
            Event::InstancesCleared { instances, restart } => Self::InstancesCleared {
                instances: instances.into_iter().map(InstanceId::from).collect(),
                restart: restart.into(),
            },
            Event::TaskUnexpanded { task, count } => Self::TaskUnexpanded { task: TaskId::new(&*task), count },
            Event::InstanceMarked { task, map, mark } => {
                Self::InstanceMarked { instance: instance(task, map), mark: mark.into() }
            }
            Event::InstanceCancelRequested { task, map, reason, then } => Self::InstanceCancelRequested {
                instance: instance(task, map),
                reason: reason.into_owned(),
                then: match then {
                    Afterwards::Fail => core::Afterwards::Fail,
                    Afterwards::Clear(restart) => core::Afterwards::Clear(restart.into()),
                    Afterwards::Mark(mark) => core::Afterwards::Mark(mark.into()),
                },
            },
        }
    }
}

impl From<core::Restart> for Restart {
    fn from(restart: core::Restart) -> Self {
        match restart {
            core::Restart::Beginning => Self::Beginning,
            core::Restart::LastCommit => Self::LastCommit,
        }
    }
}

impl From<Restart> for core::Restart {
    fn from(restart: Restart) -> Self {
        match restart {
            Restart::Beginning => Self::Beginning,
            Restart::LastCommit => Self::LastCommit,
        }
    }
}

impl From<core::Mark> for Mark {
    fn from(mark: core::Mark) -> Self {
        match mark {
            core::Mark::Success => Self::Success,
            core::Mark::Failed => Self::Failed,
        }
    }
}

impl From<Mark> for core::Mark {
    fn from(mark: Mark) -> Self {
        match mark {
            Mark::Success => Self::Success,
            Mark::Failed => Self::Failed,
        }
    }
}

impl From<core::Afterwards> for Afterwards {
    fn from(then: core::Afterwards) -> Self {
        match then {
            core::Afterwards::Fail => Self::Fail,
            core::Afterwards::Clear(restart) => Self::Clear(restart.into()),
            core::Afterwards::Mark(mark) => Self::Mark(mark.into()),
        }
    }
}
