//! The golden files, what is newer, and what is damaged.

use super::*;
use crate::conformance::script::{self, samples};
use std::collections::BTreeSet;
use std::path::PathBuf;

/// Of no version.
const UNKNOWN: &str = r#"{"type":"?"}"#;

/// In the folder of the first version that knows the event.
fn golden(name: &str) -> PathBuf {
    let knows = |error: serde_json::Error, kind: &str| variants(&error).iter().any(|known| known == kind);
    let kind = name.split('.').next().unwrap();
    let version = if knows(serde_json::from_str::<v1::Event<'_>>(UNKNOWN).unwrap_err(), kind) && !name.ends_with(".caused") {
        "v1"
    } else if knows(serde_json::from_str::<v2::Event<'_>>(UNKNOWN).unwrap_err(), kind) {
        "v2"
    } else if knows(serde_json::from_str::<v3::Event<'_>>(UNKNOWN).unwrap_err(), kind) {
        "v3"
    } else if knows(serde_json::from_str::<v5::Event<'_>>(UNKNOWN).unwrap_err(), kind) {
        "v5"
    } else {
        "v4"
    };
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("golden").join(version).join(format!("{name}.json"))
}

fn encoded(event: &Event) -> String {
    let mut buffer = Vec::new();
    encode(event, &mut buffer);
    String::from_utf8(buffer).unwrap()
}

/// A missing file is written when `BACKSTOP_WRITE_GOLDEN` is set. One that is there never changes: it is somebody's log.
fn read_golden(name: &str, event: &Event) -> String {
    let path = golden(name);
    if !path.exists() && std::env::var_os("BACKSTOP_WRITE_GOLDEN").is_some() {
        std::fs::write(&path, encoded(event) + "\n").unwrap();
    }
    let text = std::fs::read_to_string(&path)
        .unwrap_or_else(|_| panic!("{} is missing: run the test once with BACKSTOP_WRITE_GOLDEN=1", path.display()));
    text.trim_end().to_owned()
}

#[test]
fn golden_files_are_read_and_written_again() {
    for (name, event) in samples() {
        let text = read_golden(&name, &event);
        assert_eq!(decode(&text).unwrap(), event, "{name}");
        assert_eq!(encoded(&event), text, "{name}");
    }
}

#[test]
fn every_golden_file_has_its_event() {
    let expected: BTreeSet<String> = samples().into_iter().map(|(name, _)| format!("{name}.json")).collect();
    let folders = ["run_failed", "run_reopened", "assets_updated", "run_pinned", "attempt_held"]
        .map(|name| golden(name).parent().unwrap().to_owned());
    let found: BTreeSet<String> = folders
        .iter()
        .flat_map(|folder| std::fs::read_dir(folder).unwrap())
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(found, expected);
}

