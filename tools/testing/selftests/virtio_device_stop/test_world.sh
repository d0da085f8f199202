#!/bin/sh
# shellcheck shell=busybox
# SPDX-License-Identifier: GPL-2.0-only
#
# The world changes: everything that can happen to a device from outside, in every state that it can be in. A request may be
# pending then, and a read waits for the disk where it can. Afterwards the request and the read have ended, with the documented
# result, nobody hangs, and I/O works.

. ./functions.sh
. ./states.sh

# A device that works has taken the read, and works on it for a while. One that needs a reset never will.
start_reader() {
	if [ "$1" = running ]; then
		device_set io_delay_us=300000
		taken=$(device_get counters.requests.taken)
	fi
	dd if="/dev/$DISK" of=/dev/null bs=4k count=1 iflag=direct 2>/tmp/reader &
	READER=$!
	case $1 in
	running) wait_until taken_more_than "$taken" ;;
	needs_reset) wait_until reader_has_ended ;;
	*) wait_until waiting_are 1 ;;
	esac
}

reader_has_ended() {
	! kill -0 "$READER" 2>/dev/null
}

# request_ends RESULT: the pending one, if there is one.
request_ends() {
	[ -n "$REQUEST" ] || return 0
	wait "$REQUEST"
	expect "the pending request" "$(sed 's/.*: //' "/tmp/request$DEVICE")" "$1"
	REQUEST=
}

# reader_ends ok|$EIO
reader_ends() {
	reader_status=0
	wait "$READER" || reader_status=$?
	case $1 in
	ok) expect "the waiting read's status" $reader_status 0 ;;
	*)
		grep -q "$1" /tmp/reader || fail "the waiting read has ended with $reader_status: $(cat /tmp/reader)"
		io_errors_are_expected
		;;
	esac
	READER=
}

# What a waiting read comes to when the driver goes: it is carried out if the device resumes, or runs by itself.
reader_of_a_leaving_driver() {
	case $1 in
	running | stopped) echo ok ;;
	stopping) suspends && echo "$EIO" || echo ok ;;
	resuming | aborting | failed | needs_reset) echo "$EIO" ;;
	esac
}

unplugged() {
	[ ! -e "/sys/bus/virtio/devices/$VDEV" ]
}

# driver_is_bound: it was bound anew, so that the device works whatever it had come to.
driver_is_bound() {
	find_device
	expect "state" "$(state)" running
}

unbind() {
	start_reader "$1"
	echo "$VDEV" >/sys/bus/virtio/drivers/virtio_blk/unbind
	expect "state" "$(state)" unavailable
	expect "reason" "$(cat "$STOP/reason")" no_driver
	request_ends "$ENODEV"
	reader_ends "$(reader_of_a_leaving_driver "$1")"
	device_do behave
	echo "$VDEV" >/sys/bus/virtio/drivers/virtio_blk/bind
	driver_is_bound
}

# With a read that waits, the driver would be in use.
unload_driver() {
	rmmod virtio_blk || fail "virtio_blk can't be unloaded"
	expect "state" "$(state)" unavailable
	request_ends "$ENODEV"
	device_do behave
	driver_is_bound
}

unplug() {
	start_reader "$1"
	echo 1 >"$(pci)/remove"
	wait_until unplugged
	request_ends "$ENODEV"
	reader_ends "$(reader_of_a_leaving_driver "$1")"
	device_do behave
	echo 1 >/sys/bus/pci/rescan
	wait_until disk_is_there stoppable
	driver_is_bound
}

# With a read that waits, the kernel would wait for it first: see test_reset_with_a_waiting_read.
reset() {
	echo 1 >"$(pci)/reset" || fail "the function can't be reset"
	request_ends "$ENODEV"
	wait_until state_is running
	expect "negotiated again" "$(device_get protocol)" "\"$PROTOCOL\""
}

# system_sleeps MODE: as far as that goes in a guest that nothing wakes up. Devices are frozen and restored, with a reset each.
system_sleeps() {
	generation=$(cat "$STOP/generation")
	if [ -e /sys/power/pm_test ]; then
		echo devices >/sys/power/pm_test
		echo 1 >/sys/module/suspend/parameters/pm_test_delay
		expect "sleep" "$(store /sys/power/state "$1")" ok
	elif [ "$1" = disk ]; then
		# For a smaller image than can be had, the kernel takes all memory, so that others write theirs to the swap. There is none
		# here, and a kernel thread that is started meanwhile logs that it has got no stack.
		echo 1000000000000 >/sys/power/image_size
		# There is nowhere to write the image to, when it has been made.
		expect "sleep" "$(store /sys/power/state disk)" "$ENODEV"
	else
		return 0
	fi
	wait_until state_is running
	[ "$(cat "$STOP/generation")" -gt "$generation" ] || fail "the device was not reset"
}

