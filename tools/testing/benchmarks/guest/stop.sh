# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
# shellcheck shell=busybox
#
# usage: stop.sh CYCLES
#
# Stops and resumes each device that can be stopped: "write PROTOCOL TYPE" and a line of bench-guest cycle; "accesses PROTOCOL TYPE" and
# how many accesses to the status a stop and a resume have taken.

cd /selftests/virtio_device_stop || exit 1
echo device_stop >protocol
DEVICE=none
# shellcheck source=tools/testing/selftests/virtio_device_stop/functions.sh
. ./functions.sh

accesses() {
	echo $(($(device_get counters.status_reads) + $(device_get counters.status_writes)))
}

load_module
modprobe -a virtio_blk virtio_scsi sd_mod virtio_net
for nic in /sys/class/net/*; do
	[ ! -e "$nic/device" ] || ip link set "${nic##*/}" up
done
for vdev in /sys/bus/virtio/devices/*; do
	STOP=$vdev/device_stop
	read -r protocol <"$STOP/protocol"
	case $(cat "$vdev/device") in
	0x0001) type=net ;;
	0x0002) type=blk ;;
	0x0008) type=scsi ;;
	esac
	DEVICE=$type-$protocol
	wait_until state_is running
	before=$(accesses)
	echo stop >"$STOP/state"
	between=$(accesses)
	echo resume >"$STOP/state"
	echo "accesses $protocol $type $((between - before)) $(($(accesses) - between))"
	bench-guest cycle "$1" "$STOP" | sed "s/^/write $protocol $type /"
done
