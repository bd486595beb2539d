//! Promises about the log: what is acknowledged is there, in order, and what is refused is not.

use super::script::{Random, append, at, attempt_started, created, random_run, run_started, samples, single};
use super::*;
use crate::projection::{Projection, RunFold};
use crate::{Durable, ErrorKind, Version};
use std::collections::HashMap;

fn started(task: &str) -> Event {
    attempt_started(single(task), 1, at(1))
}

fn numbered(number: usize) -> Event {
    Event::OperatorActed { who: String::new(), why: String::new(), what: number.to_string() }
}

/// Events come back as they went in, numbered from 1.
pub async fn append_and_read_back(subject: &mut dyn Subject) {
    let (store, run) = (subject.store(), RunId::new("r"));
    do_append(&*store, append(&run, 0, vec![created(&run, "d"), run_started()])).await.unwrap();
    do_append(&*store, append(&run, 2, vec![started("a")])).await.unwrap();
    let recorded = |seq, time, event| Recorded { seq, at: at(time), event };
    let expected = vec![recorded(1, 1000, created(&run, "d")), recorded(2, 1000, run_started()), recorded(3, 1002, started("a"))];
    assert_eq!(read_all(&*store, &run).await, expected);
    assert_eq!(store.run(&run).await.unwrap().unwrap().version, 3);
}

/// `after_seq` is exclusive, `limit` a limit, also at their extremes.
pub async fn reading_starts_and_ends_where_told(subject: &mut dyn Subject) {
    let (store, run) = (subject.store(), RunId::new("r"));
    make_run(&*store, &run, "d", (2..=10).map(numbered).collect()).await;
    for (after, limit, expected) in [
        (0, 3, vec![1, 2, 3]),
        (3, 2, vec![4, 5]),
        (9, 5, vec![10]),
        (10, 5, vec![]),
        (u64::MAX, usize::MAX, vec![]),
        (0, 0, vec![]),
    ] {
        let seqs: Vec<u64> = store.events(&run, after, limit).await.unwrap().iter().map(|recorded| recorded.seq).collect();
        assert_eq!(seqs, expected, "after {after}, limit {limit}");
    }
}

/// Every kind of event comes back equal.
pub async fn every_kind_of_event_survives(subject: &mut dyn Subject) {
    let (store, run) = (subject.store(), RunId::new("r"));
    let mut events = vec![created(&run, "d")];
    for (name, event) in samples() {
        match &event {
            Event::RunCreated(header) => {
                do_append(&*store, append(&header.run_id, 0, vec![event.clone()])).await.unwrap();
                assert_eq!(events_of(&read_all(&*store, &header.run_id).await), std::slice::from_ref(&event), "{name}");
                assert_eq!(store.run(&header.run_id).await.unwrap().unwrap().header, *header, "{name}");
            }
            _ => events.push(event),
        }
    }
    do_append(&*store, append(&run, 0, events.clone())).await.unwrap();
    assert_eq!(events_of(&read_all(&*store, &run).await), events);
}

/// What is finer than a microsecond is cut off, not rounded, in the log and in the projections alike.
pub async fn times_are_kept_to_the_microsecond(subject: &mut dyn Subject) {
    let (store, run) = (subject.store(), RunId::new("r"));
    let fine = "2025-10-26T02:00:00.123456999Z".parse().unwrap();
    let kept = "2025-10-26T02:00:00.123456Z".parse().unwrap();
    let events = vec![created(&run, "d"), Event::RunStarted { at: fine }, attempt_started(single("a"), 1, fine)];
    do_append(&*store, Append { at: fine, ..append(&run, 0, events) }).await.unwrap();
    assert!(read_all(&*store, &run).await.iter().all(|recorded| recorded.at == kept));
    assert_eq!(store.run(&run).await.unwrap().unwrap().started_at, Some(kept));
    assert_eq!(store.instances(&run).await.unwrap()[0].started_at, Some(kept));
}

/// Appends that nobody waits for are carried out in the order of the calls.
pub async fn order_of_calls_is_kept(subject: &mut dyn Subject) {
    let (store, run) = (subject.store(), RunId::new("r"));
    let mut answers = vec![store.append(append(&run, 0, vec![created(&run, "d")])).await];
    for version in 1..200 {
        answers.push(store.append(append(&run, version, vec![numbered(version as usize)])).await);
    }
    for answer in answers {
        answer.await.unwrap().unwrap();
    }
    let mut expected = vec![created(&run, "d")];
    expected.extend((1..200).map(numbered));
    assert_eq!(events_of(&read_all(&*store, &run).await), expected);
}

