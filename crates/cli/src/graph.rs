//! `backstop graph`: a DAG as text for a terminal, or as a drawing.

mod layout;
mod svg;
mod text;

use crate::args::{GraphArgs, Place};
use crate::explain::{Exit, Problem};
use crate::output;
use crate::sources::{self, Chosen, Purpose};
use std::path::Path;

/// Draws.
pub(crate) fn graph(arguments: &GraphArgs, place: &Place) -> Result<Exit, Problem> {
    let Chosen { definition, .. } = sources::choose(&arguments.dag, None, place, Purpose::Look)?;
    match &arguments.svg {
        None => output::data(&text::text(&definition))?,
        Some(path) if path == Path::new("-") => output::data(&svg::svg(&definition)?)?,
        Some(path) => {
            let drawing = svg::svg(&definition)?;
            std::fs::write(path, drawing).map_err(|error| Problem::system(format!("write {}", path.display()), &error))?;
            output::note(&format!("drawn to {}", path.display()));
        }
    }
    Ok(Exit::Success)
}
