//! What the service is given to do: a project of several DAGs on three databases, and what each run of them must leave behind.

use backstop_testkit::servers::{MariaDb, Postgres};
use std::collections::BTreeMap;
use std::fs;
use std::ops::Deref;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;

/// Segments of the script that each ledger run begins with.
const SEGMENTS: u64 = 5;
/// Items of the mapped task.
const ITEMS: u64 = 3;
/// Accounts that money is moved between. Few, so that transactions meet, wait for each other and deadlock now and then: each deadlock costs
/// PostgreSQL a second, in which the others wait.
const ACCOUNTS: u64 = 12;

/// `Err`: the server is not there.
type Ask = Box<dyn Fn(&str) -> Result<Vec<Vec<String>>, String> + Send + Sync>;

/// A database that runs have effects on.
pub(crate) struct Target {
    pub(crate) name: &'static str,
    uri: String,
    /// Runs SQL past the service and gives the rows.
    ask: Ask,
    _folder: Option<TempDir>,
}

impl Target {
    /// Reached by the service at a port that may be a proxy's.
    pub(crate) fn postgres(server: impl Deref<Target = Postgres> + Send + Sync + 'static, port: u16) -> Self {
        let database = server.create_database();
        let uri = format!("postgresql://postgres@127.0.0.1:{port}/{database}");
        let ask: Ask = Box::new(move |sql| told(&server.sql(&database, sql), '|'));
        Self { name: "postgres", uri, ask, _folder: None }
    }

    /// As [`Self::postgres`].
    pub(crate) fn maria(server: impl Deref<Target = MariaDb> + Send + Sync + 'static, port: u16) -> Self {
        let database = server.create_database();
        let uri = format!("mysql://root@127.0.0.1:{port}/{database}");
        let ask: Ask = Box::new(move |sql| told(&server.sql(&database, sql), '\t'));
        Self { name: "maria", uri, ask, _folder: None }
    }

    pub(crate) fn sqlite() -> Self {
        let folder = TempDir::new().unwrap();
        let file = folder.path().join("target.db");
        let uri = format!("sqlite:///{}", file.display());
        let ask: Ask = Box::new(move |sql| {
            let connection = rusqlite::Connection::open(&file).unwrap();
            connection.busy_timeout(Duration::from_secs(60)).unwrap();
            let mut statement = connection.prepare(sql).unwrap();
            let columns = statement.column_count();
            if columns == 0 {
                statement.execute([]).unwrap();
                return Ok(Vec::new());
            }
            let text = |value: rusqlite::types::Value| match value {
                rusqlite::types::Value::Integer(number) => number.to_string(),
                rusqlite::types::Value::Text(text) => text,
                other => panic!("{other:?} was not asked for"),
            };
            let rows = statement.query_map([], |row| (0..columns).map(|at| row.get(at).map(text)).collect());
            Ok(rows.unwrap().map(Result::unwrap).collect())
        });
        Self { name: "sqlite", uri, ask, _folder: Some(folder) }
    }

    pub(crate) fn rows(&self, sql: &str) -> Vec<Vec<String>> {
        (self.ask)(sql).unwrap()
    }

    /// One number; `None` while the server is away.
    pub(crate) fn number_if_there(&self, sql: &str) -> Option<i64> {
        (self.ask)(sql).ok()?[0][0].parse().ok()
    }

    /// One number.
    pub(crate) fn number(&self, sql: &str) -> i64 {
        self.rows(sql)[0][0].parse().unwrap()
    }
}

fn told<E: std::fmt::Display>(answer: &Result<String, E>, separator: char) -> Result<Vec<Vec<String>>, String> {
    let text = answer.as_ref().map_err(ToString::to_string)?;
    let lines = text.lines().filter(|line| !line.is_empty());
    Ok(lines.map(|line| line.split(separator).map(str::to_owned).collect()).collect())
}

/// A row of a ledger: the run's number, the task, the segment or item.
pub(crate) type Entry = (u64, String, u64);

/// The project and its databases.
pub(crate) struct Work {
    pub(crate) targets: Vec<Arc<Target>>,
    folder: TempDir,
}

