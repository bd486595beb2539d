//! A folder of YAML and SQL files becomes validated DAGs, or diagnostics that point at the source.
//!
//! This crate must not know: how tasks run, databases, the store, clocks. It reads files through [`files::Files`], so that a kept
//! bundle loads exactly as the folder did.
//!
//! Where to go next: [`load`](load()) for the way in, [`definition`] for what comes out, [`diagnostic`] for what can be wrong, [`mod@format`] for
//! the YAML types (and the JSON Schema made of them), [`template`] for rendering. Inside, `yaml` turns text into a tree of values that know their
//! places, and `read` turns the tree into definitions and collects everything that is wrong.

mod bundle;
pub mod compare;
pub mod connection;
pub mod context;
pub mod definition;
pub mod diagnostic;
mod environment;
pub mod files;
pub mod format;
mod load;
mod overrides;
pub mod params;
mod place;
mod read;
mod secrets;
pub mod template;
mod units;
mod yaml;

pub use bundle::BundleError;
pub use context::Context;
pub use definition::{Definition, Project};
pub use diagnostic::{Diagnostic, Severity, Span, render};
pub use environment::Environment;
pub use files::{Bundle, Disk, Files};
pub use load::{Loaded, load, load_definition, load_only, load_only_with, load_unfit, load_with};
pub use overrides::Overrides;
pub use place::place_of_key;
pub use secrets::{MASKED_BYTES_MIN, SERVICE_TOKEN, Secrets, is_secret_key};
pub use template::{Renderer, TemplateError};

#[cfg(test)]
mod tests;
