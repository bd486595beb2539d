//! PostgreSQL, over the version 3 protocol.
//!
//! Why not tokio-postgres: it ends every statement with a Sync of its own. A unit that is sent in one round trip would then go on after
//! a failed BEGIN (a cancel request can hit exactly that) and run its statements without a transaction; and a script's own ROLLBACK TO
//! could bring a failed unit back to life before the COMMIT that was already sent. Here a unit is one group of messages with one Sync at
//! its end: the server skips everything after the first error, whatever it was. The messages themselves, SCRAM included, are
//! `postgres-protocol`'s.
//!
//! Reading order: `session` for the traits, `unit` for what commits, `marker` for the table, `link` for the wire, `connect` for
//! opening; `value` and `error` translate.

mod connect;
mod error;
mod link;
mod lookout;
mod marker;
mod prepared;
mod session;
mod settings;
mod tls;
mod unit;
mod value;

use crate::config::Config;
use crate::error::Error;
use crate::lookout::Lookout;
use crate::marker::MarkerTable;
use crate::script::Dialect;
use crate::session::{Capabilities, Connector, Session};
use async_trait::async_trait;
use rustls::ClientConfig;
use session::PostgresSession;
use settings::Settings;
use std::collections::HashMap;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, OnceLock};

/// Opens sessions on one PostgreSQL database.
pub struct PostgresConnector {
    shared: Arc<Shared>,
}

/// What the sessions of one connector have in common.
struct Shared {
    settings: Settings,
    /// Set by the first `open`, which reads the certificate files.
    tls: OnceLock<Option<Arc<ClientConfig>>>,
    /// Marker tables that were seen to exist, with their qualified and quoted names.
    tables: Mutex<HashMap<MarkerTable, String>>,
    /// The server was seen not to know `client_connection_check_interval`.
    lacks_connection_check: AtomicBool,
}

impl Shared {
    fn new(settings: Settings) -> Self {
        let lacks_connection_check = AtomicBool::new(false);
        Self { settings, tls: OnceLock::new(), tables: Mutex::default(), lacks_connection_check }
    }

    fn tls(&self) -> Result<Option<&Arc<ClientConfig>>, Error> {
        if let Some(tls) = self.tls.get() {
            return Ok(tls.as_ref());
        }
        let made = tls::client_config(&self.settings)?;
        Ok(self.tls.get_or_init(|| made).as_ref())
    }
}

impl PostgresConnector {
    /// Reads the settings; connects to nothing.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) when a setting is unknown or wrong.
    pub fn new(config: &Config) -> Result<Self, Error> {
        let settings = Settings::read(config)?;
        Ok(Self { shared: Arc::new(Shared::new(settings)) })
    }
}

#[async_trait]
impl Connector for PostgresConnector {
    fn dialect(&self) -> Dialect {
        Dialect::PostgreSql
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            transactions: true,
            transactional_ddl: true,
            markers: true,
            savepoints: true,
            cancel: true,
            two_phase: true,
        }
    }

    fn target(&self) -> String {
        self.shared.settings.target()
    }

    async fn open(&self) -> Result<Box<dyn Session>, Error> {
        Ok(Box::new(PostgresSession::open(self.shared.clone()).await?))
    }

    fn server(&self) -> String {
        self.shared.settings.server()
    }

    fn has_lookout(&self) -> bool {
        true
    }

    async fn lookout(&self) -> Result<Option<Box<dyn Lookout>>, Error> {
        let shared = Arc::new(Shared::new(self.shared.settings.of_lookout()));
        Ok(Some(Box::new(lookout::PostgresLookout::open(shared).await?)))
    }
}
