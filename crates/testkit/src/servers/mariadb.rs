//! MariaDB.

use super::child::{command_as, give_to, output_of};
use super::instance::{Instance, Product};
use nix::sys::signal::Signal;
use std::process::Command;
use std::sync::OnceLock;

/// A private MariaDB server; the superuser is `root`.
pub type MariaDb = Instance<Maria>;

/// What is particular to MariaDB.
#[derive(Debug)]
pub enum Maria {}

impl Product for Maria {
    const NAME: &'static str = "MariaDB";
    const PACKAGE: &'static str = "mariadb-server";
    const PROGRAM: &'static str = "mariadbd";
    const FOLDERS: &'static [&'static str] = &["/usr/sbin", "/usr/bin", "/usr/local/sbin", "/usr/local/bin"];
    const USER: &'static str = "mysql";
    const DATABASE: &'static str = "mysql";
    const READY: &'static str = "ready for connections";
    const STOP: Signal = Signal::SIGTERM;
    const DISCARD: Signal = Signal::SIGKILL;

    fn shared() -> &'static OnceLock<MariaDb> {
        static SHARED: OnceLock<MariaDb> = OnceLock::new();
        &SHARED
    }

    fn initialise(server: &MariaDb) -> anyhow::Result<()> {
        // A starting server deletes the temporary tables it finds in its folder: it must not be one that other servers use.
        let temporary = server.file("tmp");
        std::fs::create_dir(&temporary)?;
        give_to(Self::USER, &temporary)?;
        let mut command = Command::new(MariaDb::installed("mariadb-install-db")?);
        command.args(["--no-defaults", "--auth-root-authentication-method=normal", "--skip-test-db"]);
        command.arg(format!("--datadir={}", server.file("data").display()));
        command.arg(format!("--tmpdir={}", temporary.display()));
        if nix::unistd::geteuid().is_root() {
            command.arg(format!("--user={}", Self::USER));
        }
        output_of(&mut command)?;
        Ok(())
    }

    fn command(server: &MariaDb) -> anyhow::Result<Command> {
        let mut command = command_as(Self::USER, &MariaDb::installed("mariadbd")?);
        command.args(["--no-defaults", "--bind-address=127.0.0.1", "--local-infile=1", "--skip-name-resolve"]);
        command.args(["--log-bin=binlog", "--binlog-format=ROW", "--server-id=1", "--innodb-buffer-pool-size=32M"]);
        command.arg("--character-set-server=utf8mb4");
        for (name, file) in [("datadir", "data"), ("tmpdir", "tmp"), ("socket", "socket"), ("pid-file", "pid")] {
            command.arg(format!("--{name}={}", server.file(file).display()));
        }
        command.arg(format!("--port={}", server.port()));
        let flush = if server.options.fsync { "1" } else { "0" };
        command.arg(format!("--innodb-flush-log-at-trx-commit={flush}")).arg(format!("--sync-binlog={flush}"));
        for (name, value) in server.settings() {
            command.arg(format!("--{name}={value}"));
        }
        Ok(command)
    }

    fn client(server: &MariaDb, database: &str, sql: &str) -> anyhow::Result<Command> {
        let mut command = Command::new(MariaDb::installed("mariadb")?);
        command.args(["--no-defaults", "--batch", "--skip-column-names", "--user=root", "--default-character-set=utf8mb4"]);
        command.arg(format!("--socket={}", server.file("socket").display()));
        command.arg(format!("--database={database}")).arg(format!("--execute={sql}"));
        if let Some(password) = &server.options.password {
            command.env("MYSQL_PWD", password);
        }
        Ok(command)
    }

    /// Gives the superuser the password that was asked for: the data is made without one.
    fn prepare(server: &mut MariaDb) -> anyhow::Result<()> {
        let Some(password) = server.options.password.take() else { return Ok(()) };
        // Without name resolution, the socket's localhost and the two loopback addresses are three users.
        let users = ["localhost", "127.0.0.1", "::1"].map(|host| format!("root@'{host}' IDENTIFIED BY '{password}'"));
        server.sql(Self::DATABASE, &format!("ALTER USER IF EXISTS {}", users.join(", ")))?;
        server.options.password = Some(password);
        Ok(())
    }
}

impl MariaDb {
    /// `mysql://root@127.0.0.1:PORT/`, without a password.
    pub fn url(&self) -> String {
        format!("mysql://root@127.0.0.1:{}/", self.port())
    }
}

#[cfg(test)]
mod tests {
    use super::super::Options;
    use super::super::instance::tests::keeps_its_data_over_a_power_cut_and_leaves_nothing_behind;
    use super::*;

    #[test]
    fn it_keeps_its_data_over_a_power_cut_and_leaves_nothing_behind() {
        let options = Options { password: Some("secret".into()), ..Options::default() };
        keeps_its_data_over_a_power_cut_and_leaves_nothing_behind::<Maria>(options);
    }
}
