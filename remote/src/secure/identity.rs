//! What an end shows of itself, and whom it believes.
#![forbid(unsafe_code)]

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::NoServerSessionStorage;
use rustls::version::TLS13;
use rustls::{ClientConfig, ServerConfig};

use super::folder::{self, CERTIFICATE, KEY, TRUSTED, read_certificates, read_key};
use super::verifier::Verifier;
use super::{Fingerprint, IdentityError, Trusted};

/// What both ends must name, so that a key that serves something else, too, is not misled into this.
const PROTOCOL: &[u8] = b"pagecast";

/// A key, its certificate, and the certificates of those that are trusted. Clones are the same identity.
#[derive(Clone)]
pub struct Identity(Arc<Inner>);

struct Inner {
    fingerprint: Fingerprint,
    trusted: Trusted,
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
}

impl Identity {
    /// The identity in a folder, as `pagecast keygen` makes it: [`KEY`], [`CERTIFICATE`] and the folder [`TRUSTED`].
    ///
    /// # Errors
    /// [`IdentityError`] says what is wrong with which file. Others may not be able to read the key, nor to change
    /// who is trusted.
    pub fn open(folder: impl AsRef<Path>) -> Result<Self, IdentityError> {
        let folder = folder.as_ref();
        let (key, certificate) = (folder.join(KEY), folder.join(CERTIFICATE));
        if !key.exists() && !certificate.exists() {
            return Err(IdentityError::Missing(folder.to_owned()));
        }
        let metadata = folder.metadata().map_err(folder::failed(folder))?;
        folder::steady(folder, &metadata)?;
        let trusted = Trusted::folder(folder.join(TRUSTED));
        // Found now rather than by the first who comes.
        trusted.list()?;
        Self::new(read_certificates(&certificate)?, read_key(&key)?, trusted)
    }

    /// An identity that is in no files: certificate and key in PEM.
    ///
    /// # Errors
    /// [`IdentityError`]: they are not that, or not of one pair.
    pub fn from_pem(certificate: &[u8], key: &[u8], trusted: Trusted) -> Result<Self, IdentityError> {
        let wrong = |what| IdentityError::Content { path: "the text".into(), what };
        let certificates = folder::certificates(certificate).ok_or_else(|| wrong("certificate"))?;
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| wrong("private key"))?;
        Self::new(certificates, key, trusted)
    }

    fn new(
        mut certificates: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
        trusted: Trusted,
    ) -> Result<Self, IdentityError> {
        certificates.truncate(1);
        let fingerprint = certificates.first().map(Fingerprint::of);
        let fingerprint = fingerprint.ok_or_else(|| IdentityError::Pair("no certificate".to_owned()))?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let of_no_use = |error: rustls::Error| IdentityError::Pair(error.to_string());
        let server = server(&provider, &certificates, key.clone_key(), &trusted).map_err(of_no_use)?;
        let client = client(&provider, certificates, key, &trusted).map_err(of_no_use)?;
        Ok(Self(Arc::new(Inner { fingerprint, trusted, server: Arc::new(server), client: Arc::new(client) })))
    }

    /// That of its certificate.
    pub fn fingerprint(&self) -> Fingerprint {
        self.0.fingerprint
    }

    /// Whom it trusts.
    pub fn trusted(&self) -> &Trusted {
        &self.0.trusted
    }

    pub(super) fn server(&self) -> Arc<ServerConfig> {
        self.0.server.clone()
    }

    pub(super) fn client(&self) -> Arc<ClientConfig> {
        self.0.client.clone()
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Identity").field(&self.0.fingerprint).finish()
    }
}

fn server(
    provider: &Arc<CryptoProvider>,
    certificates: &[CertificateDer<'static>],
    key: PrivateKeyDer<'static>,
    trusted: &Trusted,
) -> Result<ServerConfig, rustls::Error> {
    let verifier = Verifier::new(trusted.clone(), provider.signature_verification_algorithms);
    let mut config = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(Arc::new(verifier))
        .with_single_cert(certificates.to_vec(), key)?;
    config.alpn_protocols = vec![PROTOCOL.to_vec()];
    // A session that is resumed shows no certificate: who is not trusted any more would come back by it.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

fn client(
    provider: &Arc<CryptoProvider>,
    certificates: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    trusted: &Trusted,
) -> Result<ClientConfig, rustls::Error> {
    let verifier = Verifier::new(trusted.clone(), provider.signature_verification_algorithms);
    let mut config = ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_client_auth_cert(certificates, key)?;
    config.alpn_protocols = vec![PROTOCOL.to_vec()];
    config.resumption = Resumption::disabled();
    config.enable_sni = false;
    Ok(config)
}
