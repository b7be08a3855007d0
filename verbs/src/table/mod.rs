//! The function tables, one for each library, and what fills them.
//!
//! * `load` opens `libibverbs.so.1` and `librdmacm.so.1` at run time, the latter when it is first needed. It is the
//!   default, so that one program runs with and without rdma-core.
//! * `linked` takes the functions from the crate rdma-sys (feature `rdma-sys`).
//! * `crate::fake` needs no device (feature `fake`). It connects no devices by librdmacm.
//!
//! Functions that the C headers define inline go through the context's own table, see [`inline`].

pub(crate) mod inline;
#[cfg(feature = "rdma-sys")]
mod linked;
mod load;

use std::ffi::{c_char, c_int, c_uint, c_void};

use crate::ffi::*;

pub(crate) use load::{CM_LIBRARY, LIBRARY, package};

macro_rules! table {
    (
        $(#[$doc:meta])*
        $table:ident:
        $($name:ident: $symbol:literal, fn($($arg:ty),*) $(-> $ret:ty)?;)*
        $(? $some:ident: $some_symbol:literal, $kind:ty;)*
    ) => {
        $(#[$doc])*
        #[derive(Clone, Copy)]
        pub(crate) struct $table {
            $(pub(crate) $name: unsafe extern "C" fn($($arg),*) $(-> $ret)?,)*
            $(pub(crate) $some: Option<$kind>,)*
        }

        impl $table {
            /// Asks `find` for each symbol.
            ///
            /// # Safety
            /// What `find` returns for a symbol must be the library's function of that name, and stay loaded for ever.
            pub(crate) unsafe fn fill<E>(mut find: impl FnMut(&'static str) -> Result<*const c_void, E>) -> Result<Self, E> {
                Ok(Self {
                    $(
                        // SAFETY: by contract it is the function that the header declares with this signature.
                        $name: unsafe {
                            std::mem::transmute::<*const c_void, unsafe extern "C" fn($($arg),*) $(-> $ret)?>(find($symbol)?)
                        },
                    )*
                    $(
                        $some: find($some_symbol).ok().map(|f| {
                            // SAFETY: as above.
                            unsafe { std::mem::transmute::<*const c_void, $kind>(f) }
                        }),
                    )*
                })
            }
        }
    };
}

/// `ibv_reg_dmabuf_mr`: rdma-core 34 and newer have it.
pub(crate) type RegDmabufMr = unsafe extern "C" fn(*mut ibv_pd, u64, usize, u64, c_int, c_int) -> *mut ibv_mr;

table! {
    /// Functions of libibverbs. All of them were found, or there is no table.
    Table:
    get_device_list: "ibv_get_device_list", fn(*mut c_int) -> *mut *mut ibv_device;
    free_device_list: "ibv_free_device_list", fn(*mut *mut ibv_device);
    get_device_name: "ibv_get_device_name", fn(*mut ibv_device) -> *const c_char;
    open_device: "ibv_open_device", fn(*mut ibv_device) -> *mut ibv_context;
    close_device: "ibv_close_device", fn(*mut ibv_context) -> c_int;
    query_device: "ibv_query_device", fn(*mut ibv_context, *mut ibv_device_attr) -> c_int;
    query_port: "ibv_query_port", fn(*mut ibv_context, u8, *mut ibv_port_attr) -> c_int;
    query_gid: "_ibv_query_gid_ex", fn(*mut ibv_context, u32, u32, *mut ibv_gid_entry, u32, usize) -> c_int;
    get_async_event: "ibv_get_async_event", fn(*mut ibv_context, *mut ibv_async_event) -> c_int;
    ack_async_event: "ibv_ack_async_event", fn(*mut ibv_async_event);
    alloc_pd: "ibv_alloc_pd", fn(*mut ibv_context) -> *mut ibv_pd;
    dealloc_pd: "ibv_dealloc_pd", fn(*mut ibv_pd) -> c_int;
    reg_mr: "ibv_reg_mr", fn(*mut ibv_pd, *mut c_void, usize, c_int) -> *mut ibv_mr;
    dereg_mr: "ibv_dereg_mr", fn(*mut ibv_mr) -> c_int;
    create_comp_channel: "ibv_create_comp_channel", fn(*mut ibv_context) -> *mut ibv_comp_channel;
    destroy_comp_channel: "ibv_destroy_comp_channel", fn(*mut ibv_comp_channel) -> c_int;
    create_cq: "ibv_create_cq", fn(*mut ibv_context, c_int, *mut c_void, *mut ibv_comp_channel, c_int) -> *mut ibv_cq;
    destroy_cq: "ibv_destroy_cq", fn(*mut ibv_cq) -> c_int;
    get_cq_event: "ibv_get_cq_event", fn(*mut ibv_comp_channel, *mut *mut ibv_cq, *mut *mut c_void) -> c_int;
    ack_cq_events: "ibv_ack_cq_events", fn(*mut ibv_cq, c_uint);
    create_qp: "ibv_create_qp", fn(*mut ibv_pd, *mut ibv_qp_init_attr) -> *mut ibv_qp;
    modify_qp: "ibv_modify_qp", fn(*mut ibv_qp, *mut ibv_qp_attr, c_int) -> c_int;
    destroy_qp: "ibv_destroy_qp", fn(*mut ibv_qp) -> c_int;
    ? reg_dmabuf_mr: "ibv_reg_dmabuf_mr", RegDmabufMr;
}

table! {
    /// Functions of librdmacm. All of them were found, or there is no table.
    CmTable:
    create_event_channel: "rdma_create_event_channel", fn() -> *mut rdma_event_channel;
    destroy_event_channel: "rdma_destroy_event_channel", fn(*mut rdma_event_channel);
    create_id: "rdma_create_id", fn(*mut rdma_event_channel, *mut *mut rdma_cm_id, *mut c_void, c_uint) -> c_int;
    destroy_id: "rdma_destroy_id", fn(*mut rdma_cm_id) -> c_int;
    migrate_id: "rdma_migrate_id", fn(*mut rdma_cm_id, *mut rdma_event_channel) -> c_int;
    bind_addr: "rdma_bind_addr", fn(*mut rdma_cm_id, *const libc::sockaddr) -> c_int;
    resolve_addr: "rdma_resolve_addr", fn(*mut rdma_cm_id, *const libc::sockaddr, *const libc::sockaddr, c_int) -> c_int;
    resolve_route: "rdma_resolve_route", fn(*mut rdma_cm_id, c_int) -> c_int;
    listen: "rdma_listen", fn(*mut rdma_cm_id, c_int) -> c_int;
    connect: "rdma_connect", fn(*mut rdma_cm_id, *mut rdma_conn_param) -> c_int;
    establish: "rdma_establish", fn(*mut rdma_cm_id) -> c_int;
    accept: "rdma_accept", fn(*mut rdma_cm_id, *mut rdma_conn_param) -> c_int;
    init_qp_attr: "rdma_init_qp_attr", fn(*mut rdma_cm_id, *mut ibv_qp_attr, *mut c_int) -> c_int;
    get_cm_event: "rdma_get_cm_event", fn(*mut rdma_event_channel, *mut *mut rdma_cm_event) -> c_int;
    ack_cm_event: "rdma_ack_cm_event", fn(*mut rdma_cm_event) -> c_int;
}
