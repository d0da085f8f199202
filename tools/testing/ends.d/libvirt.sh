# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
# shellcheck shell=bash disable=SC2016,SC2154 # the guest's variables; shared with tools/testing/ends
#
# What samples/libvirt has, with libvirt: its guest, whose only disk is one of ours, stopped by virsh in each of the ways that are in
# the sample.

# shellcheck source=tools/testing/libvirt.sh
. "$top/tools/testing/libvirt.sh"

end_libvirt() {
	local in_libvirt=() file_system=$((2048 * 512))
	check "libvirt is there" get_libvirt
	[ ${#in_libvirt[@]} -gt 0 ] || return
	gather_samples
	make_libvirt_disk
	start_devices "blk,name=disk,protocol=$protocol"
	make_domain
	check "libvirt starts" start_libvirt
	check "it takes the sample's domain, and starts the guest" virsh create domain.xml
	serve_agent
	check "the guest is up" debian_is_up
	check "the samples are installed" in_debian "tar -x -C /mnt -f /samples.tar; $install_samples"
	check "the disk can be stopped from now on" in_debian 'echo 1 >/sys/block/vda/device/device_stop/renegotiate'
	check "the agent runs hooks from now on" restart_agent
	check "the host copies the disk while it stands still" libvirt_while_stopped vda -- \
		sh -c 'cp --sparse=always disk copy && cmp disk copy'
	check "what it has copied is whole" is_whole "$devices/copy?offset=$file_system"
	check "it runs again" all run disk
	check "it has stopped once" stops_are disk 1
	check "a unit stops for whoever is connected to the port" libvirt_unit_stops
	check "when he has gone, it resumes" all run disk
	check "it has stopped twice" stops_are disk 2
	configure FROZEN=/ HOLD_MS=600000
	check "virsh freezes" virsh domfsfreeze guest
	check "the disk stops" all stand disk
	check "libvirt runs nothing meanwhile" libvirt_agent_refuses
	check "virsh thaws" virsh domfsthaw guest
	check "it runs again after that" all run disk
	check "it has stood still" wait_until 60 helper_says '"event":"resumed".*"exit":0'
	check "the kernel has not complained" debian_is_sound
	check "no driver has broken a rule" no_breach
	check "virsh has the guest end" virsh shutdown --mode agent guest
	check "it ends" wait_until 120 libvirt_has_no_guest
}

# The guest has no other disk that could bring the samples: they are put among its files.
make_libvirt_disk() {
	cp --sparse=always "$("$top/tools/vm/debian")/disk" "$devices/disk"
	tar -c -C "$devices/samples-files" . >"$devices/samples.tar"
	(cd "$devices" && "$top/tools/vm/enter" -- debugfs -w -R 'write samples.tar samples.tar' "disk?offset=$file_system" \
		>"$devices/answer" 2>&1)
}

# libvirt_while_stopped DEVICE... -- COMMAND...: in $devices.
libvirt_while_stopped() {
	"${in_libvirt[@]}" "$top/samples/qemu-guest-agent/while-stopped" virsh:guest /run/devices/port "$@" 2>"$devices/answer" ||
		{ sed 's/^/# # /' "$devices/answer" && false; }
}

# As the sample says it is done by hand.
libvirt_unit_stops() {
	"${in_libvirt[@]}" python3 -c '
import socket, subprocess, sys
port = socket.socket(socket.AF_UNIX)
port.connect("/run/devices/port")
port.settimeout(120)
subprocess.run(["virsh", "qemu-agent-command", "guest", sys.argv[1]], check=True)
line = port.makefile().readline()
assert "\"event\":\"stopped\"" in line, line' \
		'{"execute":"guest-exec","arguments":{"path":"/bin/systemctl","arg":["start","virtio-stop@vda"]}}' \
		>"$devices/answer" 2>&1 || { sed 's/^/# # /' "$devices/answer" && false; }
}

libvirt_agent_refuses() {
	! virsh qemu-agent-command guest '{"execute":"guest-exec","arguments":{"path":"/bin/true"}}' >"$devices/refused" &&
		answer_has 'has been disabled'
}

libvirt_has_no_guest() {
	virsh list --name && ! grep . "$devices/answer"
}
