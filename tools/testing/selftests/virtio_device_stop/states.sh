# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=busybox
#
# Brings the device into each of its states, and lets it stay there. For tests that have functions.sh.

# shellcheck disable=SC2034 # for the tests
STATES="running stopping stopped resuming aborting failed needs_reset"

# Short, since a device that never answers is waited for; requests that are to stay pending have been given a longer one.
TIMEOUT_MS=200

# begin_request STOP_OR_RESUME: it stays pending.
begin_request() {
	store "$STOP/timeout_ms" 600000 >/dev/null
	# A shell of its own, which writes itself: it can be killed, or sent a signal that it handles.
	# shellcheck disable=SC2016 # the inner shell's
	sh -c 'trap : USR1; echo "$1" >"$2" && echo : ok >&2' _ "$1" "$STOP/state" 2>"/tmp/request$DEVICE" &
	REQUEST=$!
}

enter_running() {
	:
}

enter_stopping() {
	device_set acknowledge=never
	begin_request stop
	wait_until state_is stopping
}

enter_stopped() {
	stop
}

enter_resuming() {
	stop
	device_never_resumes
	begin_request resume
	wait_until state_is resuming
}

# D: the device has stopped, after the stop was called off, and does not resume. S: it has yet to stop.
enter_aborting() {
	if suspends; then
		device_set acknowledge=never
	else
		device_set acknowledge=given-up:0 resume=never
	fi
	expect "stop" "$(store "$STOP/state" stop)" "$ETIMEDOUT"
	expect "state" "$(state)" aborting
}

enter_failed() {
	stop
	device_never_resumes
	expect "resume" "$(store "$STOP/state" resume)" "$ETIMEDOUT"
	expect "state" "$(state)" failed
}

enter_needs_reset() {
	stop
	device_do needs-reset
	expect "state" "$(state)" failed
}

# enter STATE: the request that is pending then, if any, is the process REQUEST.
enter() {
	REQUEST=
	store "$STOP/timeout_ms" $TIMEOUT_MS >/dev/null
	"enter_$1"
	store "$STOP/timeout_ms" $TIMEOUT_MS >/dev/null
}

# use_device NAME: one of those that enter_all has found.
use_device() {
	DEVICE=$1
	DISK=$(cat "/tmp/disk$1")
	find_vdev
}

# enter_all: one device in each state, the states being their names. A read waits for the stopped one.
enter_all() {
	modprobe virtio_blk
	# A disk that is stopped does not tell its name.
	for state in $STATES; do
		disk "$state" >"/tmp/disk$state"
	done
	for state in $STATES; do
		use_device "$state"
		enter "$state"
		if [ "$state" = stopped ]; then
			dd if="/dev/$DISK" of=/dev/null bs=4k count=1 iflag=direct 2>/tmp/reader &
			wait_until waiting_are 1
		fi
	done
}
