//! Completion queues.

use std::fmt;
use std::os::fd::{AsFd, BorrowedFd};
use std::ptr::NonNull;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::device::unblock;
use crate::ffi::*;
use crate::table::inline;
use crate::{Device, DeviceError};

/// How long a wait asks the device before it sleeps, at most.
pub const MAX_SPIN: Duration = Duration::from_micros(50);
const MIN_SPIN: Duration = Duration::from_micros(1);
/// Completions fetched at once.
pub(crate) const BATCH: usize = 32;

/// Where work is reported. It belongs to one queue pair.
pub struct CompletionQueue {
    cq: NonNull<ibv_cq>,
    channel: NonNull<ibv_comp_channel>,
    device: Arc<Device>,
    /// How long spinning pays at present.
    spin: Duration,
    /// An event is due, or was asked for: no need to ask again.
    armed: bool,
}

// SAFETY: completion queue and channel may be used from any one thread at a time.
unsafe impl Send for CompletionQueue {}

impl fmt::Debug for CompletionQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CompletionQueue").field("capacity", &self.capacity()).finish_non_exhaustive()
    }
}

impl CompletionQueue {
    /// A queue of at least `capacity` entries.
    pub fn new(device: &Arc<Device>, capacity: u32) -> Result<Self, DeviceError> {
        let limit = device.attributes()?.max_completions;
        if capacity == 0 || capacity > limit {
            return Err(DeviceError::OverLimit {
                device: device.name().into(),
                what: "completion queue entries",
                want: capacity.into(),
                limit: limit.into(),
            });
        }
        // SAFETY: the context is open.
        let channel = unsafe { (device.table.create_comp_channel)(device.context.as_ptr()) };
        let channel = NonNull::new(channel).ok_or_else(|| DeviceError::last("ibv_create_comp_channel"))?;
        // SAFETY: context and channel are alive; vector 0 always exists.
        let cq = unsafe {
            let context = device.context.as_ptr();
            (device.table.create_cq)(context, capacity as i32, std::ptr::null_mut(), channel.as_ptr(), 0)
        };
        let Some(cq) = NonNull::new(cq) else {
            let error = DeviceError::last("ibv_create_cq");
            // SAFETY: made above, used by nothing.
            unsafe { (device.table.destroy_comp_channel)(channel.as_ptr()) };
            return Err(error);
        };
        let queue = Self { cq, channel, device: device.clone(), spin: MIN_SPIN, armed: false };
        unblock(queue.fd())?;
        Ok(queue)
    }

    /// Entries it has.
    pub fn capacity(&self) -> u32 {
        // SAFETY: the CQ lives as long as `self`.
        unsafe { (*self.cq.as_ptr()).cqe }.max(0) as u32
    }

    /// Its device.
    pub fn device(&self) -> &Arc<Device> {
        &self.device
    }

    /// Readable after [`arm`](Self::arm), when something completed.
    pub fn fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the channel, and with it its descriptor, lives as long as `self`.
        unsafe { BorrowedFd::borrow_raw((*self.channel.as_ptr()).fd) }
    }

    pub(crate) fn as_ptr(&self) -> *mut ibv_cq {
        self.cq.as_ptr()
    }

    /// Fetches what is there, and never waits.
    pub(crate) fn fetch(&mut self, into: &mut [ibv_wc; BATCH]) -> Result<usize, DeviceError> {
        // SAFETY: the CQ is alive, `into` writable.
        let count = unsafe { inline::poll_cq(self.cq.as_ptr(), into) };
        usize::try_from(count).map_err(|_| DeviceError::from_errno("ibv_poll_cq", Errno::EIO))
    }

    /// Makes [`fd`](Self::fd) readable at the next completion. What completed before must be fetched after this call, or it
    /// may wait for ever.
    pub fn arm(&mut self) -> Result<(), DeviceError> {
        self.clear_events()?;
        if !self.armed {
            // SAFETY: the CQ is alive.
            let code = unsafe { inline::req_notify_cq(self.cq.as_ptr()) };
            DeviceError::check("ibv_req_notify_cq", code)?;
            self.armed = true;
        }
        Ok(())
    }

    /// Takes all events out of the channel, and never waits.
    fn clear_events(&mut self) -> Result<(), DeviceError> {
        loop {
            let (mut cq, mut context) = (std::ptr::null_mut(), std::ptr::null_mut());
            // SAFETY: the channel is alive and non-blocking; only this CQ uses it.
            if unsafe { (self.device.table.get_cq_event)(self.channel.as_ptr(), &mut cq, &mut context) } != 0
            {
                return match Errno::last() {
                    Errno::EAGAIN => Ok(()),
                    Errno::EINTR => continue,
                    errno => Err(DeviceError::from_errno("ibv_get_cq_event", errno)),
                };
            }
            self.armed = false;
            // SAFETY: one event of this CQ was got above. Destroying the CQ waits for this.
            unsafe { (self.device.table.ack_cq_events)(self.cq.as_ptr(), 1) };
        }
    }

    /// Asks `ready` until it is true, for a short time that grows as long as asking pays. The rest of a wait sleeps.
    pub(crate) fn spin<E>(&mut self, mut ready: impl FnMut(&mut Self) -> Result<bool, E>) -> Result<bool, E> {
        let until = Instant::now() + self.spin;
        loop {
            if ready(self)? {
                self.spin = (self.spin * 2).min(MAX_SPIN);
                return Ok(true);
            }
            if Instant::now() >= until {
                self.spin = (self.spin / 2).max(MIN_SPIN);
                return Ok(false);
            }
            std::hint::spin_loop();
        }
    }

    /// Sleeps until an event comes, at most `timeout`.
    pub(crate) fn sleep(&self, timeout: Duration) -> Result<(), DeviceError> {
        let timeout = PollTimeout::try_from(timeout.as_micros().div_ceil(1000)).unwrap_or(PollTimeout::MAX);
        match poll(&mut [PollFd::new(self.fd().as_fd(), PollFlags::POLLIN)], timeout) {
            Ok(_) | Err(Errno::EINTR) => Ok(()),
            Err(errno) => Err(DeviceError::System { call: "poll", errno }),
        }
    }
}

impl Drop for CompletionQueue {
    fn drop(&mut self) {
        // SAFETY: a queue pair destroys its QP before its completion queue; all events were acknowledged; destroyed once.
        unsafe {
            (self.device.table.destroy_cq)(self.cq.as_ptr());
            (self.device.table.destroy_comp_channel)(self.channel.as_ptr());
        }
    }
}
