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

plug() {
	added=$(qmp device_add "{\"driver\":\"vfio-user-pci\",\"id\":\"plugged\",\"bus\":\"spare0\",
		\"socket\":{\"type\":\"unix\",\"path\":\"$(cat plugged_socket)\"}}" | tr -d '\n')
	case $added in *'"error"'*) fail "$added" ;; esac
	wait_until disk_is_there plugged
	DISK=$(disk plugged)
}

unplug() {
	looks=0
	wait_until unplugged
}

# Asks again from time to time: a guest that has only just seen a device come does not hear the first request.
unplugged() {
	[ "$(device_get connected)" = true ] || return 0
	[ $((looks % 200)) -ne 0 ] || qmp device_del '{"id":"plugged"}' >/dev/null
	looks=$((looks + 1))
	return 1
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
