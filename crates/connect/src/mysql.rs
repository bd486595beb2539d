//! MySQL and MariaDB, by mysql_async.
//!
//! Statements run one round trip each (text protocol without parameters, prepared with them): an error must be known before the next
//! statement is sent, since some errors roll the transaction back and would leave what follows to commit by itself. Only the marker and
//! the COMMIT go together: the server stops at the first error of such a packet.
//!
//! Reading order: `session` for the traits, `unit` for what commits, `marker` for the table; `value` and `error` translate.

mod error;
mod lookout;
mod marker;
mod prepared;
mod session;
mod settings;
mod unit;
mod value;

use crate::config::Config;
use crate::error::Error;
use crate::lookout::Lookout;
use crate::marker::MarkerTable;
use crate::script::Dialect;
use crate::session::{Capabilities, Connector, Session};
use async_trait::async_trait;
use settings::Settings;
use std::collections::HashSet;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};

/// Opens sessions on one MySQL or MariaDB database.
pub struct MySqlConnector {
    shared: Arc<Shared>,
}

/// What the sessions of one connector have in common.
struct Shared {
    settings: Settings,
    /// The server was seen not to offer TLS, where TLS is only preferred.
    lacks_tls: AtomicBool,
    /// Marker tables that were seen to exist.
    tables: Mutex<HashSet<MarkerTable>>,
}

impl MySqlConnector {
    /// Reads the settings; connects to nothing.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) when a setting is unknown or wrong.
    pub fn new(config: &Config) -> Result<Self, Error> {
        let settings = Settings::read(config)?;
        Ok(Self { shared: Arc::new(Shared { settings, lacks_tls: AtomicBool::new(false), tables: Mutex::default() }) })
    }
}

#[async_trait]
impl Connector for MySqlConnector {
    fn dialect(&self) -> Dialect {
        Dialect::MySql
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            transactions: true,
            transactional_ddl: false,
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
        Ok(Box::new(session::MySqlSession::open(self.shared.clone()).await?))
    }

    fn server(&self) -> String {
        self.shared.settings.server()
    }

    fn has_lookout(&self) -> bool {
        true
    }

    async fn lookout(&self) -> Result<Option<Box<dyn Lookout>>, Error> {
        Ok(Some(Box::new(lookout::MySqlLookout::open(self.shared.clone()).await?)))
    }
}
