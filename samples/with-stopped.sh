#!/bin/sh
# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#
# usage: samples/with-stopped.sh DISK COMMAND [ARG]...
#
# Runs COMMAND while DISK (vda, for example) is stopped, and resumes it afterwards, whatever happens. As root, in the guest, with
# virtio_device_stop loaded before the disk's driver. Ends with COMMAND's status, or with 1 if the disk did not stand still for all
# of its time.
#
# A starting point for a migration agent: what COMMAND stands for is "tell the host that it may go ahead, and wait until it has".
# An agent that runs from the very disk that it stops must need nothing of that disk meanwhile: hold all of itself in memory
# (mlockall), load no program and no library, write no log. So keep COMMAND on another disk, or stop another one than the root's.

set -u

usage="usage: with-stopped.sh DISK COMMAND [ARG]..."
disk=${1:?$usage}
shift
: "${1:?$usage}"

device=$(readlink -f "/sys/block/$disk/device")
files=$device/device_stop
if [ ! -e "$files/state" ]; then
	echo "$disk: no device_stop: is virtio_device_stop loaded, and $disk a virtio disk?" >&2
	exit 1
fi
if [ "$(cat "$files/state")" != running ]; then
	echo "$disk is $(cat "$files/state"): $(cat "$files/reason")" >&2
	exit 1
fi

# How long the device may take for what it is working on. Longer than its slowest request.
echo 5000 >"$files/timeout_ms"

# The write returns when the device has acknowledged the stop: everything that it had taken is finished by then. It fails, with
# the disk running again, if the device does not answer in time.
trap 'echo resume >"$files/state"' EXIT
trap 'exit 1' HUP INT TERM
echo stop >"$files/state" || exit 1
generation=$(cat "$files/generation")

"$@"
status=$?

# A stop ends without being asked to when the device drops it, or when its lease is over: after a minute. The generation tells.
if [ "$(cat "$files/generation")" != "$generation" ]; then
	echo "$disk did not stand still all the time: $(cat "$files/reason")" >&2
	status=1
fi
trap - EXIT
echo resume >"$files/state" || status=1
exit "$status"
