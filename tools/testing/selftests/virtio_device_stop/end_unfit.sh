#!/bin/sh
# shellcheck shell=busybox
# SPDX-License-Identifier: GPL-2.0-only
#
# Disks that are stopped and resumed as any other, but not negotiated with in place: "polled", whose driver polls a virtqueue, which
# takes two processors, and "zoned".

. ./functions.sh

# refuses_in_place: $DEVICE, with a driver that was bound before the module was loaded.
refuses_in_place() {
	find_device
	expect "reason" "$(cat "$STOP/reason")" bound_before
	resets=$(device_get counters.resets)
	expect "renegotiate" "$(store "$STOP/renegotiate" 1)" "$EOPNOTSUPP"
	expect "reason" "$(cat "$STOP/reason")" bound_before
	expect "resets" "$(device_get counters.resets)" "$resets"
	bind_again
}

test_polled_disk() {
	DEVICE=polled
	refuses_in_place
	expect "polled queues" "$(cat "/sys/block/$DISK/queue/io_poll")" 1
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

test_zoned_disk() {
	DEVICE=zoned
	refuses_in_place
	expect "zones" "$(cat "/sys/block/$DISK/queue/zoned") $(cat "/sys/block/$DISK/queue/nr_zones")" "host-managed 4"
	start_fio
	stop
	resume
	stop_fio
	io_works
}

modprobe virtio_blk poll_queues=1
load_module
for test in polled_disk zoned_disk; do
	if (test_$test) && dmesg_is_clean; then
		echo "ok $test"
	else
		echo "not ok $test"
	fi
done
