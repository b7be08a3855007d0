//! The functions of the table.
//!
//! Their safety is C's: pointers come from the calls here that made them, and are not used after those that free them.

#![allow(
    clippy::undocumented_unsafe_blocks,
    reason = "said once, above: the contract of the C functions they stand for"
)]

use std::ffi::{c_char, c_int, c_uint, c_void};
use std::net::IpAddr;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::null_mut;

use nix::errno::Errno;
use nix::sys::mman::{MapFlags, ProtFlags, mmap};

use super::model::{Pair, Queue, Receive, Region, Work};
use super::objects::{FakeChannel, FakeContext, FakeDevice, FakeRegion, Mapping, event, take};
use super::{Call, Inject, World};
use crate::ffi::*;
use crate::table::Table;

/// Sizes of each fake device.
const DEPTH: i32 = 1024;
const GIDS: u32 = 3;

pub(super) fn table() -> Table {
    Table {
        get_device_list,
        free_device_list,
        get_device_name,
        open_device,
        close_device,
        query_device,
        query_port,
        query_gid,
        get_async_event,
        ack_async_event,
        alloc_pd,
        dealloc_pd,
        reg_mr,
        dereg_mr,
        create_comp_channel,
        destroy_comp_channel,
        create_cq,
        destroy_cq,
        get_cq_event,
        ack_cq_events,
        create_qp,
        modify_qp,
        destroy_qp,
        reg_dmabuf_mr: Some(reg_dmabuf_mr),
    }
}

fn fail<T>(errno: Errno) -> *mut T {
    errno.set();
    null_mut()
}

unsafe fn context<'a>(context: *mut ibv_context) -> &'a FakeContext {
    unsafe { &*context.cast::<FakeContext>() }
}

/// The context's world, or that its device is gone.
unsafe fn alive<'a>(of: *mut ibv_context) -> Result<&'a World, Errno> {
    let context = unsafe { context(of) };
    let removed = context.world.model().devices[context.device.index].removed;
    if removed { Err(Errno::EIO) } else { Ok(&context.world) }
}

/// As [`alive`], or that this call is to fail.
unsafe fn ready<'a>(of: *mut ibv_context, call: Call) -> Result<&'a World, Errno> {
    let world = unsafe { alive(of) }?;
    world.refuses(call).map_or(Ok(world), Err)
}

/// `count` says which world is meant; the real library only writes it.
unsafe extern "C" fn get_device_list(count: *mut c_int) -> *mut *mut ibv_device {
    let world = World::find(unsafe { *count });
    let devices = world.map(|world| world.devices.clone()).unwrap_or_default();
    unsafe { *count = devices.len() as c_int };
    let pointers =
        devices.into_iter().map(|device| std::ptr::from_ref(device).cast_mut().cast::<ibv_device>());
    let list: Box<[*mut ibv_device]> = pointers.chain([null_mut()]).collect();
    Box::into_raw(list).cast()
}

unsafe extern "C" fn free_device_list(list: *mut *mut ibv_device) {
    let count = (0..).take_while(|at| unsafe { !(*list.add(*at)).is_null() }).count();
    drop(unsafe { Box::from_raw(std::ptr::slice_from_raw_parts_mut(list, count + 1)) });
}

unsafe extern "C" fn get_device_name(device: *mut ibv_device) -> *const c_char {
    unsafe { (*device.cast::<FakeDevice>()).name.as_ptr() }
}

unsafe extern "C" fn open_device(device: *mut ibv_device) -> *mut ibv_context {
    let device: &'static FakeDevice = unsafe { &*device.cast::<FakeDevice>() };
    let (Some(world), Some(event)) = (World::find(device.world), event()) else { return fail(Errno::ENODEV) };
    if world.model().devices[device.index].removed {
        return fail(Errno::ENODEV);
    }
    if let Some(errno) = world.refuses(Call::Open) {
        return fail(errno);
    }
    let unused = std::ptr::null();
    let ops = ibv_context_ops {
        before_poll_cq: [unused; 11],
        poll_cq: Some(poll_cq),
        req_notify_cq: Some(req_notify_cq),
        before_post_send: [unused; 12],
        post_send: Some(post_send),
        post_recv: Some(post_recv),
        after_post_recv: [unused; 5],
    };
    let fd = event.as_raw_fd();
    let base = ibv_context {
        device: std::ptr::from_ref(&device.base).cast_mut(),
        ops,
        cmd_fd: -1,
        async_fd: fd,
        num_comp_vectors: 1,
    };
    let made = Box::into_raw(Box::new(FakeContext { base, device, world: world.clone(), event }));
    world.model().devices[device.index].contexts.insert(made.addr(), (fd, Default::default()));
    made.cast()
}

