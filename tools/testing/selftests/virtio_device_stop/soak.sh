# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=busybox
#
# For end_soak.sh: what is done at random. What has been chosen is in MISBEHAVIOUR, AGENT and so on.

# How often the module was loaded anew, or the disk reset.
RELOADS=0
RESETS=0

# find_names: the virtio device of each name.
find_names() {
	for DEVICE in disk swap; do
		find_device
		echo "$VDEV" >"/tmp/vdev_$DEVICE"
	done
	find_type 8
	echo "$VDEV" >/tmp/vdev_host
	for nic in /sys/class/net/*/device; do
		[ -e "$nic" ] || continue
		read -r address <"${nic%/device}/address"
		VDEV=$(readlink -f "$nic")
		case $address in
		02:00:00:00:00:11) echo "${VDEV##*/}" >/tmp/vdev_nic ;;
		02:00:00:00:00:12) echo "${VDEV##*/}" >/tmp/vdev_other_nic ;;
		esac
	done
}

# use NAME: it is DEVICE, VDEV and STOP.
use() {
	DEVICE=$1
	read -r VDEV <"/tmp/vdev_$1"
	STOP=/sys/bus/virtio/devices/$VDEV/device_stop
}

pause() {
	usleep $((PAUSE * 1000))
}

# The device answers as it is to, in its own way, and nobody interferes.
is_plain() {
	case $MISBEHAVIOUR in none | hold | shuffled | deep | forgets) ;; *) return 1 ;; esac
	case $AGENT in sysfs | owner | all) ;; *) return 1 ;; esac
	case $EVENT in none | readers) ;; *) return 1 ;; esac
}

# may_be_given_up: by the module or its agent, so that the device may acknowledge what nobody counts.
may_be_given_up() {
	case $MISBEHAVIOUR in none | hold | shuffled | deep | forgets) ;; *) return 0 ;; esac
	case $AGENT in killed | crossed | owner_killed_early | call_off) return 0 ;; esac
	case $EVENT in reset | reload) ;; *) return 1 ;; esac
}

# misbehave: the device does. What it owes to its driver it keeps.
misbehave() {
	timeout=$USUAL_TIMEOUT_MS
	case $MISBEHAVIOUR in
	none) ;;
	hold) device_set io_hold=until-stop ;;
	# The order of frames counts.
	shuffled) [ "$DEVICE" = nic ] || device_set io_order=shuffled io_delay_us=2000 ;;
	deep) device_set io_depth=2 ;;
	forgets) device_set forget_notifications=true ;;
	late)
		device_set acknowledge=after:0-400 resume=after:0-400
		timeout=$SHORT
		;;
	silent)
		device_set acknowledge=never
		timeout=$SHORT
		;;
	unresumed)
		device_set resume=never
		timeout=$SHORT
		;;
	# Under VIRTIO_F_SUSPEND one that is dropped before the module has seen it looks as if it were never answered.
	drops) device_set "drop_stop=after:$(suspends && echo 300-600 || echo 0-300)" ;;
	given_up)
		if suspends; then
			device_set leave_requests=true
			[ "$DEVICE" = nic ] || device_set io_delay_us=20000
		else
			device_set acknowledge=given-up:20
			timeout=$SHORT
		fi
		;;
	other_form)
		if suspends; then
			device_set resume_form=cleared
			timeout=2000
		else
			device_set notify_when_stopped=true
		fi
		;;
	esac
	store "$STOP/timeout_ms" "$timeout" >/dev/null
	# For ever: what nobody resumes stays stopped.
	store "$STOP/lease_ms" 0 >/dev/null
	if may_be_given_up; then
		stopped=$TARGET
		[ "$AGENT" != all ] || stopped=$LOADED
		for name in $stopped; do
			echo $(($(cat "/tmp/given_up_$name") + 1)) >"/tmp/given_up_$name"
		done
	fi
	case $MISBEHAVIOUR in late | silent | unresumed | other_form) resumes_may_be_late ;; esac
}

# was_told ANSWER: it is documented; all is well where nothing is in the way.
was_told() {
	case $1 in
	ok) return ;;
	"$EBUSY"* | "$ETIMEDOUT"* | "$ECANCELED"* | "$ENODEV"* | "$ESTALE"*) ! is_plain && return ;;
	# The module is not there just now.
	*nonexistent* | "$EACCES" | "$ENOENT") [ "$EVENT" = reload ] && return ;;
	esac
	fail "the answer is '$1'"
}

ask() {
	was_told "$(store "$STOP/state" "$1" 2>/dev/null)"
}

asked() {
	owner_says "$1"
	was_told "$SAID"
}

# stop_alone: by a process of its own, ASKER, which can be killed. What it leaves stopped ends with its lease.
stop_alone() {
	store "$STOP/lease_ms" 1000 >/dev/null
	# shellcheck disable=SC2016 # the inner shell's
	sh -c 'echo stop >"$1"' _ "$STOP/state" 2>/dev/null &
	ASKER=$!
}

