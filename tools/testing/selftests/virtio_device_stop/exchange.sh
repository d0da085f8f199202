#!/bin/sh
# shellcheck shell=busybox
# SPDX-License-Identifier: GPL-2.0-only
#
# usage: exchange.sh NUMBER [WHAT]
#
# Asks the host to have another process take the devices over, and waits until one has, for the NUMBERth time. Quickly: they are stopped.

exec 3<>/dev/vds/device

echo "exchange the server$2" >/dev/vds/output
request=0
# The request may be lost with the connection: nobody waits for its answer for long.
while [ $request -lt 3000 ]; do
	request=$((request + 1))
	echo "{\"v\":1,\"id\":\"exchange-$request\",\"device\":\"disk\",\"get\":\"counters.takeovers\"}" >&3
	while read -r -t 0.1 answer <&3; do
		case $answer in
		*"\"value\":$1}") exit ;;
		*"\"exchange-$request\""*) break ;;
		esac
	done
done
echo "nobody has taken over: $answer" >&2
exit 1