unsafe extern "C" fn close_device(of: *mut ibv_context) -> c_int {
    let context = unsafe { Box::from_raw(of.cast::<FakeContext>()) };
    let mut model = context.world.model();
    if model.domains.values().any(|owner| *owner == of.addr()) {
        model.violation("a device was closed before its domains were freed");
    }
    model.devices[context.device.index].contexts.remove(&of.addr());
    drop(model);
    0
}

unsafe extern "C" fn query_device(of: *mut ibv_context, attr: *mut ibv_device_attr) -> c_int {
    if let Err(errno) = unsafe { alive(of) } {
        return errno as c_int;
    }
    let mut known: ibv_device_attr = unsafe { std::mem::zeroed() };
    (known.max_mr_size, known.max_qp, known.max_qp_wr, known.max_sge) = (u64::MAX, 4096, DEPTH, 16);
    (known.max_cqe, known.max_mr, known.max_pd, known.max_cq, known.phys_port_cnt) =
        (2 * DEPTH, 4096, 4096, 4096, 1);
    unsafe { *attr = known };
    0
}

unsafe extern "C" fn query_port(of: *mut ibv_context, port: u8, attr: *mut ibv_port_attr) -> c_int {
    match unsafe { alive(of) } {
        Err(errno) => errno as c_int,
        Ok(_) if port != 1 => Errno::EINVAL as c_int,
        Ok(world) => {
            let known = ibv_port_attr {
                state: 4,
                max_mtu: 5,
                active_mtu: 3,
                gid_tbl_len: GIDS as c_int,
                max_msg_sz: world.model().max_message,
                link_layer: 2,
                ..Default::default()
            };
            unsafe { *attr = known };
            0
        }
    }
}

unsafe extern "C" fn query_gid(
    of: *mut ibv_context,
    port: u32,
    index: u32,
    entry: *mut ibv_gid_entry,
    _: u32,
    size: usize,
) -> c_int {
    if port != 1 || index >= GIDS || size != size_of::<ibv_gid_entry>() {
        return Errno::EINVAL as c_int;
    }
    let address = unsafe { context(of) }.device.address;
    let raw = match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => address.octets(),
    };
    // the same address as RoCEv1 first, then an unused place
    let gid_type = match index {
        0 => 1,
        1 => return Errno::ENODATA as c_int,
        _ => 2,
    };
    unsafe {
        *entry = ibv_gid_entry {
            gid: ibv_gid { raw },
            gid_index: index,
            port_num: port,
            gid_type,
            ndev_ifindex: 1,
        }
    };
    0
}

unsafe extern "C" fn get_async_event(of: *mut ibv_context, event: *mut ibv_async_event) -> c_int {
    let context = unsafe { context(of) };
    if !take(&context.event) {
        return -1;
    }
    let mut model = context.world.model();
    let unread = model.devices[context.device.index].contexts.get_mut(&of.addr());
    let event_type = unread.and_then(|(_, unread)| unread.pop_front()).unwrap_or_default();
    unsafe { *event = ibv_async_event { element: null_mut(), event_type } };
    0
}

unsafe extern "C" fn ack_async_event(_: *mut ibv_async_event) {}

unsafe extern "C" fn alloc_pd(of: *mut ibv_context) -> *mut ibv_pd {
    match unsafe { ready(of, Call::Domain) } {
        Err(errno) => fail(errno),
        Ok(world) => {
            let made = Box::into_raw(Box::new(ibv_pd { context: of, handle: 0 }));
            world.model().domains.insert(made.addr(), of.addr());
            made
        }
    }
}