agent_sysfs() {
	ask stop
	begin_event
	pause
	ask resume
}

agent_lease() {
	store "$STOP/lease_ms" $((500 + PAUSE)) >/dev/null
	ask stop
	begin_event
}

agent_killed() {
	stop_alone
	begin_event
	pause
	kill -9 $ASKER 2>/dev/null
	wait $ASKER
}

agent_crossed() {
	stop_alone
	begin_event
	pause
	ask resume
	wait_until has_ended $ASKER
}

vdevs() {
	for name; do
		echo "/sys/bus/virtio/devices/$(cat "/tmp/vdev_$name")"
	done
}

# own NAME...: an owner has them, and has stopped them, or tried to.
own() {
	# shellcheck disable=SC2046 # a word a device
	owner $(vdevs "$@")
	asked stop
	begin_event
	pause
}

agent_owner() {
	own "$TARGET"
	asked resume
	owner_goes
}

agent_all() {
	# shellcheck disable=SC2086 # a word a device
	own $LOADED
	asked resume
	owner_goes
}

agent_owner_leaves() {
	own "$TARGET"
	owner_goes
}

# kill_owner [CHILD]: whoever has the file.
kill_owner() {
	kill -9 "$OWNER" "$@"
	exec 5>&- 6<&-
	wait "$OWNER"
}

agent_owner_killed() {
	own "$TARGET"
	kill_owner
}

# own_in_the_middle: a child of the owner, SAID, stops the device, or has just done so.
own_in_the_middle() {
	owner "$(vdevs "$TARGET")"
	owner_says also stop
	begin_event
	pause
}

agent_owner_killed_early() {
	own_in_the_middle
	kill_owner "$SAID"
}

agent_call_off() {
	own_in_the_middle
	child=$SAID
	asked call_off
	kill -9 "$child"
	owner_goes
}

# begin_event: beside the agent. It has not got the owner's standard input and output, whose ends the owner would wait for, nor does it
# talk with the device, as only one can.
begin_event() {
	case $EVENT in
	reset) RESETS=$((RESETS + 1)) ;;
	reload) RELOADS=$((RELOADS + 1)) ;;
	esac
	(exec 5>&- 6<&- && "event_$EVENT") >/tmp/event 2>&1 &
	EVENT_PROCESS=$!
}

event_is_over() {
	wait_until has_ended "$EVENT_PROCESS"
	wait "$EVENT_PROCESS" || fail "$EVENT: $(cat /tmp/event)"
}

event_none() {
	:
}

event_reset() {
	use disk
	echo 1 >"$(pci)/reset"
}

# The device refuses that.
event_unit() {
	./reset_unit /dev/sda 2>/dev/null
	return 0
}

# A device has time to resume before the module goes.
event_reload() {
	for name in disk host nic; do
		use "$name"
		store "$STOP/timeout_ms" "$USUAL_TIMEOUT_MS" >/dev/null
	done
	wait_until unload
	load_module
}

event_processor() {
	echo 0 >/sys/devices/system/cpu/cpu1/online
	echo 1 >/sys/devices/system/cpu/cpu1/online
}

