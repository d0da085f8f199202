# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
# shellcheck shell=bash disable=SC2016,SC2034,SC2154 # what is quoted is the guest's; shared with tools/testing/ends
#
# Agents that people run stop devices of a Debian guest, by what samples/ has for them: among them the disk that all of it lies on.

# shellcheck source=tools/testing/debian.sh
. "$top/tools/testing/debian.sh"

# start_agents: a guest with all of samples/qemu-guest-agent and samples/systemd installed. Of its disks, "root" and "data" have file
# systems, to the latter of which somebody writes all the time; "raw" has none.
start_agents() {
	local spec
	gather_samples
	"$top/tools/vm/enter" -- mke2fs -q -t ext4 -d "$devices/samples-files" "$devices/samples" 64M
	"$top/tools/vm/enter" -- mke2fs -q -t ext4 "$devices/data" 64M
	cp --sparse=always "$("$top/tools/vm/debian")/disk" "$devices/root"
	debian_devices=()
	for spec in blk,name=root blk,name=data blk,name=raw blk,name=samples net,name=nic,mac=02:00:00:00:01:01; do
		debian_devices+=("$spec,protocol=$protocol")
	done
	start_devices "${debian_devices[@]}"
	# What while-stopped wants, but for the agent's port, which is there.
	local debian_options=(
		-chardev "socket,id=stop,path=$devices/port,server=on,wait=off"
		-device "virtserialport,chardev=stop,name=org.virtio_device_stop.0"
	)
	boot_debian
	check "the guest is up" debian_is_up
	check "the samples are installed" in_debian "mount -o ro /dev/disk/by-id/virtio-samples /mnt; $install_samples"
	check "the devices can be stopped from now on" in_debian "$begin"
	check "the agent runs hooks from now on" restart_agent
	check "systemd finds nothing wrong with the units" in_debian \
		'told=$(systemd-analyze verify /etc/systemd/system/virtio-stop*.service 2>&1); [ -z "$told" ] || { echo "$told"; exit 1; }'
}

# The folder $devices/samples-files, with what install_samples wants in /mnt.
gather_samples() {
	local samples=$top/samples
	mkdir "$devices/samples-files"
	cp "$top/build/bin/virtio-stop" "$module" "$samples"/qemu-guest-agent/* "$samples"/systemd/* "$devices/samples-files/"
}

install_samples='
install /mnt/virtio-stop /usr/bin/
install -d /etc/qemu/fsfreeze-hook.d
install /mnt/fsfreeze-hook /etc/qemu/fsfreeze-hook.d/virtio-stop
install -m 644 /mnt/qemu-ga.conf /etc/qemu/
install -m 644 /mnt/virtio-stop.conf /etc/
install -m 644 /mnt/*.service /etc/systemd/system/
systemctl daemon-reload
insmod /mnt/virtio_device_stop.ko'

begin='
for disk in root data raw; do
	disk=$(basename "$(readlink -f "/dev/disk/by-id/virtio-$disk")")
	echo 1 >"/sys/block/$disk/device/device_stop/renegotiate"
done
nic=$(basename "$(readlink -f /sys/class/net/e*/device)")
echo "$nic" >/sys/bus/virtio/drivers/virtio_net/unbind
echo "$nic" >/sys/bus/virtio/drivers/virtio_net/bind
mount /dev/disk/by-id/virtio-data /srv
cat >/run/writes <<"END"
while :; do
	head -c 65536 /dev/urandom >/srv/new
	sync /srv/new
	mv /srv/new /srv/old
done
END
systemd-run --quiet --unit=writes sh /run/writes'

# The agent reads its configuration when it starts. It can't tell how its own restart has ended.
restart_agent() {
	local before
	before=$(in_debian 'pidof qemu-ga') || return
	begin_in_debian /bin/systemctl restart qemu-guest-agent
	wait_until 120 another_agent "$before"
}

# another_agent PID
another_agent() {
	local now
	now=$(ask_agent --timeout 5 run -- /bin/pidof qemu-ga 2>"$devices/answer") && [ -n "$1" ] && [ "$now" != "$1" ]
}

# configure NAME=VALUE...: what the hook and its unit read.
configure() {
	in_debian 'for pair; do sed -i "s,^${pair%%=*}=.*,${pair%%=*}=\"${pair#*=}\"," /etc/virtio-stop.conf; done' "$@"
}

# stands NAME: the device has acknowledged a stop, and was not resumed.
stands() {
	[ "$(value "$1" counters.stops.acknowledged)" = $(($(value "$1" counters.stops.resumed) + 1)) ]
}

