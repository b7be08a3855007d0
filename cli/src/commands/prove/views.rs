//! Who sees a buffer, where, and whether the pages are those that the publisher has.

use std::collections::BTreeMap;

use pagecast::publisher::{BufferInfo, FaceInfo, Info};
use serde::Serialize;

use super::pages::{self, FileId, Mapped};
use super::verdict::{Evidence, Verdict};

/// Why nothing can be compared of a dma-buf that is mapped.
const HIDDEN: &str = "the kernel shows nobody the page frames of a dma-buf's mapping";

/// A buffer as one process or device sees it.
#[derive(Debug, Serialize)]
pub(super) struct View {
    pub(super) who: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) pid: Option<u32>,
    pub(super) face: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) inode: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) address: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) writable: Option<bool>,
    /// Of the first page.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) page_frame: Option<u64>,
    pub(super) evidence: Evidence,
    #[serde(skip)]
    frames: Vec<Option<u64>>,
}

/// A buffer and all views of it.
#[derive(Debug, Serialize)]
pub(super) struct Seen {
    pub(super) id: u64,
    pub(super) size: u64,
    pub(super) backing: String,
    pub(super) verdict: Verdict,
    pub(super) views: Vec<View>,
}

/// A process that may have mapped buffers.
pub(super) struct Process {
    pub(super) who: String,
    pub(super) pid: u32,
    pub(super) mapped: Vec<Mapped>,
}

/// The processes of a publisher, its subscribers on this host and this command; those that cannot be looked into are
/// told of in `not_seen`.
pub(super) fn processes(info: &Info, not_seen: &mut Vec<String>) -> Vec<Process> {
    let own = std::process::id();
    let mut all = BTreeMap::from([(own, "this command".to_owned())]);
    for subscriber in &info.subscribers {
        match (&subscriber.peer, u32::try_from(subscriber.pid).ok().filter(|pid| *pid > 0)) {
            (Some(peer), _) => not_seen.push(format!(
                "subscriber {} ({}) is at {peer}: what crosses the network is other memory there",
                subscriber.id, subscriber.name
            )),
            (None, None) => not_seen.push(format!(
                "subscriber {} ({}) is in another process namespace",
                subscriber.id, subscriber.name
            )),
            (None, Some(pid)) => {
                all.entry(pid)
                    .or_insert_with(|| format!("subscriber {} ({})", subscriber.id, subscriber.name));
            }
        }
    }
    all.insert(info.publisher.pid, "publisher".to_owned());
    let look = |(pid, who): (u32, String)| match pages::mappings(pid) {
        Ok(mapped) => Some(Process { who, pid, mapped }),
        Err(error) => {
            not_seen
                .push(format!("{who}, process {pid}: {error}; run this as root, or as the user it runs as"));
            None
        }
    };
    all.into_iter().filter_map(look).collect()
}

/// Everything that can be seen of one buffer.
pub(super) fn of(
    buffer: &BufferInfo,
    publisher: u32,
    processes: &[Process],
    importers: &[(u64, Vec<String>)],
) -> Seen {
    let mut views: Vec<View> = Vec::new();
    for process in processes {
        let faces = [("memory", &buffer.memory), ("dma-buf", &buffer.dma_buf)];
        for (face, file) in faces.into_iter().filter_map(|(face, file)| Some((face, file.as_ref()?))) {
            let of_file =
                process.mapped.iter().filter(|mapped| mapped.file == id_of(file) && mapped.offset == 0);
            views.extend(of_file.map(|mapped| mapping(process, face, mapped, buffer)));
        }
    }
    // The publisher's own mapping is what all are compared with.
    views.sort_by_key(|view| view.pid != Some(publisher));
    views.extend(buffer.registrations.iter().map(|registration| registered(registration, buffer, publisher)));
    compare(&mut views, buffer, publisher);
    views.extend(importers_of(buffer, importers));
    let verdict = Verdict::of(views.iter().map(|view| &view.evidence));
    Seen { id: buffer.id, size: buffer.size, backing: buffer.backing.clone(), verdict, views }
}

fn id_of(file: &FaceInfo) -> FileId {
    (file.device, file.inode)
}

fn page() -> u64 {
    let size = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE).ok().flatten();
    size.and_then(|size| u64::try_from(size).ok()).unwrap_or(4096)
}

fn mapping(process: &Process, face: &str, mapped: &Mapped, buffer: &BufferInfo) -> View {
    let bytes = (mapped.end - mapped.start).min(buffer.size);
    let (frames, evidence) = match mapped.dma_buf {
        true => (Vec::new(), Evidence::NotSeen(HIDDEN.to_owned())),
        false => look(process.pid, mapped.start, bytes),
    };
    View {
        who: process.who.clone(),
        pid: Some(process.pid),
        face: face.to_owned(),
        inode: Some(mapped.file.1),
        address: Some(mapped.start),
        writable: Some(mapped.writable),
        page_frame: frames.first().copied().flatten(),
        evidence,
        frames,
    }
}

fn look(pid: u32, address: u64, bytes: u64) -> (Vec<Option<u64>>, Evidence) {
    match pages::frames(pid, address, bytes, page()) {
        Ok(frames) => (frames, Evidence::Reference),
        Err(why) => (Vec::new(), Evidence::NotSeen(why)),
    }
}

/// A registration, at the address that the device was given.
fn registered(
    registration: &pagecast::publisher::RegistrationInfo,
    buffer: &BufferInfo,
    publisher: u32,
) -> View {
    let (frames, evidence) = look(publisher, registration.address, registration.length.min(buffer.size));
    View {
        who: format!("device {}", registration.device),
        pid: None,
        face: "mr".to_owned(),
        inode: None,
        address: Some(registration.address),
        writable: None,
        page_frame: frames.first().copied().flatten(),
        evidence,
        frames,
    }
}

/// Compares all views with the first.
fn compare(views: &mut [View], buffer: &BufferInfo, publisher: u32) {
    let Some((first, others)) = views.split_first_mut() else { return };
    for view in others {
        view.evidence = match &view.evidence {
            Evidence::Reference if !first.frames.is_empty() => {
                Evidence::of_frames(&first.frames, &view.frames)
            }
            Evidence::NotSeen(why) if (&view.face, view.inode) == (&first.face, first.inode) => {
                Evidence::SameFile(why.clone())
            }
            Evidence::NotSeen(_) if view.face == "dma-buf" => Evidence::PublishersDmaBuf,
            Evidence::NotSeen(why) if view.face == "mr" && view.address == buffer.address => {
                Evidence::SameMapping(why.clone())
            }
            Evidence::Reference => Evidence::NotSeen("the publisher's page frames cannot be seen".to_owned()),
            other => other.clone(),
        };
    }
    first.evidence = match first.pid == Some(publisher) {
        true => Evidence::Reference,
        false => {
            Evidence::NotSeen("the publisher's own mapping cannot be seen; compared with this one".to_owned())
        }
    };
}

/// Devices that have imported the dma-buf: the kernel says so of this very inode.
fn importers_of(buffer: &BufferInfo, importers: &[(u64, Vec<String>)]) -> Vec<View> {
    let Some(file) = &buffer.dma_buf else { return Vec::new() };
    let devices = importers.iter().filter(|(inode, _)| *inode == file.inode).flat_map(|(_, names)| names);
    let view = |name: &String| View {
        who: format!("device {name}"),
        pid: None,
        face: "dma-buf (imported)".to_owned(),
        inode: Some(file.inode),
        address: None,
        writable: None,
        page_frame: None,
        evidence: Evidence::PublishersDmaBuf,
        frames: Vec::new(),
    };
    devices.map(view).collect()
}
