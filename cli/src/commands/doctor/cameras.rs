//! Cameras: what they are called, their modes and their settings.

use std::fs;
use std::path::{Path, PathBuf};

use pagecast_camera::device::Control;
use pagecast_camera::{CameraError, Device};

use super::Check;

const NAME: &str = "camera";
/// Settings that are printed of each; `v4l2-ctl --all` has the rest.
const PRINTED: usize = 6;

pub(super) fn checks() -> Vec<Check> {
    let mut nodes: Vec<PathBuf> = fs::read_dir("/dev")
        .into_iter()
        .flatten()
        .flatten()
        .map(|e| e.path())
        .filter(|path| number(path).is_some())
        .collect();
    nodes.sort_by_key(|path| number(path));
    let found: Vec<Check> = nodes.iter().filter_map(|path| check(path)).collect();
    match found.is_empty() {
        true => vec![Check::pass(NAME, "none; `pagecast serve --test` gives a test picture")],
        false => found,
    }
}

fn number(path: &Path) -> Option<u32> {
    path.file_name()?.to_str()?.strip_prefix("video")?.parse().ok()
}

/// `None` for nodes that are no cameras: decoders, metadata, outputs.
fn check(path: &Path) -> Option<Check> {
    let device = match Device::open(path) {
        Ok(device) => device,
        Err(CameraError::NoCamera { .. }) => return None,
        Err(error) => {
            let remedy = "for `pagecast serve --device` and v4l2src this user must be able to open it";
            return Some(Check::warn(NAME, error.to_string(), remedy));
        }
    };
    let controls = device.controls();
    let planes = if device.is_multi_planar() { ", multi-planar" } else { "" };
    let detail = format!(
        "{}: {} ({}{planes}); {}; settings: {}",
        path.display(),
        device.card(),
        device.driver(),
        device.modes(None),
        some(controls.iter().map(of_control))
    );
    Some(Check::pass(NAME, detail))
}

fn of_control(control: &Control) -> String {
    let (least, most, usual) = control.range;
    format!("{} {least}..{most} ({usual})", control.name)
}

/// The first of them, and how many more there are.
fn some(mut items: impl ExactSizeIterator<Item = String>) -> String {
    let more = items.len().saturating_sub(PRINTED);
    let first = items.by_ref().take(PRINTED).collect::<Vec<_>>().join(", ");
    match (first.is_empty(), more) {
        (true, _) => "none".to_owned(),
        (_, 0) => first,
        (_, more) => format!("{first}, {more} more"),
    }
}
