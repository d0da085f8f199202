// SPDX-License-Identifier: GPL-2.0-only
/*
 * usage: owner DEVICE[@PARENT]...
 *
 * Opens /dev/virtio_device_stop, adds the devices, which are folders in sysfs, and says "ready".
 * Then does what standard input says, a line each, and answers each with a line: "ok", or what has
 * failed, of which device, and that one's reason.
 *
 *   stop [TIMEOUT_MS [LEASE_MS]]
 *   resume [TIMEOUT_MS]
 *   renew
 *   call_off
 *   remove NUMBER	the device that was added so many devices after the first
 *   report	for each device: index/state/reason/protocol/owner/answering/generation/in flight
 *   version
 *   also COMMAND	by a child, whose answer goes to the file "also"; answers with its pid
 */

#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "virtio_device_stop.h"

#define MAX 64

static int owner;
static struct virtio_device_stop_add adds[MAX];
static unsigned int added;

/* The device above, and the number in virtioN. */
static struct virtio_device_stop_add described(const char *device)
{
	struct virtio_device_stop_add add = { .size = sizeof(add) };
	char folder[PATH_MAX], path[PATH_MAX];
	const char *given;

	given = strchr(device, '@');
	snprintf(folder, sizeof(folder), "%.*s", given ? (int)(given - device) : PATH_MAX - 1,
		 device);
	if (!realpath(folder, path))
		err(1, "%s", folder);
	if (sscanf(basename(path), "virtio%u", &add.index) != 1)
		errx(1, "%s: not a virtio device", path);
	strncpy(add.parent, given ? given + 1 : basename(dirname(path)),
		sizeof(add.parent) - 1);
	return add;
}

static int index_of(unsigned long long cookie)
{
	unsigned int at;

	for (at = 0; at < added; at++) {
		if (adds[at].cookie == cookie)
			return adds[at].index;
	}
	return -1;
}

static void request(FILE *out, unsigned long command, unsigned int timeout_ms,
		    unsigned int lease_ms)
{
	struct virtio_device_stop_request request = {
		.size = sizeof(request),
		.timeout_ms = timeout_ms,
		.lease_ms = lease_ms,
	};

	if (!ioctl(owner, command, &request))
		fprintf(out, "ok\n");
	else if (request.error && request.error != -errno)
		fprintf(out, "%s, not %s\n", strerror(errno), strerror(-request.error));
	else if (request.error)
		fprintf(out, "%s virtio%d %u\n", strerror(errno), index_of(request.cookie),
			request.reason);
	else
		fprintf(out, "%s\n", strerror(errno));
}

static void report(FILE *out)
{
	struct virtio_device_stop_status statuses[MAX];
	struct virtio_device_stop_report report = {
		.size = sizeof(report),
		.count = MAX,
		.status_size = sizeof(*statuses),
		.statuses = (unsigned long)statuses,
	};
	unsigned int at;

	if (ioctl(owner, VIRTIO_DEVICE_STOP_IOC_REPORT, &report)) {
		fprintf(out, "%s\n", strerror(errno));
		return;
	}
	for (at = 0; at < report.count && at < MAX; at++) {
		const struct virtio_device_stop_status *status = statuses + at;

		fprintf(out, "%s%u/%u/%u/%u/%d/%d/%llu/%lld", at ? " " : "", status->index,
			status->state, status->reason, status->protocol,
			!!(status->flags & VIRTIO_DEVICE_STOP_STATUS_OWN),
			!!(status->flags & VIRTIO_DEVICE_STOP_STATUS_ANSWERS),
			(unsigned long long)status->generation, (long long)status->in_flight);
	}
	fprintf(out, "\n");
}

static void removed(FILE *out, unsigned int at)
{
	struct virtio_device_stop_remove remove = { .size = sizeof(remove) };

	if (at >= added)
		errx(2, "there is no device %u", at);
	remove.cookie = adds[at].cookie;
	if (ioctl(owner, VIRTIO_DEVICE_STOP_IOC_REMOVE, &remove))
		fprintf(out, "%s\n", strerror(errno));
	else
		fprintf(out, "ok\n");
}

static void obey(FILE *out, const char *line)
{
	unsigned int timeout_ms = 0, lease_ms = 0;
	char word[16] = "";

	if (sscanf(line, "%15s %u %u", word, &timeout_ms, &lease_ms) < 1)
		errx(2, "nothing is said");
	if (!strcmp(word, "stop"))
		request(out, VIRTIO_DEVICE_STOP_IOC_STOP, timeout_ms, lease_ms);
	else if (!strcmp(word, "resume"))
		request(out, VIRTIO_DEVICE_STOP_IOC_RESUME, timeout_ms, 0);
	else if (!strcmp(word, "renew"))
		request(out, VIRTIO_DEVICE_STOP_IOC_RENEW, 0, 0);
	else if (!strcmp(word, "remove"))
		removed(out, timeout_ms);
	else if (!strcmp(word, "call_off"))
		fprintf(out, "%s\n",
			ioctl(owner, VIRTIO_DEVICE_STOP_IOC_CALL_OFF) ? strerror(errno) : "ok");
	else if (!strcmp(word, "report"))
		report(out);
	else if (!strcmp(word, "version"))
		fprintf(out, "%d\n", ioctl(owner, VIRTIO_DEVICE_STOP_IOC_VERSION));
	else
		errx(2, "what is '%s'?", line);
}

static void also(const char *line)
{
	FILE *out;
	pid_t child;

	child = fork();
	if (child < 0)
		err(1, "fork");
	if (child) {
		printf("%d\n", child);
		return;
	}
	out = fopen("also", "w");
	if (!out)
		err(1, "also");
	setlinebuf(out);
	obey(out, line);
	/* It has the file open, too, until it is killed. */
	pause();
	_exit(0);
}

int main(int argc, char **argv)
{
	char line[256];
	int at;

	owner = open("/dev/virtio_device_stop", O_RDWR | O_CLOEXEC);
	if (owner < 0)
		err(1, "/dev/virtio_device_stop");
	for (at = 1; at < argc && added < MAX; at++, added++) {
		adds[added] = described(argv[at]);
		if (ioctl(owner, VIRTIO_DEVICE_STOP_IOC_ADD, &adds[added]))
			err(1, "%s", argv[at]);
	}
	setlinebuf(stdout);
	puts("ready");
	while (fgets(line, sizeof(line), stdin)) {
		line[strcspn(line, "\n")] = 0;
		if (!strncmp(line, "also ", 5))
			also(line + 5);
		else
			obey(stdout, line);
	}
	return 0;
}
