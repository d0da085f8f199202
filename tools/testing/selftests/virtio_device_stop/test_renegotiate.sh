#!/bin/sh
# shellcheck shell=busybox
# SPDX-License-Identifier: GPL-2.0-only
#
# Drivers that were bound before the module was loaded: a disk is negotiated with in place, and goes on; others are unbound and bound.

. ./functions.sh

# Sets DISK, VDEV and STOP to a disk whose driver does not know of the module.
bound_before() {
	find_device
	wait_until rmmod virtio_device_stop
	bind_again
	load_module
	is unavailable bound_before
	expect "the device's view" "$(device_get protocol)" '"none"'
}

is() {
	expect "state" "$(state)" "$1"
	expect "reason" "$(cat "$STOP/reason")" "$2"
}

renegotiate() {
	store "$STOP/renegotiate" 1
}

is_negotiated() {
	is running none
	expect "protocol" "$(cat "$STOP/protocol")" "$PROTOCOL"
	expect "the device's view" "$(device_get protocol)" "\"$PROTOCOL\""
}

# A test may have left a device as it does not begin.
set_up() {
	load_module || ktap_exit_fail_msg "the module does not load"
	driver virtio_blk
}

test_file_system_in_use_goes_on() {
	bound_before
	mkfs.ext4 -q -F "/dev/$DISK" || fail "no file system"
	mkdir -p /tmp/mounted
	mount "/dev/$DISK" /tmp/mounted || fail "it can't be mounted"
	start_fio_on /tmp/mounted/file
	expect "renegotiate" "$(renegotiate)" ok
	is_negotiated
	more_complete
	stop
	resume
	more_complete
	stop_fio
	umount /tmp/mounted || fail "it can't be unmounted"
	e2fsck -fn "/dev/$DISK" >/tmp/fsck 2>&1 || fail "$(cat /tmp/fsck)"
}

test_disk_is_negotiated_with_again_and_again() {
	bound_before
	start_fio
	for _ in 1 2 3 4 5; do
		expect "renegotiate" "$(renegotiate)" ok
		is_negotiated
		more_complete
		wait_until rmmod virtio_device_stop
		echo 1 >"$(pci)/reset"
		more_complete
		load_module
		# Such a reset keeps VIRTIO_F_SUSPEND.
		suspends || is unavailable bound_before
	done
	stop_fio
}

test_what_is_negotiated_stays() {
	find_device
	bind_again
	resets=$(device_get counters.resets)
	expect "renegotiate" "$(renegotiate)" ok
	is_negotiated
	expect "resets" "$(device_get counters.resets)" "$resets"
	for text in 0 2 "" yes; do
		expect "renegotiate '$text'" "$(store "$STOP/renegotiate" "$text")" "$EINVAL"
	done
}

test_disk_is_flushed() {
	bound_before
	flushes=$(kind flush)
	expect "renegotiate" "$(renegotiate)" ok
	[ "$(kind flush)" -gt "$flushes" ] || fail "not before it was reset"
}

test_cache_mode_is_kept() {
	bound_before
	expect "write-back" "$(device_get of_type.writeback)" true
	echo "write through" >"/sys/block/$DISK/cache_type"
	expect "write-back" "$(device_get of_type.writeback)" false
	expect "renegotiate" "$(renegotiate)" ok
	expect "write-back" "$(device_get of_type.writeback)" false
	expect "cache" "$(cat "/sys/block/$DISK/cache_type")" "write through"
	io_works
	bind_again
	expect "write-back" "$(device_get of_type.writeback)" true
}

# The driver begins again without the feature.
test_device_that_does_not_accept_it_works_on() {
	bound_before
	device_set refuse_to_stop=true
	start_fio
	expect "renegotiate" "$(renegotiate)" "$EOPNOTSUPP"
	is unavailable bound_before
	more_complete
	device_set refuse_to_stop=false
	expect "renegotiate" "$(renegotiate)" ok
	is_negotiated
	more_complete
	stop_fio
}

test_device_that_does_not_come_back_ends_with_errors() {
	bound_before
	device_set refuse_features=true
	expect "renegotiate" "$(renegotiate)" "$EIO"
	dmesg | grep -q 'the disk is lost' || fail "nobody says so"
	expect "bytes read" "$(dd if="/dev/$DISK" bs=4096 count=1 iflag=direct 2>/dev/null | wc -c)" 0
	nobody_hangs || fail "somebody hangs"
	device_do behave
	bind_again
	io_works
	io_errors_are_expected
}

# It is not waited for longer than it may take, and nothing is lost. Without a cache there is no flush to be waited for before that.
test_disk_that_is_busy_is_left_alone() {
	bound_before
	echo "write through" >"/sys/block/$DISK/cache_type"
	store "$STOP/timeout_ms" 20 >/dev/null
	start_fio
	device_set io_hold=always
	wait_until in_flight_at_least 16
	resets=$(device_get counters.resets)
	expect "renegotiate" "$(renegotiate)" "$EBUSY"
	is unavailable bound_before
	expect "resets" "$(device_get counters.resets)" "$resets"
	device_set io_hold=no
	store "$STOP/timeout_ms" 600000 >/dev/null
	expect "renegotiate" "$(renegotiate)" ok
	more_complete
	stop_fio
	bind_again
}

test_device_that_offers_nothing_is_not_reset() {
	DEVICE=plain
	bound_before
	resets=$(device_get counters.resets)
	expect "renegotiate" "$(renegotiate)" "$EOPNOTSUPP"
	is unavailable not_offered
	expect "resets" "$(device_get counters.resets)" "$resets"
	io_works
}

test_device_without_a_driver_is_left_alone() {
	find_device
	echo "$VDEV" >/sys/bus/virtio/drivers/virtio_blk/unbind
	expect "renegotiate" "$(renegotiate)" "$EOPNOTSUPP"
	echo "$VDEV" >/sys/bus/virtio/drivers/virtio_blk/bind
}

# Few drivers live through a reset: the reason names what has to be done.
test_others_are_unbound_and_bound() {
	driver virtio_rng
	DEVICE=entropy
	for vdev in /sys/bus/virtio/devices/*; do
		[ $(($(cat "$vdev/device"))) -ne 4 ] || VDEV=${vdev##*/}
	done
	STOP=/sys/bus/virtio/devices/$VDEV/device_stop
	wait_until rmmod virtio_device_stop
	echo "$VDEV" >/sys/bus/virtio/drivers/virtio_rng/unbind
	echo "$VDEV" >/sys/bus/virtio/drivers/virtio_rng/bind
	load_module
	is unavailable bound_before
	resets=$(device_get counters.resets)
	expect "renegotiate" "$(renegotiate)" "$EOPNOTSUPP"
	expect "resets" "$(device_get counters.resets)" "$resets"
	echo "$VDEV" >/sys/bus/virtio/drivers/virtio_rng/unbind
	echo "$VDEV" >/sys/bus/virtio/drivers/virtio_rng/bind
	store "$STOP/force" 1 >/dev/null
	stop
	resume
	store "$STOP/force" 0 >/dev/null
}

run_tests test_file_system_in_use_goes_on test_disk_is_negotiated_with_again_and_again test_what_is_negotiated_stays \
	test_disk_is_flushed test_cache_mode_is_kept test_device_that_does_not_accept_it_works_on \
	test_device_that_does_not_come_back_ends_with_errors test_disk_that_is_busy_is_left_alone \
	test_device_that_offers_nothing_is_not_reset test_device_without_a_driver_is_left_alone test_others_are_unbound_and_bound
