# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=busybox
#
# Shared by all tests of this project. They run in a guest with devices of vfio-user-virtio: /dev/vds/device is their control
# socket, /dev/vds/qmp QEMU's monitor. Each test is a function test_*; run_tests runs those that it is given. A suite has the
# functions set_up, before the first test, and clean_up, which brings everything back to where a test begins. No test asserts how
# long something takes, but that it takes no less than it must; none on a state that passes by itself.

# shellcheck source=/dev/null
. ../kselftest/ktap_helpers.sh

# A bound for every wait, in seconds: a guest under emulation on a busy machine is slow.
PATIENCE=180

# Not fq_codel, which is Debian's default: that drops frames which have waited for a tenth of a second, as they may while an interface
# is stopped, and counts them where no interface shows them. For interfaces that come from now on.
[ ! -w /proc/sys/net/core/default_qdisc ] || echo pfifo_fast >/proc/sys/net/core/default_qdisc

exec 3<>/dev/vds/device
DEVICE_REQUEST=0

# device JSON: sends a request about the device $DEVICE to its control socket, without "v", "id" and "device"; sets ANSWER to the
# answer's value. Nothing comes unasked. What is lost on the serial line is sent again: nothing has come, or the complaint about a
# request whose beginning was lost. So there may be a second answer, which the next request passes over.
device() {
	now
	DEVICE_REQUEST=$((DEVICE_REQUEST + 1))
	request_id="\"id\":\"$NOW-$DEVICE_REQUEST\""
	attempts=$((PATIENCE / 10))
	while [ $attempts -gt 0 ]; do
		echo "{\"v\":1,$request_id,\"device\":\"$DEVICE\",$1}" >&3
		while read -r -t 10 answer <&3; do
			case $answer in
			*"$request_id"*)
				case $answer in *'"error"'*) fail "the device says: $answer" ;; esac
				ANSWER=${answer#*\"value\":}
				ANSWER=${ANSWER%\}}
				return
				;;
			'{"v":1,"id":"'*) ;;
			*) break ;;
			esac
		done
		attempts=$((attempts - 1))
	done
	fail "the device does not answer: $1"
}

# device_get PATH: one value of the device's report, for example counters.requests.in_flight.
device_get() {
	device "\"get\":\"$1\""
	echo "$ANSWER"
}

# kind NAME: how many requests of that kind the device has completed.
kind() {
	device '"get":"counters.requests.kinds"'
	case $ANSWER in
	*"\"$1\":"*)
		ANSWER=${ANSWER#*\""$1"\":}
		echo "${ANSWER%%[,\}]*}"
		;;
	*) echo 0 ;;
	esac
}

# device_do ACTION
device_do() {
	device "\"do\":\"$1\""
}

# device_set SETTING=VALUE...
device_set() {
	for pair; do
		device "\"set\":{\"${pair%%=*}\":\"${pair#*=}\"}"
	done
}

# qmp COMMAND [ARGUMENTS]: sends a command to QEMU's monitor, with its arguments as JSON; prints the answer. What is lost on the serial
# line, and not answered, is sent again: QEMU then says of a device that it is there already, or is about to go.
qmp() {
	exec 4<>/dev/vds/qmp
	attempts=$((PATIENCE / 10))
	while [ $attempts -gt 0 ]; do
		echo "{\"execute\":\"$1\",\"arguments\":${2:-{\}}}" >&4
		while read -r -t 10 answer <&4; do
			case $answer in
			*'"return"'* | *'"error"'*)
				echo "$answer"
				return
				;;
			esac
		done
		attempts=$((attempts - 1))
	done
	echo "QEMU does not answer: $1" >&2
	exit 1
}

# A subtest is a function that runs in a subshell: to leave it is to fail.
fail() {
	echo "# $*"
	exit 1
}

# expect WHAT ACTUAL EXPECTED. Two complaints of the device, each of which is the output of a subshell that has failed, are not equal.
expect() {
	case $2 in "# the device "*) fail "$1: ${2#\# }" ;; esac
	[ "$2" = "$3" ] || fail "$1 is '$2', not '$3'"
}

# wait_until COMMAND...: waits for a condition.
wait_until() {
	now
	wait_begin=$NOW
	until "$@"; do
		now
		if [ $((NOW - wait_begin)) -ge $((PATIENCE * 1000)) ]; then
			echo "# waited for $PATIENCE s: $*"
			who_waits
			exit 1
		fi
		usleep 5000
	done
}

