//! Watching sessions at work from beside them.

use super::super::bed::{Bed, Place, run};
use backstop_connect::{Lookout, Sighting};
use std::time::Duration;

/// Looks until a sighting of the session fits.
pub(in crate::conformance) async fn look_until(
    lookout: &mut Box<dyn Lookout>,
    session: &str,
    fits: impl Fn(&Sighting) -> bool,
) -> Sighting {
    let looking = async {
        loop {
            let view = lookout.look(&[session.to_owned()]).await.unwrap();
            assert!(view.limits.is_empty(), "{:?}", view.limits);
            if let Some(found) = view.sightings.into_iter().find(|sighting| sighting.session == session && fits(sighting)) {
                return found;
            }
            // InnoDB keeps its answers as long as somebody asks again within 100 ms.
            tokio::time::sleep(Duration::from_millis(150)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), looking).await.expect("it was never seen so")
}

pub(in crate::conformance) async fn a_blocked_statement_names_its_blocker(bed: &Bed) {
    assert!(bed.connector.has_lookout());
    let mut blocker = bed.with_table().await;
    run(&mut blocker, "INSERT INTO t VALUES (1, 'a')").await.unwrap();
    let mut blocked = bed.session().await;
    let (blocker_id, blocked_id) = (blocker.server_id(), blocked.server_id());
    blocker.begin(None).await.unwrap();
    run(&mut blocker, "UPDATE t SET v = 'hunter2' WHERE id = 1").await.unwrap();
    let waiting = tokio::spawn(async move {
        run(&mut blocked, "UPDATE t SET v = 'swordfish' WHERE id = 1").await.unwrap();
    });
    let mut lookout = bed.connector.lookout().await.unwrap().unwrap();
    let seen = look_until(&mut lookout, &blocked_id, |sighting| !sighting.blocked_by.is_empty()).await;
    assert_eq!(seen.blocked_by.len(), 1, "{seen:?}");
    let by = &seen.blocked_by[0];
    assert_eq!(by.session.as_deref(), Some(&*blocker_id));
    assert_eq!(by.user.as_deref(), bed.pick(Some("postgres"), Some("root"), None));
    assert_eq!(by.application.as_deref(), bed.pick(Some("backstop"), None, None));
    // A server that keeps what a waiting client did last tells it; the others tell nothing of an idle session.
    assert_eq!(by.statement.as_deref(), bed.pick(Some("UPDATE t"), None, None));
    assert!(by.transaction_age.is_some());
    assert!(seen.wait.is_some());
    assert!(seen.blocked_for.is_some());
    assert!(!format!("{seen:?}").contains("hunter2") && !format!("{seen:?}").contains("swordfish"));
    let view = lookout.look(&[blocker_id]).await.unwrap();
    assert!(view.sightings[0].blocked_by.is_empty(), "{view:?}");
    blocker.rollback().await.unwrap();
    waiting.await.unwrap();
    assert_eq!(bed.outside("SELECT v FROM t"), "swordfish");
    lookout.close().await;
}

pub(in crate::conformance) async fn a_session_that_is_gone_is_not_seen(bed: &Bed) {
    let mut lookout = bed.connector.lookout().await.unwrap().unwrap();
    let gone = bed.pick("2147483646", "4294967294", "thread 4294967294");
    let view = lookout.look(&[gone.to_owned(), "no id; DROP TABLE t".to_owned()]).await.unwrap();
    assert_eq!(view, backstop_connect::View::default());
    if matches!(bed.place, Place::Sqlite(_)) {
        return;
    }
    let session = bed.session().await;
    let view = lookout.look(&[session.server_id()]).await.unwrap();
    assert_eq!(view.sightings.len(), 1);
}
