#!/bin/sh
# shellcheck shell=busybox
# SPDX-License-Identifier: GPL-2.0-only
#
# Whoever waits is told: by poll(2) of every change of the state, by an uevent of what begins and ends.

. ./functions.sh

# last_is FILE LINE
last_is() {
	[ "$(tail -n 1 "$1")" = "$2" ]
}

test_poll_tells_of_every_change() {
	./poll_file "$STOP/state" >/tmp/polled &
	poller=$!
	wait_until last_is /tmp/polled running
	store "$STOP/state" stop >/dev/null
	wait_until last_is /tmp/polled stopped
	store "$STOP/state" resume >/dev/null
	wait_until last_is /tmp/polled running
	# What nobody has asked for, too.
	store "$STOP/lease_ms" 1 >/dev/null
	store "$STOP/timeout_ms" 600000 >/dev/null
	device_never_resumes
	store "$STOP/state" stop >/dev/null
	wait_until last_is /tmp/polled resuming
	device_set resume=at-once
	wait_until last_is /tmp/polled running
	echo "$VDEV" >/sys/bus/virtio/drivers/virtio_blk/unbind
	wait_until last_is /tmp/polled unavailable
	echo "$VDEV" >/sys/bus/virtio/drivers/virtio_blk/bind
	wait_until last_is /tmp/polled running
	kill $poller
}

test_poll_tells_of_a_stopping_device() {
	device_set acknowledge=never
	store "$STOP/timeout_ms" 600000 >/dev/null
	./poll_file "$STOP/state" >/tmp/polled &
	poller=$!
	wait_until last_is /tmp/polled running
	store "$STOP/state" stop >/tmp/stopper &
	stopper=$!
	wait_until last_is /tmp/polled stopping
	device_set acknowledge=at-once
	wait_until last_is /tmp/polled stopped
	wait $stopper
	expect "stop" "$(cat /tmp/stopper)" ok
	kill $poller
	resume
}

# Nobody is in the machine meanwhile whom somebody has sent.
test_poll_tells_of_a_reset() {
	./poll_file "$STOP/state" >/tmp/polled &
	poller=$!
	wait_until last_is /tmp/polled running
	echo 1 >"$(pci)/reset" || fail "the function can't be reset"
	wait_until states_were "running unavailable running"
	kill $poller
}

# states_were STATES: one after the other; whoever polls may be told of one twice.
states_were() {
	[ "$(uniq /tmp/polled | xargs)" = "$1" ]
}

stop_tells() {
	stop
	told "stopping" stopped
	resume
	told "stopping running" resumed
	stop
	device_do needs-reset
	expect "state" "$(state)" failed
	told "stopping running stopping failed" failed
	device_do behave
	echo "$VDEV" >/sys/bus/virtio/drivers/virtio_blk/unbind
	echo "$VDEV" >/sys/bus/virtio/drivers/virtio_blk/bind
	stop
	echo "$VDEV" >/sys/bus/virtio/drivers/virtio_blk/unbind
	told "stopping running stopping failed stopping unavailable" unbound
	echo "$VDEV" >/sys/bus/virtio/drivers/virtio_blk/bind
}

test_uevents_tell_before_and_after_but_never_while_stopped() {
	uevents_of stop_tells
}

run_tests test_poll_tells_of_every_change test_poll_tells_of_a_stopping_device test_poll_tells_of_a_reset \
	test_uevents_tell_before_and_after_but_never_while_stopped