# who_waits: prints each process with what it waits for in the kernel, and what the device says of itself, which may take long.
who_waits() {
	for process in /proc/[0-9]*; do
		[ -s "$process/cmdline" ] || hangs "${process#/proc/}" || continue
		echo "# ${process#/proc/} $(cat "$process/comm" 2>/dev/null): $(sed -n 's/^State:.//p' "$process/status" 2>/dev/null)"
		sed 's/^/#   /' "$process/stack" 2>/dev/null
	done
	echo "# the device: $(device_get '')"
}

# holds FILE TEXT: without a new process, which takes long under emulation.
holds() {
	local held
	read -r held <"$1" && [ "$held" = "$2" ]
}

# now: sets NOW to the time since boot, in milliseconds. Without a new process, which takes long under emulation.
now() {
	read -r NOW rest </proc/uptime
	NOW=${NOW%.*}${NOW#*.}0
}

# store FILE TEXT: prints why it can't be written there, or "ok".
store() {
	if message=$( (echo "$2" >"$1") 2>&1); then
		echo ok
	else
		echo "${message##*: }"
	fi
}

# shellcheck disable=SC2034 # for the tests
{
	EPERM="Operation not permitted"
	EINTR="Interrupted system call"
	EIO="Input/output error"
	ENXIO="No such device or address"
	EACCES="Permission denied"
	ENOMEM="Cannot allocate memory"
	EBUSY="Device or resource busy"
	ENODEV="No such device"
	ENOENT="No such file or directory"
	EINVAL="Invalid argument"
	ERANGE="Numerical result out of range"
	EOPNOTSUPP="Operation not supported"
	ETIMEDOUT="Connection timed out"
	ESTALE="Stale file handle"
	ECANCELED="Operation canceled"
}

# driver NAME...: each is there.
driver() {
	local name
	for name; do
		[ -d "/sys/module/$name" ] || modprobe "$name" || return
	done
}

# disk SERIAL: the name of the disk with that serial number.
disk() {
	local disk serial
	for disk in /sys/block/vd*; do
		# No end of line comes with it.
		read -r serial <"$disk/serial"
		[ "$serial" != "$1" ] || echo "${disk##*/}"
	done
}

disk_is_there() {
	[ -n "$(disk "$1")" ]
}

disk_is_gone() {
	[ -z "$(disk "$1")" ]
}

# plug: the disk "plugged" comes, in the slot spare0, and is DISK. Its socket is in the file "plugged_socket".
plug() {
	added=$(qmp device_add "{\"driver\":\"vfio-user-pci\",\"id\":\"plugged\",\"bus\":\"spare0\",
		\"socket\":{\"type\":\"unix\",\"path\":\"$(cat plugged_socket)\"}}" | tr -d '\n')
	case $added in *Duplicate*) ;; *'"error"'* | '') fail "$added" ;; esac
	wait_until disk_is_there plugged
	DISK=$(disk plugged)
}

# unplug: QEMU lets it go when the guest does. The device "plugged" is DEVICE.
unplug() {
	looks=0
	wait_until unplugged
}

# Asks again from time to time: a guest that has only just seen a device come does not hear the first request.
unplugged() {
	[ "$(device_get connected)" = true ] || return 0
	[ $((looks % 200)) -ne 0 ] || qmp device_del '{"id":"plugged"}' >/dev/null
	looks=$((looks + 1))
	return 1
}

# io_works: the disk reads what is written to it.
io_works() {
	head -c 65536 /dev/urandom >/tmp/pattern
	dd if=/tmp/pattern of="/dev/$DISK" bs=65536 count=1 seek=500 oflag=direct 2>/dev/null || fail "can't write"
	dd if="/dev/$DISK" of=/tmp/read bs=65536 count=1 skip=500 iflag=direct 2>/dev/null || fail "can't read"
	cmp /tmp/pattern /tmp/read || fail "read other than what was written"
	expect "requests in flight" "$(device_get counters.requests.in_flight)" 0
}

# start_fio: random writes to the disk, each verified later, until stop_fio.
start_fio() {
	start_fio_on "/dev/$DISK"
}

# start_fio_on FILE
start_fio_on() {
	fio --name=verify --filename="$1" --size=32M --rw=randwrite --bs=4k --iodepth=16 --ioengine=libaio --direct=1 \
		--verify=crc32c --verify_fatal=1 --verify_backlog=64 --verify_async=0 --time_based --runtime=7200 --eta=never \
		>/tmp/fio 2>&1 &
	FIO=$!
	more_complete
}

# more_complete: waits until the device has completed a hundred more requests.
more_complete() {
	wait_until completed_more_than $(($(device_get counters.requests.completed) + 100))
}

completed_more_than() {
	device '"get":"counters.requests.completed"'
	[ "$ANSWER" -gt "$1" ]
}

taken_more_than() {
	device '"get":"counters.requests.taken"'
	[ "$ANSWER" -gt "$1" ]
}

