//! Data checks on real servers: what holds passes, what does not is told with the numbers, and neither writes.

use crate::project::Project;
use crate::server::Database;

const THRESHOLD: &str = "  many: {check: {sql: SELECT COUNT(*) FROM sales, min: 3, max: SELECT MAX(id) FROM sales}}\n  \
    dear: {check: {sql: SELECT SUM(cents) FROM sales WHERE sold_on = :day, parameters: {day: '{{ ds }}'}, min: 100.5}}\n";

const INTERVAL: &str = "  steady:\n    check:\n      table: sales\n      metrics: {'COUNT(*)': 1.5, SUM(cents): 2}\n      \
    date_column: sold_on\n      days_back: 7\n      ignore_zero: false\n";

/// Three sales on the day, two a week before.
fn sold(database: &Database, tasks: &str) -> Project {
    let project = database.project(tasks);
    database.sql(&project, "CREATE TABLE sales (id INTEGER PRIMARY KEY, sold_on DATE NOT NULL, cents BIGINT NOT NULL)");
    database.sql(
        &project,
        "INSERT INTO sales VALUES (1, '2025-05-01', 100), (2, '2025-05-01', 100), (3, '2025-05-08', 100), (4, '2025-05-08', 100), \
         (5, '2025-05-08', 100)",
    );
    project
}

fn judged(database: &Database, project: &Project, code: i32) -> String {
    let outcome = project.backstop(&["run", "d", "--logical-date", "2025-05-08"]);
    assert_eq!(outcome.code, Some(code), "{}: {}", database.name(), outcome.stderr);
    assert_eq!(database.tables(project, "backstop_marker"), 0, "{}: a check leaves nothing", database.name());
    outcome.stderr
}

fn assert_says(database: &Database, told: &str, texts: &[&str]) {
    for text in texts {
        assert!(told.contains(text), "{}: it does not say `{text}`:\n{told}", database.name());
    }
}

#[test]
fn a_threshold_holds_between_a_number_and_a_query_and_not_beyond() {
    for database in Database::servers() {
        let project = sold(&database, THRESHOLD);
        judged(&database, &project, 0);
        database.sql(&project, "UPDATE sales SET id = id - 2, cents = 1 WHERE id > 2 AND sold_on = '2025-05-01'");
        database.sql(&project, "DELETE FROM sales WHERE id > 2");
        let told = judged(&database, &project, 1);
        assert_says(&database, &told, &["the value 2 is below the minimum 3", "the query gave NULL, not a number"]);
        assert_says(&database, &told, &["nothing was changed: a check only reads"]);
        database.sql(&project, "INSERT INTO sales VALUES (0, '2025-05-08', 100), (-1, '2025-05-08', 0)");
        let told = judged(&database, &project, 1);
        assert_says(&database, &told, &["the value 4 is above the maximum 2", "the value 100 is below the minimum 100.5"]);
    }
}

#[test]
fn an_interval_holds_up_to_its_ratio_and_not_beyond() {
    for database in Database::servers() {
        let project = sold(&database, INTERVAL);
        judged(&database, &project, 0);
        database.sql(&project, "INSERT INTO sales VALUES (6, '2025-05-08', 100), (7, '2025-05-08', 100)");
        let told = judged(&database, &project, 1);
        let texts = [
            "2 checks do not hold",
            // Dates are scrubbed.
            "COUNT(*) is 5 on TIME and 2 on TIME: ratio 2.5000 is over 1.5",
            "SUM(cents) is 500 on TIME and 200 on TIME: ratio 2.5000 is over 2",
        ];
        assert_says(&database, &told, &texts);
        database.sql(&project, "DELETE FROM sales WHERE sold_on = '2025-05-01'");
        assert_says(&database, &judged(&database, &project, 1), &["COUNT(*) is 5 on TIME and 0 on TIME: no ratio"]);
    }
}
