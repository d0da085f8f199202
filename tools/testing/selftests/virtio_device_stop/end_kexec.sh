#!/bin/sh
# shellcheck shell=busybox
# SPDX-License-Identifier: GPL-2.0-only
#
# Another kernel takes over, /vmlinuz with /second.cpio, with a device in every state. Its devices are running, stopping and so on.

. ./functions.sh
. ./states.sh

load_module
kexec -c -l /vmlinuz --initrd=/second.cpio --append="console=ttyS0 panic=-1 mitigations=off" || exit 1
enter_all
kexec -e
