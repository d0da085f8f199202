#!/bin/sh
# shellcheck shell=busybox
# SPDX-License-Identifier: GPL-2.0-only
#
# The SCSI host and the kernel's virtio_scsi: its units, what is read and written, and commands that fail.

. ./functions.sh

DEVICE=host

# unit NUMBER: the disk that is that unit.
unit() {
	for disk in /sys/block/sd*; do
		case $(readlink -f "$disk/device") in *:0:"$1") basename "$disk" ;; esac
	done
}

units_are_there() {
	[ -n "$(unit 0)" ] && [ -n "$(unit 1)" ]
}

set_up() {
	modprobe -a virtio_scsi sd_mod || ktap_exit_fail_msg "no virtio_scsi"
	wait_until units_are_there
}

clean_up() {
	killall -q -9 fio
	device_do behave
	DISK=$(unit 0)
}

test_units_tell_what_they_are() {
	for number in 0 1; do
		DISK=$(unit $number)
		expect "size" "$(cat "/sys/block/$DISK/size")" 65536
		expect "identifier" "$(cat "/sys/block/$DISK/device/wwid")" "t10.virtio  host-$number"
		grep -qx vfio-user-virtio "/sys/block/$DISK/device/model" || fail "the model is '$(cat "/sys/block/$DISK/device/model")'"
	done
	[ -z "$(unit 2)" ] || fail "there are more"
}

test_units_have_their_own_data() {
	DISK=$(unit 1)
	io_works
	DISK=$(unit 0)
	io_works
	cp /tmp/pattern /tmp/first
	DISK=$(unit 1)
	io_works
	dd if="/dev/$(unit 0)" of=/tmp/read bs=65536 count=1 skip=500 iflag=direct 2>/dev/null || fail "can't read"
	cmp /tmp/first /tmp/read || fail "the first unit has other data"
}

test_every_queue_is_used() {
	expect "queues" "$(find "/sys/block/$DISK/mq" -mindepth 1 -maxdepth 1 | wc -l)" 2
	for cpu in 0 1; do
		taskset -c $cpu dd if="/dev/$DISK" of=/dev/null bs=4k count=16 iflag=direct 2>/dev/null || fail "can't read on CPU $cpu"
	done
}

test_data_is_verified() {
	device_set io_order=shuffled io_delay_us=2000
	start_fio
	more_complete
	stop_fio
}

test_flush_reaches_the_device() {
	expect "cache" "$(cat "/sys/block/$DISK/queue/write_cache")" "write back"
	flushes=$(kind synchronize_cache)
	dd if=/dev/zero of="/dev/$DISK" bs=4k count=1 conv=fsync 2>/dev/null || fail "can't write and flush"
	[ "$(kind synchronize_cache)" -gt "$flushes" ] || fail "no flush has come"
}

test_commands_that_fail_are_errors_and_nothing_else() {
	device_set io_error_every=1
	if dd if="/dev/$DISK" of=/dev/null bs=4k count=1 iflag=direct 2>/dev/null; then
		fail "a read that failed is none"
	fi
	device_do behave
	io_works
	dmesg -c | grep -q "Internal target failure" || fail "the kernel says nothing"
}

run_tests test_units_tell_what_they_are test_units_have_their_own_data test_every_queue_is_used test_data_is_verified \
	test_flush_reaches_the_device test_commands_that_fail_are_errors_and_nothing_else
