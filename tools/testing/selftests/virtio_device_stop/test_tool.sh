#!/bin/sh
# shellcheck shell=busybox
# SPDX-License-Identifier: GPL-2.0-only
#
# virtio-stop, the command line: what it stops, what it tells, and how it ends.

. ./functions.sh
# shellcheck source=tools/testing/selftests/virtio_device_stop/tool.sh
. ./tool.sh

runs_as_before() {
	expect "state" "$(state)" running
	expect "holder" "$(cat "$STOP/holder")" none
}

child_of() {
	grep -lsx "PPid:	$1" /proc/[0-9]*/status | tr -dc '0-9\n'
}

# A file system on the disk, at MOUNT, for as long as the test takes.
mount_disk() {
	trap unmount_all EXIT
	mkdir -p $MOUNT
	mkfs.ext4 -q -F "/dev/$DISK" || fail "no file system"
	mount -t ext4 "/dev/$DISK" $MOUNT || fail "can't mount"
}

unmount_all() {
	for point in /tmp/inner $MOUNT; do
		fsfreeze --unfreeze "$point" 2>/dev/null
		umount "$point" 2>/dev/null
	done
}

test_run_ends_as_its_command() {
	start_fio
	# shellcheck disable=SC2016 # the command's
	tool 7 run "$DISK" -- sh -c 'cat '"$STOP"'/state; read line && echo "read $line"; exit 7'
	expect "standard output" "$(cat /tmp/out)" stopped
	err_has "$VDEV"
	err_has "stood still"
	runs_as_before
	more_complete
	stop_fio
	stops=$(stat stops)
	tool 0 --json run "$VDEV" -- sh -c 'cat '"$STOP"'/holder '"$STOP"'/generation'
	expect "stops" "$(stat stops)" $((stops + 1))
	generation=$(sed -n 2p /tmp/out)
	grep -q ' virtio-stop$' /tmp/out || fail "the owner is: $(cat /tmp/out)"
	out_has '{"version":1,"event":"resumed","devices":[{"device":"'"$VDEV"'",'
	out_has '"still":true,"generation":'"$generation"',"in_flight":0,'
	out_has '"status":0,"errors":[],"exit":0}'
	is_empty /tmp/err
	tool 143 run "$DISK" -- sh -c 'kill $$'
	runs_as_before
}

test_command_has_its_name_arguments_and_streams() {
	# shellcheck disable=SC2016 # the command's
	set -- sh -c 'cat; echo "$0 $1"; ls /proc/$$/fd; env' name 'two words'
	echo "from its input" | "$@" >/tmp/without 2>/tmp/err
	echo "from its input" | virtio-stop run "$DISK" -- "$@" >/tmp/out 2>/tmp/err || fail "it has failed: $(cat /tmp/err)"
	cmp /tmp/out /tmp/without || fail "it says: $(cat /tmp/out), and not: $(cat /tmp/without)"
	tool 0 run "$DISK" -- cat /proc/self/comm
	out_has busybox
}

test_command_that_can_t_be_executed() {
	stops=$(stat stops)
	tool 127 run "$DISK" -- there-is-no-such-program
	err_has "command not found"
	tool 127 run "$DISK" -- /bin/there-is-none
	echo text >/tmp/text
	chmod 644 /tmp/text
	tool 126 run "$DISK" -- /tmp/text
	expect "stops" "$(stat stops)" "$stops"
	# What only the kernel can tell.
	echo '#!/bin/there-is-none' >/tmp/text
	chmod 755 /tmp/text
	tool 127 run "$DISK" -- /tmp/text
	err_has "/tmp/text: No such file or directory"
	expect "stops" "$(stat stops)" $((stops + 1))
	runs_as_before
}

test_signals_reach_the_command() {
	# shellcheck disable=SC2016 # the command's
	for signal in TERM HUP; do
		rm -f /tmp/ready
		tool_starts run "$DISK" -- sh -c 'trap "echo got it; exit 5" '$signal'; echo >/tmp/ready; while :; do sleep 1; done'
		wait_until test -s /tmp/ready
		expect "state" "$(state)" stopped
		kill -$signal $TOOL
		tool_ends 5
		expect "what it says" "$(cat /tmp/out)" "got it"
		runs_as_before
	done
}

