#!/bin/sh
# shellcheck shell=busybox
# SPDX-License-Identifier: GPL-2.0-only
#
# The feature is negotiated where it is offered, and nothing else changes.

. ./functions.sh

# The feature's bit in /sys/bus/virtio/devices/virtioN/features, which begins with bit 0.
feature() {
	if suspends; then
		cut -c 44 "$1/features"
	else
		cut -c 40 "$1/features"
	fi
}

test_feature_is_negotiated() {
	expect "the feature" "$(feature "/sys/bus/virtio/devices/$VDEV")" 1
	expect "the device's view" "$(device_get protocol)" "\"$PROTOCOL\""
	expect "protocol" "$(cat "$STOP/protocol")" "$PROTOCOL"
	expect "state" "$(state)" running
	expect "reason" "$(cat "$STOP/reason")" none
}

test_device_without_the_feature() {
	DEVICE=plain
	find_device
	# The test before may have loaded the module anew: it does not know then what was offered.
	bind_again
	expect "the feature" "$(feature "/sys/bus/virtio/devices/$VDEV")" 0
	expect "protocol" "$(cat "$STOP/protocol")" none
	expect "state" "$(state)" unavailable
	expect "reason" "$(cat "$STOP/reason")" not_offered
	expect "stop" "$(store "$STOP/state" stop)" "$EOPNOTSUPP"
	expect "resume" "$(store "$STOP/state" resume)" "$EOPNOTSUPP"
	dd if="/dev/$DISK" of=/dev/null bs=4k count=16 iflag=direct 2>/dev/null || fail "can't read"
}

test_device_without_a_driver() {
	echo "$VDEV" >/sys/bus/virtio/drivers/virtio_blk/unbind
	expect "state" "$(state)" unavailable
	expect "reason" "$(cat "$STOP/reason")" no_driver
	expect "stop" "$(store "$STOP/state" stop)" "$ENXIO"
	expect "resume" "$(store "$STOP/state" resume)" "$ENXIO"
	echo "$VDEV" >/sys/bus/virtio/drivers/virtio_blk/bind
	expect "state" "$(state)" running
	expect "the feature" "$(feature "/sys/bus/virtio/devices/$VDEV")" 1
	io_works
}

test_feature_is_not_negotiated_when_switched_off() {
	echo "$VDEV" >/sys/bus/virtio/drivers/virtio_blk/unbind
	rmmod virtio_device_stop
	insmod /vds/modules/virtio_device_stop.ko "$PROTOCOL=0"
	echo "$VDEV" >/sys/bus/virtio/drivers/virtio_blk/bind
	expect "reason" "$(cat "$STOP/reason")" disabled
	expect "the feature" "$(feature "/sys/bus/virtio/devices/$VDEV")" 0
	expect "stop" "$(store "$STOP/state" stop)" "$EOPNOTSUPP"
	echo "$VDEV" >/sys/bus/virtio/drivers/virtio_blk/unbind
	rmmod virtio_device_stop
	load_module
	echo "$VDEV" >/sys/bus/virtio/drivers/virtio_blk/bind
	expect "state" "$(state)" running
}

test_driver_that_was_bound_before_the_module() {
	echo "$VDEV" >/sys/bus/virtio/drivers/virtio_blk/unbind
	rmmod virtio_device_stop
	echo "$VDEV" >/sys/bus/virtio/drivers/virtio_blk/bind
	expect "the feature" "$(feature "/sys/bus/virtio/devices/$VDEV")" 0
	load_module
	expect "state" "$(state)" unavailable
	expect "reason" "$(cat "$STOP/reason")" bound_before
	echo "$VDEV" >/sys/bus/virtio/drivers/virtio_blk/unbind
	echo "$VDEV" >/sys/bus/virtio/drivers/virtio_blk/bind
	expect "state" "$(state)" running
	expect "the feature" "$(feature "/sys/bus/virtio/devices/$VDEV")" 1
}

run_tests test_feature_is_negotiated test_device_without_the_feature test_device_without_a_driver \
	test_feature_is_not_negotiated_when_switched_off test_driver_that_was_bound_before_the_module