# all STATE NAME...: each of them comes to that: `stand`, or `run`.
all() {
	local name
	for name in "${@:2}"; do
		case $1 in
		stand) wait_until 60 stands "$name" || return ;;
		run) wait_until 60 runs "$name" || return ;;
		esac
	done
}

runs() {
	[ "$(value "$1" counters.stops.acknowledged)" = "$(value "$1" counters.stops.resumed)" ]
}

# stops_are NAME NUMBER: so often it has stopped until now.
stops_are() {
	value_is "$1" counters.stops.acknowledged "$2"
}

# data_is_whole: what is on that disk now is a file system that was left in order, and nobody writes to it.
data_is_whole() {
	cp --sparse=always "$devices/data" "$devices/copy"
	is_whole "$devices/copy" && cmp "$devices/data" "$devices/copy"
}

agent_answers() {
	ask_agent ping && [ "$(ask_agent status)" = "$1" ]
}

# ask_agent_refuses COMMAND...
agent_refuses() {
	! ask_agent "$@" 2>"$devices/answer" && grep -q 'has been disabled' "$devices/answer"
}

# once_stopped PROGRAM: kills it in the guest a little after the disk "data" has stopped, when others have been told of that. Who does that
# runs already, and what it takes is in memory: the disk that it would be read from may have stopped, too.
once_stopped() {
	in_debian 'state=/sys/block/$(basename "$(readlink -f /dev/disk/by-id/virtio-data)")/device/device_stop/state
		rm -f /run/once.ready
		echo "pidof $1; sleep 0; : >/run/once.ready; until read -r state <$state && [ \"\$state\" = stopped ]; do :; done; sleep 5; kill -9 \$(pidof $1)" >/run/once
		systemd-run --quiet sh /run/once
		tries=0; until [ -e /run/once.ready ]; do [ $tries -lt 600 ] && tries=$((tries + 1)) && sleep 0.1 || exit; done' "$1" \
		>"$devices/answer"
}

# helper_says PATTERN: in its journal, which it may reach a little later.
helper_says() {
	in_debian 'journalctl -u "virtio-stop-frozen@*" | grep "$1"' "$1"
}

# print_what_helper_says PATTERN: on the console, once it does. While something is frozen, nobody can ask the agent for that.
print_what_helper_says() {
	in_debian 'echo "tries=0; until journalctl -u \"virtio-stop-frozen@*\" | grep \"$1\" >/dev/console; do
		[ \$tries -lt 600 ] && tries=\$((tries + 1)) && sleep 0.1 || exit; done" >/run/print
		systemd-run --quiet sh /run/print' "$1"
}

finish_agents() {
	check "somebody has written all the time" in_debian 'systemctl --quiet is-active writes && [ -s /srv/old ]'
	check "the kernel has not complained" debian_is_sound
	check "no driver has broken a rule" no_breach
	check "the guest ends" end_debian
}

# --- guest-exec

# while_stopped DEVICE... -- COMMAND...
while_stopped() {
	"$top/tools/vm/enter" -- "$top/samples/qemu-guest-agent/while-stopped" "$devices/agent" "$devices/port" "$@" 2>"$devices/answer"
}

answer_has() {
	grep -q "$1" "$devices/answer" || { cat "$devices/answer" && false; }
}

end_agent_exec() {
	local agent
	start_agents
	check "the host copies while the disks stand still" while_stopped / /srv -- \
		sh -c 'cp --sparse=always "$1/data" "$1/copy" && cmp "$1/data" "$1/copy"' _ "$devices"
	check "what it has copied is whole" is_whole "$devices/copy"
	check "they run again" all run root data
	check "each has stopped once" stops_are data 1
	status=0
	while_stopped /srv -- sh -c 'exit 3' || status=$?
	check "what the command ends with is told" status_is 3
	status=0
	while_stopped nonsense -- true || status=$?
	check "nothing runs if nothing stops" status_is 1
	check "why is told" answer_has 'nonsense: no such device'
	agent=$(in_debian 'pidof qemu-ga')
	resumed=$(value data counters.stops.resumed)
	rm -f "$devices/seen"
	check "the agent will be killed" once_stopped qemu-ga
	status=0
	# shellcheck disable=SC2016 # the inner shell's
	while_stopped / /srv -- sh -c 'tries=0; until "$1" get "$2" data counters.stops.resumed | grep -qx "$3"; do
		tries=$((tries + 1)); [ $tries -lt 600 ] || exit; sleep 0.1; done; : >"$4"' \
		_ "$top/build/bin/vfio-user-virtio" "$devices/control" $((resumed + 1)) "$devices/seen" || status=$?
	check "when the agent dies, the disks do not wait for the command's end" test -e "$devices/seen"
	check "the death of the agent is told" status_is 1
	check "it is not taken for anything else" answer_has 'did not stand still\|the agent says'
	check "whatever becomes of the agent, the disks run again" all run root data
	check "another agent is there: that one has died" wait_until 240 another_agent "$agent"
	check "a unit stops for whoever is connected to the port" unit_stops_for_the_port
	check "when he has gone, it resumes" all run root data
	check "a unit runs a program meanwhile" in_debian 'printf "#!/bin/sh\ncat /sys/block/*/device/device_stop/state >/run/states\n" \
		>/usr/local/sbin/snapshot; chmod +x /usr/local/sbin/snapshot
		systemctl start "$(systemd-escape --template=virtio-stop-backup@.service /srv)"; grep -x stopped /run/states'
	finish_agents
}

