/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * virtio_device_stop for other modules: stops that they own.
 *
 * All functions may sleep, and are called in process context, without the RTNL, without locks that
 * I/O to the device needs, and without those of the device or its parent (device_lock()). While a
 * disk is stopped, memory must be allocated in ways that don't wait for it (GFP_NOIO,
 * memalloc_noio_save()). For the same reason a caller that has stopped one device must not stop
 * another one by itself: what is to stand still at the same time is added, and stops together.
 *
 * Nobody else resumes the device, but root by "resume force" in sysfs, and what ends every stop:
 * the driver is unbound, the device is removed, reset or drops the stop. The caller finds out at
 * its next call. There is no lease: a caller that is stuck keeps the device stopped.
 *
 * A module that uses these functions keeps virtio_device_stop loaded.
 */
#ifndef _VIRTIO_DEVICE_STOP_H
#define _VIRTIO_DEVICE_STOP_H

struct device;
struct virtio_device_stop;

/**
 * virtio_device_stop_get - the right to stop a virtio device
 * @dev: the virtio device, or any device below it, for example disk_to_dev() of its disk. It is
 *	only compared with those that are there.
 *
 * The device may be removed afterwards: that is an error of later calls then.
 *
 * Return: what virtio_device_stop_put() gives back, or an ERR_PTR(): -ENODEV if there is no virtio
 * device, or virtio_device_stop is not attached to it, or -ENOMEM.
 */
struct virtio_device_stop *virtio_device_stop_get(struct device *dev);

/**
 * virtio_device_stop_get_by_index - the same
 * @index: the N of its virtioN. Numbers are used again for other devices.
 */
struct virtio_device_stop *virtio_device_stop_get_by_index(unsigned int index);

/**
 * virtio_device_stop_add - another device that stops with the first one
 * @stop: from virtio_device_stop_get()
 * @dev: as for virtio_device_stop_get()
 *
 * Return: 0, -ENODEV, -EEXIST, -ENOSPC (there are 1024), -ENOMEM, or -EBUSY during another call.
 */
int virtio_device_stop_add(struct virtio_device_stop *stop, struct device *dev);

/**
 * virtio_device_stop_add_by_index - the same
 * @stop: from virtio_device_stop_get()
 * @index: as for virtio_device_stop_get_by_index()
 */
int virtio_device_stop_add_by_index(struct virtio_device_stop *stop, unsigned int index);

/**
 * virtio_device_stop_stop - stops the device, or all that were added
 * @stop: from virtio_device_stop_get()
 * @timeout_ms: how long each may take, 1 to 600000; 0: what its file "timeout_ms" says
 *
 * Waits until the device has acknowledged the stop, or has not in time. Nothing happens to one
 * whose stop stands already. If one fails, the others are resumed, and waited for.
 *
 * Return: 0: the device has stopped, and the driver above it is held. -EOPNOTSUPP: it can't be
 * stopped. -ENXIO: it has no driver, or one that is not ready. -EBUSY: somebody else has stopped
 * it, or something else is being done to it or to @stop, or the driver can't be held in time, or
 * the system is going to sleep. -ETIMEDOUT: no answer. -ECANCELED: somebody else has called it off.
 * -EIO: it needs a reset. -ENODEV: it was removed, or reset. -ESTALE: it has stopped, but not for
 * long, or had by an earlier call, and that has ended since. -EINTR: the task was killed. -EINVAL:
 * @timeout_ms. -ENOMEM.
 */
int virtio_device_stop_stop(struct virtio_device_stop *stop, unsigned int timeout_ms);

/**
 * virtio_device_stop_look - whether the device stands still
 * @stop: from virtio_device_stop_get()
 *
 * Return: 0: it has since virtio_device_stop_stop(). -ESTALE: it does not, or has not all the time.
 * -EAGAIN: what it shows is no answer, so that this can't be told now. -ENODEV: it was removed.
 * -EBUSY: during another call with the same @stop.
 */
int virtio_device_stop_look(struct virtio_device_stop *stop);

/**
 * virtio_device_stop_resume - resumes the device
 * @stop: from virtio_device_stop_get()
 * @timeout_ms: as for virtio_device_stop_stop()
 *
 * Waits until it runs, or does not in time. One that has not resumed in time is looked after, and
 * asked once more by the next call. Nothing happens if @stop has not stopped it.
 *
 * Return: 0: it runs, and stood still until now. -ESTALE: the stop had ended before. The device
 * runs, has no driver any more, or was stopped by somebody else. -ETIMEDOUT: no answer. -EBUSY:
 * during another call with the same @stop, or something else is being done to the device: to be
 * tried again. -EIO, -ENODEV, -EINTR, -EINVAL: as above.
 */
int virtio_device_stop_resume(struct virtio_device_stop *stop, unsigned int timeout_ms);

/**
 * virtio_device_stop_put - gives back the right
 * @stop: from virtio_device_stop_get(). Nobody uses it any more.
 *
 * If the device stands stopped, it is resumed; this does not wait for that.
 */
void virtio_device_stop_put(struct virtio_device_stop *stop);

#endif /* _VIRTIO_DEVICE_STOP_H */
