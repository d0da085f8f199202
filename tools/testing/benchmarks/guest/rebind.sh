# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
# shellcheck shell=busybox
#
# usage: rebind.sh ROUNDS
#
# "PROTOCOL", what a stop and a resume take, and an unbind and a bind of the driver, in turn, in microseconds.

cd /selftests/virtio_device_stop || exit 1
echo device_stop >protocol
DEVICE=none
# shellcheck source=tools/testing/selftests/virtio_device_stop/functions.sh
. ./functions.sh

load_module
for DEVICE in device_stop suspend; do
	find_device
	round=0
	while [ $round -lt "$1" ]; do
		ours=$(at_once 200 "$STOP/state" stop "$STOP/state" resume)
		theirs=$(at_once 5 /sys/bus/virtio/drivers/virtio_blk/unbind "$VDEV" /sys/bus/virtio/drivers/virtio_blk/bind "$VDEV")
		echo "rebind $DEVICE $ours $theirs"
		round=$((round + 1))
	done
done
