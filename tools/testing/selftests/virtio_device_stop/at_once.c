// SPDX-License-Identifier: GPL-2.0-only
/*
 * usage: at_once COUNT {FILE TEXT FILE TEXT}...
 *
 * Writes the first text to the first file of all groups at once, and when all writes have returned
 * the second text to the second file, COUNT times: an agent for many devices, with its files open.
 * Prints how many microseconds one time takes.
 */

#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

struct writer {
	struct {
		const char *name, *text;
		int file;
	} half[2];
	pthread_t thread;
};

/* Which half is next; -1: none. */
static int next;
static int failures;
static pthread_barrier_t begin, end;

static void *write_again(void *data)
{
	struct writer *writer = data;

	for (;;) {
		pthread_barrier_wait(&begin);
		if (next < 0)
			return NULL;
		if (pwrite(writer->half[next].file, writer->half[next].text,
			   strlen(writer->half[next].text), 0) < 0) {
			warn("%s: %s", writer->half[next].name, writer->half[next].text);
			__atomic_add_fetch(&failures, 1, __ATOMIC_RELAXED);
		}
		pthread_barrier_wait(&end);
	}
}

int main(int argc, char **argv)
{
	int groups = (argc - 2) / 4, i, half;
	struct timespec since, until;
	struct writer *writers;
	long count, left;

	if (groups < 1 || (argc - 2) % 4)
		errx(2, "usage: at_once COUNT {FILE TEXT FILE TEXT}...");
	count = atol(argv[1]);
	if (count < 1)
		errx(2, "COUNT is 1 or more");
	writers = calloc(groups, sizeof(*writers));
	if (!writers)
		err(1, "memory");
	pthread_barrier_init(&begin, NULL, groups + 1);
	pthread_barrier_init(&end, NULL, groups + 1);
	for (i = 0; i < groups; i++) {
		for (half = 0; half < 2; half++) {
			writers[i].half[half].name = argv[2 + 4 * i + 2 * half];
			writers[i].half[half].text = argv[3 + 4 * i + 2 * half];
			writers[i].half[half].file = open(writers[i].half[half].name, O_WRONLY);
			if (writers[i].half[half].file < 0)
				err(1, "%s", writers[i].half[half].name);
		}
		if (pthread_create(&writers[i].thread, NULL, write_again, &writers[i]))
			errx(1, "no thread");
	}
	clock_gettime(CLOCK_MONOTONIC, &since);
	for (left = 2 * count; left; left--) {
		pthread_barrier_wait(&begin);
		pthread_barrier_wait(&end);
		next = !next;
	}
	clock_gettime(CLOCK_MONOTONIC, &until);
	next = -1;
	pthread_barrier_wait(&begin);
	printf("%ld\n", ((until.tv_sec - since.tv_sec) * 1000000 +
			 (until.tv_nsec - since.tv_nsec) / 1000) / count);
	return failures > 0;
}
