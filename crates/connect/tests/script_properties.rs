//! What holds for every script: splitting loses nothing, invents nothing and never panics.

mod script_invariants;

use backstop_connect::script::{Dialect, Statement, split};
use proptest::prelude::*;
use script_invariants::{DIALECTS, check_invariants};

/// A statement that no dialect ends early. Its quotes hold what would end or hide something elsewhere.
fn statement() -> impl Strategy<Value = String> {
    let word = prop::sample::select(vec![
        "SELECT", "insert", "UPDATE t", "FROM", "été", "x1", "42", "(a, b)", "= 7", "+ 1", "a.b", "<>",
    ]);
    let quoted = prop::sample::select(vec![
        "'it''s; done'",
        "'-- no comment'",
        "'/* nor this'",
        "';\n\nGO\n;'",
        "'\n/\n'",
        "\"a \"\" ; b\"",
        "'$$'",
        "''",
        "'é;'",
    ]);
    let inner = prop_oneof![3 => word.prop_map(str::to_owned), 2 => quoted.prop_map(str::to_owned), 1 => comment()];
    let gap = prop::sample::select(vec![" ", "\t", "\n", "\r\n", "  "]);
    (prop::sample::select(vec!["SELECT", "insert", "Update", "zzz"]), prop::collection::vec((gap, inner), 0..8), "[a-z]{1,3}z")
        .prop_map(|(first, parts, last)| {
            let mut text = first.to_owned();
            for (gap, inner) in parts {
                text.push_str(gap);
                text.push_str(&inner);
            }
            text.push(' ');
            text.push_str(&last);
            text
        })
}

fn comment() -> impl Strategy<Value = String> {
    prop::sample::select(vec!["-- it's ; \"one\n", "/* it's ; \n GO \n \"one\" */", "/**/", "-- \n", "/* é $$ */"])
        .prop_map(str::to_owned)
}

fn blank() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        3 => prop::sample::select(vec![" ", "\n", "\r\n", "\t"]).prop_map(str::to_owned),
        1 => comment(),
    ];
    prop::collection::vec(piece, 0..4).prop_map(|pieces| pieces.concat())
}

/// The line and column of an offset, counted the slow way.
fn place(script: &str, offset: usize) -> (u32, u32) {
    let before = script[..offset].trim_start_matches('\u{feff}');
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    let narrow = |number| u32::try_from(number).expect("scripts here are short");
    (narrow(line), narrow(column))
}

fn separator(dialect: Dialect, semicolons: usize) -> String {
    match dialect {
        Dialect::SqlServer => "\nGO\n".to_owned(),
        Dialect::Oracle if semicolons == 0 => "\n/\n".to_owned(),
        Dialect::PostgreSql | Dialect::MySql | Dialect::Sqlite | Dialect::Oracle | Dialect::Generic => {
            ";".repeat(semicolons.max(1))
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_script_splits_into_the_statements_it_was_made_of(
        mark in any::<bool>(),
        parts in prop::collection::vec((blank(), statement(), blank(), 0..3_usize), 0..8),
        tail in blank(),
        dialect in prop::sample::select(DIALECTS.to_vec()),
    ) {
        let mut script = if mark { "\u{feff}".to_owned() } else { String::new() };
        let mut expected = Vec::new();
        for (before, text, after, semicolons) in &parts {
            script.push_str(before);
            expected.push((place(&script, script.len()), text.clone()));
            script.push_str(text);
            script.push_str(after);
            script.push_str(&separator(dialect, *semicolons));
        }
        script.push_str(&tail);
        let statements = split(dialect, &script).map_err(|error| TestCaseError::fail(format!("{error:?} in {script:?}")))?;
        let found: Vec<_> = statements
            .iter()
            .map(|Statement { line, column, text, .. }| ((*line, *column), script[text.clone()].to_owned()))
            .collect();
        prop_assert_eq!(found, expected, "{:?} {:?}", dialect, script);
        check_invariants(dialect, &script);
    }

    #[test]
    fn any_text_at_all_is_split_or_refused(script in any::<String>(), dialect in prop::sample::select(DIALECTS.to_vec())) {
        check_invariants(dialect, &script);
    }

    #[test]
    fn any_text_of_nasty_pieces_is_split_or_refused(
        pieces in prop::collection::vec(prop::sample::select(script_invariants::PIECES.to_vec()), 0..40),
        dialect in prop::sample::select(DIALECTS.to_vec()),
    ) {
        check_invariants(dialect, &pieces.concat());
    }
}
