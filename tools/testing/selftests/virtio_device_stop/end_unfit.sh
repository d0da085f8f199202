#!/bin/sh
# shellcheck shell=busybox
# SPDX-License-Identifier: GPL-2.0-only
#
# A disk whose driver polls a virtqueue, which takes two processors, is stopped and resumed as any other, but not negotiated with in
# place. Its device is "polled".

DEVICE=polled
. ./functions.sh

test_polled_disk_is_not_negotiated_with_in_place() {
	modprobe virtio_blk poll_queues=1
	load_module
	find_device
	expect "polled queues" "$(cat "/sys/block/$DISK/queue/io_poll")" 1
	expect "reason" "$(cat "$STOP/reason")" bound_before
	resets=$(device_get counters.resets)
	expect "renegotiate" "$(store "$STOP/renegotiate" 1)" "$EOPNOTSUPP"
	expect "reason" "$(cat "$STOP/reason")" bound_before
	expect "resets" "$(device_get counters.resets)" "$resets"
	bind_again
	fio --name=polled --filename="/dev/$DISK" --rw=randread --bs=4k --iodepth=4 --ioengine=io_uring --hipri --direct=1 --time_based \
		--runtime=600 --eta=never >/tmp/fio 2>&1 &
	FIO=$!
	more_complete
	stop
	resume
	more_complete
	end_fio
	fio_found_no_error || fail "fio found an error"
}

if (test_polled_disk_is_not_negotiated_with_in_place) && dmesg_is_clean; then
	echo "ok polled_disk_is_not_negotiated_with_in_place"
else
	echo "not ok polled_disk_is_not_negotiated_with_in_place"
fi
