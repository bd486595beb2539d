//! One database for a test to run on, whatever its kind, looked at from outside by its own client.

use crate::project::Project;
use backstop_testkit::servers::{MariaDb, Postgres};

/// Where a project's connection `db` leads.
pub(crate) enum Database {
    /// A file in the project's folder.
    Sqlite,
    Postgres(&'static Postgres, String),
    MariaDb(&'static MariaDb, String),
}

impl Database {
    pub(crate) fn postgres() -> Option<Self> {
        Postgres::shared().map(|server| Self::Postgres(server, server.create_database()))
    }

    pub(crate) fn mariadb() -> Option<Self> {
        MariaDb::shared().map(|server| Self::MariaDb(server, server.create_database()))
    }

    /// SQLite, and the servers that are installed.
    pub(crate) fn all() -> Vec<Self> {
        [Some(Self::Sqlite), Self::postgres(), Self::mariadb()].into_iter().flatten().collect()
    }

    /// The servers that are installed.
    pub(crate) fn servers() -> Vec<Self> {
        [Self::postgres(), Self::mariadb()].into_iter().flatten().collect()
    }

    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Sqlite => "SQLite",
            Self::Postgres(..) => "PostgreSQL",
            Self::MariaDb(..) => "MariaDB",
        }
    }

    /// A project with one DAG, `d`, of these tasks on this database.
    pub(crate) fn project(&self, tasks: &str) -> Project {
        let project = Project::with_tasks(tasks);
        let uri = match self {
            Self::Sqlite => return project,
            Self::Postgres(server, database) => format!("postgresql://postgres@127.0.0.1:{}/{database}", server.port()),
            Self::MariaDb(server, database) => format!("mysql://root@127.0.0.1:{}/{database}", server.port()),
        };
        project.write("backstop.yaml", &format!("name: test\nconnections:\n  db: {{uri: \"{uri}\"}}\n"));
        project
    }

    /// Runs statements past the binary.
    pub(crate) fn sql(&self, project: &Project, sql: &str) {
        match self {
            Self::Sqlite => project.sql(sql),
            Self::Postgres(server, database) => drop(server.sql(database, sql).unwrap()),
            Self::MariaDb(server, database) => drop(server.sql(database, sql).unwrap()),
        }
    }

    /// One number, asked past the binary.
    pub(crate) fn ask(&self, project: &Project, sql: &str) -> i64 {
        match self {
            Self::Sqlite => project.ask(sql),
            Self::Postgres(server, database) => server.sql(database, sql).unwrap().trim().parse().unwrap(),
            Self::MariaDb(server, database) => server.sql(database, sql).unwrap().trim().parse().unwrap(),
        }
    }

    /// How many tables of this name there are.
    pub(crate) fn tables(&self, project: &Project, name: &str) -> i64 {
        let known = match self {
            Self::Sqlite => "sqlite_schema WHERE type = 'table' AND name",
            Self::Postgres(..) => "pg_tables WHERE tablename",
            Self::MariaDb(..) => "information_schema.tables WHERE table_schema = DATABASE() AND table_name",
        };
        self.ask(project, &format!("SELECT COUNT(*) FROM {known} = '{name}'"))
    }
}
