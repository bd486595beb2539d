//! A folder of YAML and SQL files becomes validated DAGs, or diagnostics that point at the source.
//!
//! This crate must not know: how tasks run, databases, the store, clocks. It reads files through [`files::Files`], so that a kept
//! bundle loads exactly as the folder did.
//!
//! Where to go next: [`load`] for the way in, [`definition`] for what comes out, [`diagnostic`] for what can be wrong, `format` for the
//! YAML types (and the JSON Schema made of them), [`template`] for rendering.

pub mod definition;
pub mod files;
