//! Sessions: opening, resetting, losing them, and savepoints within.

use super::super::bed::{Bed, Memory, Place, call, hides, marked, run, secret, unit, value};
use super::endless;
use super::statements::wait_until_running;
use backstop_connect::session::Wrap;
use backstop_connect::{ErrorKind, UnitError, UnitOutcome};

pub(in crate::conformance) async fn a_reset_forgets_settings_and_temporary_tables(bed: &Bed) {
    let mut session = bed.session().await;
    let read = bed.pick(
        "SELECT current_setting('statement_timeout')",
        "SELECT @@session.sql_select_limit",
        "SELECT foreign_keys FROM pragma_foreign_keys",
    );
    let set = bed.pick("SET statement_timeout = '77s'", "SET SESSION sql_select_limit = 77", "PRAGMA foreign_keys = OFF");
    let before = value(&mut session, read).await;
    run(&mut session, set).await.unwrap();
    run(&mut session, "CREATE TEMPORARY TABLE scratch (a int)").await.unwrap();
    assert_ne!(value(&mut session, read).await, before);
    session.begin(None).await.unwrap();
    session.reset().await.unwrap();
    assert_eq!(value(&mut session, read).await, before);
    assert_eq!(run(&mut session, "SELECT * FROM scratch").await.err().unwrap().kind, ErrorKind::Syntax);
    // A reset straight before a unit, whose answer is not waited for.
    session.reset().await.unwrap();
    assert_eq!(unit(&mut session, Wrap::ReadOnly, &["SELECT 1"]).await.unwrap(), UnitOutcome::Done);
}

pub(in crate::conformance) async fn a_session_left_in_the_middle_is_not_usable(bed: &Bed) {
    let mut session = bed.with_table().await;
    {
        let (signal, mut started) = tokio::sync::mpsc::unbounded_channel();
        let mut memory = Memory { signal: Some(signal), ..Memory::default() };
        let statement = call(endless(bed));
        let running = session.execute(&statement, 0, &mut memory);
        tokio::pin!(running);
        tokio::select! {
            _ = &mut running => panic!("it ended"),
            _ = started.recv() => {}
        }
    }
    assert!(!session.is_usable());
    let error = unit(&mut session, marked("late"), &["INSERT INTO t VALUES (1, 'a')"]).await.unwrap_err();
    assert!(matches!(&error, UnitError::RolledBack { place: None, error } if error.kind == ErrorKind::Lost), "{error:?}");
    assert_eq!(bed.count("t"), 0);
    if !matches!(bed.place, Place::Sqlite(_)) {
        // The servers' sleeping statements end with their cancel; SQLite's ends when the session is dropped.
        session.canceller().cancel().await.unwrap();
    }
}

/// What another process left under a name goes away; what this one does under it, and what has another name, goes on.
pub(in crate::conformance) async fn what_was_left_behind_is_ended_by_its_name(bed: &Bed) {
    let mut session = bed.with_table().await;
    let name = "backstop load run-7";
    let mut left = Vec::new();
    for (key, other) in [("lost", name), ("ours", name), ("another", "backstop load run-70")] {
        let mut busy = bed.session().await;
        busy.introduce(other);
        let id = busy.server_id();
        let statement = endless(bed);
        let running = tokio::spawn(async move { unit(&mut busy, marked(key), &[statement]).await });
        wait_until_running(bed, &id, true).await;
        left.push((id, running));
    }
    let ours = [left[1].0.clone()];
    assert_eq!(session.leftovers(name, &ours).await.unwrap(), Some(1));
    assert_eq!(session.leftovers(name, &[]).await.unwrap(), Some(2));
    assert_eq!(session.end_leftovers(name, &ours).await.unwrap(), 1);
    let (lost, running) = left.remove(0);
    assert!(running.await.unwrap().is_err());
    wait_until_running(bed, &lost, false).await;
    assert_eq!(session.leftovers(name, &ours).await.unwrap(), Some(0));
    for (id, running) in left {
        wait_until_running(bed, &id, true).await;
        running.abort();
    }
    assert_eq!(session.end_leftovers("", &[]).await.unwrap(), 0);
    assert!(session.is_usable());
}

