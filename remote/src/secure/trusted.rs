//! The certificates of those that are trusted.
#![forbid(unsafe_code)]

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use rustls::pki_types::CertificateDer;

use super::folder::{certificates, failed, read_certificates, steady};
use super::{Fingerprint, IdentityError};

/// Certificates in one folder.
pub const MAX_TRUSTED: usize = 1024;

/// Who is trusted: exactly these certificates, whatever stands in them.
#[derive(Clone, Debug)]
pub struct Trusted(Source);

#[derive(Clone, Debug)]
enum Source {
    Folder(PathBuf),
    These(Vec<Fingerprint>),
}

impl Trusted {
    /// The certificates of a folder, in files `*.pem`. It is read at each handshake: who is put there is trusted from
    /// then on, who is taken away makes no new link.
    pub fn folder(path: impl Into<PathBuf>) -> Self {
        Self(Source::Folder(path.into()))
    }

    /// These, in PEM.
    ///
    /// # Errors
    /// [`IdentityError::Content`] if that is not what it holds.
    pub fn these(pem: &[u8]) -> Result<Self, IdentityError> {
        let wrong = || IdentityError::Content { path: "the text".into(), what: "certificate" };
        Ok(Self(Source::These(certificates(pem).ok_or_else(wrong)?.iter().map(Fingerprint::of).collect())))
    }

    /// All of it, as it is now.
    ///
    /// # Errors
    /// [`IdentityError`]: something of it cannot be used.
    pub fn list(&self) -> Result<Vec<Fingerprint>, IdentityError> {
        let folder = match &self.0 {
            Source::These(all) => return Ok(all.clone()),
            Source::Folder(folder) => folder,
        };
        let mut all = Vec::new();
        for path in files(folder)? {
            all.extend(read_certificates(&path)?.iter().map(Fingerprint::of));
            if all.len() > MAX_TRUSTED {
                return Err(IdentityError::TooMany { path: folder.clone(), limit: MAX_TRUSTED });
            }
        }
        Ok(all)
    }

    /// Whether this certificate is among them. A file that cannot be used trusts nobody, and hinders nobody.
    pub(super) fn has(&self, certificate: &CertificateDer<'_>) -> bool {
        let shown = Fingerprint::of(certificate);
        let folder = match &self.0 {
            Source::These(all) => return all.contains(&shown),
            Source::Folder(folder) => folder,
        };
        let told = |error: &IdentityError| tracing::warn!(%error, "not trusted");
        let paths = files(folder).inspect_err(told).unwrap_or_default();
        paths.iter().any(|path| {
            let found = read_certificates(path).inspect_err(told).unwrap_or_default();
            found.iter().any(|certificate| Fingerprint::of(certificate) == shown)
        })
    }

    /// Where a certificate is put so that it is trusted.
    pub(super) fn place(&self) -> String {
        match &self.0 {
            Source::Folder(folder) => folder.display().to_string(),
            Source::These(_) => "what it trusts".to_owned(),
        }
    }
}

/// The files of a folder that count; none where there is no folder.
fn files(folder: &Path) -> Result<Vec<PathBuf>, IdentityError> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(folder)(error)),
    };
    steady(folder, &fs::metadata(folder).map_err(failed(folder))?)?;
    let mut paths = Vec::new();
    for entry in entries {
        let path = entry.map_err(failed(folder))?.path();
        if path.extension().is_some_and(|extension| extension == "pem") {
            paths.push(path);
        }
        if paths.len() > MAX_TRUSTED {
            return Err(IdentityError::TooMany { path: folder.to_owned(), limit: MAX_TRUSTED });
        }
    }
    Ok(paths)
}
