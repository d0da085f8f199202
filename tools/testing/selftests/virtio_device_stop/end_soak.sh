#!/bin/sh
# shellcheck shell=busybox
# SPDX-License-Identifier: GPL-2.0-only
#
# usage: end_soak.sh MINUTES SEED
#        end_soak.sh cycles CYCLES
#
# For so long, at random: a device misbehaves, an agent stops it in one way or another, and something else happens meanwhile. All the
# time there is verified load on "disk", "host" and "nic", which is never to be lost. "swap" is a disk to swap to; "plugged", a disk, and
# "other_nic" lose their drivers, and come and go. The same SEED makes the same choices. In the end both sides have counted the same.
# Or CYCLES stops and resumes of the disk, under verified load, by agents that do nothing else.

DEVICE=disk
# shellcheck disable=SC2034 # for traffic.sh
BLOCK_DEVICES="disk host"
# shellcheck source=tools/testing/selftests/virtio_device_stop/traffic.sh
. ./traffic.sh
# shellcheck source=tools/testing/selftests/virtio_device_stop/owner.sh
. ./owner.sh
# shellcheck source=tools/testing/selftests/virtio_device_stop/states.sh
. ./states.sh
# shellcheck source=tools/testing/selftests/virtio_device_stop/soak.sh
. ./soak.sh
# shellcheck source=tools/testing/selftests/virtio_device_stop/accounts.sh
. ./accounts.sh

PATIENCE=150
# More lines than an hour takes, and all of as many digits.
FIRST=100000000
LOADED="disk host nic"
# shellcheck disable=SC2034 # for states.sh
TIMEOUT_MS=2000
# By how much the kernel's own memory may grow, in KiB.
MEMORY=4096
STEPS=0
SWAPS=0
BURSTS=0

# random END: sets CHOICE to a number below it. The lowest bits of such a generator repeat too soon.
random() {
	RANDOM_STATE=$(((RANDOM_STATE * 1103515245 + 12345) & 0x7fffffff))
	CHOICE=$(((RANDOM_STATE >> 12) % $1))
}

# choose WORD...: sets CHOSEN to one of them.
choose() {
	random $#
	shift $CHOICE
	CHOSEN=$1
}

# All choices of a step are made before it begins, so that they depend on nothing else.
draw() {
	choose agent agent agent agent agent agent agent agent agent agent agent agent burst burst \
		plugged plugged plugged plugged other_nic other_nic renegotiated swap
	STEP=$CHOSEN
	choose disk disk host nic
	TARGET=$CHOSEN
	choose none none none late hold shuffled deep silent unresumed given_up drops forgets other_form
	MISBEHAVIOUR=$CHOSEN
	choose sysfs sysfs lease killed crossed owner owner_leaves owner_killed owner_killed_early call_off all
	AGENT=$CHOSEN
	choose none none none reset unit reload processor readers
	EVENT=$CHOSEN
	choose 30 300 2000
	SHORT=$CHOSEN
	choose unplugged removed unbound
	EXIT=$CHOSEN
	# shellcheck disable=SC2086 # a word a state
	choose $STATES random_status random_status io_errors
	CONDITION=$CHOSEN
	random 300
	PAUSE=$CHOICE
	# A module that leaves a device which does not resume breaks its virtqueues.
	[ "$MISBEHAVIOUR-$EVENT" != unresumed-reload ] || EVENT=none
}

# rests: it runs, and is nobody's.
rests() {
	state_is running && holds "$STOP/holder" none
}

# settle: everything is as it was. What has been stopped has to have resumed by itself: nobody resumes it here.
settle() {
	for name in $LOADED; do
		use "$name"
		device_do behave
	done
	for name in $LOADED; do
		use "$name"
		wait_until rests
		store "$STOP/timeout_ms" $USUAL_TIMEOUT_MS >/dev/null
		store "$STOP/lease_ms" 0 >/dev/null
	done
	all_go_on
	for name in $LOADED; do
		use "$name"
		no_breach
		device_do forget-breaches
	done
	rm -f $EXPECTED_BREACH
	dmesg_is_clean || fail "the kernel has complained"
	dmesg -c >/dev/null
}

step_agent() {
	use "$TARGET"
	misbehave
	before="$(stat stops) $(stat resumes)"
	expiries=$(stat lease_expiries)
	begin_step "$TARGET"
	use "$TARGET"
	"agent_$AGENT"
	! is_plain || expect "stops and resumes" "$(stat stops) $(stat resumes)" "$((${before% *} + 1)) $((${before#* } + 1))"
	# One that takes the other form of a resume takes no other until it has resumed.
	[ "$MISBEHAVIOUR" != other_form ] || wait_until rests
	# What was given up is not to be taken for unanswered.
	store "$STOP/timeout_ms" $USUAL_TIMEOUT_MS >/dev/null
	# The event may wait for what the device does not do.
	device_do behave
	if [ "$EVENT" = reload ]; then
		wait_until rests
		let_unload
		# Of a module that was loaded anew.
		expiries=0
	fi
	event_is_over
}

# let_unload: a device that did not answer is watched until another stop has ended, and keeps the module until then.
let_unload() {
	for name in $LOADED; do
		use "$name"
		store "$STOP/state" stop >/dev/null 2>&1
		store "$STOP/state" resume >/dev/null 2>&1
	done
	use "$TARGET"
}

