#!/bin/sh
# shellcheck shell=busybox
# SPDX-License-Identifier: GPL-2.0-only
#
# virtio-stop, the command line: what it finds above the devices, and what it tells of them.

. ./functions.sh
# shellcheck source=tools/testing/selftests/virtio_device_stop/tool.sh
. ./tool.sh

# out_has_line PATTERN: a whole line.
out_has_line() {
	grep -qxE -- "$1" /tmp/out || fail "no line '$1' in: $(cat /tmp/out)"
}

# Sets OTHER and OTHER_VDEV: the disk that can't be stopped.
find_other() {
	OTHER=$(disk plain)
	OTHER_VDEV=$(readlink -f "/sys/block/$OTHER/device")
	OTHER_VDEV=${OTHER_VDEV##*/}
}

# means NAME DEVICE...: these, in this order.
means() {
	name=$1
	shift
	tool 0 --json status "$name"
	expect "what '$name' means" "$(sed -n 's/^ *"device": "\(.*\)",$/\1/p' /tmp/out | xargs)" "$*"
}

# in_order DEVICE...: by their index.
in_order() {
	printf '%s\n' "$@" | sed 's/virtio//' | sort -n | sed 's/^/virtio/' | xargs
}

# finds CODE...: check finds these of DISK, and nothing else, in this order.
finds() {
	virtio-stop --json check "$DISK" </dev/null >/tmp/out 2>/tmp/err
	expect "what check finds" "$(sed -n 's/^ *"code": "\(.*\)",$/\1/p' /tmp/out | xargs)" "$*"
}

# finds_also CODE: it is in what finds has looked at.
finds_also() {
	virtio-stop --json check "$DISK" </dev/null >/tmp/out 2>/tmp/err
	out_has "\"code\": \"$1\""
}

# always: what check always says of the disk.
always() {
	! suspends || echo suspend
}

# There is no udev: dmsetup makes what is in /dev/mapper itself.
export DM_DISABLE_UDEV=1

# Two partitions on the disk.
make_partitions() {
	# Sectors 2048 to 43007, and as many more.
	{
		head -c 446 /dev/zero
		printf '\0\0\0\0\203\0\0\0\0\010\0\0\0\240\0\0'
		printf '\0\0\0\0\203\0\0\0\0\250\0\0\0\240\0\0'
		head -c 32 /dev/zero
		printf '\125\252'
	} | dd of="/dev/$DISK" conv=fsync 2>/dev/null
	blockdev --rereadpt "/dev/$DISK" || fail "no partitions"
	wait_until test -b "/dev/${DISK}2"
}

remove_partitions() {
	dd if=/dev/zero of="/dev/$DISK" bs=512 count=2048 conv=fsync 2>/dev/null
	blockdev --rereadpt "/dev/$DISK"
}

test_list_tells_of_all() {
	find_other
	# The module may have been loaded after its driver was bound.
	echo "$OTHER_VDEV" >/sys/bus/virtio/drivers/virtio_blk/unbind
	echo "$OTHER_VDEV" >/sys/bus/virtio/drivers/virtio_blk/bind
	find_other
	tool 0 list
	out_has_line "$VDEV +block +virtio_blk +$DISK +$PROTOCOL +running"
	out_has_line "$OTHER_VDEV +block +virtio_blk +$OTHER +none +unavailable +the device offers neither .*"
	out_has_line "virtio[0-9]+ +scsi +virtio_scsi +sda,sdb +$PROTOCOL +running"
	out_has_line "virtio[0-9]+ +network +virtio_net +eth[0-9] +$PROTOCOL +running"
	out_has_line "virtio[0-9]+ +console +virtio_console +- +none +unavailable +devices of its type are not stopped.*"
	expect "lines" "$(wc -l </tmp/out)" $(($(find /sys/bus/virtio/devices -type l | wc -l) + 1))
	# No colour where there is no terminal.
	! grep -q "$(printf '\033')" /tmp/out || fail "it has colours"
	tool 0 --json list
	out_has '"version": 1,'
	out_has '"loaded": true,'
	is_empty /tmp/err
}

test_status_tells_all() {
	stop
	tool 0 status "$DISK"
	out_has_line "  state +stopped"
	out_has_line "  generation +$(cat "$STOP/generation")"
	out_has_line "  in flight +0"
	out_has_line "  stops +$(stat stops)"
	out_has_line "  last stop +$(stat last_stop_us) us"
	tool 0 --json status "$DISK"
	out_has "\"generation\": $(cat "$STOP/generation"),"
	out_has '"in_flight": 0,'
	resume
	tool 0 --json status "$DISK"
	out_has '"in_flight": "unknown",'
}

test_names_of_disks() {
	find_other
	both=$(in_order "$VDEV" "$OTHER_VDEV")
	pci=$(pci)
	make_partitions
	for name in "$VDEV" "$DISK" "/dev/$DISK" "${DISK}2" "${pci##*/}" "${pci##*/0000:}" "/sys/class/block/${DISK}1"; do
		means "$name" "$VDEV"
	done
	mkdir -p /dev/disk/by-id
	ln -sf "../../${DISK}1" /dev/disk/by-id/first
	means /dev/disk/by-id/first "$VDEV"
	# A volume of LVM, for all that the kernel knows.
	driver dm_mod loop
	dmsetup create vg-both --uuid LVM-both <<-END
		0 16384 linear /dev/${DISK}1 0
		16384 16384 linear /dev/$OTHER 0
	END
	for name in vg-both /dev/mapper/vg-both; do
		# shellcheck disable=SC2086 # several
		means $name $both
	done
	finds_also below_lvm
	finds_also partly
	tool 2 check vg-both
	out_has "$OTHER_VDEV"
	mkfs.ext4 -q -F /dev/mapper/vg-both || fail "no file system"
	mkdir -p "/tmp/a mount"
	mount -t ext4 /dev/mapper/vg-both "/tmp/a mount" || fail "can't mount"
	# shellcheck disable=SC2086 # several
	means "/tmp/a mount" $both
	finds_also mounted
	truncate -s 4M "/tmp/a mount/image"
	loop=$(losetup -f)
	losetup "$loop" "/tmp/a mount/image" || fail "no loop device"
	# shellcheck disable=SC2086 # several
	means "$loop" $both
	finds_also below_loop
	losetup -d "$loop"
	tool 2 status "/tmp/a mount/lost+found"
	err_has "file system at /tmp/a mount"
	umount "/tmp/a mount"
	dmsetup remove vg-both
	rm -r /dev/disk
	for name in there-is-none /dev/null / /proc "$loop"; do
		tool 2 status "$name"
	done
	remove_partitions
	# shellcheck disable=SC2046 # none, or a word
	finds $(always)
}

test_md() {
	find_other
	make_partitions
	driver md_mod raid1
	echo md_both >/sys/module/md_mod/parameters/new_array
	md=/sys/block/md_both/md
	echo none >$md/metadata_version
	echo raid1 >$md/level
	echo 2 >$md/raid_disks
	cat "/sys/block/$DISK/${DISK}1/dev" >$md/new_dev || fail "can't add ${DISK}1"
	cat "/sys/block/$OTHER/dev" >$md/new_dev || fail "can't add $OTHER"
	# shellcheck disable=SC2046 # several
	means md_both $(in_order "$VDEV" "$OTHER_VDEV")
	finds_also below_md
	echo clear >$md/array_state
	remove_partitions
}

test_swap() {
	make_partitions
	mkswap "/dev/${DISK}2" >/dev/null
	swapon "/dev/${DISK}2" || fail "can't swap"
	# shellcheck disable=SC2046 # none, or a word
	finds swap $(always)
	tool 1 check "$DISK"
	swapoff "/dev/${DISK}2"
	mkfs.ext4 -q -F "/dev/${DISK}1" || fail "no file system"
	mkdir -p $MOUNT
	mount -t ext4 "/dev/${DISK}1" $MOUNT || fail "can't mount"
	dd if=/dev/zero of=$MOUNT/swap bs=1M count=8 2>/dev/null
	chmod 600 $MOUNT/swap
	mkswap $MOUNT/swap >/dev/null
	swapon $MOUNT/swap || fail "can't swap"
	finds_also swap
	swapoff $MOUNT/swap
	umount $MOUNT
	remove_partitions
}

test_names_of_interfaces() {
	cards=$(for card in /sys/class/net/eth*; do readlink -f "$card/device"; done | sed 's,.*/,,')
	# shellcheck disable=SC2086 # several
	cards=$(in_order $cards)
	first=$(readlink -f /sys/class/net/eth0/device)
	means eth0 "${first##*/}"
	driver bonding bridge 8021q
	ip link add bond9 type bond mode active-backup || fail "no bond"
	for card in eth0 eth1; do
		ip link set $card down
		ip link set $card master bond9 || fail "no port"
	done
	ip link add link bond9 name bond9.7 type vlan id 7 || fail "no VLAN"
	ip link add br9 type bridge || fail "no bridge"
	ip link set bond9.7 master br9 || fail "no port"
	for name in bond9 bond9.7 br9 /sys/class/net/br9; do
		# shellcheck disable=SC2086 # several
		means $name $cards
	done
	DISK=eth0
	for code in below_bond below_vlan below_bridge network; do
		finds_also $code
	done
	find_device
	ip link del br9
	ip link del bond9.7
	ip link del bond9
	tool 2 status lo
	err_has "not a virtio device, nor above one"
}

test_what_of_the_tool_is_on_the_disk() {
	mkdir -p $MOUNT
	mkfs.ext4 -q -F "/dev/$DISK" || fail "no file system"
	mount -t ext4 "/dev/$DISK" $MOUNT || fail "can't mount"
	cp "$(which virtio-stop)" $MOUNT
	: >$MOUNT/in
	(cd $MOUNT && exec ./virtio-stop --json check "$DISK" <in 2>err >out)
	cp $MOUNT/out /tmp/out
	for code in stdin stdout stderr working_directory executable mounted; do
		out_has "\"code\": \"$code\""
	done
	umount $MOUNT
}

test_check_of_what_can_and_can_not_be_stopped() {
	find_other
	# shellcheck disable=SC2046 # none, or a word
	finds $(always)
	tool 0 check "$DISK"
	out_has "A stop of $VDEV would work."
	tool 2 check "$OTHER"
	out_has "error"
	stop
	# shellcheck disable=SC2046 # none, or a word
	finds busy $(always)
	resume
	echo 0 >"$STOP/lease_ms"
	tool 1 check "$DISK"
	finds_also no_lease
}

# The uevent of a change may wake it after it has said so. Sets WAKES.
has_gone_to_sleep() {
	WAKES=$(grep ctxt "/proc/$TOOL/status")
	usleep 200000
	[ "$(grep ctxt "/proc/$TOOL/status")" = "$WAKES" ]
}

test_watch_tells_of_each_change() {
	tool_starts --json watch "$DISK"
	wait_until grep -q '"event":"found"' /tmp/out
	stop
	generation=$(cat "$STOP/generation")
	wait_until grep -q '"state":"stopped","reason":"none","generation":'"$generation}" /tmp/out
	resume
	wait_until grep -q '"generation":'"$(cat "$STOP/generation")}" /tmp/out
	device_set acknowledge=never
	expect "stop" "$(store "$STOP/state" stop)" "$ETIMEDOUT"
	device_set acknowledge=at-once
	wait_until state_is running
	# Whoever has not answered is watched by the module until the next answer.
	stop
	resume
	wait_until grep -q '"generation":'"$(cat "$STOP/generation")}" /tmp/out
	# It waits in the kernel: nothing has woken it since.
	wait_until has_gone_to_sleep
	lines=$(wc -l </tmp/out)
	io_works
	expect "what has woken it" "$(grep ctxt "/proc/$TOOL/status")" "$WAKES"
	expect "lines" "$(wc -l </tmp/out)" "$lines"
	kill -TERM $TOOL
	tool_ends 0
	is_empty /tmp/err
}

# After the line that tells that it has gone.
is_back() {
	sed "1,/^$VDEV  *gone/d" /tmp/out | grep -q "^$VDEV"
}

test_watch_tells_of_what_comes_and_goes() {
	tool_starts watch
	wait_until grep -q "^$VDEV  *running" /tmp/out
	plug
	find_vdev
	wait_until grep -q "^$VDEV  *" /tmp/out
	DEVICE=plugged unplug
	wait_until grep -q "^$VDEV  *gone" /tmp/out
	plug
	wait_until is_back
	DEVICE=plugged unplug
	kill -INT $TOOL
	kill -TERM $TOOL
	tool_ends 0
	find_device
	tool_starts watch "$DISK"
	wait_until grep -q "^$VDEV  *running" /tmp/out
	wait_until rmmod virtio_device_stop 2>/dev/null
	tool_ends 7
	out_has_line "$VDEV +gone"
	tool 3 watch "$DISK"
	load_module
	bind_again
}

test_output_that_nobody_reads() {
	virtio-stop watch "$DISK" </dev/null 2>/tmp/err | head -n 1 >/tmp/out &
	reader=$!
	wait_until test -s /tmp/out
	stop
	resume
	wait_until has_ended $reader
	wait_until nobody_watches
	is_empty /tmp/err
}

nobody_watches() {
	! pidof virtio-stop >/dev/null
}

test_user_who_may_not_look() {
	for command in list "status $DISK"; do
		capsh --user=nobody --shell=/bin/sh -- -c "virtio-stop $command" >/tmp/out 2>/tmp/err || fail "it fails: $(cat /tmp/err)"
		out_has "not permitted"
		err_has "only root"
	done
	status=0
	capsh --user=nobody --shell=/bin/sh -- -c "virtio-stop check $DISK" >/tmp/out 2>/tmp/err || status=$?
	expect "check" $status 2
	out_has "Only root"
	status=0
	capsh --user=nobody --shell=/bin/sh -- -c "virtio-stop watch $DISK" >/tmp/out 2>/tmp/err || status=$?
	expect "watch" $status 8
}

test_completions_and_man() {
	for shell in bash zsh fish; do
		tool 0 completions $shell
		out_has until-eof
	done
	tool 0 man /tmp/man
	for command in list status check watch run stop resume renew; do
		grep -q '^\.TH' "/tmp/man/virtio-stop-$command.1" || fail "no page of $command"
	done
}

driver virtio_net virtio_scsi sd_mod
run_tests test_list_tells_of_all test_status_tells_all test_names_of_disks test_md test_swap test_names_of_interfaces \
	test_what_of_the_tool_is_on_the_disk test_check_of_what_can_and_can_not_be_stopped test_watch_tells_of_each_change \
	test_watch_tells_of_what_comes_and_goes test_output_that_nobody_reads test_user_who_may_not_look \
	test_completions_and_man
