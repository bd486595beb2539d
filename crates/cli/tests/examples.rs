//! Every example as a newcomer runs it: by the real binary, in a copy, with its effects asserted in the database. On SQLite, and on
//! PostgreSQL and MariaDB by the environment variables that the examples' connections read.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use backstop_testkit::servers::{MariaDb, Postgres};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use tempfile::TempDir;

/// The variables that the examples' connections read.
const VARIABLES: [&str; 5] = ["SHOP_DB", "BANK_DB", "STOCK_DB", "LEDGER_DB", "REPORTING_DB"];

/// Makes of each example one test on each database.
macro_rules! on_each_database {
    ($($example:ident),* $(,)?) => { $(
        mod $example {
            use super::Database;

            #[test]
            fn on_sqlite() {
                super::$example(Database::Sqlite);
            }

            #[test]
            fn on_postgresql() {
                if let Some(database) = Database::postgres() {
                    super::$example(database);
                }
            }

            #[test]
            fn on_mariadb() {
                if let Some(database) = Database::mariadb() {
                    super::$example(database);
                }
            }
        }
    )* };
}

on_each_database!(
    retry_daily,
    failure_callback,
    transaction_script,
    transaction_script_unmended,
    multi_database,
    atomic_workflow,
    atomic_workflow_undone,
    all_or_nothing,
    all_or_nothing_fails_at_every_step,
    setup_teardown,
    setup_teardown_of_failed_work,
    data_sync,
    night,
    night_at_the_end_of_a_month,
    segments,
);

fn retry_daily(database: Database) {
    let example = Example::copy("retry_daily", database);
    let events = example.run(&["retry_daily", "--logical-date", "2025-05-01"], 0);
    assert!(is_retried(&events, "daily_orders"), "the first try fails, and is not the last");
    assert_eq!(example.ask("shop", "SELECT order_day, orders, total_cents FROM daily_orders"), "2025-05-01|3|7000");
    example.run(&["retry_daily", "--logical-date", "2025-05-01"], 0);
    assert_eq!(
        example.ask("shop", "SELECT order_day, orders, total_cents FROM daily_orders"),
        "2025-05-01|3|7000",
        "a second run"
    );
}

fn failure_callback(database: Database) {
    let example = Example::copy("failure_callback", database);
    let events = example.run(&["failure_callback"], 1);
    assert_eq!(attempts_failed(&events, "report"), [false, true]);
    let told = example.read("data/operators.log");
    let lines: Vec<&str> = told.lines().collect();
    assert_eq!(lines.len(), 2, "one line of on_retry, one of on_failure: {told}");
    assert_eq!(lines[0], "retry after try 1");
    assert!(lines[1].starts_with("FAILED report, try 2: ") && lines[1].contains("non_existing_table"), "{told}");
    assert_eq!(example.ask("shop", "SELECT task, try_number, file FROM failure_log"), "report|2|sql/report.sql");
    assert_eq!(
        example.ask("shop", "SELECT COUNT(*) FROM failure_log WHERE error LIKE '%non_existing_table%' AND line BETWEEN 4 AND 5"),
        "1"
    );
}

fn transaction_script(database: Database) {
    let example = Example::copy("transaction_script", database);
    let events = example.run(&["closing"], 0);
    assert!(is_retried(&events, "close_month"));
    assert_eq!(segments_committed(&events, "close_month"), [0, 1, 2], "a retry goes on behind the first segment");
    assert_eq!(example.ask("bank", "SELECT balance_cents FROM accounts ORDER BY id"), "89600\n11600\n900");
    assert_eq!(journal(&example), "deposit|1|1000\nfee|3|-1500\ninterest|3|300");
    assert_eq!(example.ask("bank", "SELECT closed_month FROM closed_months"), "2025-05");
}

fn transaction_script_unmended(database: Database) {
    let example = Example::copy("transaction_script", database);
    let events = example.run(&["closing", "--param", "mend=false"], 1);
    assert_eq!(attempts_failed(&events, "close_month"), [false, false, true]);
    assert_eq!(segments_committed(&events, "close_month"), [0], "three tries, and the first segment committed once");
    assert_eq!(example.ask("bank", "SELECT balance_cents FROM accounts ORDER BY id"), "90100\n12100\n400");
    assert_eq!(journal(&example), "interest|3|300", "the fees that were written before the failure are rolled back");
    assert_eq!(example.ask("bank", "SELECT COUNT(*) FROM closed_months"), "0");
    // Setup begins the month anew, so that the second run stands for itself.
    example.run(&["closing"], 0);
    assert_eq!(journal(&example), "deposit|1|1000\nfee|3|-1500\ninterest|3|300");
}

