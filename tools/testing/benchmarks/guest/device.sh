# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
# shellcheck shell=busybox
#
# usage: device.sh ROUNDS
#
# "ours PATTERN DEPTH ROUND" and "qemus PATTERN DEPTH ROUND": requests of 4 KiB a second, on the disks with these serial numbers.

modprobe virtio_blk
for disk in /sys/block/vd*; do
	case $(cat "$disk/serial") in
	ours) ours=/dev/${disk##*/} ;;
	qemus) qemus=/dev/${disk##*/} ;;
	esac
done

# measure DISK PATTERN DEPTH FIELD
measure() {
	fio --name=x --filename="$1" --rw="$2" --bs=4k --iodepth="$3" --ioengine=libaio --direct=1 --time_based --runtime=2 \
		--output-format=terse --terse-version=3 | cut -d ';' -f "$4"
}

round=0
while [ $round -lt "$1" ]; do
	for depth in 1 32; do
		echo "ours randread $depth $round $(measure "$ours" randread $depth 8)"
		echo "qemus randread $depth $round $(measure "$qemus" randread $depth 8)"
		echo "ours randwrite $depth $round $(measure "$ours" randwrite $depth 49)"
		echo "qemus randwrite $depth $round $(measure "$qemus" randwrite $depth 49)"
	done
	round=$((round + 1))
done
