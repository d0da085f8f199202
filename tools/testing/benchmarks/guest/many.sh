# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
# shellcheck shell=busybox
#
# usage: many.sh ROUNDS COUNT...
#
# "alone COUNT ROUND" and "all COUNT ROUND": microseconds of a stop and a resume of one of the first COUNT devices, and of all at once.

insmod /vds/modules/virtio_device_stop.ko
modprobe -a virtio_blk virtio_net virtio_rng
rounds=$1
shift
for count; do
	files=
	some=0
	for file in /sys/bus/virtio/devices/*/device_stop/state; do
		[ $some -lt "$count" ] || break
		files="$files $file"
		some=$((some + 1))
		echo 60000 >"${file%state}timeout_ms"
	done
	round=0
	while [ $round -lt "$rounds" ]; do
		all=
		for file in $files; do
			echo "alone $count $round $(at_once 1 "$file" stop "$file" resume)"
			all="$all $file stop $file resume"
		done
		# shellcheck disable=SC2086 # a word an argument
		echo "all $count $round $(at_once 1 $all)"
		round=$((round + 1))
	done
done
