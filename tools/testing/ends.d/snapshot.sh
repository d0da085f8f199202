# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
# shellcheck shell=bash disable=SC2016,SC2154 # the guest's variables; shared with tools/testing/ends
#
# The host copies the image of a disk on which a database is written to.

end_snapshot() {
	start_agents
	check "a database is written to" in_debian "$write_database"
	check "transactions are committed" wait_until 120 has_committed 1010
	check "the host copies the disk while it runs" sh -c "$copy" _ "$devices"
	check "what it has copied is torn, whatever is repaired in it" copy_is_torn
	check "the host copies it while it stands still" while_stopped /srv -- sh -c "$copy" _ "$devices"
	check "what it has copied is whole" is_whole "$devices/copy"
	check "the database in it needs no repair, and has what was committed last" copy_has_last_transaction
	check "more transactions are committed" wait_until 120 has_committed $(($(cat "$devices/last") + 10))
	finish_agents
}

# A part at a time, each when the guest has committed something since, or has not for a second: a disk of the usual size takes longer. What
# the guest has told before goes to "last".
copy='
told() {
	grep -ao "committed [0-9]*" "$1/console" | tail -n 1 | grep -o "[0-9]*"
}
told "$1" >"$1/last"
for part in 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15; do
	before=$(told "$1")
	dd if="$1/data" of="$1/copy" bs=4M count=1 skip="$part" seek="$part" conv=notrunc status=none
	for tenth in 1 2 3 4 5 6 7 8 9 10; do
		[ "$(told "$1")" -eq "$before" ] || break
		sleep 0.1
	done
done'

# Each transaction moves an amount from one account to another, whose page is megabytes away (of a row, the database keeps the beginnings
# together): their sum never changes. It is told on the console once it is committed.
write_database='
sqlite3 /srv/database "CREATE TABLE last (number INTEGER); INSERT INTO last VALUES (1000);
	CREATE TABLE accounts (id INTEGER PRIMARY KEY, space BLOB, amount INTEGER);
	INSERT INTO accounts SELECT value, randomblob(3000000), 1000000000 FROM generate_series(0, 5)"
cat >/run/transactions <<"END"
number=1001
while sqlite3 /srv/database "PRAGMA synchronous=FULL; BEGIN; UPDATE last SET number = $number;
	UPDATE accounts SET amount = amount - $number WHERE id = $number % 6;
	UPDATE accounts SET amount = amount + $number WHERE id = ($number + 1 + $number % 5) % 6; COMMIT"; do
	echo "committed $number" >/dev/ttyS0
	number=$((number + 1))
done
END
systemd-run --quiet --unit=transactions sh /run/transactions'

has_committed() {
	local row
	row=$(grep -ao 'committed [0-9]*' "$devices/console" | tail -n 1)
	[ "${row#* }" -ge "$1" ] 2>/dev/null
}

# open_copy SCRIPT: prints the number of the last transaction in the copy's database, if that is in order, once the guest has done SCRIPT
# with a disk of the same contents.
open_copy() {
	dd if="$devices/copy" of="$devices/raw" bs=1M conv=notrunc status=none
	in_debian '
		disk=/dev/disk/by-id/virtio-raw
		blockdev --flushbufs "$disk"
		eval "$1" >&2
		mount "$disk" /media
		trap "umount /media" EXIT
		checked=$(sqlite3 /media/database "PRAGMA integrity_check")
		[ "$checked" = ok ] || { echo "$checked" >&2 && exit 1; }
		sum=$(sqlite3 /media/database "SELECT sum(amount) FROM accounts")
		[ "$sum" -eq 6000000000 ] || { echo "the sum of all accounts is $sum" >&2 && exit 1; }
		sqlite3 /media/database "SELECT number FROM last"' "$1"
}

# The transaction that follows may have been committed, but not told.
copy_has_last_transaction() {
	local number last
	last=$(cat "$devices/last")
	number=$(open_copy true) && { [ "$number" -eq "$last" ] || [ "$number" -eq $((last + 1)) ]; }
}

copy_is_torn() {
	local number
	if number=$(open_copy 'e2fsck -p "$disk" || [ $? -eq 1 ]' 2>"$devices/answer"); then
		echo "# # it has transaction $number"
		return 1
	fi
	sed 's/^/# # /' "$devices/answer"
}
