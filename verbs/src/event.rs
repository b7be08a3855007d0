//! What a device reports by itself.

use std::sync::atomic::Ordering;

use crate::ffi::*;
use crate::{Device, DeviceError};

/// Something that happened to a device.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// The device is gone or broken: nothing on it works any more.
    DeviceFailed,
    /// A port can be used.
    PortActive(u8),
    /// A port has lost its link.
    PortDown(u8),
    /// The queue pair of that number is in error, without a completion to say so.
    QueuePairFailed(u32),
    /// A completion queue overran, or its device failed.
    CompletionQueueFailed,
    /// Anything else, by its number in `enum ibv_event_type`.
    Other(u32),
}

impl Device {
    /// Whether the device is gone or broken. It never waits; events that say anything else are read and dropped, so either
    /// this is asked or [`next_event`](Self::next_event).
    pub fn has_failed(&self) -> bool {
        while !self.failed.load(Ordering::Relaxed) {
            match self.next_event() {
                Ok(Some(Event::DeviceFailed)) | Err(DeviceError::Removed { .. }) => {
                    self.failed.store(true, Ordering::Relaxed);
                }
                Ok(Some(_)) => {}
                Ok(None) | Err(_) => return false,
            }
        }
        true
    }

    /// The next event, if there is one. It never waits.
    pub fn next_event(&self) -> Result<Option<Event>, DeviceError> {
        let mut event = ibv_async_event { element: std::ptr::null_mut(), event_type: 0 };
        // SAFETY: the context is open, its descriptor non-blocking, and `event` has C's layout.
        if unsafe { (self.table.get_async_event)(self.context.as_ptr(), &mut event) } != 0 {
            return match nix::errno::Errno::last() {
                nix::errno::Errno::EAGAIN => Ok(None),
                errno => Err(DeviceError::from_errno("ibv_get_async_event", errno)),
            };
        }
        let seen = seen(&event);
        // SAFETY: got above, acknowledged once. Destroying a queue waits for this.
        unsafe { (self.table.ack_async_event)(&mut event) };
        Ok(Some(seen))
    }
}

fn seen(event: &ibv_async_event) -> Event {
    // the union's `port_num` is its first four bytes
    let port = || {
        event.element.addr().to_ne_bytes()[..4].iter().rev().fold(0u32, |n, b| n << 8 | u32::from(*b)) as u8
    };
    match event.event_type {
        IBV_EVENT_DEVICE_FATAL => Event::DeviceFailed,
        IBV_EVENT_PORT_ACTIVE => Event::PortActive(port()),
        IBV_EVENT_PORT_ERR => Event::PortDown(port()),
        IBV_EVENT_QP_FATAL | IBV_EVENT_QP_REQ_ERR | IBV_EVENT_QP_ACCESS_ERR => {
            // SAFETY: for these events the element is the QP, and it is not freed before the event is acknowledged.
            Event::QueuePairFailed(unsafe { (*event.element.cast::<ibv_qp>()).qp_num })
        }
        IBV_EVENT_CQ_ERR => Event::CompletionQueueFailed,
        other => Event::Other(other),
    }
}
