//! PostgreSQL.

use super::child::{command_as, give_to, output_of};
use super::instance::{Instance, Product};
use nix::sys::signal::Signal;
use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

/// A private PostgreSQL server; the superuser is `postgres`.
pub type Postgres = Instance<PostgreSql>;

/// What is particular to PostgreSQL.
#[derive(Debug)]
pub enum PostgreSql {}

impl Product for PostgreSql {
    const NAME: &'static str = "PostgreSQL";
    const PACKAGE: &'static str = "postgresql-15";
    const PROGRAM: &'static str = "initdb";
    const FOLDERS: &'static [&'static str] = &[
        "/usr/lib/postgresql/18/bin",
        "/usr/lib/postgresql/17/bin",
        "/usr/lib/postgresql/16/bin",
        "/usr/lib/postgresql/15/bin",
        "/usr/lib/postgresql/14/bin",
    ];
    const USER: &'static str = "postgres";
    const DATABASE: &'static str = "postgres";
    const READY: &'static str = "database system is ready to accept connections";
    const STOP: Signal = Signal::SIGINT;
    const DISCARD: Signal = Signal::SIGQUIT;

    fn shared() -> &'static OnceLock<Postgres> {
        static SHARED: OnceLock<Postgres> = OnceLock::new();
        &SHARED
    }

    fn initialise(server: &Postgres) -> anyhow::Result<()> {
        let mut command = command_as(Self::USER, &Postgres::installed("initdb")?);
        command.arg("-D").arg(server.file("data")).args(["-N", "-U", Self::USER, "--locale=C.UTF-8", "-E", "UTF8"]);
        command.current_dir(server.folder());
        if let Some(password) = &server.options.password {
            let file = server.file("password");
            std::fs::write(&file, password)?;
            give_to(Self::USER, &file)?;
            command.args(["-A", "scram-sha-256", "--pwfile"]).arg(file);
        } else {
            command.args(["-A", "trust"]);
        }
        output_of(&mut command)?;
        Ok(())
    }

    fn command(server: &Postgres) -> anyhow::Result<Command> {
        let mut command = command_as(Self::USER, &Postgres::installed("postgres")?);
        command.current_dir(server.folder());
        command.arg("-D").arg(server.file("data"));
        command.arg("-k").arg(server.folder()).arg("-p").arg(server.port().to_string());
        let fsync = if server.options.fsync { "on" } else { "off" };
        let ours = [("listen_addresses", "127.0.0.1"), ("wal_level", "logical"), ("max_prepared_transactions", "32")];
        let ours = ours.into_iter().chain([("fsync", fsync), ("logging_collector", "off"), ("log_min_messages", "log")]);
        for (name, value) in ours.map(|(name, value)| (name, value.to_owned())).chain(server.settings()) {
            command.arg("-c").arg(format!("{name}={value}"));
        }
        Ok(command)
    }

    fn client(server: &Postgres, database: &str, sql: &str) -> anyhow::Result<Command> {
        let mut command = Command::new(Postgres::installed("psql")?);
        command.args(["-X", "-q", "-t", "-A", "-v", "ON_ERROR_STOP=1", "-h", "127.0.0.1", "-U", Self::USER]);
        command.args(["-d", database, "-c", sql, "-p"]).arg(server.port().to_string());
        if let Some(password) = &server.options.password {
            command.env("PGPASSWORD", password);
        }
        Ok(command)
    }
}

impl Postgres {
    /// `postgresql://postgres@127.0.0.1:PORT/postgres`, without a password.
    pub fn url(&self) -> String {
        format!("postgresql://{}@127.0.0.1:{}/postgres", PostgreSql::USER, self.port())
    }

    /// The folder of the Unix socket.
    pub fn socket_folder(&self) -> PathBuf {
        self.folder().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::super::Options;
    use super::super::instance::tests::keeps_its_data_over_a_power_cut_and_leaves_nothing_behind;
    use super::*;

    #[test]
    fn it_keeps_its_data_over_a_power_cut_and_leaves_nothing_behind() {
        keeps_its_data_over_a_power_cut_and_leaves_nothing_behind::<PostgreSql>(Options::default());
    }
}
