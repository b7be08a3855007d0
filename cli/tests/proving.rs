//! `prove`: what it shows of pages, and what it says where it cannot see.

mod common;

use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use common::{Place, Running, expect_code, json, skip, stdout};
use pagecast::verbs::{Access, ProtectionDomain, Verbs};
use pagecast::{BackingChoice, FaceKind, Pool, PoolOptions, Publisher, PublisherOptions};
use pagecast_tests::importer::{Importer, mount_debugfs};
use pagecast_tests::stamped;
use serde_json::Value;

/// A publisher of stamped frames, until dropped.
struct Publishing {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Publishing {
    fn start(place: &Place, name: &str, pool: PoolOptions, size: usize, prepare: impl FnOnce(&Pool)) -> Self {
        let uri = format!("unix:{}", place.socket(name).display());
        let options = PublisherOptions { name: name.to_owned(), ..PublisherOptions::default() };
        let (publisher, pool) = (Publisher::open(&uri, options).unwrap(), Pool::new(pool));
        publisher.set_pool(&pool);
        prepare(&pool);
        let stop = Arc::new(AtomicBool::new(false));
        let until = stop.clone();
        let thread = std::thread::spawn(move || {
            for number in 0.. {
                if until.load(Ordering::SeqCst) {
                    return;
                }
                publisher.publish(&stamped(&pool, number, size)).unwrap();
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        Self { stop, thread: Some(thread) }
    }
}

impl Drop for Publishing {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// A process that receives, once it does.
fn reader(place: &Place, name: &str) -> Running {
    let child = Running::start(place.command(&format!("recv {name}")));
    common::eventually("it is connected", || {
        place.info(name)["subscribers"].as_array().is_some_and(|all| !all.is_empty())
    });
    child
}

fn views(report: &Value) -> impl Iterator<Item = &Value> {
    report["buffers"].as_array().unwrap().iter().flat_map(|buffer| buffer["views"].as_array().unwrap())
}

fn is_same(view: &Value) -> bool {
    let evidence = &view["evidence"];
    evidence == "reference"
        || ["same-page-frames", "same-file", "same-mapping"].iter().any(|key| evidence.get(key).is_some())
}

#[test]
fn a_subscriber_in_another_process_has_the_publishers_pages() {
    let place = Place::new();
    let pool = PoolOptions { backing: BackingChoice::Memfd, limit: 64 << 20, ..PoolOptions::default() };
    let _publishing = Publishing::start(&place, "cam0", pool, 100_000, |_| ());
    let reader = reader(&place, "cam0");
    let output = place.run("prove cam0 --json --timeout 30");
    expect_code(&output, 0);
    let report = json(&output);
    assert_eq!(report["pid"], std::process::id());
    assert!(["same", "same-as-far-as-seen"].contains(&report["verdict"].as_str().unwrap()), "{report}");
    let memory = || views(&report).filter(|view| view["face"] == "memory");
    assert!(memory().all(is_same), "{report}");
    assert!(views(&report).all(|view| is_same(view) || view["face"] == "dma-buf"), "{report}");
    // One file, in three processes; only the publisher may write.
    for pid in [std::process::id(), reader.0.id()] {
        assert!(memory().any(|view| view["pid"] == pid), "{pid} in {report}");
    }
    assert!(memory().any(|view| view["who"] == "this command"), "{report}");
    assert!(memory().all(|view| (view["who"] == "publisher") == (view["writable"] == true)), "{report}");
    // What cannot be seen here is said.
    let not_seen = report["not_seen"].as_array().unwrap();
    let has_dma_buf = views(&report).any(|view| view["face"] == "dma-buf");
    assert!(has_dma_buf || not_seen.iter().any(|why| why.as_str().unwrap().contains("dma-buf")), "{report}");
    let text = stdout(&place.run("prove cam0 --timeout 30"));
    assert!(text.contains("The pages are the same in every view"), "{text}");
    assert!(has_dma_buf || text.contains("not seen: "), "{text}");
}

#[test]
fn where_nothing_can_be_seen_nothing_is_claimed() {
    let place = Place::new();
    let silent =
        Publisher::open(&format!("unix:{}", place.socket("quiet").display()), PublisherOptions::default());
    let output = place.run("prove quiet --json --timeout 0.3");
    expect_code(&output, 1);
    let report = json(&output);
    assert_eq!(report["verdict"], "nothing-seen");
    assert!(report["not_seen"].to_string().contains("no frame came"), "{report}");
    drop(silent);
    expect_code(&place.run("prove nobody-is-there"), 3);
    expect_code(&place.run("prove tcp://127.0.0.1:9"), 2);
}

#[test]
fn one_pool_of_huge_pages_with_all_its_faces() {
    let address = IpAddr::V4(Ipv4Addr::new(10, 77, 0, 1));
    let device = Verbs::open().map_err(|error| error.to_string());
    let device = match device.and_then(|verbs| verbs.device_for(address).map_err(|error| error.to_string())) {
        Ok((device, _)) => device,
        Err(why) => return skip(&why),
    };
    mount_debugfs();
    let importer = Importer::open().expect("an importer");
    let domain = ProtectionDomain::new(&device).expect("a domain");
    let place = Place::new();
    let pool = PoolOptions { backing: BackingChoice::Hugetlb, limit: 64 << 20, ..PoolOptions::default() };
    let _publishing = Publishing::start(&place, "all", pool, 1 << 20, |pool| {
        pool.register(&domain, Access::Source).expect("registered");
        // More than are in use at a time, so that those that are were imported.
        let leases: Vec<_> = (0..16).map(|_| pool.acquire(1 << 20).expect("huge pages")).collect();
        for lease in &leases {
            importer.import(lease.buffer().face(FaceKind::DmaBuf).expect("a dma-buf").fd.as_fd());
        }
    });
    let _reader = reader(&place, "all");
    let output = place.run("prove all --json --timeout 30");
    expect_code(&output, 0);
    let report = json(&output);
    // The page frames of a dma-buf's mapping are hidden even from root.
    assert_eq!(report["verdict"], "same-as-far-as-seen", "{report:#}");
    for face in ["memory", "mr"] {
        let mut of_face =
            views(&report).filter(|view| view["face"] == face && view["evidence"] != "reference");
        let first = of_face.next().unwrap_or_else(|| panic!("no {face} in {report:#}"));
        assert!(first["evidence"]["same-page-frames"].as_u64() >= Some((1 << 20) / 4096), "{first}");
        assert!(first["page_frame"].as_u64() > Some(0));
        assert!(of_face.all(|view| view["evidence"].get("same-page-frames").is_some()), "{report:#}");
    }
    let named = |who: &str| {
        let mut views = views(&report);
        views.any(|view| view["who"] == who && view["evidence"] == "publishers-dma-buf")
    };
    assert!(named("this command") && named("device vgem"), "{report:#}");
    assert!(report["buffers"].as_array().unwrap().iter().all(|buffer| buffer["backing"] == "hugetlb"));
}
