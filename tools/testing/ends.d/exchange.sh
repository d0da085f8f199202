# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
# shellcheck shell=bash disable=SC2034,SC2154 # shared with tools/testing/ends
#
# The process behind the devices is exchanged under the running guest, again and again. The first one is of another build, if $OLD is
# its program: one that hands over what this build goes on with (handover::VERSION).

end_exchange() {
	cp "${OLD:-$top/build/bin/vfio-user-virtio}" "$devices/old"
	first_server=$devices/old
	start_devices "blk,name=disk,queues=2,protocol=$protocol" "scsi,name=host,units=2,protocol=$protocol" \
		"net,name=nic,protocol=$protocol,mac=02:00:00:00:00:11" "blk,name=other,protocol=$protocol"
	local first=${servers[-1]}
	run_in_guest end_exchange.sh "$cycles" -- --cpus 2 --mem 768 --copy "$("$top/tools/vm/bundle" fio ip mkfs.ext4):/" \
		--copy "$top/build/bin/frames:/bin/" --copy "$top/build/bin/virtio-stop:/bin/"
	check "nothing is lost, duplicated or reordered" guest_says 'ok exchange$'
	check "virtio-stop has the process exchanged" guest_says 'ok exchange_by_virtio_stop$'
	check "all of the traffic has come through" guest_says 'ok traffic$'
	check "a successor that can't take over changes nothing" guest_says 'ok refusal$'
	check "the data may have moved" guest_says 'ok moved_data$'
	check "the first process has ended well" wait "$first"
	check "the kernel has not complained" status_is 0
	check "no driver has broken a rule" no_breach
	times_of_exchanges
}

# exchange [WHAT]: as the guest asks for.
exchange() {
	case $1 in
	" that fails")
		# It can't have as many files as there are.
		(ulimit -n 20 && "$top/build/bin/vfio-user-virtio" serve --take-over "$devices/control") 2>&1 | sed 's/^/# # /'
		;;
	" with moved data")
		cp --sparse=always "$devices/disk" "$devices/moved"
		take_over --file "disk=$devices/moved"
		;;
	" as soon as it has stopped") take_over --wait 600 ;;
	*) take_over ;;
	esac
}

# What the exchanges took, by their own account, and for how long the devices that had a successor waiting stood still, by theirs.
times_of_exchanges() {
	sed -n 's/.* devices over in \([0-9]*\) us/\1/p' "$devices/log" | times "exchanges"
	sed -n 's/^# stood still for \([0-9]*\) us/\1/p' "$devices/output" | times "times that the devices stood still"
}

# times WHAT: of those that are read, the median and so on.
times() {
	sort -n | awk -v what="$1" '{ at[NR] = $1 }
		END { print "# # " NR " " what ": median " at[int((NR + 1) / 2)] " us, 95 of 100 within " at[int(NR * 0.95 + 0.999)] " us" }'
}
