// SPDX-License-Identifier: GPL-2.0-only
/*
 * usage: cycle COUNT FILE TEXT FILE TEXT
 *
 * Writes the one text to the one file and the other to the other, COUNT times, and prints how many
 * microseconds each time has taken. The files are opened before, as an agent would do it.
 */

#include <err.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static int open_file(const char *name)
{
	int file = open(name, O_WRONLY);

	if (file < 0)
		err(1, "%s", name);
	return file;
}

static void write_text(int file, const char *name, const char *text)
{
	if (pwrite(file, text, strlen(text), 0) < 0)
		err(1, "%s: %s", name, text);
}

int main(int argc, char **argv)
{
	struct timespec begin, end;
	long count, left;
	int first, second;

	if (argc != 6)
		errx(2, "usage: cycle COUNT FILE TEXT FILE TEXT");
	count = atol(argv[1]);
	if (count < 1)
		errx(2, "COUNT is 1 or more");
	first = open_file(argv[2]);
	second = open_file(argv[4]);
	clock_gettime(CLOCK_MONOTONIC, &begin);
	for (left = count; left; left--) {
		write_text(first, argv[2], argv[3]);
		write_text(second, argv[4], argv[5]);
	}
	clock_gettime(CLOCK_MONOTONIC, &end);
	printf("%ld\n", ((end.tv_sec - begin.tv_sec) * 1000000 +
			 (end.tv_nsec - begin.tv_nsec) / 1000) / count);
	return 0;
}
