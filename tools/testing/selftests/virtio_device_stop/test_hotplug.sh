#!/bin/sh
# shellcheck shell=busybox
# SPDX-License-Identifier: GPL-2.0-only
#
# A device is unplugged, by QEMU's device_del, in a state in which a request is pending or its disk waits. Its name is "plugged".

DEVICE=plugged
. ./functions.sh
. ./states.sh

set_up() {
	load_module && driver virtio_blk || ktap_exit_fail_msg "the module does not load"
}

clean_up() {
	device_do behave
	unplug
}

# unplug_while STATE REQUEST READER: unplugs it, while a read waits, and sees what a pending request and the read have come to.
unplug_while() {
	plug
	find_vdev
	expect "state" "$(state)" running
	enter "$1"
	dd if="/dev/$DISK" of=/dev/null bs=4k count=1 iflag=direct 2>/tmp/reader &
	reader=$!
	wait_until waiting_are 1
	unplug
	wait_until no_device
	if [ -n "$REQUEST" ]; then
		wait "$REQUEST"
		expect "the pending request" "$(sed 's/.*: //' "/tmp/request$DEVICE")" "$2"
	fi
	if wait $reader; then
		expect "the waiting read" ok "$3"
	else
		expect "the waiting read" "$(sed -n 's/.*: //p' /tmp/reader)" "$3"
		io_errors_are_expected
	fi
	wait_until nobody_hangs
	device_do behave
	plug
	find_vdev
	stop
	resume
	io_works
}

no_device() {
	[ ! -e "/sys/bus/virtio/devices/$VDEV" ]
}

test_unplug_while_stopped() {
	unplug_while stopped "" ok
}

test_unplug_while_stopping() {
	if suspends; then
		unplug_while stopping "$ENODEV" "$EIO"
	else
		unplug_while stopping "$ENODEV" ok
	fi
}

test_unplug_while_resuming() {
	unplug_while resuming "$ENODEV" "$EIO"
}

run_tests test_unplug_while_stopped test_unplug_while_stopping test_unplug_while_resuming
