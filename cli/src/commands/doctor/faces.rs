//! What each face of each backing gives on this machine, tried with a buffer of each.

use std::os::fd::AsFd;
use std::sync::Arc;

use pagecast::allocators::{Backing, BackingKind, Buffer, FaceAbsent, foreign, open};
use pagecast::registration::ensure;
use pagecast::verbs::{Access, ProtectionDomain, Verbs};
use pagecast::{BackingChoice, FaceKind, Wants};
use serde::Serialize;

use crate::output::{self, Table};

const SIZE: usize = 1 << 16;

/// The faces of a buffer of one backing.
#[derive(Debug, Serialize)]
pub(super) struct Faces {
    backing: &'static str,
    memory: Given,
    #[serde(rename = "dma-buf")]
    dma_buf: Given,
    mr: Given,
}

/// What a face gives: `enforced`, `cooperative`, or the RDMA devices that can send from it; else why it is not there.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Given {
    Gives(String),
    /// Such buffers never have it.
    None,
    NotHere(String),
}

impl Given {
    fn not_here(why: impl ToString) -> Self {
        Self::NotHere(why.to_string())
    }

    fn cell(&self) -> String {
        match self {
            Self::Gives(what) => what.clone(),
            Self::None => "none".to_owned(),
            Self::NotHere(_) => "not here".to_owned(),
        }
    }
}

/// The RDMA devices, or why there are none.
type Domains = Result<Vec<(String, Arc<ProtectionDomain>)>, String>;

/// One row for each backing that a pool can have, and for what others made.
pub(super) fn all() -> Vec<Faces> {
    let domains = domains();
    let own = |name, choice| Faces::of(name, &allocate(choice), &domains);
    let given = |name, face| Faces::of(name, &imported(face), &domains);
    vec![
        own("memfd", BackingChoice::Memfd),
        own("hugetlb", BackingChoice::Hugetlb),
        own("dma-heap", BackingChoice::DmaHeap("system".to_owned())),
        own("drm-dumb", BackingChoice::DrmDumb(None)),
        given("imported memfd", FaceKind::Memory),
        given("imported dma-buf", FaceKind::DmaBuf),
    ]
}

fn allocate(choice: BackingChoice) -> Result<Buffer, String> {
    let backing = open(choice);
    let buffer = backing.allocate(SIZE, &Wants::default()).map_err(|error| error.to_string())?;
    // Ordinary pages in the place of huge ones would answer another question.
    match backing.fallbacks().pop() {
        Some(fallback) => Err(fallback.reason),
        None => Ok(buffer),
    }
}

/// A buffer as another program gives it to us: one face of it.
fn imported(kind: FaceKind) -> Result<Buffer, String> {
    let buffer = allocate(BackingChoice::Memfd)?;
    let face = buffer
        .face(kind)
        .ok_or_else(|| buffer.absent(kind).map_or_else(String::new, |why| why.to_string()))?;
    foreign::import(face.fd.as_fd()).map_err(|error| error.to_string())
}

fn domains() -> Domains {
    let verbs = Verbs::open().map_err(|error| error.to_string())?;
    let names = verbs.devices().map_err(|error| error.to_string())?;
    if names.is_empty() {
        return Err("there is no RDMA device".to_owned());
    }
    let domain = |name: String| {
        let device = verbs.open_device(&name).map_err(|error| format!("{name}: {error}"))?;
        let domain = ProtectionDomain::new(&device).map_err(|error| format!("{name}: {error}"))?;
        Ok((name, domain))
    };
    names.into_iter().map(domain).collect()
}

impl Faces {
    fn of(backing: &'static str, buffer: &Result<Buffer, String>, domains: &Domains) -> Self {
        let face = |kind| match buffer {
            Ok(buffer) => descriptor(buffer, kind),
            Err(why) => Given::not_here(why),
        };
        let mr = match buffer {
            Ok(buffer) => registered(buffer, domains),
            Err(why) => Given::not_here(why),
        };
        Self { backing, memory: face(FaceKind::Memory), dma_buf: face(FaceKind::DmaBuf), mr }
    }

    /// What is not here, and why; the backing as a whole where nothing of it is.
    fn missing(&self) -> Vec<(String, &str)> {
        let faces = [("memory", &self.memory), ("dma-buf", &self.dma_buf), ("mr", &self.mr)];
        let missing = faces.into_iter().filter_map(|(face, given)| match given {
            Given::NotHere(why) => Some((format!("{} ({face})", self.backing), why.as_str())),
            _ => None,
        });
        let missing: Vec<_> = missing.collect();
        match missing.as_slice() {
            [(_, why), rest @ ..] if rest.len() == 2 && rest.iter().all(|(_, other)| other == why) => {
                vec![(self.backing.to_owned(), why)]
            }
            _ => missing,
        }
    }
}

fn descriptor(buffer: &Buffer, kind: FaceKind) -> Given {
    match (buffer.face(kind), buffer.absent(kind)) {
        (Some(face), _) => Given::Gives(face.access.to_string()),
        (None, Some(FaceAbsent::NotOfThisBacking { .. })) => Given::None,
        // Others' memfds are not ours to make more of.
        (None, Some(FaceAbsent::NotWanted)) if buffer.backing() == BackingKind::Imported => Given::None,
        (None, why) => Given::NotHere(why.map_or_else(String::new, |why| why.to_string())),
    }
}

/// The devices that can send from the pages as they are, without a copy.
fn registered(buffer: &Buffer, domains: &Domains) -> Given {
    let domains = match domains {
        Ok(domains) => domains,
        Err(why) => return Given::not_here(why),
    };
    let tried = domains.iter().map(|(name, domain)| (name, ensure(buffer, domain, Access::Source)));
    let (can, cannot): (Vec<_>, Vec<_>) = tried.partition(|(_, tried)| tried.is_ok());
    let names = |of: &[(&String, _)]| of.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(", ");
    if !can.is_empty() {
        return Given::Gives(names(&can));
    }
    let why = cannot
        .first()
        .and_then(|(_, tried)| tried.as_ref().err())
        .map_or_else(String::new, ToString::to_string);
    Given::NotHere(format!("{}: {why}; such frames are copied once for RDMA", names(&cannot)))
}

/// The table, and below it why something is not here, each reason once.
pub(super) fn print(all: &[Faces]) -> std::io::Result<()> {
    let mut table = Table::new(["BACKING", "MEMORY", "DMA-BUF", "MR"]);
    let mut reasons: Vec<(String, &str)> = Vec::new();
    for row in all {
        table.row([row.backing.to_owned(), row.memory.cell(), row.dma_buf.cell(), row.mr.cell()]);
        for (place, why) in row.missing() {
            match reasons.iter_mut().find(|(_, known)| *known == why) {
                Some((places, _)) => *places += &format!(", {place}"),
                None => reasons.push((place, why)),
            }
        }
    }
    output::line("\nWhat each face of each backing gives here (enforced: nobody but its owner can write):")?;
    table.print()?;
    for (places, why) in reasons {
        output::line(format_args!("  not here: {places}: {why}"))?;
    }
    Ok(())
}
