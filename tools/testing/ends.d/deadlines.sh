# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
# shellcheck shell=bash disable=SC2016,SC2154 # the guest's variables; shared with tools/testing/ends
#
# Five minutes, after which many clients of agents give up: neither a thaw nor the line that ends a stop has come by then.

end_agent_five_minutes() {
	local minutes=5
	start_agents
	# It would complain of those who wait for their disk. The guide says so.
	check "the kernel does not watch tasks that wait" in_debian 'echo 0 >/proc/sys/kernel/hung_task_timeout_secs'
	configure 'FROZEN=/ /srv' "HOLD_MS=$((minutes * 60000))"
	listen_at_port
	begin_in_debian /bin/sh -c "exec virtio-stop run --freeze --until-input \
		--max-time $((minutes * 60000)) /dev/disk/by-id/virtio-raw <>/dev/virtio-ports/org.virtio_device_stop.0 >&0"
	check "a program stops a disk, and tells it at the port" wait_until 60 port_says '"event":"stopped"'
	check "a freeze succeeds" ask_agent freeze
	check "what is frozen stops" all stand root data raw
	# A freeze may take a while.
	check "all stand still for most of their time" last $((minutes * 40)) all stand root data raw
	check "nobody has said anything since" port_says_no '"event":"resumed"'
	check "the agent answers" agent_answers frozen
	check "the program ends by itself" wait_until 180 port_says '"event":"resumed".*"still":true.*"exit":9'
	check "so does the hook's" wait_until 180 all run root data raw
	check "each has stopped once" stopped_once root data raw
	check "all is frozen still" agent_answers frozen
	check "the late thaw waits for nothing" ask_agent thaw
	# It had to wait for the frozen file system for longer than its watchdog lets it.
	check "systemd has started another journald" wait_until 120 in_debian \
		'systemctl show --property NRestarts --value systemd-journald | grep -vx 0'
	check "all run at the end" all run root data raw
	finish_agents
}

# listen_at_port: what comes there is in $devices/said, until the test ends.
listen_at_port() {
	"$top/tools/vm/enter" -- python3 -c '
import socket, sys
port = socket.socket(socket.AF_UNIX)
port.connect(sys.argv[1])
for line in port.makefile():
    print(line, end="", flush=True)' "$devices/port" >"$devices/said" 2>>"$devices/errors" &
	servers+=($!)
}

port_says() {
	grep -q "$1" "$devices/said"
}

port_says_no() {
	! port_says "$1"
}

# last SECONDS COMMAND...: whether it succeeds again and again for so long.
last() {
	local until=$((SECONDS + $1))
	shift
	while [ "$SECONDS" -lt "$until" ]; do
		"$@" || return
		sleep 1
	done
}

stopped_once() {
	local name
	for name; do
		stops_are "$name" 1 || return
	done
}
