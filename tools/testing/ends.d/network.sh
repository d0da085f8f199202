# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
# shellcheck shell=bash disable=SC2154 # shared with tools/testing/ends
#
# A network card with a pair of virtqueues for each processor.

end_network() {
	use_network_card 4
}

end_network_alone() {
	use_network_card 1
}

# use_network_card CPUS
use_network_card() {
	start_devices "net,name=nic,queues=$1,mergeable=true,protocol=$protocol,mac=02:00:00:00:00:11"
	run_in_guest end_network.sh "$cycles" -- --cpus "$1" --copy "$("$top/tools/vm/bundle" ethtool ip tc):/" \
		--copy "$top/build/bin/frames:/bin/" --copy "$top/build/selftests/attach_xdp:/selftests/$suite/" \
		--copy "$top/build/selftests/bind_xsk:/selftests/$suite/"
	check "nothing is lost under load" guest_says 'ok load$'
	check "each pair is busy, in both directions" guest_says 'ok pairs$'
	check "the link may change" guest_says 'ok link_changes$'
	check "who does not care whether it is stopped does no harm" guest_says 'ok disturbances$'
	check "native XDP is refused meanwhile" guest_says 'ok native_xdp$'
	check "AF_XDP sockets come and go" guest_says 'ok xsk$'
	check "the kernel may send by itself" guest_says 'ok netpoll$'
	check "the interface may be moved and renamed meanwhile" guest_says 'ok moved_and_renamed_while_stopped$'
	check "the kernel has not complained" status_is 0
	check "no driver has broken a rule" no_breach
}
