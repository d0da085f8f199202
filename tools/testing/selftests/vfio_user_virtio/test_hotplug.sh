#!/bin/sh
# shellcheck shell=busybox
# SPDX-License-Identifier: GPL-2.0-only
#
# Devices come and go while the guest runs, by QEMU's device_add and device_del.

. ./functions.sh

DEVICE=plugged

clean_up() {
	device_do behave
	unplug
}

test_plug_and_unplug() {
	for round in 1 2 3; do
		plug
		expect "connected in round $round" "$(device_get connected)" true
		io_works
		unplug
		wait_until disk_is_gone plugged
	done
}

test_unplug_under_io() {
	plug
	start_fio
	unplug
	wait_until disk_is_gone plugged
	killall -q -9 fio
	wait
	dmesg -c >/dev/null
	plug
	io_works
}

run_tests test_plug_and_unplug test_unplug_under_io
