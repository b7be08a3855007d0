//! Offload: host 1 receives H.264 by UDP and sends it on by UDP, encoded anew; what of the work host 2 does for it
//! is the mode: nothing, decoding, encoding, or both. A barcode in every picture tells which picture it is and when it
//! was drawn, so the viewer at the end knows what is missing and how old each picture is.
//!
//! ```sh
//! examples/two-hosts/two-hosts.sh 'cargo run --release -p pagecast-examples --example offload -- --seconds 10 --out offload'
//! cargo run -p pagecast-examples --example offload -- --modes encode,full --links tcp    # all on one host
//! ```
//!
//! It starts the parts on both hosts (`$ON_HOST_2`, `$HOST_1` and `$HOST_2` are what two-hosts.sh says they are; with
//! `ssh host2` and the hosts' addresses it is two real ones), reads what the kernel says of their CPU, and
//! prints a table. `--out DIR` writes cores.csv, latency.csv and offload.svg there. `--show` prints the pipelines as
//! gst-launch lines instead. Ends with an error if a picture was wrong, missing, or out of order.

mod barcode;
mod chart;
mod parts;
mod process;
mod report;
mod roles;
mod scene;

use std::path::PathBuf;
use std::time::Duration;

use pagecast_examples::{Outcome, flag, option, size};

use parts::{Link, Mode, Place, encode, parts};
use report::Case;
use scene::Scene;

fn main() -> Outcome {
    gst::init()?;
    gstpagecast::plugin_register_static()?;
    let size = size(&option("--size", "640x360".to_owned())?)?;
    if !barcode::fits(size.0, size.1) || size.0 % 2 + size.1 % 2 > 0 {
        return Err(format!("{}x{} has no room for the barcode: take 320x240", size.0, size.1).into());
    }
    let (fps, kilobits) = (option("--fps", 30_u32)?.clamp(1, 240), option("--kilobits", 2000_u32)?);
    let port = option("--port", 0_u16)?;
    match std::env::args().nth(1).as_deref() {
        Some("camera") => roles::camera(port, size, fps, &encode(kilobits)),
        Some("viewer") => roles::viewer(port),
        Some("part") => roles::part(&option("--pipeline", String::new())?),
        _ => run(size, fps, kilobits),
    }
}

/// Plays the modes, one after the other.
fn run(size: (usize, usize), fps: u32, kilobits: u32) -> Outcome {
    let modes = list::<Mode>(&option("--modes", "none,decode,encode,full".to_owned())?)?;
    let links = list::<Link>(&option("--links", "tcp,tcpserversink".to_owned())?)?;
    let frames = option("--frames", u64::from(fps) * option("--seconds", 5_u64)?)?;
    let patience = Duration::from_secs(option("--patience", 30)?);
    let scene = Scene { size, fps, kilobits, frames, patience };
    let mut cases = Vec::new();
    for mode in modes {
        // Where nothing crosses, one link is as good as another.
        let links = if mode == Mode::None { &links[..1] } else { &links[..] };
        for link in links {
            if flag("--show") {
                show(mode, link, kilobits)?;
                continue;
            }
            let case = scene.play(mode, link).map_err(|error| format!("{mode} over {link}: {error}"))?;
            if cases.is_empty() {
                println!("{}", Case::heading());
            }
            println!("{case}");
            cases.push(case);
        }
    }
    let folder = option("--out", String::new())?;
    if !folder.is_empty() {
        report::write(&PathBuf::from(folder), &cases, &scene)?;
    }
    match cases.iter().all(Case::is_right) {
        true => Ok(()),
        false => Err("pictures were wrong, missing, or out of order".into()),
    }
}

fn show(mode: Mode, link: &Link, kilobits: u32) -> Outcome {
    let parts = parts(mode, link, &Place::fixed(kilobits)?);
    for (host, lines) in [("host 1", parts.host_1), ("host 2", parts.host_2)] {
        lines.iter().for_each(|line| println!("{mode} over {link}, {host}: gst-launch-1.0 {line}"));
    }
    Ok(())
}

fn list<T>(text: &str) -> Result<Vec<T>, T::Err>
where
    T: std::str::FromStr,
{
    text.split(',').map(str::parse).collect()
}
