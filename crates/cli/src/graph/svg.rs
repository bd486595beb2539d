//! A DAG as SVG: layers from left to right, one box a task, curves from upstream to downstream. It follows the reader's light or dark
//! colours, and needs no script and no font of its own.

use super::{layout, text};
use crate::explain::Problem;
use crate::words;
use backstop_core::TaskIx;
use backstop_project::definition::Definition;
use std::collections::HashMap;
use std::fmt::Write as _;

/// A drawing of more boxes helps nobody, and few programs show it.
const TASKS_MAX: usize = 5_000;

const BOX_HEIGHT: f64 = 40.0;
const GAP_ACROSS: f64 = 70.0;
const GAP_DOWN: f64 = 18.0;
const MARGIN: f64 = 24.0;
const HEADING: f64 = 34.0;
/// About the width of a character of the name's font.
const CHARACTER: f64 = 7.6;
const NAME_CHARACTERS: usize = 36;

struct Node {
    x: f64,
    y: f64,
    width: f64,
}

/// The drawing.
pub(super) fn svg(definition: &Definition) -> Result<String, Problem> {
    let dag = &definition.dag;
    if dag.tasks().len() > TASKS_MAX {
        return Err(Problem::usage(format!("a drawing may have {TASKS_MAX} tasks; `{}` has {}", dag.id(), dag.tasks().len()))
            .hint("leave --svg out: the text has no limit"));
    }
    let layers = layout::ordered(dag);
    let (nodes, width, height) = place(definition, &layers);
    let mut drawing = String::new();
    let name = escape(dag.id().as_str());
    let _ = writeln!(
        drawing,
        r#"<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0}" height="{height:.0}" viewBox="0 0 {width:.0} {height:.0}" role="img" aria-label="DAG {name}">"#
    );
    drawing.push_str(STYLE);
    let _ = writeln!(drawing, "<title>DAG {name}</title>");
    let _ = writeln!(drawing, r#"<text class="heading" x="{MARGIN}" y="{:.0}">{name}</text>"#, MARGIN + 4.0);
    for layer in &layers {
        for to in layer {
            for from in &dag.task(*to).upstream {
                edge(&nodes[from], &nodes[to], &mut drawing);
            }
        }
    }
    for layer in &layers {
        for place in layer {
            node(definition, *place, &nodes[place], &mut drawing);
        }
    }
    drawing.push_str("</svg>\n");
    Ok(drawing)
}

const STYLE: &str = r##"<style>
svg { color-scheme: light dark; background: light-dark(#ffffff, #16181d); font-family: system-ui, sans-serif; }
.heading { font-size: 15px; font-weight: 600; fill: light-dark(#1b1f27, #e8eaee); }
.box { fill: light-dark(#f4f6fa, #22262e); stroke: light-dark(#8893a7, #626d80); }
.name { font-size: 13px; fill: light-dark(#1b1f27, #e8eaee); }
.kind { font-size: 10px; fill: light-dark(#566074, #a3adbd); }
.edge { fill: none; stroke: light-dark(#8893a7, #737e92); stroke-width: 1.4; marker-end: url(#arrow); }
#arrow path { fill: light-dark(#8893a7, #737e92); }
</style>
<defs><marker id="arrow" viewBox="0 0 8 8" refX="7.5" refY="4" markerWidth="7" markerHeight="7" orient="auto"><path d="M0 0 L8 4 L0 8 z"/></marker></defs>
"##;

fn place(definition: &Definition, layers: &[Vec<TaskIx>]) -> (HashMap<TaskIx, Node>, f64, f64) {
    let tallest = layers.iter().map(Vec::len).max().unwrap_or(0) as f64;
    let inner = tallest * (BOX_HEIGHT + GAP_DOWN) - GAP_DOWN;
    let mut nodes = HashMap::new();
    let mut x = MARGIN;
    for layer in layers {
        let width = layer.iter().map(|place| box_width(definition, *place)).fold(0.0, f64::max);
        let used = layer.len() as f64 * (BOX_HEIGHT + GAP_DOWN) - GAP_DOWN;
        let mut y = MARGIN + HEADING + (inner - used) / 2.0;
        for place in layer {
            nodes.insert(*place, Node { x, y, width });
            y += BOX_HEIGHT + GAP_DOWN;
        }
        x += width + GAP_ACROSS;
    }
    (nodes, x - GAP_ACROSS + MARGIN, inner + 2.0 * MARGIN + HEADING)
}

fn box_width(definition: &Definition, place: TaskIx) -> f64 {
    let name = definition.dag.task(place).id.as_str().chars().count().min(NAME_CHARACTERS) as f64;
    let notes = caption(definition, place).chars().count() as f64 * 0.75;
    (name.max(notes) * CHARACTER + 24.0).max(90.0)
}

fn caption(definition: &Definition, place: TaskIx) -> String {
    let mut parts = vec![definition.body(place).kind.name().to_owned()];
    parts.extend(text::notes(definition, place));
    words::short(&parts.join(", "), 50)
}

fn edge(from: &Node, to: &Node, drawing: &mut String) {
    let (x1, y1) = (from.x + from.width, from.y + BOX_HEIGHT / 2.0);
    let (x2, y2) = (to.x, to.y + BOX_HEIGHT / 2.0);
    let bend = ((x2 - x1) / 2.0).max(GAP_ACROSS / 2.0);
    let _ = writeln!(
        drawing,
        r#"<path class="edge" d="M{x1:.1} {y1:.1} C{:.1} {y1:.1} {:.1} {y2:.1} {x2:.1} {y2:.1}"/>"#,
        x1 + bend,
        x2 - bend
    );
}

fn node(definition: &Definition, place: TaskIx, node: &Node, drawing: &mut String) {
    let id = definition.dag.task(place).id.as_str();
    let caption = caption(definition, place);
    let Node { x, y, width } = node;
    let _ = writeln!(drawing, r#"<g><title>{}: {}</title>"#, escape(id), escape(&caption));
    let _ = writeln!(drawing, r#"<rect class="box" x="{x:.1}" y="{y:.1}" width="{width:.1}" height="{BOX_HEIGHT}" rx="6"/>"#);
    let _ = writeln!(
        drawing,
        r#"<text class="name" x="{:.1}" y="{:.1}">{}</text>"#,
        x + 12.0,
        y + 17.0,
        escape(&words::short(id, NAME_CHARACTERS))
    );
    let _ = writeln!(drawing, r#"<text class="kind" x="{:.1}" y="{:.1}">{}</text></g>"#, x + 12.0, y + 32.0, escape(&caption));
}

/// Names are ids, but a drawing must hold whatever it is given.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            // XML has no way to say them.
            control if control.is_control() => escaped.push('\u{fffd}'),
            other => escaped.push(other),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_gets_out_of_a_name() {
        assert_eq!(escape("<a href=\"x\">&'\u{1}"), "&lt;a href=&quot;x&quot;&gt;&amp;&#39;\u{fffd}");
    }
}
