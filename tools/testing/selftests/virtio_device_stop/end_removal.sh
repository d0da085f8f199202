#!/bin/sh
# shellcheck shell=busybox
# SPDX-License-Identifier: GPL-2.0-only
#
# The devices' server is killed, with a device in every state: they read ones from then on. Its devices are running, stopping and
# so on. Whoever has the output of this kills the server when it says so.

. ./functions.sh
. ./states.sh

# gone NAME REQUEST_RESULT: the device of that name is known to be gone, and what was pending has ended.
gone() {
	use_device "$1"
	wait_until state_is unavailable
	expect "reason" "$(cat "$STOP/reason")" gone
	[ -z "$2" ] || wait_until request_has_ended "$1" "$2"
	expect "stop" "$(store "$STOP/state" stop)" "$ENODEV"
	expect "resume" "$(store "$STOP/state" resume)" "$ENODEV"
}

request_has_ended() {
	[ "$(sed 's/.*: //' "/tmp/request$1")" = "$2" ]
}

# Nobody has looked at it yet.
test_running() {
	use_device running
	expect "stop" "$(store "$STOP/state" stop)" "$ENODEV"
	gone running ""
}

test_stopping() {
	gone stopping "$ENODEV"
}

test_stopped() {
	gone stopped ""
	wait_until grep -q "$EIO" /tmp/reader
}

test_resuming() {
	gone resuming "$ENODEV"
}

test_aborting() {
	gone aborting ""
}

test_failed() {
	gone failed ""
}

# It can't be used any more than before.
test_needs_reset() {
	use_device needs_reset
	expect "stop" "$(store "$STOP/state" stop)" "$EIO"
	expect "state" "$(state)" failed
}

test_nobody_hangs() {
	wait_until nobody_hangs
	! trouble 'I/O error' || fail "the log has more than I/O errors"
}

load_module
enter_all
echo "kill the server"
for test in $STATES nobody_hangs; do
	if ("test_$test"); then echo "ok $test"; else echo "not ok $test"; fi
done
# Virtio's core waits without a time limit for the reset of a device that is gone: the guest could not be shut down. All that was
# written is on the line when stty returns.
echo 0 >/dev/vds/status
stty -F /dev/vds/status raw -echo
stty -F /dev/vds/output raw -echo
echo b >/proc/sysrq-trigger
