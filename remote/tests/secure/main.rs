//! Identities, and TLS between ends that know each other.

mod ends;
mod files;
mod handshakes;
mod hostile;
