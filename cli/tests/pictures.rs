//! `snapshot`.
#![cfg(feature = "gstreamer")]

mod common;

use std::process::Stdio;

use common::{Place, expect_code, finish, stderr};
use pagecast::{Description, Plane};

/// Width, height and the colour of the pixel in the middle.
fn decode(bytes: &[u8]) -> (u32, u32, Vec<u8>) {
    let mut decoder = png::Decoder::new(std::io::Cursor::new(bytes));
    decoder.set_transformations(png::Transformations::normalize_to_color8());
    let mut reader = decoder.read_info().unwrap();
    let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
    let info = reader.next_frame(&mut pixels).unwrap();
    reader.finish().unwrap();
    let (width, height) = (info.width as usize, info.height as usize);
    let (line, samples) = (info.line_size, info.color_type.samples());
    let middle = height / 2 * line + width / 2 * samples;
    (info.width, info.height, pixels[middle..middle + samples].to_vec())
}

#[test]
fn a_snapshot_is_a_picture_of_the_right_size_and_colour() {
    let place = Place::new();
    // Format, size of a frame, the bytes it is filled with, and what colour that is.
    let cases: [(&str, usize, [u8; 4], [u8; 3]); 4] = [
        ("RGBA", 321 * 4 * 241, [200, 100, 50, 255], [200, 100, 50]),
        ("BGRx", 321 * 4 * 241, [200, 100, 50, 0], [50, 100, 200]),
        ("GRAY8", 324 * 241, [90; 4], [90; 3]),
        // Neutral chroma and black: limited range.
        ("NV12", 324 * 242 * 3 / 2, [128; 4], [130; 3]),
    ];
    for (format, size, fill, colour) in cases {
        let caps = format!("video/x-raw, format={format}, width=321, height=241, framerate=30/1");
        let _publishing = place.publish_with(format, &caps, 50, move |lease, _| {
            for four in lease.as_mut_slice()[..size].chunks_mut(4) {
                four.copy_from_slice(&fill[..four.len()]);
            }
            (size, Description::default())
        });
        let path = place.path().join(format!("{format}.png"));
        let output = place.run(&format!("snapshot {format} -o {}", path.display()));
        expect_code(&output, 0);
        let (width, height, pixel) = decode(&std::fs::read(&path).unwrap());
        assert_eq!((width, height), (321, 241), "{format}");
        let pixel: Vec<u8> = if pixel.len() < 3 { vec![pixel[0]; 3] } else { pixel[..3].to_vec() };
        let near = pixel.iter().zip(colour).all(|(a, b)| a.abs_diff(b) <= 3);
        assert!(near, "{format}: {pixel:?} instead of {colour:?}");
    }
}

#[test]
fn foreign_strides_are_kept() {
    let place = Place::new();
    let caps = "video/x-raw, format=GRAY8, width=64, height=48, framerate=30/1";
    let _publishing = place.publish_with("cam0", caps, 50, |lease, _| {
        lease.as_mut_slice()[..20_000].fill(0);
        for line in 0..48 {
            lease.as_mut_slice()[1000 + line * 100..][..64].fill(255);
        }
        let planes = [Plane { offset: 1000, stride: 100 }].into_iter().collect();
        (20_000, Description { planes, ..Description::default() })
    });
    let output = place.run("snapshot cam0 -o -");
    expect_code(&output, 0);
    let (width, height, pixel) = decode(&output.stdout);
    assert_eq!((width, height), (64, 48));
    assert!(pixel.iter().all(|sample| *sample >= 253), "{pixel:?}");
}

#[test]
fn snapshots_that_cannot_be_say_why() {
    let place = Place::new();
    expect_code(&place.run("snapshot cam0"), 3);
    let output = place.run("snapshot cam0 -o picture.tiff");
    expect_code(&output, 2);
    assert!(stderr(&output).contains(".png"), "{}", stderr(&output));
    let _publishing = place.publish("text", "text/x-raw, format=utf8", 7, 100);
    let output = place.run("snapshot text");
    expect_code(&output, 1);
    assert!(stderr(&output).contains("no raw video"), "{}", stderr(&output));
    let mut silent = place.publish("silent", "video/x-raw, format=GRAY8, width=8, height=8", 64, 100);
    silent.pause();
    expect_code(&place.run("snapshot silent --timeout 0.3"), 5);
    let caps = "video/x-raw, format=GRAY8, width=64, height=48, framerate=30/1";
    let _publishing = place.publish("cam1", caps, 64 * 48, 50);
    let output = place.run("snapshot cam1 -o /nonexistent/a.png");
    expect_code(&output, 1);
    assert!(stderr(&output).contains("/nonexistent"), "{}", stderr(&output));
}

#[test]
fn pipe_converts_what_y4m_does_not_have() {
    let place = Place::new();
    let caps = "video/x-raw, format=RGBA, width=321, height=241, framerate=30/1";
    let _publishing = place.publish("cam0", caps, 321 * 4 * 241, 50);
    let mut command = place.command("pipe cam0 --y4m -n 2");
    command.stdout(Stdio::piped());
    let output = finish(command.spawn().unwrap());
    expect_code(&output, 0);
    let header = b"YUV4MPEG2 W321 H241 F30:1 Ip A1:1 C420mpeg2\n";
    assert!(output.stdout.starts_with(header));
    let picture = 321 * 241 + 2 * 161 * 121;
    assert_eq!(output.stdout.len(), header.len() + 2 * (6 + picture));
}
