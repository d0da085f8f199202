/* SPDX-License-Identifier: (GPL-2.0-only WITH Linux-syscall-note) OR MIT */
/*
 * /dev/virtio_device_stop: stops that have an owner.
 *
 * An open file is the owner of the devices that were added to it. When it is closed, by whoever has
 * it last, and so at the latest when its processes have died, what it has stopped resumes: open it
 * with O_CLOEXEC. A stop has a lease besides, for owners that are stuck.
 *
 * A program that stops what it runs from must not wait for that: it keeps itself, and what it hands
 * over here, in memory (mlockall(2)).
 *
 * Each structure begins with its size. A program that was compiled with a shorter one is served as
 * before: the rest is 0. One that was compiled with a longer one is served if what the kernel does
 * not know is 0; else it gets E2BIG. Flags, and what is reserved, must be 0 (EINVAL). So the
 * commands don't have the sizes in their numbers, like those of iommufd.
 *
 * The file has to be opened for writing, by a process with CAP_SYS_ADMIN. Commands fail with EBUSY
 * during another one on the same file, but VERSION and CALL_OFF. STOP and RESUME wait until they
 * have an answer, or the process is killed. Errors of a device, in "error" and errno alike:
 *
 *	EOPNOTSUPP	it can't be stopped: see the reason
 *	ENXIO		it has no driver, or one that is not ready
 *	EBUSY		somebody else has stopped it, something else is being done to it, the driver
 *			above it can't be held in time, or the system is going to sleep
 *	ETIMEDOUT	it has not answered in time
 *	ECANCELED	the stop was called off
 *	ESTALE		the stop had ended before: its lease was over, or root, the device, or an
 *			unbind has ended it
 *	EIO		it needs a reset
 *	ENODEV		it was removed, or reset
 *	EINTR		the process was killed
 */
#ifndef _UAPI_VIRTIO_DEVICE_STOP_H
#define _UAPI_VIRTIO_DEVICE_STOP_H

#include <linux/ioctl.h>
#include <linux/types.h>

/* What VIRTIO_DEVICE_STOP_IOC_VERSION answers. It changes only if old programs stop working. */
#define VIRTIO_DEVICE_STOP_ABI 1

/* The longest name of a parent, with the byte that ends it. */
#define VIRTIO_DEVICE_STOP_NAME_SIZE 64

/* So many devices can be added to a file. */
#define VIRTIO_DEVICE_STOP_MAX_DEVICES 1024

/* In flight: that can't be known. */
#define VIRTIO_DEVICE_STOP_UNKNOWN (~0ULL)

/* The states, as the file "state" names them. */
enum virtio_device_stop_state {
	VIRTIO_DEVICE_STOP_STATE_UNAVAILABLE = 0,
	VIRTIO_DEVICE_STOP_STATE_RUNNING = 1,
	VIRTIO_DEVICE_STOP_STATE_STOPPING = 2,
	VIRTIO_DEVICE_STOP_STATE_STOPPED = 3,
	VIRTIO_DEVICE_STOP_STATE_RESUMING = 4,
	VIRTIO_DEVICE_STOP_STATE_ABORTING = 5,
	VIRTIO_DEVICE_STOP_STATE_FAILED = 6,
};

/* The reasons, as the file "reason" names them. */
enum virtio_device_stop_reason {
	VIRTIO_DEVICE_STOP_REASON_NONE = 0,
	VIRTIO_DEVICE_STOP_REASON_NO_DRIVER = 1,
	VIRTIO_DEVICE_STOP_REASON_NOT_OFFERED = 2,
	VIRTIO_DEVICE_STOP_REASON_BIT39_AMBIGUOUS = 3,
	VIRTIO_DEVICE_STOP_REASON_DISABLED = 4,
	VIRTIO_DEVICE_STOP_REASON_NOT_VERSION_1 = 5,
	VIRTIO_DEVICE_STOP_REASON_ADMIN_VQ = 6,
	VIRTIO_DEVICE_STOP_REASON_TRANSPORT = 7,
	VIRTIO_DEVICE_STOP_REASON_TYPE_REFUSED = 8,
	VIRTIO_DEVICE_STOP_REASON_NO_QUIESCE = 9,
	VIRTIO_DEVICE_STOP_REASON_BOUND_BEFORE = 10,
	VIRTIO_DEVICE_STOP_REASON_RESET = 11,
	VIRTIO_DEVICE_STOP_REASON_GONE = 12,
	VIRTIO_DEVICE_STOP_REASON_NEEDS_RESET = 13,
	VIRTIO_DEVICE_STOP_REASON_STOP_TIMEOUT = 14,
	VIRTIO_DEVICE_STOP_REASON_STOP_UNANSWERED = 15,
	VIRTIO_DEVICE_STOP_REASON_RESUME_UNANSWERED = 16,
	VIRTIO_DEVICE_STOP_REASON_STOP_DROPPED = 17,
	VIRTIO_DEVICE_STOP_REASON_LEASE_EXPIRED = 18,
};

/* The protocols, as the file "protocol" names them. */
enum virtio_device_stop_protocol {
	VIRTIO_DEVICE_STOP_PROTOCOL_NONE = 0,
	VIRTIO_DEVICE_STOP_PROTOCOL_DEVICE_STOP = 1,
	VIRTIO_DEVICE_STOP_PROTOCOL_SUSPEND = 2,
};

/**
 * struct virtio_device_stop_add - a device for the file
 * @size: of this structure
 * @index: the N of virtioN
 * @parent: name of the device above it in sysfs, for example "0000:00:04.0", and zeros. Indexes are
 *	used again: another device that has got this one is refused (ENODEV).
 * @cookie: answer: by which it is known from then on. It is never used again.
 */
