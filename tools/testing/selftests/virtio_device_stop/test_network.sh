#!/bin/sh
# shellcheck shell=busybox
# SPDX-License-Identifier: GPL-2.0-only
#
# Network devices: what they have taken comes through a stop, and whoever configures them meanwhile is not held up.

. ./functions.sh

# busybox' shell runs its own, whatever PATH says.
ip() {
	/usr/sbin/ip "$@"
}

set_up() {
	load_module || ktap_exit_fail_msg "the module does not load"
	modprobe virtio_net || ktap_exit_fail_msg "no virtio_net"
}

# find_nic DEVICE: sets DEVICE, MAC, NIC, ADDRESS, VDEV and STOP.
find_nic() {
	DEVICE=$1
	case $1 in
	nic) MAC=02:00:00:00:00:11 ADDRESS=10.0.1 ;;
	other_nic) MAC=02:00:00:00:00:12 ADDRESS=10.0.2 ;;
	esac
	wait_until nic_is_there
	VDEV=$(readlink -f "/sys/class/net/$NIC/device")
	VDEV=${VDEV##*/}
	STOP=/sys/bus/virtio/devices/$VDEV/device_stop
}

nic_is_there() {
	for NIC in /sys/class/net/*; do
		! holds "$NIC/address" "$MAC" || break
	done
	NIC=${NIC##*/}
	holds "/sys/class/net/$NIC/address" "$MAC"
}

unbind() {
	echo "$VDEV" >/sys/bus/virtio/drivers/virtio_net/unbind
}

# A driver that was bound while the module was not loaded has negotiated nothing.
rebind() {
	[ ! -e "/sys/bus/virtio/devices/$VDEV/driver" ] || unbind
	echo "$VDEV" >/sys/bus/virtio/drivers/virtio_net/bind
	find_nic "$DEVICE"
	ip link set "$NIC" up
	ip addr add "$ADDRESS.2/24" dev "$NIC"
	wait_until nic_is_up
}

# What is sent before gets lost.
nic_is_up() {
	holds "/sys/class/net/$NIC/operstate" up
}

clean_up() {
	load_module
	for vdev in /sys/bus/virtio/devices/*; do
		[ -e "$vdev/driver" ] || ! holds "$vdev/device" 0x0001 || echo "${vdev##*/}" >/sys/bus/virtio/drivers/virtio_net/bind
	done
	for nic in other_nic nic; do
		find_nic $nic
		device_do behave
		is_as_at_first || bring_back
	done
}

is_as_at_first() {
	state_is running && holds "$STOP/reason" none && holds "$STOP/timeout_ms" $USUAL_TIMEOUT_MS && nic_is_up && ip addr show dev "$NIC" | grep -qF "$ADDRESS.2"
}

bring_back() {
	store "$STOP/state" resume >/dev/null
	store "$STOP/timeout_ms" $USUAL_TIMEOUT_MS >/dev/null
	rebind
}

# What the kernel knows of the interface.
configuration() {
	ip -o addr show dev "$NIC" | sed 's/valid_lft.*//'
	ip route show dev "$NIC"
	cat "/sys/class/net/$NIC/carrier"
}

# start_frames COUNT: numbered frames, each of which is to come back.
start_frames() {
	frames "$NIC" "$1" --patience "$PATIENCE" >"/tmp/frames-$DEVICE" 2>&1 &
	FRAMES=$!
}

frames_are_all_back() {
	wait "$FRAMES"
	expect "frames" "$(cat "/tmp/frames-$DEVICE")" "sent=$1 received=$1 lost=0 duplicated=0 reordered=0 unknown=0"
}

# does_not_hang COMMAND...: however it ends.
does_not_hang() {
	"$@" >/tmp/said 2>&1 &
	COMMAND=$!
	wait_until has_ended "$COMMAND"
	wait $COMMAND
	STATUS=$?
}

# refused COMMAND...: ends with an error.
refused() {
	does_not_hang "$@"
	[ $STATUS -ne 0 ] || fail "not refused: $*"
	grep -q "$ENODEV" /tmp/said || fail "refused with '$(cat /tmp/said)': $*"
}

transmitted_more_than() {
	[ "$(device_get of_type.transmitted)" -gt "$1" ]
}

# more_are_sent THAN: unless all were.
more_are_sent() {
	transmitted_more_than "$1" || has_ended "$FRAMES"
}

is_promiscuous() {
	[ "$(device_get of_type.promiscuous)" = "$1" ]
}

# echoes_sent: how many echo requests have left the guest's own IP.
echoes_sent() {
	awk '$1 == "Icmp:" { if (column) { print $column; exit } for (column = NF; $column != "OutEchos"; column--); }' /proc/net/snmp
}

