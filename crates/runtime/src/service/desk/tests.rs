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

fn queued(run: &str) -> Queued {
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
