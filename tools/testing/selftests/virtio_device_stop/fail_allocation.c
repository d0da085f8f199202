// SPDX-License-Identifier: GPL-2.0-only
/*
 * usage: fail_allocation NUMBER write FILE TEXT
 *        fail_allocation NUMBER insert|remove MODULE
 *        fail_allocation NUMBER open|add|stop|renew|resume|report|close DEVICE...
 *
 * Makes one system call, in which the allocation of that number fails: the first is 1. What comes
 * before it, so that it can be made, gets all the memory that it wants. DEVICE is the name of a
 * virtio device (virtio0), for a call to /dev/virtio_device_stop. Says whether there was such an
 * allocation ("failed"), or not ("through"); how many there were up to it; and what the call has
 * answered: "ok", or the error.
 */

#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "virtio_device_stop.h"

#define MAX 64

static int number;
static int nth;

static void set(int value)
{
	char text[16];
	int length = snprintf(text, sizeof(text), "%d", value);

	if (pwrite(nth, text, length, 0) != length)
		err(2, "fail-nth");
}

/* What fail-nth holds after the call is how many allocations were missing: 0, if one has failed. */
static void say(int failed)
{
	char text[16] = "";
	int error = errno;
	int missing;

	if (pread(nth, text, sizeof(text) - 1, 0) < 0)
		err(2, "fail-nth");
	set(0);
	missing = atoi(text);
	printf("%s %d %s\n", missing ? "through" : "failed", number - missing,
	       failed ? strerror(error) : "ok");
}

static void write_file(const char *path, const char *text)
{
	int file = open(path, O_WRONLY);

	if (file < 0)
		err(2, "%s", path);
	set(number);
	say(write(file, text, strlen(text)) < 0);
}

static void insert(const char *path)
{
	int file = open(path, O_RDONLY);

	if (file < 0)
		err(2, "%s", path);
	set(number);
	say(syscall(SYS_finit_module, file, "", 0) < 0);
}

static void take_away(const char *name)
{
	set(number);
	say(syscall(SYS_delete_module, name, O_NONBLOCK) < 0);
}

static struct virtio_device_stop_add described(const char *name)
{
	struct virtio_device_stop_add add = { .size = sizeof(add) };
	char link[PATH_MAX], path[PATH_MAX];

	snprintf(link, sizeof(link), "/sys/bus/virtio/devices/%s", name);
	if (!realpath(link, path) || sscanf(name, "virtio%u", &add.index) != 1)
		errx(2, "%s: no virtio device", name);
	strncpy(add.parent, basename(dirname(path)), sizeof(add.parent) - 1);
	return add;
}

static int open_node(void)
{
	return open("/dev/virtio_device_stop", O_RDWR | O_CLOEXEC);
}

static int ask(int owner, unsigned long command)
{
	struct virtio_device_stop_request request = { .size = sizeof(request) };

	return ioctl(owner, command, &request);
}

static int report(int owner)
{
	struct virtio_device_stop_status statuses[MAX];
	struct virtio_device_stop_report report = {
		.size = sizeof(report),
		.count = MAX,
		.status_size = sizeof(*statuses),
		.statuses = (unsigned long)statuses,
	};

	return ioctl(owner, VIRTIO_DEVICE_STOP_IOC_REPORT, &report);
}

/* Whether the calls fail that come before the one that is of interest. */
static void must(int failed, const char *what)
{
	if (failed)
		err(2, "%s", what);
}

static void call(const char *what, char **names)
{
	struct virtio_device_stop_add add;
	int owner;

	if (!strcmp(what, "open")) {
		set(number);
		say(open_node() < 0);
		return;
	}
	owner = open_node();
	must(owner < 0, "open");
	for (; *names; names++) {
		add = described(*names);
		/* Each of them is of interest. */
		if (!strcmp(what, "add"))
			set(number);
		if (ioctl(owner, VIRTIO_DEVICE_STOP_IOC_ADD, &add)) {
			must(strcmp(what, "add"), "add");
			say(-1);
			return;
		}
	}
	if (!strcmp(what, "add")) {
		say(0);
		return;
	}
	if (!strcmp(what, "stop")) {
		set(number);
		say(ask(owner, VIRTIO_DEVICE_STOP_IOC_STOP));
		return;
	}
	must(ask(owner, VIRTIO_DEVICE_STOP_IOC_STOP), "stop");
	set(number);
	if (!strcmp(what, "resume"))
		say(ask(owner, VIRTIO_DEVICE_STOP_IOC_RESUME));
	else if (!strcmp(what, "renew"))
		say(ask(owner, VIRTIO_DEVICE_STOP_IOC_RENEW));
	else if (!strcmp(what, "report"))
		say(report(owner));
	else if (!strcmp(what, "close"))
		say(close(owner));
	else
		errx(2, "what is '%s'?", what);
}

int main(int argc, char **argv)
{
	if (argc < 4)
		errx(2, "usage: fail_allocation NUMBER write|insert|remove|open|add|stop|... ...");
	number = atoi(argv[1]);
	nth = open("/proc/self/fail-nth", O_RDWR);
	if (nth < 0)
		err(2, "fail-nth");
	if (!strcmp(argv[2], "write") && argc == 5)
		write_file(argv[3], argv[4]);
	else if (!strcmp(argv[2], "insert"))
		insert(argv[3]);
	else if (!strcmp(argv[2], "remove"))
		take_away(argv[3]);
	else
		call(argv[2], argv + 3);
	return 0;
}
