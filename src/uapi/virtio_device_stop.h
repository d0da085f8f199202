/* SPDX-License-Identifier: (GPL-2.0-only WITH Linux-syscall-note) OR MIT */
/*
 * /dev/virtio_device_stop: stops that have an owner.
 *
 * An open file is the owner of the devices that were added to it. When it is closed, by whoever has
 * it last, and so at the latest when its processes have died, what it has stopped resumes. A stop
 * has a lease besides, for owners that are stuck.
 *
 * Each structure begins with its size. A program that was compiled with a shorter one is served as
 * before. One that was compiled with a longer one is served if what the kernel does not know is 0;
 * else it gets E2BIG. What is reserved, and flags, must be 0 (EINVAL).
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
 *	used again: another device that has got this one is refused.
 */
struct virtio_device_stop_add {
	__u32 size;
	__u32 index;
	char parent[VIRTIO_DEVICE_STOP_NAME_SIZE];
};

/**
 * struct virtio_device_stop_request - what all devices of the file are to do
 * @size: of this structure
 * @flags: 0
 * @timeout_ms: how long each device may take to stop or to resume, 1 to 600000; 0: what its file
 *	"timeout_ms" says
 * @lease_ms: for how long the stops may stand, 1 to 86400000; 0: 60000. To stop only, else 0.
 * @error: answer: 0, or what the first device that failed has failed with, for example -ETIMEDOUT
 * @index: answer: the N of that device's virtioN
 * @reason: answer: its &enum virtio_device_stop_reason
 * @reserved: 0
 */
struct virtio_device_stop_request {
	__u32 size;
	__u32 flags;
	__u32 timeout_ms;
	__u32 lease_ms;
	__s32 error;
	__u32 index;
	__u32 reason;
	__u32 reserved;
};

/**
 * struct virtio_device_stop_status - what is to be told of a device
 * @index: the N of its virtioN
 * @state: &enum virtio_device_stop_state
 * @reason: &enum virtio_device_stop_reason; a device that was removed is unavailable and gone
 * @protocol: &enum virtio_device_stop_protocol
 * @is_owner: 1 if this file has stopped it and the stop stands, else 0
 * @is_answering: 0 if what the device shows can't be an answer: @generation proves nothing then
 * @generation: as the file "generation" has it: the same twice, and it stood still in between
 * @in_flight: requests that the driver has with the stopped device; %VIRTIO_DEVICE_STOP_UNKNOWN
 * @stop_us: how long its last stop took, in microseconds
 * @resume_us: and its last resume
 */
struct virtio_device_stop_status {
	__u32 index;
	__u32 state;
	__u32 reason;
	__u32 protocol;
	__u32 is_owner;
	__u32 is_answering;
	__u64 generation;
	__u64 in_flight;
	__u64 stop_us;
	__u64 resume_us;
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
	__u64 statuses;
};

#define VIRTIO_DEVICE_STOP_IOC_MAGIC 0xdc

/* Which interface this kernel has: VIRTIO_DEVICE_STOP_ABI. */
#define VIRTIO_DEVICE_STOP_IOC_VERSION _IO(VIRTIO_DEVICE_STOP_IOC_MAGIC, 0)
/* Adds a device. */
#define VIRTIO_DEVICE_STOP_IOC_ADD _IO(VIRTIO_DEVICE_STOP_IOC_MAGIC, 1)
/* Stops all devices, or none. */
#define VIRTIO_DEVICE_STOP_IOC_STOP _IO(VIRTIO_DEVICE_STOP_IOC_MAGIC, 2)
/* Resumes what this file has stopped. */
#define VIRTIO_DEVICE_STOP_IOC_RESUME _IO(VIRTIO_DEVICE_STOP_IOC_MAGIC, 3)
/* The leases of the stops begin anew. */
#define VIRTIO_DEVICE_STOP_IOC_RENEW _IO(VIRTIO_DEVICE_STOP_IOC_MAGIC, 4)
/* Looks at all devices. */
#define VIRTIO_DEVICE_STOP_IOC_REPORT _IO(VIRTIO_DEVICE_STOP_IOC_MAGIC, 5)

#endif /* _UAPI_VIRTIO_DEVICE_STOP_H */
