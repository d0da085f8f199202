// SPDX-License-Identifier: GPL-2.0-only
/*
 * usage: fuzz_owner [-u USER] CALLS SEED DEVICE...
 *
 * Calls ioctl(2) on /dev/virtio_device_stop with random commands, sizes, pointers and members, by
 * two threads on few files that are opened and closed meanwhile. What is asked for may happen or
 * not: only the kernel is to live. The devices run afterwards, since all files are closed. USER is
 * who it is from when the first files are open: if that is not root, it can open no others.
 */

#define _GNU_SOURCE
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "virtio_device_stop.h"

#define FILES 3
#define PAGE 4096
#define THREADS 2

static struct virtio_device_stop_add adds[64];
static unsigned int known;
static int files[FILES];
static unsigned long calls, done;
static uid_t user;
static char *edge;

static unsigned int below(unsigned int *seed, unsigned int end)
{
	return rand_r(seed) % end;
}

/* Random, but near to what makes sense. */
static unsigned int number(unsigned int *seed)
{
	static const unsigned int few[] = {
		0, 0, 0, 1, 2, 16, 24, 32, 64, 80, 100, 1000, 4096, 4097, 0x7fffffff, 0xffffffff,
	};

	if (below(seed, 8))
		return few[below(seed, sizeof(few) / sizeof(*few))];
	return rand_r(seed);
}

static void fill(unsigned int *seed, void *at, size_t size, unsigned int command)
{
	size_t word;

	for (word = 0; word < size / sizeof(unsigned int); word++)
		((unsigned int *)at)[word] = number(seed);
	if (below(seed, 4))
		memset((char *)at + 8, 0, size - 8);
	switch (command) {
	case 1:
		if (known && below(seed, 4))
			memcpy(at, &adds[below(seed, known)], sizeof(*adds));
		break;
	case 2:
		*(unsigned int *)at = sizeof(struct virtio_device_stop_remove);
		if (known && below(seed, 4))
			((struct virtio_device_stop_remove *)at)->cookie = below(seed, 20);
		break;
	case 3:
	case 4:
	case 5:
		*(unsigned int *)at = sizeof(struct virtio_device_stop_request);
		if (below(seed, 8)) {
			((unsigned int *)at)[1] = 0;
			((unsigned int *)at)[2] = below(seed, 50);
			((unsigned int *)at)[3] = command == 3 ? below(seed, 50) : 0;
		}
		break;
	case 6: {
		struct virtio_device_stop_report *report = at;

		report->size = sizeof(*report);
		if (below(seed, 8)) {
			report->flags = 0;
			report->status_size = sizeof(struct virtio_device_stop_status);
			report->statuses = (unsigned long)edge + below(seed, PAGE);
		}
	} break;
	}
	if (!below(seed, 16))
		*(unsigned int *)at = number(seed);
}

static void *fuzz(void *argument)
{
	unsigned int seed = (unsigned long)argument;
	char *memory = edge;

	while (__atomic_add_fetch(&done, 1, __ATOMIC_RELAXED) <= calls) {
		unsigned int command = below(&seed, 9), at = below(&seed, FILES);
		unsigned long request = _IO(VIRTIO_DEVICE_STOP_IOC_MAGIC, command);
		char own[128];
		void *where = own;

		if (!below(&seed, 50)) {
			int fresh = open("/dev/virtio_device_stop", O_RDWR);

			if (fresh < 0 && user && errno == EACCES)
				continue;
			if (fresh < 0 || user)
				err(1, "/dev/virtio_device_stop");
			/* Closes the one that was there, perhaps in a call of the other. */
			if (dup2(fresh, files[at]) < 0)
				err(1, "dup2");
			close(fresh);
		}
		if (!below(&seed, 8))
			/* Ends, or not, before what can't be read. */
			where = memory + PAGE - below(&seed, 80);
		fill(&seed, own, sizeof(own), command);
		if (where != own)
			memcpy(where, own, memory + PAGE - (char *)where);
		if (!below(&seed, 64))
			where = (void *)(unsigned long)number(&seed);
		if (!below(&seed, 64))
			request = number(&seed);
		ioctl(files[at], request, where);
	}
	return NULL;
}

int main(int argc, char **argv)
{
	pthread_t threads[THREADS];
	unsigned long thread;
	unsigned int seed;
	int at;

	if (argc > 2 && !strcmp(argv[1], "-u")) {
		user = strtoul(argv[2], NULL, 0);
		argv += 2;
		argc -= 2;
	}
	if (argc < 3)
		errx(2, "usage: fuzz_owner [-u USER] CALLS SEED DEVICE...");
	calls = strtoul(argv[1], NULL, 0);
	seed = strtoul(argv[2], NULL, 0);
	for (at = 3; at < argc && known < 64; at++, known++) {
		char path[PATH_MAX];

		adds[known].size = sizeof(*adds);
		if (!realpath(argv[at], path))
			err(1, "%s", argv[at]);
		if (sscanf(basename(path), "virtio%u", &adds[known].index) != 1)
			errx(1, "%s: not a virtio device", path);
		strncpy(adds[known].parent, basename(dirname(path)),
			sizeof(adds[known].parent) - 1);
	}
	edge = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (edge == MAP_FAILED || mprotect(edge + PAGE, PAGE, PROT_NONE))
		err(1, "memory");
	for (at = 0; at < FILES; at++) {
		files[at] = open("/dev/virtio_device_stop", O_RDWR);
		if (files[at] < 0)
			err(1, "/dev/virtio_device_stop");
	}
	if (user && setuid(user))
		err(1, "user %u", user);
	for (thread = 0; thread < THREADS; thread++)
		if (pthread_create(&threads[thread], NULL, fuzz, (void *)(seed * THREADS + thread)))
			errx(1, "no thread");
	for (thread = 0; thread < THREADS; thread++)
		pthread_join(threads[thread], NULL);
	return 0;
}
