//! Names of things. Cheap to clone, compared by text.

use std::fmt;
use std::sync::Arc;

macro_rules! name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Wraps a text that has been validated at the edge.
            pub fn new(text: impl Into<Arc<str>>) -> Self {
                Self(text.into())
            }

            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", &*self.0)
            }
        }

        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                Self::new(text)
            }
        }

        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
    };
}

name!(
    /// The id of a DAG, unique in a project.
    DagId
);
name!(
    /// The id of a task, unique in its DAG. A task in a group is named `group.task`.
    TaskId
);
name!(
    /// The id of a run, unique in the world (a UUIDv7 in text): it keys the marker rows in target databases.
    RunId
);

/// A task's place in [`Dag::tasks`](crate::Dag::tasks). Valid for one `Dag` value only, so never stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TaskIx(pub u32);

impl TaskIx {
    /// As an index of a slice.
    pub fn get(self) -> usize {
        self.0 as usize
    }
}

/// One instance of a task in a run. An unmapped task, or a mapped one before its expansion, has `map_index: None`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct InstanceId {
    /// The task.
    pub task: TaskId,
    /// The place in the expanded list, from 0, for a mapped task.
    pub map_index: Option<u32>,
}

impl InstanceId {
    /// The single instance of an unmapped task.
    pub fn single(task: TaskId) -> Self {
        Self { task, map_index: None }
    }
}

impl fmt::Display for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.map_index {
            None => write!(f, "{}", self.task),
            Some(index) => write!(f, "{}[{index}]", self.task),
        }
    }
}
