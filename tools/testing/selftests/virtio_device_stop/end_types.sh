#!/bin/sh
# shellcheck shell=busybox
# SPDX-License-Identifier: GPL-2.0-only
#
# usage: end_types.sh TYPE:MODULE:VERDICT...
#
# Devices of many types, each with the driver that the kernel has for it: stopped, or not, as the table says that is documented (yes,
# force or never). The devices are called "typeTYPE".

. ./functions.sh

refused() {
	expect "state" "$(state)" unavailable
	expect "reason" "$(cat "$STOP/reason")" type_refused
	expect "stop" "$(store "$STOP/state" stop)" "$EOPNOTSUPP"
}

driver_is_bound() {
	[ -e "/sys/bus/virtio/devices/$VDEV/driver" ]
}

# try_type TYPE MODULE VERDICT
try_type() {
	DEVICE=type$1
	modprobe "$2" || fail "no $2"
	find_type "$1"
	wait_until driver_is_bound
	driver=$(readlink -f "/sys/bus/virtio/devices/$VDEV/driver")
	# It may be part of the kernel, and have been there first.
	case $(cat "$STOP/reason") in
	bound_before)
		echo "$VDEV" >"$driver/unbind"
		echo "$VDEV" >"$driver/bind"
		;;
	esac
	# What it does to be bound is its own affair: virtio_can notifies the device before it may.
	device_do forget-breaches
	case $3 in
	never)
		expect "the device's view" "$(device_get protocol)" '"none"'
		refused
		store "$STOP/force" 1 >/dev/null
		refused
		;;
	force)
		expect "the device's view" "$(device_get protocol)" "\"$PROTOCOL\""
		refused
		store "$STOP/force" 1 >/dev/null
		stop
		resume
		store "$STOP/force" 0 >/dev/null
		refused
		;;
	yes)
		expect "the device's view" "$(device_get protocol)" "\"$PROTOCOL\""
		stop
		resume
		;;
	*) fail "the table says nothing of type $1" ;;
	esac
	driver_is_bound || fail "the driver has left"
	device_get status | grep -qx 15 || fail "the device's status is $(device_get status)"
	expect "breaches" "$(device_get breach_count)" 0
	dmesg_is_clean
}

load_module
for type; do
	number=${type%%:*}
	verdict=${type##*:}
	module=${type#*:}
	if (try_type "$number" "${module%:*}" "$verdict"); then
		echo "ok type_$number"
	else
		echo "not ok type_$number"
	fi
done