unsafe extern "C" fn dealloc_pd(pd: *mut ibv_pd) -> c_int {
    let world = unsafe { &context((*pd).context).world };
    let mut model = world.model();
    let used = model.regions.values().any(|region| region.domain == pd.addr())
        || model.pairs.values().any(|pair| pair.domain == pd.addr());
    if used {
        model.violation("a domain was freed before its regions and queue pairs");
        return Errno::EBUSY as c_int;
    }
    model.domains.remove(&pd.addr());
    drop(unsafe { Box::from_raw(pd) });
    0
}

unsafe extern "C" fn reg_mr(pd: *mut ibv_pd, addr: *mut c_void, length: usize, access: c_int) -> *mut ibv_mr {
    let of = unsafe { (*pd).context };
    let fault = unsafe { context(of) }.world.model().fault(|fault| match fault {
        Inject::Register(errno) => Some(Errno::from_raw(*errno)),
        _ => None,
    });
    match (unsafe { alive(of) }, fault) {
        (Err(errno), _) | (_, Some(errno)) => fail(errno),
        (Ok(world), None) => unsafe {
            region(world, pd, (addr.addr() as u64, addr.addr(), length), access, None)
        },
    }
}

unsafe extern "C" fn reg_dmabuf_mr(
    pd: *mut ibv_pd,
    offset: u64,
    length: usize,
    iova: u64,
    fd: c_int,
    access: c_int,
) -> *mut ibv_mr {
    let of = unsafe { (*pd).context };
    let fault = unsafe { context(of) }.world.model().fault(|fault| match fault {
        Inject::RegisterDmaBuf(errno) => Some(Errno::from_raw(*errno)),
        _ => None,
    });
    let world = match (unsafe { alive(of) }, fault) {
        (Err(errno), _) | (_, Some(errno)) => return fail(errno),
        (Ok(world), None) => world,
    };
    let total = offset as usize + length;
    let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
    let Some(size) = std::num::NonZeroUsize::new(total) else { return fail(Errno::EINVAL) };
    match unsafe { mmap(None, size, protection, MapFlags::MAP_SHARED, BorrowedFd::borrow_raw(fd), 0) } {
        Err(errno) => fail(errno),
        Ok(base) => {
            let mapping = Mapping { base: base.addr().get(), length: total };
            let bytes = (iova, mapping.base + offset as usize, length);
            unsafe { region(world, pd, bytes, access, Some(mapping)) }
        }
    }
}

/// Makes a region of (address for the device, address here, length).
unsafe fn region(
    world: &World,
    pd: *mut ibv_pd,
    bytes: (u64, usize, usize),
    access: c_int,
    mapping: Option<Mapping>,
) -> *mut ibv_mr {
    let (start, base, length) = bytes;
    let mut model = world.model();
    let key = model.number() << 8;
    let addr = base as *mut c_void;
    let mr = ibv_mr { context: unsafe { (*pd).context }, pd, addr, length, handle: 0, lkey: key, rkey: key };
    let made = Box::into_raw(Box::new(FakeRegion { base: mr, mapping }));
    let known = Region { object: made.addr(), domain: pd.addr(), start, length: length as u64, base, access };
    model.regions.insert(key, known);
    made.cast()
}

unsafe extern "C" fn dereg_mr(mr: *mut ibv_mr) -> c_int {
    let (world, key) = unsafe { (&context((*mr).context).world, (*mr).lkey) };
    let mut model = world.model();
    if model.in_use(key) {
        model.violation("a region was deregistered with work in flight");
    }
    if model.regions.remove(&key).is_none_or(|region| region.object != mr.addr()) {
        model.violation("a region was deregistered twice");
    }
    drop(model);
    let region = unsafe { Box::from_raw(mr.cast::<FakeRegion>()) };
    drop(region.mapping);
    0
}

unsafe extern "C" fn create_comp_channel(of: *mut ibv_context) -> *mut ibv_comp_channel {
    match (unsafe { ready(of, Call::Channel) }, event()) {
        (Err(errno), _) => fail(errno),
        (Ok(_), None) => fail(Errno::EMFILE),
        (Ok(_), Some(event)) => {
            let base = ibv_comp_channel { context: of, fd: event.as_raw_fd(), refcnt: 0 };
            Box::into_raw(Box::new(FakeChannel { base, event, queue: null_mut() })).cast()
        }
    }
}

