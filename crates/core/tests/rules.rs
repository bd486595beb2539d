//! The table of trigger rules, row by row: the upstreams' states in, what the rule says out.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use backstop_core::InstancePhase;
use backstop_core::rule::{TriggerRule, UpstreamCounts, Verdict, setup_verdict};
use std::collections::BTreeSet;

/// `s` success, `f` failed, `u` upstream_failed, `k` skipped, `r` removed, `.` not done. Upper case for a setup.
fn counts(upstreams: &str) -> (UpstreamCounts, UpstreamCounts) {
    let (mut direct, mut setups) = (UpstreamCounts::default(), UpstreamCounts::default());
    for letter in upstreams.chars() {
        let phase = match letter.to_ascii_lowercase() {
            's' => InstancePhase::Success,
            'f' => InstancePhase::Failed,
            'u' => InstancePhase::UpstreamFailed,
            'k' => InstancePhase::Skipped,
            'r' => InstancePhase::Removed,
            '.' => InstancePhase::Running,
            _ => panic!("{letter}"),
        };
        direct.total += 1;
        direct.add(phase);
        if letter.is_ascii_uppercase() {
            setups.total += 1;
            setups.add(phase);
        }
    }
    (direct, setups)
}

/// Each rule with rows of upstreams, by what it says of them.
const TABLE: [(&str, [(&str, Verdict); 4]); 13] = {
    use Verdict::{Run, Skip, UpstreamFailed, Wait};
    [
        ("all_success", [("ss ssr sss", Run), ("k. sk kk", Skip), ("f. u. fk ku ff", UpstreamFailed), (". s. ss.", Wait)]),
        ("all_failed", [("f ff fu uu fr", Run), ("s. k. fs fk ss", Skip), ("", UpstreamFailed), (". f. u.", Wait)]),
        ("all_done", [("s f u k sfuk sr", Run), ("", Skip), ("", UpstreamFailed), (". s. f. k.", Wait)]),
        (
            "all_done_min_one_success",
            [("s sf su sr", Run), ("k. sk kf k", Skip), ("f ff u fu", UpstreamFailed), (". s. f. u.", Wait)],
        ),
        (
            "all_done_setup_success",
            [("s f k u Sf SFk Su", Run), ("K Kf KKs", Skip), ("F Fs U KF", UpstreamFailed), (". s. S. F. K. Kf.", Wait)],
        ),
        ("one_success", [("s s. sf sk su.", Run), ("k kk kkr", Skip), ("f ff fk u uk", UpstreamFailed), (". f. k. u.", Wait)]),
        ("one_failed", [("f f. u. fs uk", Run), ("s k ss sk kk", Skip), ("", UpstreamFailed), (". s. k.", Wait)]),
        ("one_done", [("s. f. s f sk", Run), ("k u ku kk", Skip), ("", UpstreamFailed), (". k. u.", Wait)]),
        ("none_failed", [("s k sk kk sr", Run), ("", Skip), ("f. u. sf ku", UpstreamFailed), (". s. k.", Wait)]),
        (
            "none_failed_min_one_success",
            [("s sk ss", Run), ("k kk kr", Skip), ("f. u. sf kf ku", UpstreamFailed), (". s. k.", Wait)],
        ),
        ("none_skipped", [("s f u sf su fu", Run), ("k. sk kf k", Skip), ("", UpstreamFailed), (". s. f. u.", Wait)]),
        ("all_skipped", [("k kk kr", Run), ("s. f. u. sk kf ku", Skip), ("", UpstreamFailed), (". k.", Wait)]),
        ("always", [("s. . k. f. u. ss", Run), ("", Skip), ("", UpstreamFailed), ("", Wait)]),
    ]
};

#[test]
fn every_rule_says_what_its_row_says() {
    let mut rules = BTreeSet::new();
    for (name, rows) in TABLE {
        let rule = *TriggerRule::ALL.iter().find(|rule| rule.as_str() == name).unwrap();
        rules.insert(name);
        for (upstreams, verdict) in
            rows.iter().flat_map(|(cases, verdict)| cases.split_whitespace().map(move |case| (case, *verdict)))
        {
            let (direct, setups) = counts(upstreams);
            assert_eq!(rule.verdict(&direct, &setups), verdict, "{name} after {upstreams}");
        }
    }
    assert_eq!(rules.len(), TriggerRule::ALL.len(), "every rule has a row");
}

#[test]
fn a_task_whose_upstreams_are_absent_runs_by_every_rule() {
    for rule in TriggerRule::ALL {
        for upstreams in ["", "r", "rR"] {
            let (direct, setups) = counts(upstreams);
            assert_eq!(rule.verdict(&direct, &setups), Verdict::Run, "{} after `{upstreams}`", rule.as_str());
        }
    }
}

#[test]
fn every_rule_decides_once_all_is_done_and_never_takes_it_back() {
    let letters = ['s', 'f', 'u', 'k', '.', 'S', 'K', 'F'];
    for rule in TriggerRule::ALL {
        for first in letters {
            for second in letters {
                for third in letters {
                    let before: String = [first, second, third].iter().collect();
                    let (direct, setups) = counts(&before);
                    let verdict = rule.verdict(&direct, &setups);
                    assert!(before.contains('.') || verdict != Verdict::Wait, "{} waits for ever after {before}", rule.as_str());
                    for next in ["s", "f", "u", "k"] {
                        let (direct, setups) = counts(&before.replacen('.', next, 1));
                        let later = rule.verdict(&direct, &setups);
                        let kept = match verdict {
                            Verdict::Wait => true,
                            Verdict::Run => later == Verdict::Run,
                            Verdict::Skip | Verdict::UpstreamFailed => matches!(later, Verdict::Skip | Verdict::UpstreamFailed),
                        };
                        assert!(kept, "{} said {verdict:?} after {before}, then {later:?}", rule.as_str());
                    }
                }
            }
        }
    }
}

#[test]
fn indirect_setups_mark_at_their_first_failure_or_skip() {
    let cases = [
        ("", Verdict::Run),
        ("s", Verdict::Run),
        ("s.", Verdict::Wait),
        ("k.", Verdict::Skip),
        ("kf.", Verdict::UpstreamFailed),
        ("u", Verdict::UpstreamFailed),
        ("sr", Verdict::Run),
    ];
    for (setups, verdict) in cases {
        assert_eq!(setup_verdict(&counts(setups).0), verdict, "{setups}");
    }
}
