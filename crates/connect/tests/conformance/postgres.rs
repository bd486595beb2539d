//! PostgreSQL: the suite, and what only it has.

use super::bed::{Bed, Memory, Place, call, hides, key, marked, run, secret, unit, unit_with, value};
use super::suite::{self, conforms};
use backstop_connect::session::{Call, Wrap};
use backstop_connect::{ErrorKind, MarkerTable, Probe, Unit, UnitError, UnitOutcome, Value};
use backstop_testkit::servers::{Options, Postgres};
use std::process::Command;
use std::time::Duration;

conforms!(Bed::postgres);

macro_rules! on_servers {
    ($($name:ident),* $(,)?) => {
        $(
            #[tokio::test]
            async fn $name() {
                if let Some(bed) = Bed::postgres() {
                    suite::$name(&bed).await;
                }
            }
        )*
    };
}

on_servers!(
    a_deadlock_has_its_own_kind,
    failing_to_connect_says_what_is_to_blame,
    an_idle_session_that_was_cut_fails_before_anything_runs,
    a_script_that_moves_elsewhere_still_marks_at_home,
    what_was_left_behind_is_ended_by_its_name,
    a_branch_that_is_prepared_is_committed_by_another_session,
    a_branch_that_is_prepared_is_rolled_back_by_another_session,
    the_session_that_prepared_a_branch_may_end_it_and_go_on,
    a_branch_that_was_not_prepared_is_gone_with_its_session,
    a_fenced_branch_is_not_prepared,
    a_branch_that_lost_a_deadlock_is_not_prepared,
    what_others_prepared_is_shown_and_not_touched,
    a_branch_that_is_prepared_holds_its_key,
);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_prepared_outlives_a_power_cut() {
    let Some(server) = own(Options::default()) else { return };
    let bed = Bed::on_postgres(server);
    suite::what_is_prepared_outlives_a_power_cut(&bed, || server.stop_hard(), || server.restart().unwrap()).await;
}

/// A server of its own; the watchdog ends it with the process.
fn own(options: Options) -> Option<&'static Postgres> {
    Postgres::shared()?;
    Some(Box::leak(Box::new(Postgres::start_with(options).unwrap())))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_power_cut_before_the_answer_is_unknown_until_probed() {
    let Some(server) = own(Options::default()) else { return };
    let bed = Bed::on_postgres(server);
    suite::a_power_cut_before_the_answer_is_unknown_until_probed(&bed, || server.stop_hard(), || server.restart().unwrap()).await;
}

