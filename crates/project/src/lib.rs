//! A folder of YAML and SQL files becomes validated DAGs, or diagnostics that point at the source.
//!
//! This crate must not know: how tasks run, databases, the store, clocks. It reads files through [`files::Files`], so that a kept
//! bundle loads exactly as the folder did.
//!
//! Where to go next: [`load`](load()) for the way in, [`definition`] for what comes out, [`diagnostic`] for what can be wrong, `format` for
//! the YAML types (and the JSON Schema made of them), [`template`] for rendering.

pub mod connection;
pub mod context;
pub mod definition;
pub mod diagnostic;
pub mod files;
mod load;
pub mod params;
pub mod template;

pub use context::Context;
pub use definition::{Definition, Project};
pub use diagnostic::{Diagnostic, Severity, Span, render};
pub use files::{Bundle, Disk, Files};
pub use load::{Environment, Loaded, load, load_definition};
pub use template::{Renderer, TemplateError};
