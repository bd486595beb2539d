//! From nothing to a session that is ready: socket, TLS, authentication, and the request to cancel.

use super::error::{ServerMessage, lost};
use super::link::{Link, Stream};
use super::settings::{CONNECTION_CHECK, Settings, SslMode};
use crate::error::{Error, ErrorKind};
use fallible_iterator::FallibleIterator;
use postgres_protocol::authentication::md5_hash;
use postgres_protocol::authentication::sasl::{ChannelBinding, SCRAM_SHA_256, ScramSha256};
use postgres_protocol::message::backend::{AuthenticationSaslBody, Message};
use postgres_protocol::message::frontend;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

/// What identifies a backend to the server when its statement shall be cancelled.
#[derive(Clone, Copy)]
pub(super) struct BackendKey {
    pub(super) process_id: i32,
    secret: i32,
}

/// What the server says of itself when a connection begins.
pub(super) struct Greeting {
    pub(super) key: BackendKey,
    /// 15 for `15.4 (Debian 15.4-1)`; 0 when it told nothing that can be read.
    pub(super) major_version: u32,
}

/// Opens a connection and authenticates, within the connect time-out. `lacks_check` is set when the server was seen to refuse
/// [`CONNECTION_CHECK`].
pub(super) async fn open(
    settings: &Settings,
    tls: Option<&Arc<ClientConfig>>,
    lacks_check: &AtomicBool,
) -> Result<(Link, Greeting), Error> {
    let once = async |checks: bool| {
        let mut link = Link::new(transport(settings, tls).await?);
        let greeting = start(&mut link, settings, checks).await?;
        Ok::<_, Error>((link, greeting))
    };
    let opening = async {
        let checks = settings.wants_connection_check() && !lacks_check.load(Ordering::Relaxed);
        match once(checks).await {
            // Older servers, those on systems that cannot tell, and some poolers do not know the setting.
            Err(error) if checks && error.message.contains(CONNECTION_CHECK.0) => {
                lacks_check.store(true, Ordering::Relaxed);
                once(false).await
            }
            opened => opened,
        }
    };
    within_connect_timeout(settings, opening).await
}

/// Asks the server to cancel what a backend is running, and waits until the server has passed the request on.
pub(super) async fn cancel(settings: &Settings, tls: Option<&Arc<ClientConfig>>, key: BackendKey) -> Result<(), Error> {
    let asking = async {
        let mut stream = transport(settings, tls).await?;
        let mut request = bytes::BytesMut::new();
        frontend::cancel_request(key.process_id, key.secret, &mut request);
        let broken = |source| lost(&format!("cancel a statement on {}", settings.id), source);
        stream.write_all(&request).await.map_err(broken)?;
        stream.flush().await.map_err(broken)?;
        // The server sends nothing and closes once the signal is on its way; a reset says the same.
        let _ = stream.read(&mut [0_u8; 1]).await;
        Ok(())
    };
    within_connect_timeout(settings, asking).await
}

async fn within_connect_timeout<T>(settings: &Settings, work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    match timeout(settings.connect_timeout, work).await {
        Ok(outcome) => outcome,
        Err(_) => {
            let message =
                format!("no answer from {} port {} within {:?}", settings.host, settings.port, settings.connect_timeout);
            let mut error = Error::new(ErrorKind::Unreachable, settings.connecting(), message);
            error.hint = Some("check host, port and firewall, or raise `connect_timeout`".to_owned());
            Err(error)
        }
    }
}

