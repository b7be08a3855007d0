//! Identifiers and their event channels.

use std::ffi::CStr;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::BorrowedFd;
use std::ptr::NonNull;
use std::time::Duration;

use arrayvec::ArrayVec;
use nix::errno::Errno;
use nix::sys::socket::{SockaddrLike, SockaddrStorage};

use super::{Cm, address};
use crate::device::unblock;
use crate::ffi::*;
use crate::{CmError, DeviceError};

/// Private data of an event: its length is one byte.
pub(super) type Private = ArrayVec<u8, 255>;

/// Where events come out.
struct Channel {
    channel: NonNull<rdma_event_channel>,
    cm: Cm,
}

impl Channel {
    fn new(cm: &Cm) -> Result<Self, CmError> {
        // SAFETY: it has no preconditions.
        let channel = unsafe { (cm.table.create_event_channel)() };
        let channel = NonNull::new(channel).ok_or_else(|| match Errno::last() {
            Errno::ENODEV | Errno::ENOENT | Errno::ENOSYS => CmError::NoManager,
            errno => DeviceError::from_errno("rdma_create_event_channel", errno).into(),
        })?;
        let channel = Self { channel, cm: *cm };
        unblock(channel.fd())?;
        Ok(channel)
    }

    fn fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the channel, and with it its descriptor, lives as long as `self`.
        unsafe { BorrowedFd::borrow_raw((*self.channel.as_ptr()).fd) }
    }
}

impl Drop for Channel {
    fn drop(&mut self) {
        // SAFETY: its identifier was destroyed before (`Id`), every event was acknowledged; destroyed once.
        unsafe { (self.cm.table.destroy_event_channel)(self.channel.as_ptr()) };
    }
}

/// An event, copied out.
pub(super) struct Event {
    pub(super) kind: u32,
    pub(super) status: i32,
    /// Of a request: who asks.
    pub(super) request: Option<(Id, Private)>,
}

/// One end of a connection, or what listens. It owns its channel, and no other identifier uses that.
pub(super) struct Id {
    id: NonNull<rdma_cm_id>,
    channel: Channel,
}

// SAFETY: librdmacm is thread-safe, and nothing of it is bound to a thread; the structure is read by who has the `Id`.
unsafe impl Send for Id {}

impl Id {
    pub(super) fn new(cm: &Cm) -> Result<Self, CmError> {
        let channel = Channel::new(cm)?;
        let mut id = std::ptr::null_mut();
        // SAFETY: the channel is alive, and kept with what is made here.
        let code = unsafe {
            (cm.table.create_id)(channel.channel.as_ptr(), &mut id, std::ptr::null_mut(), RDMA_PS_TCP)
        };
        DeviceError::check("rdma_create_id", code)?;
        let id = NonNull::new(id).ok_or_else(|| DeviceError::last("rdma_create_id"))?;
        Ok(Self { id, channel })
    }

    /// Takes over an identifier that came with a request, on a channel of its own.
    fn requested(cm: &Cm, id: NonNull<rdma_cm_id>) -> Result<Self, CmError> {
        let channel = Channel::new(cm).inspect_err(|_| {
            // SAFETY: the event that brought it was acknowledged; nobody else has it.
            unsafe { (cm.table.destroy_id)(id.as_ptr()) };
        })?;
        // SAFETY: both are alive, and no event of the identifier waits to be acknowledged.
        let code = unsafe { (cm.table.migrate_id)(id.as_ptr(), channel.channel.as_ptr()) };
        let id = Self { id, channel };
        DeviceError::check("rdma_migrate_id", code)?;
        Ok(id)
    }

    fn cm(&self) -> &Cm {
        &self.channel.cm
    }