/// A wrong version is a conflict that says what is there, and nothing of it is kept.
pub async fn a_conflict_is_refused(subject: &mut dyn Subject) {
    let (store, run) = (subject.store(), RunId::new("r"));
    make_run(&*store, &run, "d", vec![run_started()]).await;
    for (expected, events) in [(0, vec![created(&run, "d")]), (1, vec![numbered(1)]), (5, vec![numbered(5)])] {
        let refused = do_append(&*store, append(&run, expected, events)).await.unwrap_err();
        let AppendError::Conflict { run: named, expected: said, actual } = refused else { panic!("not a conflict: {refused}") };
        assert_eq!((named, said, actual), (run.clone(), expected, 2));
    }
    let absent = RunId::new("absent");
    let refused = do_append(&*store, append(&absent, 3, vec![numbered(1)])).await.unwrap_err();
    assert!(matches!(refused, AppendError::Conflict { expected: 3, actual: 0, .. }), "{refused}");
    assert_eq!(read_all(&*store, &run).await.len(), 2);
    assert_eq!(store.run(&absent).await.unwrap(), None);
}

/// A refused append costs the ones that share its commit nothing.
pub async fn a_conflict_spoils_no_other_append(subject: &mut dyn Subject) {
    let store = subject.store();
    let runs: Vec<RunId> = (0..5).map(|number| RunId::new(format!("r{number}"))).collect();
    let mut answers = Vec::new();
    for run in &runs {
        answers.push((true, store.append(append(run, 0, vec![created(run, "d")])).await));
        answers.push((false, store.append(append(run, 7, vec![numbered(7)])).await));
        answers.push((true, store.append(append(run, 1, vec![numbered(1)])).await));
    }
    for (number, (is_good, answer)) in answers.into_iter().enumerate() {
        assert_eq!(answer.await.unwrap().is_ok(), is_good, "append {number}");
    }
    for run in &runs {
        assert_eq!(events_of(&read_all(&*store, run).await), [created(run, "d"), numbered(1)]);
    }
}

/// What was decided after an append that was not kept is not kept either.
pub async fn a_failed_append_fails_the_later_ones(subject: &mut dyn Subject) {
    let (store, run) = (subject.store(), RunId::new("r"));
    make_run(&*store, &run, "d", vec![]).await;
    let mut answers = Vec::new();
    // The second of these is refused, being malformed.
    for (version, events) in [(1, vec![numbered(1)]), (2, vec![]), (3, vec![numbered(3)]), (4, vec![numbered(4)])] {
        answers.push(store.append(append(&run, version, events)).await);
    }
    let mut kept = Vec::new();
    for answer in answers {
        kept.push(answer.await.unwrap().is_ok());
    }
    assert_eq!(kept, [true, false, false, false]);
    assert_eq!(store.run(&run).await.unwrap().unwrap().version, 2);
}

/// No events, a first event that is not RunCreated, or RunCreated elsewhere: refused as bugs, in words.
pub async fn a_malformed_append_is_refused(subject: &mut dyn Subject) {
    let (store, run, other) = (subject.store(), RunId::new("r"), RunId::new("other"));
    let cases = [
        (0, vec![], "it has no events"),
        (0, vec![run_started()], "its first event is not RunCreated"),
        (0, vec![created(&other, "d")], "its RunCreated names another run"),
        (0, vec![created(&run, "d"), created(&run, "d")], "RunCreated is not the first event"),
    ];
    for (version, events, what) in cases {
        let refused = do_append(&*store, append(&run, version, events)).await.unwrap_err();
        assert!(refused.to_string().ends_with(what), "{refused}");
    }
    assert_eq!(store.run(&run).await.unwrap(), None);
    make_run(&*store, &run, "d", vec![]).await;
    assert!(do_append(&*store, append(&run, 1, vec![created(&run, "d")])).await.is_err());
    assert_eq!(read_all(&*store, &run).await.len(), 1);
}

