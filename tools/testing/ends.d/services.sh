# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
# shellcheck shell=bash disable=SC2016,SC2154 # the guest's variables; shared with tools/testing/ends
#
# What stands still with a device: what the services of a distribution notice of stops of 0.1 to 70 seconds.

end_services() {
	local packages=("$top"/build/packages/virtio-{stop_,device-stop-modules-}*.deb) spec specs=() number seconds
	check "a guest has the packages" "$top/tools/vm/debian" --with "${packages[@]}" --disk "$devices/installed"
	[ -s "$devices/installed" ] || return
	for spec in blk,name=root blk,name=leg0 blk,name=leg1 blk,name=lvm scsi,name=unit; do
		specs+=("$spec,protocol=$protocol")
	done
	for number in 0 1 2 3 4; do
		specs+=("net,name=nic$number,protocol=$protocol,mac=02:00:00:00:02:0$number")
	done
	start_debian "$devices/installed" "${specs[@]}"
	check "Debian boots from the disk" debian_is_up
	check "services stand on the devices" prepare_services
	for seconds in 0.1 2 10 70; do
		check "all stand still for $seconds s" stand_for "$seconds"
	done
	sed 's/^/# # /' "$devices/noticed"
	check "no service has failed, nothing is lost" nothing_is_lost
	check "no driver has broken a rule" no_breach
	check "the kernel has not complained" debian_is_sound
	check "the guest ends" end_debian
}

prepare_services() {
	put_into_debian "$top/tools/testing/debian.d/services" /run/services && in_debian 'sh /run/services prepare'
}

# stand_for SECONDS: what it prints goes to "noticed".
stand_for() {
	ask_agent --timeout 400 run -- /bin/sh /run/services "$1" >"$devices/stood" || { cat "$devices/stood" && return 1; }
	sed "s/^/$1 /" "$devices/stood" >>"$devices/noticed"
}

nothing_is_lost() {
	[ "$(wc -l <"$devices/noticed")" -ge 48 ] && ! grep -vE ' (journald-restarted no|journald-messages-lost 0|hung-tasks(-root)? 0|md-degraded 0|lvm-snapshot-taken yes|multipath-failed-paths [0-9]+|tcp-lines-echoed 3|ip-monitor-lines 0|networkd-state routable|bond-(miimon|arp)-failures [0-9]+|failed-units 0)$' \
		"$devices/noticed"
}
