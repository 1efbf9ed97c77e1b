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
NUMBER(NIOCTXSYNC);
NUMBER(NIOCRXSYNC);

NUMBER(TAPGIFNAME);
NUMBER(TAPSVNETHDR);
NUMBER(TAPSTRANSIENT);

NUMBER(SIOCIFCREATE2);
NUMBER(SIOCIFDESTROY);
NUMBER(SIOCGIFFLAGS);
NUMBER(SIOCSIFFLAGS);
NUMBER(SIOCGIFCAP);
NUMBER(SIOCSIFCAP);
NUMBER(SIOCGIFMTU);
NUMBER(SIOCGIFGROUP);

NUMBER(IFCAP_TXCSUM);
NUMBER(IFCAP_TXCSUM_IPV6);
NUMBER(IFCAP_TSO4);
NUMBER(IFCAP_TSO6);
