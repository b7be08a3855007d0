//! The testbed's display (`testbed/run -g`), seen from outside: what QEMU shows.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

const CAMERA: &str = "/dev/screen";
/// What runs the display, and imports dma-bufs.
pub const DRIVER: &str = "cirrus";

/// What was seen: lines of red, green and blue.
#[derive(Clone, PartialEq, Eq)]
pub struct Picture {
    /// Pixels of a line.
    pub width: usize,
    /// Lines.
    pub height: usize,
    /// Three bytes for each pixel.
    pub bytes: Vec<u8>,
}

impl Picture {
    /// Reads a binary PPM as QEMU writes it; `None` if it is not whole.
    pub fn parse(ppm: &[u8]) -> Option<Self> {
        let mut lines = ppm.splitn(4, |byte| *byte == b'\n');
        let mut line = || lines.next();
        let (kind, size, depth) = (line()?, std::str::from_utf8(line()?).ok()?, line()?);
        let (width, height) = size.split_once(' ')?;
        let (width, height) = (width.parse().ok()?, height.parse().ok()?);
        let bytes = line()?.to_vec();
        let whole = kind == b"P6" && depth == b"255" && bytes.len() == 3 * width * height;
        whole.then_some(Self { width, height, bytes })
    }

    /// The first pixel in which two pictures of one size differ.
    pub fn differs(&self, other: &Self) -> Option<(usize, usize)> {
        let pixels = |picture: &Self| picture.bytes.chunks_exact(3).map(<[u8]>::to_vec).collect::<Vec<_>>();
        let at = pixels(self).iter().zip(&pixels(other)).position(|(one, other)| one != other)?;
        Some((at % self.width, at / self.width))
    }
}

/// The display, for one test at a time.
#[derive(Debug)]
pub struct Screen {
    camera: File,
    answers: BufReader<File>,
    file: PathBuf,
    _alone: MutexGuard<'static, ()>,
}

impl Screen {
    /// The machine's display; where there is none, the test is skipped.
    pub fn open() -> Option<Self> {
        static ONE: Mutex<()> = Mutex::new(());
        let alone = ONE.lock().unwrap_or_else(PoisonError::into_inner);
        let open = || -> Result<_, String> {
            let share = std::env::var("VM_SHARE").map_err(|_| "there is no testbed around")?;
            let camera = File::options().read(true).write(true).open(CAMERA);
            let camera = camera.map_err(|error| format!("{CAMERA}: {error}"))?;
            let answers = BufReader::new(camera.try_clone().map_err(|error| error.to_string())?);
            Ok((camera, answers, Path::new(&share).join("screen.ppm")))
        };
        let (camera, answers, file) = open().map_err(|why| crate::skip(&why)).ok()?;
        Some(Self { camera, answers, file, _alone: alone })
    }

    /// What it shows now.
    ///
    /// # Panics
    /// If QEMU takes no picture.
    pub fn picture(&mut self) -> Picture {
        let name = self.file.file_name().and_then(|name| name.to_str()).expect("a name");
        self.camera.write_all(format!("{name}\n").as_bytes()).expect("asked for");
        let mut answer = String::new();
        self.answers.read_line(&mut answer).expect("an answer");
        assert_eq!(answer.trim_end(), "ok");
        let ppm = fs::read(&self.file).expect("a picture");
        let _ = fs::remove_file(&self.file);
        Picture::parse(&ppm).expect("a whole PPM")
    }
}

/// The name of the display's device on its bus.
///
/// # Panics
/// If there is none.
pub fn device() -> String {
    let cards = fs::read_dir(format!("/sys/bus/pci/drivers/{DRIVER}")).expect("the driver");
    let names = cards.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
    names.into_iter().find(|name| name.contains(':')).expect("a device")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_is_whole_or_none() {
        let picture = Picture::parse(b"P6\n2 1\n255\nabc\nef").expect("a picture");
        assert_eq!((picture.width, picture.height, &picture.bytes[..]), (2, 1, &b"abc\nef"[..]));
        let other = Picture { bytes: b"abc\neg".to_vec(), ..picture.clone() };
        assert_eq!((picture.differs(&picture), picture.differs(&other)), (None, Some((1, 0))));
        for wrong in
            [&b"P6\n2 1\n255\nabcde"[..], b"P5\n2 1\n255\nabcdef", b"P6\n2 1\n", b"", b"P6\n2\n255\n"]
        {
            assert!(Picture::parse(wrong).is_none());
        }
    }
}