/// Whoever had the run before a take-over can append no more, also when its version fits.
pub async fn take_over_fences(subject: &mut dyn Subject) {
    let (store, run) = (subject.store(), RunId::new("r"));
    make_run(&*store, &run, "d", vec![]).await;
    assert_eq!(store.take_over(&run).await.unwrap(), 2);
    let refused = do_append(&*store, append(&run, 1, vec![numbered(1)])).await.unwrap_err();
    assert!(matches!(refused, AppendError::Fenced { ours: 1, current: 2, .. }), "{refused}");
    do_append(&*store, Append { epoch: 2, ..append(&run, 1, vec![Event::RunResumed { epoch: 2 }]) }).await.unwrap();
    assert_eq!(store.take_over(&run).await.unwrap(), 3);
    let row = store.run(&run).await.unwrap().unwrap();
    assert_eq!((row.epoch, row.version), (3, 2));
    drop(store);
    subject.crash().await;
    assert_eq!(subject.store().run(&run).await.unwrap().unwrap().epoch, 3, "durable on return");
}

/// Also the order of an append and a take-over is that of the calls.
pub async fn take_over_of_no_run_fails(subject: &mut dyn Subject) {
    let (store, run) = (subject.store(), RunId::new("r"));
    let error = store.take_over(&run).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::NotFound, "{error}");
    let answer = store.append(append(&run, 0, vec![created(&run, "d")])).await;
    assert_eq!(store.take_over(&run).await.unwrap(), 2);
    answer.await.unwrap().unwrap();
}

/// An epoch larger than the run's was never given out.
pub async fn an_epoch_nobody_gave_is_refused(subject: &mut dyn Subject) {
    let (store, run) = (subject.store(), RunId::new("r"));
    make_run(&*store, &run, "d", vec![]).await;
    let refused = do_append(&*store, Append { epoch: 9, ..append(&run, 1, vec![numbered(1)]) }).await.unwrap_err();
    assert!(matches!(refused, AppendError::Store(_)), "{refused}");
    assert_eq!(read_all(&*store, &run).await.len(), 1);
}

/// Many runs at once, each with its own log.
pub async fn many_runs_share_the_queue(subject: &mut dyn Subject) {
    let store = subject.store();
    let runs: Vec<RunId> = (0..50).map(|number| RunId::new(format!("r{number}"))).collect();
    let mut answers = Vec::new();
    for version in 0..10 {
        for run in &runs {
            let event = if version == 0 { created(run, "d") } else { numbered(version) };
            answers.push(store.append(append(run, version as u64, vec![event])).await);
        }
    }
    for answer in answers {
        answer.await.unwrap().unwrap();
    }
    for run in &runs {
        let seqs: Vec<u64> = read_all(&*store, run).await.iter().map(|recorded| recorded.seq).collect();
        assert_eq!(seqs, (1..=10).collect::<Vec<u64>>());
    }
}

/// A burst beyond the queue waits its turn, and all of it is kept.
pub async fn more_than_the_queue_holds(subject: &mut dyn Subject) {
    let (store, run) = (subject.store(), RunId::new("r"));
    make_run(&*store, &run, "d", vec![]).await;
    let mut last: Option<Durable> = None;
    for version in 1..=20_000 {
        last = Some(store.append(append(&run, version, vec![run_started()])).await);
    }
    last.unwrap().await.unwrap().unwrap();
    assert_eq!(store.run(&run).await.unwrap().unwrap().version, 20_001);
}

/// After a flush everything queued before is answered and can be read.
pub async fn flush_waits_for_all_before(subject: &mut dyn Subject) {
    let (store, run) = (subject.store(), RunId::new("r"));
    store.flush().await.unwrap();
    let mut good = store.append(append(&run, 0, vec![created(&run, "d")])).await;
    let mut refused = store.append(append(&run, 5, vec![numbered(5)])).await;
    store.flush().await.unwrap();
    assert!(good.try_recv().unwrap().is_ok());
    assert!(refused.try_recv().unwrap().is_err());
    assert_eq!(read_all(&*store, &run).await.len(), 1);
}

/// A definition is kept once, by its digest.
pub async fn versions_are_kept_once(subject: &mut dyn Subject) {
    let store = subject.store();
    let version = |digest: &str, bundle: &[u8]| Version { digest: digest.into(), dag_id: "d".into(), bundle: bundle.to_vec() };
    assert_eq!(store.version("x").await.unwrap(), None);
    store.keep_version(version("x", b"\0one\xff")).await.unwrap();
    store.keep_version(version("x", b"two")).await.unwrap();
    store.keep_version(version("y", b"")).await.unwrap();
    drop(store);
    subject.crash().await;
    let store = subject.store();
    assert_eq!(store.version("x").await.unwrap(), Some(version("x", b"\0one\xff")));
    assert_eq!(store.version("y").await.unwrap(), Some(version("y", b"")));
    assert_eq!(store.version("z").await.unwrap(), None);
}