    /// Readable when there are events.
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.channel.fd()
    }

    /// The name of the device that it is bound to, if it is.
    pub(super) fn device(&self) -> Option<String> {
        // SAFETY: the identifier is alive; the context, where there is one, is the library's and never closed.
        let context = NonNull::new(unsafe { (*self.id.as_ptr()).verbs })?;
        // SAFETY: as above; devices are named by a C string inside of them.
        let name = unsafe { CStr::from_ptr((self.cm().verbs.get_device_name)((*context.as_ptr()).device)) };
        Some(name.to_string_lossy().into_owned())
    }

    /// Our port.
    pub(super) fn port(&self) -> u16 {
        // SAFETY: the identifier is alive, and written by calls on it only.
        address::read(unsafe { &(*self.id.as_ptr()).src }).map_or(0, |address| address.port())
    }

    /// The other end.
    pub(super) fn peer(&self) -> Option<SocketAddr> {
        // SAFETY: as above.
        address::read(unsafe { &(*self.id.as_ptr()).dst })
    }

    /// Binds it to an address of this machine, at a free port.
    pub(super) fn bind(&self, own: IpAddr) -> Result<(), CmError> {
        let address = SockaddrStorage::from(SocketAddr::new(own, 0));
        // SAFETY: the identifier is alive, and the address during the call.
        let code = unsafe { (self.cm().table.bind_addr)(self.id.as_ptr(), address.as_ptr()) };
        DeviceError::check("rdma_bind_addr", code).map_err(|error| no_device(own, error))
    }

    /// Waits for requests.
    pub(super) fn listen(&self, backlog: i32) -> Result<(), CmError> {
        // SAFETY: the identifier is alive and bound.
        let code = unsafe { (self.cm().table.listen)(self.id.as_ptr(), backlog) };
        Ok(DeviceError::check("rdma_listen", code)?)
    }

    /// Begins to look where `to` is.
    pub(super) fn resolve(&self, own: IpAddr, to: SocketAddr, limit: Duration) -> Result<(), CmError> {
        let (own_address, to) = (SockaddrStorage::from(SocketAddr::new(own, 0)), SockaddrStorage::from(to));
        // SAFETY: the identifier is alive, and the addresses during the call.
        let code = unsafe {
            (self.cm().table.resolve_addr)(
                self.id.as_ptr(),
                own_address.as_ptr(),
                to.as_ptr(),
                milliseconds(limit),
            )
        };
        DeviceError::check("rdma_resolve_addr", code).map_err(|error| no_device(own, error))
    }

    /// Begins to look for the way there.
    pub(super) fn resolve_route(&self, limit: Duration) -> Result<(), CmError> {
        // SAFETY: the identifier is alive.
        let code = unsafe { (self.cm().table.resolve_route)(self.id.as_ptr(), milliseconds(limit)) };
        Ok(DeviceError::check("rdma_resolve_route", code)?)
    }

    /// Asks for a connection.
    pub(super) fn connect(&self, param: &mut rdma_conn_param) -> Result<(), CmError> {
        // SAFETY: the identifier is alive, and what `param` points at during the call (`parameters`).
        let code = unsafe { (self.cm().table.connect)(self.id.as_ptr(), param) };
        Ok(DeviceError::check("rdma_connect", code)?)
    }

    /// Grants one.
    pub(super) fn accept(&self, param: &mut rdma_conn_param) -> Result<(), CmError> {
        // SAFETY: as above.
        let code = unsafe { (self.cm().table.accept)(self.id.as_ptr(), param) };
        Ok(DeviceError::check("rdma_accept", code)?)
    }

    /// Says that our queue pair is ready for what was granted.
    pub(super) fn establish(&self) -> Result<(), CmError> {
        // SAFETY: the identifier is alive, and has no queue pair of librdmacm's.
        let code = unsafe { (self.cm().table.establish)(self.id.as_ptr()) };
        Ok(DeviceError::check("rdma_establish", code)?)
    }

    /// What a queue pair needs for that state, and which of it.
    pub(super) fn attributes(&self, state: u32) -> Result<(ibv_qp_attr, i32), CmError> {
        let (mut attr, mut mask) = (ibv_qp_attr { qp_state: state, ..Default::default() }, 0);
        // SAFETY: the identifier is alive, `attr` has C's layout.
        let code = unsafe { (self.cm().table.init_qp_attr)(self.id.as_ptr(), &mut attr, &mut mask) };
        DeviceError::check("rdma_init_qp_attr", code)?;
        attr.qp_state = state;
        Ok((attr, mask))
    }

    /// The next event, if there is one. It never waits.
    pub(super) fn next_event(&self) -> Result<Option<Event>, CmError> {
        let mut event = std::ptr::null_mut();
        // SAFETY: the channel is alive and non-blocking.
        let code = unsafe { (self.cm().table.get_cm_event)(self.channel.channel.as_ptr(), &mut event) };
        let Some(event) = NonNull::new(event).filter(|_| code == 0) else {
            return match Errno::last() {
                Errno::EAGAIN | Errno::EINTR => Ok(None),
                errno => Err(DeviceError::from_errno("rdma_get_cm_event", errno).into()),
            };
        };
        // SAFETY: got above and not acknowledged yet; of its union only what a request has is looked at, below.
        let seen = unsafe { event.as_ref() };
        let (kind, status) = (seen.event, seen.status);
        let asks = NonNull::new(seen.id).filter(|_| kind == RDMA_CM_EVENT_CONNECT_REQUEST);
        let asks = asks.map(|id| (id, private(&seen.conn)));
        // SAFETY: got above, acknowledged once, and not looked at again. Destroying an identifier waits for this.
        unsafe { (self.cm().table.ack_cm_event)(event.as_ptr()) };
        let request = match asks {
            Some((id, private)) => Some((Self::requested(self.cm(), id)?, private)),
            None => None,
        };
        Ok(Some(Event { kind, status, request }))
    }
}

impl Drop for Id {
    fn drop(&mut self) {
        // SAFETY: every event was acknowledged; destroyed once, and before its channel.
        unsafe { (self.cm().table.destroy_id)(self.id.as_ptr()) };
    }
}

/// For a queue pair of that number. No reads are made, so none need be remembered.
pub(super) fn parameters(number: u32, private: &[u8], timing: crate::Timing) -> rdma_conn_param {
    rdma_conn_param {
        private_data: private.as_ptr().cast(),
        private_data_len: private.len() as u8,
        responder_resources: 1,
        initiator_depth: 1,
        flow_control: 0,
        retry_count: timing.retry,
        rnr_retry_count: timing.rnr_retry,
        srq: 0,
        qp_num: number,
    }
}

fn private(conn: &rdma_conn_param) -> Private {
    let Some(data) = NonNull::new(conn.private_data.cast_mut().cast::<u8>()) else { return Private::new() };
    // SAFETY: of a request, the library has filled in pointer and length of its copy in the event, which is alive.
    let bytes = unsafe { std::slice::from_raw_parts(data.as_ptr(), conn.private_data_len.into()) };
    bytes.iter().copied().collect()
}

fn milliseconds(limit: Duration) -> i32 {
    i32::try_from(limit.as_millis()).unwrap_or(i32::MAX)
}

fn no_device(address: IpAddr, error: DeviceError) -> CmError {
    match error {
        DeviceError::Removed { errno: Errno::ENODEV, .. }
        | DeviceError::System { errno: Errno::EADDRNOTAVAIL, .. } => CmError::NoDevice(address),
        error => error.into(),
    }
}
