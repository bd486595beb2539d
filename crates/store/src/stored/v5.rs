//! Version 5 of the stored events: tasks that share a transaction. Published: only comments may change here. What an older version knows is
//! still written as that.

use super::v1::{Failure, Instance, Statement};
use backstop_core::event as core;
use backstop_core::{InstanceId, TaskId};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::sync::Arc;

type Text<'a> = Cow<'a, str>;

#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum Event<'a> {
    AttemptHeld {
        #[serde(borrow)]
        task: Text<'a>,
        r#try: u32,
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        statements: Vec<Statement<'a>>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        result: Option<Text<'a>>,
    },
    GroupRolledBack {
        #[serde(borrow)]
        group: Text<'a>,
        members: Vec<Instance<'a>>,
        r#final: bool,
        failure: Failure<'a>,
    },
}

impl<'a> Event<'a> {
    pub(super) fn held(instance: &'a InstanceId, r#try: u32, ran: &'a [core::StatementRecord], result: Option<&'a str>) -> Self {
        Self::AttemptHeld {
            task: Cow::Borrowed(instance.task.as_str()),
            r#try,
            statements: ran.iter().map(Statement::from).collect(),
            result: result.map(Cow::Borrowed),
        }
    }

    pub(super) fn rolled_back(group: &'a TaskId, members: &'a [InstanceId], failure: &'a core::Failure, is_final: bool) -> Self {
        Self::GroupRolledBack {
            group: Cow::Borrowed(group.as_str()),
            members: members.iter().map(Instance::from).collect(),
            r#final: is_final,
            failure: failure.into(),
        }
    }
}

impl From<Event<'_>> for core::Event {
    fn from(event: Event<'_>) -> Self {
        match event {
            Event::AttemptHeld { task, r#try, statements, result } => Self::AttemptHeld {
                // A mapped task shares no transaction.
                instance: InstanceId::single(TaskId::new(&*task)),
                try_number: r#try,
                statements: statements.into_iter().map(core::StatementRecord::from).collect(),
                result: result.map(|result| Arc::from(&*result)),
            },
            Event::GroupRolledBack { group, members, r#final, failure } => Self::GroupRolledBack {
                group: TaskId::new(&*group),
                members: members.into_iter().map(InstanceId::from).collect(),
                failure: Arc::new(failure.into()),
                is_final: r#final,
            },
        }
    }
}