pub(in crate::conformance) async fn savepoints_undo_a_part(bed: &Bed) {
    let mut session = bed.with_table().await;
    session.begin(None).await.unwrap();
    run(&mut session, "INSERT INTO t VALUES (1, 'a')").await.unwrap();
    session.savepoint("task_1").await.unwrap();
    run(&mut session, "INSERT INTO t VALUES (2, 'b')").await.unwrap();
    assert!(run(&mut session, "INSERT INTO t VALUES (1, 'again')").await.is_err());
    session.rollback_to("task_1").await.unwrap();
    run(&mut session, "INSERT INTO t VALUES (3, 'c')").await.unwrap();
    session.commit().await.unwrap();
    assert_eq!(bed.outside("SELECT id FROM t ORDER BY id"), "1\n3");
}

pub(in crate::conformance) async fn unknown_settings_are_named_with_the_known_ones(bed: &Bed) {
    let mut config = bed.config.clone();
    let wrong = bed.pick("conect_timeout", "conect_timeout", "busy_timout");
    config.extra.insert(wrong.into(), "1".into());
    let error = backstop_connect::connector(&config).err().unwrap();
    let right = bed.pick("connect_timeout", "connect_timeout", "busy_timeout");
    assert_eq!(error.kind, ErrorKind::Config);
    assert!(error.message.contains(&format!("unknown setting `{wrong}`; did you mean `{right}`?")), "{error}");
    assert!(error.hint.unwrap().contains(right));
}

/// For servers: what cannot be reached or does not let us in.
pub(in crate::conformance) async fn failing_to_connect_says_what_is_to_blame(bed: &Bed) {
    let opened = async |change: &dyn Fn(&mut backstop_connect::Config)| {
        let connector = bed.changed(|config| {
            // PostgreSQL trusts here and never asks for it; MariaDB lets root in with an empty one alone.
            config.password = bed.pick(secret("hunter2-secret"), None, None);
            change(config);
        });
        assert!(!connector.target().contains("hunter2-secret"));
        let error = connector.open().await.err().unwrap();
        hides(&error, "hunter2-secret");
        assert!(error.operation.starts_with("connect to sales_db ("), "{error}");
        error
    };
    // A port that was just free: nothing listens there.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let error = opened(&|config| config.port = Some(free)).await;
    assert_eq!(error.kind, ErrorKind::Unreachable, "{error}");
    assert_eq!(error.message, format!("nothing listens at 127.0.0.1 port {free}"));
    assert_eq!(std::error::Error::source(&error).unwrap().to_string(), "Connection refused (os error 111)");
    assert_eq!(error.hint.as_deref(), Some("check host and port, and that the server is running"));
    let error = opened(&|config| config.host = Some("no-such-host.invalid".into())).await;
    assert_eq!(error.kind, ErrorKind::Unreachable, "{error}");
    assert!(error.message.starts_with("the host name `no-such-host.invalid` cannot be resolved ("), "{error}");
    let error = opened(&|config| config.database = Some("no_such_database".into())).await;
    assert_eq!(error.kind, ErrorKind::Refused, "{error}");
    assert!(error.hint.is_some());
}

/// For servers: the session's connection is cut by an administrator while it is idle.
pub(in crate::conformance) async fn an_idle_session_that_was_cut_fails_before_anything_runs(bed: &Bed) {
    let mut session = bed.with_table().await;
    let id = session.server_id();
    bed.outside(&bed.pick(format!("SELECT pg_terminate_backend({id}, 5000)"), format!("KILL CONNECTION {id}"), String::new()));
    let error = unit(&mut session, marked("cut"), &["INSERT INTO t VALUES (1, 'a')"]).await.unwrap_err();
    assert!(matches!(&error, UnitError::NotBegun { error } if error.kind == ErrorKind::Lost), "{error:?}");
    assert!(!session.is_usable() && !session.is_alive());
    assert_eq!(bed.count("t"), 0);
    // One that lay idle behind its opening, and one behind its reset.
    for is_reset in [false, true] {
        let mut bare = bed.session().await;
        if is_reset {
            bare.reset().await.unwrap();
        }
        let id = bare.server_id();
        bed.outside(&bed.pick(
            format!("SELECT pg_terminate_backend({id}, 5000)"),
            format!("KILL CONNECTION {id}"),
            String::new(),
        ));
        let error = unit(&mut bare, Wrap::Bare, &["INSERT INTO t VALUES (2, 'b')"]).await.unwrap_err();
        assert!(matches!(&error, UnitError::NotBegun { error } if error.kind == ErrorKind::Lost), "reset: {is_reset}: {error:?}");
    }
    assert_eq!(bed.count("t"), 0);
}
