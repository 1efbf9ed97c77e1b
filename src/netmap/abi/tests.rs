//! The layout, against what a C compiler says of the real `<net/netmap.h>`.
//!
//! The header is FreeBSD's: where the system has it, or where zig keeps it
//! for building for FreeBSD.

use std::fmt::Write as _;
use std::mem::{offset_of, size_of};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::legacy::*;
use super::nmreq::*;
use super::option::*;
use super::*;

/// What is compared: a line of the form `NAME VALUE` as Rust sees it, and the C
/// expression for the same value.
struct Line {
    name: String,
    ours: u64,
    theirs: String,
}

/// Sizes and offsets. With `after`, what Rust has without the header that C
/// repeats in each option.
macro_rules! structure {
    ($lines:ident, $ours:ident, $theirs:literal, [$($field:ident),*]) => {
        structure!($lines, $ours, $theirs, 0, [$($field),*]);
    };
    ($lines:ident, $ours:ident, $theirs:literal, $after:expr, [$($field:ident),*]) => {
        let after: usize = $after;
        $lines.push(Line {
            name: format!("sizeof({})", $theirs),
            ours: (size_of::<$ours>() + after) as u64,
            theirs: format!("sizeof({})", $theirs),
        });
        $($lines.push(Line {
            name: format!("{}.{}", $theirs, stringify!($field)),
            ours: (offset_of!($ours, $field) + after) as u64,
            theirs: format!("offsetof({}, {})", $theirs, stringify!($field)),
        });)*
    };
}

macro_rules! numbers {
    ($($name:ident),* $(,)?) => {
        vec![$(Line {
            name: stringify!($name).to_owned(),
            #[allow(clippy::unnecessary_cast)]
            ours: $name as u64,
            theirs: stringify!($name).to_owned(),
        }),*]
    };
}

fn structures() -> Vec<Line> {
    let mut lines = Vec::new();
    let option = size_of::<OptionHeader>();
    structure!(
        lines,
        Slot,
        "struct netmap_slot",
        [buf_idx, len, flags, ptr]
    );
    structure!(
        lines,
        Ring,
        "struct netmap_ring",
        [
            buf_ofs,
            num_slots,
            nr_buf_size,
            ringid,
            dir,
            head,
            cur,
            tail,
            flags,
            ts,
            offset_mask,
            buf_align,
            sem
        ]
    );
    structure!(
        lines,
        Interface,
        "struct netmap_if",
        [
            ni_name,
            ni_version,
            ni_flags,
            ni_tx_rings,
            ni_rx_rings,
            ni_bufs_head,
            ni_host_tx_rings,
            ni_host_rx_rings,
            ni_spare1
        ]
    );
    structure!(
        lines,
        RequestHeader,
        "struct nmreq_header",
        [
            nr_version,
            nr_reqtype,
            nr_reserved,
            nr_name,
            nr_options,
            nr_body
        ]
    );
    structure!(
        lines,
        RegisterBody,
        "struct nmreq_register",
        [
            nr_offset,
            nr_memsize,
            nr_tx_slots,
            nr_rx_slots,
            nr_tx_rings,
            nr_rx_rings,
            nr_host_tx_rings,
            nr_host_rx_rings,
            nr_mem_id,
            nr_ringid,
            nr_mode,
            nr_extra_bufs,
            nr_flags
        ]
    );
    structure!(
        lines,
        PortInfoBody,
        "struct nmreq_port_info_get",
        [
            nr_memsize,
            nr_tx_slots,
            nr_rx_slots,
            nr_tx_rings,
            nr_rx_rings,
            nr_host_tx_rings,
            nr_host_rx_rings,
            nr_mem_id,
            pad
        ]
    );
    structure!(
        lines,
        AttachBody,
        "struct nmreq_vale_attach",
        [reg, port_index, pad1]
    );
    structure!(
        lines,
        DetachBody,
        "struct nmreq_vale_detach",
        [port_index, pad1]
    );
    structure!(
        lines,
        ListBody,
        "struct nmreq_vale_list",
        [nr_bridge_idx, pad1, nr_port_idx]
    );
    structure!(
        lines,
        HeaderBody,
        "struct nmreq_port_hdr",
        [nr_hdr_len, pad1]
    );
    structure!(
        lines,
        NewInterfaceBody,
        "struct nmreq_vale_newif",
        [
            nr_tx_slots,
            nr_rx_slots,
            nr_tx_rings,
            nr_rx_rings,
            nr_mem_id,
            pad1
        ]
    );
    structure!(
        lines,
        PollingBody,
        "struct nmreq_vale_polling",
        [nr_mode, nr_first_cpu_id, nr_num_polling_cpus, pad1]
    );
    structure!(
        lines,
        PoolsBody,
        "struct nmreq_pools_info",
        [
            nr_memsize,
            nr_mem_id,
            pad1,
            nr_if_pool_offset,
            nr_if_pool_objtotal,
            nr_if_pool_objsize,
            nr_ring_pool_offset,
            nr_ring_pool_objtotal,
            nr_ring_pool_objsize,
            nr_buf_pool_offset,
            nr_buf_pool_objtotal,
            nr_buf_pool_objsize
        ]
    );
    structure!(
        lines,
        LoopBody,
        "struct nmreq_sync_kloop_start",
        [sleep_us, pad1]
    );
    structure!(
        lines,
        OptionHeader,
        "struct nmreq_option",
        [nro_next, nro_reqtype, nro_status, nro_size]
    );
    structure!(
        lines,
        ExternalMemory,
        "struct nmreq_opt_extmem",
        option,
        [nro_usrptr, nro_info]
    );
    structure!(
        lines,
        SharedBlock,
        "struct nmreq_opt_csb",
        option,
        [csb_atok, csb_ktoa]
    );
    structure!(
        lines,
        LoopMode,
        "struct nmreq_opt_sync_kloop_mode",
        option,
        [mode]
    );
    structure!(
        lines,
        Offsets,
        "struct nmreq_opt_offsets",
        option,
        [
            nro_max_offset,
            nro_initial_offset,
            nro_offset_bits,
            nro_tx_align,
            nro_min_gap
        ]
    );
    structure!(
        lines,
        AppToKernel,
        "struct nm_csb_atok",
        [head, cur, appl_need_kick, sync_flags, pad]
    );
    structure!(
        lines,
        KernelToApp,
        "struct nm_csb_ktoa",
        [hwcur, hwtail, kern_need_kick, pad]
    );
    structure!(
        lines,
        LegacyRequest,
        "struct nmreq",
        [
            nr_name,
            nr_version,
            nr_offset,
            nr_memsize,
            nr_tx_slots,
            nr_rx_slots,
            nr_tx_rings,
            nr_rx_rings,
            nr_ringid,
            nr_cmd,
            nr_arg1,
            nr_arg2,
            nr_arg3,
            nr_flags,
            spare2
        ]
    );
    lines.push(Line {
        name: "one entry of eventfds".to_owned(),
        ours: size_of::<EventDescriptors>() as u64,
        theirs: "sizeof(((struct nmreq_opt_sync_kloop_eventfds *)0)->eventfds[0])".to_owned(),
    });
    lines.push(Line {
        name: "sizeof(struct nm_ifreq)".to_owned(),
        ours: CONFIG_SIZE as u64,
        theirs: "sizeof(struct nm_ifreq)".to_owned(),
    });
    lines
}