async fn transport(settings: &Settings, tls: Option<&Arc<ClientConfig>>) -> Result<Box<dyn Stream>, Error> {
    if settings.is_unix() {
        let path = format!("{}/.s.PGSQL.{}", settings.host, settings.port);
        let stream = UnixStream::connect(&path).await.map_err(|source| unreachable_host(settings, source))?;
        return Ok(Box::new(stream));
    }
    let mut stream =
        TcpStream::connect((settings.host.as_str(), settings.port)).await.map_err(|source| unreachable_host(settings, source))?;
    let keepalive = socket2::TcpKeepalive::new().with_time(settings.keepalives_idle).with_interval(settings.keepalives_interval);
    // Both only make a session better; a socket that refuses them still works.
    let _ = stream.set_nodelay(true);
    let _ = socket2::SockRef::from(&stream).set_tcp_keepalive(&keepalive);
    let Some(tls) = tls else { return Ok(Box::new(stream)) };
    if !server_takes_tls(settings, &mut stream).await? {
        if settings.ssl_mode == SslMode::Prefer {
            return Ok(Box::new(stream));
        }
        let mut error =
            Error::new(ErrorKind::Unreachable, settings.connecting(), "the server does not offer TLS, and `sslmode` demands it");
        error.hint = Some("turn `ssl` on in the server's configuration, or lower `sslmode`".to_owned());
        return Err(error);
    }
    let name = ServerName::try_from(settings.host.clone()).map_err(|_| {
        Error::config(format!("connection `{}`: `{}` is not a host name TLS can check", settings.id, settings.host))
    })?;
    let secured = tokio_rustls::TlsConnector::from(tls.clone()).connect(name, stream).await;
    Ok(Box::new(secured.map_err(|source| tls_failed(settings, source))?))
}

async fn server_takes_tls(settings: &Settings, stream: &mut TcpStream) -> Result<bool, Error> {
    let mut request = bytes::BytesMut::new();
    frontend::ssl_request(&mut request);
    stream.write_all(&request).await.map_err(|source| unreachable_host(settings, source))?;
    match stream.read_u8().await.map_err(|source| unreachable_host(settings, source))? {
        b'S' => Ok(true),
        b'N' => Ok(false),
        _ => Err(Error::new(ErrorKind::Unreachable, settings.connecting(), "what answers there is not PostgreSQL")),
    }
}

fn unreachable_host(settings: &Settings, source: io::Error) -> Error {
    let place = format!("{} port {}", settings.host, settings.port);
    let message = match source.kind() {
        io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound => format!("nothing listens at {place}"),
        io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset => {
            format!("the server at {place} closed the connection at once")
        }
        // Name resolution has no kind of its own.
        _ if source.raw_os_error().is_none() => format!("the host name `{}` cannot be resolved ({source})", settings.host),
        _ => format!("{place} cannot be reached ({source})"),
    };
    let mut error = Error::new(ErrorKind::Unreachable, settings.connecting(), message);
    error.hint = Some("check host and port, and that the server is running".to_owned());
    error.source = Some(Box::new(source));
    error
}

fn tls_failed(settings: &Settings, source: io::Error) -> Error {
    let mut error = Error::new(ErrorKind::Unreachable, settings.connecting(), format!("TLS failed: {source}"));
    let cause = source.get_ref().and_then(|cause| cause.downcast_ref::<rustls::Error>());
    if let Some(rustls::Error::InvalidCertificate(_)) = cause {
        error.hint = Some(
            "set `sslrootcert` to the certificate of the authority that signed the server's, and `host` to a name in it"
                .to_owned(),
        );
    }
    error.source = Some(Box::new(source));
    error
}