in_flight_at_least() {
	device '"get":"counters.requests.in_flight"'
	[ "$ANSWER" -ge "$1" ]
}

# waiting: how many requests wait for the disk, those that its driver has not got yet included.
waiting() {
	# shellcheck disable=SC2046 # a word a field
	set -- $(cat "/sys/block/$DISK/stat")
	echo "$9"
}

waiting_are() {
	[ "$(waiting)" = "$1" ]
}

waiting_at_least() {
	[ "$(waiting)" -ge "$1" ]
}

# stop_fio: ends fio, and makes sure that it has found no error.
stop_fio() {
	end_fio
	fio_found_no_error || fail "fio found an error"
}

end_fio() {
	kill -INT "$FIO"
	wait "$FIO"
}

fio_found_no_error() {
	if ! grep -q 'err= 0' /tmp/fio || grep -qi 'verify: bad\|verify failed\|fio: .*error' /tmp/fio; then
		sed 's/^/# /' /tmp/fio
		return 1
	fi
}

# The kernel's own words for what must never be there.
TROUBLE='BUG|WARNING|Oops|KASAN|UBSAN|INFO:|blocked for more|lockup|I/O error|cut here|Call Trace'

# The data races that a kernel with KCSAN reports are not judged here, but when the guest has ended: most are the kernel's own.
kernel_says() {
	dmesg | grep -v 'BUG: KCSAN: '
}

# trouble [EXCEPT]
trouble() {
	kernel_says | grep -E "$TROUBLE" | grep -v "${1:-^$}" | sed 's/^/# /' | grep .
}

# Says all around it: a "Call Trace" alone does not tell what the trouble is.
dmesg_is_clean() {
	if kernel_says | grep -qE "$TROUBLE"; then
		kernel_says | grep -E -B 20 -A 40 "$TROUBLE" | head -n 200 | sed 's/^/# /'
		return 1
	fi
}

# The kernel may have logged I/O errors, but nothing else. Forgets them.
io_errors_are_expected() {
	trouble 'I/O error' && fail "the log has more than I/O errors"
	dmesg -c >/dev/null
}

# hangs PID: the task waits for what can't be interrupted.
hangs() {
	grep -qs '^State:.D' "/proc/$1/status"
}

nobody_hangs() {
	! grep -qs '^State:.D' /proc/[0-9]*/status
}

# Names the breach that the test expects, and that is no fault then.
EXPECTED_BREACH=/tmp/expected-breach

# no_breach: but for the expected one. The judge keeps 64.
no_breach() {
	breaches=$(device_get breaches)
	[ ! -e $EXPECTED_BREACH ] || breaches=$(echo "$breaches" | sed "s/$(cat $EXPECTED_BREACH)//g")
	case $breaches in *'"rule"'*) fail "the driver broke the protocol: $breaches" ;; esac
	[ "$(device_get breach_count)" -le 64 ] || fail "the driver broke the protocol too often to tell how"
}

# The processes that a test has started.
PROCESSES=/sys/fs/cgroup/virtio_device_stop

# run_test FUNCTION: in a subshell. What it leaves behind, however it has ended, is killed, and has not got the standard output, for
# whose end the runner waits.
run_test() {
	(echo 0 >"$PROCESSES/cgroup.procs" && "$1") >/tmp/told 2>&1
	ended=$?
	cat /tmp/told
	if ! nothing_is_left; then
		echo 1 >"$PROCESSES/cgroup.kill"
	fi
	return $ended
}

nothing_is_left() {
	! read -r _ <"$PROCESSES/cgroup.procs"
}

# clean_up_after: what was killed may have waited for a device that only now works again.
clean_up_after() {
	clean_up
	wait_until nothing_is_left
}

# run_tests FUNCTION...: each is a subtest, from a clean start; dmesg and the device's judge have a look after each. Only those in the file
# "only.PROGRAM", if that is there.
run_tests() {
	# shellcheck disable=SC2046 # a word a function
	[ ! -e "only.${0##*/}" ] || set -- $(cat "only.${0##*/}")
	ktap_print_header
	ktap_set_plan $#
	# The runner's sed shows a line when the next one comes.
	ktap_print_msg
	mkdir -p "$PROCESSES" || ktap_exit_fail_msg "no cgroup"
	set_up
	for test; do
		clean_up_after
		dmesg -c >/dev/null
		device_do forget-breaches
		rm -f $EXPECTED_BREACH
		if run_test "$test" && (no_breach) && dmesg_is_clean; then
			ktap_test_pass "$test"
		else
			ktap_test_fail "$test"
		fi
		ktap_print_msg
	done
	clean_up_after
	ktap_finished
}