test_tool_is_killed() {
	expiries=$(stat lease_expiries)
	# shellcheck disable=SC2016 # the command's
	tool_starts run "$DISK" -- sh -c 'echo $$ >/tmp/pid; exec sleep 1000'
	wait_until test -s /tmp/pid
	wait_until state_is stopped
	kill -9 $TOOL
	wait_until state_is running
	wait_until has_ended "$(cat /tmp/pid)"
	rm /tmp/pid
	expect "lease_expiries" "$(stat lease_expiries)" "$expiries"
	# And before its command runs.
	device_set acknowledge=never
	tool_starts run --timeout 600000 "$DISK" -- sh -c 'echo >/tmp/ran'
	wait_until state_is stopping
	held=$(child_of $TOOL)
	kill -9 $TOOL
	wait_until has_ended "$held"
	device_set acknowledge=at-once
	wait_until state_is running
	[ ! -e /tmp/ran ] || fail "its command has run"
}

test_stop_fails() {
	device_set acknowledge=never
	tool 6 run --timeout 300 "$DISK" -- sh -c 'echo >/tmp/ran'
	err_has "$VDEV: not stopped: it has not answered in time"
	err_has "--timeout"
	tool 6 --json run --timeout 300 "$DISK" -- sh -c 'echo >/tmp/ran'
	out_has '"event":"failed","devices":[],'
	out_has '"exit":6}'
	device_set acknowledge=at-once
	wait_until state_is running
	[ ! -e /tmp/ran ] || fail "its command has run"
	runs_as_before
}

test_one_of_several_fails() {
	disk=$STOP
	find_type 8
	host=$VDEV
	find_type 1
	nic=$VDEV
	find_device
	device_set acknowledge=never
	tool 6 run --timeout 300 "$host" "$DISK" "$nic" -- sh -c 'echo >/tmp/ran'
	[ ! -e /tmp/ran ] || fail "its command has run"
	for vdev in "$host" "$nic"; do
		expect "state" "$(cat "/sys/bus/virtio/devices/$vdev/device_stop/state")" running
	done
	# By way of sysfs likewise.
	tool 6 stop --timeout 300 "$host" "$DISK" "$nic"
	for vdev in "$host" "$nic"; do
		expect "state" "$(cat "/sys/bus/virtio/devices/$vdev/device_stop/state")" running
		echo $USUAL_TIMEOUT_MS >"/sys/bus/virtio/devices/$vdev/device_stop/timeout_ms"
	done
	device_set acknowledge=at-once
	wait_until holds "$disk/state" running
	tool 0 --json run "$host" "$DISK" "$nic" -- sh -c "cat /sys/bus/virtio/devices/$host/device_stop/state \
		/sys/bus/virtio/devices/$nic/device_stop/state $disk/state"
	expect "states" "$(head -n 3 /tmp/out | xargs)" "stopped stopped stopped"
	# What a network interface has in flight is not known, and no failure.
	out_has '"in_flight":null'
}

test_signal_calls_the_stop_off() {
	device_set acknowledge=never
	tool_starts run --timeout 600000 "$DISK" -- sh -c 'echo >/tmp/ran'
	wait_until state_is stopping
	kill -TERM $TOOL
	tool_ends 9
	[ ! -e /tmp/ran ] || fail "its command has run"
	device_set acknowledge=at-once
	wait_until state_is running
}

test_requests_in_flight() {
	# A device that stops with a request that it has not finished, or has not taken.
	if suspends; then
		device_set leave_requests=true io_hold=always
	else
		device_set io_depth=1 io_hold=until-stop
	fi
	rm -f /tmp/read
	for nth in 0 1 2 3; do
		(dd if="/dev/$DISK" of=/dev/null bs=4k count=1 skip=$((nth * 100)) iflag=direct 2>/dev/null && echo >>/tmp/read) &
	done
	wait_until virtqueue_has 4
	tool 4 run "$DISK" -- true
	err_has "requests still, which whoever replaces it takes along"
	wait_until virtqueue_has 1
	tool 0 --json run --allow-in-flight "$DISK" -- true
	out_has '"still":true'
	device_set leave_requests=false io_hold=no io_depth=128
	wait_until all_are_read
}

# virtqueue_has NUMBER: so many requests at least are with the device, or wait for it.
# shellcheck disable=SC2317 # called by wait_until
virtqueue_has() {
	# shellcheck disable=SC2046 # two words
	set -- "$1" $(cat "/sys/block/$DISK/inflight")
	[ "$(($2 + $3))" -ge "$1" ]
}

# shellcheck disable=SC2317 # called by wait_until
all_are_read() {
	[ "$(wc -l </tmp/read)" = 4 ]
}