/// Startup message, authentication, and the server's greeting up to its first ReadyForQuery.
async fn start(link: &mut Link, settings: &Settings, checks: bool) -> Result<Greeting, Error> {
    let connecting = settings.connecting();
    let ours = [("user", settings.user.as_str()), ("database", settings.database.as_str()), ("client_encoding", "UTF8")];
    let theirs = settings.startup.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    let check = checks.then_some(CONNECTION_CHECK);
    frontend::startup_message(ours.into_iter().chain(theirs).chain(check), link.outbound())
        .map_err(|_| embedded_nul(settings))?;
    let mut scram = None;
    let mut greeting = Greeting { key: BackendKey { process_id: 0, secret: 0 }, major_version: 0 };
    loop {
        match link.next().await.map_err(|source| unreachable_host(settings, source))? {
            // An answer that skips the server's half of SCRAM comes from somebody who does not know the password.
            Message::AuthenticationOk if scram.is_some() => return Err(unexpected(&connecting)),
            Message::AuthenticationOk | Message::NoticeResponse(_) => {}
            Message::ParameterStatus(body) => {
                if body.name().is_ok_and(|name| name == "server_version") {
                    greeting.major_version = body.value().map_or(0, major_version);
                }
            }
            Message::AuthenticationCleartextPassword => {
                frontend::password_message(password(settings)?, link.outbound()).map_err(|_| embedded_nul(settings))?;
            }
            Message::AuthenticationMd5Password(body) => {
                let hash = md5_hash(settings.user.as_bytes(), password(settings)?, body.salt());
                frontend::password_message(hash.as_bytes(), link.outbound()).map_err(|_| embedded_nul(settings))?;
            }
            Message::AuthenticationSasl(body) => scram = Some(begin_scram(link, settings, &body)?),
            Message::AuthenticationSaslContinue(body) => {
                let exchange = scram.as_mut().ok_or_else(|| unexpected(&connecting))?;
                exchange.update(body.data()).map_err(|source| lost(&connecting, source))?;
                frontend::sasl_response(exchange.message(), link.outbound()).map_err(|_| embedded_nul(settings))?;
            }
            Message::AuthenticationSaslFinal(body) => {
                let mut exchange = scram.take().ok_or_else(|| unexpected(&connecting))?;
                exchange.finish(body.data()).map_err(|source| {
                    let mut error =
                        Error::new(ErrorKind::Refused, &connecting, "the server could not prove that it knows the password");
                    error.source = Some(Box::new(source));
                    error
                })?;
            }
            Message::BackendKeyData(body) => {
                greeting.key = BackendKey { process_id: body.process_id(), secret: body.secret_key() };
            }
            Message::ReadyForQuery(_) => return Ok(greeting),
            Message::ErrorResponse(body) => return Err(refused(settings, ServerMessage::read(body.fields()))),
            _ => {
                let message =
                    "the server asks for a way to authenticate that is not supported (SCRAM-SHA-256, MD5 and passwords are)";
                return Err(Error::new(ErrorKind::Refused, connecting, message));
            }
        }
    }
}

fn major_version(version: &str) -> u32 {
    let digits = version.split(|letter: char| !letter.is_ascii_digit()).next().unwrap_or_default();
    digits.parse().unwrap_or(0)
}

fn begin_scram(link: &mut Link, settings: &Settings, body: &AuthenticationSaslBody) -> Result<ScramSha256, Error> {
    let offered = body.mechanisms().any(|mechanism| Ok(mechanism == SCRAM_SHA_256)).unwrap_or(false);
    if !offered {
        return Err(Error::new(ErrorKind::Refused, settings.connecting(), "the server does not offer SCRAM-SHA-256"));
    }
    let scram = ScramSha256::new(password(settings)?, ChannelBinding::unsupported());
    frontend::sasl_initial_response(SCRAM_SHA_256, scram.message(), link.outbound()).map_err(|_| embedded_nul(settings))?;
    Ok(scram)
}

fn password(settings: &Settings) -> Result<&[u8], Error> {
    match &settings.password {
        Some(password) => Ok(password.expose().as_bytes()),
        None => {
            let mut error =
                Error::new(ErrorKind::Refused, settings.connecting(), "the server asks for a password, and none is configured");
            error.hint = Some(format!("set the password of connection `{}`", settings.id));
            Err(error)
        }
    }
}

fn refused(settings: &Settings, message: ServerMessage) -> Error {
    let hint = match message.code.as_str() {
        "28P01" => Some(format!("check the user and the password of connection `{}`", settings.id)),
        "28000" => Some("the server's pg_hba.conf has no matching entry, or the user does not exist".to_owned()),
        "3D000" => Some(format!("create the database `{}`, or correct the connection's database", settings.database)),
        _ => None,
    };
    let mut error = message.into_error(&settings.connecting());
    error.hint = error.hint.or(hint);
    error
}

fn embedded_nul(settings: &Settings) -> Error {
    Error::config(format!("connection `{}`: a setting holds a NUL character", settings.id))
}

pub(super) fn unexpected(operation: &str) -> Error {
    Error::new(ErrorKind::Lost, operation, "the server sent a message that does not belong here")
}
