#!/bin/sh
# shellcheck shell=busybox
# SPDX-License-Identifier: GPL-2.0-only
#
# A device whose status reads as random bytes from DRIVER_OK on: whatever a stop and a resume come to is documented, and ends. With an honest
# status, the device works again, if need be after its driver was bound anew.

. ./functions.sh

# How many bytes each device shows, when this is not said; and with which seed.
BYTES=${1:-200}
SEED=${2:-$(od -A n -N 3 -t u4 /dev/urandom | tr -d ' ')}

# How long a device may take.
RANDOM_TIMEOUT_MS=100

# tries REQUEST: it ends, in time, with one of the errors that there are. Without a new process, which takes long under emulation.
tries() {
	now
	began=$NOW
	ERROR=ok
	if ! echo "$1" 2>/tmp/error >"$STOP/state"; then
		read -r error </tmp/error
		ERROR=${error##*: }
	fi
	now
	[ $((NOW - began)) -lt $((PATIENCE * 1000)) ] || fail "$1 has taken $((NOW - began)) ms"
	case $ERROR in
	ok | "$ENXIO" | "$EBUSY" | "$ETIMEDOUT" | "$EIO" | "$ENODEV" | "$ESTALE") ;;
	*) fail "$1: $ERROR" ;;
	esac
}

# known STATE REASON: it is documented.
known() {
	case "$1 $2" in
	"running none" | "running stop_dropped" | "stopped none" | "aborting stop_timeout" | "aborting stop_dropped" | \
		"failed needs_reset" | "failed stop_unanswered" | "failed resume_unanswered" | "unavailable reset" | "unavailable gone") ;;
	*) return 1 ;;
	esac
}

# look: sets STATE and REASON. A state that passes by itself may change in between.
look() {
	read -r STATE <"$STOP/state"
	read -r REASON <"$STOP/reason"
}

state_is_known() {
	look
	known "$STATE" "$REASON"
}

# With an honest status, nothing is pending for ever.
at_rest() {
	look
	case $STATE in running | stopped | failed | unavailable) ;; *) return 1 ;; esac
}

bind_anew() {
	echo "$VDEV" >"$DRIVER/unbind" || fail "can't unbind"
	echo "$VDEV" >"$DRIVER/bind" || fail "can't bind"
	binds=$((binds + 1))
	wait_until state_is running
}

# What it has made the module believe, a stop and a resume get right, or another driver.
works_again() {
	wait_until at_rest
	case $STATE in failed | unavailable) bind_anew ;; esac
	tries "resume force"
	tries stop
	if [ "$ERROR" = "$EBUSY" ]; then
		wait_until at_rest
		tries stop
	fi
	if [ "$ERROR" != ok ]; then
		wait_until at_rest
		bind_anew
		tries stop
	fi
	expect "stop" "$ERROR" ok
	tries resume
	expect "resume" "$ERROR" ok
}

# shows_random_bytes DRIVER
shows_random_bytes() {
	echo "# seed $SEED"
	DRIVER=/sys/bus/virtio/drivers/$1
	binds=0
	cycle=0
	# What suspends is not stopped without it.
	echo 1 >"$STOP/force"
	device '"get":"counters.status_reads"'
	first=$ANSWER
	while [ $((ANSWER - first)) -lt "$BYTES" ]; do
		echo $RANDOM_TIMEOUT_MS >"$STOP/timeout_ms"
		device_set "show_status=random:$((SEED + cycle))"
		for request in stop resume stop "resume force"; do
			tries "$request"
			wait_until state_is_known
			case $ERROR-$request-$STATE in ok-resume*-stopped) fail "seed $((SEED + cycle)): it is stopped after $request" ;; esac
		done
		device_set show_status=as-is
		# Under emulation an honest device may take longer.
		echo $USUAL_TIMEOUT_MS >"$STOP/timeout_ms"
		works_again
		device '"get":"stop"'
		expect "the device, after seed $((SEED + cycle))," "$ANSWER" '"running"'
		device '"get":"counters.status_reads"'
		cycle=$((cycle + 1))
	done
	echo "# $((ANSWER - first)) bytes in $cycle cycles; bound anew $binds times"
	echo 0 >"$STOP/force"
	nobody_hangs || wait_until nobody_hangs
	# A driver that is lied to breaks rules that it can't know of.
	device_do forget-breaches
	[ $binds -gt 0 ] || fail "no byte has done any harm"
}

test_disk() {
	shows_random_bytes virtio_blk
	find_device
	io_works
	start_fio
	stop
	resume
	more_complete
	stop_fio
}

test_entropy() {
	find_type 4
	DEVICE=entropy
	shows_random_bytes virtio_rng
	wait_until random_bytes_come
}

random_bytes_come() {
	[ "$(timeout $PATIENCE dd if=/dev/hwrng bs=64 count=1 2>/dev/null | wc -c)" = 64 ]
}

test_network_card() {
	find_type 1
	DEVICE=$(card_name)
	shows_random_bytes virtio_net
	wait_until state_is running
}

# card_name: the device behind the virtio device VDEV, by its address.
card_name() {
	case $(cat "/sys/bus/virtio/devices/$VDEV/net/"*/address) in
	02:00:00:00:00:11) echo nic ;;
	02:00:00:00:00:12) echo other_nic ;;
	*) fail "no network card" ;;
	esac
}

driver virtio_net virtio_rng
run_tests test_disk test_entropy test_network_card
