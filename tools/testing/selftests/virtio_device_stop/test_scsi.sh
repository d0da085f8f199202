#!/bin/sh
# shellcheck shell=busybox
# SPDX-License-Identifier: GPL-2.0-only
#
# A SCSI host with two units: its driver is held at all of their request queues. Units come and go while it is stopped.

. ./functions.sh

DEVICE=host
CYCLES=20
# Of each unit, in sectors.
SIZE=65536

set_up() {
	load_module || ktap_exit_fail_msg "the module does not load"
	modprobe -a virtio_scsi sd_mod || ktap_exit_fail_msg "no virtio_scsi"
	find_type 8
}

# unit NUMBER: the folder of that unit.
unit() {
	echo "/sys/bus/virtio/devices/$VDEV"/host*/target*/*:0:"$1"
}

unit_is_there() {
	[ -e "$(echo "$(unit "$1")"/block/*)" ]
}

unit_is_gone() {
	[ ! -e "$(unit "$1")" ]
}

# use_unit NUMBER: it is DISK.
use_unit() {
	wait_until unit_is_there "$1"
	DISK=$(echo "$(unit "$1")"/block/*)
	DISK=${DISK##*/}
}

find_units() {
	use_unit 1
	OTHER_DISK=$DISK
	use_unit 0
}

# scan: the host looks for its second unit.
scan() {
	echo "0 0 1" >"$(echo "/sys/bus/virtio/devices/$VDEV"/host*/scsi_host/host*/scan)"
}

unbind() {
	echo "$VDEV" >/sys/bus/virtio/drivers/virtio_scsi/unbind
}

rebind() {
	[ ! -e "/sys/bus/virtio/devices/$VDEV/driver" ] || unbind
	echo "$VDEV" >/sys/bus/virtio/drivers/virtio_scsi/bind
	find_units
}

clean_up() {
	device_do behave
	device_do "resize:1:$SIZE"
	load_module
	state_is running && holds "$STOP/reason" none && holds "$STOP/timeout_ms" $USUAL_TIMEOUT_MS || bring_back
	unit_is_there 1 || scan
	find_units
}

bring_back() {
	store "$STOP/state" resume >/dev/null
	store "$STOP/timeout_ms" $USUAL_TIMEOUT_MS >/dev/null
	[ -e "/sys/bus/virtio/devices/$VDEV/driver" ] && state_is running || rebind
	wait_until state_is running
	holds "$STOP/reason" none || { stop && resume; }
}

start_fio_on_both() {
	start_fio_on "/dev/$DISK:/dev/$OTHER_DISK"
}

both_units_work() {
	io_works
	use_unit 1
	io_works
	use_unit 0
}

# The error handler gives the driver commands by itself.
test_host_that_deals_with_errors_is_not_stopped() {
	suspends || return 0
	host=$(echo "/sys/bus/virtio/devices/$VDEV"/host*/scsi_host/host*)
	requested=$(device_get counters.stops.requested)
	store "$STOP/timeout_ms" 100 >/dev/null
	echo recovery >"$host/state"
	expect "stop" "$(store "$STOP/state" stop)" "$EBUSY"
	echo running >"$host/state"
	expect "stops" "$(device_get counters.stops.requested)" "$requested"
	stop
	expect "in flight" "$(cat "$STOP/in_flight")" 0
	echo recovery >"$host/state"
	expect "in flight" "$(cat "$STOP/in_flight")" unknown
	echo running >"$host/state"
	resume
	both_units_work
}

test_host_is_stopped() {
	expect "protocol" "$(cat "$STOP/protocol")" "$PROTOCOL"
	expect "force" "$(cat "$STOP/force")" 0
	stop
	resume
	both_units_work
}

test_in_flight_requests_finish_before_the_acknowledgement() {
	start_fio_on_both
	device_set io_hold=until-stop
	requested=$(device_get counters.stops.requested_with_requests)
	failed=$(device_get counters.requests.failed)
	cycle=0
	while [ $cycle -lt $CYCLES ]; do
		wait_until in_flight_at_least 1
		expect "stop" "$(store "$STOP/state" stop)" ok
		in_flight_at_least 1 && fail "requests are in flight while stopped"
		expect "resume" "$(store "$STOP/state" resume)" ok
		cycle=$((cycle + 1))
	done
	device_set io_hold=no
	stop_fio
	requested=$(($(device_get counters.stops.requested_with_requests) - requested))
	expect "stops with requests in flight" $requested $CYCLES
	expect "acknowledged with requests" "$(device_get counters.stops.acknowledged_with_requests)" 0
	expect "failed" "$(device_get counters.requests.failed)" "$failed"
	both_units_work
}

