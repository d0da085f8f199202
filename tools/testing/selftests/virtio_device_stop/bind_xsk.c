// SPDX-License-Identifier: GPL-2.0-only
/*
 * usage: bind_xsk INTERFACE QUEUE
 *
 * Binds an AF_XDP socket to a queue of an interface, says "zero-copy" or "copy", or why it can't
 * be bound, sends frames, each time that there is room, and ends with its standard input.
 */

#include <err.h>
#include <linux/if_xdp.h>
#include <net/if.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#define FRAMES 64
#define FRAME_SIZE 2048
#define LENGTH 60

struct ring {
	uint32_t *producer;
	uint32_t *consumer;
	void *entries;
};

static struct ring map_ring(int xsk, const struct xdp_ring_offset *at, size_t entry, off_t pages)
{
	size_t length = at->desc + FRAMES * entry;
	char *ring = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, xsk,
			  pages);

	if (ring == MAP_FAILED)
		err(1, "a ring can't be mapped");
	return (struct ring){
		.producer = (uint32_t *)(ring + at->producer),
		.consumer = (uint32_t *)(ring + at->consumer),
		.entries = ring + at->desc,
	};
}

static void set_ring(int xsk, int option)
{
	int entries = FRAMES;

	if (setsockopt(xsk, SOL_XDP, option, &entries, sizeof(entries)))
		err(1, "a ring can't be made");
}

int main(int argc, char **argv)
{
	struct sockaddr_xdp address = { .sxdp_family = AF_XDP };
	struct xdp_umem_reg umem = { .len = FRAMES * FRAME_SIZE, .chunk_size = FRAME_SIZE };
	struct xdp_mmap_offsets offsets;
	struct xdp_options options;
	socklen_t size = sizeof(offsets);
	struct pollfd input = { .fd = STDIN_FILENO, .events = POLLIN };
	struct ring tx, completions;
	char *frames;
	int xsk;

	if (argc != 3)
		errx(2, "usage: bind_xsk INTERFACE QUEUE");
	xsk = socket(AF_XDP, SOCK_RAW, 0);
	if (xsk < 0)
		err(1, "no AF_XDP");
	frames = mmap(NULL, umem.len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (frames == MAP_FAILED)
		err(1, "no memory");
	umem.addr = (uintptr_t)frames;
	if (setsockopt(xsk, SOL_XDP, XDP_UMEM_REG, &umem, sizeof(umem)))
		err(1, "the memory is refused");
	set_ring(xsk, XDP_UMEM_FILL_RING);
	set_ring(xsk, XDP_UMEM_COMPLETION_RING);
	set_ring(xsk, XDP_RX_RING);
	set_ring(xsk, XDP_TX_RING);
	if (getsockopt(xsk, SOL_XDP, XDP_MMAP_OFFSETS, &offsets, &size))
		err(1, "the rings are not to be found");
	tx = map_ring(xsk, &offsets.tx, sizeof(struct xdp_desc), XDP_PGOFF_TX_RING);
	completions = map_ring(xsk, &offsets.cr, sizeof(uint64_t),
			       XDP_UMEM_PGOFF_COMPLETION_RING);
	address.sxdp_ifindex = if_nametoindex(argv[1]);
	address.sxdp_queue_id = atoi(argv[2]);
	if (bind(xsk, (struct sockaddr *)&address, sizeof(address)))
		err(1, "%s", argv[1]);
	size = sizeof(options);
	if (getsockopt(xsk, SOL_XDP, XDP_OPTIONS, &options, &size))
		err(1, "the mode is not to be found");
	puts(options.flags & XDP_OPTIONS_ZEROCOPY ? "zero-copy" : "copy");
	fflush(stdout);

	/* To everybody, of an Ethertype for local experiments. */
	for (int i = 0; i < FRAMES; i++) {
		memset(frames + i * FRAME_SIZE, 0xff, 6);
		frames[i * FRAME_SIZE + 12] = 0x88;
		frames[i * FRAME_SIZE + 13] = 0xb6;
	}
	while (poll(&input, 1, 1) == 0) {
		uint32_t sent = *tx.producer;
		uint32_t done = __atomic_load_n(completions.producer, __ATOMIC_ACQUIRE);

		__atomic_store_n(completions.consumer, done, __ATOMIC_RELEASE);
		while (sent - done < FRAMES) {
			struct xdp_desc *frame = (struct xdp_desc *)tx.entries + sent % FRAMES;

			frame->addr = (sent % FRAMES) * FRAME_SIZE;
			frame->len = LENGTH;
			frame->options = 0;
			sent++;
		}
		__atomic_store_n(tx.producer, sent, __ATOMIC_RELEASE);
		/* It may be detached, or busy: then it is tried again. */
		sendto(xsk, NULL, 0, MSG_DONTWAIT, NULL, 0);
	}
	return 0;
}