# no_lease_has_ended: of whoever resumes what it has stopped, or has a file that is closed.
no_lease_has_ended() {
	case $AGENT in lease | killed | crossed) return ;; esac
	use "$TARGET"
	[ "$(stat lease_expiries)" -le "$expiries" ] || fail "only its lease has ended the stop"
}

# Again and again, by agents of all three at once. Each stop is counted, and each resume.
step_burst() {
	set --
	for name in $LOADED; do
		use "$name"
		set -- "$@" "$STOP/state" stop "$STOP/state" resume
		stat stops >"/tmp/stops_$name"
		stat resumes >"/tmp/resumes_$name"
	done
	./at_once 20 "$@" >/tmp/at_once 2>&1 || fail "$(cat /tmp/at_once)"
	for name in $LOADED; do
		use "$name"
		expect "stops of $name" "$(stat stops)" $(($(cat "/tmp/stops_$name") + 20))
		expect "resumes of $name" "$(stat resumes)" $(($(cat "/tmp/resumes_$name") + 20))
	done
	BURSTS=$((BURSTS + 1))
}

tell() {
	now
	set --
	for name in $LOADED; do
		use "$name"
		set -- "$@" "$name $(device_get counters.stops.acknowledged) stops"
	done
	echo "# $((NOW / 1000)) s: $STEPS steps of seed $SEED, $BURSTS bursts and $SWAPS times without memory among them; $*"
}

test_random() {
	start_load host /dev/sda unit1 /dev/sdb
	all_go_on
	RANDOM_STATE=$SEED
	now
	end=$((NOW + MINUTES * 60000))
	told_at=$NOW
	while now && [ "$NOW" -lt $end ]; do
		draw
		STEPS=$((STEPS + 1))
		case $STEP in
		agent) what="$TARGET $MISBEHAVIOUR $AGENT $EVENT $SHORT $PAUSE" ;;
		plugged) what="$CONDITION $EXIT" ;;
		other_nic) what=$CONDITION ;;
		*) what= ;;
		esac
		echo "# $((NOW / 1000)) s, step $STEPS: $STEP $what"
		"step_$STEP"
		settle
		if [ "$STEP" = agent ]; then
			no_lease_has_ended
			end_step "$TARGET"
		fi
		if [ $((NOW - told_at)) -ge 60000 ]; then
			told_at=$NOW
			tell
		fi
	done
	tell
	end_load
	let_unload
	for name in $LOADED swap; do
		accounts "$name"
	done
}

# stop_by_owner COUNT: by an owner, so many times.
stop_by_owner() {
	yes "stop
resume" | head -n $((2 * $1)) | ./owner "$(vdevs disk)" | sort | uniq -c | xargs >/tmp/owner
	expect "answers" "$(cat /tmp/owner)" "$((2 * $1)) ok 1 ready"
}

# By two kinds of agents in turn.
test_cycles() {
	start_disks
	more_complete
	use disk
	echo 600000 >"$STOP/timeout_ms"
	# By an agent at a time.
	part=$(((CYCLES + 1) / 2))
	[ $part -le 2000 ] || part=2000
	done=0
	now
	began=$NOW
	while [ $done -lt "$CYCLES" ]; do
		if [ $((done / part % 2)) = 0 ]; then
			./at_once $part "$STOP/state" stop "$STOP/state" resume >/tmp/at_once 2>&1 || fail "$(cat /tmp/at_once)"
		else
			stop_by_owner $part
		fi
		done=$((done + part))
		now
		echo "# $done of $CYCLES cycles in $(((NOW - began) / 1000)) s"
		more_complete
	done
	end_disks
	accounts disk
	expect "stops" "$(stat stops)" "$done"
	expect "resumes" "$(stat resumes)" "$done"
	expect "stops that the device has acknowledged" "$(since disk stops.acknowledged)" "$done"
}

set_up_all() {
	load_module
	driver virtio_blk
	DEVICE=plugged
	plug
	DEVICE=disk
	find_devices 0 1
	find_names
	mkswap "/dev/$(disk swap)" >/dev/null && swapon "/dev/$(disk swap)" || fail "no swap"
	# What swaps out takes from what is kept free, for as long as that waits for the disk.
	echo 16384 >/proc/sys/vm/min_free_kbytes
	mount -t tmpfs -o size=100% tmpfs /mnt
	take_memory
	for name in $LOADED swap; do
		begin_accounts "$name"
	done
	look_at_the_guest >/tmp/guest_at_first
	DEVICE=disk
	find_device
}

soak() {
	set_up_all
	"test_$1"
	compare_the_guest
	DEVICE=plugged
	unplug
	wait_until rmmod virtio_device_stop
	wait_until nobody_hangs
	dmesg_is_clean || fail "the kernel has complained"
}

if [ "$1" = cycles ]; then
	WHAT=cycles CYCLES=$2
else
	WHAT=random MINUTES=$1 SEED=$2
	echo "# seed $SEED, for $MINUTES minutes"
fi
mkdir -p /mnt
if (soak "$WHAT"); then echo "ok soak"; else echo "not ok soak${SEED:+, seed $SEED}"; fi
