/*
 * What is inline or a macro in <net/netmap_user.h>, as functions.
 *
 * SPDX-License-Identifier: BSD-2-Clause
 */

#include <stdint.h>

struct netmap_if;
struct netmap_ring;
struct nm_desc;

/* nm_open(name, NULL, 0, NULL): NULL and errno when it fails. */
struct nm_desc *vtnetd_nm_open(const char *name);
/* Unmaps, closes and frees. */
int vtnetd_nm_close(struct nm_desc *desc);

/* A ring; host rings follow those of the port. */
struct netmap_ring *vtnetd_netmap_txring(struct netmap_if *port, uint32_t index);
struct netmap_ring *vtnetd_netmap_rxring(struct netmap_if *port, uint32_t index);