#[tokio::test]
async fn every_type_arrives_and_none_fails_the_statement() {
    let Some(bed) = Bed::postgres() else { return };
    let mut session = bed.session().await;
    run(&mut session, "CREATE TYPE mood AS ENUM ('sad', 'happy')").await.unwrap();
    run(&mut session, "CREATE DOMAIN positive AS int CHECK (VALUE > 0)").await.unwrap();
    run(&mut session, "SET TIME ZONE 'Europe/Paris'").await.unwrap();
    let read = run(
        &mut session,
        "SELECT true, 1::int2, 2::oid, 1.5::float4, 'NaN'::float8, 1e-20::numeric, 'n'::name, 'c'::\"char\", '\\x00ff'::bytea,
            date '2024-02-29', time '12:30', timestamp '2024-02-29 12:30:00.25', timestamptz '2024-02-29 12:30:00+00',
            interval '1 day 2 hours', '00000000-0000-0000-0000-000000000001'::uuid, '{\"a\": 1}'::jsonb, inet '10.0.0.1/8',
            B'101', 12.34::money::text IS NOT NULL, '<a/>'::xml, 'happy'::mood, 7::positive, ARRAY[1, NULL, 3], ARRAY['a b', '\"'],
            int4range(1, 5), ROW(1, 'x'), (SELECT relacl FROM pg_class WHERE relname = 'pg_class'), 'pg_class'::regclass",
    )
    .await
    .unwrap();
    let shown: Vec<_> =
        read.rows[0].iter().zip(&read.columns).map(|(value, column)| format!("{}: {value:?}", column.type_name)).collect();
    insta::assert_snapshot!(shown.join("\n"), @r#"
    bool: Bool(true)
    int2: Int(1)
    oid: Int(2)
    float4: Float(1.5)
    float8: Float(NaN)
    numeric: Decimal("0.00000000000000000001")
    name: Text("n")
    char: Text("c")
    bytea: Bytes([0, 255])
    date: Text("2024-02-29")
    time: Text("12:30:00")
    timestamp: Text("2024-02-29T12:30:00.25")
    timestamptz: Text("2024-02-29T13:30:00+01:00")
    interval: Text("1 day 02:00:00")
    uuid: Text("00000000-0000-0000-0000-000000000001")
    jsonb: Json("{\"a\": 1}")
    inet: Text("10.0.0.1/8")
    bit: Text("101")
    bool: Bool(true)
    xml: Text("<a/>")
    : Text("happy")
    int4: Int(7)
    _int4: Text("{1,NULL,3}")
    _text: Text("{\"a b\",\"\\\"\"}")
    int4range: Text("[1,5)")
    record: Text("(1,x)")
    _aclitem: Text("{postgres=arwdDxt/postgres,=r/postgres}")
    regclass: Text("pg_class")
    "#);
}

#[tokio::test]
async fn copy_goes_in_and_out_and_its_errors_roll_back() {
    let Some(bed) = Bed::postgres() else { return };
    let mut session = bed.with_table().await;
    let data: String = (0..50_000).map(|id| format!("{id}\tvalue {id} é\n")).collect();
    let copy = Call { sql: "COPY t FROM STDIN", parameters: &[], copy_data: Some(&data) };
    let calls = [call("DELETE FROM t"), copy, call("UPDATE t SET v = 'x' WHERE id = 0")];
    let mut memory = Memory::default();
    session
        .run_unit(&Unit { calls: &calls, begin: None, wrap: marked("copies"), keeps_result: false }, &mut memory)
        .await
        .unwrap();
    assert_eq!(memory.finished, [(0, Some(0), 0), (1, Some(50_000), 0), (2, Some(1), 0)]);
    assert_eq!((bed.count("t"), bed.count("backstop_marker")), (50_000, 1));
    let out = run(&mut session, "COPY (SELECT * FROM t WHERE id < 2 ORDER BY id) TO STDOUT").await.unwrap();
    assert_eq!(out.rows, [[Value::Text("0\tx".into())], [Value::Text("1\tvalue 1 é".into())]]);
    let bad = Call { sql: "COPY t FROM STDIN", parameters: &[], copy_data: Some("not a number\tx\n") };
    let calls = [call("DELETE FROM t"), bad];
    let error = session
        .run_unit(&Unit { calls: &calls, begin: None, wrap: marked("bad"), keeps_result: false }, &mut memory)
        .await
        .unwrap_err();
    assert!(
        matches!(&error, UnitError::RolledBack { place: Some(1), error } if error.sqlstate.as_deref() == Some("22P02")),
        "{error:?}"
    );
    // Without its data, and where the statement fails before it asks for any.
    for (sql, sqlstate) in [("COPY t FROM STDIN", "57014"), ("COPY missing FROM STDIN", "42P01")] {
        let error = unit(&mut session, marked("none"), &["DELETE FROM t", sql, "SELECT 1"]).await.unwrap_err();
        assert!(
            matches!(&error, UnitError::RolledBack { place: Some(1), error } if error.sqlstate.as_deref() == Some(sqlstate)),
            "{error:?}"
        );
    }
    assert_eq!(bed.count("t"), 50_000);
    assert_eq!(value(&mut session, "SELECT 1").await, Value::Int(1));
}

#[tokio::test]
async fn notices_come_in_order_with_their_statement() {
    let Some(bed) = Bed::postgres() else { return };
    let mut session = bed.session().await;
    let mut memory = Memory::default();
    let say = |text: &str| format!("DO $$ BEGIN RAISE NOTICE '{text}'; END $$");
    unit_with(&mut session, Wrap::Unmarked, &[&say("one"), "SET work_mem = '8MB'", &say("two")], None, &mut memory)
        .await
        .unwrap();
    assert_eq!(memory.notices, [(0, "NOTICE: one".to_owned()), (2, "NOTICE: two".to_owned())]);
}

#[tokio::test]
async fn a_constraint_that_is_checked_at_the_commit_rolls_back() {
    let Some(bed) = Bed::postgres() else { return };
    let mut session = bed.session().await;
    run(&mut session, "CREATE TABLE d (id int, UNIQUE (id) DEFERRABLE INITIALLY DEFERRED)").await.unwrap();
    let error = unit(&mut session, marked("late"), &["INSERT INTO d VALUES (1)", "INSERT INTO d VALUES (1)"]).await.unwrap_err();
    assert!(matches!(&error, UnitError::RolledBack { place: None, error } if error.kind == ErrorKind::Constraint), "{error:?}");
    // Outside a transaction the commit comes with the Sync, after the statement's own answer.
    let error = run(&mut session, "INSERT INTO d VALUES (2), (2)").await.err().unwrap();
    assert_eq!(error.kind, ErrorKind::Constraint);
    assert_eq!((bed.count("d"), bed.count("backstop_marker")), (0, 0));
}

#[tokio::test]
async fn a_missing_right_gives_the_statement_for_a_dba_and_it_works() {
    let Some(bed) = Bed::postgres() else { return };
    drop(bed.with_table().await);
    let role = format!("limited_{}", bed.config.database.as_deref().unwrap());
    bed.outside(&format!("CREATE ROLE {role} LOGIN"));
    bed.outside(&format!("GRANT ALL ON t TO {role}"));
    let mut session = bed.changed(|config| config.login = Some(role.clone())).open().await.unwrap();
    let insert = ["INSERT INTO t VALUES (1, 'a')"];
    let error = unit(&mut session, marked("limited"), &insert).await.unwrap_err();
    let UnitError::NoMarkerTable { ddl, error } = error else { panic!("{error:?}") };
    assert_eq!((error.kind, bed.count("t")), (ErrorKind::Permission, 0));
    bed.outside(&ddl);
    assert_eq!(unit(&mut session, marked("limited"), &insert).await.unwrap(), UnitOutcome::Done);
    assert_eq!((bed.count("t"), bed.count("backstop_marker")), (1, 1));
}

#[tokio::test]
async fn a_marker_table_that_was_dropped_is_made_again() {
    let Some(bed) = Bed::postgres() else { return };
    let mut session = bed.with_table().await;
    unit(&mut session, marked("before"), &["INSERT INTO t VALUES (1, 'a')"]).await.unwrap();
    bed.outside("DROP TABLE backstop_marker");
    unit(&mut session, marked("after"), &["INSERT INTO t VALUES (2, 'a')"]).await.unwrap();
    assert_eq!((bed.count("t"), bed.count("backstop_marker")), (2, 1));
    let table = MarkerTable { schema: Some("bookkeeping".into()), name: "Marks \"of\" ours".into() };
    let wrap = Wrap::Marked { table: table.clone(), key: key("there"), digest: "d1".into(), check_first: false };
    unit(&mut session, wrap, &["INSERT INTO t VALUES (3, 'a')"]).await.unwrap();
    assert_eq!(bed.outside("SELECT task FROM bookkeeping.\"Marks \"\"of\"\" ours\""), "there");
    assert!(matches!(session.probe(&table, &key("there"), Duration::from_secs(1)).await.unwrap(), Probe::Committed(_)));
}

#[tokio::test]
async fn scram_takes_the_right_password_alone() {
    let Some(server) = own(Options { password: Some("hunter2-secret".into()), ..Options::default() }) else { return };
    let bed = Bed::on_postgres(server);
    let with = |password| bed.changed(|config| config.password = password);
    let mut session = with(secret("hunter2-secret")).open().await.unwrap();
    assert_eq!(value(&mut session, "SELECT 1").await, Value::Int(1));
    let error = with(secret("wrong-secret")).open().await.err().unwrap();
    assert_eq!((error.kind, error.sqlstate.as_deref()), (ErrorKind::Refused, Some("28P01")));
    assert!(error.hint.as_deref().is_some_and(|hint| hint.contains("password")), "{error:?}");
    hides(&error, "wrong-secret");
    let error = with(None).open().await.err().unwrap();
    assert_eq!(error.kind, ErrorKind::Refused);
    let mut config = bed.config.clone();
    config.password = secret("hunter2-secret");
    assert!(!format!("{config:?}").contains("hunter2-secret"));
}

#[tokio::test]
async fn a_unix_socket_serves_as_host() {
    let Some(bed) = Bed::postgres() else { return };
    let Place::Postgres(server) = bed.place else { return };
    let connector = bed.changed(|config| config.host = Some(server.socket_folder().display().to_string()));
    let mut session = connector.open().await.unwrap();
    assert_eq!(value(&mut session, "SELECT inet_server_addr() IS NULL").await, Value::Bool(true));
}

/// A certificate authority and a server certificate for `localhost`, by the openssl command.
pub(super) fn certificates(folder: &std::path::Path) {
    let script = "
        openssl req -x509 -newkey rsa:2048 -nodes -days 2 -keyout ca.key -out ca.crt -subj '/CN=Test CA' &&
        openssl req -newkey rsa:2048 -nodes -keyout server.key -out server.csr -subj '/CN=localhost' &&
        printf 'subjectAltName=DNS:localhost\nbasicConstraints=CA:FALSE\n' > server.ext &&
        openssl x509 -req -in server.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -out server.crt -extfile server.ext";
    let output = Command::new("sh").args(["-c", script]).current_dir(folder).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_is_verified_as_far_as_the_mode_says() {
    if Postgres::shared().is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    certificates(folder.path());
    let file = |name: &str| (name.to_owned(), std::fs::read(folder.path().join(name)).unwrap());
    let setting = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let settings = vec![setting("ssl", "on"), setting("ssl_cert_file", "@/server.crt"), setting("ssl_key_file", "@/server.key")];
    let Some(server) = own(Options { files: vec![file("server.crt"), file("server.key")], settings, ..Options::default() })
    else {
        return;
    };
    let bed = Bed::on_postgres(server);
    let with = |host: &str, mode: &str, root: bool| {
        bed.changed(|config| {
            config.host = Some(host.to_owned());
            config.base_dir = folder.path().to_owned();
            config.extra.insert("sslmode".into(), mode.into());
            if root {
                config.extra.insert("sslrootcert".into(), "ca.crt".into());
            }
        })
    };
    let encrypted = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
    let good = [
        ("localhost", "verify-full", true),
        ("127.0.0.1", "verify-ca", true),
        ("127.0.0.1", "require", true),
        ("127.0.0.1", "require", false),
        ("127.0.0.1", "prefer", false),
    ];
    for (host, mode, root) in good {
        let mut session = with(host, mode, root).open().await.unwrap();
        assert_eq!(value(&mut session, encrypted).await, Value::Bool(true), "{host} {mode} {root}");
    }
    let mut session = with("localhost", "disable", false).open().await.unwrap();
    assert_eq!(value(&mut session, encrypted).await, Value::Bool(false));
    for (host, mode, root) in
        [("localhost", "verify-full", false), ("127.0.0.1", "verify-full", true), ("localhost", "verify-ca", false)]
    {
        let error = with(host, mode, root).open().await.err().unwrap();
        assert!(matches!(error.kind, ErrorKind::Unreachable | ErrorKind::Config), "{error}");
        assert!(error.hint.as_deref().is_some_and(|hint| hint.contains("sslrootcert")), "{error:?}");
    }
    // Large rows and a cancel go through TLS as well.
    let mut session = with("localhost", "verify-full", true).open().await.unwrap();
    let mut memory = Memory { rows_max: Some(2), ..Memory::default() };
    let rows = call("SELECT repeat('x', 100000) FROM generate_series(1, 1000000)");
    assert_eq!(session.execute(&rows, 0, &mut memory).await.unwrap_err().kind, ErrorKind::Stopped);
    // A server without TLS says so.
    let Some(plain) = Bed::postgres() else { return };
    let error = plain.changed(|config| drop(config.extra.insert("sslmode".into(), "require".into()))).open().await.err().unwrap();
    assert!(error.message.contains("does not offer TLS"), "{error}");
}

#[tokio::test]
async fn statements_that_refuse_a_transaction_run_bare() {
    let Some(bed) = Bed::postgres() else { return };
    let mut session = bed.with_table().await;
    session.reset().await.unwrap();
    assert_eq!(
        unit(&mut session, Wrap::Bare, &["VACUUM t", "CREATE INDEX CONCURRENTLY i ON t (v)"]).await.unwrap(),
        UnitOutcome::Done
    );
    let error = unit(&mut session, marked("vacuum"), &["VACUUM t"]).await.unwrap_err();
    assert!(matches!(error, UnitError::RolledBack { place: Some(0), .. }), "{error:?}");
}

#[tokio::test]
async fn a_long_unit_is_sent_in_groups_and_still_commits_as_one() {
    let Some(bed) = Bed::postgres() else { return };
    let mut session = bed.with_table().await;
    let statements: Vec<_> = (0..1000).map(|id| format!("INSERT INTO t VALUES ({id}, 'x')")).collect();
    let mut statements: Vec<_> = statements.iter().map(String::as_str).collect();
    unit(&mut session, marked("long"), &statements).await.unwrap();
    assert_eq!(bed.count("t"), 1000);
    statements[999] = "INSERT INTO t VALUES (-1, 'x'), (5, 'dup')";
    let error =
        unit(&mut session, marked("long-2"), &[&["DELETE FROM t WHERE id <> 5"], &statements[999..]].concat()).await.unwrap_err();
    assert!(matches!(error, UnitError::RolledBack { place: Some(1), .. }), "{error:?}");
    assert_eq!(bed.count("t"), 1000);
}

/// Everything a unit may leave in its session is gone in the next one, though the reset goes out with it.
#[tokio::test]
async fn a_reset_that_is_put_off_comes_before_the_next_unit() {
    let Some(bed) = Bed::postgres() else { return };
    let mut session = bed.with_table().await;
    let other = bed.session().await;
    // The first use of the marker table asks for it, which pays the reset at once; from the second on it goes out with the unit.
    unit(&mut session, marked("first"), &["INSERT INTO t VALUES (0, 'x')"]).await.unwrap();
    for turn in 1..=2 {
        let leaves = [
            "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY",
            "SET statement_timeout = '77s'",
            "SET search_path = pg_catalog",
        ];
        for sql in leaves {
            run(&mut session, sql).await.unwrap();
        }
        assert_eq!(value(&mut session, "SELECT 1 FROM pg_advisory_lock(7)").await, Value::Int(1));
        assert!(session.reset_with_next());
        let insert = format!("INSERT INTO t VALUES ({turn}, current_setting('statement_timeout'))");
        unit(&mut session, marked(&format!("turn-{turn}")), &[&insert]).await.unwrap();
        assert_eq!(bed.count(&format!("t WHERE id = {turn} AND v = '0'")), 1);
        let mut other = bed.session().await;
        assert_eq!(value(&mut other, "SELECT pg_try_advisory_lock(7)").await, Value::Bool(true));
    }
    drop(other);
    // Whatever comes next pays it: a statement, a probe, or a reset.
    run(&mut session, "CREATE TEMPORARY TABLE scratch (a int)").await.unwrap();
    assert!(session.reset_with_next());
    assert_eq!(run(&mut session, "SELECT * FROM scratch").await.err().unwrap().kind, ErrorKind::Syntax);
    run(&mut session, "SET search_path = nowhere").await.unwrap();
    assert!(session.reset_with_next());
    let probe = session.probe(&MarkerTable::default(), &key("turn-1"), Duration::from_secs(1)).await.unwrap();
    assert!(matches!(probe, Probe::Committed(_)), "{probe:?}");
    run(&mut session, "SET statement_timeout = '77s'").await.unwrap();
    assert!(session.reset_with_next());
    session.reset().await.unwrap();
    assert!(!session.reset_with_next(), "one that is on its way already is not put off again");
    assert_eq!(value(&mut session, "SELECT current_setting('statement_timeout')").await, Value::Text("0".into()));
    // Not in the middle of a transaction: that has to be rolled back.
    session.begin(None).await.unwrap();
    assert!(!session.reset_with_next());
    session.reset().await.unwrap();
}

/// A session that was cut while a reset is owed: the unit behind it has not run, and says so.
#[tokio::test]
async fn a_unit_behind_a_reset_that_fails_has_no_effect() {
    let Some(bed) = Bed::postgres() else { return };
    let mut session = bed.with_table().await;
    unit(&mut session, marked("first"), &["INSERT INTO t VALUES (0, 'x')"]).await.unwrap();
    assert!(session.reset_with_next());
    let mut other = bed.session().await;
    let cut = format!("SELECT pg_terminate_backend({}, 10000)", session.server_id());
    assert_eq!(value(&mut other, &cut).await, Value::Bool(true));
    let error = unit(&mut session, marked("second"), &["INSERT INTO t VALUES (1, 'x')"]).await.unwrap_err();
    assert!(matches!(error, UnitError::NotBegun { .. }), "{error:?}");
    assert!(!session.is_usable());
    assert_eq!(bed.count("t"), 1);
}

#[tokio::test]
async fn a_unit_shows_on_whose_behalf_it_works() {
    let Some(bed) = Bed::postgres() else { return };
    let read = "SELECT current_setting('application_name')";
    let mut session = bed.session().await;
    session.introduce("backstop load[3] run-7 it's \\ é");
    let shown = async |session: &mut Box<dyn backstop_connect::Session>, wrap: Wrap, begin: Option<&str>| {
        let mut memory = Memory::default();
        unit_with(session, wrap, &[read], begin, &mut memory).await.unwrap();
        memory.rows[0][0].clone()
    };
    let expected = Value::Text("backstop load[3] run-7 its  ".into());
    assert_eq!(shown(&mut session, Wrap::ReadOnly, None).await, expected);
    assert_eq!(shown(&mut session, Wrap::ReadOnly, Some("BEGIN ISOLATION LEVEL SERIALIZABLE")).await, expected);
    assert_eq!(shown(&mut session, marked("named"), None).await, expected);
    assert_eq!(value(&mut session, read).await, Value::Text("backstop".into()), "it was for the transaction alone");
    assert_eq!(shown(&mut session, Wrap::Bare, None).await, expected);
    assert!(session.reset_with_next());
    assert_eq!(value(&mut session, read).await, Value::Text("backstop".into()));
    let connector = bed.changed(|config| drop(config.extra.insert("application_name".into(), "nightly".into())));
    let mut session = connector.open().await.unwrap();
    session.introduce("backstop load");
    assert_eq!(shown(&mut session, Wrap::ReadOnly, None).await, Value::Text("nightly".into()), "the author's name stays");
}

#[tokio::test]
async fn the_progress_of_a_copy_is_seen() {
    let Some(bed) = Bed::postgres() else { return };
    let mut session = bed.session().await;
    let (id, canceller) = (session.server_id(), session.canceller());
    let copying = tokio::spawn(async move {
        run(&mut session, "COPY (SELECT i, pg_sleep(0.01) FROM generate_series(1, 100000) i) TO STDOUT").await.err().unwrap().kind
    });
    let mut lookout = bed.connector.lookout().await.unwrap().unwrap();
    let seen = suite::look_until(&mut lookout, &id, |sighting| sighting.rows.is_some_and(|rows| rows > 3)).await;
    let progress = seen.progress.unwrap();
    assert_eq!((progress.phase.as_str(), progress.unit), ("COPY: COPY TO", "bytes"));
    assert!(progress.done > 0);
    assert_eq!(seen.state.as_deref(), Some("active"));
    canceller.cancel().await.unwrap();
    assert_eq!(copying.await.unwrap(), ErrorKind::Cancelled);
}

#[tokio::test]
async fn a_lookout_with_few_rights_says_which_is_missing() {
    let Some(bed) = Bed::postgres() else { return };
    let mut blocker = bed.with_table().await;
    run(&mut blocker, "INSERT INTO t VALUES (1, 'a')").await.unwrap();
    let role = format!("plain_{}", bed.config.database.as_deref().unwrap());
    run(&mut blocker, &format!("CREATE ROLE \"{role}\" LOGIN")).await.unwrap();
    run(&mut blocker, &format!("GRANT SELECT, UPDATE ON t TO \"{role}\"")).await.unwrap();
    blocker.begin(None).await.unwrap();
    run(&mut blocker, "UPDATE t SET v = 'hunter2'").await.unwrap();
    let plain = bed.changed(|config| config.login = Some(role.clone()));
    let mut blocked = plain.open().await.unwrap();
    let id = blocked.server_id();
    let waiting = tokio::spawn(async move { run(&mut blocked, "UPDATE t SET v = 'b'").await.map(|_| ()) });
    let mut lookout = plain.lookout().await.unwrap().unwrap();
    let view = loop {
        let view = lookout.look(std::slice::from_ref(&id)).await.unwrap();
        if view.sightings.iter().any(|sighting| !sighting.blocked_by.is_empty()) {
            break view;
        }
    };
    let by = &view.sightings[0].blocked_by[0];
    assert_eq!((by.session.as_deref(), by.user.as_deref()), (Some(&*blocker.server_id()), Some("postgres")));
    assert_eq!((&by.statement, &by.state), (&None, &None));
    assert_eq!(view.limits.len(), 1);
    assert!(view.limits[0].ends_with(&format!("GRANT pg_read_all_stats TO \"{role}\"")), "{:?}", view.limits);
    blocker.rollback().await.unwrap();
    waiting.await.unwrap().unwrap();
}

/// The statement of a process that was killed ends on the server, though the server has nothing to say to it.
#[tokio::test]
async fn a_statement_ends_when_its_client_is_gone() {
    let Some(bed) = Bed::postgres() else { return };
    let mut session = bed.session().await;
    assert_eq!(value(&mut session, "SHOW client_connection_check_interval").await, Value::Text("2s".into()));
    session.reset().await.unwrap();
    assert_eq!(value(&mut session, "SHOW client_connection_check_interval").await, Value::Text("2s".into()));
    let connector = bed.changed(|config| drop(config.extra.insert("client_connection_check_interval".into(), "100ms".into())));
    let mut session = connector.open().await.unwrap();
    let id = session.server_id();
    let (signal, mut started) = tokio::sync::mpsc::unbounded_channel();
    let running = tokio::spawn(async move {
        let mut memory = Memory { signal: Some(signal), ..Memory::default() };
        let _ = session.execute(&call("SELECT pg_sleep(600)"), 0, &mut memory).await;
    });
    started.recv().await.unwrap();
    // As a kill does: the socket is closed, and nothing is said.
    running.abort();
    let left = format!("SELECT count(*) FROM pg_stat_activity WHERE pid = {id}");
    while bed.outside(&left) != "0" {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_server_that_prepares_nothing_says_what_to_set() {
    let Some(server) = own(Options { settings: vec![("max_prepared_transactions".into(), "0".into())], ..Options::default() })
    else {
        return;
    };
    let bed = Bed::on_postgres(server);
    let fault = bed.session().await.two_phase_fault().await.unwrap().unwrap();
    assert!(fault.message.contains("max_prepared_transactions is 0"), "{fault}");
    assert!(fault.hint.is_some_and(|hint| hint.contains("postgresql.conf") && hint.contains("restart")));
}

#[tokio::test]
async fn what_cannot_be_prepared_is_rolled_back() {
    let Some(bed) = Bed::postgres() else { return };
    suite::what_cannot_be_prepared_is_rolled_back(&bed, "CREATE TEMPORARY TABLE x (a int)").await;
}
