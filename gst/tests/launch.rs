//! Both elements in real processes, started by gst-launch-1.0.

mod common;

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use common::*;
use gst::prelude::*;

/// The plugin as gst-launch finds it, in a folder of its own.
struct Plugin {
    folder: PathBuf,
    registry: PathBuf,
}

impl Plugin {
    fn new(place: &Place) -> Self {
        // Cargo puts the library that tests are linked against beside them.
        let tests = std::env::current_exe().expect("the test's own path");
        let library = tests.parent().expect("a folder").join("libgstpagecast.so");
        assert!(library.exists(), "{} is not built", library.display());
        let folder = place.path().join("plugin");
        std::fs::create_dir(&folder).unwrap();
        std::os::unix::fs::symlink(library, folder.join("libgstpagecast.so")).unwrap();
        let plugin = Self { folder, registry: place.path().join("registry") };
        // One process makes the registry; the others find it.
        let inspect = plugin.command("gst-inspect-1.0").arg("pagecastsrc").output();
        assert!(inspect.expect("gst-inspect-1.0").status.success());
        plugin
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("GST_PLUGIN_PATH", &self.folder).env("GST_REGISTRY", &self.registry);
        command
    }

    /// Starts a pipeline, whose output goes to a file of this name.
    fn launch(&self, place: &Place, log: &str, pipeline: &str) -> Launched {
        let output = std::fs::File::create(place.path().join(log)).unwrap();
        let child = self
            .command("gst-launch-1.0")
            .arg("-e")
            .args(pipeline.split_whitespace())
            .stdin(Stdio::null())
            .stdout(output.try_clone().unwrap())
            .stderr(output)
            .spawn()
            .expect("gst-launch-1.0");
        Launched(child)
    }
}

/// A child that is killed if its test ends first.
struct Launched(Child);

impl Launched {
    /// Waits until its pipeline is made.
    fn is_made(&self) {
        let maps = format!("/proc/{}/maps", self.0.id());
        eventually("its elements are made", || {
            std::fs::read_to_string(&maps).unwrap_or_default().contains("libgstpagecast.so")
        });
    }