impl Work {
    pub(crate) fn prepare(targets: Vec<Target>) -> Self {
        let work = Self { targets: targets.into_iter().map(Arc::new).collect(), folder: TempDir::new().unwrap() };
        for target in &work.targets {
            for sql in tables() {
                target.rows(&sql);
            }
        }
        work.write();
        work
    }

    pub(crate) fn project(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn target(&self, name: &str) -> &Target {
        self.targets.iter().find(|target| target.name == name).unwrap()
    }

    fn put(&self, path: &str, text: &str) {
        let path = self.project().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    #[expect(clippy::disallowed_methods, reason = "the timetables of the soak begin now")]
    fn write(&self) {
        let start = jiff::Timestamp::now();
        let connection = |target: &Arc<Target>| format!("  {}: {{uri: \"{}\"}}\n", target.name, target.uri);
        let connections: String = self.targets.iter().map(connection).collect();
        self.put(
            "backstop.yaml",
            &format!("name: soak\ndefaults: {{retries: 40, retry_delay: 1s}}\nconnections:\n{connections}"),
        );
        let segment = |n| {
            format!(
                "BEGIN;\nINSERT INTO ledger VALUES (:number, 'post', {n});\nUPDATE total SET n = n + 1 WHERE id = {n};\nCOMMIT;\n"
            )
        };
        self.put("sql/post.sql", &(0..SEGMENTS).map(segment).collect::<String>());
        // The second segment fails in the first try: the first one stays, and the retry goes on behind it.
        self.put(
            "sql/flaky.sql",
            "BEGIN;\nINSERT INTO ledger VALUES (:number, 'flaky', 0);\nCOMMIT;\n\
             BEGIN;\nINSERT INTO ledger VALUES (:number, 'flaky', 1);\nINSERT INTO only_later VALUES (:try_number);\nCOMMIT;\n",
        );
        self.put(
            "sql/move.sql",
            "UPDATE account SET balance = balance - :number WHERE id = :source;\n\
             UPDATE account SET balance = balance + :number WHERE id = :destination;\n\
             INSERT INTO ledger VALUES (:number, 'move', 0);\n",
        );
        for target in &self.targets {
            self.put(&format!("dags/ledger_{}.yaml", target.name), &ledger(target.name));
            self.put(&format!("dags/tick_{}.yaml", target.name), &tick(target.name, start));
        }
        self.put("dags/across.yaml", &across(self.targets.iter().map(|target| target.name)));
        self.put("dags/ddl.yaml", DDL);
    }

    /// The DAG of a run, by its number.
    pub(crate) fn dag_of(number: u64) -> &'static str {
        match number % 10 {
            0..=3 => "ledger_postgres",
            4..=6 => "ledger_maria",
            7 => "ledger_sqlite",
            8 => "across",
            _ => "ddl",
        }
    }

    /// What the runs with these numbers must leave in the ledger of a target.
    pub(crate) fn expected(target: &str, numbers: impl Iterator<Item = u64>) -> BTreeMap<Entry, u64> {
        let mut entries = BTreeMap::new();
        for number in numbers {
            let mut expect = |task: &str, count: u64| {
                entries.extend((0..count).map(|n| ((number, task.to_owned(), n), 1)));
            };
            match Self::dag_of(number) {
                "across" => expect("across", 1),
                "ddl" if target == "maria" => expect("ddl", 1),
                dag if dag.strip_prefix("ledger_") == Some(target) => {
                    expect("post", SEGMENTS);
                    expect("flaky", 2);
                    expect("each", ITEMS);
                    expect("move", 1);
                }
                _ => {}
            }
        }
        entries
    }

    /// The accounts after each of these transfers, once.
    pub(crate) fn balances<'a>(entries: impl Iterator<Item = &'a Entry>) -> Vec<i64> {
        let mut balances = vec![0; usize::try_from(ACCOUNTS).unwrap()];
        let place = |account: u64| usize::try_from(account % ACCOUNTS).unwrap();
        for (number, ..) in entries.filter(|(_, task, _)| task == "move") {
            balances[place(*number)] -= i64::try_from(*number).unwrap();
            balances[place(number * 5 + 1)] += i64::try_from(*number).unwrap();
        }
        balances
    }
}