test_device_does_not_stand_still() {
	rm -f /tmp/go /tmp/pid
	# shellcheck disable=SC2016 # the command's
	tool_starts --json run "$DISK" -- sh -c 'echo $$ >/tmp/pid; while [ ! -e /tmp/go ]; do sleep 1; done'
	wait_until test -s /tmp/pid
	device_set drop_stop=after:0
	echo >/tmp/go
	tool_ends 4
	device_set drop_stop=never
	out_has '"still":false,"why":"its stop has ended before (stop_dropped)"'
	out_has '"status":0'
	err_has "$VDEV did not stand still"
	expect "state" "$(state)" running
	# Nor if it was stopped again.
	rm /tmp/go /tmp/pid
	# shellcheck disable=SC2016 # the command's
	tool_starts run "$DISK" -- sh -c 'echo $$ >/tmp/pid; while [ ! -e /tmp/go ]; do sleep 1; done'
	wait_until test -s /tmp/pid
	expect "resume" "$(store "$STOP/state" "resume force")" ok
	stop
	echo >/tmp/go
	tool_ends 4
	expect "state" "$(state)" stopped
	resume
}

test_busy() {
	stop
	tool 5 run "$DISK" -- true
	err_has "$VDEV: not stopped: somebody else has stopped it"
	expect "state" "$(state)" stopped
	resume
	# What ends before anything has stopped is no reason to stop.
	tool 2 run --until-eof "$DISK"
	expect "state" "$(state)" running
	mkfifo /tmp/end
	virtio-stop run --until-eof "$DISK" </tmp/end >/tmp/out 2>/tmp/err &
	TOOL=$!
	exec 5>/tmp/end
	wait_until grep -q stopped /tmp/out
	tool_out=$(cat /tmp/out)
	tool 5 stop "$DISK"
	tool 5 resume "$DISK"
	err_has "--force"
	expect "state" "$(state)" stopped
	echo "$tool_out" >/tmp/out
	exec 5>&-
	tool_ends 0
	rm /tmp/end
	runs_as_before
}

test_lease_is_renewed() {
	expiries=$(stat lease_expiries)
	tool 0 run --lease 2000 "$DISK" -- sleep 7
	err_has "stood still"
	expect "lease_expiries" "$(stat lease_expiries)" "$expiries"
	# Only while it lives.
	rm -f /tmp/runs
	tool_starts --json run --lease 2000 "$DISK" -- sh -c 'echo >/tmp/runs; exec sleep 1000'
	wait_until test -e /tmp/runs
	kill -STOP $TOOL
	wait_until stat_is lease_expiries $((expiries + 1))
	expect "state" "$(state)" running
	kill -TERM $TOOL
	kill -CONT $TOOL
	tool_ends 4
	out_has 'lease_expired'
	out_has '"status":143'
}

test_max_time() {
	tool 9 --json run --max-time 500 "$DISK" -- sleep 1000
	out_has '"status":143'
	out_has '"still":true'
	err_has "--max-time"
	runs_as_before
	# Nobody else would set free who waits for what he has stopped: that is done when the lease is over.
	tool_starts run --max-time 200 --lease 1000 "$DISK" -- dd if="/dev/$DISK" of=/dev/null bs=4k count=1 iflag=direct
	wait "$TOOL" && fail "it ends as if nothing had happened"
	err_has "--max-time"
	runs_as_before
	rm -f /tmp/end
	mkfifo /tmp/end
	virtio-stop run --max-time 200 --until-eof "$DISK" </tmp/end >/tmp/out 2>/tmp/err &
	TOOL=$!
	exec 5>/tmp/end
	tool_ends 9
	exec 5>&-
	rm /tmp/end
	out_has '"event":"resumed"'
	err_has "--max-time"
	runs_as_before
}

test_until_eof() {
	rm -f /tmp/end
	mkfifo /tmp/end
	for held in --until-eof "--hold 7"; do
		# shellcheck disable=SC2086 # two words
		virtio-stop run $held "$DISK" 7</tmp/end </tmp/end >/tmp/out 2>/tmp/err &
		TOOL=$!
		exec 5>/tmp/end
		wait_until grep -q stopped /tmp/out
		expect "state" "$(state)" stopped
		out_has '{"version":1,"event":"stopped","devices":[{"device":"'"$VDEV"'",'
		out_has '"generation":'"$(cat "$STOP/generation")"
		echo "this is not the end" >&5
		expect "state" "$(state)" stopped
		exec 5>&-
		tool_ends 0
		expect "lines" "$(wc -l </tmp/out)" 2
		out_has '"event":"resumed"'
		out_has '"still":true'
		runs_as_before
	done
	# Who keeps the other end itself would wait for ever.
	exec 7<>/tmp/end
	tool 2 run --hold 7 "$DISK"
	exec 7>&-
	virtio-stop run --hold 7 "$DISK" 7</tmp/end >/tmp/out 2>/tmp/err &
	TOOL=$!
	exec 5>/tmp/end
	wait_until grep -q stopped /tmp/out
	kill -TERM $TOOL
	tool_ends 9
	out_has '"event":"resumed"'
	exec 5>&-
	rm /tmp/end
	runs_as_before
	tool 2 run --hold 77 "$DISK"
	err_has "file descriptor 77"
}

