// SPDX-License-Identifier: GPL-2.0-only
/*
 * Stops a virtio disk while this module is loaded. How to run it: Kbuild.
 */

#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/blkdev.h>
#include <linux/err.h>
#include <linux/module.h>

#include "virtio_device_stop.h"

static char *disk = "";
module_param(disk, charp, 0444);
MODULE_PARM_DESC(disk, "The disk, for example /dev/vdb");

static struct virtio_device_stop *stop;

static int __init stop_disk_init(void)
{
	struct file *file = bdev_file_open_by_path(disk, BLK_OPEN_READ, NULL, NULL);
	int err;

	if (IS_ERR(file))
		return PTR_ERR(file);
	stop = virtio_device_stop_get(disk_to_dev(file_bdev(file)->bd_disk));
	/* What has the disk open is not what keeps it: see virtio_device_stop_get(). */
	bdev_fput(file);
	if (IS_ERR(stop))
		return PTR_ERR(stop);

	err = virtio_device_stop_stop(stop, 0);
	if (err) {
		virtio_device_stop_put(stop);
		return err;
	}
	pr_info("%s has stopped\n", disk);
	return 0;
}

static void __exit stop_disk_exit(void)
{
	int err = virtio_device_stop_resume(stop, 0);

	if (err)
		pr_warn("%s did not stand still, or does not resume: %d\n", disk, err);
	else
		pr_info("%s stood still, and runs again\n", disk);
	virtio_device_stop_put(stop);
}

module_init(stop_disk_init);
module_exit(stop_disk_exit);
MODULE_DESCRIPTION("Stops a virtio disk while it is loaded");
MODULE_LICENSE("GPL");
