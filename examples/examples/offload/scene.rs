//! One run: camera, host 1, host 2, viewer, and what is seen of them.

use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::time::{Duration, Instant};

use pagecast_examples::option;

use super::parts::{Link, Mode, Parts, Place, parts};
use super::process::Process;
use super::report::{Case, Sample};

/// Between two looks at the CPU.
const LOOK: Duration = Duration::from_millis(100);
/// Pictures at the start that do not count: links are made, caches fill.
const FIRST: usize = 10;

/// What is shown.
#[derive(Clone, Debug)]
pub(crate) struct Scene {
    pub(crate) size: (usize, usize),
    pub(crate) fps: u32,
    pub(crate) kilobits: u32,
    /// Pictures that must arrive.
    pub(crate) frames: u64,
    /// Without a picture for so long nothing more is expected.
    pub(crate) patience: Duration,
}

impl Place {
    /// With ports that nobody uses now.
    fn free(kilobits: u32) -> Result<Self, Box<dyn std::error::Error>> {
        let udp = || UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr();
        // Both at once: one alone might be given twice.
        let (camera, viewer) = (UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?, udp()?.port());
        let (there, back) = (TcpListener::bind("127.0.0.1:0")?, TcpListener::bind("127.0.0.1:0")?);
        Ok(Self {
            camera: camera.local_addr()?.port(),
            viewer,
            there: there.local_addr()?.port(),
            back: back.local_addr()?.port(),
            ..Self::fixed(kilobits)?
        })
    }

    /// With the ports of a text that is shown.
    pub(crate) fn fixed(kilobits: u32) -> Result<Self, String> {
        let host = |name: &str| std::env::var(name).unwrap_or_else(|_| "127.0.0.1".to_owned());
        // That of two-hosts.sh, or this host's own.
        let usual = if host("HOST_1").starts_with("127.") { "127.0.0.0/8" } else { "10.77.0.0/24" };
        Ok(Self {
            host_1: host("HOST_1"),
            host_2: host("HOST_2"),
            network: option("--network", usual.to_owned())?,
            camera: 5004,
            viewer: 5006,
            there: 7174,
            back: 7175,
            kilobits,
        })
    }
}

/// The processes of both hosts.
struct Hosts {
    one: Vec<Process>,
    two: Vec<Process>,
}

impl Hosts {
    fn start(parts: &Parts) -> Result<Self, String> {
        let part = |name: &str, on_host_2, text: &String| {
            Process::start(name, on_host_2, &["part".to_owned(), "--pipeline".to_owned(), text.clone()])
        };
        let mut hosts = Self { one: Vec::new(), two: Vec::new() };
        let mut lines = parts.host_1.iter();
        // Whoever serves comes before whoever connects.
        if let Some(line) = lines.next() {
            hosts.one.push(part("host 1", false, line)?);
        }
        for line in &parts.host_2 {
            hosts.two.push(part("host 2", true, line)?);
        }
        for line in lines {
            hosts.one.push(part("host 1, back", false, line)?);
        }
        Ok(hosts)
    }

    /// Fails if one of them has ended.
    fn all_run(&mut self) -> Result<(), String> {
        self.one
            .iter_mut()
            .chain(&mut self.two)
            .try_for_each(|process| process.next(Instant::now()).map(drop))
    }

    /// Seconds of CPU of each host.
    fn cpu(&self) -> [f64; 2] {
        [&self.one, &self.two].map(|host| host.iter().map(Process::cpu).sum())
    }
}

impl Scene {
    /// Plays one mode over one link.
    pub(crate) fn play(&self, mode: Mode, link: &Link) -> Result<Case, Box<dyn std::error::Error>> {
        let place = Place::free(self.kilobits)?;
        let arguments = |role: &str, port: u16| {
            let (width, height) = self.size;
            let text = format!(
                "{role} --port {port} --size {width}x{height} --fps {} --kilobits {}",
                self.fps, self.kilobits
            );
            text.split(' ').map(str::to_owned).collect::<Vec<_>>()
        };
        let mut viewer = Process::start("viewer", false, &arguments("viewer", place.viewer))?;
        let mut hosts = Hosts::start(&parts(mode, link, &place))?;
        let _camera = Process::start("camera", false, &arguments("camera", place.camera))?;
        let mut case = Case::new(mode, link);
        self.watch(&mut viewer, &mut hosts, &mut case)?;
        Ok(case)
    }

    /// Until enough pictures have come.
    fn watch(&self, viewer: &mut Process, hosts: &mut Hosts, case: &mut Case) -> Result<(), String> {
        let (mut last_picture, mut seen) = (Instant::now(), 0);
        let mut next_look = Instant::now() + LOOK;
        let mut before = (Instant::now(), hosts.cpu());
        let mut began = None;
        while case.seen() < self.frames as usize {
            match viewer.next(next_look)? {
                Some(line) => {
                    last_picture = Instant::now();
                    seen += 1;
                    let mut words = line.split(' ').skip(1).map(str::parse::<u64>);
                    let mark = words.next().zip(words.next());
                    match mark {
                        Some((Ok(number), Ok(micros))) => case.picture(number, micros, seen > FIRST),
                        _ => case.wrong += 1,
                    }
                    if began.is_none() && seen > FIRST {
                        began = Some(Instant::now());
                        before = (Instant::now(), hosts.cpu());
                        next_look = Instant::now() + LOOK;
                    }
                }
                None if last_picture.elapsed() > self.patience => {
                    return Err(format!("no picture for {} s, after {seen}", self.patience.as_secs()));
                }
                None => {}
            }
            if let (Some(began), true) = (began, Instant::now() >= next_look) {
                let now = (Instant::now(), hosts.cpu());
                let seconds = now.0.duration_since(before.0).as_secs_f64();
                let cores = [0, 1].map(|host| (now.1[host] - before.1[host]) / seconds);
                case.samples.push(Sample { at: now.0.duration_since(began).as_secs_f64(), seconds, cores });
                before = now;
            }
            if Instant::now() >= next_look {
                next_look = Instant::now() + LOOK;
                hosts.all_run()?;
            }
        }
        Ok(())
    }
}