# waits_on NUMBER: a read of that unit waits.
waits_on() {
	use_unit "$1"
	dd if="/dev/$DISK" of=/dev/null bs=4k count=1 iflag=direct 2>"/tmp/dd$1" &
	wait_until waiting_are 1
}

has_read() {
	grep -q "1+0 records in" "/tmp/dd$1"
}

test_the_driver_is_given_nothing_while_stopped() {
	stop
	notifications=$(device_get counters.notifications)
	taken=$(device_get counters.requests.taken)
	waits_on 0
	waits_on 1
	expect "notifications" "$(device_get counters.notifications)" "$notifications"
	expect "taken" "$(device_get counters.requests.taken)" "$taken"
	resume
	wait
	for number in 0 1; do
		has_read $number || fail "the read of unit $number was lost: $(cat /tmp/dd$number)"
	done
	both_units_work
}

notified_more_than() {
	[ "$(device_get counters.notifications)" -gt "$1" ]
}

# What looks for units asks each of them with a queue of its own, which was not there to be held: it waits in the virtqueue. Under
# VIRTIO_F_SUSPEND it may not even get there.
test_unit_is_found_while_stopped() {
	echo 1 >"$(unit 1)/delete"
	wait_until unit_is_gone 1
	stop
	notifications=$(device_get counters.notifications)
	scan &
	scanner=$!
	if suspends; then
		wait_until hangs $scanner
		expect "notifications" "$(device_get counters.notifications)" "$notifications"
	else
		wait_until notified_more_than "$notifications"
	fi
	state_is stopped || fail "the host does not stay stopped"
	resume
	wait $scanner
	find_units
	both_units_work
	stop
	resume
}

# Its cache is synchronized first, which waits.
test_unit_is_removed_while_stopped() {
	stop
	echo 1 >"$(unit 1)/delete" &
	remover=$!
	wait_until hangs $remover
	resume
	wait $remover
	wait_until unit_is_gone 1
	use_unit 0
	io_works
	stop
	resume
	scan
	find_units
	both_units_work
}

test_unbind_while_stopped_with_waiting_requests() {
	stop
	waits_on 1
	unbind
	wait
	has_read 1 || fail "the waiting read was lost: $(cat /tmp/dd1)"
	rebind
	both_units_work
}

test_unbind_of_a_host_that_does_not_resume() {
	device_never_resumes
	store "$STOP/timeout_ms" 100 >/dev/null
	stop
	waits_on 1
	unbind
	wait
	! has_read 1 || fail "the read has not failed"
	device_do behave
	rebind
	both_units_work
	io_errors_are_expected
}

# Who adds a unit holds a lock until the requests of the other one have ended.
test_stop_waits_for_a_unit_to_come_no_longer_than_it_may() {
	echo 1 >"$(unit 1)/delete"
	wait_until unit_is_gone 1
	device_set io_hold=always
	dd if="/dev/$DISK" of=/dev/null bs=4k count=1 iflag=direct 2>/tmp/dd0 &
	wait_until in_flight_at_least 1
	scan &
	scanner=$!
	wait_until hangs $scanner
	requested=$(device_get counters.stops.requested)
	store "$STOP/timeout_ms" 50 >/dev/null
	expect "stop" "$(store "$STOP/state" stop)" "$EBUSY"
	expect "state" "$(state)" running
	expect "stops" "$(device_get counters.stops.requested)" "$requested"
	device_set io_hold=no
	wait
	has_read 0 || fail "the read was lost: $(cat /tmp/dd0)"
	find_units
	both_units_work
	stop
	resume
}

# The device refuses it, as soon as it is told. Under VIRTIO_F_SUSPEND it fails without the device.
test_task_management_waits_or_fails() {
	refused=$(kind task_management)
	stop
	notifications=$(device_get counters.notifications)
	./reset_unit "/dev/$DISK" 2>/tmp/reset &
	if suspends; then
		wait
		expect "notifications" "$(device_get counters.notifications)" "$notifications"
		resume
	else
		wait_until notified_more_than "$notifications"
		expect "refused" "$(kind task_management)" "$refused"
		resume
		wait
		refused=$((refused + 1))
	fi
	grep -q "$EIO" /tmp/reset || fail "the reset has not failed: $(cat /tmp/reset)"
	expect "refused" "$(kind task_management)" "$refused"
	./reset_unit "/dev/$DISK" 2>/tmp/reset
	expect "refused" "$(kind task_management)" $((refused + 1))
	both_units_work
	stop
	resume
}

