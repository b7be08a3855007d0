//! The calls that verbs.h defines inline: they go through the provider's own table in the context.

use std::ffi::c_int;

use crate::ffi::*;

/// What a provider without one of the functions answers.
const UNSUPPORTED: c_int = libc::EOPNOTSUPP;

/// Number of completions written to `wc`, or negative.
///
/// # Safety
/// `cq` must be alive, `wc` writable.
pub(crate) unsafe fn poll_cq(cq: *mut ibv_cq, wc: &mut [ibv_wc]) -> c_int {
    // SAFETY: a live CQ has a live context (our caller's contract); `wc` bounds what is written.
    unsafe {
        match (*(*cq).context).ops.poll_cq {
            Some(poll) => poll(cq, wc.len() as c_int, wc.as_mut_ptr()),
            None => -UNSUPPORTED,
        }
    }
}

/// Asks for an event at the next completion. An errno, or 0.
///
/// # Safety
/// `cq` must be alive.
pub(crate) unsafe fn req_notify_cq(cq: *mut ibv_cq) -> c_int {
    // SAFETY: a live CQ has a live context (our caller's contract).
    unsafe { (*(*cq).context).ops.req_notify_cq.map_or(UNSUPPORTED, |notify| notify(cq, 0)) }
}

/// An errno, or 0; then `bad` is the first request that was not taken.
///
/// # Safety
/// `qp` must be alive, `wr` a list whose elements and sges are alive during the call, and what the sges name registered
/// until the work's completion was polled or the QP was destroyed.
pub(crate) unsafe fn post_send(qp: *mut ibv_qp, wr: *mut ibv_send_wr, bad: &mut *mut ibv_send_wr) -> c_int {
    // SAFETY: a live QP has a live context; the rest is our caller's contract.
    unsafe { (*(*qp).context).ops.post_send.map_or(UNSUPPORTED, |post| post(qp, wr, bad)) }
}

/// As [`post_send`].
///
/// # Safety
/// As [`post_send`].
pub(crate) unsafe fn post_recv(qp: *mut ibv_qp, wr: *mut ibv_recv_wr) -> c_int {
    let mut bad = std::ptr::null_mut();
    // SAFETY: as above.
    unsafe { (*(*qp).context).ops.post_recv.map_or(UNSUPPORTED, |post| post(qp, wr, &mut bad)) }
}
