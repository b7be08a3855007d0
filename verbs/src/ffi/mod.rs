//! What the headers say, as far as it is used: `infiniband/verbs.h` and `rdma/rdma_cma.h` of rdma-core 32 and newer.
//!
//! Names are C's, so that they can be looked up there. Enumerations are plain integers: a value that is not known here
//! must not be undefined behaviour.

mod abi;
mod cm;
#[cfg(test)]
mod layout;
mod values;

pub(crate) use abi::*;
pub(crate) use cm::*;
pub(crate) use values::*;