# size_is SECTORS: of the disk, as its driver knows.
size_is() {
	holds "/sys/block/$DISK/size" "$1"
}

# Not while the driver has yet to give a buffer for events back.
stops() {
	[ "$(store "$STOP/state" stop)" = ok ]
}

# The second unit gets its first size back, of which the driver is told.
back_to_size() {
	use_unit 1
	device_do "resize:1:$SIZE"
	wait_until size_is $SIZE
	use_unit 0
	both_units_work
	wait_until stops
	resume
}

test_event_of_a_stopped_host_is_told_after_the_resume() {
	use_unit 1
	size_is $SIZE || fail "the size is $(cat "/sys/block/$DISK/size")"
	events=$(kind event)
	stop
	notifications=$(device_get counters.notifications)
	device_do "resize:1:$((2 * SIZE))"
	expect "pending" "$(device_get of_type.pending_events)" 1
	size_is $SIZE || fail "the size is another while stopped"
	expect "notifications" "$(device_get counters.notifications)" "$notifications"
	expect "events" "$(kind event)" "$events"
	resume
	wait_until size_is $((2 * SIZE))
	expect "events" "$(kind event)" $((events + 1))
	expect "taken while stopped" "$(device_get counters.requests.taken_while_stopped)" 0
	back_to_size
}

# Who is told of an event looks at the unit, with requests, before the buffer goes back.
test_stop_waits_until_the_host_has_all_buffers_for_events() {
	suspends || return 0
	use_unit 1
	device_set io_hold=always
	device_do "resize:1:$((2 * SIZE))"
	wait_until in_flight_at_least 1
	requested=$(device_get counters.stops.requested)
	store "$STOP/timeout_ms" 50 >/dev/null
	expect "stop" "$(store "$STOP/state" stop)" "$EBUSY"
	expect "state" "$(state)" running
	expect "stops" "$(device_get counters.stops.requested)" "$requested"
	size_is $SIZE || fail "the size is another already"
	device_set io_hold=no
	wait_until stops
	resume
	wait_until size_is $((2 * SIZE))
	back_to_size
}

# Everything that uses the host's other virtqueues, and units that come and go, again and again.
disturb() {
	while [ ! -e /tmp/enough ]; do
		"$@"
	done >/dev/null 2>&1
}

take_away_and_find() {
	echo 1 >"$(unit 1)/delete"
	scan
}

rescan() {
	echo 1 >"$(unit 0)/rescan"
}

# What is read is there: the other unit comes and goes.
read_all() {
	while [ ! -e /tmp/enough ]; do
		dd if="/dev/$DISK" of=/dev/null bs=64k count=16 iflag=direct 2>/tmp/dd0 || cat /tmp/dd0 >>/tmp/failed
	done
}

test_stops_among_resets_scans_and_removals() {
	rm -f /tmp/enough /tmp/failed
	disturb ./reset_unit "/dev/$DISK" &
	disturbers=$!
	disturb take_away_and_find &
	disturbers="$disturbers $!"
	disturb rescan &
	disturbers="$disturbers $!"
	read_all &
	disturbers="$disturbers $!"
	cycle=0
	while [ $cycle -lt $CYCLES ]; do
		case $(store "$STOP/state" stop) in
		ok) cycle=$((cycle + 1)) ;;
		# A unit comes or goes.
		"$EBUSY") continue ;;
		*) fail "not stopped: $(state) $(cat "$STOP/reason")" ;;
		esac
		expect "resume" "$(store "$STOP/state" resume)" ok
	done
	touch /tmp/enough
	# shellcheck disable=SC2086 # a word a process
	wait $disturbers
	[ ! -e /tmp/failed ] || fail "$(head -3 /tmp/failed)"
	unit_is_there 1 || scan
	find_units
	both_units_work
	# Of the unit that was taken away while somebody read its partitions.
	io_errors_are_expected
}

run_tests test_host_that_deals_with_errors_is_not_stopped test_host_is_stopped test_in_flight_requests_finish_before_the_acknowledgement \
	test_the_driver_is_given_nothing_while_stopped test_unit_is_found_while_stopped test_unit_is_removed_while_stopped \
	test_unbind_while_stopped_with_waiting_requests test_unbind_of_a_host_that_does_not_resume \
	test_stop_waits_for_a_unit_to_come_no_longer_than_it_may test_task_management_waits_or_fails \
	test_event_of_a_stopped_host_is_told_after_the_resume test_stop_waits_until_the_host_has_all_buffers_for_events \
	test_stops_among_resets_scans_and_removals
