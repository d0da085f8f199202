#!/bin/sh
# shellcheck shell=busybox
# SPDX-License-Identifier: GPL-2.0-only
#
# usage: test_allocations.sh [CYCLES]
#
# Memory that the kernel does not get: the allocations of a call fail by their numbers, each once, or if there are more than CYCLES of them,
# so many, evenly spread. Those of slabs, by the calling process: what the module's works allocate does not fail, nor do pages. Only a kernel
# with CONFIG_FAILSLAB can do that.

. ./functions.sh

CYCLES=${1:-1000}
# More than any call wants.
ALL=100000

MODULE=/vds/modules/virtio_device_stop.ko

# fail_allocation NUMBER CALL ARG...: sets WHETHER to "failed", or to "through" if the call has fewer allocations; WANTED to how many it had
# until then; REPLY; and OURS to whether the module was the one that wanted that memory, or had called who did.
fail_allocation() {
	dmesg -c >/dev/null
	said=$(./fail_allocation "$@" 2>&1) || fail "$*: $said"
	WHETHER=${said%% *} said=${said#* } OURS=false
	WANTED=${said%% *} REPLY=${said#* }
	! dmesg | grep -q '\[virtio_device_stop\]' || OURS=true
}

# Who wanted the memory may have been told by a stack, and who reserves addresses tells it once more. The log must have nothing else that
# is like one.
nothing_else_is_told() {
	traces=$(dmesg | grep -c 'Call Trace')
	explained=$(dmesg | grep -c -e 'FAULT_INJECTION: forcing a failure' -e 'vmalloc error')
	if [ "$traces" -ne "$explained" ]; then
		dmesg | grep -B 8 'Call Trace' | sed 's/^/# /'
		fail "the log has $traces stacks, of which $explained have an explanation"
	fi
	! trouble 'Call Trace' || exit 1
	dmesg -c >/dev/null
}

# fail_each CHECK CALL ARG...: makes the call, with another allocation each time that fails. After each, CHECK looks whether what it was
# answered is true, and brings everything back.
fail_each() {
	check=$1 failed=0 ours=0 replies=
	shift
	fail_once $ALL "$@"
	expect "the answer" "$WHETHER $REPLY" "through ok"
	cycles=$WANTED
	[ "$cycles" -le "$CYCLES" ] || cycles=$CYCLES
	for cycle in $(seq "$cycles"); do
		# What a test says is shown at its end only: whoever runs it would take it for one that stands still.
		[ $((cycle % 10)) -ne 0 ] || echo "# $1: $cycle of $cycles" >"/proc/$$/fd/1"
		fail_once $((cycle * WANTED_IN_ALL / cycles)) "$@"
		[ "$WHETHER" = failed ] || continue
		failed=$((failed + 1))
		! $OURS || ours=$((ours + 1))
		case "$replies, " in *", $REPLY, "*) ;; *) replies="$replies, $REPLY" ;; esac
	done
	echo "# $1: $failed of $WANTED_IN_ALL allocations have failed, $ours of them the module's: ${replies#, }"
	[ $((2 * failed)) -gt "$cycles" ] || fail "of $cycles, only $failed have failed"
	[ $ours -gt 0 ] || fail "none of these was the module's"
}

fail_once() {
	fail_allocation "$@"
	[ "$1" -ne $ALL ] || WANTED_IN_ALL=$WANTED
	"$check"
	nothing_else_is_told
}

needs_no_memory() {
	fail_allocation 1 "$@"
	expect "$1" "$WHETHER $REPLY" "through ok"
}

# answered STATE: the answer is ok, and the state that, or it was running all the time.
answered() {
	case $REPLY in
	ok) expect "state" "$(state)" "$1" ;;
	"$ENOMEM") expect "state" "$(state)" running ;;
	*) fail "the answer is '$REPLY'" ;;
	esac
}

has_stopped() {
	answered stopped
	expect "resume" "$(store "$STOP/state" resume)" ok
	is_as_before
}

is_as_before() {
	is_as_at_first || fail "it is not as before: $(state), $(cat "$STOP/reason")"
	expect "holder" "$(cat "$STOP/holder")" none
}

