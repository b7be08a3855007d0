//! Sizes and offsets, for the test that holds them against C's.

use super::*;

macro_rules! size {
    ($t:ident) => {
        (concat!("sizeof(struct ", stringify!($t), ")"), size_of::<$t>())
    };
}
macro_rules! field {
    ($t:ident, $f:ident) => {
        field!($t, $f, stringify!($f))
    };
    ($t:ident, $f:ident, $c:expr) => {
        (concat!("offsetof(struct ", stringify!($t), ", ", $c, ")"), std::mem::offset_of!($t, $f))
    };
}

/// All that the crate relies on: C's expression and our number.
pub(crate) const LAYOUT: &[(&str, usize)] = &[
    field!(ibv_device, node_type),
    field!(ibv_device, transport_type),
    size!(ibv_sge),
    field!(ibv_sge, addr),
    field!(ibv_sge, length),
    field!(ibv_sge, lkey),
    size!(ibv_send_wr),
    field!(ibv_send_wr, wr_id),
    field!(ibv_send_wr, next),
    field!(ibv_send_wr, sg_list),
    field!(ibv_send_wr, num_sge),
    field!(ibv_send_wr, opcode),
    field!(ibv_send_wr, send_flags),
    field!(ibv_send_wr, imm_data),
    field!(ibv_send_wr, remote_addr, "wr.rdma.remote_addr"),
    field!(ibv_send_wr, rkey, "wr.rdma.rkey"),
    size!(ibv_recv_wr),
    field!(ibv_recv_wr, wr_id),
    field!(ibv_recv_wr, next),
    field!(ibv_recv_wr, sg_list),
    field!(ibv_recv_wr, num_sge),
    size!(ibv_wc),
    field!(ibv_wc, wr_id),
    field!(ibv_wc, status),
    field!(ibv_wc, opcode),
    field!(ibv_wc, vendor_err),
    field!(ibv_wc, byte_len),
    field!(ibv_wc, imm_data),
    field!(ibv_wc, qp_num),
    field!(ibv_wc, src_qp),
    field!(ibv_wc, wc_flags),
    field!(ibv_wc, pkey_index),
    field!(ibv_wc, slid),
    field!(ibv_wc, sl),
    field!(ibv_wc, dlid_path_bits),
    size!(ibv_context_ops),
    field!(ibv_context_ops, poll_cq),
    field!(ibv_context_ops, req_notify_cq),
    field!(ibv_context_ops, post_send),
    field!(ibv_context_ops, post_recv),
    field!(ibv_context, device),
    field!(ibv_context, ops),
    field!(ibv_context, cmd_fd),
    field!(ibv_context, async_fd),
    field!(ibv_context, num_comp_vectors),
    size!(ibv_pd),
    field!(ibv_pd, context),
    field!(ibv_pd, handle),
    size!(ibv_mr),
    field!(ibv_mr, context),
    field!(ibv_mr, pd),
    field!(ibv_mr, addr),
    field!(ibv_mr, length),
    field!(ibv_mr, handle),
    field!(ibv_mr, lkey),
    field!(ibv_mr, rkey),
    size!(ibv_comp_channel),
    field!(ibv_comp_channel, context),
    field!(ibv_comp_channel, fd),
    field!(ibv_comp_channel, refcnt),
    field!(ibv_cq, context),
    field!(ibv_cq, channel),
    field!(ibv_cq, cq_context),
    field!(ibv_cq, handle),
    field!(ibv_cq, cqe),
    field!(ibv_qp, context),
    field!(ibv_qp, qp_context),
    field!(ibv_qp, pd),
    field!(ibv_qp, send_cq),
    field!(ibv_qp, recv_cq),
    field!(ibv_qp, srq),
    field!(ibv_qp, handle),
    field!(ibv_qp, qp_num),
    field!(ibv_qp, state),
    field!(ibv_qp, qp_type),
    size!(ibv_qp_cap),
    field!(ibv_qp_cap, max_send_wr),
    field!(ibv_qp_cap, max_recv_wr),
    field!(ibv_qp_cap, max_send_sge),
    field!(ibv_qp_cap, max_recv_sge),
    field!(ibv_qp_cap, max_inline_data),
    size!(ibv_qp_init_attr),
    field!(ibv_qp_init_attr, qp_context),
    field!(ibv_qp_init_attr, send_cq),
    field!(ibv_qp_init_attr, recv_cq),
    field!(ibv_qp_init_attr, srq),
    field!(ibv_qp_init_attr, cap),
    field!(ibv_qp_init_attr, qp_type),
    field!(ibv_qp_init_attr, sq_sig_all),
    size!(ibv_gid_entry),
    field!(ibv_gid_entry, gid),
    field!(ibv_gid_entry, gid_index),
    field!(ibv_gid_entry, port_num),
    field!(ibv_gid_entry, gid_type),
    field!(ibv_gid_entry, ndev_ifindex),
    size!(ibv_global_route),
    field!(ibv_global_route, dgid),
    field!(ibv_global_route, flow_label),
    field!(ibv_global_route, sgid_index),
    field!(ibv_global_route, hop_limit),
    field!(ibv_global_route, traffic_class),
    size!(ibv_ah_attr),
    field!(ibv_ah_attr, grh),
    field!(ibv_ah_attr, dlid),
    field!(ibv_ah_attr, sl),
    field!(ibv_ah_attr, src_path_bits),
    field!(ibv_ah_attr, static_rate),
    field!(ibv_ah_attr, is_global),
    field!(ibv_ah_attr, port_num),
    size!(ibv_qp_attr),
    field!(ibv_qp_attr, qp_state),
    field!(ibv_qp_attr, path_mtu),
    field!(ibv_qp_attr, rq_psn),
    field!(ibv_qp_attr, sq_psn),
    field!(ibv_qp_attr, dest_qp_num),
    field!(ibv_qp_attr, qp_access_flags),
    field!(ibv_qp_attr, cap),
    field!(ibv_qp_attr, ah_attr),
    field!(ibv_qp_attr, alt_ah_attr),
    field!(ibv_qp_attr, pkey_index),
    field!(ibv_qp_attr, max_rd_atomic),
    field!(ibv_qp_attr, max_dest_rd_atomic),
    field!(ibv_qp_attr, min_rnr_timer),
    field!(ibv_qp_attr, port_num),
    field!(ibv_qp_attr, timeout),
    field!(ibv_qp_attr, retry_cnt),
    field!(ibv_qp_attr, rnr_retry),
    field!(ibv_qp_attr, alt_port_num),
    field!(ibv_qp_attr, alt_timeout),
    field!(ibv_qp_attr, rate_limit),
    size!(ibv_port_attr),
    field!(ibv_port_attr, state),
    field!(ibv_port_attr, max_mtu),
    field!(ibv_port_attr, active_mtu),
    field!(ibv_port_attr, gid_tbl_len),
    field!(ibv_port_attr, max_msg_sz),
    field!(ibv_port_attr, lid),
    field!(ibv_port_attr, link_layer),
    field!(ibv_port_attr, port_cap_flags2),
    size!(ibv_device_attr),
    field!(ibv_device_attr, fw_ver),
    field!(ibv_device_attr, node_guid),
    field!(ibv_device_attr, max_mr_size),
    field!(ibv_device_attr, page_size_cap),
    field!(ibv_device_attr, max_qp),
    field!(ibv_device_attr, max_qp_wr),
    field!(ibv_device_attr, max_sge),
    field!(ibv_device_attr, max_cq),
    field!(ibv_device_attr, max_cqe),
    field!(ibv_device_attr, max_mr),
    field!(ibv_device_attr, max_pd),
    field!(ibv_device_attr, max_pkeys),
    field!(ibv_device_attr, phys_port_cnt),
    size!(ibv_async_event),
    field!(ibv_async_event, element),
    field!(ibv_async_event, event_type),
    size!(rdma_event_channel),
    field!(rdma_event_channel, fd),
    field!(rdma_cm_id, verbs),
    field!(rdma_cm_id, channel),
    field!(rdma_cm_id, context),
    field!(rdma_cm_id, qp),
    field!(rdma_cm_id, src, "route.addr.src_storage"),
    field!(rdma_cm_id, dst, "route.addr.dst_storage"),
    size!(rdma_conn_param),
    field!(rdma_conn_param, private_data),
    field!(rdma_conn_param, private_data_len),
    field!(rdma_conn_param, responder_resources),
    field!(rdma_conn_param, initiator_depth),
    field!(rdma_conn_param, flow_control),
    field!(rdma_conn_param, retry_count),
    field!(rdma_conn_param, rnr_retry_count),
    field!(rdma_conn_param, srq),
    field!(rdma_conn_param, qp_num),
    field!(rdma_cm_event, id),
    field!(rdma_cm_event, listen_id),
    field!(rdma_cm_event, event),
    field!(rdma_cm_event, status),
    field!(rdma_cm_event, conn, "param.conn"),
];

