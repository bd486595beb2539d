//! A database to test on, a way to look at it from outside, and an observer that remembers.

use backstop_connect::session::{Call, StatementOutcome, Wrap};
use backstop_connect::{
    Column, Config, Connector, Error, MarkerKey, MarkerTable, Observer, Secret, Session, Unit, UnitError, UnitOutcome, Value,
    connector,
};
use backstop_testkit::servers::{MariaDb, Postgres};
use std::sync::Arc;

/// Where the database of a test lives.
pub(super) enum Place {
    Postgres(&'static Postgres),
    MariaDb(&'static MariaDb),
    Sqlite(tempfile::TempDir),
}

/// A fresh, empty database.
pub(super) struct Bed {
    pub(super) place: Place,
    pub(super) config: Config,
    pub(super) connector: Arc<dyn Connector>,
}

impl Bed {
    pub(super) fn postgres() -> Option<Self> {
        Some(Self::on_postgres(Postgres::shared()?))
    }

    pub(super) fn on_postgres(server: &'static Postgres) -> Self {
        let config = Config {
            id: "sales_db".into(),
            conn_type: "postgres".into(),
            host: Some("127.0.0.1".into()),
            port: Some(server.port()),
            login: Some("postgres".into()),
            database: Some(server.create_database()),
            ..Config::default()
        };
        Self::on(Place::Postgres(server), config)
    }

    pub(super) fn mariadb() -> Option<Self> {
        Some(Self::on_mariadb(MariaDb::shared()?))
    }

    pub(super) fn on_mariadb(server: &'static MariaDb) -> Self {
        let config = Config {
            id: "sales_db".into(),
            conn_type: "mariadb".into(),
            host: Some("127.0.0.1".into()),
            port: Some(server.port()),
            login: Some("root".into()),
            database: Some(server.create_database()),
            ..Config::default()
        };
        Self::on(Place::MariaDb(server), config)
    }

    pub(super) fn sqlite() -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let config = Config {
            id: "sales_db".into(),
            conn_type: "sqlite".into(),
            database: Some("sales.db".into()),
            base_dir: folder.path().to_owned(),
            ..Config::default()
        };
        Some(Self::on(Place::Sqlite(folder), config))
    }

    fn on(place: Place, config: Config) -> Self {
        let connector = connector(&config).unwrap();
        Self { place, config, connector }
    }

    /// The text for this kind of database.
    pub(super) fn pick<T>(&self, postgres: T, mariadb: T, sqlite: T) -> T {
        match self.place {
            Place::Postgres(_) => postgres,
            Place::MariaDb(_) => mariadb,
            Place::Sqlite(_) => sqlite,
        }
    }

    pub(super) async fn session(&self) -> Box<dyn Session> {
        self.connector.open().await.unwrap()
    }

    /// A connector with changed settings.
    pub(super) fn changed(&self, change: impl FnOnce(&mut Config)) -> Arc<dyn Connector> {
        let mut config = self.config.clone();
        change(&mut config);
        connector(&config).unwrap()
    }

    /// Runs SQL from outside, by the database's own client; one column, one row a line.
    pub(super) fn outside(&self, sql: &str) -> String {
        let database = self.config.database.as_deref().unwrap_or_default();
        match &self.place {
            Place::Postgres(server) => server.sql(database, sql).unwrap(),
            Place::MariaDb(server) => server.sql(database, sql).unwrap(),
            Place::Sqlite(folder) => {
                let connection = rusqlite::Connection::open(folder.path().join(database)).unwrap();
                let mut statement = connection.prepare(sql).unwrap();
                let mut rows = statement.query([]).unwrap();
                let mut lines = Vec::new();
                while let Some(row) = rows.next().unwrap() {
                    lines.push(match row.get_ref(0).unwrap() {
                        rusqlite::types::ValueRef::Integer(number) => number.to_string(),
                        other => other.as_str_or_null().unwrap().unwrap_or_default().to_owned(),
                    });
                }
                lines.join("\n")
            }
        }
    }

    /// A table with a key and a value.
    pub(super) async fn with_table(&self) -> Box<dyn Session> {
        let mut session = self.session().await;
        run(&mut session, "CREATE TABLE t (id INTEGER PRIMARY KEY, v VARCHAR(200))").await.unwrap();
        session
    }

    pub(super) fn count(&self, table: &str) -> u64 {
        self.outside(&format!("SELECT count(*) FROM {table}")).parse().unwrap()
    }
}

/// Remembers everything.
#[derive(Default)]
pub(super) struct Memory {
    pub(super) columns: Vec<Column>,
    pub(super) rows: Vec<Vec<Value>>,
    pub(super) notices: Vec<(usize, String)>,
    pub(super) finished: Vec<(usize, Option<u64>, u64)>,
    pub(super) result: Option<String>,
    /// Stops at this many rows.
    pub(super) rows_max: Option<usize>,
    /// Told when a statement starts.
    pub(super) signal: Option<tokio::sync::mpsc::UnboundedSender<usize>>,
}

impl Observer for Memory {
    fn started(&mut self, place: usize) {
        if let Some(signal) = &self.signal {
            let _ = signal.send(place);
        }
    }

