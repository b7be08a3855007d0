//! How pictures look, which the kernel keeps in a union and v4l2r does not pass on.

use std::os::fd::OwnedFd;

use v4l2r::QueueType;
use v4l2r::bindings::v4l2_format;
use v4l2r::ioctl;

use crate::color::{Color, Fields};

/// Colours and fields as the driver has them now; nothing is known of them if it does not say.
pub(crate) fn at(fd: &OwnedFd, queue: QueueType) -> (Color, Fields) {
    let Ok(format) = ioctl::g_fmt::<v4l2_format>(fd, queue) else { return Default::default() };
    // SAFETY: for a queue of this kind the kernel fills this part of the union; it is integers only, of which every value
    // is one.
    let (space, encoding, quantization, transfer, field) = unsafe {
        if queue.is_multiplanar() {
            let about = format.fmt.pix_mp;
            let encoding = u32::from(about.__bindgen_anon_1.ycbcr_enc);
            (about.colorspace, encoding, about.quantization.into(), about.xfer_func.into(), about.field)
        } else {
            let about = format.fmt.pix;
            let encoding = about.__bindgen_anon_1.ycbcr_enc;
            (about.colorspace, encoding, about.quantization, about.xfer_func, about.field)
        }
    };
    (Color { space, encoding, quantization, transfer }, Fields::of(field))
}
