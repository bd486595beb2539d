//! Whatever is done to a valid source, loading ends with a project or with diagnostics, and never panics.

use super::{loaded, project, schema::EVERYTHING};
use crate::{Bundle, load_definition, render};

/// xorshift: enough to choose places, and the same on every machine.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % bound.max(1) as u64).unwrap()
    }
}

const PIECES: &[&str] = &[
    "",
    "\n",
    " ",
    "  ",
    "\t",
    ":",
    "- ",
    "[",
    "]",
    "{",
    "}",
    "\"",
    "'",
    "|",
    ">",
    "&a ",
    "*a",
    "<<: *a",
    "!!str ",
    "#",
    "~",
    "-1",
    "0",
    "1e999",
    "9223372036854775808",
    "true",
    "{{",
    "}}",
    "{% for x in range(9) %}",
    "{{ x.y.z",
    "é",
    "\u{0}",
    "\u{feff}",
    "---\n",
    "...",
    "%YAML 9.9\n",
    "? ",
    "../x.sql",
    "a.sql",
    "${",
    "${X}",
    "$$",
    "after: [g]",
    "tasks:",
    "1h1h",
    "@every",
    "* * * * *",
];

fn mutate(random: &mut Random, text: &str) -> String {
    let mut chars: Vec<char> = text.chars().collect();
    for _ in 0..=random.below(3) {
        let at = random.below(chars.len());
        let until = (at + random.below(12)).min(chars.len());
        match random.below(4) {
            0 => drop(chars.drain(at..until)),
            1 => drop(chars.splice(at..until, PIECES[random.below(PIECES.len())].chars())),
            2 => drop(chars.splice(at..at, PIECES[random.below(PIECES.len())].chars())),
            _ => {
                let copied: Vec<char> = chars[at..until].to_vec();
                let to = random.below(chars.len());
                drop(chars.splice(to..to, copied));
            }
        }
    }
    chars.into_iter().collect()
}

#[test]
fn any_mutation_loads_or_is_told() {
    let seed = std::env::var("BACKSTOP_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(0x00ba_c457);
    let rounds = std::env::var("BACKSTOP_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(1500);
    println!("BACKSTOP_SEED={seed} BACKSTOP_ROUNDS={rounds}");
    let mut random = Random(seed);
    let mut valid = 0;
    for _ in 0..rounds {
        let mutated = mutate(&mut random, EVERYTHING);
        let (bundle, loaded) = loaded(&mutated);
        for diagnostic in &loaded.diagnostics {
            let shown = render(diagnostic, &bundle, false);
            assert!(shown.contains(diagnostic.code), "{shown}");
            assert!(diagnostic.place.as_ref().is_none_or(|at| at.line > 0 && at.column > 0 && at.length > 0), "{diagnostic:?}");
        }
        // What is valid loads from its bundle just the same.
        for (id, definition) in &loaded.project.dags {
            valid += 1;
            let kept = Bundle::from_bytes(&definition.bundle.to_bytes()).unwrap();
            let again = load_definition(&kept, id, &loaded.project).unwrap_or_else(|errors| panic!("{errors:?}\n{mutated}"));
            assert_eq!(again.version, definition.version, "{mutated}");
            assert_eq!(format!("{again:?}"), format!("{definition:?}"), "{mutated}");
        }
    }
    assert!(valid > 0, "no mutation left a DAG valid");
}

#[test]
fn any_cut_of_a_stored_bundle_is_refused_or_another_bundle() {
    let bytes = project(EVERYTHING).to_bytes();
    for end in 0..bytes.len() {
        if let Ok(bundle) = Bundle::from_bytes(&bytes[..end]) {
            assert_eq!(bundle.to_bytes(), &bytes[..end]);
        }
    }
}
