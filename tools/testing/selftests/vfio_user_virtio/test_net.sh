#!/bin/sh
# shellcheck shell=busybox
# SPDX-License-Identifier: GPL-2.0-only
#
# The network device and the kernel's virtio_net: pings and numbered frames, and the control queue.

. ./functions.sh

DEVICE=nic

clean_up() {
	device_do behave
	for NIC in /sys/class/net/*; do
		NIC=${NIC##*/}
		[ "$NIC" = lo ] || break
	done
	[ "$NIC" != lo ] || fail "no network interface"
	ip link set "$NIC" up
	ip -4 addr show "$NIC" | grep -q inet || ip addr add 10.0.0.2/24 dev "$NIC"
	wait_until carrier_is 1
}

carrier_is() {
	[ "$(cat "/sys/class/net/$NIC/carrier")" = "$1" ]
}

test_pings_are_answered() {
	ping -q -c 5 -W 30 10.0.0.1 >/tmp/ping || fail "$(cat /tmp/ping)"
	grep -q "5 packets received" /tmp/ping || fail "$(cat /tmp/ping)"
	[ "$(device_get of_type.peer.echo)" -ge 5 ] && [ "$(device_get of_type.peer.arp)" -ge 1 ] || fail "who has answered?"
}

test_numbered_frames_come_back_once_and_in_order() {
	frames "$NIC" 2000 >/tmp/frames || fail "$(cat /tmp/frames)"
	expect "frames" "$(cat /tmp/frames)" "sent=2000 received=2000 lost=0 duplicated=0 reordered=0 unknown=0"
	for what in lost duplicated reordered; do
		expect "$what" "$(device_get of_type.peer.$what)" 0
	done
}

test_lost_frames_are_counted() {
	# Some requests fail: frames that were sent, or come back. Which ones, if they take turns, depends on the number.
	for every in 3 5 7; do
		device_set io_error_every=$every
		if frames "$NIC" 60 --patience 2 >/tmp/frames; then
			fail "nothing was lost: $(cat /tmp/frames)"
		fi
		grep -q "lost=[1-9]" /tmp/frames || fail "$(cat /tmp/frames)"
	done
	[ "$(device_get of_type.peer.lost)" -gt 0 ] || fail "the peer has missed none"
}

test_control_queue() {
	before=$(kind control)
	ip link set "$NIC" promisc on || fail "no promiscuous mode"
	ip link set "$NIC" promisc off
	mac=$(cat "/sys/class/net/$NIC/address")
	ip link set "$NIC" down
	ip link set "$NIC" address 02:00:00:00:00:77 || fail "no other address"
	ip link set "$NIC" up
	frames "$NIC" 10 >/tmp/frames || fail "$(cat /tmp/frames)"
	ip link set "$NIC" down
	ip link set "$NIC" address "$mac"
	[ "$(kind control)" -gt "$before" ] || fail "no command has come"
}

test_link_goes_down_and_up() {
	device_do link:down
	wait_until carrier_is 0
	device_do link:up
	wait_until carrier_is 1
	frames "$NIC" 10 >/tmp/frames || fail "$(cat /tmp/frames)"
}

run_tests test_pings_are_answered test_numbered_frames_come_back_once_and_in_order test_lost_frames_are_counted test_control_queue \
	test_link_goes_down_and_up
