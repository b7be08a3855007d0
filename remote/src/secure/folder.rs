//! The files of an identity: who may read and write them, and how long they may be.
#![forbid(unsafe_code)]

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use nix::libc::O_NONBLOCK;
use nix::unistd::geteuid;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::IdentityError;

/// The name of the key's file.
pub const KEY: &str = "key.pem";
/// The name of the certificate's file.
pub const CERTIFICATE: &str = "certificate.pem";
/// The folder of those that are trusted; `*.pem` in it counts.
pub const TRUSTED: &str = "trusted";

/// Bytes of a file.
const MAX_FILE: u64 = 64 * 1024;

pub(super) fn failed(path: &Path) -> impl Fn(io::Error) -> IdentityError + '_ {
    |error| IdentityError::File { path: path.to_owned(), error }
}

/// Reads the key, which nobody else may be able to read.
pub(super) fn read_key(path: &Path) -> Result<PrivateKeyDer<'static>, IdentityError> {
    let file = open(path)?;
    let metadata = file.metadata().map_err(failed(path))?;
    let mode = metadata.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(IdentityError::Readable { path: path.to_owned(), mode });
    }
    owned(path, &metadata)?;
    let pem = read(path, file)?;
    let key = PrivateKeyDer::from_pem_slice(&pem);
    key.map_err(|_| IdentityError::Content { path: path.to_owned(), what: "private key" })
}

/// Reads certificates, which others may read and not change; at least one.
pub(super) fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, IdentityError> {
    let file = open(path)?;
    steady(path, &file.metadata().map_err(failed(path))?)?;
    certificates(&read(path, file)?)
        .ok_or_else(|| IdentityError::Content { path: path.to_owned(), what: "certificate" })
}

/// The certificates in a PEM text; `None` if there is none, or something that is none.
pub(super) fn certificates(pem: &[u8]) -> Option<Vec<CertificateDer<'static>>> {
    let all: Vec<_> = CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>().ok()?;
    let each_is_one = all.iter().all(|der| rustls::server::ParsedCertificate::try_from(der).is_ok());
    (!all.is_empty() && each_is_one).then_some(all)
}

/// Whether somebody else could change this.
pub(super) fn steady(path: &Path, metadata: &Metadata) -> Result<(), IdentityError> {
    let mode = metadata.permissions().mode() & 0o777;
    if mode & 0o022 != 0 {
        return Err(IdentityError::Writable { path: path.to_owned(), mode });
    }
    owned(path, metadata)
}

/// Root may use what is a user's: it could do so anyway.
fn owned(path: &Path, metadata: &Metadata) -> Result<(), IdentityError> {
    let (owner, user) = (metadata.uid(), geteuid().as_raw());
    match owner == user || owner == 0 || user == 0 {
        true => Ok(()),
        false => Err(IdentityError::Foreign { path: path.to_owned(), owner }),
    }
}

fn open(path: &Path) -> Result<File, IdentityError> {
    // A pipe in its place must not make anybody wait.
    OpenOptions::new().read(true).custom_flags(O_NONBLOCK).open(path).map_err(failed(path))
}

fn read(path: &Path, file: File) -> Result<Vec<u8>, IdentityError> {
    let mut bytes = Vec::new();
    file.take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(failed(path))?;
    match bytes.len() as u64 <= MAX_FILE {
        true => Ok(bytes),
        false => Err(failed(path)(io::ErrorKind::FileTooLarge.into())),
    }
}
