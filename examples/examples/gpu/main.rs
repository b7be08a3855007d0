//! A GPU without a window imports a publisher's frames, each buffer once, and draws with them. The CPU copies nothing.
//!
//! ```sh
//! cargo run -p pagecast-examples --example gpu -- --uri unix:demo --frames 100 --device /dev/dri/renderD128
//! cargo run -p pagecast-examples --example gpu -- --uri unix:demo --output last.ppm     # Mesa's software device
//! ```
//!
//! A GPU that does not import, or not these pages, is an error that says so.

mod device;
mod drawing;

use std::collections::HashMap;
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use device::{Device, Image};
use drawing::Drawing;
use pagecast::{FaceSet, Frame, Picture, RecvError, Subscriber, SubscriberOptions};
use pagecast_examples::{Outcome, option};

const PATIENCE: Duration = Duration::from_secs(30);
/// Imports that are kept: more buffers than a publisher has under way.
const KEPT: usize = 64;

/// What stands for an import: the buffer of each plane and where the plane is in it.
type Key = (u32, u32, Vec<(u64, u64)>);

fn main() -> Outcome {
    let uri = option("--uri", "unix:demo".to_owned())?;
    let frames = option("--frames", u64::MAX)?;
    let node = option("--device", String::new())?;
    let output = option("--output", String::new())?;
    let device = Device::open((!node.is_empty()).then(|| Path::new(&node)))?;
    let mut drawing = Drawing::new(&device)?;
    println!("drawing with {}", drawing.renderer());
    let options = SubscriberOptions { faces: FaceSet::DMA_BUF, ..SubscriberOptions::default() };
    let subscriber = Subscriber::open(&uri, options)?;
    let (mut images, mut imported, mut drawn) = (HashMap::new(), 0, 0);
    while drawn < frames {
        let frame = match subscriber.next_frame(Some(PATIENCE)) {
            Ok(frame) => frame,
            Err(RecvError::Closed) => break, // the stream's end
            Err(error) => return Err(error.into()),
        };
        imported += draw(&device, &mut drawing, &mut images, &frame)?;
        drawn += 1;
    }
    println!("drawn {drawn} frames, imported {imported} buffers");
    if !output.is_empty() && drawn > 0 {
        let (width, height, pixels) = drawing.pixels()?;
        let mut file = std::fs::File::create(&output)?;
        write!(file, "P6\n{width} {height}\n255\n")?;
        file.write_all(&pixels)?;
    }
    Ok(())
}

/// Draws a frame; how many buffers were imported for it: none that is known.
fn draw(
    device: &Device,
    drawing: &mut Drawing,
    images: &mut HashMap<Key, Image>,
    frame: &Frame,
) -> Result<usize, Box<dyn std::error::Error>> {
    let picture = frame.picture()?;
    let key = key(&picture);
    let known = images.contains_key(&key);
    if !known {
        if images.len() >= KEPT {
            images.clear();
        }
        images.insert(key.clone(), device.import(&picture)?);
    }
    drawing.draw(&images[&key], !known, picture.width, picture.height)?;
    // Only now is what was drawn known to be this frame: it is returned when it is dropped, not before.
    frame.read()?.finish()?;
    Ok(usize::from(!known))
}

fn key(picture: &Picture<'_>) -> Key {
    let planes = picture.planes.iter().map(|plane| (plane.buffer, plane.offset));
    (picture.width, picture.height, planes.collect())
}
