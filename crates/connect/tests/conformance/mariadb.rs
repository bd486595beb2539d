//! MariaDB: the suite, and what only it has.

use super::bed::{Bed, Memory, hides, marked, run, secret, unit, unit_with, value};
use super::suite::{self, conforms};
use backstop_connect::session::Wrap;
use backstop_connect::{ErrorKind, UnitError, UnitOutcome, Value};
use backstop_testkit::servers::{MariaDb, Options};

conforms!(Bed::mariadb);

macro_rules! on_servers {
    ($($name:ident),* $(,)?) => {
        $(
            #[tokio::test]
            async fn $name() {
                if let Some(bed) = Bed::mariadb() {
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
    let bed = Bed::on_mariadb(server);
    suite::what_is_prepared_outlives_a_power_cut(&bed, || server.stop_hard(), || server.restart().unwrap()).await;
}

/// A server of its own; the watchdog ends it with the process.
fn own(options: Options) -> Option<&'static MariaDb> {
    MariaDb::shared()?;
    Some(Box::leak(Box::new(MariaDb::start_with(options).unwrap())))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_power_cut_before_the_answer_is_unknown_until_probed() {
    let Some(server) = own(Options::default()) else { return };
    let bed = Bed::on_mariadb(server);
    suite::a_power_cut_before_the_answer_is_unknown_until_probed(&bed, || server.stop_hard(), || server.restart().unwrap()).await;
}

#[tokio::test]
async fn types_read_alike_in_both_protocols() {
    let Some(bed) = Bed::mariadb() else { return };
    let mut session = bed.session().await;
    run(
        &mut session,
        "CREATE TABLE k (a tinyint, b bigint unsigned, c float, d double, e decimal(20,5), f date, g datetime, h datetime(3), i time(2),
            j timestamp(6) NULL, k year, l bit(12), m json, n enum('x', 'y'), o set('p', 'q'), p char(3), q varbinary(4), r longtext, s blob)",
    )
    .await
    .unwrap();
    let insert = "INSERT INTO k VALUES (-1, 18446744073709551615, 1.1, 0.1, 12.5, '2024-02-29', '2024-02-29 12:30:00',
        '2024-02-29 12:30:00.25', '-30:00:01.5', '2024-02-29 12:30:00.123456', 2024, b'101000000001', '{\"a\": 1}', 'y', 'p,q', 'é',
        x'00ff', 'long', 'bytes')";
    run(&mut session, insert).await.unwrap();
    let text = run(&mut session, "SELECT * FROM k").await.unwrap();
    let binary =
        super::bed::run_with(&mut session, "SELECT * FROM k WHERE a < ?", &[backstop_connect::Value::Int(0)]).await.unwrap();
    assert_eq!(text.rows, binary.rows);
    let shown: Vec<_> =
        text.rows[0].iter().zip(&text.columns).map(|(value, column)| format!("{}: {value:?}", column.type_name)).collect();
    insta::assert_snapshot!(shown.join("\n"), @r#"
    tinyint: Int(-1)
    bigint: UInt(18446744073709551615)
    float: Float(1.1)
    double: Float(0.1)
    decimal: Decimal("12.50000")
    date: Text("2024-02-29")
    datetime: Text("2024-02-29T12:30:00")
    datetime: Text("2024-02-29T12:30:00.250")
    time: Text("-30:00:01.50")
    timestamp: Text("2024-02-29T12:30:00.123456")
    year: Int(2024)
    bit: Int(2561)
    text: Text("{\"a\": 1}")
    enum: Text("y")
    set: Text("p,q")
    char: Text("é")
    varbinary: Bytes([0, 255])
    text: Text("long")
    blob: Bytes([98, 121, 116, 101, 115])
    "#);
}

#[tokio::test]
async fn a_statement_that_commits_by_itself_is_noticed() {
    let Some(bed) = Bed::mariadb() else { return };
    let mut session = bed.with_table().await;
    let error = unit(
        &mut session,
        marked("ddl"),
        &["INSERT INTO t VALUES (1, 'a')", "CREATE TABLE u (a int)", "INSERT INTO t VALUES (2, 'b')"],
    );
    let error = error.await.unwrap_err();
    assert!(
        matches!(&error, UnitError::Partial { place: 2, error } if error.message.contains("committed by itself")),
        "{error:?}"
    );
    assert_eq!(bed.count("t"), 1);
}

#[tokio::test]
async fn warnings_are_told() {
    let Some(bed) = Bed::mariadb() else { return };
    let mut session = bed.with_table().await;
    let mut memory = Memory::default();
    let statements =
        ["INSERT IGNORE INTO t VALUES (1, repeat('x', 300))", "SELECT 1", "DROP TEMPORARY TABLE IF EXISTS nothing_here"];
    unit_with(&mut session, Wrap::Unmarked, &statements, None, &mut memory).await.unwrap();
    assert_eq!(memory.notices.iter().map(|(place, _)| *place).collect::<Vec<_>>(), [0, 2], "{:?}", memory.notices);
    assert!(memory.notices[0].1.starts_with("Warning 1265: Data truncated"), "{:?}", memory.notices);
}

#[tokio::test]
async fn load_data_local_reads_below_the_project_alone() {
    let Some(bed) = Bed::mariadb() else { return };
    drop(bed.with_table().await);
    let folder = tempfile::tempdir().unwrap();
    let project = folder.path().join("project");
    std::fs::create_dir(&project).unwrap();
    std::fs::write(project.join("rows.csv"), "1,one\n2,two\n").unwrap();
    std::fs::write(folder.path().join("outside.csv"), "3,three\n").unwrap();
    let connector = |allowed: bool| {
        bed.changed(|config| {
            config.base_dir = project.clone();
            config.extra.insert("local_infile".into(), allowed.to_string());
        })
    };
    let load = |file: &str| format!("LOAD DATA LOCAL INFILE '{file}' INTO TABLE t FIELDS TERMINATED BY ','");
    let mut session = connector(true).open().await.unwrap();
    unit(&mut session, marked("loads"), &[&load("rows.csv")]).await.unwrap();
    assert_eq!(bed.count("t"), 2);
    for file in ["../outside.csv", "missing.csv", folder.path().join("outside.csv").to_str().unwrap()] {
        // The driver gives up the link when it may not answer the server's wish.
        let mut session = connector(true).open().await.unwrap();
        let error = unit(&mut session, marked(file), &[&load(file)]).await.unwrap_err();
        assert!(matches!(&error, UnitError::RolledBack { place: Some(0), .. }), "{error:?}");
    }
    let mut forbidden = connector(false).open().await.unwrap();
    let error = unit(&mut forbidden, marked("forbidden"), &[&load("rows.csv")]).await.unwrap_err();
    assert!(matches!(&error, UnitError::RolledBack { error, .. } if error.kind == ErrorKind::Permission), "{error:?}");
    assert_eq!(bed.count("t"), 2);
}

#[tokio::test]
async fn a_wrong_password_is_refused_and_never_shown() {
    let Some(server) = own(Options { password: Some("hunter2-secret".into()), ..Options::default() }) else { return };
    let bed = Bed::on_mariadb(server);
    let with = |password| bed.changed(|config| config.password = password);
    assert!(with(secret("hunter2-secret")).open().await.is_ok());
    let error = with(secret("wrong-secret")).open().await.err().unwrap();
    assert_eq!((error.kind, error.native_code.as_deref()), (ErrorKind::Refused, Some("1045")));
    hides(&error, "wrong-secret");
}

#[tokio::test]
async fn a_missing_right_gives_the_statement_for_a_dba_and_it_works() {
    let Some(bed) = Bed::mariadb() else { return };
    drop(bed.with_table().await);
    let database = bed.config.database.clone().unwrap();
    let user = format!("limited_{database}");
    bed.outside(&format!("CREATE USER '{user}'@'%'"));
    bed.outside(&format!("GRANT SELECT, INSERT ON {database}.t TO '{user}'@'%'"));
    let mut session = bed.changed(|config| config.login = Some(user)).open().await.unwrap();
    let insert = ["INSERT INTO t VALUES (1, 'a')"];
    let error = unit(&mut session, marked("limited"), &insert).await.unwrap_err();
    let UnitError::NoMarkerTable { ddl, error } = error else { panic!("{error:?}") };
    assert_eq!((error.kind, bed.count("t")), (ErrorKind::Permission, 0));
    bed.outside(&ddl);
    assert_eq!(unit(&mut session, marked("limited"), &insert).await.unwrap(), UnitOutcome::Done);
    assert_eq!((bed.count("t"), bed.count("backstop_marker")), (1, 1));
}

#[tokio::test]
async fn what_answers_otherwise_is_told_apart() {
    let Some(bed) = Bed::mariadb() else { return };
    let answering = async |answer: &'static [u8]| {
        let socket = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = socket.local_addr().unwrap().port();
        tokio::spawn(async move {
            let (mut peer, _) = socket.accept().await.unwrap();
            tokio::io::AsyncWriteExt::write_all(&mut peer, answer).await.unwrap();
        });
        let error = bed.changed(|config| config.port = Some(port)).open().await.err().unwrap();
        assert_eq!(error.kind, ErrorKind::Unreachable, "{error:?}");
        error.message.replace(&port.to_string(), "PORT")
    };
    insta::assert_snapshot!(answering(b"").await, @"the server at 127.0.0.1 port PORT closed the connection at once");
    insta::assert_snapshot!(answering(b"\x04\x00\x00\x00SSH-").await, @"what answers at 127.0.0.1 port PORT is neither MySQL nor MariaDB");
    let error = bed.changed(|config| drop(config.extra.insert("ssl_mode".into(), "required".into()))).open().await.err().unwrap();
    insta::assert_snapshot!(error.message.replace(&bed.config.port.unwrap().to_string(), "PORT"), @"the server at 127.0.0.1 port PORT does not offer TLS, and `ssl_mode` demands it");
    insta::assert_snapshot!(error.hint.unwrap(), @"turn TLS on in the server's configuration, or lower `ssl_mode`");
    let socket = bed.changed(|config| drop(config.extra.insert("unix_socket".into(), "/no/such/socket".into())));
    insta::assert_snapshot!(socket.open().await.err().unwrap().message, @"nothing listens at the socket /no/such/socket");
}

#[tokio::test]
async fn an_error_of_a_statement_is_told_once() {
    let Some(bed) = Bed::mariadb() else { return };
    let mut session = bed.with_table().await;
    let error = run(&mut session, "SELECT * FROM gone").await.err().unwrap();
    let database = bed.config.database.as_deref().unwrap();
    assert_eq!(error.message, format!("Table '{database}.gone' doesn't exist"));
    assert!(std::error::Error::source(&error).is_none(), "{error:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_is_verified_as_far_as_the_mode_says() {
    if MariaDb::shared().is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    super::postgres::certificates(folder.path());
    let file = |name: &str| (name.to_owned(), std::fs::read(folder.path().join(name)).unwrap());
    let setting = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let settings = vec![setting("ssl-cert", "@/server.crt"), setting("ssl-key", "@/server.key")];
    let options = Options { files: vec![file("server.crt"), file("server.key")], settings, ..Options::default() };
    let Some(server) = own(options) else { return };
    let bed = Bed::on_mariadb(server);
    let with = |host: &str, mode: &str, root: bool| {
        bed.changed(|config| {
            config.host = Some(host.to_owned());
            config.base_dir = folder.path().to_owned();
            config.extra.insert("ssl_mode".into(), mode.into());
            if root {
                config.extra.insert("ssl_ca".into(), "ca.crt".into());
            }
        })
    };
    let cipher = "SELECT variable_value <> '' FROM information_schema.session_status WHERE variable_name = 'Ssl_cipher'";
    let good = [
        ("localhost", "verify_identity", true),
        ("localhost", "verify_ca", true),
        ("127.0.0.1", "required", false),
        ("127.0.0.1", "preferred", false),
    ];
    for (host, mode, root) in good {
        let mut session = with(host, mode, root).open().await.unwrap();
        assert_eq!(value(&mut session, cipher).await, Value::Int(1), "{host} {mode} {root}");
    }
    let mut session = with("localhost", "disabled", false).open().await.unwrap();
    assert_eq!(value(&mut session, cipher).await, Value::Int(0));
    for (host, mode, root) in
        // The driver checks the name by `verify_ca` too: stricter than MySQL's own client, never laxer.
        [
            ("localhost", "verify_identity", false),
            ("127.0.0.1", "verify_identity", true),
            ("127.0.0.1", "verify_ca", true),
            ("localhost", "verify_ca", false),
        ]
    {
        let error = with(host, mode, root).open().await.err().unwrap();
        assert_eq!(error.kind, ErrorKind::Unreachable, "{error}");
        assert!(error.hint.as_deref().is_some_and(|hint| hint.contains("ssl_ca")), "{error:?}");
    }
}

#[tokio::test]
async fn a_lookout_with_few_rights_says_which_is_missing() {
    let Some(bed) = Bed::mariadb() else { return };
    let mut root = bed.with_table().await;
    let user = format!("plain_{}", bed.config.database.as_deref().unwrap());
    run(&mut root, &format!("CREATE USER '{user}'@'%'")).await.unwrap();
    run(&mut root, &format!("GRANT ALL ON `{}`.* TO '{user}'@'%'", bed.config.database.as_deref().unwrap())).await.unwrap();
    let plain = bed.changed(|config| config.login = Some(user.clone()));
    let session = plain.open().await.unwrap();
    let mut lookout = plain.lookout().await.unwrap().unwrap();
    let view = lookout.look(&[session.server_id()]).await.unwrap();
    assert_eq!(view.sightings.len(), 1, "its own sessions are seen");
    assert_eq!(view.limits.len(), 1);
    assert!(view.limits[0].ends_with(&format!("GRANT PROCESS ON *.* TO '{user}'@'%'")), "{:?}", view.limits);
}

#[tokio::test]
async fn the_rows_of_an_open_transaction_are_seen() {
    let Some(bed) = Bed::mariadb() else { return };
    let mut session = bed.with_table().await;
    let id = session.server_id();
    session.begin(None).await.unwrap();
    run(&mut session, "INSERT INTO t VALUES (1, 'a'), (2, 'b'), (3, 'c')").await.unwrap();
    let mut lookout = bed.connector.lookout().await.unwrap().unwrap();
    suite::look_until(&mut lookout, &id, |sighting| sighting.rows == Some(3)).await;
    session.rollback().await.unwrap();
}

#[tokio::test]
async fn a_server_whose_tables_have_no_transactions_says_what_to_set() {
    let Some(server) = own(Options { settings: vec![("default_storage_engine".into(), "MyISAM".into())], ..Options::default() })
    else {
        return;
    };
    let bed = Bed::on_mariadb(server);
    let fault = bed.session().await.two_phase_fault().await.unwrap().unwrap();
    assert!(fault.message.contains("MyISAM"), "{fault}");
    assert!(fault.hint.is_some_and(|hint| hint.contains("default_storage_engine")));
}

/// It stays with the session that prepared it, until that is gone.
#[tokio::test]
async fn a_branch_whose_session_lives_is_busy_elsewhere() {
    let Some(bed) = Bed::mariadb() else { return };
    suite::a_branch_whose_session_lives_is_busy_elsewhere(&bed).await;
}

#[tokio::test]
async fn a_branch_refuses_what_would_commit_it() {
    let Some(bed) = Bed::mariadb() else { return };
    suite::a_branch_refuses_what_would_commit_it(&bed).await;
}
