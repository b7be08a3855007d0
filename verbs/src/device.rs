//! Devices: finding, opening, asking.

use std::ffi::{CStr, c_int};
use std::fmt;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};

use crate::ffi::*;
use crate::port::{MAX_GIDS, PortState};
use crate::table::{CM_LIBRARY, LIBRARY, Table};
use crate::{Cm, CmError, DeviceError, Gid, LoadError, PortAttributes};

/// libibverbs.
#[derive(Clone)]
pub struct Verbs {
    table: Table,
    /// Which world of fake devices; the library has none.
    world: c_int,
    /// Whether immediates may be used where the device has them.
    immediates: bool,
}

impl fmt::Debug for Verbs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verbs").finish_non_exhaustive()
    }
}

impl Verbs {
    /// The library: loaded now, or linked with the feature `rdma-sys`.
    pub fn open() -> Result<Self, LoadError> {
        #[cfg(feature = "rdma-sys")]
        return Ok(Self::of_world(Table::linked()?, 0));
        #[cfg(not(feature = "rdma-sys"))]
        Self::load()
    }

    /// The library, loaded now.
    pub fn load() -> Result<Self, LoadError> {
        Ok(Self::of_world(Table::load(LIBRARY)?, 0))
    }

    /// For tests of what is said when it cannot be loaded.
    ///
    /// # Safety
    /// `library` must not exist, lack libibverbs' functions, or be libibverbs.
    pub unsafe fn load_from(library: &str) -> Result<Self, LoadError> {
        Ok(Self::of_world(Table::load(library)?, 0))
    }

    pub(crate) fn of_world(table: Table, world: c_int) -> Self {
        Self { table, world, immediates: true }
    }

    pub(crate) fn table(&self) -> &Table {
        &self.table
    }

    /// The same, but all devices that are opened from now on count as ones without immediates, as those of iWARP are.
    pub fn without_immediates(self) -> Self {
        Self { immediates: false, ..self }
    }

    /// What connects by RDMA-CM: librdmacm, loaded now, or linked with the feature `rdma-sys`.
    ///
    /// # Errors
    /// [`LoadError`]; fake devices have none.
    pub fn cm(&self) -> Result<Cm, LoadError> {
        if self.world != 0 {
            let why = "fake devices are connected without it".to_owned();
            return Err(LoadError::NoLibrary { library: CM_LIBRARY.to_owned(), why });
        }
        Cm::open(self.table)
    }

    /// The names of all devices.
    pub fn devices(&self) -> Result<Vec<String>, DeviceError> {
        self.with_devices(|devices| Ok(devices.iter().map(|device| self.name_of(*device)).collect()))
    }

    /// Opens the device of that name.
    pub fn open_device(&self, name: &str) -> Result<Arc<Device>, DeviceError> {
        let context = self.with_devices(|devices| {
            let device = devices.iter().find(|device| self.name_of(**device) == name);
            let device = *device.ok_or_else(|| DeviceError::NoSuchDevice(name.into()))?;
            // SAFETY: the list, which keeps the device, lives during this call.
            let context = unsafe { (self.table.open_device)(device) };
            NonNull::new(context).ok_or_else(|| DeviceError::last("ibv_open_device"))
        })?;
        let failed = AtomicBool::new(false);
        let immediates = self.immediates;
        let device = Device { table: self.table, context, name: name.into(), immediates, failed };
        device.unblock_events()?;
        Ok(Arc::new(device))
    }

    /// The first device with a RoCEv2 entry for `address` at an active port, and that entry. Index 0 is never just taken:
    /// it is often a RoCEv1 or a link-local entry. Where no port has one, the iWARP device that RDMA-CM takes for the address.
    pub fn device_for(&self, address: IpAddr) -> Result<(Arc<Device>, Gid), DeviceError> {
        let (mut down, mut closed, mut iwarp) = (None, None, false);
        for name in self.devices()? {
            let device = match self.open_device(&name) {
                Ok(device) => device,
                // one that has just gone is not there; one that this user may not open hides no other
                Err(DeviceError::Removed { .. }) => continue,
                Err(error) => {
                    closed.get_or_insert(error);
                    continue;
                }
            };
            iwarp |= device.transport() == Transport::Iwarp;
            match device.gid_for(address) {
                Ok(gid) => return Ok((device, gid)),
                Err(error @ DeviceError::PortDown { .. }) => down = Some(error),
                Err(_) => {}
            }
        }
        // iWARP has no addresses of its own
        match self.iwarp_device_for(address).ok().filter(|_| iwarp) {
            Some(found) => Ok(found),
            None => Err(down.or(closed).unwrap_or(DeviceError::NoGid(address))),
        }
    }

