//! `pagecast-independent PATH [FRAMES]`: receives so many frames and says what they were.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use pagecast_independent::{Failure, Hello, Link};

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let Some(path) = arguments.next() else {
        eprintln!("usage: pagecast-independent PATH [FRAMES]");
        return ExitCode::from(2);
    };
    let frames = arguments.next().and_then(|count| count.parse().ok()).unwrap_or(100);
    match run(Path::new(&path), frames) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("{failure}");
            ExitCode::FAILURE
        }
    }
}

fn run(path: &Path, frames: u64) -> Result<(), Failure> {
    let mut link = Link::connect(path, &Hello::default())?;
    println!("welcome to {} ({} credits)", link.welcome.name, link.welcome.credits);
    let mut bytes = 0;
    for _ in 0..frames {
        let frame = link.frame(Duration::from_secs(10))?;
        bytes += frame.bytes().len();
        if link.is_cut() {
            return Err(Failure::Closed);
        }
        link.give_back(&[frame.record.id])?;
    }
    println!("frames {frames}, bytes {bytes}, buffers {}", link.buffers());
    link.bye()
}
