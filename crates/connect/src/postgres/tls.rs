//! TLS by rustls, with libpq's modes.

use super::settings::{Settings, SslMode};
use crate::error::{Error, ErrorKind};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use std::path::Path;
use std::sync::Arc;

/// The TLS configuration of a connection; `None` when it shall not use TLS.
pub(super) fn client_config(settings: &Settings) -> Result<Option<Arc<ClientConfig>>, Error> {
    if settings.ssl_mode == SslMode::Disable || settings.is_unix() {
        return Ok(None);
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions();
    let builder = builder.map_err(|source| tls_error("set up TLS", "no usable protocol version", source))?;
    let builder = builder.dangerous().with_custom_certificate_verifier(verifier(settings, provider)?);
    let config = match (&settings.ssl_cert, &settings.ssl_key) {
        (None, None) => builder.with_no_client_auth(),
        (Some(certificate), Some(key)) => {
            let chain = certificates(certificate, "sslcert")?;
            let key_read = PrivateKeyDer::from_pem_file(key).map_err(|source| file_error("sslkey", key, source))?;
            builder.with_client_auth_cert(chain, key_read).map_err(|source| file_error("sslkey", key, source))?
        }
        _ => return Err(Error::config(format!("connection `{}`: `sslcert` and `sslkey` go together", settings.id))),
    };
    Ok(Some(Arc::new(config)))
}

fn verifier(settings: &Settings, provider: Arc<CryptoProvider>) -> Result<Arc<dyn ServerCertVerifier>, Error> {
    let checks_name = match settings.ssl_mode {
        SslMode::Disable | SslMode::Prefer | SslMode::Require => return Ok(Arc::new(Unchecked(provider))),
        SslMode::VerifyCa => false,
        SslMode::VerifyFull => true,
    };
    let mut roots = RootCertStore::empty();
    match &settings.ssl_root_cert {
        Some(path) => {
            for certificate in certificates(path, "sslrootcert")? {
                roots.add(certificate).map_err(|source| file_error("sslrootcert", path, source))?;
            }
        }
        None => {
            let _ = roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    if roots.is_empty() {
        let mut error = Error::config(format!("connection `{}`: no root certificate to verify the server with", settings.id));
        error.hint = Some("set `sslrootcert` to the certificate of the authority that signed the server's".to_owned());
        return Err(error);
    }
    let inner = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build();
    let inner = inner.map_err(|source| tls_error("set up TLS", "the root certificates cannot be used", source))?;
    Ok(if checks_name { inner } else { Arc::new(ChainOnly(inner)) })
}

fn certificates(path: &Path, key: &str) -> Result<Vec<CertificateDer<'static>>, Error> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let read = read.map_err(|source| file_error(key, path, source))?;
    if read.is_empty() {
        return Err(Error::config(format!("`{key}`: {} holds no certificate", path.display())));
    }
    Ok(read)
}

fn file_error(key: &str, path: &Path, source: impl std::error::Error + Send + Sync + 'static) -> Error {
    let mut error = Error::config(format!("`{key}`: cannot use {}: {source}", path.display()));
    error.source = Some(Box::new(source));
    error
}

fn tls_error(operation: &str, message: &str, source: impl std::error::Error + Send + Sync + 'static) -> Error {
    let mut error = Error::new(ErrorKind::Config, operation, message);
    error.source = Some(Box::new(source));
    error
}

/// `prefer` and `require`: encrypted, but whoever answers is believed.
#[derive(Debug)]
struct Unchecked(Arc<CryptoProvider>);

impl ServerCertVerifier for Unchecked {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// `verify-ca`: the chain is checked, the name is not.
#[derive(Debug)]
struct ChainOnly(Arc<WebPkiServerVerifier>);

impl ServerCertVerifier for ChainOnly {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        match self.0.verify_server_cert(certificate, intermediates, name, ocsp, now) {
            Err(rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            other => other,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}