unsafe extern "C" fn destroy_comp_channel(channel: *mut ibv_comp_channel) -> c_int {
    drop(unsafe { Box::from_raw(channel.cast::<FakeChannel>()) });
    0
}

unsafe extern "C" fn create_cq(
    of: *mut ibv_context,
    cqe: c_int,
    user: *mut c_void,
    channel: *mut ibv_comp_channel,
    _: c_int,
) -> *mut ibv_cq {
    let world = match unsafe { ready(of, Call::CompletionQueue) } {
        Err(errno) => return fail(errno),
        Ok(world) => world,
    };
    let cq = ibv_cq { context: of, channel, cq_context: user, handle: 0, cqe };
    let made = Box::into_raw(Box::new(cq));
    let event = unsafe {
        (*channel.cast::<FakeChannel>()).queue = made;
        (*channel).fd
    };
    let device = unsafe { context(of) }.device.index;
    let queue = Queue { device, capacity: cqe as usize, armed: false, event, done: Default::default() };
    world.model().queues.insert(made.addr(), queue);
    made
}

unsafe extern "C" fn destroy_cq(cq: *mut ibv_cq) -> c_int {
    let world = unsafe { &context((*cq).context).world };
    let mut model = world.model();
    if model.pairs.values().any(|pair| pair.queue == cq.addr()) {
        model.violation("a completion queue was destroyed before its queue pair");
        return Errno::EBUSY as c_int;
    }
    model.queues.remove(&cq.addr());
    drop(unsafe { Box::from_raw(cq) });
    0
}

unsafe extern "C" fn get_cq_event(
    channel: *mut ibv_comp_channel,
    cq: *mut *mut ibv_cq,
    user: *mut *mut c_void,
) -> c_int {
    let channel = unsafe { &*channel.cast::<FakeChannel>() };
    if !take(&channel.event) {
        return -1;
    }
    unsafe { (*cq, *user) = (channel.queue, null_mut()) };
    0
}

unsafe extern "C" fn ack_cq_events(_: *mut ibv_cq, _: c_uint) {}

unsafe extern "C" fn poll_cq(cq: *mut ibv_cq, count: c_int, into: *mut ibv_wc) -> c_int {
    let world = unsafe { &context((*cq).context).world };
    let mut model = world.model();
    let Some(queue) = model.queues.get_mut(&cq.addr()) else { return -1 };
    let count = queue.done.len().min(count.max(0) as usize);
    for (at, wc) in queue.done.drain(..count).enumerate() {
        unsafe { *into.add(at) = wc };
    }
    count as c_int
}

unsafe extern "C" fn req_notify_cq(cq: *mut ibv_cq, _: c_int) -> c_int {
    let world = unsafe { &context((*cq).context).world };
    if let Some(queue) = world.model().queues.get_mut(&cq.addr()) {
        queue.armed = true;
    }
    0
}

unsafe extern "C" fn create_qp(pd: *mut ibv_pd, attr: *mut ibv_qp_init_attr) -> *mut ibv_qp {
    let (of, attr) = unsafe { ((*pd).context, &*attr) };
    let world = match unsafe { ready(of, Call::QueuePair) } {
        Err(errno) => return fail(errno),
        Ok(world) => world,
    };
    let mut model = world.model();
    let qp_num = model.number();
    let made = Box::into_raw(Box::new(ibv_qp {
        context: of,
        qp_context: null_mut(),
        pd,
        send_cq: attr.send_cq,
        recv_cq: attr.recv_cq,
        srq: null_mut(),
        handle: 0,
        qp_num,
        state: 0,
        qp_type: attr.qp_type,
    }));
    let pair = Pair {
        device: unsafe { context(of) }.device.index,
        object: made.addr(),
        domain: pd.addr(),
        queue: attr.send_cq.addr(),
        state: 0,
        peer: 0,
        depth: (attr.cap.max_send_wr, attr.cap.max_recv_wr),
        sends: Default::default(),
        receives: Default::default(),
    };
    model.pairs.insert(qp_num, pair);
    made
}

