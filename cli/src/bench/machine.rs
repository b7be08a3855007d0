//! The machine that measured, in words: figures without it mean nothing.

use std::fs;

use serde::Serialize;

/// A description of this machine.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Machine {
    pub(crate) cpu: String,
    pub(crate) cores: usize,
    pub(crate) memory_bytes: u64,
    pub(crate) kernel: String,
    pub(crate) virtual_machine: bool,
    pub(crate) huge_pages_free: u64,
    pub(crate) gstreamer: Option<String>,
    pub(crate) build: &'static str,
    /// Load of the last minute when it began: others that compute disturb the figures.
    pub(crate) load: f64,
}

impl Machine {
    pub(crate) fn describe() -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let cpuinfo = read("/proc/cpuinfo");
        let field = |name: &str| {
            let line = cpuinfo.lines().find(|line| line.starts_with(name))?;
            Some(line.split_once(':')?.1.trim().to_owned())
        };
        let meminfo = read("/proc/meminfo");
        let total = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"));
        let kilobytes = total.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
        Self {
            cpu: field("model name").or_else(|| field("CPU part")).unwrap_or_else(|| "unknown".to_owned()),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            memory_bytes: kilobytes.unwrap_or(0) * 1024,
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            virtual_machine: field("flags").is_some_and(|flags| flags.contains(" hypervisor")),
            huge_pages_free: pagecast::allocators::HugetlbBacking::pages_available(),
            gstreamer: gstreamer(),
            build: if cfg!(debug_assertions) { "debug" } else { "release" },
            load: read("/proc/loadavg").split(' ').next().and_then(|load| load.parse().ok()).unwrap_or(0.0),
        }
    }

    /// One line for people.
    pub(crate) fn line(&self) -> String {
        let vm = if self.virtual_machine { " in a virtual machine" } else { "" };
        let memory = self.memory_bytes as f64 / (1 << 30) as f64;
        let gstreamer = self.gstreamer.as_ref().map_or_else(String::new, |v| format!(", GStreamer {v}"));
        format!(
            "{} x {}{vm}, {memory:.0} GiB, Linux {}{gstreamer}, {} build, load {:.1}",
            self.cores, self.cpu, self.kernel, self.build, self.load
        )
    }
}

#[cfg(feature = "gstreamer")]
fn gstreamer() -> Option<String> {
    let (major, minor, micro, _) = gst::version();
    Some(format!("{major}.{minor}.{micro}"))
}

#[cfg(not(feature = "gstreamer"))]
fn gstreamer() -> Option<String> {
    None
}
