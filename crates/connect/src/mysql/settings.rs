//! The settings of a MySQL or MariaDB connection.

use crate::config::{Config, Secret};
use crate::error::Error;
use crate::settings;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::{FutureExt, StreamExt, stream};
use mysql_async::{LocalInfileError, OptsBuilder, SslOpts};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::io::AsyncReadExt;

const KNOWN_SETTINGS: &[&str] =
    &["ssl_mode", "ssl_ca", "ssl_cert", "ssl_key", "connect_timeout", "keepalives_idle", "local_infile", "unix_socket"];

/// Airflow sets these; they steer its own Python drivers, or are as wanted anyway.
const IGNORED_SETTINGS: &[&str] = &["charset", "cursor", "client", "sqlalchemy_scheme", "sqlalchemy_query"];

/// Pieces of a LOAD DATA LOCAL file.
const INFILE_PIECE_BYTES: usize = 64 * 1024;

/// How far TLS goes, as MySQL's client defines it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SslMode {
    Disabled,
    Preferred,
    Required,
    VerifyCa,
    VerifyIdentity,
}

/// Everything that opening a session needs.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub(super) id: String,
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) user: String,
    password: Option<Secret>,
    pub(super) database: Option<String>,
    socket: Option<String>,
    pub(super) ssl_mode: SslMode,
    ssl_ca: Option<PathBuf>,
    ssl_cert: Option<PathBuf>,
    ssl_key: Option<PathBuf>,
    pub(super) connect_timeout: Duration,
    keepalives_idle: Duration,
    /// The folder that LOAD DATA LOCAL may read from; `None` forbids it.
    infile_folder: Option<PathBuf>,
}

impl Settings {
    pub(super) fn read(config: &Config) -> Result<Self, Error> {
        settings::check_keys(config, KNOWN_SETTINGS, IGNORED_SETTINGS)?;
        let text = |field: &Option<String>| field.clone().filter(|text| !text.is_empty());
        let host = text(&config.host).unwrap_or_else(|| "localhost".to_owned());
        let socket =
            settings::text(config, "unix_socket").map(str::to_owned).or_else(|| host.starts_with('/').then(|| host.clone()));
        Ok(Self {
            id: config.id.clone(),
            host,
            port: config.port.unwrap_or(3306),
            user: text(&config.login).unwrap_or_else(|| "root".to_owned()),
            password: config.password.clone(),
            database: text(&config.database),
            socket,
            ssl_mode: ssl_mode(config)?,
            ssl_ca: settings::path(config, "ssl_ca"),
            ssl_cert: settings::path(config, "ssl_cert"),
            ssl_key: settings::path(config, "ssl_key"),
            connect_timeout: settings::seconds(config, "connect_timeout", Duration::from_secs(10))?,
            keepalives_idle: settings::seconds(config, "keepalives_idle", Duration::from_secs(60))?,
            infile_folder: settings::truth(config, "local_infile", false)?.then(|| config.base_dir.clone()),
        })
    }

    /// Where it leads, without the password.
    pub(super) fn target(&self) -> String {
        let place = self.socket.as_ref().map_or_else(|| format!("{}:{}", self.host, self.port), |socket| format!("[{socket}]"));
        format!("mysql://{}@{place}/{}", self.user, self.database.as_deref().unwrap_or_default())
    }

    /// Where the server is.
    pub(super) fn server(&self) -> String {
        self.socket
            .as_ref()
            .map_or_else(|| format!("mysql://{}:{}", self.host, self.port), |socket| format!("mysql://[{socket}]"))
    }

    /// Where the server is looked for, in words.
    pub(super) fn place(&self) -> String {
        match &self.socket {
            Some(socket) => format!("the socket {socket}"),
            None => format!("{} port {}", self.host, self.port),
        }
    }

    /// The operation's name in errors of opening a session.
    pub(super) fn connecting(&self) -> String {
        format!("connect to {} ({})", self.id, self.target())
    }

