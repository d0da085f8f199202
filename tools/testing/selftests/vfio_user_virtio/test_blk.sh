#!/bin/sh
# shellcheck shell=busybox
# SPDX-License-Identifier: GPL-2.0-only
#
# The block device and the kernel's virtio_blk: every kind of request, a resize, and requests that fail.

. ./functions.sh

test_every_queue_is_used() {
	expect "queues" "$(find "/sys/block/$DISK/mq" -mindepth 1 -maxdepth 1 | wc -l)" 2
	for cpu in 0 1; do
		taskset -c $cpu dd if="/dev/$DISK" of=/dev/null bs=4k count=16 iflag=direct 2>/dev/null || fail "can't read on CPU $cpu"
	done
	io_works
}

test_data_is_verified() {
	start_fio
	more_complete
	stop_fio
	io_works
}

test_data_is_right_in_any_order() {
	device_set io_order=shuffled io_delay_us=2000
	start_fio
	more_complete
	stop_fio
}

test_flush_reaches_the_device() {
	flushes=$(kind flush)
	dd if=/dev/zero of="/dev/$DISK" bs=4k count=1 conv=fsync 2>/dev/null || fail "can't write and flush"
	[ "$(kind flush)" -gt "$flushes" ] || fail "no flush has come"
}

# zeroes FROM: the 64 KiB from there on, in KiB, read as zeroes.
zeroes() {
	dd if="/dev/$DISK" bs=1k skip="$1" count=64 iflag=direct of=/tmp/read 2>/dev/null &&
		head -c 65536 /dev/zero | cmp -s - /tmp/read
}

# discards KIND OPTION...: blkdiscard leaves zeroes where it should, and nowhere else.
discards() {
	kind=$1
	before=$(kind "$kind")
	shift
	tr '\0' x </dev/zero | dd of="/dev/$DISK" bs=1k count=192 iflag=fullblock oflag=direct 2>/dev/null
	# Not busybox's, which has no --zeroout.
	/usr/sbin/blkdiscard "$@" -o 65536 -l 65536 "/dev/$DISK" || fail "blkdiscard $* fails"
	zeroes 64 || fail "no zeroes"
	if zeroes 0 || zeroes 128; then
		fail "zeroes outside of the range"
	fi
	[ "$(kind "$kind")" -gt "$before" ] || fail "no request of the kind $kind has come"
}

test_discard() {
	discards discard
}

test_write_zeroes() {
	discards write_zeroes --zeroout
}

test_read_only_disk() {
	read_only=$(disk readonly)
	expect "ro" "$(cat "/sys/block/$read_only/ro")" 1
	dd if="/dev/$read_only" of=/dev/null bs=4k count=1 iflag=direct 2>/dev/null || fail "can't read"
	if dd if=/dev/zero of="/dev/$read_only" bs=4k count=1 oflag=direct 2>/dev/null; then
		fail "can be written"
	fi
}

size_is() {
	[ "$(cat "/sys/block/$DISK/size")" = "$1" ]
}

test_resize() {
	size=$(cat "/sys/block/$DISK/size")
	device_do resize:$((size + 2048))
	wait_until size_is $((size + 2048))
	dd if=/dev/zero of="/dev/$DISK" bs=512 seek=$((size + 2047)) count=1 oflag=direct 2>/dev/null || fail "can't write at the end"
	device_do "resize:$size"
	wait_until size_is "$size"
	io_works
}

test_requests_that_fail_are_errors_and_nothing_else() {
	device_set io_error_every=1
	if dd if="/dev/$DISK" of=/dev/null bs=4k count=1 iflag=direct 2>/dev/null; then
		fail "a read that failed is none"
	fi
	[ "$(device_get counters.requests.failed)" -gt 0 ] || fail "no request has failed"
	device_do behave
	io_works
	dmesg -c | grep -q "I/O error" || fail "the kernel says nothing"
}

run_tests test_every_queue_is_used test_data_is_verified test_data_is_right_in_any_order test_flush_reaches_the_device test_discard \
	test_write_zeroes test_read_only_disk test_resize test_requests_that_fail_are_errors_and_nothing_else
