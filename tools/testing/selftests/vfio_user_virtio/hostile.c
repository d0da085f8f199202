// SPDX-License-Identifier: GPL-2.0-only
/*
 * usage: hostile DEVICE ROUNDS SEED
 *
 * A driver that means harm to a virtio-pci device, which has no other: /sys/bus/pci/devices/DEVICE.
 * Each round sets it up, more or less, then writes registers, descriptors, rings and doorbells at
 * random, while a second thread changes the descriptors, and resets it. The device has to read 0 as
 * its status then, within 30 s.
 *
 * The guest itself is to survive: the device never gets to know a place that it may write, or an
 * array of descriptors, but in pages of this program's own. Descriptors are in pages that it is
 * never told to write, each in a place for its kind; lengths and offsets are such that also one
 * that is half new and half old stays within its page.
 */

#define _GNU_SOURCE
#include <err.h>
#include <fcntl.h>
#include <linux/types.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define PAGE 4096
#define BAR 0x4000
#define DEVICE_CONFIG 0x2000
#define DOORBELLS 0x3000
#define STATUS 0x14
#define QUEUE_SELECT 0x16
#define QUEUE_SIZE 0x18
#define QUEUE_VECTOR 0x1a
#define QUEUE_ENABLE 0x1c
#define QUEUE_DESC 0x20
#define QUEUE_DRIVER 0x28
#define QUEUE_DEVICE 0x30
#define QUEUE_END 0x38
#define READY 15
#define WINDOW 0x90
#define COMMAND 0x04
#define MEMORY_AND_MASTER 6

#define NEXT 1
#define WRITE 2
#define INDIRECT 4

/* No guest of these tests has memory there. */
#define NOWHERE 0x10000000000ull
/* Offsets in a page, and lengths, of what the device may write or follow. */
#define HALF (PAGE / 2)

enum { TABLES = 4, RINGS = 4, DATA = 8, PAGES = TABLES + RINGS + DATA };

struct descriptor {
	__u64 address;
	union {
		struct {
			__u32 length;
			__u16 flags;
			__u16 next;
		};
		__u64 rest;
	};
};

struct request {
	__u32 kind;
	__u32 reserved;
	__u64 sector;
};

static unsigned char *bar;
static int config;
static unsigned char *memory;
static __u64 physical[PAGES];
static unsigned long accesses;
static int ended;

static __u64 random_number(__u64 *seed)
{
	*seed ^= *seed << 13;
	*seed ^= *seed >> 7;
	*seed ^= *seed << 17;
	return *seed;
}

static unsigned int below(__u64 *seed, unsigned int end)
{
	return (random_number(seed) >> 11) % end;
}

static unsigned char *page(unsigned int index)
{
	return memory + (size_t)index * PAGE;
}

static unsigned int table(__u64 *seed)
{
	return below(seed, TABLES);
}

/* Each virtqueue has a table and rings of its own, mostly. */
static unsigned int table_of(__u64 *seed, unsigned int queue)
{
	return below(seed, 64) ? queue % TABLES : table(seed);
}

static unsigned int ring_of(__u64 *seed, unsigned int queue)
{
	return TABLES + (below(seed, 64) ? queue : below(seed, RINGS)) % RINGS;
}

static unsigned int data(__u64 *seed)
{
	return TABLES + RINGS + below(seed, DATA);
}

static void find_pages(void)
{
	int pagemap = open("/proc/self/pagemap", O_RDONLY);
	unsigned int index;
	__u64 entry;

	for (index = 0; index < PAGES; index++) {
		off_t at = (unsigned long)page(index) / PAGE * sizeof(entry);

		if (pread(pagemap, &entry, sizeof(entry), at) != sizeof(entry))
			err(1, "pagemap");
		if (!(entry >> 63) || !(entry & ((1ull << 55) - 1)))
			errx(1, "no physical address");
		entry = (entry & ((1ull << 55) - 1)) * PAGE;
		if (physical[index] && physical[index] != entry)
			errx(1, "a page has moved");
		physical[index] = entry;
	}
	close(pagemap);
}

static void take_memory(void)
{
	int compact = open("/proc/sys/vm/compact_unevictable_allowed", O_WRONLY);

	/* Locked pages stay where they are only then. */
	if (compact >= 0 && write(compact, "0", 1) != 1)
		err(1, "compact_unevictable_allowed");
	memory = mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE,
		      MAP_SHARED | MAP_ANONYMOUS | MAP_LOCKED | MAP_POPULATE, -1, 0);
	if (memory == MAP_FAILED || mlock(memory, PAGES * PAGE))
		err(1, "memory");
	find_pages();
}