# sleeps STATE MODE: the system does not while the driver above is held, and everything is as before. Else it does.
sleeps() {
	case $1 in
	running | needs_reset) system_sleeps "$2" ;;
	*)
		# Or an aborting device comes to be failed.
		store "$STOP/timeout_ms" 600000 >/dev/null
		start_reader "$1"
		before=$(state)
		expect "sleep" "$(store /sys/power/state "$2")" "$EBUSY"
		expect "state" "$(state)" "$before"
		device_do behave
		request_ends ok
		case $1 in stopping | stopped) resume ;; esac
		wait_until state_is running
		reader_ends ok
		;;
	esac
}

suspend_system() {
	sleeps "$1" freeze
}

hibernate() {
	sleeps "$1" disk
}

unload() {
	case $1 in
	running | stopped | needs_reset)
		start_reader "$1"
		rmmod virtio_device_stop || fail "the module can't be unloaded"
		reader_ends "$(reader_of_a_leaving_driver "$1")"
		[ "$1" = needs_reset ] || expect "the device's view" "$(device_get stop)" '"running"'
		load_module
		;;
	*)
		if rmmod virtio_device_stop 2>/dev/null; then
			fail "the module was unloaded"
		fi
		;;
	esac
}

# another WHAT RESULT: a second agent's request.
another() {
	expect "another $1" "$(store "$STOP/state" "$1")" "$2"
}

another_stop() {
	case $1 in
	running | stopped) another stop ok ;;
	stopping | resuming | failed) another stop "$EBUSY" ;;
	aborting) suspends && another stop "$ETIMEDOUT" || another stop "$EBUSY" ;;
	needs_reset) another stop "$EIO" ;;
	esac
}

another_resume() {
	case $1 in
	running | stopped) another resume ok ;;
	stopping)
		# Nothing calls off a stop under VIRTIO_F_SUSPEND: it is waited for.
		suspends && another resume "$ETIMEDOUT" || another resume ok
		request_ends "$ECANCELED"
		;;
	resuming) another resume "$EBUSY" ;;
	aborting | failed) another resume "$ETIMEDOUT" ;;
	needs_reset) another resume "$EIO" ;;
	esac
}

kill_agent() {
	# Or an aborting device comes to be failed.
	store "$STOP/timeout_ms" 600000 >/dev/null
	start_reader "$1"
	case $1 in
	stopping | resuming)
		kill -9 "$REQUEST"
		wait "$REQUEST"
		REQUEST=
		wait_until state_is_not "$1"
		;;
	esac
	case $1 in
	stopping) suspends && expect "state" "$(state)" aborting || expect "state" "$(state)" running ;;
	resuming) expect "state" "$(state)" failed ;;
	stopped) expect "state" "$(state)" stopped ;;
	esac
	device_do behave
	[ "$1" != stopped ] || resume
	wait_until state_is running
	reader_ends ok
}

state_is_not() {
	[ "$(state)" != "$1" ]
}

signal_agent() {
	before=$(state)
	kill -USR1 "$REQUEST"
	expect "state" "$(state)" "$before"
	device_do behave
	request_ends ok
}

# What the event has left is put right, without a reset if the device needs none.
recover() {
	device_do behave
	case $(state) in
	stopped | stopping) store "$STOP/state" resume >/dev/null ;;
	esac
	if [ "$(cat "$STOP/reason")" = needs_reset ] || [ "$1" = needs_reset ]; then
		echo "$VDEV" >/sys/bus/virtio/drivers/virtio_blk/unbind
		echo "$VDEV" >/sys/bus/virtio/drivers/virtio_blk/bind
		find_device
	fi
	wait_until state_is running
}

# cell EVENT STATE
cell() {
	READER=
	enter "$2"
	"$1" "$2"
	recover "$2"
	[ -z "$REQUEST" ] || wait "$REQUEST"
	wait_until nobody_hangs
	stop
	resume
	io_works
}

test_reset_with_a_waiting_read() {
	stop
	start_reader stopped
	echo 1 >"$(pci)/reset" &
	resetter=$!
	# It waits for the read, and the read for the resume.
	wait_until hangs $resetter
	expect "resume" "$(store "$STOP/state" resume)" ok
	reader_ends ok
	wait $resetter || fail "the function can't be reset"
	wait_until state_is running
	stop
	resume
	io_works
}

tests=
for state in $STATES; do
	for event in unbind unload_driver unplug reset suspend_system hibernate unload another_stop another_resume kill_agent signal_agent; do
		# Whose agent has no request pending can't be disturbed in it.
		case $event/$state in
		signal_agent/stopping | signal_agent/resuming | kill_agent/stopping | kill_agent/resuming | kill_agent/stopped) ;;
		signal_agent/* | kill_agent/*) continue ;;
		esac
		eval "test_${event}_while_$state() { cell $event $state; }"
		tests="$tests test_${event}_while_$state"
	done
done
# shellcheck disable=SC2086 # a word a test
run_tests $tests test_reset_with_a_waiting_read