# The host connects to the port, has the unit started, reads a line, and disconnects.
unit_stops_for_the_port() {
	"$top/tools/vm/enter" -- python3 -c '
import socket, subprocess, sys
port = socket.socket(socket.AF_UNIX)
port.connect(sys.argv[1])
port.settimeout(120)
subprocess.run(sys.argv[2:], check=True)
line = port.makefile().readline()
assert "\"event\":\"stopped\"" in line, line' "$devices/port" "$top/build/bin/guest-agent" "$devices/agent" run -- \
		/bin/sh -c 'systemctl start "$(systemd-escape --template=virtio-stop@.service /srv)"'
}

# --- the hook, for devices without file systems

end_agent_hook() {
	start_agents
	configure "FREE=$(in_debian 'echo /dev/disk/by-id/virtio-raw $(basename /sys/class/net/e*) /srv')"
	check "a freeze succeeds" ask_agent freeze
	check "what has no file system is stopped" all stand raw nic
	check "what has is left alone" stops_are data 0
	check "a thaw succeeds" ask_agent thaw
	check "all run again" all run raw nic
	check "why the others were not stopped is in the log" in_debian \
		'grep "virtio-stop: /srv has file systems" /var/log/qga-fsfreeze-hook.log'
	configure LEASE_MS=3000
	check "another freeze succeeds" ask_agent freeze
	check "without a thaw" all run raw nic
	check "they were stopped nevertheless" stops_are raw 2
	check "the thaw succeeds when all is over" ask_agent thaw
	check "that they did not stand still is in the log" in_debian 'grep "has not stood still until now" /var/log/qga-fsfreeze-hook.log'
	finish_agents
}

# --- the hook, for devices with frozen file systems

end_agent_frozen() {
	local agent
	start_agents
	configure 'FROZEN=/ /srv' HOLD_MS=600000
	check "a freeze succeeds" ask_agent freeze
	check "what is frozen stops" all stand root data
	check "its file system is whole" data_is_whole
	check "the agent answers" agent_answers frozen
	check "it freezes nothing twice" agent_refuses freeze
	check "a thaw resumes" ask_agent thaw
	check "all run again" all run root data
	check "they have stood still" wait_until 60 helper_says '"event":"resumed".*"exit":0'
	check "a second thaw does no harm" ask_agent thaw
	check "the console will have what the helper says" print_what_helper_says ' / is not frozen by that process'
	check "a freeze of some succeeds" ask_agent freeze /srv
	# A thaw before that ends the helper, which then says something else.
	check "nothing stops" wait_until 120 console_says ' / is not frozen by that process: nothing is stopped'
	check "it can be thawed" ask_agent thaw
	check "not even those have stopped" stops_are data 1
	agent=$(in_debian 'pidof qemu-ga')
	check "the agent will be killed" once_stopped qemu-ga
	check "a freeze succeeds after that" ask_agent freeze
	check "the agent is killed: the devices stop and resume" data_has_stopped 2
	check "all is frozen still, and can be thawed" thaw_after_death
	check "by another agent: that one has died" wait_until 60 another_agent "$agent"
	check "the helper will be killed" once_stopped virtio-stop
	check "the next freeze succeeds" ask_agent freeze
	check "the helper is killed: the devices stop and resume" data_has_stopped 3
	check "the thaw does not miss it" ask_agent thaw
	configure HOLD_MS=3000
	check "a freeze without a thaw succeeds" ask_agent freeze
	check "the devices stop and resume" data_has_stopped 4
	check "all is frozen still" agent_answers frozen
	check "the late thaw waits for nothing" ask_agent thaw
	check "all run at the end" all run root data
	finish_agents
}

# data_has_stopped NUMBER: so often, and runs.
data_has_stopped() {
	wait_until 60 stops_are data "$1" && all run root data
}

thaw_after_death() {
	debian_is_up 60 && [ "$(ask_agent status)" = frozen ] && ask_agent thaw
}
