# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
# shellcheck shell=busybox
#
# usage: overshoot.sh ROUNDS
#
# How long after an acknowledgement the driver looks, as the device sees it: "PROTOCOL WHO MS", microseconds for a stop, and for a
# resume. WHO is module, or how often another driver looks, in microseconds.

cd /selftests/virtio_device_stop || exit 1
echo device_stop >protocol
DEVICE=none
# shellcheck source=tools/testing/selftests/virtio_device_stop/functions.sh
. ./functions.sh

load_module
for DEVICE in device_stop suspend; do
	find_device
	config=$(pci)/config
	store "$STOP/timeout_ms" 60000 >/dev/null
	for ms in 0.1 0.3 1 3 10 30 100 300 1000; do
		device_set "acknowledge=after:$ms" "resume=after:$ms"
		round=0
		while [ $round -lt "$1" ]; do
			for who in module 1000 10000; do
				case $who in
				module) echo stop >"$STOP/state" && echo resume >"$STOP/state" ;;
				*) bench-guest poll $who $DEVICE "$config" ;;
				esac
				echo "overshoot $DEVICE $who $ms $(device_get counters.stops.last_seen_us)" \
					"$(device_get counters.stops.last_resume_seen_us)"
			done
			round=$((round + 1))
		done
	done
done
