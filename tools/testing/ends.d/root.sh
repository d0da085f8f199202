# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
# shellcheck shell=bash disable=SC2154 # shared with tools/testing/ends
#
# The disk of the root file system: the agent that has stopped it is killed, or is virtio-stop.

end_root() {
	root_is_stopped
}

end_root_with_swap() {
	root_is_stopped swap
}

# root_is_stopped [swap]
root_is_stopped() {
	make_root_disk "$top/build/bin/virtio-stop"
	start_devices "blk,name=root,protocol=$protocol"
	run_in_guest end_root.sh "$@" -- --mem 384
	check "the agent's death does not strand the guest" guest_says 'ok agent_is_killed$'
	check "virtio-stop runs from what it stops" guest_says 'ok tool_runs_from_what_it_stops$'
	check "the root file system can be unmounted" guest_says 'ok finish$'
	check "the kernel has not complained" status_is 0
	check "no driver has broken a rule" no_breach
	check "the file system is whole" is_whole "$devices/root"
}

# make_root_disk [PROGRAM]...: with busybox, and these.
make_root_disk() {
	local root_files=$devices/root-files
	mkdir -p "$root_files"/{bin,proc,sys,dev,tmp}
	cp "$("$top/tools/vm/root")/usr/bin/busybox" "$@" "$root_files/bin/"
	for name in sh cat dd sha256sum stat tail; do
		ln -sf busybox "$root_files/bin/$name"
	done
	truncate -s 384M "$devices/root"
	"$top/tools/vm/enter" -- mkfs.ext4 -q -d "$root_files" "$devices/root"
}

# is_whole IMAGE: of an ext4.
is_whole() {
	"$top/tools/vm/enter" -- e2fsck -fn "$1" >"$devices/fsck" 2>&1 || { sed 's/^/# # /' "$devices/fsck" && false; }
}