fn journal(example: &Example) -> String {
    example.ask("bank", "SELECT reason, COUNT(*), SUM(amount_cents) FROM journal GROUP BY reason ORDER BY reason")
}

fn multi_database(database: Database) {
    synchronises_sales(&Example::copy("multi_database", database));
}

/// As the example is meant: PostgreSQL to MariaDB, and a line in SQLite.
#[test]
fn multi_database_over_three_kinds() {
    let (Some(shop), Some(stock)) = (Database::postgres(), Database::mariadb()) else { return };
    let mut example = Example::copy("multi_database", Database::Sqlite);
    example.others = vec![("shop", shop), ("stock", stock)];
    synchronises_sales(&example);
}

fn synchronises_sales(example: &Example) {
    for runs in 1..=2 {
        let events = example.run(&["multi_database", "--logical-date", "2025-05-01"], 0);
        assert_eq!(count(&events, "attempt_succeeded", "load"), 3, "one instance for each product");
        assert_eq!(
            example.ask("stock", "SELECT sale_day, product, quantity, total_cents FROM movements ORDER BY product"),
            "2025-05-01|chair|4|29000\n2025-05-01|desk|1|18900\n2025-05-01|lamp|3|13500"
        );
        assert_eq!(
            example.ask("ledger", "SELECT COUNT(*), MIN(products), SUM(total_cents) FROM sync_log"),
            format!("{runs}|3|{}", runs * 61400)
        );
    }
}

fn atomic_workflow(database: Database) {
    let example = Example::copy("atomic_workflow", database);
    let events = example.run(&["atomic_workflow"], 0);
    assert_eq!(count(&events, "task_skipped", "undo"), 1);
    assert_eq!(example.ask("shop", "SELECT price_cents FROM products ORDER BY id"), "4700\n18900\n7500");
    assert_eq!(example.ask("shop", "SELECT COUNT(*) FROM batch_results"), "2");
    assert_eq!(example.ask("shop", "SELECT COUNT(*) FROM captured_changes"), "2");
}

fn atomic_workflow_undone(database: Database) {
    let example = Example::copy("atomic_workflow", database);
    let events = example.run(&["atomic_workflow", "--param", "changes=bad"], 1);
    assert_eq!(count(&events, "task_upstream_failed", "apply"), 1);
    assert_eq!(count(&events, "attempt_succeeded", "undo"), 1);
    assert_eq!(example.ask("shop", "SELECT price_cents FROM products ORDER BY id"), "4500\n18900\n7250");
    assert_eq!(example.ask("shop", "SELECT COUNT(*) FROM batch_results"), "0");
    assert_eq!(example.ask("shop", "SELECT COUNT(*) FROM captured_changes"), "0");
}

fn all_or_nothing(database: Database) {
    let example = Example::copy("all_or_nothing", database);
    let events = example.run(&["change_prices"], 0);
    for task in ["change.capture", "change.price", "change.apply", "change.check", "change"] {
        assert_eq!(count(&events, "attempt_succeeded", task), 1, "{task}");
    }
    assert_eq!(example.ask("shop", "SELECT price_cents FROM products ORDER BY id"), "4700\n18900\n7500");
    assert_eq!(example.ask("shop", "SELECT text FROM reports"), "2 prices changed");
    assert_eq!(
        example.ask("shop", "SELECT task, outcome FROM backstop_marker WHERE task LIKE 'change%'"),
        "change|committed",
        "one marker for all"
    );
}