/// Prints C's numbers, one per line.
fn c_program() -> String {
    let lines: String =
        LAYOUT.iter().map(|(fact, _)| format!("  printf(\"%zu\\n\", (size_t)({fact}));\n")).collect();
    format!(
        "#include <infiniband/verbs.h>\n#include <rdma/rdma_cma.h>\n#include <stddef.h>\n#include <stdio.h>\nint main(void) {{\n{lines}  return 0;\n}}\n"
    )
}

/// Compiles and runs the program, or says why that cannot be done here.
fn c_numbers() -> Result<Vec<usize>, String> {
    use std::process::Command;
    let folder = tempfile::tempdir().unwrap();
    let (source, program) = (folder.path().join("layout.c"), folder.path().join("layout"));
    std::fs::write(&source, c_program()).unwrap();
    let compiler = Command::new("cc").arg("-o").arg(&program).arg(&source).output();
    let compiled = compiler.map_err(|error| format!("no C compiler: {error}"))?;
    if !compiled.status.success() {
        return Err(format!(
            "libibverbs-dev and librdmacm-dev: {}",
            String::from_utf8_lossy(&compiled.stderr)
        ));
    }
    let output = Command::new(&program).output().unwrap();
    Ok(String::from_utf8(output.stdout).unwrap().lines().map(|line| line.parse().unwrap()).collect())
}

#[test]
fn structures_lie_as_the_c_compiler_lays_them_out() {
    let numbers = match c_numbers() {
        Ok(numbers) => numbers,
        Err(why) => return crate::testing::skip(why.lines().next().unwrap_or_default()),
    };
    assert_eq!(numbers.len(), LAYOUT.len());
    for ((fact, ours), theirs) in LAYOUT.iter().zip(numbers) {
        assert_eq!(*ours, theirs, "{fact}");
    }
}