    fn ends_well(&mut self, log: &Path) {
        let until = Instant::now() + Duration::from_secs(30);
        loop {
            if let Some(status) = self.0.try_wait().unwrap() {
                assert!(status.success(), "{status}: {}", std::fs::read_to_string(log).unwrap());
                return;
            }
            assert!(Instant::now() < until, "still running: {}", std::fs::read_to_string(log).unwrap());
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Launched {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_line_written_for_shmsink_runs_with_the_names_replaced() {
    let place = Place::new();
    let plugin = Plugin::new(&place);
    let socket = place.socket();
    let read = |n: usize| {
        let file = place.path().join(format!("out{n}"));
        let line = format!(
            "pagecastsrc socket-path={socket} is-live=true do-timestamp=true ! \
             video/x-raw,format=I420,width=320,height=240,framerate=30/1 ! queue ! videoconvert ! \
             video/x-raw,format=RGB ! filesink location={}",
            file.display()
        );
        (plugin.launch(&place, &format!("reader{n}"), &line), file)
    };
    let mut readers = [read(0), read(1), read(2)];
    // The writer waits for one of them only.
    readers.iter().for_each(|(reader, _)| reader.is_made());
    let mut writer = plugin.launch(
        &place,
        "writer",
        &format!(
            "videotestsrc num-buffers=120 ! video/x-raw,format=I420,width=320,height=240,framerate=30/1 ! \
             pagecastsink socket-path={socket} shm-size=10000000 wait-for-connection=true perms=384 \
             buffer-time=-1 sync=true"
        ),
    );
    writer.ends_well(&place.path().join("writer"));
    let frame = 320 * 240 * 3;
    for (n, (reader, file)) in readers.iter_mut().enumerate() {
        reader.ends_well(&place.path().join(format!("reader{n}")));
        let size = std::fs::metadata(file).unwrap().len();
        assert!(size > 30 * frame && size % frame == 0, "reader {n} wrote {size} bytes");
    }
}

#[test]
fn what_another_process_reads_is_what_was_written() {
    let place = Place::new();
    let plugin = Plugin::new(&place);
    let file = place.path().join("out");
    let line = format!("pagecastsrc uri={} ! filesink location={}", place.uri(), file.display());
    let mut reader = plugin.launch(&place, "reader", &line);
    let before = "videotestsrc num-buffers=50 pattern=ball ! video/x-raw,format=RGB,width=320,height=240";
    let pipeline = Pipeline::new(&format!(
        "{before} ! pagecastsink name=k sync=false wait-for-connection=true uri={}",
        place.uri()
    ));
    pipeline.play();
    pipeline.eos();
    assert_eq!(pipeline.copied("k"), 0);
    drop(pipeline);
    reader.ends_well(&place.path().join("reader"));
    let direct = place.path().join("direct");
    Pipeline::new(&format!("{before} ! filesink location={}", direct.display())).play().eos();
    assert!(std::fs::read(file).unwrap() == std::fs::read(direct).unwrap(), "other bytes");
}

#[test]
fn a_consumer_in_another_process_has_the_inode_that_was_written() {
    let place = Place::new();
    let plugin = Plugin::new(&place);
    let pipeline = Pipeline::new(&format!(
        "videotestsrc name=w is-live=true ! video/x-raw,format=NV12,width=320,height=240 ! \
         pagecastsink name=k uri={}",
        place.uri()
    ));
    let wrote = inodes_at(&pipeline.element("w").static_pad("src").unwrap());
    pipeline.play();
    let line = format!("pagecastsrc uri={} ! fakesink", place.uri());
    let reader = plugin.launch(&place, "reader", &line);
    let maps = format!("/proc/{}/maps", reader.0.id());
    eventually("the reader has mapped pages, and only pages that were written", || {
        let maps = std::fs::read_to_string(&maps).unwrap_or_default();
        let pages = maps.lines().filter(|line| line.contains("memfd:"));
        let mapped: Vec<(u64, bool)> = pages
            .filter_map(|line| {
                let mut fields = line.split_whitespace();
                let access = fields.nth(1)?;
                Some((fields.nth(2)?.parse().ok()?, access.starts_with("r-")))
            })
            .collect();
        let wrote = wrote.lock().unwrap();
        assert!(mapped.iter().all(|(_, read_only)| *read_only), "{mapped:?}");
        !mapped.is_empty() && mapped.iter().all(|(inode, _)| wrote.contains(inode))
    });
    assert_eq!(pipeline.copied("k"), 0);
}

#[test]
fn both_elements_in_one_process_share_pages() {
    let place = Place::new();
    let publisher = Pipeline::new(&format!(
        "videotestsrc name=w num-buffers=60 ! video/x-raw,format=GRAY8,width=320,height=240 ! \
         pagecastsink sync=false wait-for-connection=true name=k uri={}",
        place.uri()
    ));
    let consumer = Pipeline::new(&format!("pagecastsrc name=r uri={} ! fakesink sync=false", place.uri()));
    let wrote = inodes_at(&publisher.element("w").static_pad("src").unwrap());
    let read = inodes_at(&consumer.element("r").static_pad("src").unwrap());
    consumer.play();
    publisher.play();
    publisher.eos();
    drop(publisher);
    consumer.eos();
    let (wrote, read) = (wrote.lock().unwrap(), read.lock().unwrap());
    assert!(!read.is_empty() && !read.contains(&0) && read.is_subset(&wrote), "{read:?} of {wrote:?}");
}

#[test]
fn a_relay_passes_received_pages_on() {
    let (first, second) = (Place::new(), Place::new());
    let publisher = Pipeline::new(&format!(
        "videotestsrc name=w num-buffers=60 ! video/x-raw,format=GRAY8,width=320,height=240 ! \
         pagecastsink sync=false wait-for-connection=true uri={}",
        first.uri()
    ));
    let relay = Pipeline::new(&format!(
        "pagecastsrc uri={} ! pagecastsink name=k sync=false wait-for-connection=true uri={}",
        first.uri(),
        second.uri()
    ));
    let wrote = inodes_at(&publisher.element("w").static_pad("src").unwrap());
    relay.play();
    publisher.play();
    let mut read = std::collections::BTreeSet::new();
    let frames = each_frame(&subscriber(&second), |frame| {
        read.extend(frame.segments().iter().map(|segment| segment.buffer.identity().unwrap().1));
    });
    assert_eq!(frames, 60);
    assert_eq!(relay.copied("k"), 0);
    let wrote = wrote.lock().unwrap();
    assert!(!read.is_empty() && read.is_subset(&wrote), "{read:?} of {wrote:?}");
}