static void write_bar(unsigned int at, unsigned int width, __u32 value)
{
	accesses++;
	if (width == 1)
		__atomic_store_n(bar + at, value, __ATOMIC_RELAXED);
	else if (width == 2)
		__atomic_store_n((__u16 *)(bar + (at & ~1)), value, __ATOMIC_RELAXED);
	else
		__atomic_store_n((__u32 *)(bar + (at & ~3)), value, __ATOMIC_RELAXED);
}

static __u32 read_bar(unsigned int at, unsigned int width)
{
	accesses++;
	if (width == 1)
		return __atomic_load_n(bar + at, __ATOMIC_RELAXED);
	if (width == 2)
		return __atomic_load_n((__u16 *)(bar + (at & ~1)), __ATOMIC_RELAXED);
	return __atomic_load_n((__u32 *)(bar + (at & ~3)), __ATOMIC_RELAXED);
}

/* The device is to take these for requests of its type, now and then. */
static void fill_data(__u64 *seed)
{
	unsigned char *at = page(data(seed)) + below(seed, 8) * 512;
	static const __u32 kinds[] = { 0, 1, 4, 8, 11, 13, 16 };
	static const unsigned char operations[] = {
		0x00, 0x03, 0x12, 0x1a, 0x25, 0x28, 0x2a, 0x35, 0x5a, 0x88, 0x8a, 0x91, 0x9e, 0xa0,
	};
	struct request request = { 0 };
	unsigned int byte;

	switch (below(seed, 4)) {
	case 0:
		request.kind = kinds[below(seed, sizeof(kinds) / sizeof(*kinds))];
		request.sector = below(seed, 8) ? below(seed, 1000) : random_number(seed);
		memcpy(at, &request, sizeof(request));
		break;
	case 1:
		memset(at, 0, 64);
		at[0] = 1;
		at[2] = 0x40;
		at[3] = below(seed, 3);
		at[19] = operations[below(seed, sizeof(operations))];
		for (byte = 20; byte < 35; byte++)
			at[byte] = below(seed, 4) ? 0 : random_number(seed);
		break;
	case 2:
		memset(at, 0, 512);
		break;
	default:
		for (byte = 0; byte < 64; byte++)
			at[byte] = random_number(seed);
	}
}

static void set(unsigned int of, unsigned int slot, struct descriptor descriptor)
{
	struct descriptor *at = (struct descriptor *)page(of) + slot;

	__atomic_store_n(&at->address, descriptor.address, __ATOMIC_RELAXED);
	__atomic_store_n(&at->rest, descriptor.rest, __ATOMIC_RELAXED);
}

/* A table in a half of a page: all of it in that page, whatever is said of its length. */
static struct descriptor indirect(__u64 *seed)
{
	struct descriptor descriptor = {
		.address = physical[table(seed)] + below(seed, HALF / 64 + 1) * 64,
		.length = below(seed, 8) ? below(seed, HALF / 16 + 1) * 16 : 1 + below(seed, 15),
		.flags = INDIRECT | (below(seed, 16) ? 0 : NEXT) | (below(seed, 4) ? 0 : WRITE),
		.next = below(seed, 300),
	};

	if (!below(seed, 32))
		descriptor.address = NOWHERE + (random_number(seed) >> 30);
	return descriptor;
}

static struct descriptor buffer(__u64 *seed)
{
	struct descriptor descriptor = {
		.address = physical[data(seed)] + below(seed, 5) * 512,
		.length = below(seed, 4) ? below(seed, 4) * 512 : below(seed, HALF + 1),
		.flags = below(seed, 4) | (random_number(seed) & 0xfff8),
		.next = below(seed, 8) ? below(seed, 256) : random_number(seed),
	};

	if (!below(seed, 128))
		descriptor.address = NOWHERE + (random_number(seed) >> 30);
	/* More than there is memory: nobody writes there. */
	if (!below(seed, 128))
		descriptor.length = 0x80000000u + below(seed, 0x7fffffff);
	return descriptor;
}

/* A fourth of the places is for tables. */
static void any_descriptor(__u64 *seed)
{
	unsigned int slot = below(seed, PAGE / sizeof(struct descriptor));

	set(table(seed), slot, slot % 4 == 3 ? indirect(seed) : buffer(seed));
}