fn all_or_nothing_fails_at_every_step(database: Database) {
    for step in ["capture", "price", "apply", "check"] {
        let example = Example::copy("all_or_nothing", database.clone());
        let events = example.run(&["change_prices", "--param", &format!("fail_at={step}")], 1);
        assert_eq!(attempts_failed(&events, &format!("change.{step}")), [true]);
        assert_eq!(count(&events, "task_upstream_failed", "report"), 1);
        assert_eq!(example.ask("shop", "SELECT price_cents FROM products ORDER BY id"), "4500\n18900\n7250", "{step}");
        for (table, rows) in [("captured_changes", "0"), ("new_prices", "0"), ("price_changes", "2"), ("reports", "0")] {
            assert_eq!(example.ask("shop", &format!("SELECT COUNT(*) FROM {table}")), rows, "{table} after {step}");
        }
    }
}

fn setup_teardown(database: Database) {
    let example = Example::copy("setup_teardown", database);
    let events = example.run(&["setup_teardown"], 0);
    assert_eq!(count(&events, "attempt_succeeded", "drop_working_table"), 1);
    assert_eq!(example.ask("shop", "SELECT product, quantity FROM stock ORDER BY product"), "desk|6\nlamp|15");
    assert!(!has_working_table(&example));
}

fn setup_teardown_of_failed_work(database: Database) {
    let example = Example::copy("setup_teardown", database);
    let events = example.run(&["setup_teardown", "--param", "work=bad"], 1);
    assert_eq!(attempts_failed(&events, "book_deliveries"), [true]);
    assert_eq!(count(&events, "attempt_succeeded", "drop_working_table"), 1, "it is cleared away all the same");
    assert_eq!(example.ask("shop", "SELECT product, quantity FROM stock ORDER BY product"), "desk|2\nlamp|10");
    assert!(!has_working_table(&example));
    // What the setup would stumble over is not there: the next run stands for itself.
    example.run(&["setup_teardown"], 0);
    assert_eq!(example.ask("shop", "SELECT product, quantity FROM stock ORDER BY product"), "desk|6\nlamp|15");
}

fn has_working_table(example: &Example) -> bool {
    let known = match example.database_of("shop") {
        Database::Sqlite => "SELECT COUNT(*) FROM sqlite_schema WHERE name = 'working_deliveries'",
        Database::Postgres(..) => "SELECT COUNT(*) FROM pg_tables WHERE tablename = 'working_deliveries'",
        Database::MariaDb(..) => {
            "SELECT COUNT(*) FROM information_schema.tables WHERE table_schema = DATABASE() AND table_name = 'working_deliveries'"
        }
    };
    example.ask("shop", known) != "0"
}

fn data_sync(database: Database) {
    const SALES: u64 = 100_000;
    let example = Example::copy("data_sync", database);
    let total: u64 = (1..=SALES).map(|n| (1 + n % 9) * (100 + n * 37 % 9900)).sum();
    for runs in 1..=2 {
        example.run(&["data_sync", "--logical-date", "2025-05-01"], 0);
        assert_eq!(
            example.ask("reporting", "SELECT COUNT(*), SUM(total_cents), SUM(quantity * price_cents) FROM sales_summary"),
            format!("{SALES}|{total}|{total}")
        );
        assert_eq!(
            example.ask("reporting", "SELECT COUNT(*), MIN(sales), MIN(message) FROM sync_log"),
            format!("{runs}|{SALES}|synchronised")
        );
    }
    let lines = example.read("data/sales_with_totals.csv");
    assert_eq!(lines.lines().count() as u64, SALES + 1);
    assert_eq!(lines.lines().nth(1), Some("1,2,137,274"));
    // Another day, fewer sales: the first day stays.
    example.run(&["data_sync", "--logical-date", "2025-05-02", "--param", "sales=10"], 0);
    assert_eq!(
        example.ask("reporting", "SELECT sale_day, COUNT(*) FROM sales_summary GROUP BY sale_day ORDER BY sale_day"),
        format!("2025-05-01|{SALES}\n2025-05-02|10")
    );
}

