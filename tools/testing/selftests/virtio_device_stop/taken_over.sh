# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=busybox
#
# For scripts that wait for another process to take the devices over while these stand still: without starting one of their own. File 3 is
# the control socket of the devices.

# wait_for_takeover NUMBER: the NUMBERth. A request may be lost with the connection: nobody waits for its answer for long.
wait_for_takeover() {
	request=0
	while [ $request -lt 30000 ]; do
		request=$((request + 1))
		echo "{\"v\":1,\"id\":\"exchange-$request\",\"device\":\"disk\",\"get\":\"counters.takeovers\"}" >&3
		while read -r -t 0.01 answer <&3; do
			case $answer in
			*"\"value\":$1}") return ;;
			*"\"exchange-$request\""*) break ;;
			esac
		done
	done
	echo "nobody has taken over: $answer" >&2
	return 1
}