/// No keys: a row that is applied twice is there twice.
fn tables() -> Vec<String> {
    let mut all = vec![
        "CREATE TABLE ledger (number integer NOT NULL, task varchar(20) NOT NULL, segment integer NOT NULL)".to_owned(),
        "CREATE TABLE total (id integer PRIMARY KEY, n integer NOT NULL)".to_owned(),
        "CREATE TABLE account (id integer PRIMARY KEY, balance bigint NOT NULL)".to_owned(),
        "CREATE TABLE only_later (try_number integer NOT NULL CHECK (try_number > 1))".to_owned(),
        "CREATE TABLE tick (at varchar(40) NOT NULL)".to_owned(),
    ];
    all.extend((0..SEGMENTS).map(|id| format!("INSERT INTO total VALUES ({id}, 0)")));
    all.extend((0..ACCOUNTS).map(|id| format!("INSERT INTO account VALUES ({id}, 0)")));
    all
}

fn ledger(target: &str) -> String {
    let number = "number: \"{{ params.number }}\"";
    format!(
        "dag: ledger_{target}\nconnection: {target}\nmax_active_runs: 200\nparams:\n  number: {{type: integer}}\ntasks:\n  \
         post:\n    sql: sql/post.sql\n    parameters: {{{number}}}\n  \
         flaky:\n    sql: sql/flaky.sql\n    parameters: {{{number}, try_number: \"{{{{ ti.try_number }}}}\"}}\n    after: [post]\n  \
         each:\n    for_each: [0, 1, 2]\n    sql: INSERT INTO ledger VALUES (:number, 'each', :n)\n    \
         parameters: {{{number}, n: \"{{{{ item }}}}\"}}\n    after: [post]\n  \
         move:\n    sql: sql/move.sql\n    parameters:\n      {number}\n      \
         source: \"{{{{ params.number % {ACCOUNTS} }}}}\"\n      \
         destination: \"{{{{ (params.number * 5 + 1) % {ACCOUNTS} }}}}\"\n    after: [post]\n"
    )
}

/// Every two seconds, and none may be missed.
fn tick(target: &str, start: jiff::Timestamp) -> String {
    let start = start.strftime("%Y-%m-%dT%H:%M:%SZ");
    format!(
        "dag: tick_{target}\nconnection: {target}\nschedule: {{every: 2s}}\nstart_date: {start}\ncatchup: true\ntasks:\n  \
         tick:\n    sql: INSERT INTO tick VALUES (:at)\n    parameters: {{at: \"{{{{ ts }}}}\"}}\n"
    )
}

/// One run on every database, one after the other.
fn across(targets: impl Iterator<Item = &'static str>) -> String {
    let mut text = "dag: across\nmax_active_runs: 200\nparams:\n  number: {type: integer}\ntasks:\n".to_owned();
    let mut before = None;
    for target in targets {
        let after = before.map_or_else(String::new, |before| format!("    after: [{before}]\n"));
        text.push_str(&format!(
            "  {target}:\n    connection: {target}\n    sql: INSERT INTO ledger VALUES (:number, 'across', 0)\n    \
             parameters: {{number: \"{{{{ params.number }}}}\"}}\n{after}"
        ));
        before = Some(target);
    }
    text
}

/// Statements that commit by themselves: what is in doubt after a kill, the operator of the soak resolves by looking.
const DDL: &str = "dag: ddl\nconnection: maria\nmax_active_runs: 200\nparams:\n  number: {type: integer}\ntasks:\n  \
                   make: {sql: \"CREATE TABLE made_{{ params.number }} (n integer)\"}\n  \
                   fill:\n    sql: INSERT INTO ledger VALUES (:number, 'ddl', 0)\n    \
                   parameters: {number: \"{{ params.number }}\"}\n    after: [make]\n  \
                   remove: {sql: \"DROP TABLE made_{{ params.number }}\", after: [fill]}\n";
