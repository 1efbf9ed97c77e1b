/*
 * The FreeBSD headers whose structures, constants and inline functions the back
 * ends for its kernel need. Nothing else of the system is bound: what the libc
 * crate has is taken from there.
 *
 * SPDX-License-Identifier: BSD-2-Clause
 */

#include <sys/param.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

/* tap(4) and vmnet(4) */
#include <net/if.h>
#include <net/if_tap.h>

/* netmap(4) and vale(4), with the inline functions over rings */
#define NETMAP_WITH_LIBS
#include <net/netmap_user.h>
#include <net/netmap_virt.h>

/* netgraph(4): ng_socket(4) and the nodes that a device connects to */
#include <netgraph.h>
#include <netgraph/ng_message.h>
#include <netgraph/ng_socket.h>