struct virtio_device_stop_add {
	__u32 size;
	__u32 index;
	char parent[VIRTIO_DEVICE_STOP_NAME_SIZE];
	__aligned_u64 cookie;
};

/**
 * struct virtio_device_stop_remove - a device that is not the file's any more
 * @size: of this structure
 * @reserved: 0
 * @cookie: of the device, which must not be one that the file has stopped (EBUSY)
 */
struct virtio_device_stop_remove {
	__u32 size;
	__u32 reserved;
	__aligned_u64 cookie;
};

/**
 * struct virtio_device_stop_request - what all devices of the file are to do
 * @size: of this structure
 * @flags: 0
 * @timeout_ms: how long each device may take to stop or to resume, 1 to 600000; 0: what its file
 *	"timeout_ms" says
 * @lease_ms: for how long the stops may stand, 1 to 86400000; 0: 60000. To stop only, else 0.
 * @error: answer: 0, or what the first device that failed has failed with, for example -ETIMEDOUT.
 *	0 with an error of the command: nothing was done.
 * @reason: answer: that one's &enum virtio_device_stop_reason
 * @cookie: answer: and which one that is
 */
struct virtio_device_stop_request {
	__u32 size;
	__u32 flags;
	__u32 timeout_ms;
	__u32 lease_ms;
	__s32 error;
	__u32 reason;
	__aligned_u64 cookie;
};

/* This file has stopped it, and the stop stands. */
#define VIRTIO_DEVICE_STOP_STATUS_OWN (1U << 0)
/* What the device shows can be an answer: without this the generation proves nothing. */
#define VIRTIO_DEVICE_STOP_STATUS_ANSWERS (1U << 1)

/**
 * struct virtio_device_stop_status - what is to be told of a device
 * @index: the N of its virtioN
 * @flags: VIRTIO_DEVICE_STOP_STATUS_*
 * @state: &enum virtio_device_stop_state
 * @reason: &enum virtio_device_stop_reason; a device that was removed is unavailable and gone
 * @protocol: &enum virtio_device_stop_protocol
 * @reserved: 0
 * @cookie: by which it is known
 * @generation: as the file "generation" has it: the same twice, and it stood still in between
 * @in_flight: requests that the driver has with the stopped device; %VIRTIO_DEVICE_STOP_UNKNOWN
 * @stop_us: how long its last stop took, in microseconds
 * @resume_us: and its last resume
 */
struct virtio_device_stop_status {
	__u32 index;
	__u32 flags;
	__u32 state;
	__u32 reason;
	__u32 protocol;
	__u32 reserved;
	__aligned_u64 cookie;
	__aligned_u64 generation;
	__aligned_u64 in_flight;
	__aligned_u64 stop_us;
	__aligned_u64 resume_us;
};

/**
 * struct virtio_device_stop_report - what is to be told of all devices of the file
 * @size: of this structure
 * @flags: 0
 * @count: for so many there is room; answer: so many there are, in the order in which they were
 *	added
 * @status_size: of &struct virtio_device_stop_status. What the kernel has more is left out; what it
 *	has less is 0.
 * @statuses: address of the first
 */
struct virtio_device_stop_report {
	__u32 size;
	__u32 flags;
	__u32 count;
	__u32 status_size;
	__aligned_u64 statuses;
};

#define VIRTIO_DEVICE_STOP_IOC_MAGIC 0xdc

/* Which interface this kernel has: VIRTIO_DEVICE_STOP_ABI. */
#define VIRTIO_DEVICE_STOP_IOC_VERSION _IO(VIRTIO_DEVICE_STOP_IOC_MAGIC, 0)
/* Adds a device: EEXIST if it was, ENOSPC if there are too many. */
#define VIRTIO_DEVICE_STOP_IOC_ADD _IO(VIRTIO_DEVICE_STOP_IOC_MAGIC, 1)
/* Removes one: ENOENT if it was not added. */
#define VIRTIO_DEVICE_STOP_IOC_REMOVE _IO(VIRTIO_DEVICE_STOP_IOC_MAGIC, 2)
/*
 * Stops all devices that don't stand yet, or none: if one fails, those that have stopped, then or
 * before, are resumed, and waited for. Those that stand get the new lease, if it is longer. One
 * that stood, and does not any more, fails with ESTALE, once. EINVAL if there is none.
 */
#define VIRTIO_DEVICE_STOP_IOC_STOP _IO(VIRTIO_DEVICE_STOP_IOC_MAGIC, 3)
/*
 * Resumes what this file has stopped, all of it, whatever fails. One that has not resumed in time,
 * or that somebody else is resuming (EBUSY), is asked once more by the next one.
 */
#define VIRTIO_DEVICE_STOP_IOC_RESUME _IO(VIRTIO_DEVICE_STOP_IOC_MAGIC, 4)
/* The leases of the stops begin anew. */
#define VIRTIO_DEVICE_STOP_IOC_RENEW _IO(VIRTIO_DEVICE_STOP_IOC_MAGIC, 5)
/* Looks at all devices. */
#define VIRTIO_DEVICE_STOP_IOC_REPORT _IO(VIRTIO_DEVICE_STOP_IOC_MAGIC, 6)
/* Calls off the STOP that another thread waits for, if one does: that one fails with ECANCELED. */
#define VIRTIO_DEVICE_STOP_IOC_CALL_OFF _IO(VIRTIO_DEVICE_STOP_IOC_MAGIC, 7)

#endif /* _UAPI_VIRTIO_DEVICE_STOP_H */
