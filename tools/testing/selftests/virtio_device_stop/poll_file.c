// SPDX-License-Identifier: GPL-2.0-only
/*
 * usage: poll_file FILE
 *
 * Prints what FILE, of sysfs, holds: at once, and then whenever poll(2) says that it has changed.
 */

#include <err.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	struct pollfd file = { .events = POLLPRI };
	char text[4096];
	ssize_t length;

	if (argc != 2)
		errx(2, "usage: poll_file FILE");
	file.fd = open(argv[1], O_RDONLY);
	if (file.fd < 0)
		err(1, "%s", argv[1]);
	for (;;) {
		length = pread(file.fd, text, sizeof(text), 0);
		if (length < 0)
			err(1, "%s", argv[1]);
		if (write(STDOUT_FILENO, text, length) != length)
			err(1, "standard output");
		if (poll(&file, 1, -1) < 0)
			err(1, "poll");
		if (!(file.revents & POLLPRI))
			errx(1, "poll has said %#x", file.revents);
	}
}