    fn iwarp_device_for(&self, address: IpAddr) -> Result<(Arc<Device>, Gid), CmError> {
        let device = self.open_device(&self.cm()?.device_of(address)?)?;
        let gid = device.gids(1)?.into_iter().next().filter(|_| device.transport() == Transport::Iwarp);
        Ok((device, gid.ok_or(DeviceError::NoGid(address))?))
    }

    fn name_of(&self, device: *mut ibv_device) -> String {
        // SAFETY: devices are named by a C string inside of them; the list that holds them is alive (with_devices).
        let name = unsafe { CStr::from_ptr((self.table.get_device_name)(device)) };
        name.to_string_lossy().into_owned()
    }

    fn with_devices<T>(
        &self,
        f: impl FnOnce(&[*mut ibv_device]) -> Result<T, DeviceError>,
    ) -> Result<T, DeviceError> {
        let mut count = self.world;
        // SAFETY: the count is written before the call returns; only the fake reads it before.
        let list = unsafe { (self.table.get_device_list)(&mut count) };
        if list.is_null() {
            // no RDMA in this kernel: no devices
            return if Errno::last() == Errno::ENOSYS {
                f(&[])
            } else {
                Err(DeviceError::last("ibv_get_device_list"))
            };
        }
        // SAFETY: `list` has `count` elements, and lives until it is freed below.
        let result = f(unsafe { std::slice::from_raw_parts(list, count.max(0) as usize) });
        // SAFETY: from get_device_list, freed once; `f` kept no element of it.
        unsafe { (self.table.free_device_list)(list) };
        result
    }
}

/// What a device can do.
#[derive(Clone, Debug)]
pub struct DeviceAttributes {
    /// Its firmware, or nothing.
    pub firmware: String,
    /// Bytes of one registration.
    pub max_region: u64,
    /// Registrations.
    pub max_regions: u32,
    /// Requests in one queue.
    pub max_depth: u32,
    /// Pieces of one request.
    pub max_pieces: u32,
    /// Entries of one completion queue.
    pub max_completions: u32,
    /// Queue pairs.
    pub max_queue_pairs: u32,
    /// Ports.
    pub ports: u8,
}

/// How a device's packets travel.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// InfiniBand's, and so RoCE's.
    InfiniBand,
    /// On TCP. Queue pairs come up by RDMA-CM only.
    Iwarp,
    /// Something else.
    Other(i32),
}

/// An open device.
pub struct Device {
    pub(crate) table: Table,
    pub(crate) context: NonNull<ibv_context>,
    name: String,
    immediates: bool,
    /// Whether it has said that it is gone or broken.
    pub(crate) failed: AtomicBool,
}

// SAFETY: libibverbs' calls on a context are thread-safe (ibv_context has its own mutex), and none is bound to a thread.
unsafe impl Send for Device {}
// SAFETY: as above.
unsafe impl Sync for Device {}

impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Device").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Device {
    /// Its name, as `rdma link` shows it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How its packets travel.
    pub fn transport(&self) -> Transport {
        // SAFETY: the context is open while `self` lives, and its device as long.
        match unsafe { (*(*self.context.as_ptr()).device).transport_type } {
            IBV_TRANSPORT_IB => Transport::InfiniBand,
            IBV_TRANSPORT_IWARP => Transport::Iwarp,
            other => Transport::Other(other),
        }
    }

    /// Whether a write can carry an immediate.
    pub fn has_immediates(&self) -> bool {
        self.immediates && self.transport() != Transport::Iwarp
    }

    /// What it can do.
    pub fn attributes(&self) -> Result<DeviceAttributes, DeviceError> {
        // SAFETY: all zeroes is a value of this structure of integers.
        let mut attr: ibv_device_attr = unsafe { std::mem::zeroed() };
        // SAFETY: the context is open while `self` lives; `attr` has C's layout.
        let code = unsafe { (self.table.query_device)(self.context.as_ptr(), &mut attr) };
        DeviceError::check("ibv_query_device", code)?;
        let firmware: Vec<u8> = attr.fw_ver.iter().take_while(|c| **c != 0).map(|c| *c as u8).collect();
        let count = |n: i32| n.max(0) as u32;
        Ok(DeviceAttributes {
            firmware: String::from_utf8_lossy(&firmware).into_owned(),
            max_region: attr.max_mr_size,
            max_regions: count(attr.max_mr),
            max_depth: count(attr.max_qp_wr),
            max_pieces: count(attr.max_sge),
            max_completions: count(attr.max_cqe),
            max_queue_pairs: count(attr.max_qp),
            ports: attr.phys_port_cnt,
        })
    }

    /// What a port is.
    pub fn port(&self, port: u8) -> Result<PortAttributes, DeviceError> {
        let mut attr = ibv_port_attr::default();
        // SAFETY: the context is open; the exported function fills all but the last field, which stays 0.
        let code = unsafe { (self.table.query_port)(self.context.as_ptr(), port, &mut attr) };
        DeviceError::check("ibv_query_port", code)?;
        Ok(PortAttributes::of(port, &attr))
    }

    /// The used entries of a port's GID table.
    pub fn gids(&self, port: u8) -> Result<Vec<Gid>, DeviceError> {
        let places = self.port(port)?.gids.min(MAX_GIDS as u32);
        let mut gids = Vec::new();
        for index in 0..places {
            let mut entry = ibv_gid_entry::default();
            // SAFETY: the context is open, and the size given is the entry's.
            let code = unsafe {
                (self.table.query_gid)(
                    self.context.as_ptr(),
                    port.into(),
                    index,
                    &mut entry,
                    0,
                    size_of::<ibv_gid_entry>(),
                )
            };
            // an unused place
            if code != 0 {
                continue;
            }
            gids.extend(Gid::of(port, &entry));
        }
        Ok(gids)
    }

    /// The RoCEv2 entry for `address`, at a port that is active.
    pub fn gid_for(&self, address: IpAddr) -> Result<Gid, DeviceError> {
        for port in 1..=self.attributes()?.ports {
            if let Some(gid) = self.gids(port)?.into_iter().find(|gid| gid.serves(address)) {
                let state = self.port(port)?.state;
                if state != PortState::Active {
                    return Err(DeviceError::PortDown { device: self.name.clone(), port, state });
                }
                return Ok(gid);
            }
        }
        Err(DeviceError::NoGid(address))
    }

    /// Readable when [`next_event`](Self::next_event) has one.
    pub fn event_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the descriptor is open while the context is, and that is while `self` lives.
        unsafe { BorrowedFd::borrow_raw((*self.context.as_ptr()).async_fd) }
    }

    fn unblock_events(&self) -> Result<(), DeviceError> {
        unblock(self.event_fd())
    }
}

/// Calls on `fd` wait no more.
pub(crate) fn unblock(fd: impl AsFd) -> Result<(), DeviceError> {
    let flags =
        fcntl(&fd, FcntlArg::F_GETFL).map_err(|errno| DeviceError::System { call: "fcntl", errno })?;
    let flags = OFlag::from_bits_retain(flags) | OFlag::O_NONBLOCK;
    fcntl(&fd, FcntlArg::F_SETFL(flags)).map_err(|errno| DeviceError::System { call: "fcntl", errno })?;
    Ok(())
}

impl Drop for Device {
    fn drop(&mut self) {
        // SAFETY: domains and completion queues keep their device, so nothing of this context is left; closed once.
        unsafe { (self.table.close_device)(self.context.as_ptr()) };
    }
}
