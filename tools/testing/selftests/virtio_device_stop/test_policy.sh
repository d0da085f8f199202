#!/bin/sh
# shellcheck shell=busybox
# SPDX-License-Identifier: GPL-2.0-only
#
# Devices of other types: which may be stopped, which only with force, and which not. And a device whose bit 39 could mean something
# else.

. ./functions.sh

is() {
	expect "state" "$(state)" "$1"
	expect "reason" "$(cat "$STOP/reason")" "$2"
}

negotiated() {
	expect "the device's view" "$(device_get protocol)" "\"$1\""
	expect "protocol" "$(cat "$STOP/protocol")" "$1"
}

# find_disk: $DEVICE, with a driver that was bound after the module was loaded.
find_disk() {
	driver virtio_blk
	DISK=$(disk "$DEVICE")
	find_vdev
	bind_again
}

# needs_force DRIVER TYPE: with force the device is stopped, without it is not.
needs_force() {
	find_type "$2"
	negotiated "$PROTOCOL"
	is unavailable type_refused
	expect "stop" "$(store "$STOP/state" stop)" "$EOPNOTSUPP"
	generation=$(cat "$STOP/generation")
	store "$STOP/force" 1 >/dev/null
	is running none
	[ "$(cat "$STOP/generation")" -gt "$generation" ] || fail "the generation has not changed"
	stop
	# To take it back does not end a stop, and is applied when that has ended.
	store "$STOP/force" 0 >/dev/null
	is stopped none
	expect "resume" "$(store "$STOP/state" resume)" ok
	is unavailable type_refused
	expect "stop" "$(store "$STOP/state" stop)" "$EOPNOTSUPP"
	# It is there for the next driver, too.
	store "$STOP/force" 1 >/dev/null
	echo "$VDEV" >"/sys/bus/virtio/drivers/$1/unbind"
	echo "$VDEV" >"/sys/bus/virtio/drivers/$1/bind"
	is running none
	store "$STOP/force" 0 >/dev/null
}

# works_meanwhile DRIVER TYPE: VIRTIO_F_SUSPEND forbids more than that driver is kept from.
works_meanwhile() {
	if suspends; then
		needs_force "$1" "$2"
	else
		find_type "$2"
		negotiated "$PROTOCOL"
		is running none
		stop
		resume
	fi
}

test_entropy_is_stopped_by_device_stop_and_with_force_by_suspend() {
	DEVICE=entropy
	driver virtio_rng
	works_meanwhile virtio_rng 4
	head -c 64 /dev/hwrng | wc -c | grep -qx 64 || fail "no entropy"
}

test_balloon_needs_force() {
	DEVICE=balloon
	driver virtio_balloon
	completed=$(device_get counters.requests.completed)
	needs_force virtio_balloon 5
	# The driver that is bound again takes a page, as the device wants it to.
	wait_until completed_more_than "$completed"
}

test_console_is_never_stopped() {
	DEVICE=console
	find_type 3
	negotiated none
	is unavailable type_refused
	store "$STOP/force" 1 >/dev/null
	is unavailable type_refused
	expect "stop" "$(store "$STOP/state" stop)" "$EOPNOTSUPP"
	store "$STOP/force" 0 >/dev/null
	completed=$(device_get counters.requests.completed)
	echo "a line" >/dev/hvc0 || fail "the console can't be written to"
	wait_until completed_more_than "$completed"
}

# Only VIRTIO_F_DEVICE_STOP has that bit.
test_bit_39_is_accepted_where_the_administrator_says_so() {
	DEVICE=ambiguous
	find_disk
	if suspends; then
		negotiated suspend
		return
	fi
	negotiated none
	is unavailable bit39_ambiguous
	store "$STOP/accept_bit39" 1 >/dev/null
	is unavailable bit39_ambiguous
	bind_again
	negotiated device_stop
	stop
	resume
	io_works
	store "$STOP/accept_bit39" 0 >/dev/null
	bind_again
	is unavailable bit39_ambiguous
}

# A device that means VIRTIO_F_NOTIF_CONFIG_DATA is left alone, and works.
test_device_that_means_notif_config_data_works_on() {
	DEVICE=notifier
	find_disk
	negotiated none
	is unavailable bit39_ambiguous
	io_works
	expect "notifications that were lost" "$(device_get counters.notifications_lost)" 0
}

run_tests test_entropy_is_stopped_by_device_stop_and_with_force_by_suspend test_balloon_needs_force test_console_is_never_stopped \
	test_bit_39_is_accepted_where_the_administrator_says_so test_device_that_means_notif_config_data_works_on
