#!/bin/sh
# shellcheck shell=busybox
# SPDX-License-Identifier: GPL-2.0-only
#
# Random and malformed writes to every file of the module's, and random commands to /dev/virtio_device_stop, by root and by others: the
# kernel does not complain, nobody hangs, and afterwards every device is what it was.

. ./functions.sh

# How many calls of each kind, when this is not said; and with which seed.
CALLS=${1:-3000}
SEED=${2:-$(od -A n -N 3 -t u4 /dev/urandom | tr -d ' ')}
NOBODY=65534

# The devices that have files, and what they are.
all_devices() {
	for vdev in /sys/bus/virtio/devices/*; do
		[ ! -d "$vdev/device_stop" ] || echo "$vdev"
	done
}

states() {
	for vdev in $(all_devices); do
		read -r state <"$vdev/device_stop/state"
		echo "${vdev##*/} $state"
	done
}

# is_at_rest FILES: nothing is pending.
is_at_rest() {
	read -r at_rest <"$1/state"
	case $at_rest in running | unavailable) ;; *) return 1 ;; esac
}

# every_device_is_what_it_was: it has its state, and if it can be stopped, it does.
every_device_is_what_it_was() {
	for vdev in $(all_devices); do
		STOP=$vdev/device_stop
		store "$STOP/state" "resume force" >/dev/null
		wait_until is_at_rest "$STOP"
		echo 60000 >"$STOP/lease_ms"
		echo $USUAL_TIMEOUT_MS >"$STOP/timeout_ms"
		echo 0 >"$STOP/force"
		echo 0 >"$STOP/accept_bit39"
		expect "holder of ${vdev##*/}" "$(cat "$STOP/holder")" none
	done
	expect "states" "$(states)" "$(cat /tmp/states)"
	for vdev in $(all_devices); do
		STOP=$vdev/device_stop
		state_is running || continue
		# What is above an interface goes on a moment after it.
		wait_until stops
		resume
		expect "reason of ${vdev##*/}" "$(cat "$STOP/reason")" none
	done
	nobody_hangs || wait_until nobody_hangs
	find_device
}

stops() {
	[ "$(store "$STOP/state" stop)" = ok ]
}

# under_io COMMAND...: which ends in its own time, while the disk is written to.
under_io() {
	echo "# seed $SEED"
	states >/tmp/states
	start_fio
	"$@" || fail "seed $SEED: $* has failed"
	every_device_is_what_it_was
	more_complete
	stop_fio
	io_works
}

# files_by USER
files_by() {
	# shellcheck disable=SC2046 # a word a device
	under_io ./fuzz_files "$CALLS" "$SEED" "$1" $(all_devices)
}

test_writes_by_root() {
	files_by 0
}

test_writes_by_others() {
	generation=$(cat "$STOP/generation")
	files_by $NOBODY
	find_device
	# The stop and the resume of afterwards.
	expect "changes of the state" $(($(cat "$STOP/generation") - generation)) 4
}

test_commands_by_root() {
	# shellcheck disable=SC2046 # a word a device
	under_io ./fuzz_owner "$CALLS" "$SEED" $(all_devices)
}

# Who has been given an open file may use it: nobody but root could open it.
test_commands_by_others() {
	# shellcheck disable=SC2046 # a word a device
	under_io ./fuzz_owner -u $NOBODY "$CALLS" "$SEED" $(all_devices)
}

driver virtio_net virtio_scsi virtio_rng virtio_balloon
run_tests test_writes_by_root test_writes_by_others test_commands_by_root test_commands_by_others
