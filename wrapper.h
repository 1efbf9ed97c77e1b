/*
 * The FreeBSD headers whose structures, constants and inline functions the back
 * ends and the sandbox need. Nothing else of the system is bound: what the libc
 * crate has is taken from there.
 *
 * SPDX-License-Identifier: BSD-2-Clause
 */

#include <sys/param.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/sockio.h>
#include <sys/capsicum.h>

/* tap(4) and vmnet(4) */
#include <net/if.h>
#include <net/if_tap.h>

/* netmap(4) and vale(4), with the inline functions over rings */
#define NETMAP_WITH_LIBS
#include <net/netmap_user.h>

/* netgraph(4): ng_socket(4) and the nodes that a device connects to */
#include <netgraph.h>
#include <netgraph/ng_message.h>
#include <netgraph/ng_socket.h>

#include "src/ffi/shim.h"

/*
 * Numbers that are macros with casts or arguments: bindgen sees what they are
 * worth only as constants. The prefix is taken off again (build.rs).
 */
#define NUMBER(name) \
	static const unsigned long vtnetd_number_##name = (unsigned long)(name)

NUMBER(NIOCCTRL);
NUMBER(NIOCREGIF);
NUMBER(NIOCTXSYNC);
NUMBER(NIOCRXSYNC);

NUMBER(TAPSIFINFO);
NUMBER(TAPGIFINFO);
NUMBER(TAPGIFNAME);
NUMBER(TAPSVNETHDR);
NUMBER(TAPGVNETHDR);
NUMBER(TAPSTRANSIENT);
NUMBER(TAPGTRANSIENT);
NUMBER(VMIO_SIOCSIFFLAGS);

NUMBER(FIONBIO);
NUMBER(FIONREAD);
NUMBER(SIOCIFCREATE2);
NUMBER(SIOCIFDESTROY);
NUMBER(SIOCGIFFLAGS);
NUMBER(SIOCSIFFLAGS);
NUMBER(SIOCGIFCAP);
NUMBER(SIOCSIFCAP);
NUMBER(SIOCGIFMTU);
NUMBER(SIOCSIFMTU);
NUMBER(SIOCSIFNAME);
NUMBER(SIOCGIFGROUP);

NUMBER(IFCAP_RXCSUM);
NUMBER(IFCAP_TXCSUM);
NUMBER(IFCAP_RXCSUM_IPV6);
NUMBER(IFCAP_TXCSUM_IPV6);
NUMBER(IFCAP_TSO4);
NUMBER(IFCAP_TSO6);
NUMBER(IFCAP_LRO);
NUMBER(IFCAP_VLAN_MTU);
NUMBER(IFCAP_VLAN_HWTAGGING);
NUMBER(IFCAP_NV);

NUMBER(CAP_READ);
NUMBER(CAP_WRITE);
NUMBER(CAP_RECV);
NUMBER(CAP_SEND);
NUMBER(CAP_SEEK);
NUMBER(CAP_MMAP_R);
NUMBER(CAP_MMAP_RW);
NUMBER(CAP_FSTAT);
NUMBER(CAP_FTRUNCATE);
NUMBER(CAP_FCNTL);
NUMBER(CAP_LOOKUP);
NUMBER(CAP_UNLINKAT);
NUMBER(CAP_ACCEPT);
NUMBER(CAP_CONNECT);
NUMBER(CAP_GETPEERNAME);
NUMBER(CAP_GETSOCKNAME);
NUMBER(CAP_GETSOCKOPT);
NUMBER(CAP_SETSOCKOPT);
NUMBER(CAP_LISTEN);
NUMBER(CAP_SHUTDOWN);
NUMBER(CAP_EVENT);
NUMBER(CAP_IOCTL);
NUMBER(CAP_KQUEUE);
NUMBER(CAP_KQUEUE_EVENT);
NUMBER(CAP_KQUEUE_CHANGE);
NUMBER(CAP_PDGETPID);
NUMBER(CAP_PDWAIT);
NUMBER(CAP_PDKILL);
NUMBER(CAP_ALL0);
NUMBER(CAP_ALL1);
