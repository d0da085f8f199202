# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
# shellcheck shell=bash disable=SC2154 # shared with tools/testing/ends
#
# virtio-stop stops the disk of the root file system, which it lies on itself.

end_tool() {
	tool_on_the_disk
}

end_tool_with_swap() {
	tool_on_the_disk swap
}

# tool_on_the_disk [swap]
tool_on_the_disk() {
	make_root_disk "$top/build/bin/virtio-stop"
	start_devices "blk,name=root,protocol=$protocol"
	run_in_guest end_tool.sh "$@" -- --mem 384
	check "it resumes the disk that it runs from" guest_says 'ok tool_on_the_disk$'
	check "the kernel has not complained" status_is 0
	check "no driver has broken a rule" no_breach
	check "the file system is whole" is_whole "$devices/root"
}
