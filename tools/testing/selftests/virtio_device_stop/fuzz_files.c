// SPDX-License-Identifier: GPL-2.0-only
/*
 * usage: fuzz_files CALLS SEED USER DEVICE...
 *
 * Writes to and reads from each file of the module's in the folders of these devices, by some
 * threads at the same time: words that make sense, numbers, bytes, too much, too little, at any
 * offset, and from what can't be read. What is asked for may happen or not: only the kernel is to
 * live. Before that, it becomes USER. If that is not root, it has the files open still, can open
 * none, and nothing that it writes may be taken.
 */

#define _GNU_SOURCE
#include <dirent.h>
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define FILES 512
#define PAGE 4096
#define THREADS 3

static const char *const folders[] = { "device_stop", "device_stop_stats" };
static char paths[FILES][PATH_MAX];
static int files[FILES];
static unsigned int known;
static unsigned long calls, done, taken;
static uid_t user;
static char *edge;

static unsigned int below(unsigned int *seed, unsigned int end)
{
	return rand_r(seed) % end;
}

/* Returns its length. */
static size_t text(unsigned int *seed, char *at)
{
	static const char *const words[] = {
		"stop", "stop", "stop", "resume", "resume", "resume force", "resume ", "resume 0",
		"resume -1", "resume 18446744073709551615", "resume 18446744073709551616",
		"RESUME", "stopresume", "stop\nresume", "0", "0", "1", "1", "2", "10", "00", "-1",
		"+1", "0x10",
		"0b1", "0o7", "1_000", " 1", "1 ", "1.5", "60000", "600000", "600001", "86400000",
		"86400001", "4294967295", "4294967296", "99999999999999999999", "y", "", "%s%n",
	};
	size_t length, byte;

	switch (below(seed, 8)) {
	case 0:
		length = below(seed, below(seed, 8) ? 40 : 2 * PAGE);
		for (byte = 0; byte < length; byte++)
			at[byte] = rand_r(seed) >> 8;
		break;
	case 1:
		length = sprintf(at, "resume %u", below(seed, 5000));
		break;
	case 2:
		length = sprintf(at, "%u", below(seed, below(seed, 2) ? 5000 : RAND_MAX));
		break;
	default:
		length = sprintf(at, "%s", words[below(seed, sizeof(words) / sizeof(*words))]);
	}
	if (below(seed, 2))
		at[length++] = '\n';
	if (length && !below(seed, 10))
		at[below(seed, length)] ^= 1 << below(seed, 8);
	if (!below(seed, 20))
		at[length++] = 0;
	return length;
}

/* Most are those by which devices stop and resume. */
static unsigned int choose(unsigned int *seed)
{
	unsigned int at = below(seed, known);

	while (below(seed, 16) && !strstr(paths[at], "/state"))
		at = below(seed, known);
	return at;
}

static void put(unsigned int *seed, int file)
{
	char own[2 * PAGE + 2];
	size_t length = text(seed, own);
	char *where = own;
	ssize_t put;

	if (!below(seed, 16))
		/* Ends, or not, before what can't be read. */
		where = memcpy(edge + PAGE - length % PAGE, own, length % PAGE);
	if (!below(seed, 32))
		where = (char *)(unsigned long)rand_r(seed);
	if (below(seed, 8))
		put = write(file, where, length);
	else
		put = pwrite(file, where, length, below(seed, 2) ? below(seed, 5000) : LLONG_MAX);
	if (put > 0)
		__atomic_add_fetch(&taken, 1, __ATOMIC_RELAXED);
}

static void open_anew(unsigned int *seed, unsigned int at)
{
	static const int flags[] = {
		O_RDONLY, O_WRONLY, O_RDWR, O_RDWR | O_TRUNC, O_WRONLY | O_APPEND,
		O_RDWR | O_NONBLOCK, O_RDWR | O_CREAT,
	};
	int fresh = open(paths[at], flags[below(seed, sizeof(flags) / sizeof(*flags))], 0600);

	if (fresh < 0)
		return;
	if (user)
		errx(1, "%s can be opened", paths[at]);
	/* Closes the one that was there, perhaps in a call of another. */
	if (files[at] >= 0 && dup2(fresh, files[at]) < 0)
		err(1, "dup2");
	close(fresh);
}

static void *fuzz(void *argument)
{
	unsigned int seed = (unsigned long)argument;

	while (__atomic_add_fetch(&done, 1, __ATOMIC_RELAXED) <= calls) {
		unsigned int at = choose(&seed);
		struct pollfd polled = { .fd = files[at], .events = POLLPRI };
		char got[2 * PAGE];

		switch (below(&seed, 10)) {
		case 0:
			open_anew(&seed, at);
			break;
		case 1:
			if (pread(files[at], got, below(&seed, sizeof(got)), below(&seed, 3)) < 0)
				poll(&polled, 1, 0);
			break;
		case 2:
			lseek(files[at], below(&seed, 2) ? 0 : rand_r(&seed), below(&seed, 3));
			ftruncate(files[at], below(&seed, 2) ? 0 : rand_r(&seed));
			break;
		default:
			put(&seed, files[at]);
		}
	}
	return NULL;
}

static void find(const char *device)
{
	size_t folder;

	for (folder = 0; folder < sizeof(folders) / sizeof(*folders); folder++) {
		char path[PATH_MAX / 2];
		struct dirent *entry;
		DIR *found;

		snprintf(path, sizeof(path), "%s/%s", device, folders[folder]);
		found = opendir(path);
		if (!found)
			err(1, "%s", path);
		while ((entry = readdir(found))) {
			if (*entry->d_name == '.')
				continue;
			if (known == FILES)
				errx(1, "too many files");
			snprintf(paths[known], PATH_MAX, "%s/%s", path, entry->d_name);
			files[known] = open(paths[known], O_RDWR);
			if (files[known] < 0)
				files[known] = open(paths[known], O_WRONLY);
			if (files[known] < 0)
				files[known] = open(paths[known], O_RDONLY);
			if (files[known] < 0)
				err(1, "%s", paths[known]);
			known++;
		}
		closedir(found);
	}
}

int main(int argc, char **argv)
{
	pthread_t threads[THREADS];
	unsigned long thread;
	unsigned int seed;
	int at;

	if (argc < 5)
		errx(2, "usage: fuzz_files CALLS SEED USER DEVICE...");
	calls = strtoul(argv[1], NULL, 0);
	seed = strtoul(argv[2], NULL, 0);
	user = strtoul(argv[3], NULL, 0);
	for (at = 4; at < argc; at++)
		find(argv[at]);
	edge = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (edge == MAP_FAILED || mprotect(edge + PAGE, PAGE, PROT_NONE))
		err(1, "memory");
	if (user && setuid(user))
		err(1, "user %u", user);
	for (thread = 0; thread < THREADS; thread++)
		if (pthread_create(&threads[thread], NULL, fuzz, (void *)(seed + thread * 7919UL)))
			errx(1, "no thread");
	for (thread = 0; thread < THREADS; thread++)
		pthread_join(threads[thread], NULL);
	printf("%lu calls, %lu writes taken\n", calls, taken);
	if (user && taken)
		errx(1, "what user %u has written was taken", user);
	if (!user && calls >= 1000 && !taken)
		errx(1, "nothing was taken");
	return 0;
}