/* Three buffers as a request has them. Returns the first one's place. */
static unsigned int chain(__u64 *seed, unsigned int of)
{
	static const unsigned int lengths[] = { 16, 51, 60, 12, 512 };
	/* Small virtqueues have these places, too. */
	unsigned int slot = below(seed, 4) * 4;
	struct descriptor descriptor = buffer(seed);
	unsigned int writable = below(seed, 2) ? WRITE : 0;

	descriptor.length = lengths[below(seed, sizeof(lengths) / sizeof(*lengths))];
	descriptor.flags = NEXT;
	descriptor.next = slot + 1;
	set(of, slot, descriptor);
	descriptor = buffer(seed);
	descriptor.flags = NEXT | writable;
	descriptor.next = slot + 2;
	set(of, slot + 1, descriptor);
	descriptor.address = physical[data(seed)] + below(seed, HALF + 1);
	descriptor.length = below(seed, 2) ? 1 : 108;
	descriptor.flags = WRITE;
	set(of, slot + 2, descriptor);
	return slot;
}

static void publish(__u64 *seed, unsigned int queue, unsigned int head)
{
	__u16 *avail = (__u16 *)page(ring_of(seed, queue));
	__u16 index = avail[1];
	unsigned int size;

	/* However large the virtqueue is. */
	for (size = 1; size <= 256; size *= 2)
		avail[2 + index % size] = head;
	avail[0] = below(seed, 2);
	if (below(seed, 128))
		index++;
	else
		index = random_number(seed);
	__atomic_store_n(&avail[1], index, __ATOMIC_SEQ_CST);
}

/* While the device looks at it. */
static void *scribble(void *of)
{
	__u64 seed = *(__u64 *)of;

	while (!__atomic_load_n(&ended, __ATOMIC_RELAXED)) {
		if (below(&seed, 2))
			any_descriptor(&seed);
		else
			fill_data(&seed);
		usleep(50);
	}
	return NULL;
}

/* Of one of the three parts of the selected virtqueue: none crosses the end of its page. */
static void set_address(__u64 *seed, unsigned int queue, unsigned int at)
{
	__u64 address;

	switch (at) {
	case QUEUE_DESC:
		address = physical[table_of(seed, queue)];
		/* One that is not aligned is not looked at. */
		if (!below(seed, 64))
			address += 1 + below(seed, 15);
		break;
	case QUEUE_DRIVER:
		address = physical[ring_of(seed, queue)];
		if (!below(seed, 64))
			address += below(seed, PAGE);
		break;
	default:
		address = physical[ring_of(seed, queue)] + HALF - 256;
		if (!below(seed, 64))
			address -= below(seed, 1024);
	}
	write_bar(at, 4, address);
	write_bar(at + 4, 4, below(seed, 64) ? 0 : 0x100 + below(seed, 0x10000));
}

static int is_address(unsigned int at)
{
	return at >= QUEUE_DESC && at < QUEUE_END;
}

/* Some register, by the window in configuration space. */
static void use_window(__u64 *seed)
{
	__u32 offset = below(seed, 2) ? below(seed, 0x40) : below(seed, BAR);
	__u32 length = 1u << below(seed, 3), value;

	if (is_address(offset) || is_address(offset + length - 1))
		return;
	accesses += 4;
	/* The bar, always 0, and what surrounds it. */
	if (pwrite(config, &(__u32){ 0 }, 4, WINDOW + 4) != 4 ||
	    pwrite(config, &offset, 4, WINDOW + 8) != 4 ||
	    pwrite(config, &length, 4, WINDOW + 12) != 4 ||
	    pread(config, &value, length, WINDOW + 16) != (ssize_t)length)
		err(1, "configuration space");
	value = random_number(seed);
	if (below(seed, 2) && pwrite(config, &value, length, WINDOW + 16) != (ssize_t)length)
		err(1, "configuration space");
}

static void set_up(__u64 *seed)
{
	unsigned int queue, half, part;

	write_bar(STATUS, 1, 1);
	write_bar(STATUS, 1, 3);
	for (half = 0; half < 2; half++) {
		__u32 refused = below(seed, 2) ? 0 : random_number(seed) & random_number(seed);

		write_bar(0x00, 4, half);
		write_bar(0x08, 4, half);
		/* VERSION_1 is in the upper half: without it there is little to see. */
		write_bar(0x0c, 4, read_bar(0x04, 4) & ~(half ? refused & ~1 : refused));
	}
	write_bar(STATUS, 1, 11);
	for (queue = 0; queue < 4; queue++) {
		write_bar(QUEUE_SELECT, 2, queue);
		write_bar(QUEUE_SIZE, 2, below(seed, 4) ? 16 : 1u << below(seed, 9));
		for (part = QUEUE_DESC; part < QUEUE_END; part += 8)
			set_address(seed, queue, part);
		write_bar(QUEUE_ENABLE, 2, 1);
	}
	for (queue = 0; queue < RINGS; queue++)
		memset(page(TABLES + queue), 0, PAGE);
	write_bar(STATUS, 1, READY);
}