# That the stop of one has ended early does not hide that another one does not resume.
test_one_has_ended_and_another_does_not_resume() {
	find_type 8
	host=$STOP
	device_of_host=$VDEV
	find_device
	rm -f /tmp/go /tmp/pid
	# shellcheck disable=SC2016 # the command's
	tool_starts --json run --timeout 300 "$device_of_host" "$DISK" -- \
		sh -c 'echo $$ >/tmp/pid; while [ ! -e /tmp/go ]; do sleep 1; done'
	wait_until test -s /tmp/pid
	expect "resume" "$(store "$host/state" "resume force")" ok
	device_never_resumes
	echo >/tmp/go
	tool_ends 6
	out_has '"event":"failed"'
	err_has "$device_of_host did not stand still"
	err_has "$VDEV: not resumed: it has not answered in time"
	device_set resume=at-once
	wait_until state_is running
	rm /tmp/go /tmp/pid
	runs_as_before
}

# A loop device on a file on the disk: its file system is frozen first.
test_freeze() {
	modprobe loop
	mount_disk
	mkdir -p /tmp/inner
	truncate -s 16M $MOUNT/image
	mkfs.ext4 -q -F $MOUNT/image || fail "no file system"
	loop=$(losetup -f)
	losetup "$loop" $MOUNT/image || fail "no loop device"
	mount -t ext4 "$loop" /tmp/inner || fail "can't mount $loop"
	tool 0 --json run --freeze --dry-run $MOUNT -- true
	out_has '"freeze":["/tmp/inner","/tmp/mount"],"stop":["'"$VDEV"'"]'
	# What is written meanwhile waits, and is not lost.
	rm -f /tmp/pids
	# shellcheck disable=SC2016 # the command's
	tool 0 --json run --freeze $MOUNT -- sh -c 'for folder in /tmp/inner /tmp/mount; do
			(exec sh -c "echo \$\$ >>/tmp/pids; echo written >\$0/file" $folder) >/dev/null 2>&1 &
		done
		for look in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30; do
			waiting=0
			for pid in $(cat /tmp/pids); do
				! grep -q "^State:.D" /proc/$pid/status || waiting=$((waiting + 1))
			done
			[ $waiting -lt 2 ] || exit 0
			sleep 1
		done
		exit 1'
	out_has '"frozen":["/tmp/inner","/tmp/mount"]'
	wait_until test -s /tmp/inner/file
	wait_until test -s $MOUNT/file
	# Undone if the stop fails, and if it is ended by a signal.
	device_set acknowledge=never
	timeouts=$(stat timeouts)
	tool_starts run --freeze --timeout 300 $MOUNT -- true
	wait_until stat_is timeouts $((timeouts + 1))
	# To thaw one writes to the disk, and that waits for a device that can't be called off.
	device_set acknowledge=at-once
	tool_ends 6
	wait_until state_is running
	echo again >/tmp/inner/file
	echo again >$MOUNT/file
	# And if one can't be frozen.
	fsfreeze --freeze /tmp/inner
	tool 5 run --freeze $MOUNT -- sh -c 'echo >/tmp/ran'
	err_has "/tmp/inner: can't be frozen"
	echo more >$MOUNT/new
	fsfreeze --unfreeze /tmp/inner
	[ ! -e /tmp/ran ] || fail "its command has run"
	umount /tmp/inner
	losetup -d "$loop"
	umount $MOUNT
	e2fsck -fn "/dev/$DISK" >/dev/null 2>&1 || fail "the file system is damaged"
}

test_killed_while_frozen() {
	mount_disk
	tool_starts run --freeze $MOUNT -- sleep 1000
	wait_until state_is stopped
	kill -9 $TOOL
	wait_until state_is running
	# Else this waits for ever.
	echo written >$MOUNT/file &
	writer=$!
	wait_until has_ended $writer
	umount $MOUNT
}

