//! New identities.
#![forbid(unsafe_code)]

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};

use super::folder::{CERTIFICATE, KEY, TRUSTED, failed, steady};
use super::{Fingerprint, Identity, IdentityError, Trusted};

/// A new identity.
#[derive(Clone, Debug)]
pub struct Made {
    /// The certificate's file: what peers need.
    pub certificate: PathBuf,
    /// The folder for those of peers.
    pub trusted: PathBuf,
    /// That of the certificate.
    pub fingerprint: Fingerprint,
}

/// Makes an identity in a folder, and the folder if there is none. One that is there is left alone, unless `replace`;
/// who is trusted stays so.
///
/// # Errors
/// [`IdentityError`]; no identity is changed then, as far as the file system renames two files in a row.
pub fn generate(folder: &Path, name: &str, replace: bool) -> Result<Made, IdentityError> {
    let (key, certificate, trusted) = (folder.join(KEY), folder.join(CERTIFICATE), folder.join(TRUSTED));
    let mut private = DirBuilder::new();
    private.recursive(true).mode(0o700);
    private.create(folder).map_err(failed(folder))?;
    let _lock = lock(folder)?;
    let is_there = |path: &&PathBuf| path.symlink_metadata().is_ok();
    if let Some(there) = [&key, &certificate].into_iter().find(is_there).filter(|_| !replace) {
        return Err(IdentityError::Exists(there.clone()));
    }
    private.create(&trusted).map_err(failed(&trusted))?;
    // What could not be used afterwards is not begun.
    steady(folder, &folder.metadata().map_err(failed(folder))?)?;
    Trusted::folder(&trusted).list()?;
    let (key_pem, certificate_pem) = pair(name).map_err(|error| IdentityError::Make(error.to_string()))?;
    let parts = [write(&key, 0o600, &key_pem)?, write(&certificate, 0o644, &certificate_pem)?];
    for (part, path) in parts.iter().zip([&key, &certificate]) {
        fs::rename(&part.0, path).map_err(failed(path))?;
    }
    let fingerprint = Identity::open(folder)?.fingerprint();
    Ok(Made { certificate, trusted, fingerprint })
}

/// One at a time: the files of two must not be mixed.
fn lock(folder: &Path) -> Result<File, IdentityError> {
    let file = File::open(folder).map_err(failed(folder))?;
    match file.try_lock() {
        Err(TryLockError::WouldBlock) => Err(IdentityError::Busy(folder.to_owned())),
        // Where the file system has no locks there is nothing better.
        Ok(()) | Err(TryLockError::Error(_)) => Ok(file),
    }
}

/// A new key and a certificate that it signs itself, in PEM.
fn pair(name: &str) -> Result<(String, String), rcgen::Error> {
    let key = KeyPair::generate()?;
    let mut parameters = CertificateParams::default();
    parameters.distinguished_name = DistinguishedName::new();
    parameters.distinguished_name.push(DnType::CommonName, name);
    let certificate = parameters.self_signed(&key)?;
    Ok((key.serialize_pem(), certificate.pem()))
}

/// A file on its way; it is gone with this, unless it was renamed.
struct Part(PathBuf);

impl Drop for Part {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// Writes a file beside `path`, whole.
fn write(path: &Path, mode: u32, text: &str) -> Result<Part, IdentityError> {
    let part = Part(path.with_extension("part"));
    // Of an attempt that was killed.
    let _ = fs::remove_file(&part.0);
    let mut options = OpenOptions::new();
    let file = options.write(true).create_new(true).mode(mode).open(&part.0);
    let written = file.and_then(|mut file| file.write_all(text.as_bytes()).and_then(|()| file.sync_all()));
    written.map_err(failed(path))?;
    Ok(part)
}
