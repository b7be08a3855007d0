//! The sockets between processes: kills, races, other users, and limits that are a process's own.

mod child;
#[path = "../sockets_common/mod.rs"]
mod common;
mod limits;
mod paths;
mod peers;
mod races;