fn night(database: Database) {
    let example = Example::copy("night", database);
    let events = example.run(&["night"], 1);
    assert!(is_retried(&events, "exchange_rates"), "fails, then succeeds");
    assert_eq!(example.ask("shop", "SELECT COUNT(*) FROM rates"), "3");
    assert_eq!(count(&events, "task_skipped", "close_month"), 1);
    assert_eq!(example.ask("shop", "SELECT closing, orders FROM closings"), "day|6");
    assert_eq!(
        example.ask("shop", "SELECT region, orders, total_cents FROM region_totals ORDER BY region"),
        "east|1|4999\nnorth|3|6701\nsouth|1|18900\nwest|1|7250"
    );
    // The first transaction of the failing script committed; the task that is there for it took that back.
    assert_eq!(segments_committed(&events, "book_payments"), [0]);
    assert_eq!(example.ask("shop", "SELECT state, COUNT(*) FROM payments GROUP BY state"), "new|3");
    assert_eq!(example.ask("shop", "SELECT COUNT(*) FROM bookings"), "0");
    assert_eq!(example.read("data/on_call.log"), "book_payments failed at sql/book_payments.sql:10\n");
    let failed = events.iter().find(|event| is(event, "attempt_failed", "book_payments")).unwrap();
    let failure = &failed["failure"];
    assert!(failure["message"].as_str().unwrap().contains("booked_at"), "{failure}");
    assert_eq!((failure["file"].as_str(), failure["line"].as_u64()), (Some("sql/book_payments.sql"), Some(10)), "{failure}");
    assert!(failure["effect"].as_str().unwrap().contains("segment 1 of 2 is committed and stays"), "{failure}");
}

fn night_at_the_end_of_a_month(database: Database) {
    let example = Example::copy("night", database);
    example.run(&["night", "--param", "month_end=true"], 1);
    assert_eq!(example.ask("shop", "SELECT closing, orders FROM closings"), "month|6");
}

fn segments(database: Database) {
    let example = Example::copy("night", database);
    let events = example.run(&["segments", "--param", "segments=5"], 0);
    assert_eq!(segments_committed(&events, "batch"), [0, 1, 2, 3, 4]);
    assert_eq!(example.ask("shop", "SELECT COUNT(*), COUNT(DISTINCT segment) FROM applied"), "5|5");
    assert_eq!(example.ask("shop", "SELECT balance_cents FROM account"), "500");
}

#[test]
fn every_example_is_without_errors_and_has_a_readme() {
    let mut checked = 0;
    for entry in std::fs::read_dir(examples()).unwrap() {
        let folder = entry.unwrap().path();
        if !folder.is_dir() {
            continue;
        }
        assert!(folder.join("README.md").is_file(), "{} has no README.md", folder.display());
        let output = backstop(&folder).arg("check").output().unwrap();
        assert!(output.status.success(), "{}:\n{}", folder.display(), String::from_utf8_lossy(&output.stderr));
        checked += 1;
    }
    assert_eq!(checked, 9);
}

#[test]
fn the_demo_shows_what_it_says() {
    let script = examples().join("../scripts/demo");
    let output = Command::new(script).arg(env!("CARGO_BIN_EXE_backstop")).stdin(Stdio::null()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.contains("FROM applied: 40 40 4000"), "{said}");
    assert!(!examples().join("night/.backstop").exists(), "the demo wrote into the clone");
}

/// The folder of all examples.
fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples").canonicalize().unwrap()
}

/// The binary, standing in a folder, with nothing of the person's environment that could lead it elsewhere.
fn backstop(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_backstop"));
    command.current_dir(folder).stdin(Stdio::null()).env_remove("BACKSTOP_STORE");
    for variable in VARIABLES {
        command.env_remove(variable);
    }
    command
}

/// A copy of an example, which runs on a database.
struct Example {
    folder: TempDir,
    database: Database,
    /// Connections that lead to another one.
    others: Vec<(&'static str, Database)>,
}

impl Example {
    fn copy(name: &str, database: Database) -> Self {
        let folder = TempDir::new().unwrap();
        copy_folder(&examples().join(name), folder.path());
        Self { folder, database, others: Vec::new() }
    }