fn numbers() -> Vec<Line> {
    numbers![
        NETMAP_API,
        NETMAP_MIN_API,
        NETMAP_MAX_API,
        IFNAMSIZ,
        NETMAP_REQ_IFNAMSIZ,
        NETMAP_REQ_MAXSIZE,
        NETMAP_MAX_FRAGS,
        NETMAP_RING_MASK,
        NS_BUF_CHANGED,
        NS_REPORT,
        NS_FORWARD,
        NS_NO_LEARN,
        NS_INDIRECT,
        NS_MOREFRAG,
        NS_TXMON,
        NS_PORT_SHIFT,
        NR_TIMESTAMP,
        NR_FORWARD,
        NI_PRIV_MEM,
        NETMAP_REQ_REGISTER,
        NETMAP_REQ_PORT_INFO_GET,
        NETMAP_REQ_VALE_ATTACH,
        NETMAP_REQ_VALE_DETACH,
        NETMAP_REQ_VALE_LIST,
        NETMAP_REQ_PORT_HDR_SET,
        NETMAP_REQ_PORT_HDR_GET,
        NETMAP_REQ_VALE_NEWIF,
        NETMAP_REQ_VALE_DELIF,
        NETMAP_REQ_VALE_POLLING_ENABLE,
        NETMAP_REQ_VALE_POLLING_DISABLE,
        NETMAP_REQ_POOLS_INFO_GET,
        NETMAP_REQ_SYNC_KLOOP_START,
        NETMAP_REQ_SYNC_KLOOP_STOP,
        NETMAP_REQ_CSB_ENABLE,
        NETMAP_REQ_OPT_EXTMEM,
        NETMAP_REQ_OPT_SYNC_KLOOP_EVENTFDS,
        NETMAP_REQ_OPT_CSB,
        NETMAP_REQ_OPT_SYNC_KLOOP_MODE,
        NETMAP_REQ_OPT_OFFSETS,
        NETMAP_REQ_OPT_MAX,
        NM_OPT_SYNC_KLOOP_DIRECT_TX,
        NM_OPT_SYNC_KLOOP_DIRECT_RX,
        NETMAP_POLLING_MODE_SINGLE_CPU,
        NETMAP_POLLING_MODE_MULTI_CPU,
        NR_REG_DEFAULT,
        NR_REG_ALL_NIC,
        NR_REG_SW,
        NR_REG_NIC_SW,
        NR_REG_ONE_NIC,
        NR_REG_PIPE_MASTER,
        NR_REG_PIPE_SLAVE,
        NR_REG_NULL,
        NR_REG_ONE_SW,
        NR_MONITOR_TX,
        NR_MONITOR_RX,
        NR_ZCOPY_MON,
        NR_EXCLUSIVE,
        NR_RX_RINGS_ONLY,
        NR_TX_RINGS_ONLY,
        NR_ACCEPT_VNET_HDR,
        NR_DO_RX_POLL,
        NR_NO_TX_POLL,
        NETMAP_HW_RING,
        NETMAP_SW_RING,
        NETMAP_NO_TX_POLL,
        NETMAP_DO_RX_POLL,
        NR_REG_MASK,
        NETMAP_BDG_ATTACH,
        NETMAP_BDG_DETACH,
        NETMAP_BDG_LIST,
        NETMAP_BDG_VNET_HDR,
        NETMAP_BDG_NEWIF,
        NETMAP_BDG_DELIF,
        NETMAP_BDG_POLLING_ON,
        NETMAP_BDG_POLLING_OFF,
        NETMAP_PT_HOST_CREATE,
        NETMAP_PT_HOST_DELETE,
        NETMAP_VNET_HDR_GET,
        NETMAP_BDG_HOST,
        NIOCCTRL,
        NIOCTXSYNC,
        NIOCRXSYNC,
        NIOCGINFO,
        NIOCREGIF,
        NIOCCONFIG,
    ]
}

