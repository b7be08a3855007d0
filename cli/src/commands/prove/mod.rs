//! `pagecast prove`: whether all see the same pages, shown by what the kernel says.

mod pages;
mod readers;
mod verdict;
mod views;

use std::time::Duration;

use clap::Args;
use pagecast::FaceSet;
use pagecast::publisher::{BufferInfo, FaceInfo, Info};
use serde::Serialize;

use self::readers::Reader;
use self::verdict::{Evidence, Verdict};
use self::views::{Process, Seen};
use super::observe::Observer;
use super::receive::hint;
use crate::address;
use crate::exit::{Exit, Outcome};
use crate::output::{self, Table, bytes};

/// How often a comparison is repeated that found other pages: the kernel may move a page between two looks.
const LOOKS: usize = 3;

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  sudo pagecast prove unix:/run/user/1000/pagecast/cam0.sock
  pagecast prove cam0 --json | jq '.buffers[].views[] | {who, face, inode, evidence}'

It subscribes once for each face, holds a few frames, and compares what the publisher, its subscribers and devices
have mapped: files by their inodes, and pages by their page frame numbers, which the kernel shows to root only. Of
dma-bufs it shows none. What cannot be seen is said. The exit code is 0 if something was compared and all of it is the same, else 1.")]
pub(crate) struct Prove {
    /// The publisher: unix:NAME, unix:/path or NAME; on this host.
    #[arg(value_name = "URI", value_parser = address::parse)]
    uri: String,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    /// Seconds to wait for frames.
    #[arg(long, value_name = "SECONDS", default_value_t = 2.0, value_parser = super::seconds)]
    timeout: f64,
}

#[derive(Debug, Serialize)]
struct Report {
    name: String,
    uri: String,
    pid: u32,
    verdict: Verdict,
    buffers: Vec<Seen>,
    not_seen: Vec<String>,
}

impl Prove {
    pub(crate) fn run(self) -> Outcome {
        let remote = address::Remote::default();
        if !self.uri.starts_with("unix:") {
            return Err(crate::exit::Failure::usage(
                "only pages of this host can be compared: name the publisher by unix:NAME or unix:/path",
            ));
        }
        let patience = Duration::from_secs_f64(self.timeout);
        let observer = Observer::open(&self.uri, false, &remote)?;
        observer.ask(patience).map_err(hint)?;
        let mut readers = vec![
            Reader::open(&self.uri, FaceSet::MEMORY, "memory", &remote)?,
            Reader::open(&self.uri, FaceSet::DMA_BUF, "dma-buf", &remote)?,
        ];
        readers::gather(&mut readers, patience);
        let mut report = look(&observer.ask(patience).map_err(hint)?, &readers);
        for _ in 1..LOOKS {
            if report.verdict == Verdict::Different {
                report = look(&observer.ask(patience).map_err(hint)?, &readers);
            }
        }
        drop(readers);
        if self.json {
            output::json(&report)?;
        } else {
            show(&report)?;
        }
        Ok(match report.verdict {
            Verdict::Same | Verdict::SameAsFarAsSeen => Exit::Ok,
            Verdict::Different | Verdict::NothingSeen => Exit::Failed,
        })
    }
}

fn look(info: &Info, readers: &[Reader]) -> Report {
    let mut not_seen = Vec::new();
    for reader in readers {
        not_seen
            .extend(reader.failed.iter().map(|why| format!("the {} face, by a reader: {why}", reader.face)));
    }
    let processes = views::processes(info, &mut not_seen);
    let importers = pages::importers().unwrap_or_else(|why| {
        not_seen
            .push(format!("which devices have imported dma-bufs: {why}; root can mount debugfs and read it"));
        Vec::new()
    });
    let mut buffers = info.buffers.clone();
    if buffers.is_empty() && readers.iter().any(Reader::sees) {
        not_seen.push(
            "the publisher tells of its buffers only to its own user and to root: faces and registrations are unknown, \
             and files are taken from this command's own mappings"
                .to_owned(),
        );
        buffers = mapped_here(&processes);
    }
    let seen = |buffer: &BufferInfo| views::of(buffer, info.publisher.pid, &processes, &importers);
    let buffers: Vec<Seen> = buffers.iter().map(seen).collect();
    let verdict = Verdict::of(buffers.iter().flat_map(|buffer| &buffer.views).map(|view| &view.evidence));
    Report {
        name: info.name.clone(),
        uri: info.uri.clone(),
        pid: info.publisher.pid,
        verdict,
        buffers,
        not_seen,
    }
}

/// The buffers that this command has mapped.
fn mapped_here(processes: &[Process]) -> Vec<BufferInfo> {
    let own = processes.iter().filter(|process| process.pid == std::process::id());
    let buffer = |(at, mapped): (usize, &pages::Mapped)| {
        let file = Some(FaceInfo { device: mapped.file.0, inode: mapped.file.1, ..FaceInfo::default() });
        let (memory, dma_buf) = if mapped.dma_buf { (None, file) } else { (file, None) };
        BufferInfo {
            id: at as u64,
            size: mapped.end - mapped.start,
            memory,
            dma_buf,
            ..BufferInfo::default()
        }
    };
    own.flat_map(|process| process.mapped.iter().enumerate().map(buffer)).collect()
}

fn show(report: &Report) -> std::io::Result<()> {
    let (name, uri) = (output::plain(&report.name), output::plain(&report.uri));
    output::line(format_args!("publisher {name} at {uri}, process {}", report.pid))?;
    for buffer in &report.buffers {
        output::line(format_args!("\nbuffer {}: {}, {}", buffer.id, bytes(buffer.size), buffer.backing))?;
        views_table(buffer).print()?;
    }
    output::line("")?;
    for why in &report.not_seen {
        output::line(format_args!("not seen: {why}"))?;
    }
    output::line(match report.verdict {
        Verdict::Same => "The pages are the same in every view.",
        Verdict::SameAsFarAsSeen => "The pages are the same in every view that could be compared.",
        Verdict::Different => "The pages are NOT the same.",
        Verdict::NothingSeen => "Nothing could be compared: frames must flow, and processes be open to you.",
    })
}

fn views_table(buffer: &Seen) -> Table {
    let mut table =
        Table::new(["WHO", ">PID", "FACE", ">INODE", ">ADDRESS", "ACCESS", ">PAGE FRAME", "PAGES"]);
    for view in &buffer.views {
        let or_dash = |value: Option<String>| value.unwrap_or_else(|| "-".to_owned());
        table.row([
            view.who.clone(),
            or_dash(view.pid.map(|pid| pid.to_string())),
            view.face.clone(),
            or_dash(view.inode.map(|inode| inode.to_string())),
            or_dash(view.address.map(|address| format!("{address:#x}"))),
            or_dash(view.writable.map(|writable| if writable { "write" } else { "read" }.to_owned())),
            or_dash(view.page_frame.map(|frame| format!("{frame:#x}"))),
            words(&view.evidence),
        ]);
    }
    table
}

fn words(evidence: &Evidence) -> String {
    match evidence {
        Evidence::Reference => "compared with these".to_owned(),
        Evidence::SamePageFrames(count) => format!("the same {count} page frames"),
        Evidence::SameFile(why) => format!("the same file ({why})"),
        Evidence::PublishersDmaBuf => {
            "the publisher's dma-buf; page frames of dma-bufs are hidden".to_owned()
        }
        Evidence::SameMapping(why) => format!("the publisher's own mapping ({why})"),
        Evidence::Different(page) => format!("OTHER PAGES, from page {page} on"),
        Evidence::NotSeen(why) => format!("not seen: {why}"),
    }
}
