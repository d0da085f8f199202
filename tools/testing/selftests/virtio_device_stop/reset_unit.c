// SPDX-License-Identifier: GPL-2.0-only
/*
 * usage: reset_unit DISK
 *
 * Has a SCSI disk reset.
 */

#include <err.h>
#include <fcntl.h>
#include <scsi/sg.h>
#include <sys/ioctl.h>

int main(int argc, char **argv)
{
	int what = SG_SCSI_RESET_DEVICE;
	int fd;

	if (argc != 2)
		errx(2, "usage: reset_unit DISK");
	fd = open(argv[1], O_RDONLY | O_NONBLOCK);
	if (fd < 0 || ioctl(fd, SG_SCSI_RESET, &what))
		err(1, "%s", argv[1]);
	return 0;
}
