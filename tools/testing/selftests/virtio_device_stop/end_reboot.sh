#!/bin/sh
# shellcheck shell=busybox
# SPDX-License-Identifier: GPL-2.0-only
#
# The guest reboots, with a device in every state. Its devices are running, stopping and so on.

. ./functions.sh
. ./states.sh

load_module
enter_all
reboot -f
