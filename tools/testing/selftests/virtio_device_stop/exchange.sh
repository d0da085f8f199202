#!/bin/sh
# shellcheck shell=busybox
# SPDX-License-Identifier: GPL-2.0-only
#
# usage: exchange.sh NUMBER [WHAT]
#
# Asks the host to have another process take the devices over, and waits until one has, for the NUMBERth time.

# shellcheck source=tools/testing/selftests/virtio_device_stop/taken_over.sh
. ./taken_over.sh

exec 3<>/dev/vds/device

echo "exchange the server$2" >/dev/vds/output
wait_for_takeover "$1"
