#!/bin/sh
# shellcheck shell=busybox
# SPDX-License-Identifier: GPL-2.0-only
#
# In a guest with keep_data.ko: prints what the module has counted each time that it was loaded, and what is known of the counters. A
# line each, packed. How long both are, is in the file sizes.

module=/sys/module/virtio_device_stop
kept=/sys/kernel/debug/keep_data
read -r counters_size data_size </counters/sizes

# low ADDRESS: its lower half. The shell can't calculate with the whole, and modules have all in the same upper one.
low() {
	echo $((0x${1#0x????????}))
}

# of FILE ADDRESS SIZE: this part of what was kept.
of() {
	tail -c +$(($2 - $(low "${1##*-}") + 1)) "$1" | head -c "$3" | gzip | base64 | tr -d '\n'
}

[ -d $module ] || insmod /vds/modules/virtio_device_stop.ko
counters=$(low "$(cat $module/sections/__llvm_prf_cnts)")
data=$(low "$(cat $module/sections/__llvm_prf_data)")
# After a stop that was called off and never acknowledged the module can't be unloaded until another one has ended. What has been counted
# since it was loaded would be missing.
rmmod virtio_device_stop 2>/dev/null || {
	for state in /sys/bus/virtio/devices/*/device_stop/state; do
		echo stop >"$state"
		echo resume >"$state"
	done 2>/dev/null
	rmmod virtio_device_stop || exit 1
}
for file in "$kept"/*; do
	echo "counters $(of "$file" "$counters" "$counters_size")"
done
echo "data $((counters - data)) $(of "$file" "$data" "$data_size")"