    /// The driver's options.
    pub(super) fn options(&self, with_tls: bool) -> OptsBuilder {
        // Said at the start and, by the driver, after every reset: a reset restores neither of the two.
        let database = self.database.as_ref().map(|name| format!("; USE {}", quoted(name))).unwrap_or_default();
        let mut options = OptsBuilder::default()
            .ip_or_hostname(self.host.clone())
            .tcp_port(self.port)
            .user(Some(self.user.clone()))
            .pass(self.password.as_ref().map(Secret::expose))
            .db_name(self.database.clone())
            .prefer_socket(false)
            .socket(self.socket.clone())
            .tcp_keepalive(Some(self.keepalives_idle))
            .tcp_nodelay(true)
            .connect_attributes(HashMap::from([("program_name".to_owned(), "backstop".to_owned())]))
            .stmt_cache_size(0)
            .wait_timeout(Some(28_800))
            .setup(vec![format!("SET NAMES utf8mb4{database}")])
            .ssl_opts(if with_tls { Some(self.tls()) } else { None });
        if let Some(folder) = self.infile_folder.clone() {
            options = options.local_infile_handler(Some(move |name: &[u8]| infile(folder.clone(), name)));
        }
        options
    }

    fn tls(&self) -> SslOpts {
        let checks_chain = matches!(self.ssl_mode, SslMode::VerifyCa | SslMode::VerifyIdentity);
        let mut tls = SslOpts::default()
            .with_danger_accept_invalid_certs(!checks_chain)
            .with_danger_skip_domain_validation(self.ssl_mode != SslMode::VerifyIdentity);
        if let Some(path) = &self.ssl_ca {
            tls = tls.with_root_certs(vec![path.clone().into()]).with_disable_built_in_roots(true);
        }
        if let (Some(certificate), Some(key)) = (&self.ssl_cert, &self.ssl_key) {
            tls =
                tls.with_client_identity(Some(mysql_async::ClientIdentity::new(certificate.clone().into(), key.clone().into())));
        }
        tls
    }
}

fn ssl_mode(config: &Config) -> Result<SslMode, Error> {
    match settings::text(config, "ssl_mode").map(|mode| mode.to_ascii_lowercase().replace('-', "_")).as_deref() {
        None | Some("preferred" | "prefer") => Ok(SslMode::Preferred),
        Some("disabled" | "disable") => Ok(SslMode::Disabled),
        Some("required" | "require") => Ok(SslMode::Required),
        Some("verify_ca") => Ok(SslMode::VerifyCa),
        Some("verify_identity" | "verify_full") => Ok(SslMode::VerifyIdentity),
        Some(other) => {
            Err(settings::wrong(config, "ssl_mode", other, "disabled, preferred, required, verify_ca or verify_identity"))
        }
    }
}

type InfileData = stream::BoxStream<'static, std::io::Result<Bytes>>;

/// Opens a file for LOAD DATA LOCAL. The server names the file, and a hostile server may name any: only files below the project's
/// folder are given.
fn infile(folder: PathBuf, name: &[u8]) -> BoxFuture<'static, Result<InfileData, LocalInfileError>> {
    let name = String::from_utf8_lossy(name).into_owned();
    async move {
        let path = inside(&folder, &name).await?;
        let file = tokio::fs::File::open(path).await?;
        let pieces = stream::unfold(Some(file), |file| async {
            let mut file = file?;
            let mut piece = vec![0; INFILE_PIECE_BYTES];
            match file.read(&mut piece).await {
                Ok(0) => None,
                Ok(length) => {
                    piece.truncate(length);
                    Some((Ok(Bytes::from(piece)), Some(file)))
                }
                Err(error) => Some((Err(error), None)),
            }
        });
        Ok(pieces.boxed())
    }
    .boxed()
}

async fn inside(folder: &Path, name: &str) -> Result<PathBuf, LocalInfileError> {
    let folder = tokio::fs::canonicalize(folder).await?;
    let path = tokio::fs::canonicalize(folder.join(name)).await?;
    if path.starts_with(&folder) { Ok(path) } else { Err(LocalInfileError::PathIsNotInTheWhiteList(name.to_owned())) }
}

/// An identifier in backticks.
pub(super) fn quoted(identifier: &str) -> String {
    format!("`{}`", identifier.replace('`', "``"))
}