    fn columns(&mut self, _place: usize, columns: &[Column]) {
        self.columns = columns.to_vec();
    }

    fn row(&mut self, _place: usize, row: &[Value]) -> Result<(), String> {
        if self.rows_max.is_some_and(|max| self.rows.len() >= max) {
            return Err("that is enough".into());
        }
        self.rows.push(row.to_vec());
        Ok(())
    }

    fn notice(&mut self, place: usize, text: &str) {
        self.notices.push((place, text.to_owned()));
    }

    fn finished(&mut self, place: usize, outcome: &StatementOutcome) {
        self.finished.push((place, outcome.rows_affected, outcome.rows_returned));
    }

    fn result(&mut self) -> Option<String> {
        self.result.clone()
    }
}

pub(super) fn call(sql: &str) -> Call<'_> {
    Call { sql, parameters: &[], copy_data: None }
}

/// Runs one statement outside of units.
pub(super) async fn run(session: &mut Box<dyn Session>, sql: &str) -> Result<Memory, Error> {
    run_with(session, sql, &[]).await
}

pub(super) async fn run_with(session: &mut Box<dyn Session>, sql: &str, parameters: &[Value]) -> Result<Memory, Error> {
    let mut memory = Memory::default();
    session.execute(&Call { sql, parameters, copy_data: None }, 0, &mut memory).await.map(|_| memory)
}

/// The only value of the only row.
pub(super) async fn value(session: &mut Box<dyn Session>, sql: &str) -> Value {
    let memory = run(session, sql).await.unwrap();
    assert_eq!((memory.rows.len(), memory.rows[0].len()), (1, 1), "{sql}");
    memory.rows[0][0].clone()
}

pub(super) async fn unit(session: &mut Box<dyn Session>, wrap: Wrap, statements: &[&str]) -> Result<UnitOutcome, UnitError> {
    unit_with(session, wrap, statements, None, &mut Memory::default()).await
}

pub(super) async fn unit_with(
    session: &mut Box<dyn Session>,
    wrap: Wrap,
    statements: &[&str],
    begin: Option<&str>,
    memory: &mut Memory,
) -> Result<UnitOutcome, UnitError> {
    let calls: Vec<_> = statements.iter().copied().map(call).collect();
    let keeps_result = memory.result.is_some();
    session.run_unit(&Unit { calls: &calls, begin, wrap, keeps_result }, memory).await
}

pub(super) fn key(task: &str) -> MarkerKey {
    MarkerKey { run: "run-1".into(), task: task.into(), map_index: -1, segment: 0, kind: "forward".into(), try_number: 1 }
}

pub(super) fn marked(task: &str) -> Wrap {
    Wrap::Marked { table: MarkerTable::default(), key: key(task), digest: "d1".into(), check_first: false }
}

pub(super) fn secret(text: &str) -> Option<Secret> {
    Some(Secret::new(text))
}

/// Nothing that an error shows may hold the text.
pub(super) fn hides(error: &Error, secret: &str) {
    let mut shown = format!("{error} {error:?}");
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        shown.push_str(&format!(" {cause} {cause:?}"));
        source = cause.source();
    }
    assert!(!shown.contains(secret), "{shown}");
}