event_readers() {
	for stop in /sys/bus/virtio/devices/*/device_stop; do
		cat "$stop"/[a-qs-z]* "${stop}_stats"/* "$stop/reason"
	done >/dev/null 2>&1
	return 0
}

# available: how much memory, in MiB.
available() {
	awk '/^MemAvailable/ { print int($2 / 1024) }' /proc/meminfo
}

# swapped_out: how many pages were written.
swapped_out() {
	awk '/^pswpout / { print $2 }' /proc/vmstat
}

# take_memory: all but 100 MiB, by what is never swapped out: the rest is soon filled.
take_memory() {
	mkdir /mnt/ballast && mount -t ramfs ramfs /mnt/ballast || fail "no memory that stays"
	# Pages of zeros are not written.
	dd if=/dev/zero bs=1M count=4 2>/dev/null | tr '\0' s >/mnt/ballast/filling
	dd if=/dev/zero of=/mnt/ballast/rest bs=1M count=$(($(available) - 100)) 2>/dev/null || fail "no ballast"
}

# fill_until_swapped: takes what can be swapped out until more of that was.
fill_until_swapped() {
	written=$(swapped_out)
	[ "$written" ] || fail "this kernel does not count what it swaps out"
	until [ "$(swapped_out)" -gt "$written" ]; do
		cat /mnt/ballast/filling >>/mnt/fill || fail "no memory to be had, and nothing was swapped out"
	done
}

# has_swapped_while_stopped LEASE_MS: what swaps out waits for the end of a lease. Not if it came later than that, or whoever looks has had
# to wait, too.
has_swapped_while_stopped() {
	store "$STOP/lease_ms" "$1" >/dev/null
	expiries=$(stat lease_expiries)
	expect "stop" "$(store "$STOP/state" stop)" ok
	fill_until_swapped
	if state_is stopped; then has_swapped=yes; else has_swapped=; fi
	wait_until rests
	expect "leases that have ended" "$(stat lease_expiries)" $((expiries + 1))
	[ "$has_swapped" ]
}

# Memory gets short.
step_swap() {
	use swap
	fill_until_swapped
	# A slow machine is given a longer one.
	has_swapped_while_stopped 5000 || has_swapped_while_stopped 20000 || has_swapped_while_stopped 60000 ||
		fail "nothing was swapped out while the disk was stopped"
	rm /mnt/fill
	SWAPS=$((SWAPS + 1))
}

# Its status reads as random bytes until its driver has gone: each request ends, with one of the errors that there are.
enter_random_status() {
	store "$STOP/timeout_ms" 100 >/dev/null
	device_set "show_status=random:$PAUSE"
	for request in stop resume stop "resume force"; do
		answer=$(store "$STOP/state" "$request")
		case $answer in
		ok | "$ENXIO" | "$EBUSY" | "$ETIMEDOUT" | "$EIO" | "$ENODEV" | "$ESTALE") ;;
		*) fail "$request of a device with a random status: '$answer'" ;;
		esac
	done
}

# Every second read fails, and whoever has asked for it is told, until its driver has gone. It stops and resumes all the same.
enter_io_errors() {
	rm -f /tmp/enough_reads /tmp/failed_reads
	failed=$(device_get counters.requests.failed)
	device_set io_error_every=2
	while [ ! -e /tmp/enough_reads ]; do
		dd if="/dev/$DISK" of=/dev/null bs=4k count=8 iflag=direct 2>/dev/null || echo failed >>/tmp/failed_reads
	done &
	reader=$!
	wait_until test -s /tmp/failed_reads
	stop
	pause
	resume
	rm /tmp/failed_reads
	wait_until test -s /tmp/failed_reads
	touch /tmp/enough_reads
	wait_until has_ended $reader
	[ "$(device_get counters.requests.failed)" -gt "$failed" ] || fail "the device has failed no request"
}

# A driver that is lied to breaks rules that it can't know of, and the kernel tells of I/O errors.
forgive() {
	case $CONDITION in
	random_status) device_do forget-breaches ;;
	io_errors) io_errors_are_expected ;;
	esac
}

# The disk that can be unplugged loses its driver, whatever state it is in. What was written to it is there when it is back.
step_plugged() {
	DEVICE=plugged
	find_device
	io_works
	enter "$CONDITION"
	case $EXIT in
	unplugged) unplug ;;
	removed) echo 1 >"$(pci)/remove" ;;
	unbound) echo "$VDEV" >/sys/bus/virtio/drivers/virtio_blk/unbind ;;
	esac
	device_do behave
	forgive
	case $EXIT in
	unplugged) plug ;;
	removed)
		echo 1 >/sys/bus/pci/rescan
		wait_until disk_is_there plugged
		;;
	unbound) echo "$VDEV" >/sys/bus/virtio/drivers/virtio_blk/bind ;;
	esac
	find_device
	driver_is_new
	dd if="/dev/$DISK" of=/tmp/read bs=65536 count=1 skip=500 iflag=direct 2>/dev/null || fail "can't read"
	cmp /tmp/pattern /tmp/read || fail "read other than what was written"
}

# Likewise a network card.
step_other_nic() {
	use other_nic
	# Whether a frame is lost is another matter.
	[ "$CONDITION" != io_errors ] || CONDITION=random_status
	enter "$CONDITION"
	echo "$VDEV" >/sys/bus/virtio/drivers/virtio_net/unbind
	device_do behave
	forgive
	echo "$VDEV" >/sys/bus/virtio/drivers/virtio_net/bind
	driver_is_new
	nic=$(echo "/sys/bus/virtio/devices/$VDEV/net/"*)
	nic=${nic##*/}
	/usr/sbin/ip link set "$nic" up
	wait_until holds "/sys/class/net/$nic/operstate" up
	frames "$nic" 50 --patience 120 >/tmp/other_frames 2>&1 || fail "$(cat /tmp/other_frames)"
}

# The module comes to a disk whose driver is there already, and that accepts its feature at the second attempt only.
step_renegotiated() {
	let_unload
	RELOADS=$((RELOADS + 1))
	wait_until unload
	DEVICE=plugged
	find_device
	bind_again
	io_works
	load_module
	expect "reason" "$(cat "$STOP/reason")" bound_before
	device_set refuse_to_stop=true
	expect "renegotiate" "$(store "$STOP/renegotiate" 1)" "$EOPNOTSUPP"
	io_works
	device_do behave
	expect "renegotiate" "$(store "$STOP/renegotiate" 1)" ok
	REQUEST=
	driver_is_new
	io_works
}

# A request that was pending has ended, and the device works.
driver_is_new() {
	[ -z "$REQUEST" ] || wait_until has_ended "$REQUEST"
	wait_until rests
	store "$STOP/timeout_ms" "$USUAL_TIMEOUT_MS" >/dev/null
	stop
	resume
	no_breach
	device_do forget-breaches
}
