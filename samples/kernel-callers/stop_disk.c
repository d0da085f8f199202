// SPDX-License-Identifier: GPL-2.0-only
/*
 * Stops virtio disks while this module is loaded. How to run it: Kbuild.
 */

#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/blkdev.h>
#include <linux/err.h>
#include <linux/module.h>

#include "virtio_device_stop.h"

static char *disk[8];
static int disks;
module_param_array(disk, charp, &disks, 0444);
MODULE_PARM_DESC(disk, "The disks, for example /dev/vdb,/dev/vdc");

static uint timeout_ms;
module_param(timeout_ms, uint, 0444);
MODULE_PARM_DESC(timeout_ms, "How long they may take to stop (default 0: as each one's timeout_ms says)");

static struct virtio_device_stop *stop;

/* The first disk gives the right to stop it, the others are added. */
static int __init add(char *path)
{
	struct file *file = bdev_file_open_by_path(path, BLK_OPEN_READ, NULL, NULL);
	struct device *dev;
	int err = 0;

	if (IS_ERR(file))
		return PTR_ERR(file);
	dev = disk_to_dev(file_bdev(file)->bd_disk);
	if (stop)
		err = virtio_device_stop_add(stop, dev);
	else
		stop = virtio_device_stop_get(dev);
	bdev_fput(file);
	if (IS_ERR(stop)) {
		err = PTR_ERR(stop);
		stop = NULL;
	}
	return err;
}

static int __init stop_disk_init(void)
{
	int err = disks ? 0 : -EINVAL;
	int i;

	for (i = 0; i < disks && !err; i++)
		err = add(disk[i]);
	if (!err)
		err = virtio_device_stop_stop(stop, timeout_ms);
	if (err) {
		if (stop)
			virtio_device_stop_put(stop);
		return err;
	}
	pr_info("%s: stopped\n", disk[0]);
	return 0;
}

static void __exit stop_disk_exit(void)
{
	int err = virtio_device_stop_resume(stop, 0);

	if (err)
		pr_warn("%s did not stand still, or does not resume: %d\n", disk[0], err);
	else
		pr_info("%s stood still, and runs again\n", disk[0]);
	virtio_device_stop_put(stop);
}

module_init(stop_disk_init);
module_exit(stop_disk_exit);
MODULE_DESCRIPTION("Stops virtio disks while it is loaded");
MODULE_LICENSE("GPL");
