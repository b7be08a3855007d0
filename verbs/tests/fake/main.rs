//! The rules of ownership and the faults, with a filler that needs no device.

#[path = "../common/cases.rs"]
mod cases;
#[path = "../common/mod.rs"]
mod common;
mod faults;
mod lifetimes;
mod limits;
#[path = "../common/pages.rs"]
mod pages;
mod support;

cases::conformance!(support::scene);
