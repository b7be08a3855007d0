//! How the subscriber learns that a place is filled: by an immediate, or by a message where a device has none.

use std::sync::Arc;

use pagecast_allocators::{Backing, BackingChoice, Buffer, Wants, open};
use pagecast_verbs::{Access, MemoryRegion, ProtectionDomain, Slice};

use super::RdmaError;
use super::places::MAX_GRANTS;
use crate::{LinkError, registration};

/// What both ends have agreed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bell {
    /// A write of no bytes with an immediate, the number.
    Immediate,
    /// A message, the number.
    Message,
}

/// Bytes of a number.
const NUMBER: usize = 4;

/// Registered memory for the numbers of as many places as are open at a time.
pub(super) struct Numbers {
    region: Arc<MemoryRegion>,
    buffer: Buffer,
}

impl Numbers {
    /// To be sent from, or received into.
    pub(super) fn new(domain: &Arc<ProtectionDomain>, access: Access) -> Result<Self, LinkError> {
        let no_pages = |error: &dyn std::fmt::Display| LinkError::NoPages(error.to_string());
        let buffer = open(BackingChoice::Memfd).allocate(MAX_GRANTS * NUMBER, &Wants::default());
        let buffer = buffer.map_err(|error| no_pages(&error))?;
        let mapping = buffer.share_mapping().ok_or_else(|| no_pages(&"pages that are not mapped"))?;
        let region = registration::register(domain, mapping, access).map_err(RdmaError::from)?;
        Ok(Self { region, buffer })
    }

    /// Where a number is. Of the places that are open at a time no two have the same.
    pub(super) fn slice(&self, at: u32) -> Slice<'_> {
        Slice { region: &self.region, offset: offset(at) as u64, length: NUMBER as u32 }
    }

    pub(super) fn write(&self, at: u32, number: u32) -> Result<(), LinkError> {
        let copied =
            self.buffer.mapping().map(|mapping| mapping.copy_from(offset(at), &number.to_le_bytes()));
        copied.and_then(Result::ok).ok_or_else(|| LinkError::NoPages("pages that are not mapped".to_owned()))
    }

    pub(super) fn read(&self, at: u32) -> Result<u32, LinkError> {
        let mut bytes = [0; NUMBER];
        let copied = self.buffer.mapping().map(|mapping| mapping.copy_to(offset(at), &mut bytes));
        copied
            .and_then(Result::ok)
            .ok_or_else(|| LinkError::NoPages("pages that are not mapped".to_owned()))?;
        Ok(u32::from_le_bytes(bytes))
    }
}

fn offset(at: u32) -> usize {
    at as usize % MAX_GRANTS * NUMBER
}
