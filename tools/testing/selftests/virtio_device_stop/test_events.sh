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
	device_set resume=after:300
	store "$STOP/state" stop >/dev/null
	wait_until last_is /tmp/polled resuming
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

# marked MARK: an event of our own has come, and with it all those from before.
marked() {
	echo "change 00000000-0000-4000-8000-000000000000 MARK=$1" >"/sys/bus/virtio/devices/$VDEV/uevent"
	grep -q "^mark $1" /tmp/uevents
}

# events: what has been told of the device so far, in a line.
events() {
	wait_until marked "$1"
	sed -n 's/^stop //p' /tmp/uevents | xargs
}

# uevents_of COMMAND...: collects the events of the device while COMMAND runs.
uevents_of() {
	: >/tmp/uevents
	# shellcheck disable=SC2016 # the listener's
	uevent sh -c 'case $DEVPATH in
		*/'"$VDEV"') [ -z "$SYNTH_ARG_MARK" ] || echo "mark $SYNTH_ARG_MARK"; [ -z "$DEVICE_STOP" ] || echo "stop $DEVICE_STOP" ;;
		esac' >/tmp/uevents 2>&1 &
	listener=$!
	wait_until marked begin
	"$@"
	kill $listener
}

stop_tells() {
	stop
	expect "events while stopped" "$(events stopped)" "stopping"
	resume
	expect "events" "$(events resumed)" "stopping running"
	stop
	device_do needs-reset
	expect "state" "$(state)" failed
	expect "events" "$(events failed)" "stopping running stopping failed"
	device_do behave
	echo "$VDEV" >/sys/bus/virtio/drivers/virtio_blk/unbind
	echo "$VDEV" >/sys/bus/virtio/drivers/virtio_blk/bind
	stop
	echo "$VDEV" >/sys/bus/virtio/drivers/virtio_blk/unbind
	expect "events" "$(events unbound)" "stopping running stopping failed stopping running"
	echo "$VDEV" >/sys/bus/virtio/drivers/virtio_blk/bind
}

test_uevents_tell_before_and_after_but_never_while_stopped() {
	uevents_of stop_tells
}

run_tests test_poll_tells_of_every_change test_poll_tells_of_a_stopping_device \
	test_uevents_tell_before_and_after_but_never_while_stopped
