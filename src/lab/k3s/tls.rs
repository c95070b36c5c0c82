//! TLS: the server's side, whose certificate can change while it runs, and the client's.

use std::sync::{Arc, PoisonError, RwLock};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, DigitallySignedStruct, ServerConfig, SignatureScheme};

use super::Failure;
use super::pki::{self, Pair};

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// The serving certificate in use.
#[derive(Debug, Default)]
pub struct Serving(RwLock<Option<Arc<CertifiedKey>>>);

impl Serving {
    pub fn set(&self, pair: &Pair) -> Result<(), Failure> {
        let key = rustls::crypto::ring::sign::any_supported_type(&pki::private_key(&pair.key)?)
            .map_err(Failure::certificate)?;
        let certified = CertifiedKey::new(pki::certificates(&pair.certificate)?, key);
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(certified));
        Ok(())
    }

    pub fn is_set(&self) -> bool {
        self.0.read().unwrap_or_else(PoisonError::into_inner).is_some()
    }
}

impl ResolvesServerCert for Serving {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// A server that asks for client certificates of an authority, and takes callers without one.
pub fn server(client_ca: &str, serving: Arc<Serving>) -> Result<Arc<ServerConfig>, Failure> {
    let verifier = WebPkiClientVerifier::builder_with_provider(pki::roots(client_ca)?, provider())
        .allow_unauthenticated()
        .build()
        .map_err(Failure::certificate)?;
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(Failure::certificate)?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(serving);
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// A client that trusts one authority, or, without one, anybody: only for asking a stranger for its `/cacerts`.
pub fn client(server_ca: Option<&str>, own: Option<&Pair>) -> Result<Arc<ClientConfig>, Failure> {
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(Failure::certificate)?;
    let builder = match server_ca {
        Some(pem) => builder.with_root_certificates(pki::roots(pem)?),
        None => builder.dangerous().with_custom_certificate_verifier(Arc::new(Anybody)),
    };
    let config = match own {
        None => builder.with_no_client_auth(),
        Some(pair) => builder
            .with_client_auth_cert(pki::certificates(&pair.certificate)?, pki::private_key(&pair.key)?)
            .map_err(Failure::certificate)?,
    };
    Ok(Arc::new(config))
}

/// Accepts every certificate: the CA that is fetched this way is checked against the token.
#[derive(Debug)]
struct Anybody;

impl ServerCertVerifier for Anybody {
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
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}
