//! The filler that links: the crate rdma-sys, whose bindings are made from the headers of this machine.

use std::ffi::c_void;

use super::{CmTable, Table};
use crate::LoadError;
use crate::ffi;

/// Our structures have the size of those in the headers.
macro_rules! same_size {
    ($($name:ident)*) => {
        $(const _: () = assert!(size_of::<ffi::$name>() == size_of::<rdma_sys::$name>());)*
    };
}
same_size! {
    ibv_sge ibv_send_wr ibv_recv_wr ibv_wc ibv_context_ops ibv_pd ibv_mr ibv_comp_channel ibv_qp_cap ibv_qp_init_attr
    ibv_gid_entry ibv_global_route ibv_ah_attr ibv_qp_attr ibv_port_attr ibv_device_attr ibv_async_event
    rdma_event_channel rdma_conn_param
}

unsafe extern "C" {
    // rdma-sys replaces this symbol by a Rust function, as the headers do by an inline one.
    #[link_name = "ibv_query_port"]
    safe static QUERY_PORT: c_void;
    #[link_name = "_ibv_query_gid_ex"]
    safe static QUERY_GID_EX: c_void;
    #[link_name = "ibv_reg_mr"]
    safe static REG_MR: c_void;
}

macro_rules! address {
    ($name:ident) => {
        rdma_sys::$name as *const c_void
    };
}

fn find(symbol: &'static str) -> Result<*const c_void, LoadError> {
    Ok(match symbol {
        "ibv_get_device_list" => address!(ibv_get_device_list),
        "ibv_free_device_list" => address!(ibv_free_device_list),
        "ibv_get_device_name" => address!(ibv_get_device_name),
        "ibv_open_device" => address!(ibv_open_device),
        "ibv_close_device" => address!(ibv_close_device),
        "ibv_query_device" => address!(ibv_query_device),
        "ibv_query_port" => &raw const QUERY_PORT,
        "_ibv_query_gid_ex" => &raw const QUERY_GID_EX,
        "ibv_get_async_event" => address!(ibv_get_async_event),
        "ibv_ack_async_event" => address!(ibv_ack_async_event),
        "ibv_alloc_pd" => address!(ibv_alloc_pd),
        "ibv_dealloc_pd" => address!(ibv_dealloc_pd),
        "ibv_reg_mr" => &raw const REG_MR,
        "ibv_dereg_mr" => address!(ibv_dereg_mr),
        "ibv_create_comp_channel" => address!(ibv_create_comp_channel),
        "ibv_destroy_comp_channel" => address!(ibv_destroy_comp_channel),
        "ibv_create_cq" => address!(ibv_create_cq),
        "ibv_destroy_cq" => address!(ibv_destroy_cq),
        "ibv_get_cq_event" => address!(ibv_get_cq_event),
        "ibv_ack_cq_events" => address!(ibv_ack_cq_events),
        "ibv_create_qp" => address!(ibv_create_qp),
        "ibv_modify_qp" => address!(ibv_modify_qp),
        "ibv_destroy_qp" => address!(ibv_destroy_qp),
        "ibv_reg_dmabuf_mr" => address!(ibv_reg_dmabuf_mr),
        "rdma_create_event_channel" => address!(rdma_create_event_channel),
        "rdma_destroy_event_channel" => address!(rdma_destroy_event_channel),
        "rdma_create_id" => address!(rdma_create_id),
        "rdma_destroy_id" => address!(rdma_destroy_id),
        "rdma_migrate_id" => address!(rdma_migrate_id),
        "rdma_bind_addr" => address!(rdma_bind_addr),
        "rdma_resolve_addr" => address!(rdma_resolve_addr),
        "rdma_resolve_route" => address!(rdma_resolve_route),
        "rdma_listen" => address!(rdma_listen),
        "rdma_connect" => address!(rdma_connect),
        "rdma_establish" => address!(rdma_establish),
        "rdma_accept" => address!(rdma_accept),
        "rdma_init_qp_attr" => address!(rdma_init_qp_attr),
        "rdma_get_cm_event" => address!(rdma_get_cm_event),
        "rdma_ack_cm_event" => address!(rdma_ack_cm_event),
        symbol => return Err(LoadError::TooOld { library: "rdma-sys".into(), symbol }),
    })
}

impl Table {
    /// The linked functions.
    pub(crate) fn linked() -> Result<Self, LoadError> {
        // SAFETY: libibverbs' own functions, linked into this program.
        unsafe { Self::fill(find) }
    }
}

impl CmTable {
    /// As [`Table::linked`].
    pub(crate) fn linked() -> Result<Self, LoadError> {
        // SAFETY: librdmacm's own functions, linked into this program.
        unsafe { Self::fill(find) }
    }
}
