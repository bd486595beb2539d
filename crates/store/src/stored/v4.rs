//! Version 4 of the stored events: which sources a run goes on with. Published: only comments may change here. What an older version knows is
//! still written as that.

use backstop_core::event as core;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::sync::Arc;

type Text<'a> = Cow<'a, str>;

#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum Event<'a> {
    RunPinned {
        #[serde(borrow)]
        version: Text<'a>,
        #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
        variables: Option<Text<'a>>,
    },
}

impl From<Event<'_>> for core::Event {
    fn from(event: Event<'_>) -> Self {
        match event {
            Event::RunPinned { version, variables } => {
                Self::RunPinned { version: version.into_owned(), variables: variables.map(|variables| Arc::from(&*variables)) }
            }
        }
    }
}
