use super::*;

/// A run of a DAG.
pub(in crate::service) fn header(run: &str) -> Arc<RunHeader> {
    Arc::new(RunHeader {
        run_id: RunId::new(run),
        dag_id: DagId::new("d"),
        version: "v".into(),
        logical_date: None,
        data_interval: None,
        queued_at: Timestamp::UNIX_EPOCH,
        run_type: RunType::Manual,
        params: Arc::from("{}"),
        only_tasks: Vec::new(),
        dry_run: false,
        cause: None,
        project: None,
    })
}

pub(super) fn queued(run: &str) -> Queued {
    Queued { header: header(run), created: None, failures: 0 }
}

/// A run that was left in the middle of something goes first, also when there is no place: those who have the places may wait for what it
/// keeps. Where its DAG is paused it waits.
#[test]
fn a_run_that_was_left_goes_before_others_and_needs_no_place() {
    let pump = Arc::new(Notify::new());
    let limits = ServiceLimits { runs: 1, ..ServiceLimits::default() };
    let mut desk = Desk::new(BTreeMap::new());
    ["first", "left", "last"].iter().for_each(|run| desk.push(queued(run)));
    let next = |desk: &mut Desk| {
        desk.next(&limits, |_| 5, Timestamp::UNIX_EPOCH, &pump).map(|(queued, _)| queued.header.run_id.as_str().to_owned())
    };
    assert_eq!(next(&mut desk).as_deref(), Some("first"));
    assert_eq!(next(&mut desk), None, "there is one place");
    desk.left.insert(RunId::new("left"), Lane::of(&header("left")));
    desk.paused.insert(DagId::new("d"));
    assert_eq!(next(&mut desk), None);
    desk.paused.clear();
    assert_eq!(next(&mut desk).as_deref(), Some("left"));
    assert_eq!(next(&mut desk), None);
    assert!(desk.left.is_empty());
}

/// As many as are driven at most wait for a run that needs a place: it goes all the same, and then the next.
#[test]
fn runs_that_only_wait_do_not_keep_what_they_wait_for_from_beginning() {
    let pump = Arc::new(Notify::new());
    let limits = ServiceLimits { runs: 1, ..ServiceLimits::default() };
    let mut desk = Desk::new(BTreeMap::new());
    let next = |desk: &mut Desk| desk.next(&limits, |_| usize::MAX, Timestamp::UNIX_EPOCH, &pump);
    for number in 0..DRIVEN_FOR_EACH {
        desk.push(queued(&number.to_string()));
        let (_, control) = next(&mut desk).unwrap();
        control.tell_idle(true);
    }
    ["awaited", "other"].iter().for_each(|run| desk.push(queued(run)));
    let (awaited, control) = next(&mut desk).unwrap();
    assert_eq!(awaited.header.run_id.as_str(), "awaited");
    assert!(next(&mut desk).is_none(), "there is one place");
    assert_eq!(desk.fullness(&limits), Some((1, 1)));
    control.tell_idle(true);
    assert_eq!(desk.fullness(&limits), None);
    assert!(next(&mut desk).is_some());
}

/// The watch over deadlines is told of every move, and of nothing else: what it does not hear of it does not look at.
#[test]
fn whoever_waits_elsewhere_is_told_once() {
    let pump = Arc::new(Notify::new());
    let limits = ServiceLimits { runs: 1, ..ServiceLimits::default() };
    let mut desk = Desk::new(BTreeMap::new());
    let moved = |desk: &mut Desk| -> Vec<(String, Option<Place>)> {
        desk.take_moved().into_iter().map(|(run, waits)| (run.to_string(), waits.map(|(_, place)| place))).collect()
    };
    ["a", "b", "c"].iter().for_each(|run| desk.push(queued(run)));
    let all: Vec<_> = ["a", "b", "c"].map(|run| (run.to_owned(), Some(Place::Queued))).into();
    assert_eq!(moved(&mut desk), all);
    assert_eq!(moved(&mut desk), []);
    assert!(desk.next(&limits, |_| 5, Timestamp::UNIX_EPOCH, &pump).is_some());
    assert_eq!(moved(&mut desk), [("a".to_owned(), None)]);
    desk.let_go(&"a".into());
    let (again_at, again) = (tokio::time::Instant::now(), Timestamp::UNIX_EPOCH);
    desk.hinder(Hindered { queued: queued("a"), why: String::new(), again_at, again });
    assert_eq!(moved(&mut desk), [("a".to_owned(), Some(Place::Hindered))]);
    assert!(desk.take_off(&"a".into()).is_some());
    desk.stick(Stuck { header: header("a"), undecided: BTreeMap::new(), version: 1 });
    assert!(desk.take_off(&"b".into()).is_some());
    assert_eq!(moved(&mut desk), [("a".to_owned(), Some(Place::Stuck)), ("b".to_owned(), None)]);
    desk.unstick(&"a".into());
    assert_eq!(moved(&mut desk), [("a".to_owned(), None)]);
    assert_eq!(desk.queued.values().flatten().map(RunId::as_str).collect::<Vec<_>>(), ["c"]);
}

/// What waits counts until it is driven, or waits for something else.
#[test]
fn a_crowd_is_counted_in_bytes_and_is_none_once_one_begins() {
    let pump = Arc::new(Notify::new());
    let mut desk = Desk::new(BTreeMap::new());
    let params: Arc<str> = "x".repeat(waiting::WAITING_BYTES_MAX / 4).into();
    let large = |run: &str| {
        let header = RunHeader { params: params.clone(), ..(*header(run)).clone() };
        Queued { header: Arc::new(header), created: None, failures: 0 }
    };
    for run in ["a", "b", "c", "c"] {
        assert_eq!(desk.queued_runs.crowd(), None, "{run}");
        desk.queued_runs.insert(large(run));
    }
    assert_eq!(desk.queued_runs.crowd(), None, "one of them is there twice");
    desk.push(large("d"));
    assert_eq!(desk.queued_runs.crowd(), Some((4, waiting::WAITING_BYTES_MAX)));
    assert!(desk.next(&ServiceLimits::default(), |_| 5, Timestamp::UNIX_EPOCH, &pump).is_some());
    assert_eq!(desk.queued_runs.crowd(), None);
    desk.push(large("e"));
    assert!(desk.queued_runs.crowd().is_some());
    assert!(desk.take_off(&"a".into()).is_some());
    assert_eq!(desk.queued_runs.crowd(), None);
    (0..waiting::WAITING_RUNS_MAX).for_each(|number| desk.push(queued(&number.to_string())));
    assert!(desk.queued_runs.crowd().is_some());
}
