//! Constants.

use std::ffi::{c_int, c_uint};

pub(crate) const IBV_TRANSPORT_IB: c_int = 0;
pub(crate) const IBV_TRANSPORT_IWARP: c_int = 1;

pub(crate) const IBV_QPT_RC: c_uint = 2;

pub(crate) const IBV_QPS_INIT: c_uint = 1;
pub(crate) const IBV_QPS_RTR: c_uint = 2;
pub(crate) const IBV_QPS_RTS: c_uint = 3;
pub(crate) const IBV_QPS_ERR: c_uint = 6;

pub(crate) const IBV_QP_STATE: c_int = 1;
pub(crate) const IBV_QP_ACCESS_FLAGS: c_int = 1 << 3;
pub(crate) const IBV_QP_PKEY_INDEX: c_int = 1 << 4;
pub(crate) const IBV_QP_PORT: c_int = 1 << 5;
pub(crate) const IBV_QP_AV: c_int = 1 << 7;
pub(crate) const IBV_QP_PATH_MTU: c_int = 1 << 8;
pub(crate) const IBV_QP_TIMEOUT: c_int = 1 << 9;
pub(crate) const IBV_QP_RETRY_CNT: c_int = 1 << 10;
pub(crate) const IBV_QP_RNR_RETRY: c_int = 1 << 11;
pub(crate) const IBV_QP_RQ_PSN: c_int = 1 << 12;
pub(crate) const IBV_QP_MAX_QP_RD_ATOMIC: c_int = 1 << 13;
pub(crate) const IBV_QP_MIN_RNR_TIMER: c_int = 1 << 15;
pub(crate) const IBV_QP_SQ_PSN: c_int = 1 << 16;
pub(crate) const IBV_QP_MAX_DEST_RD_ATOMIC: c_int = 1 << 17;
pub(crate) const IBV_QP_DEST_QPN: c_int = 1 << 20;

pub(crate) const IBV_ACCESS_LOCAL_WRITE: c_int = 1;
pub(crate) const IBV_ACCESS_REMOTE_WRITE: c_int = 1 << 1;

pub(crate) const IBV_WR_RDMA_WRITE: c_uint = 0;
pub(crate) const IBV_WR_RDMA_WRITE_WITH_IMM: c_uint = 1;
pub(crate) const IBV_WR_SEND: c_uint = 2;

pub(crate) const IBV_SEND_SIGNALED: c_uint = 1 << 1;
pub(crate) const IBV_SEND_SOLICITED: c_uint = 1 << 2;

pub(crate) const IBV_WC_WITH_IMM: c_uint = 1 << 1;

pub(crate) const IBV_WC_SUCCESS: c_uint = 0;
pub(crate) const IBV_WC_LOC_LEN_ERR: c_uint = 1;
pub(crate) const IBV_WC_LOC_QP_OP_ERR: c_uint = 2;
pub(crate) const IBV_WC_LOC_PROT_ERR: c_uint = 4;
pub(crate) const IBV_WC_WR_FLUSH_ERR: c_uint = 5;
pub(crate) const IBV_WC_BAD_RESP_ERR: c_uint = 7;
pub(crate) const IBV_WC_LOC_ACCESS_ERR: c_uint = 8;
pub(crate) const IBV_WC_REM_INV_REQ_ERR: c_uint = 9;
pub(crate) const IBV_WC_REM_ACCESS_ERR: c_uint = 10;
pub(crate) const IBV_WC_REM_OP_ERR: c_uint = 11;
pub(crate) const IBV_WC_RETRY_EXC_ERR: c_uint = 12;
pub(crate) const IBV_WC_RNR_RETRY_EXC_ERR: c_uint = 13;
pub(crate) const IBV_WC_REM_ABORT_ERR: c_uint = 16;

pub(crate) const IBV_EVENT_CQ_ERR: c_uint = 0;
pub(crate) const IBV_EVENT_QP_FATAL: c_uint = 1;
pub(crate) const IBV_EVENT_QP_REQ_ERR: c_uint = 2;
pub(crate) const IBV_EVENT_QP_ACCESS_ERR: c_uint = 3;
pub(crate) const IBV_EVENT_DEVICE_FATAL: c_uint = 8;
pub(crate) const IBV_EVENT_PORT_ACTIVE: c_uint = 9;
pub(crate) const IBV_EVENT_PORT_ERR: c_uint = 10;

pub(crate) const RDMA_PS_TCP: c_uint = 0x0106;

pub(crate) const RDMA_CM_EVENT_ADDR_RESOLVED: c_uint = 0;
pub(crate) const RDMA_CM_EVENT_ADDR_ERROR: c_uint = 1;
pub(crate) const RDMA_CM_EVENT_ROUTE_RESOLVED: c_uint = 2;
pub(crate) const RDMA_CM_EVENT_ROUTE_ERROR: c_uint = 3;
pub(crate) const RDMA_CM_EVENT_CONNECT_REQUEST: c_uint = 4;
pub(crate) const RDMA_CM_EVENT_CONNECT_RESPONSE: c_uint = 5;
pub(crate) const RDMA_CM_EVENT_CONNECT_ERROR: c_uint = 6;
pub(crate) const RDMA_CM_EVENT_UNREACHABLE: c_uint = 7;
pub(crate) const RDMA_CM_EVENT_REJECTED: c_uint = 8;
pub(crate) const RDMA_CM_EVENT_ESTABLISHED: c_uint = 9;
pub(crate) const RDMA_CM_EVENT_DISCONNECTED: c_uint = 10;
pub(crate) const RDMA_CM_EVENT_DEVICE_REMOVAL: c_uint = 11;
