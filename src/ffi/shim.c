/*
 * What is inline or a macro in <net/netmap_user.h>, as functions.
 *
 * SPDX-License-Identifier: BSD-2-Clause
 */

#include <sys/types.h>
#include <sys/socket.h>
#include <net/if.h>
#include <strings.h>

#define NETMAP_WITH_LIBS
#include <net/netmap_user.h>

#include "shim.h"

struct nm_desc *
vtnetd_nm_open(const char *name)
{
	return (nm_open(name, NULL, 0, NULL));
}

int
vtnetd_nm_close(struct nm_desc *desc)
{
	return (nm_close(desc));
}

struct netmap_ring *
vtnetd_netmap_txring(struct netmap_if *port, uint32_t index)
{
	return (NETMAP_TXRING(port, index));
}

struct netmap_ring *
vtnetd_netmap_rxring(struct netmap_if *port, uint32_t index)
{
	return (NETMAP_RXRING(port, index));
}