/// The names that serde knows of an enum: it lists them when it is given one that it does not know.
fn variants(error: &serde_json::Error) -> Vec<String> {
    let text = error.to_string();
    let (_, list) = text.split_once("expected").unwrap_or_else(|| panic!("serde no longer lists its variants: {text}"));
    list.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// A new kind of event does not compile before it has a stored form; this asks for its golden file.
#[test]
fn every_kind_has_a_golden_file() {
    let kinds = variants(&serde_json::from_str::<v1::Event<'_>>(r#"{"type":"?"}"#).unwrap_err());
    assert!(kinds.len() >= 24, "{kinds:?}");
    let newer = variants(&serde_json::from_str::<v2::Event<'_>>(r#"{"type":"?"}"#).unwrap_err());
    assert!(newer.len() >= 5, "{newer:?}");
    let newest = variants(&serde_json::from_str::<v3::Event<'_>>(UNKNOWN).unwrap_err());
    assert!(newest.len() >= 6, "{newest:?}");
    let grouped = variants(&serde_json::from_str::<v5::Event<'_>>(UNKNOWN).unwrap_err());
    assert!(grouped.len() >= 2, "{grouped:?}");
    assert!(golden("run_created.caused").exists());
    // Of an enum of one serde says `expected` and its name.
    let last = variants(&serde_json::from_str::<v4::Event<'_>>(UNKNOWN).unwrap_err());
    assert!(!last.is_empty(), "{last:?}");
    for kind in kinds.into_iter().chain(newer).chain(newest).chain(last).chain(grouped) {
        assert!(golden(&kind).exists(), "there is no golden file for `{kind}`: add it to conformance::script::samples");
    }
}

#[test]
fn every_kind_within_an_event_is_in_a_golden_file() {
    let all: String = samples().iter().map(|(name, event)| read_golden(name, event)).collect();
    let unknown = r#""?""#;
    let inner = [
        serde_json::from_str::<v1::RunType>(unknown).unwrap_err(),
        serde_json::from_str::<v1::CancelCause>(unknown).unwrap_err(),
        serde_json::from_str::<v1::Promise<'_>>(unknown).unwrap_err(),
        serde_json::from_str::<v1::Evidence<'_>>(unknown).unwrap_err(),
        serde_json::from_str::<v1::FailureClass>(unknown).unwrap_err(),
        serde_json::from_str::<v1::SkipCause<'_>>(unknown).unwrap_err(),
        serde_json::from_str::<v1::Occasion>(unknown).unwrap_err(),
        serde_json::from_str::<v2::Restart>(unknown).unwrap_err(),
        serde_json::from_str::<v2::Mark>(unknown).unwrap_err(),
        serde_json::from_str::<v2::Afterwards>(unknown).unwrap_err(),
        serde_json::from_str::<v3::Cause<'_>>(unknown).unwrap_err(),
        serde_json::from_str::<v3::AlertOccasion>(unknown).unwrap_err(),
        serde_json::from_str::<v3::Unusual>(unknown).unwrap_err(),
    ];
    for error in inner {
        let kinds = variants(&error);
        assert!(kinds.len() >= 2, "{error}");
        for kind in kinds {
            assert!(all.contains(&format!("\"{kind}\"")), "no golden file has `{kind}`");
        }
    }
}

#[test]
fn a_golden_file_looks_like_this() {
    let look = |name: &str| samples().into_iter().find(|(sample, _)| sample == name).map(|(_, event)| encoded(&event)).unwrap();
    insta::assert_snapshot!(look("attempt_started"), @r#"{"v":1,"type":"attempt_started","task":"capture","try":1,"epoch":1,"at":"2025-11-01T12:26:40.000001Z"}"#);
    insta::assert_snapshot!(look("task_scheduled.mapped"), @r#"{"v":1,"type":"task_scheduled","task":"group.load","map":0}"#);
    insta::assert_snapshot!(look("instance_cancel_requested.clear"), @r#"{"v":2,"type":"instance_cancel_requested","task":"b","map":0,"reason":"it \"hangs\"","then":{"clear":"last_commit"}}"#);
    insta::assert_snapshot!(look("run_created.minimal"), @r#"{"v":1,"type":"run_created","run_id":"0199-minimal","dag_id":"d","version":"d1","queued_at":"2025-11-01T12:26:40Z","run_type":"manual"}"#);
}

#[test]
fn random_events_survive() {
    for seed in 0..50 {
        for event in script::random_run(seed, 100) {
            assert_eq!(decode(&encoded(&event)).unwrap(), event, "seed {seed}");
        }
    }
}

#[test]
fn hostile_texts_survive() {
    let texts = ["", "\0\u{1}\u{7f}", "\"\\\"", "\u{2028}\u{feff}", "🦀", "{\"v\":9}", "\r\n\t"];
    for text in texts {
        let event = Event::OperatorActed { who: text.into(), why: text.into(), what: text.into() };
        assert_eq!(decode(&encoded(&event)).unwrap(), event);
    }
}

#[test]
fn a_newer_version_is_too_new_whatever_is_in_it() {
    for body in [r#"{"v":6,"type":"run_started"}"#, r#"{"v":7,"kind":["?"]}"#] {
        assert!(matches!(decode(body), Err(Error::TooNew { found: 6 | 7 })), "{body}");
    }
    let error = decode(r#"{"v":6}"#).unwrap_err();
    insta::assert_snapshot!(error, @"the event is of format version 6, and this Backstop knows versions up to 5");
}

#[test]
fn damage_is_told() {
    for body in [
        "",
        "{",
        "[]",
        "{}",
        r#"{"v":1}"#,
        r#"{"v":1,"type":"no_such"}"#,
        r#"{"v":1,"type":"run_reopened"}"#,
        r#"{"v":2,"type":"run_started"}"#,
        r#"{"v":3,"type":"run_reopened"}"#,
        r#"{"v":4,"type":"run_reopened"}"#,
        r#"{"v":4,"type":"run_pinned"}"#,
        r#"{"v":-1,"type":"run_failed"}"#,
        r#"{"v":1,"type":"run_resumed"}"#,
    ] {
        assert!(matches!(decode(body), Err(Error::Malformed(_))), "{body}");
    }
}
