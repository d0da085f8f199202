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
	specs+=("net,name=long,dhcp=100,protocol=$protocol,mac=02:00:00:00:02:05")
	specs+=("net,name=short,dhcp=30,protocol=$protocol,mac=02:00:00:00:02:06")
	start_debian "$devices/installed" "${specs[@]}"
	check "Debian boots from the disk" debian_is_up
	check "services stand on the devices" prepare_services
	offered=$(value long of_type.peer.dhcp_offered)
	for seconds in 0.1 2 10 70; do
		check "all stand still for $seconds s" stand_for "$seconds"
	done
	sed 's/^/# # /' "$devices/noticed"
	check "they have noticed what is documented" notice_what_is_known
	check "a lease that is longer than a stop is renewed, and nothing else" leases_are_kept
	check "no driver has broken a rule" no_breach
	check "the kernel has complained of nothing else" debian_is_sound_but_slow
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

# See src/Documentation/operators.md. 20 lines for each stop, and one about a renewal in the longest.
notice_what_is_known() {
	local always='journald-restarted no|journald-messages-lost 0|md-degraded 0|lvm-snapshot-taken yes'
	local short='hung-tasks(-root)? 0 |lease-30-address kept|lease-30-ip-monitor-lines 0'
	local long='hung-tasks(-root)? [1-9][0-9]* .+|lease-100-renewed yes|lease-30-address lost|lease-30-ip-monitor-lines [1-9][0-9]*'
	local tenth='bond-arp-failures [0-9]+' more='bond-arp-failures [1-9][0-9]*'
	short+='|multipath-failed-paths 0'
	long+='|multipath-failed-paths [1-9][0-9]*'
	always+='|tcp-lines-echoed 3|ip-monitor-lines 0|networkd-state routable .configured.|bond-miimon-failures 0|failed-units 0'
	always+='|lease-100-address kept|lease-100-ip-monitor-lines 0|lease-(30|100)-state routable .configured.|lease-30-renewed yes'
	[ "$(wc -l <"$devices/noticed")" -eq 81 ] && ! grep -vE "^([0-9.]+ ($always)|(0\.1|2|10) ($short)|70 ($long)|0\.1 ($tenth)|(2|10|70) ($more))\$" "$devices/noticed"
}

# The server has not been looked for again, but by who has lost its lease.
leases_are_kept() {
	local name
	for name in long short; do
		value_is "$name" of_type.peer.dhcp_refused 0 && [ "$(value "$name" of_type.peer.dhcp_granted)" -ge 6 ] || return
	done
	value_is long of_type.peer.dhcp_offered "$offered" && [ "$(value short of_type.peer.dhcp_offered)" -ge 2 ]
}

# The kernel was asked to complain of tasks that wait for long.
debian_is_sound_but_slow() {
	awk '/INFO: task .* is blocked on/ { next }
		/INFO: task .* blocked .*for more than/ { inside = 1; next }
		inside && !/BUG:|WARNING:|Oops|Kernel panic|lockup|general protection/ { if (/<\/TASK>/) inside = 0; next }
		{ print }
		END { if (inside) print "INFO: task: a report has no end" }' "$devices/console" >"$devices/console.else"
	debian_is_sound "$devices/console.else"
}