more_echoes_are_sent() {
	[ "$(echoes_sent)" -gt "$1" ]
}

# start_ping FILE: sets PING.
start_ping() {
	sent=$(echoes_sent)
	ping -q -c 1 -W "$PATIENCE" "$ADDRESS.1" >"$1" &
	PING=$!
	wait_until more_echoes_are_sent "$sent"
}

test_frames_come_through_stops() {
	start_frames 3000
	stops=0
	while ! has_ended "$FRAMES"; do
		sent=$(device_get of_type.transmitted)
		stop
		resume
		stops=$((stops + 1))
		wait_until more_are_sent "$sent"
	done
	frames_are_all_back 3000
	[ $stops -ge 5 ] || fail "only $stops stops"
}

test_ping_waits_for_the_end_of_a_stop() {
	ping -q -c 1 -W "$PATIENCE" "$ADDRESS.1" >/tmp/ping || fail "$(cat /tmp/ping)"
	stop
	transmitted=$(device_get of_type.transmitted)
	echoes=$(device_get of_type.peer.echo)
	start_ping /tmp/ping
	expect "frames that a stopped device has sent" "$(device_get of_type.transmitted)" "$transmitted"
	expect "answers" "$(device_get of_type.peer.echo)" "$echoes"
	resume
	wait $PING || fail "$(cat /tmp/ping)"
	expect "answers" "$(device_get of_type.peer.echo)" $((echoes + 1))
}

# The driver is told that the device has sent something when the interface is detached already, and may go on sending: into the
# virtqueue, where the frame waits.
test_frames_wait_though_one_was_sent_meanwhile() {
	ping -q -c 1 -W "$PATIENCE" "$ADDRESS.1" >/tmp/ping || fail "$(cat /tmp/ping)"
	device_set io_hold=until-stop
	start_ping /tmp/ping
	first=$PING
	wait_until in_flight_at_least 1
	stop
	device_set io_hold=no
	transmitted=$(device_get of_type.transmitted)
	start_ping /tmp/second-ping
	expect "frames that a stopped device has sent" "$(device_get of_type.transmitted)" "$transmitted"
	expect "frames that it has taken" "$(device_get counters.requests.taken_while_stopped)" 0
	resume
	wait $first || fail "$(cat /tmp/ping)"
	wait $PING || fail "$(cat /tmp/second-ping)"
}

test_configuration_is_kept() {
	before=$(configuration)
	stop
	expect "while it is stopped" "$(configuration)" "$before"
	resume
	expect "afterwards" "$(configuration)" "$before"
}

test_whoever_configures_it_meanwhile_is_refused() {
	stop
	does_not_hang ip -s link show dev "$NIC"
	expect "a look" $STATUS 0
	refused ip link set "$NIC" address 02:00:00:00:00:77
	refused ip link set "$NIC" mtu 1400
	refused ethtool "$NIC"
	refused ethtool -K "$NIC" tx off
	does_not_hang ip link set "$NIC" promisc on
	does_not_hang ip link set "$NIC" down
	expect "down" $STATUS 0
	refused ip link set "$NIC" up
	resume
	wait_until nobody_hangs
	ip link set "$NIC" up || fail "it does not come up"
	wait_until nic_is_up
	start_frames 100
	frames_are_all_back 100
	expect "its length of frames" "$(cat "/sys/class/net/$NIC/mtu")" 1500
	expect "its address" "$(cat "/sys/class/net/$NIC/address")" "$MAC"
}

# Without polls of its own for what was sent, the driver would not do it when the interface comes up.
test_interface_that_was_shut_down_meanwhile_sends_again() {
	ip link set "$NIC" down
	ethtool -C "$NIC" tx-frames 0 || fail "polls can't be switched off"
	ip link set "$NIC" up
	wait_until nic_is_up
	stop
	ip link set "$NIC" down
	resume
	ip link set "$NIC" up
	wait_until nic_is_up
	start_frames 100
	frames_are_all_back 100
	rebind
}

test_device_is_told_later_what_it_is_to_receive() {
	stop
	does_not_hang ip link set "$NIC" promisc on
	is_promiscuous false || fail "a stopped device was told"
	resume
	wait_until is_promiscuous true
	stop
	does_not_hang ip link set "$NIC" promisc off
	resume
	wait_until is_promiscuous false
}

change_modes() {
	while [ ! -e /tmp/enough ]; do
		ip link set "$NIC" promisc on
		ip link set "$NIC" promisc off
	done
}