unsafe extern "C" fn modify_qp(qp: *mut ibv_qp, attr: *mut ibv_qp_attr, _: c_int) -> c_int {
    let (of, number, attr) = unsafe { ((*qp).context, (*qp).qp_num, &*attr) };
    let world = match unsafe { ready(of, Call::Modify) } {
        Err(errno) => return errno as c_int,
        Ok(world) => world,
    };
    let mut model = world.model();
    let Some(pair) = model.pairs.get_mut(&number) else { return Errno::EINVAL as c_int };
    match (pair.state, attr.qp_state) {
        (_, IBV_QPS_ERR) => model.fail(number),
        (0, IBV_QPS_INIT) | (IBV_QPS_RTR, IBV_QPS_RTS) => pair.state = attr.qp_state,
        (IBV_QPS_INIT, IBV_QPS_RTR) => (pair.state, pair.peer) = (IBV_QPS_RTR, attr.dest_qp_num),
        _ => return Errno::EINVAL as c_int,
    }
    0
}

unsafe extern "C" fn destroy_qp(qp: *mut ibv_qp) -> c_int {
    let (world, number) = unsafe { (&context((*qp).context).world, (*qp).qp_num) };
    let mut model = world.model();
    let fault = model.fault(|fault| match fault {
        Inject::DestroyQueuePair(errno) => Some(*errno),
        _ => None,
    });
    if let Some(errno) = fault {
        return errno;
    }
    if model.pairs.remove(&number).is_none_or(|pair| pair.object != qp.addr()) {
        model.violation("a queue pair was destroyed twice");
    }
    drop(model);
    drop(unsafe { Box::from_raw(qp) });
    0
}

unsafe fn pieces(list: *const ibv_sge, count: c_int) -> Vec<ibv_sge> {
    if count <= 0 {
        return Vec::new();
    }
    unsafe { std::slice::from_raw_parts(list, count as usize) }.to_vec()
}

unsafe extern "C" fn post_send(
    qp: *mut ibv_qp,
    mut wr: *mut ibv_send_wr,
    bad: *mut *mut ibv_send_wr,
) -> c_int {
    let (of, number) = unsafe { ((*qp).context, (*qp).qp_num) };
    unsafe { *bad = wr };
    let world = match unsafe { alive(of) } {
        Err(errno) => return errno as c_int,
        Ok(world) => world,
    };
    let mut model = world.model();
    let (mut left, errno) = model
        .fault(|fault| match fault {
            Inject::Post { taken, errno } => Some((*taken, *errno)),
            _ => None,
        })
        .unwrap_or((usize::MAX, 0));
    while !wr.is_null() {
        let request = unsafe { *wr };
        let Some(pair) = model.pairs.get_mut(&number) else { return Errno::EINVAL as c_int };
        let code = match () {
            () if left == 0 => errno,
            () if !matches!(pair.state, IBV_QPS_RTS | IBV_QPS_ERR) => Errno::EINVAL as c_int,
            () if pair.sends.len() >= pair.depth.0 as usize => Errno::ENOMEM as c_int,
            () => 0,
        };
        if code != 0 {
            unsafe { *bad = wr };
            model.run(number);
            return code;
        }
        left -= 1;
        let pieces = unsafe { pieces(request.sg_list, request.num_sge) };
        pair.sends.push_back(Work {
            id: request.wr_id,
            opcode: request.opcode,
            signalled: request.send_flags & IBV_SEND_SIGNALED != 0,
            immediate: request.imm_data,
            remote: (request.remote_addr, request.rkey),
            pieces,
        });
        wr = request.next;
    }
    model.run(number);
    0
}

unsafe extern "C" fn post_recv(qp: *mut ibv_qp, wr: *mut ibv_recv_wr, bad: *mut *mut ibv_recv_wr) -> c_int {
    let (of, number) = unsafe { ((*qp).context, (*qp).qp_num) };
    unsafe { *bad = wr };
    let world = match unsafe { ready(of, Call::PostReceive) } {
        Err(errno) => return errno as c_int,
        Ok(world) => world,
    };
    let mut model = world.model();
    let request = unsafe { *wr };
    let Some(pair) = model.pairs.get_mut(&number) else { return Errno::EINVAL as c_int };
    if pair.receives.len() >= pair.depth.1 as usize {
        return Errno::ENOMEM as c_int;
    }
    pair.receives.push_back(Receive {
        id: request.wr_id,
        pieces: unsafe { pieces(request.sg_list, request.num_sge) },
    });
    model.run(number);
    0
}
