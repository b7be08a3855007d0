//! The sockets against the kernel, in one process. No test here starts another one: a child process has
//! a copy of all descriptors for a moment, and what was closed here would not be closed yet.

#[path = "../sockets_common/mod.rs"]
mod common;
mod listening;
mod messages;
mod races;
