//! The demonstration's moving picture: NV12, cheap to draw, easy to recognise.

use std::fs;
use std::io;
use std::path::Path;

use crate::stamp::PAGE;

pub(super) const WIDTH: usize = 1920;
pub(super) const HEIGHT: usize = 1080;
/// Bytes of a frame.
pub(super) const SIZE: usize = WIDTH * HEIGHT * 3 / 2;
/// Pixels by which the picture moves from frame to frame; even, as chroma has half the pixels.
const STEP: usize = 4;
/// Width of the bar that passes over the picture.
const BAR: usize = 240;

/// The picture, twice as wide as needed: a frame is a window of it.
#[derive(Debug)]
pub(super) struct Picture {
    wide: Vec<u8>,
}

impl Picture {
    pub(super) fn new() -> Self {
        let mut wide = vec![0; 2 * SIZE];
        let (luma, chroma) = wide.split_at_mut(2 * WIDTH * HEIGHT);
        for (y, row) in luma.chunks_exact_mut(2 * WIDTH).enumerate() {
            for (x, pixel) in row.iter_mut().enumerate() {
                *pixel = luma_at(x % WIDTH, y);
            }
        }
        for (y, row) in chroma.chunks_exact_mut(2 * WIDTH).enumerate() {
            for (x, pair) in row.chunks_exact_mut(2).enumerate() {
                let across = (2 * x % WIDTH) as f64 / WIDTH as f64 * std::f64::consts::TAU;
                pair[0] = (128.0 + 80.0 * across.cos()) as u8;
                pair[1] = (128.0 + 80.0 * (across + y as f64 / 200.0).sin()) as u8;
            }
        }
        Self { wide }
    }

    /// Draws the picture of this moment.
    pub(super) fn draw(&self, frame: &mut [u8], number: u64) {
        let shift = (number as usize * STEP) % WIDTH;
        for (row, wide) in frame[..SIZE].chunks_exact_mut(WIDTH).zip(self.wide.chunks_exact(2 * WIDTH)) {
            row.copy_from_slice(&wide[shift..shift + WIDTH]);
        }
        let left = (number as usize * 8) % (WIDTH - BAR);
        for row in frame[..WIDTH * HEIGHT].chunks_exact_mut(WIDTH).skip(HEIGHT / 3).take(HEIGHT / 12) {
            row[left..left + BAR].fill(235);
        }
    }
}

/// Slanted stripes over a gradient.
fn luma_at(x: usize, y: usize) -> u8 {
    let stripe = if (x + y) % 160 < 80 { 40 } else { 0 };
    (60 + y * 100 / HEIGHT + stripe) as u8
}

/// A pixel, the nearest one that carries no stamp.
fn sample(frame: &[u8], x: usize, y: usize) -> (u8, u8, u8) {
    let spared = |at: usize| if at % PAGE < 8 { at + 8 } else { at };
    let luma = frame[spared(y * WIDTH + x)];
    let pair = spared(WIDTH * HEIGHT + y / 2 * WIDTH + (x & !1));
    (luma, frame[pair], frame[pair + 1])
}

/// The picture, `factor` times smaller, as RGB.
pub(super) fn small_rgb(frame: &[u8], factor: usize) -> (usize, usize, Vec<u8>) {
    let (width, height) = (WIDTH / factor, HEIGHT / factor);
    let mut rgb = Vec::with_capacity(width * height * 3);
    for y in 0..height {
        for x in 0..width {
            let (luma, u, v) = sample(frame, x * factor, y * factor);
            rgb.extend(to_rgb(luma, u, v));
        }
    }
    (width, height, rgb)
}

/// The picture, `factor` times smaller, as three planes with chroma at half the resolution.
pub(super) fn small_planar(frame: &[u8], factor: usize) -> (usize, usize, Vec<u8>) {
    let (width, height) = ((WIDTH / factor) & !1, (HEIGHT / factor) & !1);
    let mut planes = Vec::with_capacity(width * height * 3 / 2);
    let (mut all_u, mut all_v) = (Vec::new(), Vec::new());
    for y in 0..height {
        for x in 0..width {
            let (luma, u, v) = sample(frame, x * factor, y * factor);
            planes.push(luma);
            if x % 2 == 0 && y % 2 == 0 {
                all_u.push(u);
                all_v.push(v);
            }
        }
    }
    planes.extend(all_u);
    planes.extend(all_v);
    (width, height, planes)
}

/// BT.709, video range.
fn to_rgb(luma: u8, u: u8, v: u8) -> [u8; 3] {
    let (y, u, v) = (1.164 * (f32::from(luma) - 16.0), f32::from(u) - 128.0, f32::from(v) - 128.0);
    [y + 1.793 * v, y - 0.213 * u - 0.533 * v, y + 2.112 * u].map(|value| value.clamp(0.0, 255.0) as u8)
}

/// Writes a PNG that is complete whenever it is there.
pub(super) fn write_png(path: &Path, width: usize, height: usize, rgb: &[u8]) -> io::Result<()> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, width as u32, height as u32);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    encoder.write_header()?.write_image_data(rgb)?;
    let half_done = path.with_extension("part");
    fs::write(&half_done, &bytes)?;
    fs::rename(&half_done, path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stamp;

    #[test]
    fn the_picture_moves_and_stamps_do_not_show() {
        let picture = Picture::new();
        let mut frame = vec![0; SIZE];
        picture.draw(&mut frame, 1);
        let clean = small_rgb(&frame, 4);
        let mut stamped = frame.clone();
        stamp::write(&mut stamped, 1);
        assert_ne!(frame, stamped);
        assert_eq!(small_rgb(&stamped, 4), clean);
        picture.draw(&mut frame, 2);
        assert_ne!(small_rgb(&frame, 4), clean);
    }

    #[test]
    fn small_planes_have_their_sizes() {
        let frame = vec![128; SIZE];
        let (width, height, bytes) = small_planar(&frame, 12);
        assert_eq!((width, height, bytes.len()), (160, 90, 160 * 90 * 3 / 2));
    }
}
