# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
# shellcheck shell=bash disable=SC2154 # of the script that has sourced this
#
# The guest of samples/libvirt, started by libvirt and asked by virsh. For scripts that have sourced debian.sh. libvirt is that of a user
# (qemu:///session), in a user namespace: it sees $devices as /run/devices, which is what the sample calls it.

# Sets in_libvirt: what runs a command where libvirt is, in $devices.
get_libvirt() {
	local tree
	tree=$("$top/tools/vm/libvirt") &&
		in_libvirt=(
			env -C "$devices" "$top/tools/vm/enter" --tree "$tree" --unshare-user --uid 65534 --gid 65534
			--tmpfs /run --bind "$devices" /run/devices
			--setenv LIBVIRT_AUTOSTART 0 --setenv HOME /run/devices/home --setenv XDG_RUNTIME_DIR /run/devices/runtime --
		)
}

# virsh ARG...: what it says is in $devices/answer.
virsh() {
	"${in_libvirt[@]}" virsh --connect qemu:///session "$@" >"$devices/answer" 2>&1 || { sed 's/^/# # /' "$devices/answer" && false; }
}

start_libvirt() {
	mkdir -p "$devices/runtime" "$devices/home/.config/libvirt"
	# What the guest's console says goes to a file without a further daemon.
	echo 'stdio_handler = "file"' >"$devices/home/.config/libvirt/qemu.conf"
	"${in_libvirt[@]}" libvirtd --timeout 0 >"$devices/libvirtd" 2>&1 &
	servers+=($!)
	wait_until 60 libvirt_answers && kill -0 "${servers[-1]}"
}

libvirt_answers() {
	"${in_libvirt[@]}" virsh --connect qemu:///session version >"$devices/answer" 2>&1
}

# make_domain: the sample, as this machine can run it, with a console that is kept.
make_domain() {
	local changes=(
		-e 's,<memory .*,<memory unit="MiB">768</memory>,'
		-e 's,<console type="pty"/>,<console type="pty"><log file="/run/devices/console" append="on"/></console>,'
	)
	# QEMU's emulation would walk five levels of page tables for each page.
	"$top/tools/vm/kvm" || changes+=(
		-e 's,type="kvm",type="qemu",'
		-e 's,<cpu .*,<cpu mode="maximum"><feature policy="disable" name="la57"/></cpu>,'
	)
	sed "${changes[@]}" "$top/samples/libvirt/domain.xml" >"$devices/domain.xml"
}

# serve_agent: a socket $devices/agent, for what debian.sh has, behind which virsh asks the agent: libvirt has the agent's to itself.
serve_agent() {
	"${in_libvirt[@]}" python3 -c '
import json, socket, subprocess
listener = socket.socket(socket.AF_UNIX)
listener.bind("agent")
listener.listen()
while True:
    connection, _ = listener.accept()
    with connection, connection.makefile("rw") as lines:
        try:
            for line in lines:
                command = ["virsh", "qemu-agent-command", "--timeout", "300", "guest", line]
                asked = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
                if asked.returncode == 0:
                    print(asked.stdout.strip(), file=lines, flush=True)
                elif "has been disabled" in asked.stderr:
                    print(json.dumps({"error": {"class": "GenericError", "desc": asked.stderr}}), file=lines, flush=True)
        except OSError:
            pass' 2>>"$devices/errors" &
	servers+=($!)
	wait_until 20 test -S "$devices/agent"
}
