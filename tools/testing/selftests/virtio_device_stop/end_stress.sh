#!/bin/sh
# shellcheck shell=busybox
# SPDX-License-Identifier: GPL-2.0-only
#
# usage: end_stress.sh ROUNDS
#
# Two agents, resets, and readers of every file, at once and on several processors, while the device answers when it likes. First with
# verified I/O; then with drivers and the module coming and going. Its device is "stress".

DEVICE=stress
. ./functions.sh

# On a slow machine, fio leaves little for the agents.
PATIENCE=240

# Of each part. A device is reset, or loses its driver, once a round.
ROUNDS=$1

# agent FIRST SECOND: asks for both in turn until it is told to end. Counts what it is told.
agent() {
	while [ ! -e /tmp/enough ]; do
		store "$STOP/state" "$1" 2>/dev/null
		store "$STOP/state" "$2" 2>/dev/null
	done | sort | uniq -c >"/tmp/agent-$1"
}

reader() {
	while [ ! -e /tmp/enough ]; do
		cat "$STOP"/[a-qs-z]* "${STOP}_stats"/* "$STOP/reason"
	done >/dev/null 2>&1
}

begin() {
	rm -f /tmp/enough
	resumes_may_be_late
	store "$STOP/timeout_ms" 20 >/dev/null
	agent stop resume &
	agents=$!
	agent resume stop &
	agents="$agents $!"
	reader &
	agents="$agents $!"
}

end() {
	touch /tmp/enough
	# shellcheck disable=SC2086 # a word an agent
	wait $agents
	sed 's/^/# /' /tmp/agent-stop /tmp/agent-resume
}

# The device answers at once, in time, or too late.
change_its_mind() {
	case $(($1 % 4)) in
	0) device_set acknowledge=at-once resume=at-once ;;
	1) device_set acknowledge=after:0-10 resume=after:0-10 ;;
	2) device_set acknowledge=after:0-40 resume=at-once ;;
	3) suspends && device_set acknowledge=after:30-60 resume=after:0-40 || device_set acknowledge=given-up:0-20 resume=after:0-40 ;;
	esac
}

# Of the state. Whether the device was asked, or a stop was called off before, is up to chance.
more_changes_than() {
	read -r changes <"$STOP/generation" && [ "$changes" -gt "$1" ]
}

runs() {
	case $(state) in
	running) return 0 ;;
	stopped) store "$STOP/state" resume >/dev/null ;;
	esac
	return 1
}

test_agents_and_resets_under_io() {
	start_fio
	resets=$(device_get counters.resets)
	stops=$(device_get counters.stops.requested)
	begin
	round=0
	while [ $round -lt "$ROUNDS" ]; do
		echo "# round $round of $ROUNDS"
		change_its_mind $round
		device_do forget-breaches
		wait_until more_changes_than $(($(cat "$STOP/generation") + 40))
		echo 1 >"$(pci)/reset" || fail "can't be reset in round $round"
		no_breach
		round=$((round + 1))
	done
	end
	device_do behave
	wait_until runs
	[ "$(device_get counters.resets)" -ge $((resets + ROUNDS)) ] || fail "the device was not reset"
	[ "$(device_get counters.stops.requested)" -ge $((stops + ROUNDS)) ] || fail "the device was hardly ever stopped"
	more_complete
	stop_fio
	io_works
}

test_agents_while_drivers_and_the_module_come_and_go() {
	begin
	round=0
	while [ $round -lt "$ROUNDS" ]; do
		echo "# round $round of $ROUNDS"
		change_its_mind $round
		echo "$VDEV" >/sys/bus/virtio/drivers/virtio_blk/unbind || fail "can't be unbound in round $round"
		echo "$VDEV" >/sys/bus/virtio/drivers/virtio_blk/bind || fail "can't be bound in round $round"
		no_breach
		device_do forget-breaches
		store "$STOP/timeout_ms" 20 >/dev/null
		if [ $((round % 5)) = 4 ]; then
			device_do behave
			# It can't while a device is waited for, or watched.
			wait_until rmmod virtio_device_stop 2>/dev/null
			load_module
			store "$STOP/timeout_ms" 20 >/dev/null
		fi
		round=$((round + 1))
	done
	end
	device_do behave
	find_device
	wait_until runs
	# 20 ms are too short for a slow machine.
	store "$STOP/timeout_ms" 60000 >/dev/null
	stop
	resume
	io_works
}

load_module
find_device
for test in test_agents_and_resets_under_io test_agents_while_drivers_and_the_module_come_and_go; do
	if ("$test") && (no_breach) && dmesg_is_clean; then echo "ok ${test#test_}"; else echo "not ok ${test#test_}"; fi
done