# A static program is kept in memory, another one is refused.
test_command_on_the_disk() {
	mount_disk
	cp /bin/busybox $MOUNT/sh
	cp "$(which fio)" $MOUNT/fio
	printf '#!/bin/sh\n' >$MOUNT/script
	chmod 755 $MOUNT/script
	sync
	tool 126 run $MOUNT -- $MOUNT/fio --version
	err_has "can't begin while $MOUNT stands still: it needs $MOUNT/fio"
	tool 126 run $MOUNT -- $MOUNT/script
	err_has "can't begin"
	echo 3 >/proc/sys/vm/drop_caches
	reads=$(cut -c 1-20 "/sys/block/$DISK/stat")
	tool 5 run $MOUNT -- $MOUNT/sh -c 'echo 3 >/proc/sys/vm/drop_caches; cat '"$STOP"'/state; exit 5'
	expect "standard output" "$(cat /tmp/out)" stopped
	# The others may be there, if what they need is not.
	tool 0 run $MOUNT -- fio --version
	umount $MOUNT
	[ "$reads" ]
}

test_stop_renew_resume() {
	tool 0 --json stop "$DISK"
	expect "state" "$(state)" stopped
	generation=$(cat "$STOP/generation")
	expect "what it says" "$(cat /tmp/out)" \
		'{"version":1,"devices":[{"device":"'"$VDEV"'","state":"stopped","generation":'"$generation"'}]}'
	# It is so already.
	tool 0 stop --lease 50000 --timeout 2000 "$DISK"
	out_has "generation $generation"
	expect "lease_ms" "$(cat "$STOP/lease_ms")" 50000
	expect "timeout_ms" "$(cat "$STOP/timeout_ms")" 2000
	tool 0 renew "$DISK" "$generation"
	tool 4 renew "$DISK" $((generation + 1))
	err_has "lease not renewed"
	tool 4 resume --generation $((generation + 1)) "$DISK"
	expect "state" "$(state)" stopped
	tool 0 resume --generation "$generation" "$DISK"
	tool 0 resume "$DISK"
	runs_as_before
	tool 2 stop "$DISK" there-is-none
	tool 0 stop --dry-run "$DISK"
	runs_as_before
	# What had stopped before is not resumed by one that fails.
	find_type 8
	device_of_host=$VDEV
	host=$STOP
	find_device
	expect "stop" "$(store "$host/state" stop)" ok
	device_set acknowledge=never
	tool 6 stop --timeout 300 "$device_of_host" "$DISK"
	expect "state of the host" "$(cat "$host/state")" stopped
	device_set acknowledge=at-once
	wait_until state_is running
	tool 0 resume "$device_of_host" "$DISK"
	expect "state of the host" "$(cat "$host/state")" running
	echo $USUAL_TIMEOUT_MS >"$host/timeout_ms"
}

test_user_who_may_not() {
	# shellcheck disable=SC2016 # the user's
	nobody='capsh --user=nobody --shell=/bin/sh --'
	$nobody -c 'virtio-stop list' >/tmp/out 2>/tmp/err || fail "no list: $(cat /tmp/err)"
	out_has "$VDEV"
	for command in "run $DISK -- true" "stop $DISK" "resume $DISK" "renew $DISK 1"; do
		status=0
		$nobody -c "virtio-stop $command" >/tmp/out 2>/tmp/err || status=$?
		expect "the status of '$command'" $status 8
	done
	runs_as_before
}

test_without_the_module() {
	# The module stays as long as a stop that was called off may yet be answered.
	tool 0 run "$DISK" -- true
	# Whoever has had the file open may be about to let it go.
	wait_until rmmod virtio_device_stop 2>/dev/null
	tool 0 list
	out_has "$VDEV"
	tool 0 --json status "$DISK"
	for command in "run $DISK -- true" "stop $DISK" "resume $DISK" "renew $DISK 1"; do
		# shellcheck disable=SC2086 # words
		tool 3 $command
		err_has "virtio_device_stop is not loaded"
	done
	tool 2 check "$DISK"
	load_module
	bind_again
	tool 0 run "$DISK" -- true
}

driver virtio_net virtio_scsi
run_tests test_run_ends_as_its_command test_command_has_its_name_arguments_and_streams \
	test_command_that_can_t_be_executed test_signals_reach_the_command test_tool_is_killed test_stop_fails \
	test_one_of_several_fails test_signal_calls_the_stop_off test_device_does_not_stand_still \
	test_requests_in_flight test_busy test_lease_is_renewed test_max_time test_until_eof \
	test_one_has_ended_and_another_does_not_resume test_freeze test_killed_while_frozen test_command_on_the_disk \
	test_stop_renew_resume test_user_who_may_not test_without_the_module