static void make_available(__u64 *seed)
{
	unsigned int queue = below(seed, RINGS);

	publish(seed, queue, chain(seed, table_of(seed, queue)));
	write_bar(DOORBELLS + queue * 4, 2, queue);
}

static void do_harm(__u64 *seed)
{
	unsigned int at, width = 1u << below(seed, 3);

	switch (below(seed, 32)) {
	case 0:
		read_bar(below(seed, BAR - 3), width);
		break;
	case 1:
		at = below(seed, 2) ? below(seed, 0x40) : below(seed, BAR - 3);
		if (!is_address(at))
			write_bar(at, width, random_number(seed));
		break;
	case 2:
		set_address(seed, below(seed, RINGS), QUEUE_DESC + below(seed, 3) * 8);
		break;
	case 3:
		write_bar(STATUS, 1, READY | 1u << below(seed, 7));
		break;
	case 4:
		write_bar(QUEUE_SELECT + below(seed, 4) * 2, 2, below(seed, 300));
		break;
	case 5:
		use_window(seed);
		break;
	case 6:
		write_bar(DEVICE_CONFIG + below(seed, 0x40), width, below(seed, 300));
		break;
	case 7:
		at = below(seed, 2) ? below(seed, RINGS) : random_number(seed) % 0x400;
		write_bar(DOORBELLS + at * 4, width, at);
		break;
	case 8:
		publish(seed, below(seed, RINGS), below(seed, 300));
		break;
	default:
		make_available(seed);
	}
}

static long seconds(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec;
}

static int is_reset(void)
{
	long start = seconds();

	write_bar(STATUS, 1, 0);
	while (read_bar(STATUS, 1)) {
		if (seconds() - start > 30)
			return 0;
		usleep(100);
	}
	return 1;
}

/* To the console, too: what is seen of a guest that gets no further. */
static void tell(const char *device, unsigned long round, __u64 seed)
{
	static int log = -1;

	if (log < 0)
		log = open("/dev/kmsg", O_WRONLY);
	printf("%s: round %lu, seed %llu\n", device, round, (unsigned long long)seed);
	fflush(stdout);
	dprintf(log, "<5>hostile: %s: round %lu, seed %llu\n", device, round,
		(unsigned long long)seed);
}

static int open_file(const char *device, const char *name)
{
	char path[256];
	int file;

	snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/%s", device, name);
	file = open(path, O_RDWR);
	if (file < 0)
		err(1, "%s", path);
	return file;
}

int main(int argc, char **argv)
{
	unsigned long rounds, round;
	__u64 seed, another;
	pthread_t thread;
	__u16 command;
	int reset = 1;

	if (argc != 4)
		errx(2, "usage: hostile DEVICE ROUNDS SEED");
	rounds = strtoul(argv[2], NULL, 0);
	seed = strtoull(argv[3], NULL, 0) * 2 + 1;
	another = ~seed;
	take_memory();
	config = open_file(argv[1], "config");
	if (pread(config, &command, 2, COMMAND) != 2)
		err(1, "configuration space");
	command |= MEMORY_AND_MASTER;
	if (pwrite(config, &command, 2, COMMAND) != 2)
		err(1, "configuration space");
	bar = mmap(NULL, BAR, PROT_READ | PROT_WRITE, MAP_SHARED,
		   open_file(argv[1], "resource0"), 0);
	if (bar == MAP_FAILED)
		err(1, "resource0");
	if (pthread_create(&thread, NULL, scribble, &another))
		errx(1, "no thread");
	for (round = 0; round < rounds && reset; round++) {
		unsigned int harm = 10 + below(&seed, 60);

		if (round % 100 == 0)
			tell(argv[1], round, seed);
		set_up(&seed);
		while (harm--)
			do_harm(&seed);
		reset = is_reset();
	}
	__atomic_store_n(&ended, 1, __ATOMIC_RELAXED);
	pthread_join(thread, NULL);
	printf("%s: %lu rounds, %lu accesses\n", argv[1], round, accesses);
	if (!reset) {
		/* It may still write to these pages: nobody else is to get them. */
		printf("the status after a reset is %#x\n", read_bar(STATUS, 1));
		fflush(stdout);
		for (;;)
			pause();
	}
	find_pages();
	return 0;
}