/// The real header: of the system, or of zig (see FREEBSD-CROSS.md).
fn header() -> Option<PathBuf> {
    let system = Path::new("/usr/include/net/netmap.h");
    if cfg!(target_os = "freebsd") && system.exists() {
        return Some(system.to_owned());
    }
    let home = std::env::var_os("HOME")?;
    let libraries = Path::new(&home).join(".freebsd-cross/venv/lib");
    let versions = std::fs::read_dir(libraries).ok()?;
    versions
        .flatten()
        .map(|version| {
            version
                .path()
                .join("site-packages/ziglang/lib/libc/include/generic-freebsd/net/netmap.h")
        })
        .find(|header| header.exists())
}

fn program(header: &Path, lines: &[Line]) -> String {
    let mut text = String::from(
        "#include <stdio.h>\n#include <stddef.h>\n#include <stdint.h>\n#include <sys/types.h>\n\
         #include <sys/time.h>\n#include <sys/ioctl.h>\n#include <net/if.h>\n",
    );
    // The header lies beside others of a foreign system: it alone is taken.
    writeln!(text, "#include \"{}\"\nint main(void) {{", header.display()).unwrap();
    for line in lines {
        writeln!(
            text,
            "printf(\"%llu\\n\", (unsigned long long)({}));",
            line.theirs
        )
        .unwrap();
    }
    text.push_str("return 0; }\n");
    text
}

#[test]
fn everything_is_as_the_c_compiler_has_it() {
    let Some(header) = header() else {
        println!("skipped: no FreeBSD <net/netmap.h> on this machine (see FREEBSD-CROSS.md)");
        return;
    };
    let mut lines = structures();
    lines.extend(numbers());
    let place = std::env::temp_dir().join(format!("vtnetd-layout-{}", std::process::id()));
    std::fs::create_dir_all(&place).unwrap();
    let (source, binary) = (place.join("layout.c"), place.join("layout"));
    std::fs::write(&source, program(&header, &lines)).unwrap();
    let compiler = std::env::var_os("CC").unwrap_or_else(|| "cc".into());
    let compiled = Command::new(compiler)
        .args([source.as_os_str(), "-o".as_ref(), binary.as_os_str()])
        .output();
    let compiled = compiled.expect("cc: not found; install a C compiler or set CC");
    assert!(
        compiled.status.success(),
        "{}",
        String::from_utf8_lossy(&compiled.stderr)
    );
    let told = Command::new(&binary).output().unwrap();
    std::fs::remove_dir_all(&place).unwrap();
    let told = String::from_utf8(told.stdout).unwrap();
    let theirs: Vec<u64> = told.lines().map(|line| line.parse().unwrap()).collect();
    assert_eq!(theirs.len(), lines.len());
    for (line, theirs) in lines.iter().zip(theirs) {
        assert_eq!(line.ours, theirs, "{}", line.name);
    }
}

/// What follows the last fields has no name to compare: flexible arrays.
#[test]
fn what_follows_a_structure_follows_it_at_once() {
    assert_eq!(size_of::<Interface>(), 56);
    assert_eq!(size_of::<Ring>(), 256);
    assert_eq!(size_of::<OptionHeader>(), 24);
}

#[test]
fn sizes_by_kind() {
    for (reqtype, size) in [(0, 0), (1, 56), (3, 64), (9, 0), (12, 64), (15, 0), (16, 0)] {
        assert_eq!(body_size(reqtype), size, "{reqtype}");
    }
    for (reqtype, size, payload) in [
        (1, 0, 72),
        (2, 0, 0),
        (2, 23, 0),
        (2, 56, 32),
        (2, u64::MAX, u64::MAX - 24),
        (3, 99, 16),
        (4, 0, 8),
        (5, 0, 32),
        (6, 99, 0),
        (u32::MAX, 99, 0),
    ] {
        assert_eq!(payload_size(reqtype, size), payload, "{reqtype}");
    }
}