# The driver tells the device of a mode later than it is asked for: that may be when the device has stopped.
test_driver_does_not_wait_for_commands_with_the_lock_held() {
	rm -f /tmp/enough
	change_modes &
	round=0
	while [ $round -lt 10 ]; do
		stop
		refused ip link set "$NIC" mtu 1400
		resume
		round=$((round + 1))
	done
	touch /tmp/enough
	wait
	wait_until is_promiscuous false
}

stop_has_begun() {
	state_is stopping || has_ended "$stopper"
}

stop_is_told_of_and_that_it_was_nothing() {
	expect "stop" "$(store "$STOP/state" stop)" "$EBUSY"
	told "stopping running" busy
}

# The driver of the other device waits for its command, with the lock held.
test_stop_waits_for_the_lock_no_longer_than_it_may() {
	find_nic other_nic
	device_set io_hold=always
	ip link set "$NIC" promisc on
	wait_until in_flight_at_least 1
	find_nic nic
	requested=$(device_get counters.stops.requested)
	store "$STOP/timeout_ms" 50 >/dev/null
	uevents_of stop_is_told_of_and_that_it_was_nothing
	expect "state" "$(state)" running
	expect "stops" "$(device_get counters.stops.requested)" "$requested"
	expect "timeouts" "$(stat timeouts)" 0
	# It can be called off as well.
	store "$STOP/timeout_ms" 600000 >/dev/null
	store "$STOP/state" stop >/tmp/stop &
	stopper=$!
	wait_until stop_has_begun
	store "$STOP/state" resume >/dev/null
	wait $stopper
	case $(cat /tmp/stop) in "$ECANCELED" | ok) ;; *) fail "stop: $(cat /tmp/stop)" ;; esac
	find_nic other_nic
	device_set io_hold=no
	wait_until is_promiscuous true
	ip link set "$NIC" promisc off
	find_nic nic
	stop
	resume
}

# agent FILE ROUNDS
agent() {
	round=0
	while [ $round -lt "$2" ]; do
		echo stop >"$1" && echo resume >"$1" || return
		round=$((round + 1))
	done
}

# receives_vlan VLAN: as the device knows.
receives_vlan() {
	device_get of_type.vlans | grep -q "\\b$1\\b"
}

does_not_receive_vlan() {
	! receives_vlan "$1"
}

test_device_is_told_later_of_a_vlan_that_was_removed() {
	for vlan in 5 6; do
		ip link add link "$NIC" name "vlan$vlan" type vlan id $vlan
		receives_vlan $vlan || fail "the device does not know of VLAN $vlan"
	done
	stop
	ip link del vlan5
	refused ip link add link "$NIC" name vlan7 type vlan id 7
	resume
	wait_until does_not_receive_vlan 5
	receives_vlan 6 || fail "the device has forgotten another VLAN"
	ip link del vlan6
	does_not_receive_vlan 6 || fail "the device has not forgotten VLAN 6"
}

can_be_configured() {
	ip link set "$NIC" mtu 1400 2>/dev/null
}

# Whoever has the lock may wait for memory that only another device, which is still stopped, could bring.
test_resume_does_not_wait_for_the_lock() {
	find_nic nic
	stop
	find_nic other_nic
	device_set io_hold=always
	ip link set "$NIC" promisc on
	wait_until in_flight_at_least 1
	find_nic nic
	resume
	expect "the device's view" "$(device_get stop)" '"running"'
	# What is to be let go yet is taken back.
	stop
	expect "the device's view" "$(device_get stop)" '"stopped"'
	resume
	find_nic other_nic
	device_set io_hold=no
	wait_until is_promiscuous true
	find_nic nic
	wait_until can_be_configured
	ip link set "$NIC" mtu 1500
	stop
	refused ip link set "$NIC" mtu 1400
	resume
	wait_until can_be_configured
	ip link set "$NIC" mtu 1500
	find_nic other_nic
	ip link set "$NIC" promisc off
	wait_until is_promiscuous false
}

test_two_are_stopped_in_any_order() {
	find_nic other_nic
	other=$STOP/state
	start_frames 1500
	others=$FRAMES
	find_nic nic
	start_frames 1500
	for order in "$STOP/state $other" "$other $STOP/state"; do
		for first in $order; do
			for file in $order; do
				expect "stop" "$(store "$file" stop)" ok
			done
			expect "states" "$(cat "$STOP/state" "$other" | xargs)" "stopped stopped"
			expect "resume" "$(store "$first" resume)" ok
			for file in $order; do
				expect "resume" "$(store "$file" resume)" ok
			done
		done
	done
	agent "$STOP/state" 20 &
	agents=$!
	agent "$other" 20 || fail "an agent has failed"
	wait $agents || fail "an agent has failed"
	frames_are_all_back 1500
	FRAMES=$others
	DEVICE=other_nic
	frames_are_all_back 1500
}