/// After a crash everything that was acknowledged is there; what else is there is a prefix of what was queued, over all runs.
pub async fn crash_keeps_a_prefix(subject: &mut dyn Subject) {
    let store = subject.store();
    let runs: Vec<RunId> = (0..3).map(|number| RunId::new(format!("r{number}"))).collect();
    let mut random = Random::new(7);
    let mut queued: Vec<(RunId, u64)> = Vec::new();
    let mut versions: HashMap<RunId, u64> = HashMap::new();
    let mut answers = Vec::new();
    for _ in 0..300 {
        let run = &runs[random.below(3) as usize];
        let version = versions.entry(run.clone()).or_default();
        let event = if *version == 0 { created(run, "d") } else { numbered(*version as usize) };
        answers.push(store.append(append(run, *version, vec![event])).await);
        *version += 1;
        queued.push((run.clone(), *version));
    }
    drop(store);
    subject.crash().await;
    let acknowledged = answers.iter_mut().map(Durable::try_recv).filter(|answer| matches!(answer, Ok(Ok(())))).count();
    let store = subject.store();
    let mut lengths: HashMap<RunId, u64> = HashMap::new();
    for run in &runs {
        lengths.insert(run.clone(), read_all(&*store, run).await.len() as u64);
    }
    let kept: Vec<bool> = queued.iter().map(|(run, seq)| *seq <= lengths[run]).collect();
    let prefix = kept.iter().take_while(|kept| **kept).count();
    assert!(kept[prefix..].iter().all(|kept| !kept), "something in the middle was lost");
    assert!(prefix >= acknowledged, "{acknowledged} were acknowledged, {prefix} kept");
}

/// Random appends of several runs, some of them wrong, in random order: the store agrees with a plain model of it at the end, and its
/// projections with a fold of its log.
pub async fn random_interleavings(subject: &mut dyn Subject) {
    let store = subject.store();
    for seed in 0..20 {
        let mut random = Random::new(seed);
        let scripts: Vec<Vec<Event>> = (0..4).map(|number| random_run(seed * 10 + number, 60)).collect();
        let runs: Vec<RunId> = scripts.iter().map(|events| run_of(&events[0])).collect();
        let mut model = vec![0_usize; runs.len()];
        let mut answers = Vec::new();
        for _ in 0..150 {
            let which = random.below(4) as usize;
            let rest = &scripts[which][model[which]..];
            let count = (random.below(6) as usize).min(rest.len());
            let is_wrong = random.below(5) == 0;
            let version = model[which] as u64 + u64::from(is_wrong);
            let is_good = !is_wrong && count > 0;
            answers.push((is_good, store.append(append(&runs[which], version, rest[..count].to_vec())).await));
            if is_good {
                model[which] += count;
            }
        }
        for (is_good, answer) in answers {
            assert_eq!(answer.await.unwrap().is_ok(), is_good, "seed {seed}");
        }
        for (which, run) in runs.iter().enumerate() {
            let kept = read_all(&*store, run).await;
            assert_eq!(events_of(&kept), scripts[which][..model[which]], "seed {seed}, run {run}");
            if !kept.is_empty() {
                assert_projections(&*store, run, &kept, &format!("seed {seed}")).await;
            }
        }
    }
}

fn run_of(event: &Event) -> RunId {
    let Event::RunCreated(header) = event else { panic!("a run begins with RunCreated") };
    header.run_id.clone()
}

/// Folds the log that was read back, and compares.
pub(crate) async fn assert_projections(store: &dyn Store, run: &RunId, log: &[Recorded], label: &str) {
    let mut fold = Projection::new();
    log.iter().for_each(|recorded| fold.apply(recorded));
    assert_eq!(store.instances(run).await.unwrap(), fold.instances(), "{label}");
    assert_eq!(store.statements(run, None).await.unwrap(), fold.statements, "{label}");
    let row = store.run(run).await.unwrap().unwrap();
    let RunFold { phase, is_cancel_requested: _, started_at, ended_at, callbacks_pending, pinned } = fold.run;
    let Some(Event::RunCreated(created)) = log.first().map(|recorded| &recorded.event) else { panic!("{label}: no creation") };
    assert_eq!(row.header.version, pinned.unwrap_or_else(|| created.version.clone()), "{label}");
    let folded = (phase.as_str(), started_at, ended_at, callbacks_pending, log.len() as u64);
    assert_eq!((row.state.as_str(), row.started_at, row.ended_at, row.callbacks_pending, row.version), folded, "{label}");
}