test_stop_by_sysfs() {
	start_fio
	fail_each has_stopped write "$STOP/state" stop
	more_complete
	stop_fio
}

test_resume_by_sysfs_needs_none() {
	stop
	needs_no_memory write "$STOP/state" resume
	is_as_before
}

# The owner has ended with its call.
has_had_an_owner() {
	wait_until state_is running
	answered running
	is_as_before
}

test_stop_by_an_owner() {
	start_fio
	fail_each has_had_an_owner stop "$VDEV"
	more_complete
	stop_fio
}

test_owner_gets_ready() {
	fail_each has_had_an_owner open "$VDEV"
	fail_each has_had_an_owner add "$VDEV"
}

test_owner_resumes_and_goes_without() {
	for call in report renew resume close; do
		needs_no_memory $call "$VDEV"
		wait_until state_is running
		is_as_before
	done
}

bind_before() {
	wait_until rmmod virtio_device_stop
	bind_again
	load_module
}

# The module itself wants none. If the driver does not get what it needs for its virtqueues, it begins again without the feature. Not more
# than the first few: of what comes next the kernel forgets to note that it is missing, and warns when the driver goes.
test_disk_is_negotiated_with_in_place() {
	bind_before
	again=0
	for number in 1 2 3 4; do
		fail_allocation $number write "$STOP/renegotiate" 1
		case $REPLY in
		ok) expect "state" "$(state)" running ;;
		"$EOPNOTSUPP")
			again=$((again + 1))
			expect "state" "$(state) $(cat "$STOP/reason")" "unavailable bound_before"
			;;
		*) fail "the answer is '$REPLY'" ;;
		esac
		nothing_else_is_told
		io_works
		expect "renegotiate" "$(store "$STOP/renegotiate" 1)" ok
		expect "state" "$(state)" running
		bind_before
	done
	[ $again -gt 0 ] || fail "the driver had all the memory that it wanted"
	bind_again
}

# The device may be left alone, which the log says then. It works in any case.
is_loaded() {
	case $REPLY in
	ok)
		if [ -d "$STOP" ]; then
			stop
			resume
		else
			left_alone=$((left_alone + 1))
			dmesg | grep -q "$VDEV: can't be attached to" || fail "nobody says that it was left alone"
		fi
		more_complete
		wait_until rmmod virtio_device_stop
		;;
	*) [ ! -d /sys/module/virtio_device_stop ] || fail "it is there, in spite of '$REPLY'" ;;
	esac
}

# With as few devices as there can be.
test_module_is_loaded() {
	left_alone=0
	others=$(others)
	# However the test ends.
	trap bind_others EXIT
	for device in $others; do
		echo "$device" >/sys/bus/pci/drivers/virtio-pci/unbind
	done
	start_fio
	wait_until rmmod virtio_device_stop
	fail_each is_loaded insert "$MODULE"
	stop_fio
	load_module
	[ $left_alone -gt 0 ] || fail "the device had all the memory that it wanted"
}

bind_others() {
	for device in $others; do
		echo "$device" >/sys/bus/pci/drivers/virtio-pci/bind
	done
}

# The PCI functions of all virtio devices but this one's.
others() {
	for device in /sys/bus/virtio/devices/*; do
		device=$(readlink -f "$device/..")
		[ "$device" = "$(pci)" ] || echo "${device##*/}"
	done
}

has_gone() {
	[ "$REPLY" = ok ] || fail "the answer is '$REPLY'"
	[ ! -d /sys/module/virtio_device_stop ] || fail "it is still there"
	more_complete
	load_module
}

test_module_is_removed() {
	start_fio
	fail_each has_gone remove virtio_device_stop
	stop_fio
}

if [ ! -e /proc/self/fail-nth ]; then
	ktap_print_header
	ktap_skip_all "the kernel has no CONFIG_FAULT_INJECTION"
	exit "$KSFT_SKIP"
fi
echo N >/sys/kernel/debug/failslab/ignore-gfp-wait

run_tests test_stop_by_sysfs test_resume_by_sysfs_needs_none test_stop_by_an_owner test_owner_gets_ready \
	test_owner_resumes_and_goes_without test_disk_is_negotiated_with_in_place test_module_is_loaded test_module_is_removed