test_unbind_resumes_it() {
	stop
	unbind
	expect "the device's view" "$(device_get stop)" '"running"'
	rebind
	start_frames 100
	frames_are_all_back 100
}

test_unbind_of_one_that_does_not_resume() {
	stop
	device_never_resumes
	store "$STOP/timeout_ms" 100 >/dev/null
	does_not_hang ip link set "$NIC" promisc on
	does_not_hang unbind
	expect "unbind" $STATUS 0
	device_do behave
	rebind
	start_frames 100
	frames_are_all_back 100
}

# The device does not stop, and its driver goes on without an answer. It would wait for that with the lock held.
let_go_without_an_answer() {
	if suspends; then
		device_set acknowledge=never
	else
		device_set acknowledge=given-up:0 resume=never
	fi
	store "$STOP/timeout_ms" 100 >/dev/null
	expect "stop" "$(store "$STOP/state" stop)" "$ETIMEDOUT"
	does_not_hang ip link set "$NIC" promisc on
	device_set io_hold=always
	wait_until state_is failed
	expect "reason" "$(cat "$STOP/reason")" stop_unanswered
	wait_until may_be_configured
	wait_until nobody_hangs
}

test_commands_to_one_that_does_not_answer_fail() {
	let_go_without_an_answer
	commands=$(kind control)
	device_set io_hold=no acknowledge=at-once resume=at-once
	wait_until state_is running
	wait_until is_promiscuous true
	[ "$(kind control)" -gt "$commands" ] || fail "no command was counted"
	device_do forget-breaches
	does_not_hang ip link set "$NIC" promisc off
	wait_until is_promiscuous false
	start_frames 100
	frames_are_all_back 100
}

# It is attached again.
may_be_configured() {
	does_not_hang ip link set "$NIC" mtu 1400
	[ $STATUS -eq 0 ] || return
	does_not_hang ip link set "$NIC" mtu 1500
}

# goes_after_its_driver_was_let_go HOW
goes_after_its_driver_was_let_go() {
	let_go_without_an_answer
	"$1"
	echo "$VDEV" >/sys/bus/virtio/drivers/virtio_net/unbind
	wait_until nobody_hangs
	device_do behave
	device_do forget-breaches
	rebind
	start_frames 100
	frames_are_all_back 100
}

test_unbind_after_its_driver_was_let_go() {
	goes_after_its_driver_was_let_go true
}

needs_reset() {
	device_do needs-reset
	wait_until holds "$STOP/reason" needs_reset
	does_not_hang ip link set "$NIC" mtu 1400
}

test_needs_a_reset_after_its_driver_was_let_go() {
	goes_after_its_driver_was_let_go needs_reset
}

test_nobody_waits_for_one_that_needs_a_reset() {
	stop
	device_do needs-reset
	expect "state" "$(state)" failed
	does_not_hang ip link set "$NIC" promisc on
	does_not_hang ip link set "$NIC" mtu 1400
	does_not_hang ip link set "$NIC" promisc off
	wait_until nobody_hangs
	device_do behave
	rebind
	start_frames 100
	frames_are_all_back 100
}

# The debug kernel has no VLANs; the stock one, by which the same is tested, has.
vlan_tests=
if modprobe 8021q 2>/dev/null; then
	vlan_tests=test_device_is_told_later_of_a_vlan_that_was_removed
else
	echo "# This kernel has no VLANs: what becomes of one that is removed is tested on the stock kernel."
fi

# shellcheck disable=SC2086 # one, or none
run_tests test_frames_come_through_stops test_ping_waits_for_the_end_of_a_stop \
	test_frames_wait_though_one_was_sent_meanwhile test_configuration_is_kept \
	test_whoever_configures_it_meanwhile_is_refused \
	test_interface_that_was_shut_down_meanwhile_sends_again test_device_is_told_later_what_it_is_to_receive \
	test_driver_does_not_wait_for_commands_with_the_lock_held \
	test_stop_waits_for_the_lock_no_longer_than_it_may test_resume_does_not_wait_for_the_lock \
	$vlan_tests test_two_are_stopped_in_any_order test_unbind_resumes_it \
	test_unbind_of_one_that_does_not_resume test_commands_to_one_that_does_not_answer_fail \
	test_unbind_after_its_driver_was_let_go test_needs_a_reset_after_its_driver_was_let_go test_nobody_waits_for_one_that_needs_a_reset