    /// Runs a DAG and insists on the exit code. Returns its events.
    fn run(&self, arguments: &[&str], code: i32) -> Vec<Value> {
        let mut command = backstop(self.folder.path());
        for variable in VARIABLES {
            let connection = variable.trim_end_matches("_DB").to_lowercase();
            if let Some(uri) = self.database_of(&connection).uri() {
                command.env(variable, uri);
            }
        }
        let output = command.args(["run", "--json"]).args(arguments).output().unwrap();
        let (said, told) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert_eq!(output.status.code(), Some(code), "run {arguments:?}\n{said}\n{told}");
        said.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Rows of a query on a connection: one a line, columns parted by `|`.
    fn ask(&self, connection: &str, sql: &str) -> String {
        match self.database_of(connection) {
            Database::Sqlite => ask_sqlite(&self.folder.path().join(format!("data/{connection}.db")), sql),
            Database::Postgres(server, database) => server.sql(database, sql).unwrap(),
            Database::MariaDb(server, database) => server.sql(database, sql).unwrap().replace('\t', "|"),
        }
    }

    fn read(&self, file: &str) -> String {
        std::fs::read_to_string(self.folder.path().join(file)).unwrap()
    }

    fn database_of(&self, connection: &str) -> &Database {
        let other = self.others.iter().find(|(id, _)| *id == connection);
        other.map_or(&self.database, |(_, database)| database)
    }
}

/// Copies what git keeps: nothing that a run in the clone left behind.
fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        let is_left_behind = from.ends_with("data") && path.extension().is_some();
        if path.is_dir() && !path.ends_with(".backstop") && !path.ends_with("__pycache__") {
            copy_folder(&path, &target);
        } else if path.is_file() && !is_left_behind {
            std::fs::copy(&path, &target).unwrap();
        }
    }
}

/// Where an example runs.
#[derive(Clone)]
enum Database {
    Sqlite,
    Postgres(&'static Postgres, String),
    MariaDb(&'static MariaDb, String),
}

impl Database {
    fn postgres() -> Option<Self> {
        Postgres::shared().map(|server| Self::Postgres(server, server.create_database()))
    }

    fn mariadb() -> Option<Self> {
        MariaDb::shared().map(|server| Self::MariaDb(server, server.create_database()))
    }

    /// `None` for SQLite, which the examples use by themselves.
    fn uri(&self) -> Option<String> {
        match self {
            Self::Sqlite => None,
            Self::Postgres(server, database) => Some(format!("postgres://postgres@127.0.0.1:{}/{database}", server.port())),
            Self::MariaDb(server, database) => Some(format!("mysql://root@127.0.0.1:{}/{database}", server.port())),
        }
    }
}

fn ask_sqlite(file: &Path, sql: &str) -> String {
    use rusqlite::types::ValueRef;
    let database = rusqlite::Connection::open_with_flags(file, rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
    let mut statement = database.prepare(sql).unwrap();
    let columns = statement.column_count();
    let mut rows = statement.query([]).unwrap();
    let mut lines = Vec::new();
    while let Some(row) = rows.next().unwrap() {
        let values = (0..columns).map(|column| match row.get_ref(column).unwrap() {
            ValueRef::Null => String::new(),
            ValueRef::Integer(number) => number.to_string(),
            ValueRef::Real(number) => number.to_string(),
            ValueRef::Text(text) => String::from_utf8_lossy(text).into_owned(),
            ValueRef::Blob(bytes) => format!("{} bytes", bytes.len()),
        });
        lines.push(values.collect::<Vec<_>>().join("|"));
    }
    lines.join("\n")
}

fn is(event: &Value, kind: &str, task: &str) -> bool {
    event["type"] == kind && event["task"] == task
}

fn count(events: &[Value], kind: &str, task: &str) -> usize {
    events.iter().filter(|event| is(event, kind, task)).count()
}

/// Of each failed try of a task, in order: whether it was the last.
fn attempts_failed(events: &[Value], task: &str) -> Vec<bool> {
    events.iter().filter(|event| is(event, "attempt_failed", task)).map(|event| event["is_final"].as_bool().unwrap()).collect()
}

/// True when a task failed, had its on_retry run, and succeeded in the end. How many tries that takes is a matter of how fast the machine
/// runs the callback.
fn is_retried(events: &[Value], task: &str) -> bool {
    let failed = attempts_failed(events, task);
    let retried = !failed.is_empty() && !failed.contains(&true);
    retried && count(events, "callback_finished", task) > 0 && count(events, "attempt_succeeded", task) == 1
}

/// The segments that a task committed, in order.
fn segments_committed(events: &[Value], task: &str) -> Vec<u64> {
    events.iter().filter(|event| is(event, "segment_committed", task)).map(|event| event["segment"].as_u64().unwrap()).collect()
}
